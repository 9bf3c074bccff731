"""Encoders of points: columns seen from above (PointPillars, Lang et al., 2019, arXiv 1812.05784),
and a small U-Net over them.
"""

from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.backbones.encoder import Features
from selftaught.errors import UserError
from selftaught.roles import Count, Positive
from selftaught.signature import Checked

REACH = 50.0
"""Meters, where neither anybody nor the data says how far is seen."""


class Points(Checked, nn.Module):
    """A network over scans. Points: [B, N, channels], x, y, z in meters, and intensity.

    `pillars`: each point is described beside the middle of its column, a column by the highest of
    what its points have, columns by convolutions over them seen from above; a point's features are
    made of those of its column and of its own. Pooled features are their mean and their maximum
    over the points. Points beyond reach count to the columns at the edge.

    dim: width of pooled features. local_dim: that of the features of a point.

    Args:
        name: of the network.
        size: points of a view.
        reach: meters from the middle to the edge of what is seen, ahead and sideways; by default
            those within which most points of the data are, 50 at most.

    Other Args:
        channels: 3, or 4 with intensity.
        cells: columns along a side.
        width: channels of the first convolutions; those of half the resolution have twice as many.
        depth: resolutions of the U-Net.
    """

    mean, std = (0.0,), (1.0,)
    trained: bool = False
    has_local = True
    kind: Any = None

    def __init__(
        self,
        name: Literal["pillars"] = "pillars",
        size: Count = 16_384,
        channels: Count = 4,
        reach: Positive | None = None,
        cells: Count = 128,
        width: Count = 32,
        depth: Count = 3,
    ):
        super().__init__()
        if channels not in (3, 4):
            raise UserError(f"channels={channels}: a point has x, y, z, and perhaps intensity")
        if cells % 2 ** (depth - 1):
            raise UserError(
                f"{cells} columns cannot be halved {depth - 1} times: use a smaller --depth, or "
                f"--cells {-(-cells // 2 ** (depth - 1)) * 2 ** (depth - 1)}"
            )
        self.name, self.size, self.channels, self.reach = name, size, channels, reach or REACH
        self.cells, self.width, self.depth = cells, width, depth
        self.local_dim = 2 * width
        self.dim = 2 * self.local_dim
        self.net = _Pillars(channels + 4, cells, width, depth)
        self.net.register_load_state_dict_post_hook(self._loaded)

    def _loaded(self, _: nn.Module, __: Any) -> None:
        self.trained = True

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build it again."""
        names = ("name", "size", "channels", "reach", "cells", "width", "depth")
        return {k: getattr(self, k) for k in names}

    def fit(self, size: float) -> int:
        """The number of points nearest to `size` that it can take."""
        return max(1, round(size))

    def forward(self, x: Tensor) -> Tensor:
        """[B, N, channels] -> pooled [B, dim]."""
        return self.features(x).pooled

    def features(self, x: Tensor) -> Features:
        """Pooled features, and local ones of each point, [B, N, local_dim] on a grid of N x 1."""
        if x.ndim != 3 or x.shape[2] != self.channels:
            raise UserError(
                f"{self.name} takes points [B, N, {self.channels}], got {list(x.shape)}; open the "
                "data with kind=selftaught.kinds.of(encoder)"
            )
        local = self.net(*self._described(x))
        pooled = torch.cat([local.mean(1), local.amax(1)], 1)
        return Features(pooled, local, (local.shape[1], 1))

    def _described(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What is told of each point [B, N, channels + 4], and its column [B, N].

        Coordinates are taken apart before half precision, which has no centimeters at 50 m.
        """
        x = x if x.dtype == torch.float64 else x.float()
        at = (x[..., :2] / self.reach + 1) / 2 * self.cells
        column = at.long().clamp(0, self.cells - 1)
        offset = at - column - 0.5
        far = x[..., :2].norm(dim=2, keepdim=True) / self.reach
        # heights in meters, whatever the reach: people and cars are as tall anywhere
        told = [offset, x[..., :2] / self.reach, far, x[..., 2:3], x[..., 2:3].abs().log1p()]
        told += [x[..., 3:]]
        described = torch.cat(told, 2).to(next(self.net.parameters()).dtype)
        return described, column[..., 0] * self.cells + column[..., 1]


class _Pillars(nn.Module):
    def __init__(self, told: int, cells: int, width: int, depth: int):
        super().__init__()
        self.cells = cells
        self.points = nn.Sequential(nn.Linear(told, width), nn.ReLU(), nn.Linear(width, width))
        widths = [width * 2**i for i in range(depth)]
        self.down = nn.ModuleList(
            nn.Sequential(_convolution(widths[max(0, i - 1)], w, 2 if i else 1), _convolution(w, w))
            for i, w in enumerate(widths)
        )
        self.up = nn.ModuleList(
            _convolution(fine + coarse, fine) for fine, coarse in pairwise(widths)
        )
        self.out = nn.Sequential(
            nn.Linear(2 * width, 2 * width), nn.ReLU(), nn.Linear(2 * width, 2 * width)
        )

    def forward(self, told: Tensor, column: Tensor) -> Tensor:
        """[B, N, told] and columns [B, N] -> [B, N, 2 width]."""
        each = self.points(told)
        index = column[..., None].expand(-1, -1, each.shape[2])
        # not `len`, which is a constant to whoever exports this
        empty = each.new_zeros(each.shape[0], self.cells**2, each.shape[2])
        above = empty.scatter_reduce(1, index, each.relu(), "amax")
        y = above.mT.unflatten(2, (self.cells, self.cells))
        kept = []
        for block in self.down:
            y = block(y)
            kept.append(y)
        for block, fine in zip(reversed(self.up), reversed(kept[:-1])):
            y = block(torch.cat([fine, F.interpolate(y, scale_factor=2, mode="nearest")], 1))
        around = y.flatten(2).mT.gather(1, column[..., None].expand(-1, -1, y.shape[1]))
        return self.out(torch.cat([each, around.to(each.dtype)], 2))


def _convolution(channels: int, out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()
    )
