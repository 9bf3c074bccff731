"""What can be wrong with a training, drawn: kinds of change, and the findings that name each.

A kind is a function below, with `@kind`: it is handed a method and a generator of random numbers,
and makes one change of it, or None where that would be no disease.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from types import MethodType
from typing import Any

import numpy as np
import torch
from PIL import Image as Picture
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from selftaught import choose, methods
from selftaught.parts import Queue
from selftaught.signature import Parameter

Rng = np.random.Generator
Images = list[np.ndarray]
LONG_MOMENTA = (0.9999, 0.99999)
"""Momenta of trainings of a million steps."""


class Unfit(Exception):
    """A method turns out not to have what a change is to change."""


@dataclass(frozen=True)
class Change:
    """One thing that is wrong.

    Args:
        says: what, with its parameters.
        options: of the method.
        train: arguments of `pretrain`.
        method: what is done to the method before it is trained.
        views: what is done to its pipeline.
        images: what is done to images [H, W, C], and to their labels.
    """

    says: str
    options: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    method: Callable[[Any], None] | None = None
    views: Callable[[Any], Any] | None = None
    images: Callable[[Images, np.ndarray], tuple[Images, np.ndarray]] | None = None


@dataclass(frozen=True)
class Drawn:
    """A method that a change is drawn for."""

    name: str

    @property
    def kind(self) -> Any:
        return methods.find(self.name)

    @property
    def family(self) -> str:
        """Folder of its file."""
        return methods.files()[self.name].parent.name

    @property
    def joint(self) -> bool:
        """Whether it compares the views of an image."""
        return self.kind.needs.views != "own" and self.family not in ("supervised", "masked")

    @property
    def transformer(self) -> bool:
        return choose.wants_transformer(self.kind.needs) and self.name not in ("dino", "stego")

    def having(self, *roles: str) -> list[Parameter]:
        """Parameters with one of these roles and a default."""
        found = methods.signature(self.name).parameters
        return [
            p
            for p in found
            if p.default not in (None, ()) and any(r.name in roles for r in p.roles)
        ]

    def default(self, role: str) -> float | None:
        """Largest value of a role."""
        found = [x for p in self.having(role) for x in np.atleast_1d(p.default)]
        return float(max(found)) if found else None


@dataclass(frozen=True)
class Kind:
    """A row of the list.

    Args:
        name: of the kind.
        group: settings, code or data.
        expected: names of findings of which one has to come first; after a slash stands a word that
            the first cause must have, where the finding has several.
        words: of an error before the first step that names the cause as well.
        draw: makes a change.
    """

    name: str
    group: str
    expected: tuple[str, ...]
    words: tuple[str, ...]
    draw: Callable[[Drawn, Rng], Change | None]


KINDS: dict[str, Kind] = {}


def kind(group: str, *expected: str, words: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Let a function be a kind, called by its name."""

    def add(draw: Any) -> Any:
        name = draw.__name__.replace("_", " ")
        KINDS[name] = Kind(name, group, expected, words, draw)
        return draw

    return add


def between(rng: Rng, low: float, high: float) -> float:
    """A number whose logarithm is uniform, of two digits."""
    return float(f"{np.exp(rng.uniform(np.log(low), np.log(high))):.2g}")


def scaled(parameter: Parameter, factor: float) -> Any:
    """A default, or each of a tuple, times `factor`."""
    if isinstance(parameter.default, tuple):
        return tuple(x * factor for x in parameter.default)
    return parameter.default * factor


def said(options: dict[str, Any]) -> str:
    return ", ".join(f"{k} = {v}" for k, v in options.items())


def setting(**given: Any) -> Change:
    """Other arguments of `pretrain`."""
    return Change(said(given), train=given)


def option(drawn: Drawn, rng: Rng, make: Callable[[Parameter], Any], *roles: str) -> Change | None:
    """Another value of one of the parameters with one of the roles."""
    found = drawn.having(*roles)
    if not found:
        return None
    parameter = found[rng.integers(len(found))]
    options = {parameter.name: make(parameter)}
    return Change(said(options), options)


def alone(parameter: Parameter, value: float) -> Any:
    """`value`, as many times as the default has."""
    many = isinstance(parameter.default, tuple)
    return (value,) * len(parameter.default) if many else value


# ----------------------------------------------------------------------------------- settings


@kind("settings", "temperature", "far from the paper", "worse than guessing/temperature")
def sharp_softmax(drawn: Drawn, rng: Rng) -> Change | None:
    factor = between(rng, 1 / 500, 1 / 30)
    return option(drawn, rng, lambda p: scaled(p, factor), "temperature")


@kind("settings", "high temperature", "far from the paper", "flat targets", "soft teacher",
      "exactly guessing/temperature", words=("temperature",))  # fmt: skip
def flat_softmax(drawn: Drawn, rng: Rng) -> Change | None:
    factor = between(rng, 60, 500)
    return option(drawn, rng, lambda p: scaled(p, factor), "temperature")


@kind("settings", "softer teacher", "soft teacher", "flat targets", "exactly guessing/soft",
      words=("temperature of the targets",))  # fmt: skip
def teacher_softer_than_student(drawn: Drawn, rng: Rng) -> Change | None:
    student = max((p.default for p in drawn.having("temperature")
                   if not isinstance(p.default, tuple)), default=None)  # fmt: skip
    if student is None:
        return None
    value = round(student * rng.uniform(1.0, 3.0), 3)
    return option(drawn, rng, lambda p: alone(p, value), "teacher temperature")


@kind("settings", "soft teacher", "softer teacher", "flat targets", words=("targets",))
def flat_sharpening(drawn: Drawn, rng: Rng) -> Change | None:
    value = round(rng.uniform(1.0, 4.0), 2)
    return option(drawn, rng, lambda p: value, "sharpening")


@kind("settings", "fixed target", "target stands still", words=("momentum",))
def momentum_one(drawn: Drawn, rng: Rng) -> Change | None:
    return option(drawn, rng, lambda p: alone(p, 1.0), "momentum")


@kind("settings", "fast target", "target is the network", words=("momentum",))
def momentum_near_0(drawn: Drawn, rng: Rng) -> Change | None:
    value = round(rng.uniform(0, 0.3), 2)
    return option(
        drawn, rng, lambda p: (value, *p.default[1:]) if isinstance(p.default, tuple) else value,
        "momentum",
    )  # fmt: skip


@kind("settings", "slow target", "slow target of the paper")
def momentum_of_a_million_steps(drawn: Drawn, rng: Rng) -> Change | None:
    value = float(rng.choice(LONG_MOMENTA))
    return option(
        drawn, rng, lambda p: (value, *p.default[1:]) if isinstance(p.default, tuple) else value,
        "momentum",
    )  # fmt: skip


@kind("settings", "falling momentum", "fast target", words=("momentum",))
def momentum_swapped(drawn: Drawn, rng: Rng) -> Change | None:
    if not any(isinstance(p.default, tuple) for p in drawn.having("momentum")):
        return None
    end = round(rng.uniform(0.0, 0.9), 2)
    return option(drawn, rng, lambda p: (p.default[0], end), "momentum")


@kind("settings", "far from the paper", words=("margin",))
def margin_of_another_unit(drawn: Drawn, rng: Rng) -> Change | None:
    factor = between(rng, 100, 10000) ** rng.choice((-1, 1))
    return option(drawn, rng, lambda p: scaled(p, factor), "margin")


@kind("settings", "term of no weight", "silent term", "loss of a collapse", "collapse")
def term_without_weight(drawn: Drawn, rng: Rng) -> Change | None:
    if not any(p.default for p in drawn.having("term weight")):
        return None
    found = [p for p in drawn.having("term weight") if p.default]
    options = {found[rng.integers(len(found))].name: 0.0}
    return Change(said(options), options)


@kind("settings", "weights of terms", "worse than guessing/weight")
def term_that_drowns_all(drawn: Drawn, rng: Rng) -> Change | None:
    found = [p for p in drawn.having("term weight") if p.default]
    if not found:
        return None
    factor = between(rng, 200, 20000)
    made = {p.name: scaled(p, factor) for p in [found[rng.integers(len(found))]]}
    return Change(said(made), made)


@kind("settings", "nothing hidden", words=("ratio", "hidden"))
def hardly_anything_hidden(drawn: Drawn, rng: Rng) -> Change | None:
    value = round(rng.uniform(0.0, 0.1), 2)
    return option(drawn, rng, lambda p: value, "hidden share")


@kind("settings", "all hidden", words=("ratio", "hidden"))
def all_hidden(drawn: Drawn, rng: Rng) -> Change | None:
    value = round(rng.uniform(0.96, 0.995), 3)
    return option(drawn, rng, lambda p: alone(p, value), "hidden share", "mask ratio")


@kind("settings", "few prototypes", words=("prototypes", "clusters"))
def two_prototypes(drawn: Drawn, rng: Rng) -> Change | None:
    value = int(rng.integers(1, 4))
    return option(drawn, rng, lambda p: alone(p, value), "prototypes")


@kind("settings", "short queue", words=("queue", "negatives"))
def queue_of_a_few(drawn: Drawn, rng: Rng) -> Change | None:
    value = int(rng.integers(1, 5))
    return option(drawn, rng, lambda p: value, "queue")


@kind("settings", "narrow head", "few dimensions", words=("dim", "hidden"))
def head_of_a_few_numbers(drawn: Drawn, rng: Rng) -> Change | None:
    value = int(rng.integers(1, 5))
    return option(drawn, rng, lambda p: alone(p, value), "head width")


@kind("settings", "narrow decoder", words=("dim", "width", "heads"))
def decoder_of_a_few_numbers(drawn: Drawn, rng: Rng) -> Change | None:
    value = int(rng.choice((1, 2, 4, 8)))
    made = option(drawn, rng, lambda p: value, "decoder width")
    if made and drawn.having("count") and "heads" in methods.signature(drawn.name):
        made.options["heads"] = 1
    return made


@kind("settings", "large blocks")
def targets_that_leave_nothing(drawn: Drawn, rng: Rng) -> Change | None:
    value = round(rng.uniform(0.7, 0.95), 2)
    return option(drawn, rng, lambda p: alone(p, value), "target block")


@kind("settings", "small context")
def context_of_nothing(drawn: Drawn, rng: Rng) -> Change | None:
    value = round(rng.uniform(0.02, 0.1), 2)
    return option(drawn, rng, lambda p: alone(p, value), "context block")


@kind("settings", "rate for optimizer", "high learning rate", "steps too long",
      "weights decayed at once", "strong weight decay", "stopped", "worse than guessing/rate",
      words=("learning rate", "not finite"))  # fmt: skip
def rate_too_high(drawn: Drawn, rng: Rng) -> Change | None:
    if rng.random() < 0.5:
        return setting(optimizer="adamw", lr=between(rng, 0.3, 30))
    return setting(optimizer="sgd", lr=between(rng, 200, 5000))


@kind("settings", "low learning rate", "way of the weights", "weights do not move")
def rate_too_low(drawn: Drawn, rng: Rng) -> Change | None:
    if rng.random() < 0.5:
        return setting(optimizer="adamw", lr=between(rng, 1e-10, 1e-7))
    return setting(optimizer="sgd", lr=between(rng, 1e-11, 1e-8))


@kind("settings", "strong weight decay", "weights decayed at once", "features collapsed/decay",
      words=("weight decay",))  # fmt: skip
def decay_too_strong(drawn: Drawn, rng: Rng) -> Change | None:
    return setting(optimizer="adamw", lr=2e-3, weight_decay=between(rng, 40, 2000))


@kind("settings", "long warm-up")
def warm_up_without_end(drawn: Drawn, rng: Rng) -> Change | None:
    return setting(warmup=round(rng.uniform(0.8, 1.0), 2))


@kind("settings", "small batch", words=("batch",))
def batch_of_a_few(drawn: Drawn, rng: Rng) -> Change | None:
    return setting(batch=int(rng.integers(2, 5))) if drawn.kind.needs.batch > 1 else None


@kind("settings", "tiny clip", "way of the weights", "weights do not move")
def gradients_clipped_away(drawn: Drawn, rng: Rng) -> Change | None:
    return setting(optimizer="sgd", lr=0.03, clip=between(rng, 1e-10, 1e-7))


@kind("settings", "small crops", "empty views", "views unrelated")
def crops_of_a_few_pixels(drawn: Drawn, rng: Rng) -> Change | None:
    top = between(rng, 0.002, 0.03)
    return setting(crop_scale=(top / 2, top)) if drawn.joint else None


@kind("settings", "strong distortion", "views unrelated", "empty views")
def colors_torn_apart(drawn: Drawn, rng: Rng) -> Change | None:
    return setting(color_jitter=between(rng, 15, 100)) if drawn.joint else None


# --------------------------------------------------------------------------------------- code


def pictures(x: Any) -> bool:
    """Whether something is a batch of images."""
    return isinstance(x, Tensor) and x.ndim == 4 and x.is_floating_point()


def on_pictures(views: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Change all images of nested views."""
    return tree_map(lambda x: change(x) if pictures(x) else x, views)


def before_loss(says: str, change: Callable[[Any], Any]) -> Change:
    """Change what `loss` is handed."""

    def apply(method: Any) -> None:
        original = method.loss

        def loss(self: Any, batch: Any) -> Any:
            return original(change(batch))

        method.loss = MethodType(loss, method)

    return Change(says, method=apply)


def second_view(views: Any, change: Callable[[Any], Any]) -> Any:
    """Change the second of two views or more."""
    if not (isinstance(views, list) and len(views) > 1 and all(map(pictures, views[:2]))):
        raise Unfit("no two views")
    return [views[0], change(views[1]), *views[2:]]


@kind("code", "pairs unrelated", "views in another order", "pushed apart", "views unrelated",
      "worse than guessing/pair", "exactly guessing/pair")  # fmt: skip
def pairs_of_different_images(drawn: Drawn, rng: Rng) -> Change | None:
    shift = int(rng.integers(1, 8))
    if not drawn.joint:
        return None
    return before_loss(
        f"second view of {shift} images before",
        lambda b: b._replace(views=second_view(b.views, lambda x: x.roll(shift, 0))),
    )


@kind("code", "views too alike")
def same_view_twice(drawn: Drawn, rng: Rng) -> Change | None:
    def views(pipeline: Any) -> Any:
        def again(image: Any, generator: Any) -> Any:
            made = pipeline(image, generator)
            if not isinstance(made, list | tuple) or len(made) < 2:
                raise Unfit("no two views")
            return [made[0], made[0], *made[2:]]

        return again

    return Change("the first view is the second, too", views=views) if drawn.joint else None


@kind("code", "duplicates in a batch", "duplicates")
def positives_among_negatives(drawn: Drawn, rng: Rng) -> Change | None:
    def twice(x: Tensor) -> Tensor:
        return torch.cat([x[: len(x) // 2]] * 2)

    if drawn.family != "contrastive" or not drawn.joint or drawn.having("queue"):
        return None
    return before_loss("each image twice in a batch", lambda b: type(b)(
        on_pictures(b.views, twice), *(None if x is None else twice(x) for x in b[1:])
    ))  # fmt: skip


@kind("code", "labels of others", "memory of others")
def labels_of_others(drawn: Drawn, rng: Rng) -> Change | None:
    shift = int(rng.integers(1, 8))
    if drawn.kind.needs.labels:
        return before_loss("labels", lambda b: b._replace(label=b.label.roll(shift)))
    counted = "samples" in {p.name for p in methods.signature(drawn.name).parameters}
    if not (counted and drawn.kind.insight.memory):
        return None
    return before_loss("indices", lambda b: b._replace(index=b.index.roll(shift)))


@kind("code", "pushed apart", "wrong sign", "worse than guessing/sign", "pairs unrelated/sign")
def wrong_sign(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        original = method.loss

        def loss(self: Any, batch: Any) -> Any:
            return tree_map(lambda x: -x, original(batch))

        method.loss = MethodType(loss, method)

    return Change("the negative loss", method=apply)


@kind("code", "channels in another order")
def channels_swapped(drawn: Drawn, rng: Rng) -> Change | None:
    return before_loss("BGR in training", lambda b: b._replace(
        views=on_pictures(b.views, lambda x: x.flip(1) if x.shape[1] == 3 else x)
    ))  # fmt: skip


@kind("code", "another scale", "normalization: mean", "normalization: deviation")
def normalized_twice(drawn: Drawn, rng: Rng) -> Change | None:
    mean, std = round(rng.uniform(0.3, 0.6), 2), round(rng.uniform(0.15, 0.3), 2)
    return before_loss(f"again by {mean}, {std}", lambda b: b._replace(
        views=on_pictures(b.views, lambda x: (x - mean) / std)
    ))  # fmt: skip


@kind("code", "normalization: mean", "normalization: deviation")
def not_normalized(drawn: Drawn, rng: Rng) -> Change | None:
    std = float(rng.choice((1 / 255, 255.0)))

    def apply(method: Any) -> None:
        method.encoder.mean, method.encoder.std = (0.0,) * 3, (std,) * 3

    return Change(f"by 0, {std:.3g}", method=apply)


@kind("code", "target stands still")
def after_step_forgotten(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        method.after_step = lambda: None

    return Change("no after_step", method=apply) if drawn.kind.insight.copies else None


@kind("code", "target is the network")
def teacher_is_the_network(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        original = method.after_step

        def after_step(self: Any) -> None:
            original()
            for target, online in self.insight.copies:
                weights = self.get_submodule(online).state_dict()
                self.get_submodule(target).load_state_dict(weights, strict=False)

        method.after_step = MethodType(after_step, method)

    return Change("copied in each step", method=apply) if drawn.kind.insight.copies else None


@kind("code", "no gradient", words=("frozen", "requires_grad"))
def backbone_frozen(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        method.backbone.requires_grad_(False)

    return Change("requires_grad is off", method=apply)


@kind("code", "no gradient/detach", "weights do not move")
def gradients_zeroed(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        for p in method.backbone.parameters():
            p.register_hook(torch.zeros_like)

    return Change("of the backbone", method=apply)


@kind("code", "memory stands still")
def queue_never_filled(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        queues = [m for m in method.modules() if isinstance(m, Queue)]
        if not queues:
            raise Unfit("no queue")
        for queue in queues:
            queue.push = lambda x: None  # type: ignore[method-assign]

    fills = drawn.having("queue") and drawn.kind.insight.memory
    return Change("push does nothing", method=apply) if fills else None


@kind("code", "batch norm off")
def stays_in_eval_mode(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        method.train = MethodType(lambda self, mode=True: nn.Module.train(self, False), method)

    return None if drawn.transformer else Change("train() does nothing", method=apply)


@kind("code", "norm statistics lag")
def norms_that_do_not_follow(drawn: Drawn, rng: Rng) -> Change | None:
    momentum = float(rng.choice((0.0, 1e-4, 1e-3)))

    def apply(method: Any) -> None:
        for module in method.backbone.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = momentum

    made = Change(f"momentum {momentum:g} of batch norms", method=apply)
    return None if drawn.transformer else made


@kind("code", "half-precision weights", "weights do not move")
def weights_in_bf16(drawn: Drawn, rng: Rng) -> Change | None:
    def apply(method: Any) -> None:
        method.to(torch.bfloat16)
        method.backbone.register_forward_pre_hook(
            lambda net, inputs: (inputs[0].to(torch.bfloat16), *inputs[1:])
        )

    return Change("all", method=apply) if drawn.joint else None


# --------------------------------------------------------------------------------------- data


def damaged(says: str, rng: Rng, share: float, change: Callable[[np.ndarray, Rng], Any]) -> Change:
    """A share of the images, chosen at random, changed one by one."""
    seed = int(rng.integers(2**31))

    def images(found: Images, labels: np.ndarray) -> tuple[Images, np.ndarray]:
        own = np.random.default_rng(seed)
        chosen = set(own.permutation(len(found))[: round(share * len(found))].tolist())
        return [change(x, own) if i in chosen else x for i, x in enumerate(found)], labels

    return Change(f"{says}, {share:.0%}", images=images)


def copied(says: str, rng: Rng, share: float, change: Callable[[np.ndarray, Rng], Any]) -> Change:
    """A share of the images are copies of others, changed."""
    seed = int(rng.integers(2**31))

    def images(found: Images, labels: np.ndarray) -> tuple[Images, np.ndarray]:
        own = np.random.default_rng(seed)
        order, kept = own.permutation(len(found)), max(1, round((1 - share) * len(found)))
        source = np.concatenate([order[:kept], own.choice(order[:kept], len(found) - kept)])
        made = [found[i] if k < kept else change(found[i], own) for k, i in enumerate(source)]
        mixed = own.permutation(len(made))
        return [made[i] for i in mixed], labels[source][mixed]

    return Change(f"{says}, {share:.0%}", images=images)


@kind("data", "duplicates", "repeated images")
def exact_copies(drawn: Drawn, rng: Rng) -> Change | None:
    return copied("copies", rng, rng.uniform(0.25, 0.97), lambda x, own: x)


@kind("data", "near-duplicates", "duplicates")
def near_copies(drawn: Drawn, rng: Rng) -> Change | None:
    def encoded(image: np.ndarray, own: Rng) -> np.ndarray:
        file = io.BytesIO()
        Picture.fromarray(image).save(file, "JPEG", quality=int(own.integers(40, 80)))
        return np.asarray(Picture.open(file))

    def neighbor(image: np.ndarray, own: Rng) -> np.ndarray:
        moved = np.roll(image, own.integers(-1, 2, 2), (0, 1)).astype(float)
        return (moved + own.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8)

    name, change = [("re-encoded", encoded), ("frames", neighbor)][rng.integers(2)]
    return copied(name, rng, rng.uniform(0.35, 0.8), change)


@kind("data", "some constant images", "constant images", "empty views")
def constant(drawn: Drawn, rng: Rng) -> Change | None:
    return damaged("one color", rng, rng.uniform(0.15, 1.0),
                   lambda x, own: np.full_like(x, own.integers(0, 256, x.shape[-1])))  # fmt: skip


@kind("data", "dull images", "normalization: mean", "normalization: deviation", "empty views",
      "some constant images", "constant images")  # fmt: skip
def dark(drawn: Drawn, rng: Rng) -> Change | None:
    factor = between(rng, 0.01, 0.06)
    return damaged(f"times {factor}", rng, rng.uniform(0.7, 1.0),
                   lambda x, own: (x * factor).astype(np.uint8))  # fmt: skip


@kind("data", "bars at edges", "same bars at edges", "patch in images")
def bars(drawn: Drawn, rng: Rng) -> Change | None:
    width, same = rng.uniform(0.1, 0.25), bool(rng.random() < 0.5)
    sides = int(rng.integers(1, 4))  # rows, columns or both

    def barred(image: np.ndarray, own: Rng) -> np.ndarray:
        color = np.uint8(0) if same else own.integers(0, 256, 3).astype(np.uint8)
        made, rows, columns = image.copy(), *(max(2, int(width * n)) for n in image.shape[:2])
        if sides & 1:
            made[:rows] = made[-rows:] = color
        if sides & 2:
            made[:, :columns] = made[:, -columns:] = color
        return made

    says = f"{('rows', 'columns', 'both')[sides - 1]}, {'black' if same else 'colored'}"
    return damaged(says, rng, rng.uniform(0.5, 1.0), barred)


@kind("data", "mark in all images", "mark in some images", "patch in images")
def marks(drawn: Drawn, rng: Rng) -> Change | None:
    own_color, side = bool(rng.random() < 0.5), rng.uniform(0.15, 0.3)
    seed = int(rng.integers(2**31))

    def marked(image: np.ndarray, own: Rng) -> np.ndarray:
        made, n = image.copy(), max(4, int(side * min(image.shape[:2])))
        stamp = np.random.default_rng(seed).integers(0, 2, (4, 4, 1)) * 255
        stamp = stamp.repeat(-(-n // 4), 0).repeat(-(-n // 4), 1)[:n, :n]
        made[:n, -n:] = own.integers(0, 256, 3) if own_color else stamp
        return made

    return damaged("a color each" if own_color else "the same stamp", rng,
                   rng.uniform(0.6, 1.0), marked)  # fmt: skip


@kind("data", "tiny images", "small images")
def mixture_of_sizes(drawn: Drawn, rng: Rng) -> Change | None:
    side = int(rng.integers(6, 11))

    def small(image: np.ndarray, own: Rng) -> np.ndarray:
        return np.asarray(Picture.fromarray(image).resize((side, side)))

    return damaged(f"{side} px", rng, rng.uniform(0.15, 0.45), small)


@kind("data", "two cameras")
def two_tints(drawn: Drawn, rng: Rng) -> Change | None:
    tint = rng.permutation([1.0, 0.75, 0.4]) * rng.uniform(0.6, 1)
    offset = rng.permutation([0.0, 30.0, 80.0])

    def tinted(image: np.ndarray, own: Rng) -> np.ndarray:
        return (image * tint + offset).clip(0, 255).astype(np.uint8)

    return damaged("another tint", rng, rng.uniform(0.3, 0.7), tinted)


@kind("data", "one class")
def one_huge_class(drawn: Drawn, rng: Rng) -> Change | None:
    share = rng.uniform(0.88, 0.97)
    seed = int(rng.integers(2**31))

    def images(found: Images, labels: np.ndarray) -> tuple[Images, np.ndarray]:
        own = np.random.default_rng(seed)
        kinds = np.unique(labels)
        if len(kinds) < 3:
            raise Unfit("too few classes")
        large = own.choice(kinds)
        inside, outside = np.flatnonzero(labels == large), np.flatnonzero(labels != large)
        rest = own.permutation(outside)[: max(2, round(len(inside) * (1 - share) / share))]
        kept = own.permutation(np.concatenate([inside, rest]))
        if len(kept) < 96 or len(np.unique(labels[kept])) < 3:
            raise Unfit("too few images")
        return [found[i] for i in kept], labels[kept]

    return Change(f"{share:.0%}", images=images)
