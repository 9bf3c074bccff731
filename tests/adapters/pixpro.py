"""PixPro: corners of crops, which cells are near, propagation, regression, and the momentum."""

import torch
from torch import Tensor

from selftaught.augment import Params
from selftaught.methods.dense.pixpro import PixPro, propagate, regression
from selftaught.objectives.cells import near
from tests.adapters import Golden, close, momenta
from tests.adapters.densecl import Maps


def check(golden: Golden) -> None:
    hyper = golden.hyper
    for row in golden["coord_table"]:
        top, left, height, width, *size = (int(n) for n in row[:6])
        crop = Params(top, left, height, width, False, (), (1, 1, 1, 0), False, 0.0, False)
        close(crop.corners(*size), row[6:])
        close(crop._replace(flip=True).corners(*size), row[[8, 7, 6, 9]])

    q, k = golden.leaf("q"), golden["k"]
    same = near(golden["coord_q"], golden["coord_k"], q.shape[2:], hyper["pos_ratio"])
    assert torch.equal(same, golden["pos_mask"])
    loss = regression(rows(q), rows(k), same)
    close(loss, golden["loss"])
    close(torch.autograd.grad(loss, q)[0], golden["grad_q"])

    method = PixPro(
        Maps(q.shape[1]),  # type: ignore[arg-type]
        power=hyper["p"],
        clamp=hyper["clamp"],
        layers=hyper["layer"],
        dim=q.shape[1],
    ).double()
    method.projector = torch.nn.Sequential()
    names = {"linear1": "0", "bn1": "1", "linear2": "3"} if hyper["layer"] == 2 else {}
    weights = {}
    for name, weight in golden.starting("ppm.param.value_transform.").items():
        layer, _, kind = name.rpartition(".")
        weight = weight.flatten(1) if weight.dim() == 4 else weight
        weights[f"{names.get(layer, '0')}.{kind}"] = weight
    missing, unexpected = method.value.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not {*missing} & {n for n, _ in method.value.named_parameters()}
    found = method.predict(q)
    close(found, rows(golden["ppm.out"]))
    close(torch.autograd.grad((found * rows(k)).sum(), q)[0], golden["ppm.grad_q"])
    for name, expected in golden.starting("ppm.out_p").items():
        power = float(name.removesuffix("_identity"))
        close(propagate(rows(q), rows(q), power, hyper["clamp"]), rows(expected))

    expected = golden["momentum"]
    method, steps = PixPro(Maps(2), momentum=float(expected[0]), hidden=2, dim=2), len(expected)  # type: ignore[arg-type]
    close(momenta(method.double(), [i / steps for i in range(steps)]), expected)


def rows(x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, H * W, C]."""
    return x.flatten(2).mT
