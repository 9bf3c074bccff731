# Made by `python docs/build.py --stubs`.
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from selftaught.engine.run import Run
from selftaught.method import Method
from selftaught.roles import Count, Fraction, Number, Positive, Rate, Share, Weight

def pretrain(
    method: str | type[Method] | Method,
    data: Any,
    out: str | Path | None = None,
    *,
    epochs: Count = 100,
    batch: Count = 256,
    accumulate: Count = 1,
    effective_batch: Count | None = None,
    unmix: Share | None = None,
    optimizer: Literal["sgd", "adam", "adamw", "adamw_bert", "lamb", "lars", "lars_tf", "larc"]
    | None = None,
    lr: Rate | None = None,
    scaling: Literal["linear", "sqrt", "none"] | None = None,
    weight_decay: Weight | tuple[Weight, Weight] | None = None,
    layer_decay: Fraction | None = None,
    warmup: Share | None = None,
    clip: Rate | None = None,
    seed: Number = 0,
    workers: Number | None = None,
    read_timeout: Positive = 600.0,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    devices: Count = 1,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    channels_last: bool = True,
    compile: bool = False,
    resolution_phase: str | None = None,
    column: str | None = None,
    second: Any = None,
    labels: str | None = None,
    path_column: str | None = None,
    test: Any = None,
    value_range: tuple[float, float] | None = None,
    truncated: Literal["skip", "keep"] = "skip",
    nodata: float | None = None,
    max_pixels: Count = 179000000,
    layout: Literal["HWC", "CHW"] | None = None,
    masks: str | None = None,
    quarantine: str | Path | None = None,
    cache: bool = False,
    reduced: bool = True,
    colors: Literal["auto", "loader", "device"] = "auto",
    max_bad: Share = 0.05,
    evaluate: bool = True,
    curve: bool = True,
    track: tuple[Literal["wandb", "mlflow", "trackio", "csv", "tensorboard"], ...] = (),
    on_record: Callable[[dict[str, float]], None] | None = None,
    log_every: Count = 10,
    save_every: Weight = 10.0,
    start: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    **options: Any,
) -> Run: ...
