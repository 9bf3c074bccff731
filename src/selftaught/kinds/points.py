"""Points: laser scans and maps of the land; float32 [N, 3 or 4], meters and intensity."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from selftaught.data.image.decode import BadSample
from selftaught.data.points import files, las
from selftaught.data.points.cloud import Cloud
from selftaught.data.points.parts import drawn, near, within
from selftaught.errors import UserError
from selftaught.kinds import Facts, Floor, Judge, Kind
from selftaught.roles import Positive

if TYPE_CHECKING:
    from torch import Tensor

    from selftaught.data import Samples
    from selftaught.data.source import Source

LEAST, MOST, STEP = 16, 16_384, 16
"""Points of a scan at least; of a view, where nobody says how many, at most, and a multiple of
`STEP`."""
LOOKED = 20
"""Scans whose sizes, extents and intensities are looked at."""
REACH, INSIDE = 50.0, 0.95
"""Meters that are seen at most, where nobody says it; the share of the points that lies within."""
AFAR = 10_000.0
"""Meters: points all farther away than this were not measured from where coordinates begin."""


@dataclass(frozen=True)
class Points(Kind):
    """Clouds of points, with z up.

    Args:
        reach: meters from the middle up to which points are seen, ahead and sideways; by default
            those within which most points are, 50 at most.
        origin: where coordinates begin: at the `sensor`, or in the `middle` of the points, on the
            ground, as of maps; `auto` takes the middle of LAS files and of points beyond 10 km.

    Other Args:
        intensity: whether the brightness of a point is seen; by default where most scans have it.
        brightest: the intensity that becomes 1; by default 1, 255 or the highest in the data.
    """

    reach: Positive | None = None
    origin: Literal["auto", "sensor", "middle"] = "auto"
    intensity: Literal["auto", "yes", "no"] = "auto"
    brightest: Positive | None = None

    word = "points"
    one, many, unit, counted, axes = "scan", "scans", "points", "points", 3
    suffixes = files.POINTS
    columns = ("points", "lidar", "scan", "pointcloud")
    encoder = "points.encoder:Points"
    backbone = "pillars"
    method = "also"
    translates = True
    places = "points"
    extra = "points"
    about_floors = (
        "Heights: how many points are at each; map: which of 16 x 16 cells have points, seen from "
        "above. Whole scans: both, of all points, judged by nearest scans and logistic regression. "
    )

    # ---------------------------------------------------------------------------------- reading

    def open(
        self,
        source: Any,
        column: str | None = None,
        labels: str | None = None,
        path_column: str | None = None,
    ) -> "Source":
        if isinstance(source, np.ndarray) and source.ndim == 3:
            return files.SeriesSource(source)
        if isinstance(source, list | tuple) and source and not isinstance(source[0], str | Path):
            return files.SeriesSource(list(source), "list")
        path = Path(source) if isinstance(source, str | Path) else None
        if path and path.is_file() and path.suffix.lower() in (".npy", ".npz"):
            several = files.array_file(path, column)
            if several is not None:
                return several
        found = super().open(source, column, labels, path_column)
        if any(found.name(i).lower().endswith((".las", ".laz")) for i in range(len(found))):
            las.needed()
        return found

    def decode(self, raw: Any, name: str) -> np.ndarray:
        return self.seen(files.parsed(raw, name))[0]

    def seen(self, cloud: Cloud) -> tuple[np.ndarray, np.ndarray]:
        """The points that can be used, float32 [N, 3 or 4], and which of all they are, bool [M].

        Raises:
            BadSample: there are hardly any, or they have no intensity where others do.
        """
        places, shade = cloud.places, cloud.intensity
        good = np.asarray(np.isfinite(places).all(1))
        if shade is not None and self.intensity != "no":
            good = good & np.isfinite(shade)
        if (count := int(good.sum())) < LEAST:
            lost = f", {len(good) - count:,} others are not finite" if count < len(good) else ""
            raise BadSample(
                f"has {count} point{'s' * (count != 1)}{lost}: {LEAST} at least are needed"
            )
        x = self._placed(places[good], cloud.map).astype(np.float32)
        if self.intensity == "no" or (shade is None and self.intensity == "auto"):
            return x, good
        if shade is None:
            raise BadSample(
                "has no intensity, and most others have: --intensity no leaves it out of all"
            )
        light = (shade[good] / (self.brightest or 1.0)).astype(np.float32)
        if self.brightest is not None:
            light = light.clip(0.0, 1.0)
        return np.concatenate([x, light[:, None]], 1), good

    def _placed(self, places: np.ndarray, is_map: bool) -> np.ndarray:
        """Float64 [N, 3] with the origin where it is to be: single precision ends at some km."""
        from_map = is_map or float(np.abs(places).max(1).min()) > AFAR
        if self.origin == "sensor" or (self.origin == "auto" and not from_map):
            return places
        low, high = places.min(0), places.max(0)
        return places - [*(low + high)[:2] / 2, np.percentile(places[:, 2], 1)]

    def facts(self, sample: np.ndarray) -> Facts:
        flat = bool(np.ptp(sample[:, :3], axis=0).max() < 1e-3)
        return Facts(len(sample), flat, sample.tobytes())

    def fill(self, given: dict[str, Any], samples: "Samples") -> tuple["Points", dict[str, Any]]:
        given = {k: v for k, v in given.items() if v is not None}
        clouds, bare = [], replace(self, intensity="auto", brightest=None)
        for i in np.linspace(0, len(samples) - 1, min(LOOKED, len(samples))).astype(int).tolist():
            try:
                clouds.append(bare.seen(files.parsed(samples.source.load(i), samples.name(i)))[0])
            except BadSample:
                continue
        if not clouds:
            samples.seen_as(bare).read(0)  # says why
        bright = [x[:, 3] for x in clouds if x.shape[1] > 3]
        reach = given.get("reach") or self.reach or _reach(clouds)
        most = 2 * len(bright) > len(clouds)
        has = bool(bright) and (self.intensity == "yes" or (self.intensity == "auto" and most))
        found = replace(
            self,
            reach=reach,
            intensity="yes" if has else "no",
            brightest=(self.brightest or _brightest(bright)) if has else None,
        )
        channels = 3 + has
        if given.get("channels", channels) != channels:
            raise UserError(
                f"channels={given['channels']}: points are seen with {channels} numbers each "
                f"({'with' if has else 'without'} intensity); leave it out"
            )
        counts = sorted(int(near(x, reach).sum()) for x in clouds)
        usual = max(LEAST, min(MOST, counts[len(counts) // 2] // STEP * STEP))
        return found, {"size": usual} | given | {"reach": reach, "channels": channels}

    # ------------------------------------------------------------------------------------ views

    def plain(self, size: int) -> "Plain":
        return Plain(size, self.reach or REACH)

    def translate(self, node: Any) -> Any:
        from selftaught.augment import Views
        from selftaught.augment.points import PointsViews

        return PointsViews(node.views, self.reach or REACH) if isinstance(node, Views) else node

    def inputs(self, views: Any) -> "list[Tensor]":
        """Floats [B, N, 3 or 4]: what is asked of places has more numbers."""
        found = super().inputs(views)
        return [x for x in found if x.is_floating_point() and x.shape[2] in (3, 4)]

    def blank(self, count: int, encoder: Any) -> "Tensor":
        import torch

        drawn = torch.rand(
            (count, encoder.size, encoder.channels), generator=torch.Generator().manual_seed(0)
        )
        spread = torch.tensor([2 * encoder.reach, 2 * encoder.reach, 3.0, 1.0])
        start = torch.tensor([encoder.reach, encoder.reach, 1.0, 0.0])
        return drawn * spread[: encoder.channels] - start[: encoder.channels]

    # ----------------------------------------------------------------------- scores and pages

    def floors(self) -> Mapping[str, Floor]:
        from selftaught.kinds.floors.points import Heights, Occupied

        reach = self.reach or REACH
        return {"heights": Heights(reach), "map from above": Occupied(reach)}

    def judges(self) -> Mapping[str, Mapping[str, Judge]]:
        from selftaught.kinds.floors.points import by_neighbors, by_regression

        return {"whole scans": {"k-NN": by_neighbors, "probe": by_regression}}

    def thumbnail(self, sample: np.ndarray, side: int) -> np.ndarray:
        return above(sample, self.reach or _reach([sample]), side)

    def pictures(self, view: np.ndarray) -> list[np.ndarray]:
        if view.ndim != 2 or view.dtype.kind != "f" or view.shape[1] not in (3, 4):
            return []
        return [above(view, self.reach or _reach([view]), 96)]


@dataclass(frozen=True)
class Plain:
    """`size` points within reach, spread over the order that the scan has them in; some come again
    where there are fewer."""

    size: int
    reach: float

    def __call__(self, sample: np.ndarray, rng: Any = None) -> np.ndarray:
        """[N, C] -> float32 [size, C]."""
        return drawn(within(sample, self.reach), self.size, np.random.default_rng(0))


def _reach(scans: list[np.ndarray]) -> float:
    """Within which most points of the middle scan are, to two digits."""
    far = sorted(float(np.quantile(np.abs(x[:, :2]).max(1), INSIDE)) for x in scans)
    return min(REACH, max(0.1, float(f"{1.05 * far[len(far) // 2]:.2g}")))


def _brightest(shades: list[np.ndarray]) -> float:
    """What 1 stands for: by the usual ranges, or the highest value that is no outlier."""
    high = max(float(x.max()) for x in shades)
    if high <= 255:
        return 1.0 if high <= 1 else 255.0
    return float(f"{max(float(np.quantile(x, 0.999)) for x in shades):.3g}")


def above(sample: np.ndarray, reach: float, side: int) -> np.ndarray:
    """Points seen from above, ahead being up, as uint8 [3, side, side]: the higher, the warmer."""
    out = np.full((side, side, 3), 255, np.uint8)
    x = sample[near(sample, reach)]
    if len(x):
        x = x[np.argsort(x[:, 2], kind="stable")]  # the highest is on top
        low, high = np.quantile(x[:, 2], [0.02, 0.98])
        share = ((x[:, 2] - low) / max(high - low, 1e-6)).clip(0, 1)
        stops = np.linspace(0, 1, len(_COLORS))
        colors = np.stack([np.interp(share, stops, c) for c in zip(*_COLORS)], 1)
        rows, columns = ((1 - (x[:, :2] / reach + 1) / 2) * (side - 1)).round().astype(int).T
        out[rows, columns] = colors.round().astype(np.uint8)
    return np.ascontiguousarray(out.transpose(2, 0, 1))


_COLORS = ((40, 60, 130), (35, 140, 150), (90, 180, 80), (235, 170, 40), (200, 40, 40))
"""Of heights, from low to high."""
