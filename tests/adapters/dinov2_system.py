"""DINOv2's parts: blocks and their depth, masks, targets, terms, head, positions, rates."""

import re
from dataclasses import replace
from functools import partial
from itertools import product
from unittest import mock

import numpy as np
import torch
from timm.layers import SwiGLUPacked
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selftaught.backbones import interpolate
from selftaught.backbones.image import depth
from selftaught.backbones.image.packed import run_packed
from selftaught.engine.optim import Rates, _layer_rates
from selftaught.masks.blocks import blocks, ratio_steps, spread_ratios
from selftaught.methods.distillation.dinov2 import DINOv2
from selftaught.objectives.assignment import soft_cross_entropy
from selftaught.objectives.koleo import koleo
from selftaught.objectives.masked import hidden_weight, image_mean
from selftaught.parts import prototype_head
from tests.adapters import Golden, close, warm
from tests.adapters.dinov2 import distill, leaves, model, swapped
from tests.replay import Recorded


def check(golden: Golden) -> None:
    _blocks(golden)
    for name in sorted({n.split(".")[1] for n in golden.arrays if n.startswith("collate.")}):
        _collation(golden, name)
    _counts(golden)
    _targets(golden)
    _total(golden)
    _head(golden)
    _positions(golden)
    _rates(golden)


def _block(golden: Golden, rate: float) -> Block:
    given = golden.starting("block.param.")
    dim = given["norm1.weight"].shape[0]
    heads = golden.hyper.get("heads")
    ratio = given["mlp.fc1.weight"].shape[0] / dim
    options = {"qkv_bias": True, "init_values": 1.0, "drop_path": rate}
    counts = [heads] if heads else [h for h in range(1, dim + 1) if dim % h == 0]
    # the index tells neither heads nor epsilon: the right ones give the first output
    for count, eps in product(counts, (1e-6, 1e-5)):
        block = Block(dim, count, ratio, norm_layer=partial(nn.LayerNorm, eps=eps), **options)
        block.double().load_state_dict(given)
        ours = block.eval()(golden["block.xa"])
        if torch.allclose(ours, golden["block.packed_a"], rtol=1e-9, atol=1e-12):
            return depth.with_subset_depth(block)
    raise AssertionError("no number of heads gives block.packed_a")


def _blocks(golden: Golden) -> None:
    rate = golden.given("block.sd.")["drop_path"]
    block = _block(golden, rate)
    batches = [golden[f"block.x{of}"] for of in ("a", "b")]
    for of, x, y in zip("ab", batches, run_packed(nn.Sequential(block.eval()), batches)):
        close(y, golden[f"block.packed_{of}"])
        close(block(x), golden[f"block.packed_{of}"])
    block.train()

    def run(x: Tensor, *orders: str) -> Tensor:
        given = [golden[f"block.{name}"] for name in orders]
        with mock.patch.object(depth, "permutation", side_effect=given):
            return block(x)

    x = golden.leaf("block.xa")
    y = run(x, "sd.perm_attn", "sd.perm_ffn")
    close(y, golden["block.sd.y"])
    y.sum().backward()
    close(x.grad, golden["block.sd.grad_x"])
    for of in ("a", "b"):
        y = run(golden[f"block.x{of}"], f"sdlist.perm_attn_{of}", f"sdlist.perm_ffn_{of}")
        close(y, golden[f"block.sdlist.y{of}"])
    branches = product(("attn", "ffn"), "ab")
    orders = [golden[f"block.sdlist.perm_{branch}_{of}"] for branch, of in branches]
    with mock.patch.object(depth, "permutation", side_effect=orders):
        packed = run_packed(nn.Sequential(block), batches)
    for of, y in zip("ab", packed):
        close(y, golden[f"block.sdlist.y{of}"])


def _collation(golden: Golden, name: str) -> None:
    given = golden.own(f"collate.{name}.")
    expected = golden.starting(f"collate.{name}.")
    images, side = given["B_total"], given["grid"]
    share, ratio = given["mask_sample_probability"], tuple(given["mask_ratio_min_max"])
    draws = Recorded(expected["draws"], [expected["shuffle"].numpy()])
    hidden = spread_ratios(draws, images, (side, side), share, ratio)
    assert draws.exhausted()
    assert torch.equal(hidden, expected["masks"].bool())
    assert torch.equal(hidden.flatten().nonzero()[:, 0], expected["indices"])
    close(hidden_weight(hidden), expected["weights"])
    bounds = side * side * ratio_steps(images, share, ratio)[1:]
    assert bounds.int().sum() == expected["upperbound"]


def _counts(golden: Golden) -> None:
    """How far masks fall short of what was asked for, against a sample of ours of the same size: a
    Kolmogorov-Smirnov distance as large as this happens by chance once in 1e9 tests."""
    side, smallest, largest = (
        int(golden.setting("mask.target_vs_actual", key, words))
        for key, words in (
            ("grid", r"(\d+)x\d+ grid"),
            ("min_num_patches", r"min_num_patches=(\d+)"),
            ("max_num_patches", r"max (\d+)"),
        )
    )
    draws, ours, theirs = np.random.default_rng(0), [], []
    for asked, obtained in golden["mask.target_vs_actual"].tolist():
        hidden = int(blocks(draws, (side, side), asked, smallest, largest).sum())
        assert hidden <= asked
        assert obtained <= asked
        ours.append(asked - hidden)
        theirs.append(asked - obtained)
    at = np.union1d(ours, theirs)
    below = [np.searchsorted(np.sort(x), at, side="right") / len(x) for x in (ours, theirs)]
    assert np.abs(below[0] - below[1]).max() < (-np.log(1e-9 / 2) / len(ours)) ** 0.5


def _targets(golden: Golden) -> None:
    temperature = golden.given("sk.")["teacher_temp"]
    logits = golden["sk.logits"]
    method = model(logits.shape[-1], 2, temperature, targets="sinkhorn")
    close(method.goals(logits, method.center), golden["sk.out"])
    method = model(logits.shape[-1], 2, golden.given("center.")["temp"])
    method.center.copy_(golden["center.before"].flatten())
    close(method.goals(logits, method.center), golden["center.softmax"])
    method._follow(method.center, logits, unweighted=False)
    close(method.center, golden["center.after"].flatten())

    x = golden.leaf("koleo.x")
    loss = koleo(x)
    close(loss, golden["koleo.loss"])
    loss.backward()
    close(x.grad, golden["koleo.grad"])

    student, hidden = golden.leaf("ibot.student_logits"), golden["ibot.masks"]
    method = model(2, student.shape[-1], golden.given("ibot.")["temp"], targets="sinkhorn")
    goals = method.goals(golden["ibot.teacher_logits"], method.patch_center)
    close(goals, golden["ibot.sk"])
    loss = image_mean(soft_cross_entropy(goals, student / method.student_temp), hidden)
    close(loss, golden["ibot.loss"])
    loss.backward()
    close(student.grad, golden["ibot.grad_student"])


def _total(golden: Golden) -> None:
    kinds = [of for of in ("global", "local") if f"total.student_{of}" in golden]
    views = leaves(golden, [f"total.student_{of}" for of in kinds])
    features, patches = golden.leaf("total.student_feat"), golden.leaf("ibot.student_logits")
    width = golden["sk.logits"].shape[-1], patches.shape[-1]
    method = model(*width, golden.given("total.")["temp"], targets="sinkhorn")
    teacher = swapped(golden["sk.logits"]), golden["ibot.teacher_logits"], golden["ibot.masks"]
    # the mask of this file is that of fewer images than its views are of
    terms = distill(method, views, features, patches, *teacher)
    names = {"global": "dino_global", "local": "dino_local", "koleo": "koleo", "patch": "ibot"}
    for ours, name in names.items():
        if ours != "local" or f"total.{name}" in golden or len(views) > 1:
            close(terms[ours], golden[f"total.{name}"])
    loss = torch.stack(list(terms.values())).sum()
    close(loss, golden["total.loss"])
    loss.backward()
    for x, of in zip([*views, features, patches], [*kinds, "feat", "patch"], strict=True):
        close(x.grad, golden[f"total.grad_{of}"])


def _head(golden: Golden) -> None:
    given, x = golden.starting("head.param."), golden["head.x"]
    layers = len([n for n in given if re.fullmatch(r"mlp\.\d+\.weight", n)])
    hidden, dim = given["mlp.0.weight"].shape
    count, bottleneck = given["last_layer.weight_v"].shape
    head = prototype_head(dim, hidden, bottleneck, count, scale=True, layers=layers).double()
    state = {n.removeprefix("mlp."): w for n, w in given.items() if n.startswith("mlp.")}
    state[f"{len(head) - 1}.weight"] = given["last_layer.weight_v"]
    state[f"{len(head) - 1}.scale"] = given["last_layer.weight_g"]
    head.load_state_dict(state)
    close(head(x), golden["head.y"])

    given = golden.starting("swiglu.param.")
    gated = SwiGLUPacked(dim, given["w12.bias"].shape[0], dim).double()  # of timm's largest ViTs
    renamed = {n.replace("w12", "fc1").replace("w3", "fc2"): w for n, w in given.items()}
    gated.load_state_dict(renamed)
    close(gated(x), golden["swiglu.y"])


def _positions(golden: Golden) -> None:
    """Names tell the form, and the image in pixels: "offset0.1.12x20"."""
    table = golden["interp.pos_embed"].float()
    side = int((table.shape[1] - 1) ** 0.5)
    for name, expected in golden.starting("interp.").items():
        if name == "pos_embed":
            continue
        kind, offset, height, width = re.fullmatch(  # type: ignore[union-attr]
            r"(antialias|offset(0|0?\.\d+))\.(\d+)x(\d+)", name
        ).groups()
        pixels, cells = int(height) * int(width), expected.shape[1] - 1
        patch = round((pixels / cells) ** 0.5)
        while (int(height) // patch) * (int(width) // patch) != cells:
            patch += 1
        grid = int(height) // patch, int(width) // patch
        ours = interpolate(table, (side, side), grid, 1, float(offset or 0), kind == "antialias")
        # the reference computes in float32, as the index says; what cancels to 0 is off by an eps
        close(ours, expected, rtol=1e-6, atol=2.5e-7 * float(table.abs().max()))


def _rates(golden: Golden) -> None:
    given = golden.own("lr.scaled")
    recipe = DINOv2.recipe
    told = re.findall(r"\d+", golden.about["lr.scaled"]["meaning"])
    batches = given.get("batches") or [int(n) for n in told[: len(golden["lr.scaled"])]]
    flat = replace(recipe, lr=given.get("base_lr", recipe.lr), warmup=0.0)
    rates = [Rates(flat, b, 10, 1).lr(0) for b in batches]
    close(rates, golden["lr.scaled"])

    given = golden.own("lrdecay.rates")
    decay = golden.setting("lrdecay.rates", "decay", r"decay ([\d.]+)")
    layers = golden.setting("lrdecay.rates", "blocks", r"(\d+) blocks")
    told = golden.about["lrdecay.rates"]["meaning"].partition("for: ")[2].split(",")
    names = given.get("names") or [n.strip() for n in told]
    own = {"register_tokens": "backbone.net.reg_token", "mask_token": "mask_token"}
    ours = [own.get(n, f"backbone.net.{n}") for n in names]
    deepest = f"backbone.net.blocks.{int(layers) - 1}.norm1.weight"
    recipe = replace(recipe, layer_decay=decay)
    expected = golden["lrdecay.rates"]  # without the further factor on the patch embedding
    for factor in (1.0, recipe.patch_lr):
        rates = _layer_rates([*ours, deepest], replace(recipe, patch_lr=factor))
        embeds = torch.tensor(["patch_embed" in n for n in names])
        close(rates[: len(names)], torch.where(embeds, factor * expected, expected))

    given = golden.given("sched.cosine")
    share = warm(given) / given["total"]
    recipe = replace(recipe, lr=given["base"], warmup=share, end=given["final"] / given["base"])
    plan = Rates(recipe, recipe.batch, given["total"], given["total"])
    close([plan.lr(i) for i in range(given["total"])], golden["sched.cosine"])

    temperatures = golden["sched.teacher_temp"]
    ends = float(temperatures[0]), float(temperatures[-1])
    reached = int((temperatures == temperatures[-1]).nonzero()[0])
    method = model(2, 2, 1.0, temp_warmup=reached / len(temperatures))
    method.teacher_temp = ends
    now = []
    for i in range(len(temperatures)):
        method.progress = i / len(temperatures)
        now.append(method.temperature)
    close(now, temperatures)
