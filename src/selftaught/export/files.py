"""Files that are whole or absent; what a killed process left half-written is swept away."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selftaught.errors import Unwritable, UserError, full
from selftaught.export.lock import lock, unlock

_TEMPORARY = re.compile(r"\.(.+)\.[a-z0-9_]{8}")
"""Name of a folder, made here, in which a file or folder of the name in brackets is written."""


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its place when the block ends without an error.

    Raises:
        Unwritable: the folder cannot be written to, or the disk is full; `path` is as it was.
    """
    path = Path(path)
    with _told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _temporary(path.name, path.parent) as folder:
            temporary = folder / path.name  # the suffix stays: NumPy and others look at it
            temporary.touch()
            mode = temporary.stat().st_mode  # as the umask has it; safetensors writes 0600
            yield temporary
            temporary.chmod(mode)
            flush(temporary)
            os.replace(temporary, path)
        flush(path.parent)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Unwritable.of(path, error) from error
    except Exception as error:
        if not isinstance(error, UserError) and full(error):  # other libraries' own classes
            raise Unwritable.of(path, error) from error
        raise


@contextmanager
def _temporary(name: str, folder: Path) -> Iterator[Path]:
    """A folder in `folder` for a file `name`, locked, so that nobody sweeps it; gone afterwards."""
    sweep(folder, name)
    handle = None
    while handle is None:
        made = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=folder))
        try:
            handle = _claimed(made)
        except BlockingIOError:  # by one who sweeps
            continue
        except OSError:  # there are no locks here, so nobody sweeps
            break
        if not made.exists():
            unlock(handle)
            handle = None
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if handle is not None:
            unlock(handle)


def _claimed(folder: Path) -> int:
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle)
    except OSError:
        os.close(handle)
        raise
    return handle


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove what processes that were killed left in `folder` of files `name`, or of any.

    Only folders that this module made are touched, and of those only such whose maker has ended.
    """
    try:
        entries = sorted(folder.iterdir())
    except OSError:  # whoever writes there will say it
        return
    for entry in entries:
        match = _TEMPORARY.fullmatch(entry.name)
        if not match or (name or match[1]) != match[1] or entry.is_symlink():
            continue
        try:
            if {child.name for child in entry.iterdir()} <= {match[1]}:
                handle = _claimed(entry)
                shutil.rmtree(entry, ignore_errors=True)
                unlock(handle)
        except OSError:  # a file of that name, another's, or still in use
            continue


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
    with _told(path):
        _free(path)
        with _temporary(path.name, _near(path)) as beside:
            folder = beside / path.name
            folder.mkdir()
            yield folder
            for file in folder.iterdir():
                file.chmod(folder.stat().st_mode & 0o666)  # as the umask has it
                flush(file)
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(folder, path)
        flush(path.parent)


def check_free(path: Path) -> None:
    """Raise UserError where `path` is a file, a folder that holds something, or cannot be made."""
    with _told(path):
        _free(path)
    check_place(path)


def check_place(path: Path) -> None:
    """Raise UserError where nothing can be written beside `path`: before the work, not after it."""
    with _told(path), _temporary(path.name, _near(path)):
        pass


def _free(path: Path) -> None:
    if path.is_dir() and not any(path.iterdir()):
        return
    if path.exists():
        raise UserError(f"{path} exists already; move it away, or name another folder with --out")


def _near(path: Path) -> Path:
    """The folder that is there in which `path` is, or will be; or the file that is in its way."""
    return next(p for p in path.absolute().parents if p.exists())
