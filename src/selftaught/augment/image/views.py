"""Pipelines of declared views: what `view.py` declares, drawn and carried out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from selftaught.augment.image import native, photometric
from selftaught.augment.image.batch import make
from selftaught.augment.image.render import check_views, covering, render_plain, render_view
from selftaught.augment.image.view import DRAWS, Params, View
from selftaught.augment.pipeline import Around, Pipeline, check_image
from selftaught.errors import UserError
from selftaught.sides import Size, both


@dataclass(frozen=True)
class Views(Pipeline):
    """A pipeline of declared views, all of the same image.

    Args:
        views: The declarations, in the order in which the views are returned.
        boxes: Also return where each view came from, for methods that match positions.
        raw: Return `photometric.Deferred` in place of the list of views: colors, blur and
            solarization are left to `photometric.finish_on_device`.
    """

    views: tuple[View, ...]
    boxes: bool = False
    raw: bool = False

    def split(self) -> "Views | None":
        """These views with colors and blur left to `finish_on_device`, or None without any."""
        if all(view.geometric for view in self.views):
            return None
        return replace(self, raw=True)

    def replaced(self, make: Callable[["Views"], Pipeline]) -> Pipeline:
        """What `make` makes of these views."""
        return make(self)

    def draw(self, rng: np.random.Generator, height: int, width: int) -> list[Params]:
        """Draw the parameters of all views of a `height` x `width` image, before any pixel work.

        Each view takes its `DRAWS` numbers in turn, so the first views of two pipelines agree.
        """
        rows = rng.random((len(self.views), DRAWS)).tolist()
        return [view.params(row, height, width) for view, row in zip(self.views, rows)]

    def render(self, image: np.ndarray, params: Sequence[Params]) -> Any:
        """Carry out drawn parameters.

        Args:
            image: uint8 [H, W, C].
            params: One entry a view, as `draw` returns for this height and width.

        Returns:
            One uint8 array [C, rows, columns] a view; `Deferred` of them where these views are raw.
        """
        if native.library() is None and not self.raw:
            return [render_view(image, view, p) for view, p in zip(self.views, params)]
        table = np.empty((1, len(self.views)), native.PARAMS)
        for row, view, p in zip(table[0], self.views, params):
            native.pack(p, view.shape, row)
        if not self.raw:
            return _rendered(image, self.views, table)
        check_views(self.views, image.shape[2])
        settings = photometric.take(table, self.views, image.shape[2])[0]
        geometry = [native.unpacked(row) for row in table[0]]
        return photometric.Deferred(replace(self, raw=False).render(image, geometry), settings)

    def __call__(self, image: Any, rng: Any = None) -> Any:
        """Make all views of one image, or of a list of images (then see `batch`).

        Args:
            image: uint8 [H, W, C]; or a list of what `batch` takes.
            rng: Generator of this sample; or a list of them, or None.

        Returns:
            A list of uint8 arrays [C, rows, columns], or `Deferred` with them. With `boxes`, the
            pair of that and a float32 array [V, 5]: left, top, right, bottom of each crop as
            fractions of the image's width and height, and how it is flipped and turned
            (`Params.turned`).

        Raises:
            UserError: `image` is not a uint8 array [H, W, C] with pixels.
        """
        if isinstance(image, list):
            return self.batch(image, rng)
        check_image(image)
        height, width = image.shape[:2]
        params = self.draw(rng, height, width)
        views = self.render(image, params)
        if not self.boxes:
            return views
        return views, np.array([p.box(height, width) for p in params], dtype=np.float32)

    def batch(
        self,
        images: Any,
        rngs: Sequence[np.random.Generator] | None = None,
        *,
        threads: int = 1,
        channels: int | None = None,
        reduced: bool = True,
    ) -> Any:
        """Make all views of a batch of images: parameters first, then one pass an image.

        Args:
            images: Paths, encoded bytes, Pillow images or uint8 arrays [H, W, C], in a list; an
                array [B, H, W, C]; or `data.Samples`.
            rngs: One generator an image (`batch.Rngs` draws a thousand times faster than a
                list); None follows torch's global generator.
            threads: That decode and render.
            channels: Of the images; by default those of the first array, 3 for files.
            reduced: Whether a JPEG is decoded at 1/2, 1/4 or 1/8 of its size where every crop is
                at least that much larger than its view, in both directions.

        Returns:
            A list of uint8 tensors [B, C, rows, columns], one a view, or `Deferred` with them. With
            `boxes`, that and a float32 tensor [B, V, 5].

        Raises:
            BadSample: An image cannot be read.
            UserError: Images are not what they should be, or `rngs` are not as many.
        """
        return make(self, images, rngs, threads, channels, reduced)


@dataclass(frozen=True)
class Cornered(Around):
    """Declared views, and where the corners of each came from (`Params.corners`)."""

    views: Views

    def replaced(self, make: Callable[[Views], Pipeline]) -> Self:
        """With other declared views, of which none is turned."""
        views = declared(make(self.views))
        if any(view.turns for view in views.views):
            raise UserError(
                "quarter turns are more than four corners can say, by which it finds the places "
                "that two views share: flip views instead (--flips both)"
            )
        return replace(self, views=views)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
        """Make the views of `image`, uint8 [H, W, C], and a float32 array [V, 4].

        Raises:
            UserError: `image` is not a uint8 array [H, W, C] with pixels.
        """
        check_image(image)
        height, width = image.shape[:2]
        params = self.views.draw(rng, height, width)
        corners = np.array([p.corners(height, width) for p in params], dtype=np.float32)
        return self.views.render(image, params), corners


def declared(made: Pipeline) -> Views:
    """Views that were made in place of others, for a pipeline that looks at how they are drawn.

    Raises:
        UserError: they are not declared.
    """
    if not isinstance(made, Views):
        raise UserError(
            "it looks at where its views come from, cuts them up, or has them of two modalities, "
            "which a function does not know: change its views by options instead (--crop-scale, "
            "--flips, --color-jitter)"
        )
    return made


def _rendered(image: np.ndarray, views: tuple[View, ...], params: np.ndarray) -> list[np.ndarray]:
    check_views(views, image.shape[2])
    outs = [np.empty((image.shape[2], *view.shape), np.uint8) for view in views]
    table, kept = native.located([image], *image.shape[:2])
    addresses = [out.ctypes.data for out in outs]
    native.render(table, image.shape[2], views, params, addresses)
    del kept
    return outs


@dataclass(frozen=True)
class Plain(Pipeline):
    """The view that encoders are evaluated on: resize to cover, cut out the center.

    Args:
        size: Height and width of the view, in pixels: one number for both, or (rows, columns).
        resize: What the image covers after resizing, at least `size`; of squares that is the
            length of its short side.
    """

    size: Size
    resize: Size

    def __post_init__(self) -> None:
        if not all(1 <= n <= whole for n, whole in zip(both(self.size), both(self.resize))):
            raise UserError(
                f"Plain(size={self.size}, resize={self.resize}): need 1 <= size <= resize"
            )

    @property
    def told(self) -> dict[str, Any]:
        """What files say of it: `size`, and to what the image is resized before it is cut."""
        if isinstance(self.size, int):
            return {"size": self.size, "resize_short_side": self.resize}
        return {"size": list(self.size), "resize_to_cover": list(both(self.resize))}

    def __call__(self, image: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
        """Make the one view of `image`, uint8 [H, W, C]: an array [C, rows, columns], not a list.

        `rng` is taken, so that this is a pipeline like others, and ignored.
        """
        check_image(image)
        if native.library() is None:
            return render_plain(image, self.resize, self.size)
        sides, whole = covering(image.shape[:2], both(self.resize))
        table = np.zeros((1, 1), native.PARAMS)
        table["order"], table["factors"] = -1, (1, 1, 1, 0)
        table["top"], table["left"] = ((n - kept) // 2 for n, kept in zip(image.shape, sides))
        table["height"], table["width"] = sides
        table["whole"] = whole
        table["shown"] = [round((n - k) / 2) for n, k in zip(whole, both(self.size))]
        return _rendered(image, (View(self.size),), table)[0]
