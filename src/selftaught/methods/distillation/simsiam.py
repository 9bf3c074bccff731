"""SimSiam (Chen and He, 2021), https://arxiv.org/abs/2011.10566."""

from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import DirectPredictor, Turns, mlp
from selftaught.precision import full_precision
from selftaught.roles import Blur, Count, HeadWidth, Positive, Share, Weight
from selftaught.sides import Size


class SimSiam(Method):
    """Predict the other view's embedding, through which no gradient flows.

    Args:
        backbone: image encoder.
        dim: width of the embedding.
        bottleneck: width of the predictor's hidden layer.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        predictor_form: `mlp` is learned; `direct` is linear, and set from what it is given
            (DirectPred, Tian et al., 2021, https://arxiv.org/abs/2102.06810).
        predictor_rate: learning rate of the predictor, as a multiple of the others'.
        predictor_steps: steps of the predictor for each one of the encoder, which learns in every
            so many steps alone.
        direct_rho: of `direct`: weight of the earlier correlation.
        direct_eps: of `direct`: what small eigenvalues keep, relative to the largest.
        direct_every: of `direct`: steps from one decomposition to the next; more for wide ones.
    """

    needs = Needs(kinds="any")
    recipe = Recipe(
        "sgd", lr=0.05, weight_decay=1e-4, decay_bias=True, by_epoch=True, constant=("predictor",)
    )
    few = Few(dim=512, bottleneck=128, optimizer="sgd", lr=0.05, weight_decay=0.0005)
    insight = Insight("projector", "predictor", pairs="other")

    def __init__(
        self,
        backbone: Image,
        dim: HeadWidth = 2048,
        bottleneck: HeadWidth = 512,
        blur: Blur = 0.5,
        predictor_form: Literal["mlp", "direct"] = "mlp",
        predictor_rate: Positive = 1.0,
        predictor_steps: Count = 1,
        direct_rho: Share = 0.3,
        direct_eps: Weight = 0.1,
        direct_every: Count = 1,
    ):
        super().__init__()
        self.predictor_form = predictor_form
        self.predictor_rate, self.predictor_steps = predictor_rate, predictor_steps
        self.direct_rho, self.direct_eps, self.direct_every = direct_rho, direct_eps, direct_every
        self.backbone, self.dim, self.bottleneck, self.blur = backbone, dim, bottleneck, blur
        wide = backbone.dim
        self.projector = mlp(wide, wide, wide, dim, bias=False, last_norm=True)
        # the norm that follows removes it anyway
        cast(Tensor, cast(nn.Linear, self.projector[-2]).bias).requires_grad_(False)
        if predictor_form == "direct":
            self.predictor: nn.Module = DirectPredictor(dim, direct_rho, direct_eps, direct_every)
            self.recipe = replace(self.recipe, constant=())
        else:
            self.predictor = mlp(dim, bottleneck, dim, bias=False)
            if predictor_rate != 1:
                rates = (("predictor", predictor_rate),)
                self.recipe = replace(self.recipe, rates=rates)
        self.turns = Turns(predictor_steps)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(0.0, "directions that have nothing in common"),
            ReferenceLoss(-1.0, "all directions are the same", collapsed=True),
        )

    def views(self, size: Size) -> Pipeline:
        return augment.moco(size, blur=self.blur)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]; each goes through the batch norms alone."""
        z1, z2 = (self.projector(self.backbone(x)) for x in batch.views)
        if isinstance(self.predictor, DirectPredictor):
            self.predictor.follow(torch.cat([z1, z2]))
        return (distance(self.predictor(z1), z2) + distance(self.predictor(z2), z1)) / 2

    def before_step(self) -> None:
        self.turns.rest(self.backbone, self.projector)


@full_precision
def distance(p: Tensor, z: Tensor) -> Tensor:
    """Mean negative cosine of [B, D] p and z, without gradient through z (Eq. 1 and 3)."""
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()
