"""What a class or function takes, read from its source: types, defaults and documentation.

Read with `ast`, not imported, so that `--help`, typos and configuration errors answer at once:
importing torch takes seconds.
"""

import ast
import difflib
import inspect
from collections.abc import Callable, Collection, Container, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, reduce
from math import isfinite
from numbers import Integral, Real
from operator import or_
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar, Union, get_args, get_origin

from . import roles
from .errors import UserError
from .roles import Role
from .sides import Size, one

_TYPES: dict[str, Any] = {
    "int": int,
    "float": float,
    "bool": bool,
    "str": str,
    "Path": Path,
    "tuple": tuple,
    "Literal": Literal,
    "Annotated": Annotated,
    "Role": Role,
}
_TYPES |= {name: kind for name, kind in vars(roles).items() if get_origin(kind) is Annotated}

FORMER = {
    "colours": "colors",
    "edges": "sobel",
    "freeze": "freeze_prototypes",
    "licence": "license",
    "neighbours": "neighbors",
    "sees": "input",
}
"""What parameters were called before, on command lines and in files of older runs."""
FORMER_VALUES = {("input", "colours"): "colors"}
"""Values that were called otherwise, by parameter."""


def current(given: Mapping[str, Any], known: Container[str] = ()) -> dict[str, Any]:
    """Settings under the names of today, unless their old ones are among the `known`."""
    names = {key: key if key in known else FORMER.get(key, key) for key in given}
    return {
        name: FORMER_VALUES.get((name, given[key]), given[key])
        if isinstance(given[key], str)
        else given[key]
        for key, name in names.items()
    }


@dataclass(frozen=True)
class Parameter:
    """One parameter.

    Args:
        name: of it.
        type: plain; None where a command line cannot give it (a backbone, a dataset).
        required: whether there is no default.
        default: its value unless given.
        doc: what it means.
        main: whether `--help` shows it: all do that are not under `Other Args:`.
        kind: the type with the roles of its parts; None where it has none.
    """

    name: str
    type: Any
    required: bool
    default: Any
    doc: str
    main: bool = True
    kind: Any = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """Of the value, or of its items, each once."""
        return tuple(dict.fromkeys(_roles(self.kind)))

    @property
    def bounds(self) -> str:
        """What numbers may be, in words: `above 0`; nothing where any number may be."""
        return " or ".join(dict.fromkeys(str(role) for role in self.roles if str(role)))

    @property
    def from_data(self) -> Role | None:
        """The role by which the data gives the value, where it does."""
        return next((role for role in self.roles if role.from_data), None)

    def parse(self, value: Any) -> Any:
        """`value`, from YAML or as text from a command line, as this parameter's type.

        Raises:
            UserError: It is of another type, out of the bounds of its role, or this parameter has
                no type that text could give.
        """
        if self.type is None:
            raise UserError(f"{self.name} can be given in Python alone, not as {value!r}")
        try:
            former = FORMER_VALUES.get((self.name, value)) if isinstance(value, str) else None
            return _convert(former or value, self.type if self.kind is None else self.kind)
        except _OutOfBounds as error:
            raise UserError(f"{self.name} must be {error}, got {value}") from error
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


class _OutOfBounds(ValueError):
    """A number that its role does not allow; the message is what it does."""


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
_SIZE = "a whole number, or rows x columns such as 128x1024"


def describe(kind: Any) -> str:
    """A type in words: `a number`, `one of sgd, adamw`, `2 values as A,B, each a number`."""
    items = get_args(kind)
    if get_origin(kind) is Annotated:
        return ", ".join([describe(items[0]), *(str(role) for role in _roles(kind) if str(role))])
    if get_origin(kind) in _UNIONS:
        told = [i for i in items if i is not NoneType or not _is_word("none", items)]
        sizes = get_args(Size) if set(get_args(Size)) <= set(told) else ()
        words = [_SIZE] * bool(sizes) + [describe(item) for item in told if item not in sizes]
        return " or ".join(words)
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
    if get_origin(kind) is Annotated:
        found = _convert(value, get_args(kind)[0])
        for role in _roles(kind):
            if not all(map(role.allows, found if isinstance(found, tuple) else (found,))):
                raise _OutOfBounds(str(role))
        return found
    if kind == Size:
        return _size(value)
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
    """As the first of `kinds` that fits: words, of which `none` may be one that means something,
    before none, and none before text, which fits everything."""
    out: ValueError = ValueError(value)
    for kind in sorted(kinds, key=lambda k: (not _is_literal(k), k is not NoneType, k is str)):
        try:
            return _convert(value, kind)
        except _OutOfBounds as error:  # of the right type: this is what is to be told
            out = error
        except ValueError:
            continue
    raise out


def _is_literal(kind: Any) -> bool:
    return get_origin(kind) is Literal


def _is_word(word: str, kinds: tuple[Any, ...]) -> bool:
    """Whether it is one of those that a literal among `kinds` lists."""
    return any(word in get_args(kind) for kind in kinds if _is_literal(kind))


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


def _size(value: Any) -> Size:
    """`224` or `128x1024`; rows and columns as a list, too, as other values are."""
    value = value.lower().replace("x", ",") if isinstance(value, str) else value
    if isinstance(value, list | tuple) or (isinstance(value, str) and "," in value):
        return one(_items(value, (int, int)))
    return _scalar(value, int)


def _boolean(value: Any) -> bool:
    words = {"true": True, "yes": True, "on": True, "1": True}
    words |= {"false": False, "no": False, "off": False, "0": False}
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in words:
        return words[value.strip().lower()]
    raise ValueError(value)


def _roles(kind: Any) -> Iterator[Role]:
    """Every role in a type."""
    for item in get_args(kind):
        if isinstance(item, Role):
            yield item
        else:
            yield from _roles(item)


def _plain(kind: Any) -> Any:
    """A type without the roles in it."""
    items = get_args(kind)
    if get_origin(kind) is Annotated:
        return _plain(items[0])
    if get_origin(kind) is tuple:
        return tuple[tuple(_plain(item) for item in items)]  # type: ignore[misc]
    if get_origin(kind) in _UNIONS:
        return reduce(or_, map(_plain, items))
    return kind


class Valued(NamedTuple):
    """A number that an object was made with, and what it is unless given; None where that is none.

    Of a tuple each item is one.
    """

    name: str
    role: str
    value: Any
    default: Any


def valued(thing: object) -> list[Valued]:
    """What an object was made with, where it has a role, in the order of its parameters."""
    found = []
    for parameter in read_object(type(thing)).parameters:
        name, kind = parameter.name, parameter.kind
        now = [*_valued(kind, getattr(thing, name, None))]
        usual = [*_valued(kind, parameter.default)]
        usual = [value for _, value in usual] if len(usual) == len(now) else [None] * len(now)
        found += [Valued(name, role.name, value, u) for (role, value), u in zip(now, usual)]
    return found


def values_by_role(thing: object) -> dict[str, list[Any]]:
    """What an object was made with, by the names of the roles, items of tuples one by one."""
    found: dict[str, list[Any]] = {}
    for each in valued(thing):
        found.setdefault(each.role, []).append(each.value)
    return found


def _valued(kind: Any, value: Any) -> Iterator[tuple[Role, Any]]:
    if get_origin(kind) is Annotated:
        yield from ((role, value) for role in _roles(kind) if value is not None)
    elif get_origin(kind) in _UNIONS:
        fits = (k for k in get_args(kind) if isinstance(value, tuple) == (get_origin(k) is tuple))
        yield from _valued(next(fits, None), value)
    elif get_origin(kind) is tuple and isinstance(value, tuple):
        items = get_args(kind)
        items = items[:1] * len(value) if items[-1] is Ellipsis else items
        for item, one in zip(items, value):
            yield from _valued(item, one)


class Checked:
    """A class whose constructor refuses what is not of its parameters' types, or out of bounds.

    The command line and Python are alike in this; nothing is converted, and what has no type that
    text could give is left alone.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        signature = read_object(cls)
        given = dict(zip([p.name for p in signature.parameters], args)) | kwargs
        for parameter in signature.parameters:
            if parameter.type is not None and parameter.name in given:
                parameter.parse(given[parameter.name])
        return super().__new__(cls)


class Options:
    """What a command, and the function behind it, may be asked for: a frozen dataclass of it.

    Each option is said once, as a field and its line of documentation. Values become those of the
    fields' types, from the command line, YAML and Python alike.

    Raises:
        UserError: a value of another type, or outside of its bounds.
    """

    @classmethod
    def of(cls, **given: Any) -> Self:
        """As Python gives them, and type checkers do not know it: lists for tuples, text for paths.

        Raises:
            TypeError: there is no such option.
        """
        return cls(**given)

    def __post_init__(self) -> None:
        for parameter in read_object(type(self)).parameters:
            name, value = parameter.name, getattr(self, parameter.name)
            if name not in OBJECTS or isinstance(value, str | Path):
                object.__setattr__(self, name, parameter.parse(value))


OBJECTS = ("second", "second_test", "test", "on_record", "augmentation", "optimizer")
"""Options that may be an object in Python: data, a function."""

Function = TypeVar("Function", bound=Callable[..., Any])


def takes(options: type[Options]) -> Callable[[Function], Function]:
    """Decorate a function whose `**options` are the fields of `options`.

    The command line reads them as parameters of the function, and so do `help` and notebooks.
    Where it takes more than these, `**options` is of type Any.
    """
    known = inspect.signature(options).parameters
    # its own first, as `read_class` has them, and not those of what it derives from
    kinds = [k for k in options.__mro__ if k is not Options and issubclass(k, Options)]
    fields = [known[name] for kind in kinds for name in vars(kind).get("__annotations__", ())]

    def spelled(function: Function) -> Function:
        own = inspect.signature(function)
        *given, rest = own.parameters.values()
        given += [p.replace(kind=p.KEYWORD_ONLY) for p in fields if p.name not in own.parameters]
        given += [rest] if rest.annotation is Any else []
        function.__signature__ = own.replace(parameters=given)  # pyrefly: ignore[missing-attribute]
        return function

    return spelled


def like(other: Callable[..., Any]) -> Callable[[Function], Function]:
    """Decorate a function that takes what `other` takes, as `**options`, and hands it on.

    What it says of a parameter itself stands before what `other` says.
    """

    def spelled(function: Function) -> Function:
        function.__signature__ = inspect.signature(other)  # pyrefly: ignore[missing-attribute]
        return function

    return spelled


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
                own = _signature(node.name, ast.get_docstring(node), _fields(node))
                more = [p for b in bases for p in _inherited(path, b) if p.name not in own]
                return replace(own, parameters=(*own.parameters, *more))
            raise LookupError(f"{node.name} in {path} has no __init__ of its own to read")
    raise LookupError(f"{path} has no class {name or f'derived from {base}'}")


def _inherited(path: Path, base: str) -> tuple[Parameter, ...]:
    """The fields of a dataclass of options that another one in `path` derives from."""
    if base in ("", Options.__name__):
        return ()
    here = any(isinstance(n, ast.ClassDef) and n.name == base for n in _tree(path).body)
    return read_class(path if here else _home(path, base), name=base).parameters


@cache
def read_function(path: Path, name: str) -> Signature:
    """The function `name` of the file `path`, with the options that it `takes`, or is `like`.

    Raises:
        LookupError: There is no such function, or the file does not import its options from ours.
    """
    for node in _tree(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            found = _signature(name, ast.get_docstring(node), node.args)
            words = [ast.unparse(d) for d in node.decorator_list]
            kinds = [w[len("takes(") : -1] for w in words if w.startswith("takes(")]
            options = [read_class(_home(path, kind), name=kind) for kind in kinds]
            same = [w[len("like(") : -1] for w in words if w.startswith("like(")]
            options += [read_function(_home(path, other), other) for other in same]
            more = [p for o in options for p in o.parameters if p.name not in found]
            return replace(found, parameters=(*found.parameters, *more))
    raise LookupError(f"{path} has no function {name}")


def _home(path: Path, name: str) -> Path:
    """The file of ours from which `path` imports `name`."""
    for node in _tree(path).body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            rooms = (node.module or "").split(".")[1:]
            return Path(__file__).parent.joinpath(*rooms).with_suffix(".py")
    raise LookupError(f"{path} does not import {name}")


@cache
def read_object(kind: type) -> Signature:
    """The class `kind` as `read_class` reads it, from the class itself, wherever it was made."""
    args = list(inspect.signature(kind.__init__).parameters.values())[1:]
    documentation = inspect.cleandoc(kind.__doc__ or "").split("\n")
    docs, others = _arguments(documentation), _arguments(documentation, OTHERS)
    parameters = [
        _parameter(
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


def read_call(path: Path, name: str, attribute: str) -> dict[str, Any]:
    """The plain arguments of what the body of the class `name` calls for an attribute, by name."""
    for node in _tree(path).body:
        for n in node.body if isinstance(node, ast.ClassDef) and node.name == name else ():
            targets = n.targets if isinstance(n, ast.Assign) else [getattr(n, "target", None)]
            value = getattr(n, "value", None)
            if isinstance(value, ast.Call) and any(
                t and ast.unparse(t) == attribute for t in targets
            ):
                given = ((k.arg, k.value) for k in value.keywords)
                plain = (ast.Constant, ast.Tuple)
                return {k: ast.literal_eval(v) for k, v in given if k and isinstance(v, plain)}
    return {}


def _known(kind: Any) -> Any:
    """A type, or None where it is none that text can give."""
    items = get_args(kind)
    if get_origin(kind) is Annotated:
        return kind if _known(items[0]) else None
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
        _parameter(
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


def _parameter(
    name: str, kind: Any, required: bool, default: Any, doc: str, main: bool
) -> Parameter:
    bounded = kind if any(_roles(kind)) else None
    return Parameter(name, _plain(kind), required, default, doc, main, bounded)


class _Unqualified(ast.NodeTransformer):
    """`roles.Share` as `Share`."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return ast.Name(node.attr)


def _type(node: ast.expr | None) -> Any:
    if node is None:
        return None
    text = ast.unparse(_Unqualified().visit(deepcopy(node)))
    try:  # our own annotations, in a namespace that holds plain types and roles alone
        return eval(text, {"__builtins__": {}}, _TYPES)
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
