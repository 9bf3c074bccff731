"""CPC of sounds (van den Oord, Li & Vinyals, 2018), https://arxiv.org/abs/1807.03748."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from selftaught import dist
from selftaught.augment.sound import Stretch
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import find_first, products
from selftaught.objectives.metric import match
from selftaught.precision import full_precision
from selftaught.roles import Count, Number


class CPCAudio(Method):
    """Tell from a sound so far what follows, up to an eighth of a second ahead.

    A convolutional network makes a vector of every 10 ms, a GRU sums up those that were, and a
    matrix for each distance says what follows: which vector it is among all of the batch.

    Args:
        backbone: encoder of waves.
        steps: vectors ahead that are predicted, each by a matrix of its own.
        negatives: that each is told from, of all of the batch at any time, alike for all distances
            (Rivière et al., 2020, https://arxiv.org/abs/2002.02848); 0 for those of the batch at
            the same distance, as in the paper.
    """

    recipe = Recipe("adam", lr=2e-4, batch=64, scaling="none", schedule="constant")
    few = Few(lr=0.001)
    insight = Insight("compared")
    needs = Needs(batch=2, views="own", kinds=("wave",), backbone="cpc")
    backbone: Any

    def __init__(self, backbone: Any, steps: Count = 12, negatives: Number = 0):
        super().__init__()
        self.backbone, self.steps, self.negatives = backbone, steps, negatives
        width, context = backbone.width, backbone.context
        self.compared = nn.Identity()  # through which goes what is found, so that it can be seen
        self.predictors = nn.ModuleList(nn.Linear(context, width, bias=False) for _ in range(steps))

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        rows = self.negatives + 1
        if not self.negatives:
            rows = batch * (self.backbone.size // 160 - self.steps)
        return (ReferenceLoss(math.log(rows), f"ln {rows:,}, guessing among the moments"),)

    def views(self, size: int) -> Pipeline:
        if size // 160 <= self.steps:
            raise UserError(
                f"{size} values make {size // 160} vectors, of which {self.steps} are to be "
                f"predicted from those before: use --size {160 * (self.steps + 4)} or more, or "
                f"fewer --steps"
            )
        return Stretch(size)

    def loss(self, batch: Batch) -> Tensor:
        """views: waves [B, 1, n]."""
        z = self.backbone.steps(batch.views)
        return self.predict(z, self.backbone.known(z))

    def predict(self, z: Tensor, context: Tensor) -> Tensor:
        """Mean over distances; z: [B, T, D] of moments, context: [B, T, D'] of those so far."""
        windows = z.shape[1] - self.steps
        others = self.draw(len(z), windows, z.shape[1]).to(z.device) if self.negatives else None
        z = self.compared(z.flatten(0, 1)).view(z.shape)
        terms = []
        for k, predictor in enumerate(self.predictors, 1):
            expected = predictor(context[:, :windows]).flatten(0, 1)
            if others is None:
                terms.append(match(expected, z[:, k : k + windows].flatten(0, 1)))
            else:
                terms.append(self.find(expected, z, k, others))
        return torch.stack(terms).mean()

    @full_precision
    def find(self, expected: Tensor, z: Tensor, k: int, others: Tensor) -> Tensor:
        """InfoNCE of [B W, D] expectations of what comes `k` steps later, among `others`; scores
        are means over dimensions, not sums."""
        batch, length, dim = z.shape
        candidates = dist.gather(z).flatten(0, 1)
        start = (torch.arange(batch, device=z.device) + dist.rank() * batch)[:, None] * length
        own = start + k + torch.arange(length - self.steps, device=z.device)
        rows = torch.cat([own.flatten()[:, None], others], 1)
        return find_first(products(expected / dim, candidates, rows))

    def draw(self, batch: int, windows: int, length: int) -> Tensor:
        """[batch * windows, negatives] rows among all moments of all processes, none of its own
        moment in its own sound."""
        shape = (batch, self.negatives, windows)
        sound = torch.randint(dist.world() * batch, shape)
        time = (torch.randint(1, length, shape) + torch.arange(windows)) % length
        return (sound * length + time).mT.flatten(0, 1)
