"""DINO on two processes: loss, gradient and centre; iBOT's class-token part, which is DINO's loss.

The arrays of patch tokens (`*_patch`, `ibot_center2_1`) follow with iBOT.
"""

from torch import Tensor

from tests.adapters import Golden, close
from tests.adapters.dino import model


def check(golden: Golden, rank: int) -> None:
    temperature = golden.hyper["teacher_temp"]
    teacher = golden[f"r{rank}_teacher"].unflatten(0, (2, -1))
    each = teacher.shape[1]

    method = model(teacher.shape[-1], teacher_temp=(temperature, temperature))
    method.center.copy_(golden["center0"][0])
    student = golden.leaf(f"r{rank}_student")
    loss = method.distill(student.unflatten(0, (-1, each)), teacher)
    close(loss, golden[f"r{rank}_dino_loss"])
    close(method.center, golden["center1"])
    loss.backward()
    close(student.grad, golden[f"r{rank}_dino_grad"])

    method = model(teacher.shape[-1], teacher_temp=(temperature, temperature))
    globals_only: Tensor = golden[f"r{rank}_student"][: 2 * each]
    loss = method.distill(globals_only.unflatten(0, (2, -1)), teacher)
    close(loss, golden[f"r{rank}_ibot_cls"])
    close(method.center, golden["ibot_center1"])
