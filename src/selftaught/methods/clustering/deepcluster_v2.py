"""DeepCluster-v2 (Caron et al., 2020, Appendix A), https://arxiv.org/abs/2006.09882."""

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
from selftaught.objectives.assignment import cluster_cross_entropy
from selftaught.parts import each_size, mlp
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    Fraction,
    HeadWidth,
    PrototypeCount,
    SampleCount,
    SmallViews,
    Temperature,
)
from selftaught.sides import Size, part
from selftaught.vectors import nearest, spherical_kmeans


class DeepClusterV2(Method):
    """Find the clusters in which the embeddings of the epoch before lay; centroids are classifiers.

    Where its code remembers only what an epoch showed, here each image keeps the newest embedding
    of its two global views. Before the first epoch these are of plain views. The recipe is that of
    800 epochs, of which 10 are warm-up.

    Args:
        backbone: image encoder that takes several image sizes.
        prototypes: number of clusters of each clustering, at most as many as images.
        temperature: of the predictions' softmax, above 0.
        local_crops: number of small views beside the two global ones.
        local_size: side of small views in pixels, in whole patches; none for 3/7 of the global.
        blur: probability; 0 for small images.

    Other Args:
        samples: images in the dataset.
        hidden: width of the projector's hidden layer.
        dim: width of the embedding.
        iterations: of k-means.
        global_scale, local_scale: area of the crops, as fractions of the image.
    """

    recipe = Recipe(
        "larc",
        lr=4.8,
        batch=4096,
        weight_decay=1e-6,
        warmup=10 / 800,
        warmup_from=0.0625,
        warmup_full=True,
        end=0.001,
        decay_bias=True,
    )
    few = Few(
        hidden=256,
        dim=64,
        global_scale=(0.3, 1.0),
        local_scale=(0.1, 0.4),
        local_crops=2,
        prototypes=(100, 100, 100),
    )
    insight = Insight("projector", memory=("memory",))
    needs = Needs(kinds=("image", "sound"))

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        prototypes: tuple[PrototypeCount, ...] = (3000, 3000, 3000),
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 128,
        temperature: Temperature = 0.1,
        iterations: Count = 10,
        local_crops: SmallViews = 6,
        local_size: Count | None = None,
        global_scale: tuple[Fraction, Fraction] = (0.14, 1.0),
        local_scale: tuple[Fraction, Fraction] = (0.05, 0.14),
        blur: Blur = 0.5,
    ):
        super().__init__()
        if not prototypes or not 2 <= min(prototypes) <= max(prototypes) <= samples:
            raise UserError(
                f"deepcluster_v2 cannot sort {samples} images into prototypes={prototypes}; each "
                f"clustering needs at least 2 and at most as many as images, such as "
                f"{max(2, samples // 400)}"
            )
        self.samples, self.prototypes = samples, prototypes
        self.hidden, self.dim, self.temperature = hidden, dim, temperature
        self.iterations, self.blur = iterations, blur
        self.local_crops, self.local_size = local_crops, local_size
        self.global_scale, self.local_scale = global_scale, local_scale
        self.backbone = backbone
        self.projector = mlp(backbone.dim, hidden, dim)
        self.register_buffer("memory", torch.zeros(2, samples, dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.bool))
        self.register_buffer("centroids", torch.zeros(sum(prototypes), dim))
        start = torch.arange(samples)
        self.register_buffer("assignment", torch.stack([start % k for k in prototypes]))

    memory: Tensor
    """[2, samples, dim] newest embedding of each global view of each image."""
    filled: Tensor
    centroids: Tensor
    """[sum(prototypes), dim] of all clusterings, one after the other."""
    assignment: Tensor
    """[clusterings, samples] cluster of each image; arbitrary before the first epoch."""

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        mean = sum(math.log(k) for k in self.prototypes) / len(self.prototypes)
        return (ReferenceLoss(mean, f"mean ln of {self.prototypes}, guessing clusters"),)

    def views(self, size: Size) -> Pipeline:
        local_size = self.backbone.fit(part(size, 3, 7, self.local_size))
        scales, blur = (self.global_scale, self.local_scale), (self.blur,) * 3
        return augment.multicrop(size, local_size, self.local_crops, *scales, "swav", blur)

    @torch.no_grad()
    def on_epoch(self, corpus: Corpus) -> None:
        """Cluster anew, the clusterings by turns in the first and in the second view."""
        if len(corpus) != self.samples:
            raise UserError(
                f"this deepcluster_v2 was made for {self.samples} images and got {len(corpus)}; "
                f"make one with samples={len(corpus)}"
            )
        if not self.filled:
            plain = corpus.embed(nn.Sequential(self.backbone, self.projector))
            self.memory.copy_(F.normalize(plain, dim=1))
            self.filled.fill_(True)
        # all processes draw alike: from process 0's generator
        seed = int(dist.from_first(torch.randint(2**62, (1,)).to(self.memory.device)))
        generator = torch.Generator().manual_seed(seed)
        for head, own in enumerate(self.centroids.split(self.prototypes)):
            bank = self.memory[head % 2]
            rows = torch.randperm(self.samples, generator=generator)[: len(own)]
            share = bank.tensor_split(dist.world())[dist.rank()]
            found, _ = spherical_kmeans(share, bank[rows.to(bank.device)], self.iterations)
            own.copy_(found)
            self.assignment[head] = dist.from_first(nearest(bank, own, cosine=True))

    def loss(self, batch: Batch) -> Tensor:
        """views: two global [B, C, H, W], then `local_crops` local [B, C, h, w]."""
        pooled = each_size(self.backbone, batch.views)
        z = self.projector(pooled.flatten(0, 1)).unflatten(0, pooled.shape[:2])
        return self.classify(z, batch.index)

    @full_precision
    def classify(self, z: Tensor, index: Tensor) -> Tensor:
        """z: [V, B, dim] embeddings, those of the two global views first; index: [B] whose."""
        z = F.normalize(z, dim=-1)
        everyone = dist.gather(index)
        for view in range(2):
            self.memory[view, everyone] = dist.gather(z[view].detach()).to(self.memory.dtype)
        scores = [z.flatten(0, 1) @ own.mT for own in self.centroids.split(self.prototypes)]
        return cluster_cross_entropy(scores, self.assignment[:, index], self.temperature)

    def assign(self, images: Tensor) -> Tensor:
        return (
            F.normalize(self.projector(self.backbone(images)), dim=1)
            @ self.centroids[: self.prototypes[0]].mT
        )
