"""What a user changes of the views that a method declares."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from selftaught.augment.image.view import View
from selftaught.augment.image.views import Views
from selftaught.errors import UserError
from selftaught.roles import Fraction, Share, Weight
from selftaught.signature import Checked

JITTER = (0.8, 0.8, 0.8, 0.2)
"""SimCLR's strengths: what a jitter is a multiple of where a method has none."""


@dataclass(frozen=True)
class Changes(Checked):
    """Declared views -> the views that are made instead; what is None stays as the method has it.

    Views need not be alike: some are smaller (local crops), some get less color on purpose. A
    probability is that of the view that has most of the operation, and the others keep their
    proportion to it; where none has any, all get it.

    Args:
        crop_scale: smallest and largest area of those crops that have the size and the scale of the
            first view; local crops keep theirs.
        flips: directions in which every view is flipped, with probability 1/2 each.
        quarter_turns: whether every view is turned by 0, 90, 180 or 270 degrees.
        color_jitter: multiple of the strength that each view has, hue up to its largest; of
            SimCLR's where none has any.
        grayscale, gaussian_blur: probabilities.
        random_erasing: probability, for every view.
        fill: levels of what is erased; see `View`.

    Raises:
        UserError: a value is out of its range.
    """

    crop_scale: tuple[Fraction, Fraction] | None = None
    flips: Literal["none", "horizontal", "vertical", "both"] | None = None
    quarter_turns: bool = False
    color_jitter: Weight | None = None
    grayscale: Share | None = None
    gaussian_blur: Share | None = None
    random_erasing: Share | None = None
    fill: tuple[int, ...] = (128,)

    def __post_init__(self) -> None:
        if self.crop_scale is not None and not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            low, high = self.crop_scale
            raise UserError(
                f"crop_scale={low:g},{high:g} must be two fractions of the image's area, the "
                "smaller one first, such as 0.2,1"
            )

    def __call__(self, declared: Views) -> Views:
        """The views that are made in place of those that are `declared`."""
        views: Sequence[View] = declared.views
        if self.crop_scale is not None:
            whole = views[0].size, views[0].scale
            views = [
                replace(v, scale=self.crop_scale) if (v.size, v.scale) == whole else v
                for v in views
            ]
        if self.flips is not None:
            across, down = (0.5 * (self.flips in (way, "both")) for way in _WAYS)
            views = [replace(v, flip=across, vertical=down) for v in views]
        if self.quarter_turns:
            views = [replace(v, turns=True) for v in views]
        if self.color_jitter is not None:
            views = [_jittered(v, views, self.color_jitter) for v in views]
        if self.grayscale is not None:
            each = _in_proportion([v.gray for v in views], self.grayscale)
            views = [replace(v, gray=p) for v, p in zip(views, each)]
        if self.gaussian_blur is not None:
            each = _in_proportion([v.blur for v in views], self.gaussian_blur)
            views = [replace(v, blur=p) for v, p in zip(views, each)]
        if self.random_erasing is not None:
            views = [replace(v, erase=self.random_erasing, fill=self.fill) for v in views]
        return replace(declared, views=tuple(views))


_WAYS = ("horizontal", "vertical")


def _in_proportion(given: list[float], wanted: float) -> list[float]:
    """Probabilities of which the largest is the wanted one; all are, where none was given."""
    most = max(given)
    return [wanted * (p / most if most else 1) for p in given]


def _jittered(view: View, views: Sequence[View], times: float) -> View:
    own = view.jitter if any(any(v.jitter) for v in views) else JITTER
    brightness, contrast, saturation, hue = (times * strength for strength in own)
    return replace(view, jitter=(brightness, contrast, saturation, min(hue, 0.5)))
