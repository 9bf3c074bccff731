"""Where weights lie that a user names: a file, a folder, a name of a hub."""

from pathlib import Path

from selftaught.backbones.weights import hub
from selftaught.errors import UserError

TIMM, HUB, FOLDER = "timm", "hf-hub:", "local-dir:"
"""What stands for weights and is no path: timm's own, a repository of a hub, a folder."""
REPOSITORY = "models--timm--"
"""What folders of the hub's cache begin with that hold weights of timm's."""
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
    if word == TIMM and not Path(word).exists():
        raise UserError(
            f"{TIMM} stands for the weights that timm has for a backbone, and is no file: name one "
            f"as {HUB}timm/NAME"
        )
    if word.startswith(HUB):
        return _within(hub.fetch(word.removeprefix(HUB)), word)
    path = Path(word.removeprefix(FOLDER))
    if not path.exists():
        raise UserError(
            f"{path} does not exist, and so cannot be read; --weights takes a file, a folder, "
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
