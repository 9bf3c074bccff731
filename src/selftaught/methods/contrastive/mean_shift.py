"""Mean Shift, MSF (Koohpayegani, Tejankar & Pirsiavash, 2021), https://arxiv.org/abs/2105.07269."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment import View, Views
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import Queue, ema, frozen_copy, mlp
from selftaught.parts.shuffle import shuffled
from selftaught.precision import full_precision
from selftaught.roles import Blur, Count, HeadWidth, Momentum, QueueLength
from selftaught.sides import Size


class MeanShift(Method):
    """Come near the neighbors of an image's other view; nothing is pushed apart.

    The first of the neighbors is the other view itself, which joins the queue before the search:
    with one neighbor this is BYOL. The queue and the number of neighbors are the defaults of the
    paper's code, the rate is that of its published command.

    Args:
        backbone: image encoder.
        neighbors: number of them that each image comes near to; the paper's longer runs take 10.
        queue: number of earlier targets to be neighbors; the paper has 1024000 for ImageNet.
        momentum: of the momentum encoder (EMA), in [0, 1).
        blur: probability of Gaussian blur in strong views; 0 for images as small as CIFAR's.

    Other Args:
        hidden: width of the hidden layers of projector and predictor; none for twice the
            representation's.
        dim: width of the embedding; none for a quarter of the representation's.
        views_of: what query and target see, in this order: crops and flips ("weak") or color
            changes and blur too ("strong").
    """

    recipe = Recipe("sgd", lr=0.05, weight_decay=1e-4, decay_bias=True, by_epoch=True)
    few = Few(hidden=512, dim=128, queue=2048)
    needs = Needs(batchnorm="own", kinds="any")
    insight = Insight(
        "projector",
        "predictor",
        (("target.0", "backbone"), ("target.1", "projector")),
        "same",
        memory=("earlier.items",),
    )

    def __init__(
        self,
        backbone: Image,
        neighbors: Count = 5,
        queue: QueueLength = 128000,
        momentum: Momentum = 0.99,
        hidden: HeadWidth | None = None,
        dim: HeadWidth | None = None,
        views_of: Literal["strong_weak", "strong_strong", "weak_weak"] = "strong_weak",
        blur: Blur = 0.5,
    ):
        super().__init__()
        if not 1 <= neighbors <= queue:
            raise UserError(
                f"mean_shift cannot find {neighbors} neighbors among a queue of {queue} targets; "
                "use a longer queue, or between 1 and as many neighbors as it holds"
            )
        self.backbone, self.neighbors, self.queue = backbone, neighbors, queue
        self.momentum, self.hidden, self.dim = momentum, hidden, dim
        self.views_of, self.blur = views_of, blur
        wide = 2 * backbone.dim if hidden is None else hidden
        narrow = max(1, backbone.dim // 4) if dim is None else dim
        self.projector = mlp(backbone.dim, wide, narrow)
        self.predictor = mlp(narrow, wide, narrow)
        self.target = frozen_copy(self.online)
        self.earlier = Queue(queue, narrow)

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(2.0, "2 - 2 cos of directions that have nothing in common"),
            ReferenceLoss(0.0, "all directions are the same", collapsed=True),
        )

    def views(self, size: Size) -> Pipeline:
        strong, _ = augment.moco(size, blur=self.blur).views
        kinds = {"strong": strong, "weak": View(size, strong.scale)}
        return Views(tuple(kinds[kind] for kind in self.views_of.split("_")))

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W], the query's and the target's."""
        x1, x2 = batch.views
        query = self.predictor(self.online(x1))
        target = F.normalize(shuffled(self.target, x2), dim=1)
        self.earlier.push(target)
        return shift(query, target, self.earlier.items, self.neighbors)

    def after_step(self) -> None:
        # the reference does this at the start of the next step, which is the same
        ema(self.target, self.online, self.momentum)


@full_precision
def shift(query: Tensor, target: Tensor, earlier: Tensor, count: int) -> Tensor:
    """Mean squared distance of each query to the neighbors of its target, 2 - 2 cos (Eq. 1).

    Args:
        query: [B, D]; normalized here.
        target: [B, D] unit vectors.
        earlier: [Q, D] unit vectors that neighbors are among.
        count: number of neighbors, at most Q.
    """
    with torch.no_grad():
        found = earlier[(target.to(earlier.dtype) @ earlier.mT).topk(count, dim=1).indices]
    return (2 - 2 * torch.einsum("bd,bkd->bk", F.normalize(query, dim=1), found)).mean()
