"""What `selftaught embed` runs: paths and numbers in, a file out."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import Progress as Bar

from selftaught.evaluate.features import Asked, Embeddings, Progress, embed
from selftaught.evaluate.settings import Embedding
from selftaught.feed.readers import limited
from selftaught.signature import takes
from selftaught.terminal import standard_error

if TYPE_CHECKING:
    from typing import Unpack

    from selftaught.options import EmbeddingOptions


@takes(Embedding)
def embed_command(encoder: str, data: str, **options: "Unpack[EmbeddingOptions]") -> Embeddings:
    """Write the features of images to a file: one row an image, in dataset order.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), or the function
            that builds a module, as package.module:function.
        data: folder, list file, Parquet, tar shards or array of images.
        options: fields of `Embedding`.
    """
    asked = Embedding.of(**options)
    with bar() as progress, limited(asked.read_timeout):
        return embed(
            Asked(encoder, asked.backbone, asked.mean, asked.std, asked.weights),
            data,
            labels=asked.labels,
            path_column=asked.path_column,
            size=asked.size,
            batch=asked.batch,
            workers=asked.workers,
            device=asked.device,
            precision=asked.precision,
            out=asked.out,
            progress=progress,
        )


@contextmanager
def bar() -> Iterator[Progress]:
    """A progress bar on the terminal, nothing where errors go elsewhere."""
    console = standard_error()
    with Bar(console=console, transient=True, disable=not console.is_terminal) as shown:
        task = shown.add_task("reading and embedding", total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
