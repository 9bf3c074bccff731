"""Images as files: a folder walked once, or a list of paths."""

import csv
import logging
import os
import stat
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

import numpy as np
import pyarrow as pa

from selftaught.data.decode import read_bytes
from selftaught.data.formats import (
    ARRAYS,
    IMAGE,
    OTHER,
    UNSUPPORTED,
    endings,
    is_dicom,
    sniff,
)
from selftaught.data.source import Left, Source, digest, integer_labels
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

RUN = "run.yaml"
"""The file with its settings, which makes a folder that of a run."""
_THREADS = 8  # folders listed at once: it is the network file systems that need them
_SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "dev"})
_PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "image", "img", "name")
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "target", "fine_label", "category", "y")


@final
class FileSource(Source):
    """Files under `root`; names are relative to it, as the file system's bytes."""

    def __init__(self, root: str, names: pa.LargeBinaryArray, left: Left = Left()):  # noqa: B008
        self.root, self.names, self.left = root, names, left

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


def walk(root: str, extensions: frozenset[str] = IMAGE, *, look_inside: bool = True) -> FileSource:
    """Every file below `root` with one of the extensions, or that begins like an image.

    Real folders come before links, and each folder and each link's target is visited once by
    (device, inode): a loop of links ends, and a file is named by its real place. Hidden names,
    dangling links and folders that cannot be listed are counted; folders of runs below `root` are
    none of the data. The order is that of sorted folders, then names: the same on every file
    system.
    """
    visited: set[tuple[int, int]] = set()
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
                    continue
                visited.add((folder.device, folder.inode))
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
    if file_links:
        extra, again = _new_links(root, file_links, folders, extensions, look_inside, ignored)
        repeated += again
        taken.append(("", extra))
    left = Left(
        ignored=dict(ignored),
        hidden=sum(f.hidden for f in folders),
        dangling=dangling,
        repeated=repeated,
        unreadable=sum(f.unreadable for f in folders),
    )
    if folders and folders[0].unreadable:
        raise UserError(f"{root} cannot be listed: check its permissions")
    source = FileSource(root, _names(taken), left)
    source.labels, source.classes = _class_folders(taken)
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
                if name == RUN and relative:
                    ignored = Counter({"(run)": 1})
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
) -> tuple[list[str], int]:
    """Links to files that are not among the samples yet, each target once; and how many were."""
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
    seen: set[tuple[int, int]] = set()
    fresh: list[str] = []
    repeated = 0
    for name, device, inode in sorted(links):
        if np.uint64(inode) in old[device] or (device, inode) in seen:
            repeated += 1
        elif _takes(root, name, extensions, look_inside, ignored):
            seen.add((device, inode))
            fresh.append(name)
    return fresh, repeated


def _names(taken: Sequence[tuple[str, list[str]]]) -> pa.LargeBinaryArray:
    chunks = []
    for relative, names in taken:
        prefix = f"{relative}/" if relative else ""
        chunks.append(pa.array([os.fsencode(prefix + n) for n in names], pa.large_binary()))
    return pa.concat_arrays(chunks) if chunks else pa.array([], pa.large_binary())


def _class_folders(
    taken: Sequence[tuple[str, list[str]]],
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels from the first folder below the root, where two or more hold most of the images."""
    firsts: list[str] = []
    counts: list[int] = []
    for relative, names in taken:
        if relative:
            firsts.append(relative.split("/", 1)[0])
            counts.append(len(names))
        else:  # files of the root, and links, which carry their whole path
            for name in names:
                firsts.append(name.split("/", 1)[0] if "/" in name else "")
                counts.append(1)
    classes = sorted({f for f, c in zip(firsts, counts, strict=True) if f and c})
    inside = sum(c for f, c in zip(firsts, counts, strict=True) if f)
    if len(classes) < 2 or 2 * inside <= sum(counts):
        return None, None
    if all(name.lower() in _SPLITS for name in classes):
        log.info("the folders %s are splits, not classes: no labels", ", ".join(classes))
        return None, None
    position = {name: i for i, name in enumerate(classes)}
    ids = np.array([position.get(f, -1) for f in firsts], dtype=np.int64)
    return np.repeat(ids, counts), classes


def folder(path: Path) -> FileSource:
    """Images in a folder and everything below it."""
    return walk(str(path))


def only_arrays(source: FileSource) -> bool:
    """Whether what was found is nothing but .npy and .npz files, which may as well be metadata."""
    return all(os.path.splitext(source.name(i))[1].lower() in ARRAYS for i in range(len(source)))


# ------------------------------------------------------------------------------------------ lists


def listed(path: Path, labels: str | None) -> FileSource:
    """The files named in a .txt (one path a line), .csv or .tsv; relative to where it lies."""
    if path.suffix.lower() == ".txt":
        names = [line for line in _text(path).splitlines() if line.strip()]
        values = None
    else:
        names, values = read_table(path, labels)
    if not names:
        raise UserError(f"{path} lists no files: it needs one path a line")
    root = str(path.parent)
    source = from_paths(names, root)
    if not any(os.path.exists(os.path.join(root, name)) for name in names):
        raise UserError(
            f"none of the {len(names)} files in {path} exists; the first is {names[0]}, looked for "
            f"in {path.parent.absolute()}: paths are taken relative to the list"
        )
    if values is not None:
        source.labels, source.classes = integer_labels(values)
    return source


def from_paths(names: Sequence[str], root: str = "") -> FileSource:
    """The files of a list of paths."""
    return FileSource(root, pa.array([os.fsencode(n) for n in names], pa.large_binary()))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error


def read_table(path: Path, labels: str | None) -> tuple[list[str], list[str] | None]:
    """Paths and label texts of a .csv or .tsv, with or without a line of column names."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    rows = [r for r in csv.reader(_text(path).splitlines(keepends=True), delimiter=delimiter) if r]
    if not rows:
        raise UserError(f"{path} is empty: it needs a line a file, as path,label")
    head = [cell.strip().lower() for cell in rows[0]]
    where = next((head.index(c) for c in _PATH_COLUMNS if c in head), None)
    if where is None:
        if labels is not None:
            raise UserError(f"{path} has no column of paths: name one of them path")
        where, what = 0, (1 if len(head) > 1 else None)
    else:
        names = (labels.lower(),) if labels is not None else LABEL_COLUMNS
        what = next((head.index(c) for c in names if c in head), None)
        if labels is not None and what is None:
            raise UserError(f"{path} has no column {labels}; it has {', '.join(rows[0])}")
        rows = rows[1:]
    paths = [row[where] for row in rows if len(row) > where]
    if what is None:
        return paths, None
    return paths, [row[what].strip() if len(row) > what else "" for row in rows if len(row) > where]


def label_from_csv(source: FileSource, path: Path) -> None:
    """Give the files of a folder the labels that a CSV of path,label lists for them."""
    paths, values = read_table(path, None)
    if values is None:
        raise UserError(f"{path} has no labels: it needs two columns, path,label")
    above = os.path.relpath(path.parent.resolve(), os.path.realpath(source.root))
    known = dict(zip(paths, values, strict=True))
    for name, value in zip(paths, values, strict=True):  # as seen from the folder of the images
        known.setdefault(os.path.normpath(os.path.join(above, name)), value)
    found = [known.get(source.name(i), "") for i in range(len(source))]
    if not any(found):
        found = _by_bare_names(source, paths, values)
        if any(found):
            log.warning(
                "labels are found by the names of files alone: %s lists %s, the folder has %s",
                *(path, paths[0], source.name(0)),
            )
    if not any(found):
        raise UserError(
            f"no file in {source.root} is listed in {path}: it lists {paths[0] if paths else ''}, "
            f"the folder has {source.name(0)}"
        )
    source.labels, source.classes = integer_labels(found)


def _by_bare_names(source: FileSource, paths: Sequence[str], values: Sequence[str]) -> list[str]:
    """Labels of files whose names, without folders, occur once here and once in the list."""
    listed = Counter(os.path.basename(p) for p in paths)
    names = [os.path.basename(source.name(i)) for i in range(len(source))]
    here = Counter(names)
    bare = {os.path.basename(p): v for p, v in zip(paths, values, strict=True)}
    return [bare[n] if listed[n] == here[n] == 1 else "" for n in names]
