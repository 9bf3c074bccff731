"""A method of one's own: predict the other view's features through a bottleneck.

python examples/own_method.py PHOTOS [EPOCHS]
selftaught pretrain examples/own_method.py:Echo PHOTOS
"""

import sys

from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from selftaught import augment, pretrain
from selftaught.backbones import Image
from selftaught.method import Batch, Method, Pipeline, Recipe
from selftaught.parts import ema, frozen_copy, mlp
from selftaught.roles import Count, Momentum


class Echo(Method):
    """Predict, from one view, what an EMA teacher, a slow copy of the encoder, sees in the other.

    Args:
        backbone: image encoder.
        hidden: width of the predictor's hidden layer.
        momentum: of the EMA teacher, in [0, 1).
    """

    recipe = Recipe("adamw", lr=1e-3, weight_decay=0.01, warmup=0.1)

    def __init__(self, backbone: Image, hidden: Count = 512, momentum: Momentum = 0.99):
        super().__init__()
        self.backbone, self.hidden, self.momentum = backbone, hidden, momentum
        self.predictor: nn.Module = mlp(backbone.dim, hidden, backbone.dim)
        self.target = frozen_copy(backbone)

    def views(self, size: int) -> Pipeline:
        return augment.byol(size)

    def loss(self, batch: Batch) -> Tensor:
        """views: two [B, C, H, W]."""
        one, two = batch.views
        return (self.distance(one, two) + self.distance(two, one)) / 2

    def distance(self, seen: Tensor, other: Tensor) -> Tensor:
        """How far the prediction is from the target, 0 to 2; both [B, C, H, W]."""
        predicted = self.predictor(self.backbone(seen))
        return 1 - cosine_similarity(predicted, self.target(other)).mean()

    def after_step(self) -> None:
        ema(self.target, self.backbone, self.momentum)


if __name__ == "__main__":
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 100
    options = {"backbone": "resnet18", "size": 32, "epochs": epochs, "batch": 64}
    pretrain(Echo, sys.argv[1], "runs/own", **options, overwrite=True)
