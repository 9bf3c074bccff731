"""Training that goes on from weights: its recipe, its first steps, what of it stays as it was."""

import logging
import math
import re
from functools import partial

import pytest
import torch
import yaml
from torch import nn

from selftaught import load, pretrain
from selftaught.backbones import Image, Wrapped
from selftaught.backbones.stages import stages
from selftaught.diagnose.doctor import Doctor
from selftaught.engine import continued
from selftaught.engine.optim import Rates
from selftaught.engine.plan import prepared
from selftaught.engine.run import Run
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.method import Recipe
from selftaught.methods import BYOL, DINO, IJEPA, MAE, Finetune, SimCLR
from tests.cases import CASES, fitting
from tests.test_engine import curve, labeled, make, often_killed, photos, train

SMALL = {"hidden": 32, "dim": 16}


def encoder(name: str = "test_resnet", size: int = 32, trained: bool = True) -> Image:
    torch.manual_seed(1)
    image = Image(name, size)
    image.trained = trained
    return image


def going_on(name: str):
    """A method of `tests.cases` whose backbone carries weights."""
    method = make(name)
    method.backbone.trained = method.encoder.trained = True
    return method


def settings(**given) -> Settings:
    return Settings(**{"batch": 8, "epochs": 2, "workers": 0, "evaluate": False} | given)


def planned(method, tmp_path, count: int = 24, data=None, **given):
    given = {"out": tmp_path / "run"} | given
    return prepared(method, photos(count) if data is None else data, settings(**given), {}, {})


def state(module) -> dict:
    return {name: x.clone() for name, x in module.state_dict().items()}


def moved(module, before: dict) -> set[str]:
    return {name for name, x in module.state_dict().items() if not torch.equal(x, before[name])}


# the recipe -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "layers"),
    [
        (lambda e: SimCLR(e("test_resnet"), **SMALL), 1.0),
        (lambda e: SimCLR(e("tf_efficientnet_lite0", 64), **SMALL), 1.0),  # has `blocks`, too
        (lambda e: BYOL(e("test_vit"), **SMALL), 0.9),
        (lambda e: MAE(e("test_vit"), dim=16, depth=1, heads=2), 0.9),
        (lambda e: IJEPA(e("test_vit"), dim=16, depth=1, heads=2, targets=1), 0.9),
    ],
)
def test_going_on_from_weights_has_a_recipe_of_its_own_and_a_fresh_draw_the_paper_s(
    method, layers, tmp_path
):
    made = planned(method(encoder), tmp_path, lora=0)
    assert made.recipe.optimizer == "adamw"
    assert made.recipe.weight_decay == 0.01
    assert made.recipe.layer_decay == layers
    assert made.rates.peak == pytest.approx(1e-4 * math.sqrt(8 / 256))
    large = planned(method(encoder), tmp_path, 256, batch=256, lora=0)
    assert large.rates.peak == pytest.approx(1e-4)
    fresh = method(lambda *given: encoder(*given, trained=False))
    theirs = planned(fresh, tmp_path, recipe="paper")
    assert theirs.recipe == fresh.recipe
    assert (theirs.rest, theirs.chosen, type(theirs.rates)) == (0, [], Rates)
    paper = planned(method(encoder), tmp_path, recipe="paper")
    assert paper.recipe == fresh.recipe
    assert (paper.rest, paper.chosen) == (0, [])


def test_what_the_user_says_wins(tmp_path):
    given = {"lr": 0.02, "weight_decay": 0.3, "warmup": 0.0, "layer_decay": 1.0, "clip": 2.0}
    given |= {"lora": 0, "head_warmup": 0.0}
    made = planned(BYOL(encoder("test_vit"), **SMALL), tmp_path, **given)
    assert made.rates.peak == 0.02
    said = given.keys() - {"lr", "lora", "head_warmup"}
    assert {k: getattr(made.recipe, k) for k in said} == {k: given[k] for k in said}
    assert made.rest == 0
    assert {c.name for c in made.chosen} == {"optimizer", "momentum"}
    sgd = planned(SimCLR(encoder(), **SMALL), tmp_path, optimizer="sgd", lr=0.1)
    assert sgd.recipe.optimizer == "sgd"
    with pytest.raises(UserError, match="with --optimizer lars_tf give --lr too"):
        planned(SimCLR(encoder(), **SMALL), tmp_path, optimizer="lars_tf")


def test_a_recipe_made_for_going_on_stays(tmp_path):
    method = Finetune(encoder(), classes=3)
    data = labeled(photos())
    assert planned(method, tmp_path, data=data).recipe == method.recipe


def test_what_was_chosen_is_said_and_stands_in_run_yaml(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    pretrain(BYOL(encoder(), **SMALL), photos(), tmp_path / "run", epochs=8, **FAST)
    row = r"\n  optimizer +adamw +steps of one size, whatever the loss +lars\n"
    assert re.search(row, caplog.text)
    written = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    chosen = written["chosen"]
    assert chosen["optimizer"] == ["adamw", "lars", "steps of one size, whatever the loss"]
    assert chosen["head_warmup"][:2] == [0.05, 0.0]
    assert chosen["lr"][0] == pytest.approx(1e-4 * math.sqrt(8 / 256))
    assert chosen["momentum"][:2] == [written["options"]["momentum"], 0.99]
    rows = curve(tmp_path / "run")
    assert float(rows[-1]["weight_decay"]) == 0.01


FAST = {"batch": 8, "workers": 0, "evaluate": False, "accelerator": "cpu", "precision": "fp32"}
FAST |= {"log_every": 1}


@pytest.mark.parametrize(("steps", "expected"), [(100, 0.5 ** (1 / 5)), (8, 0.5), (10**6, 0.99)])
def test_an_ema_copy_follows_within_the_training(steps, expected, tmp_path):
    method = BYOL(encoder(), **SMALL)
    continued.fit_momentum(method, settings(), tmp_path, steps)
    assert method.momentum == pytest.approx(expected)


def test_momentum_that_was_given_stays_and_a_resumed_run_keeps_its_own(tmp_path):
    method = DINO(encoder("test_vit"), momentum=(0.9, 1.0), prototypes=8, hidden=8, bottleneck=4)
    planned(method, tmp_path)
    assert method.momentum == (0.9, 1.0)
    short = DINO(encoder("test_vit"), prototypes=8, hidden=8, bottleneck=4)
    continued.fit_momentum(short, settings(), tmp_path, 100)
    assert short.momentum == (0.95, 1.0)  # half as fast as its center
    longer = DINO(encoder("test_vit"), prototypes=8, hidden=8, bottleneck=4, center_momentum=0.2)
    continued.fit_momentum(longer, settings(), tmp_path, 100)
    assert longer.momentum == (pytest.approx(0.5**0.2), 1.0)
    start = tmp_path / "start"
    options = {"backbone": "test_resnet", "size": 32, **SMALL, **FAST}
    pretrain("byol", photos(), start, epochs=1, **options)
    options |= {"start": start}
    same = pretrain("byol", photos(), tmp_path / "a", momentum=0.99, epochs=1, **options)
    assert same.method.momentum == 0.99
    first = pretrain("byol", photos(), tmp_path / "b", epochs=2, **options)
    longer = pretrain("byol", photos(), tmp_path / "b", epochs=10, resume=True, **options)
    assert longer.method.momentum == first.method.momentum == 0.5


# nothing of the start is lost before the first step ---------------------------------------------


@pytest.mark.parametrize("name", sorted(CASES))
def test_weights_and_their_copies_are_those_of_the_start_before_the_first_step(name, tmp_path):
    case = CASES[name]
    network = make(name).backbone
    with torch.no_grad():
        for p in network.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(7)))
    options = dict(case.options)
    kind, before = type(make(name)), state(network)
    network.trained = True
    if "samples" in kind.__init__.__annotations__:
        options["samples"] = 24
    method = kind(network, **options)
    run = Run(planned(method, tmp_path, data=fitting(name, photos(), tmp_path)))
    run._prepare_method()
    kept = continued.prepare(method, run.plan.settings)
    for module in (method.backbone, *continued._copies(method)):
        now = module.state_dict()
        shared = [n for n, x in now.items() if n in before and x.shape == before[n].shape]
        assert len(shared) > 10
        assert all(torch.equal(now[n], before[n]) for n in shared)
    kept.undo.close()


# the first steps --------------------------------------------------------------------------------


def test_new_heads_learn_first_at_a_rate_of_their_own():
    recipe = Recipe("adamw", lr=1e-4, warmup=0.1, weight_decay=(0.1, 0.2))
    rates = continued.HeadsFirst(recipe, 256, 110, 11, rest=10, rate=10.0)
    plain = Rates(recipe, 256, 100, 11)
    assert [rates.lr(step) for step in range(10)] == [1e-3] * 10
    assert [rates.lr(step + 10) for step in range(100)] == [plain.lr(s) for s in range(100)]
    assert rates.weight_decay(3) == rates.weight_decay(10) == 0.1
    assert rates.weight_decay(109) == plain.weight_decay(99)


@pytest.mark.parametrize("name", ["simclr", "byol", "mae"])
def test_the_backbone_rests_while_new_heads_learn(name, tmp_path):
    method = going_on(name)
    before = state(method)
    seen = []

    def after_step():
        type(method).after_step(method)
        parts = {n.split(".")[0] for n in moved(method, before) if n in trained}
        seen.append((parts - {"backbone"} != set(), "backbone" in parts))

    trained = {n for n, p in method.named_parameters() if p.requires_grad}
    method.after_step = after_step
    train(tmp_path / "run", name, method=method, head_warmup=0.5, epochs=4)
    assert [heads for heads, _ in seen] == [True] * 12
    # the rate of the schedules' own first step is 0
    assert [backbone for _, backbone in seen] == [False] * 7 + [True] * 5


def test_heads_have_no_higher_rate_than_the_user_or_low_rank_gives(tmp_path):
    rates = []
    for given in ({}, {"lr": 0.01}, {"lora": 2}, {"recipe": "paper", "head_warmup": 0.1}):
        made = planned(SimCLR(encoder(), **SMALL), tmp_path, epochs=20, **given)
        assert made.rest
        rates.append(made.rates.lr(0) / made.rates.peak)
    assert rates == [10.0, 1.0, 1.0, 1.0]
    whole = planned(SimCLR(encoder(), **SMALL), tmp_path, epochs=1, head_warmup=0.99)
    assert whole.rest == whole.steps - 1


def test_where_the_heads_come_along_nothing_rests(tmp_path):
    options = {"backbone": "test_resnet", "size": 32, **FAST, "epochs": 1}
    pretrain("simclr", photos(), tmp_path / "a", **options, **SMALL)
    given = settings(start=tmp_path / "a", out=tmp_path / "b", epochs=20)
    image = {"name": "test_resnet", "size": 32}
    assert prepared("simclr", photos(), given, image, SMALL).rest == 0
    assert prepared("rotation", photos(), given, image, {}).rest == 3


def test_the_doctor_has_nothing_to_say_of_a_backbone_that_rests(tmp_path):
    run = pretrain(
        BYOL(encoder(), **SMALL), photos(), tmp_path / "a", epochs=10, head_warmup=0.5, **FAST
    )
    assert run.diagnosis is not None
    assert run.diagnosis.standing == ()
    assert min(exam.step for exam in run.diagnosis.course) == 16


# resuming ---------------------------------------------------------------------------------------

KEPT = {
    "simclr": {"freeze": 1, "norm_statistics": "start", "anchor": "cosine:1,gram:0.5,l2sp:0.1"},
    "byol": {"freeze": 2, "lora": 2, "anchor": "l2sp:0.1", "accumulate": 2},
    "moco_v2": {"norm_statistics": "start", "anchor": "cosine"},
    "mae": {"freeze": 1, "anchor": "gram:2", "accumulate": 2},
    "dino": {"lora": 4, "anchor": "cosine:0.5,gram:0.5"},
    "ijepa": {"lora": 4, "lora_layers": "qkv,proj", "head_warmup": 0.5},
}


@pytest.mark.parametrize("name", sorted(KEPT))
def test_killed_and_resumed_is_the_same_run_bit_for_bit(name, tmp_path):
    parts = KEPT[name].get("accumulate", 1)
    given = {"head_warmup": 0.34, "save_every": 0} | KEPT[name]
    save = partial(train, name=name, **given)
    fresh = partial(going_on, name)
    whole = save(tmp_path / "whole", method=fresh())
    resumed = often_killed(tmp_path / "killed", fresh, save, 1, 4, parts=parts)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert not moved(resumed, whole.state_dict())
    assert not moved(load(tmp_path / "killed"), load(tmp_path / "whole").state_dict())


# norms ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["simclr", "byol", "moco_v2"])
def test_norms_keep_the_statistics_of_the_start_when_asked(name, tmp_path):
    method = going_on(name)
    modules = [method.backbone, *continued._copies(method)]
    before = [state(m) for m in modules]
    run = pretrain(method, photos(), tmp_path / "run", norm_statistics="start", epochs=3, **FAST)
    assert run.diagnosis is not None
    assert not {"batch norm off", "no gradient"} & {f.name for f in run.diagnosis.findings}
    for module, was in zip(modules, before):
        changed = moved(module, was)
        assert changed
        assert not [n for n in changed if "running" in n or "tracked" in n]
    method.train()
    assert all(m.training for m in method.modules())  # nothing is held any more


def test_norms_that_are_off_unasked_are_told_still(tmp_path):
    method = going_on("simclr")
    doctor = Doctor(method, tmp_path / "d.json", 10, 8)
    assert "batch norm off" in {rule.name for rule in doctor.watch.rules}
    doctor = Doctor(method, tmp_path / "d.json", 10, 8, accepted={"batch norm off"})
    assert "batch norm off" not in {rule.name for rule in doctor.watch.rules}


# freezing ---------------------------------------------------------------------------------------


class Blocks(nn.Module):
    """A module of one's own: two layers, then three blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.a, self.b, self.c = (
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
            for _ in range(3)
        )

    def forward(self, x):
        return self.c(self.b(self.a(self.norm(self.first(x)))))


@pytest.mark.parametrize(
    ("name", "freeze", "count", "first_trained"),
    [
        ("test_resnet", 1, 5, "net.layer2.0.conv1.weight"),
        ("resnet18", 3, 5, "net.layer4.0.conv1.weight"),
        ("convnext_atto", 2, 6, "net.stages.2.downsample.0.weight"),
        ("tf_efficientnet_lite0", 4, 8, "net.blocks.4.0.conv_pw.weight"),
        ("mobilenetv2_100", 0, 8, "net.blocks.0.0.conv_dw.weight"),
        ("swin_tiny_patch4_window7_224", 1, 6, "net.layers.1.downsample.norm.weight"),
        ("test_vit", 2, 7, "net.blocks.2.norm1.weight"),
    ],
)
def test_the_stem_and_the_first_stages_of_timm_s_networks(name, freeze, count, first_trained):
    image = Image(name, 224 if "swin" in name else 64)
    assert len(stages(image)) == count
    every = [n for n, _ in image.named_parameters()]
    assert sorted(every) == sorted(n for stage in stages(image) for n in stage)
    frozen = {n for stage in stages(image)[: freeze + 1] for n in stage}
    assert next(n for n in every if n not in frozen) == first_trained


def test_modules_of_one_s_own_are_frozen_by_their_children():
    parts = stages(Wrapped(Blocks(), size=32))
    assert parts[0] == ["net.first.weight", "net.first.bias", "net.norm.weight", "net.norm.bias"]
    assert [part[0] for part in parts[1:]] == [f"net.{n}.0.weight" for n in "abc"]
    flat = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    assert stages(Wrapped(flat, size=32)) == [
        [],
        ["net.0.weight", "net.0.bias"],
        ["net.2.weight", "net.2.bias"],
    ]
    inside = Wrapped(nn.Sequential(Blocks()), size=32)
    assert [len(part) for part in stages(inside)] == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("make_method", "freeze", "kept"),
    [
        (
            lambda: SimCLR(encoder(), **SMALL),
            2,
            ("net.conv1", "net.bn1", "net.layer1", "net.layer2"),
        ),
        (lambda: BYOL(encoder(), **SMALL), 1, ("net.conv1", "net.bn1", "net.layer1.")),
        (lambda: BYOL(encoder(), **SMALL), "all", ("net.",)),
        (
            lambda: SimCLR(Wrapped(Blocks(), size=32, trained=True), **SMALL),
            1,
            ("net.first", "net.norm", "net.a."),
        ),
        (
            lambda: MAE(encoder("test_vit"), dim=16, depth=1, heads=2),
            3,
            ("net.patch", "net.pos", "net.cls", "net.reg", *(f"net.blocks.{i}." for i in range(3))),
        ),
        (
            lambda: DINO(encoder("test_vit"), prototypes=8, hidden=8, bottleneck=4, local_crops=1),
            2,
            ("net.patch", "net.pos", "net.cls", "net.reg", "net.blocks.0.", "net.blocks.1."),
        ),
    ],
)
def test_what_is_frozen_stays_with_its_statistics_and_the_rest_learns(
    make_method, freeze, kept, tmp_path, caplog
):
    caplog.set_level(logging.INFO)
    method = make_method()
    before = state(method.backbone)
    modules = [method.backbone, *continued._copies(method)]
    run = pretrain(method, photos(), tmp_path / "run", freeze=freeze, epochs=8, **FAST)
    for module in modules:
        changed = moved(module, before)
        assert not {n for n in changed if n.startswith(kept)}
        rest = {
            n for n in before if not n.startswith(kept) and not n.endswith("num_batches_tracked")
        }
        assert bool(changed) == bool(rest)
    assert f"frozen in {method.backbone.name}: " in caplog.text
    assert run.diagnosis is not None
    bad = {"no gradient", "batch norm off", "target stands still", "target is the network"}
    assert not bad & {f.name for f in run.diagnosis.findings}
    assert any(p.requires_grad for p in method.backbone.parameters())


def test_what_is_frozen_needs_less_memory(tmp_path):
    needs = []
    for freeze in (None, 3):
        made = planned(SimCLR(encoder(size=64), **SMALL), tmp_path, freeze=freeze)
        run = Run(made)
        run._prepare_method()
        run.views = run._views()
        continued.prepare(made.method, made.settings)
        needs.append(run.estimate())
    assert needs[1].each < 0.5 * needs[0].each
    assert needs[1].memory < needs[0].memory


def test_what_cannot_be_frozen_is_told(tmp_path):
    with pytest.raises(UserError, match="test_resnet has 4 stages or blocks after its stem, and"):
        planned(SimCLR(encoder(), **SMALL), tmp_path, freeze=5)
    with pytest.raises(UserError, match="begins with random ones: name some with"):
        planned(SimCLR(encoder(trained=False), **SMALL), tmp_path, freeze=1)
    with pytest.raises(UserError, match="--norm-statistics start is for going on from"):
        planned(SimCLR(encoder(trained=False), **SMALL), tmp_path, norm_statistics="start")
    with pytest.raises(UserError, match="--head-warmup is for going on from weights, and this"):
        planned(SimCLR(encoder(trained=False), **SMALL), tmp_path, head_warmup=0.1)
    with pytest.raises(UserError, match="freeze must be a whole number"):
        settings(freeze="some")
