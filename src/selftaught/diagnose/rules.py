"""What a rule is: a figure, its limit, causes, a remedy; and who asks rules again and again.

The tables are in `before.py` (before the first step), `during.py` (in a step) and `beside.py`
(beside what training began with). To add a rule, add a row there and, where its figure is new, a
field of the facts above it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar


class Facts(Protocol):
    """What rules look at, and when that was seen."""

    @property
    def step(self) -> int:
        """Steps done."""
        ...

    @property
    def progress(self) -> float:
        """Fraction of the training done."""
        ...


F = TypeVar("F", bound=Facts)

Severity = Literal["note", "warning", "failure"]
"""A note is advice and no alarm; a warning makes a run doubtful; a failure makes it failed."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, how that is known, why it may be so, what to do.

    Args:
        name: of the rule.
        severity: of it.
        step, progress: when it was found.
        says: what is wrong, with figure and limit.
        figure, limit: the evidence.
        causes: the likeliest first.
        remedy: what to change.
    """

    name: str
    severity: Severity
    step: int
    progress: float
    says: str
    figure: float
    limit: float
    causes: tuple[str, ...]
    remedy: str

    def sentence(self) -> str:
        """All of it, for the terminal."""
        likely = f" Likely because {'; or '.join(self.causes)}." if self.causes else ""
        return f"{self.says}.{likely} What to do: {self.remedy}." if self.remedy else self.says


@dataclass(frozen=True)
class Cause(Generic[F]):
    """What may be the reason, and how that is tested: it is named first where it holds, and not at
    all where it does not.

    Args:
        text: filled in as `Rule.says` is.
        holds: whether the facts bear it.
    """

    text: str
    holds: Callable[[F], bool]


@dataclass(frozen=True)
class Rule(Generic[F]):
    """One row of the table.

    Args:
        name: in one to three words.
        figure: what is looked at; None or NaN where it does not apply.
        limit: what it may be at most, or at least where `below`.
        says: what is wrong; filled in with the figure, the limit and the facts.
        causes, remedy: see `Finding`; causes that are plain text cannot be tested.
        below: whether the figure is too low below the limit.
        severity: of a finding.
        patience: looks in a row that have to find it.
        after: steps before which it says nothing.
        until: fraction of training after which it says nothing new.
    """

    name: str
    figure: Callable[[F], float | None]
    limit: float
    says: str
    causes: tuple[str | Cause[F], ...]
    remedy: str
    below: bool = False
    severity: Severity = "warning"
    patience: int = 1
    after: int = 0
    until: float = 1.0

    def broken(self, facts: F) -> bool | None:
        """Whether the figure is on the wrong side of the limit; None where it was not looked at."""
        value = self.figure(facts)
        if value is None or math.isnan(value) or facts.step < self.after:
            return None
        return value < self.limit if self.below else value > self.limit

    def finding(self, facts: F) -> Finding:
        """The finding, in words."""
        value = float(self.figure(facts) or 0.0)

        def fill(text: str) -> str:
            return text.format(figure=value, limit=self.limit, facts=facts)

        tested = [c.text for c in self.causes if isinstance(c, Cause) and c.holds(facts)]
        untested = [c for c in self.causes if isinstance(c, str)]
        return Finding(
            self.name,
            self.severity,
            facts.step,
            facts.progress,
            fill(self.says),
            value,
            self.limit,
            tuple(map(fill, (*tested, *untested))),
            fill(self.remedy),
        )


@dataclass
class Watch(Generic[F]):
    """Rules that are asked again and again, and speak once.

    Args:
        rules: of the table.
        said: names of those that have spoken.
    """

    rules: tuple[Rule[F], ...]
    said: set[str] = field(default_factory=set)
    streaks: dict[str, int] = field(default_factory=dict)

    def look(self, facts: F) -> list[Finding]:
        """What is found for the first time."""
        new = []
        for rule in self.rules:
            streak, broken = self.streaks.get(rule.name, 0), rule.broken(facts)
            if broken is not None:
                streak = streak + 1 if broken else 0
            self.streaks[rule.name] = streak
            late = facts.progress > rule.until
            if streak >= rule.patience and rule.name not in self.said and not late:
                self.said.add(rule.name)
                new.append(rule.finding(facts))
        return new

    def standing(self) -> set[str]:
        """Names of what was said and was still so in the last look."""
        return {name for name in self.said if self.streaks.get(name)}
