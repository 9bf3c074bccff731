"""What a search has found: rows that a terminal, a file or a page shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from selftaught.errors import UserError
from selftaught.evaluate.writing import write_table
from selftaught.export.files import atomic
from selftaught.nouns import worded
from selftaught.report.html import escape, table

SHOWN = 50
"""Rows that a terminal shows, at most."""


@dataclass(frozen=True)
class Found:
    """Rows of what was found.

    kind: matches, duplicates or outliers. columns: values by name, each of N. note: how it was
    found, in words.
    """

    kind: str
    columns: Mapping[str, list[Any]]
    note: str

    @classmethod
    def of(
        cls, kind: str, names: Sequence[str], rows: Sequence[Sequence[Any]], note: str
    ) -> "Found":
        """Of rows: values in the order of the names."""
        return cls(
            kind, {name: [row[n] for row in rows] for n, name in enumerate(names)}, worded(note)
        )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows, as values by name."""
        for values in zip(*self.columns.values(), strict=True):
            yield dict(zip(self.columns, values, strict=True))

    def write(self, out: str | Path) -> None:
        """As .csv or .parquet; UserError where it cannot be written."""
        out = Path(out)
        if out.suffix not in (".csv", ".parquet"):
            raise UserError(f"{out} must end in .csv or .parquet")
        text = {n: [_text(v) for v in values] for n, values in self.columns.items()}
        with atomic(out) as temporary:
            write_table(temporary, text)

    def __repr__(self) -> str:
        return f"<{len(self):,} rows of {self.kind}: {self.note}>"

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        shown = Table(title=self.kind, title_justify="left")
        for name in self._names:
            number = all(isinstance(v, int | float) for v in self.columns[name])
            shown.add_column(name, justify="right" if number else "left", overflow="fold")
        for row in self._rows():
            shown.add_row(*map(Text, row))
        if len(self):
            yield shown
        for line in self._notes:
            yield Text(line)

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>{escape(line)}</p>" for line in self._notes)
        shown = table(self._names, self._rows()) if len(self) else ""
        return f"<p><b>{escape(self.kind)}</b></p>{shown}{notes}"

    @property
    def _names(self) -> list[str]:
        """Of the columns that are shown."""
        return [name for name in self.columns if name != "index" or "path" not in self.columns]

    def _rows(self) -> Iterator[list[str]]:
        """What is shown of the first rows."""
        for row, _ in zip(self, range(SHOWN)):
            yield [_told(row[name]) for name in self._names]

    @property
    def _notes(self) -> list[str]:
        """What is said below them."""
        more = [f"... and {len(self) - SHOWN:,} more rows"] if len(self) > SHOWN else []
        return [*more, self.note]


def _text(value: Any) -> Any:
    """A value as any file takes it: bytes that are no text become escapes."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _told(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)
