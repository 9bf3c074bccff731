"""A row a method: what the contract tests construct. Adding a method adds its row here."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import nn

from selftaught import kinds, methods
from selftaught.backbones import Image, backbone
from selftaught.backbones.series.encoder import Series
from selftaught.backbones.sound.encoder import Waves
from selftaught.backbones.text.encoder import Text
from selftaught.data.text import tokenizer
from selftaught.data.text.tokenizer import Tokens, Vocabulary
from selftaught.data.video.take import Shown
from selftaught.kinds.text import Text as Texts


@dataclass(frozen=True)
class Case:
    """A method small enough to test: timm's `test_resnet` or `test_vit`, images of `size` px.

    Args:
        options: constructor parameters beside the backbone.
        net: timm name of the backbone, or what builds one for samples that are no images.
        size: of the images, multiples of 16 for `test_vit`; or of other samples.
        sample: makes sample i where that is no image.
        unused: prefixes of parameters that rightly get no gradient at the first step.
        exact_ranks: whether two processes give one's loss to the last digits; False where
            the method itself draws masks or negatives in each process (say why in a comment).
        any_order: whether the loss is the same in any order of the batch; False where samples get
            draws, or neighbors, by their place.
    """

    options: dict[str, Any] = field(default_factory=dict)
    net: str | Callable[[], Any] = "test_resnet"
    size: int = 32
    sample: Callable[[int], Any] | None = None
    unused: tuple[str, ...] = ()
    exact_ranks: bool = True
    any_order: bool = True

    def make(self, name: str, samples: int = 16) -> Any:
        options = dict(self.options)
        if "samples" in methods.signature(name):
            options["samples"] = samples
        net = drawn(self.net, self.size) if isinstance(self.net, str) else self.net()
        return methods.find(name)(net, **options)


VOCABULARY = Vocabulary(words=60, pad=0, start=2, end=3, mask=4)


def words(index: int) -> Tokens:
    """A text of three to twenty words, of which some have two tokens."""
    rng = np.random.default_rng(index)
    count = int(rng.integers(3, 20))
    return Tokens(rng.integers(5, 60, count), rng.random(count) < 0.2, VOCABULARY)


def wave(index: int) -> np.ndarray:
    """A sound of a tenth to a third of a second, [1, n], at 8,000 values a second."""
    rng = np.random.default_rng(index)
    t = np.arange(rng.integers(800, 2600)) / 8000
    tone = np.sin(2 * np.pi * rng.uniform(100, 2000) * t) + 0.1 * rng.standard_normal(len(t))
    return tone.astype(np.float32)[None]


def clip(index: int) -> Shown:
    """A take of 12 frames of 20 x 28 pixels."""
    rng = np.random.default_rng(index)
    coarse = rng.integers(0, 256, (1, 3, 5, 7), np.uint8).repeat(4, 2).repeat(4, 3)
    return Shown(np.concatenate([np.roll(coarse, 2 * t, 3) for t in range(12)]))


def drawn(net: str, size: int) -> Image:
    """`backbone(net, size)`, which is built and drawn once from each state of the generator."""
    made, after = _drawn(net, size, torch.get_rng_state().numpy().tobytes())
    torch.set_rng_state(after)
    return copy.deepcopy(made)


@lru_cache(maxsize=16)
def _drawn(net: str, size: int, _: bytes) -> tuple[Any, torch.Tensor]:
    return backbone(net, size=size), torch.get_rng_state()


class Teacher(nn.Module):
    """A small network with classes, for methods that learn from one."""

    classes = 3

    def __init__(self) -> None:
        super().__init__()
        last = nn.Linear(12, 3)
        for parameter in last.parameters():  # the same in all processes
            nn.init.trunc_normal_(parameter, generator=torch.Generator().manual_seed(0))
        self.logits = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), last)


def teacher(net: str = "test_convnext", size: int = 32) -> Image:
    """A small encoder with weights that are the same in all processes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return backbone(net, size=size)


def fitting(name: str, images: np.ndarray, folder: Path) -> Any:
    """Images [N, H, W, 3] as the method called `name` needs them: with labels, or with masks."""
    kind = methods.find(name)
    if kind.needs.labels:
        return [(image, i % 3) for i, image in enumerate(images)]
    return with_masks(images, folder / "frames.parquet") if kind.needs.beside else images


def with_masks(images: np.ndarray, path: Path) -> Path:
    """A Parquet file of the images, each with a mask of a square that moves."""
    squares = np.zeros(images.shape[:3], np.uint8)
    for i, square in enumerate(squares):
        square[i % 8 : i % 8 + 20, 4:24] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": images, "mask": squares}
    pq.write_table(pa.table({n: [_png(x) for x in c] for n, c in columns.items()}), path)
    return path


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def curve(index: int) -> np.ndarray:
    """A series of two channels and 40 steps."""
    return np.random.default_rng(index).standard_normal((2, 40)).astype(np.float32)


def scan(index: int) -> np.ndarray:
    """A scan of 90 to 120 points within some meters of the sensor, with intensity."""
    rng = np.random.default_rng(index)
    count = int(rng.integers(90, 121))
    ground = np.concatenate([rng.uniform(-3, 3, (count, 2)), np.full((count, 1), -1.0)], 1)
    ground[: count // 3] = rng.uniform(-0.4, 0.4, (count // 3, 3)) + rng.uniform(-2, 2, 3)
    return np.concatenate([ground, rng.random((count, 1))], 1).astype(np.float32)


def pillars() -> Any:
    """A small encoder of scans, which knows how far they are seen."""
    kind = kinds.made({"kind": "points", "reach": 4.0, "intensity": "yes", "brightest": 1.0})
    return kind.build(size=64, reach=4.0, cells=8, width=4, depth=2)


def video(net: str) -> Callable[[], Any]:
    """What builds a small encoder of clips of four frames."""
    kind = kinds.made({"kind": "clip", "frames": 4, "stride": 1})
    sizes = {"size": 16, "frames": 4, "patch_size": 8, "width": 24, "depth": 2, "heads": 2}
    return lambda: kind.build(name=net, **sizes)


_JEPA = {"predictor_dim": 24, "predictor_depth": 1, "predictor_heads": 2}


def text(net: Any) -> Callable[[], Any]:
    """What builds a small encoder of texts."""
    return partial(Text, net, size=16, words=VOCABULARY.words, dropout=0.0)


PAIRS = {
    "infonce": {"dim": 16},
    "vicreg": {"hidden": 32, "dim": 24},
    "dcca": {"dim": 3},
    "ace": {"dim": 3},
}
"""Methods that take a second modality of another kind, and their options around small networks."""

CAPTIONS = tuple(
    f"a {size} {color} {shape} on the {side}"
    for size in ("small", "large")
    for color in ("red", "green", "blue", "yellow")
    for shape, side in (("disc", "left"), ("box", "right"))
)
"""Sixteen texts, one for each sample of the contract."""


def paired(name: str) -> Any:
    """The method called `name` around a small network of images and one of texts."""
    cut = tokenizer.train(CAPTIONS, 300, lower=True)
    kind = Texts().cutting(cut)
    net = drawn("test_resnet", 32)
    about = {"words": cut.vocabulary.words, "pad": cut.vocabulary.pad, "dropout": 0.0}
    return methods.find(name)(
        net, other=kind.build(name="bert_tiny", size=16, **about), **PAIRS[name]
    )


OTHERS = {
    "bert": Case(net=text("bert_tiny"), size=16, sample=words),
    "causal_lm": Case(net=text("gpt_tiny"), size=16, sample=words),
    "ts2vec": Case(
        net=partial(Series, "dilated", 32, 2, width=4, depth=2, dropout=0.0),
        sample=curve,
        any_order=False,  # the first sample's draws are the batch's
    ),
    "masked_series": Case(
        net=partial(Series, "patches", 32, 2, width=8, depth=1, heads=2, dropout=0.0), sample=curve
    ),
    "cpc_audio": Case(
        {"steps": 4}, net=partial(Waves, size=1600, width=8, context=6), size=1600, sample=wave
    ),
    "also": Case({"queries": 30, "latent": 8, "neighbors": 4}, pillars, 64, scan),
    # each process draws the masks of its own batch
    "vjepa": Case(_JEPA, video("vit_tiny"), 16, clip, exact_ranks=False, any_order=False),
    "vjepa2": Case(_JEPA, video("vit_tiny_rope"), 16, clip, exact_ranks=False, any_order=False),
    "temporal_order": Case(net=video("vit_tiny"), size=16, sample=clip),
}
"""Methods that learn from no images; all of `CASES` do."""

CASES = {
    "densecl": Case({"hidden": 32, "dim": 16, "queue": 12}),
    "pixpro": Case({"hidden": 32, "dim": 16}),
    "pixcontrast": Case({"hidden": 32, "dim": 16}),
    "scrl": Case({"hidden": 32, "dim": 16, "boxes": 3}),
    # each image is told from the one before it in the batch of its process
    "counting": Case({"counts": 8, "hidden": (16,)}, exact_ranks=False, any_order=False),
    "colorization": Case({"width": 16}),
    "split_brain": Case({"width": 16}),
    # each process draws the places of its own batch
    "stego": Case(
        {"dim": 8, "clusters": 5, "places": 3, "neighbors": 2, "negatives": 2},
        "test_vit",
        unused=("backbone",),
        exact_ranks=False,
        any_order=False,
    ),
    "exemplar_cnn": Case({"surrogates": 16}),
    "jigsaw": Case({"count": 6, "tile_dim": 8, "hidden": (16,)}),
    "rotation": Case(),
    "motion": Case({"width": 16}),
    "distortion": Case(),
    # each process draws the noise of its own batch
    "relative_patch": Case({"grid": 2, "hidden": 16}, exact_ranks=False, any_order=False),
    "inpainting": Case({"width": 32, "adversarial": 0.1}),
    "distill": Case({"network": Teacher()}),
    "distill_features": Case({"network": teacher(), "hidden": 16}),
    "simclr_v2_finetune": Case({"classes": 3}),
    "finetune": Case({"classes": 3}),
    "lejepa": Case({"hidden": 32, "dim": 16, "slices": 6, "local_crops": 2}),
    "visreg": Case({"hidden": 32, "dim": 16, "slices": 6, "global_crops": 3, "local_crops": 2}),
    "barlow_twins": Case({"hidden": 32, "dim": 24}),
    "dcl": Case({"hidden": 32, "dim": 16}),
    "hcl": Case({"hidden": 32, "dim": 16}),
    "infonce": Case({"hidden": 32, "dim": 16}),
    "npair": Case({"hidden": 32, "dim": 16}),
    "siamese": Case({"hidden": 32, "dim": 16}),
    "spectral": Case({"hidden": 32, "dim": 16}),
    "supcon": Case({"dim": 16}),
    "triplet": Case({"hidden": 32, "dim": 16}),
    "byol": Case({"hidden": 32, "dim": 16}),
    "moco_v1": Case({"dim": 16, "queue": 12}),
    "infomin": Case({"dim": 16, "queue": 12}),
    "moco_v2": Case({"dim": 16, "queue": 12}),
    "moco_v3": Case({"hidden": 32, "dim": 16}),
    "nnclr": Case({"hidden": 32, "dim": 16, "predictor_hidden": 32, "queue": 12}),
    "mean_shift": Case({"hidden": 32, "dim": 16, "queue": 12, "neighbors": 3}),
    # each process draws the negatives of its own batch
    "instdisc": Case({"negatives": 6, "dim": 16}, exact_ranks=False, any_order=False),
    "pirl": Case({"negatives": 6, "dim": 16}, exact_ranks=False, any_order=False),  # as instdisc
    "pcl": Case(
        {"prototypes": (4, 6), "dim": 16, "queue": 12, "negatives": 3, "cluster_start": 0.0}
        | {"restarts": 2}
    ),
    # with drawn negatives each process draws its own
    "cpc": Case({"negatives": 0, "context": 8, "blocks": 2, "gray": 0.5}),
    "simsiam": Case({"dim": 32, "bottleneck": 16}),
    "vicreg": Case({"hidden": 32, "dim": 24}),
    "simclr_v2": Case({"dim": 16}),
    "simclr": Case({"hidden": 32, "dim": 16}),
    "deepcluster": Case({"clusters": 4, "whitened": 8}),
    "dino": Case({"prototypes": 24, "hidden": 32, "bottleneck": 16, "local_crops": 2}, "test_vit"),
    "simdino": Case({"hidden": 32, "bottleneck": 16, "local_crops": 2}, "test_vit"),
    # each process draws the masks of its own batch
    "simdinov2": Case(
        {"hidden": 32, "bottleneck": 16, "local_crops": 2},
        "test_vit",
        exact_ranks=False,
        any_order=False,
    ),
    # each process draws the patches that it leaves out
    "msn": Case(
        {"prototypes": 12, "hidden": 32, "dim": 16, "focal_views": 2}, "test_vit", exact_ranks=False
    ),
    "dcca": Case({"dim": 3}),
    "dccae": Case({"dim": 3, "hidden": 16, "side": 8, "weight": 0.1}),
    "ace": Case({"dim": 3}),
    "w_mse": Case({"hidden": 32, "dim": 2, "group": 4}, any_order=False),  # groups are of places
    # each process draws the masks of its own batch
    "dinov2": Case(
        {"prototypes": 24, "hidden": 32, "bottleneck": 16, "local_crops": 2},
        "test_vit",
        exact_ranks=False,
        any_order=False,
    ),
    "ibot": Case({"prototypes": 24, "hidden": 32, "bottleneck": 16, "local_crops": 2}, "test_vit"),
    "mae": Case({"dim": 32, "depth": 1, "heads": 2}, "test_vit"),
    # the paper adds 1e-5 to each process's number of hidden pixels
    "simmim": Case({"unit": 8}, "test_vit", exact_ranks=False),
    "denoising": Case({"width": 8}, "test_vit"),
    "selfie": Case({"depth": 1, "heads": 2, "hidden": 16, "dropout": 0.0}),
    # the mean over the hidden patches of a process, whose number varies
    "data2vec": Case({}, "test_vit", exact_ranks=False),
    "beit": Case({"vocabulary": 16}, "test_vit", exact_ranks=False),
    # each process draws the noise of its own batch
    "discrete_vae": Case(
        {"vocabulary": 8, "dim": 8, "width": 8}, "test_vit", exact_ranks=False, any_order=False
    ),
    "aim": Case({"dim": 16, "depth": 1}, "test_vit"),
    # each process draws the masks of its own batch
    "ijepa": Case({"dim": 32, "depth": 1}, "test_vit", exact_ranks=False, any_order=False),
    "capi": Case({"clusters": 16, "asked": 0.4, "dim": 16, "depth": 2, "heads": 2}, "test_vit"),
    "deepcluster_v2": Case({"prototypes": (4, 5), "hidden": 32, "dim": 16, "local_crops": 2}),
    "sela": Case({"prototypes": 4, "heads": 2}),
    "seer": Case({"prototypes": 12, "hidden": (32, 32), "dim": 16, "local_crops": 2}),
    "swav": Case(
        {
            "prototypes": 12,
            "hidden": 32,
            "dim": 16,
            "local_crops": 2,
            "queue": 8,
            "queue_start": 0.0,
        }
    ),
}


def larger_dinov2(**options: Any) -> Any:
    """A DINOv2 in the middle of its training, of another width than the row's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        options = CASES["dinov2"].options | options
        made = methods.find("dinov2")(backbone("test_vit3", size=32), **options)
        with torch.no_grad():
            for part in (made.ema, made.ema_head, made.ema_patch_head):
                for parameter in part.parameters() if part else ():
                    parameter.add_(torch.randn_like(parameter), alpha=0.02)
            made.center.normal_(std=0.1)
            made.patch_center.normal_(std=0.1)
        return made
