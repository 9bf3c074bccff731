"""Images in WebDataset tars, read by offset: the same random access and exact resume as a folder.

Headers are scanned once; nothing is extracted, unpickled or run. Only images, `.cls` and `.json`
members are looked at; whatever else a shard holds (code, links, devices) is counted and left.
"""

import glob
import json
import os
import re
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa

from selftaught.data.image.decode import BadSample
from selftaught.data.image.formats import IMAGE, extension
from selftaught.data.labels import as_text, encode, warn_once
from selftaught.data.source import Skipped, Source, digest
from selftaught.errors import UserError

MAX_MEMBER = 1 << 30
"""Bytes above which a member is refused."""

_MAX_NAME = 1 << 16  # long names and attributes; a header that claims more is damage
_MAX_TEXT = 1 << 20
_OPEN = 64  # shards that a process keeps open
_PREFERRED = (".jpg", ".jpeg", ".png", ".webp")  # where a key has several images


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: where its bytes lie."""

    name: str
    offset: int
    size: int


def scan(path: str) -> tuple[list[Member], Counter[str]]:
    """The regular members of a tar in order, and counts of what was refused by reason.

    A damaged or cut-off header ends the scan: what came before stays readable.
    """
    members: list[Member] = []
    refused: Counter[str] = Counter()
    seen: set[str] = set()
    with open(path, "rb", buffering=0) as file:
        total = os.fstat(file.fileno()).st_size
        fd, at = file.fileno(), 0
        override: dict[str, str] = {}  # name, size and link of the next member
        while at + 512 <= total:
            block = os.pread(fd, 512, at)
            if block == bytes(512):
                break
            size = _number(block[124:136])
            if size is None or size < 0 or not _checksum_holds(block):
                refused["damaged header"] += 1
                break
            kind, data = block[156:157], at + 512
            if kind in (b"L", b"K", b"x", b"g"):
                if size > _MAX_NAME or data + size > total:
                    refused["damaged header"] += 1
                    break
                text = os.pread(fd, size, data)
                if kind == b"L":
                    override["path"] = text.rstrip(b"\0").decode("utf-8", "surrogateescape")
                elif kind == b"x":
                    override.update(_attributes(text))
                at = data + -(-size // 512) * 512
                continue
            name = override.get("path") or _name(block)
            if override.get("size", "").isdecimal():
                size = int(override["size"])
            sparse = any(key.startswith("GNU.sparse") for key in override)
            override = {}
            if kind in (b"0", b"\0", b"7", b"S"):
                reason = _refusal(name, size, total - data, sparse or kind == b"S", seen)
                if reason is None:
                    seen.add(name)
                    members.append(Member(name, data, size))
                else:
                    refused[reason] += 1
            elif kind != b"5":  # folders are nothing to speak of
                refused["link or device in an archive"] += 1
                if kind in (b"1", b"2", b"3", b"4", b"6"):
                    size = 0
            at = data + -(-size // 512) * 512
        else:
            # some writers leave out the mark of the end, but none writes half a block
            if at != total and not refused["cut-off archive member"]:
                refused["cut-off archive"] += 1
        if at == 0 and (refused or total < 512):
            raise UserError(
                f"{path} is not a plain tar: random access needs one that is not compressed"
            )
    return members, refused


def _refusal(name: str, size: int, room: int, sparse: bool, seen: set[str]) -> str | None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or (parts[0][1:2] == ":"):
        return "path outside of its archive"
    if sparse:
        return "sparse file in an archive"
    if size > room:
        return "cut-off archive member"
    if size > MAX_MEMBER:
        return f"archive member above {MAX_MEMBER >> 30} GiB"
    return "repeated name in an archive" if name in seen else None


def _number(raw: bytes) -> int | None:
    """A size field: octal digits, or base 256 where the top bit is set."""
    if raw[0] in (0x80, 0xFF):
        return int.from_bytes(raw[1:], signed=raw[0] == 0xFF)
    digits = raw.split(b"\0", 1)[0].strip()
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return None


def _checksum_holds(block: bytes) -> bool:
    """Whether the header's bytes add up to its checksum, its own field counted as spaces.

    The lower half of Adler-32 is one plus the sum of the bytes modulo 65521, and 20 times faster
    than a sum in Python.
    """
    stored = _number(block[148:156])
    total = zlib.adler32(block[:148] + b"        " + block[156:]) & 0xFFFF
    return stored is not None and (stored + 1) % 65521 == total


def _name(block: bytes) -> str:
    name = block[:100].split(b"\0", 1)[0]
    if block[257:263] == b"ustar\0":
        prefix = block[345:500].split(b"\0", 1)[0]
        name = prefix + b"/" + name if prefix else name
    return name.decode("utf-8", "surrogateescape")


def _attributes(text: bytes) -> dict[str, str]:
    """The records `length key=value\\n` of an extended header; empty where they are damaged."""
    found: dict[str, str] = {}
    at = 0
    while at < len(text):
        space = text.find(b" ", at, at + 20)
        if space < 0 or not text[at:space].isdigit():
            break
        end = at + int(text[at:space])
        key, equals, value = text[space + 1 : end - 1].partition(b"=")
        if not equals or end <= space or end > len(text):
            break
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        at = end
    return found


@final
class TarSource(Source):
    """Images in shards: one position table over all of them."""

    def __init__(
        self,
        paths: list[str],
        column: str | None,
        labels: str | None,
        suffixes: frozenset[str] = IMAGE,
    ):
        with ThreadPoolExecutor(8) as pool:
            scans = list(pool.map(scan, paths))
        self.paths = paths
        root = os.path.commonpath([os.path.dirname(os.path.abspath(p)) for p in paths])
        self.shown = [os.path.relpath(os.path.abspath(p), root) for p in paths]
        refused: Counter[str] = Counter()
        ignored: Counter[str] = Counter()
        chosen: list[tuple[int, str, Member, Member | None]] = []
        for shard, (members, left) in enumerate(scans):
            refused += left
            about = ".json" if labels else ".cls"
            ignored += _choose(shard, paths[shard], members, column, about, chosen, suffixes)
        self.skipped = Skipped(ignored=dict(ignored), refused=dict(refused))
        self.shards = np.array([c[0] for c in chosen], dtype=np.int32)
        self.offsets = np.array([c[2].offset for c in chosen], dtype=np.int64)
        self.sizes = np.array([c[2].size for c in chosen], dtype=np.int64)
        self.keys = pa.array([os.fsencode(c[1]) for c in chosen], pa.large_binary())
        self._files: dict[int, int] = {}
        if any(c[3] is not None for c in chosen):
            texts = [self._label(c[0], c[3], labels) for c in chosen]
            if any(texts):
                self.labels, self.classes = encode(texts, paths[0])
        if labels is not None and self.labels is None and chosen:
            raise UserError(f"no .json member of {paths[0]} has a field {labels}: no labels there")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_files": {}}

    def __len__(self) -> int:
        return len(self.sizes)

    def load(self, i: int) -> bytes:
        return self._read(int(self.shards[i]), int(self.offsets[i]), int(self.sizes[i]))

    def name(self, i: int) -> str:
        return f"{self.shown[self.shards[i]]}::{os.fsdecode(self.keys[i].as_py())}"

    def fingerprint(self) -> str:
        keys = b"\n".join(self.keys.to_pylist())
        return digest(len(self), "\n".join(self.shown), keys, self.shards, self.sizes)

    def stamp(self, i: int) -> str:
        """A shard that was written again has another time, and so have all of its samples."""
        written = os.stat(self.paths[self.shards[i]]).st_mtime_ns
        return f"{self.offsets[i]} {self.sizes[i]} {written}"

    def _read(self, shard: int, offset: int, size: int) -> bytes:
        try:
            if shard not in self._files:
                if len(self._files) >= _OPEN:
                    os.close(self._files.pop(next(iter(self._files))))
                self._files[shard] = os.open(self.paths[shard], os.O_RDONLY | os.O_CLOEXEC)
            data = os.pread(
                self._files[shard], size, offset
            )  # no shared position: safe when forked
        except OSError as error:
            raise BadSample(f"cannot be read from {self.paths[shard]}: {error.strerror}") from error
        if len(data) < size:
            raise BadSample(f"is cut off: {self.paths[shard]} ends early")
        return data

    def _label(self, shard: int, member: Member | None, key: str | None) -> str:
        if member is None or member.size > _MAX_TEXT:
            return ""
        content = self._read(shard, member.offset, member.size)
        if key is None:
            return as_text(content)
        try:
            found = json.loads(content, parse_int=str)  # a label may have any number of digits
        except (ValueError, RecursionError):
            return ""
        return as_text(found.get(key)) if isinstance(found, dict) else ""


def _choose(
    shard: int,
    path: str,
    members: list[Member],
    column: str | None,
    label: str,
    chosen: list[tuple[int, str, Member, Member | None]],
    suffixes: frozenset[str],
) -> Counter[str]:
    """Append one image a key, with the member that holds its label; returns what was ignored.

    WebDataset's key is the path up to the first dot of the base name, and the rest says what the
    member is: `012.jpg`, `012.seg.png`, `012.cls`. Where the rest is not a bare image extension and
    its key has no other image (`IMG.2024.jpg`), the whole name is the key, and its label lies in
    the member of the same name up to the last dot (`IMG.2024.cls`), or in that of WebDataset's key
    (`IMG.cls`) where this is its only image.
    """
    wanted = f".{column.lstrip('.').lower()}" if column else None
    ignored: Counter[str] = Counter()
    best: dict[str, Member] = {}
    side: list[tuple[str, Member]] = []
    label_of: dict[str, Member] = {}
    rank = {e: i for i, e in enumerate(_PREFERRED)}
    dotted: dict[str, Member] = {}  # labels by their name up to the last dot
    for member in members:
        folder, _, base = member.name.rpartition("/")
        stem, dot, rest = base.partition(".")
        key, kind = (f"{folder}/{stem}" if folder else stem), (dot + rest).lower()
        if base.startswith("."):
            ignored["(hidden)"] += 1
        elif kind == label:
            label_of[key] = member
        elif kind.endswith(label):
            dotted[member.name[: -len(label)]] = member
        elif wanted is not None and kind == wanted:
            best[key] = member
        elif wanted is None and kind in suffixes:
            old = best.get(key)
            if old is None or rank.get(kind, 9) < rank.get(extension(old.name), 9):
                best[key] = member
            if old is not None:
                ignored[kind] += 1
        elif wanted is None and extension(base) in suffixes:
            side.append((key, member))
        else:
            ignored[extension(base)] += 1
    alone = Counter(key for key, _ in side)
    used: set[str] = set()
    doubtful = 0
    for key, member in side:
        if key in best:
            ignored["." + member.name.rpartition("/")[2].partition(".")[2].lower()] += 1
            continue
        best[member.name] = member
        own = dotted.get(os.path.splitext(member.name)[0])
        used.add(os.path.splitext(member.name)[0])
        if own is None and key in label_of:
            own = label_of[key] if alone[key] == 1 else None
            doubtful += own is None
        if own is not None:
            label_of[member.name] = own
    ignored[label] += len(dotted.keys() - used)
    if doubtful:
        warn_once(
            f"{doubtful:,} images of {path} have no label of their own name and share one up to "
            f"the first dot with others: no labels; write NAME{label} beside NAME.png"
        )
    ordered = sorted(best.items(), key=lambda item: item[1].offset)
    chosen += [(shard, key, member, label_of.get(key)) for key, member in ordered]
    return +ignored


def expand(pattern: str) -> list[str]:
    """Paths that a pattern stands for: `{000..012}`, `{a,b}`, then `*`, `?` and `[...]`."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return sorted(glob.glob(pattern)) if glob.has_magic(pattern) else [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        first, last, width = int(span[1]), int(span[2]), len(span[1])
        if not 0 <= last - first < 1_000_000:
            raise UserError(f"{pattern}: {found[0]} must count upwards, to at most a million")
        words = [f"{n:0{width}d}" for n in range(first, last + 1)]
    else:
        words = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [path for word in words for path in expand(before + word + after)]


def tars(
    paths: list[str],
    column: str | None,
    labels: str | None,
    suffixes: frozenset[str] = IMAGE,
) -> TarSource:
    """Images in the shards of a list of paths."""
    gone = [p for p in paths if not Path(p).is_file()]
    if gone:
        raise UserError(f"{len(gone)} of {len(paths)} shards do not exist; the first is {gone[0]}")
    return TarSource(paths, column, labels, suffixes)
