"""The way in from Python and from elsewhere: what repeats, what is refused, what an editor sees."""

import inspect
import linecache
import os
import re
import runpy
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import selftaught
from selftaught import backbone, cli, config, methods, pretrain
from selftaught.engine import session
from selftaught.engine.settings import Settings
from selftaught.errors import UserError
from selftaught.methods import MAE, SimCLR
from selftaught.signature import read_object
from tests.test_engine import curve

ROOT = Path(__file__).parent.parent
FAST: dict[str, Any] = {"epochs": 1, "batch": 8, "workers": 0, "log_every": 1, "precision": "fp32"}
WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in FAST.items()]
SMALL: dict[str, Any] = {"backbone": "test_resnet", "size": 32, "hidden": 16, "dim": 8}

ECHO = '''"""A method that lives outside of the library."""

from torch import Tensor

from selftaught import augment
from selftaught.method import Needs, Batch, Method, Pipeline, Recipe
from selftaught.objectives.contrastive import nt_xent
from selftaught.parts import mlp

SCALE = 2.0


class Echo(Method):
    """Contrast, in small.

    Args:
        dim: width of the embedding.
        heat: of the softmax.
    """

    recipe = Recipe("adamw", lr=1e-3)
    needs = Needs(backbone="test_resnet")

    def __init__(self, backbone, dim: int = 16, heat: float = 0.5):
        super().__init__()
        self.backbone, self.dim, self.heat = backbone, dim, heat
        self.head = mlp(backbone.dim, 32, dim)

    def views(self, size: int) -> Pipeline:
        return augment.simclr(size)

    def loss(self, batch: Batch) -> Tensor:
        one, two = (self.head(self.backbone(view)) for view in batch.views)
        return SCALE * nt_xent(one, two, self.heat)
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with 24 photos of two classes, and what was imported forgotten."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(path)
    return tmp_path


def losses(run: str | Path) -> list[str]:
    return [row["loss"] for row in curve(Path(run))]


def command(*words: str, code: int = 0) -> str:
    """What a process of its own prints for a command."""
    done = subprocess.run(
        [sys.executable, "-m", "selftaught", *words], capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "source code not available" not in done.stderr
    return done.stdout + done.stderr


def used(run: str) -> None:
    """Scored, reported, exported and loaded, for which no method is needed."""
    assert cli.main(["evaluate", run, "photos", "--workers", "0"]) == 0
    assert cli.main(["report", run]) == 0
    assert cli.main(["export", run, "--to", "safetensors"]) == 0
    assert selftaught.load(run).name == "test_resnet"


# what repeats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SimCLR, "simclr"])
def test_a_class_is_built_after_the_seed_and_so_repeats(method, here):
    first = pretrain(method, "photos", "a", seed=3, **SMALL, **FAST, evaluate=False)
    pretrain(method, "photos", "b", seed=3, **SMALL, **FAST, evaluate=False)
    assert losses("a") == losses("b")
    assert cli.main(["pretrain", "--config", "a/run.yaml", "--out", "c"]) == 0
    assert losses("c") == losses("a")
    pretrain(method, "photos", "d", seed=4, **SMALL, **FAST, evaluate=False)
    assert losses("d") != losses("a")
    assert "initial" not in yaml.safe_load(Path("a/run.yaml").read_text())
    assert first.method.dim == 8


def test_an_instance_is_taken_as_it_is_and_its_file_says_so(here, capsys):
    method = SimCLR(backbone("test_resnet", size=32), hidden=16, dim=8)
    before = {name: x.clone() for name, x in method.state_dict().items()}
    # what is loaded by hand is gone on from, with a recipe of its own unless it is the paper's
    pretrain(method, "photos", "a", **FAST, evaluate=False, recipe="paper")
    twin = SimCLR(backbone("test_resnet", size=32), hidden=16, dim=8)
    twin.load_state_dict(before)
    pretrain(twin, "photos", "b", **FAST, evaluate=False, recipe="paper")
    assert losses("a") == losses("b")
    given = [yaml.safe_load(Path(run, "run.yaml").read_text())["initial"] for run in "ab"]
    assert given[0] == given[1]
    assert given[0]["weights"].startswith("sha256 ")
    assert cli.main(["pretrain", "--config", "a/run.yaml", "--out", "c"]) == 2
    assert "began with weights that were made in Python" in capsys.readouterr().err
    # what needs none of these weights goes on from the file all the same, and keeps the record
    words = ["pretrain", "--config", "a/run.yaml", "--out", "a", "--resume", "--epochs", "2"]
    assert cli.main(words) == 0
    assert len(losses("a")) == 6
    assert yaml.safe_load(Path("a/run.yaml").read_text())["initial"] == given[0]
    assert cli.main(["pretrain", "--config", "a/run.yaml", "--out", "d", "--start", "b"]) == 0
    assert "initial" not in yaml.safe_load(Path("d/run.yaml").read_text())


def test_a_method_says_how_its_backbone_is_arranged(here):
    sorted_out = config.sort_out({"pool": "class", "size": 32, "seed": 2}, read_object(MAE))
    assert sorted_out["options"] == {"pool": "class"}
    assert sorted_out["backbone"] == {"size": 32}
    assert sorted_out["training"] == {"seed": 2}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"temprature": 0.1}, r"'temprature': did you mean temperature\?"),
        ({"epoch": 3}, r"'epoch': did you mean epochs\?"),
        ({"bakbone": "resnet18"}, r"'bakbone': did you mean backbone\?"),
        ({"zzzz": 3}, "has a parameter 'zzzz'; SimCLR takes backbone, "),
        ({"temperature": "warm"}, "temperature must be a number, got 'warm'"),
        ({"epochs": 2.5}, "epochs must be a whole number or none, got 2.5"),
        ({"evaluate": "perhaps"}, "evaluate must be true or false"),
        ({"weight_decay": (0.1, 0.2, 0.3)}, "weight_decay must be"),
        ({"optimizer": "adamm"}, r"got 'adamm': did you mean adam\?"),
        ({"max_bad": 1.5}, "max_bad must be from 0 to 1, got 1.5"),
        ({"layer_decay": 0.0}, "layer_decay must be above 0 and at most 1"),
        ({"clip": 0}, "clip must be above 0"),
        ({"weight_decay": (0.1, -1)}, "weight_decay must be at least 0"),
        ({"layer_decay": 0.5}, "rates that decay by layer need a plain ViT"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(given, says, here):
    with pytest.raises(ValueError, match=says) as error:
        pretrain(SimCLR, "photos", "run", **SMALL | FAST | given)
    assert isinstance(error.value, UserError)
    assert not Path("run").exists()


def test_backbones_that_are_objects_are_for_instances(here):
    with pytest.raises(UserError, match=r'backbone="resnet18".*or build the method, SimCLR\('):
        pretrain(SimCLR, "photos", "run", backbone=backbone("test_resnet", size=32))
    built = SimCLR(backbone("test_resnet", size=32), hidden=16, dim=8)
    with pytest.raises(UserError, match="simclr was built already: temperature cannot be changed"):
        pretrain(built, "photos", "run", temperature=0.1)
    with pytest.raises(UserError, match="is no method"):
        pretrain(built.backbone, "photos", "run")  # type: ignore[arg-type]


def test_a_parameter_that_is_called_as_a_setting_is_for_instances(here):
    text = ECHO.replace("heat", "clip")
    Path("clipped.py").write_text(text)
    with pytest.raises(UserError, match="Echo has a parameter called clip, and so has pretrain"):
        pretrain("clipped.py:Echo", "photos", "run", **FAST)
    kind = methods.find("clipped.py:Echo")
    run = pretrain(
        kind(backbone("test_resnet", size=32), clip=0.3), "photos", "run", **FAST, clip=5
    )
    content = yaml.safe_load(Path("run/run.yaml").read_text())
    assert (content["options"]["clip"], content["training"]["clip"]) == (0.3, 5.0)
    assert run.verdict is not None
    assert run.verdict.word == "unclear"


def test_what_un_mix_cannot_mix_is_told_before_anything_is_written(here):
    with pytest.raises(UserError, match="leave out --unmix"):
        pretrain("rotation", "photos", "run", backbone="test_resnet", size=32, unmix=0.5, **FAST)
    assert not Path("run").exists()


def test_weights_that_only_a_part_of_comes_from_a_run_are_recorded(here):
    pretrain(SimCLR, "photos", "a", **SMALL, **FAST, evaluate=False)
    for out in ("b", "c"):
        method: Any = SimCLR(backbone("test_resnet", size=32), hidden=16, dim=8)
        if out == "c":  # whose predictor that run has not
            method = methods.find("byol")(method.backbone, hidden=16, dim=16)
        pretrain(method, "photos", out, start="a", **FAST, evaluate=False)
    assert "initial" not in yaml.safe_load(Path("b/run.yaml").read_text())
    assert "initial" in yaml.safe_load(Path("c/run.yaml").read_text())


def test_numbers_of_numpy_are_numbers():
    settings = Settings(epochs=np.int64(3), lr=np.float32(0.5), batch=np.uint8(4))
    assert (settings.epochs, settings.lr, settings.batch) == (3, 0.5, 4)
    assert type(settings.epochs) is int
    with pytest.raises(UserError, match="epochs must be a whole number or none, got True"):
        Settings(epochs=True)


# what comes of it ---------------------------------------------------------------------------------


def test_a_run_tells_what_came_of_it(here):
    run = pretrain(SimCLR, "photos", **SMALL, **FAST)
    assert run.folder == Path("runs/simclr-photos")
    assert run.encoder is run.method.backbone
    assert run.verdict is not None
    assert run.verdict.word == "unclear"
    assert any("too few to say more" in reason for reason in run.verdict.reasons)
    assert run.diagnosis is not None
    assert run.diagnosis.verdict == "doubtful"
    assert run.scores is not None
    assert run.scores.margins
    assert run.report == run.folder / "report.html"
    assert repr(run) == "<Run runs/simclr-photos: simclr, unclear: no score clears its floor.>"
    page = run._repr_html_()
    assert "report.html" in page
    assert "k-NN" in page


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(here, capsys):
    before = sorted(here.rglob("*"))
    words = ["simclr", "photos", *WORDS, "--backbone", "test_resnet", "--hidden", "16"]
    assert cli.main(["pretrain", *words, "--dry_run"]) == 0
    told = capsys.readouterr().out
    for word in (
        "24 images",
        "test_resnet at 32 px",
        "3 of 8 images",
        "lars",
        "MiB",
        "runs/simclr",
    ):
        assert word in told
    assert re.search(r"^optimizer +adamw +LARS and SGD are .* lars_tf *$", told, re.MULTILINE)
    assert sorted(here.rglob("*")) == before
    assert cli.main(["pretrain", *words, "--dry-run", "--batch", "99"]) == 2
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years")
    assert cli.main(["pretrain", *words, "--dry-run", "--out", "full"]) == 2
    assert "full is not empty" in capsys.readouterr().err


def test_a_dry_run_of_a_run_that_goes_on_says_from_where(here, capsys):
    words = ["pretrain", "simclr", "photos", *WORDS, "--backbone", "test_resnet", "--out", "run"]
    assert cli.main(words) == 0
    stamp = {f: f.stat().st_mtime_ns for f in Path("run").rglob("*")}
    assert cli.main([*words, "--resume", "--epochs", "2", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "goes on from step 3" in told
    assert re.search(r"^hidden +256 +.* 2048 *$", told, re.MULTILINE)
    assert {f: f.stat().st_mtime_ns for f in Path("run").rglob("*")} == stamp


# methods from elsewhere ---------------------------------------------------------------------------


def test_a_file_of_ones_own_trains_repeats_resumes_and_is_used(here):
    Path("mine.py").write_text(ECHO)
    assert "width of the embedding" in command("pretrain", "mine.py:Echo", "--help")
    command("pretrain", "mine.py:Echo", "photos", *WORDS, "--dim", "8", "--out", "a")
    assert "method: 'mine.py:Echo'" in Path("a/run.yaml").read_text()
    assert "# width of the embedding" in Path("a/run.yaml").read_text()
    command("pretrain", "--config", "a/run.yaml", "--out", "b")
    assert losses("a") == losses("b")
    command("pretrain", "--config", "a/run.yaml", "--out", "a", "--resume", "--epochs", "2")
    assert losses("a")[:3] == losses("b")
    assert len(losses("a")) == 6
    os.rename("mine.py", "gone.py")  # a run is used without the code that made it
    used("a")
    told = command("pretrain", "--config", "a/run.yaml", "--out", "c", code=2)
    assert "mine.py does not exist" in told


def test_a_module_and_an_entry_point_name_methods_too(here, monkeypatch):
    package = here / "site" / "echoes"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('help imports nothing')")
    (package / "inner.py").write_text(ECHO)
    about = here / "site" / "echoes-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: echoes\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[selftaught.methods]\necho = echoes.inner:Echo\n")
    monkeypatch.setenv("PYTHONPATH", str(here / "site"))
    assert "width of the embedding" in command("pretrain", "echo", "--help")
    assert "echo" in command("methods")
    assert "width of the embedding" in command("methods", "echoes.inner:Echo")
    with (about / "entry_points.txt").open("a") as file:
        file.write("broken = echoes.gone:Lost\n")
    assert "warning: the method broken is not found" in command("methods")
    assert "help imports nothing" in command("pretrain", "echo", "photos", *WORDS, code=2)
    (package / "__init__.py").write_text("")
    command("pretrain", "echo", "photos", *WORDS, "--out", "a")
    assert "method: 'echoes.inner:Echo'" in Path("a/run.yaml").read_text()
    command("pretrain", "--config", "a/run.yaml", "--out", "b")
    command("pretrain", "echoes.inner:Echo", "photos", *WORDS, "--out", "c")
    assert losses("a") == losses("b") == losses("c")


def test_a_script_names_its_own_file(here):
    Path("own.py").write_text(
        ECHO + "\n\nif __name__ == '__main__':\n    from selftaught import pretrain\n\n"
        f"    pretrain(Echo, 'photos', 'a', **{FAST})\n"
    )
    subprocess.run([sys.executable, "own.py"], check=True)
    assert "method: 'own.py:Echo'" in Path("a/run.yaml").read_text()
    command("pretrain", "--config", "a/run.yaml", "--out", "b")
    assert losses("a") == losses("b")


SESSION = f"""
import linecache, __main__
del __main__.__file__  # as in a notebook

def cell(number, text):
    name = f"<ipython-input-{{number}}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    exec(compile(text, name, "exec"), __main__.__dict__)

source = open("echo.txt").read()
head, body = source.split("class Echo")
cell(1, head)
cell(2, "class Echo" + body.replace("SCALE * ", "0 * "))  # a first try, written again
cell(3, "import os\\nos.environ['NOT_NEEDED'] = '1'\\nunused = 3")
cell(4, "class Echo" + body)
cell(5, "from selftaught import pretrain\\npretrain(Echo, 'photos', 'a', **{FAST})")
"""


def test_a_class_of_a_notebook_leaves_its_source(here):
    Path("echo.txt").write_text(ECHO)
    Path("notebook.py").write_text(SESSION)
    subprocess.run([sys.executable, "notebook.py"], check=True)
    assert "method: '__main__:Echo'" in Path("a/run.yaml").read_text()
    kept = Path("a/method.py").read_text()
    assert "SCALE = 2.0" in kept
    assert "unused" not in kept
    told = command("pretrain", "--config", "a/run.yaml", "--out", "b", code=2)
    assert "RUN/method.py:Echo --config RUN/run.yaml" in told  # nothing runs that nobody has named
    named = ["pretrain", "a/method.py:Echo", "--config", "a/run.yaml"]
    command(*named, "--out", "b")
    assert losses("a") == losses("b")
    command(*named, "--out", "a", "--resume", "--epochs", "2")
    assert len(losses("a")) == 6
    used("a")


def test_a_class_without_source_trains_and_says_what_is_missing(here):
    text = f"{ECHO}\nfrom selftaught import pretrain\npretrain(Echo, 'photos', 'a', **{FAST})\n"
    done = subprocess.run([sys.executable, "-"], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not Path("a/method.py").exists()
    assert "notebook or a session" in command("pretrain", "--config", "a/run.yaml", code=2)
    used("a")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("nowhere.py:Echo", None, "nowhere.py does not exist"),
        ("no.module:Echo", None, "no file holds a module no.module here"),
        ("mine.py:Ecco", ECHO, "mine.py has no method Ecco"),
        ("mine.py", "x = 1", "name the class of the method, as in mine.py:Class"),
        ("mine.py:x", "x = 1", "has no method x: a class that derives from Method"),
        ("mine.py:Echo", "class Echo(", "mine.py cannot be imported: SyntaxError"),
        ("broken.py:Echo", "raise OSError('no license')", "broken.py cannot be imported: OSError"),
        ("json.py:Echo", ECHO, "another module is called json"),
        ("json:loads", None, "has no method loads"),
        ("os:getcwd", None, "no file holds a module os here"),
    ],
)
def test_a_method_that_cannot_be_had_is_told(name, text, says, here, monkeypatch):
    if text is not None:
        Path(name.partition(":")[0]).write_text(text)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in ("mine", "broken"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UserError, match=says):
        pretrain(name, "photos", "run", **FAST)


def test_code_in_a_run_folder_runs_where_it_is_named_alone(here):
    Path("run").mkdir()
    Path("run/evil.py").write_text("open('CANARY', 'w')\n" + ECHO)
    Path("run/run.yaml").write_text("method: run/evil.py:Echo\ndata: photos\n")
    for words in (
        ["pretrain", "--config", "run/run.yaml"],
        ["reconstruct", "run", "photos/a/0.png"],
    ):
        assert cli.main(words) == 2
    assert not Path("CANARY").exists()


def test_a_parameter_that_is_not_kept_is_told(here):
    Path("lost.py").write_text(
        ECHO.replace(
            "self.dim, self.heat = backbone, dim, heat", "self.dim = backbone, dim"
        ).replace("self.heat", "0.5")
    )
    with pytest.raises(UserError, match="Echo must keep its parameter heat under its own name"):
        pretrain("lost.py:Echo", "photos", "run", **FAST)
    assert not Path("run").exists()


def test_classes_say_the_same_as_their_source():
    for name in methods.files():
        assert read_object(methods.find(name)) == methods.signature(name)


def test_source_of_a_session_takes_what_the_class_needs_and_no_more(monkeypatch):
    cells = {
        "<cell-1>": "import math\nfrom os import path as p\nTAU = 2 * math.pi\n%time\n",
        "<cell-2>": "def twice(x):\n    return 2 * x\n\n\nclass Other: pass\n",
        "<cell-3>": "@str\nclass Late: pass\n",
        "<cell-4>": "class Late:\n    a: int = twice(TAU)\n",
    }
    for name, text in cells.items():
        entry = (len(text), None, text.splitlines(True), name)
        monkeypatch.setitem(linecache.cache, name, entry)
    found = session.source_of(type("Late", (), {}))
    assert found is not None
    space: dict[str, Any] = {}
    exec(found, space)
    assert space["Late"].a == pytest.approx(4 * np.pi)
    assert "Other" not in space
    assert "p" not in space
    assert session.source_of(type("Missing", (), {})) is None


# what an editor sees ------------------------------------------------------------------------------


def test_stubs_are_those_of_the_code():
    for path, text in runpy.run_path(str(ROOT / "docs" / "build.py"))["stubs"]().items():
        assert path.read_text("utf-8") == text, "run: python docs/build.py --stubs"


def test_a_type_checker_sees_classes_and_settings(tmp_path):
    (tmp_path / "asks.py").write_text(
        "from typing import reveal_type\n"
        "from selftaught import load, pretrain\n"
        "from selftaught.methods import SimCLR\n"
        "reveal_type(SimCLR)\n"
        "reveal_type(load)\n"
        "reveal_type(pretrain(SimCLR, 'photos/', temperature=0.2).encoder)\n"
        "reveal_type(pretrain(SimCLR, 'photos/').scores)\n"
        "pretrain(SimCLR, 'photos/', epochs='three')\n"
    )
    words = "check asks.py --preset default --min-severity info --python-interpreter-path"
    pyrefly = [sys.executable, "-m", "pyrefly", *words.split(), sys.executable]
    told = subprocess.run(pyrefly, cwd=tmp_path, capture_output=True, text=True).stdout
    for kind in ("type[SimCLR]", "-> Encoder", "type: Encoder", "type: Comparison | None"):
        assert kind in told
    assert "to parameter `epochs` with type `int | None`" in told


def test_what_is_public_is_what_is_listed():
    pages = set(runpy.run_path(str(ROOT / "docs" / "build.py"))["API"]) - {"selftaught"}
    modules = {
        name for name in selftaught.__all__ if isinstance(getattr(selftaught, name), ModuleType)
    }
    assert {page.removeprefix("selftaught.") for page in pages} <= modules
    assert dir(selftaught) == sorted([*selftaught.__all__, "__version__"])
    assert {"SimCLR", "DINO"} < set(dir(methods))
    assert (Path(selftaught.__file__).parent / "py.typed").exists()


def test_the_signature_of_pretrain_is_the_settings():
    shown = inspect.signature(pretrain).parameters
    for field in fields(Settings):
        assert shown[field.name].default == field.default
    assert all(p.doc for p in config.signatures(None)["training"].parameters)
