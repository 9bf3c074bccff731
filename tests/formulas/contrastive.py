"""Losses that tell an image from others."""

from typing import Any

import numpy as np
import torch

from selftaught.method import Batch
from tests.formulas import cosine, find, find_all, numbers, unit


def embedded(method: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """[B, D] of both views, which go through the network together."""
    z = numbers(method.projector(method.backbone(torch.cat(list(batch.views)))))
    return z[: len(z) // 2], z[len(z) // 2 :]


def queries_and_keys(method: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """[B, D] unit vectors: of the first views, and of the second ones by the momentum encoder."""
    query = method.projector(method.backbone(batch.views[0]))
    return unit(numbers(query)), unit(numbers(method.target(batch.views[1])))


def among_queue(query: np.ndarray, key: np.ndarray, queue: np.ndarray, t: float) -> float:
    return float(np.mean([find([q @ k / t, *(queue @ q / t)], 0) for q, k in zip(query, key)]))


def loss_simclr(method: Any, batch: Batch) -> float:
    z = unit(np.concatenate(embedded(method, batch)))
    half, total = len(z) // 2, 0.0
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        scores = [z[i] @ z[j] / method.temperature for j in others]
        total += find(scores, others.index((i + half) % len(z)))
    return total / half  # the sum of two means


loss_simclr_v2 = loss_simclr


def loss_infonce(method: Any, batch: Batch) -> float:
    z1, z2 = (unit(z) for z in embedded(method, batch))
    loss = find_all(z1 @ z2.T / method.temperature)
    if not method.symmetric:
        return loss
    return (loss + find_all(z2 @ z1.T / method.temperature)) / 2


def loss_npair(method: Any, batch: Batch) -> float:
    z1, z2 = embedded(method, batch)
    loss = find_all(z1 @ z2.T)
    if method.symmetric:
        loss = (loss + find_all(z2 @ z1.T)) / 2
    lengths = [(z**2).sum(1).mean() for z in (z1, z2)]
    return loss + method.decay / 4 * sum(lengths)


def _both_ways(method: Any, batch: Batch, one: Any) -> float:
    """Mean of one(i, z, other) over images and both directions."""
    z1, z2 = (unit(z) for z in embedded(method, batch))
    pairs = ((z1, z2), (z2, z1))
    return float(np.mean([one(i, z, other) for z, other in pairs for i in range(len(z1))]))


def loss_dcl(method: Any, batch: Batch) -> float:
    def one(i: int, z: np.ndarray, other: np.ndarray) -> float:
        pull = z[i] @ other[i]
        if method.weighted:
            far = np.exp((z * other).sum(1) / method.sigma)
            pull = pull * (2 - len(z) * far[i] / far.sum())
        rest = [z[i] @ view[j] for view in (z, other) for j in range(len(z)) if j != i]
        return -pull / method.temperature + np.log(
            np.exp(np.array(rest) / method.temperature).sum()
        )

    return _both_ways(method, batch, one)


def loss_hcl(method: Any, batch: Batch) -> float:
    t, beta, tau = method.temperature, method.hardness, method.prior

    def one(i: int, z: np.ndarray, other: np.ndarray) -> float:
        rest = [z[i] @ view[j] for view in (z, other) for j in range(len(z)) if j != i]
        positive, negative = np.exp(z[i] @ other[i] / t), np.exp(np.array(rest) / t)
        count = len(negative)
        weighted = (negative**beta * negative).sum() / (negative**beta).mean()
        mass = max((weighted - tau * count * positive) / (1 - tau), count * np.exp(-1 / t))
        return -np.log(positive / (positive + mass))

    return _both_ways(method, batch, one)


def loss_siamese(method: Any, batch: Batch) -> dict[str, float]:
    z1, z2 = embedded(method, batch)
    count = len(z1)
    pull = [((z1[i] - z2[i]) ** 2).sum() / 2 for i in range(count)]
    push = [
        max(0, method.margin - np.sqrt(((z1[i] - z2[j]) ** 2).sum() + 1e-9)) ** 2 / 2
        for i in range(count)
        for j in range(count)
        if i != j
    ]
    return {"attraction": float(np.mean(pull)), "repulsion": float(np.mean(push))}


def loss_triplet(method: Any, batch: Batch) -> float:
    z1, z2 = embedded(method, batch)
    z, half, each = np.concatenate([z1, z2]), len(z1), []
    for i in range(len(z)):
        far = ((z - z[i]) ** 2).sum(1)
        if method.distance == "euclidean":
            far = np.sqrt(far)
        own = (i % half, i % half + half)
        gap = far[next(j for j in own if j != i)] - min(np.delete(far, own))
        each.append(np.log1p(np.exp(gap)) if method.margin is None else max(0, gap + method.margin))
    return float(np.mean(each))


def loss_spectral(method: Any, batch: Batch) -> dict[str, float]:
    def cut(z: np.ndarray) -> np.ndarray:
        return z * min(1.0, np.sqrt(method.radius) / np.sqrt((z**2).sum()))

    z1, z2 = ([cut(row) for row in z] for z in embedded(method, batch))
    count = range(len(z1))
    own = np.mean([z1[i] @ z2[i] for i in count])
    others = np.mean([(z1[i] @ z2[j]) ** 2 for i in count for j in count if i != j])
    return {"attraction": -2 * own / method.radius, "repulsion": others / method.radius}


def loss_supcon(method: Any, batch: Batch) -> float:
    z = unit(np.concatenate(embedded(method, batch)))
    label, each = np.tile(numbers(batch.label), 2), []  # type: ignore[arg-type]
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        scores = [z[i] @ z[j] / method.temperature for j in others]
        each.append(
            np.mean([find(scores, k) for k, j in enumerate(others) if label[j] == label[i]])
        )
    return float(np.mean(each))


def loss_moco_v1(method: Any, batch: Batch) -> float:
    query, key = queries_and_keys(method, batch)
    return among_queue(query, key, numbers(method.negatives.items), method.temperature)


def loss_moco_v2(method: Any, batch: Batch) -> float:
    total, queue, t = 0.0, numbers(method.negatives.items), method.temperature
    sides = (batch.views, batch.views[::-1]) if method.symmetric else (batch.views,)
    for views in sides:
        query, key = queries_and_keys(method, batch._replace(views=views))
        if not method.hardness:
            total += among_queue(query, key, queue, t)
            continue
        each = []
        for q, k in zip(query, key):
            negative = np.exp(queue @ q / t)
            hard = negative**method.hardness
            mass = max((hard * negative).sum() / hard.mean(), len(queue) * np.exp(-1 / t))
            each.append(-np.log(np.exp(q @ k / t) / (np.exp(q @ k / t) + mass)))
        total += float(np.mean(each))
    return total


def loss_infomin(method: Any, batch: Batch) -> dict[str, float]:
    tiles, queue = batch.views[2], numbers(method.negatives.items)
    query, key = queries_and_keys(method, batch)
    puzzle = unit(numbers(method.tiles(method.backbone(tiles.flatten(0, 1)))))
    view, jigsaw = (among_queue(q, key, queue, method.temperature) for q in (query, puzzle))
    return {"view": (1 - method.beta) * view, "jigsaw": method.beta * jigsaw}


def loss_moco_v3(method: Any, batch: Batch) -> float:
    q = [unit(numbers(method.predictor(method.online(x)))) for x in batch.views]
    k = [unit(numbers(method.target(x))) for x in batch.views]
    t = method.softness
    return sum(2 * t * find_all(q[i] @ k[1 - i].T / t) for i in range(2))


def loss_nnclr(method: Any, batch: Batch) -> float:
    z = [numbers(method.projector(method.backbone(x))) for x in batch.views]
    p = [unit(numbers(method.predictor(method.projector(method.backbone(x))))) for x in batch.views]
    support, total = numbers(method.support.items), 0.0
    for i in range(2):
        near = np.array([support[np.argmax([cosine(row, s) for s in support])] for row in z[i]])
        scores = unit(near) @ p[1 - i].T / method.temperature
        ways = [find_all(scores)] + ([find_all(scores.T)] if method.both_ways else [])
        total += float(np.mean(ways))
    return total / 2


def loss_mean_shift(method: Any, batch: Batch) -> float:
    query = unit(numbers(method.predictor(method.online(batch.views[0]))))
    target = unit(numbers(method.target(batch.views[1])))
    queue, head = numbers(method.earlier.items), int(method.earlier.head)
    for i, row in enumerate(target):  # which join the queue before the search
        queue[(head + i) % len(queue)] = row
    each = []
    for q, t in zip(query, target):
        near = np.argsort(-(queue @ t))[: method.neighbors]
        each += [((q - queue[n]) ** 2).sum() for n in near]
    return float(np.mean(each))


def noise_contrast(scores: np.ndarray, z: float, samples: int, eps: float) -> float:
    """NCE of rows [B, 1 + K] of exponentiated similarities."""
    noise, total = (scores.shape[1] - 1) / samples, 0.0
    for row in scores / z:
        total -= np.log(row[0] / (row[0] + noise + eps))
        total -= sum(np.log(noise / (p + noise + eps)) for p in row[1:])
    return total / len(scores)


def among_memory(method: Any, x: np.ndarray, index: torch.Tensor, eps: float, nce: bool) -> float:
    rows = torch.randint(method.samples, (len(x), method.negatives))
    items = numbers(method.memory.items)
    scores = np.array(
        [[v @ items[j] for j in (int(i), *r)] for v, i, r in zip(x, index, rows.tolist())]
    )
    scores = scores / method.temperature
    if not nce:
        return find_all(scores, [0] * len(x))
    return noise_contrast(np.exp(scores), float(method.memory.partition), method.samples, eps)


def loss_instdisc(method: Any, batch: Batch) -> float:
    x = unit(numbers(method.projector(method.backbone(batch.views[0]))))
    if not method.negatives:
        return find_all(x @ numbers(method.memory.items).T / method.temperature, batch.index)
    return among_memory(method, x, batch.index, 1e-7, True)


def loss_pirl(method: Any, batch: Batch) -> dict[str, float]:
    images, tiles = batch.views
    image = unit(numbers(method.projector(method.backbone(images))))
    tile = method.tile_projector(method.backbone(tiles.flatten(0, 1)))
    puzzle = unit(numbers(method.puzzle_projector(tile.view(len(images), -1))))
    eps, nce = float(np.finfo(np.float32).eps), method.objective == "nce"
    return {
        name: weight * among_memory(method, x, batch.index, eps, nce)
        for name, weight, x in zip(("tiles", "image"), method.weights, (puzzle, image))
    }


def loss_pcl(method: Any, batch: Batch) -> dict[str, float]:
    query, key = queries_and_keys(method, batch)
    instance = among_queue(query, key, numbers(method.earlier.items), method.temperature)
    each = []
    for clusters in method.clusterings:
        own = clusters.assignment[batch.index].tolist()
        order = torch.randperm(len(clusters.density)).tolist()
        shown = own + [c for c in order if c not in own][: method.negatives]
        centers, density = numbers(clusters.centroids), numbers(clusters.density)
        scores = [[q @ centers[c] / density[c] for c in shown] for q in query]
        each.append(find_all(np.array(scores)))
    return {"instance": instance, "prototype": float(np.mean(each))}


def loss_cpc(method: Any, batch: Batch) -> float:
    patches = batch.views
    z = method.backbone(patches.flatten(0, 1)).view(len(patches), 7, 7, -1)
    context, each = method.summary(z), []
    for k, predictor in enumerate(method.predictors):
        below = method.skip + 1 + k
        expected = numbers(predictor(context[:, : 7 - below])).reshape(-1, z.shape[-1])
        true = numbers(z[:, below:]).reshape(expected.shape)
        if not method.negatives:
            each.append(find_all(expected @ true.T))
            continue
        drawn = torch.randint(len(true), (len(true), method.negatives)).tolist()
        found = [
            np.exp(-find([e @ true[j] for j in (i, *others)], 0))
            for i, (e, others) in enumerate(zip(expected, drawn))
        ]
        each.append(float(np.mean([-np.log(p + 1e-11) for p in found])))
    return float(np.mean(each))


def loss_cpc_audio(method: Any, batch: Batch) -> float:
    z = method.backbone.steps(batch.views)
    known, each = method.backbone.known(z), []
    count, length, width = z.shape
    windows, moments = length - method.steps, numbers(z).reshape(-1, width)
    drawn = [torch.randint(low, high, (count, method.negatives, windows)).tolist()
             for low, high in ((0, count), (1, length))]  # fmt: skip
    for k, predictor in enumerate(method.predictors, 1):
        expected = numbers(predictor(known[:, :windows]))
        true = numbers(z[:, k : k + windows]).reshape(-1, width)
        if not method.negatives:
            each.append(find_all(expected.reshape(-1, width) @ true.T))
            continue
        for b in range(count):
            for t in range(windows):
                rows = [b * length + t + k]
                for sound, later in zip(*(part[b] for part in drawn)):
                    rows.append(sound[t] * length + (later[t] + t) % length)
                each.append(find([expected[b, t] @ moments[row] / width for row in rows], 0))
    return float(np.mean(each))


def loss_ts2vec(method: Any, batch: Batch) -> float:
    x, where, masked = batch.views
    steps, shares = x.shape[2], numbers(where)
    shared = 4 + int(shares[0, 0] * (steps - 3))
    start = int(shares[0, 1] * (steps - shared + 1))
    left = int(shares[0, 2] * (start + 1))
    right = start + shared + int(shares[0, 3] * (steps - start - shared + 1))
    contexts = []
    for n, (first, last) in enumerate(((left, start + shared), (start, right))):
        moved = [int(row[4] * (left + steps - right + 1)) - left for row in shares]
        pieces = [x[i, :, first + m : last + m] for i, m in enumerate(moved)]
        hidden = [
            masked[i, n, 0, first + m : last + m] < method.hidden for i, m in enumerate(moved)
        ]
        found = method.backbone.features(torch.stack(pieces), torch.stack(hidden)).local
        contexts.append(numbers(found))
    one, other = contexts
    return slow_hierarchical(one[:, -shared:], other[:, :shared])


def slow_hierarchical(one: np.ndarray, other: np.ndarray) -> float:
    """TS2Vec's loss, pair by pair, as Algorithm 1 and equations 1 and 2 have it."""

    def found(anchor: np.ndarray, others: list[np.ndarray], partner: int) -> float:
        scores = [anchor @ o for o in others]
        return float(np.log(np.exp(scores).sum()) - scores[partner])

    def scale(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        count, steps, _ = a.shape
        of_time, of_series = [], []
        for i, t in np.ndindex(count, steps):
            for x, y in ((a, b), (b, a)):
                others = [*y[i], *(x[i, s] for s in range(steps) if s != t)]
                of_time.append(found(x[i, t], others, t))
                others = [*y[:, t], *(x[j, t] for j in range(count) if j != i)]
                of_series.append(found(x[i, t], others, i))
        return float(np.mean(of_time)), float(np.mean(of_series))

    losses = []
    while True:
        of_time, of_series = scale(one, other)
        steps = one.shape[1]
        losses.append(of_series / 2 + (of_time / 2 if steps > 1 else 0))
        if steps == 1:
            return float(np.mean(losses))
        half = steps // 2
        one, other = (x[:, : 2 * half].reshape(len(x), half, 2, -1).max(2) for x in (one, other))
