"""The methods: one class a file, found by file name; families are folders.

Nothing is registered: a file `methods/<family>/<name>.py` with one class that derives from `Method`
is a method called `<name>`. Listing them imports none of them.
"""

from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from selftaught.errors import UserError
from selftaught.signature import Signature, closest, read_class


@cache
def files() -> dict[str, Path]:
    """Name -> file of each method."""
    found = sorted(Path(__file__).parent.glob("*/*.py"))
    return {f.stem: f for f in found if f.stem != "__init__"}


def signature(name: str) -> Signature:
    """Class name, summary and parameters of the method called `name`, without importing it."""
    known = files()
    if name not in known:
        raise UserError(f"no method is called {name!r}{closest(name, known)}")
    return read_class(known[name], base="Method")


def find(name: str) -> Any:
    """The class of the method called `name`."""
    label = signature(name).name
    file = files()[name]
    return getattr(import_module(f"selftaught.methods.{file.parent.name}.{name}"), label)


def __getattr__(label: str) -> Any:
    for name in files():
        if label[:1].isupper() and signature(name).name == label:
            return find(name)
    raise AttributeError(f"selftaught.methods has no {label!r}")
