"""How convolutions are laid out in memory; and those whose gradients in bf16 on a CPU are wrong,
computed in float32."""

import torch
from torch import Tensor, nn


def lay_channels_last(module: nn.Module) -> None:
    """Give the weights of convolutions over images the layout that these are faster with.

    What has other axes than an image, as convolutions over clips have, stays as it is.
    """
    for weight in [*module.parameters(), *module.buffers()]:
        if weight.ndim == 4:
            weight.data = weight.data.to(memory_format=torch.channels_last)


def fix_bf16_stride(module: nn.Module) -> None:
    """Make strided convolutions of `module` take float32 where bf16 has no right gradient.

    Where an image ends inside a kernel that is moved once (3 x 3, stride 2, padding 1, on one
    pixel), some weights see padding alone. oneDNN, which computes bf16 on CPUs, does not write
    their gradient: it is what was in memory, which may be NaN. Those weights do nothing in
    training, so that no loss tells, but they see pixels of larger images.
    """
    for layer in module.modules():
        if type(layer) is nn.Conv2d and max(layer.stride) > 1:
            layer.__class__ = _Strided  # an own `forward` would not be copied with the layer


class _Strided(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu") or not self._moved_once(input):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            return super().forward(input.float())

    def _moved_once(self, x: Tensor) -> bool:
        """Whether it has a stride and padding along an axis in which its output is one pixel."""
        return any(
            stride > 1 and padding and size + 2 * int(padding) < span * (kernel - 1) + 1 + stride
            for size, kernel, stride, padding, span in zip(
                x.shape[2:], self.kernel_size, self.stride, self.padding, self.dilation
            )
        )

    def _get_name(self) -> str:
        return "Conv2d"
