"""Parts of a network that stay as they are: no gradient, and evaluation mode whatever is said."""

from collections.abc import Collection
from contextlib import ExitStack
from types import MethodType

from torch import nn


def freeze(module: nn.Module, names: Collection[str]) -> ExitStack:
    """Stop training the parameters of these names, and hold modules that have no others.

    In those batch norms keep their statistics, and nothing is dropped. Closing what is returned
    lets them go again.
    """
    undo = stop(module, names)
    for whole in _whole(module, "", names):
        undo.callback(hold(whole).close)
    return undo


def stop(module: nn.Module, names: Collection[str]) -> ExitStack:
    """Stop training the parameters of these names, until this is closed."""
    undo = ExitStack()
    for name, parameter in module.named_parameters():
        if name in names and parameter.requires_grad:
            parameter.requires_grad_(False)
            undo.callback(parameter.requires_grad_)
    return undo


def hold(module: nn.Module) -> ExitStack:
    """Keep a module in evaluation mode, whatever `train` is called with, until this is closed."""
    undo, before = ExitStack(), module.training
    if "train" in vars(module):  # somebody holds it already
        return undo
    module.train = MethodType(_stay, module)  # type: ignore[method-assign]
    module.eval()
    undo.callback(_let_go, module, before)
    return undo


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return type(module).train(module, False)


def _let_go(module: nn.Module, mode: bool) -> None:
    del module.train
    module.train(mode)


def _whole(module: nn.Module, prefix: str, names: Collection[str]) -> list[nn.Module]:
    """The largest modules inside of which all parameters are among `names`."""
    own = [prefix + name for name, _ in module.named_parameters()]
    if own and all(name in names for name in own):
        return [module]
    children = module.named_children()
    return [x for name, c in children for x in _whole(c, f"{prefix}{name}.", names)]
