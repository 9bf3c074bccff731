"""Queues, centers and the like that a block leaves as they are."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def unchanged(module: nn.Module) -> Iterator[None]:
    """A block that sees the buffers of `module` as they are, and leaves them so.

    Statistics of batch norms are no memories: they follow all that is computed.
    """
    kept = [
        (part, name, buffer)
        for part in module.modules()
        if not isinstance(part, _BatchNorm)
        for name, buffer in part.named_buffers(recurse=False)
    ]
    for part, name, buffer in kept:
        setattr(part, name, buffer.clone())
    try:
        yield
    finally:
        for part, name, buffer in kept:
            setattr(part, name, buffer)
