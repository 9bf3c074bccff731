"""Batch norm over the batch of all processes, on any device; statistics of norms, taken anew."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from selftaught import dist


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm whose statistics are those of all processes, whatever their batch sizes.

    torch's own refuses CPU tensors; this one is a few differentiable sums. The running variance
    is the unbiased one of the whole batch, as `nn.BatchNorm1d` on the concatenated batch has it.
    Layers inside it come after it, as timm's `BatchNormAct2d` has them.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [B, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        x = self._normalize(input)
        for layer in self.children():
            x = layer(x)
        return x

    def _normalize(self, input: Tensor) -> Tensor:
        if not self.training or dist.world() == 1:
            return super().forward(input)
        axes = [0, *range(2, input.dim())]
        shape = [1, -1] + [1] * (input.dim() - 2)
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        count = dist.total(x.new_tensor([x.numel() / x.shape[1]]))
        mean = dist.total(x.sum(axes)) / count
        centered = x - mean.view(shape)
        var = dist.total(centered.square().sum(axes)) / count
        if self.track_running_stats:
            with torch.no_grad():
                cast(Tensor, self.num_batches_tracked).add_(1)
                rate = self.momentum or 1 / float(cast(Tensor, self.num_batches_tracked))
                cast(Tensor, self.running_mean).lerp_(mean, rate)
                cast(Tensor, self.running_var).lerp_(var * count / (count - 1), rate)
        out = centered * (var + self.eps).rsqrt().view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)


def tracking(modules: Iterable[nn.Module]) -> list[nn.modules.batchnorm._BatchNorm]:
    """The batch norms among modules that keep statistics, and could do without those of a batch."""
    norms = (m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm))
    return [norm for norm in norms if norm.track_running_stats]


def same_statistics(module: nn.Module) -> None:
    """Give batch norms that do not see the batch of all processes the first one's statistics."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            for statistic in layer.buffers(recurse=False):
                statistic.copy_(dist.from_first(statistic))


def synchronize(module: nn.Module) -> nn.Module:
    """`module` with each of its batch norms replaced by a synchronized one, parameters kept."""
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            new = SyncBatchNorm(
                child.num_features,
                child.eps,
                child.momentum,
                child.affine,
                child.track_running_stats,
            )
            for inner, layer in child.named_children():
                new.add_module(inner, layer)
            state = child.state_dict()
            if like := [x for x in state.values() if x.is_floating_point()]:
                new.to(like[0])  # before loading, which would round float64
            new.load_state_dict(state)
            for parameter, old in zip(new.parameters(), child.parameters(), strict=True):
                parameter.requires_grad_(old.requires_grad)
            setattr(module, name, new.train(child.training))
        else:
            synchronize(child)
    return module


def keeping(modules: Iterable[nn.Module]) -> list[Any]:
    """The norms among modules that keep statistics of what comes to them in training.

    Batch norms, and any other with a running mean and variance and a momentum: frozen ones have
    none.
    """
    return [
        m
        for m in modules
        if getattr(m, "running_mean", None) is not None
        and getattr(m, "running_var", None) is not None
        and hasattr(m, "momentum")
    ]


@contextmanager
def calibrating(modules: Iterable[nn.Module]) -> Iterator[None]:
    """A block whose forward passes give the norms among modules their statistics.

    It is what passes in train mode without a gradient do, with a cumulative average over all images
    of the block, so that neither the first batch nor the order counts. Other layers are in the mode
    that they are in. Batch norms that are synchronized ask no other process. Without any pass all
    stays as it was.
    """
    hooks, means, modes = [], [], []
    for norm in keeping(modules):
        modes.append((norm, norm.training, norm.momentum))
        norm.training = not isinstance(norm, nn.modules.batchnorm._BatchNorm)
        if norm.training:  # it knows itself over what it averages
            hooks.append(norm.register_forward_pre_hook(_Share()))
        else:
            means.append(_Mean(norm))
            hooks.append(norm.register_forward_pre_hook(means[-1].see))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for norm, training, momentum in modes:
            norm.training, norm.momentum = training, momentum
    for mean in means:
        mean.settle()


class _Mean:
    """The statistics of a batch norm over the batches that come to it, each of which it is
    normalized by while it passes."""

    def __init__(self, norm: Any):
        self.norm, self.images = norm, 0
        self.mean, self.var = (torch.zeros_like(x) for x in (norm.running_mean, norm.running_var))

    def see(self, norm: Any, given: tuple[Tensor, ...]) -> None:
        x = given[0].transpose(0, 1).flatten(1).float()
        var, mean = torch.var_mean(x, 1, correction=0)
        self.images += len(given[0])
        share, count = len(given[0]) / self.images, x.shape[1]
        self.mean.lerp_(mean.to(self.mean), share)
        self.var.lerp_((var * count / max(1, count - 1)).to(self.var), share)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(var)

    def settle(self) -> None:
        if self.images:
            self.norm.running_mean.copy_(self.mean)
            self.norm.running_var.copy_(self.var)


class _Share:
    """Makes the running average of a norm one over all images that came to it."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, norm: Any, given: tuple[Tensor, ...]) -> None:
        self.images += len(given[0])
        norm.momentum = len(given[0]) / self.images
