"""What the golden files of V-JEPA and V-JEPA 2 share: masks, and the whole loss."""

import re
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from selftaught.backbones import ClipEncoder, Predictor
from selftaught.masks.clips import clip_block_size, multiblock_clip
from selftaught.objectives.masked import latent_distance, latent_narrowness, latent_targets
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
        (hyper["frames"], hyper["img"], hyper["img"]),
        (hyper["tub"], hyper["patch"], hyper["patch"]),
        golden["e2e.video"].shape[1],
        weights["patch_embed.proj.bias"].shape[0],
        depth(weights, "blocks"),
        hyper["heads"],
        hyper["mlp_ratio"],
        positions,
    )
    if positions == "sincos":
        close(clip.pos_embed, weights["pos_embed"])
    clip.load_state_dict(weights)
    return clip


def predictor(golden: Golden, clip: ClipEncoder) -> Predictor:
    weights, heads = golden.starting("e2e.pred."), golden.hyper["pheads"]
    count = sum(n.startswith("mask_tokens.") for n in weights)
    tokens = torch.cat([weights.pop(f"mask_tokens.{i}") for i in range(count)])
    width = weights["predictor_embed.bias"].shape[0]
    own = Predictor(
        clip.dim,
        width,
        depth(weights, "predictor_blocks"),
        heads,
        golden.hyper["mlp_ratio"],
        clip.positions(width, heads),
        count,
    )
    if "predictor_pos_embed" in weights:
        close(own.predictor_pos_embed, weights["predictor_pos_embed"])
    own.load_state_dict(weights | {"mask_token": tokens})
    return own


def check_whole(golden: Golden, positions: Literal["sincos", "tiled"]) -> list[Tensor]:
    """Loss and gradients of a clip under each set of masks; the predictions."""
    with float64():
        online, target = (encoder(golden, f"e2e.{of}.", positions) for of in ("enc", "tgt"))
        own = predictor(golden, online)
    video = golden.leaf("e2e.video")
    kinds = range(sum(n.startswith("e2e.enc_mask") for n in golden.arrays))
    predicted, true = [], []
    for kind in kinds:
        context, asked = (golden[f"e2e.{of}_mask{kind}"] for of in ("enc", "pred"))
        with torch.no_grad():
            (goal,) = latent_targets(target(video), asked[None])
        z = own(online(video, context), context, asked, token=kind % len(own.mask_token))
        close(goal, golden[f"e2e.target{kind}"])
        close(z, golden[f"e2e.pred{kind}"])
        predicted.append(z)
        true.append(goal)
    loss = latent_distance(predicted, true, golden.hyper["loss_exp"])
    close(loss, golden["e2e.loss"])
    loss.backward()
    for kind in range(len(own.mask_token)):
        close(own.mask_token.grad[kind], golden[f"e2e.grad_mask_token{kind}"])
    close(video.grad.sum((2, 3, 4)), golden["e2e.grad_video_sum"])
    close(online.patch_embed[0].bias.grad, golden["e2e.grad_patch_bias"])
    if "e2e.reg" in golden:
        close(latent_narrowness(predicted), golden["e2e.reg"])
    return predicted


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
