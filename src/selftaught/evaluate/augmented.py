"""Linear classification as papers report it: by SGD, on features of crops that are made anew."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from selftaught import augment
from selftaught.data import Samples
from selftaught.data.selection import select
from selftaught.errors import DataError
from selftaught.evaluate.classifiers import BATCH, Heads, predictions
from selftaught.evaluate.features import Embeddings, Progress, one_pass, readers
from selftaught.evaluate.scores import Score, Task, split
from selftaught.evaluate.settings import Scoring
from selftaught.feed.order import Order
from selftaught.feed.readers import Readers
from selftaught.feed.views import ViewDataset
from selftaught.sides import Size

RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Learning rates for 256 samples a step: DINO's 0.001, SimCLR's 0.1, MoCo v3's 3, MoCo's 30, and
what lies between."""

AREA = (0.08, 1.0)
"""Of the crops, as fractions of the image."""


@torch.no_grad()
def linear_augmented(
    networks: Mapping[str, Callable[[Tensor], Tensor]],
    train: Samples,
    test: Samples | None,
    size: Size,
    asked: Scoring,
    progress: Progress | None = None,
) -> dict[str, Score]:
    """Softmax regression by SGD on frozen features of random crops and flips of the images.

    The protocol of SimCLR (arXiv 2002.05709, B.6), MoCo (1911.05722, 4.1) and DINO (2104.14294):
    momentum 0.9, no weight decay, many passes, features as they are. Their rates differ by four
    orders of magnitude, so that ten are trained on the same crops, with a cosine schedule, and that
    one is taken whose twin, which is shown four fifths of the training images alone, is best on
    the others; test images are never looked at. Each image is read once a pass for all networks.

    Args:
        networks: uint8 [B, C, size, size] on the CPU -> [B, D].
        train, test: labeled samples; without `test` a fifth of each class of `train` is held out.
        size: side of the views in pixels.
        asked: passes, batch of plain views, workers, seed.
        progress: is told how many crops are done.

    Returns:
        The score of each network.
    """
    begun = time.perf_counter()
    how = ""
    if test is None:
        rest, tested = split(np.asarray(train.labels))
        train, test, how = select(train, rest), select(train, tested), "a fifth of each class held"
    each = list(networks.values())
    shown, about = one_pass(each, test, size, asked.batch, asked.workers)
    classes = None if train.classes is None else tuple(train.classes)
    labels = Embeddings(np.zeros((len(train), 1), np.float32), np.asarray(train.labels))
    labels = replace(labels, classes=classes)
    tasks = [Task.of(labels, Embeddings(x[:, :1], *about)) for x in shown]
    y, count = tasks[0].train_y, tasks[0].classes
    fit, held = split(y.cpu().numpy(), asked.seed)
    fitted = torch.zeros(len(y), dtype=torch.bool)
    fitted[torch.from_numpy(fit)] = True

    batch = min(BATCH, len(train))
    order = Order(len(train), batch, len(train) // batch, asked.seed)
    order.epochs = range(asked.passes)
    crops = augment.crop(size, scale=AREA, interpolation="bilinear")
    views = ViewDataset(train, crops, asked.seed)
    batches = Readers(views.__getitems__, order, readers(len(train), asked.workers))
    twins: list[tuple[Heads, Heads]] = []
    steps = len(order)
    try:
        for step, item in enumerate(batches):
            if item.views is None:
                raise DataError(f"hardly any image can be read: {item.bad[0].reason}")
            for n, network in enumerate(each):
                x = network(item.views[0]).float()
                if n == len(twins):
                    twins.append((_heads(x, count, batch, asked), _heads(x, count, batch, asked)))
                seen = fitted[item.index].to(x.device)
                of = y[item.index].to(x.device)
                twins[n][0].step(x, of, step / steps)
                if bool(seen.any()):
                    twins[n][1].step(x[seen], of[seen], step / steps)
            if progress is not None:
                progress(step + 1, steps)
    finally:
        batches.close()

    best = [len(RATES) // 2] * len(each)
    chosen = "too few training samples to choose"
    if len(held):
        there, found = one_pass(each, select(train, held), size, asked.batch, asked.workers)
        truth = y[torch.from_numpy(held[found.index])].cpu()
        for n, x in enumerate(there):
            right = _told(x, twins[n][1]) == truth[:, None]
            best[n] = max(range(len(RATES)), key=lambda i: (int(right[:, i].sum()), i))
        chosen = f"of {len(RATES)} the best on {len(held)} held-out training samples"
    scores = {}
    for n, (name, task) in enumerate(zip(networks, tasks)):
        of_test = task.protocol.replace("given test set", f"{how} out, seed 0") if how else None
        protocol = (
            f"{of_test or task.protocol}; softmax regression by SGD on features of crops and "
            f"flips, {asked.passes} passes, learning rate {RATES[best[n]]:g} for {BATCH} samples, "
            f"{chosen}"
        )
        predicted = _told(shown[n], twins[n][0])[:, best[n]]
        scores[name] = task.score("linear, augmented", predicted, protocol, begun)
    return scores


def _heads(x: Tensor, classes: int, batch: int, asked: Scoring) -> Heads:
    return Heads(x, RATES, classes, batch, torch.Generator().manual_seed(asked.seed))


def _told(x: np.ndarray, heads: Heads) -> Tensor:
    """[N, H] classes of features [N, D]."""
    weight, bias = heads.parameters
    return predictions(torch.from_numpy(x).to(weight.device), weight, bias).cpu()
