"""`search`, for Python and as the command: an encoder and images in, what was found out."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from selftaught import voice
from selftaught.data.source import digest
from selftaught.errors import UserError
from selftaught.evaluate.features import Asked, device_for, open_samples, resolve
from selftaught.evaluate.settings import Searching
from selftaught.feed.readers import limited
from selftaught.index import approximate, page
from selftaught.index.found import Found
from selftaught.index.index import Index
from selftaught.index.queries import Query, opened
from selftaught.report.html import escape
from selftaught.signature import takes

if TYPE_CHECKING:
    from typing import Unpack

    from selftaught.options import SearchingOptions

log = logging.getLogger("selftaught")

ENDINGS = (".html", ".csv", ".parquet")


@dataclass(frozen=True)
class Searched:
    """The index, what was asked for, None where it was not, and the files that were written."""

    index: Index
    matches: Found | None
    duplicates: Found | None
    outliers: Found | None
    files: tuple[Path, ...]

    @property
    def found(self) -> tuple[Found, ...]:
        """What was asked for, in its order."""
        every = self.matches, self.duplicates, self.outliers
        return tuple(found for found in every if found is not None)

    def __repr__(self) -> str:
        return f"<Searched {self.index}: {', '.join(map(repr, self.found)) or 'nothing asked'}>"

    def _repr_html_(self) -> str:
        parts = [f"<p>{escape(str(self.index))}</p>", *(one._repr_html_() for one in self.found)]
        return "".join([*parts, *(f"<p>{escape(str(file))}</p>" for file in self.files)])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(str(self.index))
        yield from self.found
        for file in self.files:
            yield Text(str(file))
        if not self.found:
            yield Text("search it with --query IMAGE, --duplicates or --outliers")


@takes(Searching)
def search(encoder: Any, data: Any, **options: "Unpack[SearchingOptions]") -> Searched:
    """Find images by likeness: those like a picture, duplicates, outliers.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), function that
            builds a module, as package.module:function, or in Python a module.
        data: folder, list file, Parquet, tar shards or array of images.
        options: fields of `Searching`.

    Returns:
        What was found. Nothing of the data is changed.

    Raises:
        UserError: an argument that cannot work, or a query that cannot be read.
        DataError: no image can be read.
    """
    given: Any = options
    for name in ("query", "out"):  # one of them, as one would say it
        if isinstance(given.get(name), str | Path):
            given[name] = (str(given[name]),)
    asked = Searching.of(**given)
    checked(asked)
    if isinstance(encoder, str | Path):
        encoder = Asked(str(encoder), asked.backbone, asked.mean, asked.std, asked.weights)
    elif asked.backbone or asked.mean or asked.std or asked.weights:
        raise UserError(
            "backbone, weights, mean and std belong to an encoder that is named, not to a module"
        )
    network = resolve(encoder, asked.size)
    samples = open_samples(data, network, None, asked.path_column)
    # a query that cannot be read is told before a million images are
    queries = opened(list(asked.query), samples) if asked.query else []
    device = str(device_for(encoder, network, asked.device))
    with (
        voice.heard(),
        voice.counted("reading and embedding") as progress,
        limited(asked.read_timeout),
    ):
        index = Index.of(
            network,
            samples,
            asked.index,
            size=asked.size,
            batch=asked.batch,
            workers=asked.workers,
            device=device,
            precision=asked.precision,
            engine=asked.engine,
            progress=progress,
        )
        return searched(index, queries, asked)


def searched(index: Index, queries: Sequence[Query], asked: Searching) -> Searched:
    """What was asked for, found in an index and written.

    Args:
        index: that is searched.
        queries: pictures to search by.
        asked: what is wanted.
    """
    found = (
        index.query(list(queries), asked.k, asked.min) if queries else None,
        index.duplicates(asked.min) if asked.duplicates else None,
        index.outliers() if asked.outliers else None,
    )
    files = _written(Searched(index, *found, ()), asked.out, queries, asked.shown)
    return Searched(index, *found, files)


def checked(asked: Searching) -> None:
    """Refuse what cannot be searched for, or written: UserError."""
    for out in asked.out:
        if out.suffix not in ENDINGS:
            raise UserError(f"{out} must end in one of {', '.join(ENDINGS)}")
    if asked.out and not (asked.query or asked.duplicates or asked.outliers):
        raise UserError(
            f"there is nothing to write to {asked.out[0]}: ask for --query, --duplicates or "
            "--outliers"
        )
    if asked.engine == "faiss":
        approximate.needed()


@takes(Searching)
def search_command(encoder: str, data: str, **options: "Unpack[SearchingOptions]") -> Searched:
    """Find images by likeness: those like a picture, duplicates, outliers. Nothing is deleted.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), or the function
            that builds a module, as package.module:function.
        data: folder, list file, Parquet, tar shards or array of images.
        options: fields of `Searching`.
    """
    places = str(Path(encoder).resolve()), str(Path(data).resolve())
    stem = Path(data).resolve().stem or "data"
    asked: dict[str, Any] = {"index": Path("runs") / f"index-{stem}-{digest(*places)[:8]}"}
    if options.get("query") or options.get("duplicates") or options.get("outliers"):
        asked["out"] = (Path("search.html"),)
    asked.update(options)
    return search(encoder, data, **asked)


def _written(
    done: Searched, files: Sequence[Path], queries: Sequence[Any], shown: int
) -> tuple[Path, ...]:
    """Write what was found: pages hold all of it, tables one kind each."""
    written = []
    for out in files:
        if out.suffix == ".html":
            page.write(out, done.index, done.found, queries, shown)
            written.append(out)
            continue
        for one in done.found:
            several = len(done.found) > 1
            file = out.with_stem(f"{out.stem}-{one.kind}") if several else out
            one.write(file)
            written.append(file)
    return tuple(written)
