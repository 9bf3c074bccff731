"""A wrong backbone is told at once, from a list that must be that of the installed timm."""

import subprocess
import sys

import pytest
import timm

from selftaught import timm_names
from selftaught.cli import request
from selftaught.errors import UserError

RENEW = (
    "python -c 'import timm; print(timm.__version__, *timm.list_models(), sep=chr(10))' > "
    f"{timm_names.FILE}"
)


def test_the_list_is_that_of_the_installed_timm():
    content = "\n".join([timm.__version__, *timm.list_models()]) + "\n"
    assert timm_names.FILE.read_text() == content, RENEW


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("resnet81", "did you mean resnet18"),
        ("RESNET18", "did you mean resnet18"),
        ("vit-small-patch16-224", "did you mean vit_small_patch16_224"),
        ("vit_small_patch16_244.dino", "did you mean vit_small_patch16_224"),
        ("convnext", "did you mean convnext"),
        ("xyz", "such as resnet18"),
        ("", "such as resnet18"),
    ],
)
def test_an_unknown_name_is_told_with_those_that_are_near(word, hint):
    with pytest.raises(UserError, match=hint):
        timm_names.check(word)


@pytest.mark.parametrize("name", ["resnet18", "vit_small_patch16_224.dino"])
def test_a_known_name_passes(name):
    timm_names.check(name)


def test_another_timm_is_asked_itself(monkeypatch):
    monkeypatch.setattr(timm_names, "version", lambda _: "99.0")
    timm_names.check("a_model_of_the_future")


def test_the_command_line_says_no_without_torch(tmp_path):
    code = (
        "import sys; from selftaught.cli import main; "
        f"code = main(['pretrain', 'simclr', {str(tmp_path)!r}, '--backbone', 'resnet81']); "
        "assert not {'torch', 'timm', 'numpy'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "no backbone is called 'resnet81'" in done.stderr


def test_a_name_in_a_file_of_settings_is_looked_at_too(tmp_path):
    (tmp_path / "c.yaml").write_text("method: simclr\ndata: photos\nbackbone: resnet81\n")
    with pytest.raises(UserError, match="no backbone is called 'resnet81'"):
        request(["--config", str(tmp_path / "c.yaml")])
