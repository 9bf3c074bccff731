"""iBOT: masks replayed draw by draw and by their statistics, loss, centers, heads, temperatures."""

import numpy as np
import torch

from selftaught.masks.blocks import by_ratio
from tests.adapters import Golden, close
from tests.adapters.ibot import check_head, distill, model, student
from tests.replay import CHOICE, Recorded


def check(golden: Golden) -> None:
    for name in sorted({n.split(".")[1] for n in golden.arrays if n.startswith("mask.")}):
        _replay(golden, name)
        _statistics(golden, name)
    for name in sorted({n.split(".")[1] for n in golden.arrays if n.startswith("head.")}):
        given = golden.starting(f"head.{name}.")
        weights = golden.starting(f"head.{name}.param.")
        check_head(weights, given["x"], given["cls"], given["patch"])
    _loss(golden)


def _given(golden: Golden, name: str) -> dict:
    return golden.own(f"mask.{name}.", f"stat.{name}.")


def _options(given: dict) -> tuple:
    ratio, spread = given["pred_ratio"], given["pred_ratio_var"]
    ratios = tuple(ratio) if isinstance(ratio, list) else (ratio,)
    spreads = tuple(spread) if isinstance(spread, list) else (spread,)
    return (given["H"], given["W"]), ratios, spreads, given["pred_shape"] == "rand"


def _replay(golden: Golden, name: str) -> None:
    given = _given(golden, name)
    options = _options(given)
    rows, at = golden[f"mask.{name}.draws"], golden[f"mask.{name}.offsets"].tolist()
    for i, expected in enumerate(golden[f"mask.{name}.masks"]):
        own = rows[at[i] : at[i + 1]]
        if len(options[1]) == 1:
            own = own[own[:, 0] != CHOICE]  # of one thing
        orders = []
        if options[3]:
            order = np.arange(expected.numel())
            np.random.RandomState(given["numpy_seed"] + i).shuffle(order)
            orders = [order]
        draws = Recorded(own, orders)
        drawn = by_ratio(draws, *options)
        assert torch.equal(torch.from_numpy(drawn), expected.bool())
        assert draws.exhausted()


def _statistics(golden: Golden, name: str) -> None:
    """Numbers of hidden patches, against a sample of ours of the same size: a Kolmogorov-Smirnov
    distance as large as this happens by chance once in 1e9 tests."""
    expected = golden[f"stat.{name}.count_hist"].numpy()
    runs, draws = int(expected.sum()), np.random.default_rng(0)
    counts = [int(by_ratio(draws, *_options(_given(golden, name))).sum()) for _ in range(runs)]
    ours = np.bincount(counts, minlength=len(expected))
    assert len(ours) == len(expected)
    distance = np.abs(ours.cumsum() - expected.cumsum()).max() / runs
    assert distance < (-np.log(1e-9 / 2) / runs) ** 0.5


def _loss(golden: Golden) -> None:
    hyper = golden.given("loss.")
    of_class, of_patches = golden["loss.temp_schedule"], golden["loss.temp2_schedule"]
    epochs, first = len(of_class), hyper.get("pred_start_epoch", 0)
    method = model(
        hyper["K"],
        hyper["K2"],
        student_temp=hyper["stud"],
        teacher_temp=(float(of_class[0]), float(of_class[-1])),
        patch_temp=(float(of_patches[0]), float(of_patches[-1])),
        class_weight=hyper["lambda1"],
        patch_weight=hyper["lambda2"],
        # the reference's warm-up reaches its end within it, at its last epoch
        temp_warmup=max(_reached(of_class), _reached(of_patches[first:])) / epochs,
        mask_start=first / epochs,
    )
    assert hyper["temp"] in (method.teacher_temp[1], method.patch_temp[1])
    temperatures = []
    for epoch in range(epochs):
        method.progress = epoch / epochs
        temperatures.append([method.temperature, method.patch_temperature])
    close(temperatures, torch.stack([of_class, of_patches], 1))

    method.progress = hyper["epoch"] / epochs
    given = golden.starting("loss.in.")
    method.center.copy_(given["center"].flatten())
    method.patch_center.copy_(given["center2"].flatten())
    views, patches = student(golden, "loss.in."), golden.leaf("loss.in.student_patch")
    teacher = given["teacher_cls"], given["teacher_patch"]
    terms = distill(method, torch.cat([*views.values()]), patches, *teacher, given["masks"])
    close(terms["class"], golden["loss.cls"])
    close(terms["patch"], golden["loss.patch"])
    loss = terms["class"] + terms["patch"]
    close(loss, golden["loss.total"])
    loss.backward()
    for name, x in {**views, "student_patch": patches}.items():
        close(x.grad, golden[f"loss.grad.{name}"])
    close(method.center, golden["loss.center_after"].flatten())
    close(method.patch_center, golden["loss.center2_after"].flatten())


def _reached(schedule: torch.Tensor) -> int:
    """The epoch at which it has reached its end."""
    return int((schedule == schedule[-1]).nonzero()[0])
