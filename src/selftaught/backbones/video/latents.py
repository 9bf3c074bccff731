"""What is predicted of hidden tubelets, and what is true of them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.backbones.predictor import Predictor
from selftaught.backbones.video.encoder import ClipEncoder
from selftaught.masks import Blocks
from selftaught.objectives.masked import latent_targets


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
