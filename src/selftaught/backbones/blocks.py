"""The blocks that a transformer is made of: what is recomputed, compiled and sharded one by one."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from selftaught.parts.norm import keeping

_LISTS = re.compile(r"(\w+_)?blocks")
"""Names that lists of blocks have in timm and here, those of decoders and predictors too."""

VARIANTS = 8
"""Sizes and modes that a block is compiled for at most; beyond it runs as it is."""


def blocks(network: nn.Module) -> list[nn.Module]:
    """The blocks in `network`, those of its EMA copies, decoders and predictors too, in order.

    What has batch norms is none: a second pass would move their statistics twice.
    """
    return list(_blocks(network))


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    for name, child in network.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList) and _LISTS.fullmatch(name):
            if not keeping(child.modules()):
                yield from child
        else:
            yield from _blocks(child)


@dataclass(frozen=True)
class _Pass:
    """A forward pass of a block.

    Args:
        compiled: stands for that of its class in training: evaluation has other sizes each time.
        again: whether it keeps its input alone, and runs again in the backward pass.
    """

    compiled: Callable[..., Any] | None = None
    again: bool = False

    def __call__(self, block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        forward = type(block).forward
        if self.compiled is not None and block.training:
            forward = self.compiled
        if self.again and torch.is_grad_enabled():
            # around compiled code, not in it: all that is drawn is drawn alike again
            return checkpoint(forward, block, *args, use_reentrant=False, **kwargs)
        return forward(block, *args, **kwargs)


def recompute(network: nn.Module) -> int:
    """Let each trained block of `network` keep its input alone, and run again in the backward pass.

    Gradients are the same to the last bit, dropout draws alike in both passes (Chen et al., 2016,
    https://arxiv.org/abs/1604.06174). A deep copy recomputes, too.

    Returns:
        How many blocks these are.
    """
    trained = [b for b in blocks(network) if any(p.requires_grad for p in b.parameters())]
    for block in trained:
        _give(block, replace(_given(block), again=True))
    return len(trained)


def compile_blocks(network: nn.Module, **how: Any) -> int:
    """Compile the blocks of `network`, whoever calls them, for training alone.

    Args:
        how: arguments of `torch.compile`.

    Returns:
        How many blocks these are.
    """
    found, limits = blocks(network), torch._dynamo.config
    # all share what was compiled for blocks, sizes and modes alike; a rate of stochastic depth
    # makes a block unlike others
    limits.recompile_limit = max(limits.recompile_limit, VARIANTS * len(found))
    compiled = {kind: torch.compile(kind.forward, **how) for kind in set(map(type, found))}
    for block in found:
        _give(block, replace(_given(block), compiled=compiled[type(block)]))
    return len(found)


def plain(network: nn.Module) -> None:
    """Undo `recompute` and `compile_blocks`."""
    for block in blocks(network):
        vars(block).pop("forward", None)


def not_compiled(network: nn.Module) -> None:
    """Undo `compile_blocks`."""
    for block in blocks(network):
        if _given(block).compiled is not None:
            _give(block, replace(_given(block), compiled=None))


@contextmanager
def uncompiled(network: nn.Module) -> Iterator[None]:
    """A block in which compiled blocks of `network` run as they are."""
    given = [(block, _given(block)) for block in blocks(network)]
    not_compiled(network)
    try:
        yield
    finally:
        for block, its in given:
            if its.compiled is not None:
                _give(block, its)


def _given(block: nn.Module) -> _Pass:
    bound = vars(block).get("forward")
    return bound.__func__ if bound is not None else _Pass()


def _give(block: nn.Module, its: _Pass) -> None:
    # a bound method, which a deep copy binds to the copy
    block.forward = MethodType(its, block)  # type: ignore[method-assign]
