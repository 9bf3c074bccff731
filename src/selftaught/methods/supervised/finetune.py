"""Fine-tuning (Girshick et al., 2014), https://arxiv.org/abs/1311.2524."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.roles import ClassCount, Fraction, Share
from selftaught.sides import Size


class Finetune(Method):
    """Go on training a pretrained encoder, all of it, with a linear classifier and labels.

    The recipe is that of MAE (He et al., 2022, table 9) without its decay of rates by layer, which
    convolutional networks have not, and without mixtures of images; crops and flips alone change
    the images. From fresh weights this is ordinary supervised training.

    Args:
        backbone: image encoder to start from.
        classes: number of classes; those of the data on the command line.
        smoothing: share of the target that is spread over all classes.
        scale: smallest and largest area of the crops, as fractions of the image.
    """

    recipe = Recipe(
        "adamw",
        lr=1e-3,
        batch=256,
        weight_decay=0.05,
        warmup=0.05,
    )
    needs = Needs(batch=2, labels=True, kinds="any")

    def __init__(
        self,
        backbone: Image,
        classes: ClassCount,
        smoothing: Share = 0.1,
        scale: tuple[Fraction, Fraction] = (0.2, 1.0),
    ):
        super().__init__()
        self.classes, self.smoothing, self.scale = classes, smoothing, scale
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.dim, classes)
        # the first steps should change the classifier, not features by noise of the classifier
        nn.init.trunc_normal_(self.classifier.weight, std=2e-5)
        nn.init.zeros_(self.classifier.bias)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(self.classes), f"ln {self.classes}, guessing the class"),)

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, scale=self.scale)

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, S, S]; label: [B] below `classes`."""
        (x,) = batch.views
        assert batch.label is not None  # `needs` says so
        return F.cross_entropy(self.logits(x), batch.label, label_smoothing=self.smoothing)

    def logits(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, classes]."""
        return self.classifier(self.backbone(x))
