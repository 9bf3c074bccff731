"""Images in WebDataset tars, read by offset: the same random access and exact resume as a folder.

Headers are scanned once. Only images, `.cls` and `.json` members are looked at; whatever else a
shard holds (code, links, devices) is counted and left. What an index lists (`indexed`) is mapped.
"""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from itertools import groupby, islice
from typing import final

import numpy as np

from selftaught.data.columns import Columns, Gathered, Labels
from selftaught.data.image.decode import BadSample
from selftaught.data.image.formats import IMAGE, extension
from selftaught.data.labels import as_text, encode, warn_once
from selftaught.data.ranges import Ranges
from selftaught.data.skipped import Skipped
from selftaught.data.source import Source
from selftaught.data.tar import Member, members, once
from selftaught.errors import UserError

BLOCK = 4 << 20
"""Bytes of neighbors that are read together where they are shuffled by blocks, and fetched at once
from afar."""

_AT_ONCE = 8  # shards that are scanned: it is the network file systems that need them
_MAX_TEXT = 1 << 20
_PREFERRED = (".jpg", ".jpeg", ".png", ".webp")  # where a key has several images
_RANK = {e: i for i, e in enumerate(_PREFERRED)}
_PIECE = 1 << 13  # samples that are hashed at a time


@final
class TarSource(Source):
    """Images in shards.

    Args:
        paths: of the shards.
        columns: where the samples lie.
        ranges: reads them.
        classes: names of the labels.
        skipped: what was left out.
        known: the fingerprint, where an index holds it.
    """

    def __init__(
        self,
        paths: Sequence[str],
        columns: Columns,
        ranges: Ranges,
        classes: list[str] | None = None,
        skipped: Skipped = Skipped(),  # noqa: B008
        known: str | None = None,
    ):
        self.paths, self.columns, self.ranges = list(paths), columns, ranges
        self.labels, self.classes, self.skipped, self.known = (
            columns.labels,
            classes,
            skipped,
            known,
        )
        self.shown = shown(self.paths)
        if "://" in self.paths[0]:
            self.fetched = int(columns.sizes.sum(dtype=np.int64))

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "labels": None}  # which come with the columns

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self.labels = self.columns.labels

    def __len__(self) -> int:
        return len(self.columns)

    def load(self, i: int) -> bytes:
        shard, offset, size = self._place(i)
        data = self.ranges.read(self.paths[shard], offset, size)
        if len(data) < size:
            raise BadSample(f"is cut off: {self.paths[shard]} ends early")
        return data

    def name(self, i: int) -> str:
        return f"{self.shown[self.columns.shards[i]]}::{os.fsdecode(self.columns.keys[i].as_py())}"

    def fingerprint(self) -> str:
        return self.known or fingerprint(self.shown, self.columns)

    def stamp(self, i: int) -> str:
        """A shard that was written again has another time, and so have all of its samples."""
        shard, offset, size = self._place(i)
        (found,) = self.ranges.facts([self.paths[shard]])
        return f"{offset} {size} {found.stamp}"

    def blocks(self) -> np.ndarray:
        """Neighbors in a shard, of which each begins within the same `BLOCK` bytes."""
        where = self.columns
        first = np.ones(len(self), bool)
        for a in range(0, len(self), _PIECE):
            here = slice(a, a + _PIECE + 1)
            shards, blocks = where.shards[here], where.offsets[here] // BLOCK
            first[a + 1 : a + len(shards)] = (np.diff(shards) != 0) | (np.diff(blocks) != 0)
        return np.append(np.flatnonzero(first)[1:], len(self)).astype(np.int64)

    def _place(self, i: int) -> tuple[int, int, int]:
        where = self.columns
        return int(where.shards[i]), int(where.offsets[i]), int(where.sizes[i])


def shown(paths: Sequence[str]) -> list[str]:
    """Paths, or addresses, from the folder on that all of them lie in."""
    if any("://" in path for path in paths):
        below = [path.partition("://")[2] for path in paths]
        root = os.path.commonpath([os.path.dirname(path) for path in below])
        return [path.removeprefix(root).lstrip("/") for path in below]
    whole = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in whole])
    return [os.path.relpath(path, root) for path in whole]


def fingerprint(shown: Sequence[str], columns: Columns) -> str:
    """16 hexadecimal digits over the names of shards and samples, and their sizes: `digest` of
    these, a piece at a time."""
    state = blake2b(digest_size=8)

    def part(size: int, pieces: Iterator[bytes]) -> None:
        state.update(size.to_bytes(8))
        for piece in pieces:
            state.update(piece)

    def pieces() -> Iterator[slice]:
        return (slice(a, a + _PIECE) for a in range(0, len(columns), _PIECE))

    def keys() -> Iterator[bytes]:
        for here in pieces():
            text = b"\n".join(columns.keys[here].to_pylist())
            yield text if here.start == 0 else b"\n" + text

    count = len(columns)
    for text in (str(count), "\n".join(shown)):
        data = text.encode("utf-8", "surrogateescape")
        part(len(data), iter([data]))
    part(sum(len(text) for text in keys()), keys())
    part(4 * count, (columns.shards[here].tobytes() for here in pieces()))
    part(8 * count, (columns.sizes[here].astype(np.int64).tobytes() for here in pieces()))
    return state.hexdigest()


# --------------------------------------------------------------------------------------- scanning


class Scan:
    """Finds the samples of shards.

    Args:
        ranges: reads the shards.
        column: ending of the images in a shard, where it is not found by itself.
        labels: field of the `.json` members; those of `.cls` members where that is None.
        suffixes: endings of images.

    Attributes:
        refused, ignored: what was left out.
        labels: of all that was scanned.
    """

    def __init__(
        self,
        ranges: Ranges,
        column: str | None,
        labels: str | None,
        suffixes: frozenset[str] = IMAGE,
    ):
        self.ranges, self.field, self.suffixes = ranges, labels, suffixes
        self.wanted = f".{column.lstrip('.').lower()}" if column else None
        self.about = ".json" if labels else ".cls"
        self.refused: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self.labels = Labels()

    @property
    def skipped(self) -> Skipped:
        return Skipped(ignored=dict(+self.ignored), refused=dict(+self.refused))

    def parts(self, paths: Sequence[str], sizes: Sequence[int]) -> Iterator[Gathered]:
        """The samples of each shard, in order; a few shards are scanned at a time."""
        left = iter(zip(paths, sizes))
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while some := list(islice(left, _AT_ONCE)):
                for chosen, refused in pool.map(lambda shard: self._part(*shard), some):
                    chosen.tell()
                    self.refused += refused
                    self.ignored += chosen.ignored
                    self.labels.met |= chosen.met
                    yield chosen.part

    def _part(self, path: str, size: int) -> "tuple[_Choice, Counter[str]]":
        """The samples of one shard, and what was refused of it."""
        chosen = _Choice(self, path)
        refused: Counter[str] = Counter()
        found = members(lambda at, n: self.ranges.read(path, at, n), size, refused, path)
        marks = bytearray()  # of each key: whether one comes back later on
        for key, together in groupby(filter(chosen.seen, found), key_of):
            marks += hash(key).to_bytes(8, signed=True)
            first, *more = together
            if more or not chosen.take_one(key, first):
                chosen.take(once((first, *more), refused))
        numbers = np.frombuffer(marks, np.int64)
        if len(np.unique(numbers)) < len(numbers):
            # members of one key do not lie together: all must be looked at before any is chosen
            chosen, refused = _Choice(self, path), Counter[str]()
            found = members(lambda at, n: self.ranges.read(path, at, n), size, refused, path)
            chosen.take(list(filter(chosen.seen, once(found, refused))))
        return chosen, refused

    def numbers(self, texts: np.ndarray, where: str) -> tuple[np.ndarray | None, list[str] | None]:
        """Labels int64 [N] and their names, by numbers of texts int32 [N]; None where there are
        none.

        Raises:
            UserError: a field was asked for that no sample has.
        """
        found: tuple[np.ndarray | None, list[str] | None] = None, None
        if self.labels.met and len(self.labels.number) > 1:
            found = encode(self.labels.of(texts), where)
        if self.field is not None and found[0] is None and len(texts):
            raise UserError(f"no .json member of {where} has a field {self.field}: no labels there")
        return found

    def text(self, path: str, member: Member | None) -> str:
        """The label that lies in a member."""
        if member is None or member.size > _MAX_TEXT:
            return ""
        content = self.ranges.read(path, member.offset, member.size)
        if len(content) < member.size:
            raise BadSample(f"is cut off: {path} ends early")
        if self.field is None:
            return as_text(content)
        try:
            found = json.loads(content, parse_int=str)  # a label may have any number of digits
        except (ValueError, RecursionError):
            return ""
        return as_text(found.get(self.field)) if isinstance(found, dict) else ""


def key_of(member: Member) -> str:
    """WebDataset's key: the path up to the first dot of the base name."""
    folder, slash, base = member.name.rpartition("/")
    return folder + slash + base.partition(".")[0]


class _Choice:
    """The images among the members of a shard.

    Attributes:
        part: those that were taken, with their labels.
        ignored: endings of what was not.
        met: whether any has a member for its label.
    """

    def __init__(self, scan: Scan, path: str):
        self.scan, self.path = scan, path
        self.part, self.ignored, self.met, self._doubtful = Gathered(), Counter[str](), False, 0

    def seen(self, member: Member) -> bool:
        """Whether a member is not hidden."""
        if not member.name.rpartition("/")[2].startswith("."):
            return True
        self.ignored["(hidden)"] += 1
        return False

    def tell(self) -> None:
        """Say what labels could not be told apart."""
        if self._doubtful:
            warn_once(
                f"{self._doubtful:,} images of {self.path} have no label of their own name and "
                "share one up to the first dot with others: no labels; write "
                f"NAME{self.scan.about} beside NAME.png"
            )

    def take_one(self, key: str, member: Member) -> bool:
        """Take what `take` would, of a key with one member, where it is an image; else False."""
        kind = member.name[len(key) :].lower()
        if self.scan.wanted is not None or kind not in self.scan.suffixes:
            return False
        self.part.add(key, member.offset, member.size, 0)
        return True

    def take(self, found: Sequence[Member]) -> None:
        """Take one image a key, with the member that holds its label; all of a key are given.

        WebDataset's key is the path up to the first dot of the base name, and the rest says what
        the member is: `012.jpg`, `012.seg.png`, `012.cls`. Where the rest is not a bare image
        extension and its key has no other image (`IMG.2024.jpg`), the whole name is the key, and
        its label lies in the member of the same name up to the last dot (`IMG.2024.cls`), or in
        that of WebDataset's key (`IMG.cls`) where this is its only image.
        """
        wanted, label, suffixes = self.scan.wanted, self.scan.about, self.scan.suffixes
        best: dict[str, Member] = {}
        side: list[tuple[str, Member]] = []
        label_of: dict[str, Member] = {}
        dotted: dict[str, Member] = {}  # labels by their name up to the last dot
        for member in found:
            base = member.name.rpartition("/")[2]
            key, kind = key_of(member), "".join(base.partition(".")[1:]).lower()
            if kind == label:
                label_of[key] = member
            elif kind.endswith(label):
                dotted[member.name[: -len(label)]] = member
            elif wanted is not None and kind == wanted:
                best[key] = member
            elif wanted is None and kind in suffixes:
                old = best.get(key)
                if old is None or _RANK.get(kind, 9) < _RANK.get(extension(old.name), 9):
                    best[key] = member
                if old is not None:
                    self.ignored[kind] += 1
            elif wanted is None and extension(base) in suffixes:
                side.append((key, member))
            else:
                self.ignored[extension(base)] += 1
        if side or dotted:
            self._whole_names(best, side, label_of, dotted)
        for key, member in sorted(best.items(), key=lambda item: item[1].offset):
            own = label_of.get(key)
            self.met |= own is not None
            text = self.scan.labels.add(self.scan.text(self.path, own))
            self.part.add(key, member.offset, member.size, text)

    def _whole_names(
        self,
        best: dict[str, Member],
        side: Sequence[tuple[str, Member]],
        label_of: dict[str, Member],
        dotted: dict[str, Member],
    ) -> None:
        """Add to `best` what is an image by its last extension alone, where its key has no other,
        and to `label_of` the labels of these."""
        alone = Counter(key for key, _ in side)
        used: set[str] = set()
        for key, member in side:
            if key in best:
                rest = member.name.rpartition("/")[2].partition(".")[2]
                self.ignored["." + rest.lower()] += 1
                continue
            best[member.name] = member
            stem = os.path.splitext(member.name)[0]
            own = dotted.get(stem)
            used.add(stem)
            if own is None and key in label_of:
                own = label_of[key] if alone[key] == 1 else None
                self._doubtful += own is None
            if own is not None:
                label_of[member.name] = own
        self.ignored[self.scan.about] += len(dotted.keys() - used)


def scanned(
    paths: Sequence[str],
    ranges: Ranges,
    column: str | None,
    labels: str | None,
    suffixes: frozenset[str] = IMAGE,
) -> TarSource:
    """The images of shards, found by their headers and kept in memory."""
    scan = Scan(ranges, column, labels, suffixes)
    parts = list(scan.parts(paths, [facts.size for facts in ranges.facts(paths)]))
    columns = Columns.of(parts)
    texts = np.concatenate([np.zeros(0, np.int32), *(np.array(p.texts, np.int32) for p in parts)])
    columns.labels, classes = scan.numbers(texts, paths[0])
    return TarSource(paths, columns, ranges, classes, scan.skipped)
