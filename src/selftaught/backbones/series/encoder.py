"""Encoders of series: convolutions over time (InceptionTime, Fawaz et al., arXiv 1909.04939)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught.backbones.encoder import Features
from selftaught.errors import UserError
from selftaught.roles import Count
from selftaught.signature import Checked

KERNELS = (39, 19, 9)
"""Steps that the branches of a block see (InceptionTime's 40, 20 and 10, made odd)."""


class Series(Checked, nn.Module):
    """Inception blocks with a residual around each three. Series: [B, channels, T], any T.

    dim: width of pooled features, which are the mean over time; local ones are those of each step.

    Args:
        name: of the network: `inception`.
        size: length of the views, in steps.

    Other Args:
        channels: of the series.
        width: filters of each of a block's four branches.
        depth: blocks.
    """

    mean, std = (0.0,), (1.0,)
    trained: bool = False
    has_local = True
    kind: Any = None

    def __init__(
        self,
        name: Literal["inception"] = "inception",
        size: Count = 128,
        channels: Count = 1,
        width: Count = 32,
        depth: Count = 6,
    ):
        super().__init__()
        self.name, self.size, self.channels = name, size, channels
        self.width, self.depth = width, depth
        self.dim = self.local_dim = 4 * width
        self.net = _Inception(channels, width, depth)
        self.net.register_load_state_dict_post_hook(self._loaded)

    def _loaded(self, _: nn.Module, __: Any) -> None:
        self.trained = True

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build it again."""
        return {k: getattr(self, k) for k in ("name", "size", "channels", "width", "depth")}

    def fit(self, size: float) -> int:
        """The length of views nearest to `size` that it can take."""
        return max(1, round(size))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, T] -> pooled [B, dim]."""
        return self.features(x).pooled

    def features(self, x: Tensor) -> Features:
        """Pooled features, and local ones [B, T, dim] on a grid of T x 1."""
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise UserError(
                f"{self.name} takes series [B, {self.channels}, T], got {list(x.shape)}; open the "
                "data with kind=selftaught.kinds.of(encoder)"
            )
        x = self.net(x)
        return Features(x.mean(2), x.mT, (x.shape[2], 1))


class _Inception(nn.Module):
    def __init__(self, channels: int, width: int, depth: int):
        super().__init__()
        dims = [channels, *[4 * width] * depth]
        self.blocks = nn.ModuleList(_Block(dims[i], width) for i in range(depth))
        self.skips = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(dims[3 * i], 4 * width, 1, bias=False), nn.BatchNorm1d(4 * width)
            )
            for i in range(depth // 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i % 3 == 2:
                x = kept = (x + self.skips[i // 3](kept)).relu()
        return x


class _Block(nn.Module):
    """Three convolutions of other lengths and a maximum beside each other."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        several = channels > 1
        self.narrow = nn.Conv1d(channels, width, 1, bias=False) if several else nn.Identity()
        self.branches = nn.ModuleList(
            nn.Conv1d(width if several else 1, width, k, padding=k // 2, bias=False)
            for k in KERNELS
        )
        self.highest = nn.Sequential(
            nn.MaxPool1d(3, 1, 1), nn.Conv1d(channels, width, 1, bias=False)
        )
        self.norm = nn.BatchNorm1d(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.narrow(x)
        parts = [*(branch(narrow) for branch in self.branches), self.highest(x)]
        return self.norm(torch.cat(parts, 1)).relu()
