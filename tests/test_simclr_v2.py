"""SimCLRv2's three stages as commands, and what they are refused for."""

from pathlib import Path

import pytest
import torch
from PIL import Image as Picture

from selftaught import cli
from selftaught.engine.build import restored
from selftaught.engine.restore import begin_with
from selftaught.errors import UserError
from tests.cases import CASES
from tests.test_engine import labeled, photos, train

SMALL = [
    *("--backbone", "test_resnet", "--size", "32", "--batch", "8", "--workers", "0"),
    *("--no-evaluate", "--epochs", "1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of twelve photos."""
    root = tmp_path_factory.mktemp("photos")
    for i, pixels in enumerate(photos(24)):
        (root / "ab"[i % 2]).mkdir(exist_ok=True)
        Picture.fromarray(pixels).save(root / "ab"[i % 2] / f"{i}.png")
    return root


def test_three_stages_as_commands(folder, tmp_path):
    first, second, third = (str(tmp_path / n) for n in ("pretrained", "tuned", "distilled"))
    data = str(folder)
    assert cli.main(["pretrain", "simclr_v2", data, "--out", first, *SMALL]) == 0
    told = ["--out", second, "--start", first, "--lr", "1e-9", *SMALL]
    assert cli.main(["pretrain", "simclr_v2_finetune", data, *told]) == 0
    before, after = restored(first).state_dict(), restored(second).state_dict()
    kept = [n for n in after if n in before and "running" not in n and "num_batches" not in n]
    assert {n.split(".")[0] for n in kept} == {"backbone", "projector"}
    for name in kept:  # a rate of 1e-9 leaves them where the first stage had them
        torch.testing.assert_close(after[name], before[name], rtol=1e-4, atol=1e-6)

    taught = ["--out", third, "--teacher", second, *SMALL]
    assert cli.main(["pretrain", "distill", data, *taught]) == 0
    assert (Path(third) / "encoder.safetensors").exists()
    assert cli.main(["pretrain", "distill", data, *taught, "--epochs", "2", "--resume"]) == 0

    with pytest.raises(UserError, match="was itself taught by another network"):
        restored(third)


def test_the_teacher_stays_as_it_is():
    method = CASES["distill"].make("distill").train()
    assert not method.network.training
    assert not any(p.requires_grad for p in method.network.parameters())


def test_labels_are_asked_for_where_they_have_a_share(tmp_path):
    case = CASES["distill"]
    case = type(case)({**case.options, "alpha": 0.5})
    with pytest.raises(UserError, match="this data has no labels"):
        train(tmp_path / "run", "distill", photos(), case.make("distill"))


def test_slow_copies_begin_where_what_they_follow_does(tmp_path):
    train(tmp_path / "run", "supcon", labeled(photos()), epochs=1)
    method = CASES["moco_v2"].make("moco_v2")
    begin_with(method, tmp_path / "run")
    theirs = restored(tmp_path / "run").projector.state_dict()
    for part in (method.projector, method.target[1]):
        for name, value in part.state_dict().items():
            assert torch.equal(value, theirs[name])
    wider = type(CASES["moco_v2"])({"dim": 24, "queue": 12}).make("moco_v2")
    fresh = {k: v.clone() for k, v in wider.projector.state_dict().items()}
    begin_with(wider, tmp_path / "run")  # a head of other widths is new, and its slow copy with it
    for part in (wider.projector, wider.target[1]):
        assert all(torch.equal(x, fresh[name]) for name, x in part.state_dict().items())
    theirs = restored(tmp_path / "run").backbone.state_dict()
    for part in (wider.backbone, wider.target[0]):
        assert all(torch.equal(x, theirs[name]) for name, x in part.state_dict().items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["distill"], "name its folder with --teacher"),
        (["distill", "--teacher", "nowhere"], "nowhere holds no run"),
        (["simclr_v2_finetune", "--start", "nowhere"], "nowhere does not exist"),
        (["simclr_v2_finetune", "--kept", "-1"], "--kept must be at least 0, got -1"),
    ],
)
def test_what_is_missing_is_told(words, message, folder, tmp_path, capsys):
    words = ["pretrain", words[0], str(folder), *words[1:], "--out", str(tmp_path / "run"), *SMALL]
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_another_backbone_is_told(tmp_path):
    train(tmp_path / "run", epochs=1)
    method = type(CASES["simclr"])(CASES["simclr"].options, "test_vit").make("simclr")
    with pytest.raises(UserError, match="trained with another backbone"):
        begin_with(method, tmp_path / "run")
