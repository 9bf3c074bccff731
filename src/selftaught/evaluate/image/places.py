"""Whether local features tell what is where: masks from a linear layer, and from clusters."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.errors import UserError
from selftaught.evaluate.classifiers import RATES, descend, predictions
from selftaught.evaluate.clusters import kmeans
from selftaught.evaluate.scores import Score, draws, standardized

CELLS = 50_000
"""Training cells that the linear layer and the clusters are fitted on, at most; drawn by seed."""

CLASSES = 256
"""More different values than this are brightness, not classes."""


def segment(
    train: Any,
    test: Any,
    *,
    grid: tuple[int, int] | None = None,
    ignore: Sequence[int] = (255,),
    seed: int = 0,
) -> tuple[Score, Score]:
    """Segmentation from frozen local features: by a linear layer, and by k-means without labels.

    linear: one layer from features to classes, trained as in `linear` on cells and the class that
    most of their pixels have, the learning rate chosen on a fifth of the training images; its
    outputs are enlarged to the mask (bilinear). k-means: as many clusters as classes, of training
    cells of unit length; matched to classes one to one on the test pixels so that most are right
    (Kuhn, 1955), as in IIC and STEGO. Both: mean over classes of intersection over union, summed
    over all test pixels.

    Args:
        train, test: pairs of local features [n, N, L] and masks [n, H, W] of whole numbers.
        grid: rows and columns of the N cells; by default as many.
        ignore: values of pixels that count for nothing.
        seed: of the classifier, of the cells and of the centroids.

    Raises:
        UserError: shapes do not fit, or masks do not hold two classes.
    """
    start = time.perf_counter()
    task = _Task.of(train, test, grid, ignore)
    x, y, image = task.cells(seed)
    held = image % 5 == 4
    z, test_z = standardized(x, task.test_x.flatten(0, 1))
    rate, how = RATES[-4], "too few training images to choose"
    if held.any() and not held.all():
        heads = descend(z[~held], y[~held], RATES, len(task.codes), seed)
        right = (predictions(z[held], *heads) == y[held, None]).sum(0).tolist()
        _, rate = max(zip(right, RATES))
        how = f"best of {len(RATES)} on a fifth of the training images"
    weight, bias = descend(z, y, (rate,), len(task.codes), seed)
    outputs = (test_z @ weight[:, 0] + bias[0]).unflatten(0, task.test_x.shape[:2])
    shape = task.test_masks.shape[1:]
    confusion = np.stack(
        [task.confusion(n, _enlarged(each, task.grid, shape)) for n, each in enumerate(outputs)]
    )
    linear = task.score(
        "segment linear", confusion, f"softmax regression, learning rate {rate:g}, {how}", start
    )
    start = time.perf_counter()
    k = len(task.codes)
    model = kmeans(F.normalize(x, dim=1).numpy(), k, 3, seed)
    found = model.predict(F.normalize(task.test_x.flatten(0, 1), dim=1).numpy())
    confusion = np.stack(
        [
            task.confusion(n, _nearest(each, task.grid, shape))
            for n, each in enumerate(found.reshape(len(task.test_x), -1))
        ]
    )
    return linear, task.score(
        "segment k-means",
        matched(confusion),
        f"k-means, k={k}, on unit-length cells, clusters matched to classes on the test pixels",
        start,
    )


def segments(
    found: Any, masks: Any, *, ignore: Sequence[int] = (255,), name: str = "segment clusters"
) -> Score:
    """Segmentation by clusters that another found, such as STEGO's; scored as k-means above.

    Args:
        found: [n, H, W] cluster of each pixel, from 0 on.
        masks: [n, H, W] whole numbers. ignore: those that count for nothing.
        name: of the score.

    Raises:
        UserError: shapes do not fit, or masks do not hold two classes.
    """
    start = time.perf_counter()
    found, masks = np.asarray(found), np.asarray(masks)
    if found.ndim != 3 or found.shape != masks.shape:
        raise UserError(
            f"clusters and masks must both be [n, H, W], got {list(found.shape)} and "
            f"{list(masks.shape)}"
        )
    codes = _classes(masks, ignore)
    side = max(len(codes), int(found.max()) + 1)
    truth = _coded(masks, codes)
    confusion = np.stack([_confusion(t, f, side) for t, f in zip(truth, found)])
    how = f"{int(found.max()) + 1} clusters matched to classes on these pixels"
    return iou(name, matched(confusion), codes, f"{len(masks)} images; {how}", start)


def matched(confusion: np.ndarray) -> np.ndarray:
    """Clusters of counts [..., true C, cluster C] in the order of the classes that they match.

    One to one, so that most are right (Kuhn, 1955), in the sum over all other axes.
    """
    total = confusion.reshape(-1, *confusion.shape[-2:]).sum(0)
    clusters, classes = scipy.optimize.linear_sum_assignment(total.T, maximize=True)
    return confusion[..., clusters[np.argsort(classes)]]


def mean_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, [..., C] from counts [..., true C, predicted C].

    NaN for classes that are nowhere in truth: their mean would be over what chance predicts.
    """
    both = np.diagonal(confusion, axis1=-2, axis2=-1).astype(float)
    truth, found = confusion.sum(-1), confusion.sum(-2)
    return np.where(truth > 0, both / np.maximum(1, truth + found - both), np.nan)


@dataclass(frozen=True)
class _Task:
    train_x: Tensor  # [n, N, L]
    train_masks: np.ndarray  # [n, H, W], positions in `codes`, -1 for what counts for nothing
    test_x: Tensor
    test_masks: np.ndarray
    codes: np.ndarray
    grid: tuple[int, int]

    @staticmethod
    def of(train: Any, test: Any, grid: tuple[int, int] | None, ignore: Sequence[int]) -> "_Task":
        sides = []
        for which, (local, masks) in (("training", train), ("test", test)):
            x, m = torch.as_tensor(local).float().cpu(), np.asarray(masks)
            if x.dim() != 3 or m.ndim != 3 or len(x) != len(m):
                raise UserError(
                    f"{which} features must be [n, N, L] and masks [n, H, W], got "
                    f"{list(x.shape)} and {list(m.shape)}"
                )
            sides.append((x, m))
        (x, masks), (test_x, test_masks) = sides
        side = round(x.shape[1] ** 0.5)
        grid = grid or (side, side)
        if grid[0] * grid[1] != x.shape[1] or x.shape[1:] != test_x.shape[1:]:
            raise UserError(
                f"features {list(x.shape)} and {list(test_x.shape)} are not both of a grid of "
                f"{grid[0]} x {grid[1]} cells and of one width"
            )
        codes = _classes(masks, ignore)
        if not np.isin(test_masks, codes).any():
            raise UserError(
                f"no pixel of the test masks is of one of the {len(codes)} classes of the training "
                "masks: are these the masks that belong together?"
            )
        return _Task(x, _coded(masks, codes), test_x, _coded(test_masks, codes), codes, grid)

    def cells(self, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Features [M, L], class [M] and image [M] of at most `CELLS` cells that have a class."""
        votes = np.stack([_votes(m, self.grid, len(self.codes)) for m in self.train_masks])
        where = torch.from_numpy(np.argwhere(votes.sum(-1) > 0))
        if len(where) > CELLS:
            order = np.random.default_rng(seed).permutation(len(where))[:CELLS]
            where = where[torch.from_numpy(np.sort(order))]
        image, cell = where.T
        y = torch.from_numpy(votes.argmax(-1))[image, cell]
        return self.train_x[image, cell], y, image

    def confusion(self, n: int, predicted: np.ndarray) -> np.ndarray:
        """Counts [true, predicted] of the pixels of test image n."""
        return _confusion(self.test_masks[n], predicted, len(self.codes))

    def score(self, name: str, confusion: np.ndarray, how: str, start: float) -> Score:
        """Of the counts [n, true, predicted] of all test images, which are what is resampled."""
        shape = "x".join(map(str, self.test_masks.shape[1:]))
        protocol = (
            f"{len(self.train_x)} train, {len(confusion)} test images, {len(self.codes)} classes, "
            f"{self.grid[0]}x{self.grid[1]} cells of plain views, masks {shape}; {how}"
        )
        return iou(name, confusion, self.codes, protocol, start)


def iou(
    name: str,
    confusion: np.ndarray,
    codes: np.ndarray,
    protocol: str,
    start: float,
    count: int | None = None,
) -> Score:
    """The mean intersection over union of all test samples together.

    Args:
        name: of the score.
        confusion: counts [n, true, predicted] of n parts of the test, which are resampled for the
            interval.
        codes: of the classes.
        protocol: how it was made.
        start: time on the clock when that began.
        count: of test samples, where they are not the parts.
    """
    each = mean_iou(confusion.sum(0))
    resampled = [
        np.nanmean(mean_iou(np.tensordot(np.bincount(r, minlength=len(confusion)), confusion, 1)))
        for r in draws(len(confusion))
    ]
    return Score(
        name,
        100 * float(np.nanmean(each)),
        count or len(confusion),
        protocol,
        time.perf_counter() - start,
        measure="mean intersection over union",
        resampled=100 * np.array(resampled),
        parts={f"class {c}": 100 * float(v) for c, v in zip(codes, each) if np.isfinite(v)},
    )


def _classes(masks: np.ndarray, ignore: Sequence[int]) -> np.ndarray:
    codes = np.setdiff1d(np.unique(masks), ignore)
    if not 2 <= len(codes) <= CLASSES:
        raise UserError(
            f"the masks hold {len(codes)} classes ({', '.join(map(str, codes[:5]))}"
            f"{', ...' if len(codes) > 5 else ''}); between 2 and {CLASSES} can be told apart: "
            "are these masks of classes, and is what counts for nothing named with --ignore?"
        )
    return codes


def _confusion(truth: np.ndarray, found: np.ndarray, count: int) -> np.ndarray:
    """Counts [count, count] of the pixels of an image, by what is true and what was found."""
    seen = truth >= 0
    joint = truth[seen] * count + found[seen]
    return np.bincount(joint, minlength=count * count).reshape(count, count)


def _coded(masks: np.ndarray, codes: np.ndarray) -> np.ndarray:
    where = np.searchsorted(codes, masks).clip(max=len(codes) - 1)
    return np.where(codes[where] == masks, where, -1)


def _places(side: int, cells: int) -> np.ndarray:
    """The cell of each of `side` pixels."""
    return np.arange(side) * cells // side


def _votes(mask: np.ndarray, grid: tuple[int, int], classes: int) -> np.ndarray:
    """[N, C] numbers of pixels of each class in each cell."""
    rows, columns = (_places(s, g) for s, g in zip(mask.shape, grid))
    cell = rows[:, None] * grid[1] + columns[None]
    seen = mask >= 0
    joint = cell[seen] * classes + mask[seen]
    return np.bincount(joint, minlength=grid[0] * grid[1] * classes).reshape(-1, classes)


def _enlarged(scores: Tensor, grid: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """[N, C] -> [H, W], the class with the highest output, outputs enlarged first."""
    maps = scores.T.unflatten(1, grid)[None]
    large = F.interpolate(maps, shape, mode="bilinear", align_corners=False)
    return large[0].argmax(0).numpy()


def _nearest(found: np.ndarray, grid: tuple[int, int], shape: tuple[int, ...]) -> np.ndarray:
    """[N] -> [H, W]."""
    rows, columns = (_places(s, g) for s, g in zip(shape, grid))
    return found.reshape(grid)[rows][:, columns]
