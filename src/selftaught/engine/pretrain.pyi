# Made by `python docs/build.py --stubs`.
from pathlib import Path
from typing import Any, Literal

from selftaught.engine.run import Run
from selftaught.method import Method

def pretrain(
    method: str | type[Method] | Method,
    data: Any,
    out: str | Path | None = None,
    *,
    epochs: int = 100,
    batch: int = 256,
    accumulate: int = 1,
    effective_batch: int | None = None,
    unmix: float | None = None,
    optimizer: Literal["sgd", "adam", "adamw", "adamw_bert", "lamb", "lars", "lars_tf", "larc"]
    | None = None,
    lr: float | None = None,
    scaling: Literal["linear", "sqrt", "none"] | None = None,
    weight_decay: float | tuple[float, float] | None = None,
    layer_decay: float | None = None,
    warmup: float | None = None,
    clip: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    devices: int = 1,
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
    channels_last: bool = True,
    compile: bool = False,
    resolution_phase: str | None = None,
    column: str | None = None,
    second: Any = None,
    labels: str | None = None,
    test: Any = None,
    value_range: tuple[float, float] | None = None,
    truncated: Literal["skip", "keep"] = "skip",
    masks: str | None = None,
    quarantine: str | Path | None = None,
    cache: bool = False,
    reduced: bool = True,
    colours: Literal["auto", "loader", "device"] = "auto",
    max_bad: float = 0.05,
    evaluate: bool = True,
    log_every: int = 10,
    save_every: float = 10.0,
    start: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    **options: Any,
) -> Run: ...
