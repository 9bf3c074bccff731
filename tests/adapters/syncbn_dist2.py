"""Batch norm over two processes with batches of different sizes."""

from selftaught.parts import SyncBatchNorm
from tests.adapters import Golden, close


def check(golden: Golden, rank: int) -> None:
    x = golden.leaf(f"r{rank}_x")
    norm = SyncBatchNorm(x.shape[1], golden.hyper["eps"], golden.hyper["momentum"]).double()
    norm.weight.data.copy_(golden["weight"])
    norm.bias.data.copy_(golden["bias"])
    norm.running_mean.copy_(golden["running_mean0"])
    norm.running_var.copy_(golden["running_var0"])
    y = norm(x)
    close(y, golden[f"r{rank}_y"])
    y.backward(golden[f"r{rank}_dy"])
    close(x.grad, golden[f"r{rank}_dx"])
    close(norm.weight.grad, golden[f"r{rank}_dweight_local"])
    close(norm.bias.grad, golden[f"r{rank}_dbias_local"])
    close(norm.running_mean, golden["running_mean1"])
    close(norm.running_var, golden["running_var1"])
