"""Bytes that a step has at each of its operations, and how many these are, on any device.

Steps have their peak in the backward pass, where hardly anything that the forward pass kept is free
again and gradients of large activations are made, or where a block is computed again. Both passes
are run on batches of two sizes, so that each operation tells what it takes for an image, and what
however many there are: the peak of a large batch may be another than that of a small one. What
kernels allocate within themselves is not seen.
"""

import weakref
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from selftaught import dist
from selftaught.method import Batch, Method, terms_of


class Course(NamedTuple):
    """fixed, each: [operations] bytes however many images there are, and of each image."""

    fixed: np.ndarray
    each: np.ndarray

    def at(self, images: float) -> float:
        """Bytes at the peak of a step of so many images."""
        return float((self.fixed + self.each * images).max())

    def image(self, images: float) -> float:
        """Bytes that one more image adds to that."""
        return float(self.each[int((self.fixed + self.each * images).argmax())])

    def images(self, room: float) -> int:
        """How many images that many bytes are enough for."""
        if (self.fixed > room).any():
            return 0
        grows = self.each > 0
        return int(((room - self.fixed[grows]) / self.each[grows]).min())


class _Born(NamedTuple):
    """operation: that made a storage. size: in bytes. gone: called when it is."""

    operation: int
    size: int
    gone: Any


class Counting(TorchDispatchMode):
    """A block with both passes of a step, whose tensors and operations are counted.

    Args:
        known: tensors that are not counted: weights and buffers.
        given: of the batch, which are there all the time.

    Attributes:
        flops: of products of matrices and convolutions.
    """

    def __init__(self, known: Iterable[Tensor], given: Iterable[Tensor]):
        super().__init__()
        there = {s._cdata: s for s in map(_storage, given)}
        self.now = sum(s.nbytes() for s in there.values())
        # held, so that nothing else comes to lie where they are
        self.known = {s._cdata: s for s in map(_storage, known)} | there
        self.flops, self.bytes = 0, list[int]()
        self.alive: dict[int, _Born] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if formula := flop_registry.get(func.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=made)
        for x in tree_leaves(made):
            if isinstance(x, Tensor):
                self._see(_storage(x))
        self.bytes.append(self.now)
        return made

    def _see(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self.alive and key not in self.known:
            gone = weakref.ref(storage, lambda _: self._gone(key))
            self.alive[key] = _Born(len(self.bytes), storage.nbytes(), gone)
            self.now += storage.nbytes()

    def _gone(self, key: int) -> None:
        self.now -= self.alive.pop(key).size

    def course(self, staying: bool) -> np.ndarray:
        """[operations] bytes after each.

        Args:
            staying: whether with what is there when all is done: gradients of weights.
        """
        found = np.array(self.bytes, float)
        for one in () if staying else self.alive.values():
            found[one.operation :] -= one.size
        return found


def _storage(x: Tensor) -> torch.UntypedStorage:
    return dist.local(x).untyped_storage()


def course(few: np.ndarray, more: np.ndarray, images: tuple[int, int]) -> Course:
    """From the bytes of batches of two sizes.

    Args:
        few, more: [operations] bytes of them.
        images: of both.
    """
    if len(few) != len(more):  # whose operations depend on what is drawn
        few, more = few.max(keepdims=True), more.max(keepdims=True)
    each = (more - few) / (images[1] - images[0])
    return Course(few - each * images[0], each)


def counted(
    method: Method, batch: Batch, context: Callable[[], Any], alone: bool
) -> tuple[np.ndarray, int]:
    """Run both passes of a step; weights are left without gradients.

    Args:
        method, batch: that are computed.
        context: of the forward pass (precision).
        alone: whether gradients of weights are counted as they come. Where processes share them,
            there is room for all of them from the beginning, and none is counted here.

    Returns:
        [operations] bytes after each, beside those of weights and buffers; FLOP of both passes.
    """
    known = [*map(dist.local, (*method.parameters(), *method.buffers()))]
    given = [x for x in tree_leaves(tuple(batch)) if isinstance(x, Tensor)]
    with Counting(known, given) as seen:
        with context():
            loss = summed(method.loss(batch))
        loss.backward()
        del loss
    found = seen.course(staying=alone)
    method.zero_grad(set_to_none=True)
    return found, seen.flops


def summed(terms: Tensor | dict[str, Tensor]) -> Tensor:
    """The loss of which these are the terms."""
    return torch.stack(list(terms_of(terms).values())).sum()
