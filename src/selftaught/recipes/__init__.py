"""Rows of papers' tables, each a file of settings: what its paper did where that is no default.

`selftaught pretrain --config byol-resnet50-300 imagenet/` repeats a row, `selftaught methods
--recipes` lists them, with what was published. The section `paper` says which row it is.
"""

from pathlib import Path
from typing import Any

from selftaught import config
from selftaught.errors import UserError


def files() -> dict[str, Path]:
    """The recipes, by name."""
    return {f.stem: f for f in sorted(Path(__file__).parent.glob("*.yaml"))}


def path_of(word: str) -> str:
    """The file that `--config` names, by its path or as a recipe.

    Raises:
        UserError: it is neither, and nearly the name of a recipe.
    """
    known = files()
    if Path(word).exists() or word.endswith((".yaml", ".yml")):
        return word
    if word not in known and (hint := config.near(word, known)):
        raise UserError(f"{word} is neither a file nor a recipe{hint}")
    return str(known.get(word, word))


def about(name: str) -> dict[str, Any]:
    """What a recipe is of, as plain values: name, method, title, row, published, source."""
    content = config.load(files()[name])
    return {"name": name, "method": content["method"], **content["paper"]}
