"""Images cut into parts by what a trained method took for alike."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.augment import normalize
from selftaught.engine.build import asked_of, restored
from selftaught.engine.reconstruct import free_name, open_each, square
from selftaught.errors import UserError
from selftaught.methods.dense.stego import STEGO, palette
from selftaught.objectives.mean_field import mean_field
from selftaught.report.image.pictures import write_mask, write_png
from selftaught.sides import within

FINE = 80
"""Side in pixels of the maps that the CRF follows edges on."""


def segment(
    run: Path, images: tuple[str, ...], *, out: Path = Path("segments"), crf: bool = True
) -> list[Path]:
    """Write for each image its clusters as colors, and the same laid over the image.

    Each image is cut to its central square. A cluster has the same color in all images.

    Args:
        run: folder of a training by stego.
        images: files.
        out: folder for NAME-mask.png and NAME-overlay.png of each image. Masks have palettes: their
            values are the numbers of the clusters.
        crf: whether a conditional random field lets the masks follow the image's edges.

    Returns:
        The files, two an image in the order of the images.

    Raises:
        UserError: the run or an image cannot be read, or the method does not segment.
    """
    asked = asked_of(Path(run))
    if asked["method"] != "stego":
        raise UserError(f"{run} was trained by {asked['method']}; stego segments images")
    samples = open_each(images, out, asked["backbone"].get("channels", 3))
    method = restored(Path(run)).eval()
    assert isinstance(method, STEGO)
    if method.clusters > 256:
        raise UserError(f"{run} has {method.clusters} clusters; a mask has room for 256")
    encoder: Any = method.encoder
    out.mkdir(parents=True, exist_ok=True)
    colors = (255 * palette(method.clusters, 3)).round().byte().numpy()
    written: list[Path] = []
    for name, sample in zip(images, samples):
        image = torch.from_numpy(square(name, sample, encoder.size))
        with torch.no_grad():
            found = method.segment(normalize(image[None], encoder.mean, encoder.std))[0]
        which = refined(found, image).argmax(0) if crf else found.argmax(0)
        painted = palette(method.clusters, len(image))[which].movedim(2, 0)
        overlay = (image + 255 * painted) / 2
        mask, both = (
            free_name(out / f"{Path(name).stem}-{kind}.png", written)
            for kind in ("mask", "overlay")
        )
        write_mask(which.byte().numpy(), colors, mask)
        write_png(overlay.round().byte().numpy(), both)
        written += [mask, both]
    return written


def refined(found: Tensor, image: Tensor) -> Tensor:
    """[K, S, S] log-probabilities -> probabilities that follow the edges of [C, S, S] bytes.

    The CRF compares all pixels with all others, so it runs on maps of at most `FINE` pixels a
    side. How far colors reach counts in pixels of the image, what is near in those of the map.
    """
    longer = max(found.shape[-2:])
    sides = within(found.shape[-2:], min(longer, FINE))
    # of images of other channels, as of gray ones, brightness alone
    colors = image if len(image) == 3 else image.float().mean(0).expand(3, -1, -1)
    small, seen = (
        F.interpolate(x[None].float(), sides, mode="bilinear", antialias=True)[0]
        for x in (found, colors)
    )
    scale = max(sides) / longer
    sharp = mean_field(small, seen, smooth_xy=1.0, edges_xy=67.0 * scale)
    return F.interpolate(sharp[None], found.shape[1:], mode="bilinear")[0]
