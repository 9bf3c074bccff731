"""Losses of assignments to clusters and prototypes."""

from typing import Any

import numpy as np
import torch

from selftaught.masks import generator
from selftaught.method import Batch
from tests.formulas import balanced, find, find_all, numbers, softmax, swapped, unit


def projected(method: Any, views: Any) -> np.ndarray:
    """[V, B, D] unit vectors: global views go through the network together, local ones too."""
    pooled = [method.backbone(torch.cat(list(v))) for v in (views[:2], views[2:]) if len(v)]
    z = unit(numbers(method.projector(torch.cat(pooled))))
    return z.reshape(len(views), -1, z.shape[1])


def loss_deepcluster(method: Any, batch: Batch) -> float:
    scores = numbers(method.classifier(method.backbone(batch.views[0])))
    return find_all(scores, method.assignment[batch.index])


def loss_sela(method: Any, batch: Batch) -> float:
    features = method.backbone(batch.views[0])
    return float(
        np.mean(
            [
                find_all(numbers(head(features)), own[batch.index])
                for head, own in zip(method.classifiers, method.assignment)
            ]
        )
    )


def loss_deepcluster_v2(method: Any, batch: Batch) -> float:
    z, each, first = projected(method, batch.views), [], 0
    centroids = numbers(method.centroids)
    for head, count in enumerate(method.prototypes):
        own = centroids[first : first + count]
        first += count
        for view in z:
            for row, i in zip(view, batch.index):
                right = int(method.assignment[head, i])
                each.append(find(own @ row / method.temperature, right) / view.shape[0] / len(z))
    return float(sum(each)) / len(method.prototypes)


def loss_swav(method: Any, batch: Batch) -> float:
    z, prototypes = projected(method, batch.views), unit(numbers(method.scores.weight))
    goals = []
    for view in range(2):
        rows, queue = z[view], numbers(method.earlier)[view]
        if method.queue and queue[-1].any():
            rows = np.concatenate([queue, rows])
        q = balanced(rows @ prototypes.T, method.epsilon, method.iterations)
        goals.append(q[len(q) - len(z[view]) :])
    return swapped(np.array(goals), z @ prototypes.T / method.temperature)


def loss_seer(method: Any, batch: Batch) -> float:
    scores = projected(method, batch.views) @ unit(numbers(method.scores.weight)).T
    goals = [balanced(scores[i], method.epsilon, method.iterations) for i in range(2)]
    if method.progress < method.hard:
        goals = [np.eye(q.shape[1])[q.argmax(1)] for q in goals]
    return swapped(np.array(goals), scores / method.temperature)


def loss_msn(method: Any, batch: Batch) -> dict[str, float]:
    whole, *views = batch.views
    target = unit(numbers(method.target_projector(method.target(whole))))
    large, small = views[: method.random_views], views[method.random_views :]
    patches = method.backbone.grid(whole.shape[-1])[0] ** 2
    seen = int(patches * (1 - method.drop))
    keep = torch.from_numpy(generator().permutation(patches)[:seen]) if method.drop else None
    x = torch.cat(large)
    pooled = [method.backbone.features(x, None if keep is None else keep.expand(len(x), -1)).pooled]
    pooled += [method.backbone(torch.cat(small))]
    z = unit(numbers(method.projector(torch.cat(pooled))))
    prototypes, t = unit(numbers(method.scores.weight)), method.temperature
    scores = (z @ prototypes.T / t).reshape(len(views), len(whole), -1)
    sharp = softmax(target @ prototypes.T / t / method.sharpen)
    sizes = {
        "uniform": [1.0] * len(prototypes),
        "power": [1 / k**method.exponent for k in range(1, len(prototypes) + 1)],
    }.get(method.prior, method.prior)
    prior = [size / sum(sizes) for size in sizes]
    goals = balanced(np.log(sharp), 1.0, method.iterations, prior) if method.iterations else sharp
    p = softmax(scores)
    match = -(goals[None] * np.log(p)).sum(2).mean()
    mean = p.mean((0, 1))
    terms = {
        "match": match,
        "me_max": method.me_max * sum(m * np.log(m / share) for m, share in zip(mean, prior)),
    }
    if method.entropy:
        terms["entropy"] = -method.entropy * (p * np.log(p)).sum(2).mean()
    return terms
