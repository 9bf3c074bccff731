"""A classifier whose network is trained whole, beside the one of its features as they were."""

import copy
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.backbones import Encoder, Image
from selftaught.backbones.image.create import plain_vit
from selftaught.classifier.choosing import learn
from selftaught.classifier.heads import Head, Linear
from selftaught.classifier.judging import Exam, Judged
from selftaught.classifier.model import Classifier
from selftaught.classifier.settings import Classifying, Predicting
from selftaught.classifier.targets import Target
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.engine.pretrain import pretrain
from selftaught.engine.score import accelerator, not_kept
from selftaught.errors import UserError
from selftaught.evaluate.floors import Margin
from selftaught.evaluate.scores import Score
from selftaught.methods.supervised.finetune import Finetune
from selftaught.sides import Size, as_option, told_size

log = logging.getLogger("selftaught")

LR, LAYER_DECAY = 1e-4, 0.75
"""Of AdamW, for weights that know something; of a ViT's layers, each that of the one above it."""

BATCH, EPOCHS, STEPS = 32, 10, 100
"""Images a step at most; passes over the labels at least, and steps."""

WHOLE = "all of the network trained"
"""How what a trained network says came about."""

SCALE = (0.5, 1.0)
"""Areas of crops: a class may be told by what a small crop leaves out."""


@dataclass(frozen=True)
class Tuned:
    """A network that was trained whole, and both ways on the same held-out images.

    network, head: of it, trained on all labels. judged, frozen: what it, and features as they were,
    say of images that neither has learned from. how: it was trained, in words.
    """

    network: Encoder
    head: Head
    judged: Judged
    frozen: Judged
    how: str

    @property
    def better(self) -> bool:
        """Whether it is right more often."""
        return bool(self.judged.correct.mean() > self.frozen.correct.mean())

    @property
    def said(self) -> str:
        """Which is better, and by how much."""
        ours, theirs = (_accuracy(j) for j in (self.judged, self.frozen))
        margin = Margin(ours, "frozen", theirs)
        low, high = margin.interval
        word = {
            "above": "better",
            "below": "worse",
            "unclear": "no more different than noise",
        }[margin.verdict]
        kept = "the fine-tuned network" if self.better else "the frozen one"
        return (
            f"Fine-tuned {ours.value:.1f} %, frozen {theirs.value:.1f} % of the same {ours.n} "
            f"held-out images: {margin.points:+.1f} points (95 % interval {low:+.1f} to "
            f"{high:+.1f}), {word}. Kept is {kept}."
        )


def _accuracy(judged: Judged) -> Score:
    right = judged.correct
    return Score("accuracy", 100 * float(right.mean()), len(right), judged.how, 0.0, right)


def check(target: Target, network: Encoder, size: Size) -> None:
    """Raise UserError where a network cannot be trained for this target, or at this size."""
    if target.kind != "classes":
        raise UserError(
            f"--finetune trains for classes, and the labels are {target.said} ({target.why}): "
            "leave it out"
        )
    if size != network.size:
        raise UserError(
            f"--size {as_option(size)}: --finetune trains at the encoder's own "
            f"{told_size(network.size)} px; leave one of both out"
        )


def beside(
    network: Encoder,
    x: Sequence[Tensor],
    sets: Sequence[Samples],
    exam: Exam,
    asked: Classifying,
    frozen: Judged,
) -> Tuned:
    """Train a copy of `network` on the labels, and judge it where its frozen features were judged.

    Args:
        network: which stays as it is.
        x: its features of the labeled samples, and of test samples.
        sets: these samples.
        exam: which are held out; the first part where there is no test set.
        asked: options.
        frozen: what a classifier of its features said of all that are held out.
    """
    labels, target = exam.given, exam.target
    train = _named(sets[0], np.arange(len(labels)), labels, target)
    if exam.test is not None:
        trained, head, how = _train(network, x[0], train, labels, exam, asked)
        said = _said(trained, head, target, sets[1], asked)
        judged = Judged(np.arange(len(said)), said, exam.test, target, exam.how, WHOLE)
        return Tuned(trained, head, judged, frozen, how)
    held = exam.parts[0]
    fit = np.setdiff1d(np.arange(len(labels)), held)
    trained, head, how = _train(
        network, x[0][torch.from_numpy(fit)], select(train, fit), labels[fit], exam, asked
    )
    said = _said(trained, head, target, select(sets[0], held), asked)
    told = f"learned from {len(fit)} labels, {len(held)} held out"
    judged = Judged(held, said, labels[held], target, told, WHOLE)
    tuned = Tuned(trained, head, judged, frozen.at(held), how)
    if not tuned.better:
        return tuned
    log.info("fine-tuning is better, and is done once more with the labels that were held out")
    trained, head, how = _train(network, x[0], train, labels, exam, asked)
    return Tuned(trained, head, judged, tuned.frozen, how)


def _named(samples: Samples, rows: np.ndarray, labels: np.ndarray, target: Target) -> Samples:
    """Samples whose labels are numbered as the names of the target are."""
    found = select(samples, rows)
    found.source.labels, found.source.classes = labels, list(target.names)
    return found


def _train(
    network: Encoder,
    x: Tensor,
    samples: Samples,
    labels: np.ndarray,
    exam: Exam,
    asked: Classifying,
) -> tuple[Encoder, Head, str]:
    """A trained copy, its classifier, and how it was trained.

    The classifier begins as the best linear one of the features as they are, so that no noise of a
    fresh one undoes what they know (Kumar et al., 2022, arXiv 2202.10054).
    """
    target = exam.target
    copied: Any = copy.deepcopy(network)
    copied.trained = True  # a recipe for weights that know something
    # methods say Image and take any encoder
    method = Finetune(cast(Image, copied), classes=len(target.names), scale=SCALE)
    first = learn(x, labels, target, ("ridge", "logistic"), asked.seed)
    linear = cast(Linear, first.head.scores)
    with torch.no_grad():
        method.classifier.weight.copy_((linear.weight * first.head.scale).T)
        method.classifier.bias.copy_(linear.bias * first.head.scale)
    batch = min(BATCH, len(labels))
    rounds = asked.epochs or max(EPOCHS, -(-STEPS // (len(labels) // batch)))
    log.info(
        "fine-tuning on %d labels for %d epochs; its run folder is temporary", len(labels), rounds
    )
    with tempfile.TemporaryDirectory() as folder, not_kept():
        pretrain(
            method,
            samples,
            Path(folder) / "run",
            recipe="paper",
            epochs=rounds,
            batch=batch,
            lr=LR,
            layer_decay=LAYER_DECAY if _layered(network) else None,
            norm_statistics="start",
            keep="end",
            curve=False,
            seed=asked.seed,
            workers=asked.workers,
            accelerator=accelerator(asked.device),
            precision=asked.precision,
            read_timeout=asked.read_timeout,
            evaluate=False,
            force=True,  # the accuracy tells whether it failed
        )
    trained = cast(Any, method.backbone).cpu().eval()
    head = Head(
        Linear(method.classifier.weight.detach().cpu().T, method.classifier.bias.detach().cpu()),
        target.kind,
    )
    how = (
        f"all of the network trained on {len(labels)} labels for {rounds} epochs in batches of "
        f"{batch}, AdamW at {LR:g}, crops and flips, from the {first.name} classifier"
    )
    return trained, head, how


def _layered(network: Encoder) -> bool:
    net = network.net if isinstance(network, Image) else nn.Identity()
    return plain_vit(net) is not None


def _said(
    network: Encoder, head: Head, target: Target, samples: Samples, asked: Classifying
) -> np.ndarray:
    made = Classifier(network, head, target, network.size, {})
    options = Predicting(
        batch=asked.batch, workers=asked.workers, device=asked.device, precision=asked.precision
    )
    return np.concatenate([told.outputs for told in made.stream(samples, options)])
