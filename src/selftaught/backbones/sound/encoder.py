"""The encoder of CPC for sounds (van den Oord et al., 2018): convolutions, and a GRU."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from selftaught.backbones.encoder import Features
from selftaught.errors import UserError
from selftaught.roles import Count
from selftaught.signature import Checked

LAYERS = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
"""Kernel, stride and padding of each convolution: a vector for each 160 values, 10 ms at 16 kHz."""
STEP = 160


class Waves(Checked, nn.Module):
    """Strided convolutions over a wave, and a GRU over what they give. [B, 1, n], any n from 160.

    dim: width of pooled features, which are the mean over time of what the GRU knows; local ones
    are those of each 160 values.

    Args:
        name: of the network: `cpc`.
        size: length of the views, in values.

    Other Args:
        channels: of the waves: 1.
        width: of what the convolutions give.
        context: of what the GRU knows.
        norm: what follows each convolution: `channel` norms each moment over its channels (Rivière
            et al., 2020), as training is slow without; the paper has none.
    """

    mean, std = (0.0,), (1.0,)
    trained: bool = False
    has_local = True
    kind: Any = None

    def __init__(
        self,
        name: Literal["cpc"] = "cpc",
        size: Count = 20480,
        channels: Count = 1,
        width: Count = 512,
        context: Count = 256,
        norm: Literal["channel", "none"] = "channel",
    ):
        super().__init__()
        if channels != 1:
            raise UserError(f"channels={channels}: a wave has one; drop --channels")
        if size < STEP:
            raise UserError(f"{name} makes a vector of {STEP} values, and views have {size}")
        self.name, self.size, self.channels = name, size, channels
        self.width, self.context, self.norm = width, context, norm
        self.dim = self.local_dim = context
        self.net = _Network(width, context, norm == "channel")
        self.net.register_load_state_dict_post_hook(self._loaded)

    def _loaded(self, _: nn.Module, __: Any) -> None:
        self.trained = True

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that build it again."""
        names = ("name", "size", "channels", "width", "context", "norm")
        return {k: getattr(self, k) for k in names}

    def steps(self, x: Tensor) -> Tensor:
        """[B, 1, n] -> [B, T, width], each from the values around it alone; T is n / 160."""
        if x.ndim != 3 or x.shape[1] != 1:
            raise UserError(
                f"{self.name} takes waves [B, 1, n], got {list(x.shape)}; open the data with "
                "kind=selftaught.kinds.of(encoder)"
            )
        return self.net.convolutions(x).mT

    def known(self, z: Tensor) -> Tensor:
        """[B, T, width] -> [B, T, context], each from its own step and those before it."""
        return self.net.summary(z)[0]

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, n] -> pooled [B, dim]."""
        return self.features(x).pooled

    def features(self, x: Tensor) -> Features:
        """Pooled features, and local ones [B, T, dim] on a grid of T x 1."""
        known = self.known(self.steps(x))
        return Features(known.mean(1), known, (known.shape[1], 1))


class _Network(nn.Module):
    def __init__(self, width: int, context: int, norm: bool):
        super().__init__()
        layers: list[nn.Module] = []
        for i, (kernel, stride, padding) in enumerate(LAYERS):
            layers.append(nn.Conv1d(width if i else 1, width, kernel, stride, padding))
            layers += [ChannelNorm(width)] if norm else []
            layers.append(nn.ReLU(inplace=True))
        self.convolutions = nn.Sequential(*layers)
        self.summary = nn.GRU(width, context, batch_first=True)


class ChannelNorm(nn.Module):
    """[B, C, T] with mean 0 and deviation 1 over the channels of each moment, then scaled."""

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        spread, mean = torch.var_mean(x, 1, keepdim=True, unbiased=False)
        return (x - mean) * torch.rsqrt(spread + 1e-5) * self.weight + self.bias
