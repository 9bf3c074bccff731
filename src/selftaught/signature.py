"""What a class or function takes, read from its source: types, defaults and documentation.

Read with `ast`, not imported, so that `--help`, typos and configuration errors answer at once:
importing torch takes seconds.
"""

import ast
import difflib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from .errors import UserError

_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "Path": Path,
    "tuple": tuple,
    "Literal": Literal,
}


@dataclass(frozen=True)
class Parameter:
    """One parameter. `type` is None where a command line cannot give it (a backbone, a dataset)."""

    name: str
    type: Any
    required: bool
    default: Any
    doc: str

    def parse(self, value: Any) -> Any:
        """`value`, from YAML or as text from a command line, as this parameter's type."""
        try:
            return _convert(value, self.type)
        except ValueError as error:
            raise UserError(f"{self.name} must be {describe(self.type)}, got {value!r}") from error


@dataclass(frozen=True)
class Signature:
    """A callable: its name, the first line and the rest of its documentation, its parameters."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]

    def __getitem__(self, name: str) -> Parameter:
        return next(p for p in self.parameters if p.name == name)

    def __contains__(self, name: str) -> bool:
        return any(p.name == name for p in self.parameters)


def describe(kind: Any) -> str:
    """A type in words, such as `a number`, `one of sgd, adamw`, `two numbers as A,B`."""
    if get_origin(kind) is UnionType:
        return " or ".join(describe(k) for k in get_args(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(v) for v in get_args(kind))
    if get_origin(kind) is tuple:
        items = get_args(kind)
        if items[-1] is Ellipsis:
            return f"a comma-separated list, each {describe(items[0])}"
        return f"{len(items)} values as {','.join('ABCDEFGH'[: len(items)])}, each " + describe(
            items[0]
        )
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "a path",
        NoneType: "none",
    }
    return words[kind]


def _convert(value: Any, kind: Any) -> Any:
    """Raise ValueError where `value` is not of `kind`."""
    origin = get_origin(kind)
    if origin is UnionType:
        options = get_args(kind)
        if NoneType in options and (
            value is None or (isinstance(value, str) and value.lower() == "none")
        ):
            return None
        for option in options:
            if option is not NoneType:
                try:
                    return _convert(value, option)
                except ValueError:
                    continue
        raise ValueError(value)
    if origin is Literal:
        for option in get_args(kind):
            if value == option or str(value) == str(option):
                return option
        raise ValueError(value)
    if origin is tuple:
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise ValueError(value)
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(items)
        if len(kinds) != len(items):
            raise ValueError(value)
        return tuple(_convert(i, k) for i, k in zip(items, kinds, strict=True))
    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise ValueError(value)
    if value is None or isinstance(value, bool | list | dict):
        raise ValueError(value)
    if kind is int and isinstance(value, float):
        raise ValueError(value)
    if kind is int and isinstance(value, str):
        return int(value.replace("_", ""))
    if kind in (str, Path) and not isinstance(value, str | Path | int | float):
        raise ValueError(value)
    return kind(value)


def closest(word: str, known: Collection[str]) -> str:
    """`: did you mean X?` where a known word is near, otherwise the known ones."""
    near = difflib.get_close_matches(word, known, 1, 0.6)
    return f": did you mean {near[0]}?" if near else f"; known: {', '.join(sorted(known))}"


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def module_doc(path: Path) -> str:
    """First line of a module's documentation."""
    return (ast.get_docstring(_tree(path)) or "").split("\n")[0]


@cache
def read_class(path: Path, base: str | None = None, name: str | None = None) -> Signature:
    """The class in `path` called `name`, or the one that derives from `base`."""
    for node in _tree(path).body:
        if isinstance(node, ast.ClassDef) and (
            node.name == name or base in [getattr(b, "id", None) for b in node.bases]
        ):
            init = next(
                n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"
            )
            return _signature(node.name, ast.get_docstring(node), init.args)
    raise LookupError(f"{path} has no class {name or f'derived from {base}'}")


@cache
def read_function(path: Path, name: str) -> Signature:
    """The function `name` of the file `path`."""
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _signature(name, ast.get_docstring(node), node.args)
    raise LookupError(f"{path} has no function {name}")


def _signature(name: str, doc: str | None, args: ast.arguments) -> Signature:
    lines = (doc or "").split("\n")
    docs = _arguments(lines)
    given = args.posonlyargs + args.args
    defaults: list[ast.expr | None] = [None] * (len(given) - len(args.defaults))
    pairs = list(zip(given, [*defaults, *args.defaults], strict=True))
    pairs += list(zip(args.kwonlyargs, args.kw_defaults, strict=True))
    return Signature(
        name,
        lines[0],
        tuple(
            Parameter(
                a.arg, _type(a.annotation), default is None, _value(default), docs.get(a.arg, "")
            )
            for a, default in pairs
            if a.arg != "self"
        ),
    )


def _type(node: ast.expr | None) -> Any:
    if node is None:
        return None
    try:  # our own annotations, in a namespace that holds the plain types alone
        return eval(ast.unparse(node), {"__builtins__": {}}, _TYPES)
    except NameError:
        return None


def _value(node: ast.expr | None) -> Any:
    if node is None:
        return None
    if isinstance(node, ast.Call):
        return Path(*(ast.literal_eval(a) for a in node.args))
    return ast.literal_eval(node)


def _arguments(lines: list[str]) -> dict[str, str]:
    """The `Args:` part of a docstring: parameter -> its text; `a, b: text` documents both."""
    docs: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in lines:
        if line.strip() == "Args:":
            inside = True
        elif inside and line.strip() and not line.startswith("    "):
            break
        elif inside and line.startswith("    ") and not line.startswith("     ") and ":" in line:
            head, _, text = line.strip().partition(":")
            names = [n.strip() for n in head.split(",")]
            docs.update(dict.fromkeys(names, text.strip()))
        elif inside and line.strip():
            docs.update({n: f"{docs[n]} {line.strip()}" for n in names})
    return docs
