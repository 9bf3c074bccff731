"""The command line: quick answers without torch, errors in words, run.yaml that repeats a run."""

import csv
import dataclasses
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selftaught import cli, config, kinds, methods
from selftaught.arguments import Group, Parser, Positional, options
from selftaught.cli import COMMANDS, NAMES, arguments, main, request
from selftaught.errors import DataError, Interrupted, TrainingError, UserError
from selftaught.nouns import worded
from selftaught.signature import Parameter

METHODS = sorted(methods.files())
SECTIONS = ("backbone", "options", "training")

PROBE = """
import json, sys
from selftaught.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:
    code = end.code or 0
heavy = sorted({"torch", "timm", "torchvision", "lightning_fabric", "lightning"} & set(sys.modules))
found = {"code": code, "heavy": heavy, "numpy": "numpy" in sys.modules}
own = sum(name.partition(".")[0] in sys.stdlib_module_names for name in sys.modules)  # by version
json.dump(found | {"modules": len(sys.modules) - own}, sys.__stderr__)
"""


def probe(*words: str, **env: str) -> tuple[dict[str, Any], str, str]:
    """Exit code, heavy modules and number of all of a process that runs a command; its output."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *words],
        capture_output=True,
        encoding="utf-8",
        env=os.environ | env,
    )
    text, brace, found = done.stderr.rpartition("{")
    return json.loads(brace + found), done.stdout, text


# quick answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        ("", 0, "usage: selftaught COMMAND"),
        ("--help", 0, "examples:"),
        ("--version", 0, "selftaught 0."),
        ("methods", 0, "simclr"),
        ("methods dino", 0, "--teacher-temp A,B"),
        ("methods --json", 0, '"simclr"'),
        ("methods --start", 0, "selftaught pretrain photos/ --weights timm"),
        ("methods --start --json", 0, '"cpu_seconds": '),
        ("pretrain --help", 0, "--epochs N"),
        ("pretrain simclr --help", 0, "--temperature X"),
        ("pretrain simclr --help-all", 0, "--layers N"),
        ("pretrain also --help", 0, "selftaught pretrain also scans/ --time 20m"),
        ("pretrain bert --help", 0, "texts a step"),
        ("pretrain simclr --kind sound --help", 0, "selftaught pretrain simclr sounds/ --time"),
        ("evaluate --help-all", 0, "--temperature X"),
        ("--help-all", 0, "examples:"),
        ("export --help", 0, "--to {timm,hf,onnx,safetensors,torch-export}"),
        ("pretran", 2, "no command 'pretran': did you mean pretrain?"),
        ("methods simcrl", 2, "no method is called 'simcrl': did you mean simclr?"),
        ("pretrain simcrl photos/", 2, "no method is called 'simcrl': did you mean simclr?"),
        ("pretrain simclr photos/ --epoch 9", 2, "no option --epoch: did you mean --epochs?"),
        (
            "pretrain simclr photos/ --epochs ten",
            2,
            "--epochs must be a whole number or none, got 'ten'",
        ),
        ("pretrain simclr", 2, "needs DATA"),
        ("pretrain simclr nowhere/", 2, "nowhere does not exist"),
        ("pretrain fotos --time 1m", 2, "fotos does not exist; there is nothing of that name in ."),
        ("pretrain fotos/ a/", 2, "and no method is called fotos/"),
        ("pretrain simcrl", 2, "no method is called 'simcrl': did you mean simclr?"),
        ("check nowhere", 2, "nowhere does not exist"),
        ("evaluate a nowhere", 2, "nowhere does not exist"),
        ("export nowhere", 2, "nowhere does not exist"),
        ("export nowhere --to onxx", 2, "got 'onxx': did you mean onnx?"),
        ("pretrain --config nowhere.yaml", 2, "nowhere.yaml cannot be read"),
    ],
)
def test_answers_at_once_without_torch(words: str, code: int, says: str):
    found, out, err = probe(*words.split())
    assert found["code"] == code
    assert found["heavy"] == []
    assert found["modules"] < 250, "a command that answers at once imports little"
    assert says in (err if code else out)
    if code:
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
    else:
        assert err == ""


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images, a folder without any, one that is no run, a run of SimCLR, files of other kinds."""
    root = tmp_path_factory.mktemp("places")
    for name in ("images", "empty", "none", "run"):
        (root / name).mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(root / "images" / f"{i}.png")
    (root / "run" / "run.yaml").write_text("method: simclr\n")
    (root / "notes.docx").write_text("no images")
    return root


WRONG = [
    ("evaluate resnet81 images", "no backbone is called 'resnet81': did you mean resnet18"),
    ("evaluate vit_smal_patch16_224 images", "did you mean vit_small_patch16_224"),
    ("evaluate nowhere/run images", "nowhere/run does not exist"),
    ("evaluate none images", "encoder.safetensors is missing"),
    ("evaluate notes.docx images", "notes.docx is no file of weights"),
    ("evaluate resnet18 images --out x.txt", "x.txt must end in .json"),
    ("evaluate resnet18 images --k 0", "--k must be at least 1, got 0"),
    ("evaluate resnet18 images --temperature 0", "--temperature must be above 0"),
    ("evaluate resnet18 images --shares 0.1,2", "--shares must be above 0 and at most 1"),
    ("evaluate resnet18 images --device 3", "--device is such as cpu"),
    ("evaluate resnet18 images --probes knnn", "did you mean knn?"),
    ("evaluate resnet18 notes.docx", "notes.docx holds no images that can be read"),
    ("evaluate resnet18 images --test empty", "empty holds no images"),
    ("evaluate resnet18 images --test nowhere", "nowhere does not exist"),
    ("embed resnet81 images", "no backbone is called 'resnet81'"),
    ("embed run images", "this run has not ended with them"),
    ("embed weights.pth images", "is a pickle"),
    ("embed resnet18 images --out x.txt", "x.txt must end in .npz or .npy or .parquet or .csv"),
    ("search resnet18 images --out x.html y.txt", "y.txt must end in .html or .csv or .parquet"),
    ("search resnet81 images", "no backbone is called 'resnet81': did you mean resnet18"),
    ("search resnet18 nowhere", "nowhere does not exist"),
    ("search resnet18 images --min 2", "--min must be from -1 to 1, got 2"),
    ("search resnet18 images --engine fast", "--engine must be one of auto, exact, faiss"),
    ("embed resnet18 images --batch 0", "--batch must be at least 1"),
    ("embed resnet18 notes.docx", "notes.docx holds no images that can be read"),
    ("report none", "none holds no run"),
    ("report notes.docx", "notes.docx is not a folder"),
    ("report run --images 1", "--images must be at least 2"),
    ("compare run", "two runs or more"),
    ("compare run ./run", "names a run twice"),
    ("compare run none", "none holds no run"),
    ("compare run none --out x.txt", "x.txt must end in .html"),
    ("export none", "encoder.safetensors is missing"),
    ("export run --to onnx", "this run has not ended with them"),
    ("reconstruct none a.png", "none holds no run"),
    ("reconstruct run a.png", "a.png does not exist"),
    ("segment run images/0.png", "run was trained by simclr; stego segments images"),
    ("demo --epochs 0", "--epochs must be at least 1"),
    ("demo --out notes.docx", "notes.docx is a file"),
    ("check images --tiny x", "--tiny must be a whole number"),
    ("check notes.docx", "notes.docx holds no images that can be read"),
    ("frames notes.docx out", "notes.docx holds no clips"),
    ("pretrain simclr notes.docx", "notes.docx holds no images that can be read"),
    ("pretrain simclr images --backbone resnet81", "no backbone is called 'resnet81'"),
    ("pretrain simclr images --epochs 0", "epochs must be at least 1, got 0"),
    ("pretrain simclr images --size 0", "--size must be at least 1"),
    ("pretrain simclr images --patch-size 0", "--patch-size must be at least 1"),
    ("pretrain simclr images --weights w.pth", "w.pth does not exist"),
    ("pretrain simclr images --start nowhere", "nowhere does not exist"),
    ("pretrain simclr images --test nowhere", "nowhere does not exist"),
    ("pretrain simclr images --out notes.docx", "notes.docx is a file"),
    ("pretrain simclr images --out images", "images is not empty and holds no run"),
    ("pretrain simclr images --out empty --resume", "empty holds no run to resume"),
]


@pytest.mark.parametrize(("words", "says"), WRONG, ids=[words for words, _ in WRONG])
def test_what_cannot_work_is_told_without_torch(words, says, places, monkeypatch):
    monkeypatch.chdir(places)
    before = sorted(places.rglob("*"))
    found, out, err = probe(*words.split())
    assert (found["code"], out) == (2, "")
    assert says in err
    assert err.startswith("error: ")
    assert found["heavy"] == []
    reads = "no images" in says or "no clips" in says or words.startswith(("pretrain", "demo"))
    assert reads or not found["numpy"] or words.startswith(("reconstruct", "segment"))
    assert sorted(places.rglob("*")) == before


def test_works_in_a_poor_environment():
    """No home, an ASCII terminal, names that it cannot show, assertions off."""
    found, out, _ = probe("methods", LC_ALL="POSIX", PYTHONIOENCODING="ascii", HOME="")
    assert found["code"] == 0
    assert "simclr" in out
    found, _, err = probe("check", "féte\udcff", PYTHONIOENCODING="ascii", PYTHONOPTIMIZE="1")
    assert found["code"] == 2
    assert "f\\xe9te" in err


def test_a_closed_pipe_is_quiet():
    command = [sys.executable, "-m", "selftaught", "methods", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


# errors become exit codes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UserError("u"), 2),
        (DataError("d"), 3),
        (TrainingError("t"), 1),
        (Interrupted("i"), 75),
        (KeyboardInterrupt(), 130),
    ],
)
def test_exit_codes(monkeypatch: pytest.MonkeyPatch, capsys, error: BaseException, code: int):
    def run(_: Any) -> None:
        raise error

    monkeypatch.setattr(cli, "_run", run)
    assert main(["check"]) == code
    assert "Traceback" not in capsys.readouterr().err
    if code != 130:
        assert main(["check", "--debug"]) == code
        assert "Traceback" in capsys.readouterr().err


def test_every_name_is_a_command(capsys):
    for name in NAMES:
        with pytest.raises(SystemExit) as end:
            main([name, "--help"])
        assert not end.value.code
        assert f"usage: selftaught {name}" in capsys.readouterr().out
    assert set(COMMANDS) < set(NAMES)


# options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_names_of_options_do_not_clash(name: str):
    words = {
        section: {"backbone" if p.name == "name" else p.name for p in config.settable(signature)}
        for section, signature in config.signatures(name).items()
    }
    assert not words["training"] & (words["options"] | words["backbone"])
    assert "backbone" not in words["options"]
    for section in SECTIONS:
        assert not {"config", "help", "debug", "method", "data"} & words[section]


def test_a_method_that_arranges_its_backbone_is_asked_alone():
    assert request(["rotation", "photos"]).options == {}
    asked = request(["mae", "photos", "--pool", "class"])
    assert asked.options == {"pool": "class"}
    assert asked.backbone == {}


def kind_of(method: str) -> str:
    """Of the samples that a method usually learns from."""
    return kinds.among(methods.find(method).needs.kinds)[0]


@pytest.mark.parametrize("name", METHODS)
def test_help_shows_every_parameter(name: str, capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", name, "--help-all"])
    text = " ".join(capsys.readouterr().out.split())
    assert (f"{name}, fitted to the data; its paper's in brackets:" in text) == bool(
        config.settable(methods.signature(name))
    )
    assert "training:" in text
    assert "backbone:" in text
    every = config.signatures(name, kind_of(name))
    for section, signature in every.items():
        for p in config.settable(signature):
            assert p.doc, f"{p.name} is not documented"
            above = {"backbone": "options", "sample": "backbone"}.get(section)
            if above is None or p.name not in every[above]:
                assert worded(p.doc.rstrip(".")) in text
    assert f"(default: {cli.needs_of(name)['backbone']})" in text


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as end:
        main(list(words))
    assert not end.value.code
    return capsys.readouterr().out


def flags(text: str) -> list[str]:
    return re.findall(r"^  (--\S+)", text, re.M)


@pytest.mark.parametrize(
    "words", [*(("pretrain", m) for m in METHODS), *((n,) for n in NAMES)], ids="-".join
)
def test_help_shows_what_matters_and_how_many_more_there_are(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    short, long = (shown(capsys, *words, word) for word in ("--help", "--help-all"))
    assert max(map(len, (short + long).split("\n"))) <= 80
    few, every = flags(short), flags(long)
    assert [flag for flag in every if flag in few] == few
    assert len(few) <= 28
    last = short.splitlines()[-1]
    more = len(every) - len(few)
    assert last == f"{more} more options: selftaught {' '.join(words)} --help-all" or not more
    assert "more options:" not in long
    if words[0] == "pretrain" and len(words) == 2:
        own = config.settable(methods.signature(words[1]))
        main = "out epochs batch lr seed workers labels test backbone size weights"
        wanted = set(main.split())
        if kinds.find(kind_of(words[1])).encoder != kinds.find("image").encoder:
            wanted.remove("weights")  # of no other library
        wanted -= {p.name for p in own}  # PIRL's are of its losses
        switches = {"--[no-]resume", "--[no-]try", "--[no-]dry-run"}
        assert {f"--{name}" for name in wanted} | switches < set(few)
        assert more > 30
        assert {p.name for p in own if not p.main} <= {
            flag.removeprefix("--").removeprefix("[no-]").replace("-", "_")
            for flag in set(every) - set(few)
        }


def test_rare_options_are_read_as_ever():
    words = "simclr photos --layers 2 --max-bad 0.1 --patch-size 8"
    asked = request(words.split())
    assert (asked.options, asked.training) == ({"layers": 2}, {"max_bad": 0.1})
    assert asked.backbone == {"patch_size": 8}


def test_examples_are_commands_on_lines_of_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    text = shown(capsys, "pretrain", "dino", "--help")
    whole = text.replace(" \\\n    ", " ")
    backbone = cli.needs_of("dino")["backbone"]
    assert f"\n  selftaught pretrain dino photos/ --backbone {backbone} --size 96 --epo" in whole


def test_needs_are_those_of_the_classes():
    for name in METHODS:
        assert cli.needs_of(name) == dataclasses.asdict(methods.find(name).needs)


def test_what_is_given_lands_in_its_section():
    words = (
        "simclr photos --temperature 0.2 --backbone resnet18 --size 64 --no-pretrained "
        "--weight_decay 1e-4 --no-evaluate --value-range -1,1 --out=runs/a_b"
    )
    asked = request(words.split())
    assert asked.method == "simclr"
    assert asked.data == "photos"
    assert asked.options == {"temperature": 0.2}
    assert asked.backbone == {"name": "resnet18", "size": 64, "pretrained": False}
    assert asked.training == {
        "weight_decay": 1e-4,
        "evaluate": False,
        "value_range": (-1.0, 1.0),
        "out": Path("runs/a_b"),
    }


def test_data_may_come_before_or_after_options():
    for words in ("dino photos --epochs 3", "dino --epochs 3 photos", "dino --epochs=3 photos"):
        asked = request(words.split())
        assert (asked.data, asked.training) == ("photos", {"epochs": 3})


def test_tuples_choices_and_none():
    words = "dino p --teacher-temp 0.04,0.07 --optimizer adamw --lr none"
    asked = request(words.split())
    assert asked.options == {"teacher_temp": (0.04, 0.07)}
    assert asked.training == {"optimizer": "adamw", "lr": None}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "needs DATA, or METHOD and then DATA"),
        ("--epochs 3 simclr photos", "needs DATA, or METHOD and then DATA"),
        ("simclr a b", "takes DATA, got 'b' besides"),
        ("simclr a --temprature 1", "--temprature: did you mean --temperature?"),
        ("simclr a --temp 1", "--temp: did you mean --temperature?"),
        ("simclr a --qqqqqq 1", "no option --qqqqqq; see selftaught pretrain simclr --help"),
        ("simclr a --momentum 0.9", "no option --momentum"),
        ("simclr a --optimizer adan", "--optimizer must be one of sgd, adam, "),
        ("simclr a --epochs", "--epochs: expected one argument"),
        ("simclr a --epochs 1.5", "--epochs must be a whole number or none, got '1.5'"),
        ("simclr a --help-al", "no option --help-al: did you mean --help-all?"),
        ("simclr a --no-evaluat", "--no-evaluat: did you mean --no-evaluate?"),
        ("dino a --teacher-temp 1", "--teacher-temp must be 2 values as A,B"),
        ("deepcluster a --samples 3", "no option --samples"),
        ("simclr --config", "--config: expected one argument"),
    ],
)
def test_wrong_words(words: str, says: str):
    with pytest.raises(UserError) as error:
        request(words.split())
    assert says in str(error.value)


def test_commands_are_called_with_what_was_given(tmp_path: Path):
    assert arguments("evaluate", ["run", str(tmp_path), "--k", "5"]) == {
        "encoder": "run",
        "data": str(tmp_path),
        "k": 5,
    }
    with pytest.raises(UserError, match="needs DATA"):
        arguments("embed", ["run"])
    with pytest.raises(UserError, match=r"has no option --kk: did you mean --k\?"):
        arguments("evaluate", ["run", str(tmp_path), "--kk", "5"])


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.tuples(st.floats(-9, 9), st.integers()),
    st.booleans(),
    st.one_of(st.none(), st.integers()),
)
def test_words_come_back_as_the_values_that_were_meant(number, pair, flag, maybe):
    parameters = [
        Parameter("number", float, True, None, ""),
        Parameter("a_pair", tuple[float, int], True, None, ""),
        Parameter("flag", bool, True, None, ""),
        Parameter("maybe", int | None, True, None, ""),
    ]
    parser = Parser("x", "", [Positional("place", "")], [Group("g", options(parameters))])
    words = ["--number", repr(number), "--a-pair", f"{pair[0]!r},{pair[1]}"]
    words += ["--flag" if flag else "--no-flag", "--maybe", str(maybe), "here"]
    places, given = parser.read(words)
    assert places == ["here"]
    assert given[""] == {"number": number, "a_pair": pair, "flag": flag, "maybe": maybe}


# methods -----------------------------------------------------------------------------------------


def test_list_of_methods_is_complete(capsys):
    assert main(["methods", "--json"]) == 0
    found = {m["name"]: m for m in json.loads(capsys.readouterr().out)}
    assert sorted(found) == METHODS
    for name, about in found.items():
        assert about["summary"]
        assert "http" in about["paper"]
        kind = methods.find(name)
        assert about["class"] == kind.__name__
        assert about["family"] in kind.__module__
    assert main(["methods", "byol", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found["byol"]


def test_where_to_start_is_told_for_all_or_one_method(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["methods", "--start", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len({s["method"] for s in found}) == 5
    assert main(["methods", "--start"]) == 0
    out = capsys.readouterr().out
    for s in found:
        assert {s["command"], s["measured"]} <= {line.strip() for line in out.splitlines()}
        for name, (value, floor) in s["scores"].items():
            assert f"{name} {value} ({floor})" in " ".join(out.split())
    lines = [line for line in out.splitlines() if not line.startswith("    ")]
    assert max(map(len, lines)) <= 80
    assert main(["methods", "mae", "--start", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [s for s in found if s["method"] == "mae"]
    assert main(["methods", "jigsaw", "--start"]) == 0
    assert "jigsaw is not among those" in capsys.readouterr().out
    assert main(["methods", "simcrl", "--start"]) == 2


# configuration -----------------------------------------------------------------------------------


def write(folder: Path, text: str) -> str:
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_file_gives_what_words_do_not(tmp_path: Path):
    path = write(
        tmp_path,
        "method: simclr\ndata: photos\nbackbone: resnet18\noptions: {temperature: 0.2, dim: 64}\n"
        "training: {epochs: 7, lr: 1e-3, seed: 3}\nmade_by: {selftaught: 9.9, anything: [1]}\n",
    )
    asked = request(["--config", path])
    assert asked == (
        "simclr",
        "photos",
        {"name": "resnet18"},
        {"temperature": 0.2, "dim": 64},
        {"epochs": 7, "lr": 1e-3, "seed": 3},
        True,
        {},
        {},
        {},
    )
    asked = request(["simclr", "others", f"--config={path}", "--dim", "8", "--seed", "4"])
    assert asked.data == "others"
    assert asked.options == {"temperature": 0.2, "dim": 8}
    assert asked.training == {"epochs": 7, "lr": 1e-3, "seed": 4}
    assert request(["--config", path, "others"]).data == "others"


@pytest.mark.parametrize(
    ("file", "words", "length"),
    [
        ("{epochs: 7}", "--time 10s", {"time": "10s"}),
        ("{epochs: 2, max_steps: 5}", "--time 10s", {"time": "10s"}),
        ("{epochs: 2, max_steps: 5}", "--epochs 9", {"epochs": 9}),
        ("{epochs: 2, max_steps: 5}", "--max-steps 90", {"max_steps": 90}),
        ("{epochs: 2, max_steps: null}", "--max-steps 90", {"epochs": 2, "max_steps": 90}),
        ("{epochs: 2, max_steps: 5}", "--max-steps none", {"epochs": 2, "max_steps": None}),
        ("{time: 1h}", "--epochs 9", {"epochs": 9}),
        ("{epochs: 2, max_steps: 5}", "", {"epochs": 2, "max_steps": 5}),
    ],
)
def test_how_long_is_what_words_say(tmp_path: Path, file: str, words: str, length: dict):
    path = write(tmp_path, f"method: simclr\ndata: photos\ntraining: {file}\n")
    assert request(["--config", path, *words.split()]).training == length


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metod: simclr", "'metod' is not a setting: did you mean method?"),
        ("epochs: 3", "'epochs' is not a setting: it belongs under `training:`"),
        ("method: simcrl", "no method is called 'simcrl': did you mean simclr?"),
        ("method: [simclr]", "method must be text, got ['simclr']"),
        ("training: {epoch: 3}", "training has no setting 'epoch': did you mean epochs?"),
        ("training: {epochs: ten}", "training.epochs must be a whole number or none, got 'ten'"),
        ("training: {epochs: true}", "training.epochs must be a whole number or none, got True"),
        ("training: 3", "training must hold the parameters of pretrain, got 3"),
        ("backbone: {nam: x}", "backbone has no setting 'nam': did you mean name?"),
        ("options: {temperature: 1}", "options need a method"),
        ("method: simclr\noptions: {temprature: 1}", "'temprature': did you mean temperature?"),
        ("method: byol\noptions: {temperature: 1}", "byol has no setting 'temperature'"),
        ("a: 1\na: 2", "a is given twice"),
        ("a: &x [1]\nb: *x", "aliases are not allowed"),
        ("[1", "is not plain YAML"),
        ("", "got nothing"),
        ("- 1", "got list"),
        ("{[1]: 2}", "is not plain YAML"),
        ("[" * 5000, "is not plain YAML"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, says: str):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        request(["--config", path])
    assert says in str(error.value)
    assert path in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        'method: !!python/object/apply:os.system ["touch CANARY"]',
        "method: !!python/name:os.system",
        "backbone: {class_path: os.system}",
    ],
)
def test_files_run_no_code(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError):
        request(["--config", write(tmp_path, text)])
    assert not (tmp_path / "CANARY").exists()


def test_a_file_that_is_no_text(tmp_path: Path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        config.load(path)
    with pytest.raises(UserError, match="cannot be read"):
        config.load(tmp_path)


def defaults(name: str) -> dict[str, Any]:
    """A run with every default written out, as the engine does."""
    every = config.signatures(name)
    content: dict[str, Any] = {"method": name, "data": "photos"}
    for section in SECTIONS:
        content[section] = {p.name: p.default for p in config.settable(every[section])}
    return content


@pytest.mark.parametrize("name", METHODS)
def test_what_is_written_is_what_is_read(name: str, tmp_path: Path):
    content = defaults(name)
    path = write(tmp_path, config.dump(content | {"made_by": {"selftaught": "0.1"}}))
    found = config.validate(config.load(path), path)
    assert found == content | {"sample": {}}
    for section in SECTIONS:
        assert list(found[section]) == list(content[section])
    for p in config.settable(methods.signature(name)):
        assert f"# {p.doc}" in Path(path).read_text(encoding="utf-8")


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(),
    st.lists(st.floats(allow_nan=False) | st.text(), max_size=3),
)
names = st.from_regex(r"[a-z][a-z_]{0,9}", fullmatch=True)


@given(st.text(min_size=1), st.dictionaries(names, plain), st.dictionaries(names, plain))
def test_any_plain_value_survives_a_file(data: str, options: dict, training: dict):
    content = {"method": "my own", "data": data, "options": options, "training": training}
    found = yaml.safe_load(config.dump(content))
    assert found == {k: v for k, v in content.items() if v}


# from end to end ----------------------------------------------------------------------------------


def losses(run: Path) -> list[str]:
    with (run / "metrics.csv").open() as file:
        return [row["loss"] for row in csv.DictReader(file)]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two classes of twelve images, in a working directory of their own."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (36, 36, 3), dtype=np.uint8)).save(path)
    return Path("photos")


def tiny(words: str) -> list[str]:
    """A command whose run takes a moment."""
    common = "--epochs 2 --batch 8 --workers 0 --log-every 1 --precision fp32 --no-evaluate"
    return f"pretrain {words} photos {common}".split()


SIMCLR = tiny("simclr --backbone test_resnet --hidden 16 --dim 8")
MAE = tiny("mae --backbone test_vit --size 32 --dim 16 --depth 1 --heads 2")


@pytest.mark.parametrize("words", [SIMCLR, MAE], ids=["simclr", "mae"])
def test_a_run_repeats_from_its_file(words: list[str], photos: Path, capsys):
    assert main(words) == 0
    run = Path("runs") / f"{words[1]}-photos"
    assert f"selftaught evaluate {run} photos" in capsys.readouterr().out
    assert len(losses(run)) == 6
    assert main(["pretrain", "--config", str(run / "run.yaml")]) == 0
    assert losses(Path(f"{run}-2")) == losses(run)


def test_a_run_is_used(photos: Path, capsys):
    assert main(["check", "photos", "--workers", "0"]) == 0
    assert "24" in capsys.readouterr().out
    assert main([*SIMCLR, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["evaluate", "run", "photos", "--workers", "0"]) == 0
    assert "16x16" in capsys.readouterr().out  # below "pixels" where a terminal is narrow
    assert main(["embed", "run", "photos", "--out", "f.npy", "--workers", "0"]) == 0
    assert "24 x " in capsys.readouterr().out
    assert np.load("f.npy").shape[0] == 24
    assert main(["report", "run"]) == 0
    assert Path(capsys.readouterr().out.strip()).exists()
    assert main([*SIMCLR, "--out", "run"]) == 2
    assert "run is not empty" in capsys.readouterr().err


def test_what_cannot_work_is_said_in_a_sentence(photos: Path, capsys):
    def fails(*words: str) -> str:
        assert main(list(words)) == 2
        return capsys.readouterr().err

    assert "24 images are fewer than a batch of 256" in fails(*SIMCLR, "--batch", "256")
    assert "did you mean resnet50" in fails(*SIMCLR, "--backbone", "resnet5O")
    assert "needs a" in fails(*MAE, "--backbone", "test_resnet")
    Path("empty").mkdir()
    assert "empty holds no images" in fails("pretrain", "simclr", "empty")


@pytest.fixture(autouse=True)
def _quiet_afterwards():
    """The handler that a command sets belongs to its process; tests share one."""
    logger = logging.getLogger("selftaught")
    handlers, level = logger.handlers, logger.level
    yield
    logger.handlers, logger.level = handlers, level


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("stego", "selftaught pretrain stego photos/ --start runs/simclr-photos"),
        ("distill", "selftaught pretrain distill photos/ --teacher runs/finetune-photos"),
        ("supcon", "selftaught pretrain supcon labeled/"),
    ],
)
def test_examples_name_what_a_method_needs(method, words, capsys):
    with pytest.raises(SystemExit):
        main(["pretrain", method, "--help"])
    assert words in capsys.readouterr().out
