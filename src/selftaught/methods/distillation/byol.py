"""BYOL (Grill et al., 2020), https://arxiv.org/abs/2006.07733."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import DirectPredictor, Turns, ema, frozen_copy, mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, Count, HeadWidth, Momentum, Positive, Share, Weight
from selftaught.schedule import cosine
from selftaught.sides import Size


class BYOL(Method):
    """Predict an EMA teacher's embedding of the other view; there are no negatives.

    The defaults are those of the reference code's table for 100 epochs. Its rows for 300 and 1000:
    learning rate 0.3 and 0.2, warm-up 0.033 and 0.01 (10 epochs always), and for 1000 weight decay
    1.5e-6 and momentum 0.996. The EMA teacher starts as a copy; in the reference code it is drawn
    anew.

    Teacher and student may be the same (`momentum` and `end_momentum` 0) where the predictor is
    always near its best: it learns at a larger rate, or in more steps, than the encoder, or is
    computed instead of learned (DirectPred, Tian et al., 2021, https://arxiv.org/abs/2102.06810).
    That tells what holds the method up; the EMA teacher is what learns most.

    Args:
        backbone: image encoder.
        momentum: of the EMA teacher at the start, in [0, 1); it rises to 1, or `end_momentum`.
        hidden: width of the hidden layers of projector and predictor.
        dim: width of the embedding.
        blur, solarize: probabilities in the first and the second view; 0,0 for small images.

    Other Args:
        end_momentum: of the EMA teacher at the end.
        predictor_form: `mlp` is learned; `direct` is linear, and set from what it is given.
        predictor_rate: learning rate of the predictor, as a multiple of the others'.
        predictor_steps: steps of the predictor for each one of the encoder, which learns in every
            so many steps alone.
        direct_rho: of `direct`: weight of the earlier correlation.
        direct_eps: of `direct`: what small eigenvalues keep, relative to the largest.
        direct_every: of `direct`: steps from one decomposition to the next.
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
        end_momentum: Share = 1.0,
        predictor_form: Literal["mlp", "direct"] = "mlp",
        predictor_rate: Positive = 1.0,
        predictor_steps: Count = 1,
        direct_rho: Share = 0.3,
        direct_eps: Weight = 0.1,
        direct_every: Count = 1,
    ):
        super().__init__()
        self.end_momentum, self.predictor_form = end_momentum, predictor_form
        self.predictor_rate, self.predictor_steps = predictor_rate, predictor_steps
        self.direct_rho, self.direct_eps, self.direct_every = direct_rho, direct_eps, direct_every
        self.backbone, self.momentum = backbone, momentum
        self.hidden, self.dim, self.blur, self.solarize = hidden, dim, blur, solarize
        self.projector = mlp(backbone.dim, hidden, dim, last_bias=False)
        if predictor_form == "direct":
            self.predictor: nn.Module = DirectPredictor(dim, direct_rho, direct_eps, direct_every)
        else:
            self.predictor = mlp(dim, hidden, dim, last_bias=False)
            if predictor_rate != 1:
                rates = (("predictor", predictor_rate),)
                self.recipe = replace(self.recipe, rates=rates)
        if momentum == end_momentum == 0:  # its copy is no other network
            self.insight = self.insight._replace(copies=())
        self.turns = Turns(predictor_steps)
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
        own = [self.online(x) for x in batch.views]
        if isinstance(self.predictor, DirectPredictor):
            self.predictor.follow(torch.cat(own))
        p1, p2 = map(self.predictor, own)
        with torch.no_grad():
            z1, z2 = (self.target(x) for x in batch.views)
        return regression(p1, z2) + regression(p2, z1)

    def before_step(self) -> None:
        self.turns.rest(self.backbone, self.projector)

    def after_step(self) -> None:
        if not self.turns.rested():
            ema(self.target, self.online, cosine(self.momentum, self.end_momentum, self.progress))


@full_precision
def regression(p: Tensor, z: Tensor) -> Tensor:
    """Mean squared distance of the [B, D] directions of p and z, 2 - 2 cos (Eq. 2)."""
    return (F.normalize(p, dim=1) - F.normalize(z, dim=1)).square().sum(1).mean()
