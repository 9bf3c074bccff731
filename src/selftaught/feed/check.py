"""Read every sample once and say what is there: before hours are spent on training.

Each worker is a process. If one dies or hangs, the samples that it had in hand are read again one
by one: that finds the file to blame, and forgives an accident.
"""

import hashlib
import logging
import os
import pickle
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Unpack

import numpy as np

from selftaught import kinds
from selftaught.data import quarantine
from selftaught.data.arrays import ObjectSource
from selftaught.data.image.decode import BadSample, Header, guard
from selftaught.data.memory import cores
from selftaught.data.opening import HOW, open_data
from selftaught.data.progress import bar
from selftaught.data.quarantine import Bad
from selftaught.data.settings import Checking
from selftaught.data.source import Raw, Samples, Skipped
from selftaught.errors import SelftaughtError
from selftaught.kinds import Kind
from selftaught.printable import printable
from selftaught.signature import takes

if TYPE_CHECKING:
    from selftaught.options import CheckingOptions

log = logging.getLogger("selftaught")

AFAR = 600.0
"""Seconds that a sample may take, at least, which is fetched: longer than faults of a network are
waited for."""


class _Found(NamedTuple):
    """What one sample is, or the `reason` why it cannot be read.

    header: of an image. size: of what is none, in the unit of its kind.
    """

    reason: str | None
    header: Header | None = None
    constant: bool = False
    digest: bytes = bytes(16)
    size: int = 0


@dataclass(frozen=True)
class Report:
    """What `check` found; counts of samples, and of files that were left out."""

    total: int
    bad: tuple[tuple[str, str], ...]  # (name, reason)
    unreadable: tuple[tuple[str, int], ...]  # (kind of reason, count), most frequent first
    constant: int
    tiny: int
    tiny_side: int
    duplicates: int  # copies beyond the first of their kind
    duplicate_groups: tuple[tuple[str, ...], ...]  # names, the largest groups, at most 20
    by_pixels: bool  # whether duplicates were found by pixels, or by the bytes of files
    sizes: tuple[int, int, int]  # least, median, largest; of images their shorter sides
    widths: tuple[int, int, int]
    heights: tuple[int, int, int]
    channels: tuple[tuple[int, int], ...]  # (channels, count)
    depths: tuple[tuple[int, int], ...]  # (bits a channel, count)
    formats: tuple[tuple[str, int], ...]
    animated: int  # more than one frame: the first is used
    classes: tuple[tuple[str, int], ...]  # (class, samples), empty without labels
    skipped: Skipped
    seconds: float
    quarantine: Path | None  # the list that was written
    kind: Kind  # of the samples

    @property
    def readable(self) -> int:
        """Samples that can be trained on."""
        return self.total - len(self.bad)

    @property
    def truncated(self) -> int:
        """Samples that end early."""
        return dict(self.unreadable).get("truncated", 0)

    def rows(self) -> list[tuple[str, str]]:
        """The report as (what, value), for a table."""
        rows = [("samples", f"{self.total:,}"), ("readable", f"{self.readable:,}")]
        share = 100 * len(self.bad) / max(1, self.total)
        told = f" ({share:{'.0f' if share >= 10 else '.2g'}} %)" if self.bad else ""
        rows.append(("unreadable", f"{len(self.bad):,}{told}"))
        rows += [(f"  {kind}", f"{count:,}") for kind, count in self.unreadable]
        rows += self._of_images() if self.kind.photos else self._of_others()
        if self.classes:
            smallest = min(self.classes, key=lambda c: c[1])
            largest = max(self.classes, key=lambda c: c[1])
            rows.append(
                (
                    "classes",
                    f"{len(self.classes)} of {largest[1]:,} each"
                    if smallest[1] == largest[1]
                    else f"{len(self.classes)}, from {smallest[1]:,} ({smallest[0]}) "
                    f"to {largest[1]:,} ({largest[0]})",
                )
            )
        if left := self.skipped.sentence():
            rows.append(("left out", left))
        rows.append(("seconds", f"{self.seconds:.1f}"))
        if self.quarantine is not None:
            rows.append(("quarantine list", str(self.quarantine)))
        return [(label, printable(value)) for label, value in rows]

    def _of_images(self) -> list[tuple[str, str]]:
        how = "pixels" if self.by_pixels else "files"
        rows = [
            ("constant", f"{self.constant:,}" if self.by_pixels else "not looked at"),
            (f"tiny (below {self.tiny_side} px)", f"{self.tiny:,}"),
            (f"exact duplicates (by {how})", f"{self.duplicates:,}"),
            ("animated (first frame used)", f"{self.animated:,}"),
        ]
        if self.readable:
            rows += [
                ("width (min / median / max)", " / ".join(map(str, self.widths))),
                ("height (min / median / max)", " / ".join(map(str, self.heights))),
                ("channels", _counts(self.channels)),
                ("bits a channel", _counts(self.depths)),
                ("formats", _counts(self.formats)),
            ]
        return rows

    def _of_others(self) -> list[tuple[str, str]]:
        kind, sizes = self.kind, " / ".join(f"{n:,}" for n in self.sizes)
        rows = [("kind", kind.many), ("empty", f"{self.constant:,}")]
        rows += [("exact duplicates", f"{self.duplicates:,}")]
        return [*rows, (f"{kind.counted} (min / median / max)", sizes)] if self.readable else rows

    def text(self) -> str:
        """The report in plain lines."""
        rows = self.rows()
        width = max(len(label) for label, _ in rows)
        lines = [f"{label:<{width}}  {value}" for label, value in rows]
        lines += [printable(f"  {name}: {reason}") for name, reason in self.bad[:10]]
        if len(self.bad) > 10:
            lines.append(f"  and {len(self.bad) - 10:,} more")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.text())}</pre>"

    def render(self) -> Any:
        """The report as a rich table."""
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2))
        for label, value in self.rows():
            table.add_row(Text(label), Text(value))
        for name, reason in self.bad[:10]:
            table.add_row(Text(printable(name), "red"), Text(printable(reason)))
        if len(self.bad) > 10:
            table.add_row("", f"and {len(self.bad) - 10:,} more")
        return table


@takes(Checking)
def check(data: Any, out: Path | None = None, **options: "Unpack[CheckingOptions]") -> Report:
    """Read every sample and count what is readable, broken, constant, tiny, duplicate.

    Args:
        data: folder, list file, Parquet, tar shards, array or anything else that `open_data` takes.
        out: folder for bad_files.csv, the quarantine list that training reads; the command line
            has runs/check-DATA by default.
        options: fields of `Checking`.

    Raises:
        UserError: an option that cannot work, or nothing that can be read.
    """
    asked = Checking.of(**options)
    how = {name: getattr(asked, name) for name in ("labels", "channels", *HOW)}
    if isinstance(data, Samples):
        samples = data
    else:
        of = asked.kind or kinds.guess(data, tuple(kinds.files()))
        samples = open_data(data, kind=kinds.made({"kind": of}), **how)
    list_path = None if out is None else Path(out) / quarantine.FILE
    known: dict[str, Bad] = {}
    if list_path is not None:  # an unwritable folder shows before the work, not after
        known = quarantine.append(list_path, {})
    start = time.monotonic()
    tally = _Tally(samples, asked.tiny, asked.full)
    with bar(len(samples), asked.progress, "reading") as advance:
        for i, found in scan(
            samples, full=asked.full, workers=asked.workers, timeout=asked.timeout
        ):
            tally.add(i, found)
            advance()
    if list_path is not None:
        steps = {name: entry.first_step for name, entry in known.items()}
        bad = {name: Bad(reason, steps.get(name)) for name, reason in tally.bad_names()}
        quarantine.save(list_path, bad)
    return tally.report(time.monotonic() - start, list_path)


def scan(
    samples: Samples, *, full: bool = True, workers: int | None = None, timeout: float = 60.0
) -> Iterator[tuple[int, _Found]]:
    """What each sample is, in any order, each once."""
    if workers is None:
        workers = cores()
    workers = min(workers, -(-len(samples) // 16))
    if workers == 0:
        for i in range(len(samples)):
            yield i, _look(samples, i, full)
        return
    if samples.source.fetched:  # a network is waited for longer than any decoder
        timeout = max(timeout, AFAR)
    pool = _Pool(samples, full, timeout)
    done: set[int] = set()
    try:
        for i, found in pool.run(workers):
            done.add(i)
            yield i, found
    except (_NoWorkersError, pickle.PicklingError, AttributeError, TypeError) as error:
        log.warning("reading in this process, as others cannot be started: %s", error)
        for i in range(len(samples)):
            if i not in done:
                yield i, _look(samples, i, full)
    finally:
        pool.close()


def _look(samples: Samples, i: int, full: bool) -> _Found:
    try:
        raw = samples.source.load(i)
        name = samples.name(i)
        if samples.kind is not None:
            sample = samples.decode(raw, name)
            if full:
                samples.kind.verify(sample)
            size, empty, content = samples.kind.facts(sample)
            return _Found(None, None, empty, _digest(content), size)
        if not full:
            about = samples.header_of(raw, name)
            if isinstance(raw, bytes):
                guard(about.width, about.height, samples.max_pixels, len(raw))
            return _Found(None, about, False, _digest(raw))
        pixels = samples.decode(raw, name)
        about = samples.header_of(raw, name)
        first = pixels[:1, :1]
        constant = bool((pixels[0] == first).all() and (pixels == first).all())
        return _Found(None, about, constant, _digest(pixels))
    except BadSample as error:
        return _Found(error.reason)


def _digest(raw: Raw) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    if isinstance(raw, bytes):
        state.update(raw)
    else:
        array = np.ascontiguousarray(raw)
        state.update(repr((array.shape, array.dtype.str)).encode())
        state.update(array.data)
    return state.digest()


# ---------------------------------------------------------------------------------------- workers


class _NoWorkersError(Exception):
    """A process that never came up."""


class _Range(NamedTuple):
    """Samples to read; reported in bundles, or one by one where a worker was lost over them."""

    start: int
    stop: int
    careful: bool = False


@dataclass(eq=False)
class _Worker:
    """A process, and what it has in hand and not reported yet."""

    process: Any
    connection: Connection
    hand: _Range
    ready: bool = False
    since: float = 0.0


class _Pool:
    """Processes that read ranges of samples; any of them may die at any time."""

    def __init__(self, samples: Samples, full: bool, timeout: float):
        self.samples, self.full, self.timeout = samples, full, timeout
        self.context = get_context("spawn")  # forking a process that has threads may deadlock
        self.workers: list[_Worker] = []
        n = len(samples)
        size = max(1, min(256, n // 32))
        self.waiting = deque(_Range(a, min(a + size, n)) for a in range(0, n, size))

    def run(self, count: int) -> Iterator[tuple[int, _Found]]:
        while self.waiting or self.workers:
            while self.waiting and len(self.workers) < count:
                self._start()
            by_connection: dict[Any, _Worker] = {w.connection: w for w in self.workers}
            for connection in wait(list(by_connection), timeout=min(1.0, self.timeout / 4)):
                worker = by_connection[connection]
                try:
                    bundle = worker.connection.recv()
                except (EOFError, OSError, pickle.UnpicklingError):
                    ending = self._bury(worker, patience=1)
                    if not worker.ready:
                        raise _NoWorkersError(ending) from None
                    yield from self._blame(worker, f"kills the process that reads it ({ending})")
                    continue
                if isinstance(bundle, SelftaughtError):  # no fault of a sample's
                    raise bundle
                yield from enumerate(bundle, worker.hand.start)
                worker.hand = worker.hand._replace(start=worker.hand.start + len(bundle))
                worker.ready, worker.since = True, time.monotonic()
                if worker.hand.start == worker.hand.stop:
                    self._hand_out(worker)
            for worker in list(self.workers):
                if worker.ready and time.monotonic() - worker.since > self.timeout:
                    self._bury(worker)
                    yield from self._blame(worker, f"takes more than {self.timeout:g} s to read")

    def close(self) -> None:
        for worker in list(self.workers):
            self._bury(worker)

    def _start(self) -> None:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve, args=(theirs, self.samples, self.full), daemon=True
        )
        process.start()
        theirs.close()
        self.workers.append(_Worker(process, ours, _Range(0, 0)))

    def _hand_out(self, worker: _Worker) -> None:
        if not self.waiting:
            self._bury(worker)
            return
        worker.hand = self.waiting.popleft()
        try:
            worker.connection.send(worker.hand)
        except OSError:  # it has died meanwhile: reading from it says so
            return

    def _bury(self, worker: _Worker, patience: float = 0) -> str:
        """End a process, after some seconds to end by itself; how it ended, in words."""
        self.workers.remove(worker)
        worker.process.join(patience)
        worker.process.kill()
        worker.process.join()
        worker.connection.close()
        code = worker.process.exitcode
        worker.process.close()
        if code is not None and code < 0:
            return f"signal {signal.Signals(-code).name}"
        return f"exit code {code}"

    def _blame(self, worker: _Worker, reason: str) -> Iterator[tuple[int, _Found]]:
        """Put back what a lost worker had in hand; one that was careful shows which is to blame."""
        start, stop, careful = worker.hand
        if start == stop:
            return
        if careful:
            yield start, _Found(reason)
            if start + 1 < stop:
                self.waiting.append(_Range(start + 1, stop))
        else:
            self.waiting.append(_Range(start, stop, careful=True))


def _serve(connection: Connection, samples: Samples, full: bool) -> None:
    """A worker: read the ranges that come in, report what is found in bundles."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 2)  # C libraries write about damaged files there
    connection.send([])
    while True:
        try:
            start, stop, careful = connection.recv()
        except (EOFError, OSError):
            return
        bundle: list[_Found] = []
        sent = time.monotonic()
        for i in range(start, stop):
            try:
                bundle.append(_look(samples, i, full))
            except SelftaughtError as error:
                connection.send(error)
                return
            if careful or i + 1 == stop or time.monotonic() - sent > 0.05:
                connection.send(bundle)
                bundle, sent = [], time.monotonic()


# ----------------------------------------------------------------------------------------- report

_KINDS = (  # words of a reason -> kind of reason, first match
    ("is empty", "empty"),
    ("is truncated", "truncated"),
    ("cut off", "truncated"),
    ("not an image", "not an image"),
    ("which cannot be read", "format that is not supported"),
    ("million pixels", "too many pixels"),
    ("exceeds limit", "too many pixels"),
    ("cannot be opened", "cannot be opened"),
    ("channels, ", "other number of channels"),
    ("value_range", "values without a defined white"),
    ("--nodata", "values that are missing"),
    ("kills the process", "kills the decoder"),
    ("takes more than", "takes too long"),
    ("header cannot be read", "damaged header"),
)


class _Tally:
    """Counts while samples come in; a few numbers a sample, whatever its size."""

    def __init__(self, samples: Samples, tiny: int, full: bool):
        n = len(samples)
        self.samples, self.tiny_side, self.full = samples, tiny, full
        self.bad: dict[int, str] = {}
        self.sides, self.sizes = np.zeros((n, 2), dtype=np.int32), np.zeros(n, dtype=np.int64)
        self.digests = np.zeros(n, dtype="S16")
        self.ok = np.zeros(n, dtype=bool)
        self.constant = self.tiny = self.animated = 0
        self.channels: Counter[int] = Counter()
        self.depths: Counter[int] = Counter()
        self.formats: Counter[str] = Counter()

    def add(self, i: int, found: _Found) -> None:
        if found.reason is not None:
            self.bad[i] = found.reason
            return
        self.ok[i], self.sizes[i], self.digests[i] = True, found.size, found.digest
        self.constant += found.constant
        about = found.header
        if about is None:
            return
        self.sides[i] = about.width, about.height
        self.sizes[i] = min(about.width, about.height)
        self.tiny += min(about.width, about.height) < self.tiny_side
        self.animated += about.frames > 1
        self.channels[about.channels] += 1
        self.depths[about.depth] += 1
        self.formats[about.format] += 1

    def bad_names(self) -> list[tuple[str, str]]:
        return [(self.samples.name(i), reason) for i, reason in sorted(self.bad.items())]

    def report(self, seconds: float, written: Path | None) -> Report:
        where = np.flatnonzero(self.ok)
        copies, groups = _groups(self.digests[where])
        reasons = Counter(
            next((kind for words, kind in _KINDS if words in reason), "damaged")
            for reason in self.bad.values()
        )
        # an object's labels come from reading its items, which is not for this process to do
        lazy = isinstance(self.samples.source, ObjectSource)
        labels, classes = (None, None) if lazy else (self.samples.labels, self.samples.classes)
        counted: tuple[tuple[str, int], ...] = ()
        if labels is not None:
            values, counts = np.unique(labels[labels >= 0], return_counts=True)
            counted = tuple(
                (classes[v] if classes is not None and v < len(classes) else str(v), int(c))
                for v, c in zip(values, counts, strict=True)
            )
        return Report(
            total=len(self.samples),
            bad=tuple(self.bad_names()),
            unreadable=tuple(reasons.most_common()),
            constant=self.constant,
            tiny=self.tiny,
            tiny_side=self.tiny_side,
            duplicates=copies,
            duplicate_groups=tuple(
                tuple(self.samples.name(int(where[i])) for i in group) for group in groups
            ),
            by_pixels=self.full,
            sizes=_spread(self.sizes[where]),
            widths=_spread(self.sides[where, 0]),
            heights=_spread(self.sides[where, 1]),
            channels=tuple(sorted(self.channels.items())),
            depths=tuple(sorted(self.depths.items())),
            formats=tuple(self.formats.most_common()),
            animated=self.animated,
            classes=counted,
            skipped=self.samples.skipped,
            seconds=seconds,
            quarantine=written,
            kind=kinds.of(self.samples),
        )


def _groups(digests: np.ndarray) -> tuple[int, list[np.ndarray]]:
    """How many are copies of an earlier one, and the positions of the 20 largest groups."""
    order = np.argsort(digests, kind="stable")
    ordered = digests[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else order
    counts = np.diff(np.r_[starts, len(order)])
    largest = [g for g in np.argsort(-counts, kind="stable")[:20] if counts[g] > 1]
    groups = [order[starts[g] : starts[g] + counts[g]] for g in largest]
    return len(order) - len(starts), groups


def _spread(values: np.ndarray) -> tuple[int, int, int]:
    if not len(values):
        return 0, 0, 0
    return int(values.min()), int(np.median(values)), int(values.max())


def _counts(pairs: tuple[tuple[Any, int], ...]) -> str:
    return ", ".join(f"{value}: {count:,}" for value, count in pairs)
