"""InfoMin: its two terms and queue over several steps, and the head of the jigsaw."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from selftaught.method import Batch
from selftaught.methods.contrastive.infomin import InfoMin, TileHead
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import Encoder


def check(golden: Golden) -> None:
    hyper = golden.hyper
    width = golden["q0"].shape[1]
    method: Any = InfoMin(
        Encoder(width, width),  # type: ignore[arg-type]
        temperature=hyper["T"],
        beta=hyper["beta"],
        dim=width,
        queue=hyper["K"],
    ).double()
    # the golden queries are what heads give: all networks hand their input on
    for part in ("backbone", "projector", "tiles", "target"):
        setattr(method, part, nn.Identity())
    method.negatives.items.copy_(golden["queue0"])
    for i in range(sum(name.startswith("qjig") for name in golden.arrays)):
        q, k, puzzle = golden.leaf(f"q{i}"), golden[f"k{i}"], golden.leaf(f"qjig{i}")
        terms = method.loss(Batch([q, k, puzzle[:, None]], torch.arange(len(q))))
        loss = sum(terms.values())
        close(loss, golden[f"loss{i}"])
        for grad, name in zip(torch.autograd.grad(loss, (q, puzzle)), ("q", "qjig"), strict=True):
            close(grad, golden[f"grad_{name}{i}"])
        close(method.negatives.items, golden[f"queue{i + 1}"])

    state = golden.starting("jig.")
    inputs = state["fc1.0.weight"].shape[1]
    head = TileHead(inputs, len(state["fc2.weight"])).double()
    head.load_state_dict(
        {n.replace("fc1", "each").replace("fc2", "all"): x for n, x in state.items()}
    )
    close(F.normalize(head(golden["jig_x"]), dim=1), golden["jig_out"])
