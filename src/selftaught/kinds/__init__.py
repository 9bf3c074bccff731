"""What a sample is: one final class a file, found by file name, as methods are.

A kind owns whatever differs between an image, a sound, a text and a series: which files hold one,
how bytes become a sample, what evaluation sees of it, how views that a paper declared for images
are made of it, the floors that an encoder must clear, and how it is shown. All other rooms ask the
kind that samples and encoders carry (`of`); none asks which one it is.

Importing a kind imports no torch: the command line reads them.
"""

import os
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cache
from importlib import import_module
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from selftaught.data.image.formats import INDEXED
from selftaught.errors import UserError
from selftaught.sides import told_size
from selftaught.signature import Options, closest

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from selftaught.backbones import Encoder
    from selftaught.data import Samples
    from selftaught.data.source import Source

Floor = Callable[["Tensor"], "Tensor"]
"""Plain views of a batch, on the CPU -> [B, D] floats: what is known without any training."""

Judge = Callable[[Sequence[Any], "np.ndarray", Sequence[Any]], "np.ndarray"]
"""Training samples, their labels [N], test samples -> labels [M], told without any encoder."""

WALKED = 2000
"""Files of a folder by whose endings its kind is told."""
PATHS = {"path", "file", "filename", "file_name", "filepath", "image", "img"}
"""What columns of files are called, and of nothing else."""
SHARE = 3
"""One in so many of them must be of a kind, for it to be that of the folder."""
FRACTION = re.compile(r"(?:^|[,;\t])\s*-?\d*\.\d+(?:[eE]-?\d+)?\s*(?:[,;\t]|$)")
"""A number with a point, alone in its cell."""


class Facts(NamedTuple):
    """What the doctor asks of a sample.

    size: how large it is, in the unit of its kind. empty: whether nothing is in it. content: what
    is alike in exact copies.
    """

    size: int
    empty: bool
    content: bytes


@dataclass(frozen=True)
class Kind(Options, ABC):
    """A kind of samples; plain values, which run.yaml and encoder.json hold as they are.

    word: as on the command line. one, many: in a sentence. blank_words: what is said of those in
    which nothing is. unit: of what `size` counts. counted: what the size of a sample is called.
    axes: of a batch of views. suffixes, columns: where samples are found in folders and tables.
    encoder: `module:Class` of its usual encoder, below `backbones`. backbone: name of the usual
    one, where methods name none for this kind. standins: by whether there is a GPU, what is taken
    for the networks of papers that need many. method: what is trained where nobody names one.
    native: whether samples are uint8 [H, W, C], which the engine of views for images takes. photos:
    whether they are pictures as any library reads them, by options of `open_data`, and prepares
    them, by size, crop and normalization: those without another kind. translates: whether views
    that were declared for images mean something of it. typed: whether one can be given as words, in
    place of a file's name. task: what the Hugging Face hub calls an encoder. moves: whether it can
    be played as pictures. places: folder of `evaluate` that scores what is where in one; empty
    where nothing does. extra: what must be installed beside the package, as in
    `pip install 'selftaught[sound]'`.
    """

    word: ClassVar[str]
    one: ClassVar[str]
    many: ClassVar[str]
    blank_words: ClassVar[str] = "are empty"
    unit: ClassVar[str]
    counted: ClassVar[str]
    axes: ClassVar[int]
    suffixes: ClassVar[frozenset[str]]
    columns: ClassVar[tuple[str, ...]]
    encoder: ClassVar[str]
    backbone: ClassVar[str | None] = None
    method: ClassVar[str] = "simclr"
    standins: ClassVar[Mapping[bool, Mapping[str, str]]] = {}
    native: ClassVar[bool] = False
    photos: ClassVar[bool] = False
    translates: ClassVar[bool] = False
    typed: ClassVar[bool] = False
    task: ClassVar[str] = "feature-extraction"
    moves: ClassVar[bool] = False
    places: ClassVar[str] = ""
    extra: ClassVar[str] = ""

    # ---------------------------------------------------------------------------------- reading

    def open(
        self,
        source: Any,
        column: str | None = None,
        labels: str | None = None,
        path_column: str | None = None,
    ) -> "Source":
        """Raw samples of whatever holds them, as `open_data` takes it.

        Raises:
            UserError: there is nothing of this kind.
        """
        from selftaught.data.opening import raw_samples

        return raw_samples(source, self, column, labels, path_column)

    @abstractmethod
    def decode(self, raw: Any, name: str) -> Any:
        """What a source gave -> a sample; BadSample with the reason where that cannot be."""

    def verify(self, sample: Any) -> None:
        """Read all of a sample where `decode` left some of it, for `check`; BadSample where a part
        is damaged."""

    @abstractmethod
    def facts(self, sample: Any) -> Facts:
        """What the doctor, and `check`, ask of a sample."""

    def described(self, samples: "Samples", some: Sequence[int]) -> list[tuple[str, str]]:
        """What is told of samples beside their number, by name.

        Args:
            some: of them that are looked at.
        """
        sizes = sorted(self.facts(samples.read(i)).size for i in some)
        low, middle, high = sizes[0], sizes[len(sizes) // 2], sizes[-1]
        text = f"{low:,}" if low == high else f"{low:,} to {high:,}, median {middle:,}"
        return [(self.counted, text)]

    # ------------------------------------------------------------------------------------ views

    @abstractmethod
    def plain(self, size: Any) -> Callable[..., Any]:
        """What evaluation sees: (sample, rng) -> an array that stacks, without randomness.

        Args:
            size: of the encoder.
        """

    def again(self, view: "np.ndarray") -> Any:
        """A plain view as a sample of its own."""
        return view

    def alike(self, size: Any) -> Any:
        """A pipeline of two random views that any encoder worth its name finds alike."""
        from selftaught import augment

        return self.views(augment.moco(size, blur=0.0))

    def bytes(self, size: Any, channels: int) -> int:
        """That a plain view takes."""
        return 4 * channels * prod(size if isinstance(size, tuple) else (size,))

    def translate(self, node: Any) -> Any:
        """What stands for a declared part of a pipeline, a `View` or `Views`; or that itself."""
        return node

    def views(self, pipeline: Any) -> Any:
        """The pipeline of a method for samples of this kind: each declared view translated."""
        return mapped(pipeline, self.translate)

    def single(self, views: Any) -> Any:
        """The one view of a sample that is seen beside one of another kind.

        Args:
            views: declared for images, one of them.
        """
        return self.views(views)

    def prepare(self, views: Any, encoder: Any, channels_last: bool = False) -> Any:
        """Collated views as the encoder takes them, on their device.

        Args:
            views: nested tensors, as the pipeline gave them or as `plain` did.
            encoder: whose `mean` and `std` they are to have.
            channels_last: memory layout that convolutions over images like.
        """
        return views

    def inputs(self, views: Any) -> list["Tensor"]:
        """What the encoder takes among prepared views, nested as the pipeline gave them."""
        from selftaught.augment.pipeline import tensors

        return [x for x in tensors(views) if x.ndim == self.axes]

    def there(self, views: "Tensor", encoder: Any) -> "Tensor | None":
        """Which local features of prepared plain views stand for anything, bool [B, N]; None where
        all of them do."""
        return None

    def blank(self, count: int, encoder: Any) -> "Tensor":
        """Plain views of nothing, collated, to try an encoder and to take its time on."""
        raise NotImplementedError(f"{type(self).__name__} must say what a blank view is")

    # --------------------------------------------------------------------------------- encoders

    def fill(self, given: dict[str, Any], samples: "Samples") -> tuple[Self, dict[str, Any]]:
        """This kind and the parameters of its encoder, with all that only the data can give.

        Alike for the same data: a run that is repeated or resumed does without asking again.

        Args:
            given: parameters that somebody gave; `size` and `channels` may be absent.
            samples: read as this kind.
        """
        return self, given

    def keep(self, folder: Path) -> None:
        """Write into the folder of a run, or of an encoder, what plain values do not hold."""

    def beside(self, folder: Path) -> Self:
        """This kind with what `keep` has written there.

        Raises:
            UserError: it is of another kind than this.
        """
        return self

    def build(self, **given: Any) -> "Encoder":
        """An encoder with fresh weights that knows its kind."""
        module, _, label = self.encoder.partition(":")
        made: Any = getattr(import_module(f"selftaught.backbones.{module}"), label)(**given)
        made.kind = self
        return made

    # ----------------------------------------------------------------------- scores and pages

    @abstractmethod
    def floors(self) -> Mapping[str, Floor]:
        """What an encoder must beat beside its untrained self, by name, the last one the finest:
        of it exact copies are known."""

    def judges(self) -> Mapping[str, Mapping[str, Judge]]:
        """Floors that are answers, not features, by their names and those of scores."""
        return {}

    about_floors: ClassVar[str] = ""
    """How they were made, in a sentence, where their names do not say it."""

    @abstractmethod
    def thumbnail(self, sample: Any, side: int) -> "np.ndarray":
        """A sample as a picture, uint8 [C, side, side], C 1 or 3."""

    def heard(self, raw: Any) -> "tuple[np.ndarray, int] | None":
        """What a source gave, as a page can play it: float32 [n] and values a second; None where
        nothing of it can be heard."""
        return None

    def moving(self, sample: Any, side: int) -> "np.ndarray":
        """Of a kind that `moves`, frames as a page can play them, uint8 [T, 3, side, side]."""
        raise NotImplementedError(f"{type(self).__name__} does not move")

    def said(self, sample: Any) -> str:
        """The words of a sample that is read, not looked at; empty for all others."""
        return ""

    @abstractmethod
    def pictures(self, view: "np.ndarray") -> "list[np.ndarray]":
        """What an array among the views of a method, or a plain one, shows: uint8 [C, h, w], all
        alike; empty where it is no view."""

    def shown(self, views: "Tensor") -> "Tensor":
        """Plain views, collated, as pictures: uint8 [B, C, h, w]."""
        import numpy as np
        import torch

        if self.native:
            return views
        return torch.from_numpy(np.stack([self.pictures(view)[0] for view in views.numpy()]))

    # ------------------------------------------------------------------------------------ words

    def at(self, size: Any) -> str:
        """How large views are, in words."""
        return f"{told_size(size)} {self.unit}"

    @property
    def config(self) -> dict[str, Any]:
        """Plain values that make it again; see `made`."""
        return {"kind": self.word} | {f.name: getattr(self, f.name) for f in fields(self)}

    def written(self, name: str) -> dict[str, Any]:
        """`config` under a name, as run.yaml and encoder.json have it; nothing of photos."""
        return {} if self.photos else {name: self.config}


def mapped(node: Any, change: Callable[[Any], Any]) -> Any:
    """A pipeline with `change` made to each declared part, innermost first."""
    if isinstance(node, tuple):
        return tuple(mapped(child, change) for child in node)
    if is_dataclass(node) and not isinstance(node, type):
        parts = {f.name: getattr(node, f.name) for f in fields(node) if f.init}
        new = {n: mapped(v, change) for n, v in parts.items() if is_dataclass(v) or _holds(v)}
        node = replace(node, **{n: v for n, v in new.items() if v is not parts[n]})
    return change(node)


def _holds(value: Any) -> bool:
    return isinstance(value, tuple) and any(map(is_dataclass, value))


# ------------------------------------------------------------------------------------ finding one


@cache
def files() -> dict[str, Path]:
    """Name -> file of each kind, images first."""
    found = {f.stem: f for f in sorted(Path(__file__).parent.glob("*.py")) if f.stem != "__init__"}
    return {"image": found.pop("image")} | found


def find(name: str) -> type[Kind]:
    """The class of the kind called `name`; UserError where there is none."""
    if name not in files():
        near = closest(name, files())
        raise UserError(f"no kind of samples is called {name!r}{near or ': ' + ', '.join(files())}")
    return getattr(import_module(f"selftaught.kinds.{name}"), name.capitalize())


def among(asked: Sequence[str]) -> tuple[str, ...]:
    """Names of the kinds that a method learns from, by its `Needs.kinds`."""
    return tuple(n for n in files() if find(n).translates) if asked == "any" else tuple(asked)


def made(config: Mapping[str, Any] | None = None) -> Kind:
    """The kind that plain values describe, as `Kind.config` gives them; images without any."""
    given = dict(config or {})
    return find(str(given.pop("kind", "image")))(**given)


@cache
def images() -> Kind:
    """What samples and encoders are of that say no other."""
    return made()


def of(thing: Any) -> Kind:
    """What samples are, or what an encoder takes."""
    return getattr(thing, "kind", None) or images()


def guess(data: Any, asked: Sequence[str], beside: bool = False) -> str:
    """The kind that data seems to be of, by its endings, and its type where it is an array.

    Other kinds than the usual one are imported where something may speak for them.

    Args:
        data: as `open_data` takes it; nothing of it is decoded.
        asked: as `Needs.kinds`: names, the usual one first, or `any`: it is the answer where
            nothing speaks for another.
        beside: whether it stands beside other data: a table of files and texts is one of texts.
    """
    usual = next(iter(files())) if asked == "any" else asked[0]
    if asked != "any" and len(asked) == 1:
        return usual
    if isinstance(data, str | os.PathLike):
        return _by_endings(Path(data), usual, asked, beside)
    if hasattr(data, "dtype") and hasattr(data, "shape") and "series" in among(asked):
        return "series" if _is_series(data.shape, data.dtype.kind) else usual
    return usual


def _by_endings(path: Path, usual: str, asked: Sequence[str], beside: bool) -> str:
    if not path.exists() and not set(str(path)) & set("{*?["):  # which whoever opens it will say
        return usual
    if (path / INDEXED).is_file():
        from selftaught.data.indexed import about

        listed = about(path).kind
        return listed if listed in among(asked) else usual
    endings, seen = _endings(path)
    plain = find(usual).suffixes - ({".npy", ".npz"} if path.is_file() else set())
    if endings.keys() <= plain:
        return usual
    known = {name: find(name) for name in among(asked)}
    if path.is_dir():
        counts = {name: sum(endings[e] for e in kind.suffixes) for name, kind in known.items()}
        most = max(known, key=counts.__getitem__)
        return most if SHARE * counts[most] >= seen else usual  # a table beside shards is no data
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz") and "series" in known and path.is_file():
        from selftaught.data.series.files import shape_of

        return "series" if _is_series(*shape_of(path)) else usual
    if suffix == ".parquet" and path.is_file():
        return _by_columns(path, known)
    if "text" in known and path.is_file() and _holds_texts(path, known["text"].columns, beside):
        return "text"
    if suffix in (".csv", ".tsv", ".txt"):  # a list of files, unless there are fractions
        of_files = {e for kind in known.values() for e in kind.suffixes}
        numbers = "series" in known and _has_fractions(path) and not _names(path, of_files)
        return "series" if numbers else usual
    return next((name for name, kind in known.items() if suffix in kind.suffixes), usual)


def _endings(path: Path) -> tuple[Counter[str], int]:
    """Of a file, or of the first files of a folder; and how many files were seen."""
    if not path.is_dir():
        return Counter({path.suffix.lower(): 1}), 1
    found, seen = Counter[str](), 0
    for _, folders, names in os.walk(path):
        folders.sort()
        found.update(os.path.splitext(name)[1].lower() for name in names[: WALKED - seen])
        seen += len(names)
        if seen >= WALKED:
            break
    return found, seen


def _by_columns(path: Path, known: Mapping[str, type[Kind]]) -> str:
    """The first kind after whose samples a column is called."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        names = [name.lower() for name in pq.read_schema(path).names]
    except (OSError, pa.ArrowException):
        names = []
    found = (n for n, kind in known.items() if any(c in names for c in kind.columns))
    return next(found, next(iter(known)))


def _has_fractions(path: Path) -> bool:
    """Whether the first lines of a table hold numbers with a point."""
    return any(FRACTION.search(line) for line in _lines(path))


def _names(path: Path, endings: Container[str]) -> bool:
    """Whether a cell of the first lines ends as files of samples do."""
    cells = (cell.strip(' "') for line in _lines(path) for cell in re.split(r"[,;\t]", line))
    return any(os.path.splitext(cell.strip())[1].lower() in endings for cell in cells)


def _holds_texts(path: Path, columns: Sequence[str], beside: bool) -> bool:
    """Whether a .txt holds other things than paths, or a table has a column that is called so."""
    lines = _lines(path) if path.suffix.lower() in (".txt", ".csv", ".tsv", ".jsonl") else []
    if path.suffix.lower() != ".txt":
        names = {*re.split(r"[^a-z_]+", lines[0].lower())} if lines else set[str]()
        return bool(names & {*columns}) and (beside or not names & PATHS)  # a caption beside a file
    ends = [os.path.splitext(line.strip().split("\t")[0].split(",")[0])[1] for line in lines]
    paths = [re.fullmatch(r"\.\w{2,5}(\s+\S+)?", end) for end in ends]
    return bool(lines) and not all(paths)


def _lines(path: Path) -> list[str]:
    """The first lines of a file, those that are empty aside."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line for line in (file.readline(10_000) for _ in range(3)) if line.strip()]
    except OSError:
        return []


def _is_series(shape: tuple[int, ...], numbers: str) -> bool:
    """Whether an array is [N, T] or [N, C, T]: fractions, which no square of pixels holds."""
    return numbers == "f" and (len(shape) == 2 or (len(shape) == 3 and shape[1] != shape[2]))
