"""V-JEPA: masks and tubes replayed draw by draw, positions, the whole loss with gradients."""

import torch

from selftaught.backbones import sincos, sincos_clip
from selftaught.masks.clips import tubes
from selftaught.methods.predictive.vjepa import VJEPA
from tests.adapters import Golden, close
from tests.clips import check_masks, check_whole
from tests.replay import Replay


def check(golden: Golden) -> None:
    check_masks(golden)
    _tubes(golden)
    _positions(golden)
    check_whole(golden, VJEPA)


def _tubes(golden: Golden) -> None:
    given, kept = golden.own("tube."), golden["tube.shuffled"]
    orders = kept.argsort(dim=1, descending=True, stable=True)
    grid = (given["T"], 1, given["S"])
    drawn = tubes(Replay(orders=orders.numpy()), len(kept), grid, given["ratio"])
    assert torch.equal(drawn.context[0], golden["tube.enc"])
    assert torch.equal(drawn.targets[0], golden["tube.pred"])


def _positions(golden: Golden) -> None:
    for name, expected in golden.starting("sincos").items():
        array = f"sincos{name}"
        side = (
            int(golden.setting(array, "rows", r"grid (\d+)x")),
            int(golden.setting(array, "cols", r"grid \d+x(\d+)")),
        )
        dim = expected.shape[1]
        if name == "2d":
            close(sincos(side, dim, first="rows"), expected)
            continue
        long = expected.shape[0] // (side[0] * side[1])
        close(sincos_clip((long, *side), dim, uniform=name.endswith("True")), expected)
