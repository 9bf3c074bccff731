"""MAE: positions, masking, patches, both losses end to end with gradients, the rate's schedule."""

import math
import re
from dataclasses import replace
from fractions import Fraction

import torch
from torch import Tensor

from selftaught.backbones import interpolate, sincos
from selftaught.engine.optim import Rates
from selftaught.masks import keep_lowest
from selftaught.method import Batch
from selftaught.methods.masked.mae import MAE
from selftaught.objectives.masked import patchify, unpatchify
from tests.adapters import Golden, close
from tests.vits import vit

KINDS = {"normpix": True, "rawpix": False}


def build(golden: Golden, normalize: bool) -> MAE:
    hyper, weights = golden.hyper, golden.starting("param.")
    own = {n: w for n, w in weights.items() if n == "mask_token" or n.startswith("decoder_")}
    encoder = {n: w for n, w in weights.items() if n not in own}
    channels = golden["imgs"].shape[1]
    image = vit(encoder, hyper["img"], hyper["patch"], hyper["heads"], hyper["mlp_ratio"], channels)
    depth = len({n.split(".")[1] for n in own if n.startswith("decoder_blocks.")})
    method = MAE(
        image,
        hyper["ratio"],
        own["decoder_embed.bias"].shape[0],
        depth,
        hyper["dheads"],
        hyper["mlp_ratio"],
        normalize,
    ).double()
    close(image.net.pos_embed, weights["pos_embed"])
    close(method.decoder_pos_embed, weights["decoder_pos_embed"])
    image.net.load_state_dict(encoder)
    method.load_state_dict(own | {f"backbone.net.{n}": w for n, w in encoder.items()})
    return method


def check(golden: Golden) -> None:
    for kind, normalize in KINDS.items():
        _end_to_end(golden, kind, normalize)
        _loss_alone(golden, kind, normalize)
    _patches(golden)
    _positions(golden)
    _schedule(golden)


def _end_to_end(golden: Golden, kind: str, normalize: bool) -> None:
    method = build(golden, normalize)
    images, noise = golden.leaf("imgs"), golden["noise"]
    keep, hidden = keep_lowest(noise, golden.hyper["ratio"])
    assert torch.equal(keep, golden["ids_keep"])
    assert torch.equal(noise.argsort(1).argsort(1), golden["ids_restore"])
    assert torch.equal(hidden.double(), golden["mask"])
    tokens, grid = method.backbone.tokens(images, keep)
    close(tokens, golden["latent"])
    close(method.decode(tokens, grid, keep), golden["pred"])

    loss = method.loss(Batch([images, noise], torch.arange(len(images))))
    close(loss, golden[f"loss.{kind}"])
    loss.backward()
    named = dict(method.named_parameters())
    for array in golden.arrays:
        if (found := re.fullmatch(rf"grad\.(.+)\.{kind}", array)) and found[1] != "imgs":
            weight = named.get(found[1], named.get(f"backbone.net.{found[1]}"))
            assert weight is not None, array
            close(weight.grad, golden[array])
    close(images.grad, golden[f"grad.imgs.{kind}"])


def _loss_alone(golden: Golden, kind: str, normalize: bool) -> None:
    prediction = golden.leaf("lossonly.pred")
    loss = build(golden, normalize).compare(prediction, golden["imgs"], golden["lossonly.mask"])
    close(loss, golden[f"lossonly.loss.{kind}"])
    loss.backward()
    close(prediction.grad, golden[f"lossonly.grad_pred.{kind}"])


def _patches(golden: Golden) -> None:
    images, patch = golden["imgs"], golden.hyper["patch"]
    cells = golden.hyper["img"] // patch
    close(patchify(images, patch), golden["patchify"])
    back = unpatchify(patchify(images, patch), patch, (cells, cells))
    close((back - images).abs().max(), golden["unpatchify_roundtrip_err"])


def _positions(golden: Golden) -> None:
    for array in golden.arrays:
        if found := re.fullmatch(r"sincos\.d(\d+)g(\d+)", array):
            dim, side = map(int, found.groups())
            close(sincos((side, side), dim, prefix=1), golden[array])
    old, new = (_side(golden[f"interp.{end}"]) for end in ("src", "dst"))
    close(interpolate(golden["interp.src"], old, new, prefix=1), golden["interp.dst"])


def _side(table: Tensor) -> tuple[int, int]:
    side = round((table.shape[1] - 1) ** 0.5)
    return side, side


def _schedule(golden: Golden) -> None:
    given = golden.given("lr.")
    epochs, values = golden["lr.epochs"], golden["lr.values"]
    parts = [Fraction(float(e)).limit_denominator(10_000) for e in epochs]
    per_epoch = math.lcm(*(p.denominator for p in parts))
    recipe = replace(
        MAE.recipe,
        lr=given["lr"],
        warmup=given["warmup_epochs"] / given["epochs"],
        end=given["min_lr"] / given["lr"],
    )
    plan = Rates(recipe, recipe.batch, given["epochs"] * per_epoch, per_epoch)
    rates = [plan.lr(int(p * per_epoch)) for p in parts]
    close(torch.tensor(rates, dtype=torch.float64), values)
