"""Fine-tuning from the head of SimCLRv2 (Chen et al., 2020), https://arxiv.org/abs/2006.10029."""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import simclr_head
from selftaught.roles import ClassCount, Fraction, Number
from selftaught.sides import Size


class SimCLRv2Finetune(Method):
    """Train backbone and first layers of SimCLRv2's head, with a classifier on them, on few labels.

    The second stage of three: `--start` names the run of `simclr_v2`, from which the weights of
    backbone and head come. With `kept` 0 the head is thrown away, as SimCLR's is.

    Args:
        backbone: image encoder.
        classes: number of classes; those of the data on the command line.
        kept: layers of the head below the classifier, fewer than it has.
        scale: smallest and largest area of the crops, as fractions of the image.
    """

    recipe = Recipe("lars_tf", lr=0.005, batch=1, scaling="sqrt")
    needs = Needs(labels=True)

    def __init__(
        self,
        backbone: Image,
        classes: ClassCount,
        kept: Number = 1,
        scale: tuple[Fraction, Fraction] = (0.08, 1.0),
    ):
        super().__init__()
        self.backbone, self.classes = backbone, classes
        self.kept, self.scale = kept, scale
        # the last layer of a head has another norm and no ReLU: make one more, and leave it out
        self.projector = simclr_head(*[backbone.dim] * (kept + 2))[: 3 * kept]
        self.classifier = nn.Linear(backbone.dim, classes)
        nn.init.zeros_(self.classifier.weight)
        nn.init.zeros_(self.classifier.bias)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(self.classes), f"ln {self.classes}, guessing the class"),)

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, scale=self.scale)

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, S, S]; label: [B] below `classes`."""
        (x,) = batch.views
        assert batch.label is not None  # `needs` says so
        return F.cross_entropy(self.logits(x), batch.label)

    def logits(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, classes]."""
        return self.classifier(self.projector(self.backbone(x)))
