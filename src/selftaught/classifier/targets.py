"""What labels are, told from how they are written: classes, several names an image, or amounts."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from selftaught.data import Samples
from selftaught.data.files import only_folder
from selftaught.data.labels import match, names_of, warn_once
from selftaught.data.selection import select
from selftaught.errors import UserError
from selftaught.evaluate.scores import few, unlike

Kind = Literal["classes", "multilabel", "regression"]

DIVIDERS = re.compile(r"[;|]")
"""What stands between several names in one cell."""

AMOUNTS = 10
"""Different numbers, some of them fractions, above which labels are amounts and no classes."""

MOSTLY = 0.9
"""Share of different labels that are numbers with fractions above which the others are taken for
slips, and told."""

COMMA = re.compile(r"(?<=\d),(?=\d+$)")
"""What divides a whole number from its fraction in many countries."""

VALUE = "value"
"""What an amount is called."""


@dataclass(frozen=True)
class Target:
    """What is to be predicted.

    kind: of it. names: of the classes; one of an amount. why: how it was told from the labels.
    """

    kind: Kind
    names: tuple[str, ...]
    why: str = ""

    @property
    def said(self) -> str:
        """The task in words."""
        if self.kind == "regression":
            return "amounts"
        many = "an image has one" if self.kind == "classes" else "an image may have several"
        return f"{len(self.names)} classes, of which {many} ({few(self.names)})"


def texts(samples: Samples) -> list[str | None]:
    """The label of each sample as it was written; None where it has none."""
    if samples.labels is None:
        return [None] * len(samples)
    labels = np.asarray(samples.labels)
    names = names_of(labels, samples.classes)
    return [names[int(code)] if code >= 0 else None for code in labels]


def known(samples: Samples) -> np.ndarray:
    """Positions of the samples that have a label."""
    return np.array([i for i, text in enumerate(texts(samples)) if text is not None], np.int64)


def labeled(samples: Samples) -> Samples:
    """The samples that have a label; UserError where none has."""
    rows = known(samples)
    if not len(rows):
        raise UserError("the test images have no labels: name a CSV or a column with --labels")
    return samples if len(rows) == len(samples) else select(samples, rows)


def told(samples: Samples, kind: Kind | None = None) -> Target:
    """What the labels of `samples` are, or are as `kind` of.

    Raises:
        UserError: there are none, too few of them, or they are not of this kind.
    """
    written = [t for t in texts(samples) if t is not None]
    if not written:
        if folder := only_folder(samples):
            raise UserError(
                f"all {len(samples):,} images are in one folder, {folder}, and a classifier tells "
                "classes apart and needs two at least: put images of another class into a folder "
                f"beside {folder}, or name a column or a CSV of path,label with --labels"
            )
        raise UserError(
            "a classifier needs labels, and this data has none: sort the images into one folder a "
            "class, or name a column or a CSV of path,label with labels"
        )
    different = sorted(set(written))
    found, why = (kind, "as asked") if kind else _kind(different)
    if found == "regression":
        _amounts(different)
        if len(different) < 2:
            raise UserError(f"all {len(written)} labels are {different[0]}: nothing to predict")
        return Target(found, (VALUE,), why)
    if found == "multilabel":
        names = tuple(sorted({part for text in different for part in _parts(text)}))
        if not names:
            raise UserError("none of the labels names anything")
        return Target(found, names, why)
    codes = names_of(np.asarray(samples.labels), samples.classes)
    names = tuple(dict.fromkeys(codes.values()))
    if len(names) < 2:
        raise UserError(
            f"all {len(written)} labeled images are of one class ({names[0]}): a classifier tells "
            "classes apart and needs two at least"
        )
    return Target(found, names, why)


def _kind(different: list[str]) -> tuple[Kind, str]:
    """What labels are, and why: `different` is each way in which one was written."""
    numbers = [_number(t) for t in different]
    if all(n is not None for n in numbers):
        whole = all(n is not None and n.is_integer() for n in numbers)
        if not whole and len(different) > AMOUNTS:
            return "regression", f"the labels are {len(different)} different numbers with fractions"
        often = whole and len(different) > AMOUNTS
        hint = "; where they are amounts, say so with --target regression" if often else ""
        return "classes", f"the labels are {len(different)} different numbers{hint}"
    _refuse_slips(different)
    parts = [_parts(t) for t in different]
    seen = Counter(name for each in parts for name in each)
    several = [each for each in parts if len(each) != 1]
    if several and any(seen[name] > 1 for each in several for name in each):
        return "multilabel", f"some labels are several names, such as {' and '.join(several[-1])}"
    return "classes", f"the labels are {len(different)} names"


def _refuse_slips(different: list[str]) -> None:
    """Refuse labels that are amounts but for how some are written: each would be a class."""
    meant = [_number(COMMA.sub(".", t)) for t in different]
    numbers = [n for n in meant if n is not None]
    most = len(numbers) > AMOUNTS and len(numbers) >= MOSTLY * len(different)
    if most and not all(n.is_integer() for n in numbers):
        slips = [t for t in different if _number(t) is None]
        raise UserError(
            f"{len(numbers)} of {len(different)} different labels are numbers, some of them with "
            f"fractions, and {few(slips)} cannot be read as one: if they are amounts, leave such "
            "cells empty and write fractions with a point, as 1.5; if not, say --target classes"
        )


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _parts(text: str) -> list[str]:
    """The names in a label, each once."""
    return list(dict.fromkeys(p.strip() for p in DIVIDERS.split(text) if p.strip()))


def _amounts(written: Iterable[str]) -> list[float]:
    values = [(t, _number(t)) for t in written]
    wrong = [t for t, v in values if v is None]
    if wrong:
        raise UserError(
            f"{few(wrong)}: no number that a regression can learn; leave such labels empty, write "
            "a fraction with a point, or choose --target classes"
        )
    return [v for _, v in values if v is not None]


def values(samples: Samples, target: Target) -> np.ndarray:
    """The labels of samples that all have one, as numbers.

    Returns:
        int64 [N] positions among the names of a target of classes, -1 for others; float64 [N, C]
        of 0 and 1; float64 [N] amounts.

    Raises:
        UserError: the labels are of another kind, or none is among the names.
    """
    if target.kind == "classes":
        ours = names_of(np.asarray(samples.labels), samples.classes)
        found, otherwise = match(ours, dict(enumerate(target.names)))
        if not found:
            raise UserError(unlike(ours.values(), target.names, "test images"))
        if otherwise:
            warn_once(f"classes are taken by their number or spelling: {few(otherwise)}")
        lost = [name for code, name in ours.items() if code not in found]
        if lost:
            warn_once(
                f"{few(lost)}: no training image is of these classes, and the test images that "
                "are count as wrong"
            )
        return np.array([found.get(int(c), -1) for c in np.asarray(samples.labels)], np.int64)
    written = [t for t in texts(samples) if t is not None]
    if target.kind == "regression":
        return np.array(_amounts(written))
    position = {name: i for i, name in enumerate(target.names)}
    rows = np.zeros((len(written), len(position)))
    strange: set[str] = set()
    for row, text in enumerate(written):
        for name in _parts(text):
            if name in position:
                rows[row, position[name]] = 1
            else:
                strange.add(name)
    if strange:
        warn_once(
            f"{few(sorted(strange))}: no training image has these names, so they are left out"
        )
    if not rows.any():
        raise UserError(unlike(sorted(strange), target.names, "test images"))
    return rows


def counts(given: np.ndarray, target: Target) -> dict[str, int]:
    """How many images of each name there are."""
    if target.kind == "regression":
        return {}
    if target.kind == "classes":
        each = np.bincount(given[given >= 0], minlength=len(target.names))
    else:
        each = given.sum(0)
    return {name: int(n) for name, n in zip(target.names, each, strict=True)}


def strata(given: np.ndarray, target: Target) -> np.ndarray:
    """Groups of which each part of the data is to have its share.

    Of several names the rarest that an image has; of amounts tenths of their order.
    """
    if target.kind == "classes":
        return given
    if target.kind == "multilabel":
        often = given.sum(0)
        rarest = np.where(given > 0, often, np.inf).argmin(1)
        return np.where(given.any(1), rarest, given.shape[1])
    return np.argsort(np.argsort(given, kind="stable"), kind="stable") * 10 // max(len(given), 1)
