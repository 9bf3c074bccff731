"""What lies beside the samples and is left out: counted, named, and what can be done about it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from selftaught.data.image.decode import BadSample
from selftaught.data.image.formats import BESIDE, FRAMES, extension, way
from selftaught.printable import printable

if TYPE_CHECKING:
    from selftaught.data.source import Samples

log = logging.getLogger("selftaught")

LOOKED_AT = 64
"""Files that are asked for further pages or frames, evenly spread."""

_NAMES = 4096  # that are looked through for those that may have some
_BYTES = 256 << 20  # read for it at most


@dataclass(frozen=True)
class Skipped:
    """What was found beside the samples and left out, as counts."""

    ignored: Mapping[str, int] = field(default_factory=dict)  # by extension
    hidden: int = 0
    dangling: int = 0  # links that lead nowhere
    repeated: int = 0  # links to what is visited already
    unreadable: int = 0  # folders
    refused: Mapping[str, int] = field(default_factory=dict)  # by reason: links in archives ...
    empty: int = 0  # lines and rows

    def sentence(self) -> str:
        """The counts in words, empty where nothing was left out."""
        kinds = self._kinds()
        parts = [f"{count} {_shown(kind)}" for kind, count in kinds[:8]]
        parts += ["more kinds"] if len(kinds) > 8 else []
        for count, word in (
            (self.hidden, "hidden"),
            (self.dangling, "dangling links"),
            (self.repeated, "repeated links"),
            (self.unreadable, "unreadable folders"),
            (self.empty, "empty lines"),
        ):
            parts += [f"{count} {word}"] if count else []
        parts += [f"{count} {_shown(r)}" for r, count in sorted(self.refused.items())]
        return ", ".join(parts)

    def advice(self) -> str:
        """`sentence`, and what would make those readable that are known."""
        ways: dict[str, list[str]] = {}
        for kind, _ in self._kinds():
            if how := way(kind):
                ways.setdefault(how, []).append(kind)
        told = [f"{', '.join(kinds)}: {how}" for how, kinds in ways.items()]
        return "; ".join(part for part in (self.sentence(), *told) if part)

    def _kinds(self) -> list[tuple[str, int]]:
        known = sorted(self.ignored.items(), key=lambda item: (-item[1], item[0]))
        return sorted(known, key=lambda item: item[0] in BESIDE)  # the others are what matters

    @property
    def matters(self) -> bool:
        """Whether it may hold what somebody wanted to train on."""
        lost = self.dangling or self.unreadable or self.refused
        return bool(lost) or any(kind not in BESIDE for kind in self.ignored)


def tell(samples: "Samples") -> None:
    """Say in one line what of the data is left out, where anything is."""
    left, more = samples.skipped.advice(), further(samples)
    if left or more:
        level = logging.WARNING if more or samples.skipped.matters else logging.INFO
        log.log(level, "left out of the data: %s", "; ".join(p for p in (left, more) if p))


def further(samples: "Samples") -> str:
    """Of how many samples the first page or frame alone is read, in words; empty for none.

    Some are looked at where there are many.
    """
    if samples.source.numbered:
        return ""
    some = range(0, len(samples), max(1, len(samples) // _NAMES))
    may = [i for i in some if _may_have_frames(samples.name(i))]
    looked = several = pages = read = 0
    for i in may[:: -(-len(may) // LOOKED_AT) or 1]:
        try:
            raw = samples.source.load(i)
            found = samples.header_of(raw, samples.name(i)).frames
        except BadSample:  # training says so when it meets it
            continue
        looked, read = looked + 1, read + (len(raw) if isinstance(raw, bytes) else 0)
        several, pages = several + (found > 1), pages + found - 1
        if read > _BYTES:
            break
    if not several:
        return ""
    among = "" if looked == len(may) and len(some) == len(samples) else f" among {looked} looked at"
    return (
        f"{pages} further pages or frames in {several} files{among} (the first of each is read; "
        "save pages as files of their own, frames with `selftaught frames`)"
    )


def _may_have_frames(name: str) -> bool:
    return "::" in name or extension(name) in FRAMES  # members of tars go by their keys


def _shown(text: str) -> str:
    """A kind, whose letters come from names of files and may be any."""
    return printable(text) or "without extension"
