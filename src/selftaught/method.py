"""The contract that every self-supervised method fulfills, and what it is handed."""

import inspect
from abc import ABC, ABCMeta, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

import numpy as np
from torch import Tensor, nn

from selftaught import kinds
from selftaught.backbones import Image, encoder_of
from selftaught.errors import UserError
from selftaught.sides import Size, told_size
from selftaught.signature import Checked, current, read_object

Pipeline = Callable[[np.ndarray, np.random.Generator], Any]
"""(image uint8 [H, W, C], generator of this sample) -> nested arrays that collate; picklable."""


class Batch(NamedTuple):
    """What `Method.loss` receives.

    views: what the method's own pipeline returned for each sample, collated, images as floats.
    index: [B] position of each sample in the dataset.
    label: [B] class of each sample, for supervised methods alone.
    """

    views: Any
    index: Tensor
    label: Tensor | None = None


class Corpus(Protocol):
    """The dataset as a whole, for methods that look at all of it."""

    def __len__(self) -> int: ...

    def embed(self, encoder: nn.Module, key: str = "") -> Tensor:
        """[N, D] features of plain views, in dataset order, on the CPU, alike in all processes.

        Args:
            encoder: sees images of its own size and normalization, where it says them.
            key: fingerprint of weights that never change: a run that goes on has them from a file.
        """
        ...


@dataclass(frozen=True)
class Recipe:
    """How a paper optimizes: what the engine uses unless the user asks for something else.

    Args:
        optimizer: `lars` has the learning rate outside the momentum (BYOL, Barlow Twins, VICReg),
            `lars_tf` inside (SimCLR); `larc` is SwAV's, which adapts biases and norms too;
            `adamw_bert` has no bias correction. A function makes one of groups of parameters.
        lr: peak learning rate for `batch` samples a step.
        batch: number of samples that `lr` holds for.
        scaling: how the rate follows the batch that is really used.
        weight_decay: constant, or (start, end) of a cosine.
        warmup: fraction of training in which the rate rises linearly.
        warmup_from: rate at the first step, as a fraction of the peak.
        warmup_full: whether the warm-up's own last step has the peak already (SwAV, DINO), not
            the step after it.
        end: rate at the end of training, as a fraction of the peak.
        schedule: shape after the warm-up; `step` multiplies by `drop` at each of `milestones`,
            `linear` is the line from the very first step (BERT), `constant` may end in `cooldown`.
        milestones: fractions of training.
        drop: factor at each milestone.
        cooldown: fraction of training, at its end, in which a constant rate falls linearly.
        by_epoch: whether the rate changes at epochs only.
        horizon: the schedules are those of a training this many times as long (MSN, V-JEPA).
        step_offset: number that the schedules give the first step; 1 in MSN and the JEPAs.
        decay_bias: whether biases and norms are decayed too.
        no_decay: names of submodules that are not decayed.
        decay_tokens: whether class tokens and tables of positions are decayed.
        bias_lr: rate of what LARS does not adapt, biases and norms, as a fraction of `lr`.
        layer_decay: factor on the rate from each layer of a ViT to the one below it.
        patch_lr: further factor on the rate of a ViT's patch embedding.
        constant: names of submodules whose rate stays at its peak.
        rates: factors on the rate of submodules, as (name, factor).
        momentum: of SGD and LARS.
        nesterov: whether SGD's momentum is Nesterov's.
        eta: trust coefficient of LARS.
        betas: of Adam, AdamW and LAMB.
        clip: largest gradient norm, None for no clipping.
        clip_by: what the norm is taken over: all gradients, each direct submodule (DINOv2) or each
            parameter (DINO).
        no_clip: names of submodules that are not clipped, nor count when others are.
    """

    optimizer: (
        Literal["sgd", "adam", "adamw", "adamw_bert", "lamb", "lars", "lars_tf", "larc"]
        | Callable[[list[dict[str, Any]]], Any]
    )
    lr: float
    batch: int = 256
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    weight_decay: float | tuple[float, float] = 0.0
    warmup: float = 0.0
    warmup_from: float = 0.0
    warmup_full: bool = False
    end: float = 0.0
    schedule: Literal["cosine", "step", "linear", "constant"] = "cosine"
    milestones: tuple[float, ...] = ()
    drop: float = 0.1
    cooldown: float = 0.0
    by_epoch: bool = False
    horizon: float = 1.0
    step_offset: int = 0
    decay_bias: bool = False
    no_decay: tuple[str, ...] = ()
    decay_tokens: bool = True
    bias_lr: float = 1.0
    layer_decay: float = 1.0
    patch_lr: float = 1.0
    constant: tuple[str, ...] = ()
    rates: tuple[tuple[str, float], ...] = ()
    momentum: float = 0.9
    nesterov: bool = False
    eta: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    clip: float | None = None
    clip_by: Literal["all", "module", "parameter"] = "all"
    no_clip: tuple[str, ...] = ()


class ReferenceLoss(NamedTuple):
    """A value of the loss, or of a term of it, at which nothing was learned.

    value: what the term is then. formula: why, such as "ln 512".
    collapsed: whether it is the value of a collapse, which is below all that can be reached
    honestly; otherwise it is that of guessing, where training starts.
    term: name of the term, "loss" for the sum.
    """

    value: float
    formula: str
    collapsed: bool = False
    term: str = "loss"


class Pictures(NamedTuple):
    """What a method did with a few images, side by side; for the report.

    title: of all, such as "Solved puzzles". note: how to read them, in a sentence or two.
    columns: name -> [B, C, h, w], normalized as the batch was; row i is what became of sample i.
    captions: name of a column -> one line below each of its images; columns may go without.
    """

    title: str
    note: str
    columns: dict[str, Tensor]
    captions: dict[str, list[str]] = {}  # noqa: RUF012


class Passages(NamedTuple):
    """What a method said of a few texts, one below the other; for the report.

    title, note: as of `Pictures`.
    texts: of each sample its pieces: (what stands there, what was said in its place), or None where
        nothing was asked.
    """

    title: str
    note: str
    texts: list[list[tuple[str, str | None]]]


class Insight(NamedTuple):
    """Names of a method's submodules by what they are for, so that they can be looked at.

    embedding: gives what the loss compares, [B, D] in each call; empty where nothing does.
    predictor: stands between the embedding and the loss on the trained side alone.
    copies: (target, online) of each part of an EMA copy (momentum encoder, EMA teacher); of the
        last, the outputs are the goals.
    pairs: whose goal an output of predictor or embedding is to approach: `same` call of the
    target, `other` call, or the other `half` of the same output; empty where none is approached.
    logits: gives scores of prototypes. shares: function of the method that makes distributions over
    them of what `logits` gives; a softmax where it is empty.
    memory: buffers that every step changes, such as queues and centers.
    idle: terms of the loss that may be exactly 0: those of a margin that is kept, or before their
    time has come.
    query: which of the views looks for the others without being looked for alone (Un-Mix).
    mixed: function of the method (mixed [B, C, H, W], share, batch) -> loss of mixtures, row i of
    which is `share` of sample i and else of sample B - 1 - i: where queries and keys are unlike, so
    that one pass does.
    other: what `embedding` is for, of a second modality: both are alike by cosine.
    hides: function of the method (draws) -> bool [rows, columns] which cells of an image of the
    backbone's size are hidden, for masks whose size may be chosen.
    """

    embedding: str = ""
    predictor: str = ""
    copies: tuple[tuple[str, str], ...] = ()
    pairs: Literal["", "same", "other", "half"] = ""
    logits: str = ""
    shares: str = ""
    memory: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    query: int = 0
    mixed: str = ""
    other: str = ""
    hides: str = ""


@dataclass(frozen=True)
class Needs:
    """What the engine must see to, so that the loss means what it is to mean.

    A method has one for its class, in plain values that the command line reads from the source; its
    constructor may set another, where something follows from a parameter.

    Args:
        batch: smallest batch, over all processes, for which the loss means something.
        group: samples that belong together: each part of a batch, in each process, has whole
            groups.
        batchnorm: `all` where batch norms see the batch of all processes, `own` where they must not
            (MoCo).
        labels: whether the loss needs `Batch.label`, below `classes` where it has that.
        views: `alike` where the loss wants views of an image alike (or its label told), whatever is
            done to them, so that users may change them; `own` where they are what is asked about.
        beside: `masks` where pipelines are handed [H, W, C + 1]: the mask of the image is the last
            channel.
        second: name of the submodule that encodes a second modality; empty where samples are one
            image.
        learned: whether the backbone is taken as it is, so that one that has learned is needed and
            no gradient is to reach it.
        teacher: what `--teacher` must name, by an example; the constructor takes as `network` what
            that stands for.
        kinds: of samples that it learns from, as `selftaught.kinds` has them, the usual one first;
            `any` where its views mean something of each kind that can translate them.
        backbone: what the method is built around where the user names none.
        squares: why images must be squares, as the end of "it ..."; empty where they need not be.
        drop_path: stochastic depth that the paper gives ViTs: the command line's, where the user
            names none.
        shards: whether it was tried with each process having a part of its weights (`--shard`):
            outside of `loss` nothing may need a weight as a whole.
        order: `own` where `on_epoch` says which samples come when, so that they cannot be shuffled
            by blocks.
    """

    batch: int = 2
    group: int = 1
    batchnorm: Literal["all", "own"] = "all"
    labels: bool = False
    views: Literal["alike", "own"] = "alike"
    beside: Literal["", "masks"] = ""
    second: str = ""
    learned: bool = False
    teacher: str = ""
    kinds: tuple[str, ...] | Literal["any"] = ("image",)
    backbone: str = "resnet50"
    squares: str = ""
    drop_path: float = 0.0
    shards: bool = False
    order: Literal["any", "own"] = "any"


class Few(dict[str, Any]):
    """Settings for some thousand images and a small network, by name: parameters of the method, and
    batch, lr (for that batch, or 64), optimizer, weight_decay and warmup of the training."""


class Epoch(NamedTuple):
    """What `Method.on_epoch` made of an epoch to come.

    order: indices of the samples that it shows, in their order; None for all of them, shuffled.
    reset: names of submodules that were made anew: the engine drops their optimizer state.
    """

    order: Tensor | None = None
    reset: tuple[str, ...] = ()


def partner(backbone: Any, given: Any = None, name: str = "", channels: int = 0) -> Any:
    """The encoder of a second modality: as it was given, else one for other images.

    Args:
        backbone: of the first.
        given: encoder, or None.
        name, channels: of a network for other images; by default those of the first.

    Raises:
        UserError: none was given, and the first takes no images.
    """
    if given is not None:
        return encoder_of(given)
    kind = kinds.of(backbone)
    if not kind.photos:
        raise UserError(
            f"the second network of a pair is like the first where both are of images, and this "
            f"one takes {kind.many}: name the data of the second modality with --second, or give "
            "its encoder as other="
        )
    return backbone.partner(name, channels)


def encoders(method: "Method") -> tuple[Any, ...]:
    """The encoder of a method, and that of the second modality where it has one."""
    second = method.needs.second
    return (method.encoder, *([method.get_submodule(second)] if second else []))


def prepared(method: "Method", views: Any, channels_last: bool = False) -> Any:
    """Collated views as the encoders of `method` take them, each by its kind, on their device."""
    first, *others = encoders(method)
    if not others:
        return kinds.of(first).prepare(views, first, channels_last)
    sides = zip(encoders(method), views, strict=True)
    return [kinds.of(encoder).prepare(x, encoder, channels_last) for encoder, x in sides]


def terms_of(loss: Tensor | dict[str, Tensor]) -> dict[str, Tensor]:
    """What `Method.loss` gave, by name: a scalar is the one term `loss`."""
    return loss if isinstance(loss, dict) else {"loss": loss}


class Around(ABCMeta):
    """Makes an encoder of the module that a method is built around, where it is none."""

    if not TYPE_CHECKING:  # to whom a class takes what its constructor takes

        def __call__(cls, *args, **kwargs):
            kwargs = current(kwargs, read_object(cls))
            if args:
                args = (encoder_of(args[0]), *args[1:])
            elif "backbone" in kwargs:
                kwargs["backbone"] = encoder_of(kwargs["backbone"])
            around = args[0] if args else kwargs.get("backbone")
            square_enough(cls, getattr(around, "size", 0))
            return super().__call__(*args, **kwargs)

        @property
        def __signature__(cls):  # which `help` would otherwise take from `__call__`
            constructor = inspect.signature(cls.__init__)
            return constructor.replace(parameters=list(constructor.parameters.values())[1:])


def square_enough(kind: Any, size: Size) -> None:
    """Raise UserError where the method `kind` needs squares, and images of this size are none."""
    why = kind.needs.squares
    if why and isinstance(size, tuple):
        raise UserError(
            f"{kind.__name__} needs square images, as it {why}, and {told_size(size)} px are none: "
            f"give one side, such as --size {min(size)}, or take another method, such as simclr"
        )


class Method(Checked, nn.Module, ABC, metaclass=Around):
    """A self-supervised objective: sample -> views -> loss. Nothing else.

    A concrete method is final (never subclass one) and alone in `methods/<family>/<name>.py`. Each
    constructor parameter is stored under its own name, and is of its type and within the bounds of
    its role before the constructor begins. What is remembered between steps is a
    parameter or a persistent buffer, alike in all processes, of a shape known at construction.
    """

    recipe: Recipe
    """The constructor may set another, where the paper has one for such a backbone."""

    few: ClassVar[Few] = Few()
    """What was measured to work for few images, where no rule of `choose` gives it."""

    needs: Needs = Needs()
    """What the engine must see to; the constructor may set another."""

    insight: Insight = Insight()
    """What is what among the submodules, for the doctor; the constructor may set another."""

    backbone: Image
    progress: float = 0.0
    """Fraction of training done, in [0, 1): the method's only clock, set by the engine."""

    @abstractmethod
    def views(self, size: Any) -> Pipeline:
        """The paper's views for images of `size` pixels; must not hold the method itself.

        Args:
            size: a side, or (rows, columns).
        """

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor | dict[str, Tensor]:
        """Scalar loss, or named terms whose sum is the loss."""

    @property
    def encoder(self) -> nn.Module:
        """The network to evaluate and to export."""
        return self.backbone

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        """Values of the loss that mean nothing, where `batch` samples are compared at once."""
        return ()

    def show(self, batch: Batch) -> Pictures | Passages | None:
        """What became of the images of `batch`, where that can be seen; state stays as it is.

        The engine calls it when training has ended, in evaluation mode and without gradients.
        """
        return None

    def assign(self, images: Tensor) -> Tensor | None:
        """[B, K] how much each of plain images [B, C, H, W] belongs to each prototype or cluster.

        None where the method has none. Called as `show` is.
        """
        return None

    def on_start(self, corpus: Corpus) -> None:
        """Before the first step of a run, and of one that goes on: look at what never changes.

        What is kept of it is no state: it comes out alike again.
        """

    def on_epoch(self, corpus: Corpus) -> Epoch | None:
        """Before each epoch: cluster, relabel, choose what it shows.

        A run may be stopped while it embeds `corpus`: what it changes it changes afterwards.
        """
        return None

    def before_step(self) -> None:
        """Between backward and the optimizer's step."""

    def after_step(self) -> None:
        """After the optimizer's step."""
