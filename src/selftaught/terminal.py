"""What is shown: on a terminal, in a file, or to nobody."""

import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.segment import Segment
from rich.text import Text

from selftaught.printable import printable


class Terminal(Console):
    """A console whose texts are printable and no markup, whoever wrote them.

    Colors are styles of `Text`; rich leaves them out where NO_COLOR is set.
    """

    def __init__(self, **options: Any):
        plain: dict[str, Any] = {
            "highlight": False,
            "markup": False,
            "emoji": False,
            "force_jupyter": False,
        }
        super().__init__(**(plain | options))

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        for part in super().render(renderable, options):
            yield part if part.control else part._replace(text=printable(part.text, "\n"))

    def on_broken_pipe(self) -> None:
        """Leave it to the command line, which has an exit code for it: rich has caught the error
        where it calls this."""
        raise


class Lasting(Terminal):
    """One for standard error that falls silent when nobody can read it any more."""

    def __init__(self, **options: Any):
        super().__init__(stderr=True, **options)

    def on_broken_pipe(self) -> None:
        self.quiet = True

    def _write_buffer(self) -> None:
        try:
            super()._write_buffer()
        except OSError:  # the terminal is gone, or the disk is full
            del self._buffer[:]
            self.quiet = True


@cache
def standard_error() -> Lasting:
    """The one console for standard error: messages stand above a line that is being refreshed, and
    neither is written over the other, as long as both go through it."""
    return Lasting(soft_wrap=True)


class Moving:
    """A line of the terminal that is written anew; messages stand above it.

    Args:
        stays: whether its last state is kept.
    """

    alive = False
    """Whether there is one: another one below it would write over it."""

    def __init__(self, stays: bool = True):
        self.console = standard_error()
        # what others print joins the messages, unless it goes into a file or a pipe
        beside = sys.stdout.isatty()
        self.live = Live(
            console=self.console,
            auto_refresh=False,
            redirect_stdout=beside,
            transient=not stays,
        )

    @property
    def width(self) -> int:
        return self.console.width

    def __enter__(self) -> "Moving":
        self.live.start()
        Moving.alive = True
        return self

    def __exit__(self, *_: object) -> None:
        Moving.alive = False
        self.live.stop()

    def show(self, text: str) -> None:
        """Write the line anew; what has no room goes."""
        self.live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
