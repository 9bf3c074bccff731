"""The papers' recipes, by name. The method decides; a number here is the paper's unless it says so.

All return a pipeline `(image, rng) -> list of uint8 arrays [C, size, size]` (`plain` and `tiles`:
one array).
"""

from dataclasses import replace
from typing import Literal

from selftaught.augment.image.cells import Tiles
from selftaught.augment.image.view import View
from selftaught.augment.image.views import Plain, Views
from selftaught.sides import Size, both, one, short

Range = tuple[float, float]


def simclr(
    size: Size,
    strength: float = 1.0,
    blur: float = 0.5,
    scale: Range = (0.08, 1.0),
    boxes: bool = False,
) -> Views:
    """Two views of SimCLR (Chen et al. 2020, https://arxiv.org/abs/2002.05709, appendix A).

    The blur is cut at a tenth of the image, as in the paper's code. For 32-pixel images the paper
    takes strength 0.5 and no blur.

    Args:
        size: Height and width of a view, in pixels.
        strength: Of the color jitter; 1 is (0.8, 0.8, 0.8, 0.2).
        blur: Probability of the blur.
        scale: Area of the crops, as fractions of the image.
        boxes: Also return where the views came from.
    """
    view = View(
        size,
        scale,
        jitter=(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength),
        gray=0.2,
        blur=blur,
        blur_radius=max(1, short(size) // 20),
    )
    return Views((view, view), boxes)


def moco(size: Size, scale: Range = (0.2, 1.0), blur: float = 0.5, boxes: bool = False) -> Views:
    """Two views of MoCo v2 (Chen et al. 2020, https://arxiv.org/abs/2003.04297), and of SimSiam.

    Args:
        size: Height and width of a view, in pixels.
        scale: Area of the crops, as fractions of the image.
        blur: Probability of the blur; SimSiam takes 0 on 32-pixel images.
        boxes: Also return where the views came from.
    """
    view = View(size, scale, jitter=(0.4, 0.4, 0.4, 0.1), gray=0.2, blur=blur)
    return Views((view, view), boxes)


simsiam = moco
"""SimSiam (Chen and He 2021, https://arxiv.org/abs/2011.10566) uses the views of MoCo v2."""


def moco_v1(size: Size, scale: Range = (0.2, 1.0)) -> Views:
    """Two views of MoCo v1 (He et al. 2020) and of InstDisc (Wu et al. 2018): always jittered.

    Args:
        size: Height and width of a view, in pixels.
        scale: Area of the crops, as fractions of the image.
    """
    view = View(size, scale, jitter=(0.4, 0.4, 0.4, 0.4), jitter_p=1.0, gray=0.2)
    return Views((view, view))


def byol(
    size: Size,
    scale: Range = (0.08, 1.0),
    interpolation: Literal["bilinear", "bicubic"] = "bicubic",
    blur: Range = (1.0, 0.1),
    solarize: Range = (0.0, 0.2),
    boxes: bool = False,
) -> Views:
    """Two unlike views of BYOL (Grill et al. 2020, https://arxiv.org/abs/2006.07733, appendix B).

    Barlow Twins, VICReg and MoCo v3 use them too.

    Args:
        size: Height and width of a view, in pixels.
        scale: Area of the crops, as fractions of the image.
        interpolation: How the crops are resized.
        blur: Probabilities of the blur in the first and second view.
        solarize: Probabilities of inverting bright pixels in the first and second view.
        boxes: Also return where the views came from.
    """
    view = View(size, scale, interpolation=interpolation, jitter=(0.4, 0.4, 0.2, 0.1), gray=0.2)
    first, second = (replace(view, blur=b, solarize=s) for b, s in zip(blur, solarize))
    return Views((first, second), boxes)


def multicrop(
    size: Size,
    local_size: Size = 96,
    local_crops: int = 8,
    global_scale: Range = (0.4, 1.0),
    local_scale: Range = (0.05, 0.4),
    family: Literal["dino", "swav"] = "dino",
    blur: tuple[float, float, float] | None = None,
    solarize: float | None = None,
) -> Views:
    """Two large views, then `local_crops` small ones.

    "dino" (Caron et al. 2021, https://arxiv.org/abs/2104.14294): bicubic, jitter as BYOL, the
    second large view solarized at times. "swav" (Caron et al. 2020,
    https://arxiv.org/abs/2006.09882): bilinear, jitter as SimCLR, all views alike; the paper takes
    6 local crops and scales (0.14, 1) and (0.05, 0.14).

    Args:
        size: Height and width of the two global views, in pixels.
        local_size: Height and width of the local views, in pixels.
        local_crops: Number of local views.
        global_scale: Area of the global crops, as fractions of the image.
        local_scale: Area of the local crops, as fractions of the image.
        family: Whose colors, interpolation, blur and solarization.
        blur: Probabilities in the first, the second and the local views; none for the family's.
        solarize: Probability in the second view; none for the family's.
    """
    if family == "dino":
        first, second = byol(size, global_scale).views
    else:
        first, second = simclr(size, scale=global_scale).views
        first = second = replace(first, blur_radius=None)
    local = replace(first, size=local_size, scale=local_scale, blur=0.5, solarize=0.0)
    if blur is not None:
        first, second, local = (replace(v, blur=p) for v, p in zip((first, second, local), blur))
    if solarize is not None:
        second = replace(second, solarize=solarize)
    return Views((first, second) + (local,) * local_crops)


def crop(
    size: Size,
    scale: Range = (0.2, 1.0),
    ratio: Range = (3 / 4, 4 / 3),
    flip: float = 0.5,
    interpolation: Literal["bilinear", "bicubic"] = "bicubic",
) -> Views:
    """One crop without color changes: MAE as it stands; I-JEPA with scale (0.3, 1) and no flip.

    Args:
        size: Height and width of the view, in pixels.
        scale: Area of the crop, as fractions of the image.
        ratio: Smallest and largest aspect ratio of the crop.
        flip: Probability of a horizontal flip.
        interpolation: How the crop is resized.
    """
    return Views((View(size, scale, ratio, interpolation, flip),))


def plain(size: Size) -> Plain:
    """The view for evaluation: resized to cover 256/224 of `size`, center crop (bilinear).

    Of a square that is the short side. Below 64 pixels nothing is cut off but the ends of the long
    side.

    Args:
        size: Height and width of the view, in pixels.
    """
    if short(size) < 64:
        return Plain(size, size)
    return Plain(size, one([round(side * 256 / 224) for side in both(size)]))


def tiles(
    size: Size,
    grid: int = 3,
    scale: Range = (0.6, 1.0),
    gray: float = 0.66,
    flip: float = 0.5,
    channel_shift: int = 0,
) -> Tiles:
    """A jigsaw (Noroozi and Favaro 2016): at size 225, 64-pixel tiles from 85-pixel cells.

    Args:
        size: Pixels that fix all others, in the paper's proportion: cell 85/225, tile 64/225.
        grid: Cells along a side.
        scale: Area of the crop that is cut up, as fractions of the image (PIRL's value).
        gray: Probability that the whole puzzle is gray (0.5 in the paper, 0.66 in VISSL).
        flip: Probability of a horizontal flip.
        channel_shift: Largest shift of single channels against each other, in pixels (paper: 2).
    """
    whole, tile = (
        one([times * round(side * part / 225 * 3 / grid) for side in both(size)])
        for times, part in ((grid, 85), (1, 64))
    )
    return Tiles(View(whole, scale, flip=flip, gray=gray), grid, tile, channel_shift)
