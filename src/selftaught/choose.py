"""What a training is given where nobody says it: rules by what a setting is for, with reasons.

The papers' settings are for a million images and batches of thousands. A rule fits one to the data
and the machine; what no rule gives, and `benchmarks/learn.py` has shown for few images, a method
says in its `few`. Nothing here depends on a clock: the same data gets the same settings.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from selftaught.backbones.weights.at_hand import Found
from selftaught.backbones.weights.places import TIMM
from selftaught.chosen import Chosen
from selftaught.method import Method, Needs, Recipe
from selftaught.sides import both, short
from selftaught.signature import read_object

LARGE_BATCH = 1024
"""Images a step from which on a paper's own optimizer is kept: LARS is for such."""
RATE, RATE_BATCH, RATE_WEIGHTS, RATE_POWER = 2e-3, 64, 0.4e6, -0.4
"""AdamW's rate as `benchmarks/learn.py` has it, for this batch and this many weights. It follows
the square root of the batch; for larger networks it falls so that 10 million have about 1e-3 at
256, as is usual for them."""
DECAY, WARMUP = 1e-4, 0.05
PAPER_BATCH, PAPER_EPOCHS = 256, 100
"""Of `--recipe paper`, where neither the paper's data nor its machines are there."""
MEASURED = 2e6
"""Weights of a network up to which the settings of `few` were measured."""
HALF_LIFE = 0.02
"""Of an EMA copy, at most, as a share of the training."""
CONVOLUTIONAL, TRANSFORMER = "test_resnet", "test_vit2"
"""timm's smallest networks: those that learn most in minutes on a CPU."""
CPU_SIDE = 64
"""Side in pixels of the images that they get."""
GROWING = {
    (False, False): (
        (CONVOLUTIONAL, CPU_SIDE),
        ("resnet10t", CPU_SIDE),
        ("resnet18", CPU_SIDE),
        ("resnet18", 96),
    ),
    (False, True): (
        (TRANSFORMER, CPU_SIDE),
        ("vit_tiny_patch16_224", CPU_SIDE),
        ("vit_tiny_patch16_224", 96),
    ),
    (True, False): (("resnet18", 96), ("resnet18", 224), ("", 224)),
    (True, True): (("vit_tiny_patch16_224", 224), ("", 224)),
}
"""(on a GPU, a transformer) -> networks and sides, each of which takes longer than those before;
the method's own has no name."""
ENOUGH, PASSES = 250_000, 10
"""Images that a network from nothing is to see in its time, and passes over them, before a larger
one is worth it: the small one gains 5 points of k-NN on CIFAR-10 and 10 on clothes from 100,000
images, or ten passes of the former, to 250,000 (benchmarks/results/learn-*.md)."""
START_WEIGHTS = {False: 6e6, True: 30e6}
"""By whether it is on a GPU: weights of a network to begin with that is not too slow to train."""
START_IMAGES = 100_000
"""Images up to which somebody else's weights come first: on 720 to 3,068 of them they were better
as they came than all that was learned from nothing (benchmarks/results/adapt.md); more than this
were not tried."""
START_SIDES = (64, 96, 128)
"""Pixels that a CPU shows such a network: the same weights have 71 by k-NN at 64 px and 82 at 128
on aerial tiles, and 224 take three times as long. Below the first of them its stem is another."""
START = 3_000
"""Images that it is to see in its time: four passes over 800 leaves were worth 7 points."""
STANDINS = {
    "resnet50": "tf_efficientnet_lite0",
    "vit_small_patch16_224": "vit_tiny_patch16_224",
}
"""What timm's weights are taken for on a CPU, in place of what only a GPU trains."""
PAPER_WIDTH = 2048
"""Features of a ResNet-50, to which papers fit their heads."""
SMALL = 64
"""Side in pixels below which views keep their detail."""


@dataclass(frozen=True)
class Facts:
    """What is known of a training before its network is built.

    Args:
        images: that it learns from.
        side: usual side that most of them have, in pixels.
        gpu: whether it runs on one.
        begins: whether it goes on from weights.
    """

    images: int
    side: int
    gpu: bool
    begins: bool


def network(needs: Needs, facts: Facts, given: Mapping[str, Any]) -> list[Chosen]:
    """Parameters of the backbone: on a CPU, where nobody names one, small, and for small images.

    Args:
        needs: of the method.
        facts: of the training.
        given: parameters that the user has given.
    """
    if facts.gpu or "name" in given:
        return []
    if facts.begins:
        timms = str(given.get("weights")) == TIMM or given.get("pretrained")
        name = STANDINS.get(needs.backbone)
        if not timms or name is None or needs.learned or needs.teacher:
            return []
        found = [Chosen("backbone", name, needs.backbone, "one that a CPU trains, of timm's")]
        return found + _side(min(facts.side, START_SIDES[-1]), given, "larger ones take too long")
    return grown(needs, facts, given)[0]


def grown(needs: Needs, facts: Facts, given: Mapping[str, Any]) -> list[list[Chosen]]:
    """Parameters of networks that begin with nothing, the smallest first.

    Args:
        needs, facts, given: as of `network`; no name is given.
    """
    transformer = wants_transformer(needs)
    found: dict[tuple[str, int], list[Chosen]] = {}
    for name, most in GROWING[facts.gpu, transformer]:
        asked = given.get("size") or min(facts.side, most)
        size = short(asked)
        why = "0.4 million weights: a CPU in minutes"
        made = [Chosen("backbone", name or needs.backbone, needs.backbone, why)]
        if not facts.gpu or size < facts.side:
            made += _side(size, given, "more images in the time if they are small")
        patches = transformer and not facts.gpu and "patch_size" not in given
        whole = size % 8 == 0 and all(side % (size // 8) == 0 for side in both(asked))
        if patches and size >= SMALL and whole:
            why = "64 patches, whatever the size"
            if asked != size:
                why = "8 patches along the shorter side, whatever the size"
            made.append(Chosen("patch_size", size // 8, 16, why))
        found.setdefault((name, size), made)
    return list(found.values())


def _side(size: int, given: Mapping[str, Any], why: str) -> list[Chosen]:
    return [] if given.get("size") is not None else [Chosen("size", size, 224, why)]


def may_begin(needs: Needs, facts: Facts, given: Mapping[str, Any]) -> bool:
    """Whether a training does better to begin with weights of photos than with nothing.

    Measured of methods that want views of an image alike; what is said of the backbone is of
    another one.

    Args:
        needs, facts, given: as of `network`.
    """
    said = given.keys() - {"size", "channels"}  # also of weights, that there are to be none
    own = needs.views == "own" or needs.beside or needs.learned or needs.teacher or needs.second
    return not (
        said
        or own
        or facts.begins
        or given.get("channels", 3) != 3
        or facts.side < START_SIDES[0]
        or facts.images > START_IMAGES
    )


def starts(found: Sequence[Found], needs: Needs, gpu: bool) -> list[Found]:
    """Those of the weights at hand to begin with, the likeliest first: of a network of the method's
    own kind, and of as many weights as the machine trains."""
    transformer = wants_transformer(needs)
    most = [f for f in found if f.numbers <= START_WEIGHTS[gpu]]
    return sorted(most, key=lambda f: is_transformer(f.network) != transformer)


def start(found: Found, needs: Needs, facts: Facts, given: Mapping[str, Any]) -> list[list[Chosen]]:
    """Parameters of the backbone that begins with `found`, for the smallest images first.

    Args:
        needs, facts, given: as of `network`.
    """
    why = "in a cache of this machine; on few images better than a fresh draw (--weights none)"
    first = [
        Chosen("weights", found.word, None, why),
        Chosen("backbone", found.network, needs.backbone, "whose weights they are"),
    ]
    if facts.gpu or given.get("size") is not None:
        return [first]
    sides = [s for s in START_SIDES if s <= facts.side]
    return [first + _side(s, given, "the weights know larger ones, and take longer") for s in sides]


def wants_transformer(needs: Needs) -> bool:
    """Whether a method's own backbone is a transformer."""
    return is_transformer(needs.backbone)


def is_transformer(name: str) -> bool:
    """Whether a network is one, by timm's name of it."""
    return any(word in name for word in ("vit", "beit", "swin"))


def batch(kind: type[Method], facts: Facts, parts: int) -> Chosen:
    """Images a step: some dozen steps an epoch, and no more than the machine likes.

    Args:
        kind: of the method.
        facts: of the training.
        parts: that a batch is computed in, over all devices.
    """
    few = kind.few.get("batch")
    most = few or (256 if facts.gpu else 64)
    least = few or 16
    value = min(_power(most), max(least, _power(facts.images / 12)), _power(facts.images))
    unit = parts * kind.needs.group
    value = -(-value // unit) * unit
    return Chosen("batch", value, PAPER_BATCH, f"of {facts.images:,} images")


def _power(value: float) -> int:
    """The largest power of two that is not above it."""
    return 2 ** int(math.log2(max(1.0, value)))


def epochs(facts: Facts) -> Chosen:
    """Passes over the data where neither they nor a time were asked for."""
    shown, least, most = (10_000_000, 100, 800) if facts.gpu else (200_000, 20, 400)
    if facts.begins:
        shown, least, most = (1_000_000, 10, 100) if facts.gpu else (20_000, 3, 20)
    value = min(most, max(least, round(shown / max(1, facts.images))))
    why = f"{value * facts.images:,} images; --time 20m fits a budget"
    return Chosen("epochs", value, PAPER_EPOCHS, why)


def recipe(method: Method, batch: int) -> Recipe:
    """The recipe of a training from a fresh draw, before the user's changes.

    Args:
        method: what is trained; its `few` has what is another than the rules say.
        batch: images a step.
    """
    paper, few, weights = method.recipe, method.few, sizes(method.backbone)[1]
    adam = paper.optimizer in ("adam", "adamw", "adamw_bert", "lamb")
    own = not type(method).__module__.startswith("selftaught.")  # whose recipe is meant
    if own or method.needs.learned or batch >= LARGE_BATCH or (adam and weights > MEASURED):
        return paper
    peak = few.get("lr", RATE) * math.sqrt(batch / few.get("batch", RATE_BATCH))
    if "optimizer" not in few:
        peak *= min(1.0, (weights / RATE_WEIGHTS) ** RATE_POWER)
    return replace(
        paper,
        optimizer=few.get("optimizer", "adamw"),
        lr=peak,
        batch=batch,
        scaling="none",
        weight_decay=few.get("weight_decay", DECAY),
        warmup=few.get("warmup", WARMUP),
        by_epoch=False,  # of few epochs the first would be at a warm-up's rate of 0
    )


def momentum(
    paper: float, steps: int, half_life: float = HALF_LIFE, center: float | None = None
) -> float:
    """Of an EMA copy: the paper's, or as much less as makes half of it new after that share of the
    steps. A teacher whose outputs are centered moves at most half as fast as the center: one that
    was as fast gave all images to one prototype within three steps, and came back from it late."""
    least = 0.5 if center is None else (1 + center) / 2
    return min(paper, max(least, 0.5 ** (1 / max(1.0, half_life * steps))))


REASONS = {
    "optimizer": f"LARS and SGD are for batches from {LARGE_BATCH:,} on",
    "lr": "as measured for such a network, by the root of the batch",
    "weight_decay": "as measured with it",
    "warmup": "a share of a short training",
}


def options(
    kind: type[Method], facts: Facts, batch: int, backbone: Any, given: Collection[str]
) -> list[Chosen]:
    """Parameters of the method: by the roles that they have, or as its `few` says.

    Args:
        kind: of the method.
        facts: of the training.
        batch: images a step.
        backbone: that the method is built around.
        given: names of parameters that the user has given.
    """
    width, weights = sizes(backbone)
    size = short(getattr(backbone, "size", SMALL))
    made = Made(facts, batch, min(1.0, width / PAPER_WIDTH), size)
    found = []
    for parameter in read_object(kind).parameters:
        name, paper = parameter.name, parameter.default
        if name in given or parameter.required or parameter.from_data:
            continue
        measured = weights <= MEASURED and name in kind.few
        value, why = (kind.few[name], "as measured") if measured else (paper, "")
        for role in parameter.roles:
            if role.name in RULES and value is not None:
                rule, reason = RULES[role.name]
                less = _lowered(value, rule, made)
                value, why = (less, reason) if less != value else (value, why)
        if value != paper:
            found.append(Chosen(name, value, paper, why))
    return found


class Made(NamedTuple):
    """What rules look at.

    facts: of the training. batch: images a step. width: features of the backbone, as a share of
    those of a ResNet-50. size: shorter side of the views in pixels.
    """

    facts: Facts
    batch: int
    width: float
    size: int


Rule = Callable[[Made, float], float]
"""-> what a number may be at most; of a tuple the largest is handed in, the others follow it."""


def _lowered(value: Any, rule: Rule, made: Made) -> Any:
    many = isinstance(value, tuple)
    top = max(value, default=0) if many else value
    limit = rule(made, top)
    if limit >= top:
        return value
    return tuple(type(v)(v * limit / top) for v in value) if many else type(value)(limit)


RULES: dict[str, tuple[Rule, str]] = {
    "queue": (
        lambda m, _: max(m.batch, m.facts.images // 2 // m.batch * m.batch),
        "half of the images at most",
    ),
    "prototypes": (lambda m, _: max(16, m.facts.images // 10), "a tenth of the images"),
    "drawn images": (lambda m, _: m.facts.images, "as many as there are"),
    "head width": (lambda m, most: max(256, most * m.width), "in proportion to the backbone"),
    "blur": (lambda m, most: 0 if m.size < SMALL else most, f"no detail to lose below {SMALL} px"),
    "strength": (lambda m, most: 0.5 if m.size < SMALL else most, "colors tell more of few pixels"),
    "small views": (lambda m, most: most if m.facts.gpu else 2, "a CPU learns more of new images"),
}
"""By role: a rule, and its reason."""


def sizes(backbone: Any) -> tuple[int, int]:
    """Features and weights of a backbone."""
    return int(getattr(backbone, "dim", PAPER_WIDTH)), sum(p.numel() for p in backbone.parameters())
