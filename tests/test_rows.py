"""Rows of papers' tables as files: each is built, and has the rates and lengths of its row."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from selftaught import cli, config, methods, recipes
from selftaught.engine.build import assemble
from selftaught.engine.optim import Rates
from selftaught.engine.settings import Settings
from selftaught.errors import UserError

IMAGES = 1_281_167
"""Of ImageNet's training set, as many as the epochs of these papers have."""

# name: (epochs, batch, peak rate, weight decay, epochs of warm-up, published figures)
ROWS = {
    "simclr-resnet50-100": (100, 4096, 4.8, 1e-6, 10, [64.5]),
    "simclr-resnet50-1000": (1000, 4096, 4.8, 1e-6, 10, [69.3]),
    "simclr-resnet18-cifar10": (1000, 512, 2.0, 1e-6, 10, [91.0]),
    "simclr_v2-resnet50-800": (800, 4096, 6.4, 1e-4, 40, [71.7]),
    "moco_v1-resnet50-200": (200, 256, 0.03, 1e-4, 0, [60.6]),
    "moco_v2-resnet50-200": (200, 256, 0.03, 1e-4, 0, [67.5]),
    "moco_v2-resnet50-800": (800, 256, 0.03, 1e-4, 0, [71.1]),
    "moco_v3-resnet50-100": (100, 4096, 9.6, 1e-6, 10, [68.9]),
    "moco_v3-resnet50-300": (300, 4096, 4.8, 1e-6, 10, [72.8]),
    "moco_v3-resnet50-1000": (1000, 4096, 4.8, 1.5e-6, 10, [74.6]),
    "moco_v3-vit_base-300": (300, 4096, 2.4e-3, 0.1, 40, [76.7]),
    "byol-resnet50-300": (300, 4096, 4.8, 1e-6, 10, [72.5]),
    "byol-resnet50-1000": (1000, 4096, 3.2, 1.5e-6, 10, [74.3]),
    "simsiam-resnet50-100": (100, 512, 0.1, 1e-4, 0, [68.1]),
    "barlow_twins-resnet50-1000": (1000, 2048, 1.6, 1e-6, 10, [73.2]),
    "vicreg-resnet50-1000": (1000, 2048, 1.6, 1e-6, 10, [73.2]),
    "nnclr-resnet50-1000": (1000, 4096, 4.8, 1e-6, 10, [75.4]),
    "swav-resnet50-100": (100, 4096, 4.8, 1e-6, 10, [72.1]),
    "swav-resnet50-200": (200, 4096, 4.8, 1e-6, 10, [73.9]),
    "swav-resnet50-400": (400, 4096, 4.8, 1e-6, 10, [74.6]),
    "swav-resnet50-800": (800, 4096, 4.8, 1e-6, 10, [75.3]),
    "swav-resnet50-200-batch256": (200, 256, 0.6, 1e-6, 0, [72.7]),
    "swav-resnet50-400-batch256": (400, 256, 0.6, 1e-6, 0, [74.3]),
    "deepcluster_v2-resnet50-800": (800, 4096, 4.8, 1e-6, 10, [75.2]),
    "dino-vit_small-100": (100, 512, 1e-3, (0.04, 0.4), 10, [69.3, 74.0]),
    "dino-vit_small-300": (300, 1024, 2e-3, (0.04, 0.4), 10, [76.1]),
    "simdino-vit_base-100": (100, 512, 1e-3, (0.04, 0.4), 10, [74.9, 77.3]),
    "ibot-vit_small-800": (800, 1024, 2e-3, (0.04, 0.4), 10, [75.2, 77.9, 82.3]),
    "dinov2-vit_giant-14": (14, 3072, 3.464e-4, (0.04, 0.2), 2.24, [83.5, 86.5]),
    "dinov2-dinov3_vit_large-200": (200, 2048, 4e-3 * 2**0.5, (0.04, 0.4), 20, [82.2, 83.3]),
    "capi-vit_large-577": (577, 16384, 1e-3, 0.1, 57.7, [83.6, 29.7]),
    "mae-vit_base-1600": (1600, 4096, 2.4e-3, 0.05, 40, [83.6, 68.0]),
    "mae-vit_large-1600": (1600, 4096, 2.4e-3, 0.05, 40, [85.9, 75.8]),
    "ijepa-vit_huge-300": (300, 2048, 1e-3, (0.04, 0.4), 40, [79.3]),
    "pcl-resnet50-200": (200, 256, 0.03, 1e-4, 0, [67.6]),
    "instdisc-resnet50-200": (200, 256, 0.03, 1e-4, 0, [46.8]),
}


def test_all_recipes_are_looked_at():
    assert set(recipes.files()) == set(ROWS)


@pytest.mark.parametrize("name", ROWS)
def test_a_recipe_is_its_row(name):
    epochs, batch, peak, decay, warmup, published = ROWS[name]
    asked = cli.request(["--config", name, "photos/"])
    settings = Settings(**asked.training)
    assert (asked.data, settings.epochs, settings.batch) == ("photos/", epochs, batch)
    small = {"name": "test_vit" if "vit" in name else "test_resnet", "size": 32}
    few = {p.name for p in methods.signature(asked.method).parameters if p.from_data}
    own = asked.options | dict.fromkeys(few, 100000)
    plain = asked.method in (
        "capi",
        "dino",
        "simdino",
        "ibot",
        "dinov2",
        "deepcluster_v2",
    )  # they look at what they draw
    with torch.device("cpu" if plain else "meta"):
        method = assemble(asked.method, small, own, None, 0)
    given = {
        k: getattr(settings, k)
        for k in ("lr", "weight_decay", "warmup")
        if getattr(settings, k) is not None
    }
    given |= {"scaling": "none"} if "lr" in given else {}
    recipe = replace(method.recipe, **given)
    steps = IMAGES // batch
    assert Rates(recipe, batch, epochs * steps, steps).peak == pytest.approx(peak)
    assert recipe.weight_decay == pytest.approx(decay)
    assert recipe.warmup * epochs == pytest.approx(warmup, rel=1e-3)
    assert list(recipes.about(name)["published"].values()) == published


def test_a_recipe_says_what_it_is_of():
    for name, file in recipes.files().items():
        about = recipes.about(name)
        assert about["method"] == name.partition("-")[0]
        assert set(about) == {"name", "method", "title", "row", "published", "source"}
        assert f"selftaught pretrain --config {name} " in file.read_text()
        assert about["title"].rpartition(" ")[2].startswith("https://arxiv.org/abs/")


def test_times_in_options_are_those_of_the_row():
    """Fractions of training that are as many epochs in any length."""
    for name, epochs in (("swav-resnet50-200-batch256", 200), ("swav-resnet50-400-batch256", 400)):
        options = cli.request(["--config", name, "x"]).options
        assert options["queue_start"] * epochs == pytest.approx(15)
        assert options["freeze_prototypes"] * epochs == pytest.approx(1)
    warm = cli.request(["--config", "dino-vit_small-300", "x"]).options
    assert warm["temp_warmup"] * 300 == pytest.approx(30)
    assert warm["teacher_temp"] == (0.04, 0.07)


def test_a_word_wins_over_the_recipe():
    words = ["--config", "byol-resnet50-300", "x", "--epochs", "7", "--backbone", "resnet18"]
    asked = cli.request(words)
    assert asked.training["epochs"] == 7
    assert asked.training["batch"] == 4096
    assert asked.backbone == {"name": "resnet18", "size": 224}


def test_a_recipe_is_found_by_name_and_a_file_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="neither a file nor a recipe: did you mean byol-resnet50"):
        recipes.path_of("byol-resnet50")
    assert recipes.path_of("nothing") == "nothing"
    assert recipes.path_of("mine.yaml") == "mine.yaml"
    Path("swav-resnet50-100").write_text("method: simclr\n")
    assert config.load(recipes.path_of("swav-resnet50-100")) == {"method": "simclr"}


def test_recipes_are_listed(capsys):
    assert cli.main(["methods", "byol", "--recipes"]) == 0
    said = capsys.readouterr().out
    assert "byol-resnet50-300\n  BYOL (Grill et al., 2020); Table 5" in said
    assert "published: ImageNet linear 72.5" in said
    assert "swav" not in said
    assert cli.main(["methods", "--recipes", "--json"]) == 0
    assert {r["name"] for r in json.loads(capsys.readouterr().out)} == set(ROWS)
    assert cli.main(["methods", "hcl", "--recipes"]) == 0
    assert "there is no recipe of hcl" in capsys.readouterr().out
    assert cli.main(["methods", "byool", "--recipes"]) == 2
