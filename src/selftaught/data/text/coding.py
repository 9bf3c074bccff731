"""Bytes of files as text: compressed ones, UTF-8 and UTF-16, and what is no text at all."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from selftaught.data.source import BadSample
from selftaught.errors import UserError

PACKED = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
"""Compressed files that are read from their start, by extension."""
_HEAD = 512


def encoding_of(head: bytes) -> str:
    """UTF-8 or UTF-16, by the first bytes of a file."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if 3 * head[1::2].count(0) > len(head):  # letters of most languages have one zero byte
        return "utf-16-le"
    return "utf-16-be" if 3 * head[::2].count(0) > len(head) else "utf-8-sig"


def extension(path: Path) -> str:
    """The extension in small letters, below that of a compressed file."""
    inner = path.with_suffix("") if path.suffix.lower() in PACKED else path
    return inner.suffix.lower()


@contextmanager
def opened(path: Path) -> Iterator[IO[str]]:
    """The text of a file, unpacked; bytes that are no UTF-8 stay, as surrogates.

    Raises:
        UserError: it cannot be read, ends before its end, or is no text, also within the block.
    """
    try:
        unpack = PACKED.get(path.suffix.lower())
        with unpack(path, "rb") if unpack else path.open("rb") as file:
            buffered = io.BufferedReader(file, 1 << 20)  # type: ignore[arg-type]
            head = buffered.peek(_HEAD)[:_HEAD]
            encoding = encoding_of(head)
            if encoding == "utf-8-sig" and 0 in head:
                raise UserError(
                    f"{path} is no text: byte {head.index(0)} is 0; needed is a text file in UTF-8"
                )
            errors = "surrogateescape" if encoding == "utf-8-sig" else "strict"
            yield io.TextIOWrapper(buffered, encoding, errors, newline="")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} looks like UTF-16 and is damaged: save it as UTF-8") from error
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise UserError(
            f"{path} is damaged or was cut ({error}): fetch it again, or unpack what is there"
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error


def as_text(raw: object) -> str:
    """What a source holds of a text; BadSample with the reason where it is none."""
    if isinstance(raw, bytes):
        try:
            raw = raw.decode(encoding_of(raw[:_HEAD]))
        except UnicodeDecodeError as error:
            byte = raw[error.start] if error.encoding == "utf-8" else 0
            where = f"0x{byte:02x} at byte {error.start}"
            raise BadSample(f"is not UTF-8 ({where}): save the file as UTF-8") from error
    if not isinstance(raw, str):
        raise BadSample(f"is a {type(raw).__name__}; a text is needed")
    if "\0" in raw:
        raise BadSample("holds NUL characters: it is no text, or was damaged")
    if not raw.strip():
        raise BadSample("is empty")
    return raw.strip()
