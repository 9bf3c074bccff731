"""Which images cover what there is to see evenly: of what there is much, little is taken."""

import logging
from itertools import pairwise
from typing import Any, ClassVar, final

import numpy as np

from selftaught.curate.clusters import drawn, entropy, gini, levels
from selftaught.curate.embed import features
from selftaught.curate.settings import Balancing
from selftaught.curate.stage import Stage
from selftaught.data.source import digest
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

EACH = 20
"""Images of a finest cluster, where nobody says how many clusters there are."""
MOST = 4096
"""Finest clusters, where nobody says how many: what two cores do in minutes."""
FEWEST, COARSER = 4, 8
"""Clusters of the last level, at least, and of each level in one of the next, where nobody says."""


@final
class Balance(Stage[Balancing]):
    """A sample that is spread evenly over clusters of clusters."""

    name: ClassVar = "balance"
    options: ClassVar = Balancing

    def inputs(self, step: str) -> str:
        """The options and the features."""
        return digest(super().inputs(step), self.pool.record("embed").get("key", ""))

    def sizes(self, count: int) -> list[int]:
        """Clusters of each level, the finest first.

        Raises:
            UserError: those that were asked for do not fall.
        """
        asked = self.asked
        if asked.clusters:
            fall = [count, *asked.clusters]
            if any(a <= b for a, b in pairwise(fall)):
                raise UserError(
                    f"clusters={list(asked.clusters)} of {count:,} images: each level has fewer "
                    "than the one before it, the finest fewer than there are images"
                )
            return list(asked.clusters)
        found = [max(2, min(MOST, count // EACH))]
        while len(found) < asked.levels and found[-1] >= FEWEST * COARSER:
            found.append(found[-1] // COARSER)
        return found

    def gather(self) -> dict[str, Any]:
        """Each row with its clusters."""
        asked, found = self.asked, features(self.pool, self.alive)
        if len(found.rows) < 3:
            raise UserError(f"{len(found.rows)} images cannot be balanced: bring more")

        def told(what: str) -> None:
            log.info("balance: %s", what)

        tree = levels(
            found.vectors,
            self.sizes(len(found.rows)),
            asked.resampling,
            asked.nearest,
            asked.seed,
            told,
        )
        chosen = np.zeros(len(found.rows), bool)
        chosen[drawn(tree, asked.keep, asked.seed)] = True
        reason = np.where(chosen, "", "more of the same").astype(object)
        columns: dict[str, Any] = {"row": found.rows, "reason": reason}
        of = tree[0].of
        for n, level in enumerate(tree):
            of = of if not n else level.of[of]
            columns[f"cluster_{n + 1}"] = of.astype(np.int64)
        return columns

    def told(self, columns: Any) -> str:
        """How even clusters are, before and after."""
        last = max(name for name in columns if name.startswith("cluster_"))
        stays = columns["reason"] == ""
        k = int(columns[last].max()) + 1
        before, after = (
            np.bincount(columns[last][some], minlength=k) for some in (slice(None), stays)
        )
        return (
            f"entropy over {k:,} groups {entropy(before):.3f} before, {entropy(after):.3f} after "
            f"(1: all alike); Gini {gini(before):.2f}, {gini(after):.2f}"
        )
