"""Files that are whole or absent."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selftaught.errors import UserError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; `path` is as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            temporary = Path(folder) / path.name  # the suffix stays: NumPy and others look at it
            temporary.touch()
            mode = temporary.stat().st_mode  # as the umask has it; safetensors writes 0600
            yield temporary
            temporary.chmod(mode)
            flush(temporary)
            os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def flush(path: Path) -> None:
    """Bring a file, or the names in a folder, onto the disk."""
    if path.is_dir() and os.name != "posix":  # only POSIX opens folders
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A temporary folder that becomes `path` when the block ends without an error.

    Raises:
        UserError: `path` is taken or cannot be written; nothing was left there.
    """
    try:
        check_free(path)
        near = next(p for p in path.absolute().parents if p.is_dir())
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=near) as beside:
            folder = Path(beside) / path.name
            folder.mkdir()
            yield folder
            for file in folder.iterdir():
                file.chmod(folder.stat().st_mode & 0o666)  # as the umask has it
                flush(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, path)
        flush(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error


def check_free(path: Path) -> None:
    """Raise UserError where `path` is a file, or a folder that holds something."""
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise UserError(f"{path} exists already; move it away, or name another folder with --out")


def _unwritable(path: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(
        f"{path} cannot be written ({reason}); choose another place or make room there"
    )
