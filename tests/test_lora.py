"""Low rank beside layers that stay: what is trained, what is merged, what is left of it."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from selftaught import load, pretrain
from selftaught.backbones import Wrapped
from selftaught.engine.restore import state_of
from selftaught.errors import UserError
from selftaught.methods import BYOL, DINO, MAE, SimCLR
from selftaught.parts import lora
from tests.test_continued import FAST, SMALL, Blocks, encoder, moved, planned, state
from tests.test_engine import photos


def adapted(layer: nn.Module, rank: int = 3, alpha: float = 6.0) -> nn.Module:
    """A layer inside of a module, with low rank that has learned something."""
    module = nn.Sequential(layer)
    lora.adapt(module, {"0"}, rank, alpha, seed=0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            if name.endswith("up"):
                p.normal_()
    return module


LAYERS = {
    "linear": (lambda: nn.Linear(16, 24), (2, 5, 16)),
    "without bias": (lambda: nn.Linear(24, 16, bias=False), (7, 24)),
    "1 x 1": (lambda: nn.Conv2d(16, 12, 1), (2, 16, 4, 4)),
    "1 x 1, stride 2": (lambda: nn.Conv2d(16, 12, 1, 2), (2, 16, 4, 4)),
}


@pytest.mark.parametrize("kind", sorted(LAYERS))
def test_the_merged_layer_computes_the_same_to_the_last_bit(kind):
    make, shape = LAYERS[kind]
    torch.manual_seed(0)
    layer = make()
    before, original = type(layer), layer.weight.detach().clone()
    module, x = adapted(layer), torch.randn(shape)
    inside, trained = module.state_dict(), module(x)
    low = module[0].parametrizations.weight[0]
    # W + alpha / rank B A, written out
    slow = original.double().flatten(1) + 2.0 * low.up.double() @ low.down.double()
    lora.merge(module)
    assert type(module[0]) is before
    assert torch.equal(module(x), trained)
    torch.testing.assert_close(module[0].weight.double().flatten(1), slow, rtol=1e-5, atol=1e-6)
    merged = module.state_dict()
    assert merged.keys() == nn.Sequential(make()).state_dict().keys()
    plain = lora.plain(inside)
    assert plain.keys() == merged.keys()
    assert all(torch.equal(x, merged[name]) for name, x in plain.items())


def test_low_rank_begins_as_nothing_and_copies_begin_alike():
    torch.manual_seed(0)
    modules = [encoder("test_vit") for _ in range(2)]
    x = torch.randn(2, 3, 32, 32)
    before = modules[0].eval()(x)
    names = [name for name, _ in lora.adaptable(modules[0], 4)]
    assert {n.rpartition(".")[2] for n in names} == {"qkv", "proj", "fc1", "fc2"}
    for module in modules:
        lora.adapt(module, names, 4, 4.0, seed=3)
    assert torch.equal(modules[0](x), before)
    assert not moved(modules[0], modules[1].state_dict())
    low = modules[0].net.blocks[0].mlp.fc1.parametrizations.weight[0]
    assert bool(low.down.any())
    assert not bool(low.up.any())


def test_half_precision_leaves_the_sum_as_it_is():
    module = adapted(nn.Linear(16, 24))
    plain = module[0].weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(module[0].weight, plain)


@pytest.mark.parametrize(
    ("make", "kinds"),
    [
        (lambda: MAE(encoder("test_vit"), dim=16, depth=1, heads=2), {"qkv", "proj", "fc1", "fc2"}),
        (lambda: BYOL(encoder(), **SMALL), {"conv1", "conv3", "1"}),
        (
            lambda: DINO(encoder("test_vit"), prototypes=8, hidden=8, bottleneck=4, local_crops=1),
            {"qkv", "proj", "fc1", "fc2"},
        ),
    ],
)
def test_low_rank_alone_is_trained_and_is_merged_in_the_end(make, kinds, tmp_path):
    method = make()
    encoder_of, before = method.encoder, state(method.backbone)
    run = pretrain(method, photos(), tmp_path / "run", lora=3, epochs=4, **FAST)
    for module in (method.backbone, encoder_of):
        changed = moved(module, before)
        assert changed
        assert {name.split(".")[-2] for name in changed} <= kinds
        assert all(torch.linalg.matrix_rank(
            (module.state_dict()[n] - before[n]).flatten(1).double(), rtol=1e-4) <= 3
            for n in changed
        )  # fmt: skip
        assert not any(parametrize.is_parametrized(m) for m in module.modules())
    # what is exported has plain names and loads everywhere, to the last bit
    assert not moved(load(tmp_path / "run"), run.encoder.state_dict())
    inside = state_of(tmp_path / "run")
    assert inside.keys() == method.state_dict().keys()
    assert not moved(method, inside)
    assert run.diagnosis is not None
    assert not {"steps too long", "batch norm off"} & {f.name for f in run.diagnosis.findings}


def test_another_run_begins_with_what_low_rank_has_learned(tmp_path):
    options = {**FAST, "epochs": 2}
    first = pretrain(SimCLR(encoder(), **SMALL), photos(), tmp_path / "a", lora=3, **options)
    again = pretrain(
        SimCLR(encoder(), **SMALL), photos(), tmp_path / "b", start=tmp_path / "a", **options
    )
    assert again.began is not None
    assert not moved(again.began, first.encoder.state_dict())


def test_layers_are_chosen_by_name_rank_and_what_is_frozen(tmp_path):
    method = MAE(encoder("test_vit"), dim=16, depth=1, heads=2)
    before = state(method.backbone)
    pretrain(
        method, photos(), tmp_path / "a", lora=3, lora_layers="qkv", freeze=4, lora_alpha=12.0,
        epochs=2, **FAST,
    )  # fmt: skip
    changed = moved(method.backbone, before)
    assert changed == {f"net.blocks.{i}.attn.qkv.weight" for i in (4, 5)}
    own = Wrapped(Blocks(), size=32, trained=True)
    assert not list(lora.adaptable(own, 2))  # 3 x 3 alone
    wide = nn.Sequential(nn.Conv2d(8, 64, 1), nn.Conv2d(64, 64, 1, groups=64), nn.Linear(64, 64))
    assert [name for name, _ in lora.adaptable(wide, 2)] == ["0", "2"]
    assert [name for name, _ in lora.adaptable(wide, 16)] == ["2"]
    assert not list(lora.adaptable(wide, 32))


def test_what_low_rank_cannot_be_is_told(tmp_path):
    vit = MAE(encoder("test_vit"), dim=16, depth=1, heads=2)
    with pytest.raises(UserError, match="called key, value; there are qkv, proj, fc1, fc2"):
        planned(vit, tmp_path, lora=4, lora_layers="key,value")
    with pytest.raises(UserError, match="--lora 500 finds no layer in test_vit"):
        planned(vit, tmp_path, lora=500)
    with pytest.raises(UserError, match="finds no layer"):
        planned(vit, tmp_path, lora=4, freeze="all")
    with pytest.raises(UserError, match="belong to --lora RANK"):
        planned(vit, tmp_path, lora=0, lora_alpha=8.0)
    with pytest.raises(UserError, match="--lora is for going on from weights"):
        planned(SimCLR(encoder(trained=False), **SMALL), tmp_path, lora=4)


def test_somebodys_weights_get_low_rank_unless_something_else_is_said(tmp_path):
    def made(**given):
        plan = planned(BYOL(encoder("test_vit"), **SMALL), tmp_path, **given)
        return plan.settings.lora, [c.value for c in plan.chosen if c.name == "lora"]

    assert made() == (16, [16])
    assert made(lora=0) == (0, [])
    assert made(lora=3) == (3, [])
    given: list[dict[str, Any]] = [{"recipe": "paper"}, {"anchor": "cosine:1"}, {"freeze": 2}]
    assert [made(**g) for g in (*given, {"norm_statistics": "start"})] == [(0, [])] * 4
    # of a ResNet only what is 1 x 1 has low rank, and that is little of this one
    plan = planned(SimCLR(encoder(), **SMALL), tmp_path)
    assert plan.settings.lora == 0
    assert plan.content["training"]["lora"] == 0  # a repetition of it has none on any machine


def test_a_resumed_run_keeps_the_low_rank_that_was_chosen(tmp_path):
    options = {**FAST, "epochs": 1, "out": tmp_path / "run"}
    pretrain(SimCLR(encoder("test_vit"), **SMALL), photos(), **options)
    options |= {"epochs": 2, "resume": True}
    run = pretrain(SimCLR(encoder("test_vit"), **SMALL), photos(), **options)
    assert run.plan.settings.lora == 16
