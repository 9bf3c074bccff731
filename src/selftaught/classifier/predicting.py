"""What `selftaught predict` runs: a classifier and images in, a table out, batch by batch."""

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from selftaught import export, voice
from selftaught.classifier.model import Classifier, load
from selftaught.classifier.places import found, free
from selftaught.classifier.settings import Predicting
from selftaught.evaluate.features import open_samples
from selftaught.evaluate.writing import texts, write_blocks, write_table
from selftaught.nouns import worded
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
        lines = [f"{worded(f'{self.images:,} images')} are in {self.out}"]
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
    listed = asked.out.with_suffix(".bad.csv")
    for file in (asked.out, listed):
        free(file, asked.overwrite)
    classifier = load(found(Path(model)), asked.backbone)
    samples = open_samples(data, classifier.network, None, asked.path_column)
    heads, target = columns(classifier), classifier.target
    counts: Counter[str] = Counter()
    images = unsure = 0
    bad: list[tuple[str, str]] = []

    def blocks() -> Iterator[dict[str, Any]]:
        nonlocal images, unsure, bad
        with voice.counted("reading and embedding") as progress:
            for told in classifier.stream(samples, asked, progress):
                labels = classifier.labels(told.outputs, asked.min)
                images += len(labels)
                unsure += sum(not label for label in labels)
                if target.kind != "regression":
                    several = target.kind == "multilabel"
                    each = (label.split(";") if several else [label] for label in labels if label)
                    counts.update(name for names in each for name in names)
                unreadable = np.array([b.index for b in told.bad], np.int64)
                bad += zip(texts(samples, unreadable), (b.reason for b in told.bad), strict=True)
                named = [texts(samples, told.index)]
                if target.kind != "regression":
                    named += [[label or None for label in labels], told.outputs.max(1)]
                yield dict(zip(heads, [*named, *told.outputs.T], strict=True))

    with export.atomic(asked.out) as temporary, voice.heard():
        write_blocks(temporary, blocks())
    if bad:
        with export.atomic(listed) as temporary:
            write_table(temporary, dict(zip(("path", "reason"), zip(*bad, strict=True))))
    else:  # that of other predictions
        listed.unlink(missing_ok=True)
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
