"""What a training was given where nobody said it: told as a table before its first step, kept by
its run, and shown on its page."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich.table import Table
from rich.text import Text

from selftaught.nouns import worded

HEAD = ("setting", "value", "why", "the paper's")
PAPERS = "--recipe paper keeps the paper's, where nothing is given"


class Chosen(NamedTuple):
    """A setting that nobody gave, beside the paper's.

    why: in a few words.
    """

    name: str
    value: Any
    paper: Any
    why: str = ""

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Texts below `HEAD`."""
        return self.name, said(self.value), worded(self.why), said(self.paper)


def said(value: Any) -> str:
    """A value as it is typed."""
    if isinstance(value, tuple | list):
        return ",".join(map(said, value))
    if value is None:
        return "none"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def plain(chosen: Iterable[Chosen]) -> dict[str, list[Any]]:
    """As run.yaml holds them."""
    return {c.name: [_plain(c.value), _plain(c.paper), c.why] for c in chosen}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def of(settings: Mapping[str, Any]) -> list[Chosen]:
    """Those of a run.yaml; what is damaged is left out."""
    found = settings.get("chosen")
    entries = found.items() if isinstance(found, dict) else ()
    return [Chosen(str(n), v[0], v[1], str(v[2])) for n, v in entries if _whole(v)]


def _whole(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 3


def table(chosen: Iterable[Chosen]) -> Table:
    """A line a setting; a reason that has no room goes on in the next."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in HEAD:
        made.add_column(name, overflow="fold", no_wrap=name == HEAD[0])
    for c in chosen:
        made.add_row(*map(Text, c.row))
    return made
