"""Which images are not worth keeping by themselves."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, ClassVar, final
from urllib.parse import urlsplit

import numpy as np
from scipy.ndimage import laplace

from selftaught.curate.engines import threads
from selftaught.curate.fetch.guard import hosts, within
from selftaught.curate.fetched import key_of_image, provenance
from selftaught.curate.judges import Faces, Nudity
from selftaught.curate.settings import Filtering
from selftaught.curate.shrunk import gray
from selftaught.curate.stage import Block, Part, Stage
from selftaught.data import BadSample
from selftaught.data import pool as shelf
from selftaught.evaluate.writing import write_table
from selftaught.export.files import atomic

SIDE = 256
"""Shorter side, in pixels, at which sharpness is told: larger photos are sharper by their size."""


@final
class Filter(Stage[Filtering]):
    """Size, shape, sharpness and contrast, and whoever is on a list."""

    name: ClassVar = "filter"
    options: ClassVar = Filtering

    @property
    def passes(self) -> tuple[str, ...]:
        """What is measured of each image, nudity and faces where they are asked for."""
        asked = self.asked
        more = ("nudity", asked.nsfw is not None), ("faces", asked.blur_faces)
        return ("look", *(step for step, wanted in more if wanted))

    def inputs(self, step: str) -> str:
        """Of the passes nothing: bounds are for the verdict, and can be moved at no cost."""
        return "" if step in self.passes else super().inputs(step)

    def look(self, step: str, block: Block) -> Part:
        """Sharpness and contrast of each image; or nudity; or faces."""
        rows = self.rows_of(step, block)
        if step == "nudity":
            scores = list(map(self._nudity, rows.tolist()))
            return Part({"row": rows, "nudity": np.array(scores, np.float32)})
        if step == "faces":
            return self._faces(rows)
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
            image = gray(self.pool.raw, i, SIDE)
        except BadSample as error:
            return 0.0, 0.0, f"unreadable: {error.reason}"
        return float(laplace(image).std()), float(image.std()), ""

    @cached_property
    def nudity(self) -> Nudity:
        """Judge of nudity."""
        return Nudity()

    @cached_property
    def faces(self) -> Faces:
        """Finder of faces."""
        return Faces()

    def prepare(self, step: str) -> None:
        """Refuse at once what is not installed."""
        _ = self.nudity if step == "nudity" else self.faces if step == "faces" else None

    def _nudity(self, i: int) -> float:
        try:
            return self.nudity(self.pool.raw.read(i, min_side=SIDE))
        except BadSample:
            return 0.0

    def _faces(self, rows: np.ndarray) -> Part:
        """A row a face."""
        found = []
        for i in rows.tolist():
            try:
                boxes = self.faces(self.pool.raw.read(i))
            except BadSample:
                boxes = np.empty((0, 4), np.float32)
            found.append(boxes)
        every = np.concatenate([np.empty((0, 4), np.float32), *found])
        columns = {"row": np.repeat(rows, [len(boxes) for boxes in found])}
        return Part(columns | {side: every[:, n] for n, side in enumerate(shelf.SIDES)})

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
        if asked.nsfw is not None:
            seen["nudity"] = self.columns("nudity", ("nudity",))["nudity"]
            for i in np.flatnonzero((seen["nudity"] > asked.nsfw) & (reason == "")):
                reason[i] = f"nudity: {seen['nudity'][i]:.2f}"
        if asked.blur_faces:
            boxes = self.columns("faces", ("row", *shelf.SIDES))
            seen["faces"] = np.bincount(boxes["row"], minlength=self.pool.count)[seen["row"]]
            with atomic(self.pool.folder / shelf.FACES) as temporary:
                write_table(temporary, boxes)
        if asked.blocklist is not None:
            blocked = hosts(asked.blocklist)
            for i, host in self._hosts(scan["name"][seen["row"]]):
                if not reason[i] and within(host, blocked):
                    reason[i] = f"blocked: {host}"
        return seen | {"reason": reason}

    def _hosts(self, names: np.ndarray) -> Iterator[tuple[int, str]]:
        """Hosts of images that were fetched, with their positions among `names`."""
        known = provenance(self.pool.folder)
        for i, name in enumerate(names):
            told = known.get(key_of_image(str(name)))
            for url in {told["url"], told["final_url"]} - {None, ""} if told else ():
                yield i, (urlsplit(url).hostname or "").lower()
