"""VICReg in two processes: invariance of its own rows, variance and covariance of all."""

import torch

from selftaught import dist
from tests.adapters import Golden, close
from tests.adapters.vicreg import make


def check(golden: Golden, rank: int) -> None:
    x, y = golden.leaf(f"r{rank}_x"), golden.leaf(f"r{rank}_y")
    method = make(golden, hidden=1, dim=1, layers=1)
    loss = torch.stack(list(method.compare(x, y).values())).sum()
    close(loss, golden[f"r{rank}_loss"])
    loss.backward()
    close(x.grad, golden[f"r{rank}_grad_x"])
    close(y.grad, golden[f"r{rank}_grad_y"])
    close(dist.mean(loss.detach()), golden["global_loss"])
