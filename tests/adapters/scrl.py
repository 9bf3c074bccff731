"""SCRL: boxes by the recorded draws, RoIAlign, the loss of boxes, and the momentum."""

import numpy as np
import torch

from selftaught.augment import Params
from selftaught.methods.dense.scrl import SCRL, Boxes, consistency, pooled
from tests.adapters import Golden, close, momenta
from tests.adapters.densecl import Maps
from tests.replay import Replay

SIZE, LEAST, JITTER = 224, 32, 0.1


def check(golden: Golden) -> None:
    hyper, draws = golden.hyper, golden["draws"].numpy()
    jittered = draws[:, 0] < 0
    jitter = hyper.get("jitter_ratio", JITTER) if hyper["jit"] else 0.0
    uniform = (draws[jittered, 2] - 1 + jitter) / (2 * jitter) if jitter else []
    replay = Replay(uniform, draws[~jittered])
    rule = Boxes(hyper["patches"], SIZE, LEAST, hyper["iou"], hyper["grid"], jitter)
    found = []
    for image, pair in enumerate(zip(golden["transf1"].tolist(), golden["transf2"].tolist())):
        one, other = (crop(row) for row in pair)
        if (boxes := rule.draw(replay, one, other)) is not None:
            number = np.broadcast_to([[[image]], [[image + hyper["n"]]]], (*boxes.shape[:2], 1))
            found.append(np.concatenate([number, boxes], 2))
    assert replay.exhausted()
    boxes = np.concatenate(found, 1)
    close(torch.from_numpy(boxes[0]), golden["boxes1"])
    close(torch.from_numpy(boxes[1]), golden["boxes2"])

    features = golden.leaf("feat")
    regions = pooled(features, torch.from_numpy(boxes).flatten(0, 1), features.shape[-1] / SIZE)
    close(regions, golden["roi"].flatten(1))
    close(torch.autograd.grad(regions.sum(), features)[0], golden["grad_feat"])

    online = golden.leaf("p_online")
    loss = consistency(online, golden["p_target"])
    close(loss, golden["loss"])
    close(torch.autograd.grad(loss, online)[0], golden["grad_p_online"])

    expected = golden["momentum"]
    last = len(expected) - 1
    method = SCRL(Maps(2), momentum=float(expected[0]), hidden=2, dim=2).double()  # type: ignore[arg-type]
    close(momenta(method, [i / last for i in range(last + 1)]), expected)


def crop(row: list[int]) -> Params:
    top, left, height, width, flip = row
    return Params(top, left, height, width, bool(flip), (), (1, 1, 1, 0), False, 0.0, False)
