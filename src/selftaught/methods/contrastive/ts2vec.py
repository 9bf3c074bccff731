"""TS2Vec (Yue et al., 2022), https://arxiv.org/abs/2106.10466."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from selftaught import dist
from selftaught.augment import Pipeline
from selftaught.augment.series import resized
from selftaught.backbones.series.encoder import Series
from selftaught.method import Batch, Insight, Method, Needs, Recipe
from selftaught.objectives.hierarchical import hierarchical
from selftaught.roles import PartialShare, TermShare


class TS2Vec(Method):
    """The same steps of a series in two contexts are alike, at all scales of time.

    Of each series two overlapping pieces are seen, with other steps hidden in each. As in the
    reference code the pieces of a batch are equally long and lie where they lie in each series by
    itself. The paper's batch is 8, the reference code's 16.

    Args:
        backbone: of series, `dilated`.
        hidden: probability that a step is hidden, behind the first layer.
        instances: weight of telling series from each other; telling steps apart has the rest.
    """

    recipe = Recipe("adamw", lr=1e-3, batch=16, scaling="sqrt", weight_decay=0.01)
    backbone: Series  # pyrefly: ignore[bad-override]
    needs = Needs(backbone="dilated", kinds=("series",), views="own")
    insight = Insight()

    def __init__(self, backbone: Series, hidden: PartialShare = 0.5, instances: TermShare = 0.5):
        super().__init__()
        self.backbone, self.hidden, self.instances = backbone, hidden, instances

    def views(self, size: int) -> Pipeline:
        return Drawn(size)

    def loss(self, batch: Batch) -> Tensor:
        """views: series [B, C, T], and uniform numbers [B, 5] and [B, 2, 1, T] of each."""
        x, where, masked = batch.views
        steps = x.shape[2]
        # the first sample's draws are the batch's, over all processes
        shares = dist.gather(where)[0].tolist()
        shared = max(2, min(steps, 4 + int(shares[0] * (steps - 3))))
        start = int(shares[1] * (steps - shared + 1))
        left = int(shares[2] * (start + 1))
        right = start + shared + int(shares[3] * (steps - start - shared + 1))
        offset = (where[:, 4] * (left + steps - right + 1)).long() - left
        ours = self._piece(x, masked[:, 0, 0], offset + left, start + shared - left)
        theirs = self._piece(x, masked[:, 1, 0], offset + start, right - start)
        one, other = dist.gather(ours[:, -shared:]), dist.gather(theirs[:, :shared])
        return hierarchical(one, other, self.instances)

    def _piece(self, x: Tensor, masked: Tensor, start: Tensor, long: int) -> Tensor:
        """[B, long, D]: features of a piece of each series, some of its steps hidden."""
        at = start[:, None] + torch.arange(long, device=x.device)
        piece = x.take_along_dim(at[:, None], 2)
        hidden = masked.take_along_dim(at, 1) < self.hidden
        return self.backbone.features(piece, hidden).local


@dataclass(frozen=True)
class Drawn(Pipeline):
    """All of a series, and numbers of its own by which pieces and hidden steps are chosen."""

    size: int

    def __call__(self, sample: np.ndarray, rng: np.random.Generator) -> Any:
        """[C, steps] -> float32 [C, size], [5] and [2, 1, size], which has no rank of series."""
        x = resized(sample, 0, sample.shape[1], self.size)
        return x, rng.random(5, np.float32), rng.random((2, 1, self.size), np.float32)
