"""BYOL (Grill et al., 2020), https://arxiv.org/abs/2006.07733."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.precision import full_precision
from selftaught.parts import ema, frozen_copy, mlp
from selftaught.roles import Blur, HeadWidth, Momentum
from selftaught.schedule import cosine
from selftaught.sides import Size


class BYOL(Method):
    """Predict an EMA teacher's embedding of the other view; there are no negatives.

    The defaults are those of the reference code's table for 100 epochs. Its rows for 300 and 1000:
    learning rate 0.3 and 0.2, warm-up 0.033 and 0.01 (10 epochs always), and for 1000 weight decay
    1.5e-6 and momentum 0.996. The EMA teacher starts as a copy; in the reference code it is drawn
    anew.

    Args:
        backbone: image encoder.
        momentum: of the EMA teacher at the start, in [0, 1); it rises to 1.
        hidden: width of the hidden layers of projector and predictor.
        dim: width of the embedding.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.
    """

    needs = Needs(kinds="any")
    recipe = Recipe("lars", lr=0.45, weight_decay=1e-6, warmup=0.1)
    few = Few(hidden=512, dim=128)
    insight = Insight(
        "projector", "predictor", (("target.0", "backbone"), ("target.1", "projector")), "other"
    )

    def __init__(
        self,
        backbone: Image,
        momentum: Momentum = 0.99,
        hidden: HeadWidth = 4096,
        dim: HeadWidth = 256,
        blur: tuple[Blur, Blur] = (1.0, 0.1),
        solarize: tuple[Blur, Blur] = (0.0, 0.2),
    ):
        super().__init__()
        self.backbone, self.momentum = backbone, momentum
        self.hidden, self.dim, self.blur, self.solarize = hidden, dim, blur, solarize
        self.projector = mlp(backbone.dim, hidden, dim, last_bias=False)
        self.predictor = mlp(dim, hidden, dim, last_bias=False)
        self.target = frozen_copy(self.online)

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(4.0, "2 for each view, directions that have nothing in common"),
            ReferenceLoss(0.0, "all directions are the same", collapsed=True),
        )

    def views(self, size: Size) -> Pipeline:
        return augment.byol(size, blur=self.blur, solarize=self.solarize)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; each goes through the batch norms alone."""
        p1, p2 = (self.predictor(self.online(x)) for x in batch.views)
        with torch.no_grad():
            z1, z2 = (self.target(x) for x in batch.views)
        return regression(p1, z2) + regression(p2, z1)

    def after_step(self) -> None:
        ema(self.target, self.online, cosine(self.momentum, 1.0, self.progress))


@full_precision
def regression(p: Tensor, z: Tensor) -> Tensor:
    """Mean squared distance of the [B, D] directions of p and z, 2 - 2 cos (Eq. 2)."""
    return (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
