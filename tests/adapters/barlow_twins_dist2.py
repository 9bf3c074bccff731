"""Barlow Twins in two processes: the reference's divided gradient, and the exact one."""

import torch

from selftaught import dist
from selftaught.methods.correlation.barlow_twins import BarlowTwins
from selftaught.parts import synchronize
from tests.adapters import Golden, close
from tests.adapters.barlow_twins import Small


def check(golden: Golden, rank: int) -> None:
    for reference in (True, False):
        z1, z2 = golden.leaf(f"r{rank}_z1"), golden.leaf(f"r{rank}_z2")
        method = BarlowTwins(
            Small(1, 1),  # type: ignore[arg-type]
            golden.hyper["lambd"],
            dim=z1.shape[1],
            layers=1,
            reference_gradient=reference,
        )
        synchronize(method.double())
        loss = method.compare(z1, z2)
        close(loss, golden[f"r{rank}_loss"])
        loss.backward()
        # DDP divides by the processes: only the exact gradient is then that of the whole batch
        times = 1 if reference else dist.world()
        close(z1.grad, times * golden[f"r{rank}_grad_z1"])
        close(z2.grad, times * golden[f"r{rank}_grad_z2"])

    both = [torch.cat([golden[f"r{r}_{z}"] for r in range(dist.world())]) for z in ("z1", "z2")]
    single = [z.requires_grad_() for z in both]
    a, b = ((z - z.mean(0)) / (z.var(0, correction=0) + 1e-5).sqrt() for z in single)
    c = a.T @ b / len(a)
    weight = torch.full_like(c, golden.hyper["lambd"]).fill_diagonal_(1.0)
    (weight * (c - torch.eye(len(c))).square()).sum().backward()
    here = slice(rank * len(z1), (rank + 1) * len(z1))
    close(z1.grad / dist.world(), single[0].grad[here])  # type: ignore[index]
