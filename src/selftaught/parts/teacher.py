"""Networks that a method learns from and never changes: teachers."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from selftaught.errors import UserError
from selftaught.parts.target import frozen_copy


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of all weights and buffers of a module, by their names."""
    found = hashlib.sha256()
    for name, x in sorted(module.state_dict().items()):
        found.update(name.encode())
        found.update(x.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


class Frozen(nn.Module):
    """A copy of a network that is asked and never trained: it stays in evaluation mode.

    It goes wherever the module that holds it goes, and yet is no part of it: neither parameters nor
    state have it, so that a checkpoint is as large as what is trained. The state has its
    fingerprint alone, and one that was made with another network is refused.

    digest: uint8 [32].
    """

    digest: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self._held = (frozen_copy(network).eval(),)  # in a tuple, where modules are not looked for
        digest = bytearray.fromhex(fingerprint(network))
        self.register_buffer("digest", torch.frombuffer(digest, dtype=torch.uint8))

    @property
    def held(self) -> Any:
        """The network."""
        return self._held[0]

    @property
    def key(self) -> str:
        """Its fingerprint."""
        return bytes(self.digest.tolist()).hex()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        self.held._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        theirs = state_dict.get(f"{prefix}digest")
        if theirs is not None and not torch.equal(theirs.cpu(), self.digest.cpu()):
            raise UserError(
                f"{prefix.rstrip('.')} has the weights {self.key[:12]}, and what is loaded learned "
                f"from {bytes(theirs.tolist()).hex()[:12]}: give the same teacher as before"
            )
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
