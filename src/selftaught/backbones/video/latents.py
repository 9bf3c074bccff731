"""What V-JEPA and V-JEPA 2 share: which tubelets are hidden, what is predicted, what is true."""

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.backbones.predictor import Predictor, initialize
from selftaught.backbones.video.encoder import ClipEncoder
from selftaught.masks import Blocks, generator
from selftaught.masks.clips import multiblock_clip
from selftaught.objectives.masked import latent_targets


def predictor_of(
    online: ClipEncoder, dim: int, depth: int, heads: int | None, mlp_ratio: float
) -> Predictor:
    """A predictor for an encoder, which from scratch gets the reference's initial weights too.

    Args:
        online: whose features are predicted.
        dim, depth, mlp_ratio: of the predictor.
        heads: of its attention; as many as the encoder's if none.
    """
    heads = heads or online.heads
    made = Predictor(online.dim, dim, depth, heads, mlp_ratio, online.table(dim, heads), 2)
    for network in (made,) if online.trained else (online, made):
        initialize(network)
    return made


def boxes(
    online: ClipEncoder,
    clips: Tensor,
    sets: Sequence[tuple[int, float]],
    aspect: tuple[float, float],
) -> list[Blocks]:
    """What is seen and what is predicted, drawn by torch's global generator on the CPU.

    Args:
        online: whose tubelets are hidden.
        clips: [B, C, frames, H, W].
        sets: number of boxes, and the area of each as a fraction of a frame.
        aspect: smallest and largest height / width of a box.
    """
    frames, rows, columns = clips.shape[2:]
    draws, grid = generator(), online.grid_of((frames, rows, columns))
    return [
        multiblock_clip(draws, len(clips), grid, count, space=(area, area), aspect=aspect)
        for count, area in sets
    ]


def latents(
    online: ClipEncoder,
    target: ClipEncoder,
    predictor: Predictor,
    clips: Tensor,
    parts: Sequence[Blocks],
) -> tuple[list[Tensor], list[Tensor]]:
    """Predicted and true features, [B, L, D] of each of `parts`, as V-JEPA has them.

    The true ones are those of `target`, which sees whole clips, normalized; no gradient reaches it.

    Args:
        clips: [B, C, frames, H, W].
        parts: what is seen and what is asked for, one set of places each, of all clips of the
            batch; each part has a mask token of its own.
    """
    with torch.no_grad():
        local = target.tokens(clips)
    predicted, true = [], []
    for token, (context, targets) in enumerate(parts):
        seen, asked = context[0].to(clips.device), targets[0].to(clips.device)
        kind = token % len(predictor.mask_token)
        predicted.append(predictor(online.tokens(clips, seen), seen, asked, token=kind))
        true.append(latent_targets(local, asked[None])[0])
    return predicted, true
