"""What can be wrong with a training before its first step."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selftaught.diagnose.rules import Rule


@dataclass(frozen=True)
class Before:
    """What is known before the first step.

    Args:
        method: its class.
        values: of the method's parameters, by their roles.
        images: samples in the dataset.
        batch: samples that are compared at once.
        compares: whether the loss compares samples of a batch.
        steps: of the training.
        optimizer: its name.
        lr: peak learning rate.
        paper_lr: the paper's own, and scaled to this batch; None where the optimizer is another.
        top: fraction of training at which the learning rate is highest.
        copy: whether there is a EMA copy (momentum encoder, EMA teacher).
        size, side: of the views and, in the middle, of the images' shorter sides; in pixels.
        half: share of the weights that are kept in half precision.
        constant, repeated: share of the images looked at that have one color, or that are copies
            of another one.
    """

    method: str
    values: Mapping[str, Sequence[float]]
    images: int
    batch: int
    compares: bool
    steps: int
    optimizer: str
    lr: float
    paper_lr: tuple[float, float] | None
    top: float
    copy: bool
    size: int
    side: int
    half: float
    constant: float
    repeated: float

    step = 0
    progress = 0.0

    @property
    def prototypes(self) -> int | None:
        """Groups that images are sorted into."""
        return max(map(int, self.values.get("prototypes", ())), default=None)

    @property
    def momentum(self) -> float | None:
        """Of the EMA copy, at the start."""
        return next(iter(self.values.get("momentum", ())), None) if self.copy else None

    @property
    def half_life(self) -> float | None:
        """Steps after which half of the EMA copy is new, as a fraction of the training."""
        if self.momentum is None or not 0 < self.momentum < 1:
            return None
        return math.log(0.5) / math.log(self.momentum) / self.steps

    @property
    def temperatures(self) -> Sequence[float]:
        """Of every softmax of the method."""
        return self.values.get("temperature", ())

    @property
    def hidden(self) -> float | None:
        """Smallest share of an image that is hidden."""
        return min(self.values.get("hidden share", ()), default=None)


_TOP_RATE = {"sgd": 30.0, "larc": 30.0, "lars": 100.0, "lars_tf": 100.0}
_TOP_RATE |= {"adam": 0.03, "adamw": 0.03, "adamw_bert": 0.03, "lamb": 0.1}
"""Peak learning rates above which an optimizer is not known to train anything."""


BEFORE: tuple[Rule[Before], ...] = (
    Rule(
        "constant images",
        lambda f: f.constant,
        0.9,
        "{figure:.0%} of the images looked at have a single color (at most {limit:.0%} may)",
        ("the files are empty or placeholders", "black and white of the data (--value-range) lie "
         "so far out that everything between them is one level"),
        "look at the images; `selftaught check` lists what is constant; set --value-range for "
        "float and 16-bit data",
        severity="failure",
    ),
    Rule(
        "some constant images",
        lambda f: f.constant if f.constant <= 0.9 else None,
        0.05,
        "{figure:.0%} of the images looked at have a single color (up to {limit:.0%} is usual)",
        ("placeholders for missing images", "empty tiles of larger images"),
        "leave them out: --quarantine takes a list of path,reason",
    ),
    Rule(
        "repeated images",
        lambda f: f.repeated,
        0.9,
        "{figure:.0%} of the images looked at are exact copies of another one (at most {limit:.0%} "
        "may be)",
        ("one file was copied under many names", "the images were written by a loop that never "
         "moved on"),
        "train on different images: nothing can be told apart in these",
        severity="failure",
    ),
    Rule(
        "duplicates",
        lambda f: f.repeated if f.repeated <= 0.9 else None,
        0.1,
        "{figure:.0%} of the images looked at are exact copies of another one (up to {limit:.0%} "
        "is usual)",
        ("the same files are in several folders", "frames of a video that stands still"),
        "keep one of each, and leave out the others: --quarantine takes a list of path,reason",
    ),
    Rule(
        "small images",
        lambda f: f.size / f.side,
        2.0,
        "views of {facts.size} px are cut from images whose shorter side is {facts.side} px in the "
        "middle ({figure:.1f} times as large, at most {limit:g})",
        ("--size is meant for larger images",),
        "use --size {facts.side} or less: enlarging adds cost and no detail",
        severity="note",
    ),
    Rule(
        "long warm-up",
        lambda f: f.top if f.steps >= 10 else None,
        0.5,
        "the learning rate is highest after {figure:.0%} of training (at most {limit:.0%} is "
        "usual): the warm-up is about as long as the training",
        ("--warmup is a fraction of training, and {figure:.2g} was taken for it",),
        "use --warmup 0.1 or less",
    ),
    Rule(
        "high learning rate",
        lambda f: f.lr / max(f.paper_lr) if f.paper_lr else None,
        100.0,
        "the peak learning rate {facts.lr:.3g} is {figure:.0f} times the paper's, which is "
        "{facts.paper_lr[1]:.3g} for a batch of {facts.batch} (at most {limit:g} times)",
        ("--lr was meant for another optimizer or in another unit",
         "the paper's rate was scaled to the batch by hand, and once more"),
        "leave --lr out, or start from {facts.paper_lr[1]:.3g}",
    ),
    Rule(
        "rate for optimizer",
        lambda f: f.lr / _TOP_RATE[f.optimizer]
        if f.paper_lr is None and f.optimizer in _TOP_RATE
        else None,
        1.0,
        "the peak learning rate {facts.lr:.3g} is {figure:.2g} times the largest that "
        "{facts.optimizer} is known to train with",
        ("the learning rate is one for SGD or LARS, which are hundreds of times higher",),
        "with adam, adamw or lamb start from 1e-3, with sgd from 0.03",
    ),
    Rule(
        "low learning rate",
        lambda f: f.lr / min(f.paper_lr) if f.paper_lr else None,
        0.01,
        "the peak learning rate {facts.lr:.3g} is {figure:.2g} times the paper's, which is "
        "{facts.paper_lr[1]:.3g} for a batch of {facts.batch} (at least {limit:g} times)",
        ("--lr was meant for another optimizer or in another unit",),
        "leave --lr out, or start from {facts.paper_lr[1]:.3g}",
        below=True,
    ),
    Rule(
        "small batch",
        lambda f: f.batch if f.compares else None,
        8,
        "{figure:.0f} images are compared at a time (at least {limit:.0f}): too few for "
        "batch norms, and for telling images from each other",
        ("--batch was lowered to save memory", "--accumulate splits the batch: each part is "
         "compared alone"),
        "raise --batch, with smaller --size or --backbone where memory is short; or take a method "
        "that compares nothing, such as mae or rotation",
        below=True,
    ),
    Rule(
        "fixed target",
        lambda f: f.momentum,
        1 - 1e-9,
        "the momentum of the EMA copy is {figure:g} (below 1 it has to be): the copy never moves",
        ("momentum was set to its end, 1, instead of its start",),
        "use a momentum of 0.99 for short and 0.996 for long trainings",
    ),
    Rule(
        "fast target",
        lambda f: f.momentum,
        0.5,
        "the momentum of the EMA copy starts at {figure:g} (at least {limit:g}): the copy is all "
        "but the network itself",
        ("momentum was taken for the share of the network, not of the copy",),
        "use a momentum of 0.99 for short and 0.996 for long trainings",
        below=True,
    ),
    Rule(
        "slow target",
        lambda f: f.half_life if f.steps >= 50 else None,
        1.0,
        "half of the EMA copy is new only after {figure:.1f} times the whole training of "
        "{facts.steps} steps (at most {limit:g} times)",
        ("momentum {facts.momentum:g} is for trainings of hundreds of thousands of steps",),
        "lower momentum, to 0.99 where there are more than some hundred steps, or train longer",
    ),
    Rule(
        "temperature",
        lambda f: min(f.temperatures, default=None),
        0.01,
        "a softmax has the temperature {figure:g} (at least {limit:g}): only the hardest pair of "
        "images counts, and gradients are huge",
        ("a digit slipped",),
        "leave it out: the paper's is the default",
        below=True,
    ),
    Rule(
        "high temperature",
        lambda f: max(f.temperatures, default=None),
        3.0,
        "a softmax has the temperature {figure:g} (at most {limit:g}): it is flat, and gradients "
        "are tiny",
        ("it was given as the factor that similarities are multiplied by",),
        "leave it out: the paper's is the default",
    ),
    Rule(
        "nothing hidden",
        lambda f: f.hidden,
        0.2,
        "{figure:.0%} of each image is hidden (at least {limit:.0%}): what is seen need only be "
        "copied",
        ("ratio is the share that is hidden, and was taken for the share that is seen",),
        "leave ratio out: the paper's is the default",
        below=True,
    ),
    Rule(
        "more prototypes than images",
        lambda f: f.prototypes / f.images if f.prototypes else None,
        1.0,
        "{facts.prototypes} prototypes are there for {facts.images} images: each image can have "
        "one of its own ({figure:.1f} prototypes an image, at most {limit:g})",
        ("the default is the paper's, for a million images",),
        "use about a tenth as many prototypes as images",
        severity="note",
    ),
    Rule(
        "half-precision weights",
        lambda f: f.half,
        0.0,
        "{figure:.0%} of the weights are kept in half precision (none may be): bf16 has 8 bits, "
        "and steps below 1/256 of a weight are lost",
        ("the method or its backbone was converted with .bfloat16() or .half()",),
        "keep the weights in float32 and pass --precision bf16, which converts in the forward pass "
        "alone",
    ),
)  # fmt: skip
