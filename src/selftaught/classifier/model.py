"""A classifier: an encoder, what its features say, and the names of it; as a folder of files."""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from selftaught import __version__, augment, export, kinds
from selftaught.backbones import Encoder
from selftaught.classifier import page
from selftaught.classifier.heads import Head, Linear, Neighbors
from selftaught.classifier.judging import Judged, Mistake
from selftaught.classifier.places import ABOUT, HEAD, found, taken
from selftaught.classifier.settings import Predicting
from selftaught.classifier.targets import Target
from selftaught.data import Samples
from selftaught.errors import DataError, UserError
from selftaught.evaluate.features import Progress, device_for, open_samples, readers, running
from selftaught.evaluate.floors import Comparison
from selftaught.export.files import whole_folder
from selftaught.feed.passes import reading
from selftaught.feed.readers import limited
from selftaught.feed.views import Bad, ViewDataset
from selftaught.nouns import worded
from selftaught.sides import Size, one
from selftaught.signature import takes

if TYPE_CHECKING:
    from selftaught.options import PredictingOptions

log = logging.getLogger("selftaught")

FORMAT = 1
"""Version of `model.json`; raised when an older selftaught could misread a newer file."""

SEVERAL = 0.5
"""Probability above which one of several names is said, unless asked otherwise."""


class Told(NamedTuple):
    """What is said of a batch: positions [B], outputs [B, C], and the samples that it lacks."""

    index: np.ndarray
    outputs: np.ndarray
    bad: list[Bad]


@dataclass(frozen=True)
class Predictions:
    """What a classifier says of the images that could be read, in dataset order.

    names: of the images. labels: what each is; empty where it is not sure enough, and names that
    are divided by `;` where there may be several. outputs: [N, C] probabilities, or amounts [N, 1].
    classes: names of the columns. skipped: name of each image that could not be read -> why.
    """

    names: list[str]
    labels: list[str]
    outputs: np.ndarray = field(repr=False)
    classes: tuple[str, ...]
    skipped: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        unsure = sum(not label for label in self.labels)
        return worded(f"<Predictions of {len(self)} images, {unsure} without a label>")


@dataclass(frozen=True, repr=False)
class Classifier:
    """An encoder that says what is on an image.

    network: the encoder. head: from its features to probabilities. target: what is predicted.
    size: side of the views in pixels. about: what it was made of, and how, as plain values; its
    `scores` are what it is worth on labels that it has not learned from. judged, compared,
    mistakes: the same as it was found, where it has just been made.
    """

    network: Encoder
    head: Head
    target: Target
    size: Size
    about: dict[str, Any]
    judged: Judged | None = None
    compared: Comparison | None = None
    mistakes: tuple[Mistake, ...] = ()

    @property
    def scores(self) -> dict[str, Any]:
        """Name -> value and 95 % interval in per cent, and the same of each floor."""
        return self.about.get("scores", {})

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {s['value']:.1f} %" for name, s in self.scores.items())
        names = "amounts" if self.target.kind == "regression" else f"{len(self.target.names)} names"
        return f"<Classifier {self.network.name}, {names}: {told or 'not judged'}>"

    def _repr_html_(self) -> str:
        return page.summary(self)

    # predict ----------------------------------------------------------------------------------

    @takes(Predicting)
    def predict(
        self, data: Any, *, progress: Progress | None = None, **options: "Unpack[PredictingOptions]"
    ) -> Predictions:
        """What is on images, all of it in memory; `selftaught predict` writes it to a file.

        Args:
            data: folder, list file, Parquet, tar shards, array or dataset of images.
            progress: is told how many images are done.
            options: fields of `Predicting`, `out` and `overwrite` aside.

        Raises:
            UserError: an argument that cannot work.
            DataError: no image can be read.
        """
        asked = Predicting.of(**options)
        samples = open_samples(data, self.network, None, asked.path_column)
        names: list[str] = []
        outputs: list[np.ndarray] = []
        skipped: dict[str, str] = {}
        for told in self.stream(samples, asked, progress):
            names += [samples.name(int(i)) for i in told.index]
            outputs.append(told.outputs)
            skipped |= {samples.name(b.index): b.reason for b in told.bad}
        found = np.concatenate(outputs)
        return Predictions(names, self.labels(found, asked.min), found, self.target.names, skipped)

    def labels(self, outputs: np.ndarray, least: float | None = None) -> list[str]:
        """What outputs [N, C] mean; empty where no probability reaches `least`."""
        names = self.target.names
        if self.target.kind == "regression":
            return [f"{value:.6g}" for value in outputs[:, 0].tolist()]
        if self.target.kind == "multilabel":
            said = outputs >= (SEVERAL if least is None else least)
            return [";".join(n for n, yes in zip(names, row) if yes) for row in said]
        sure = outputs.max(1) >= (least or 0.0)
        return [names[i] if s else "" for i, s in zip(outputs.argmax(1), sure)]

    def stream(
        self, samples: Samples, asked: Predicting, progress: Progress | None = None
    ) -> Iterator[Told]:
        """Batch by batch what is said of the samples, in their order.

        Raises:
            UserError: a least probability of amounts, which have none.
            DataError: none of them can be read; told at the end.
        """
        if asked.min is not None and self.target.kind == "regression":
            raise UserError(
                f"min={asked.min:g} is a probability, and this classifier predicts amounts, which "
                "have none: leave --min out"
            )
        workers = readers(len(samples), asked.workers)
        views = ViewDataset(samples, kinds.of(self.network).plain(self.size), 0, replaced=False)
        device = device_for(self.network, self.network, asked.device)
        if asked.device == "auto" and torch.cuda.is_available():
            device = torch.device("cuda")
        done = kept = 0
        last: Bad | None = None
        with (
            self.ready(device, asked.precision) as forward,
            limited(asked.read_timeout),
            reading(views, range(len(samples)), asked.batch, workers) as items,
        ):
            for images, where, bad in items:
                outputs = np.empty((0, len(self.target.names)), np.float32)
                if images is not None:
                    outputs = forward(images).float().cpu().numpy()
                kept, done = kept + len(where), done + len(where) + len(bad)
                last = bad[-1] if bad else last
                if progress is not None:
                    progress(done, len(samples))
                yield Told(where.numpy(), outputs, bad)
        if not kept and last is not None:
            raise DataError(
                f"none of the {len(samples)} images can be read; such as "
                f"{samples.name(last.index)}: {last.reason}"
            )

    @contextmanager
    def ready(self, device: torch.device, precision: str) -> Iterator[Any]:
        """What it says of uint8 [B, C, S, S], on a device; afterwards all is where it was."""
        head = self.head.to(device).eval()

        def said(network: Encoder, x: Tensor) -> Tensor:
            features = network(x)
            with torch.autocast(device.type, enabled=False):
                return head(features.float())

        try:
            with running(self.network, device, precision, said) as forward:
                yield forward
        finally:
            self.head.cpu()

    # files ------------------------------------------------------------------------------------

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the encoder, the head, `model.json` and the page `report.html` into a new folder.

        Args:
            folder: to make.
            overwrite: whether to move a classifier that is there aside.

        Raises:
            UserError: the folder is taken or cannot be written.
        """
        folder = Path(folder)
        if taken(folder, overwrite):
            aside = next(
                p for i in range(1, 10**6) if not (p := Path(f"{folder}.old-{i}")).exists()
            )
            shutil.move(folder, aside)
            log.info("the earlier classifier in %s is now %s", folder, aside)
        with whole_folder(folder) as written:
            export.save(self.network, written)
            save_file(
                {k: v.contiguous() for k, v in self.head.state_dict().items()}, written / HEAD
            )
            text = json.dumps(self.plain(written / HEAD), indent=2, ensure_ascii=False)
            (written / ABOUT).write_text(text + "\n", "utf-8")
            if self.judged is not None:
                (written / "report.html").write_text(page.text(self), "utf-8")
        return folder

    def plain(self, head: Path | None = None) -> dict[str, Any]:
        """What `model.json` says."""
        scores: Any = self.head.scores
        return {
            "format": FORMAT,
            "selftaught": __version__,
            "target": self.target.kind,
            "classes": list(self.target.names),
            "told": self.target.why,
            "size": self.size,
            **self._reading(),
            "head": {"kind": type(scores).__name__.lower(), "k": getattr(scores, "k", None)},
            **self.about,
            **({} if head is None else {"head_sha256": _sha256(head)}),
        }

    def _reading(self) -> dict[str, Any]:
        """How samples are read: of images what others than this library have to do."""
        kind = kinds.of(self.network)
        if not kind.photos:
            return {**kind.written("sample"), "channels": self.network.channels}
        return {
            **augment.plain(self.size).told,
            "crop": "center",
            "interpolation": "bilinear, antialiased",
            "mean": list(self.network.mean),
            "std": list(self.network.std),
            "channels": self.network.channels,
        }


def load(folder: str | Path, module: Any = None) -> Classifier:
    """The classifier in a folder, on the CPU.

    Args:
        folder: of `Classifier.save`, or the run folder that it lies in.
        module: where its encoder is a module of one's own, as of `selftaught.load`.

    Raises:
        UserError: it holds none, or a file is damaged or of another one.
    """
    folder = found(Path(folder))
    path = folder / ABOUT
    try:
        about = json.loads(path.read_text("utf-8"))
        version, size = about["format"], one(about["size"])
        target = Target(about["target"], tuple(about["classes"]), about["told"])
        head = about["head"]
        if target.kind not in ("classes", "multilabel", "regression"):
            raise ValueError(f"its target is {target.kind!r}")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); copy it again") from error
    if version != FORMAT:
        raise UserError(
            f"{path} has format {version}, this selftaught reads format {FORMAT}; update selftaught"
        )
    weights = folder / HEAD
    try:
        state = load_file(weights)
        if _sha256(weights) != about.get("head_sha256"):
            raise UserError(f"{weights} is not the file that {path} was written with; copy both")
        made = _head(state, head, target)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"{weights} is damaged ({error}); copy it again") from error
    kept = {k: about[k] for k in ("made_from", "data", "how", "scores", "held_out") if k in about}
    return Classifier(export.load(folder, module), made, target, size, kept)


def _head(state: dict[str, Tensor], about: dict[str, Any], target: Target) -> Head:
    scores: Linear | Neighbors
    if about["kind"] == "neighbors":
        scores = Neighbors(
            state["scores.keys"], state["scores.targets"], int(about["k"]), target.kind
        )
    else:
        scores = Linear(state["scores.weight"], state["scores.bias"])
    made = Head(scores, target.kind, float(state["scale"]), float(state["shift"]))
    return cast(Head, made.eval())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
