"""An optimizer of the user's own: what it is given, what is kept of it, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from selftaught import cli, config, pretrain
from selftaught.engine import optim, own_optimizer
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.export.conversion import convert
from tests.photos import two_classes
from tests.test_door import FAST, SMALL
from tests.test_engine import curve, make

pytestmark = pytest.mark.xdist_group("own optimizer")  # one run for all

RUN: dict[str, Any] = {**SMALL, **FAST, "epochs": 2, "evaluate": False, "curve": False}


def radam(groups):
    return torch.optim.RAdam(groups, lr=2e-3, weight_decay=0.1, betas=(0.8, 0.9))


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    place = tmp_path_factory.mktemp("own")
    two_classes(place / "photos")
    patch = pytest.MonkeyPatch()
    patch.chdir(place)
    run = pretrain("simclr", "photos", "first", optimizer=radam, save_every=0, **RUN)
    yield run
    patch.undo()


def test_it_has_the_rate_and_the_decay_that_it_was_made_with(here):
    recipe = here.plan.recipe
    assert (here.plan.rates.peak, recipe.weight_decay, recipe.warmup) == (2e-3, 0.1, 0.1)
    rates = [float(row["lr"]) for row in curve(here.folder)]
    assert max(rates) == pytest.approx(2e-3, rel=0.1)
    assert rates[-1] < max(rates)  # the schedule is the paper's
    noted = yaml.safe_load((here.folder / "run.yaml").read_text())["training"]["optimizer"]
    assert noted.startswith("<RAdam(lr=0.002, betas=(0.8, 0.9), eps=1e-08, weight_decay=0.1")
    convert(here.folder, to="safetensors", out=here.folder / "deployed")
    card = (here.folder / "deployed" / "README.md").read_text()
    assert "&lt;RAdam(lr=0.002" in card  # a page would take it for a tag


def test_its_groups_are_those_of_our_own(here):
    method = make("simclr")
    recipe = method.recipe
    found = own_optimizer.changes(torch.optim.RAdam, method, recipe, Settings(lr=0.5))
    assert "lr" not in found
    assert found["weight_decay"] == 0.0
    made, ours = found["optimizer"](optim.groups(method, recipe)), optim.build(method, recipe)
    for mine, theirs in zip(made.param_groups, ours.param_groups, strict=True):
        assert [id(p) for p in mine["params"]] == [id(p) for p in theirs["params"]]
        assert mine["decayed"] == theirs["decayed"]
    assert {g["decayed"] for g in made.param_groups} == {True, False}
    kept = own_optimizer.changes(radam, method, recipe, Settings(weight_decay=0.3))
    assert "weight_decay" not in kept


def test_a_file_does_not_repeat_it(here, capsys):
    assert cli.main(["pretrain", "--config", "first/run.yaml", "--out", "b"]) == 2
    told = capsys.readouterr().err
    assert "RAdam(lr=0.002" in told
    assert "was made in Python" in told
    assert not Path("b").exists()
    content = config.load("first/run.yaml")  # but it can be read, and named anew
    assert config.validate(content, "first/run.yaml")["training"]["epochs"] == 2


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda g: 3, "returns a torch.optim.Optimizer, got a int"),
        (lambda g: torch.optim.SGD(g[0]["params"]), "must be made of the groups"),
        (lambda g: torch.optim.SGD([p for x in g for p in x["params"]]), "must be made of the gr"),
        (lambda g: 1 / 0, r"given as optimizer fails \(ZeroDivisionError: division by zero\)"),
        (lambda: None, r"given as optimizer fails \(TypeError: .*0 positional arguments"),
        (5, r"must be a name or a function of groups .*got an object \(int\)"),
        (torch.optim.SGD([torch.zeros(1)], lr=0.1), r"of groups .*got an object \(SGD\)$"),
        ("radam", "optimizer must be one of"),
    ],
)
def test_what_is_no_optimizer_is_refused(made, says, here):
    with pytest.raises(UserError, match=says):
        pretrain("simclr", "photos", "c", optimizer=made, **RUN)
    assert not Path("c").exists()


def test_a_run_goes_on_with_it_and_not_without(here):
    longer: dict[str, Any] = RUN | {"epochs": 3, "resume": True}
    for other in (None, lambda g: torch.optim.RAdam(g, lr=2e-3)):
        with pytest.raises(UserError, match=r"training\.optimizer: <RAdam"):
            pretrain("simclr", "photos", here.folder, optimizer=other, **longer)
    pretrain("simclr", "photos", here.folder, optimizer=radam, **longer)
    assert len(curve(here.folder)) == 6
