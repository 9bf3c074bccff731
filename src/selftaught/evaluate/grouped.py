"""Whether an encoder serves all alike: the accuracy of the group that is served worst."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from selftaught.errors import UserError
from selftaught.evaluate.scores import Score, draws, probe

FEWEST = 10
"""Test samples of a group, below which its accuracy is chance."""


def worst_group(
    train: Any,
    test: Any,
    groups: np.ndarray,
    names: Mapping[int, str],
    *,
    seed: int = 0,
) -> Score:
    """Accuracy of the probe in the group of test samples in which it is lowest.

    Groups are no classes: hospitals, cameras, skin colors, weather. The probe does not know them.
    `Score.parts` has the accuracy of each, and "gap", what the worst lacks to the best. Groups of
    fewer than ten test samples are left out. The interval is that of the lowest of all groups, over
    resampled test samples; it is too optimistic where groups are many.

    Args:
        train, test: as of `probe`.
        groups: [M] numbers of the groups of the test samples that `probe` scores, in its order;
            below 0 where a sample is of none.
        names: of the groups, by number.
        seed: of `probe`.

    Raises:
        UserError: there are not two groups, or labels are missing, or features do not fit.
    """
    score = probe(train, test, seed=seed)
    assert score.correct is not None
    counts = {code: int((groups == code).sum()) for code in names}
    kept = {code: name for code, name in names.items() if counts[code] >= FEWEST}
    if len(kept) < 2:
        raise UserError(
            f"a worst group needs two groups of {FEWEST} test samples at least, and there are "
            f"{', '.join(f'{counts[c]} of {n}' for c, n in names.items()) or 'none'}: name "
            "another column with --groups, or give more test samples"
        )
    right = {name: score.correct[groups == code].mean() for code, name in kept.items()}
    parts = {name: 100 * float(share) for name, share in right.items()}
    worst = min(parts, key=lambda name: parts[name])
    left = len(names) - len(kept)
    return replace(
        score,
        name="worst group",
        value=parts[worst],
        n=sum(counts[code] for code in kept),
        protocol=f"{score.protocol}; {worst}, the worst of {len(kept)} groups"
        + (f", {left} of fewer than {FEWEST} test samples left out" if left else ""),
        correct=None,
        resampled=_resampled(score.correct, groups, [*kept]),
        parts=parts | {"gap": max(parts.values()) - parts[worst]},
    )


def _resampled(correct: np.ndarray, groups: np.ndarray, kept: list[int]) -> np.ndarray:
    """[R] the lowest accuracy of a group among resampled test samples."""
    lowest = []
    for rows in draws(len(correct)):
        of, right = groups[rows], correct[rows]
        lowest.append(min(right[of == code].mean() for code in kept if (of == code).any()))
    return 100 * np.array(lowest)
