"""Encoders of series: convolutions of several lengths (InceptionTime, Fawaz et al., arXiv
1909.04939), dilated ones (TS2Vec, Yue et al., 2106.10466), and patches (PatchTST, Nie et al.,
2211.14730).
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.backbones.encoder import Features
from selftaught.errors import UserError
from selftaught.roles import Count, PartialShare
from selftaught.signature import Checked

KERNELS = (39, 19, 9)
"""Steps that the branches of a block see (InceptionTime's 40, 20 and 10, made odd)."""


class Series(Checked, nn.Module):
    """A network over time. Series: [B, channels, T], standardized.

    `inception`: blocks of convolutions, pooled by the mean over time. `dilated`: ten convolutional
    blocks, each of which sees twice as far, pooled by the maximum. `patches`: a transformer over
    pieces of each channel alone; pooled features are the means of the channels side by side.

    dim: width of pooled features. local_dim: that of the features of a step, or of a patch.

    Args:
        name: of the network.
        size: length of the views, in steps.

    Other Args:
        channels: of the series.
        width: filters of each of an inception block's four branches, channels of a dilated block,
            or width of a patch's token; by default 32, 64 and 128, the papers'.
        depth: blocks; by default 6, 10 and 3, the papers'.
        patch_size: steps of a patch, of which a view must have a whole number.
        heads: of the attention between patches.
        dropout: share of numbers that is dropped, between the layers of `patches` and behind those
            of `dilated`.
    """

    mean, std = (0.0,), (1.0,)
    trained: bool = False
    has_local = True
    kind: Any = None

    def __init__(
        self,
        name: Literal["inception", "dilated", "patches"] = "inception",
        size: Count = 128,
        channels: Count = 1,
        width: Count | None = None,
        depth: Count | None = None,
        patch_size: Count = 8,
        heads: Count = 8,
        dropout: PartialShare = 0.1,
    ):
        super().__init__()
        self.name, self.size, self.channels = name, size, channels
        self.width = width or {"inception": 32, "dilated": 64, "patches": 128}[name]
        self.depth = depth or {"inception": 6, "dilated": 10, "patches": 3}[name]
        self.patch_size, self.heads, self.dropout = patch_size, heads, dropout
        self.net: nn.Module
        if name == "inception":
            self.net = _Inception(channels, self.width, self.depth)
            self.local_dim = 4 * self.width
        elif name == "dilated":
            self.net = _Dilated(channels, self.width, self.depth, dropout)
            self.local_dim = 5 * self.width
        else:
            self._check_patches()
            steps = size // patch_size
            self.net = _Patches(patch_size, steps, self.width, self.depth, heads, dropout)
            self.local_dim = self.width
        self.dim = self.local_dim * (channels if name == "patches" else 1)
        self.net.register_load_state_dict_post_hook(self._loaded)

    def _check_patches(self) -> None:
        if self.size % self.patch_size or self.width % self.heads:
            raise UserError(
                f"views of {self.size} steps are no whole number of patches of {self.patch_size}, "
                f"or a width of {self.width} none of {self.heads} heads: use --size "
                f"{self.fit(self.size)}, or another --patch-size or --heads"
            )

    def _loaded(self, _: nn.Module, __: Any) -> None:
        self.trained = True

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build it again."""
        names = ("name", "size", "channels", "width", "depth", "patch_size", "heads", "dropout")
        return {k: getattr(self, k) for k in names}

    def fit(self, size: float) -> int:
        """The length of views nearest to `size` that it can take."""
        step = self.patch_size if self.name == "patches" else 1
        return max(1, round(size / step)) * step

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, T] -> pooled [B, dim]."""
        return self.features(x).pooled

    def features(self, x: Tensor, hidden: Tensor | None = None) -> Features:
        """Pooled and local features.

        Args:
            x: series; of patches no other lengths than `size`.
            hidden: where the network sees nothing: steps [B, T] of `dilated`, patches
                [B, channels, N] of `patches`.

        Returns:
            local: [B, T, local_dim] on a grid of T x 1; of patches [B, channels N, local_dim] on
            one of channels x N.
        """
        if x.ndim != 3 or x.shape[1] != self.channels:
            raise UserError(
                f"{self.name} takes series [B, {self.channels}, T], got {list(x.shape)}; open the "
                "data with kind=selftaught.kinds.of(encoder)"
            )
        if self.name == "patches":
            local = self.net(x, hidden)
            grid = (local.shape[1], local.shape[2])
            return Features(local.mean(2).flatten(1), local.flatten(1, 2), grid)
        y = self.net(x) if hidden is None else self.net(x, hidden)
        pooled = y.amax(2) if self.name == "dilated" else y.mean(2)
        return Features(pooled, y.mT, (y.shape[2], 1))


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


class _Dilated(nn.Module):
    """A projection of each step, and residual blocks that see ever farther."""

    def __init__(self, channels: int, width: int, depth: int, dropout: float):
        super().__init__()
        self.project = nn.Linear(channels, width)
        dims = [width] * depth + [5 * width]
        self.blocks = nn.ModuleList(
            _Farther(a, b, 2**i) for i, (a, b) in enumerate(zip([width, *dims], dims))
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """[B, C, T] -> [B, D, T]; steps that are hidden are zeros behind the projection."""
        y = self.project(x.mT)
        if hidden is not None:
            y = y * ~hidden[..., None]
        y = y.mT
        for block in self.blocks:
            y = block(y)
        return self.drop(y)


class _Farther(nn.Module):
    """Two convolutions over every `dilation`-th step beside what comes in."""

    def __init__(self, channels: int, out: int, dilation: int):
        super().__init__()
        self.first = nn.Conv1d(channels, out, 3, padding=dilation, dilation=dilation)
        self.second = nn.Conv1d(out, out, 3, padding=dilation, dilation=dilation)
        self.skip = nn.Conv1d(channels, out, 1) if out != channels else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.gelu(self.first(F.gelu(x)))) + self.skip(x)


class _Patches(nn.Module):
    """A transformer over pieces of each channel, which know nothing of other channels."""

    def __init__(self, patch: int, count: int, width: int, depth: int, heads: int, dropout: float):
        super().__init__()
        self.patch = patch
        self.embed = nn.Linear(patch, width)
        self.positions = nn.Parameter(0.02 * torch.randn(count, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, hidden: Tensor | None = None) -> Tensor:
        """[B, C, T] -> [B, C, N, D]; patches that are hidden are zeros."""
        pieces = x.unflatten(2, (-1, self.patch))
        if hidden is not None:
            pieces = pieces * ~hidden[..., None]
        y = self.embed(pieces).flatten(0, 1) + self.positions
        for block in self.blocks:
            y = block(y)
        return self.norm(y).unflatten(0, (len(x), -1))
