"""ALSO (Boulch et al., 2023), https://arxiv.org/abs/2212.05867."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import dist
from selftaught.augment import Pipeline
from selftaught.augment.points import turned
from selftaught.backbones.points.encoder import Points
from selftaught.data.points.parts import drawn, within
from selftaught.masks import Draws
from selftaught.method import Batch, Few, Insight, Method, Needs, Recipe, ReferenceLoss
from selftaught.roles import Count, Positive, Several, TermWeight

FULL = 3 / 7
"""Share of the pairs whose place is full, about: before and behind a point are as many, and other
places on the beams are empty, of which few lie near points. In scans of KITTI it is .43 to .45."""


class ALSO(Method):
    """Tell from the features of points whether places near them are empty or full.

    A laser beam says it: what lies before the point where it ended is empty, a little behind that
    it is full. Each point within `radius` of a place tells of it alone.

    Args:
        backbone: of scans.
        queries: places that are asked about in a scan.
        thickness: meters before and behind a point within which places are known to be empty and
            full; the paper's delta.
        radius: meters from a place to the points that tell of it.
        latent: width of the decoder.
        neighbors: points that tell of a place, the nearest ones, at most.
        weight: of the loss of intensities, beside that of occupancy.
    """

    recipe = Recipe("adamw", lr=1e-3, batch=16, scaling="none", weight_decay=0.01)
    few = Few(lr=1e-3, batch=4, latent=64, queries=1024)
    backbone: Points  # pyrefly: ignore[bad-override]
    needs = Needs(backbone="pillars", kinds=("points",), views="own", batch=1)
    insight = Insight(idle=("intensity",))

    def __init__(
        self,
        backbone: Points,
        queries: Several = 2048,
        thickness: Positive = 0.1,
        radius: Positive = 1.0,
        latent: Count = 128,
        neighbors: Count = 32,
        weight: TermWeight = 1.0,
    ):
        super().__init__()
        self.backbone, self.queries, self.thickness = backbone, queries, thickness
        self.radius, self.latent, self.neighbors = radius, latent, neighbors
        self.weight = weight
        self.project = nn.Linear(backbone.local_dim, latent)
        self.decoder = Decoder(latent)

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        guess = -FULL * math.log(FULL) - (1 - FULL) * math.log(1 - FULL)
        told = "entropy of full and empty, 3 to 4 among pairs"
        return (ReferenceLoss(guess, told, term="occupancy"),)

    def views(self, size: int) -> Pipeline:
        return Asked(
            size,
            self.backbone.reach,
            self.queries,
            self.thickness,
            self.radius,
            self.neighbors,
        )

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """views: points [B, N, 3 or 4], what is asked [B, Q, 5] (place, 1 if full, intensity or
        -1), and the points that tell of it [B, Q, K], -1 where there are fewer."""
        points, asked, near = batch.views
        latents = self.project(self.backbone.features(points).local)
        scan, query, k = (near >= 0).nonzero(as_tuple=True)
        point = near[scan, query, k].long()
        offsets = asked[scan, query, :3] - points[scan, point, :3]
        out = self.decoder(latents[scan, point], offsets)
        full, light = asked[scan, query, 3], asked[scan, query, 4]
        found = losses(out, full, light)
        return {**found, "intensity": self.weight * found["intensity"]}


class Decoder(nn.Module):
    """What a point tells of a place beside it: the logit of being full, and intensity."""

    def __init__(self, latent: int):
        super().__init__()
        self.fc_in = nn.Linear(latent + 3, latent)
        self.mlp_layers = nn.ModuleList(nn.Linear(latent, latent) for _ in range(2))
        self.fc_out = nn.Linear(latent, 2)

    def forward(self, latents: Tensor, offsets: Tensor) -> Tensor:
        """[P, D] of points, [P, 3] from them to places in meters -> [P, 2]."""
        x = self.fc_in(torch.cat([latents, offsets.to(latents.dtype)], 1))
        for layer in self.mlp_layers:
            x = layer(x.relu())
        return self.fc_out(x)


def losses(out: Tensor, full: Tensor, light: Tensor) -> dict[str, Tensor]:
    """Means over the pairs of places and points, of all processes (section 3.3 of the paper).

    Args:
        out: [P, 2] as of `Decoder`.
        full: [P] 1 where the place is full, 0 where it is empty.
        light: [P] intensity there, -1 where it is not known.

    Returns:
        occupancy: binary cross-entropy. intensity: L1 where it is known.
    """
    out = out if out.dtype == torch.float64 else out.float()
    wrong = F.binary_cross_entropy_with_logits(out[:, 0], full.to(out.dtype), reduction="none")
    off = (out[:, 1] - light).abs() * (light >= 0)
    return {
        "occupancy": wrong.sum() / _shared(torch.ones_like(light)),
        "intensity": off.sum() / _shared((light >= 0).to(light.dtype)),
    }


def _shared(counted: Tensor) -> Tensor:
    """How many there are, on average over the processes; 1 at least."""
    return dist.mean(counted.sum()).clamp(min=1)


class Places(NamedTuple):
    """What is asked. places: float64 [Q, 3]. full: bool [Q]. source: int64 [Q] the point that each
    was made of. far: bool [Q], those of which it says no more than that they are empty."""

    places: np.ndarray
    full: np.ndarray
    source: np.ndarray
    far: np.ndarray


def places(draws: Draws, points: np.ndarray, queries: int, thickness: float) -> Places:
    """Places of which beams tell whether they are full.

    A third, and what is left over, within `thickness` behind points, a third within it before
    them, a third anywhere on the way to them.

    Args:
        draws: for each third an order of the points, then a number for each place.
        points: [N, 3] in meters, the sensor at the origin.
        queries: number of places.
        thickness: in meters.
    """
    third = queries // 3
    parts = []
    for n, count in enumerate((queries - 2 * third, third, third)):
        source = np.resize(draws.permutation(len(points)), count)
        u = np.asarray(draws.random((count, 1)))
        p = points[source].astype(np.float64)
        beam = p / np.linalg.norm(p, axis=1, keepdims=True).clip(1e-9)
        made = (p + thickness * u * beam, p - thickness * u * beam, p * u)[n]
        parts.append((made, np.full(count, n == 0), source, np.full(count, n == 2)))
    return Places(*(np.concatenate(column) for column in zip(*parts)))


def neighbors(points: np.ndarray, asked: np.ndarray, radius: float, most: int) -> np.ndarray:
    """int32 [Q, most]: the points nearest to each place, within `radius`; -1 where there are fewer.

    Args:
        points: [N, 3]. asked: [Q, 3]. radius: in meters, which is itself within.
    """
    tree = KDTree(points)
    count = min(most, len(points))
    far = np.nextafter(radius, np.inf)  # the tree leaves out what is as far as its bound
    _, found = tree.query(asked, k=np.arange(1, count + 1), distance_upper_bound=far)
    near = np.full((len(asked), most), -1, np.int32)
    near[:, :count] = np.where(found < len(points), found, -1)
    return near


@dataclass(frozen=True)
class Asked(Pipeline):
    """A scan, turned and mirrored by chance, what is asked of it, and which points tell of that."""

    size: int
    reach: float
    queries: int
    thickness: float
    radius: float
    neighbors: int

    def __call__(self, sample: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        """[N, C] -> float32 [size, C], float32 [Q, 5] and int32 [Q, K]; see `ALSO.loss`."""
        x = turned(drawn(within(sample, self.reach), self.size, rng), rng).astype(np.float32)
        asked = places(rng, x[:, :3], self.queries, self.thickness)
        near = neighbors(x[:, :3], asked.places, self.radius, self.neighbors)
        light = x[asked.source, 3] if x.shape[1] > 3 else np.full(self.queries, -1.0)
        told = [asked.places, asked.full[:, None], np.where(asked.far, -1, light)[:, None]]
        return x, np.concatenate(told, 1).astype(np.float32), near
