"""A progress bar for whoever waits at a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(total: int, wanted: bool, task: str) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error where that is a terminal; what is yielded moves it on."""
    if not wanted or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from selftaught.terminal import standard_error

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=standard_error(), transient=True) as shown:
        done = shown.add_task(task, total=total)
        yield lambda: shown.advance(done)
