"""Roles: bounds that the command line, YAML and constructors keep, by what a number is for."""

import copy
import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, get_args, get_origin

import pytest

from selftaught import methods, roles
from selftaught.backbones import Image, backbone
from selftaught.cli import request
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.methods import DINO, SimCLR
from selftaught.roles import Role
from selftaught.signature import Parameter, read_class, read_object, values_by_role
from tests.cases import CASES

KNOWN = {name: kind for name, kind in vars(roles).items() if get_origin(kind) is Annotated}

ANY_NUMBER = {
    ("pixpro", "clamp"): "a floor of similarities, which go from -1 to 1; lower ones floor nothing",
    ("stego", "shifts"): "taken from similarities: above 0 to repel, below to attract",
    ("Settings", "value_range"): "levels of the data, whatever its unit",
    ("Settings", "nodata"): "a level of the data, whatever its unit",
    ("Image", "mean"): "images may be normalized about any value",
}
"""Numbers without a role, and why."""


def signatures() -> dict[str, Any]:
    engine = Path(inspect.getfile(Settings))
    found = {name: methods.signature(name) for name in methods.files()}
    return found | {"Settings": read_class(engine, name="Settings"), "Image": read_object(Image)}


def outside(role: Role) -> list[float]:
    """A number beyond each bound of a role, and the bounds themselves that are out."""
    found = [bound for bound in (role.above, role.below) if bound is not None]
    found += [role.least - 1] if role.least is not None else []
    return found + ([role.most + 1] if role.most is not None else [])


BOUNDED = [
    (name, parameter, role, number)
    for name, signature in signatures().items()
    for parameter in signature.parameters
    for role in parameter.roles
    for number in outside(role)
]


def spoiled(parameter: Parameter, number: float) -> Any:
    """A value of the parameter's kind, of which one number is `number`."""
    kinds = (parameter.type, *get_args(parameter.type))
    tuples = [kind for kind in kinds if get_origin(kind) is tuple]
    if not tuples:
        return number
    items = get_args(tuples[0])
    inside = parameter.default if isinstance(parameter.default, tuple) else ()
    count = 1 if items[-1] is Ellipsis else len(items)
    return (*inside[: count - 1], *([number] * (count - len(inside[: count - 1]))))


def test_every_number_has_a_role_or_a_reason_for_none():
    bare = {
        (name, p.name)
        for name, signature in signatures().items()
        for p in signature.parameters
        if ("int" in str(p.type) or "float" in str(p.type)) and not p.roles
    }
    assert bare == ANY_NUMBER.keys()


@pytest.mark.parametrize(
    ("name", "parameter", "role", "number"), BOUNDED, ids=lambda x: getattr(x, "name", str(x))
)
def test_what_is_out_of_bounds_is_refused_alike(name, parameter, role, number):
    value = spoiled(parameter, number)
    words = str(role)
    assert words
    if name == "Settings":
        with pytest.raises(UserError, match=f"{parameter.name} must be .*{words}"):
            Settings(**{parameter.name: value})
    elif name == "Image":
        with pytest.raises(UserError, match=f"{parameter.name} must be .*{words}"):
            Image("test_resnet", **{parameter.name: value})
    else:  # refused before anything is made
        with pytest.raises(UserError, match=f"{parameter.name} must be .*{words}") as error:
            methods.find(name)(SimpleNamespace(dim=8), **{parameter.name: value})
        assert f"got {value}" in str(error.value)
    if parameter.from_data:
        return
    flag = "--" + ("backbone" if parameter.name == "name" else parameter.name).replace("_", "-")
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    method = name if name in methods.files() else "simclr"
    with pytest.raises(UserError, match=f"{flag} must be .*{words}, got {text}"):
        request([method, "photos/", f"{flag}={text}"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ibot", "--patch-temp", "0,0"], "--patch-temp must be above 0, got 0,0"),
        (["ibot", "--patch-temp", "0.04,-1"], "--patch-temp must be above 0, got 0.04,-1"),
        (["swav", "--epsilon", "0"], "--epsilon must be above 0, got 0"),
        (["dcl", "--sigma", "0"], "--sigma must be above 0, got 0"),
        (["dino", "--blur", "1,0.1,2"], "--blur must be from 0 to 1, got 1,0.1,2"),
        (["simclr", "--drop-path", "1"], "--drop-path must be at least 0 and below 1, got 1"),
    ],
)
def test_values_that_were_accepted_once(words, message):
    with pytest.raises(UserError, match=message):
        request([words[0], "photos/", *words[1:]])


def test_constructors_refuse_by_place_and_by_name_and_take_what_is_right():
    net = backbone("test_resnet", size=32)
    for wrong in ((-1,), (0.0,)):
        with pytest.raises(UserError, match=f"temperature must be above 0, got {wrong[0]}"):
            SimCLR(net, *wrong)
    with pytest.raises(UserError, match=r"hidden must be a whole number, got 8\.5"):
        SimCLR(net, hidden=8.5)
    with pytest.raises(TypeError, match="unexpected keyword argument 'temperatur'"):
        SimCLR(net, temperatur=0.1)  # type: ignore[unexpected-keyword]
    assert SimCLR(net, 0.2, hidden=8, dim=4).temperature == 0.2
    assert list(inspect.signature(SimCLR).parameters)[:2] == ["backbone", "temperature"]


def test_none_is_taken_where_the_type_says_so_and_only_there():
    parameters = {p.name: p for p in methods.signature("moco_v3").parameters}
    assert parameters["temperature"].parse("none") is None
    with pytest.raises(UserError, match="momentum must be a number"):
        parameters["momentum"].parse("none")


def test_values_are_found_by_role_whatever_they_are_called():
    found = values_by_role(CASES["dino"].make("dino"))
    assert found["temperature"] == [0.1, 0.04, 0.04]
    assert found["momentum"] == [0.996, 1.0]
    assert found["prototypes"] == [24]
    assert values_by_role(CASES["pcl"].make("pcl"))["prototypes"] == [4, 6]
    assert "hidden share" not in values_by_role(CASES["pixpro"].make("pixpro"))
    assert values_by_role(CASES["mae"].make("mae"))["hidden share"] == [0.75]


def test_a_role_of_ones_own_is_written_in_place(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from selftaught import roles\n"
        "class Mine(Method):\n"
        '    """Mine."""\n'
        "    def __init__(self, backbone, heat: roles.Temperature = 1.0, "
        'odd: Annotated[int, Role("odd", least=3)] = 3): ...\n',
        encoding="utf-8",
    )
    signature = read_class(path, base="Method")
    assert [(p.type, p.bounds) for p in signature.parameters[1:]] == [
        (float, "above 0"),
        (int, "at least 3"),
    ]
    with pytest.raises(UserError, match="odd must be at least 3, got 2"):
        signature["odd"].parse("2")


def test_bounds_in_words():
    said = {name: str(get_args(kind)[1]) for name, kind in KNOWN.items()}
    assert said["Temperature"] == "above 0"
    assert said["Momentum"] == "from 0 to 1"
    assert said["Fraction"] == "above 0 and at most 1"
    assert said["PartialShare"] == "at least 0 and below 1"
    assert said["Count"] == "at least 1"
    assert len({get_args(kind)[1].name for kind in KNOWN.values()}) == len(KNOWN)
    assert str(Role("free")) == ""
    assert not replace(Role("free"), most=1).allows(float("nan"))


def test_help_tells_bounds(capsys):
    with pytest.raises(SystemExit):
        request(["swav", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "number of clusters; at least 1 (default: 3000)" in text


def test_roles_import_no_torch():
    code = "import sys; import selftaught.roles; assert not {'torch', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_instance_is_copied_and_pickled_without_a_check():
    method = CASES["dino"].make("dino")
    assert isinstance(copy.deepcopy(method), DINO)
