"""Defaults are a paper's: each recipe is pinned to the row of a table or the command it is from."""

import inspect
import re
from dataclasses import asdict

import pytest
import torch
from timm.layers import DropPath

from selftaught import methods
from selftaught.backbones import Image, backbone
from selftaught.choose import PAPER_EPOCHS as LENGTH
from selftaught.engine.build import assemble, describe
from selftaught.engine.optim import build
from selftaught.method import Recipe
from selftaught.methods.contrastive.moco_v3 import MoCoV3
from tests.cases import CASES

LARS = {"optimizer": "lars"}
ADAMW = {"optimizer": "adamw"}
SGD = {"optimizer": "sgd"}
FROM_03 = {"warmup_from": 0.3 / 4.8, "warmup_full": True, "decay_bias": True, "end": 0.001}

# name: (epochs of the row, its peak rate at its batch, and what else differs from the fields'
# defaults, with times in epochs of the row)
ROWS = {
    # 100 epochs, or 10 epochs of warm-up whatever the length
    "byol": (100, (0.45 * 16, 4096), LARS | {"weight_decay": 1e-6, "warmup": 10}),
    "barlow_twins": (
        *(100, (0.2 * 8, 2048)),
        LARS | {"weight_decay": 1e-6, "warmup": 10, "end": 0.001, "bias_lr": 0.0048 / 0.2},
    ),
    "vicreg": (
        *(100, (0.3 * 2, 512)),
        LARS | {"weight_decay": 1e-6, "warmup": 10, "end": 0.001},
    ),
    "nnclr": (100, (0.3 * 16, 4096), LARS | {"weight_decay": 1e-6, "warmup": 10}),
    "simclr": (
        *(100, (0.3 * 16, 4096)),
        {"optimizer": "lars_tf", "weight_decay": 1e-6, "warmup": 10},
    ),
    "moco_v3": (100, (0.6 * 16, 4096), LARS | {"weight_decay": 1e-6, "warmup": 10}),
    "simsiam": (
        *(100, (0.05 * 2, 512)),
        SGD | {"weight_decay": 1e-4, "decay_bias": True, "by_epoch": True}
        | {"constant": ("predictor",)},
    ),
    "spectral": (
        *(100, (0.05 * 1.5, 384)),
        SGD | {"weight_decay": 1e-4, "warmup": 10, "decay_bias": True},
    ),
    "pixpro": (100, (4.0, 1024), LARS | {"weight_decay": 1e-5, "warmup": 5}),
    "pixcontrast": (100, (4.0, 1024), LARS | {"weight_decay": 1e-5, "warmup": 5}),
    "dino": (
        *(100, (0.002, 1024)),
        ADAMW | {"weight_decay": (0.04, 0.4), "warmup": 10, "warmup_full": True, "end": 0.002}
        | {"clip": 3.0, "clip_by": "parameter"},
    ),
    "dinov2": (
        *(100, (0.004, 1024)),
        ADAMW | {"weight_decay": (0.04, 0.4), "warmup": 10, "warmup_full": True}
        | {"end": 1e-6 / 0.004, "scaling": "sqrt", "layer_decay": 0.9, "patch_lr": 0.2}
        | {"clip": 3.0, "clip_by": "module"},
    ),
    "simmim": (
        *(100, (8e-4, 2048)),
        ADAMW | {"weight_decay": 0.05, "warmup": 10, "warmup_from": 1e-6 / 2e-4}
        | {"end": 1e-5 / 2e-4, "clip": 5.0, "no_decay": ("mask_token",), "decay_tokens": False},
    ),
    # no paper's: the settings of benchmarks/adapt.py
    "distill_features": (
        *(100, (3e-3, 256)),
        ADAMW | {"scaling": "none", "weight_decay": 1e-4, "warmup": 5, "clip": 3.0},
    ),
    # other lengths, which the method's description names
    "swav": (200, (0.6, 256), {"optimizer": "larc", "weight_decay": 1e-6} | FROM_03),
    "deepcluster_v2": (
        *(800, (4.8, 4096)),
        {"optimizer": "larc", "weight_decay": 1e-6, "warmup": 10} | FROM_03,
    ),
    "ibot": (
        *(800, (0.002, 1024)),
        ADAMW | {"weight_decay": (0.04, 0.4), "warmup": 10, "warmup_full": True, "end": 0.002}
        | {"clip": 3.0, "clip_by": "parameter"},
    ),
    "msn": (
        *(800, (0.001, 1024)),
        ADAMW | {"weight_decay": (0.04, 0.4), "warmup": 15, "warmup_from": 0.2, "end": 1e-3}
        | {"scaling": "sqrt", "horizon": 1.25, "step_offset": 1, "clip": 3.0}
        | {"no_decay": ("scores",), "no_clip": ("scores",)},
    ),
    "beit": (
        *(800, (1.5e-3, 2048)),
        ADAMW | {"weight_decay": 0.05, "warmup": 10, "end": 1e-5 / 1.5e-3, "clip": 3.0}
        | {"no_decay": ("mask_token",), "decay_tokens": False},
    ),
    "mae": (
        *(800, (1.5e-4 * 16, 4096)),
        ADAMW | {"weight_decay": 0.05, "warmup": 40, "betas": (0.9, 0.95)},
    ),
    "ijepa": (
        *(300, (1e-3, 2048)),
        ADAMW | {"weight_decay": (0.04, 0.4), "warmup": 40, "warmup_from": 0.2, "end": 1e-3}
        | {"scaling": "sqrt", "step_offset": 1},
    ),
    "scrl": (200, (0.45 * 32, 8192), LARS | {"weight_decay": 1e-6, "warmup": 10}),
    "simclr_v2": (
        *(800, (0.1 * 64, 4096)),
        {"optimizer": "lars_tf", "scaling": "sqrt", "weight_decay": 1e-4, "warmup": 40},
    ),
    "w_mse": (
        *(1000, (3e-3, 512)),
        {"optimizer": "adam", "scaling": "none", "weight_decay": 1e-6, "warmup": 5, "drop": 0.2}
        | {"schedule": "step", "milestones": (950, 975), "decay_bias": True},
    ),
    "moco_v1": (
        *(200, (0.03, 256)),
        SGD | {"weight_decay": 1e-4, "schedule": "step", "milestones": (120, 160)}
        | {"decay_bias": True, "by_epoch": True},
    ),
    "instdisc": (
        *(200, (0.03, 256)),
        SGD | {"weight_decay": 1e-4, "schedule": "step", "milestones": (120, 160)}
        | {"decay_bias": True, "by_epoch": True},
    ),
    "pcl": (
        *(200, (0.03, 256)),
        SGD | {"weight_decay": 1e-4, "decay_bias": True, "by_epoch": True},
    ),
    "supcon": (
        *(1000, (0.05, 256)),
        SGD | {"weight_decay": 1e-4, "schedule": "step", "milestones": (700, 800, 900)}
        | {"decay_bias": True, "by_epoch": True},
    ),
    "sela": (
        *(400, (0.05, 256)),
        SGD | {"weight_decay": 1e-5, "schedule": "step", "milestones": (150, 300, 350)}
        | {"scaling": "none", "decay_bias": True, "by_epoch": True},
    ),
    "jigsaw": (
        *(105, (0.1, 256)),
        SGD | {"weight_decay": 1e-4, "warmup": 5, "warmup_from": 0.25, "by_epoch": True}
        | {"schedule": "step", "milestones": (30, 60, 90, 100)},
    ),
    "rotation": (
        *(50, (0.01, 192)),
        SGD | {"weight_decay": 5e-4, "schedule": "step", "milestones": (15, 30, 45)}
        | {"by_epoch": True, "decay_bias": True, "nesterov": True},
    ),
}  # fmt: skip


def same(found: Recipe, epochs: int, peak: tuple[float, int], given: dict) -> None:
    """`found` is the recipe of the row."""
    rate, batch = peak
    scaled = {"linear": batch / found.batch, "sqrt": (batch / found.batch) ** 0.5, "none": 1.0}
    assert found.lr * scaled[found.scaling] == pytest.approx(rate)
    of_fields = {k: v for k, v in asdict(Recipe("sgd", 1.0)).items() if k not in ("lr", "batch")}
    expected = of_fields | given
    expected["warmup"] /= epochs
    expected["milestones"] = tuple(m / epochs for m in expected["milestones"])
    for field, value in expected.items():
        number = isinstance(value, float | int) or (value and isinstance(value[0], float))
        assert getattr(found, field) == (pytest.approx(value) if number else value), field


@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_is_that_of_its_row(name):
    kind, (epochs, peak, given) = methods.find(name), ROWS[name]
    same(kind.recipe, epochs, peak, given)
    if epochs != LENGTH:
        assert re.search(rf"\b{epochs}\s+(and 400 )?epochs", inspect.getdoc(kind) or ""), (
            "the method does not say of which length its recipe is"
        )


@pytest.mark.parametrize("name", ["byol", "barlow_twins", "vicreg", "nnclr", "swav", "moco_v3"])
def test_a_method_says_what_its_other_row_has(name):
    """Each of them has a longer training, or larger batches, with other settings."""
    said = inspect.getdoc(methods.find(name)) or ""
    other = {"byol": "0.2", "vicreg": "0.2", "swav": "4.8", "moco_v3": "1.5e-6"}.get(name, "0.01")
    assert other in said


def test_options_are_those_of_the_same_row():
    """SwAV's prototypes rest for an epoch, and its queue is filled from the 15th, of 100 here."""
    assert methods.find("byol")(backbone("test_resnet", 32), hidden=8, dim=4).momentum == 0.99
    swav = methods.find("swav")(backbone("test_resnet", 32), prototypes=4, hidden=8, dim=4)
    assert (swav.queue, swav.freeze_prototypes, swav.queue_start) == (3840, 0.01, 0.15)


@pytest.mark.parametrize("net", ["test_vit", "vit_tiny_patch16_224"])
def test_moco_v3_has_other_defaults_for_vits(net):
    vit = MoCoV3(backbone(net, 32), hidden=8, dim=4)
    assert MoCoV3.recipe.optimizer == "lars"
    same(vit.recipe, 300, (1.5e-4 * 16, 4096), ADAMW | {"weight_decay": 0.1, "warmup": 40}
         | {"decay_bias": True})  # fmt: skip
    resnet = MoCoV3(backbone("test_resnet", 32), hidden=8, dim=4)
    assert resnet.recipe is MoCoV3.recipe
    assert [v.scale for v in (resnet.views(32).views[0], vit.views(32).views[0])] == [
        (0.2, 1.0),
        (0.08, 1.0),
    ]
    q, k = torch.eye(4)[:2], torch.eye(4)[[0, 2]]
    for method, temperature in ((vit, 0.2), (resnet, 1.0)):
        logits = torch.tensor([[1.0, 0.0], [0.0, 0.0]]) / temperature
        expected = 2 * temperature * (logits.logsumexp(1) - logits.diag()).mean()
        torch.testing.assert_close(method.contrast(q, k), expected)
    given = MoCoV3(backbone(net, 32), 0.5, hidden=8, dim=4, scale=(0.3, 0.9))
    assert (given.softness, given.views(32).views[0].scale) == (0.5, (0.3, 0.9))


@pytest.mark.parametrize("name", ["rotation", "distortion", "selfie", "simsiam"])
def test_nesterov_momentum_where_the_code_has_it(name):
    method = CASES[name].make(name)
    groups = build(method, method.recipe).param_groups
    assert {g["nesterov"] for g in groups} == {name != "simsiam"}


# Stochastic depth.

RATES = {
    "capi": 0.2,
    "simdino": 0.1,
    "simdinov2": 0.2,
    "dino": 0.1,
    "ibot": 0.1,
    "dinov2": 0.3,
    "beit": 0.1,
    "simmim": 0.1,
    "data2vec": 0.2,
}


def test_methods_whose_papers_drop_paths():
    assert {n: r for n in methods.files() if (r := methods.find(n).needs.drop_path)} == RATES


def rates(net: torch.nn.Module) -> list[float]:
    return [m.drop_prob for m in net.modules() if isinstance(m, DropPath)]


@pytest.mark.usefixtures("shallow")
@pytest.mark.parametrize(
    "net", ["vit_tiny_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224"]
)
@pytest.mark.parametrize("name", RATES)
def test_vits_get_it_as_if_it_was_asked_for(name, net):
    """The same rates, the same weights, and run.yaml says it, so that a repetition has it too."""
    if (name, net[:4]) in (("simmim", "eva0"), ("capi", "beit")):  # which cannot leave tokens out
        net = "test_vit"
    few = {k: v for k, v in CASES[name].options.items() if k != "unit"}
    image = {"name": net, "size": 56 if net.startswith("eva") else 64}
    method = assemble(name, image, few, None, seed=3)
    student = method.backbone
    torch.manual_seed(3)
    asked = Image(**image, drop_path=RATES[name])
    assert rates(student) == pytest.approx(rates(asked.net))
    assert max(rates(student)) == pytest.approx(RATES[name])
    assert describe(method, "x", {})["backbone"]["drop_path"] == RATES[name]
    if name in ("dino", "ibot", "dinov2", "simdino", "simdinov2"):
        assert set(rates(method.ema if name == "dinov2" else method.teacher)) <= {0.0}
    without = assemble(name, image | {"drop_path": 0.0}, few, None, seed=3)
    assert rates(without.backbone) == []
    weights = without.state_dict()
    assert all(torch.equal(v, weights[k]) for k, v in method.state_dict().items())


@pytest.mark.parametrize(
    ("name", "net"), [("dino", "test_resnet"), ("simmim", "swin_tiny_patch4_window7_224")]
)
def test_what_is_no_vit_gets_none(name, net):
    few = {} if name == "simmim" else CASES[name].options
    method = assemble(name, {"name": net, "size": 64}, few, None, seed=0)
    assert rates(method.backbone) == [0.0] * len(rates(method.backbone))
    assert method.backbone.drop_path == 0.0


def test_beit_says_that_its_default_tokenizer_has_learned_nothing():
    said = " ".join((inspect.getdoc(methods.find("beit")) or "").split())
    assert "the default has learned nothing" in said
