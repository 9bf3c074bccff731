"""The methods: one class a file, found by file name; families are folders.

Nothing is registered: a file `methods/<family>/<name>.py` with one class that derives from `Method`
is a method called `<name>`. Listing them imports none of them. A method from elsewhere is called
`package.module:Class` or `file.py:Class`, or as a package calls it in its entry points
`selftaught.methods`.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from selftaught import code
from selftaught.errors import UserError
from selftaught.signature import Signature, closest, read_class, read_object

GROUP = "selftaught.methods"
USUAL = "simclr"
"""The method where none is named: among those that learn most in minutes on each of our data sets
(benchmarks/results/learn-*.md), with nothing to set, and from weights as well as from nothing."""


@cache
def files() -> dict[str, Path]:
    """Name -> file of each method of the library."""
    found = sorted(Path(__file__).parent.glob("*/*.py"))
    return {f.stem: f for f in found if f.stem != "__init__"}


@cache
def plugins() -> dict[str, str]:
    """Name -> `package.module:Class` of the methods that installed packages bring."""
    found = {e.name: e.value for e in entry_points(group=GROUP)}
    return {name: found[name] for name in sorted(found) if name not in files()}


def file_of(name: str) -> Path:
    """The file with the source of a method, whatever it is called by; it is not imported.

    Raises:
        UserError: there is no such method, or no such file.
    """
    place, _, label = _split(name)
    if label is None:
        return files()[place]
    if place == "__main__":
        raise UserError(
            f"{label} was written in a notebook or a session, which is over; where Python had its "
            "source, it is in method.py of the run folder: read it, then name it before --config, "
            f"as in: selftaught pretrain RUN/method.py:{label} --config RUN/run.yaml"
        )
    file = code.file_of(place)
    if file is None or not file.is_file():
        what = f"{place} does not exist" if file else f"no file holds a module {place} here"
        raise UserError(f"the method {name} is not found: {what}")
    return file.resolve()


def signature(name: str) -> Signature:
    """Class name, summary and parameters of a method, without importing it where that can be."""
    file, (_, _, label) = file_of(name), _split(name)
    try:
        return read_class(file, name=label) if label else read_class(file, base="Method")
    except LookupError as error:
        if not label:
            raise UserError(f"{error}; name the class of the method, as in {name}:Class") from error
        return read_object(find(name))  # made elsewhere, or with the constructor of another class
    except SyntaxError as error:
        raise UserError(f"{file}, line {error.lineno}, is not Python: {error.msg}") from error


def find(name: str) -> Any:
    """The class of a method, imported.

    Raises:
        UserError: there is none, or its file cannot be imported.
    """
    from selftaught.method import Method

    file, (place, module, label) = file_of(name), _split(name)
    inside = label is None
    label = label or signature(name).name
    found = import_module(module) if inside else code.module_of(file, place, module)
    kind = getattr(found, label, None)
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        raise UserError(f"{file} has no method {label}: a class that derives from Method")
    return kind


def reference(kind: type) -> str:
    """What run.yaml calls a method: a name of the library, `file.py:Class`, `module:Class`."""
    if kind.__module__.startswith(f"{__name__}."):
        return kind.__module__.rpartition(".")[2]
    return code.reference(kind)


def short(name: str) -> str:
    """A method's name in a sentence or in that of a folder: `echo` of `mine.py:Echo`."""
    if name in files():
        return name
    label = name.rpartition(":")[2] if ":" in name else Path(name).stem
    return label.rpartition(".")[2].lower()


def _split(name: str) -> tuple[str, str, str | None]:
    """File or module, name to import it by, and class, which is None within the library."""
    if name in files():
        return name, f"{__name__}.{files()[name].parent.name}.{name}", None
    name = plugins().get(name, name)
    place, colon, label = name.rpartition(":")
    if name.endswith(".py"):
        place, colon, label = name, ":", ""
    if not colon or not place:
        known = [*files(), *plugins()]
        raise UserError(f"no method is called {name!r}{closest(name, known)}")
    return place, Path(place).stem if place.endswith(".py") else place, label


def __dir__() -> list[str]:
    public = [name for name in globals() if not name.startswith("_")]
    return sorted([*public, *(signature(name).name for name in files())])


def __getattr__(label: str) -> Any:
    for name in files():
        if label[:1].isupper() and signature(name).name == label:
            return find(name)
    raise AttributeError(f"selftaught.methods has no {label!r}")
