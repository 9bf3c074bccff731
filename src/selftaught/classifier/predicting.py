"""What `selftaught predict` runs: a classifier and images in, a table out, batch by batch."""

import csv
import logging
from abc import ABC, abstractmethod
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np

from selftaught import export, voice
from selftaught.classifier.model import Classifier, load
from selftaught.classifier.places import found, free
from selftaught.classifier.settings import Predicting
from selftaught.evaluate.features import open_samples
from selftaught.signature import takes

if TYPE_CHECKING:
    from typing import Unpack

    from selftaught.options import PredictingOptions

log = logging.getLogger("selftaught")

MOST = 20
"""Names that are counted in words."""


@dataclass(frozen=True)
class Written:
    """What came of it.

    out: the file. images: in it. unsure: of them without a label. counts: label -> images.
    bad: unreadable images. listed: where these are.
    """

    out: Path
    images: int
    unsure: int
    counts: dict[str, int]
    bad: int
    listed: Path | None

    def __str__(self) -> str:
        lines = [f"{self.images:,} images are in {self.out}"]
        some = sorted(self.counts.items(), key=lambda pair: -pair[1])
        if some:
            told = ", ".join(f"{name}: {count:,}" for name, count in some[:MOST])
            lines[0] += f" ({told}" + (", ...)" if len(some) > MOST else ")")
        if self.unsure:
            lines.append(f"{self.unsure:,} have no label: none of their probabilities is enough")
        if self.bad:
            lines.append(f"{self.bad:,} cannot be read and are listed in {self.listed}")
        return "\n".join(lines)


@takes(Predicting)
def predict_command(model: str, data: str, **options: "Unpack[PredictingOptions]") -> Written:
    """Say what is on images: a table of path, label, probability and one column a class.

    Args:
        model: folder that classify has written, or the run folder that it lies in.
        data: folder, list file, Parquet, tar shards or array of images.
        options: fields of `Predicting`.
    """
    asked = Predicting.of(**options)
    free(asked.out, asked.overwrite)
    classifier = load(found(Path(model)), asked.backbone)
    samples = open_samples(data, None, classifier.network.channels, asked.path_column)
    regression = classifier.target.kind == "regression"
    counts: Counter[str] = Counter()
    images = unsure = 0
    bad: list[tuple[str, str]] = []
    kind = _Csv if asked.out.suffix == ".csv" else _Parquet
    with (
        export.atomic(asked.out) as temporary,
        closing(kind(temporary, columns(classifier))) as table,
        voice.heard(),
        voice.counted("reading and embedding") as progress,
    ):
        for told in classifier.stream(samples, asked, progress):
            labels = classifier.labels(told.outputs, asked.min)
            names = [printed(samples.name(int(i))) for i in told.index]
            table.write(_rows(names, labels, told.outputs, regression))
            images += len(names)
            unsure += sum(not label for label in labels)
            if not regression:
                several = classifier.target.kind == "multilabel"
                each = (label.split(";") if several else [label] for label in labels if label)
                counts.update(name for names in each for name in names)
            bad += [(printed(samples.name(b.index)), b.reason) for b in told.bad]
    listed = asked.out.with_suffix(".bad.csv")
    if bad:
        with export.atomic(listed) as temporary, temporary.open("w", newline="") as file:
            csv.writer(file).writerows([("path", "reason"), *bad])
    return Written(asked.out, images, unsure, dict(counts), len(bad), listed if bad else None)


def columns(classifier: Classifier) -> list[str]:
    """Names of the columns, each once: a class that is called like another column is told apart."""
    if classifier.target.kind == "regression":
        return ["path", *classifier.target.names]
    heads = ["path", "label", "probability"]
    for name in classifier.target.names:
        while name in heads:
            name = f"class {name}"
        heads.append(name)
    return heads


def printed(name: str) -> str:
    """A name that any file format takes: bytes that are no text are written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _rows(
    names: list[str], labels: list[str], outputs: np.ndarray, regression: bool
) -> list[list[Any]]:
    """Columns of a batch."""
    if regression:
        return [names, outputs[:, 0].tolist()]
    return [names, labels, outputs.max(1).tolist(), *outputs.T.tolist()]


class _Table(ABC):
    """A table that grows by columns of a batch."""

    @abstractmethod
    def write(self, batch: list[list[Any]]) -> None: ...

    @abstractmethod
    def close(self) -> None: ...


@final
class _Csv(_Table):
    def __init__(self, path: Path, heads: list[str]):
        self.file = path.open("w", encoding="utf-8", newline="")
        self.rows = csv.writer(self.file)
        self.rows.writerow(heads)

    def write(self, batch: list[list[Any]]) -> None:
        for row in zip(*batch, strict=True):
            self.rows.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row])

    def close(self) -> None:
        self.file.close()


@final
class _Parquet(_Table):
    def __init__(self, path: Path, heads: list[str]):
        import pyarrow as pa
        from pyarrow import parquet

        texts = ("path", "label")
        self.schema = pa.schema([(h, pa.string() if h in texts else pa.float32()) for h in heads])
        self.file = parquet.ParquetWriter(path, self.schema)

    def write(self, batch: list[list[Any]]) -> None:
        import pyarrow as pa

        arrays = [
            pa.array([None if v == "" else v for v in column], kind)
            for column, kind in zip(batch, self.schema.types, strict=True)
        ]
        self.file.write_batch(pa.record_batch(arrays, schema=self.schema))

    def close(self) -> None:
        self.file.close()
