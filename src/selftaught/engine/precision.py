"""Which precision a training computes in where nobody has said: the fastest on this processor."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.backbones import Encoder
from selftaught.export.facts import SETTINGS, content

LEAST = 600
"""Multiplications for each value that a depthwise convolution gives, below which bf16 is slower.

CPUs compute large sums twice as fast in bf16, and depthwise convolutions, which sum up little,
many times slower. Forward and backward of 20 networks at 64 px on an AMD EPYC: those with 97 to
361 took 1.3 to 2.5 times as long in bf16 (MobileNets, EfficientNets, GhostNet), those with 873 and
more 0.7 to 1.1 times (ConvNeXt, EfficientNetV2, EdgeNeXt). A rule, not a measurement on the spot:
the same seed gives the same losses.
"""


def asked(precision: str, before: Path | None) -> str:
    """The precision that was asked for; of a run that goes on, where that is `auto`, its own.

    Args:
        precision: as the settings have it.
        before: folder of the run that goes on.
    """
    if precision != "auto" or before is None:
        return precision
    training = content(before / SETTINGS).get("training")
    found = training.get("precision") if isinstance(training, dict) else None
    return found if found in ("fp32", "bf16", "fp16") else "auto"


def fastest(accelerator: str, encoder: Encoder) -> str:
    """The precision that the processor computes natively, and `encoder` faster than in float32."""
    if accelerator == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    if accelerator == "cpu":
        # without native instructions bf16 is emulated, 2.5 to 3 times slower than fp32
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return "bf16" if native and density(encoder) >= LEAST else "fp32"
    return "fp32"


def density(encoder: Encoder) -> float:
    """Multiplications of a forward pass for each value that its depthwise convolutions give.

    Infinite where there are none. The encoder and all generators are left as they are.
    """
    net: Any = encoder
    modules: list[nn.Module] = list(net.modules())
    if not any(map(_depthwise, modules)):
        return float("inf")
    total = values = 0

    def count(layer: Any, _: Any, found: Tensor) -> None:
        nonlocal total, values
        total += found.numel() * layer.weight[0].numel()
        values += found.numel() if _depthwise(layer) else 0

    hooks = [
        m.register_forward_hook(count) for m in modules if isinstance(m, nn.Conv2d | nn.Linear)
    ]
    modes = {module: module.training for module in modules}
    some = next(p for p in net.parameters())
    try:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            net.eval()(torch.zeros(1, net.channels, net.size, net.size).to(some))
    finally:
        for module, training in modes.items():
            module.training = training
        for hook in hooks:
            hook.remove()
    return total / max(1, values)


def _depthwise(layer: nn.Module) -> bool:
    """Whether it sums up one channel for each that it gives."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1
