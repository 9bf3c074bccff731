"""An optimizer that a function of the user makes: `pretrain(..., optimizer=torch.optim.RAdam)`."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from selftaught.engine import optim
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.method import Recipe


@dataclass(frozen=True)
class Own:
    """Makes an optimizer of groups of parameters, and is called by what it makes.

    Args:
        make: of the user.
        text: class and defaults of what it made.
    """

    make: Callable[[list[dict[str, Any]]], Any]
    text: str

    def __call__(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """The optimizer.

        Raises:
            UserError: it is none, or not one of these groups.
        """
        try:
            made = self.make(groups)
        except Exception as error:  # any code may run here
            raise UserError(
                f"the function given as optimizer fails ({type(error).__name__}: {error})"
            ) from error
        if not isinstance(made, torch.optim.Optimizer):
            raise UserError(
                "optimizer must be a function of groups of parameters that returns a "
                f"torch.optim.Optimizer, got a {type(made).__name__}"
            )
        names = groups[0].keys()
        held = {id(p) for group in made.param_groups for p in group["params"]}
        given = {id(p) for group in groups for p in group["params"]}
        if held != given or any(names - group.keys() for group in made.param_groups):
            raise UserError(
                f"{type(made).__name__} must be made of the groups that the function is given, as "
                "in lambda groups: torch.optim.RAdam(groups, lr=1e-3): they say which parameters "
                "are decayed, and at what rate each learns"
            )
        return made

    def __str__(self) -> str:
        return self.text


def changes(make: Any, method: nn.Module, paper: Recipe, settings: Settings) -> dict[str, Any]:
    """What it changes of a recipe: its own rate and decay hold where the user gives no others."""
    made = Own(make, "")(optim.groups(method, paper))
    of = made.defaults
    said = ", ".join(f"{k}={v!r}" for k, v in of.items() if v is not None and v is not False)
    found: dict[str, Any] = {"optimizer": Own(make, f"{type(made).__name__}({said})")}
    if settings.lr is None:
        if "lr" not in of:
            raise UserError(f"{type(made).__name__} has no learning rate of its own: give lr, too")
        found |= {"lr": float(of["lr"]), "scaling": settings.scaling or "none"}
    if settings.weight_decay is None:
        found["weight_decay"] = float(of.get("weight_decay", 0.0))
    return found
