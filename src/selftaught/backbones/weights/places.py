"""Where weights lie that a user names: a file, a folder, a name of a hub."""

import json
from pathlib import Path

from selftaught.backbones.weights import hub
from selftaught.errors import UserError

TIMM, HUB, FOLDER = "timm", "hf-hub:", "local-dir:"
"""What stands for weights and is no path: timm's own, a repository of a hub, a folder."""
ENCODER = "encoder.safetensors"
USUAL = (ENCODER, *hub.FILES, "pytorch_model.bin.index.json")
"""Names of weights in a folder, of which the first counts."""
ENDINGS = (".safetensors", ".pth", ".pt", ".ckpt", ".bin")


def located(weights: str | Path) -> Path:
    """The file that a path, a folder or a name of weights stands for.

    Raises:
        UserError: there is none, or several.
    """
    word = str(weights)
    if word.startswith(HUB):
        return _within(hub.fetch(word.removeprefix(HUB)), word)
    path = Path(word.removeprefix(FOLDER))
    if not path.exists():
        raise UserError(
            f"{path} cannot be read (it does not exist); --weights takes a file, a folder, "
            f"{HUB}ORGANIZATION/NAME or {TIMM}"
        )
    return _within(path, word) if path.is_dir() else path


def _within(folder: Path, word: str) -> Path:
    for name in USUAL:
        if (folder / name).is_file():
            return folder / name
    steps = sorted((folder / "checkpoints").glob("step-*.pt"))
    if steps:
        return max(steps, key=lambda p: (len(p.name), p.name))
    found = sorted(p for p in folder.iterdir() if p.suffix in ENDINGS and p.is_file())
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(p.name for p in found[:5])
        raise UserError(f"{word} holds several files of weights ({names}): name one of them")
    raise UserError(
        f"{word} is a folder without weights ({', '.join(USUAL[:3])}, or one file that ends in "
        f"{', '.join(ENDINGS)}); name the file itself"
    )


def shards(index: Path) -> list[Path]:
    """The files that an index of weights in several files names.

    Raises:
        UserError: it is damaged, or a file is missing.
    """
    try:
        names = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
        files = [index.parent / Path(name).name for name in sorted(names)]
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise UserError(f"{index} is no index of weights ({error}); copy it again") from error
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise UserError(f"{index} names {', '.join(absent[:3])}, not there; copy all of its files")
    return files
