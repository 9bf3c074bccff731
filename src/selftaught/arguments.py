"""From parameters that were read from source to a command line's options, help and errors.

argparse, because it is there at once: jsonargparse takes 0.6 s to import, which every `--help` and
every typo would wait for.
"""

import argparse
import re
import shutil
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, NoReturn, Union, get_args, get_origin

from selftaught.config import convert, near
from selftaught.errors import UserError
from selftaught.nouns import worded
from selftaught.signature import FORMER, Parameter

LISTED = 60
"""Letters up to which choices stand beside their option."""


class Positional(NamedTuple):
    """An argument that is given by its place; `many`: the last may be given several times."""

    name: str
    doc: str
    many: bool = False


class Option(NamedTuple):
    """A parameter as an option.

    parameter: what it sets. section: where its value belongs. word: what it is called after the
    dashes. default: in words, where it is not the parameter's own.
    """

    parameter: Parameter
    section: str
    word: str
    default: str | None = None

    @property
    def flag(self) -> str:
        return "--" + self.word.replace("_", "-")

    @property
    def help(self) -> str:
        shown = self.default or _shown(self.parameter.default)
        text = self.parameter.doc.rstrip(".")
        if self.parameter.bounds and self.parameter.bounds not in text:
            text += f"; {self.parameter.bounds}"
        kind = self.parameter.type
        if get_origin(kind) is Literal and _metavar(kind) == "NAME":  # which has no room for them
            text += f": {', '.join(map(str, get_args(kind)))}"
        return (f"{text} (default: {shown})" if shown else text).replace("%", "%%")


class Group(NamedTuple):
    """Options under one heading of the help, `about` before them."""

    title: str
    options: list[Option]
    about: str = ""


def options(parameters: Iterable[Parameter], section: str = "") -> list[Option]:
    """Each parameter as an option of its own name, less the `_` that Python's own words need."""
    return [Option(p, section, p.name.rstrip("_")) for p in parameters]


class Parser(argparse.ArgumentParser):
    """A command's parser. Nothing is required here, so that a typo is told before an absence.

    Args:
        command: what the user types before the arguments.
        about: what it does.
        positionals: arguments by place.
        groups: options.
        examples: commands that the help ends with.
        notes: what the help says before the examples.
    """

    def __init__(
        self,
        command: str,
        about: str,
        positionals: Sequence[Positional] = (),
        groups: Sequence[Group] = (),
        examples: Sequence[str] = (),
        notes: str = "",
    ):
        words = (f"{p.name.upper()} ..." if p.many else p.name.upper() for p in positionals)
        usage = " ".join([command, *words, "[options]"])
        shown = ["examples:", *map(_example, examples)] if examples else []
        super().__init__(
            prog=command,
            usage=usage.replace("%", "%%"),
            description=wrap(about).replace("%", "%%"),
            epilog="\n".join([notes, *shown]).strip("\n").replace("%", "%%"),
            allow_abbrev=False,
            add_help=False,
        )
        self.options = [o for group in groups for o in group.options]
        self.rare = {_key(o) for o in self.options if not o.parameter.main}
        self.names = [p.name for p in positionals]
        arguments = self.add_argument_group("arguments")
        for p in positionals:
            arguments.add_argument(
                p.name,
                nargs="*" if p.many else "?",
                metavar=p.name.upper(),
                help=p.doc.replace("%", "%%"),
            )
        for group in groups:
            before = wrap(group.about, "  ", "  ") if group.about else None
            target = self.add_argument_group(group.title, before)
            for o in group.options:
                more: dict[str, Any] = {"action": argparse.BooleanOptionalAction}
                if o.parameter.type is not bool:
                    more = {"metavar": _metavar(o.parameter.type)}
                if _of_files(o.parameter.type):
                    more = {"metavar": "PATH", "nargs": "+", "action": "extend"}
                target.add_argument(
                    o.flag, dest=_key(o), default=argparse.SUPPRESS, help=o.help, **more
                )
        others = self.add_argument_group("other options")
        others.add_argument("-h", "--help", action="help", help="show this help")
        everything = "show every option" if self.rare else "the same"
        others.add_argument("--help-all", action=_HelpAll, nargs=0, help=everything)
        others.add_argument("--debug", action="store_true", help="show where an error comes from")

    def format_help(self, everything: bool = False) -> str:
        """The help; `everything` for options that are rarely needed, too."""
        hidden = set() if everything else self.rare
        self.formatter_class = partial(_Formatter, hidden=hidden)
        count = f"{len(hidden)} more option{'s' * (len(hidden) > 1)}"
        more = f"\n{count}: {self.prog} --help-all\n" if hidden else ""
        return worded(super().format_help()) + more

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message.removeprefix('argument ')}")

    def read(self, argv: Sequence[str]) -> tuple[list[Any], dict[str, dict[str, Any]]]:
        """The values by place, and those of options that were given, by section.

        Raises:
            UserError: an unknown option, a value of another type, an argument too many.
        """
        found, extra = self.parse_known_intermixed_args(self._listed(self._current(_spelled(argv))))
        for word in extra:
            if word.startswith("-"):
                word = word.partition("=")[0]
                flags = [o.flag for o in self.options]
                flags += ["--no-" + o.word for o in self.options if o.parameter.type is bool]
                flags += ["--help", "--help-all"]
                hint = near(word, flags, f"; see {self.prog} --help")
                raise UserError(f"{self.prog} has no option {word}{hint}")
        if extra:
            listed = [str(c) for o in self.options for c in _choices(o.parameter.type)]
            raise UserError(
                f"{self.prog} takes {' '.join(n.upper() for n in self.names) or 'options alone'}, "
                f"got {extra[0]!r} besides{near(extra[0], listed)}"
            )
        given = vars(found)
        sections: dict[str, dict[str, Any]] = defaultdict(dict)
        for o in self.options:
            if _key(o) in given:
                value = convert(o.parameter, given[_key(o)], o.flag)
                sections[o.section][o.parameter.name] = value
        return [given[name] for name in self.names], sections

    def _current(self, words: list[str]) -> list[str]:
        """Options by the names that they have now, where they are given by former ones."""
        flags, found = {o.flag for o in self.options}, []
        for word in words:
            flag, equals, value = word.partition("=")
            start = next(s for s in ("--no-", "--", "") if flag.startswith(s))
            name = flag.removeprefix(start)
            now = FORMER.get(name)
            known = not start or flag in flags or f"--{now}" not in flags
            found.append(word if known else f"{start}{now}{equals}{value}")
        return found

    def _listed(self, words: list[str]) -> list[str]:
        """`--probes knn linear` as `--probes knn,linear`: a list ends where another word begins."""
        items = {o.flag: _items(o.parameter.type) for o in self.options}
        joined: list[str] = []
        item = None
        for word in words:
            if item and all(map(item, word.split(","))) and not joined[-1].startswith("--"):
                joined[-1] += "," + word
                continue
            if word.startswith("-"):
                item = items.get(word)
            elif not (item and joined[-1].startswith("--")):
                item = None
            joined.append(word)
        return joined


def _of_files(kind: Any) -> bool:
    """Whether it is a list of files: words of their own, as a shell lists them, commas and all."""
    return get_origin(kind) is tuple and get_args(kind) == (Path, ...)


def _items(kind: Any) -> Callable[[str], Any] | None:
    """Whether a word is an item of a list of any length, of words of ours or of numbers."""
    if choices := set(map(str, _choices(kind))):
        return choices.__contains__
    if get_origin(kind) is tuple and get_args(kind) in ((int, ...), (float, ...)):
        return re.compile(r"[-+.\d]+(e[-+]?\d+)?").fullmatch
    return None


def _choices(kind: Any) -> tuple[Any, ...]:
    """What the items of a list of any length may be, where they are words of ours."""
    items = get_args(kind)
    if get_origin(kind) is tuple and items[-1] is Ellipsis and get_origin(items[0]) is Literal:
        return get_args(items[0])
    return ()


def wrap(text: str, first: str = "", rest: str = "") -> str:
    """Each line of `text` broken at the width of the terminal."""
    width = shutil.get_terminal_size().columns - 2
    return "\n".join(
        textwrap.fill(
            line, width, initial_indent=first, subsequent_indent=rest, break_long_words=False
        )
        for line in text.split("\n")
    )


def _example(command: str) -> str:
    """A command on lines of the terminal's width that a shell takes for one."""
    width = shutil.get_terminal_size().columns - 4
    whole = re.sub(" (?!--)", "\xa0", command)  # an option and its value stay together
    parts = textwrap.wrap(
        whole, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
    return "  " + " \\\n  ".join(parts).replace("\xa0", " ")


class _HelpAll(argparse.Action):
    """`--help-all`: print all there is, and end."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        assert isinstance(parser, Parser)
        sys.stdout.write(parser.format_help(everything=True))
        raise SystemExit(0)


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Metavars in their own column, texts aligned, as wide as the terminal.

    hidden: keys of options that are left out.
    """

    def __init__(self, prog: str, hidden: Collection[str] = ()):
        super().__init__(prog, max_help_position=32)
        self.hidden = hidden

    def add_argument(self, action: argparse.Action) -> None:
        if action.dest not in self.hidden:
            super().add_argument(action)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if isinstance(action, argparse.BooleanOptionalAction):
            return f"--[no-]{action.option_strings[0].removeprefix('--')}"
        return super()._format_action_invocation(action)


def _shown(value: Any) -> str:
    """A default as one would type it; nothing for None, which the documentation tells of."""
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ",".join(map(_shown, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _key(option: Option) -> str:
    return f"{option.section}.{option.parameter.name}"


def _spelled(argv: Iterable[str]) -> list[str]:
    """Both `--weight_decay` and `--weight-decay` are right, and so is `--value-range -1,1`."""
    words: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name.startswith("--"):
            words.append(name.replace("_", "-") + equals + value)
        elif words and re.fullmatch(r"--[^=]+", words[-1]) and re.match(r"-\.?\d", word):
            words[-1] += "=" + word  # a negative value that argparse would take for an option
        else:
            words.append(word)
    return words


def _metavar(kind: Any) -> str:
    items = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return "|".join(_metavar(item) for item in items if item is not NoneType)
    if get_origin(kind) is Literal:
        listed = "{" + ",".join(str(item) for item in items) + "}"
        return listed if len(listed) <= LISTED else "NAME"
    if _choices(kind):
        return "A B ..."
    if get_origin(kind) is tuple:
        return "A,B,..." if items[-1] is Ellipsis else ",".join("ABCDEFGH"[: len(items)])
    return {int: "N", float: "X", str: "TEXT", Path: "PATH"}[kind]
