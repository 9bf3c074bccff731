"""Listening to the parts of a method in one training step, by hooks, without changing the step."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor, nn

from selftaught.method import Insight, Method


class Pair(NamedTuple):
    """subject: [B, D] that is to approach its goal; gradient: of the loss there; goal: [B, D]."""

    subject: Tensor
    gradient: Tensor
    goal: Tensor


@dataclass
class Heard:
    """What the parts of a method gave in one step: an entry for each call of the part.

    Args:
        insight: of the method.
        embeddings, goals, predictions, logits: outputs, detached.
        entered: what the predictor was given.
        total: gradients at the embeddings; backward may fill these in another order, so they go
            by the number of the call.
        through: those parts of them that come through the predictor.
        slopes: gradients at the predictor's outputs.
    """

    insight: Insight
    embeddings: list[Tensor] = field(default_factory=list)
    goals: list[Tensor] = field(default_factory=list)
    predictions: list[Tensor] = field(default_factory=list)
    logits: list[Tensor] = field(default_factory=list)
    entered: list[Tensor] = field(default_factory=list)
    total: dict[int, Tensor] = field(default_factory=dict)
    through: dict[int, Tensor] = field(default_factory=dict)
    slopes: dict[int, Tensor] = field(default_factory=dict)
    handles: list[Any] = field(default_factory=list)

    def close(self) -> None:
        """Stop listening."""
        for handle in self.handles:
            handle.remove()

    def views(self) -> tuple[Tensor, Tensor] | None:
        """Embeddings [B, D] of two views of the same images, where there are some."""
        if not self.embeddings:
            return None
        z = self.embeddings[0]
        match self.insight.pairs:
            case "half":
                a, b = z.chunk(2)
            case "same":
                a, b = z, self.goals[0]
            case "other":
                a, b = z, self.embeddings[1]
            case _:
                return None
        return (a, b) if a.shape == b.shape else None

    def pairs(self) -> list[Pair]:
        """Each output that is to approach a goal."""
        subjects, slopes = self.embeddings, self.total
        if self.insight.predictor:
            subjects, slopes = self.predictions, self.slopes
        goals = self.goals if self.insight.copies else self.embeddings
        match self.insight.pairs:
            case "half":
                goals = [z.roll(len(z) // 2, 0) for z in subjects]
            case "other":
                goals = goals[::-1]
            case "":
                return []
        return [
            Pair(subject, slopes[i], goal)
            for i, (subject, goal) in enumerate(zip(subjects, goals))
            if i in slopes and subject.shape == goal.shape == slopes[i].shape
        ]


def attach(method: Method) -> Heard:
    """Listen to the parts that `method.insight` names until `Heard.close` is called."""
    insight = method.insight
    heard = Heard(insight)

    def at(name: str, hook: Callable[..., Any], before: bool = False) -> None:
        if name:
            part = method.get_submodule(name)
            register = part.register_forward_pre_hook if before else part.register_forward_hook
            heard.handles.append(register(hook))

    def outputs(kept: list[Tensor], slopes: dict[int, Tensor] | None = None) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            if slopes is not None and not output.requires_grad:
                return  # a pass on the side, such as one over a queue
            if slopes is not None:
                keep_gradient(output, slopes, len(kept))
            kept.append(output.detach())

        return hook

    def enter(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        # a node of its own, whose gradient is what comes through the predictor alone
        (z,) = inputs
        door = z.view_as(z)
        if z.requires_grad:
            keep_gradient(door, heard.through, len(heard.entered))
        heard.entered.append(z.detach())
        return (door,)

    at(insight.embedding, outputs(heard.embeddings, heard.total))
    at(insight.predictor, enter, before=True)
    at(insight.predictor, outputs(heard.predictions, heard.slopes))
    at(insight.logits, outputs(heard.logits))
    if insight.copies and insight.pairs:
        at(insight.copies[-1][0], outputs(heard.goals))
    return heard


def keep_gradient(x: Tensor, kept: dict[int, Tensor], call: int) -> None:
    """Store the gradient at `x` under the number of the call, once backward has come there."""

    def keep(gradient: Tensor) -> None:
        kept[call] = gradient

    x.register_hook(keep)
