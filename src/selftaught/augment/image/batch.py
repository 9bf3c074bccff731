"""A whole batch of views at once: parameters first, then one decoding and one native pass an image.

The views are rendered where the collated batch lies: there are no images in between, and nothing
to collate. Where the native library is missing, `render.py` does the same, image by image.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch

from selftaught.augment.image import native
from selftaught.augment.image.photometric import SETTINGS, Deferred, take
from selftaught.augment.image.render import check_views, render_view
from selftaught.augment.image.view import DRAWS, Params, View
from selftaught.augment.pipeline import check_image, sample_rng
from selftaught.data import Samples, open_data
from selftaught.data.image.picture import SCALES, DecodeBuffer, Picture, Ready
from selftaught.errors import UserError

if TYPE_CHECKING:
    from selftaught.augment.image.views import Views

HELD = 32 << 20
"""Bytes of decoded images that wait for each other, to be rendered in one pass."""

_memory = DecodeBuffer()


@final
class Rngs(Sequence[np.random.Generator]):
    """The generators of samples: `sample_rng(seed, epoch, index)` for each pair, made on demand.

    Args:
        seed: of the run.
        keys: pairs (epoch, index), each from 0 on.
    """

    def __init__(self, seed: int, keys: Sequence[tuple[int, int]]):
        self.seed, self.keys = seed, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, i: Any) -> Any:
        if isinstance(i, slice):
            return Rngs(self.seed, self.keys[i])
        return sample_rng(self.seed, *self.keys[i])

    def uniforms(self, draws: int) -> np.ndarray:
        """What each draws first from [0, 1): float64 [B, draws]."""
        table = np.array(self.keys, np.int64).reshape(-1, 2)
        native_seed = 0 <= self.seed < 1 << 64 and (table.min(initial=0) >= 0)
        if native.library() is None or not native_seed:
            return np.stack([rng.random(draws) for rng in self])
        return native.uniforms(self.seed, table[:, 0], table[:, 1], draws)


@final
class BatchRenderer:
    """The collated views of a batch, while they are made.

    Args:
        pipeline: whose views they are.
        rngs: of the samples, in order; each draws the parameters of its views, at once.
        channels: of every image.
        reduced: whether a JPEG is decoded at 1/2, 1/4 or 1/8 where all of its crops are at least
            that much larger than their views, in both directions.

    Attributes:
        images: uint8 [B, C, rows, columns] of each view.
        boxes: float32 [B, V, 5], as `Params.box`, where the pipeline gives them.
        settings: float32 [B, V, SETTINGS + C], where it leaves colors to the device.
    """

    def __init__(
        self,
        pipeline: "Views",
        rngs: Sequence[np.random.Generator],
        channels: int,
        reduced: bool = True,
    ):
        self.views, self.channels, self.reduced = pipeline.views, channels, reduced
        check_views(self.views, channels)
        count, draws = len(rngs), len(self.views) * DRAWS
        if isinstance(rngs, Rngs):
            uniform = rngs.uniforms(draws)
        else:
            uniform = np.stack([rng.random(draws) for rng in rngs])
        self._uniform = uniform.reshape(count, len(self.views), DRAWS)
        self.images = [
            torch.empty(count, channels, *v.shape, dtype=torch.uint8) for v in self.views
        ]
        self.boxes = torch.empty(count, len(self.views), 5) if pipeline.boxes else None
        raw = pipeline.raw
        self.settings = torch.empty(count, len(self.views), SETTINGS + channels) if raw else None
        self._waiting: list[tuple[int, np.ndarray]] = []
        self._held = 0

    def add(self, row: int, picture: Picture | Ready) -> None:
        """Make the views of sample `row`, now or at the latest at `finish`.

        Raises:
            BadSample: the picture cannot be decoded; another may be painted in its place.
        """
        if picture.pixels is None:
            assert isinstance(picture, Picture)  # what is ready has pixels
            rows, size = slice(row, row + 1), _sides(picture.height, picture.width, 1)
            params = self._draw(rows, *size)
            pixels, scale = self._read(picture, params)
            self._render(rows, pixels[None], *size, params, scale)
            return
        self._waiting.append((row, picture.pixels))
        self._held += picture.pixels.nbytes
        if self._held > HELD:
            self.finish()

    def finish(self, threads: int = 1) -> "BatchRenderer":
        """Render what waits."""
        waiting, self._waiting, self._held = self._waiting, [], 0
        # Rows of a slice are rendered in one pass: runs of neighbors, which arrays are all of.
        start = 0
        for end in range(1, len(waiting) + 1):
            if end == len(waiting) or waiting[end][0] != waiting[end - 1][0] + 1:
                rows = slice(waiting[start][0], waiting[end - 1][0] + 1)
                self.add_all(rows, [pixels for _, pixels in waiting[start:end]], threads)
                start = end
        return self

    def add_all(
        self, rows: slice, images: Sequence[np.ndarray] | np.ndarray, threads: int = 1
    ) -> None:
        """Make the views of images in memory, uint8 [H, W, C] each, for neighboring rows."""
        for image in images[:1] if isinstance(images, np.ndarray) else images:
            check_image(image)
            if image.shape[2] != self.channels:
                raise UserError(
                    f"an image of shape {list(image.shape)} has {image.shape[2]} channels, "
                    f"{self.channels} are needed: a batch has the same number in all"
                )
        count = rows.stop - rows.start
        if isinstance(images, np.ndarray):
            size = _sides(images.shape[1], images.shape[2], count)
        else:
            heights, widths = np.array([i.shape[:2] for i in images]).T
            size = _sides(heights, widths, count)
        self._render(rows, images, *size, self._draw(rows, *size), 1, threads)

    def result(self, row: Any = ...) -> Any:
        """What collating the pipeline's outputs would give, or the views of one sample alone."""
        views: Any = [image[row] for image in self.images]
        if self.settings is not None:
            views = Deferred(views, self.settings[row])
        return views if self.boxes is None else [views, self.boxes[row]]

    def _draw(self, rows: slice, heights: np.ndarray, widths: np.ndarray) -> np.ndarray:
        params = _drawn(self.views, self._uniform[rows], heights, widths)
        if self.boxes is not None:
            high, wide = heights[:, None], widths[:, None]
            corners = (
                params["left"] / wide,
                params["top"] / high,
                (params["left"] + params["width"]) / wide,
                (params["top"] + params["height"]) / high,
                params["flip"] + 2.0 * params["vertical"] + 4 * params["transpose"],
            )
            self.boxes[rows] = torch.from_numpy(np.stack(corners, -1).astype(np.float32))
        if self.settings is not None:
            self.settings[rows] = torch.from_numpy(take(params, self.views, self.channels))
        return params

    def _read(self, picture: Picture, params: np.ndarray) -> tuple[np.ndarray, int]:
        """Pixels of a picture, at least those that its views look at, and the scale they have."""
        scale = self._scale(params) if self.reduced else 1
        if picture.jpeg is not None and native.library() is not None:
            height, width = picture.height, picture.width
            memory = _memory.at_least(4 * -(-height // scale) * -(-width // scale))
            pixels = native.decode_jpeg(picture.jpeg, height, width, params[0], memory, scale)
            if pixels is not None:
                return pixels, scale
        return picture.read(scale, _memory)

    def _scale(self, params: np.ndarray) -> int:
        """The largest reduction at which no crop becomes smaller than its view."""
        sides = zip(params["height"][0].tolist(), params["width"][0].tolist(), self.views)
        room = min(min(h / v.shape[0], w / v.shape[1]) for h, w, v in sides)
        return next((s for s in SCALES if s <= room), 1)

    def _render(
        self,
        rows: slice,
        images: Sequence[np.ndarray] | np.ndarray,
        heights: np.ndarray,
        widths: np.ndarray,
        params: np.ndarray,
        scale: int,
        threads: int = 1,
    ) -> None:
        outs = [out[rows] for out in self.images]
        if native.library() is not None:
            table, kept = native.located(images, heights, widths, scale)
            addresses = [out.data_ptr() for out in outs]
            native.render(table, self.channels, self.views, params, addresses, threads)
            del kept
            return
        for i, (image, row) in enumerate(zip(images, params)):
            for out, view, packed in zip(outs, self.views, row):
                cut, p = _full_size(image, native.unpacked(packed), scale)
                out[i] = torch.from_numpy(render_view(cut, view, p))


def _full_size(image: np.ndarray, params: Params, scale: int) -> tuple[np.ndarray, Params]:
    """What a crop sees of a reduced image, at full size, and where the crop is there: each pixel as
    often as it stands for one, hence with the weight that native code gives it."""
    if scale == 1:
        return image, params
    first = [start // scale for start in (params.top, params.left)]
    ends = (params.top + params.height, params.left + params.width)
    rows, columns = (slice(a, -(-end // scale)) for a, end in zip(first, ends))
    image = image[rows, columns].repeat(scale, 1).repeat(scale, 0)
    top, left = params.top - first[0] * scale, params.left - first[1] * scale
    return image, params._replace(top=top, left=left)


def _sides(heights: Any, widths: Any, count: int) -> tuple[np.ndarray, np.ndarray]:
    """int32 [count] each, contiguous."""
    height, width = (np.full(count, side, np.int32) for side in (heights, widths))
    return height, width


def _drawn(
    views: tuple[View, ...], uniform: np.ndarray, heights: np.ndarray, widths: np.ndarray
) -> np.ndarray:
    if native.library() is not None:
        return native.draw(views, uniform, heights, widths)
    out = np.empty((len(heights), len(views)), native.PARAMS)
    for i, (height, width) in enumerate(zip(heights.tolist(), widths.tolist())):
        for v, view in enumerate(views):
            native.pack(view.params(uniform[i, v].tolist(), height, width), view.shape, out[i, v])
    return out


def make(
    pipeline: "Views",
    images: Any,
    rngs: Sequence[np.random.Generator] | None,
    threads: int,
    channels: int | None,
    reduced: bool,
) -> Any:
    """`Views.batch`."""
    count = len(images)
    if rngs is None:
        rngs = Rngs(int(torch.randint(2**62, ())), [(0, i) for i in range(count)])
    if len(rngs) != count:
        raise UserError(f"{count} images need {count} generators, got {len(rngs)}")
    if isinstance(images, np.ndarray) and images.ndim == 4:
        renderer = BatchRenderer(pipeline, rngs, images.shape[3], reduced)
        renderer.add_all(slice(0, count), images, threads)
        return renderer.result()
    samples = _samples(images, channels)
    renderer = BatchRenderer(pipeline, rngs, samples.channels, reduced)
    if threads > 1:
        # Decoders and the native library let go of the GIL; each image is somebody's alone.
        with ThreadPoolExecutor(threads) as pool:
            pictures = pool.map(lambda i: _added(renderer, samples, i), range(count))
            for row, picture in enumerate(pictures):
                if picture.pixels is not None:
                    renderer.add(row, picture)
    else:
        for row in range(count):
            renderer.add(row, samples.open(row))
    return renderer.finish(threads).result()


def _added(renderer: BatchRenderer, samples: Samples, row: int) -> Picture:
    picture = samples.open(row)
    if picture.pixels is None:
        renderer.add(row, picture)
    return picture


def _samples(images: Any, channels: int | None) -> Samples:
    if isinstance(images, Samples):
        return images
    if channels is None:
        first = images[0] if len(images) else None
        channels = first.shape[2] if isinstance(first, np.ndarray) and first.ndim == 3 else 3
    return open_data(images, channels=channels, layout="HWC")
