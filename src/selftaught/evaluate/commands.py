"""What `selftaught embed` runs: paths and numbers in, a file out."""

from typing import TYPE_CHECKING

from selftaught.evaluate.features import (
    Asked,
    Embeddings,
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


@takes(Embedding)
def embed_command(encoder: str, data: str, **options: "Unpack[EmbeddingOptions]") -> Embeddings:
    """Write the features of images to a file: a row an image, or a place, in dataset order.

    Args:
        encoder: run folder, encoder.safetensors, name of a timm model (pretrained), or the function
            that builds a module, as package.module:function.
        data: folder, list file, Parquet, tar shards or array of images.
        options: fields of `Embedding`.
    """
    asked = Embedding.of(**options)
    check(asked.out, asked.columns)
    named = Asked(encoder, asked.backbone, asked.mean, asked.std, asked.weights)
    network = named.network(asked.size)
    samples = open_samples(data, network, asked.labels, asked.path_column)
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
    write(asked.out, found.features, *columns_of(found, samples), asked.columns)
    return found
