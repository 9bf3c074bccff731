"""Names of timm's models, from a list: importing timm to refuse a typo would take seconds.

A test says when the list must be renewed, and how.
"""

import difflib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from .errors import UserError

FILE = Path(__file__).parent / "timm_models.txt"


@cache
def known() -> tuple[str, frozenset[str]]:
    """Version of timm that the list is of, and the names of its models."""
    written, *names = FILE.read_text(encoding="utf-8").split()
    return written, frozenset(names)


def check(name: str) -> None:
    """Refuse what is no model of timm, where the installed timm is the one of the list.

    A tag of weights may follow the name, such as in vit_small_patch16_224.dino.

    Raises:
        UserError: no such model; the message has the nearest names.
    """
    written, names = known()
    if written == version("timm") and name.partition(".")[0] not in names:
        raise unknown(name)


def unknown(name: str) -> UserError:
    """The error for a name that no model has, with those that are near."""
    _, names = known()
    word = name.lower().replace("-", "_").partition(".")[0]
    begun = sorted((n for n in names if len(word) > 3 and n.startswith(word)), key=len)
    near = [word] if word in names else (begun or difflib.get_close_matches(word, names, 3, 0.75))
    hint = f": did you mean {' or '.join(near[:3])}?" if near else ", such as resnet18"
    return UserError(f"no backbone is called {name!r}{hint}")
