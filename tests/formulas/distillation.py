"""Losses by which a student follows an EMA teacher, or another network."""

from typing import Any

import numpy as np
import torch

from selftaught.masks import generator
from selftaught.masks.blocks import spread_ratios
from selftaught.method import Batch
from tests.formulas import balanced, cosine, find_all, numbers, softmax, swapped, told, unit


def loss_byol(method: Any, batch: Batch) -> float:
    p = [numbers(method.predictor(method.online(x))) for x in batch.views]
    z = [numbers(method.target(x)) for x in batch.views]
    far = [((unit(a) - unit(b)) ** 2).sum(1) for a, b in ((p[0], z[1]), (p[1], z[0]))]
    return float(np.mean(far[0]) + np.mean(far[1]))


def loss_simsiam(method: Any, batch: Batch) -> float:
    z = [method.projector(method.backbone(x)) for x in batch.views]
    p, z = ([numbers(x) for x in y] for y in ([method.predictor(x) for x in z], z))
    each = [cosine(p[i][b], z[1 - i][b]) for i in range(2) for b in range(len(p[0]))]
    return -float(np.mean(each))


def now(ends: tuple[float, float], share: float, progress: float) -> float:
    """A temperature that rises in a straight line."""
    return ends[0] + (ends[1] - ends[0]) * min(1.0, progress / share)


def seen_by_student(method: Any, views: Any, replace: Any = None) -> Any:
    """What the student's backbone gives: [V, B, D] of all views, [2 * B, N, D] of the global."""
    own = method.backbone.features(torch.cat(list(views[:2])), replace=replace)
    pooled = [own.pooled]
    if len(views) > 2:
        pooled.append(method.backbone.features(torch.cat(list(views[2:]))).pooled)
    return torch.cat(pooled).view(len(views), len(views[0]), -1), own.local


def loss_dino(method: Any, batch: Batch) -> float:
    views = batch.views
    teacher = numbers(method.teacher_head(method.teacher(torch.cat(list(views[:2])))))
    teacher = teacher.reshape(2, len(views[0]), -1) - numbers(method.center)
    temperature = now(method.teacher_temp, method.temp_warmup, method.progress)
    student = numbers(method.head(seen_by_student(method, views)[0]))
    return swapped(softmax(teacher / temperature), student / method.student_temp)


def spread(method: Any, student: np.ndarray, teacher: np.ndarray) -> dict[str, float]:
    """Wu et al. (2025): distances of unit vectors of unlike views, and minus the coding rate, by
    the eigenvalues of the covariance."""
    far = [
        ((teacher[t, b] - student[v, b]) ** 2).sum() / 2
        for t in range(2)
        for v in range(len(student))
        for b in range(student.shape[1])
        if v != t
    ]
    rates = []
    for view in range(2):
        z = (student[view] + teacher[view]) / 2 if method.smoothed else student[view]
        count, dim = z.shape
        sizes = np.linalg.eigvalsh(sum(np.outer(row, row) for row in z) / count)
        rate = sum(np.log(1 + dim * max(size, 0.0) / method.eps) for size in sizes) / 2
        rates.append(rate * (1 / dim + 1 / count))
    return {"alike": float(np.mean(far)), "rate": -method.rate_weight * float(np.mean(rates))}


def loss_simdino(method: Any, batch: Batch) -> dict[str, float]:
    teacher = unit(numbers(method.teacher_head(method.teacher(torch.cat(list(batch.views[:2]))))))
    student = unit(numbers(method.head(seen_by_student(method, batch.views)[0])))
    return spread(method, student, teacher.reshape(2, len(batch.views[0]), -1))


def loss_simdinov2(method: Any, batch: Batch) -> dict[str, float]:
    both = torch.cat(list(batch.views[:2]))
    grid = (method.backbone.grid(both.shape[-1])[0],) * 2
    hidden = spread_ratios(generator(), len(both), grid, method.mask_share, method.mask_ratio)
    seen = method.teacher.features(both)
    teacher = unit(numbers(method.teacher_head(seen.pooled)))
    goals = numbers(method.teacher_head(seen.local))
    pooled, local = seen_by_student(method, batch.views, (hidden, method.mask_token))
    patches = numbers(method.head(local))
    terms = spread(
        method, unit(numbers(method.head(pooled))), teacher.reshape(2, len(batch.views[0]), -1)
    )
    error = image_by_image(numbers(hidden), lambda i, n: 1 - cosine(goals[i, n], patches[i, n]))
    return terms | {"patch": method.patch_weight * error}


def image_by_image(hidden: np.ndarray, error: Any) -> float:
    """error(image, patch) -> the mean over images, of which some hide nothing, of their means."""
    each = [
        np.mean([error(i, n) for n in np.flatnonzero(row)]) if row.any() else 0.0
        for i, row in enumerate(hidden)
    ]
    return float(np.mean(each))


def loss_ibot(method: Any, batch: Batch) -> dict[str, float]:
    views, hidden = batch.views
    hidden = hidden.transpose(0, 1).flatten(0, 1)
    seen = method.teacher.features(torch.cat(list(views[:2])))
    own = method.teacher_patch_last
    of_patches = method.teacher_head(seen.local) if own is None else own(
        method.teacher_head[:-1](seen.local)
    )  # fmt: skip
    class_temp, patch_temp = (
        now(ends, method.temp_warmup, method.progress)
        for ends in (method.teacher_temp, method.patch_temp)
    )
    teacher = numbers(method.teacher_head(seen.pooled)).reshape(2, len(views[0]), -1)
    goals = softmax((teacher - numbers(method.center)) / class_temp)
    patch_goals = softmax((numbers(of_patches) - numbers(method.patch_center)) / patch_temp)
    pooled, local = seen_by_student(method, views, (hidden, method.mask_token))
    student = numbers(method.head(pooled)) / method.student_temp
    last = method.patch_last
    tokens = method.head(local) if last is None else last(method.head[:-1](local))
    patches = numbers(tokens) / method.student_temp
    error = image_by_image(numbers(hidden), lambda i, n: told(patch_goals[i, n], patches[i, n]))
    return {
        "class": method.class_weight * swapped(goals, student),
        "patch": method.patch_weight * error,
    }


def loss_dinov2(method: Any, batch: Batch) -> dict[str, float]:
    views, large = batch.views if method.gram else (batch.views, None)
    both = torch.cat(list(views[:2]))
    grid = (method.backbone.grid(both.shape[-1])[0],) * 2
    taught = method.network is not None
    if taught:
        net, head, patch_head = method.network.held.values()
        hidden = torch.ones(len(both), grid[0] * grid[1], dtype=torch.bool)
    else:
        net, head = method.ema, method.ema_head
        patch_head = method.ema_patch_head or head
        hidden = spread_ratios(generator(), len(both), grid, method.mask_share, method.mask_ratio)
    seen = net.features(both)
    temperature = now(method.teacher_temp, method.temp_warmup, method.progress)

    def goals(scores: np.ndarray, center: Any) -> np.ndarray:
        if method.targets == "sinkhorn":
            return balanced(scores, temperature, method.iterations)
        return softmax((scores - numbers(center)) / temperature)

    teacher = goals(numbers(head(seen.pooled)), method.center)
    teacher = teacher.reshape(2, len(views[0]), -1)
    known = numbers(hidden)
    of_hidden = goals(numbers(patch_head(seen.local[hidden])), method.patch_center)
    row = {place: k for k, place in enumerate(zip(*np.nonzero(known)))}
    pooled, local = seen_by_student(method, views, None if taught else (hidden, method.mask_token))
    student = numbers(method.head(pooled)) / method.student_temp
    patches = numbers((method.patch_head or method.head)(local)) / method.student_temp
    pairs = {
        (t, v): np.mean([told(teacher[t, b], student[v, b]) for b in range(len(views[0]))])
        for t in range(2)
        for v in range(len(views))
        if v != t
    }
    # the mean over all pairs, by what kind of view the student saw
    terms = {
        "global": sum(x for (_, v), x in pairs.items() if v < 2) / len(pairs),
        "local": sum(x for (_, v), x in pairs.items() if v >= 2) / len(pairs),
    }
    if len(views) == 2:
        del terms["local"]
    terms = {name: method.dino_weight * x for name, x in terms.items()}
    error = image_by_image(known, lambda i, n: told(of_hidden[row[i, n]], patches[i, n]))
    terms["patch"] = method.patch_weight * error
    apart = 0.0
    for view in range(2):
        x = unit(numbers(pooled[view]))
        for i in range(len(x)):
            alike = [-2.0 if j == i else x[i] @ x[j] for j in range(len(x))]
            difference = x[i] - x[int(np.argmax(alike))] + 1e-8
            apart -= np.log(np.sqrt((difference**2).sum()) + 1e-8) / len(x)
    if large is not None:  # Siméoni et al. (2025), Section 4.2
        terms["gram"] = method.gram_weight * likeness_moved(method, local, torch.cat(list(large)))
    return terms | {"koleo": method.koleo_weight * apart}


def likeness_moved(method: Any, local: Any, large: Any) -> float:
    """Mean squared change of the cosines of an image's patches."""
    theirs, own = method.gram.features(large), unit(numbers(local))
    maps = numbers(theirs.local).reshape(len(own), *theirs.grid, -1)
    side = round(own.shape[1] ** 0.5)
    rows = cubic(theirs.grid[0], side)
    seen = unit(np.einsum("ra,cb,nabd->nrcd", rows, rows, maps).reshape(own.shape))
    return float(np.mean([(a @ a.T - b @ b.T) ** 2 for a, b in zip(own, seen)]))


def cubic(count: int, wanted: int) -> np.ndarray:
    """[wanted, count] weights by which a line is resampled: Keys' cubic, a = -0.75, of the four
    nearest cells, those beyond the ends being the last."""
    weights = np.zeros((wanted, count))
    for row, center in zip(weights, (np.arange(wanted) + 0.5) * count / wanted - 0.5):
        for place in range(int(np.floor(center)) - 1, int(np.floor(center)) + 3):
            x = abs(center - place)
            near = 1.25 * x**3 - 2.25 * x**2 + 1
            far = -0.75 * (x**3 - 5 * x**2 + 8 * x - 4)
            row[min(max(place, 0), count - 1)] += near if x <= 1 else far
    return weights


def loss_distill(method: Any, batch: Batch) -> float:
    (x,) = batch.views
    t = method.temperature
    goals = softmax(numbers(method.network.logits(x)) / t)
    student = numbers(method.classifier(method.backbone(x)))
    loss = t**2 * float(np.mean([told(g, s / t) for g, s in zip(goals, student)]))
    if batch.label is None:
        return loss
    return method.alpha * loss + (1 - method.alpha) * find_all(student, batch.label)


def loss_distill_features(method: Any, batch: Batch) -> dict[str, float]:
    same = method.teacher_view == "same"
    sizes = batch.views if same else [batch.views]
    own, x = method.backbone, torch.cat(list(sizes[0]))
    seen = own.features(x)
    every: dict[str, list[float]] = {}
    for i, teacher in enumerate(method.teachers):
        if same:
            (pixels,) = (torch.cat(list(v)) for v in sizes if v[0].shape[-1] == teacher.size)
            pixels = pixels.clone()
            for c in range(pixels.shape[1]):
                plain = pixels[:, c] * own.std[c] + own.mean[c]
                pixels[:, c] = (plain - teacher.mean[c]) / teacher.std[c]
            theirs = teacher.features(pixels)
            goals = on_scale(method.scales[i], numbers(theirs.pooled))
        else:
            theirs, whole = None, numbers(method.goals[i])
            goals = (whole - whole.mean(0)) / np.sqrt(whole.var(0).mean())
            goals = np.concatenate([goals[numbers(batch.index)]] * 2)
        terms = near(method, numbers(method.heads[i](seen.pooled)), goals)
        if theirs is not None and method.local:
            cells = on_scale(method.local_scales[i], numbers(theirs.local))
            rows, cols = (between(a, b) for a, b in zip(theirs.grid, seen.grid))
            maps = cells.reshape(len(cells), *theirs.grid, -1)
            cells = np.einsum("ra,cb,nabd->nrcd", rows, cols, maps).reshape(-1, cells.shape[-1])
            head = numbers(method.local_heads[i](seen.local.flatten(0, 1)))
            terms["local"] = method.local * sum(near(method, head, cells).values())
        for name, value in terms.items():
            every.setdefault(name, []).append(value)
    return {name: float(np.mean(values)) for name, values in every.items()}


def near(method: Any, told: np.ndarray, goals: np.ndarray) -> dict[str, float]:
    """Both distances of rows [N, D]."""
    apart = np.abs(told - goals)
    terms = {
        "cosine": method.cosine * np.mean([1 - cosine(a, b) for a, b in zip(told, goals)]),
        "smooth_l1": method.smooth_l1
        * np.mean(np.where(apart < 1, apart**2 / 2, apart - 0.5)),
    }  # fmt: skip
    return {name: value for name, value in terms.items() if value}


def on_scale(scale: Any, x: np.ndarray) -> np.ndarray:
    """Features [..., D] on a scale that has seen as many batches before as it says, and these."""
    before, rows = int(scale.seen), x.reshape(-1, x.shape[-1])
    mean, square = numbers(scale.mean), numbers(scale.var) + numbers(scale.mean) ** 2
    mean = (before * mean + rows.mean(0)) / (before + 1)
    square = (before * square + (rows**2).mean(0)) / (before + 1)
    return (x - mean) / np.sqrt((square - mean**2).mean())


def between(count: int, wanted: int) -> np.ndarray:
    """[wanted, count] weights by which a line is resampled: triangles as wide as two cells."""
    each = max(1.0, count / wanted)
    places = (np.arange(wanted) + 0.5) * count / wanted
    if count < wanted:
        places = np.clip(places, 0.5, count - 0.5)
    weights = np.maximum(0, 1 - np.abs(np.arange(count) + 0.5 - places[:, None]) / each)
    return weights / weights.sum(1, keepdims=True)


def loss_finetune(method: Any, batch: Batch) -> float:
    assert batch.label is not None
    scores = numbers(method.classifier(method.backbone(batch.views[0])))
    share = method.smoothing / method.classes
    goals = (1 - method.smoothing) * np.eye(method.classes)[numbers(batch.label)] + share
    return float(np.mean([told(g, s) for g, s in zip(goals, scores)]))


def loss_simclr_v2_finetune(method: Any, batch: Batch) -> float:
    assert batch.label is not None
    scores = method.classifier(method.projector(method.backbone(batch.views[0])))
    return find_all(numbers(scores), batch.label)
