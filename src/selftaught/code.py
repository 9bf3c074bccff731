"""Code that a user names, as `file.py:Name` or `package.module:Name`: found, and imported."""

import sys
import sysconfig
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from selftaught.errors import UserError


def names(text: str) -> bool:
    """Whether `text` names code, and not something of the library or of timm."""
    place, colon, label = text.rpartition(":")
    return text.endswith(".py") or bool(
        colon and (place.endswith(".py") or all(map(str.isidentifier, [*place.split("."), label])))
    )


def settled(text: str) -> str:
    """The same name, whose file is found from here: relative to where the user is, or absolute."""
    place, _, label = split(text)
    file = Path(place).resolve()
    if not place.endswith(".py") or not file.is_file():
        return text
    here = file.is_relative_to(Path.cwd())
    return f"{file.relative_to(Path.cwd()) if here else file}:{label}"


def split(text: str) -> tuple[str, str, str]:
    """File or module, name to import it by, and what is named in it, which may be empty."""
    place, _, label = (text, "", "") if text.endswith(".py") else text.rpartition(":")
    return place, Path(place).stem if place.endswith(".py") else place, label


def at_hand(text: str, folder: Path) -> bool:
    """Whether code that a file in `folder` names is the user's own, which may run when it is read.

    It lies where the user is, and neither in `folder`, which may have come from anywhere, nor among
    what is installed, of which a file could name whatever does harm.
    """
    file = file_of(split(text)[0])
    if file is None or not file.is_file():
        return False
    file = file.resolve()
    others = (folder.resolve(), Path(sysconfig.get_path("stdlib")).resolve())
    inside = any(file.is_relative_to(other) for other in others)
    return file.is_relative_to(Path.cwd()) and not inside and "site-packages" not in file.parts


def file_of(place: str) -> Path | None:
    """The file of `file.py` or `package.module`; it may not exist, and nothing is imported."""
    return Path(place) if place.endswith(".py") else module_file(place)


def module_of(file: Path, place: str, module: str) -> Any:
    """The module that `file` holds, imported.

    Args:
        file: resolved.
        place: what the user calls it by, a path or a name.
        module: the name to import it by.

    Raises:
        UserError: it fails, or another module has its name.
    """
    # as Python itself does for a script; processes that make views take the path over
    if place.endswith(".py"):
        _reach(file.parent, 0)
    elif module not in sys.modules:
        _reach(Path.cwd(), len(sys.path))
    try:
        found = import_module(module)
    except Exception as error:
        raise UserError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    if place.endswith(".py") and not file.samefile(getattr(found, "__file__", None) or __file__):
        raise UserError(
            f"{file} cannot be imported: another module is called {module} ({found.__name__} of "
            f"{getattr(found, '__file__', 'Python')}); give the file another name"
        )
    return found


def found(text: str, what: str, does: str, like: str) -> Any:
    """The function `file.py:function` or `package.module:function`, imported.

    Args:
        text: that names it.
        what: it is for, such as backbone.
        does: what it does.
        like: what such functions are called.

    Raises:
        UserError: there is none, or its file cannot be imported.
    """
    place, module, label = split(text)
    if not label or not place:
        raise UserError(f"{text} names no function; name it too, as in {text}:{like}")
    file = file_of(place)
    if file is None or not file.is_file():
        why = f"{place} does not exist" if file else f"no file holds a module {place} here"
        raise UserError(f"the {what} {text} is not found: {why}")
    thing = getattr(module_of(file.resolve(), place, module), label, None)
    if not callable(thing):
        raise UserError(f"{file} has no function {label} that {does}")
    return thing


def reference(thing: Any) -> str:
    """What a class or a function is called by: `file.py:Name`, or `package.module:Name`."""
    module, label = thing.__module__, thing.__qualname__
    known: Any = sys.modules.get(module)
    spec, file = getattr(known, "__spec__", None), Path(getattr(known, "__file__", None) or "")
    if module == "__main__" and spec is not None:  # python -m
        return f"{spec.name}:{label}"
    installed = "site-packages" in file.parts or file.stem == "__init__"
    if file.is_file() and "." not in module and not installed:
        file = file.resolve()
        here = file.is_relative_to(Path.cwd())
        return f"{file.relative_to(Path.cwd()) if here else file}:{label}"
    return f"{module}:{label}"


def module_file(module: str) -> Path | None:
    """The file of a module, of which nothing is imported, nor the packages around it."""
    top, *rest = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if spec and not rest:
        return Path(spec.origin) if spec.origin and spec.has_location else None
    # what is not installed may lie where the user is
    for base in (*map(Path, folders), Path.cwd() / top):
        path = base.joinpath(*rest)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None


def _reach(folder: Path, position: int) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(position, str(folder))
