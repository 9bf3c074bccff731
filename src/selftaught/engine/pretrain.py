"""`pretrain`: what Python users call, and the command of the same name."""

import logging
from pathlib import Path
from typing import Any

from selftaught import config, kinds, methods, voice
from selftaught.data import Samples
from selftaught.engine import restarts
from selftaught.engine.run import Run
from selftaught.engine.second import opened
from selftaught.engine.settings import Settings
from selftaught.engine.tries import decided
from selftaught.errors import UserError
from selftaught.feed.readers import refuse_imported
from selftaught.method import Method
from selftaught.signature import Signature, read_object, takes

log = logging.getLogger("selftaught")

PAIRS = "infonce"
"""What is trained on two modalities where nobody names a method."""


# for editors and type checkers the settings are written out in pretrain.pyi
@takes(Settings)
def pretrain(
    method: str | type[Method] | Method | None,
    data: Any,
    out: str | Path | None = None,
    **options: Any,
) -> Run:
    """Train a method on unlabeled images; leave a run folder with the encoder and a report.

    pretrain(SimCLR, "photos/", backbone="resnet18", size=96, temperature=0.2, epochs=200)

    Args:
        method: class of a method, or its name: it is built after the seed is set, so that the same
            call, or the run's run.yaml, gives the same run. A method that was built before is
            trained from the weights that it has; run.yaml then says that it does not hold them.
            None for the usual one or, with `try_=True`, for what is best of a handful.
        data: folder, list file, Parquet, tar shards, array, or dataset of images; or what
            `open_data` made of one.
        out: run folder; by default runs/METHOD-DATA, numbered where that exists.
        options: settings of the training, and, of a method that is to be built, `backbone` (its
            name), parameters of the backbone and of the method; `kind`, where the data does not
            show what its samples are (image, clip, sound, series, text), and the options of that;
            `second_kind`, and the like of a second modality, each behind `second_`.

    Returns:
        What came of it: encoder, scores, verdict, report.

    Raises:
        UserError: a setting or an input that cannot work, before any step.
        DataError: more than `max_bad` of the images cannot be read.
        TrainingError: a loss that is not finite, or a training that failed by the doctor's
            verdict; nothing is exported.
        Interrupted: a signal came; the run is saved and can be resumed.
    """
    refuse_imported()
    built, word = isinstance(method, Method), options.pop("kind", None)
    if method is None and word is None:
        word = kinds.guess(data, tuple(kinds.files()))
    beside, second = options.get("second"), options.pop("second_kind", None)
    usual = kinds.find(word).method if beside is None and word else PAIRS
    asked_for = usual if method is None else method
    kind = type(method) if built else asked_for
    kind = methods.find(kind) if isinstance(kind, str) else kind
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise UserError(
            f"{method!r} is no method: give a class that derives from Method, or its name"
        )
    of = _kind(method if isinstance(method, Method) else kind, data, word, beside is not None)
    other = None if built or beside is None else _second(read_object(kind), of, beside, second)
    asked = config.sort_out(options, read_object(kind), built, of, other)
    settings = restarts.settled(Settings.of(out=out, **asked["training"]))
    with voice.heard():
        with voice.told_if_slow("opening the data, building the method"):
            given = asked["backbone"], asked["options"]
            samples = None
            if not built:
                seen = kinds.made({"kind": of} | asked["sample"])
                samples = settings.open(data, given[0].get("channels", 3), seen)
            if other is not None:
                sample = {"kind": other} | asked["second_sample"]
                given[1]["other"] = opened(settings, sample, asked["second_backbone"])
            chosen = asked_for if method is None and beside is not None else method
            plan = decided(chosen, data, settings, *given, samples)
        run = Run(plan).complete()
        if run.report is not None:
            log.info("the encoder is in %s, and all about it in %s", run.folder, run.report)
    return run


def _second(method: Signature, kind: str, data: Any, asked: str | None) -> str | None:
    """The kind of a second modality that has an encoder of its own kind; None where it has none."""
    known = kinds.of(data).word if isinstance(data, Samples) else None
    return config.second_kind(method, kind, data, asked or known)


def _kind(method: type[Method] | Method, data: Any, asked: str | None, paired: bool) -> str:
    """What samples are: as asked for, as the encoder of a method has it, or as the data looks."""
    if isinstance(method, Method):
        return kinds.of(method.encoder).word
    if asked is not None:
        return kinds.find(asked).word
    if isinstance(data, Samples):
        return kinds.of(data).word
    among = tuple(kinds.files()) if paired else method.needs.kinds
    return kinds.guess(data, among)
