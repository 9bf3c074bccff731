"""DINO on two processes: loss, gradient and center; iBOT's two terms and centers."""

import torch

from tests.adapters import Golden, close
from tests.adapters import ibot as one_process
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

    patches = golden[f"r{rank}_student_patch"], golden[f"r{rank}_teacher_patch"]
    both = one_process.model(
        teacher.shape[-1],
        patches[0].shape[-1],
        teacher_temp=(temperature, temperature),
        patch_temp=(temperature, temperature),
    )
    terms = one_process.distill(
        both,
        golden[f"r{rank}_student"][: 2 * each],
        patches[0],
        golden[f"r{rank}_teacher"],
        patches[1],
        torch.stack([golden[f"r{rank}_mask{i}"] for i in range(2)]),
    )
    close(terms["class"], golden[f"r{rank}_ibot_cls"])
    close(terms["patch"], golden[f"r{rank}_ibot_patch"])
    close(both.center, golden["ibot_center1"])
    close(both.patch_center, golden["ibot_center2_1"])
