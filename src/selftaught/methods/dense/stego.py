"""STEGO (Hamilton et al., 2022), https://arxiv.org/abs/2203.08414."""

from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import normalize

from selftaught import augment, dist
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.method import Batch, Corpus, Epoch, Few, Method, Needs, Pictures, Pipeline, Recipe
from selftaught.objectives.mean_field import crf_loss
from selftaught.parts.decoder import as_map
from selftaught.parts.drawing import COLORS
from selftaught.precision import full_precision
from selftaught.roles import (
    Count,
    Fraction,
    HeadWidth,
    PartialShare,
    PrototypeCount,
    SampleCount,
    TermWeight,
)
from selftaught.sides import Size

CRF_SIDE, CRF_PLACES = 56, 1000
"""To what side images and codes are brought, and at how many places, for the loss `crf`."""

BLOCK = 1024
"""Images whose neighbors are looked for at a time."""


class Preset(NamedTuple):
    """Weights of the losses (self, neighbor, other), and what is subtracted from similarities."""

    weights: tuple[float, float, float]
    shifts: tuple[float, float, float]


PRESETS = {
    "default": Preset((0.67, 0.25, 0.63), (0.18, 0.12, 0.46)),
    "coco_small": Preset((0.67, 0.25, 0.63), (0.08, 0.02, 0.66)),
    "coco_base": Preset((0.1, 1.0, 0.154), (0.12, 0.2, 1.0)),
    "cityscapes": Preset((1.0, 0.577, 0.906), (0.458, 0.175, 0.314)),
    "potsdam": Preset((0.67, 0.25, 0.63), (0.08, 0.02, 0.46)),
}


class STEGO(Method):
    """Distil what the cells of a frozen encoder have in common into clusters: segmentation.

    Codes agree where features are alike by more than a shift, and not elsewhere: within an image,
    between it and one of its nearest neighbors, and between it and others. The encoder must have
    learned something already (`--start`, `--weights`, `--pretrained`); it stays as it is. Batches
    hold images beside their neighbors, so their size, and each process's share of it, must be
    even. The clusters learn at the same rate as the codes; in the paper's code at ten times it.

    Args:
        backbone: trained image encoder with local features.
        preset: whose weights and shifts; the paper's code ships `default` and, as comments, others.
        dim: width of the codes.
        clusters: number of clusters.
        crf: weight of a loss by which codes agree where pixels are near and of like color.

    Other Args:
        samples: number of images.
        balance: weights of the losses of an image with itself, its neighbors, and others; none for
            the preset's.
        shifts: similarity of features from which codes agree, in the same order; none for the
            preset's.
        places: places along a side at which an image is sampled.
        neighbors: nearest images of which one is drawn.
        negatives: how often an image is told from another.
        dropout: share of the features' channels that are dropped.
        pointwise: whether each place's similarities are centered.
        stabilize: whether codes that agree by 0.8 need not agree more.
        scale: area of the crops, as fractions of the image.
    """

    recipe = Recipe(
        "adam", lr=5e-4, batch=32, scaling="none", weight_decay=0.0, schedule="constant"
    )
    few = Few(clusters=10, places=4, dim=32, neighbors=3)
    needs = Needs(backbone="vit_small_patch8_224", group=2, learned=True, order="own")
    nearest: Tensor

    def __init__(
        self,
        backbone: Image,
        samples: SampleCount,
        preset: Literal["default", "coco_small", "coco_base", "cityscapes", "potsdam"] = "default",
        balance: tuple[TermWeight, TermWeight, TermWeight] | None = None,
        shifts: tuple[float, float, float] | None = None,
        dim: HeadWidth = 70,
        clusters: PrototypeCount = 27,
        places: Count = 11,
        neighbors: Count = 7,
        negatives: Count = 5,
        dropout: PartialShare = 0.1,
        crf: TermWeight = 0.0,
        pointwise: bool = True,
        stabilize: bool = False,
        scale: tuple[Fraction, Fraction] = (0.25, 1.0),
    ):
        super().__init__()
        if not 1 <= neighbors < samples:
            raise UserError(
                f"neighbors={neighbors} of {samples} images: each image needs as many others; "
                "take fewer neighbors or more images"
            )
        self.backbone, self.samples, self.preset = backbone, samples, preset
        self.balance, self.shifts, self.dim, self.clusters = balance, shifts, dim, clusters
        self.places, self.neighbors, self.negatives = places, neighbors, negatives
        self.dropout, self.crf, self.pointwise = dropout, crf, pointwise
        self.stabilize, self.scale = stabilize, scale
        backbone.requires_grad_(False)
        width = backbone.local_dim
        self.dropped = nn.Dropout2d(dropout)
        self.linear = nn.Conv2d(width, dim, 1)
        self.nonlinear = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.ReLU(), nn.Conv2d(width, dim, 1)
        )
        self.centres = nn.Parameter(torch.randn(clusters, dim))
        self.register_buffer("nearest", torch.full((samples, neighbors), -1))

    def train(self, mode: bool = True) -> Self:
        """The encoder stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def views(self, size: Size) -> Pipeline:
        return augment.crop(size, self.scale, interpolation="bilinear")

    def on_epoch(self, corpus: Corpus) -> Epoch:
        """Half of the images, each followed by one of its nearest neighbors."""
        if self.nearest.min() < 0:
            features = normalize(corpus.embed(self.backbone), dim=1)
            self.nearest.copy_(nearest_others(features, self.neighbors))
        anchors = torch.randperm(self.samples)[: max(1, self.samples // 2)]
        which = torch.randint(self.neighbors, anchors.shape)
        order = torch.stack([anchors, self.nearest.cpu()[anchors, which]], 1).flatten()
        return Epoch(dist.from_first(order.to(self.nearest.device)).cpu())

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: one [B, C, S, S], image and neighbor in turn."""
        (x,) = batch.views
        if len(x) < 2:
            raise UserError("a batch of 1 image holds no neighbor beside it; use an even batch")
        x = x[: len(x) // 2 * 2]
        features = self.features(x)
        seen, codes = self.dropped(features), self.encode(features)
        shape = (len(seen) // 2, self.places, self.places, 2)
        terms = correspondences(
            (seen[::2], seen[1::2]),
            (codes[::2], codes[1::2]),
            (torch.rand(shape, device=x.device), torch.rand(shape, device=x.device)),
            [torch.randperm(shape[0], device=x.device) for _ in range(self.negatives)],
            self.shifts or PRESETS[self.preset].shifts,
            Rule(self.pointwise, True, self.stabilize),
        )
        weights = self.balance or PRESETS[self.preset].weights
        found = {n: w * t for n, w, t in zip(("self", "neighbour", "other"), weights, terms)}
        if self.crf:
            image, code = (
                F.interpolate(m, (CRF_SIDE, CRF_SIDE), mode="bilinear") for m in (x, codes)
            )
            at = torch.randint(CRF_SIDE, (2, CRF_PLACES), device=x.device)
            found["crf"] = self.crf * crf_loss(normalize(code, dim=1), image, at)
        return found | {"clusters": clustering(codes.detach(), self.centres)[0]}

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, D, h, w] of the frozen encoder."""
        found = self.backbone.features(x)
        return as_map(found.local, found.grid)

    def encode(self, features: Tensor) -> Tensor:
        """[B, D, h, w] -> codes [B, dim, h, w]."""
        return self.linear(self.dropped(features)) + self.nonlinear(self.dropped(features))

    def segment(self, x: Tensor) -> Tensor:
        """[B, C, S, S] -> [B, clusters, S, S] log-probabilities; the mean of image and mirror."""
        codes = (self.encode(self.features(x)) + self.encode(self.features(x.flip(3))).flip(3)) / 2
        codes = F.interpolate(codes, x.shape[2:], mode="bilinear", align_corners=False)
        return log_shares(codes, self.centres)

    def assign(self, images: Tensor) -> Tensor:
        return self.segment(images).exp().mean((2, 3))

    def show(self, batch: Batch) -> Pictures:
        (x,) = batch.views
        which = self.segment(x).argmax(1)
        mean, std = torch.tensor([self.backbone.mean, self.backbone.std])
        colors = ((palette(self.clusters, x.shape[1]) - mean) / std).to(x)
        painted = colors[which].movedim(3, 1)
        return Pictures(
            "Segmentations",
            "Each color is a cluster of cells; no label was seen.",
            {"image": x, "segments": painted, "both": (x + painted) / 2},
        )


def palette(count: int, channels: int) -> Tensor:
    """[count, channels] colors in [0, 1], all different; darker ones from the seventh on."""
    number, rounds = torch.arange(count), max(4, -(-count // len(COLORS)))
    hue, darker = number % len(COLORS), number // len(COLORS) / rounds
    if channels != 3:
        gray = 1 - 0.85 * (hue + darker) / len(COLORS)
        return gray[:, None].expand(-1, channels)
    return torch.tensor(COLORS)[hue] * (1 - darker)[:, None]


class Rule(NamedTuple):
    """pointwise: whether each place's similarities are centered. clamp: whether codes that disagree
    count as 0. stabilize: whether those that agree by 0.8 count as 0.8.
    """

    pointwise: bool
    clamp: bool
    stabilize: bool


@torch.no_grad()
def nearest_others(features: Tensor, count: int) -> Tensor:
    """[N, D] unit vectors -> [N, count], the nearest rows to each row but itself."""
    found = []
    for start in range(0, len(features), BLOCK):
        rows = features[start : start + BLOCK] @ features.mT
        own = torch.arange(start, start + len(rows), device=rows.device)
        rows.scatter_(1, own[:, None], -torch.inf)
        found.append(rows.topk(count, dim=1).indices)
    return torch.cat(found)


def shuffled(order: Tensor) -> Tensor:
    """A permutation [B] in which none stays: who would is given the next, as in the paper's code.

    So it is not always a permutation any more.
    """
    place = torch.arange(len(order), device=order.device)
    return (order + (order == place)) % len(order)


@full_precision
def sample(x: Tensor, at: Tensor) -> Tensor:
    """[B, D, H, W] at places [B, h, w, 2] in [-1, 1] -> [B, D, h, w], by bilinear interpolation."""
    return F.grid_sample(x, at.transpose(1, 2), padding_mode="border", align_corners=True)


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """[B, D, h, w] twice -> [B, h, w, h, w] cosines of all places."""
    one, other = (normalize(x, dim=1, eps=1e-10) for x in (one, other))
    return torch.einsum("bdhw,bdij->bhwij", one, other)


@full_precision
def correspondence(
    f1: Tensor, f2: Tensor, c1: Tensor, c2: Tensor, shift: float, rule: Rule
) -> tuple[Tensor, Tensor]:
    """Codes agree as much as features do (Eq. 4).

    Args:
        f1, f2: features of two images, [B, D, h, w], constants.
        c1, c2: their codes.
        shift: similarity of features from which codes are to agree.
        rule: see `Rule`.

    Returns:
        The loss of all pairs of places, and the cosines of the codes, both [B, h, w, h, w].
    """
    with torch.no_grad():
        goal = correlation(f1, f2)
        if rule.pointwise:
            mean = goal.mean()
            goal = goal - goal.mean((3, 4), keepdim=True)
            goal = goal - goal.mean() + mean
    found = correlation(c1, c2)
    kept = found.clamp(0.0 if rule.clamp else -9999.0, 0.8 if rule.stabilize else None)
    return -kept * (goal - shift), found


def correspondences(
    features: tuple[Tensor, Tensor],
    codes: tuple[Tensor, Tensor],
    uniform: tuple[Tensor, Tensor],
    orders: list[Tensor],
    shifts: tuple[float, float, float],
    rule: Rule,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses of images with themselves, with their neighbors, and with others.

    Args:
        features, codes: [B, D, H, W] of the images and of a neighbor of each.
        uniform: [B, h, w, 2] places in [0, 1) in images, and in those compared with them.
        orders: permutations [B], one for each time that an image is told from another.
        shifts: of the three losses.
        rule: see `Rule`.
    """
    at, other_at = (2 * u.to(codes[0].dtype) - 1 for u in uniform)
    f, c = sample(features[0], at), sample(codes[0], at)
    near_f, near_c = sample(features[1], other_at), sample(codes[1], other_at)
    own, _ = correspondence(f, f, c, c, shifts[0], rule)
    near, _ = correspondence(f, near_f, c, near_c, shifts[1], rule)
    others = []
    for order in orders:
        which = shuffled(order)
        far_f, far_c = sample(features[0][which], other_at), sample(codes[0][which], other_at)
        others.append(correspondence(f, far_f, c, far_c, shifts[2], rule)[0].mean())
    return own.mean(), near.mean(), torch.stack(others).mean()


@full_precision
def log_shares(codes: Tensor, centers: Tensor, sharpness: float = 2.0) -> Tensor:
    """[B, K, h, w] log-probabilities that codes are of each cluster, by their similarity."""
    return (sharpness * similarity(codes, centers)).log_softmax(1)


def similarity(codes: Tensor, centers: Tensor) -> Tensor:
    """[B, D, H, W] codes, [K, D] centers -> [B, K, H, W] cosines."""
    return torch.einsum("bdhw,kd->bkhw", normalize(codes, dim=1), normalize(centers, dim=1))


@full_precision
def clustering(
    codes: Tensor, centers: Tensor, sharpness: float | None = None
) -> tuple[Tensor, Tensor]:
    """Centers approach the codes that are theirs, by cosine.

    Args:
        codes: [B, D, H, W], constants.
        centers: [K, D].
        sharpness: of the softmax that shares codes out; none for the nearest center alone.

    Returns:
        The loss, and the shares [B, K, H, W].
    """
    cosine = similarity(codes, centers)
    if sharpness is None:
        shares = F.one_hot(cosine.argmax(1), len(centers)).movedim(3, 1).to(cosine)
    else:
        shares = (sharpness * cosine).softmax(1)
    return -(shares * cosine).sum(1).mean(), shares
