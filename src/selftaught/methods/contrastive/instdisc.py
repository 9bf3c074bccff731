"""Instance discrimination, NPID (Wu et al., 2018), https://arxiv.org/abs/1805.01978."""

import math
from typing import Annotated

from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment import Views
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.contrastive import noise_contrastive
from selftaught.parts import MemoryBank
from selftaught.precision import full_precision
from selftaught.roles import HeadWidth, Role, SampleCount, Share, Temperature
from selftaught.sides import Size


class InstDisc(Method):
    """Classify each image as itself, by the memory of how it looked before.

    The classes are all images of the dataset. The paper takes the full softmax over them, no
    negatives drawn, for CIFAR, with temperature 0.1 and weight decay 5e-4. The rate falls after 120
    and 160 of 200 epochs.

    Args:
        backbone: image encoder.
        samples: images in the dataset.
        negatives: rows of the memory that each image is compared with by NCE, drawn anew for
            each; 0 for the softmax over all.
        temperature: of the similarities, above 0.
        dim: width of the embedding.
        memory_momentum: weight of what is remembered of an image, in [0, 1).
    """

    needs = Needs(kinds="any")
    recipe = Recipe(
        "sgd",
        lr=0.03,
        weight_decay=1e-4,
        decay_bias=True,
        by_epoch=True,
        schedule="step",
        milestones=(0.6, 0.8),
    )
    # the paper's for CIFAR; with noise-contrastive estimation, whose partition is that of the first
    # batch, the loss rose from 25 to 190 in the first 40 steps, as the memory filled
    few = Few(negatives=0, temperature=0.1, dim=64)
    insight = Insight("projector", memory=("memory.items",))

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        negatives: Annotated[int, Role("queue", least=0)] = 4096,
        temperature: Temperature = 0.07,
        dim: HeadWidth = 128,
        memory_momentum: Share = 0.5,
    ):
        super().__init__()
        if not 0 <= negatives <= samples:
            raise UserError(
                f"instdisc cannot compare with {negatives} of {samples} images; use negatives=0, "
                "which compares with all, or fewer than there are"
            )
        self.backbone, self.samples, self.negatives = backbone, samples, negatives
        self.temperature, self.dim, self.memory_momentum = temperature, dim, memory_momentum
        self.projector = nn.Linear(backbone.dim, dim)
        self.memory = MemoryBank(samples, dim, memory_momentum, unit=False)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        if not self.negatives:
            return (
                ReferenceLoss(math.log(self.samples), f"ln {self.samples}, guessing the image"),
            )
        # all similarities alike: each P is 1 / n
        rows = self.negatives + 1
        guess = math.log(rows) + self.negatives * math.log(rows / self.negatives)
        return (ReferenceLoss(guess, f"all of {rows} rows of the memory alike"),)

    def views(self, size: Size) -> Pipeline:
        return Views(augment.moco_v1(size).views[:1])

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, H, W]."""
        (x,) = batch.views
        return self.discriminate(F.normalize(self.projector(self.backbone(x)), dim=1), batch.index)

    @full_precision
    def discriminate(self, x: Tensor, index: Tensor) -> Tensor:
        """Loss of [B, dim] unit embeddings of samples [B]; then the memory takes them in."""
        if self.negatives:
            rows = self.memory.draw(index, self.negatives)
            scores = (self.memory.similarities(x, rows) / self.temperature).exp()
            loss = noise_contrastive(scores, self.memory.estimate(scores), self.samples)
        else:
            loss = F.cross_entropy(self.memory.compare(x) / self.temperature, index)
        self.memory.update(index, x)
        return loss
