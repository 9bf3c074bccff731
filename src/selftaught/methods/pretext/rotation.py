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

    With `pair` the turn is told beside the image as it was. What is up need not be known then, as
    helps where there is no up (aerial images), but comparing solves the task: try both.

    Args:
        backbone: image encoder; it sees each image four times.
        pair: whether the turn is told from the turned image and from another crop of it that was
            not turned; else from the turned one alone.
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

    def __init__(self, backbone: Image, pair: bool = False):
        super().__init__()
        self.backbone, self.pair = backbone, pair
        self.classifier = nn.Linear((1 + pair) * backbone.dim, 4)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(4), "ln 4, guessing the turn"),)

    def views(self, size: Size) -> Pipeline:
        one = augment.crop(size, scale=(0.08, 1.0), interpolation="bilinear")
        return augment.Views(one.views * (1 + self.pair))

    def loss(self, batch: Batch) -> Tensor:
        """views: [B, C, S, S], and with `pair` another that is not turned."""
        x = batch.views[0]
        logits = self.answers(x, *batch.views[1:])
        turns = torch.arange(4, device=logits.device).repeat(len(x))
        return F.cross_entropy(logits, turns)

    def answers(self, x: Tensor, *upright: Tensor) -> Tensor:
        """[4 * B, 4] logits of the turns of [B, C, S, S], told beside [B, C, S, S] as it was."""
        seen = [self.backbone(rotations(x))]
        seen += [self.backbone(other).repeat_interleave(4, 0) for other in upright]
        return self.classifier(torch.cat(seen, 1))

    def show(self, batch: Batch) -> Pictures:
        x = batch.views[0]
        turned = rotations(x)
        said = self.answers(x, *batch.views[1:]).argmax(1).view(-1, 4)
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
