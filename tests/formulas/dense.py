"""Losses of cells, boxes and places of an image."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from selftaught.method import Batch
from selftaught.methods.dense.scrl import embed, listed
from selftaught.methods.dense.stego import PRESETS
from tests.formulas import cosine, find, numbers, softmax, unit
from tests.formulas.contrastive import among_queue


def cells(net: Any, x: torch.Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """[B, N, D] of a backbone and a projector that takes rows, and the grid."""
    backbone, projector = net
    found = backbone.features(x)
    z = projector(found.local.flatten(0, 1))
    return numbers(z).reshape(*found.local.shape[:2], -1), found.grid


def loss_densecl(method: Any, batch: Batch) -> dict[str, float]:
    sides = []
    for x, net in zip(batch.views, (method.online, method.target)):
        backbone, projector, dense = net
        found = backbone.features(x)
        local = [numbers(dense(found.local)), numbers(found.local)]
        sides.append((unit(numbers(projector(found.pooled))), *map(unit, local)))
    (query, q_cells, q_features), (key, k_cells, k_features) = sides
    t, queue = method.temperature, numbers(method.dense_negatives.items)
    each = []
    for b in range(len(query)):
        for i, cell in enumerate(q_cells[b]):
            match = int(np.argmax([cosine(q_features[b, i], f) for f in k_features[b]]))
            each.append(find([cell @ k_cells[b, match] / t, *(queue @ cell / t)], 0))
    whole = among_queue(query, key, numbers(method.negatives.items), t)
    return {"whole": (1 - method.weight) * whole, "dense": method.weight * float(np.mean(each))}


def same_place(corners: np.ndarray, grid: tuple[int, int], ratio: float) -> np.ndarray:
    """[N, N] of the cells of two views with corners [2, 4]."""
    rows, columns = grid
    places, diagonal = [], 0.0
    for left, top, right, bottom in corners:
        width, height = (right - left) / columns, (bottom - top) / rows
        diagonal = max(diagonal, np.hypot(width, height))
        places.append(
            [
                (left + (c + 0.5) * width, top + (r + 0.5) * height)
                for r in range(rows)
                for c in range(columns)
            ]
        )
    one, other = map(np.array, places)
    return np.sqrt(((one[:, None] - other[None]) ** 2).sum(2)) / diagonal < ratio


def loss_pixpro(method: Any, batch: Batch) -> float:
    views, corners = batch.views
    predicted, target = [], []
    for x in views:
        z, grid = cells(method.online, x)
        values = numbers(method.value(torch.from_numpy(z).flatten(0, 1))).reshape(z.shape)
        like = np.maximum(unit(z) @ unit(z).swapaxes(1, 2), method.clamp) ** method.power
        predicted.append(like @ unit(values))
        target.append(cells(method.target, x)[0])
    total = 0.0
    for b in range(len(views[0])):
        same = same_place(numbers(corners)[b], grid, method.ratio)
        pairs = np.argwhere(same)
        for i in range(2):
            found = [
                cosine(predicted[i][b, (n, m)[i]], target[1 - i][b, (m, n)[i]]) for n, m in pairs
            ]
            total -= 2 * sum(found) / (len(pairs) + 1e-6)
    return total / len(views[0])


def loss_pixcontrast(method: Any, batch: Batch) -> float:
    views, corners = batch.views
    q = [cells(method.online, x) for x in views]
    k = [cells(method.target, x)[0] for x in views]
    total = 0.0
    for i in range(2):
        for way in range(2):
            of_images = []
            for b in range(len(views[0])):
                same = same_place(numbers(corners)[b], q[0][1], method.ratio)
                scores = unit(q[i][0][b]) @ unit(k[1 - i][b]).T / method.temperature
                same = same if i == 0 else same.T
                if way:
                    scores, same = scores.T, same.T
                hits = [-np.log(p[h].sum()) for p, h in zip(softmax(scores), same) if h.any()]
                of_images += [np.mean(hits)] if hits else []
            total += float(np.mean(of_images)) / 4
    return total


def loss_scrl(method: Any, batch: Batch) -> float:
    views, boxes = batch.views
    x, rows = torch.cat(list(views)), listed(boxes)
    p = numbers(method.predictor(embed(method.online, x, rows)))
    z = numbers(embed(method.target, x, rows))
    half = len(z) // 2
    each = [2 - 2 * cosine(p[i], z[(i + half) % len(z)]) for i in range(len(z))]
    return 2 * float(np.mean(each))


def sampled(maps: np.ndarray, at: np.ndarray) -> np.ndarray:
    """[D, H, W] at places [h, w, 2] in [0, 1) of the corners' range -> [h * w, D], bilinearly.

    Which of the two places along an axis is right and which is down is as in the paper's code,
    whose result has rows and columns swapped.
    """
    _, height, width = maps.shape
    out = []
    for u, v in at.swapaxes(0, 1).reshape(-1, 2):
        x, y = u * (width - 1), v * (height - 1)
        left, top = int(x), int(y)
        right, below = min(left + 1, width - 1), min(top + 1, height - 1)
        fx, fy = x - left, y - top
        upper = (1 - fx) * maps[:, top, left] + fx * maps[:, top, right]
        lower = (1 - fx) * maps[:, below, left] + fx * maps[:, below, right]
        out.append((1 - fy) * upper + fy * lower)
    return np.array(out)


def loss_stego(method: Any, batch: Batch) -> dict[str, float]:
    (x,) = batch.views
    features = method.features(x)
    seen, codes = method.dropped(features), method.encode(features)
    f, c = numbers(seen), numbers(codes)
    images, others = range(0, len(f), 2), range(1, len(f), 2)
    shape = (len(f) // 2, method.places, method.places, 2)
    at, at_other = numbers(torch.rand(shape)), numbers(torch.rand(shape))
    orders = [torch.randperm(shape[0]).tolist() for _ in range(method.negatives)]
    preset = PRESETS[method.preset]
    weights, shifts = method.balance or preset.weights, method.shifts or preset.shifts

    def agreement(pairs: list[tuple[Any, Any]], shift: float) -> float:
        """Mean over pairs of (features, codes) [P, D] of two images."""
        goals = [unit(a[0]) @ unit(b[0]).T for a, b in pairs]
        if method.pointwise:
            mean = np.mean(goals)
            goals = [g - g.mean(1, keepdims=True) for g in goals]
            goals = [g - np.mean(goals) + mean for g in goals]
        high = 0.8 if method.stabilize else np.inf
        found = [np.clip(unit(a[1]) @ unit(b[1]).T, 0, high) for a, b in pairs]
        return float(np.mean([-k * (g - shift) for k, g in zip(found, goals)]))

    own = [(sampled(f[i], at[n]), sampled(c[i], at[n])) for n, i in enumerate(images)]
    near = [(sampled(f[i], at_other[n]), sampled(c[i], at_other[n])) for n, i in enumerate(others)]
    far = []
    for order in orders:
        which = [(o + (o == n)) % len(order) for n, o in enumerate(order)]
        told = [
            (sampled(f[2 * o], at_other[n]), sampled(c[2 * o], at_other[n]))
            for n, o in enumerate(which)
        ]
        far.append(agreement(list(zip(own, told)), shifts[2]))
    terms = {
        "self": weights[0] * agreement(list(zip(own, own)), shifts[0]),
        "neighbour": weights[1] * agreement(list(zip(own, near)), shifts[1]),
        "other": weights[2] * float(np.mean(far)),
    }
    if method.crf:
        terms["crf"] = method.crf * _crf(x, codes)
    rows = unit(np.moveaxis(c, 1, 3).reshape(-1, c.shape[1]))
    cosines = rows @ unit(numbers(method.centres)).T
    return terms | {"clusters": -float(cosines.max(1).mean())}


def _crf(x: torch.Tensor, codes: torch.Tensor) -> float:
    image, code = (numbers(F.interpolate(m, (56, 56), mode="bilinear")) for m in (x, codes))
    places = torch.randint(56, (2, 1000)).numpy()
    each = []
    for pixels, c in zip(image, code):
        color, z = pixels[:, places[0], places[1]].T, unit(c[:, places[0], places[1]].T)
        apart = ((places[:, :, None] - places[:, None]) ** 2).sum(0)
        unlike = (color**2).sum(1)[:, None] + (color**2).sum(1) - 2 * color @ color.T
        kernel = 10 * np.exp(-apart / (2 * 0.5) - unlike / (2 * 0.15))
        kernel += 3 * np.exp(-apart / (2 * 0.05))
        each.append(-(z @ z.T * kernel).mean())
    return float(np.mean(each))


def loss_also(method: Any, batch: Batch) -> dict[str, float]:
    points, asked, near = batch.views
    latents = numbers(method.project(method.backbone.features(points).local))
    points, asked, near = numbers(points), numbers(asked), numbers(near)
    occupancy, intensity = [], []
    for scan in range(len(near)):
        for query, told in enumerate(near[scan]):
            x, y, z, full, light = asked[scan, query]
            for point in told:
                if point < 0:
                    continue
                offset = np.array([x, y, z]) - points[scan, point, :3]
                pair = np.concatenate([latents[scan, point], offset])
                h = torch.from_numpy(pair)[None]
                h = method.decoder.fc_in(h)
                for layer in method.decoder.mlp_layers:
                    h = layer(h.clamp(min=0))
                logit, shade = numbers(method.decoder.fc_out(h))[0]
                p = 1 / (1 + np.exp(-logit))
                occupancy.append(-np.log(p if full == 1 else 1 - p))
                if light >= 0:
                    intensity.append(abs(shade - light))
    return {
        "occupancy": float(np.mean(occupancy)),
        "intensity": method.weight * float(np.mean(intensity)),
    }
