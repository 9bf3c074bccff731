"""What a fine-tuning leaves beside its encoder: its classifier, with names and accuracy."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np

from selftaught.backbones import Encoder
from selftaught.classifier import judging, page
from selftaught.classifier.heads import Head, Linear
from selftaught.classifier.judging import Judged
from selftaught.classifier.model import Classifier
from selftaught.classifier.settings import Predicting
from selftaught.classifier.targets import Target, labeled, values
from selftaught.data import Samples
from selftaught.data.labels import name_of
from selftaught.data.selection import select
from selftaught.errors import SelftaughtError
from selftaught.evaluate.floors import ENCODER, Comparison
from selftaught.method import Method
from selftaught.methods.supervised.finetune import Finetune

log = logging.getLogger("selftaught")

FOLDER = "model"
"""In the run folder."""


def keep(
    method: Method, network: Encoder, samples: Samples, test: Samples | None, folder: Path
) -> None:
    """Keep the classifier of a method that has trained one, and say how often it is right.

    Args:
        method: which has ended.
        network: its backbone.
        samples: that it was trained on.
        test: labeled images that it has not seen; without them nobody knows how good it is.
        folder: of the run.
    """
    if not isinstance(method, Finetune):
        return
    begun = time.perf_counter()
    names = tuple(name_of(code, samples.classes) for code in range(method.classes))
    target = Target("classes", names, "as trained")
    weight, bias = (p.detach().cpu().float() for p in method.classifier.parameters())
    about: dict[str, Any] = {
        "made_from": str(folder),
        "how": f"all of the network trained on {len(samples):,} images by finetune",
        "scores": {},
    }
    made = Classifier(network, Head(Linear(weight.T, bias), "classes"), target, network.size, about)
    try:
        if test is not None:
            made = _judged(made, labeled(test), begun)
        place = made.save(folder / FOLDER, overwrite=True)
    except SelftaughtError as error:  # the encoder is there already
        log.warning("the classifier is not kept: %s", error)
        return
    told = "; name labeled images with --test to know how often it is right"
    for name, score in made.scores.items():
        low, high = score["interval"]
        told = f": {name} {score['value']:.1f} % (95 % interval {low:.1f} to {high:.1f})"
        told += f" on {score['n']:,} test images"
    log.info("the classifier is in %s%s; selftaught predict %s takes it", place, told, folder)


def _judged(made: Classifier, test: Samples, begun: float) -> Classifier:
    """With what it says of test images."""
    said = list(made.stream(test, Predicting()))
    seen = select(test, np.concatenate([s.index for s in said]))
    truth = values(seen, made.target)
    outputs = np.concatenate([s.outputs for s in said])
    how = f"{len(truth)} test images"
    judged = Judged(np.arange(len(truth)), outputs, truth, made.target, how, made.about["how"])
    compared = Comparison("", {ENCODER: judging.scores(judged, begun)}, 0, 0.0)
    about = made.about | {
        "scores": judging.beside_floors(compared),
        "held_out": judging.plain(judged),
    }
    shown = page.pictures(judged, seen, made.size)
    return Classifier(made.network, made.head, made.target, made.size, about, judged, None, shown)
