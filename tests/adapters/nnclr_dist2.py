"""NNCLR in two processes: the predictions of both, with gradient."""

from selftaught import dist
from tests.adapters import Golden, close
from tests.adapters.nnclr import model


def check(golden: Golden, rank: int) -> None:
    neighbors, p = golden[f"r{rank}_nn"], golden.leaf(f"r{rank}_p")
    method = model(golden.hyper["T"], 1, p.shape[1])
    loss = method.find(neighbors, p)
    close(loss, golden[f"r{rank}_loss"])
    loss.backward()
    close(p.grad, golden[f"r{rank}_grad_p"])
    close(dist.mean(loss.detach()), golden["global_loss"])
