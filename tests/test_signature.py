"""Signatures read from source: names, types, defaults, documentation, and what text becomes."""

import inspect
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftaught import evaluate, pretrain
from selftaught.classifier.settings import Classifying
from selftaught.engine import score
from selftaught.errors import UserError
from selftaught.evaluate import comparing
from selftaught.evaluate.settings import Encoding, Reading, Scoring
from selftaught.feed.check import check
from selftaught.signature import (
    Parameter,
    closest,
    describe,
    module_doc,
    read_class,
    read_function,
)

SOURCE = '''"""A file.

More.
"""

import torch
from somewhere import Base, Image, other


class Helper:
    """Not it."""

    def __init__(self, nothing): ...


class Thing(other.Base):
    """Do the thing.

    It is a thing, with: colons.

    Args:
        backbone: image encoder.
        width, depth: of the net, in units;
            a second line: with a colon.

            A second paragraph.
        rates: of two parts.
        kind: which.

    Other Args:
        where, out: of files.

    Raises:
        UserError: not a parameter.
    """

    def __init__(
        self,
        backbone: Image,
        width: int = 8,
        depth: int = -1,
        rates: tuple[float, float] | float = (0.1, 0.2),
        *,
        kind: Literal["a", "b"] = "a",
        where: Path | None = None,
        out: Path = Path("runs"),
        loader: Image | None = None,
        bare=3,
    ): ...


class Empty(Base):
    """No constructor."""


@takes(Absent)
def strange(**options): ...


class Odd:
    def __init__(self, width: int = other.WIDTH): ...


def run(data: str, /, epochs: int = 3) -> None:
    """Run it.

    Args:
        data: what to read.
        epochs: how long.
    """
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "thing.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def parameter(kind: Any) -> Parameter:
    return Parameter("width", kind, False, None, "")


def test_class_by_base_and_by_name_without_importing_it(file):
    signature = read_class(file, base="Base")
    assert signature == read_class(file, name="Thing")
    assert (signature.name, signature.summary) == ("Thing", "Do the thing.")
    names = ["backbone", "width", "depth", "rates", "kind", "where", "out", "loader", "bare"]
    assert [p.name for p in signature.parameters] == names
    assert "width" in signature
    assert "height" not in signature
    assert [p.name for p in signature.parameters if p.required] == ["backbone"]


def test_types_and_defaults(file):
    signature = read_class(file, base="Base")
    types = {p.name: p.type for p in signature.parameters}
    assert types == {
        "backbone": None,
        "width": int,
        "depth": int,
        "rates": tuple[float, float] | float,
        "kind": Literal["a", "b"],
        "where": Path | None,
        "out": Path,
        "loader": None,
        "bare": None,
    }
    defaults = {p.name: p.default for p in signature.parameters}
    assert defaults["depth"] == -1
    assert defaults["rates"] == (0.1, 0.2)
    assert defaults["out"] == Path("runs")
    assert defaults["where"] is None


def test_documentation(file):
    docs = {p.name: p.doc for p in read_class(file, base="Base").parameters}
    assert docs["backbone"] == "image encoder."
    both = "of the net, in units; a second line: with a colon. A second paragraph."
    assert docs["width"] == docs["depth"] == both
    assert docs["kind"] == "which."
    assert docs["where"] == docs["out"] == "of files."
    assert docs["bare"] == ""
    assert module_doc(file) == "A file."


def test_what_is_rarely_needed_is_said_where_it_is_documented(file):
    rare = {p.name for p in read_class(file, base="Base").parameters if not p.main}
    assert rare == {"where", "out"}
    assert all(p.main for p in read_function(file, "run").parameters)


def test_functions(file):
    signature = read_function(file, "run")
    assert [(p.name, p.type, p.required) for p in signature.parameters] == [
        ("data", str, True),
        ("epochs", int, False),
    ]
    assert signature["epochs"].doc == "how long."


def test_what_is_not_there(file):
    with pytest.raises(LookupError, match="no class Absent"):
        read_class(file, name="Absent")
    with pytest.raises(LookupError, match="derived from Method"):
        read_class(file, base="Method")
    with pytest.raises(LookupError, match=r"Empty .* has no __init__"):
        read_class(file, name="Empty")
    with pytest.raises(LookupError, match=r"default other\.WIDTH is not written as a value"):
        read_class(file, name="Odd")
    with pytest.raises(LookupError, match="no function stop"):
        read_function(file, "stop")
    with pytest.raises(LookupError, match="does not import Absent"):
        read_function(file, "strange")
    with pytest.raises(UserError, match="Thing has no parameter 'widht': did you mean width"):
        read_class(file, base="Base")["widht"]


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "1_000", 1000),
        (int, 3, 3),
        (int, "-3", -3),
        (float, 3, 3.0),
        (float, "1e-3", 1e-3),
        (bool, "No", False),
        (bool, "on", True),
        (bool, True, True),
        (str, "50", "50"),
        (str, 50, "50"),
        (Path, "a/b", Path("a/b")),
        (Path, 2024, Path("2024")),
        (Path, Path("a"), Path("a")),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 2], "2", 2),
        (Literal[True, "auto"], "auto", "auto"),
        (tuple[float, float], "0.1,1", (0.1, 1.0)),
        (tuple[float, float], "(0.1, 1)", (0.1, 1.0)),
        (tuple[float, float], [0.1, 1], (0.1, 1.0)),
        (tuple[int, str], "1,x", (1, "x")),
        (tuple[int, ...], "[1, 2, 3]", (1, 2, 3)),
        (tuple[int, ...], "5", (5,)),
        (tuple[int, ...], "(5,)", (5,)),
        (tuple[int, ...], "", ()),
        (tuple[int, ...], "()", ()),
        (tuple[int, ...], [], ()),
        (int | None, "none", None),
        (int | None, None, None),
        (int | None, "7", 7),
        (str | None, "None", None),
        (str | None, "nobody", "nobody"),
        (str | int, "7", 7),
        (Literal["none", "both"] | None, "none", "none"),
        (Literal["none", "both"] | None, None, None),
        (Literal["none", "both"] | None, "null", None),
        (Literal["off", "on"] | None, "none", None),
        (float | tuple[float, float], "0.04,0.4", (0.04, 0.4)),
        (float | tuple[float, float], "0.04", 0.04),
        (float | tuple[float, float], [0.04, 0.4], (0.04, 0.4)),
    ],
)
def test_text_and_yaml_become_values(kind, value, expected):
    result = parameter(kind).parse(value)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (int, "1.5", "width must be a whole number, got '1.5'"),
        (int, 1.5, "a whole number"),
        (int, True, "a whole number"),
        (int, None, "a whole number"),
        (int, [1], "a whole number"),
        (float, "wide", "width must be a number, got 'wide'"),
        (float, "nan", "a number"),
        (float, float("inf"), "a number"),
        (float, 10**400, "a number"),
        (float, True, "a number"),
        (float, {}, "a number"),
        (bool, "maybe", "true or false"),
        (bool, 1, "true or false"),
        (str, None, "text"),
        (str, ["a"], "text"),
        (Path, None, "a path"),
        (int, Path("3"), "a whole number"),
        (Literal["adamw", "sgd"], "adam", "one of adamw, sgd, got 'adam': did you mean adamw"),
        (Literal[1, 2], True, "one of 1, 2"),
        (tuple[float, float], "1", "2 values as A,B, each a number, got '1'"),
        (tuple[float, float], "1,2,3", "2 values as A,B"),
        (tuple[float, float], 1, "2 values as A,B"),
        (tuple[int, str], "x,1", "2 values as A,B: A a whole number, B text"),
        (tuple[int, ...], "1,,2", "a comma-separated list, each a whole number"),
        (int | None, "x", "a whole number or none"),
        (Literal["none", "a"] | None, "x", "width must be one of none, a, got 'x'"),
        (Literal["a"] | None, "x", "width must be one of a or none, got 'x'"),
        (None, "x", "width can be given in Python alone, not as 'x'"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(kind, value, message):
    with pytest.raises(UserError) as error:
        parameter(kind).parse(value)
    assert message in str(error.value)


KINDS = [int, float, bool, str, Path, Literal["a", "b"], int | None, float | None, str | None]
KINDS += [tuple[float, float], tuple[int, ...], float | tuple[float, float]]


@given(
    st.sampled_from(KINDS),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=4,
    ),
)
def test_anything_becomes_a_value_that_stays_or_an_error(kind, value):
    try:
        result = parameter(kind).parse(value)
    except UserError:
        return
    assert parameter(kind).parse(result) == result
    assert describe(kind)


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans()))
def test_what_was_written_reads_back(value):
    kind = type(value)
    assert parameter(kind).parse(str(value)) == value
    assert parameter(tuple[kind, ...]).parse(str((value, value))) == (value, value)


def test_closest():
    assert closest("simlcr", ["simclr", "byol"]) == ": did you mean simclr?"
    assert closest("xyz", ["simclr", "byol"]) == "; known: byol, simclr"


def test_reading_methods_imports_no_torch():
    code = (
        "import sys; from selftaught import methods\n"
        "assert all(methods.signature(n).parameters for n in methods.files())\n"
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_method_is_refused_with_the_nearest():
    from selftaught import methods

    with pytest.raises(UserError, match="no method is called 'simlcr': did you mean simclr"):
        methods.signature("simlcr")


# options of functions --------------------------------------------------------------------------


def test_what_a_function_takes_is_read_from_its_dataclass():
    own = ["encoder", "data"]
    fields = [p.name for p in read_class(Path(inspect.getfile(Scoring)), name="Scoring").parameters]
    found = read_function(Path(inspect.getfile(score)), "evaluate_command")
    assert [p.name for p in found.parameters] == own + fields
    assert (found["k"].default, found["k"].bounds, found["k"].main) == (20, "at least 1", True)
    assert not found["seed"].main
    compare = read_function(Path(inspect.getfile(comparing)), "compare")
    assert [p.name for p in compare.parameters].count("test") == 1


@pytest.mark.parametrize(
    ("function", "first", "last"),
    [
        (
            evaluate.compare,
            ["encoder", "train", "test", "strict", "progress", "start"],
            "read_timeout",
        ),
        (score.evaluate_command, ["encoder", "data", "probes", "test"], "read_timeout"),
        (check, ["data", "out", "full", "workers"], "progress"),
        (pretrain, ["method", "data", "out", "epochs"], "options"),
    ],
)
def test_help_shows_the_options_of_a_function(function, first, last):
    names = list(inspect.signature(function).parameters)
    assert names[: len(first)] == first
    assert names[-1] == last


def test_options_are_of_their_types_whoever_gives_them():
    asked = Scoring(probes=["knn"], ignore=[0, 255], k="5", out="s.json", test=(photo := object()))
    assert (asked.probes, asked.ignore, asked.k) == (("knn",), (0, 255), 5)
    assert (asked.out, asked.test) == (Path("s.json"), photo)
    for wrong, words in (
        ({"k": 0}, "k must be at least 1, got 0"),
        ({"shares": (0.5, 2.0)}, "shares must be above 0 and at most 1"),
        ({"seed": True}, "seed must be a whole number"),
        ({"probes": ("knn", "ridges")}, "probes must be .*one of knn, ridge"),
    ):
        with pytest.raises(UserError, match=words):
            Scoring(**wrong)
    with pytest.raises(TypeError, match="neighbours"):
        Scoring(neighbours=3)  # type: ignore[call-arg]


def test_options_that_derive_from_others_are_read_with_theirs():
    file = Path(inspect.getfile(Parameter)).parent
    for options, room in ((Classifying, "classifier"), (Encoding, "evaluate")):
        found = read_class(file / room / "settings.py", name=options.__name__)
        names = {f.name for f in fields(options)}
        assert {p.name for p in found.parameters} == names
        assert names > {f.name for f in fields(Reading)}
        assert all(p.doc for p in found.parameters)
    command = read_function(file / "classifier" / "graph.py", "export_command")
    assert [p.name for p in command.parameters][:2] == ["run", "to"]
    assert "classifier" in command["run"].doc
