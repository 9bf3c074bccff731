"""Labels as people write them: numbers, names, and what stands for none.

A label always has a name, and that of a number is its digits: two datasets may number the same
classes otherwise, so labels of one are found in another by name alone (`match`).
"""

import logging
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

log = logging.getLogger("selftaught")

MISSING = frozenset({"", "nan", "none", "null", "na", "n/a", "<na>"})
"""What stands for no label, in small letters: what spreadsheets and pandas write."""

_WHOLE = re.compile(r"([+-]?)0*([0-9]+?)(?:\.0*)?")
_BETWEEN = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")
_LARGEST = 2**16
"""Numbers from here on are names: nobody numbers so many classes one by one."""


@cache
def warn_once(sentence: str) -> None:
    """Warn; what was said before is not repeated, however often the data is opened."""
    log.warning("%s", sentence)


_TOLD = [True]


@contextmanager
def without_labels() -> Iterator[None]:
    """A block that opens data of which nobody wants labels: nothing is said of them."""
    before, _TOLD[0] = _TOLD[0], False
    try:
        yield
    finally:
        _TOLD[0] = before


def tell_unlabeled(where: object, names: Iterable[str], what: str = "column") -> None:
    """Say that none of the columns, or of what else there is, is called as labels are."""
    if not _TOLD[0]:
        return
    log.info(
        "no %s of %s is known to hold labels (%s): --labels names one",
        what,
        where,
        ", ".join(names),
    )


def as_text(value: Any) -> str:
    """A label as text: `1.0` is 1, and what is no number or no value is nothing.

    Several labels of one image, as a list, stand side by side, divided by `;`. An empty list is a
    lone `;`, which says that none of the names fits; a missing value says nothing.
    """
    if isinstance(value, list | tuple):
        return ";".join(map(as_text, value)) or ";"
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # a scalar of NumPy or torch
        value = value.item()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def encode(texts: Iterable[str], where: str = "the labels") -> tuple[np.ndarray, list[str] | None]:
    """Numbers of labels, and the names of the numbers.

    Whole numbers from 0 to 65,535 stay as they are; other numbers, and names, are numbered in their
    order. -1 is a class where it has but one other beside it, as 1, or another below 0; otherwise
    it stands for no label, and that is told.

    Args:
        texts: of N samples, as `as_text` gives them; what is in `MISSING` is no label.
        where: whose labels they are, for messages.

    Returns:
        int64 [N], -1 where there is no label; names, or None where they are the digits.
    """
    texts = list(texts)
    known = {t for t in texts if t.lower() not in MISSING}
    words = sorted({t for t in texts if t and t not in known})
    if words and known:
        lost = sum(t in words for t in texts)
        warn_once(
            f"{lost:,} labels of {where} read {' or '.join(words)} and count as none; give a class "
            "of that name another one"
        )
    number = {t: _digits(t) for t in known}
    if all(number.values()):
        return _numbers(texts, {t: d for t, d in number.items() if d is not None}, where)
    names = sorted(known)
    warn_of_spellings(names, where)
    position = {name: i for i, name in enumerate(names)}
    return np.array([position.get(t, -1) for t in texts], dtype=np.int64), names


def _digits(name: str) -> str | None:
    """A whole number without what may be left out (`+`, `007`, `.0`); None for another name.

    As text, because a number may be longer than any type has room for.
    """
    found = _WHOLE.fullmatch(name)
    if found is None:
        return None
    return "-" + found[2] if found[1] == "-" and found[2] != "0" else found[2]


def _numbers(
    texts: list[str], number: dict[str, str], where: str
) -> tuple[np.ndarray, list[str] | None]:
    known = set(number.values())
    others = known - {"-1"}
    if "-1" in known and len(others) != 1 and not any(d[0] == "-" for d in others):
        known = others
        if others:
            lost = sum(number.get(t) == "-1" for t in texts)
            warn_once(
                f"{lost:,} of {len(texts):,} labels of {where} are -1 and count as none, beside "
                f"{len(others)} classes; where -1 is a class too, write it as a name, as neg"
            )
    elif "-1" in known:
        log.info("-1 among the labels of %s is a class, as %s is", where, ", ".join(sorted(others)))
    twice = [t for t, d in number.items() if d in number and t.partition(".")[0] != d]
    if twice:
        warn_once(f"{twice[0]} and {number[twice[0]]} of {where} are one number, and one class")
    if all(d[0] != "-" and len(d) < 6 and int(d) < _LARGEST for d in known):
        value = {t: int(d) for t, d in number.items() if d in known}
        return np.array([value.get(t, -1) for t in texts], dtype=np.int64), None
    names = sorted(known, key=_ascending)
    position = {name: i for i, name in enumerate(names)}
    places = {t: position[d] for t, d in number.items() if d in known}
    return np.array([places.get(t, -1) for t in texts], dtype=np.int64), names


def _ascending(digits: str) -> tuple[bool, int, str]:
    """A key that sorts numbers of any length."""
    size = digits.lstrip("-")
    if size == digits:
        return True, len(size), size
    return False, -len(size), size.translate(str.maketrans("0123456789", "9876543210"))


def coded(
    texts: Iterable[str], classes: Sequence[str], where: str
) -> tuple[np.ndarray, list[str] | None]:
    """Numbers of labels whose names a schema lists, by position; below 0 is no label."""
    texts = list(texts)
    lost = sum(t.startswith("-") for t in texts)
    if lost:
        warn_once(f"{lost:,} of {len(texts):,} labels of {where} are -1 and count as none")
    numbers = np.array([int(t) if t else -1 for t in texts], dtype=np.int64).clip(min=-1)
    most = int(numbers.max(initial=-1))
    if most < len(classes):
        return numbers, list(classes)
    warn_once(
        f"the labels of {where} go up to {most}, and its schema names {len(classes)} classes: "
        "their names are left out"
    )
    return numbers, None


def name_of(code: int, classes: Sequence[str] | None) -> str:
    """The name of a label: its digits where it has no other."""
    return classes[code] if classes is not None and code < len(classes) else str(code)


def names_of(labels: np.ndarray, classes: Sequence[str] | None) -> dict[int, str]:
    """Names of the labels that occur, -1 aside, by ascending number."""
    return {int(c): name_of(int(c), classes) for c in np.unique(labels) if c >= 0}


def match(ours: Mapping[int, str], theirs: Mapping[int, str]) -> tuple[dict[int, int], list[str]]:
    """Which label of another dataset each of ours is, by name.

    Where a name is not there but the same number in other digits (01 and 1), or the same word in
    another spelling is (Red_cup and red cup), it is taken, unless more than one could be meant.

    Returns:
        Our numbers -> theirs, those alone that both have; ours that were found otherwise than by
        name, as `01 as 1`.
    """
    position: dict[str, int] = {}
    for code, name in theirs.items():
        position.setdefault(name, code)
    found = {code: position[name] for code, name in ours.items() if name in position}
    left: dict[str, list[int]] = {}
    for code, name in ours.items():
        if code not in found:
            left.setdefault(_spelled(name), []).append(code)
    taken: dict[str, list[int]] = {}
    for name, code in position.items():
        taken.setdefault(_spelled(name), []).append(code)
    used, otherwise = set(found.values()), []
    for spelled, codes in left.items():
        there = taken.get(spelled, [])
        if len(codes) == len(there) == 1 and there[0] not in used:
            found[codes[0]] = there[0]
            otherwise.append(f"{ours[codes[0]]} as {theirs[there[0]]}")
    return found, otherwise


def _spelled(name: str) -> str:
    """A name without what people and file systems write differently; a number's digits.

    That is the case, how a letter and its accent are coded, and spaces, `_` or `-` between words.
    """
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).strip()
    return _digits(name) or _BETWEEN.sub(" ", text)


def warn_of_spellings(names: Iterable[str], where: str) -> None:
    """Warn of classes of one dataset whose names are one word, as cat and Cat."""
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_spelled(name), []).append(name)
    for twice in alike.values():
        if len(twice) > 1:
            warn_once(
                f"{' and '.join(map(repr, twice))} of {where} are {len(twice)} classes, and differ "
                "in spelling alone; if they are one, call them alike"
            )
