"""Losses of what is hidden, and of features that are predicted."""

import math
from typing import Any

import numpy as np
import torch

from selftaught.method import Batch
from tests.formulas import balanced, find, find_all, numbers, softmax, told, unit


def cut(images: np.ndarray, side: int) -> np.ndarray:
    """[B, C, H, W] -> [B, N, side * side * C], channels varying fastest."""
    count, _, height, width = images.shape
    patches = [
        images[:, :, r : r + side, c : c + side].transpose(0, 2, 3, 1).reshape(count, -1)
        for r in range(0, height, side)
        for c in range(0, width, side)
    ]
    return np.stack(patches, 1)


def loss_mae(method: Any, batch: Batch) -> float:
    images, noise = batch.views
    true = cut(numbers(images), method.patch)
    if method.normalize:
        deviation = np.sqrt(true.var(2, ddof=1, keepdims=True) + 1e-6)
        true = (true - true.mean(2, keepdims=True)) / deviation
    seen, side = int(noise.shape[1] * (1 - method.ratio)), method.backbone.grid(images.shape[-1])[1]
    order, unit_ = np.argsort(numbers(noise), 1), method.unit
    squares = np.arange(true.shape[1]).reshape(side // unit_, unit_, side // unit_, unit_)
    squares = squares.transpose(0, 2, 1, 3).reshape(noise.shape[1], -1)  # patches of each
    keep = torch.from_numpy(squares[order[:, :seen]].reshape(len(true), -1))
    painted = numbers(method.decode(*method.backbone.tokens(images, keep), keep))
    hidden = [[n for s in row[: seen - 1 : -1] for n in squares[s]] for row in order]
    asked = [row[: round(method.asked * len(row))] for row in hidden]  # of highest noise
    each = [((painted[b, n] - true[b, n]) ** 2).mean() for b, row in enumerate(asked) for n in row]
    return float(np.mean(each))


def loss_denoising(method: Any, batch: Batch) -> float:
    clean, corrupted = batch.views
    found = method.backbone.features(corrupted)
    maps = method.decoder(found.local.mT.reshape(len(clean), -1, *found.grid))
    painted, net = numbers(maps), method.backbone
    each = []
    for (b, c, y, x), logit in np.ndenumerate(painted):
        color = float(clean[b, c, y, x]) * net.std[c] + net.mean[c]
        chance = 1 / (1 + np.exp(-logit))
        told = color * np.log(chance) + (1 - color) * np.log(1 - chance)
        each.append((logit - color) ** 2 if method.distance == "squared" else -told)
    return float(np.mean(each))


def loss_aim(method: Any, batch: Batch) -> float:
    """A patch at a time: what lies after the prefix and before it is all that goes in."""
    images, prefix = batch.views
    true = cut(numbers(images), method.patch)
    net, head = method.backbone.net, method.head_blocks
    each = []
    for b, length in enumerate(prefix.tolist()):
        errors = []
        for k in range(length, true.shape[1]):
            seen = net.patch_embed(images[b : b + 1]).flatten(1, -2) + net.pos_embed
            seen = seen[:, :k]  # the prefix is among them
            tokens = within(net, seen, length)[:, -1]
            x = method.head_embed(tokens) + method.positions[:, k - 1]
            for block in head:
                x = x + block.mlp(block.norm(x))
            told = numbers(method.head_pred(method.head_norm(x)))[0]
            goal = true[b, k]
            if method.normalize:
                goal = (goal - goal.mean()) / np.sqrt(goal.var(ddof=1) + 1e-6)
            errors.append(((told - goal) ** 2).mean())
        each.append(np.mean(errors))
    return float(np.mean(each))


def within(net: Any, x: Any, prefix: int) -> Any:
    """Tokens [1, k, D] after the blocks of a ViT: each row of attention on its own."""
    for block in net.blocks:
        normed, layer = block.norm1(x), block.attn
        count, heads = x.shape[1], layer.num_heads
        q, k, v = layer.qkv(normed).view(count, 3, heads, -1).permute(1, 2, 0, 3)
        rows = []
        for i in range(count):
            seen = [j for j in range(count) if j <= i or j < prefix]
            weights = torch.from_numpy(
                softmax(numbers(q[:, i : i + 1] @ k[:, seen].mT) / np.sqrt(q.shape[2]))
            )
            rows.append((weights @ v[:, seen])[:, 0].reshape(-1))
        x = x + block.ls1(layer.proj(torch.stack(rows)[None]))
        x = x + block.ls2(block.mlp(block.norm2(x)))
    return net.norm(x)


def loss_bert(method: Any, batch: Batch) -> float:
    positions, labels = map(numbers, batch.views[1:])
    local = method.backbone.tokens(batch.views[0])
    table, total, asked = numbers(method.backbone.table), 0.0, 0
    for b, places in enumerate(positions):
        for k in np.flatnonzero(places >= 0):
            scores = numbers(method.head(local[b, places[k]])) @ table.T + numbers(method.bias)
            total, asked = total + find(scores, labels[b, k]), asked + 1
    return total / (asked + 1e-5)


def loss_causal_lm(method: Any, batch: Batch) -> float:
    ids, table = numbers(batch.views), numbers(method.backbone.table)
    local = numbers(method.backbone.tokens(batch.views))
    each = [
        find(table @ local[b, t - 1], ids[b, t])
        for b in range(len(ids))
        for t in range(1, ids.shape[1])
        if ids[b, t] != method.backbone.pad
    ]
    return float(np.mean(each))


def loss_simmim(method: Any, batch: Batch) -> float:
    images, hidden = batch.views
    side = images.shape[-1] // hidden.shape[-1]
    far = np.abs(numbers(method.reconstruct(images, hidden)) - numbers(images))
    each = {"l1": far, "l2": far**2, "smooth_l1": np.where(far < 1, far**2 / 2, far - 0.5)}
    error = each[method.distance].mean(1)
    if method.predict_visible:
        return float(error.mean())
    total = pixels = 0.0
    for b, row, column in np.argwhere(numbers(hidden)):
        place = slice(row * side, (row + 1) * side), slice(column * side, (column + 1) * side)
        total, pixels = total + error[b][place].sum(), pixels + side**2
    return total / (pixels + 1e-5)


def loss_data2vec(method: Any, batch: Batch) -> float:
    images, hidden = batch.views
    noise = 0.0
    if method.fill is not None:
        shape = (
            len(images) * method.copies,
            math.prod(method.grid(images.shape[-1])),
            method.backbone.dim,
        )
        noise = 0.01 * numbers(torch.randn(*shape))
    net, given = method.target.net, []
    tokens = net.norm_pre(net._pos_embed(net.patch_embed(images)))
    for block in net.blocks:
        tokens = block(tokens)
        given.append(numbers(tokens)[:, net.num_prefix_tokens :])
    goals = 0.0
    for x in given[-method.last :]:
        goals = goals + (x - x.mean(2, keepdims=True)) / np.sqrt(x.var(2, keepdims=True) + 1e-5)
    if method.fill is not None:
        return filled(method, images, hidden, goals / method.last, noise)
    replace = (hidden.flatten(1), method.mask_token)
    predicted = numbers(method.head(method.backbone.features(images, replace=replace).local))
    gap = np.abs(predicted - goals / method.last)
    each = np.where(gap < method.beta, gap**2 / (2 * method.beta), gap - method.beta / 2).mean(2)
    return float(each[numbers(hidden).reshape(len(each), -1) > 0].mean())


def filled(method: Any, images: Any, keep: Any, goals: np.ndarray, noise: Any) -> float:
    """data2vec 2.0: each mask alone, decoded by convolutions that are loops over nine shifts."""
    each, sides = [], method.grid(images.shape[-1])
    for b in range(len(images)):
        for m in range(method.copies):
            places = keep[b, m]
            cells = noise[b * method.copies + m].copy()
            seen = method.backbone.features(images[b : b + 1], places[None]).local
            cells[numbers(places)] = numbers(seen)[0]
            maps = cells.reshape(*sides, -1)
            for conv in method.fill.convs:
                made = shifts(maps, numbers(conv.weight), numbers(conv.bias), conv.groups)
                made = (made - made.mean(2, keepdims=True)) / np.sqrt(
                    made.var(2, keepdims=True) + 1e-5
                )
                made = numbers(torch.nn.functional.gelu(torch.from_numpy(made)))
                maps = maps + made if maps.shape == made.shape else made
            told_ = maps.reshape(len(cells), -1) @ numbers(method.head.weight).T
            error = ((told_ + numbers(method.head.bias) - goals[b]) ** 2).mean(1)
            each += [error[n] for n in range(len(cells)) if n not in set(places.tolist())]
    return float(np.mean(each))


def shifts(maps: np.ndarray, weight: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    """A convolution of 3 x 3 of maps [R, C, D], with zeros around them."""
    rows, columns, wide = maps.shape
    padded, out = np.pad(maps, ((1, 1), (1, 1), (0, 0))), np.tile(bias, (rows, columns, 1))
    share, of = wide // groups, len(weight) // groups
    for g in range(groups):
        own = slice(g * of, (g + 1) * of)
        for r in range(3):
            for c in range(3):
                given = padded[r : r + rows, c : c + columns, g * share : (g + 1) * share]
                out[..., own] += given @ weight[own, :, r, c].T
    return out


def loss_capi(method: Any, batch: Batch) -> dict[str, float]:
    """Darcet et al. (2025), Section 3: balanced at each place, and told of those asked for."""
    images, keep, asked = batch.views
    whole = unit(numbers(method.teacher.features(images).local))
    scores = whole @ numbers(method.clustering.weight).T + numbers(method.clustering.bias)
    seen = numbers(method.predictor(method.backbone.features(images, keep).local, keep, asked))
    logits = unit(seen) @ numbers(method.head.weight).T / method.student_temp
    each = [balanced(s, method.target_temp, method.iterations) for s in scores.swapaxes(0, 1)]
    own = [
        told(goal, score / method.student_temp)
        for n, goals in enumerate(each)
        for goal, score in zip(goals, scores[:, n])
    ]
    hidden = [
        told(each[int(n)][b], logits[b, i])
        for b, row in enumerate(asked)
        for i, n in enumerate(row)
    ]
    return {"predicted": float(np.mean(hidden)), "clusters": float(np.mean(own))}


def loss_beit(method: Any, batch: Batch) -> float:
    images, hidden = batch.views
    scores, words = numbers(method.predict(images, hidden)), numbers(method.ids(images))
    columns = hidden.shape[2]
    each = [
        find(scores[b, r * columns + c], words[b, r, c]) for b, r, c in np.argwhere(numbers(hidden))
    ]
    return float(np.mean(each))


def loss_discrete_vae(method: Any, batch: Batch) -> dict[str, float]:
    (images,) = batch.views
    logits = method.tokenizer.logits(images)
    noise = -np.log(numbers(torch.empty_like(logits).exponential_()))
    start, end = method.temperature
    now = end + (start - end) * (1 + np.cos(np.pi * method.progress)) / 2
    scores = np.moveaxis(numbers(logits), 1, 3)
    soft = softmax((scores + np.moveaxis(noise, 1, 3)) / now)
    if method.straight_through:
        soft = np.eye(soft.shape[-1])[soft.argmax(3)]
    painted = numbers(method.decode(torch.from_numpy(np.moveaxis(soft, 3, 1).copy())))
    mean, std = (np.array(x)[:, None, None] for x in (method.backbone.mean, method.backbone.std))
    goal = 0.8 * (numbers(images) * std + mean) + 0.1
    share = softmax(scores) + 1e-10
    apart = (share * np.log(share * share.shape[-1])).sum(3)
    apart = apart.sum() if method.kl == "reference" else apart.mean()
    return {
        "squared": float(((painted - goal) ** 2).mean()),
        "divergence": method.kl_weight * float(apart),
    }


def loss_ijepa(method: Any, batch: Batch) -> float:
    (images,) = batch.views
    context, targets = method.masks(len(images), (method.backbone.grid(images.shape[-1])[0],) * 2)
    features = numbers(method.target.features(images).local)
    mean, var = features.mean(2, keepdims=True), features.var(2, keepdims=True)
    features = (features - mean) / np.sqrt(var + 1e-5)
    told = numbers(method.predict(images, context, targets))
    each, row = [], 0
    for target in targets:
        for _ in context:
            for b in range(len(images)):
                for place, found in zip(target[b], told[row]):
                    off = np.abs(found - features[b, int(place)])
                    each.append(np.where(off < 1, off**2 / 2, off - 0.5).mean())
                row += 1
    return float(np.mean(each))


def loss_vjepa(method: Any, batch: Batch) -> float:
    (clips,) = batch.views
    parts, each = method.drawn(clips), []
    features = numbers(method.target.tokens(clips))
    mean, var = features.mean(2, keepdims=True), features.var(2, keepdims=True)
    features = (features - mean) / np.sqrt(var + 1e-5)
    for token, (seen, asked) in enumerate(parts):
        known = method.backbone.tokens(clips, seen[0])
        told = numbers(method.predictor(known, seen[0], asked[0], token=token))
        off = [
            np.abs(told[b, k] - features[b, int(place)]) ** method.power / method.power
            for b in range(len(clips))
            for k, place in enumerate(asked[0, b])
        ]
        each.append(np.mean(off))
    return float(np.mean(each))


loss_vjepa2 = loss_vjepa


def loss_selfie(method: Any, batch: Batch) -> float:
    images, noise = batch.views
    count, side = method.cells, images.shape[-1] // method.cells
    pieces = [
        images[:, :, r * side : (r + 1) * side, c * side : (c + 1) * side]
        for r in range(count)
        for c in range(count)
    ]
    z = method.backbone(torch.stack(pieces, 1).flatten(0, 1)).view(len(images), count**2, -1)
    seen = int(count**2 * (1 - method.ratio))
    order = noise.argsort(1)
    each = []
    context = torch.stack([z[b, order[b, :seen]] for b in range(len(z))])
    start = context.new_zeros(len(z), 1, z.shape[2])
    pooled = numbers(method.pooling(torch.cat([start, context], 1))[:, 0])
    places = numbers(method.pos_embedding.weight)
    for b in range(len(z)):
        hidden = order[b, seen:].tolist()
        own = numbers(z[b])
        each.append(
            find_all(np.array([[(pooled[b] + places[i]) @ own[j] for j in hidden] for i in hidden]))
        )
    return float(np.mean(each))


def loss_masked_series(method: Any, batch: Batch) -> float:
    x, order = batch.views
    x = (x - x.mean(2, keepdim=True)) / x.std(2, keepdim=True)
    hidden = order[:, 0].argsort(2).argsort(2) < method.hide
    local = method.backbone.features(x, hidden).local
    found, true, size = numbers(method.head(local)), numbers(x), method.backbone.patch_size
    each = [
        (found[b, c * method.count + n] - true[b, c, n * size : (n + 1) * size]) ** 2
        for b, c, n in np.argwhere(numbers(hidden))
    ]
    return float(np.mean(each))
