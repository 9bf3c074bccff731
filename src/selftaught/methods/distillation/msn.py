"""MSN (Assran et al., 2022), https://arxiv.org/abs/2204.07141."""

import math
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from selftaught import dist
from selftaught.augment import View, Views
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.masks import generator
from selftaught.method import Batch, Few, Insight, Method, Needs, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.assignment import power_law, sinkhorn, soft_cross_entropy
from selftaught.parts import Prototypes, each_size, ema, frozen_copy
from selftaught.precision import full_precision
from selftaught.roles import (
    Blur,
    Count,
    Fraction,
    HeadWidth,
    Momentum,
    Number,
    PartialShare,
    Positive,
    PrototypeCount,
    Sharpening,
    SmallViews,
    Strength,
    Temperature,
    TermWeight,
    Weight,
)
from selftaught.schedule import linear
from selftaught.sides import Size, part


class MSN(Method):
    """Views with patches left out find the prototypes that an EMA teacher sees in a whole view.

    That all prototypes are used is asked of the mean over all views and processes (me-max). Data
    whose groups are of unlike sizes, as most that nobody has sorted, are better served by another
    `prior` (PMSN, Assran et al., 2022, https://arxiv.org/abs/2210.07277): the mean is held to it
    instead, by its divergence from it, and Sinkhorn gives prototypes such shares of the targets.
    Balanced data lose by it. The reference sums the prototypes' gradient over
    processes where it averages all others; under AdamW, which neither decays nor clips them, that
    is the same. It has no rule for how the learning rate follows the batch; here it follows its
    square root. The recipe is that of 800 epochs, of which 15 are warm-up.

    Args:
        backbone: a ViT, summed up by its class token.
        prototypes: number of clusters.
        momentum: of the target (EMA teacher), at the start and, in a straight line, at 1.25 times
            the end.
        drop: share of the patches that is left out of large views.
        focal_views: number of small views.
        focal_size: side of small views in pixels, in whole patches; none for 3/7 of the large.
        prior: how large groups are: all alike, by a power law (PMSN), or numbers in proportion to
            which they are, one for each prototype.

    Other Args:
        hidden: width of the head's two hidden layers.
        dim: width of the embedding.
        temperature: of the softmax over prototypes, above 0.
        sharpen: of the targets, whose distribution is taken to the power 1 / sharpen.
        iterations: of Sinkhorn's normalizations of the targets; 0 for none.
        exponent: of the power law: the k-th group has a share like k ** -exponent.
        me_max: weight of the term that keeps prototypes in use.
        entropy: weight of the entropy of the predictions.
        random_views: number of large views beside the target's.
        random_scale, focal_scale: area of the crops, as fractions of the image.
        strength: of the color jitter.
        blur: probability; 0 for small images.
    """

    recipe = Recipe(
        "adamw",
        lr=1e-3,
        batch=1024,
        scaling="sqrt",
        weight_decay=(0.04, 0.4),
        warmup=15 / 800,
        warmup_from=0.2,
        end=1e-3,
        horizon=1.25,
        step_offset=1,
        no_decay=("scores",),
        clip=3.0,
        no_clip=("scores",),
    )
    few = Few(prototypes=128, hidden=256, dim=64, focal_views=2, focal_scale=(0.1, 0.4))
    needs = Needs(backbone="vit_small_patch16_224", kinds=("image", "sound"))
    insight = Insight(
        copies=(("target", "backbone"), ("target_projector", "projector")),
        logits="scores",
        shares="predicted",
        query=1,
    )

    def __init__(
        self,
        backbone: Image,
        prototypes: PrototypeCount = 1024,
        hidden: HeadWidth = 2048,
        dim: HeadWidth = 256,
        temperature: Temperature = 0.1,
        sharpen: Sharpening = 0.25,
        iterations: Number = 3,
        me_max: TermWeight = 1.0,
        entropy: TermWeight = 0.0,
        momentum: tuple[Momentum, Momentum] = (0.996, 1.0),
        drop: PartialShare = 0.15,
        random_views: Count = 1,
        focal_views: SmallViews = 10,
        focal_size: Count | None = None,
        prior: Literal["uniform", "power"] | tuple[Positive, ...] = "uniform",
        exponent: Weight = 0.25,
        random_scale: tuple[Fraction, Fraction] = (0.3, 1.0),
        focal_scale: tuple[Fraction, Fraction] = (0.05, 0.3),
        strength: Strength = 0.5,
        blur: Blur = 0.5,
    ):
        super().__init__()
        self.prototypes, self.hidden, self.dim = prototypes, hidden, dim
        self.temperature, self.sharpen, self.iterations = temperature, sharpen, iterations
        self.me_max, self.entropy, self.momentum = me_max, entropy, momentum
        self.drop, self.random_views, self.focal_views = drop, random_views, focal_views
        self.focal_size, self.random_scale, self.focal_scale = focal_size, random_scale, focal_scale
        self.strength, self.blur, self.prior, self.exponent = strength, blur, prior, exponent
        if isinstance(prior, tuple) and len(prior) != prototypes:
            raise UserError(
                f"prior has {len(prior)} numbers for {prototypes} prototypes: give one for each, "
                f"or prior='power'"
            )
        backbone.arrange("class")
        self.backbone = backbone
        self.projector = head(backbone.dim, hidden, dim)
        self.scores = Prototypes(dim, prototypes)
        self.target = frozen_copy(backbone)
        self.target_projector = frozen_copy(self.projector)

    @property
    def encoder(self) -> nn.Module:
        return self.target

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        guess = f"ln {self.prototypes}, guessing prototypes"
        return (ReferenceLoss(math.log(self.prototypes), guess, term="match"),)

    def views(self, size: Size) -> Pipeline:
        s = self.strength
        jitter = (0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s)
        large = View(size, self.random_scale, jitter=jitter, gray=0.2, blur=self.blur)
        side = self.backbone.fit(part(size, 3, 7, self.focal_size))
        small = replace(large, size=side, scale=self.focal_scale)
        return Views((large,) * (1 + self.random_views) + (small,) * self.focal_views)

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: the target's [B, C, H, W], then `random_views` like it, then `focal_views` small.

        The patches that are left out are the same in all large views of a process's batch."""
        whole, *views = batch.views
        with torch.no_grad():
            target = self.target_projector(self.target(whole))
        large, small = views[: self.random_views], views[self.random_views :]
        x = torch.cat(large)
        keep = None
        if self.drop:
            patches = math.prod(self.backbone.grid((x.shape[-2], x.shape[-1])))
            seen = max(1, math.floor(patches * (1 - self.drop)))
            kept = torch.from_numpy(generator().permutation(patches)[:seen])
            keep = kept.to(x.device).expand(len(x), -1)
        pooled = self.backbone.features(x, keep).pooled.unflatten(0, (len(large), -1))
        if small:
            pooled = torch.cat([pooled, each_size(self.backbone, small)])
        z = self.projector(pooled.flatten(0, 1)).unflatten(0, pooled.shape[:2])
        return self.match(z, target)

    @full_precision
    def match(self, anchors: Tensor, targets: Tensor) -> dict[str, Tensor]:
        """anchors: [V, B, dim] and targets: [B, dim] embeddings."""
        scores = self.scores(anchors) / self.temperature
        p = scores.softmax(-1)
        terms = {
            "match": soft_cross_entropy(self.goals(targets), scores).mean(),
            "me_max": self.me_max * self.divergence(dist.mean(p.mean((0, 1)))),
        }
        if self.entropy:
            terms["entropy"] = self.entropy * entropy(p).mean()
        return terms

    def divergence(self, mean: Tensor) -> Tensor:
        """Kullback-Leibler divergence of the mean prediction [prototypes] from the prior."""
        log_prior = self.log_prior(mean)
        if log_prior is None:
            return math.log(self.prototypes) - entropy(mean)
        return -(mean * log_prior).sum() - entropy(mean)

    def log_prior(self, like: Tensor) -> Tensor | None:
        """[prototypes] logarithms of the shares that groups are to have; None for equal ones."""
        if self.prior == "uniform":
            return None
        given = power_law(self.prototypes, self.exponent) if self.prior == "power" else self.prior
        return like.new_tensor(given).log().log_softmax(0)

    @torch.no_grad()
    def goals(self, targets: Tensor) -> Tensor:
        """[B, prototypes] distributions that the views of embeddings [B, dim] are to find."""
        sharp = (self.scores(targets) / (self.temperature * self.sharpen)).log_softmax(-1)
        if not self.iterations:
            return sharp.exp()
        return sinkhorn(sharp, 1.0, self.iterations, self.log_prior(sharp))

    def predicted(self, logits: Tensor) -> Tensor:
        """The predictions'."""
        return (logits / self.temperature).softmax(-1)

    def assign(self, images: Tensor) -> Tensor:
        return self.scores(self.target_projector(self.target(images)))

    def after_step(self) -> None:
        momentum = linear(*self.momentum, self.progress / 1.25)
        ema(self.target, self.backbone, momentum)
        ema(self.target_projector, self.projector, momentum)


def head(dim: int, hidden: int, out: int) -> nn.Sequential:
    """Linear -> BatchNorm -> GELU twice, then a Linear."""
    layers: list[nn.Module] = []
    for width in (dim, hidden):
        layers += [nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.GELU()]
    return nn.Sequential(*layers, nn.Linear(hidden, out))


def entropy(p: Tensor) -> Tensor:
    """[...] entropy of distributions [..., K]."""
    return -torch.xlogy(p, p).sum(-1)
