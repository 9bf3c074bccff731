# Made by `python docs/build.py --stubs`.
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from selftaught.roles import Cosine, Count, Fraction, Number, Positive, Several, Temperature

class CheckingOptions(TypedDict, total=False):
    full: bool
    workers: Number | None
    column: str | None
    labels: str | None
    path_column: str | None
    channels: Count
    value_range: tuple[float, float] | None
    truncated: Literal["skip", "keep"]
    max_pixels: Count
    nodata: float | None
    layout: Literal["HWC", "CHW"] | None
    tiny: Number
    timeout: Positive
    progress: bool

class ScoringOptions(TypedDict, total=False):
    probes: Sequence[
        Literal[
            "knn",
            "ridge",
            "linear",
            "linear-paper",
            "lowshot",
            "finetune",
            "retrieval",
            "segment",
            "cluster",
            "robustness",
        ]
    ]
    labels: str | None
    path_column: str | None
    masks: str | None
    test_masks: str | None
    ignore: Sequence[int]
    k: Count
    temperature: Temperature
    altered: Several
    passes: Count
    shares: Sequence[Fraction]
    epochs: Count
    size: Count | None
    backbone: str | None
    mean: tuple[float, ...] | None
    std: tuple[Positive, ...] | None
    batch: Count
    workers: Number | None
    device: str
    precision: Literal["fp32", "bf16"]
    read_timeout: Positive
    seed: Number
    out: str | Path | None

class EmbeddingOptions(TypedDict, total=False):
    out: str | Path
    local: bool
    columns: Literal["auto", "list", "wide"]
    labels: str | None
    path_column: str | None
    size: Count | None
    backbone: str | None
    mean: tuple[float, ...] | None
    std: tuple[Positive, ...] | None
    batch: Count
    workers: Number | None
    device: str
    precision: Literal["fp32", "bf16"]
    read_timeout: Positive

class SearchingOptions(TypedDict, total=False):
    query: Sequence[str | Path]
    duplicates: bool
    outliers: bool
    k: Count
    min: Cosine | None
    out: Sequence[str | Path]
    index: str | Path | None
    engine: Literal["auto", "exact", "faiss"]
    shown: Count
    path_column: str | None
    size: Count | None
    backbone: str | None
    mean: tuple[float, ...] | None
    std: tuple[Positive, ...] | None
    batch: Count
    workers: Number | None
    device: str
    precision: Literal["fp32", "bf16"]
    read_timeout: Positive
