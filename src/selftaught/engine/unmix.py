"""Un-Mix (Shen et al., 2022), https://arxiv.org/abs/2003.05438: mixed images beside plain ones.

Each image is mixed with that at the other end of the batch, as a whole or by a region, and the
mixture looks for both of its sources, for each by its share.
"""

from collections.abc import Callable
from types import MethodType
from typing import NamedTuple

import torch
from torch import Tensor

from selftaught.errors import UserError
from selftaught.method import Batch, Method, terms_of
from selftaught.parts import unchanged


class Mixed(NamedTuple):
    """images: [B, C, H, W]. share: of image i in row i; the rest is of image B - 1 - i."""

    images: Tensor
    share: float


def mix_whole(x: Tensor, share: float) -> Mixed:
    """Add the images of the reversed batch."""
    return Mixed(share * x + (1 - share) * x.flip(0), share)


def mix_region(x: Tensor, box: tuple[int, int, int, int]) -> Mixed:
    """Paste a region of the images of the reversed batch.

    Args:
        x: [B, C, H, W].
        box: first row, end of rows, first column, end of columns.
    """
    top, bottom, left, right = box
    images = x.clone()
    images[:, :, top:bottom, left:right] = x.flip(0)[:, :, top:bottom, left:right]
    area = (bottom - top) * (right - left)
    return Mixed(images, 1 - area / (x.shape[2] * x.shape[3]))


def draw_box(height: int, width: int, share: float) -> tuple[int, int, int, int]:
    """A box of 1 - share of the area, around a random pixel, cut at the borders."""
    side = (1 - share) ** 0.5
    bounds = []
    for length in (height, width):
        half, middle = int(length * side) // 2, int(torch.randint(length, ()))
        bounds += [max(0, middle - half), min(length, middle + half)]
    top, bottom, left, right = bounds
    return top, bottom, left, right


def mix(x: Tensor, whole: float) -> Mixed:
    """As a whole with chance `whole`, else by a region; shares are uniform, Beta(1, 1)."""
    chance, share = torch.rand(2, dtype=torch.float64).tolist()
    if chance < whole:
        return mix_whole(x, share)
    height, width = x.shape[2:]
    return mix_region(x, draw_box(height, width, share))


def mixed_loss(method: Method, mixed: Mixed, batch: Batch) -> Tensor:
    """Loss of mixed images that look for their sources, which are the plain views of `batch`.

    The view `insight.query` gives way to the mixture, unless the method has a function of its own
    (`insight.mixed`). What is remembered of a step is that of plain images: queues, centers and the
    like are left as they are.
    """
    if method.insight.mixed:
        return getattr(method, method.insight.mixed)(*mixed, batch)
    total = mixed.images.new_zeros(())
    for images, weight in ((mixed.images, mixed.share), (mixed.images.flip(0), 1 - mixed.share)):
        views = list(batch.views)
        views[method.insight.query] = images
        with unchanged(method):
            terms = terms_of(type(method).loss(method, batch._replace(views=views)))
        total = total + weight * sum(terms.values())
    return total


def with_mixed(method: Method, whole: float) -> Callable[[Batch], dict[str, Tensor]]:
    """The loss of `method`, with a term `mixed` for mixtures of one view.

    Args:
        method: contrastive or distillation, whose views are a list of images.
        whole: chance that a batch's images are mixed as wholes: 0.5 on CIFAR, 0 on ImageNet.
    """

    def loss(method: Method, batch: Batch) -> dict[str, Tensor]:
        mixed = mix(query(method, batch), whole)
        before = [p._version for p in method.parameters()]
        extra = mixed_loss(method, mixed, batch)
        if before != [p._version for p in method.parameters()]:
            raise UserError(
                f"{type(method).__name__} changes its weights while it computes its loss, so it "
                "cannot be computed of mixtures too: leave out --unmix"
            )
        return {**terms_of(type(method).loss(method, batch)), "mixed": extra}

    return MethodType(loss, method)  # which is what Fabric takes for a method


def query(method: Method, batch: Batch) -> Tensor:
    """The view that is mixed; UserError where the views are not two images or more."""
    views = batch.views
    if isinstance(views, list | tuple) and len(views) > 1 and all(_is_image(v) for v in views):
        return views[method.insight.query]
    raise UserError(
        f"Un-Mix mixes one view of an image, which then looks for another; the views of "
        f"{type(method).__name__} are not two or more images: leave out --unmix"
    )


def _is_image(view: object) -> bool:
    return isinstance(view, Tensor) and view.ndim == 4 and view.is_floating_point()
