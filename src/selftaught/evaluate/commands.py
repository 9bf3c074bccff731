"""What `selftaught embed` runs: paths and numbers in, a file out."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from selftaught.data.selection import share, share_of
from selftaught.evaluate.features import (
    Asked,
    columns_of,
    device_for,
    embed,
    open_samples,
)
from selftaught.evaluate.settings import Embedding
from selftaught.evaluate.writing import check, write
from selftaught.feed.readers import limited
from selftaught.signature import takes

if TYPE_CHECKING:
    from typing import Unpack

    from selftaught.options import EmbeddingOptions


class Written(NamedTuple):
    """out: file. shape: of the features; None where the file was there already."""

    out: Path
    shape: tuple[int, ...] | None


@takes(Embedding)
def embed_command(encoder: str, data: str, **options: "Unpack[EmbeddingOptions]") -> Written:
    """Write the features of images to a file: a row an image, or a place, in dataset order.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), or the function
            that builds a module, as package.module:function.
        data: folder, list file, Parquet, tar shards or array of images.
        options: fields of `Embedding`.
    """
    asked = Embedding.of(**options)
    out, first = asked.out, 0
    if asked.part is not None:
        own, of = share(asked.part)
        out = out.with_name(f"{out.stem}-{own:05}-of-{of:05}{out.suffix}")
        if out.exists():
            return Written(out, None)
    check(out, asked.columns)
    named = Asked(encoder, asked.backbone, asked.mean, asked.std, asked.weights)
    network = named.network(asked.size)
    samples = open_samples(data, network, asked.labels, asked.path_column)
    if asked.part is not None:
        samples, first = share_of(samples, asked.part)
    with limited(asked.read_timeout):
        found = embed(
            network,
            samples,
            size=asked.size,
            batch=asked.batch,
            workers=asked.workers,
            device=str(device_for(encoder, network, asked.device)),
            precision=asked.precision,
            local=asked.local,
        )
    columns, classes = columns_of(found, samples)
    columns["index"] = columns["index"] + first
    write(out, found.features, columns, classes, asked.columns)
    return Written(out, found.features.shape)
