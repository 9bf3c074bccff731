"""SimMIM: masks from recorded orders, the paper's ViT end to end with gradients, the loss alone."""

import math

import torch

from selftaught import masks
from selftaught.method import Batch
from selftaught.methods.masked.simmim import SimMIM
from selftaught.objectives.masked import hidden_mean
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
    error = (painted - golden["imgs"]).abs().mean(1)
    loss = hidden_mean(error, masks.enlarge(hidden, error.shape[1:]), eps=1e-5)
    close(loss, golden["lossonly.loss"])
    loss.backward()
    close(painted.grad, golden["lossonly.grad_recon"])


def _masks(golden: Golden) -> None:
    orders, expected = golden["mask.permutations"], golden["mask.masks"]
    side = math.isqrt(orders.shape[1])
    drawn = [
        masks.hidden_units(Replay(orders=[order]), (side, side), golden.hyper["ratio"])
        for order in orders
    ]
    hidden = torch.stack([torch.from_numpy(d) for d in drawn])
    assert torch.equal(masks.enlarge(hidden, expected.shape[1:]), expected.bool())
    given = golden.about["mask.counts_table"]["meaning"]
    for case, count in zip(_cases(given), golden["mask.counts_table"].tolist()):
        size, unit, _, ratio = case
        cells = int(size // unit) ** 2
        drawn = masks.hidden_units(Replay(orders=[range(cells)]), (1, cells), ratio)
        assert drawn.sum() == count


def _cases(meaning: str) -> list[tuple[float, ...]]:
    """The cases that the index lists in words: "... = (192,32,4,.6),(224,32,16,.6)"."""
    inside = meaning.split("=")[1].strip().strip("()").split("),(")
    return [tuple(float(v) for v in case.split(",")) for case in inside]
