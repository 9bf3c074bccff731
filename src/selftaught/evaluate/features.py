"""One pass over a dataset: the features of one network, or of several at once."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import code, export, kinds, voice
from selftaught.backbones import Encoder, Image, Wrapped, build, is_encoder, layers
from selftaught.backbones import untrained as reset
from selftaught.backbones.image.shown import statistics
from selftaught.data import Samples, open_data
from selftaught.data.memory import cores, free_memory
from selftaught.data.skipped import tell
from selftaught.errors import DataError, TrainingError, UserError
from selftaught.evaluate.image.changes import Change, changed
from selftaught.evaluate.writing import check, texts, write
from selftaught.export.facts import is_path
from selftaught.feed.passes import reading
from selftaught.feed.views import ViewDataset
from selftaught.kinds.floors.image import Pixels
from selftaught.sides import Size, short
from selftaught.voice import counted

log = logging.getLogger("selftaught")

Progress = Callable[[int, int], None]
"""Called with the number of samples that are done, and of all."""

_FEW = 512
"""With fewer samples, starting worker processes takes longer than it saves."""


class NoneReadable(DataError):
    """No sample can be read; skipped: name of each -> why."""

    def __init__(self, message: str, skipped: Mapping[str, str]):
        super().__init__(message)
        self.skipped = skipped

    @classmethod
    def of(cls, skipped: Mapping[str, str]) -> Self:
        """With the first of them in the message."""
        name, reason = next(iter(skipped.items()))
        return cls(
            f"none of the {len(skipped)} samples can be read; the first: {name}: {reason}", skipped
        )


@dataclass(frozen=True)
class Embeddings:
    """Features of the samples that could be read, in dataset order.

    features: [N, D] float32, or [N, h, w, L] of places. labels: [N] int64, -1 where unknown, or
    None. index: [N] positions in the dataset. classes: names of the labels, where they have names.
    skipped: name of each sample that could not be read -> why. extra: further features by name,
    [N, ...], such as those of other layers, which `linear` chooses from too.
    """

    features: np.ndarray
    labels: np.ndarray | None = None
    index: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    classes: tuple[str, ...] | None = None
    skipped: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        parts = [f"features {' x '.join(map(str, self.features.shape))}"]
        parts += [] if self.labels is None else [f"{len(self.labels):,} labels"]
        parts += [f"{len(self.skipped):,} samples left out"] if self.skipped else []
        return f"<Embeddings: {', '.join(parts)}>"


@dataclass(frozen=True)
class Asked:
    """An encoder as a command names it, and what its files do not say.

    Args:
        encoder: run, encoder.safetensors, name of a timm model, or function that builds a module.
        backbone: function that builds its module, which may run because the user names it.
        mean, std: what images are normalized with.
        weights: file that the network of this name is to have, instead of pretrained ones.
    """

    encoder: str
    backbone: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    weights: Path | None = None

    def __str__(self) -> str:
        return self.encoder

    def network(self, size: Size | None) -> Encoder:
        """The network; UserError where it is none, or does not take this normalization."""
        if _is_code(self.encoder):
            given = {"size": size, "usual": 224, "mean": self.mean, "std": self.std}
            found: Any = build(self.encoder, **given).eval()
            if self.mean is None or self.std is None:
                log.warning(
                    "nothing says what %s was trained with: images are normalized with mean %s "
                    "and std %s; say otherwise with --mean and --std",
                    self.encoder,
                    *([round(v, 3) for v in values] for values in (found.mean, found.std)),
                )
            return found
        if self.weights is not None:
            if is_path(self.encoder):
                raise UserError(
                    f"--weights are those of a timm model by its name, and {self.encoder} is a "
                    "place that has its own: leave them out"
                )
            return Image(
                self.encoder, size or 224, mean=self.mean, std=self.std, weights=self.weights
            ).eval()
        path = Path(self.encoder)
        if self.backbone is not None and not is_path(self.encoder):
            raise UserError(
                f"--backbone says which code builds the module of a run, and {self.encoder} is a "
                "name: leave it out"
            )
        known = self.backbone is None
        found = resolve(self.encoder, size) if known else export.load(path, self.backbone)
        found.mean = statistics("mean", self.mean, found.mean, found.channels)
        found.std = statistics("std", self.std, found.std, found.channels)
        return found


def embed(
    encoder: Asked | Encoder | nn.Module | str | Path,
    data: Any,
    *,
    labels: str | None = None,
    path_column: str | None = None,
    size: Size | None = None,
    batch: int = 256,
    workers: int | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    out: Path | None = None,
    progress: Progress | None = None,
    local: bool = False,
) -> Embeddings:
    """Features of plain views (resize, center crop) of all samples that can be read.

    Args:
        encoder: a network (ours, timm's or any module; see `Wrapped` for one whose images are not
            like ImageNet's), a run folder, an `encoder.safetensors`, or the name of a timm model,
            which is then used with its pretrained weights.
        data: anything that `open_data` takes, or its result.
        labels: CSV of path,label or name of a column; class folders are found by themselves.
        path_column: column of a list that holds the paths, where it is not found by itself.
        size: side of the views in pixels; by default the encoder's own.
        batch: images a forward pass.
        workers: processes that read images; by default one a core, none for few images.
        device: such as `cuda`; by default where the network is, or the best for one from a file.
        precision: `bf16` is used only on processors that have it natively.
        out: file to write: .npz, .npy (features alone), .parquet or .csv.
        progress: is told how many samples are done.
        local: features of places in place of pooled ones: of a ViT's patches, or the last map of a
            convolutional network, [N, h, w, L].

    Returns:
        Features in dataset order, alike for any number of workers. The network is left in the mode
        and place that it was in.

    Raises:
        UserError: an argument that cannot work.
        DataError: no sample can be read.
        TrainingError: the network gives features that are not finite.
    """
    if out is not None:
        check(out)
    network = resolve(encoder, size)
    samples = open_samples(data, network, labels, path_column)
    of = places if local else pooled
    with (
        voice.heard(),
        counted("embedding") as show,
        running(network, device_for(encoder, network, device), precision, of) as forward,
    ):
        features, rest = one_pass(
            [forward], samples, size or network.size, batch, workers, progress or show
        )
    found = Embeddings(features[0], *rest)
    if out is not None:
        write(out, found.features, *columns_of(found, samples))
    return found


def columns_of(
    found: Embeddings, samples: Samples
) -> tuple[dict[str, Any], tuple[str, ...] | None]:
    """What is written beside features: columns by name, and the names of classes."""
    columns: dict[str, Any] = {"name": texts(samples, found.index), "index": found.index}
    if found.labels is not None:
        columns["label"] = found.labels
    return columns, found.classes


def pixels(
    data: Any,
    side: int = 16,
    *,
    labels: str | None = None,
    channels: int = 3,
    size: Size = 224,
    batch: int = 256,
    workers: int | None = None,
) -> Embeddings:
    """Raw pixels as features: what an encoder must beat to have learned anything.

    Args:
        data, labels: as of `embed`.
        side: the plain view is averaged down to `side` x `side`, the mean of each image removed.
        channels: of the images.
        size: side of the plain view in pixels.
        batch, workers: as of `embed`.
    """
    samples = data
    if not isinstance(data, Samples):
        samples = open_data(data, labels=labels, channels=channels)
        tell(samples)
    features, rest = one_pass([Pixels(side)], samples, size, batch, workers)
    return Embeddings(features[0], *rest)


def changed_features(
    networks: Sequence[Callable[[Tensor], Tensor]],
    samples: Samples,
    changes: Mapping[str, Change],
    size: Size,
    batch: int = 256,
    workers: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[np.ndarray]:
    """For each network [N, V, D]: the features of V changes of each image; `one_pass` says more."""
    each = max(1, batch // len(changes))
    return one_pass(networks, samples, size, each, workers, progress, changes, seed)[0]


def untrained(encoder: Encoder, seed: int = 0) -> Encoder:
    """The same network with fresh weights from `seed`; the global generator is left alone."""
    if isinstance(encoder, Wrapped):
        return encoder.like(reset(encoder.net, seed))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = {"pretrained": False} if isinstance(encoder, Image) else {}
        return kinds.of(encoder).build(**{**encoder.config, **fresh})


def _is_code(name: str) -> bool:
    """Whether a word for an encoder names a function that builds it."""
    return code.names(name) and not Path(name).exists()


def resolve(encoder: Asked | Encoder | nn.Module | str | Path, size: Size | None = None) -> Encoder:
    """The network that `encoder` stands for; see `embed`.

    Raises:
        UserError: it is neither a module, nor a path, nor a name that timm knows.
    """
    if size is not None and short(size) < 1:
        raise UserError(f"size={size} is a side of images in pixels, at least 1")
    if isinstance(encoder, Asked):
        return encoder.network(size)
    if is_encoder(encoder):
        return encoder
    if isinstance(encoder, nn.Module):
        return Wrapped(encoder, size)
    if isinstance(encoder, str) and _is_code(encoder):
        return Asked(encoder).network(size)
    if not isinstance(encoder, str | Path):
        raise UserError(
            f"an encoder is a torch module, a path or a timm name, not a "
            f"{type(encoder).__name__}; for features of your own use knn((x, y), (x_test, y_test))"
        )
    path = Path(encoder)
    if is_path(str(encoder)):
        return export.load(path)
    return Image(str(encoder), size or 224, pretrained=True).eval()


def open_samples(
    data: Any, network: Encoder, labels: str | None = None, path_column: str | None = None
) -> Samples:
    """`data` as samples that an encoder takes."""
    kind, channels = kinds.of(network), network.channels
    if not isinstance(data, Samples):
        found = open_data(
            data, labels=labels, path_column=path_column, channels=channels, kind=kind
        )
        tell(found)
        return found
    if kinds.of(data).word != kind.word:
        raise UserError(
            f"the encoder takes samples of kind `{kind.word}`, and these are of "
            f"`{kinds.of(data).word}`; open them with kind=selftaught.kinds.of(encoder)"
        )
    if kind.photos and data.channels != channels:
        raise UserError(
            f"the encoder takes {kind.many} of {channels} channels, the samples have "
            f"{data.channels}; open them with channels={channels}"
        )
    return data if kinds.of(data) == kind else data.seen_as(kind, channels)


class Rest(NamedTuple):
    """What an `Embeddings` holds beside features, in its order."""

    labels: np.ndarray | None
    index: np.ndarray
    classes: tuple[str, ...] | None
    skipped: dict[str, str]


def one_pass(
    networks: Sequence[Callable[[Tensor], Tensor]],
    samples: Samples,
    size: Size,
    batch: int = 256,
    workers: int | None = None,
    progress: Progress | None = None,
    changes: Mapping[str, Change] | None = None,
    seed: int = 0,
) -> tuple[list[np.ndarray], Rest]:
    """Features of plain views under several networks: each image is read and decoded once.

    Args:
        networks: uint8 [B, C, size, size] on the CPU -> [B, D] or more axes.
        samples: to look at.
        size, batch, workers, progress: as of `embed`.
        changes: V of them, of each view, are looked at instead of it; seed: of what they draw.

    Returns:
        For each network [N, D] float32 of the readable samples, [N, V, D] with `changes`; labels
        and the like.
    """
    if batch < 1 or short(size) < 1 or (workers or 0) < 0:
        raise UserError(f"batch={batch} and size={size} must be at least 1, workers={workers} 0")
    workers = readers(len(samples), workers)
    views = _Views(samples, size, changes, seed)
    features: list[np.ndarray] = []
    index = np.empty(len(samples), np.int64)
    skipped: dict[str, str] = {}
    done = kept = 0
    with reading(views, range(len(samples)), batch, workers) as items:
        for images, where, bad in items:
            skipped |= {samples.name(i): reason for i, reason in bad}
            if images is not None:
                for n, network in enumerate(networks):
                    flat = images if changes is None else images.flatten(0, 1)
                    found = network(flat).float().cpu().numpy()
                    if changes is not None:
                        found = found.reshape(*images.shape[:2], *found.shape[1:])
                    _check_finite(found, samples, where)
                    if n == len(features):
                        _check_room(len(samples) * found[0].nbytes, len(samples))
                        features.append(np.empty((len(samples), *found.shape[1:]), np.float32))
                    features[n][kept : kept + len(where)] = found
                index[kept : kept + len(where)] = where
                kept += len(where)
            done += len(where) + len(bad)
            if progress is not None:
                progress(done, len(samples))
    if not kept:
        raise NoneReadable.of(skipped)
    if skipped:
        tell_skipped(skipped)
    index = index[:kept]
    labels = None if samples.labels is None else np.asarray(samples.labels)[index]
    classes = None if samples.classes is None else tuple(samples.classes)
    return [f[:kept] for f in features], Rest(labels, index, classes, skipped)


def tell_skipped(skipped: Mapping[str, str]) -> None:
    """Say how many samples could not be read, and why one could not."""
    name, reason = next(iter(skipped.items()))
    log.warning("%d samples left out, for instance %s: %s", len(skipped), name, reason)


def readers(count: int, workers: int | None) -> int:
    """Processes that read so many samples, unless somebody has said how many."""
    if workers is None:
        return 0 if count < _FEW else min(8, cores())
    return workers


class _Views(ViewDataset):
    """Plain views [C, S, S], or changes of them [V, C, S, S], of the samples that can be read."""

    def __init__(
        self, samples: Samples, size: Size, changes: Mapping[str, Change] | None, seed: int
    ):
        super().__init__(samples, kinds.of(samples).plain(size), seed, replaced=False)
        self.changes = changes

    def see(self, index: int, key: tuple[int, int]) -> np.ndarray:
        view = super().see(index, key)
        return view if self.changes is None else changed(view, index, self.changes, self.seed)


def pooled(network: Encoder, x: Tensor) -> Tensor:
    """[B, C, S, S] floats -> [B, D]."""
    return network(x)


def places(network: Encoder, x: Tensor) -> Tensor:
    """[B, C, S, S] floats -> [B, h, w, L]: features of places; UserError where there are none."""
    found = network.features(x)
    return found.local.unflatten(1, found.grid)


class Layered:
    """Features of several layers side by side, in one tensor, and how to tell them apart again."""

    def __init__(self) -> None:
        self.widths: dict[str, int] = {}

    def __call__(self, network: Encoder, x: Tensor) -> Tensor:
        """[B, C, S, S] floats -> [B, sum of widths]."""
        found = layers(network, x)
        self.widths = {name: part.shape[1] for name, part in found.items()}
        return torch.cat(list(found.values()), 1)

    def split(self, wide: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What `embed` gives, and what else `linear` may choose from: views of `wide`."""
        patches, last = self.widths.get("patches", 0), self.widths["last"]
        if not patches:
            return wide, {}
        extra = {"last layer and mean of patches": wide[:, : patches + last]}
        earlier = len(self.widths) - 2
        if earlier:
            extra[f"last {earlier + 1} layers"] = wide[:, patches:]
            extra[f"last {earlier + 1} layers and mean of patches"] = wide
        return np.ascontiguousarray(wide[:, patches : patches + last]), extra


class Local:
    """Local features, and the grid that they lie on."""

    def __init__(self) -> None:
        self.grid = (0, 0)

    def __call__(self, network: Encoder, x: Tensor) -> Tensor:
        """[B, C, S, S] floats -> [B, N, L]."""
        found = network.features(x)
        self.grid = found.grid
        return found.local


def color_and_place(grid: tuple[int, int]) -> Callable[[Tensor], Tensor]:
    """uint8 [B, C, S, S] -> [B, N, 2 C + 2]: mean, deviation, row and column of each cell."""
    rows, columns = (torch.linspace(0, 1, n) for n in grid)
    place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))

    def forward(x: Tensor) -> Tensor:
        x = x.float() / 255
        mean = F.adaptive_avg_pool2d(x, grid)
        deviation = (F.adaptive_avg_pool2d(x.square(), grid) - mean.square()).clamp(min=0).sqrt()
        parts = [mean, deviation, place.expand(len(x), -1, -1, -1)]
        return torch.cat(parts, 1).flatten(2).mT

    return forward


def home_of(network: Encoder | nn.Module) -> torch.device:
    """Where the weights of a module are; the CPU for one that has none."""
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device


@contextmanager
def running(
    network: Encoder,
    device: torch.device,
    precision: str,
    of: Callable[[Encoder, Tensor], Tensor] = pooled,
) -> Iterator[Callable[[Tensor], Tensor]]:
    """`network` on `device`, in evaluation mode, taking uint8; afterwards as and where it was.

    Args:
        of: what is wanted of it, given normalized floats.
    """
    modes = {module: module.training for module in network.modules()}
    home, kind = home_of(network), kinds.of(network)
    autocast = precision == "bf16" and _has_bf16(device)

    @torch.inference_mode()
    def forward(x: Tensor) -> Tensor:
        x = kind.prepare(x.to(device, non_blocking=True), network)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            return of(network, x)

    try:
        network.to(device).eval()
        yield forward
    finally:
        network.to(home)
        for module, training in modes.items():
            module.training = training


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu.get_capabilities()
        native = device.type == "cpu" and bool(has.get("avx512_bf16") or has.get("amx_bf16"))
    if not native:
        log.warning("this %s has no bf16 of its own, which would be slower: fp32", device.type)
    return native


def usable(device: str) -> torch.device:
    """The device of this name; UserError where there is none."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"device={device!r} cannot be used ({reason}); try cpu") from error
    return torch.device(device)


def device_for(
    encoder: Asked | Encoder | nn.Module | str | Path, network: Encoder, device: str
) -> torch.device:
    """Where `network` runs: the device asked for, or the best for an encoder from a file."""
    if device != "auto":
        return usable(device)
    if isinstance(encoder, nn.Module):
        return home_of(network)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _check_room(need: int, count: int) -> None:
    """Refuse what would not fit into memory, before most of it was computed."""
    free = free_memory()
    if free is not None and need > free:
        raise UserError(
            f"the features of {count:,} images take {need / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB of memory are free: embed the images in parts, or smaller "
            "ones (--size)"
        )


def _check_finite(found: np.ndarray, samples: Samples, where: Tensor) -> None:
    bad = np.flatnonzero(~np.isfinite(found.reshape(len(found), -1)).all(1))
    if len(bad):
        raise TrainingError(
            f"the encoder gives features that are not finite, first for "
            f"{samples.name(int(where[bad[0]]))}: its weights are broken, or the range of bf16 is "
            "exceeded; look at the run that made it"
        )
