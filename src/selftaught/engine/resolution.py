"""The last part of a training at a higher resolution (Touvron et al., 2019; DINOv2)."""

import re
from typing import NamedTuple, cast

import torch

from selftaught.backbones import Encoder
from selftaught.errors import SelftaughtError, UserError
from selftaught.method import Method, square_enough
from selftaught.sides import Size, both, one, told_size


class Phase(NamedTuple):
    """size: of the images in pixels, a side or (rows, columns). first: step, counted from 0, from
    which on they have it."""

    size: Size
    first: int


def phase(method: Method, asked: str, steps: int) -> Phase:
    """What `asked`, such as "518@0.02", means for a training of `steps` steps.

    Raises:
        UserError: it is no such phase, or the backbone or the method cannot take the size.
    """
    found = re.fullmatch(r"(\d+)(?:x(\d+))?@(\d*\.?\d+)", asked.strip())
    share = float(found[3]) if found else 0.0
    if not found or not 0 < share < 1:
        raise UserError(
            f"resolution_phase={asked!r} must be SIZE@SHARE with a share of training between 0 and "
            "1, such as 518@0.02 or 128x1024@0.02"
        )
    size = one([int(found[1]), int(found[2] or found[1])])
    image = cast(Encoder, method.encoder)
    first = steps - round(share * steps)
    if first >= steps:
        raise UserError(
            f"resolution_phase={asked!r} is less than one of the {steps} steps; take a share of "
            f"at least {1 / steps:.2g}"
        )
    try:
        square_enough(type(method), size)
        method.views(size)
        _try(image, size)
    except (SelftaughtError, AssertionError, RuntimeError, ValueError) as error:
        raise UserError(
            f"resolution_phase={asked!r}: {image.name} of {told_size(image.size)} px cannot take "
            f"images of {told_size(size)} px ({error}); plain ViTs, Swins and ResNets can, at "
            "multiples of their patches"
        ) from error
    return Phase(size, first)


@torch.no_grad()
def _try(image: Encoder, size: Size) -> None:
    modes = {module: module.training for module in image.modules()}
    weight = next(image.parameters())
    try:
        image.eval()(torch.zeros(1, image.channels, *both(size)).to(weight))
    finally:
        for module, training in modes.items():
            module.training = training
