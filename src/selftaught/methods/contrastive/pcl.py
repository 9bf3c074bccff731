"""PCL, prototypical contrastive learning (Li et al., 2021), https://arxiv.org/abs/2005.04966."""

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
    Few,
    Insight,
    Method,
    Needs,
    Pipeline,
    Recipe,
    ReferenceLoss,
)
from selftaught.objectives.contrastive import info_nce
from selftaught.parts import Queue, ema, frozen_copy, mlp
from selftaught.parts.shuffle import shuffled
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    HeadWidth,
    Momentum,
    PrototypeCount,
    QueueLength,
    SampleCount,
    Share,
    Temperature,
)
from selftaught.sides import Size
from selftaught.vectors import kmeans


class PCL(Method):
    """MoCo, and each image finds the center of its own cluster among the others.

    The clusters are found anew before each epoch, in several numbers of them. The defaults are
    version 2, of 200 epochs; the paper's first version has `--layers 1`.

    Args:
        backbone: image encoder.
        prototypes: number of clusters of each clustering, coarse to fine; the paper has 13 to 50
            images a cluster.
        temperature: of the softmax over similarities, and the mean of the clusters' own; above 0.
        queue: number of earlier keys; fewer than there are images, or a key is its own negative.
        momentum: of the momentum encoder (EMA), in [0, 1); lower for short trainings.
        blur: probability of Gaussian blur; 0 for images as small as CIFAR's.

    Other Args:
        samples: images in the dataset.
        dim: width of the embedding.
        layers: Linear layers of the projector, 1 or 2.
        negatives: number of prototypes that no image of the batch belongs to, drawn at each step
            to be told from; as many as there are where they are fewer.
        cluster_start: fraction of training before the first clustering.
        iterations: of k-means.
        restarts: of k-means, of which the best is taken.
    """

    recipe = Recipe("sgd", lr=0.03, weight_decay=1e-4, decay_bias=True, by_epoch=True)
    few = Few(
        prototypes=(50, 100, 200), dim=64, queue=2048, negatives=200, restarts=1, cluster_start=0.3
    )
    needs = Needs(batchnorm="own", kinds="any")
    insight = Insight(
        "projector",
        copies=(("target.0", "backbone"), ("target.1", "projector")),
        pairs="same",
        memory=("earlier.items",),
        idle=("prototype",),
    )

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        prototypes: tuple[PrototypeCount, ...] = (25000, 50000, 100000),
        temperature: Temperature = 0.2,
        dim: HeadWidth = 128,
        layers: Count = 2,
        queue: QueueLength = 16384,
        negatives: Count = 16384,
        momentum: Momentum = 0.999,
        cluster_start: Share = 0.1,
        iterations: Count = 20,
        restarts: Count = 5,
        blur: Blur = 0.5,
    ):
        super().__init__()
        if not prototypes or not all(2 <= k <= samples for k in prototypes):
            few = ",".join(str(max(2, samples // each)) for each in (50, 25, 12))
            raise UserError(
                f"pcl cannot sort {samples} images into {', '.join(map(str, prototypes)) or 'no'} "
                f"prototypes; each number must be between 2 and that of the images: try "
                f"prototypes={few}"
            )
        if layers not in (1, 2):
            raise UserError(f"the projector of pcl has 1 or 2 layers, not {layers}")
        self.backbone, self.samples, self.prototypes = backbone, samples, prototypes
        self.temperature, self.dim, self.layers = temperature, dim, layers
        self.queue, self.negatives, self.momentum = queue, negatives, momentum
        self.cluster_start = cluster_start
        self.iterations, self.restarts = iterations, restarts
        self.blur = blur
        self.projector = mlp(*[backbone.dim] * layers, dim, norm=False)
        self.target = frozen_copy(self.online)
        self.earlier = Queue(queue, dim)
        self.clusterings = nn.ModuleList(Clustering(samples, k, dim) for k in prototypes)

    @property
    def online(self) -> nn.Module:
        return nn.Sequential(self.backbone, self.projector)

    @property
    def levels(self) -> "list[Clustering]":
        """The clusterings, one for each number of prototypes."""
        return [level for level in self.clusterings if isinstance(level, Clustering)]

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        keys = self.queue + 1
        guess = f"ln {keys}, guessing among the queue"
        return (ReferenceLoss(math.log(keys), guess, term="instance"),)

    def views(self, size: Size) -> Pipeline:
        return augment.moco(size, blur=self.blur)

    def on_epoch(self, corpus: Corpus) -> None:
        """Cluster the momentum encoder's embeddings anew (the E-step)."""
        if len(corpus) != self.samples:
            raise UserError(
                f"this pcl was made for {self.samples} images and got {len(corpus)}; make one with "
                f"samples={len(corpus)}"
            )
        if self.progress < self.cluster_start:
            return
        device = self.earlier.items.device
        # all processes draw alike: from process 0's generator
        seed = int(dist.from_first(torch.randint(2**62, (1,)).to(device)))
        features = F.normalize(corpus.embed(self.target).to(device), dim=1)
        for i, clustering in enumerate(self.levels):
            runs = (
                kmeans(features, len(clustering.density), self.iterations, seed + r, "random")
                for r in range(i * self.restarts, (i + 1) * self.restarts)
            )
            best = min(runs, key=lambda found: found.inertia)
            clustering.take(features, best.centroids, best.assignment, self.temperature)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: two [B, C, H, W], the query's and the key's."""
        x1, x2 = batch.views
        query = F.normalize(self.online(x1), dim=1)
        key = F.normalize(shuffled(self.target, x2), dim=1)
        # a copy, as the gradient needs the queue that the loss saw
        instance = info_nce(query, key, self.earlier.items.clone(), self.temperature)
        self.earlier.push(key)
        return {"instance": instance, "prototype": self.find_prototypes(query, batch.index)}

    @full_precision
    def find_prototypes(self, query: Tensor, index: Tensor) -> Tensor:
        """ProtoNCE (Eq. 11) of [B, dim] unit embeddings of samples [B]; 0 before there are any."""
        if not self.levels[0].density.any():
            return query.new_zeros(())
        own = torch.arange(len(query), device=query.device) + dist.rank() * len(query)
        everyone = dist.gather(index)
        terms = [
            F.cross_entropy(c.logits(query, everyone, self.negatives), own) for c in self.levels
        ]
        return torch.stack(terms).mean()

    def assign(self, images: Tensor) -> Tensor | None:
        first = self.levels[0]
        if not first.density.any():
            return None
        return F.normalize(self.online(images), dim=1) @ first.centroids.mT

    def after_step(self) -> None:
        # the reference does this at the start of the next step, which is the same
        ema(self.target, self.online, self.momentum)


class Clustering(nn.Module):
    """Which cluster each image is in, and what the clusters are like; all 0 before the first.

    assignment: [samples]. centroids: [k, dim], unit vectors. density: [k], temperature of each.
    """

    assignment: Tensor
    centroids: Tensor
    density: Tensor

    def __init__(self, samples: int, k: int, dim: int):
        super().__init__()
        self.register_buffer("assignment", torch.zeros(samples, dtype=torch.long))
        self.register_buffer("centroids", torch.zeros(k, dim))
        self.register_buffer("density", torch.zeros(k))

    def take(
        self, features: Tensor, centroids: Tensor, assignment: Tensor, temperature: float
    ) -> None:
        """Be the clustering of [samples, dim] unit features that k-means has found."""
        self.density.copy_(concentration(features, centroids, assignment, temperature))
        self.centroids.copy_(F.normalize(centroids, dim=1))
        self.assignment.copy_(assignment)
        for buffer in self.buffers():  # k-means may round differently on another device
            buffer.copy_(dist.from_first(buffer))

    def logits(self, query: Tensor, index: Tensor, negatives: int) -> Tensor:
        """[B, N + R] of [B, dim] queries: with the prototypes of samples [N], then R negatives.

        The prototypes of two samples may be the same one, and it is then both's negative, as in
        the reference code.
        """
        own = self.assignment[index]
        shown = torch.cat([own, self.absent(own, negatives)])
        return query @ self.centroids[shown].to(query.dtype).mT / self.density[shown]

    def absent(self, own: Tensor, count: int) -> Tensor:
        """At most `count` prototypes that are not among `own`, drawn alike in all processes."""
        order = torch.randperm(len(self.density), device=own.device)
        order = dist.from_first(order)
        return order[~torch.isin(order, own)][:count]


def concentration(
    features: Tensor, centroids: Tensor, assignment: Tensor, temperature: float, alpha: float = 10.0
) -> Tensor:
    """[k] temperatures of the clusters, which are lower the closer its members are (Eq. 12).

    phi = (mean distance to the center) / log(members + alpha). A cluster of at most one member has
    the largest; what lies outside of the 10th to 90th percentile is moved there; and the mean is
    brought to `temperature`.

    Args:
        features: [N, D].
        centroids: [k, D] means of the clusters, not normalized.
        assignment: [N] cluster of each feature.
        temperature: mean of the result.
        alpha: keeps small clusters from extremes.
    """
    k = len(centroids)
    distances = (features - centroids[assignment]).norm(dim=1)
    count = torch.bincount(assignment, minlength=k)
    total = distances.new_zeros(k).index_add_(0, assignment, distances)
    phi = total / count.clamp(min=1) / (count + alpha).log()
    several = count > 1
    phi = torch.where(several, phi, phi[several].max() if several.any() else phi.new_ones(()))
    low, high = phi.quantile(phi.new_tensor([0.1, 0.9]))
    phi = phi.clamp(low, high)
    return temperature * phi / phi.mean()
