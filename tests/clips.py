"""What the golden files of V-JEPA and V-JEPA 2 share: masks, and the whole loss."""

import re
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selftaught.backbones import ClipEncoder
from selftaught.backbones.video.latents import latents
from selftaught.masks import Blocks
from selftaught.masks.clips import clip_block_size, multiblock_clip
from selftaught.methods.predictive.vjepa import VJEPA
from selftaught.methods.predictive.vjepa2 import VJEPA2
from selftaught.objectives.masked import latent_narrowness
from tests.adapters import Golden, close
from tests.replay import Replay


@contextmanager
def float64():
    """Tables of positions are made in torch's default type."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def depth(weights: dict[str, Tensor], blocks: str) -> int:
    return len({n.split(".")[1] for n in weights if n.startswith(f"{blocks}.")})


def encoder(
    golden: Golden, prefix: str, positions: Literal["sincos", "rotary", "tiled"]
) -> ClipEncoder:
    hyper, weights = golden.hyper, golden.starting(prefix)
    clip = ClipEncoder(
        "vit_tiny",
        hyper["img"],
        hyper["frames"],
        golden["e2e.video"].shape[1],
        hyper["patch"],
        hyper["tub"],
        weights["patch_embed.proj.bias"].shape[0],
        depth(weights, "blocks"),
        hyper["heads"],
        hyper["mlp_ratio"],
        positions,
    )
    if positions == "sincos":
        close(clip.net.pos_embed, weights["pos_embed"])
    clip.net.load_state_dict(weights)
    return clip


def check_whole(golden: Golden, kind: type[VJEPA | VJEPA2]) -> None:
    """Loss and gradients of a clip under each set of masks, by the method's own code."""
    positions: Literal["sincos", "tiled"] = "sincos" if kind is VJEPA else "tiled"
    hyper = golden.hyper
    with float64():
        online, target = (encoder(golden, f"e2e.{of}.", positions) for of in ("enc", "tgt"))
        method = kind(
            online,
            golden["e2e.pred.predictor_embed.bias"].shape[0],
            hyper["pdepth"],
            predictor_heads=hyper["pheads"],
            predictor_mlp_ratio=hyper["mlp_ratio"],
            power=hyper["loss_exp"],
        ).double()
    method.target.load_state_dict(target.state_dict())
    weights = golden.starting("e2e.pred.")
    tokens = torch.cat([weights.pop(f"mask_tokens.{i}") for i in range(2)])
    if "predictor_pos_embed" in weights:
        close(method.predictor.predictor_pos_embed, weights["predictor_pos_embed"])
    method.predictor.load_state_dict(weights | {"mask_token": tokens})
    video = golden.leaf("e2e.video")
    parts = [
        Blocks(golden[f"e2e.enc_mask{i}"][None], golden[f"e2e.pred_mask{i}"][None])
        for i in range(sum(n.startswith("e2e.enc_mask") for n in golden.arrays))
    ]
    predicted, true = latents(method.backbone, method.target, method.predictor, video, parts)
    for i, (z, h) in enumerate(zip(predicted, true)):
        close(z, golden[f"e2e.pred{i}"])
        close(h, golden[f"e2e.target{i}"])
    loss = method.distance(video, parts)
    close(loss, golden["e2e.loss"])
    loss.backward()
    for i in range(2):
        close(method.predictor.mask_token.grad[i], golden[f"e2e.grad_mask_token{i}"])
    close(video.grad.sum((2, 3, 4)), golden["e2e.grad_video_sum"])
    close(method.backbone.net.patch_embed[0].bias.grad, golden["e2e.grad_patch_bias"])
    if "e2e.reg" in golden:
        close(latent_narrowness(predicted), golden["e2e.reg"])


# Masks.


def options(given: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `multiblock_clip` by the reference's names."""
    roles = "cut"
    for name, ours in (
        ("full_complement", "all_targets"),
        ("pred_full_complement", "all_context"),
        ("inv_block", "swapped"),
    ):
        roles = ours if given.get(name) else roles
    patch = given["spatial_patch_size"]
    return {
        "grid": (
            given["num_frames"] // given["temporal_patch_size"],
            *(side // patch for side in given["crop_size"]),
        ),
        "blocks": given["npred"],
        "time": tuple(given["temporal_pred_mask_scale"]),
        "space": tuple(given["spatial_pred_mask_scale"]),
        "aspect": tuple(given["aspect_ratio"]),
        "seen_time": given.get("max_context_frames_ratio", 1.0),
        "max_keep": given.get("max_keep"),
        "roles": roles,
        "reference": True,
    }


def check_masks(golden: Golden) -> None:
    """Recorded draws, sizes of boxes, and lengths."""
    for array in golden.arrays:
        if match := re.fullmatch(r"(mask\.\w+\.)step\d+\.u", array):
            name = array.removesuffix(".u")  # steps may be described by the first
            _replay(golden, name, options(golden.own(match[1], f"{name}.")))
        elif (match := re.fullmatch(r"size\.(\w+)", array)) and match[1] != "u":
            _sizes(golden, array)
        elif match := re.fullmatch(r"stat\.(\w+)\.keep", array):
            _lengths(golden, match[1])


def _replay(golden: Golden, name: str, given: dict[str, Any]) -> None:
    draws = Replay(golden[f"{name}.u"], golden[f"{name}.randint"])
    context, targets = golden[f"{name}.enc"].long(), golden[f"{name}.pred"].long()
    drawn = multiblock_clip(draws, len(context), **given)
    assert torch.equal(drawn.context[0], context), name
    assert torch.equal(drawn.targets[0], targets), name
    assert draws.exhausted()


def _sizes(golden: Golden, array: str) -> None:
    given = options(golden.own(array))
    scales = given["time"], given["space"], given["aspect"]
    for u, expected in zip(golden["size.u"], golden[array].tolist()):
        assert list(clip_block_size(Replay(u), given["grid"], *scales)) == expected


def _lengths(golden: Golden, name: str) -> None:
    """Their mean over batches, to 6 standard errors of the difference."""
    expected = golden[f"stat.{name}.keep"].double()
    given = golden.own(f"size.{name}", f"stat.{name}.")
    batch = int(given.get("B") or golden.setting(f"stat.{name}.", "batch", r"batch of (\d+)"))
    given = options(given)
    draws, runs = np.random.default_rng(0), len(expected)
    drawn = [multiblock_clip(draws, batch, **given) for _ in range(runs)]
    ours = torch.tensor([[b.context.shape[2], b.targets.shape[2]] for b in drawn]).double()
    error = ((expected.var(0) + ours.var(0)) / runs).sqrt()
    assert torch.all((ours.mean(0) - expected.mean(0)).abs() <= 6 * error), name
