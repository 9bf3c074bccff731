"""Which class an image is of by the folder that it lies in, or that links to it."""

import logging
import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from selftaught.data.labels import warn_of_spellings, warn_once

log = logging.getLogger("selftaught")

_SPLIT = (
    "training|trainval|train|validation|validate|valid|val|testing|test|development|dev|evaluation"
    "|eval|holdout|heldout|held|extra|unlabell?ed|unlab|labell?ed|unsupervised|supervised|query"
    "|gallery|folds?|splits?|shards?|chunks?|subsets?|batch(?:es)?|parts?|sets?|predictions?|pred"
)
_CONTENT = (
    "jpegimages|leftimg8bit|images|image|imgs|img|photos|pictures|pics|rgb|masks|mask|annotations"
    r"|annotation|annos|anns|labels|label|gt|gtfine|ground[\W_]?truth|segmentations|segmentation"
    "|bboxes|depth|inputs|targets"
)
_BESIDE = (
    "dataset|data|folder|folders|full|mini|small|public|private|original|raw|aug|augmented|seg|out"
    "|tr|ts|hr|lr|s|a|b|all"
)
_PART = re.compile(
    rf"(?:[\W\d_]|{_BESIDE})*(?:{_SPLIT}|{_CONTENT})(?:[\W\d_]|{_BESIDE}|{_SPLIT}|{_CONTENT})*"
)


_WORD = re.compile(r"(?<![a-z])(train|training|test|testing|val|valid|validation|dev)(?![a-z])")


def parts_of(names: Sequence[str]) -> list[str]:
    """Which folders are named as parts of a dataset: train2017, val_images, Test.

    A name with more in it is one where another differs in nothing but the part: my_train, my_test.
    """
    split = {name: _WORD.split(name.lower(), maxsplit=1) for name in names}
    around = {name: (s[0], s[2]) for name, s in split.items() if len(s) == 3}
    often = Counter(around.values())
    return [
        name
        for name in names
        if _PART.fullmatch(name.lower()) or often[around.get(name, ("", ""))] > 1
    ]


def class_folders(
    root: str,
    taken: Sequence[tuple[str, Sequence[str]]],
    linked: Mapping[int, set[str]],
    fresh: int,
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels from the first folder below the root, where two or more hold most of the images.

    Folders that are named as parts of a dataset are no classes, and that is told; one of that name
    among more that are not is. Where images lie in one pool, the folders that link to them are
    their classes.

    Args:
        root: for messages.
        taken: folders, relative to the root, with names of files; of links that were taken as
            images the folder is empty and the names are whole paths.
        linked: first folders of further links to an image, by its position.
        fresh: position of the first image that is itself a link.

    Returns:
        int64 [N] with -1 for images of no class, and the names; None and None without classes.
    """
    firsts = [
        first
        for relative, names in taken
        for first in (
            [relative.split("/", 1)[0]] * len(names)
            if relative
            else [name.split("/", 1)[0] if "/" in name else "" for name in names]
        )
    ]
    real = _classes(root, firsts)
    if linked and not real:
        firsts = _by_links(root, firsts, linked, fresh)
        real = _classes(root, firsts, most=False)
    elif linked:
        firsts = _doubtful(root, firsts, linked, fresh)
    if not real:
        return None, None
    warn_of_spellings(real, root)
    position = {name: i for i, name in enumerate(real)}
    return np.array([position.get(f, -1) for f in firsts], dtype=np.int64), real


def _classes(root: str, firsts: Sequence[str], most: bool = True) -> list[str]:
    """The names that are classes, sorted; none where there are not two."""
    names = sorted({f for f in firsts if f})
    inside = sum(f != "" for f in firsts)
    if len(names) < 2 or (most and 2 * inside <= len(firsts)):
        return []
    parts = parts_of(names)
    if 2 * len(parts) > len(names):
        others = sorted({*names} - {*parts})
        first = next((name for name in parts if "train" in name.lower()), parts[0])
        beside = f", so {', '.join(others)} beside them is no class either" if others else ""
        warn_once(
            f"the folders {_few(parts)} in {root} are parts of a dataset, not classes{beside}: no "
            f"labels; name one as the data, as {root}/{first}, and the other one with --test, "
            "or labels with --labels"
        )
        return []
    if len(parts) > 1:
        warn_once(
            f"the folders {_few(parts)} in {root} are taken for classes, as the other "
            f"{len(names) - len(parts)} are; if they are parts of a dataset, name one as the data"
        )
    elif parts:
        log.info("the folder %s in %s is taken for a class, as the others are", parts[0], root)
    return names


def _by_links(
    root: str, firsts: Sequence[str], linked: Mapping[int, set[str]], fresh: int
) -> list[str]:
    """The folder that links to each image, empty where none or more than one does."""
    folders = {f for each in linked.values() for f in each} | set(firsts[fresh:])
    found = [f if i >= fresh or f in folders else "" for i, f in enumerate(firsts)]
    doubtful = 0
    for i, each in linked.items():
        own = each | {found[i]} - {""}
        found[i] = next(iter(own)) if len(own) == 1 else ""
        doubtful += len(own) > 1
    if doubtful:
        warn_once(f"{doubtful:,} of the images in {root} are linked from several classes: no label")
    return found


def _doubtful(
    root: str, firsts: list[str], linked: Mapping[int, set[str]], fresh: int
) -> list[str]:
    """As `firsts`, but empty for images elsewhere that several of the folders link to."""
    other = [i for i, each in linked.items() if each - {firsts[i], ""}]
    kept = [i for i in other if i < fresh]
    if kept:
        warn_once(
            f"{len(kept):,} of the images in {root} are linked from another folder too "
            f"({_few(sorted(linked[kept[0]]))}): their class is the folder that they lie in"
        )
    if len(kept) < len(other):
        warn_once(
            f"{len(other) - len(kept):,} of the images in {root} are linked from several "
            "classes: no label"
        )
    lost = {i for i in other if i >= fresh}
    return ["" if i in lost else f for i, f in enumerate(firsts)]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
