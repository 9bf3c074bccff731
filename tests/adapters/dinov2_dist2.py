"""DINOv2 on two processes that hide unlike numbers of patches: balanced targets, both centers."""

import torch

from tests.adapters import Golden, close
from tests.adapters.dinov2 import model


def check(golden: Golden, rank: int) -> None:
    hyper = golden.hyper
    teacher, patches = golden[f"r{rank}_teacher_cls"], golden[f"r{rank}_teacher_patch"]
    width = teacher.shape[-1], patches.shape[-1]
    method = model(*width, hyper["T"], targets="sinkhorn", iterations=hyper["n_iterations"])
    close(method.goals(teacher, method.center), golden[f"r{rank}_sk_cls"])
    close(method.goals(patches, method.patch_center), golden[f"r{rank}_sk_patch"])

    method = model(*width, hyper["T"], reference_center=True)
    features = torch.eye(2).repeat(2, 1).double()
    distill = method.distill
    both, hidden = teacher.unflatten(0, (2, -1)), torch.ones(1, len(patches), dtype=torch.bool)
    distill(both, both, patches, patches, hidden, features.unflatten(0, (2, -1)))
    close(method.center, golden["center1"].flatten())
    close(method.patch_center, golden["patch_center1"].flatten())
