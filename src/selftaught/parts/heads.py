"""Heads: from a representation to the space of a loss."""

from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
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


def each_cell(head: nn.Module, cells: Tensor) -> Tensor:
    """[B, N, D] -> [B, N, K], by a head that takes rows [B * N, D]."""
    return head(cells.flatten(0, 1)).unflatten(0, cells.shape[:2])


def projected_cells(net: Iterable[Any], x: Tensor) -> tuple[Tensor, tuple[int, int]]:
    """Images [B, C, H, W] -> cells [B, N, K], and their grid, by a backbone and its projector."""
    backbone, projector = net
    found = backbone.features(x)
    return each_cell(projector, found.local), found.grid


def simclr_head(*dims: int) -> nn.Sequential:
    """SimCLR's: no biases; a norm after each Linear, that of the last one without its shift."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(dims), 2):
        norm = nn.BatchNorm1d(b)
        layers += [nn.Linear(a, b, bias=False), norm]
        if i == len(dims):
            norm.bias.requires_grad_(False)
        else:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


class Prototypes(nn.Linear):
    """Cosine similarity of [..., D] with `count` unit prototypes: [..., count].

    Args:
        dim, count: width and number of the prototypes.
        scale: whether each similarity is multiplied by a learned number that starts at 1.
    """

    def __init__(self, dim: int, count: int, scale: bool = False):
        super().__init__(dim, count, bias=False)
        # two dimensions, as in torch's weight norm: the papers' code decays it like a weight
        self.scale = nn.Parameter(torch.ones(count, 1)) if scale else None

    def forward(self, input: Tensor) -> Tensor:
        weight = F.normalize(self.weight, dim=-1)
        if self.scale is not None:
            weight = self.scale * weight
        return F.linear(F.normalize(input, dim=-1), weight)


def prototype_head(
    dim: int, hidden: int, bottleneck: int, count: int, scale: bool = False, layers: int = 3
) -> nn.Sequential:
    """DINO's head: Linears with GELU between them, then cosines with `count` prototypes.

    Args:
        dim: width of the representation.
        hidden: width of the hidden layers.
        bottleneck: width of the prototypes.
        count: number of prototypes.
        scale: whether the prototypes' lengths are learned (`norm_last_layer=False` in the paper's
            code).
        layers: number of Linears before the prototypes.
    """
    head = bottleneck_head(dim, hidden, bottleneck, layers)
    return head.append(Prototypes(bottleneck, count, scale))


def bottleneck_head(dim: int, hidden: int, bottleneck: int, layers: int = 3) -> nn.Sequential:
    """DINO's head without prototypes: Linears of widths `hidden`, `bottleneck`, GELU between them.

    Args:
        dim, hidden, bottleneck, layers: as of `prototype_head`.
    """
    head = nn.Sequential()
    for a, b in pairwise((dim, *[hidden] * (layers - 1), bottleneck)):
        linear = nn.Linear(a, b)
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        head.extend([linear, nn.GELU()])
    return head[:-1]
