"""What can be seen to be wrong in a step of training."""

import math
from dataclasses import dataclass

from selftaught.diagnose.rules import Cause, Rule


@dataclass(frozen=True)
class Exam:
    """What is seen in one step; NaN where a figure does not apply or was not looked at.

    Args:
        step, progress: steps done, fraction of the training done.
        loss: of this step.
        chance: the loss as a multiple of what guessing costs, where that is more than 0.
        least: smallest term of the loss as a multiple of guessing, where that costs more than 0.
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
        pulled: of embeddings by the gradient towards their own goal, see `measures`; mean of the
            last looks.
        pull_doubt: how much more it may be in truth: the standard error of this mean.
        told: whether the method says what is to approach what: else it is the first two views.
        bypass: gradient that reaches the embedding past the predictor, relative to all of it.
        predicted: relative change that the predictor makes.
        entropy, largest: of the distributions over prototypes, see `measures`.
        copied: relative distance of the EMA copy from what it follows.
        moved: relative way that the EMA copy went in this step.
        pixels, hues: share of views that are nearest to their partner by pixels, and by colors.
        related: `measures.related` of pixels of the views of an image; mean of all looks, as no
            training changes it.
        doubt: how much more it may be in truth: two standard errors of this mean.
        agreeing: `related` of their embeddings; mean of the last looks.
        still: buffers that the step was to change and did not.
        began: `chance` at the first look, before anything was learned.
        near: largest relative distance of the loss, or its term, from guessing in the last steps.
        longest: `stride`, of all looks until now.
        outside: share of pixels of the first view that no image has, see `intake.outside`.
        shifted: share of images that the network receives, in one of their views, in another
            order than in the first; exactly, by their pixels.
        twice: share of images that the network receives in two places of a batch, exactly.
        classmates: how often gradients at images of one class are more alike than at those of
            two; mean of the last looks.
        remembered: how often what the memory of samples has kept of an image is more alike to its
            embedding than to others; mean of the last looks.
        swapped: channels that the network receives in another's place.
        rescaled: |log10| of the factor on channels between the views and what is received.
        left: share of the first norm statistics that is left at the end, as fast as they follow.
        gap: distance of features in evaluation from those in training, see `intake.gap`.
        frozen: whether no weight of the backbone is trained.
        heavy: the term that is nearly all of the loss.
        sharp, soft, weight: settings far from their defaults, in words: a temperature below, one
            above, the weight of a term.
    """

    step: int
    progress: float
    loss: float
    chance: float = math.nan
    least: float = math.nan
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
    pull_doubt: float = 0.0
    told: bool = True
    bypass: float = math.nan
    predicted: float = math.nan
    entropy: float = math.nan
    largest: float = math.nan
    copied: float = math.nan
    moved: float = math.nan
    pixels: float = math.nan
    hues: float = math.nan
    related: float = math.nan
    doubt: float = 0.0
    agreeing: float = math.nan
    still: tuple[str, ...] = ()
    began: float = math.nan
    near: float = math.nan
    longest: float = math.nan
    outside: float = math.nan
    shifted: float = math.nan
    twice: float = math.nan
    classmates: float = math.nan
    remembered: float = math.nan
    swapped: float = math.nan
    rescaled: float = math.nan
    left: float = math.nan
    gap: float = math.nan
    frozen: bool = False
    heavy: str = ""
    sharp: str = ""
    soft: str = ""
    weight: str = ""


def high(e: Exam) -> float:
    """The loss as a multiple of guessing; NaN while one that began high by nature falls, or has not
    had the time to, and is not many times higher yet."""
    falls = e.began > WORSE and e.chance < FALLEN * e.began
    waits = e.progress < TRIED and e.chance < WORSE * e.began
    return math.nan if falls or waits else e.chance


def apart(e: Exam) -> float:
    """How alike embeddings of an image are beside others; NaN where its views are known to be of
    one image, as a fresh network need not tell textures apart."""
    known = e.shifted == 0 and e.related > UNRELATED
    return math.nan if known else e.agreeing


def strange(e: Exam) -> float:
    """How alike pixels of an image's views may be beside others; NaN where embeddings know them,
    as in textures, which are alike all over."""
    return math.nan if e.agreeing > RELATED else e.related + e.doubt


def resting(e: Exam) -> float:
    """Share of weights that a step leaves; NaN where some are changed and matrices come forward by
    that, as at the smallest rates of papers."""
    return math.nan if e.unmoved < 0.9 and e.stride > CREEP else e.unmoved


def towards(e: Exam) -> float:
    """How often embeddings may be pulled to their own goal; of pairs that the method does not tell
    NaN unless they are pushed away: losses that decorrelate may lead them round the goal."""
    return e.pulled + e.pull_doubt if e.told or e.pulled < AWAY else math.nan


def alike(e: Exam) -> float:
    """How far embeddings differ; NaN while the weights have hardly moved, as what is left of a
    fresh network's is no work of training."""
    return e.embedding_spread if e.longest * e.step > WAY else math.nan


def guessing(e: Exam) -> float:
    """How far the last losses are from guessing; NaN while the weights have hardly moved."""
    return e.near if e.longest > MOVED else math.nan


def mispaired(e: Exam) -> bool:
    """Whether views of different images meet."""
    return e.shifted > 0 or e.related + e.doubt < UNRELATED


WORSE, FALLEN, TRIED = 3.0, 0.9, 0.3
"""Multiple of guessing that no loss should reach; share of its first value below which it fell;
fraction of training in which one that began high had the time to, warm-up and all."""

RELATED, UNRELATED = 0.6, 0.53
"""How often views of an image are more alike than others where they surely are, or are not, its.
Views of one texture are at 0.57, whichever image they are of."""

AWAY = 0.3
"""How often embeddings are pulled to their own goal, below which they are pushed away from it. By a
canonical correlation it is 0.44 to 0.63, whatever its sign."""

MOVED, RESTLESS = 1e-4, 0.05
"""Largest relative change of weights in a step from which something was tried, and from which the
learning rate may be what is wrong."""

CREEP = 1e-9
"""Relative change of a weight matrix in a step from which it comes forward."""

WAY = 0.003
"""Times their length that weights can have come by now, at least, for what is seen to be made by
training."""

ALIEN = 0.05
"""Share of pixels that no image has, or |log10| of a factor, from which it is another scale."""

SHARP = Cause[Exam]("a temperature is too low: {facts.sharp}", lambda e: bool(e.sharp))
SOFT = Cause[Exam]("a temperature is too high: {facts.soft}", lambda e: bool(e.soft))
WEIGHT = Cause[Exam]("the weight of a term: {facts.weight}", lambda e: bool(e.weight))
PAIRS = Cause[Exam]("views of different images are paired", mispaired)
RATE = Cause[Exam](
    "the learning rate is too high: a step changed weight matrices by {facts.longest:.2g}",
    lambda e: e.longest > RESTLESS,
)
SILENT = Cause[Exam]("a term has no weight: {facts.silent[0]}", lambda e: bool(e.silent))
BARE = Cause[Exam](
    "the predictor does nothing: it changes embeddings by {facts.predicted:.2g}",
    lambda e: e.predicted < 1e-3,
)
OPEN = Cause[Exam](
    "the stop-gradient is missing: {facts.bypass:.0%} of the gradient comes through the goals",
    lambda e: e.bypass > 0.01,
)
STILL = Cause[Exam]("{facts.still[0]} stands still", lambda e: bool(e.still))
"""What more than one rule may come from, each with its test."""


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
        (Cause("its parameters are frozen (requires_grad is False)", lambda e: e.frozen),
         "a detach() or no_grad() stands between backbone and loss, or a hook removes the gradient",
         "a layer's output is constant: dead units or zero weights"),
        "see what of the method's loss depends on the backbone's output",
        below=True,
        severity="failure",
        patience=2,
    ),
    Rule(
        "weights do not move",
        resting,
        0.5,
        "{figure:.0%} of the weights that have a gradient were not changed by the step (at most "
        "{limit:.0%} may be left): it is smaller than their last bit",
        ("the weights are kept in half precision, where steps below 1/256 are lost", "the learning "
         "rate is far too low"),
        "keep weights in float32 (--precision bf16 does); raise --lr",
        patience=2,
        until=0.5,  # at the end of a schedule steps are that small
    ),
    Rule(
        "steps too long",
        lambda e: e.stride,
        0.5,
        "a step changes weight matrices by {figure:.2g} of their length (at most {limit:g})",
        (WEIGHT, "the learning rate is too high", "the optimizer is another than the learning rate "
         "is for"),
        "lower --lr tenfold, or leave it out; lengthen --warmup",
        patience=2,
    ),
    Rule(
        "worse than guessing",
        high,
        WORSE,
        "the loss {facts.loss:.4g} is {figure:.1f} times that of guessing (at most {limit:g} "
        "times)",
        (
            SHARP,
            PAIRS,
            WEIGHT,
            Cause(
                "{facts.heavy} is nearly all of the loss: its weight is too high, or what it is of "
                "is not normalized",
                lambda e: bool(e.heavy),
            ),
            Cause(
                "the loss was {facts.began:.1f} times that of guessing before anything was learned:"
                " embeddings are not normalized, or labels are those of others",
                lambda e: e.began > WORSE,
            ),
            RATE,
            Cause(
                "the loss rose from {facts.began:.1f} times that of guessing: the learning rate is "
                "too high",
                lambda e: e.began <= WORSE and e.longest <= RESTLESS,
            ),
        ),
        "leave the method's options and --lr at their defaults; check which pairs count as the "
        "same",
        patience=3,
    ),
    Rule(
        "exactly guessing",
        guessing,
        3e-4,
        "the loss {facts.loss:.5g} is exactly that of guessing, step for step (within "
        "{figure:.2g} of it, at least {limit:g}), though the weights move",
        (
            SOFT,
            WEIGHT,
            Cause(
                "assignments are flat: a temperature is too high, or the prototypes are all alike",
                lambda e: e.entropy > 0.999,
            ),
            Cause(
                "all images have practically the same embedding, and nothing tells them apart",
                lambda e: e.embedding_spread < 0.02,
            ),
            PAIRS,
            "what the loss compares does not depend on the images",
        ),
        "leave the temperatures and the method's options at their defaults",
        below=True,
        patience=3,
    ),
    Rule(
        "loss at guessing",
        lambda e: e.stuck,
        0.01,
        "the loss {facts.loss:.4g} is still that of guessing (within {figure:.2%} of it; more than "
        "{limit:.0%} is learning)",
        (SOFT, PAIRS, RATE, "the learning rate is too low", "the views of an image have nothing in "
         "common", "the batch is too small, or the training too short, for this method"),
        "try --lr three times higher and lower; weaker views; more epochs",
        below=True,
        severity="warning",
    ),
    Rule(
        "loss of a collapse",
        lambda e: e.floor,
        0.003,
        "the loss {facts.loss:.4g} is as low as only a collapse makes it ({figure:.2%} of the way "
        "from guessing is left, at least {limit:.1%})",
        (BARE, OPEN, SILENT, STILL, WEIGHT,
         "nothing keeps the features of different images apart: the predictor, the stop-gradient, "
         "the centering or a term of the loss is missing or has no weight",
         "views are so weak that there is nothing to learn"),
        "compare the method's options with their defaults",
        below=True,
        patience=5,
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
        towards,
        0.53,
        "the gradient moves embeddings towards the other view of their image rather than towards "
        "that of another one in only {figure:.0%} of the cases (at least {limit:.0%})",
        (PAIRS, "the labels of the contrastive loss are wrong: the positive is in another place "
         "than they say", "the views of different images are paired", "the loss has the wrong "
         "sign"),
        "check that row i of both views is the same image, and where the positive stands among "
        "the logits",
        below=True,
        patience=3,
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
        alike,
        0.015,
        "all images have practically the same embedding (their directions spread by {figure:.2g} "
        "of 1, at least {limit:g})",
        (BARE, OPEN, SILENT, STILL, PAIRS, WEIGHT, SOFT, RATE,
         "nothing keeps embeddings apart: the predictor, the stop-gradient, a term of the loss or "
         "its weight is missing", "labels or pairs are wrong"),
        "compare the method's options with their defaults; lower --lr",
        below=True,
        severity="failure",
        patience=5,
        after=10,
    ),
    Rule(
        "features collapsed",
        lambda e: e.spread,
        1e-5,
        "all images have practically the same features (their directions spread by {figure:.2g} of "
        "1, at least {limit:g})",
        (RATE, BARE, OPEN, SILENT, STILL, WEIGHT, "activations died", "nothing keeps features "
         "apart", "weight decay has removed the weights"),
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
        (SILENT, WEIGHT, SOFT, RATE, "dimensions became copies of each other: the terms or "
         "negatives that keep them apart are too weak", "weight decay is too high"),
        "lower --lr; larger --batch; compare the method's options with their defaults",
        below=True,
        patience=3,
        after=10,
    ),
    Rule(
        "one prototype",
        lambda e: e.largest,
        0.97,
        "one prototype is the likeliest for {figure:.0%} of the images (at most {limit:.0%})",
        (STILL, SHARP, "nothing balances the prototypes: the center does not follow the teacher "
         "(center_momentum near 1), or assignments are not balanced",
         "the teacher's temperature is too low"),
        "leave center_momentum, epsilon and the temperatures at their defaults",
        patience=6,
        after=10,
    ),
    Rule(
        "flat assignments",
        lambda e: e.entropy,
        0.999,
        "assignments are as flat as guessing ({figure:.4%} of the entropy of guessing, at most "
        "{limit:.1%})",
        (SOFT, "the teacher's temperature is too high", "the center takes all there is: "
         "center_momentum is too low", "the learning rate is too low for the head"),
        "leave the temperatures at their defaults",
        patience=3,
        after=5,
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
        strange,
        UNRELATED,
        "a view is no more alike to the other view of its image than to those of others (more "
        "alike in {figure:.0%} of the cases, at least {limit:.0%})",
        ("views of different images are paired", "views are too strong: crops are too small"),
        "look at the views in the report; check that row i of both views is the same image",
        below=True,
        patience=3,
    ),
    Rule(
        "views in another order",
        lambda e: e.shifted,
        0.05,
        "the network receives another image than in the first view in the place of {figure:.0%} of "
        "the images (at most {limit:.0%} may): the loss pairs views of different images",
        ("a view is rolled, shuffled or sorted between the pipeline and the network",),
        "keep row i of all views the same image; undo a shuffle before the loss",
        patience=2,
    ),
    Rule(
        "duplicates in a batch",
        lambda e: e.twice,
        0.1,
        "{figure:.0%} of the images in a batch that the network receives are there twice (at most "
        "{limit:.0%} may be): each is among those that the other is told from",
        ("the batch is drawn with replacement, or was repeated before the loss",),
        "let each image come once in a batch, in one view of it a place",
        patience=2,
    ),
    Rule(
        "labels of others",
        lambda e: e.classmates,
        0.55,
        "gradients at images of one class are no more alike than at those of two (more alike in "
        "{figure:.0%} of the cases, at least {limit:.0%}): the loss does not use these labels",
        ("labels are shifted, shuffled or sorted on their way to the loss",),
        "keep row i of views and labels the same sample",
        below=True,
        patience=3,
    ),
    Rule(
        "memory of others",
        lambda e: e.remembered,
        0.6,
        "what the memory keeps of an image is no more alike to the embedding of this image than to "
        "others (more alike in {figure:.0%} of the cases, at least {limit:.0%})",
        ("indices are shifted, shuffled or sorted on their way to the loss: rows of the memory are "
         "those of other samples",),
        "keep row i of views and indices the same sample",
        below=True,
        patience=3,
    ),
    Rule(
        "wrong sign",
        lambda e: e.least,
        -0.05,
        "the loss {facts.loss:.4g} is negative ({figure:.2g} times that of guessing), which it "
        "cannot be: it is to fall to 0",
        ("the loss has the wrong sign",),
        "return what is to be minimized",
        below=True,
        severity="failure",
        patience=2,
    ),
    Rule(
        "channels in another order",
        lambda e: e.swapped,
        0,
        "the network receives {figure:.0f} channels in the place of others (none may): evaluation "
        "and export hand them over as they are in the files",
        ("RGB was made BGR, or the reverse, in the method's loss",),
        "leave the order of channels to the data: change it there, for training and evaluation",
        patience=2,
    ),
    Rule(
        "another scale",
        lambda e: max((x for x in (e.rescaled, e.outside) if x == x), default=math.nan),
        ALIEN,
        "the images that the network receives are not on the scale that evaluation and export hand "
        "it (by {figure:.2g} orders of magnitude or parts of their pixels, at most {limit:g})",
        (
            Cause("the loss normalizes or scales views once more", lambda e: e.rescaled > ALIEN),
            Cause(
                "the pipeline hands over floats that are not normalized, or twice or otherwise: "
                "floats are taken as they are, and {facts.outside:.0%} of these pixels are none "
                "that an image has",
                lambda e: e.outside > ALIEN,
            ),
        ),
        "hand over views as uint8: the encoder's mean and std normalize them, in training and in "
        "evaluation",
        patience=2,
    ),
    Rule(
        "norm statistics lag",
        lambda e: e.left,
        0.5,
        "batch norms follow so slowly that {figure:.0%} of their first statistics are left at the "
        "end (at most {limit:.0%}): in evaluation features are others than in training",
        ("the momentum of the batch norms is too low for so few steps, or 0",),
        "use a momentum of 0.1 (torch's share of the batch, not of the past), or more steps",
        patience=2,
    ),
    Rule(
        "pairs unrelated",
        apart,
        UNRELATED,
        "the embedding of a view is no more alike to that of the other view of its image than to "
        "those of others (more alike in {figure:.0%} of the cases, at least {limit:.0%})",
        (PAIRS, Cause("the network tells nothing of its images: it has collapsed",
                      lambda e: e.embedding_spread < 0.02),
         "views of different images are paired", "views are too strong"),
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
