"""The error for data that is not there. Nothing heavy is imported."""

import difflib
from pathlib import Path

from selftaught.errors import UserError


def missing(path: Path) -> UserError:
    """The error for a path that does not exist, with the nearest one that does."""
    parent = path.parent
    while not parent.is_dir() and parent != parent.parent:
        parent = parent.parent
    child = path.parts[len(parent.parts)] if len(path.parts) > len(parent.parts) else path.name
    try:
        near = difflib.get_close_matches(child, [p.name for p in parent.iterdir()], 1, 0.6)
    except OSError:
        near = []
    hint = f": did you mean {parent / near[0]}?" if near else ""
    return UserError(
        f"{path} does not exist{hint or f'; there is nothing of that name in {parent}'}"
    )
