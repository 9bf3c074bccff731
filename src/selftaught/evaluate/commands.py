"""What `selftaught embed` runs: paths and numbers in, a file out."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from rich.progress import Progress as Bar

from selftaught.evaluate.features import Asked, Embeddings, Progress, embed
from selftaught.feed.readers import limited
from selftaught.roles import Count, Number, Positive
from selftaught.terminal import standard_error


def embed_command(
    encoder: str,
    data: str,
    *,
    out: Path = Path("features.npz"),
    labels: str | None = None,
    path_column: str | None = None,
    size: Count | None = None,
    backbone: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[Positive, ...] | None = None,
    batch: Count = 256,
    workers: Number | None = None,
    device: str = "auto",
    precision: Literal["fp32", "bf16"] = "fp32",
    read_timeout: Positive = 600.0,
) -> Embeddings:
    """Write the features of images to a file: one row an image, in dataset order.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), or the function
            that builds a module, as package.module:function.
        data: folder, list file, Parquet, tar shards or array of images.
        out: file to write: .npz, .npy (features alone) or .parquet.
        labels: CSV of path,label or name of a column; class folders are found by themselves.
        path_column: column of a list that holds the paths, where it is not found by itself.
        size: side of the views in pixels; by default the encoder's own.
        backbone: function that builds the module of a run, where it is of an installed package.
        mean, std: what images are normalized with, where the encoder does not say it.
        batch: images a forward pass.
        workers: processes that read images; by default one a core, none for few images.
        device: such as cpu or cuda; by default the best that the machine has.
        precision: of the forward pass; bf16 is used only on processors that have it natively.
        read_timeout: seconds for a batch after which a process that reads counts as hung.
    """
    with bar() as progress, limited(read_timeout):
        return embed(
            Asked(encoder, backbone, mean, std),
            data,
            labels=labels,
            path_column=path_column,
            size=size,
            batch=batch,
            workers=workers,
            device=device,
            precision=precision,
            out=out,
            progress=progress,
        )


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on the terminal, nothing where errors go elsewhere."""
    console = standard_error()
    with Bar(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("reading and embedding", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
