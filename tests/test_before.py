"""What the doctor knows before the first step: relations of settings, and what images are like."""

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest
from torch import nn

from selftaught import augment, open_data, pretrain
from selftaught.backbones import backbone
from selftaught.demo import PHOTOS
from selftaught.diagnose.before import BEFORE, Before, Movement
from selftaught.diagnose.images import Looks, copied, look, places
from selftaught.diagnose.preflight import apart, known, preflight, refuse
from selftaught.diagnose.rules import Watch
from selftaught.engine.optim import Rates
from selftaught.errors import UserError
from selftaught.method import Method, Recipe
from selftaught.methods import DINO, MSN, VICReg
from selftaught.roles import TeacherTemperature, Temperature, TermWeight
from selftaught.signature import Valued
from tests.cases import CASES

LOOKS = Looks(count=100, side=40)


def before(**changes) -> Before:
    """A healthy training, changed; `values` are by role, `terms` name -> (weight, usual)."""
    values = changes.pop("values", {"temperature": [0.1]})
    settings = [Valued(role, role, value, None) for role in values for value in values[role]]
    settings += [
        Valued(name, role, *pair)
        for role in ("term weight", "term share", "positive", "margin")
        for name, pair in changes.pop(role.replace(" ", "_"), {}).items()
    ]
    looks = {k: changes.pop(k) for k in vars(LOOKS).keys() & changes.keys()}
    healthy: dict[str, Any] = {
        "method": "SimCLR", "settings": settings, "images": 1000, "batch": 64, "compares": True,
        "steps": 1000, "optimizer": "sgd", "lr": 0.1, "paper_lr": (0.1, 0.1), "top": 0.1,
        "copy": False, "size": 32, "looks": replace(LOOKS, **looks),
    }  # fmt: skip
    return Before(**(healthy | changes))


def names(facts: Before) -> list[str]:
    return [f.name for f in Watch(BEFORE).look(facts)]


ADAM = {"optimizer": "adamw", "paper_lr": None, "lr": 1e-3}
TEACHER = {"temperature": [0.1, 0.04, 0.04], "teacher temperature": [0.04, 0.04]}


def swav(epsilon: float, prototypes: int = 3000) -> dict[str, list[float]]:
    both = {"temperature": [0.1, epsilon], "teacher temperature": [epsilon]}
    return both | {"prototypes": [prototypes]}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"constant": 0.95}, "constant images"),
        ({"constant": 0.2}, "some constant images"),
        ({"repeated": 0.99}, "repeated images"),
        ({"copied": 0.3}, "duplicates"),
        ({"copied": 0.3, "near": 0.3}, "duplicates"),
        ({"near": 0.21}, "near-duplicates"),
        ({"mark": 1.5}, "mark in all images"),
        ({"marked": 12.0}, "mark in some images"),
        ({"patch": 0.9}, "patch in images"),
        ({"bars": 0.4, "unlike_bars": True, "mark": 3.0}, "bars at edges"),
        ({"bars": 1.0}, "same bars at edges"),
        ({"dull": 0.9}, "dull images"),
        ({"tiny": 0.2}, "tiny images"),
        ({"cameras": 9.0}, "two cameras"),
        ({"shares": (0.9, 0.06, 0.04)}, "one class"),
        ({"size": 224, "side": 32}, "small images"),
        ({"top": 0.99}, "long warm-up"),
        ({"lr": 100.0}, "high learning rate"),
        ({"lr": 1e-4}, "low learning rate"),
        (ADAM | {"lr": 1.0}, "rate for optimizer"),
        (ADAM | {"lr": 0.025, "transformer": True}, "rate for optimizer"),
        ({"lr": 8.0, "paper_lr": None, "transformer": True}, "rate for optimizer"),
        (ADAM | {"lr": 1e-9, "movement": Movement(way=1e-6)}, "way of the weights"),
        (ADAM | {"movement": Movement(clipped=1e-9)}, "tiny clip"),
        (ADAM | {"movement": Movement(decay=0.05, left=1e-9)}, "strong weight decay"),
        ({"batch": 2}, "small batch"),
        ({"values": {"momentum": [1.0]}, "copy": True}, "fixed target"),
        ({"values": {"momentum": [1.0, 1.0]}, "copy": True}, "fixed target"),
        ({"values": {"momentum": [0.99999]}, "copy": True}, "slow target"),
        ({"values": {"momentum": [0.0]}, "copy": True}, "fast target"),
        ({"values": {"momentum": [0.99, 0.9]}, "copy": True}, "falling momentum"),
        ({"values": {"temperature": [1e-3]}}, "temperature"),
        ({"values": {"temperature": [0.1, 0.04, 7.0]}}, "high temperature"),
        ({"values": swav(0.095, 16)}, "soft teacher"),
        ({"values": swav(0.3, 16)}, "soft teacher"),
        ({"values": {"sharpening": [0.95]}}, "soft teacher"),
        ({"values": {"temperature": [0.1, 0.04, 0.2], "teacher temperature": [0.04, 0.2]}},
         "soft teacher"),
        ({"values": swav(0.089, 100_000), "images": 10**6}, "flat targets"),
        ({"term_weight": {"variance": (0.0, 25.0), "covariance": (1.0, 1.0)}},
         "term of no weight"),
        ({"term_share": {"weight": (1.0, 0.5)}}, "term of no weight"),
        ({"term_weight": {"redundancy": (5.1, 0.0051)}}, "weights of terms"),
        ({"term_weight": {"variance": (25.0, 25.0), "invariance": (0.025, 25.0)}},
         "weights of terms"),
        ({"term_weight": {"local": (1000.0, 0.0), "cosine": (1.0, 1.0)}}, "weights of terms"),
        ({"positive": {"radius": (1e3, 10.0)}}, "far from the paper"),
        ({"margin": {"margin": (1e-3, 0.5)}}, "far from the paper"),
        ({"crop": 0.02}, "small crops"),
        ({"jitter": 8.0}, "strong distortion"),
        ({"dropped": 0.95}, "strong dropout"),
        ({"values": {"head width": [2048, 2]}}, "narrow head"),
        ({"values": {"decoder width": [4]}}, "narrow decoder"),
        ({"values": {"prototypes": [2]}}, "few prototypes"),
        ({"values": {"queue": [1]}}, "short queue"),
        ({"values": {"hidden share": [0.99]}}, "all hidden"),
        ({"values": {"mask ratio": [0.97, 0.99]}}, "all hidden"),
        ({"values": {"target block": [0.7, 0.9]}}, "large blocks"),
        ({"values": {"context block": [0.05, 0.1]}}, "small context"),
        ({"values": {"hidden share": [0.01]}}, "nothing hidden"),
        ({"apart": 0.01}, "hidden beside what is seen"),
        ({"values": {"prototypes": [10, 5000]}}, "more prototypes than images"),
        ({"half": 1.0}, "half-precision weights"),
    ],
)  # fmt: skip
def test_one_thing_is_wrong_and_it_is_named(changes, name):
    assert names(before(**changes)) == [name]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"near": 0.1, "mark": 0.8, "marked": 4.1, "bars": 0.1, "cameras": 4.0, "tiny": 0.01},
        {"shares": (0.95, 0.05)},
        ADAM | {"lr": 0.01},
        ADAM | {"lr": 0.01, "transformer": True},
        ADAM | {"movement": Movement(decay=0.05, left=0.5)},  # few steps
        ADAM | {"movement": Movement(decay=1e-3, left=1e-9)},  # slow, of many
        {"steps": 30, "movement": Movement(way=1e-3)},
        {"values": TEACHER},
        {"values": {"temperature": [0.1, 0.07], "teacher temperature": [0.07], "sharpening": []}},
        {"values": swav(0.05), "images": 10_000},
        {"values": swav(0.03, 16_000), "images": 10**6},
        {"values": {"sharpening": [0.25], "mask ratio": [0.0, 0.3]}},
        {"values": {"queue": [0]}},  # none is wanted
        {"values": {"momentum": [0.996, 1.0]}, "copy": True, "steps": 10_000},
        {"term_weight": {"all": (250.0, 25.0), "alike": (10.0, 1.0)}},
        {"term_weight": {"crf": (0.0, 0.0), "cosine": (1.0, 1.0), "local": (1.0, 0.0)}},
        {"term_share": {"weight": (0.9, 0.5)}},
        {"values": {"hidden share": [0.9], "target block": [0.15, 0.2], "decoder width": [64]}},
    ],
)
def test_nothing_is_said_of_what_is_usual(changes):
    assert names(before(**changes)) == []


# what cannot work --------------------------------------------------------------------------------


def test_the_papers_momentum_in_a_short_training_is_worth_a_note():
    slow = before(copy=True, settings=[Valued("momentum", "momentum", 0.999, 0.999)], steps=100)
    (found,) = Watch(BEFORE).look(slow)
    assert (found.name, found.severity) == ("slow target of the paper", "note")
    asked = replace(slow, settings=[Valued("momentum", "momentum", 0.999, 0.99)])
    assert names(asked) == ["slow target"]


class Mine(Method):
    """A method of a user, with parameters of other names."""

    recipe = Recipe("sgd", lr=0.1)

    def __init__(
        self,
        backbone,
        sure: TeacherTemperature = 0.05,
        unsure: Temperature = 0.2,
        one: TermWeight = 1.0,
        other: TermWeight = 2.0,
    ):
        super().__init__()
        self.backbone, self.sure, self.unsure = backbone, sure, unsure
        self.one, self.other = one, other

    def views(self, size):
        return augment.simclr(size)

    def loss(self, batch):
        return self.backbone(batch.views[0]).mean()


class Planned(NamedTuple):
    """Rates of a training."""

    recipe: Recipe
    peak: float = 0.1
    decay: float = 0.0

    def lr(self, step: int) -> float:
        return self.peak

    def weight_decay(self, step: int) -> float:
        return self.decay


def planned(method: Method, rates: Any = None, steps: int = 100, views: Any = None) -> Before:
    rates = rates or Rates(method.recipe, 64, steps, 10)
    return known(method, rates, images=640, size=32, batch=64, steps=steps, views=views)


NET = backbone("test_resnet", size=32)


@pytest.mark.parametrize(
    ("given", "figure"),
    [({"sure": 0.2}, "1 times"), ({"sure": 0.5}, r"2\.5 times"), ({"unsure": 0.01}, "5 times")],
)
def test_a_teacher_softer_than_its_student_is_refused(given, figure):
    refuse(planned(Mine(NET)))
    with pytest.raises(UserError, match=rf"temperature of the targets is {figure} .* set it to"):
        refuse(planned(Mine(NET, **given)))


def test_what_cannot_work_does_not_begin(tmp_path):
    small = {"backbone": "test_resnet", "size": 32, "batch": 8, "epochs": 1, "workers": 0}
    small |= {"evaluate": False, "curve": False}
    images = np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    few = {"prototypes": 16, "hidden": 8, "bottleneck": 8, "local_crops": 0}
    for method, wrong, said in (
        (DINO, few | {"teacher_temp": (0.2, 0.2)}, "temperature of the targets"),
        ("swav", {"prototypes": 4, "epsilon": 0.3, "queue": 8}, "temperature of the targets"),
        ("simclr", {"optimizer": "adamw", "lr": 1e-2, "weight_decay": 200.0}, "in a step"),
        ("triplet", {"margin": -1.0}, "margin must be"),
        ("simclr", {"temperature": 0.0}, "temperature must be above 0"),
    ):
        with pytest.raises(UserError, match=said):
            pretrain(method, images, tmp_path / "run", **small, **wrong)
        assert not (tmp_path / "run").exists()


def test_a_hidden_share_leaves_something_to_fill_in_and_to_see():
    for share in (0.0, 1.0):
        with pytest.raises(UserError, match="hidden is 0 or 1, and has to lie between them"):
            refuse(before(values={"hidden share": [0.5, share]}))
    refuse(before(values={"hidden share": [0.5, 0.01]}))


def test_sharpening_is_a_ratio():
    msn = MSN(backbone("test_vit2", size=32), prototypes=4, hidden=8, dim=4, sharpen=1.5)
    with pytest.raises(UserError, match=r"1\.5 times the student's"):
        refuse(planned(msn))


@pytest.mark.parametrize("name", CASES)
def test_no_method_is_refused_as_it_is(name):
    method = CASES[name].make(name, 24)
    refuse(planned(method, Rates(method.recipe, 64, 100, 10)))


def test_terms_are_found_in_methods():
    found = planned(VICReg(NET, variance=0.0, hidden=8, dim=8))
    assert found.silent == ["variance"]
    assert "term of no weight" in names(found)
    assert names(planned(Mine(NET, one=0.0))) == ["term of no weight"]
    assert names(planned(Mine(NET, other=200.0))) == ["weights of terms"]
    assert names(planned(Mine(NET, one=100.0, other=200.0))) == []


@pytest.mark.parametrize(
    ("optimizer", "peak", "decay", "clip", "found"),
    [
        ("adamw", 1e-3, 0.1, None, []),
        ("adamw", 1e-9, 0.1, None, ["way of the weights"]),
        ("adam", 1e-8, 0.0, None, ["way of the weights"]),
        ("adamw", 1e-3, 50.0, None, ["strong weight decay"]),
        ("adamw", 1e-3, 0.1, 1e-7, ["tiny clip"]),
        ("adamw", 1e-3, 0.1, 1.0, []),
        ("sgd", 0.03, 1e-4, None, []),
        ("sgd", 0.03, 1.0, None, ["strong weight decay"]),
        ("sgd", 0.03, 1e-4, 1e-6, ["way of the weights"]),
        ("sgd", 0.03, 1e-4, 3.0, []),
        ("lars", 0.3, 1e-6, None, []),
        ("lars_tf", 1e-6, 1e-6, None, ["way of the weights"]),
        ("lamb", 1e-8, 0.1, None, ["way of the weights"]),
    ],
)
def test_how_far_an_optimizer_takes_weights(optimizer, peak, decay, clip, found):
    rates = Planned(Recipe(optimizer, lr=peak, clip=clip), peak, decay)
    assert names(planned(Mine(NET), rates, steps=200)) == found


def test_the_way_is_what_adam_can_go():
    """Of a training at one rate: steps x rate, over the size of a weight."""
    rates = Planned(Recipe("adamw", lr=1e-3), 1e-3, 0.2)
    method = Mine(nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.Flatten()))
    for parameter in method.parameters():
        nn.init.constant_(parameter, 0.05)
    moved = planned(method, rates, steps=50).movement
    assert moved.way == pytest.approx(50 * 1e-3 / 0.05)
    assert moved.decay == pytest.approx(2e-4)
    assert moved.left == pytest.approx(math.exp(-50 * 2e-4))


def test_the_intake_takes_the_highest_rate_and_where_it_is():
    class Rising(Planned):
        def lr(self, step: int) -> float:
            return float(step if step < 4000 else 0)

    found = planned(CASES["moco_v2"].make("moco_v2", 24), Rising(Recipe("sgd", lr=1.0)), 5000)
    assert found.top == pytest.approx(0.8, abs=0.01)
    assert found.lr == pytest.approx(3999, abs=10)
    assert found.half_life == pytest.approx(math.log(0.5) / math.log(0.999) / 5000)
    assert found.half == 0


def test_views_and_layers_are_looked_at_wherever_they_are():
    far = augment.Views((augment.View(32, scale=(0.01, 0.02), jitter=(9.0, 0.1, 0.1, 0.1)),) * 2)
    method = Mine(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.9), nn.Flatten()))
    assert names(planned(method, views=augment.Noised(far, 4))) == [
        "small crops", "strong distortion", "strong dropout",
    ]  # fmt: skip
    assert names(planned(Mine(NET), views=augment.simclr(32))) == []
    # pieces may come from a crop of their own, and local views are small
    one = augment.Views((augment.View(32, scale=(0.01, 0.02)), augment.View(36, scale=(0.6, 1.0))))
    assert names(planned(Mine(NET), views=one)) == ["small crops"]
    local = augment.Views((augment.View(32), augment.View(12, scale=(0.05, 0.14))))
    assert names(planned(Mine(NET), views=local)) == []


# images ------------------------------------------------------------------------------------------


def scenes(count: int = 100, side: int = 48, seed: int = 0) -> np.ndarray:
    """Images of shapes at many scales, and some noise."""
    rng = np.random.default_rng(seed)
    total = 128 + np.zeros((count, side, side, 3))
    for cells, strength in ((2, 40), (6, 30), (16, 25), (48, 10)):
        coarse = rng.normal(0, strength, (count, cells, cells, 3))
        total += coarse.repeat(side // cells, 1).repeat(side // cells, 2)
    return total.clip(0, 255).astype(np.uint8)


def found(images: Any) -> list[str]:
    return names(replace(before(), looks=look(open_data(images), 200)))


def again(images: np.ndarray) -> np.ndarray:
    """As written once more: other noise, a little darker."""
    noise = np.random.default_rng(1).normal(0, 2, images.shape)
    return (0.95 * images + noise).clip(0, 255).astype(np.uint8)


def stamped(images: np.ndarray, which: slice, fixed: bool = True) -> np.ndarray:
    rng, images = np.random.default_rng(2), images.copy()
    logo = rng.integers(0, 256, (4, 4, 1)).repeat(2, 0).repeat(2, 1)
    for image in images[which]:
        image[3:12, 3:12] = rng.integers(0, 256, 3)
        if fixed:
            image[3:11, 3:11] = logo
    return images


def framed(images: np.ndarray, colors: int) -> np.ndarray:
    images = images.copy()
    for i, image in enumerate(images):
        color = 255 * (i % colors) // max(1, colors - 1)
        image[:4], image[-4:], image[:, :4], image[:, -4:] = (color,) * 4
    return images


def on_white(images: np.ndarray) -> np.ndarray:
    """Cut out by an ellipse, another one in each image."""
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    radii = np.random.default_rng(3).uniform(0.3, 0.9, (2, len(images), 1, 1))
    inside = (x / radii[0]) ** 2 + (y / radii[1]) ** 2 < 1
    return np.where(inside[..., None], images, 255).astype(np.uint8)


HEALTHY = {
    "scenes": scenes(),
    "many": scenes(300),
    "gray": scenes().mean(-1, keepdims=True).astype(np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (60, 40, 40, 3), dtype=np.uint8),
    "under one lamp": (scenes() * 0.2 + np.linspace(20, 200, 48)[:, None]).astype(np.uint8),
    "on white": on_white(scenes()),
    "few": scenes(20),
    "dark and colored": scenes() // 4,
}  # fmt: skip
ILL = {
    "written again": (np.concatenate([scenes(60), again(scenes(60))]), ["near-duplicates"]),
    "frames": (
        np.stack([np.roll(s, k, 1) for s in scenes(20, 96) for k in (0, 1)]), ["near-duplicates"],
    ),
    "neighbors of many": (
        np.stack([again(s) if k else s for s in scenes(600) for k in (0, 1)]), ["near-duplicates"],
    ),
    "a logo": (stamped(scenes(), slice(None)), ["mark in all images"]),
    "a logo in half": (stamped(scenes(), slice(0, 50)), ["mark in some images"]),
    "a patch": (stamped(scenes(), slice(None), fixed=False), ["patch in images"]),
    "frames of many colors": (framed(scenes(), 9), ["bars at edges"]),
    "a film of a telephone": (
        np.pad(scenes()[:, :, 12:36], ((0, 0), (0, 0), (17, 17), (0, 0))), ["same bars at edges"],
    ),
    "frames of one color": (framed(scenes(), 1), ["same bars at edges"]),
    "hardly lit": ((scenes() // 64).astype(np.uint8), ["dull images"]),
    "tinted": (
        (scenes() * 0.2 + np.where(np.arange(100) % 2, 40, 140)[:, None, None, None]).astype(
            np.uint8), ["two cameras"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HEALTHY)
def test_nothing_is_said_of_healthy_images(kind):
    assert found(HEALTHY[kind]) == []


@pytest.mark.parametrize("kind", ILL)
def test_what_is_wrong_with_images_is_named(kind):
    images, named = ILL[kind]
    assert found(images) == named


def test_nothing_is_said_of_photos():
    assert found(PHOTOS / "train.parquet") == []


def test_constant_and_repeated_images_are_counted():
    images = scenes(40)
    images[:10] = 255
    images[10:20] = images[30]
    looks = look(open_data(images), 200)
    assert (looks.count, looks.side, looks.constant) == (40, 48, 0.25)
    assert looks.repeated == looks.copied == pytest.approx(19 / 40)


@pytest.mark.parametrize("share", [0.3, 0.0])
def test_copies_of_which_few_were_looked_at_are_estimated(share):
    rng = np.random.default_rng(0)
    found = []
    for _ in range(40):
        own = np.arange(1000)
        moved = rng.permutation(1000)
        many = round(share * 1000)
        own[moved[:many]] = own[moved[many : 2 * many]]  # each a copy of another
        groups = {}
        for i in places(1000, 150).tolist():
            groups.setdefault(own[i], []).append(i)
        found.append(copied(list(groups.values()), 1000))
    assert np.mean(found) == pytest.approx(share, abs=0.05)


def test_one_pair_neighbors_and_many_copies_of_one_are_counted_as_they_are():
    single = [[i] for i in range(98)]
    assert copied([*single, [200, 500]], 10_000) == 0.01
    assert copied([*single[:94], *([i, i + 1] for i in (200, 300, 400))], 10_000) == 0.03
    assert copied([*single[:50], list(range(100, 150))], 10_000) == 0.49


def test_labels_and_sizes_are_counted(tmp_path):
    facts = preflight(open_data(scenes(20)), before())
    assert (facts.shares, facts.looks.count) == ((), 20)
    for i, image in enumerate(scenes(40)):
        folder = tmp_path / ("ab"[i > 30])
        folder.mkdir(exist_ok=True)
        small = PIL.Image.fromarray(image).resize((10, 10) if i % 8 == 0 else (48, 48))
        small.save(folder / f"{i}.png")
    facts = preflight(open_data(tmp_path), before())
    assert facts.shares == pytest.approx((31 / 40, 9 / 40))
    assert facts.looks.tiny == pytest.approx(5 / 40)
    assert "tiny images" in names(facts)


def masked(**options):
    return replace(CASES["simmim"], options=options).make("simmim")


def test_how_far_hidden_squares_lie_from_seen_ones_is_known_before_the_first_step():
    """As SimMIM's AvgDist: larger squares, and more of them, are farther; no masks, no distance."""
    far = {
        (unit, ratio): apart(masked(unit=unit, ratio=ratio), 32)
        for unit in (4, 8)
        for ratio in (0.2, 0.6)
    }
    assert far[4, 0.2] < far[4, 0.6] < far[8, 0.6]
    assert far[4, 0.2] < far[8, 0.2]
    alone = 120 / 64  # pixels, of a square of 8 with seen ones on all sides
    assert alone / 32 < far[8, 0.2] < 2 * alone / 32
    assert apart(CASES["simclr"].make("simclr"), 32) is None
