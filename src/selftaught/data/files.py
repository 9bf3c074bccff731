"""Images as files: a folder walked once, or a list of paths."""

import os
import stat
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa

from selftaught.data.folders import class_folders
from selftaught.data.image.decode import read_bytes
from selftaught.data.image.formats import (
    ARRAYS,
    IMAGE,
    INDEXED,
    OTHER,
    RUN,
    SEARCHED,
    UNSUPPORTED,
    endings,
    is_dicom,
    sniff,
)
from selftaught.data.source import Samples, Skipped, Source, digest
from selftaught.errors import UserError

_THREADS = 8  # folders listed at once: it is the network file systems that need them


@final
class FileSource(Source):
    """Files under `root`; names are relative to it, as the file system's bytes."""

    def __init__(self, root: str, names: pa.LargeBinaryArray, left: Skipped = Skipped()):  # noqa: B008
        self.root, self.names, self.skipped = root, names, left

    def __len__(self) -> int:
        return len(self.names)

    def path(self, i: int) -> str:
        return os.path.join(self.root, os.fsdecode(self.names[i].as_py()))

    def load(self, i: int) -> bytes:
        return read_bytes(self.path(i))

    def name(self, i: int) -> str:
        return os.fsdecode(self.names[i].as_py())

    def fingerprint(self) -> str:
        def sizes(bounds: range) -> list[int]:
            return [_size(self.path(i)) for i in bounds]

        count, step = len(self), 8192
        with ThreadPoolExecutor(_THREADS) as pool:
            parts = pool.map(sizes, (range(a, min(a + step, count)) for a in range(0, count, step)))
            all_sizes = np.fromiter((s for part in parts for s in part), np.int64, count)
        # Arrow may lay the same names out from different offsets: hash lengths and bytes
        names = pa.concat_arrays([self.names])
        offsets = np.frombuffer(names.buffers()[1], np.int64)[names.offset :][: count + 1]
        data = names.buffers()[2]
        content = bytes(memoryview(data)[offsets[0] : offsets[-1]]) if data is not None else b""
        return digest(count, np.diff(offsets), content, all_sizes)

    def stamp(self, i: int) -> str:
        try:
            found = os.stat(self.path(i))
        except (OSError, ValueError):
            return "absent"
        return f"{found.st_size} {found.st_mtime_ns}"


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return -1


# ---------------------------------------------------------------------------------------- folders


@dataclass
class _Folder:
    """One listed folder: the names that were taken, by kind."""

    relative: str
    device: int = 0
    inode: int = 0
    files: list[str] = field(default_factory=list)
    inodes: list[int] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    hidden: int = 0
    unreadable: bool = False

    def child(self, name: str) -> str:
        return f"{self.relative}/{name}" if self.relative else name


def walk(
    root: str,
    extensions: frozenset[str] = IMAGE,
    *,
    look_inside: bool = True,
    classes: bool = False,
) -> FileSource:
    """Every file below `root` with one of the extensions, or that begins like an image.

    Real folders come before links, and each folder and each link's target is visited once by
    (device, inode): a loop of links ends, and a file is named by its real place. Hidden names,
    dangling links and folders that cannot be listed are counted; folders of runs, and of what
    `search` keeps, below `root` are none of the data. The order is that of sorted folders, then
    names: the same on every file system. `classes` asks for labels from folders; see
    `class_folders`.
    """
    visited: dict[tuple[int, int], str] = {}
    twice: list[tuple[str, str]] = []  # a link to a folder, and where that was met before
    folders: list[_Folder] = []
    file_links: list[tuple[str, int, int]] = []
    dangling = repeated = 0

    def list_all(starts: Iterable[str], pool: ThreadPoolExecutor) -> list[str]:
        """List folders level by level; returns the links that were met, sorted."""
        nonlocal repeated
        links: list[str] = []
        level = list(starts)
        while level:
            below: list[str] = []
            listed = pool.map(lambda r: _list(root, r, extensions, look_inside), level)
            for folder in listed:
                if (folder.device, folder.inode) in visited and not folder.unreadable:
                    repeated += 1
                    twice.append((folder.relative, visited[folder.device, folder.inode]))
                    continue
                visited[folder.device, folder.inode] = folder.relative
                folders.append(folder)
                below += [folder.child(name) for name in folder.folders]
                links += [folder.child(name) for name in folder.links]
            level = below
        return sorted(links)

    with ThreadPoolExecutor(_THREADS) as pool:
        links = list_all([""], pool)
        while links:
            targets: list[str] = []
            for link in links:
                try:
                    info = os.stat(os.path.join(root, link))
                except OSError:  # leads nowhere, or in circles
                    dangling += 1
                    continue
                if stat.S_ISDIR(info.st_mode):
                    targets.append(link)
                elif stat.S_ISREG(info.st_mode):
                    file_links.append((link, info.st_dev, info.st_ino))
            links = list_all(targets, pool)

    folders.sort(key=lambda f: f.relative.split("/"))
    ignored = sum((f.ignored for f in folders), Counter[str]())
    taken: list[tuple[str, list[str]]] = [(f.relative, f.files) for f in folders]
    fresh, again = _new_links(root, file_links, folders, extensions, look_inside, ignored)
    repeated += len(again)
    taken.append(("", list(fresh.values())))
    left = Skipped(
        ignored=dict(ignored),
        hidden=sum(f.hidden for f in folders),
        dangling=dangling,
        repeated=repeated,
        unreadable=sum(f.unreadable for f in folders),
    )
    if folders and folders[0].unreadable:
        raise UserError(f"{root} cannot be listed: check its permissions")
    source = FileSource(root, _names(taken), left)
    if classes:
        linked = _linked(folders, fresh, again, twice)
        start = len(source) - len(fresh)
        source.labels, source.classes = class_folders(root, taken, linked, start)
    return source


def _list(root: str, relative: str, extensions: frozenset[str], look_inside: bool) -> _Folder:
    folder = _Folder(relative)
    path = os.path.join(root, relative) if relative else root
    files: list[tuple[str, int]] = []
    try:
        info = os.stat(path)
        folder.device, folder.inode = info.st_dev, info.st_ino
        with os.scandir(path) as entries:
            for entry in entries:
                name = entry.name
                if name in (RUN, SEARCHED, INDEXED) and relative:
                    ignored = Counter() if name == INDEXED else Counter({"(run)": 1})
                    return _Folder(relative, info.st_dev, info.st_ino, ignored=ignored)
                if name[0] == ".":
                    folder.hidden += 1
                elif entry.is_symlink():
                    folder.links.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    folder.folders.append(name)
                elif entry.is_file(follow_symlinks=False):
                    if _takes(path, name, extensions, look_inside, folder.ignored):
                        files.append((name, entry.inode()))
                else:
                    folder.ignored["(pipe or device)"] += 1
    except OSError:
        folder.unreadable = True
    files.sort()
    folder.files = [name for name, _ in files]
    folder.inodes = [inode for _, inode in files]
    folder.folders.sort()
    return folder


def _takes(
    path: str, name: str, extensions: frozenset[str], look_inside: bool, ignored: Counter[str]
) -> bool:
    dot = name.rfind(".")
    extension = name[dot:].lower() if dot > 0 else ""
    if extension in extensions:
        return True
    if look_inside and extension not in OTHER:
        try:
            with open(os.path.join(path, name), "rb") as file:
                head = file.read(132)
        except OSError:
            head = b""
        kind = sniff(head[:32], strict=True)
        if kind is not None and kind not in UNSUPPORTED:
            return True
        ignored[".dcm" if is_dicom(head) else extension] += 1
    else:
        ignored[endings(name) if extension in OTHER else extension] += 1
    return False


def _new_links(
    root: str,
    links: list[tuple[str, int, int]],
    folders: list[_Folder],
    extensions: frozenset[str],
    look_inside: bool,
    ignored: Counter[str],
) -> tuple[dict[tuple[int, int], str], list[tuple[str, int, int]]]:
    """Links to files that are not among the samples yet, by target; and those to what is."""
    known: dict[int, np.ndarray] = {}
    for device in {device for _, device, _ in links}:
        inodes = [f.inodes for f in folders if f.device == device]
        known[device] = np.fromiter((i for part in inodes for i in part), np.uint64)
    old = {
        device: set(
            np.intersect1d(known[device], [np.uint64(i) for _, d, i in links if d == device])
        )
        for device in known
    }
    fresh: dict[tuple[int, int], str] = {}
    again: list[tuple[str, int, int]] = []
    for name, device, inode in sorted(links):
        if np.uint64(inode) in old[device] or (device, inode) in fresh:
            again.append((name, device, inode))
        elif _takes(root, name, extensions, look_inside, ignored):
            fresh[device, inode] = name
    return fresh, again


def _linked(
    folders: Sequence[_Folder],
    fresh: Mapping[tuple[int, int], str],
    again: Sequence[tuple[str, int, int]],
    twice: Sequence[tuple[str, str]],
) -> dict[int, set[str]]:
    """First folders of the links that lead to a sample met elsewhere, by its position."""
    found: dict[int, set[str]] = {}
    starts = np.cumsum([0, *(len(f.files) for f in folders)]).tolist()
    wanted = {(device, inode) for _, device, inode in again}
    position = {key: starts[-1] + i for i, key in enumerate(fresh)}
    for start, f in zip(starts, folders) if wanted else ():
        for i, inode in enumerate(f.inodes, start):
            if (f.device, inode) in wanted:
                position[f.device, inode] = i
    for name, device, inode in again:
        first, slash, _ = name.partition("/")
        if slash:
            found.setdefault(position[device, inode], set()).add(first)
    for link, real in twice:
        if not real or f"{link}/".startswith(f"{real}/"):  # a loop, not a class
            continue
        for start, f in zip(starts, folders):
            if f"{f.relative}/".startswith(f"{real}/"):
                for i in range(start, start + len(f.files)):
                    found.setdefault(i, set()).add(link.split("/", 1)[0])
    return found


def _names(taken: Sequence[tuple[str, list[str]]]) -> pa.LargeBinaryArray:
    chunks = []
    for relative, names in taken:
        prefix = f"{relative}/" if relative else ""
        chunks.append(pa.array([os.fsencode(prefix + n) for n in names], pa.large_binary()))
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_binary())


def folder(path: Path, suffixes: frozenset[str] = IMAGE) -> FileSource:
    """Images, or files with other endings, in a folder and everything below it."""
    return walk(str(path), suffixes, look_inside=suffixes is IMAGE, classes=True)


def only_arrays(source: FileSource) -> bool:
    """Whether what was found is nothing but .npy and .npz files, which may as well be metadata."""
    return all(os.path.splitext(source.name(i))[1].lower() in ARRAYS for i in range(len(source)))


def from_paths(names: Sequence[str], root: str = "") -> FileSource:
    """The files of a list of paths."""
    return FileSource(root, pa.array([os.fsencode(n) for n in names], pa.large_binary()))


def only_folder(samples: Samples) -> str:
    """The one folder that all images of a folder lie in, which is no class as there is no other;
    "" where they lie elsewhere, or have labels."""
    source = samples.source
    if samples.labels is not None or not isinstance(source, FileSource):
        return ""
    parts = (source.name(i).partition("/") for i in range(len(source)))
    firsts = {first if rest else "" for first, _, rest in parts}
    return firsts.pop() if len(firsts) == 1 else ""
