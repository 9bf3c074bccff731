"""RotNet (Gidaris et al., 2018), https://arxiv.org/abs/1803.07728."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.sides import Size


class Rotation(Method):
    """Tell by which multiple of 90 degrees an image was turned; all four turns are in the batch.

    The recipe is that of the reference's ImageNet run of 50 epochs, with the learning rates that it
    really used: its table of rates overrides the 0.1 of its configuration.

    Args:
        backbone: image encoder; it sees each image four times.
    """

    recipe = Recipe(
        "sgd",
        lr=0.01,
        batch=192,
        weight_decay=5e-4,
        schedule="step",
        milestones=(0.3, 0.6, 0.9),
        by_epoch=True,
        decay_bias=True,
        nesterov=True,
    )
    few = Few(lr=0.001)
    needs = Needs(batch=1, views="own", squares="turns them by quarters")

    def __init__(self, backbone: Image):
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.dim, 4)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(4), "ln 4, guessing the turn"),)

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, scale=(0.08, 1.0), interpolation="bilinear")

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, S, S]."""
        (x,) = batch.views
        logits = self.classifier(self.backbone(rotations(x)))
        turns = torch.arange(4, device=logits.device).repeat(len(x))
        return F.cross_entropy(logits, turns)

    def show(self, batch: Batch) -> Pictures:
        (x,) = batch.views
        turned = rotations(x)
        said = self.classifier(self.backbone(turned)).argmax(1).view(-1, 4)
        names = [f"turned by {90 * k}°" for k in range(4)]
        answers = [
            [f"“{90 * answer}°”{' ✓' if answer == k else ''}" for answer in column]
            for k, column in enumerate(said.T.tolist())
        ]
        return Pictures(
            "Turned images and the answers",
            "Below each image, by how much the network thinks that it was turned.",
            dict(zip(names, turned.unflatten(0, (-1, 4)).unbind(1))),
            dict(zip(names, answers)),
        )


def rotations(x: Tensor) -> Tensor:
    """[B, C, S, S] -> [4 * B, C, S, S]: each image turned counter-clockwise by 0, 90, 180, 270.

    Turned by transposing and flipping: interpolation would leave traces that give the turn away.
    """
    return torch.stack([x.rot90(k, (2, 3)) for k in range(4)], 1).flatten(0, 1)
