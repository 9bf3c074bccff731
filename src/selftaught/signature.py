"""What a class or function takes, read from its source: types, defaults and documentation.

Read with `ast`, not imported, so that `--help`, typos and configuration errors answer at once:
importing torch takes seconds.
"""

import ast
import difflib
import inspect
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from math import isfinite
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

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
    """One parameter. `type` is None where a command line cannot give it (a backbone, a dataset).

    `main` is whether `--help` shows it: all do that are not under `Other Args:`.
    """

    name: str
    type: Any
    required: bool
    default: Any
    doc: str
    main: bool = True

    def parse(self, value: Any) -> Any:
        """`value`, from YAML or as text from a command line, as this parameter's type.

        Raises:
            UserError: It is of another type, or this parameter has none that text could give.
        """
        if self.type is None:
            raise UserError(f"{self.name} can be given in Python alone, not as {value!r}")
        try:
            return _convert(value, self.type)
        except (ValueError, OverflowError) as error:
            hint = ""
            kinds = (self.type, *get_args(self.type))
            words = [str(v) for k in kinds if get_origin(k) is Literal for v in get_args(k)]
            if words and isinstance(value, str):
                near = difflib.get_close_matches(value, words, 1)
                hint = "".join(f": did you mean {n}?" for n in near)
            raise UserError(
                f"{self.name} must be {describe(self.type)}, got {value!r}{hint}"
            ) from error


@dataclass(frozen=True)
class Signature:
    """A callable: its name, the first line and the rest of its documentation, its parameters."""

    name: str
    summary: str
    parameters: tuple[Parameter, ...]

    def __getitem__(self, name: str) -> Parameter:
        """The parameter called `name`; UserError with the nearest one where there is none."""
        for parameter in self.parameters:
            if parameter.name == name:
                return parameter
        known = [p.name for p in self.parameters]
        raise UserError(f"{self.name} has no parameter {name!r}{closest(name, known)}")

    def __contains__(self, name: str) -> bool:
        return any(p.name == name for p in self.parameters)


OTHERS = "Other Args:"
"""Part of a docstring with what is rarely needed, which `--help-all` shows."""

_UNIONS = (UnionType, Union)
"""`int | None` is a UnionType, `Literal["a"] | None` a Union: the same to whoever reads it."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "a path",
    NoneType: "none",
}


def describe(kind: Any) -> str:
    """A type in words: `a number`, `one of sgd, adamw`, `2 values as A,B, each a number`."""
    items = get_args(kind)
    if get_origin(kind) in _UNIONS:
        return " or ".join(describe(item) for item in items)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(item) for item in items)
    if get_origin(kind) is tuple and items[-1] is Ellipsis:
        return f"a comma-separated list, each {describe(items[0])}"
    if get_origin(kind) is tuple:
        names = ",".join("ABCDEFGH"[: len(items)])
        if len(set(items)) == 1:
            return f"{len(items)} values as {names}, each {describe(items[0])}"
        parts = [f"{name} {describe(item)}" for name, item in zip("ABCDEFGH", items)]
        return f"{len(items)} values as {names}: " + ", ".join(parts)
    return _WORDS[kind]


def _convert(value: Any, kind: Any) -> Any:
    """Raise ValueError where `value` is not of `kind`."""
    if get_origin(kind) in _UNIONS:
        return _first(value, get_args(kind))
    if get_origin(kind) is Literal:
        return _choice(value, get_args(kind))
    if get_origin(kind) is tuple:
        return _items(value, get_args(kind))
    if kind is NoneType:
        if value is None or (isinstance(value, str) and value.strip().lower() in ("none", "null")):
            return None
        raise ValueError(value)
    if kind is bool:
        return _boolean(value)
    return _scalar(value, kind)


def _scalar(value: Any, kind: Any) -> Any:
    # bool is an int to Python, but "true" is no number to anybody else
    if isinstance(value, bool) or not isinstance(value, Real | str | Path):
        raise ValueError(value)
    if kind is int and not isinstance(value, Integral | str):
        raise ValueError(value)
    if kind in (int, float) and isinstance(value, Path):
        raise ValueError(value)
    if kind is Path:
        return Path(str(value))
    result = kind(value)
    if kind is float and not isfinite(result):
        raise ValueError(value)
    return result


def _first(value: Any, kinds: tuple[Any, ...]) -> Any:
    """As the first of `kinds` that fits; none before text, which fits everything."""
    for kind in sorted(kinds, key=lambda k: (k is not NoneType, k is str)):
        try:
            return _convert(value, kind)
        except ValueError:
            continue
    raise ValueError(value)


def _choice(value: Any, options: tuple[Any, ...]) -> Any:
    for option in options:
        if type(value) is type(option) and value == option:
            return option
        if isinstance(value, str) and value.strip() == str(option):
            return option
    raise ValueError(value)


def _items(value: Any, kinds: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, str):
        text = value.strip().removeprefix("(").removesuffix(")")
        text = text.removeprefix("[").removesuffix("]").strip().removesuffix(",")
        value = [item.strip() for item in text.split(",")] if text else []
    if not isinstance(value, list | tuple):
        raise ValueError(value)
    if kinds[-1] is Ellipsis:
        kinds = kinds[:1] * len(value)
    if len(kinds) != len(value):
        raise ValueError(value)
    return tuple(_convert(item, kind) for item, kind in zip(value, kinds))


def _boolean(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError(value)


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
    """The class in `path` called `name`, or the one that derives from `base`.

    It takes what its constructor takes, or, as a dataclass, its fields.

    Raises:
        LookupError: There is no such class, or it has no constructor of its own.
    """
    for node in _tree(path).body:
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [ast.unparse(b).rpartition(".")[2] for b in node.bases]
        if node.name == name or base in bases:
            for member in node.body:
                if isinstance(member, ast.FunctionDef) and member.name == "__init__":
                    return _signature(node.name, ast.get_docstring(node), member.args)
            if any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                return _signature(node.name, ast.get_docstring(node), _fields(node))
            raise LookupError(f"{node.name} in {path} has no __init__ of its own to read")
    raise LookupError(f"{path} has no class {name or f'derived from {base}'}")


@cache
def read_function(path: Path, name: str) -> Signature:
    """The function `name` of the file `path`; LookupError where there is none."""
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _signature(name, ast.get_docstring(node), node.args)
    raise LookupError(f"{path} has no function {name}")


def read_object(kind: type) -> Signature:
    """The class `kind` as `read_class` reads it, from the class itself, wherever it was made."""
    args = list(inspect.signature(kind.__init__).parameters.values())[1:]  # type: ignore[misc]
    documentation = inspect.cleandoc(kind.__doc__ or "").split("\n")
    docs, others = _arguments(documentation), _arguments(documentation, OTHERS)
    parameters = [
        Parameter(
            a.name,
            _type(ast.parse(a.annotation, mode="eval").body)
            if isinstance(a.annotation, str)
            else _known(a.annotation),
            a.default is a.empty,
            None if a.default is a.empty else a.default,
            (docs | others).get(a.name, ""),
            a.name not in others,
        )
        for a in args
        if a.kind not in (a.VAR_POSITIONAL, a.VAR_KEYWORD)
    ]
    return Signature(kind.__name__, documentation[0], tuple(parameters))


def read_constant(path: Path, name: str, attribute: str) -> Any:
    """The plain value that the body of the class `name` gives an attribute; None without one."""
    for node in _tree(path).body:
        for n in node.body if isinstance(node, ast.ClassDef) and node.name == name else ():
            targets = n.targets if isinstance(n, ast.Assign) else [getattr(n, "target", None)]
            value = getattr(n, "value", None)
            if isinstance(value, ast.Constant) and any(
                t and ast.unparse(t) == attribute for t in targets
            ):
                return value.value
    return None


def _known(kind: Any) -> Any:
    """A type, or None where it is none that text can give."""
    items = get_args(kind)
    if get_origin(kind) is Literal:
        return kind
    if get_origin(kind) is tuple or get_origin(kind) in _UNIONS:
        return kind if all(i is Ellipsis or _known(i) for i in items) else None
    return kind if kind in (*_WORDS, tuple) else None


def _fields(node: ast.ClassDef) -> ast.arguments:
    """The fields of a dataclass as the parameters that they are."""
    fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    given = [ast.arg(ast.unparse(n.target), n.annotation) for n in fields]
    return ast.arguments([], [], None, given, [n.value for n in fields], None, [])


def _signature(name: str, doc: str | None, args: ast.arguments) -> Signature:
    lines = (doc or "").split("\n")
    docs, others = _arguments(lines), _arguments(lines, OTHERS)
    given = args.posonlyargs + args.args
    defaults: list[ast.expr | None] = [None] * (len(given) - len(args.defaults))
    pairs = list(zip(given, [*defaults, *args.defaults], strict=True))
    pairs += list(zip(args.kwonlyargs, args.kw_defaults, strict=True))
    parameters = [
        Parameter(
            a.arg,
            _type(a.annotation),
            default is None,
            _value(default),
            (docs | others).get(a.arg, ""),
            a.arg not in others,
        )
        for a, default in pairs
        if a.arg != "self"
    ]
    return Signature(name, lines[0], tuple(parameters))


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
    try:
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Path":
            return Path(*(ast.literal_eval(a) for a in node.args))
        return ast.literal_eval(node)
    except ValueError as error:
        raise LookupError(f"the default {ast.unparse(node)} is not written as a value") from error


def _arguments(lines: list[str], part: str = "Args:") -> dict[str, str]:
    """One part of a docstring: parameter -> its text; `a, b: text` documents both."""
    docs: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in lines:
        if line.strip() == part:
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
