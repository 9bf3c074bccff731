"""SimMIM: masks from recorded orders, the paper's ViT end to end with gradients, the loss alone."""

import math
import re
from unittest import mock

import torch

from selftaught import masks
from selftaught.method import Batch
from selftaught.methods.masked.simmim import SimMIM
from tests.adapters import Golden, close
from tests.replay import Replay
from tests.vits import beit


def build(golden: Golden) -> SimMIM:
    hyper, weights = golden.hyper, golden.starting("param.")
    encoder = {
        n.removeprefix("encoder."): w
        for n, w in weights.items()
        if n.startswith("encoder.") and n != "encoder.mask_token"
    }
    image = beit(
        encoder,
        hyper["img"],
        hyper["patch"],
        hyper["heads"],
        hyper["mlp_ratio"],
        golden["imgs"].shape[1],
    )
    method = SimMIM(image, hyper["ratio"], hyper["mask_patch"]).double()
    own = {n: w for n, w in weights.items() if n.startswith("decoder.")}
    own["mask_token"] = weights["encoder.mask_token"]
    method.load_state_dict(own | {f"backbone.net.{n}": w for n, w in encoder.items()})
    return method


def check(golden: Golden) -> None:
    _masks(golden)
    method = build(golden)
    images, hidden = golden.leaf("imgs"), golden["masks"]
    table = method.backbone.net.rel_pos_bias
    assert torch.equal(table.relative_position_index, golden["rel_pos_index"])
    mask = hidden.flatten(1).bool()
    seen = method.backbone.features(images, replace=(mask, method.mask_token[0, 0]))
    close(seen.local.mT, golden["encoder_out"])
    close(method.reconstruct(images, hidden), golden["recon"])
    loss = method.loss(Batch([images, hidden], torch.arange(len(images))))
    close(loss, golden["loss"])
    loss.backward()
    close(images.grad, golden["grad.imgs"])
    close(method.mask_token.grad, golden["grad.mask_token"])
    close(table.relative_position_bias_table.grad, golden["grad.rel_pos_table"])

    painted = golden.leaf("lossonly.recon")
    with mock.patch.object(method, "reconstruct", return_value=painted):
        loss = method.loss(Batch([golden["imgs"], hidden], torch.arange(len(painted))))
    close(loss, golden["lossonly.loss"])
    loss.backward()
    close(painted.grad, golden["lossonly.grad_recon"])


def _masks(golden: Golden) -> None:
    orders, expected = golden["mask.permutations"], golden["mask.masks"]
    side = math.isqrt(orders.shape[1])
    ratio = golden.given("mask.masks")["ratio"]
    drawn = [masks.hidden_units(Replay(orders=[o]), (side, side), ratio) for o in orders]
    hidden = torch.stack([torch.from_numpy(d) for d in drawn])
    assert torch.equal(masks.enlarge(hidden, expected.shape[1:]), expected.bool())
    counts = golden["mask.counts_table"].tolist()
    for (size, unit, _, ratio), count in zip(_cases(golden), counts, strict=True):
        cells = int(size // unit) ** 2
        drawn = masks.hidden_units(Replay(orders=[range(cells)]), (1, cells), ratio)
        assert drawn.sum() == count


def _cases(golden: Golden) -> list[list[float]]:
    """Image, unit and patch in pixels, and ratio: as settings, or as the index lists them in words,
    "... = (192,32,4,.6),(224,32,16,.6)"."""
    if "cases" in (given := golden.own("mask.counts_table")):
        return given["cases"]
    number = r"\s*(\d*\.?\d+)\s*"
    cases = re.findall(rf"[(\[]{','.join([number] * 4)}[)\]]", golden.said("mask.counts_table"))
    return [[float(v) for v in case] for case in cases]
