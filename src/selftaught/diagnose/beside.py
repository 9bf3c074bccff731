"""What can be wrong with an encoder beside what its training began with."""

import math
from dataclasses import dataclass

from selftaught.diagnose.rules import Rule


@dataclass(frozen=True)
class Beside:
    """The encoder beside what training began with, on the same held-out images; NaN where a figure
    was not looked at.

    Args:
        step, progress: steps done, fraction of the training done.
        now, start: k-NN, in per cent.
        images: that it is of.
        lost: points that k-NN has lost at least, by the interval of three standard errors of the
            difference on the same images (`evaluate.scores.difference`): looks are many, false
            alarms are not.
        dimensions, began: effective rank of the features now and then, where there are no labels.
    """

    step: int
    progress: float
    now: float = math.nan
    start: float = math.nan
    images: int = 0
    lost: float = math.nan
    dimensions: float = math.nan
    began: float = math.nan


_GENTLER = (
    "lower --lr; train fewer layers (--freeze N); hold features near those of the start (--anchor "
    "cosine:1.0); keep the batch norms' statistics of the start (--norm-statistics start); or keep "
    "the start as it is"
)

BESIDE: tuple[Rule[Beside], ...] = (
    Rule(
        "worse than where it began",
        lambda f: f.lost,
        0.0,
        "by k-NN {facts.now:.1f} % of {facts.images} held-out images are right, and where training "
        "began it was {facts.start:.1f} %: at least {figure:.1f} points are lost beyond noise",
        ("the learning rate is too high for weights that know something already",
         "batch norms have taken their statistics from augmented crops",
         "the method's task is not what these images differ by"),
        _GENTLER,
    ),
    Rule(
        "perhaps worse than where it began",
        lambda f: f.dimensions / f.began if f.began else None,
        0.5,
        "features use {facts.dimensions:.0f} dimensions, and where training began "
        "{facts.began:.0f} ({figure:.0%}, at least {limit:.0%} is usual); without labels that is a "
        "hint and no proof",
        ("the learning rate is too high for weights that know something already",
         "the method keeps only what its views have in common"),
        "label some hundred images, so that k-NN can tell (--labels); until then " + _GENTLER,
        below=True,
        severity="note",
    ),
)  # fmt: skip
