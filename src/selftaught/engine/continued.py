"""How a run goes on from weights: a recipe that keeps what they know, and what stays as it was."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from selftaught import choose
from selftaught.backbones import Encoder, Image
from selftaught.backbones.image.create import beit, plain_vit
from selftaught.backbones.stages import stages
from selftaught.chosen import Chosen
from selftaught.engine import anchor, beginning, optim
from selftaught.engine.checkpoint import Checkpoints
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.export.facts import SETTINGS, content
from selftaught.method import Method, Recipe
from selftaught.parts import frozen, lora
from selftaught.parts.norm import tracking
from selftaught.signature import read_object, values_by_role

LR, LORA_LR = 1e-4, 1e-3
"""Of AdamW for a batch of 256. It follows the square root of the batch: Adam divides a gradient by
its size, so that steps do not shrink with its noise, whose share falls with that root. What is
added by low rank begins at nothing and is to go farther."""
RANK = 16
"""Of what is learned beside somebody's weights where nobody says it."""
MOSTLY = 0.5
"""Share of the weights in layers that can have something of low rank, which is then chosen."""
DECAY, WARMUP, LAYER_DECAY = 0.01, 0.1, 0.9
HEADS, HEADS_RATE = 0.05, 10.0
"""Share of the training in which what is new learns alone, and its rate then, as a multiple of LR:
AdamW's for what begins at random."""
REASONS = {
    "optimizer": "steps of one size, whatever the loss",
    "lr": "what the weights know is kept",
    "weight_decay": "what the weights know is kept",
    "warmup": "first steps are the roughest",
    "layer_decay": "early layers change least",
    "schedule": "down to nothing at the end",
    "head_warmup": "what is new learns alone first",
}
HALF_LIFE = 0.05
"""Of an EMA copy, at most, as a share of a training that goes on from weights."""


def begins(image: Encoder, settings: Settings, out: Path) -> bool:
    """Whether the run in `out` begins, or has begun, with weights rather than a fresh draw."""
    if settings.resume and Checkpoints.of(out).steps():
        return (out / beginning.FILE).exists()
    return settings.start is not None or image.trained


def _own(method: Method) -> bool:
    """Whether the paper's recipe is one for going on from weights already."""
    return method.needs.labels or method.needs.learned


def recipe(method: Method, settings: Settings) -> Recipe:
    """The recipe of a training that goes on from weights, before the user's changes."""
    paper = method.recipe
    if settings.recipe == "paper" or _own(method):
        return paper
    layered = _is_vit(method.backbone) and not settings.lora
    return Recipe(
        "adamw",
        lr=LORA_LR if settings.lora else LR,
        scaling="sqrt",
        weight_decay=DECAY,
        warmup=WARMUP,
        layer_decay=LAYER_DECAY if layered else 1.0,
        **{name: getattr(paper, name) for name in _NAMED if layered or name != "patch_lr"},
    )


def _is_vit(backbone: Any) -> bool:
    """Whether rates can decay from layer to layer of it."""
    net = backbone.net if isinstance(backbone, Image) else nn.Identity()
    return plain_vit(net) is not None or beit(net) is not None


_NAMED = ("no_decay", "decay_tokens", "patch_lr", "constant", "clip", "clip_by", "no_clip")
"""What a recipe says of parts by their names, which stays."""


def resting(method: Method, settings: Settings, steps: int, loaded: set[str]) -> int:
    """Steps at the beginning in which the backbone rests and what is new learns alone.

    Args:
        method, settings: of a training that goes on from weights.
        steps: of it.
        loaded: names of what comes from the run to begin with, heads included.
    """
    share = settings.head_warmup
    if share is None:
        share = 0.0 if settings.recipe == "paper" or _own(method) else HEADS
    new = any(
        p.requires_grad and not name.startswith("backbone.") and name not in loaded
        for name, p in method.named_parameters()
    )
    return min(round(share * steps), steps - 1) if new else 0


class HeadsFirst(optim.Rates):
    """Rates of a training in whose first steps the backbone rests; its schedules begin after them.

    Args:
        recipe, batch, steps, steps_per_epoch: as of `Rates`, of the whole training.
        rest: number of these steps.
        rate: in them, as a multiple of the peak.
    """

    def __init__(
        self, recipe: Recipe, batch: int, steps: int, steps_per_epoch: int, rest: int, rate: float
    ):
        super().__init__(recipe, batch, steps - rest, steps_per_epoch)
        self.rest, self.rate = rest, rate

    def lr(self, step: int) -> float:
        return self.rate * self.peak if step < self.rest else super().lr(step - self.rest)

    def weight_decay(self, step: int) -> float:
        return super().weight_decay(max(0, step - self.rest))


def rates(
    recipe: Recipe, settings: Settings, batch: int, steps: int, per_epoch: int, rest: int
) -> optim.Rates:
    """Those of a training whose backbone rests for `rest` steps, which may be none."""
    if not rest:
        return optim.Rates(recipe, batch, steps, per_epoch)
    rate = HEADS_RATE if recipe.lr == LR and settings.recipe == "auto" else 1.0
    return HeadsFirst(recipe, batch, steps, per_epoch, rest, rate)


def fit_momentum(
    method: Method, settings: Settings, out: Path, steps: int, half_life: float = HALF_LIFE
) -> list[Chosen]:
    """Let an EMA copy follow within a short training, where its momentum is still the paper's.

    Args:
        method, settings: of the training.
        out: run folder; a run that is resumed keeps the momentum that it began with.
        steps: of the training.
        half_life: of the copy, at most, as a share of the training.
    """
    known = read_object(type(method))
    paper = known["momentum"].default if "momentum" in known else None
    kept = settings.recipe == "paper" or _own(method) or not method.insight.copies
    if paper is None or kept or getattr(method, "momentum", None) != paper:
        return []
    first, *others = paper if isinstance(paper, tuple) else (paper,)
    center = next(iter(values_by_role(method).get("center momentum", ())), None)
    value: Any = choose.momentum(first, steps, half_life, center)
    value = (value, *others) if isinstance(paper, tuple) else value
    if settings.resume:
        before = content(out / SETTINGS).get("options", {}).get("momentum", value)
        value = known["momentum"].parse(before)
    setattr(method, "momentum", value)  # noqa: B010  (a checker takes attributes for modules)
    why = "an EMA copy that follows within the training"
    return [] if value == paper else [Chosen("momentum", value, paper, why)]


def chosen(
    method: Method,
    settings: Settings,
    now: Recipe,
    batch: int,
    steps: int,
    rest: int,
    reasons: Mapping[str, str] = REASONS,
) -> list[Chosen]:
    """What differs from the paper's recipe without the user having said so."""
    paper = method.recipe
    peak, papers = (optim.Rates(r, batch, steps, 1).peak for r in (now, paper))
    every = [Chosen("lr", peak, papers)]
    names = ("optimizer", "weight_decay", "warmup", "layer_decay")
    every += [Chosen(name, getattr(now, name), getattr(paper, name)) for name in names]
    every.append(Chosen("schedule", now.schedule, paper.schedule))
    found = [c for c in every if c.value != c.paper and getattr(settings, c.name, None) is None]
    if rest and settings.head_warmup is None:
        found.append(Chosen("head_warmup", HEADS, 0.0))
    return [c._replace(why=reasons.get(c.name, "")) for c in found]


def low_rank(method: Method, settings: Settings, gpu: bool) -> list[Chosen]:
    """Whether a training that begins with somebody's weights learns beside them, not in them.

    `benchmarks/adapt.py` has it above its start where all weights trained for as long are not: a
    CPU's minutes show few images, and a GPU's were not measured.

    Args:
        method: what is trained.
        settings: of it, without a rank; who says what is to stay as it was is left alone.
        gpu: whether it runs on one.
    """
    said = settings.freeze is not None or settings.anchor is not None
    image: Any = method.encoder
    other = _own(method) or method.needs.views == "own"  # that was not measured
    if gpu or said or other or settings.recipe == "paper" or not image.trained:
        return []
    layers = [layer.weight.numel() for _, layer in lora.adaptable(method.backbone, RANK)]
    if settings.norm_statistics == "start" or sum(layers) < MOSTLY * choose.sizes(image)[1]:
        return []
    return [Chosen("lora", RANK, None, "few images move all weights too far; 0 trains them")]


# what stays as it was ---------------------------------------------------------------------------


def check(method: Method, settings: Settings, begins: bool) -> None:
    """Refuse what a network cannot keep, or has not got yet; `method` is left as it is."""
    kept = {
        "--freeze": settings.freeze is not None,
        "--lora": bool(settings.lora),
        "--norm-statistics start": settings.norm_statistics == "start",
        "--head-warmup": bool(settings.head_warmup),
    }
    image: Any = method.encoder
    if not begins and any(kept.values()) and isinstance(image, Image):
        asked = next(name for name, given in kept.items() if given)
        off = "turn it off with --lora 0" if asked == "--lora" else "leave it out"
        raise UserError(
            f"{asked} is for going on from weights, and this training begins with random ones: "
            f"name some with --start, --weights or --pretrained, or {off}"
        )
    if not settings.lora and (settings.lora_alpha or settings.lora_layers):
        raise UserError("lora_alpha and lora_layers belong to --lora RANK, which is not given")
    names = _frozen(method, settings)
    if settings.lora:
        _adapted(method, settings, names)
    elif settings.anchor and not _trained(method, names):
        raise UserError(
            "all of the backbone is frozen, so that an anchor has nothing to keep: drop --anchor, "
            "or freeze less"
        )
    if settings.anchor is not None:
        anchor.check(method, settings.anchor, begins, settings.effective_batch is not None)


def _backbone(method: Method) -> Any:
    return method.backbone


def _trained(method: Method, names: set[str]) -> bool:
    """Whether anything of the backbone is trained beside what is called `names`."""
    every = method.backbone.named_parameters()
    return any(p.requires_grad and name not in names for name, p in every)


def _frozen(method: Method, settings: Settings) -> set[str]:
    """Names of the backbone's parameters that are not trained at all."""
    if settings.freeze is None:
        return set()
    parts = stages(_backbone(method))
    if settings.freeze == "all":
        return {name for part in parts for name in part}
    if settings.freeze >= len(parts):
        raise UserError(
            f"{_backbone(method).name} has {len(parts) - 1} stages or blocks after its stem, and "
            f"--freeze {settings.freeze} asks for more: use a smaller number, or all"
        )
    return {name for part in parts[: settings.freeze + 1] for name in part}


def _adapted(method: Method, settings: Settings, names: set[str]) -> list[str]:
    """Names of the layers to which something of low rank is added, outside of what is frozen."""
    assert settings.lora
    every = [n for n, _ in lora.adaptable(method.backbone, settings.lora)]
    every = [name for name in every if f"{name}.weight" not in names]
    wanted = settings.lora_layers
    found = [n for n in every if wanted is None or set(wanted) & set(n.split("."))]
    if not found:
        there = ", ".join(dict.fromkeys(n.rpartition(".")[2] for n in every))
        raise UserError(
            f"--lora {settings.lora} finds no layer in {_backbone(method).name}: it takes linear "
            "layers and 1 x 1 convolutions that are not frozen and wider than twice the rank"
            + (f", called {', '.join(wanted)}; there are {there or 'none'}" if wanted else "")
        )
    return found


class Prepared(NamedTuple):
    """What was done to a method before its first step.

    undo: makes it plain again: layers of low rank are merged, what was held is let go.
    accepted: rules of the doctor that have nothing to say of it.
    told: what was done, in words.
    """

    undo: ExitStack
    accepted: frozenset[str]
    told: list[str]


NOTHING = Prepared(ExitStack(), frozenset(), [])


def prepare(method: Method, settings: Settings) -> Prepared:
    """Freeze, adapt and hold what the settings say, in the backbone and in EMA copies of it."""
    undo, told = ExitStack(), list[str]()
    backbone, names = _backbone(method), _frozen(method, settings)
    layers = _adapted(method, settings, names) if settings.lora else []
    whole = {name for name, _ in backbone.named_parameters()}
    for network in (backbone, *_copies(method)):
        undo.callback(frozen.freeze(network, names).close)
        if settings.lora:
            undo.callback(frozen.stop(network, whole).close)
            lora.adapt(network, layers, settings.lora, _alpha(settings), settings.seed)
            if network is not backbone:
                network.requires_grad_(False)
            undo.callback(lora.merge, network)
        if settings.lora or settings.norm_statistics == "start":
            for layer in tracking(network.modules()):
                undo.callback(frozen.hold(layer).close)
    if names:
        stem = "all of it" if names == whole else f"the stem and {settings.freeze} stages or blocks"
        told.append(f"frozen in {backbone.name}: {stem}, {_share(backbone, names)} of its weights")
    if settings.lora:
        kinds = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in layers))
        new = {n for n, p in backbone.named_parameters() if p.requires_grad}
        told.append(
            f"low rank {settings.lora} is learned in {len(layers)} layers ({kinds}): "
            f"{_share(backbone, new)} of the weights; the others stay as they are"
        )
    if settings.norm_statistics == "start":
        told.append("batch norms of the backbone use the statistics that it begins with")
    accepted = {"batch norm off"} if settings.norm_statistics == "start" else set[str]()
    if names and not any(p.requires_grad for p in backbone.parameters()):
        accepted.add("no gradient")
    return Prepared(undo, frozenset(accepted), told)


def _copies(method: Method) -> Iterator[nn.Module]:
    """EMA copies of the backbone."""
    for target, online in method.insight.copies:
        if online == "backbone":
            yield method.get_submodule(target)


def _alpha(settings: Settings) -> float:
    return float(settings.lora or 1) if settings.lora_alpha is None else settings.lora_alpha


def _share(network: nn.Module, names: set[str]) -> str:
    sizes = {name: p.numel() for name, p in network.named_parameters()}
    some = sum(size for name, size in sizes.items() if name in names)
    return f"{some / 1e6:.3g} of {sum(sizes.values()) / 1e6:.3g} million"
