"""Losses of tasks that an image sets by itself."""

from typing import Any

import numpy as np
import torch

from selftaught.method import Batch
from selftaught.parts.colors import lab
from selftaught.parts.decoder import as_map
from selftaught.parts.gamut import bins, prior
from tests.formulas import find, find_all, numbers, told, unit


def colors(method: Any, images: torch.Tensor) -> np.ndarray:
    """[B, C, H, W] in [0, 1]."""
    mean, std = (np.array(x)[:, None, None] for x in (method.backbone.mean, method.backbone.std))
    return numbers(images) * std + mean


def at_fourths(method: Any, images: torch.Tensor, side: int) -> np.ndarray:
    """Colors [B, 3, side, side] of single pixels, at equal steps."""
    every = colors(method, images)
    step = every.shape[-1] // side
    return every[..., ::step, ::step]


def loss_rotation(method: Any, batch: Batch) -> float:
    images = numbers(batch.views[0])
    turned = [np.rot90(image, k, (1, 2)) for image in images for k in range(4)]
    features = numbers(method.backbone(torch.from_numpy(np.stack(turned))))
    if method.pair:
        upright = numbers(method.backbone(batch.views[1]))
        features = np.stack([np.append(f, upright[i // 4]) for i, f in enumerate(features)])
    scores = numbers(method.classifier(torch.from_numpy(features)))
    return find_all(scores, [i % 4 for i in range(len(scores))])


def loss_jigsaw(method: Any, batch: Batch) -> float:
    tiles, which = batch.views
    raw = numbers(tiles)
    flat = (raw - raw.mean((3, 4), keepdims=True)) / raw.std((3, 4), ddof=1, keepdims=True)
    features = method.tower(method.backbone(torch.from_numpy(flat).flatten(0, 1)))
    features = features.view(len(tiles), 9, -1)
    laid = [
        features[b, method.orders[order]].flatten() for b in range(len(which)) for order in which[b]
    ]
    return find_all(numbers(method.classifier(torch.stack(laid))), which.flatten())


def loss_relative_patch(method: Any, batch: Batch) -> float:
    patches, kept = batch.views
    noise = numbers(torch.rand_like(patches))
    steps = numbers(patches) * 255 * np.array(method.backbone.std)[:, None, None]
    shown = noise - 0.5
    for b, n in np.ndindex(*kept.shape):
        channel = int(kept[b, n]) % patches.shape[2]
        own = steps[b, n, channel]
        shown[b, n, channel] = own - own.mean()
        shown[b, n] /= np.sqrt((shown[b, n] ** 2).mean())
    features = method.tower(method.backbone(torch.from_numpy(shown).flatten(0, 1)))
    features = features.view(*kept.shape, -1)
    sides = [(-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1)]
    side, rows, right = range(method.grid), [], []
    for b in range(len(kept)):
        for y, x, (dx, dy) in [(y, x, s) for y in side for x in side for s in sides]:
            if y + dy in side and x + dx in side:
                one, other = y * method.grid + x, (y + dy) * method.grid + x + dx
                rows.append(torch.cat([features[b, one], features[b, other]]))
                right.append(sides.index((dx, dy)))
    return find_all(numbers(method.classifier(torch.stack(rows))), right)


def loss_distortion(method: Any, batch: Batch) -> float:
    x, true = batch.views
    both = torch.cat([x, method.distorted(x, true)])
    features = method.backbone(both)
    pairs = torch.cat([features[: len(x)], features[len(x) :]], 1)
    return float(((numbers(method.regressor(pairs)) - numbers(true)) ** 2).mean())


def loss_counting(method: Any, batch: Batch) -> dict[str, float]:
    x, small = batch.views
    half = x.shape[-1] // 2
    parts = [x[:, :, r : r + half, c : c + half] for c in (0, half) for r in (0, half)]
    found = numbers(method.counter(method.backbone(torch.cat([*parts, small]))))
    found = found.reshape(5, len(x), -1)
    total, whole = found[:4].sum(0), found[4]
    pair, other = [], []
    for i in range(len(x)):
        near, far = (whole[i] - total[i]) ** 2, (whole[i - 1] - total[i]) ** 2
        if method.form == "paper":
            near, far = near.sum(), far.sum()
        pair.append(np.mean(near))
        other.append(np.mean(np.maximum(0, method.margin - far)))
    return {"pair": float(np.mean(pair)), "other": float(np.mean(other))}


def loss_exemplar_cnn(method: Any, batch: Batch) -> float:
    (x,) = batch.views
    z = numbers(method.classifier(method.backbone(x.flatten(0, 1))))
    image = np.repeat(numbers(batch.index), x.shape[1])
    if method.objective == "classes":
        known = [i for i, n in enumerate(image) if method.surrogate[n] >= 0]
        return find_all(z[known], [int(method.surrogate[image[i]]) for i in known])
    z = unit(z) if method.objective == "triplet" else unit(z.T).T
    each = []
    for a in range(len(z)):
        apart = ((z - z[a]) ** 2).sum(1)
        others = sorted(apart[image != image[a]])
        for p in np.flatnonzero(image == image[a]):
            if p != a:
                far = next((d for d in others if d > apart[p]), others[-1])
                each.append(max(0, apart[p] - far + method.margin))
    return float(np.mean(each))


def loss_motion(method: Any, batch: Batch) -> float:
    frames, masks = batch.views
    found = method.backbone.features(frames)
    logits = numbers(method.decoder(as_map(found.local, found.grid)))[:, 0]
    step, each = masks.shape[-1] // logits.shape[-1], []
    for b, r, c in np.ndindex(*logits.shape):
        cell = numbers(masks)[b, r * step : (r + 1) * step, c * step : (c + 1) * step].mean()
        if cell < method.low or cell > method.high:
            chance = 1 / (1 + np.exp(-logits[b, r, c]))
            each.append(-np.log(chance if cell > method.high else 1 - chance))
    return float(np.mean(each))


def nearest_bins(ab: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances and numbers of the nearest bins of one color."""
    apart = ((bins().double().numpy() - ab) ** 2).sum(1)
    which = np.argsort(apart, kind="stable")[:count]
    return apart[which], which


def loss_colorization(method: Any, batch: Batch) -> dict[str, float]:
    images = batch.views
    found = method.backbone.features(images)
    logits = numbers(method.decoder(as_map(found.local, found.grid)))
    truth = at_fourths(method, images, logits.shape[-1])
    ab = numbers(lab(torch.from_numpy(truth)))[:, 1:]
    if method.form == "regression":
        return {"squared": float(((logits - ab / 110) ** 2).mean())}
    pixels = list(np.ndindex(len(ab), *ab.shape[2:]))
    if method.form == "hybrid":
        hue, chroma = [], []
        for b, r, c in pixels:
            red, green, blue = truth[b, :, r, c].clip(0, 1)
            strength = max(red, green, blue) - min(red, green, blue)
            angle = np.arctan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * np.pi) % 1
            scores = logits[b, :, r, c]
            hue.append(strength * find(scores[:32], min(31, int(32 * angle))))
            chroma.append(find(scores[32:], min(31, int(32 * strength))))
        return {"hue": 5 * float(np.mean(hue)), "chroma": float(np.mean(chroma))}
    share = prior().double().numpy()
    factors = 1 / ((1 - method.gamma) * share + method.gamma / len(share))
    factors = factors / (share * factors).sum()
    kept = numbers(method.factors)  # made in float32
    np.testing.assert_allclose(kept, factors, rtol=1e-6)
    plain, more = [], []
    for b, r, c in pixels:
        apart, which = nearest_bins(ab[b, :, r, c], method.neighbors)
        goal = np.zeros(len(share))
        weight = np.exp(-apart / (2 * method.sigma**2))
        goal[which] = weight / weight.sum()
        error = told(goal, logits[b, :, r, c])
        colored = (np.abs(ab[b]) > 5).any()
        plain.append(error)
        more.append(((kept[which[0]] if colored else 0.0) - 1) * error)
    terms = {"plain": float(np.mean(plain))}
    return terms if method.form == "plain" else terms | {"rebalancing": float(np.mean(more))}


def loss_split_brain(method: Any, batch: Batch) -> dict[str, float]:
    images = batch.views
    found = method.backbone.features(images)
    maps = as_map(found.local, found.grid)
    half = maps.shape[1] // 2
    color = numbers(method.to_colour(maps[:, :half]))
    light = numbers(method.to_lightness(maps[:, half:]))
    truth = torch.from_numpy(at_fourths(method, images, color.shape[-1]))
    told_lab = numbers(lab(truth))
    of_color, of_light = [], []
    for b, r, c in np.ndindex(len(color), *color.shape[2:]):
        level, *ab = told_lab[b, :, r, c]
        of_color.append(find(color[b, :, r, c], nearest_bins(np.array(ab), 1)[1][0]))
        bin_of_light = min(method.steps - 1, int(level * method.steps / 100))
        of_light.append(find(light[b, :, r, c], bin_of_light))
    return {"colour": float(np.mean(of_color)), "lightness": float(np.mean(of_light))}


def loss_inpainting(method: Any, batch: Batch) -> dict[str, float]:
    images, *missing = batch.views
    truth = 2 * colors(method, images) - 1
    size, share = truth.shape[-1], 1 - method.adversarial
    start, side = size // 4, size // 2
    if missing:
        hidden = numbers(missing[0])
    else:
        hidden = np.zeros((len(truth), size, size), bool)
        inner = slice(start + method.overlap, start + side - method.overlap)
        hidden[:, inner, inner] = True
    painted = numbers(method.paint(torch.from_numpy(truth), torch.from_numpy(hidden)))
    if missing:
        goal = truth
        painted = np.where(hidden[:, None], painted, goal)
        weight = np.full((size, size), 1 / hidden.mean())
    else:
        goal = truth[..., start : start + side, start : start + side]
        weight = np.full((side, side), method.border)
        weight[method.overlap : side - method.overlap, method.overlap : side - method.overlap] = 1
    error = (painted - goal) ** 2
    terms = {
        "squared": share * error.mean(),
        "border": share * ((weight - 1) * error).mean(),
    }
    if method.discriminator is not None:
        real, fake = (
            1 / (1 + np.exp(-numbers(method.discriminator(torch.from_numpy(x.copy())))))
            for x in (goal, painted)
        )
        terms["fooling"] = method.adversarial * -np.log(fake).mean()
        terms["telling"] = -np.log(real).mean() - np.log(1 - fake).mean()
    return terms


def loss_temporal_order(method: Any, batch: Batch) -> float:
    moments, answers = batch.views
    features = np.concatenate([numbers(method.backbone(x)) for x in moments], 1)
    weight, bias = numbers(method.classifier.weight), numbers(method.classifier.bias)
    return find_all(features @ weight.T + bias, answers.tolist())
