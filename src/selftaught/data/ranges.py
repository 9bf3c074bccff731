"""Bytes of files at given places, from wherever the files are: a disk here, a bucket, a server."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, final

from selftaught.data.image.decode import BadSample
from selftaught.errors import UserError

_OPEN = 64  # files that a process keeps open


class Facts(NamedTuple):
    """What tells a file's content without reading it: bytes, and its time or the store's tag."""

    size: int
    stamp: str


class Ranges(ABC):
    """Reads parts of files. Picklable; what is open belongs to the process that opened it."""

    @abstractmethod
    def read(self, path: str, offset: int, size: int) -> bytes:
        """That many bytes, fewer where the file ends.

        Raises:
            BadSample: this file cannot be read, and trying again would not help.
            Unreachable: it is elsewhere, and the way there is broken.
        """

    def peek(self, path: str, offset: int, size: int) -> bytes:
        """As `read`, of what nothing near is wanted of."""
        return self.read(path, offset, size)

    @abstractmethod
    def facts(self, paths: Sequence[str]) -> list[Facts]:
        """Of each file.

        Raises:
            UserError: one does not exist.
        """


@final
class Local(Ranges):
    """Files of this machine."""

    def __init__(self) -> None:
        self._files: dict[str, int] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"_files": {}}

    def read(self, path: str, offset: int, size: int) -> bytes:
        try:
            if path not in self._files:
                if len(self._files) >= _OPEN:
                    os.close(self._files.pop(next(iter(self._files))))
                self._files[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            # no shared position: safe when forked
            return os.pread(self._files[path], size, offset)
        except OSError as error:
            raise BadSample(f"cannot be read from {path}: {error.strerror}") from error

    def facts(self, paths: Sequence[str]) -> list[Facts]:
        found = []
        for path in paths:
            try:
                info = os.stat(path)
            except OSError as error:
                raise UserError(f"{path} cannot be opened: {error.strerror}") from error
            found.append(Facts(info.st_size, str(info.st_mtime_ns)))
        return found
