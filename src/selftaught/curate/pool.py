"""`Pool`: a heap of images, what is known of each, and which of them are worth training on.

pool = selftaught.Pool.scan("photos/", out="pool")
pool.filter().embed("runs/simclr-photos").dedup().balance(keep=10_000)
selftaught.pretrain(method, pool, out="runs/balanced")
"""

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from selftaught import __version__, kinds, voice
from selftaught.curate import engines, settings
from selftaught.curate.stage import Block, Stage, file_of, key_of
from selftaught.data import Samples, open_data
from selftaught.data import pool as shelf
from selftaught.data.image.formats import POOL
from selftaught.data.opening import raw_samples
from selftaught.data.selection import select, share
from selftaught.data.skipped import tell
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.evaluate.writing import write_table
from selftaught.export.facts import content
from selftaught.export.files import atomic

if TYPE_CHECKING:
    from typing import Unpack

    from selftaught.options import (
        FilteringOptions,
        ScanningOptions,
    )

log = logging.getLogger("selftaught")

ORDER = ("scan", "filter", "embed", "dedup", "retrieve", "balance")
"""Each stage looks at what those before it have left."""
OWN = {"fetched"}
"""What may be in the folder before it is a pool."""
ARRAYS = (".npy", ".npz")
"""Files whose numbers may be images or others."""


class Record(NamedTuple):
    """A stage that is done: counts of what came in and stays, and of reasons of those that left."""

    name: str
    options: Mapping[str, Any]
    came: int
    stays: int
    reasons: Mapping[str, int]
    facts: Mapping[str, Any]


class Pool:
    """A folder that says of each image of some data whether it stays, and if not, why.

    Nothing is copied and nothing deleted. Every verb can be killed at any time, and started again;
    doing it once more with the same options changes nothing. Verbs act on what the ones before
    them in `ORDER` have left, whenever those were run.

    Args:
        folder: of a pool that is there; `Pool.scan` makes one.

    Raises:
        UserError: there is no pool.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.about = shelf.about(self.folder)

    # ---------------------------------------------------------------------------------- its verbs

    @classmethod
    def scan(cls, *data: Any, **options: "Unpack[ScanningOptions]") -> "Pool":
        """Look at every image's header and bytes: what there is, how large, what is alike.

        Args:
            data: folders, list files, Parquet, tar shards or arrays of images.
            options: fields of `settings.Scanning`.

        Raises:
            UserError: there are no images, or `out` holds something else.
        """
        asked = settings.Scanning.of(**options)
        sources = [_source(Path(os.fspath(one)), asked) for one in data]
        return begun(asked.out, sources, asked.rows)._run("scan", asked)

    def filter(self, **options: "Unpack[FilteringOptions]") -> Self:
        """Leave out images that are too small, long, blurred or empty, or that a list forbids."""
        return self._run("filter", settings.Filtering.of(**options))

    def embed(self, model: Any = "", **options: Any) -> Self:
        """Keep the features of all images that are left, and leave out what cannot be read.

        Args:
            model: see `settings.Embedded`.
            options: its fields.
        """
        return self._run("embed", settings.Embedded.of(model=str(model), **options))

    def dedup(self, threshold: float | None = None, **options: Any) -> Self:
        """Of images that are copies of each other leave the largest.

        Args:
            threshold: see `settings.Deduplicating`.
            options: its fields.
        """
        return self._run("dedup", settings.Deduplicating.of(threshold=threshold, **options))

    def retrieve(self, query: Any = "", **options: Any) -> Self:
        """Leave the images that are like those that somebody has chosen.

        Args:
            query: see `settings.Retrieving`.
            options: its fields.
        """
        return self._run("retrieve", settings.Retrieving.of(query=str(query), **options))

    def balance(self, keep: int = settings.Balancing.keep, **options: Any) -> Self:
        """Leave `keep` images that are spread evenly over what there is to see.

        Args:
            keep: see `settings.Balancing`.
            options: its fields.
        """
        return self._run("balance", settings.Balancing.of(keep=keep, **options))

    def restore(self, stage: str) -> Self:
        """Take a stage back, and those after it: what they left out is in the pool again."""
        if stage not in ORDER[1:]:
            raise UserError(f"{stage} is no stage that leaves images out: {', '.join(ORDER[1:])}")
        for name in ORDER[ORDER.index(stage) :]:
            (self.folder / f"{name}.json").unlink(missing_ok=True)
        with voice.heard():
            self._settle()
        return self

    # ------------------------------------------------------------------------------- what it holds

    def __len__(self) -> int:
        """Images that are left."""
        return int(self.alive().sum())

    def __repr__(self) -> str:
        return f"<Pool {self.folder}: {len(self):,} of {self.count:,} images>"

    @property
    def count(self) -> int:
        """Images of all sources, left or not."""
        return sum(int(source["count"]) for source in self.about["sources"])

    @cached_property
    def blocks(self) -> list[Block]:
        """Of all rows, in order."""
        found, start, step = list[Block](), 0, int(self.about["rows"])
        for s, source in enumerate(self.about["sources"]):
            for n, first in enumerate(range(0, int(source["count"]), step)):
                size = min(step, int(source["count"]) - first)
                name = f"{s:02d}-{n:06d}"
                found.append(Block(len(found), name, start + first, size))
            start += int(source["count"])
        return found

    @cached_property
    def raw(self) -> Samples:
        """All images of all sources, left or not, by their rows, as they lie there."""
        return Samples(shelf.everything(self.folder, raw_samples))

    @cached_property
    def everything(self) -> Samples:
        """The same as they are to be seen: with faces blurred, where filter was asked to."""
        blurs = self._blurs(self.records())
        return self.raw.over(shelf.blurred(self.folder, self.raw.source)) if blurs else self.raw

    @staticmethod
    def _blurs(records: Sequence[Record]) -> bool:
        return any(r.name == "filter" and r.options.get(shelf.BLUR) for r in records)

    @property
    def samples(self) -> Samples:
        """The images that are left, as data to train on."""
        return select(self.everything, np.flatnonzero(self.alive()))

    def records(self) -> list[Record]:
        """The stages that count, in order: done, and of what is there now."""
        return [record for record, _ in self._walk()]

    def alive(self, before: str | None = None) -> np.ndarray:
        """[N] bool: rows that are left by all stages, or by those before one."""
        alive = np.ones(self.count, bool)
        for record, dropped in self._walk():
            if before is not None and ORDER.index(record.name) >= ORDER.index(before):
                break
            alive[dropped] = False
        return alive

    def verdict(self, stage: str) -> dict[str, np.ndarray]:
        """What a stage said: columns `row`, `reason`, and what else it knows of each.

        Raises:
            UserError: the stage has not been run, or counts no more.
        """
        from pyarrow import parquet

        if stage not in {record.name for record in self.records()}:
            raise UserError(f"{self.folder} has no {stage}: run selftaught curate {stage} first")
        table = parquet.read_table(self.folder / f"{stage}.parquet")
        return {name: table.column(name).to_numpy() for name in table.column_names}

    def stage(self, name: str) -> Stage:
        """A stage with the options that it was run with."""
        made = engines.STAGES[name].load()
        return made(self, made.options.of(**self.record(name).get("options", {})))

    def content(self, block: Block) -> str:
        """What is in the images of a block, in a few letters; empty before the scan."""
        return self._contents[block.number]

    @cached_property
    def _contents(self) -> list[str]:
        from pyarrow import parquet

        found = []
        for block in self.blocks:
            file = file_of(self.folder, "scan", "read", block)
            try:
                hashes = parquet.read_table(file, columns=["hash"]).column("hash").to_pylist()
            except OSError:
                return [""] * len(self.blocks)
            found.append(digest(*hashes))
        return found

    # ------------------------------------------------------------------------------ doing the work

    def _run(self, name: str, asked: settings.Working) -> Self:
        stage = engines.STAGES[name].load()(self, asked)
        begun_at = time.perf_counter()
        own, of = share(asked.part)
        with voice.heard():
            for step in stage.passes:
                todo = [b for b in self.blocks if not stage.done(step, b)]
                if todo:
                    stage.prepare(step)
                mine = [b for b in todo if b.number % of == own]
                with voice.counted(f"{name}: {step}") as show:
                    engines.do(stage, step, mine, show)
                left = [b for b in todo if not stage.done(step, b)]
                if left:
                    done = f"{len(self.blocks) - len(left):,} of {len(self.blocks):,}"
                    log.info(
                        "%s: %s blocks of %r are done, the others are those of other parts; "
                        "whichever ends last goes on", name, done, step,
                    )  # fmt: skip
                    return self
            self._judge(stage, begun_at)
        return self

    def _judge(self, stage: Stage, begun_at: float) -> None:
        """Gather the verdict of a stage whose blocks are all done, unless it is there already."""
        self.__dict__.pop("_contents", None)  # the scan has just told them
        key = self._key(stage)
        record: dict[str, Any] = self.record(stage.name)
        more = "as before"
        if record.get("key") != key:
            columns = stage.gather()
            reasons = columns["reason"]
            counts = Counter(str(reason).partition(":")[0] for reason in reasons if reason)
            record = {
                "selftaught": __version__,
                "options": stage.given,
                "key": key,
                "input": digest(stage.alive),
                "came": len(reasons),
                "stays": len(reasons) - sum(counts.values()),
                "reasons": dict(sorted(counts.items())),
                "facts": stage.facts(),
                "seconds": round(time.perf_counter() - begun_at, 2),
            }
            with atomic(self._table(stage.name)) as temporary:
                write_table(temporary, columns, {"key": key})
            with atomic(self.folder / f"{stage.name}.json") as temporary:
                temporary.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
            more = stage.told(columns)
        self._settle()
        left = ", ".join(f"{n:,} {why}" for why, n in record["reasons"].items())
        log.info(
            "%s: %s of %s images stay%s%s",
            stage.name, f"{record['stays']:,}", f"{record['came']:,}",
            f"; left out: {left}" if left else "", f"; {more}" if more else "",
        )  # fmt: skip

    def _key(self, stage: Stage) -> str:
        """What a verdict depends on."""
        inputs = [stage.inputs(step) for step in (*stage.passes, "gather")]
        return digest(stage.name, *inputs, stage.alive, *self._contents)

    def _settle(self) -> None:
        """Write down which rows are left, and say which stages count no more."""
        walked, alive = self._walk(), np.ones(self.count, bool)
        for _, dropped in walked:
            alive[dropped] = False
        self.__dict__.pop("everything", None)
        about = {shelf.BLUR: "yes"} if self._blurs([record for record, _ in walked]) else {}
        with atomic(self.folder / shelf.KEPT) as temporary:
            write_table(temporary, {"row": np.flatnonzero(alive)}, about)
        counting = {record.name for record, _ in walked}
        stale = [name for name in ORDER if self.record(name) and name not in counting]
        if stale:
            log.warning(
                "%s: made of other images than now come in, so that %s no more: run selftaught "
                "curate %s again, or take %s back with selftaught curate restore",
                ", ".join(stale), "they count" if len(stale) > 1 else "it counts", stale[0],
                "them" if len(stale) > 1 else "it",
            )  # fmt: skip

    def _walk(self) -> list[tuple[Record, np.ndarray]]:
        """Stages that count, with the rows that each leaves out."""
        from pyarrow import parquet

        alive, found = np.ones(self.count, bool), []
        for name in ORDER:
            told = self.record(name)
            if not told:
                continue
            if told["input"] != digest(alive):
                break
            table = parquet.read_table(self._table(name), columns=["row", "reason"])
            gone = table.column("reason").to_numpy() != ""
            dropped = table.column("row").to_numpy()[gone]
            alive[dropped] = False
            fields = {f: told[f] for f in ("options", "came", "stays", "reasons", "facts")}
            found.append((Record(name, **fields), dropped))
        return found

    def record(self, name: str) -> dict[str, Any]:
        """What a stage that is done says of itself, as in its file; empty where it is not done."""
        told = content(self.folder / f"{name}.json")
        return told if told and key_of(self._table(name)) == told.get("key") else {}

    def _table(self, name: str) -> Path:
        return self.folder / f"{name}.parquet"


def begun(folder: Path, sources: Sequence[dict[str, Any]], rows: int) -> Pool:
    """A pool with these sources beside those that it has; of one that has changed, as it is now.

    Raises:
        UserError: the folder holds something else.
    """
    about: dict[str, Any] = {"selftaught": __version__, "rows": rows, "sources": []}
    if shelf.is_pool(folder):
        about = shelf.about(folder)
    elif folder.exists() and (not folder.is_dir() or {f.name for f in folder.iterdir()} - OWN):
        raise UserError(f"{folder} holds other things than a pool: name a new folder with --out")
    known = {source["data"]: source for source in about["sources"]}
    for source in sources:
        if source["data"] not in known:
            known = _moved(known, source, folder)
        known[source["data"]] = source
    about["sources"] = list(known.values())
    with atomic(folder / POOL) as temporary:
        temporary.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    return Pool(folder)


def _moved(
    known: dict[str, dict[str, Any]], new: dict[str, Any], pool: Path
) -> dict[str, dict[str, Any]]:
    """The sources of a pool, where one that is gone is what another place now holds: it stays in
    its position, so that rows keep their numbers.

    Raises:
        UserError: one is gone, and this is not it.
    """
    gone = {d: s for d, s in known.items() if not shelf.there(pool / d)}
    same = next((d for d, s in gone.items() if s["fingerprint"] == new["fingerprint"]), None)
    if same is not None:
        log.info("%s is taken for %s, which is not there any more", new["data"], same)
    elif gone:
        raise UserError(
            f"{next(iter(gone))}, which {pool} was made of, is not there, and {new['data']} holds "
            "other images: scan the place to which it was moved, put it back, or begin a pool with "
            "another --out"
        )
    return {new["data"] if d == same else d: s for d, s in known.items()}


def _of_others(data: Path, kind: type[kinds.Kind]) -> UserError:
    """The error for data that is no images: what works for it."""
    frames = "; selftaught frames makes images of it" * kind.moves
    return UserError(
        f"{data} holds {kind.many}, and a pool is one of images: of {kind.many} selftaught search "
        f"ENCODER {data} --duplicates --outliers finds the copies and the unusual{frames}"
    )


def _source(data: Path, asked: settings.Scanning) -> dict[str, Any]:
    """What a pool notes of a source; UserError where it has no images."""
    how = {n: getattr(asked, n) for n in ("column", "labels", "path_column")}
    seems = kinds.find(kinds.guess(data, tuple(kinds.files())))
    if not seems.photos and data.suffix.lower() in ARRAYS:
        raise _of_others(data, seems)
    try:
        opened = open_data(str(data), **how)
    except UserError as error:
        raise (error if seems.photos or not data.exists() else _of_others(data, seems)) from error
    tell(opened)
    place, pool = data.absolute(), asked.out.absolute()
    if place.is_relative_to(pool):  # what was fetched moves with the pool
        place = place.relative_to(pool)
    about = {"data": str(place)} | {n: v for n, v in how.items() if v is not None}
    return about | {"count": len(opened), "fingerprint": opened.fingerprint}
