"""Distances of embeddings from a standard normal distribution, by random projections on lines.

A distribution is known by all of its projections (Cramer and Wold), and one on a line is cheaply
compared.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import dist


def directions(like: Tensor, count: int) -> Tensor:
    """[D, count] unit vectors, uniform on the sphere, drawn anew and alike in all processes.

    Args:
        like: [..., D] whose width, type and device they have.
        count: how many.
    """
    drawn = torch.randn(like.shape[-1], count, dtype=like.dtype).to(like.device)
    return F.normalize(dist.from_first(drawn), dim=0)


def epps_pulley(x: Tensor, reach: float = 5.0, points: int = 17) -> Tensor:
    """Epps and Pulley's statistic of each column, which is small where it is from N(0, 1).

    N times the integral, over t from -reach to reach, of |c(t) - exp(-t^2 / 2)|^2 exp(-t^2 / 2),
    where c(t) = mean exp(i t x) is the empirical characteristic function of all processes'
    rows (Balestriero and LeCun, 2025, Section 4.3); by the trapezoidal rule. All of it is even in
    t, so that one half is computed.

    Args:
        x: [..., B, M] of this process; all processes have as many rows.
        reach: largest frequency, above 0.
        points: of the rule in the whole interval, odd, at least 3.

    Returns:
        [..., M].
    """
    t = _frequencies(x, reach, points)
    count = x.shape[-2] * dist.world()
    angles = x[..., None] * t
    parts = torch.stack([angles.cos().sum(-3), angles.sin().sum(-3)])  # [2, ..., M, T]
    cosine, sine = dist.total(parts) / count
    return count * _distance(cosine, sine, t)


def of_zeros(count: int, reach: float = 5.0, points: int = 17) -> float:
    """The statistic of `count` zeros."""
    t = _frequencies(torch.zeros((), dtype=torch.float64), reach, points)
    return count * _distance(torch.ones_like(t), torch.zeros_like(t), t).item()


def _frequencies(like: Tensor, reach: float, points: int) -> Tensor:
    return torch.linspace(0, reach, points // 2 + 1, dtype=like.dtype, device=like.device)


def _distance(cosine: Tensor, sine: Tensor, t: Tensor) -> Tensor:
    """The integral, of the two parts [..., T] of a characteristic function."""
    normal = torch.exp(-t.square() / 2)
    error = (cosine - normal).square() + sine.square()
    return 2 * torch.trapezoid(error * normal, t, dim=-1)


def wasserstein(x: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of each column from N(0, 1) (Wu et al., 2026, Eq. 5).

    The mean squared difference of the sorted values and the normal quantiles at i / (N + 1).

    Args:
        x: [..., N, M], the rows of all processes.

    Returns:
        [..., M].
    """
    count = x.shape[-2]
    places = torch.arange(1, count + 1, dtype=torch.float64) / (count + 1)
    quantiles = math.sqrt(2) * torch.erfinv(2 * places - 1)
    ordered = x.sort(dim=-2).values
    return (ordered - quantiles.to(x)[:, None]).square().mean(-2)
