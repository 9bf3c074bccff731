"""SeLa (Asano et al., 2020), https://arxiv.org/abs/1911.05371."""

import math

import torch
from torch import Tensor, nn

from selftaught import dist
from selftaught.augment import View, Views
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Corpus, Few, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.assignment import balanced_plan, cluster_cross_entropy
from selftaught.roles import Count, Fraction, Positive, PrototypeCount, SampleCount, Share, Weight
from selftaught.sides import Size


class SeLa(Method):
    """Classify images into clusters that the network's own predictions choose, equally large ones.

    Clusters are found anew ever more seldom, at fractions k^2 of training. Where the paper's code
    may do so within an epoch and from the images as augmented, it is done before an epoch and from
    plain views here. The rate is the one that the code's help names, its default is 0.08; it falls
    after 150, 300 and 350 of 400 epochs.

    Args:
        backbone: image encoder.
        prototypes: number of clusters, at most as many as images.
        heads: number of clusterings; 10 in the paper's best results.
        scale: area of the crops, as fractions of the image.

    Other Args:
        samples: images in the dataset.
        power: lambda, to which the predictions are taken; larger is harder.
        relabelings: how often clusters are found in a training.
        jitter: strengths of brightness, contrast, saturation and hue.
        gray: probability of dropping the colors.
    """

    recipe = Recipe(
        "sgd",
        lr=0.05,
        scaling="none",
        weight_decay=1e-5,
        schedule="step",
        milestones=(150 / 400, 300 / 400, 350 / 400),
        by_epoch=True,
        decay_bias=True,
    )
    few = Few(prototypes=100, scale=(0.3, 1.0))
    needs = Needs(kinds=("image", "sound"))

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        prototypes: PrototypeCount = 3000,
        heads: Count = 1,
        power: Positive = 25.0,
        relabelings: Count = 100,
        jitter: tuple[Weight, Weight, Weight, Weight] = (0.4, 0.4, 0.4, 0.4),
        gray: Share = 0.2,
        scale: tuple[Fraction, Fraction] = (0.08, 1.0),
    ):
        super().__init__()
        if not 2 <= prototypes <= samples:
            raise UserError(
                f"sela cannot sort {samples} images into prototypes={prototypes} clusters of equal "
                f"size; ask for fewer than images, such as prototypes={max(2, samples // 400)}"
            )
        self.backbone, self.samples, self.prototypes = backbone, samples, prototypes
        self.heads, self.power, self.relabelings = heads, power, relabelings
        self.jitter, self.gray, self.scale = jitter, gray, scale
        self.classifiers = nn.ModuleList(nn.Linear(backbone.dim, prototypes) for _ in range(heads))
        self.register_buffer("assignment", (torch.arange(samples) % prototypes).repeat(heads, 1))
        self.register_buffer("done", torch.zeros((), dtype=torch.long))

    assignment: Tensor
    """[heads, samples] cluster of each image; arbitrary before the first epoch."""
    done: Tensor
    """How many of the relabelings are done."""

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (
            ReferenceLoss(math.log(self.prototypes), f"ln {self.prototypes}, guessing clusters"),
        )

    def views(self, size: Size) -> Pipeline:
        view = View(size, self.scale, jitter=self.jitter, jitter_p=1.0, gray=self.gray)
        return Views((view,))

    @torch.no_grad()
    def on_epoch(self, corpus: Corpus) -> None:
        """Find the clusters anew, if it is time."""
        if len(corpus) != self.samples:
            raise UserError(
                f"this sela was made for {self.samples} images and got {len(corpus)}; make one "
                f"with samples={len(corpus)}"
            )
        due = int((relabel_times(self.relabelings, 1.0) <= self.progress).sum())
        if due <= self.done:
            return
        features = corpus.embed(self.backbone).to(self.assignment.device)
        features = features.to(next(self.classifiers.parameters()).dtype)
        for own, classifier in zip(self.assignment, self.classifiers):
            scores = classifier(features)
            labels = balanced_plan(scores.double().log_softmax(1), self.power).argmax(1)
            own.copy_(dist.from_first(labels))
        self.done.fill_(due)

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, H, W]."""
        (x,) = batch.views
        features = self.backbone(x)
        scores = [classifier(features) for classifier in self.classifiers]
        return cluster_cross_entropy(scores, self.assignment[:, batch.index])

    def assign(self, images: Tensor) -> Tensor:
        return self.classifiers[0](self.backbone(images))


def relabel_times(count: int, total: float) -> Tensor:
    """[count] float64: when clusters are found anew in a training of length `total`."""
    return total * torch.linspace(0, 1, count, dtype=torch.float64) ** 2
