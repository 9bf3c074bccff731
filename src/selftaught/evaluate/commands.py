"""What `selftaught embed` runs: paths and numbers in, a file out."""

from typing import TYPE_CHECKING

from selftaught.evaluate.features import Asked, Embeddings, embed
from selftaught.evaluate.settings import Embedding
from selftaught.feed.readers import limited
from selftaught.signature import takes

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
    with limited(asked.read_timeout):
        return embed(
            Asked(encoder, asked.backbone, asked.mean, asked.std),
            data,
            labels=asked.labels,
            path_column=asked.path_column,
            size=asked.size,
            batch=asked.batch,
            workers=asked.workers,
            device=asked.device,
            precision=asked.precision,
            out=asked.out,
        )
