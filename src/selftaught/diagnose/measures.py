"""Figures that tell whether features and embeddings are worth something, without labels."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def spectrum(x: Tensor) -> Tensor:
    """Singular values of [N, D], the largest first, by the smaller of its two Gram matrices.

    Three to four times cheaper than decomposing x itself; small values lose half their digits,
    which no sum over all of them shows.
    """
    x = x.double()
    gram = x @ x.mT if len(x) < x.shape[1] else x.mT @ x
    return torch.linalg.eigvalsh(gram).clamp(min=0).sqrt().flip(0)


def rank(x: Tensor) -> float:
    """Effective rank of [N, D], from 1 to min(N, D): RankMe (Garrido et al., 2023, Eq. 1).

    The exponential of the entropy of the singular values' shares; 0 for a matrix of zeros.
    """
    return _effective(spectrum(x))


def lidar(x: Tensor, delta: float = 1e-4) -> float:
    """Effective rank of [n, q, D], q views of each of n images: LiDAR (Thilak et al., 2023,
    arXiv 2312.04000, section 4).

    Directions count by how far images differ in them as a multiple of how far views of one image
    do: the eigenvalues of W^-1/2 B W^-1/2, of the covariances between the means of images, B, and
    of views about them, W, with `delta` on its diagonal. From 1 to min(n - 1, D), 0 where all
    images have the same mean.
    """
    x = x.double()
    n, q, width = x.shape
    means = x.mean(1)
    between = (means - means.mean(0)) / math.sqrt(n - 1)
    within = (x - means[:, None]).flatten(0, 1) / math.sqrt(n * (q - 1))
    eye = torch.eye(width, dtype=x.dtype, device=x.device)
    root = torch.linalg.cholesky(within.mT @ within + delta * eye)
    return _effective(spectrum(torch.linalg.solve_triangular(root, between.mT, upper=False)) ** 2)


def _effective(values: Tensor) -> float:
    """The exponential of the entropy of the shares of [N] values; 0 where all are 0."""
    total = values.sum()
    if not total > 0:
        return 0.0
    return math.exp(torch.special.entr(values / total).sum().item())


def slope(x: Tensor) -> float:
    """Exponent a of a covariance spectrum that falls like i^-a, alpha-ReQ (Agrawal et al., 2022).

    About 1 is healthy: far below, the spectrum is that of noise, far above, few dimensions have
    all. A straight line through the logarithms of the eigenvalues of [N, D], the first left out.
    """
    values = spectrum(x - x.mean(0)).square()
    values = values[values > values[0] * 1e-9][1:]
    if len(values) < 3:
        return math.inf
    place = torch.arange(2, len(values) + 2, device=values.device).double().log()
    place = place - place.mean()
    return -((place * values.log()).sum() / place.square().sum()).item()


def spread(x: Tensor) -> float:
    """How far the directions of [N, D] differ: 1 when they point everywhere, 0 when all are one.

    One minus the squared length of their mean: sqrt(D) times the deviation of SimSiam's Figure 2,
    squared.
    """
    return max(0.0, 1 - F.normalize(x.double(), dim=1).mean(0).square().sum().item())


def alignment(a: Tensor, b: Tensor) -> float:
    """Mean squared distance of the directions of the same rows (Wang and Isola, 2020, Eq. 4)."""
    return (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean().item()


def uniformity(x: Tensor) -> float:
    """Log of the mean Gaussian potential of directions (Wang and Isola, 2020, Eq. 5): 0 when all
    [N, D] are the same, about -4 when they cover the sphere. NaN for a single row.
    """
    distances = torch.pdist(F.normalize(x.float(), dim=1)).square()
    return distances.mul(-2).exp().mean().log().item()


def entropy(p: Tensor) -> float:
    """Mean entropy of [..., K] distributions, as a fraction of ln K: 0 one-hot, 1 uniform."""
    return (torch.special.entr(p.double()).sum(-1).mean() / math.log(p.shape[-1])).item()


def largest(p: Tensor) -> float:
    """Share of [N, K] distributions whose most probable entry is the most common one."""
    return (torch.bincount(p.argmax(-1).flatten()).amax() / len(p)).item()


def matched(a: Tensor, b: Tensor) -> float:
    """Share of the rows of [N, D] a that lie nearest to their own row of b, by cosine."""
    similar = F.normalize(a, dim=1) @ F.normalize(b, dim=1).mT
    own = torch.arange(len(a), device=a.device)
    return (similar.argmax(1) == own).double().mean().item()


def related(a: Tensor, b: Tensor) -> float:
    """Probability that a row of [N, D] a is more alike to its own row of b than to another one.

    0.5 when the pairs have nothing in common; ties count half.
    """
    similar = F.normalize(a, dim=1) @ F.normalize(b, dim=1).mT
    own = similar.diagonal()[:, None]
    wins = (own > similar).double() + (own == similar).double() / 2
    return ((wins.sum() - len(a) / 2) / (len(a) * (len(a) - 1))).item()


def related_error(pairs: int) -> float:
    """Standard error of the mean of `related` over so many pairs that have nothing in common: how
    many others a pair is more alike than is uniform then."""
    return 1 / math.sqrt(12 * pairs)


def pulled(gradient: Tensor, goal: Tensor) -> float:
    """Probability that a step against the gradient [N, D] leads an embedding towards its own goal
    [N, D] rather than towards another's: about 1 where the loss means these pairs, 0.5 where it
    means others, 0 where it has the wrong sign. NaN where there is no gradient.
    """
    if not gradient.any():
        return math.nan
    return related(-gradient.double(), goal.double())


def classmates(gradient: Tensor, label: Tensor, least: int = 16) -> float:
    """Probability that directions of rows of [N, D] are more alike for two of one class than for
    two of two classes, about 0.5 where classes, [N], have nothing to do with them. NaN where fewer
    than `least` pairs are of either kind.
    """
    rows = gradient.flatten(1).double().cpu()
    near = F.normalize(rows, dim=1) @ F.normalize(rows, dim=1).mT
    pairs = torch.ones_like(near, dtype=torch.bool).triu(1)
    same = (label[:, None] == label).cpu() & pairs
    mates, others = near[same], near[pairs & ~same]
    if not rows.any() or min(len(mates), len(others)) < least:
        return math.nan
    more, equal = mates[:, None] > others, mates[:, None] == others
    return (more.double() + equal.double() / 2).mean().item()


def thumbnails(images: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 64]: 8 x 8 gray pixels, the mean of each image removed."""
    small = F.adaptive_avg_pool2d(images.float().mean(1, keepdim=True), 8).flatten(1)
    return small - small.mean(1, keepdim=True)


def colors(images: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, 2 C]: mean and deviation of each channel, less those of all images."""
    std, mean = torch.std_mean(images.float(), (2, 3))
    found = torch.cat([mean, std], 1)
    return found - found.mean(0)


def last_improvement(values: list[float], parts: int = 20) -> float:
    """Fraction of a course after which it fell no further, from 0 to 1.

    The course is cut into `parts`, and a part counts as lower when its mean is below all before by
    more than its standard error.
    """
    size = max(1, len(values) // parts)
    last, lowest = 0.0, math.inf
    for start in range(0, len(values) - size + 1, size):
        part = torch.tensor(values[start : start + size], dtype=torch.float64)
        error = part.std().item() / math.sqrt(size) if size > 1 else 0.0
        if part.mean().item() + error < lowest:
            lowest = part.mean().item()
            last = min(1.0, (start + size) / len(values))
    return last
