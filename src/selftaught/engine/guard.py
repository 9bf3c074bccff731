"""Whether training on from good weights unlearns what they knew."""

import json
import logging
from pathlib import Path

import numpy as np
import torch

from selftaught import evaluate as evaluation
from selftaught.backbones import Encoder
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.errors import SelftaughtError
from selftaught.export.facts import content

log = logging.getLogger("selftaught")

FILE = "start.json"
"""In the run folder: the score before the first step, for runs that are resumed."""
LOOKS = (0.1, 0.3, 0.6)
"""Fractions of training after which the encoder is scored; the end is scored anyway."""
MOST = 2000
"""Labeled images that are looked at."""
POINTS = 2.0
"""Loss of k-NN, in points, that is told."""


class Guard:
    """Scores an encoder by its nearest neighbors now and then, against its start.

    Args:
        image: the encoder, with the weights to start from.
        samples: labeled.
        out: run folder.
        steps: of the training.
        resumed: whether the start's score lies in `out`.
    """

    def __init__(self, image: Encoder, samples: Samples, out: Path, steps: int, resumed: bool):
        labeled = np.flatnonzero(np.asarray(samples.labels) >= 0)
        some = np.random.default_rng(0).permutation(len(labeled))[:MOST]
        self.image, self.samples = image, select(samples, np.sort(labeled[some]))
        self.at = {max(1, int(part * steps)) for part in LOOKS}
        self.steps, self.warned = steps, False
        before = content(out / FILE).get("knn") if resumed else None
        if isinstance(before, int | float):
            self.start = float(before)
        else:
            self.start = self.score()
            (out / FILE).write_text(json.dumps({"knn": self.start}) + "\n")
        log.info("the weights that training starts from have a k-NN of %.1f %%", self.start)

    def __call__(self, step: int) -> None:
        """Look, where it is due after `step` steps."""
        if step in self.at and not self.warned:
            self.compare(self.score(), f"after {step / self.steps:.0%} of the training")

    def compare(self, now: float, when: str) -> None:
        """Warn where `now`, a k-NN in per cent, is below the start."""
        if now < self.start - POINTS:
            self.warned = True
            log.warning(
                "%s the k-NN is %.1f %%, and the weights that it started from had %.1f %%: "
                "training on unlearns them; a lower learning rate (--lr), a longer warm-up "
                "(--warmup) or the method that made the weights keeps more of them",
                when,
                now,
                self.start,
            )

    def score(self) -> float:
        with torch.random.fork_rng(devices=[]):  # training goes on as if nobody had looked
            return evaluation.knn(evaluation.embed(self.image, self.samples, workers=0)).value


def guard(image: Encoder, samples: Samples, out: Path, steps: int, resumed: bool) -> Guard | None:
    """A guard, where training starts from weights and labels are there to score them by."""
    # weights of a checkpoint are no start
    if not ((out / FILE).exists() if resumed else image.trained):
        return None
    if samples.labels is None:
        log.info("without labels nobody can tell whether training on unlearns the weights given")
        return None
    try:
        return Guard(image, samples, out, steps, resumed)
    except SelftaughtError as error:
        log.info("the weights given are not scored: %s", error)
        return None
