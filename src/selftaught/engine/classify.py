"""What `selftaught classify` runs: a classifier of features, and the whole network trained."""

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch
from rich.console import Console, ConsoleOptions, RenderResult
from torch import nn

from selftaught import kinds, voice
from selftaught.backbones import Encoder
from selftaught.classifier import judging, page
from selftaught.classifier.choosing import learn
from selftaught.classifier.judging import Exam, Judged
from selftaught.classifier.model import Classifier
from selftaught.classifier.places import default_out, taken
from selftaught.classifier.settings import Classifying
from selftaught.classifier.targets import known, labeled, told, values
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.engine import beginning, tuned
from selftaught.errors import UserError
from selftaught.evaluate.calibrated import references
from selftaught.evaluate.comparing import fingerprints, named, tell_shared
from selftaught.evaluate.features import (
    Embeddings,
    Progress,
    device_for,
    one_pass,
    open_samples,
    resolve,
    running,
)
from selftaught.evaluate.floors import ENCODER, Comparison
from selftaught.feed.readers import limited
from selftaught.sides import Size
from selftaught.signature import takes

if TYPE_CHECKING:
    from selftaught.options import ClassifyingOptions

log = logging.getLogger("selftaught")

FROZEN = "frozen"
"""What the classifier of features as they are is called beside one that was trained whole."""


@dataclass(frozen=True)
class Made:
    """A classifier, and the folder that it is in."""

    classifier: Classifier
    folder: Path

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        found, about = self.classifier.compared, self.classifier.about
        assert found is not None
        yield from found.table
        yield found.verdict
        if "finetuned" in about:
            yield about["finetuned"]
        judged = self.classifier.judged
        if judged is not None and judged.sureness:
            yield f"Its probabilities are off by {judged.off:.1f} points on average."
        yield f"{about['how']}."
        yield f"{self.folder} holds the classifier; {self.folder}/report.html shows its mistakes."


@takes(Classifying)
def classify(
    encoder: Encoder | nn.Module | str | Path,
    data: Any,
    test: Any = None,
    *,
    progress: Progress | None = None,
    **options: "Unpack[ClassifyingOptions]",
) -> Classifier:
    """A classifier of an encoder and some labels: chosen, and judged on labels it has not seen.

    made = classify("runs/simclr-photos", "labeled/")
    made.predict("photos/").labels

    Args:
        encoder: as of `embed`.
        data: labeled images, as of `embed`.
        test: labeled images to judge on; by default parts of data that were not learned from.
        progress: is told how many images are done.
        options: fields of `Classifying`; nothing is written unless `out` is given.

    Returns:
        The classifier, with its scores beside floors.

    Raises:
        UserError: labels are missing or too few, or an argument cannot work.
        DataError: no image can be read.
        TrainingError: features are not finite, or fine-tuning failed.
    """
    asked = Classifying.of(**options)
    if asked.out is not None:
        taken(asked.out, asked.overwrite)
    with limited(asked.read_timeout):
        made = _made(encoder, data, test, asked, progress)
    if asked.out is not None:
        made.save(asked.out, overwrite=asked.overwrite)
    return made


@takes(Classifying)
def classify_command(encoder: str, data: str, **options: "Unpack[ClassifyingOptions]") -> Made:
    """Make a classifier of an encoder and some labels, and say how good it is beside floors.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), or the function
            that builds a module, as package.module:function.
        data: labeled images: folder of class folders, list file, Parquet, tar shards.
        options: fields of `Classifying`.
    """
    asked = Classifying.of(**options)
    out = asked.out or default_out(encoder, data)
    taken(out, asked.overwrite)
    with (
        voice.heard(),
        voice.counted("reading and embedding") as progress,
        limited(asked.read_timeout),
    ):
        made = _made(encoder, data, asked.test, asked, progress)
    return Made(made, made.save(out, overwrite=asked.overwrite))


def _made(
    encoder: Encoder | nn.Module | str | Path,
    data: Any,
    test: Any,
    asked: Classifying,
    progress: Progress | None,
) -> Classifier:
    """What `classify` returns: arguments and errors as there."""
    begun = time.perf_counter()
    if not asked.heads:
        raise UserError("heads must name some of ridge, logistic, knn")
    network = resolve(named(encoder, asked), asked.size)
    side = asked.size or network.size
    opened = [
        open_samples(d, network, asked.labels, asked.path_column)
        for d in (data, test)
        if d is not None
    ]
    target = told(opened[0], asked.target)
    if asked.finetune:
        tuned.check(target, network, side)
    sets = [labeled(samples) for samples in opened]
    start = None if not isinstance(encoder, str | Path) else beginning.beside(network, encoder)
    device = device_for(encoder, network, asked.device)
    beside = references(
        network,
        start,
        sets[0],
        size=side,
        device=device,
        workers=asked.workers,
        seed=asked.seed,
    )
    networks = {ENCODER: network, **beside}
    seen = _seen(networks, sets, side, device, asked, progress)
    if test is not None:
        tell_shared(*(e.features for e in seen[[*kinds.of(network).floors()][-1]]))
    # what cannot be read has no features
    sets = [select(s, e.index) if len(e) < len(s) else s for s, e in zip(sets, seen[ENCODER])]
    given = [values(samples, target) for samples in sets]
    for line in judging.told(given[0], target, len(opened[0]) - len(known(opened[0]))):
        log.info("%s", line)
    exam = Exam.of(
        target, given[0], given[1] if test is not None else None, asked.heads, asked.seed
    )
    log.info("%s", exam.how)
    found: dict[str, Judged] = {}
    x = {name: [torch.from_numpy(e.features) for e in each] for name, each in seen.items()}
    for name, each in x.items():
        log.info("choosing a classifier of %s", name)
        found[name] = exam.take(each[0], each[1] if test is not None else None)
    learned = learn(x[ENCODER][0], given[0], target, asked.heads, asked.seed)
    origin = str(encoder) if isinstance(encoder, str | Path) else network.name
    origin += f" with {asked.weights}" if asked.weights else ""
    about: dict[str, Any] = {
        "made_from": origin,
        "data": {
            "path": str(data) if isinstance(data, str | Path) else None,
            "labels": len(given[0]),
            **fingerprints(sets),
        },
        "how": f"{learned.name}, {learned.how}, fitted to all {len(given[0])} labels",
    }
    ours, head = network, learned.head
    if asked.finetune:
        trained = tuned.beside(network, x[ENCODER], sets, exam, asked, found[ENCODER])
        about["finetuned"] = trained.said
        if trained.better:
            ours, head, about["how"] = trained.network, trained.head, trained.how
            floors = {n: j.at(trained.judged.index) for n, j in found.items() if n != ENCODER}
            found = {ENCODER: trained.judged, FROZEN: trained.frozen, **floors}
    scored = {name: judging.scores(judged, begun) for name, judged in found.items()}
    compared = Comparison(
        f"{network.name}, {kinds.of(network).at(side)} from {origin}",
        scored,
        sum(len(e.skipped) for e in seen[ENCODER]),
        time.perf_counter() - begun,
        fingerprints(sets),
        side,
    )
    about |= {"scores": judging.beside_floors(compared), "held_out": judging.plain(found[ENCODER])}
    shown = page.pictures(found[ENCODER], sets[-1], side)
    return Classifier(ours, head, target, side, about, found[ENCODER], compared, shown)


def _seen(
    networks: Mapping[str, Encoder],
    sets: Sequence[Samples],
    side: Size,
    device: torch.device,
    asked: Classifying,
    progress: Progress | None,
) -> dict[str, list[Embeddings]]:
    """Features of each network and of pixels, of each set: every image is read once."""
    floors = kinds.of(networks[ENCODER]).floors()
    found: dict[str, list[Embeddings]] = {name: [] for name in (*networks, *floors)}
    with ExitStack() as stack:
        forwards = [
            stack.enter_context(running(network, device, asked.precision))
            for network in networks.values()
        ]
        forwards += floors.values()
        for samples in sets:
            features, rest = one_pass(forwards, samples, side, asked.batch, asked.workers, progress)
            for name, each in zip(found, features, strict=True):
                found[name].append(Embeddings(each, *rest))
    return found
