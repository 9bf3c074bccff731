"""Exact losses of batches too large for memory: a gradient cache (Gao et al., 2021).

https://arxiv.org/abs/2101.06983. A loss that compares the images of a batch cannot be added up over
parts of it, but the backbone, which takes the memory, works image by image. So the backbone runs
in parts without keeping anything; the loss of all its features together gives their gradient; and
the backbone runs again, part by part, to carry that gradient into its weights. The price is one
more forward pass.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.backbones import is_encoder
from selftaught.errors import UserError
from selftaught.method import Method, encoders


@dataclass
class _Call:
    """A pass of an encoder: its input, and features whose gradient is to be carried on."""

    net: nn.Module
    images: tuple[Tensor, ...]
    features: Tensor
    states: list[list[Tensor]]


class GradientCache:
    """Lets the losses of a method see features of whole batches, with the memory of parts.

    Args:
        method: whose backbones run in parts.
        part: images that a backbone sees at a time.
        context: of each forward pass (precision).
        run: runs a backbone on images outside of the method's loss.
    """

    def __init__(
        self,
        method: Method,
        part: int,
        context: Callable[[], AbstractContextManager[Any]],
        run: Callable[[nn.Module, Tensor], Tensor] = lambda net, images: net(images),
    ):
        self.method, self.part, self.context, self.run = method, part, context, run
        self.calls: list[_Call] = []

    @contextmanager
    def recording(self) -> Iterator[None]:
        """A block in which the backbone, and EMA copies of it, run in parts."""
        self.calls = []
        nets = [m for m in self.method.modules() if is_encoder(m)]
        for net in nets:
            trained = any(net is one for one in (self.method.backbone, *encoders(self.method)[1:]))
            net.forward = self._recorded(net) if trained else self._divided(net)  # type: ignore[method-assign]
        try:
            yield
        finally:
            for net in nets:
                del net.forward
        if not self.calls:
            raise UserError(
                f"{type(self.method).__name__} does not run its backbone on whole images alone, so "
                "its batch cannot be computed in parts; leave out --effective-batch"
            )

    def backward(self) -> None:
        """After the backward pass of the loss: carry the features' gradients into the weights."""
        nets = {id(call.net): call.net for call in self.calls}.values()
        # statistics of batch norms have seen these images in the first pass
        kept = [(b, b.clone()) for net in nets for b in net.buffers()]
        for call in self.calls:
            slopes = call.features.grad
            if slopes is None:
                continue
            for images, state, slope in zip(call.images, call.states, slopes.split(self.part)):
                after = _random(images)
                _restore(state, images)
                with self.context():
                    features = self.run(call.net, images)
                torch.autograd.backward(features, slope.to(features.dtype))
                _restore(after, images)
        self.calls = []
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)

    def _recorded(self, net: nn.Module) -> Callable[[Tensor], Tensor]:
        def forward(x: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return self._parts(net, x)
            if x.requires_grad:
                raise UserError(
                    f"{type(self.method).__name__} learns what its backbone is shown, so its batch "
                    "cannot be computed in parts; leave out --effective-batch"
                )
            parts, states, features = x.split(self.part), [], []
            with torch.no_grad():
                for images in parts:
                    states.append(_random(images))
                    features.append(type(net).forward(net, images))
            together = torch.cat(features).requires_grad_()
            self.calls.append(_Call(net, parts, together, states))
            return together

        return forward

    def _divided(self, net: nn.Module) -> Callable[[Tensor], Tensor]:
        return lambda x: self._parts(net, x)

    def _parts(self, net: nn.Module, x: Tensor) -> Tensor:
        return torch.cat([type(net).forward(net, images) for images in x.split(self.part)])


def _random(x: Tensor) -> list[Tensor]:
    """State of the generators that dropout draws from."""
    device = [torch.cuda.get_rng_state(x.device)] if x.device.type == "cuda" else []
    return [torch.get_rng_state(), *device]


def _restore(state: list[Tensor], x: Tensor) -> None:
    torch.set_rng_state(state[0])
    if len(state) > 1:
        torch.cuda.set_rng_state(state[1], x.device)
