"""CPC of images (van den Oord, Li & Vinyals, 2018), https://arxiv.org/abs/1807.03748."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from selftaught import augment, dist
from selftaught.augment import View, Views
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import find_first, products
from selftaught.objectives.metric import match
from selftaught.precision import full_precision
from selftaught.roles import Count, Fraction, Number, Share
from selftaught.sides import Size, both, one, part, short, told_size

GRID = 7
"""Patches along a side: each a quarter of the image, overlapping its neighbor by half."""
FLOOR = 1e-11
"""Added to probabilities in the reference code."""


class CPC(Method):
    """Tell from the upper rows of an image's patches which patches lie some rows below.

    Every patch is encoded alone; a convolutional network that sees no row below its own sums up
    what is known; a matrix for each distance says what follows. The authors' code is not public:
    the objective is that of Greedy InfoMax' (Löwe et al., 2019), the context network that of CPC v2
    (Hénaff et al., 2020, https://arxiv.org/abs/1905.09272). The paper's encoder has no batch norms,
    by which patches of an image can be told to belong together; networks such as
    `resnetv2_50x1_bit` have none.

    Args:
        backbone: image encoder; it sees patches a quarter as high and wide as the images.
        steps: number of distances that are predicted.
        negatives: patches that each is told from, drawn from all of the batch, with replacement; 0
            for all in the predicted rows of the batch.
        scale: area of the crop that is cut into patches, as fractions of the image.

    Other Args:
        skip: rows next to the context that are not predicted, for they share pixels with it.
        context: width of the context network's hidden layers.
        blocks: residual blocks of the context network, each of which sees one more row.
        gray: probability that an image is gray, as all of the paper's are: colors that a lens
            bends apart would give places away.
    """

    recipe = Recipe("adam", lr=2e-4, batch=32, scaling="none", schedule="constant")
    few = Few(context=64, blocks=3, gray=0.25, lr=0.001)
    insight = Insight("backbone")
    needs = Needs(views="own")
    backbone: Image

    def __init__(
        self,
        backbone: Image,
        steps: Count = 5,
        skip: Number = 1,
        negatives: Number = 16,
        context: Count = 256,
        blocks: Number = 5,
        scale: tuple[Fraction, Fraction] = (0.6, 1.0),
        gray: Share = 1.0,
    ):
        super().__init__()
        if steps + skip >= GRID:
            raise UserError(
                f"cpc predicts rows {skip + 1} to {skip + steps} below, of {GRID} rows of patches "
                f"in all; the sum of steps and skip must be below {GRID}"
            )
        self.backbone, self.steps, self.skip, self.negatives = backbone, steps, skip, negatives
        self.context, self.blocks, self.scale, self.gray = context, blocks, scale, gray
        self.summary = Summary(backbone.dim, context, blocks)
        self.predictors = nn.ModuleList(
            nn.Linear(backbone.dim, backbone.dim, bias=False) for _ in range(steps)
        )

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        if self.negatives:
            rows = self.negatives + 1
            return (ReferenceLoss(math.log(rows), f"ln {rows}, guessing among the patches"),)
        below = [GRID - self.skip - k for k in range(1, self.steps + 1)]
        guess = sum(math.log(batch * GRID * rows) for rows in below) / self.steps
        return (ReferenceLoss(guess, f"mean ln of the patches of {batch} images, guessing"),)

    def views(self, size: Size) -> Pipeline:
        patch = self.backbone.fit(part(size, 1, 4))
        if short(patch) < 2:
            raise UserError(
                f"images of {told_size(size)} px have no {GRID} x {GRID} patches; use 8 or more"
            )
        whole = one([side + (GRID - 1) * (side // 2) for side in both(patch)])
        return Patches(Views((View(whole, self.scale, gray=self.gray),)), patch)

    def loss(self, batch: Batch) -> Tensor:
        """views: patches [B, 49, C, S, S], row by row."""
        patches = batch.views
        z = self.backbone(patches.flatten(0, 1)).unflatten(0, (len(patches), GRID, GRID))
        return self.predict(z, self.summary(z))

    def predict(self, z: Tensor, context: Tensor) -> Tensor:
        """Mean over distances; z: [B, H, W, D] of patches, context: [B, H, W, D'] that saw rows."""
        terms = []
        for gap, predictor in enumerate(self.predictors, self.skip + 1):
            expected = predictor(context[:, :-gap])
            terms.append(self.find(expected.flatten(0, 2), z[:, gap:].flatten(0, 2)))
        return torch.stack(terms).mean()

    @full_precision
    def find(self, expected: Tensor, z: Tensor) -> Tensor:
        """InfoNCE (Eq. 4): which of the patches [M, D] of all processes each expectation is of."""
        if not self.negatives:
            return match(expected, z)
        candidates = dist.gather(z)
        own = torch.arange(len(z), device=z.device) + dist.rank() * len(z)
        rows = torch.cat([own[:, None], self.draw(own, len(candidates))], 1)
        return find_first(products(expected, candidates, rows), FLOOR)

    def draw(self, own: Tensor, count: int) -> Tensor:
        """[M, negatives] of `count` patches for each of [M]; it may be among them itself."""
        return torch.randint(count, (len(own), self.negatives), device=own.device)


class Summary(nn.Module):
    """What is known at each place of a grid, from its own row and those above: [B, H, W, D]."""

    def __init__(self, dim: int, hidden: int, blocks: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(dim, hidden, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1)),
                nn.ZeroPad2d((0, 0, 1, 0)),  # a row above the first, so that no row sees the next
                nn.Conv2d(hidden, hidden, (2, 1)),
                nn.ReLU(inplace=True),
                nn.Conv2d(hidden, dim, 1),
            )
            for _ in range(blocks)
        )

    def forward(self, z: Tensor) -> Tensor:
        x = z.permute(0, 3, 1, 2)
        for block in self.blocks:
            x = x + block(x)
        return x.relu().permute(0, 2, 3, 1)


@dataclass(frozen=True)
class Patches(augment.Pipeline):
    """A view -> 49 overlapping patches, of each of which a random fifteen sixteenth is shown.

    The shown part lies in the middle and its border is repeated around it: lines do not go on from
    a patch to the next.
    """

    view: Views
    patch: Size

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        (view,) = self.view(image, rng)
        patch = both(self.patch)
        windows = np.lib.stride_tricks.sliding_window_view(view, patch, (1, 2))
        down, right = (side // 2 for side in patch)
        cells = windows[:, ::down, ::right].transpose(1, 2, 0, 3, 4)
        cells = cells.reshape(-1, len(view), *patch)
        lost = np.array([side // 16 for side in patch])
        first = rng.integers(0, lost[:, None, None], (2, len(cells), 1), endpoint=True)
        rows, columns = (
            np.clip(np.arange(side) - n // 2 + at, at, at + side - n - 1)
            for side, n, at in zip(patch, lost, first)
        )
        shown = cells[np.arange(len(cells))[:, None, None], :, rows[:, :, None], columns[:, None]]
        return np.ascontiguousarray(shown.transpose(0, 3, 1, 2))
