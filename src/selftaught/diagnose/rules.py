"""What can be wrong with a training: a table of rules, each a figure, its limit, causes, a remedy.

A rule is a row; to add one, add a row and, where its figure is new, a field of `Before` or `Exam`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

F = TypeVar("F", "Before", "Exam", "Beside")

Severity = Literal["note", "warning", "failure"]
"""A note is advice and no alarm; a warning makes a run doubtful; a failure makes it failed."""


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


@dataclass(frozen=True)
class Exam:
    """What is seen in one step; NaN where a figure does not apply or was not looked at.

    Args:
        step, progress: steps done, fraction of the training done.
        loss: of this step.
        chance: the loss as a multiple of what guessing costs, where that is more than 0.
        floor: distance of the loss, or of its term, from the value of a collapse, as a fraction
            of the way there from guessing; of the value itself where guessing has none.
        stuck: relative distance from guessing of the loss, in the last fifth of a long training.
        silent: terms of the loss that are exactly 0.
        gradient: norm of the gradient of the backbone.
        stride: middle of the relative changes of weight matrices in this step.
        unmoved: share of weights with a gradient that the step left as they were.
        frozen_norms: trained batch norms that do not use the batch.
        offset, contrast: mean of the normalized images, of the channel that is farthest from 0,
            and smallest or largest deviation of a channel, as |log10|.
        detail: deviation of the normalized pixels inside an image, in the middle.
        spread, rank, slope: of the encoder's features, see `measures`; rank as a fraction of what
            this many images can have.
        embedding_spread, embedding_rank, uniformity: of what the loss compares.
        alignment: of embeddings with their goals.
        pulled: of embeddings by the gradient towards their own goal, see `measures`.
        bypass: gradient that reaches the embedding past the predictor, relative to all of it.
        predicted: relative change that the predictor makes.
        entropy, largest: of the distributions over prototypes, see `measures`.
        copied: relative distance of the EMA copy from what it follows.
        moved: relative way that the EMA copy went in this step.
        pixels, hues: share of views that are nearest to their partner by pixels, and by colors.
        related: `measures.related` of pixels of the views of an image; mean of the last looks.
        agreeing: the same of their embeddings.
        still: buffers that the step was to change and did not.
    """

    step: int
    progress: float
    loss: float
    chance: float = math.nan
    floor: float = math.nan
    stuck: float = math.nan
    silent: tuple[str, ...] = ()
    gradient: float = math.nan
    stride: float = math.nan
    unmoved: float = math.nan
    frozen_norms: int = 0
    offset: float = math.nan
    contrast: float = math.nan
    detail: float = math.nan
    spread: float = math.nan
    rank: float = math.nan
    slope: float = math.nan
    embedding_spread: float = math.nan
    embedding_rank: float = math.nan
    uniformity: float = math.nan
    alignment: float = math.nan
    pulled: float = math.nan
    bypass: float = math.nan
    predicted: float = math.nan
    entropy: float = math.nan
    largest: float = math.nan
    copied: float = math.nan
    moved: float = math.nan
    pixels: float = math.nan
    hues: float = math.nan
    related: float = math.nan
    agreeing: float = math.nan
    still: tuple[str, ...] = ()


@dataclass(frozen=True)
class Beside:
    """The encoder beside what training began with, on the same held-out images; NaN where a figure
    was not looked at.

    Args:
        step, progress: steps done, fraction of the training done.
        now, start: k-NN, in per cent.
        images: that it is of.
        lost: points that k-NN has lost at least, by the interval of three standard errors of the
            difference on the same images (McNemar, 1947): looks are many, false alarms are not.
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


@dataclass(frozen=True)
class Finding:
    """What is wrong, how that is known, why it may be so, what to do.

    Args:
        name: of the rule.
        severity: of it.
        step, progress: when it was found.
        says: what is wrong, with figure and limit.
        figure, limit: the evidence.
        causes: the likeliest first.
        remedy: what to change.
    """

    name: str
    severity: Severity
    step: int
    progress: float
    says: str
    figure: float
    limit: float
    causes: tuple[str, ...]
    remedy: str

    def sentence(self) -> str:
        """All of it, for the terminal."""
        if not self.causes:
            return self.says
        causes = "; or ".join(self.causes)
        return f"{self.says}. Likely because {causes}. What to do: {self.remedy}."


@dataclass(frozen=True)
class Rule(Generic[F]):
    """One row of the table.

    Args:
        name: in one to three words.
        figure: what is looked at; None or NaN where it does not apply.
        limit: what it may be at most, or at least where `below`.
        says: what is wrong; filled in with the figure, the limit and the facts.
        causes, remedy: see `Finding`.
        below: whether the figure is too low below the limit.
        severity: of a finding.
        patience: looks in a row that have to find it.
        after: steps before which it says nothing.
        until: fraction of training after which it says nothing new.
    """

    name: str
    figure: Callable[[F], float | None]
    limit: float
    says: str
    causes: tuple[str, ...]
    remedy: str
    below: bool = False
    severity: Severity = "warning"
    patience: int = 1
    after: int = 0
    until: float = 1.0

    def broken(self, facts: F) -> bool | None:
        """Whether the figure is on the wrong side of the limit; None where it was not looked at."""
        value = self.figure(facts)
        if value is None or math.isnan(value) or facts.step < self.after:
            return None
        return value < self.limit if self.below else value > self.limit

    def finding(self, facts: F) -> Finding:
        """The finding, in words."""
        value = float(self.figure(facts) or 0.0)

        def fill(text: str) -> str:
            return text.format(figure=value, limit=self.limit, facts=facts)

        return Finding(
            self.name,
            self.severity,
            facts.step,
            facts.progress,
            fill(self.says),
            value,
            self.limit,
            tuple(map(fill, self.causes)),
            fill(self.remedy),
        )


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


DURING: tuple[Rule[Exam], ...] = (
    Rule(
        "normalization: mean",
        lambda e: abs(e.offset),
        3.0,
        "the normalized images have a mean of {facts.offset:.3g} in a channel (between -{limit:g} "
        "and {limit:g} it should be)",
        ("mean and std of the encoder are those of other data or on another scale: they are for "
         "pixels from 0 to 1", "the images use a small part of their value range"),
        "set the encoder's mean and std to those of the data, or --value-range for float and 16-"
        "bit data",
    ),
    Rule(
        "normalization: deviation",
        lambda e: e.contrast,
        1.0,
        "the pixels of a channel deviate {figure:.2g} orders of magnitude more or less than by 1 "
        "(at most {limit:g})",
        ("mean and std of the encoder are those of other data or on another scale: they are for "
         "pixels from 0 to 1", "the images have hardly any contrast"),
        "set the encoder's mean and std to those of the data, or --value-range for float and 16-"
        "bit data",
    ),
    Rule(
        "empty views",
        lambda e: e.detail,
        0.05,
        "half of the views have a single color (their pixels deviate by {figure:.2g}, at least "
        "{limit:g})",
        ("the images are empty", "views are cut so small that nothing is left"),
        "look at the views in the report; `selftaught check` tells what is wrong with the files",
        below=True,
        patience=2,
    ),
    Rule(
        "batch norm off",
        lambda e: e.frozen_norms,
        0,
        "{figure:.0f} trained batch norms do not use the batch's statistics (none may)",
        ("the method, or a part of it, was put into eval mode and stays there",),
        "call train() on the method; freeze a part by requires_grad_(False), not by eval()",
    ),
    Rule(
        "no gradient",
        lambda e: e.gradient,
        1e-12,
        "no gradient reaches the backbone (norm {figure:.2g}, at least {limit:g})",
        ("its parameters are frozen (requires_grad is False)", "a detach() or no_grad() stands "
         "between backbone and loss", "a layer's output is constant: dead units or zero weights"),
        "see what of the method's loss depends on the backbone's output",
        below=True,
        severity="failure",
        patience=2,
    ),
    Rule(
        "weights do not move",
        lambda e: e.unmoved,
        0.5,
        "{figure:.0%} of the weights that have a gradient were not changed by the step (at most "
        "{limit:.0%} may be left): it is smaller than their last bit",
        ("the weights are kept in half precision, where steps below 1/256 are lost", "the learning "
         "rate is far too low"),
        "keep weights in float32 (--precision bf16 does); raise --lr",
        patience=3,
    ),
    Rule(
        "steps too long",
        lambda e: e.stride,
        0.5,
        "a step changes weight matrices by {figure:.2g} of their length (at most {limit:g})",
        ("the learning rate is too high", "the optimizer is another than the learning rate is for"),
        "lower --lr tenfold, or leave it out; lengthen --warmup",
        patience=2,
    ),
    Rule(
        "worse than guessing",
        lambda e: e.chance,
        3.0,
        "the loss {facts.loss:.4g} is {figure:.1f} times that of guessing (at most {limit:g} "
        "times)",
        ("the temperature is too small", "the learning rate is too high", "labels or pairs are "
         "wrong, so that what is learned is punished"),
        "leave temperature and --lr at their defaults; check which pairs count as the same",
        patience=3,
    ),
    Rule(
        "loss at guessing",
        lambda e: e.stuck,
        0.01,
        "the loss {facts.loss:.4g} is still that of guessing (within {figure:.2%} of it; more than "
        "{limit:.0%} is learning)",
        ("the learning rate is too low or too high", "the views of an image have nothing in "
         "common", "the batch is too small, or the training too short, for this method"),
        "try --lr three times higher and lower; weaker views; more epochs",
        below=True,
        severity="warning",
    ),
    Rule(
        "loss of a collapse",
        lambda e: e.floor,
        0.005,
        "the loss {facts.loss:.4g} is as low as only a collapse makes it ({figure:.2%} of the way "
        "from guessing is left, at least {limit:.1%})",
        ("nothing keeps the features of different images apart: the predictor, the stop-gradient, "
         "the centering or a term of the loss is missing or has no weight",
         "views are so weak that there is nothing to learn"),
        "compare the method's options with their defaults",
        below=True,
        patience=3,
    ),
    Rule(
        "silent term",
        lambda e: len(e.silent),
        0,
        "of the terms of the loss, {figure:.0f} are exactly 0 ({facts.silent[0]})",
        ("its weight is 0", "what it is computed from does not depend on the images"),
        "give it its default weight: what it prevents will happen without it",
        patience=2,
        until=0.2,
    ),
    Rule(
        "no stop-gradient",
        lambda e: e.bypass,
        0.01,
        "{figure:.0%} of the gradient reaches the embeddings past the predictor, through the goals "
        "(at most {limit:.0%} may)",
        ("the stop-gradient on the goals is missing: detach() or no_grad()",),
        "detach what is predicted; without that all images end at the same point",
    ),
    Rule(
        "no predictor",
        lambda e: e.predicted,
        1e-3,
        "the predictor changes embeddings by {figure:.2g} of their length (at least {limit:g}): it "
        "does nothing",
        ("the predictor is missing, or was replaced by an identity",),
        "put the predictor back: without it all images end at the same point",
        below=True,
    ),
    Rule(
        "pushed apart",
        lambda e: e.pulled,
        0.6,
        "the gradient moves embeddings towards the other view of their image rather than towards "
        "that of another one in only {figure:.0%} of the cases (at least {limit:.0%})",
        ("the labels of the contrastive loss are wrong: the positive is in another place than "
         "they say", "the views of different images are paired", "the loss has the wrong sign"),
        "check that row i of both views is the same image, and where the positive stands among "
        "the logits",
        below=True,
        patience=2,
    ),
    Rule(
        "target stands still",
        lambda e: e.moved,
        1e-12,
        "the EMA copy did not move in a step (by {figure:.2g} of its length, at least {limit:g})",
        ("momentum is 1", "after_step is not called or does not update the copy"),
        "use a momentum below 1; call method.after_step() after each optimizer step",
        below=True,
        patience=2,
        until=0.5,
    ),
    Rule(
        "target is the network",
        lambda e: e.copied,
        1e-9,
        "the EMA copy equals the network that it is to follow (distance {figure:.2g}, at least "
        "{limit:g})",
        ("momentum is 0", "the copy and the network share their weights", "nothing is trained: the "
         "learning rate is 0"),
        "use a momentum of 0.99 or more, and a copy of its own",
        below=True,
        patience=2,
        after=2,
    ),
    Rule(
        "collapse",
        lambda e: e.embedding_spread,
        0.02,
        "all images have practically the same embedding (their directions spread by {figure:.2g} "
        "of 1, at least {limit:g})",
        ("nothing keeps embeddings apart: the predictor, the stop-gradient, a term of the loss or "
         "its weight is missing", "the learning rate is too high", "labels or pairs are wrong"),
        "compare the method's options with their defaults; lower --lr",
        below=True,
        severity="failure",
        patience=3,
        after=10,
    ),
    Rule(
        "features collapsed",
        lambda e: e.spread,
        1e-5,
        "all images have practically the same features (their directions spread by {figure:.2g} of "
        "1, at least {limit:g})",
        ("the learning rate is too high: activations died", "nothing keeps features apart",
         "weight decay has removed the weights"),
        "lower --lr or lengthen --warmup; compare the method's options with their defaults",
        below=True,
        severity="failure",
        patience=3,
        after=10,
    ),
    Rule(
        "few dimensions",
        lambda e: e.embedding_rank,
        0.03,
        "embeddings use {figure:.1%} of the dimensions that this many images can have (at least "
        "{limit:.0%})",
        ("dimensions became copies of each other: the terms or negatives that keep them apart are "
         "too weak", "the learning rate is too high", "weight decay is too high"),
        "lower --lr; larger --batch; compare the method's options with their defaults",
        below=True,
        patience=3,
        after=10,
    ),
    Rule(
        "one prototype",
        lambda e: e.largest,
        0.95,
        "one prototype is the likeliest for {figure:.0%} of the images (at most {limit:.0%})",
        ("nothing balances the prototypes: the center does not follow the teacher "
         "(center_momentum near 1), or assignments are not balanced",
         "the teacher's temperature is too low"),
        "leave center_momentum, epsilon and the temperatures at their defaults",
        patience=3,
        after=10,
    ),
    Rule(
        "flat assignments",
        lambda e: e.entropy,
        0.9999,
        "assignments are as flat as guessing ({figure:.4%} of the entropy of guessing, at most "
        "{limit:.2%})",
        ("the teacher's temperature is too high", "the center takes all there is: center_momentum "
         "is too low", "the learning rate is too low for the head"),
        "leave the temperatures at their defaults",
        patience=10,
        after=100,
    ),
    Rule(
        "views too alike",
        lambda e: max(e.pixels, e.hues),
        0.98,
        "the views of an image can be told from others by eight by eight gray pixels or by mean "
        "colors in {figure:.0%} of the cases (at most {limit:.0%}): nothing else need be learned",
        ("crops are too large, or color jitter is off", "both views are the same"),
        "leave the views' options at their defaults, which are the paper's",
        patience=2,
    ),
    Rule(
        "views unrelated",
        lambda e: e.related,
        0.56,
        "a view is no more alike to the other view of its image than to those of others (more "
        "alike in {figure:.0%} of the cases, at least {limit:.0%})",
        ("views of different images are paired", "views are too strong: crops are too small"),
        "look at the views in the report; check that row i of both views is the same image",
        below=True,
        patience=4,
    ),
    Rule(
        "pairs unrelated",
        lambda e: e.agreeing,
        0.58,
        "the embedding of a view is no more alike to that of the other view of its image than to "
        "those of others (more alike in {figure:.0%} of the cases, at least {limit:.0%})",
        ("views of different images are paired", "views are too strong", "the network tells "
         "nothing of its images: it has collapsed"),
        "check that row i of both views is the same image; look at the views in the report",
        below=True,
        patience=8,  # looks that the figure is the mean of: fresh networks hardly tell images apart
    ),
    Rule(
        "memory stands still",
        lambda e: len(e.still),
        0,
        "a step did not change {facts.still[0]}, which every step is to change",
        ("its momentum is 1, so that the center stays where it began: one prototype will take all "
         "images", "nothing is pushed into the queue"),
        "leave the momentum at its default; check that the method's loss was not replaced by one "
        "that forgets the update",
    ),
)  # fmt: skip


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


@dataclass
class Watch(Generic[F]):
    """Rules that are asked again and again, and speak once.

    Args:
        rules: of the table.
        said: names of those that have spoken.
    """

    rules: tuple[Rule[F], ...]
    said: set[str] = field(default_factory=set)
    streaks: dict[str, int] = field(default_factory=dict)

    def look(self, facts: F) -> list[Finding]:
        """What is found for the first time."""
        new = []
        for rule in self.rules:
            streak, broken = self.streaks.get(rule.name, 0), rule.broken(facts)
            if broken is not None:
                streak = streak + 1 if broken else 0
            self.streaks[rule.name] = streak
            late = facts.progress > rule.until
            if streak >= rule.patience and rule.name not in self.said and not late:
                self.said.add(rule.name)
                new.append(rule.finding(facts))
        return new

    def standing(self) -> set[str]:
        """Names of what was said and was still so in the last look."""
        return {name for name in self.said if self.streaks.get(name)}
