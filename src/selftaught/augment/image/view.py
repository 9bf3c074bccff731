"""A view of an image, declared: a small frozen description that any engine can execute.

A `View` says what a paper's recipe says. `View.params` maps a fixed number of uniform draws to
plain numbers (`Params`), and `render.render_view` carries these out with torchvision's meaning.
Both steps are pure, so another engine can draw a whole batch at once and agree with this one.

Operations run in the order of the SimCLR and BYOL papers: crop and resize, flips and turns, color
jitter, gray, blur, solarize; and last, one rectangle is erased.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, NamedTuple

from selftaught.errors import UserError
from selftaught.sides import Sides, Size, both

DRAWS = 33
"""Uniform draws in [0, 1) that one view consumes, whatever its settings.

A draw has its slot, used or not, so changing one setting of a view moves no other draw:
0-9 areas and 10-19 log aspect ratios of ten attempts at a crop, 20 top, 21 left, 22 flip,
23 jitter or not, 24 order of the jitter, 25-28 its factors (brightness, contrast, saturation,
hue), 29 gray, 30 blur or not, 31 sigma, 32 solarize.

What came later draws from the low halves of these numbers (`low`), which are as random and which
nothing else looks at: of 22 the vertical flip, of 23 quarter turns, of 32 whether a rectangle is
erased, of 0-9 and 10-19 areas and log aspect ratios of ten attempts at it, of 20 its top, of 21 its
left.
"""

FINE = 1 << 26
"""Steps of the high half of a draw, of 53 bits; the low half is what lies between two of them."""

ERASED = (0.02, 0.33)
"""Smallest and largest area of the erased rectangle, as fractions of the view (Zhong et al. 2017,
https://arxiv.org/abs/1708.04896, and torchvision's RandomErasing)."""
ERASED_RATIO = (0.3, 3.3)
"""Smallest and largest aspect ratio (height / width) of it."""

_ORDERS = tuple(permutations(range(4)))


class Params(NamedTuple):
    """One view, drawn: everything that is left to do, in plain numbers.

    `flip` mirrors the crop left to right, `vertical` top to bottom, and `transpose` then changes
    rows and columns: a quarter turn is made of these. `order` lists the color operations to apply:
    0 brightness, 1 contrast, 2 saturation, 3 hue; it is empty without jitter. `factors` are theirs:
    multipliers for the first three, a turn of the color circle in [-0.5, 0.5] for hue. `sigma` is 0
    without blur, else in output pixels. `erased` is top, left, height and width of the rectangle
    that is erased, in output pixels; its height is 0 without one.
    """

    top: int
    left: int
    height: int
    width: int
    flip: bool
    order: tuple[int, ...]
    factors: tuple[float, float, float, float]
    gray: bool
    sigma: float
    solarize: bool
    vertical: bool = False
    transpose: bool = False
    erased: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def turned(self) -> int:
        """How the crop was flipped and turned, as one number: 1 if `flip`, + 2 if `vertical`, + 4
        if `transpose`."""
        return self.flip + 2 * self.vertical + 4 * self.transpose

    def box(self, height: int, width: int) -> tuple[float, float, float, float, float]:
        """Left, top, right, bottom as fractions of an image of this size, and `turned`."""
        return (
            self.left / width,
            self.top / height,
            (self.left + self.width) / width,
            (self.top + self.height) / height,
            float(self.turned),
        )

    def corners(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom of the crop, those swapped that a flip has swapped.

        They are the centers of the outermost pixels, 0 and 1 those of an image of this size; so
        PixPro (Xie et al. 2021) has them. They cannot say what is transposed.
        """
        x, y = max(1, width - 1), max(1, height - 1)
        across = self.left / x, (self.left + self.width - 1) / x
        down = self.top / y, (self.top + self.height - 1) / y
        left, right = across[::-1] if self.flip else across
        top, bottom = down[::-1] if self.vertical else down
        return left, top, right, bottom


@dataclass(frozen=True)
class View:
    """One view of an image: a random resized crop and what follows it.

    Args:
        size: Height and width of the view, in pixels: one number for both, or (rows, columns).
        scale: Smallest and largest area of the crop, as fractions of the image.
        ratio: Smallest and largest aspect ratio (width / height) of the crop, as a multiple of the
            view's own: at 1 nothing is squeezed.
        interpolation: How the crop is resized; always antialiased.
        flip: Probability of a horizontal flip.
        jitter: Strengths of brightness, contrast, saturation and hue (hue at most 0.5).
        jitter_p: Probability that the jitter happens.
        gray: Probability of dropping the colors.
        blur: Probability of a Gaussian blur.
        blur_sigma: Smallest and largest standard deviation of the blur, in output pixels.
        blur_radius: Half-width in pixels at which the Gaussian is cut; None leaves it whole.
        solarize: Probability of inverting the pixels from level 128 on.
        vertical: Probability of a vertical flip.
        turns: Whether the view is turned by 0, 90, 180 or 270 degrees, all equally likely.
        erase: Probability of erasing a rectangle (`ERASED`), as torchvision's RandomErasing does.
        fill: Levels that it is filled with: one, or one a channel. Those of the mean that images
            are normalized with are what zero is after normalization.

    Raises:
        UserError: A value is out of its range.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.8
    gray: float = 0.0
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_radius: int | None = None
    solarize: float = 0.0
    vertical: float = 0.0
    turns: bool = False
    erase: float = 0.0
    fill: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        def need(good: bool, name: str, what: str) -> None:
            if not good:
                raise UserError(f"View({name}={getattr(self, name)!r}): {name} must be {what}")

        need(min(self.shape) >= 1, "size", "at least 1 pixel")
        square = self.shape[0] == self.shape[1]
        need(square or not self.turns, "turns", "off in views that are no squares")
        need(0 < self.scale[0] <= self.scale[1] <= 1, "scale", "a pair 0 < low <= high <= 1")
        for name in ("ratio", "blur_sigma"):
            low, high = getattr(self, name)
            need(0 < low <= high < math.inf, name, "a pair 0 < low <= high")
        names = ("bilinear", "bicubic")
        need(self.interpolation in names, "interpolation", "bilinear or bicubic")
        for name in ("flip", "jitter_p", "gray", "blur", "solarize", "vertical", "erase"):
            need(0 <= getattr(self, name) <= 1, name, "a probability, from 0 to 1")
        good = len(self.jitter) == 4 and min(self.jitter) >= 0 and self.jitter[3] <= 0.5
        need(good, "jitter", "four strengths from 0 on, the last (hue) at most 0.5")
        need(self.blur_radius is None or self.blur_radius >= 0, "blur_radius", "None or from 0 on")
        good = 1 <= len(self.fill) <= 1024 and all(0 <= level <= 255 for level in self.fill)
        need(good, "fill", "levels from 0 to 255, one or one a channel")

    @property
    def shape(self) -> Sides:
        """Rows and columns of the view."""
        return both(self.size)

    def params(self, uniform: Sequence[float], height: int, width: int) -> Params:
        """Map `DRAWS` uniform draws in [0, 1) to the parameters of this view.

        The distributions are those of torchvision's RandomResizedCrop (ten attempts, then the
        central crop whose ratio comes closest) and ColorJitter.

        Args:
            uniform: `DRAWS` numbers in [0, 1); see `DRAWS` for their meaning.
            height: Height of the image, in pixels.
            width: Width of the image, in pixels.
        """
        u = uniform
        top, left, h, w = self._crop(u, height, width)
        order, factors = (), (1.0, 1.0, 1.0, 0.0)
        if u[23] < self.jitter_p:
            order = tuple(k for k in _ORDERS[int(u[24] * 24)] if self.jitter[k] > 0)
            b, c, s = (_between(max(0.0, 1 - x), 1 + x, v) for x, v in zip(self.jitter, u[25:28]))
            factors = (b, c, s, _between(-self.jitter[3], self.jitter[3], u[28]))
        quarters = int(low(u[23]) * 4) if self.turns else 0
        return Params(
            top=top,
            left=left,
            height=h,
            width=w,
            flip=(u[22] < self.flip) != (quarters in (1, 2)),
            order=order,
            factors=factors,
            gray=u[29] < self.gray,
            sigma=_between(*self.blur_sigma, u[31]) if u[30] < self.blur else 0.0,
            solarize=u[32] < self.solarize,
            vertical=(low(u[22]) < self.vertical) != (quarters in (2, 3)),
            transpose=quarters in (1, 3),
            erased=self._rectangle(u) if low(u[32]) < self.erase else (0, 0, 0, 0),
        )

    @property
    def geometric(self) -> bool:
        """Whether it moves pixels and never changes their colors."""
        jitters = self.jitter_p > 0 and any(self.jitter)
        return not (jitters or self.gray or self.blur or self.solarize or self.erase)

    def _crop(self, u: Sequence[float], height: int, width: int) -> tuple[int, int, int, int]:
        area, shape = height * width, self.shape[1] / self.shape[0]
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for k in range(10):
            target = area * _between(*self.scale, u[k])
            ratio = math.exp(_between(low, high, u[10 + k])) * shape
            w, h = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < w <= width and 0 < h <= height:
                return int(u[20] * (height - h + 1)), int(u[21] * (width - w + 1)), h, w
        h = max(1, min(height, round(width / (self.ratio[0] * shape))))
        w = max(1, min(width, round(height * (self.ratio[1] * shape))))
        return (height - h) // 2, (width - w) // 2, h, w

    def _rectangle(self, u: Sequence[float]) -> tuple[int, int, int, int]:
        narrow, wide = map(math.log, ERASED_RATIO)
        rows, columns = self.shape
        for k in range(10):
            target = rows * columns * _between(*ERASED, low(u[k]))
            ratio = math.exp(_between(narrow, wide, low(u[10 + k])))
            h, w = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if 0 < h < rows and 0 < w < columns:
                top = int(low(u[20]) * (rows - h + 1))
                return top, int(low(u[21]) * (columns - w + 1)), h, w
        return 0, 0, 0, 0


def low(u: float) -> float:
    """The low half of a draw in [0, 1), as another one: a multiple of 2^-27."""
    return u * FINE % 1.0


def _between(low: float, high: float, u: float) -> float:
    return low + (high - low) * u
