"""Former names of options and settings: what was written with them goes on working."""

import json
from typing import Any

import numpy as np
import pytest

from selftaught import arguments, backbones, cli, config, export, pretrain, signature
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.methods.clustering.seer import SEER


@pytest.mark.parametrize(
    ("words", "now"),
    [
        (["--colours", "loader"], ("training", "colors", "loader")),
        (["--colours=device"], ("training", "colors", "device")),
        (["--edges"], ("backbone", "sobel", True)),
        (["--no-edges"], ("backbone", "sobel", False)),
        (["--sees", "colours"], ("backbone", "input", "colors")),
        (["--sees", "halves"], ("backbone", "input", "halves")),
    ],
)
def test_options_are_known_by_their_former_names(words, now):
    asked = cli.request(["simclr", "photos/", *words])
    section, name, value = now
    assert getattr(asked, section) == {name: value}


def test_former_options_of_methods_and_of_other_commands():
    asked = cli.request(["mean_shift", "photos/", "--neighbours", "3"])
    assert asked.options == {"neighbors": 3}
    parser = arguments.Parser(
        "x", "", (), [arguments.Group("", arguments.options(convert_parameters()))]
    )
    assert parser.read(["--licence", "mit"])[1][""] == {"license": "mit"}
    with pytest.raises(UserError, match="no option --greys"):
        parser.read(["--greys", "mit"])


def test_prototypes_that_rest_are_known_by_their_former_name():
    """`freeze` is a setting of every training now: parts of the backbone that stay as they are."""
    asked = cli.request(["dino", "photos/", "--freeze", "4"])
    assert asked.training == {"freeze": 4}
    old = {"method": "swav", "options": {"freeze": 0.02}}
    assert config.validate(old, "run.yaml")["options"] == {"freeze_prototypes": 0.02}
    before: dict[str, Any] = {"freeze": 0.5}
    method = SEER(Image("test_resnet", 32), prototypes=4, hidden=(8,), dim=5, **before)
    assert method.freeze_prototypes == 0.5


def test_a_module_as_encoder_is_known_by_its_former_name():
    assert backbones.__getattr__("Foreign") is backbones.Wrapped
    assert "Foreign" not in backbones.__all__
    with pytest.raises(AttributeError, match="no attribute 'Strange'"):
        _ = backbones.Strange


def convert_parameters():
    return [p for p in cli.COMMANDS["export"].signature.parameters if p.name == "license"]


def test_settings_of_older_runs_load_under_the_names_of_today():
    old = {
        "method": "stego",
        "backbone": {"name": "resnet18", "edges": True, "sees": "colours"},
        "options": {"neighbours": 3},
        "training": {"colours": "loader"},
    }
    found = config.validate(old, "run.yaml")
    assert found["backbone"] == {"name": "resnet18", "sobel": True, "input": "colors"}
    assert found["options"] == {"neighbors": 3}
    assert found["training"] == {"colors": "loader"}
    ours = signature.current({"edges": 3, "sees": "colours", "size": 2}, known=("edges", "sees"))
    assert ours == {"edges": 3, "sees": "colours", "size": 2}


def test_encoders_that_older_versions_exported_load(tmp_path):
    export.save(Image("test_resnet", 32, sobel=True), tmp_path)
    file = tmp_path / "encoder.json"
    about = json.loads(file.read_text())
    arranged = about["encoder"]
    arranged["edges"], arranged["sees"] = arranged.pop("sobel"), "colours"
    del arranged["input"]
    file.write_text(json.dumps(about))
    loaded = export.load(tmp_path)
    assert (loaded.sobel, loaded.input) == (True, "colors")


def test_a_run_that_was_recorded_under_former_names_goes_on(tmp_path):
    data = np.random.default_rng(0).integers(0, 255, (16, 32, 32, 3), np.uint8)
    run = {"backbone": "test_resnet", "size": 32, "batch": 8, "workers": 0, "accelerator": "cpu"}
    pretrain("simclr", data, tmp_path / "run", epochs=1, **run)
    file = tmp_path / "run" / "run.yaml"
    text = file.read_text()
    for now, before in (
        ("colors:", "colours:"),
        ("sobel:", "edges:"),
        ("input: colors", "sees: colours"),
    ):
        assert f"  {now}" in text
        text = text.replace(f"  {now}", f"  {before}")
    file.write_text(text)
    pretrain("simclr", data, tmp_path / "run", epochs=2, resume=True, **run)
    assert config.load(file)["backbone"]["input"] == "colors"
