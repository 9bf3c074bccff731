"""What is particular to iBOT and DINOv2, beyond the contract and the golden values."""

import numpy as np
import pytest
import torch
from torch import nn

from selftaught.backbones import Image
from selftaught.backbones.image.depth import SubsetBlock, subset_residual
from selftaught.errors import UserError
from selftaught.method import Batch
from selftaught.methods.distillation.dinov2 import DINOv2
from selftaught.methods.distillation.ibot import IBOT
from selftaught.objectives.assignment import sinkhorn
from selftaught.objectives.koleo import koleo
from tests.pool import Pool

SMALL = {"prototypes": 12, "hidden": 8, "bottleneck": 6, "local_crops": 1}


def images(method: IBOT | DINOv2, hidden: bool) -> Batch:
    views = [torch.randn(4, 3, side, side) for side in (32, 32, 16)]
    patches = np.prod(method.backbone.grid(32))
    return Batch((views, torch.rand(4, 2, patches) < 0.4) if hidden else views, torch.arange(4))


def step(method: IBOT | DINOv2, progress: float) -> dict[str, torch.Tensor]:
    method.progress = progress
    method.zero_grad()
    terms = method.loss(images(method, isinstance(method, IBOT)))
    torch.stack(list(terms.values())).sum().backward()
    method.before_step()
    with torch.no_grad():
        for parameter in method.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad)
    method.after_step()
    return terms


@pytest.mark.parametrize("shared", [False, True])
def test_ibot_with_heads_of_its_own_moves_all_of_them(shared):
    method = IBOT(Image("test_vit", 32), **SMALL, shared_head=False, shared_teacher_head=shared)
    assert (method.teacher_patch_last is None) == shared
    last = [*method.head[-1].parameters(), *method.patch_last.parameters()]
    before = [p.detach().clone() for p in method.parameters()]
    step(method, 0.0)
    assert [p.grad is None for p in last] == [True] * 4
    step(method, 0.5)
    assert [p.grad is None for p in last] == [False] * 4
    moved = {
        name.split(".")[0]
        for (name, p), old in zip(method.named_parameters(), before)
        if not torch.equal(p, old)
    }
    targets = {"teacher", "teacher_head"} | ({"teacher_patch_last"} if not shared else set())
    assert moved == {"mask_token", "backbone", "head", "patch_last"} | targets


def test_ibot_tells_hidden_patches_alone():
    """Patches that are seen, and views in which none is hidden, add nothing to that term."""
    method = IBOT(Image("test_vit", 32), **SMALL)
    views, _ = images(method, True).views
    nothing = torch.zeros(4, 2, 64, dtype=torch.bool)
    assert method.loss(Batch((views, nothing), torch.arange(4)))["patch"] == 0
    nothing[0, 1, 2] = True
    assert method.loss(Batch((views, nothing), torch.arange(4)))["patch"] > 0


def test_ibot_hides_patches_from_a_fraction_of_training_on():
    """As the reference's Swins do from epoch 50 of 300: before it nothing is asked of patches."""
    torch.manual_seed(0)
    method = IBOT(Image("test_vit", 32), **SMALL, mask_start=50 / 300)
    batch = images(method, True)
    views, _ = batch.views
    nothing = Batch((views, torch.zeros(4, 2, 64, dtype=torch.bool)), batch.index)
    for epoch, hides in ((0, False), (49, False), (50, True), (299, True)):
        method.progress = epoch / 300
        terms = []
        for given in (batch, nothing):
            method.center.zero_()  # each step moves it
            terms.append(method.loss(given))
        assert (terms[0]["patch"] > 0) == hides
        assert torch.equal(terms[0]["class"], terms[1]["class"]) != hides


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (0, {0: 0.04, 15: 0.055, 30: 0.07, 299: 0.07}),
        (50, {0: 0.04, 30: 0.04, 50: 0.04, 65: 0.055, 80: 0.07, 299: 0.07}),
        (280, {0: 0.04, 280: 0.04, 295: 0.055, 299: 0.059}),
    ],
)
def test_ibot_warms_the_temperature_of_patches_up_once_they_are_hidden(start, expected):
    method = IBOT(Image("test_vit", 32), **SMALL, mask_start=start / 300, temp_warmup=0.1)
    for epoch, temperature in expected.items():
        method.progress = epoch / 300
        assert method.patch_temperature == pytest.approx(temperature)
        assert method.temperature == pytest.approx(0.04 + 0.03 * min(1, epoch / 30))


def test_ibot_keeps_the_first_temperature_of_patches_where_there_is_no_warmup():
    options = {"mask_start": 0.5, "temp_warmup": 0.0, "patch_temp": (0.05, 0.06)}
    method = IBOT(Image("test_vit", 32), **SMALL, **options)
    assert [method.temperature, method.patch_temperature] == [0.07, 0.05]
    method.progress = 0.5
    assert [method.temperature, method.patch_temperature] == [0.07, 0.06]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_start": 50}, "mask_start must be from 0 to 1, got 50"),
        ({"mask_start": -0.1}, "mask_start must be from 0 to 1, got -0.1"),
        ({"mask_ratio": (0.1,), "mask_spread": (0.2,)}, r"ratio - spread and ratio \+ spread in"),
        ({"mask_ratio": (0.1, 0.2)}, "each ratio needs its spread|no list of ratios"),
        ({"mask_ratio": (), "mask_spread": ()}, "no list of ratios"),
        ({"patch_prototypes": 5}, "set shared_head and shared_teacher_head to false"),
        ({"patch_prototypes": 5, "shared_head": False}, "shared_teacher_head to false"),
    ],
)
def test_ibot_says_what_it_needs(options, words):
    options = {"mask_spread": (0.0,)} | options if options.get("mask_ratio") else options
    with pytest.raises(UserError, match=words):
        IBOT(Image("test_vit", 32), **{**SMALL, **options})


@pytest.mark.parametrize("targets", ["center", "sinkhorn"])
@pytest.mark.parametrize("separate", [False, True])
def test_dinov2_trains_with_either_targets_and_heads(targets, separate):
    method = DINOv2(Image("test_vit", 32), **SMALL, targets=targets, separate_head=separate)
    last = [*method.head[-1].parameters()]
    if separate:
        last += method.patch_head[-1].parameters()
    for progress, frozen in ((0.0, True), (0.5, False)):
        terms = step(method, progress)
        assert list(terms) == ["global", "local", "patch", "koleo"]
        assert [p.grad is None for p in last] == [frozen] * len(last)
    assert bool(method.center.any()) == (targets == "center")
    assert bool(method.patch_center.any()) == (targets == "center")


def test_dinov2_blurs_as_written_and_by_name_as_released():
    """The released code takes the probability of the blur for that of its absence."""
    blurs = {}
    for reference in (False, True):
        method = DINOv2(Image("test_vit", 32), **SMALL, reference_blur=reference)
        blurs[reference] = [v.blur for v in method.views(32).views]
    assert blurs[False] == [1.0, 0.1, 0.5]
    assert blurs[True] == pytest.approx([0.0, 0.9, 0.5])
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    pipeline = DINOv2(Image("test_vit", 32), **SMALL, reference_blur=True).views(32)
    drawn = [pipeline.draw(np.random.default_rng(i), 64, 64) for i in range(400)]
    shares = [np.mean([views[k].sigma > 0 for views in drawn]) for k in range(3)]
    assert shares[0] == 0
    assert shares[1:] == pytest.approx([0.9, 0.5], abs=0.1)
    assert len(pipeline(pixels, np.random.default_rng(0))) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_ratio": (0.5, 0.1)}, "must be the smallest and the largest"),
        ({"mask_share": 1.5}, "mask_share must be from 0 to 1, got 1.5"),
        ({"patch_prototypes": 5}, "5 prototypes of width 6 in a head that is shared"),
        ({"patch_bottleneck": 5}, "set separate_head to true"),
    ],
)
def test_dinov2_says_what_it_needs(options, words):
    with pytest.raises(UserError, match=words):
        DINOv2(Image("test_vit", 32), **SMALL, **options)


def followed(rank: int) -> torch.Tensor:
    """The center after a step in which the processes see one and three hidden patches."""
    method = DINOv2(Image("test_vit", 32), **SMALL)
    method._follow(method.patch_center, torch.full((1 + 2 * rank, 12), 1.0 + rank), False)
    return method.patch_center


@pytest.mark.xdist_group("pool")
def test_dinov2_follows_the_mean_of_all_hidden_patches(pool: Pool):
    for center in pool.run(followed):
        torch.testing.assert_close(center, torch.full_like(center, 0.1 * (1 + 3 * 2) / 4))


@pytest.mark.parametrize("reference", [False, True])
def test_dinov2_keeps_its_center_where_no_patch_is_hidden(reference):
    options = SMALL | {"mask_share": 0.0, "reference_center": reference}
    method = DINOv2(Image("test_vit", 32), **options)
    method.patch_center.fill_(1.0)
    step(method, 0.5)
    assert torch.all(method.patch_center == 1)


def test_dinov2_without_hidden_patches_or_small_views_or_koleo():
    options = {**SMALL, "local_crops": 0, "koleo_weight": 0.0, "mask_share": 0.0}
    method = DINOv2(Image("test_vit", 32), **options, targets="sinkhorn")
    terms = method.loss(Batch([torch.randn(4, 3, 32, 32)] * 2, torch.arange(4)))
    assert list(terms) == ["global", "patch"]
    assert terms["patch"] == 0
    terms["global"].backward()


def test_sinkhorn_balances_what_has_another_leading_index_alone():
    scores = torch.randn(3, 2, 7, 5, dtype=torch.float64)
    together = sinkhorn(scores, 0.3)
    for i in range(3):
        for j in range(2):
            torch.testing.assert_close(together[i, j], sinkhorn(scores[i, j], 0.3))


def test_sinkhorn_of_nothing_is_nothing():
    assert sinkhorn(torch.zeros(0, 5), 0.1).shape == (0, 5)


def test_blocks_of_the_student_skip_images_and_the_teachers_do_not():
    student = Image("test_vit", 32, drop_path=0.5)
    names = list(student.state_dict())
    method = DINOv2(student, **SMALL)
    assert list(student.state_dict()) == names
    blocks = [m for m in student.modules() if isinstance(m, SubsetBlock)]
    assert blocks
    seen: list[int] = []
    last = blocks[-1]
    last.attn.register_forward_pre_hook(lambda _, x: seen.append(len(x[0])))
    x = torch.randn(8, 3, 32, 32)
    student.train()(x)
    student.eval()(x)
    assert seen == [4, 8]
    teacher = method.ema.train()
    torch.testing.assert_close(teacher(x), method.ema.eval()(x))


def test_residuals_of_a_subset_keep_the_mean_and_one_image_at_least():
    def ones(some: list[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.ones_like(x) for x in some]

    x = torch.zeros(10, 2, 3)
    [y] = subset_residual([x], ones, 0.7)
    assert y[:, 0, 0].bool().sum() == 3
    torch.testing.assert_close(y.mean(), torch.ones(()))
    assert subset_residual([x[:1]], ones, 0.9)[0].min() == 1


def test_koleo_falls_as_embeddings_spread():
    near, far = torch.eye(4)[:3] * 0.1 + 1, torch.eye(4)[:3]
    assert koleo(far) < koleo(near)
    x = nn.Parameter(torch.ones(3, 4))
    koleo(x).backward()
    assert x.grad.isfinite().all()
