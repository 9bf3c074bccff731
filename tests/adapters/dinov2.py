"""DINOv2: targets both ways, all terms and gradients, centers, KoLeo, schedules, collation."""

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from selftaught.engine.optim import Rates
from selftaught.masks.blocks import ratio_steps, spread_ratios
from selftaught.methods.distillation.dinov2 import DINOv2
from selftaught.objectives.koleo import koleo
from tests.adapters import Golden, close, momenta


def model(prototypes: int, patch_prototypes: int, temperature: float, **options) -> DINOv2:
    """The method without its network: logits are what the files start from."""
    backbone = nn.Linear(1, 1)
    backbone.dim, backbone.arrange = 1, lambda pool: None  # type: ignore[assignment]
    backbone.resample = None  # type: ignore[assignment]
    return DINOv2(
        backbone,  # type: ignore[arg-type]
        prototypes,
        patch_prototypes,
        separate_head=True,
        hidden=1,
        bottleneck=1,
        teacher_temp=(temperature, temperature),
        **options,
    ).double()


def swapped(teacher: Tensor) -> Tensor:
    """[2 * B, K], the second crop's first as the files have it -> [2, B, K] in order."""
    return teacher.unflatten(0, (2, -1)).flip(0)


def leaves(golden: Golden, names: Sequence[str]) -> list[Tensor]:
    """Those of the arrays that the file has: without small views it has none of theirs."""
    return [golden.leaf(name) for name in names if name in golden]


def distill(
    method: DINOv2, views: Sequence[Tensor], features: Tensor, patches: Tensor, *rest: Tensor
) -> dict[str, Tensor]:
    """views: global ones and local ones [V * B, K]; rest: teacher [2, B, K], its patches, hidden.

    The terms, of which the one of local views is 0 where there are none.
    """
    teacher, of_patches, hidden = rest
    student = torch.cat([*views]).unflatten(0, (-1, teacher.shape[1]))
    pooled = features.unflatten(0, (2, -1))
    terms = method.distill(student, teacher, patches, of_patches, hidden, pooled)
    return {"local": torch.zeros((), dtype=student.dtype)} | terms


VIEWS = ("student_global_cls", "student_local_cls")
OTHERS = ("student_cls_feat", "student_patch")


def check(golden: Golden) -> None:
    hyper = golden.hyper
    teacher, of_patches = swapped(golden["teacher_cls"]), golden["teacher_patch"]
    for name, targets in (("sinkhorn", "sinkhorn"), ("centering", "center")):
        method = model(
            teacher.shape[-1],
            of_patches.shape[-1],
            hyper["teacher_temp"],
            targets=targets,
            student_temp=hyper["student_temp"],
            center_momentum=hyper["center_momentum"],
            koleo_weight=hyper["koleo_weight"],
        )
        method.center.copy_(golden["center0"].flatten())
        method.patch_center.copy_(golden["patch_center0"].flatten())
        goals = method.goals(golden["teacher_cls"], method.center)
        close(goals, golden[f"{name}_teacher_dino"])
        goals = method.goals(of_patches, method.patch_center)
        close(goals, golden[f"{name}_teacher_ibot"])
        views, others = leaves(golden, VIEWS), leaves(golden, OTHERS)
        terms = distill(method, views, *others, teacher, of_patches, golden["mask"])
        if f"{name}_dino_local" in golden or len(views) > 1:
            close(terms["local"], golden[f"{name}_dino_local"])
        close(terms["global"], golden[f"{name}_dino_global"])
        close(terms["patch"], golden[f"{name}_ibot"])
        close(terms["koleo"], golden["koleo_weighted"])
        loss = torch.stack(list(terms.values())).sum()
        close(loss, golden[f"{name}_loss"])
        loss.backward()
        inputs = [n for n in (*VIEWS, *OTHERS) if n in golden]
        for x, of in zip([*views, *others], inputs, strict=True):
            close(x.grad, golden[f"{name}_grad_{of}"])
    close(method.center, golden["center1"].flatten())
    close(method.patch_center, golden["patch_center1"].flatten())

    features = golden["student_cls_feat"]
    close(koleo(features[: len(features) // 2]), golden["koleo_crop0"])
    twins = golden.leaf("koleo_dup_x")
    loss = koleo(twins)
    close(loss, golden["koleo_dup"])
    loss.backward()
    close(twins.grad, golden["koleo_dup_grad"])
    check_schedules(golden)
    check_collation(golden)


def check_schedules(golden: Golden) -> None:
    """The index gives words: numbers that it leaves out are those of the default configuration."""
    every, per_epoch, reference, batch = (
        int(golden.setting("lr_schedule", key, words))
        for key, words in (
            ("every", r"every (\d+)"),
            ("epoch_length", r"length (\d+)"),
            ("reference_batch", r"wrt_(\d+)"),
            ("batch", r"B=(\d+)"),
        )
    )
    warmup = int(golden.setting("teacher_temp", "warmup_teacher_temp_epochs", r"over (\d+) epochs"))
    expected = golden["teacher_temp"]
    rates = golden["lr_schedule"]
    steps = math.ceil((len(rates) - 1) * every / per_epoch) * per_epoch
    method = model(2, 2, 1.0, temp_warmup=(warmup * per_epoch - 1) / steps)
    method.teacher_temp = float(expected[0]), float(expected[-1])
    temperatures = []
    for i in range(len(expected)):
        method.progress = i * every / steps
        temperatures.append(method.temperature)
    close(temperatures, expected)

    expected = golden["momentum"]
    method.momentum = float(expected[0]), 1.0
    close(momenta(method, [i * every / steps for i in range(len(expected))]), expected)

    top = DINOv2.recipe.lr * (batch / reference) ** 0.5
    recipe = replace(DINOv2.recipe, batch=reference, end=1e-6 / top)
    plan = Rates(recipe, batch, steps, per_epoch)
    close([plan.lr(i * every) for i in range(len(rates))], rates)


class Python:
    """Python's own generator, seeded as the reference's was."""

    def __init__(self, seed: int):
        self.source = random.Random(seed)

    def random(self, size: None = None) -> float:
        return self.source.random()

    def integers(self, low: int, high: int, size: None = None) -> int:
        return self.source.randint(low, high - 1)

    def permutation(self, x: int) -> np.ndarray:
        order = list(range(x))
        self.source.shuffle(order)
        return np.array(order)


def check_collation(golden: Golden) -> None:
    seed, low, high, patches, unmasked = (
        golden.setting("collate_mask_counts", key, words)
        for key, words in (
            ("seed", r"seed\((\d+)\)"),
            ("low", r"over (\d*\.\d+)-"),
            ("high", r"-(\d*\.\d+) of"),
            ("patches", r"of (\d+)"),
            ("unmasked", r"(\d+) zero"),
        )
    )
    expected = golden["collate_mask_counts"]
    images = len(expected)
    side, share = int(patches**0.5), 1 - unmasked / images
    hidden = spread_ratios(Python(int(seed)), images, (side, side), share, (low, high))
    assert torch.equal(hidden.sum(1).sort().values, expected)
    bounds = ratio_steps(images, share, (low, high))[1:]
    assert (int(patches) * bounds).int().sum() == golden["collate_upperbound"]
