"""DenseCL (Wang et al., 2021), https://arxiv.org/abs/2011.09157."""

import math
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.utils.checkpoint import checkpoint

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import (
    Batch,
    Few,
    Insight,
    Method,
    Needs,
    Pictures,
    Pipeline,
    Recipe,
    ReferenceLoss,
)
from selftaught.objectives.contrastive import info_nce
from selftaught.parts import Queue, ema, frozen_copy, mlp
from selftaught.parts.drawing import matches
from selftaught.parts.shuffle import shuffled
from selftaught.roles import Blur, HeadWidth, Momentum, QueueLength, Temperature, TermShare
from selftaught.sides import Size

BLOCK = 2**25
"""Similarities that exist at a time."""


class DenseCL(Method):
    """MoCo for the whole image and, between the cells that match best, for every cell of it.

    Cells match by the cosine of the backbone's features, before any projection.

    Args:
        backbone: image encoder with local features.
        queue: number of negatives kept for each of the two losses.
        weight: of the dense loss, in [0, 1]; the loss of the whole image has the rest.
        momentum: of the target, a momentum encoder (EMA), in [0, 1).
        temperature: of the softmax over similarities, above 0.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        dim: width of both contrastive spaces.
        hidden: width of the hidden layer of both projectors.
    """

    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4, decay_bias=True)
    few = Few(hidden=256, dim=64, queue=2048)
    needs = Needs(batchnorm="own")
    insight = Insight(
        "projector",
        copies=(
            ("target.2", "dense_projector"),
            ("target.0", "backbone"),
            ("target.1", "projector"),
        ),
        pairs="same",
        memory=("negatives.items", "dense_negatives.items"),
    )

    def __init__(
        self,
        backbone: Image,
        dim: HeadWidth = 128,
        hidden: HeadWidth = 2048,
        queue: QueueLength = 65536,
        weight: TermShare = 0.5,
        momentum: Momentum = 0.999,
        temperature: Temperature = 0.2,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.backbone, self.dim, self.hidden, self.queue = backbone, dim, hidden, queue
        self.weight, self.momentum = weight, momentum
        self.temperature, self.blur = temperature, blur
        self.projector = mlp(backbone.dim, hidden, dim, norm=False)
        self.dense_projector = mlp(backbone.local_dim, hidden, dim, norm=False)
        self.target = frozen_copy(self.online)
        self.negatives, self.dense_negatives = Queue(queue, dim), Queue(queue, dim)

    @property
    def online(self) -> nn.ModuleList:
        """What the target follows."""
        return nn.ModuleList([self.backbone, self.projector, self.dense_projector])

    @property
    def followed(self) -> Image:
        """The target's backbone."""
        return cast(Image, self.target[0])

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        keys = self.queue + 1
        return (ReferenceLoss(math.log(keys), f"ln {keys}, guessing among the queue"),)

    def views(self, size: Size) -> Pipeline:
        return augment.moco(size, blur=self.blur)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W], queries and keys."""
        x1, x2 = batch.views
        query = project(self.online, features(self.backbone, x1))
        key = project(self.target, shuffled(partial(features, self.followed), x2))
        cells = key.cells.take_along_dim(match(query.features, key.features)[..., None], 1)
        whole = info_nce(query.whole, key.whole, self.negatives.items.clone(), self.temperature)
        dense = by_blocks(
            query.cells.flatten(0, 1),
            cells.flatten(0, 1),
            self.dense_negatives.items.clone(),
            self.temperature,
        )
        self.negatives.push(key.whole)
        self.dense_negatives.push(key.pooled)
        return {"whole": (1 - self.weight) * whole, "dense": self.weight * dense}

    def show(self, batch: Batch) -> Pictures:
        x1, x2 = batch.views
        queries, keys = self.backbone.features(x1), self.followed.features(x2)
        mean, std = self.backbone.mean, self.backbone.std
        found = matches((x1, x2), (queries.local, keys.local), queries.grid, mean, std)
        return Pictures(
            "Matching cells",
            f"The {found.cells.shape[1]} cells of one view that match best, and what they match in "
            "the other, framed in the same color.",
            found.columns,
        )

    def after_step(self) -> None:
        ema(self.target, self.online, self.momentum)


class Projected(NamedTuple):
    """Unit vectors. whole: [B, dim]; cells: [B, N, dim]; pooled: [B, dim], the mean of what the
    cells are before they have unit length; features: [B, N, D] of the backbone, detached.
    """

    whole: Tensor
    cells: Tensor
    pooled: Tensor
    features: Tensor


def features(backbone: Image, x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B, D + N * D']: pooled features, then those of the N cells."""
    found = backbone.features(x)
    return torch.cat([found.pooled, found.local.flatten(1)], 1)


def project(net: nn.ModuleList, x: Tensor) -> Projected:
    """What `features` gave, through projector and dense projector."""
    backbone, projector, dense_projector = net
    local = x[:, backbone.dim :].unflatten(1, (-1, backbone.local_dim))
    cells = dense_projector(local)
    outputs = projector(x[:, : backbone.dim]), cells, cells.mean(1), local.detach()
    return Projected(*(normalize(y, dim=-1) for y in outputs))


def match(queries: Tensor, keys: Tensor) -> Tensor:
    """[B, N, D], [B, M, D] unit features of cells -> [B, N]: the key cell nearest to each query."""
    return (queries @ keys.mT).argmax(2)


def by_blocks(q: Tensor, k: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """`info_nce`, block by block of queries, and once more for the gradient of each block.

    All at once, 256 images of 49 cells and 65536 negatives have 3 GB of similarities.
    """
    rows = max(1, BLOCK // len(negatives))
    blocks = [
        len(a) * checkpoint(info_nce, a, b, negatives, temperature, use_reentrant=False)
        for a, b in zip(q.split(rows), k.split(rows))
    ]
    return torch.stack(blocks).sum() / len(q)
