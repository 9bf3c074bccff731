"""SimSiam (Chen and He, 2021), https://arxiv.org/abs/2011.10566."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.precision import full_precision
from selftaught.parts import mlp
from selftaught.roles import Blur, HeadWidth
from selftaught.sides import Size


class SimSiam(Method):
    """Predict the other view's embedding, through which no gradient flows.

    Args:
        backbone: image encoder.
        dim: width of the embedding.
        bottleneck: width of the predictor's hidden layer.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.
    """

    needs = Needs(kinds="any")
    recipe = Recipe(
        "sgd", lr=0.05, weight_decay=1e-4, decay_bias=True, by_epoch=True, constant=("predictor",)
    )
    few = Few(dim=512, bottleneck=128, optimizer="sgd", lr=0.05, weight_decay=0.0005)
    insight = Insight("projector", "predictor", pairs="other")

    def __init__(
        self, backbone: Image, dim: HeadWidth = 2048, bottleneck: HeadWidth = 512, blur: Blur = 0.5
    ):
        super().__init__()
        self.backbone, self.dim, self.bottleneck, self.blur = backbone, dim, bottleneck, blur
        wide = backbone.dim
        self.projector = mlp(wide, wide, wide, dim, bias=False, last_norm=True)
        # the norm that follows removes it anyway
        cast(Tensor, cast(nn.Linear, self.projector[-2]).bias).requires_grad_(False)
        self.predictor = mlp(dim, bottleneck, dim, bias=False)

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
        return (distance(self.predictor(z1), z2) + distance(self.predictor(z2), z1)) / 2


@full_precision
def distance(p: Tensor, z: Tensor) -> Tensor:
    """Mean negative cosine of [B, D] p and z, without gradient through z (Eq. 1 and 3)."""
    return -F.cosine_similarity(p, z.detach(), dim=1).mean()
