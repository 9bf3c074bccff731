"""Gradients of convolutions in bf16 on a CPU."""

import copy

import pytest
import torch
from torch import nn

from selftaught.engine.convolution import fix_bf16_stride


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [(3, 2, 1, 1), (3, 4, 1, 3), (5, 2, 2, 1), (7, 4, 3, 3)],
)
def test_weights_that_see_padding_alone_have_no_gradient(kernel, stride, padding, size):
    torch.manual_seed(0)
    plain = nn.Conv2d(16, 32, kernel, stride, padding, bias=False)
    fixed = copy.deepcopy(nn.Sequential(plain))
    fix_bf16_stride(fixed)
    assert repr(fixed[0]) == repr(plain)
    fixed = copy.deepcopy(fixed)
    x = torch.randn(8, 16, size, size)
    plain(x).square().mean().backward()
    for _ in range(5):
        fixed.zero_grad()
        left = [torch.full_like(plain.weight, torch.nan, dtype=torch.bfloat16) for _ in range(9)]
        del left  # which a gradient that is not written would be made of
        with torch.autocast("cpu", torch.bfloat16):
            fixed(x).float().square().mean().backward()
        torch.testing.assert_close(fixed[0].weight.grad, plain.weight.grad)


def test_others_are_computed_in_bf16():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 2, 2))
    fix_bf16_stride(net)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(torch.rand(2, 3, 4, 4)).dtype == torch.bfloat16
