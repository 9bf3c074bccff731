"""How far a pass over samples is, for whoever waits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from selftaught import voice


@contextmanager
def bar(total: int, wanted: bool, task: str) -> Iterator[Callable[[], None]]:
    """A block that goes through `total` samples; what is yielded is called after each."""
    if not wanted:
        yield lambda: None
        return
    done = 0
    with voice.heard(), voice.counted(task) as show:

        def advance() -> None:
            nonlocal done
            done += 1
            show(done, total)

        yield advance
