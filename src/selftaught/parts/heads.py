"""Heads: from a representation to the space of a loss."""

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F


def mlp(
    *dims: int,
    norm: bool = True,
    bias: bool = True,
    last_bias: bool = True,
    last_norm: bool = False,
) -> nn.Sequential:
    """Linear -> BatchNorm -> ReLU for each pair of `dims`, without the ReLU after the last.

    Args:
        dims: widths, from the input's to the output's.
        norm: whether the hidden layers are normalized.
        bias: whether the hidden Linears have a bias.
        last_bias: whether the last Linear has one.
        last_norm: whether a batch norm without affine parameters follows the last Linear.
    """
    layers: list[nn.Module] = []
    for a, b in pairwise(dims[:-1]):
        layers.append(nn.Linear(a, b, bias=bias))
        if norm:
            layers.append(nn.BatchNorm1d(b))
        layers.append(nn.ReLU(inplace=True))
    layers.append(nn.Linear(dims[-2], dims[-1], bias=last_bias))
    if last_norm:
        layers.append(nn.BatchNorm1d(dims[-1], affine=False))
    return nn.Sequential(*layers)


class Prototypes(nn.Linear):
    """Cosine similarity of [..., D] with `count` unit prototypes: [..., count]."""

    def __init__(self, dim: int, count: int):
        super().__init__(dim, count, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.normalize(x, dim=-1), F.normalize(self.weight, dim=-1))
