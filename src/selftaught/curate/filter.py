"""Which images are not worth keeping by themselves."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, final

import numpy as np
from scipy.ndimage import laplace

from selftaught.curate.engines import threads
from selftaught.curate.settings import Filtering
from selftaught.curate.shrunk import gray
from selftaught.curate.stage import Block, Part, Stage
from selftaught.data import BadSample

SIDE = 256
"""Shorter side, in pixels, at which sharpness is told: larger photos are sharper by their size."""


@final
class Filter(Stage[Filtering]):
    """Size, shape, sharpness and contrast, and whoever is on a list."""

    name: ClassVar = "filter"
    options: ClassVar = Filtering

    @property
    def passes(self) -> tuple[str, ...]:
        """One."""
        return ("look",)

    def inputs(self, step: str) -> str:
        """Of the look nothing: bounds are for the verdict, and can be moved at no cost."""
        return "" if step == "look" else super().inputs(step)

    def look(self, step: str, block: Block) -> Part:
        """Sharpness and contrast of each image."""
        rows = self.rows_of(step, block)
        with ThreadPoolExecutor(threads(self.asked.workers)) as pool:
            found = list(pool.map(self._look, rows.tolist()))
        sharpness, contrast, reason = zip(*found) if found else ((), (), ())
        return Part(
            {
                "row": rows,
                "sharpness": np.array(sharpness, np.float32),
                "contrast": np.array(contrast, np.float32),
                "reason": np.array(reason, object),
            }
        )

    def _look(self, i: int) -> tuple[float, float, str]:
        try:
            image = gray(self.pool.everything, i, SIDE)
        except BadSample as error:
            return 0.0, 0.0, f"unreadable: {error.reason}"
        return float(laplace(image).std()), float(image.std()), ""

    def gather(self) -> dict[str, Any]:
        """The first reason of each."""
        asked = self.asked
        seen = self.columns("look", ("row", "sharpness", "contrast", "reason"))
        scan = self.pool.verdict("scan")
        width, height = (scan[name][seen["row"]] for name in ("width", "height"))
        short, long = np.minimum(width, height), np.maximum(width, height)
        aspect = long / np.maximum(short, 1)
        reason = seen["reason"].astype(object)
        tests = [
            (short < asked.min_side, "small", short),
            (aspect > asked.max_aspect, "long", aspect),
            (seen["contrast"] < asked.min_contrast, "empty", seen["contrast"]),
            (seen["sharpness"] < asked.min_sharpness, "blurred", seen["sharpness"]),
        ]
        for fails, word, value in tests:
            for i in np.flatnonzero(fails & (reason == "")):
                reason[i] = f"{word}: {value[i]:.4g}"
        return seen | {"reason": reason}
