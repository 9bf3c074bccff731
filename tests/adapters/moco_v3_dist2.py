"""MoCo v3 in two processes: the keys of both, without gradient."""

from selftaught import dist
from selftaught.methods.contrastive.moco_v3 import MoCoV3
from tests.adapters import Golden, close
from tests.adapters.moco_v3 import backbone


def check(golden: Golden, rank: int) -> None:
    q, k = golden.leaf(f"r{rank}_q"), golden[f"r{rank}_k"]
    method = MoCoV3(backbone(2, 2), golden.hyper["T"], hidden=2, dim=2)  # type: ignore[arg-type]
    loss = method.contrast(q, k)
    close(loss, golden[f"r{rank}_loss"])
    loss.backward()
    close(q.grad, golden[f"r{rank}_grad_q"])
    close(dist.mean(loss.detach()), golden["global_loss"])
