"""What similarities of images to their neighbors tell: from where on two are copies, which stand
apart. Arrays in, arrays out.
"""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

AROUND = 20
"""Nearest others of each image by which a threshold is calibrated."""
FEW = 50
"""Below so many images nothing can be told of how their features lie."""
SIDE = 16
"""Of small pictures, in pixels."""
ALIKE = 0.985
"""Correlation of small pictures from which on neighbors are copies."""
MIDST = 0.05
"""Share of images that may lie in groups of more than 10 copies."""
COLLAPSED = 0.01
"""Median distance of unit vectors below which they are all the same."""


def bars(similarity: np.ndarray) -> np.ndarray | None:
    """The similarity from which on others are closer to each image than neighbors come by chance.

    Around an image, unit vectors are taken to lie evenly in as many dimensions m as the distances
    to the 10th to 20th neighbor grow by: their logarithms' spacings, each times its rank, are
    exponential with mean 1 / m (Levina and Bickel, 2004). Of 9 evenly in a ball of radius r, the
    distance to the 10th, the nearest is closer than t with a probability of about 9 (t / r)^m,
    which is to be 1 / N: one of N images by chance. The nearest neighbors themselves, which may be
    copies, have no say.

    Args:
        similarity: [N, 20] cosines to the nearest others, falling.

    Returns:
        [N] cosines; None where the vectors hardly differ, and nothing can be told.
    """
    count, around = similarity.shape
    half = around // 2
    distance = np.sqrt(2 * (1 - similarity.astype(np.float64)).clip(0))
    radius = distance[:, half - 1]
    if np.median(radius) < COLLAPSED:
        return None
    distance = distance.clip(1e-4)
    steps = np.log(distance[:, half:] / distance[:, half - 1 : -1])
    spacing = float(np.mean(steps * np.arange(half, around)))  # 1 / m
    share = ((half - 1) * count) ** -spacing
    # in the midst of more than 10 copies all are near, and are copies all the same
    closer = share * np.maximum(radius, np.quantile(radius, MIDST))
    return 1 - closer**2 / 2


def alike(small: np.ndarray, others: np.ndarray, side: int) -> np.ndarray:
    """Correlation of what is to be seen in small pictures, or in their mirror images if higher.

    Args:
        small: [n, 256] gray values, 16 x 16; others: [n, k, 256].
        side: of the views that they were made of. Where the middle of an image falls between two
            pixels, the view of its mirror image is a pixel off.

    Returns:
        [n, k] from -1 to 1.
    """
    mirrored = others.reshape(*others.shape[:-1], SIDE, SIDE)[..., ::-1].astype(np.float32)
    off = mirrored.copy()
    off[..., 1:] += SIDE / side * (mirrored[..., :-1] - mirrored[..., 1:])
    ours = _details(small)
    found = [
        np.einsum("nd,nkd->nk", ours, _details(theirs.reshape(others.shape)))
        for theirs in (others, mirrored, off)
    ]
    return np.max(found, axis=0)


def _details(small: np.ndarray) -> np.ndarray:
    """What is left without the light, a surface of degree 2, which many pictures share; of length
    1, or less where that is below a gray value a pixel."""
    place = np.linspace(-1, 1, SIDE)
    x, y = (axis.reshape(-1) for axis in np.meshgrid(place, place))
    light = np.linalg.qr(np.stack([np.ones(SIDE**2), x, y, x * x, x * y, y * y], 1))[0]
    light = light.astype(np.float32)
    left = small.astype(np.float32)
    left -= (left @ light) @ light.T
    return left / np.maximum(np.linalg.norm(left, axis=-1, keepdims=True), SIDE)


def groups(count: int, pairs: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Positions that pairs connect, in groups of two or more, each in order.

    Args:
        count: of positions.
        pairs: arrays [P, 2].
    """
    joined = np.concatenate([np.empty((0, 2), np.int64), *pairs])
    graph = coo_matrix((np.ones(len(joined), bool), (joined[:, 0], joined[:, 1])), (count, count))
    of = connected_components(graph, directed=False)[1]
    order = np.argsort(of, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(of[order])) + 1)
    return [part for part in parts if len(part) > 1]
