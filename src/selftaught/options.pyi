# Made by `python docs/build.py --stubs`.
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict

from selftaught.roles import (
    Bits,
    Cosine,
    Count,
    Fraction,
    ImageSize,
    Number,
    Positive,
    Several,
    Share,
    Strength,
    Temperature,
)

class CheckingOptions(TypedDict, total=False):
    full: bool
    workers: Number | None
    column: str | None
    labels: str | None
    kind: str | None
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

class ReadingOptions(TypedDict, total=False):
    path_column: str | None
    batch: Count
    workers: Number | None
    device: str
    precision: Literal["fp32", "bf16"]
    read_timeout: Positive

class EncodingOptions(ReadingOptions, total=False):
    labels: str | None
    size: ImageSize | None
    weights: str | Path | None
    backbone: str | None
    mean: tuple[float, ...] | None
    std: tuple[Positive, ...] | None

class ScoringOptions(EncodingOptions, total=False):
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
            "attentive",
            "cluster",
            "robustness",
            "adversarial",
            "noisy-labels",
            "groups",
            "layers",
        ]
    ]
    second_column: str | None
    pair_by: Literal["auto", "name", "row"]
    masks: str | None
    test_masks: str | None
    groups: str | None
    ignore: Sequence[int]
    k: Count
    temperature: Temperature
    blocks: Number
    altered: Several
    passes: Count
    shares: Sequence[Fraction]
    epochs: Count
    seed: Number
    out: str | Path | None

class EmbeddingOptions(EncodingOptions, total=False):
    out: str | Path
    local: bool
    part: str | None
    columns: Literal["auto", "list", "wide"]

class SearchingOptions(ReadingOptions, total=False):
    query: Sequence[str | Path]
    duplicates: bool
    outliers: bool
    k: Count
    min: Cosine | None
    out: Sequence[str | Path]
    index: str | Path | None
    engine: Literal["auto", "exact", "faiss"]
    shown: Count
    size: ImageSize | None
    weights: str | Path | None
    backbone: str | None
    mean: tuple[float, ...] | None
    std: tuple[Positive, ...] | None

class ClassifyingOptions(EncodingOptions, total=False):
    out: str | Path | None
    finetune: bool
    target: Literal["classes", "multilabel", "regression"] | None
    overwrite: bool
    json: bool
    heads: Sequence[Literal["ridge", "logistic", "knn"]]
    epochs: Count | None
    seed: Number

class PredictingOptions(ReadingOptions, total=False):
    out: str | Path
    min: Share | None
    overwrite: bool
    backbone: str | None

class WorkingOptions(TypedDict, total=False):
    part: str | None
    engine: Literal["local", "ray"]
    workers: Count | None

class ScanningOptions(WorkingOptions, total=False):
    out: str | Path
    column: str | None
    labels: str | None
    path_column: str | None
    rows: Count

class FilteringOptions(WorkingOptions, total=False):
    min_side: Number
    max_aspect: Positive
    min_sharpness: Strength
    min_contrast: Strength
    blocklist: str | Path | None
    nsfw: Share | None
    blur_faces: bool

class EmbeddedOptions(WorkingOptions, total=False):
    model: str
    weights: str | Path | None
    size: ImageSize | None
    batch: Count
    device: str
    mean: tuple[float, ...] | None
    std: tuple[Positive, ...] | None
    precision: Literal["fp32", "bf16"]

class DeduplicatingOptions(WorkingOptions, total=False):
    exact_only: bool
    hash: Bits
    threshold: Cosine | None
    candidates: Cosine
    k: Count
    against: str | None
    against_threshold: Cosine | None

class RetrievingOptions(WorkingOptions, total=False):
    query: str
    nearest: Count
    clusters: Number
    per_cluster: Count
    limit: Count | None
    min_similarity: Cosine
    seed: Number

class BalancingOptions(WorkingOptions, total=False):
    keep: Count
    levels: Count
    clusters: Sequence[Count]
    resampling: Number
    nearest: Count
    seed: Number

class TellingOptions(TypedDict, total=False):
    out: str | Path | None
    shown: Count
    points: Number
    seed: Number

class FetchingOptions(TypedDict, total=False):
    contact: str | None
    connections: Count
    per_host: Positive
    timeout: Positive
    max_bytes: Count
    blocklist: str | Path | None
    base: str | None
    column: str | None
    types: Sequence[Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic"]]
    suffixes: Sequence[str]
    retries: Number
    backoff: Positive
    max_delay: Positive
    max_redirects: Number
    robots: bool
    opt_outs: bool
    allow: Sequence[str]
    user_agent: str | None
