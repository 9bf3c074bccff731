"""iBOT: masks replayed draw by draw and by their statistics, loss, centres, heads, temperatures."""

import numpy as np
import torch

from selftaught.masks.blocks import by_ratio
from tests.adapters import Golden, close
from tests.adapters.ibot import check_head, distill, model
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
    return golden.about[f"mask.{name}.masks"]["hyperparameters"]


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
    hyper = golden.hyper
    epochs = golden["loss.temp_schedule"]
    method = model(
        hyper["K"],
        hyper["K2"],
        student_temp=hyper["stud"],
        teacher_temp=(float(epochs[0]), hyper["temp"]),
        patch_temp=(float(golden["loss.temp2_schedule"][0]), hyper["temp"]),
        class_weight=hyper["lambda1"],
        patch_weight=hyper["lambda2"],
        # the reference's warm-up reaches its end within it, at its last epoch
        temp_warmup=int((epochs == epochs[-1]).nonzero()[0]) / len(epochs),
    )
    for kind in ("temp", "temp2"):
        now = []
        for epoch in range(len(epochs)):
            method.progress = epoch / len(epochs)
            now.append(method._now(method.teacher_temp if kind == "temp" else method.patch_temp))
        close(now, golden[f"loss.{kind}_schedule"])

    method.progress = golden.about["loss.cls"]["hyperparameters"]["epoch"] / len(epochs)
    given = golden.starting("loss.in.")
    method.center.copy_(given["center"].flatten())
    method.patch_center.copy_(given["center2"].flatten())
    names = ("student_cls", "student_local_cls", "student_patch")
    inputs = [golden.leaf(f"loss.in.{name}") for name in names]
    teacher = given["teacher_cls"], given["teacher_patch"]
    terms = distill(method, torch.cat(inputs[:2]), inputs[2], *teacher, given["masks"])
    close(terms["class"], golden["loss.cls"])
    close(terms["patch"], golden["loss.patch"])
    loss = terms["class"] + terms["patch"]
    close(loss, golden["loss.total"])
    loss.backward()
    for x, name in zip(inputs, names):
        close(x.grad, golden[f"loss.grad.{name}"])
    close(method.center, golden["loss.center_after"].flatten())
    close(method.patch_center, golden["loss.center2_after"].flatten())
