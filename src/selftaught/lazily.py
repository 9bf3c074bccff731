"""Packages whose names load on first use, so that to import one costs nothing.

What a package has is said once, by the imports under `if TYPE_CHECKING:` in its `__init__.py`, for
type checkers and editors: the names and their homes are read there.
"""

import ast
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any


def lazily(package: str, file: str) -> tuple[list[str], Callable[[str], Any]]:
    """`__all__` and `__getattr__` of the package that `file` is the `__init__.py` of."""
    tree = ast.parse(Path(file).read_text(encoding="utf-8"))
    (block,) = (
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    )
    imports = [n for n in block.body if isinstance(n, ast.ImportFrom)]
    homes = {alias.name: n.module or "" for n in imports for alias in n.names}

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if homes[name] == package:
            return import_module(f"{package}.{name}")
        return getattr(import_module(homes[name]), name)

    return sorted(homes), load
