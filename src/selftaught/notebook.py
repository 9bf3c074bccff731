"""What is said in a notebook: below the cell that runs, in one place that is written anew."""

import sys
from html import escape
from types import ModuleType
from typing import Any


def running() -> ModuleType | None:
    """`IPython.display`, in a kernel that shows what it is given below a cell; None elsewhere."""
    python = sys.modules.get("IPython")
    shell = None if python is None else python.get_ipython()
    if getattr(shell, "kernel", None) is None:  # plain Python, or IPython on a terminal
        return None
    from importlib import import_module

    return import_module("IPython.display")


class Cell:
    """Messages below a cell, and under them a line that is written anew.

    It is one output, so that a message is never between two states of that line, and a notebook
    that was saved holds what was said.

    Args:
        screen: `IPython.display`.
    """

    width = 1000

    def __init__(self, screen: Any):
        self.screen = screen
        self.said: list[tuple[str, bool]] = []
        self.moving, self.stays, self.alive = "", True, False
        self.place: Any = None

    def say(self, text: str, warns: bool) -> None:
        """Add a message."""
        self.said.append((text, warns))
        self._refresh()

    def line(self, stays: bool) -> "Cell | None":
        """Where a line can be shown that is written anew, and be kept; None below another one."""
        if self.alive:
            return None
        self.stays = stays
        return self

    def __enter__(self) -> "Cell":
        self.alive = True
        return self

    def __exit__(self, *_: object) -> None:
        self.alive = False
        if self.moving and self.stays:
            self.said.append((self.moving, False))
        self.show("")

    def show(self, text: str) -> None:
        """Write the line anew."""
        self.moving = text
        self._refresh()

    def _refresh(self) -> None:
        if self.place is None:
            self.place = self.screen.display(self, display_id=True)
        else:
            self.place.update(self)

    def __repr__(self) -> str:
        return "\n".join([*(text for text, _ in self.said), *filter(None, [self.moving])])

    def _repr_html_(self) -> str:
        lines = [
            f'<span style="color:#b35900">{escape(text)}</span>' if warns else escape(text)
            for text, warns in self.said
        ]
        lines += [f"<b>{escape(self.moving)}</b>"] if self.moving else []
        return f'<pre style="white-space:pre-wrap">{"<br>".join(lines)}</pre>'
