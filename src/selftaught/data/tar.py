"""What lies where in a tar, by its headers; nothing is extracted, unpickled or run."""

import glob
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from selftaught.errors import UserError

MAX_MEMBER = 1 << 30
"""Bytes above which a member is refused."""

REPEATED = "repeated name in an archive"
_MAX_NAME = 1 << 16  # long names and attributes; a header that claims more is damage


@dataclass(frozen=True)
class Member:
    """A regular file in a tar: where its bytes lie."""

    name: str
    offset: int
    size: int


def scan(path: str) -> tuple[list[Member], Counter[str]]:
    """The regular members of a local tar in order, and counts of what was refused by reason.

    A damaged or cut-off header ends the scan: what came before stays readable.
    """
    refused: Counter[str] = Counter()
    with open(path, "rb", buffering=0) as file:
        fd = file.fileno()
        found = members(lambda at, n: os.pread(fd, n, at), os.fstat(fd).st_size, refused, path)
        return once(found, refused), refused


def once(found: Iterable[Member], refused: Counter[str]) -> list[Member]:
    """Members without those whose name another one before has, which are counted."""
    kept: dict[str, Member] = {}
    for member in found:
        if kept.setdefault(member.name, member) is not member:
            refused[REPEATED] += 1
    return list(kept.values())


def members(
    read: Callable[[int, int], bytes], total: int, refused: Counter[str], where: str
) -> Iterator[Member]:
    """The regular members of a tar, one at a time, also where several have one name.

    Args:
        read: (offset, size) -> that many bytes, fewer at the end alone.
        total: bytes of the tar.
        refused: where what is refused is counted, by reason.
        where: what the tar is called.

    Raises:
        UserError: it is no tar, or is compressed.
    """
    at = 0
    override: dict[str, str] = {}  # name, size and link of the next member
    while at + 512 <= total:
        block = read(at, 512)
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
            text = read(data, size)
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
            reason = _refusal(name, size, total - data, sparse or kind == b"S")
            if reason is None:
                yield Member(name, data, size)
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
            f"{where} is not a plain tar: random access needs one that is not compressed"
        )


def _refusal(name: str, size: int, room: int, sparse: bool) -> str | None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or (parts[0][1:2] == ":"):
        return "path outside of its archive"
    if sparse:
        return "sparse file in an archive"
    if size > room:
        return "cut-off archive member"
    if size > MAX_MEMBER:
        return f"archive member above {MAX_MEMBER >> 30} GiB"
    return None


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


def expand(pattern: str) -> list[str]:
    """Paths that a pattern stands for: `{000..012}`, `{a,b}`, then `*`, `?` and `[...]`."""
    found: list[str] = []
    for path in braces(pattern):
        found += sorted(glob.glob(path)) if glob.has_magic(path) else [path]
    return found


def braces(pattern: str) -> list[str]:
    """What `{000..012}` and `{a,b}` in a text stand for."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    span = re.fullmatch(r"(\d+)\.\.(\d+)", found[1])
    if span:
        first, last, width = int(span[1]), int(span[2]), len(span[1])
        if not 0 <= last - first < 1_000_000:
            raise UserError(f"{pattern}: {found[0]} must count upwards, to at most a million")
        words = [f"{n:0{width}d}" for n in range(first, last + 1)]
    else:
        words = found[1].split(",")
    before, after = pattern[: found.start()], pattern[found.end() :]
    return [path for word in words for path in braces(before + word + after)]
