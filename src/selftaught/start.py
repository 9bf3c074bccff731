"""Where to start: from the data that somebody has to a command, with what was measured of it.

What is said of data stands here, what was measured in measured.json: `python docs/build.py
--readme` takes it from benchmarks/results, and makes the table of README.md of both.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

ABOUT = (
    "Scores are per cent, of images that were not trained on; in brackets their floors, the best "
    "of raw pixels and the same network untrained. CPU seconds are of one core, shared with other "
    "work."
)
MEASURED = Path(__file__).with_name("measured.json")


class Start(NamedTuple):
    """A kind of data, and what to do with it.

    data: what there is. command: what to type. method: what it trains. what: why, in a clause.
    images: what it was measured on. row: of benchmarks/results: a file without its ending, then
    keys of it. other: a row that says what there was before.
    """

    data: str
    command: str
    method: str
    what: str
    images: str
    row: tuple[str, ...]
    other: tuple[str, ...] = ()


STARTS = (
    Start(
        "Some thousand images, and nothing else",
        "selftaught pretrain photos/ --time 20m",
        "simclr",
        "two views of an image are alike, and unlike those of all others",
        "3,068 photos of clothes, 64 px",
        ("learn-clothing", "simclr"),
    ),
    Start(
        "Few images, and weights of ImageNet, say",
        "selftaught pretrain photos/ --weights timm --time 20m",
        "simclr",
        "goes on from there, and keeps the start where labels say that it was better",
        "720 photos of steel, EfficientNet-Lite0 at 64 px",
        ("adapt", "neu_steel", "on_simclr"),
        ("adapt", "neu_steel", "start"),
    ),
    Start(
        "The same, and a small network is wanted",
        "selftaught pretrain distill_features photos/ --teacher resnet50 --time 20m",
        "distill_features",
        "the small one learns what the trained one sees",
        "3,068 photos of clothes, 64 px, taught by EfficientNet-Lite0",
        ("adapt", "clothing", "distill"),
    ),
    Start(
        "Labels of all images, to find their like by",
        "selftaught pretrain supcon labeled/",
        "supcon",
        "images of a class are alike",
        "3,068 photos of clothes, 64 px",
        ("learn-clothing_100k", "supcon"),
    ),
    Start(
        "Scenes in which places count: segmentation",
        "selftaught pretrain pixcontrast photos/",
        "pixcontrast",
        "the same place in two views is alike",
        "367 frames of CamVid, 128 px",
        ("dense-camvid", "pixcontrast"),
    ),
    Start(
        "Ten thousand images or more, for a transformer",
        "selftaught pretrain mae photos/",
        "mae",
        "paints the patches that are hidden; of fewer images it learns next to nothing",
        "10,000 images of CIFAR-10, 32 px",
        ("learn-cifar10", "mae"),
    ),
)


def starts() -> list[dict[str, Any]]:
    """All that is known of each, as plain values.

    scores: name -> per cent, and that of the floor, the highest among raw pixels and the same
    network untrained. before: those of the weights that it began with; empty where it had none.
    seen: images in training. cpu_seconds: of it, on one core. measured: the command that made the
    numbers. result: file that they stand in.
    """
    measured = json.loads(MEASURED.read_text("utf-8"))
    return [
        {n: v for n, v in s._asdict().items() if n not in ("row", "other")}
        | measured[key(s.row)]
        | {"before": measured[key(s.other)]["scores"] if s.other else {}}
        for s in STARTS
    ]


def key(row: tuple[str, ...]) -> str:
    """What a row is called in measured.json."""
    return "/".join(row)


def told(start: Mapping[str, Any]) -> str:
    """The scores of a start, in words."""
    text = ", ".join(f"{name} {v} ({floor})" for name, (v, floor) in start["scores"].items())
    if start["before"]:
        text += "; the weights alone " + ", ".join(str(v) for v, _ in start["before"].values())
    return text


def pace(start: Mapping[str, Any]) -> str:
    """CPU seconds for 1,000 images seen, in words."""
    return f"{1000 * start['cpu_seconds'] / start['seen']:.1f}"
