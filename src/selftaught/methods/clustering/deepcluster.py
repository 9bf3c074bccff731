"""DeepCluster (Caron et al., 2018), https://arxiv.org/abs/1807.05520."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import (
    Batch,
    Corpus,
    Epoch,
    Few,
    Method,
    Needs,
    Pipeline,
    Recipe,
    ReferenceLoss,
)
from selftaught.objectives.assignment import cluster_cross_entropy
from selftaught.roles import Count, Fraction, PrototypeCount, SampleCount
from selftaught.sides import Size
from selftaught.vectors import kmeans, whiten


class DeepCluster(Method):
    """Classify images into the clusters that k-means found in their features before the epoch.

    Each epoch (every `reassign`) has new clusters and a new classifier, and each one an order that
    shows all clusters equally often. A new classifier takes hundreds of steps to learn: where an
    epoch has fewer, let clusters live longer. (The paper's code trains the classifier without
    momentum; here it has the network's, which starts from nothing with it.)

    Args:
        backbone: image encoder.
        clusters: number of pseudo-classes; the paper has 130 images a cluster.
        reassign: epochs that clusters live.
        sobel: whether the network sees edges instead of colors, as the paper's AlexNet does.

    Other Args:
        samples: images in the dataset.
        whitened: width that the features are reduced to before k-means.
        iterations: of k-means.
        scale: area of the crops, as fractions of the image.
    """

    recipe = Recipe(
        "sgd", lr=0.05, scaling="none", weight_decay=1e-5, schedule="constant", decay_bias=True
    )
    # a new classifier each epoch of 48 or 156 steps learns nothing of its clusters
    few = Few(clusters=100, whitened=64, reassign=5, lr=0.0005)
    needs = Needs(kinds=("image", "sound"), order="own")
    backbone: Image

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        clusters: PrototypeCount = 10000,
        whitened: Count = 256,
        iterations: Count = 20,
        reassign: Count = 1,
        sobel: bool = False,
        scale: tuple[Fraction, Fraction] = (0.08, 1.0),
    ):
        super().__init__()
        if not 2 <= clusters <= samples:
            raise UserError(
                f"deepcluster cannot sort {samples} images into {clusters} clusters; ask for fewer "
                f"clusters than images, such as clusters={max(2, samples // 100)}"
            )
        self.backbone, self.samples, self.clusters = backbone, samples, clusters
        self.whitened, self.iterations, self.reassign = whitened, iterations, reassign
        self.sobel, self.scale = sobel, scale
        if sobel:
            backbone.see_edges()
        self.classifier = nn.Linear(backbone.dim, clusters)
        self.register_buffer("assignment", torch.arange(samples) % clusters)
        self.register_buffer("epoch", torch.zeros((), dtype=torch.long))

    assignment: Tensor
    """[samples] cluster of each image; arbitrary before the first epoch."""
    epoch: Tensor
    """[] how many have begun."""

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(self.clusters), f"ln {self.clusters}, guessing clusters"),)

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, self.scale, interpolation="bilinear")

    def on_epoch(self, corpus: Corpus) -> Epoch:
        """Cluster anew where it is time; all clusters are shown alike."""
        if len(corpus) != self.samples:
            raise UserError(
                f"this deepcluster was made for {self.samples} images and got {len(corpus)}; "
                f"make one with samples={len(corpus)}"
            )
        device = self.assignment.device
        # all processes draw alike: from process 0's generator
        seed = int(dist.from_first(torch.randint(2**62, (1,)).to(device)))
        generator = torch.Generator().manual_seed(seed)
        due = int(self.epoch) % self.reassign == 0
        if due:
            self._cluster(corpus, seed, generator)
        self.epoch += 1
        order = balanced(self.assignment.cpu(), generator)
        return Epoch(order, reset=("classifier",) if due else ())

    def _cluster(self, corpus: Corpus, seed: int, generator: torch.Generator) -> None:
        device = self.assignment.device
        features = F.normalize(whiten(corpus.embed(self.backbone), self.whitened), dim=1).to(device)
        found = kmeans(features, self.clusters, self.iterations, seed, init="random")
        self.assignment.copy_(dist.from_first(found.assignment))
        with torch.no_grad():
            weight = torch.randn(self.classifier.weight.shape, generator=generator) * 0.01
            self.classifier.weight.copy_(weight)
            self.classifier.bias.zero_()

    def loss(self, batch: Batch) -> Tensor:
        """views: one [B, C, H, W]."""
        (x,) = batch.views
        scores = self.classifier(self.backbone(x))
        return cluster_cross_entropy([scores], self.assignment[batch.index][None])

    def assign(self, images: Tensor) -> Tensor:
        return self.classifier(self.backbone(images))


def balanced(assignment: Tensor, generator: torch.Generator) -> Tensor:
    """[N] indices in random order, of each cluster that is not empty equally many.

    Clusters with too few images repeat them. As in the paper's code, one image too many is drawn
    of each cluster, and the order is cut to the length of the dataset.

    Args:
        assignment: [N] cluster of each image, on the CPU.
        generator: of the draws.
    """
    members = assignment.argsort(stable=True).split(torch.bincount(assignment).tolist())
    members = [m for m in members if len(m)]
    each = len(assignment) // len(members) + 1
    drawn = [
        m[
            torch.randperm(len(m), generator=generator)[:each]
            if len(m) > each
            else torch.randint(len(m), (each,), generator=generator)
        ]
        for m in members
    ]
    order = torch.cat(drawn)
    return order[torch.randperm(len(order), generator=generator)][: len(assignment)]
