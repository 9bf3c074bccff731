"""The source of a method that was written in a session: a notebook, or Python's own prompt."""

import ast
import linecache
from collections.abc import Iterator
from pathlib import Path

from selftaught.method import Method

FILE = "method.py"
"""Where a run folder keeps it."""


def source_of(kind: type[Method]) -> str | None:
    """A file that defines the method `kind`, with what it needs of the session's other cells.

    None where Python does not have its source.
    """
    statements = list(_statements())
    # of what was run twice the last counts
    homes = {name: i for i, (_, node) in enumerate(statements) for name in _bound(node)}
    needed: set[int] = set()
    names = {kind.__name__}
    while names:
        place = homes.get(names.pop())
        if place is not None and place not in needed:
            needed.add(place)
            names |= {n.id for n in ast.walk(statements[place][1]) if isinstance(n, ast.Name)}
    parts = [statements[i] for i in sorted(needed)]
    if not any(isinstance(node, ast.ClassDef) and node.name == kind.__name__ for _, node in parts):
        return None
    texts = [f'"""{kind.__name__}, as it was written in a session."""']
    for lines, node in parts:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        texts.append("".join(lines[first - 1 : node.end_lineno]).rstrip("\n"))
    return "\n\n".join(texts) + "\n"


def _statements() -> Iterator[tuple[list[str], ast.stmt]]:
    """What was run in this session, in its order: lines of a cell, a statement of it."""
    for name, entry in list(linecache.cache.items()):
        if len(entry) < 4 or Path(name).exists():
            continue  # a file, or one that nobody has asked for yet
        lines = entry[2]
        # a notebook's own commands are no Python
        plain = ["\n" if line.startswith(("%", "!")) else line for line in lines]
        try:
            body = ast.parse("".join(plain)).body
        except SyntaxError:
            continue
        yield from ((lines, node) for node in body)


def _bound(node: ast.stmt) -> set[str]:
    """Names that a statement gives a meaning to."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        stored = (n for n in ast.walk(node) if isinstance(n, ast.Name))
        return {n.id for n in stored if isinstance(n.ctx, ast.Store)}
    return set()
