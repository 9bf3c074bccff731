"""Distillation with unlabeled images, SimCLRv2's (Chen et al., 2020), https://arxiv.org/abs/2006.10029."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from selftaught import augment
from selftaught.backbones import Image
from selftaught.method import Batch, Method, Needs, Pipeline, Recipe
from selftaught.objectives.distillation import soft_cross_entropy, with_labels
from selftaught.parts import frozen_copy
from selftaught.roles import Fraction, Temperature, TermShare
from selftaught.sides import Size


class Distill(Method):
    """Teach a network, by images without labels, what a fine-tuned one says of their classes.

    The third stage of SimCLRv2. The loss is multiplied by temperature², as in the paper's code
    and not in its Eq. 2.

    Args:
        backbone: image encoder of the student.
        network: the teacher, whose `logits` gives [B, classes] of images; it stays as it is.
        teacher: run of `simclr_v2_finetune` or `finetune` that the network comes from.
        temperature: of both networks' distributions, above 0.
        alpha: weight of the teacher; below 1 the rest is that of labels, which images then need.
        scale: smallest and largest area of the crops, as fractions of the image.
    """

    recipe = Recipe("lars_tf", lr=0.1, batch=1, scaling="sqrt", weight_decay=1e-4, warmup=0.05)

    needs = Needs(teacher="runs/finetune-photos")

    def __init__(
        self,
        backbone: Image,
        network: Any,
        teacher: Path = Path("."),
        temperature: Temperature = 1.0,
        alpha: TermShare = 1.0,
        scale: tuple[Fraction, Fraction] = (0.08, 1.0),
    ):
        super().__init__()
        self.backbone, self.teacher = backbone, teacher
        self.temperature, self.alpha, self.scale = temperature, alpha, scale
        self.network = frozen_copy(network)
        self.classifier = nn.Linear(backbone.dim, network.classes)
        self.needs = replace(self.needs, labels=alpha < 1)

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, scale=self.scale)

    def train(self, mode: bool = True) -> Self:
        """As of any module, but the teacher stays as it is evaluated."""
        super().train(mode)
        self.network.eval()
        return self

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, S, S]; label: [B], where alpha is below 1."""
        (x,) = batch.views
        with torch.no_grad():
            teacher = self.network.logits(x)
        student = self.logits(x)
        loss = self.temperature**2 * soft_cross_entropy(student, teacher, self.temperature)
        return loss if batch.label is None else with_labels(loss, student, batch.label, self.alpha)

    def logits(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, classes]."""
        return self.classifier(self.backbone(x))
