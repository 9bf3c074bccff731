"""W-MSE: whitening, both losses, and the gradient through both views."""

from unittest import mock

import torch
from torch import nn

from selftaught.methods.correlation.w_mse import WMSE
from selftaught.objectives.whitening import cholesky_whiten
from tests.adapters import Golden, close


def check(golden: Golden) -> None:
    hyper = golden.hyper
    size, eps = hyper["w_size"], hyper["w_eps"]
    names = [f"h{i}" for i in range(hyper["num_samples"])]
    backbone = nn.Linear(1, 1)
    backbone.dim = 1  # type: ignore[assignment]
    close(cholesky_whiten(golden["h0"][:size], eps), golden["whitened0"])
    for prefix, normalize in (("", True), ("mse_", False)):
        method = WMSE(
            backbone,  # type: ignore[arg-type]
            hidden=1,
            dim=golden["h0"].shape[1],
            group=size,
            draws=hyper["w_iter"],
            count=hyper["num_samples"],
            eps=eps,
            normalize=normalize,
        )
        h = [golden.leaf(name) for name in names]
        orders = [*golden["perm"].view(-1, len(h[0]))]
        with mock.patch.object(torch, "randperm", side_effect=orders):
            loss = method.compare(torch.stack(h))
        close(loss, golden[f"{prefix}loss"])
        loss.backward()
        for x, name in zip(h, names):
            close(x.grad, golden[f"{prefix}grad_{name}"])
