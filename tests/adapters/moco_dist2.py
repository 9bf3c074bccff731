"""MoCo in two processes: the recorded permutations of ShuffleBN, and the keys of both queued."""

from unittest import mock

import torch

from selftaught import dist
from selftaught.method import Batch
from selftaught.parts import shuffle
from tests.adapters import Golden, close
from tests.adapters.moco_v2 import model, renamed


def check(golden: Golden, rank: int) -> None:
    method = model(golden)
    optimizer = torch.optim.SGD(method.online.parameters(), golden.hyper["lr"])
    steps = len(golden.starting("shuffle"))
    for i in range(steps):
        x1, x2 = golden[f"r{rank}_im_q{i}"], golden[f"r{rank}_im_k{i}"]
        with mock.patch.object(shuffle, "permutation", return_value=golden[f"shuffle{i}"]):
            loss = method.loss(Batch([x1, x2], torch.arange(len(x1))))
        close(loss, golden[f"r{rank}_loss{i}"])
        close(method.negatives.items.T, golden[f"queue{i + 1}"])
        optimizer.zero_grad()
        loss.backward()
        close(method.backbone.l1.weight.grad, golden[f"r{rank}_grad_l1_{i}"])
        for p in method.online.parameters():
            p.grad = dist.mean(p.grad)
        optimizer.step()
        if i < steps - 1:
            method.after_step()
    for name, value in renamed(golden.starting(f"k{steps}.")).items():
        close(method.target.state_dict()[name], value)
