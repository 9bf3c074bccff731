"""Weights that earlier downloads have left in the caches of timm and torch: told of by their names
and shapes, without a network and without running anything that they hold.
"""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from selftaught import timm_names
from selftaught.backbones.weights import hub
from selftaught.backbones.weights.header import code_of, header
from selftaught.backbones.weights.networks import backbones, likeliest
from selftaught.backbones.weights.normalization import content
from selftaught.backbones.weights.places import ENDINGS, HUB, REPOSITORY
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

PARTS = (".partial", ".incomplete")
"""Endings of what a download that was stopped leaves."""


class Found(NamedTuple):
    """word: what `--weights` takes. network: timm's name. numbers: of the encoder."""

    word: str
    network: str
    numbers: int


def at_hand() -> list[Found]:
    """The networks in the caches, the largest first.

    What is there and cannot be used is told with the reason, and left alone.
    """
    found = []
    for name, files in [*_of_hub(), *_of_torch()]:
        try:
            found.append(_first(name, files))
        except (UserError, OSError) as error:
            log.info("passed over in the caches of weights: %s", error)
    return sorted(found, key=lambda f: (-f.numbers, f.word))


def _of_hub() -> Iterator[tuple[str, list[Path]]]:
    """Repositories of timm in the hub's cache, and the files of each, what is current first."""
    import huggingface_hub.constants as known

    for folder in sorted(Path(known.HF_HUB_CACHE).glob(f"{REPOSITORY}*")):
        revisions = sorted(folder.glob("snapshots/*"), key=_age)
        name = folder.name.removeprefix(REPOSITORY)
        now = hub.cached_file(f"timm/{name}")
        every = [r / file for r in revisions for file in hub.FILES[:2]]
        there = [f for f in every if f.is_symlink() or f.exists()]  # a link may lead nowhere
        yield name, sorted(there, key=lambda f: f != now)


def _age(path: Path) -> float:
    return -path.lstat().st_mtime


def _of_torch() -> Iterator[tuple[str, list[Path]]]:
    """Files that torch has downloaded, which have no other name."""
    import torch

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    for path in sorted(folder.glob("*")):
        if path.suffix in ENDINGS:
            yield "", [path]
        elif path.suffix in PARTS:
            log.info("passed over in the caches of weights: %s is a part of a download", path)


def _first(name: str, files: Sequence[Path]) -> Found:
    """The first of the files that can be used.

    Args:
        name: of a repository of timm's, which begins with that of its network; empty for none.
        files: of it.

    Raises:
        UserError: none of them can, for the reason that the first has.
    """
    reasons = []
    for path in files:
        try:
            return _told(name, path)
        except UserError as error:
            reasons.append(error)
    if reasons:
        raise reasons[0]
    raise UserError(f"timm/{name} has no file of weights; its download may have been stopped")


def _told(name: str, path: Path) -> Found:
    if not path.exists():
        raise UserError(f"{path} leads to a file that is not there any more")
    found = header(path)
    own, layout, prefix = likeliest(found.tensors)
    names = backbones(own, layout)
    said = str(content(path.parent / "config.json").get("architecture") or name.partition(".")[0])
    network = (said if name else "") or next(iter(names), "")
    if prefix or not own or network not in timm_names.known()[1]:
        raise UserError(f"{path} is of no network that is known by its name or its size")
    if names and network not in names:
        raise UserError(f"{path} is called {network}, and holds weights of {names[0]}")
    if code := code_of(found.objects):
        raise UserError(f"{path} names code ({code[0]})")
    current = name and hub.cached_file(f"timm/{name}") == path
    word = f"{HUB}timm/{name}" if current else str(path)
    return Found(word, network, sum(t.count for t in own.values()))
