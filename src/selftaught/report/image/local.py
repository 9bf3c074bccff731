"""What the encoder sees where: colors for its local features, and a ViT's attention."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught import kinds
from selftaught.backbones import Encoder, Image, Wrapped
from selftaught.errors import UserError
from selftaught.report.html import Missing, Section, figure, strip
from selftaught.report.image.pictures import THUMB, data_url
from selftaught.report.plane import principal
from selftaught.report.seen import Seen
from selftaught.sides import Size, both, part, told_size, within

TITLE = "What it sees where"
_ROWS, _HEADS = 8, 6
_CELLS = 14
"""Cells along a side that are enough to show; networks with fewer are shown larger images."""
_LEAST = 4
"""Cells along a side below which there is nothing to show."""


@torch.no_grad()
def section(seen: Seen) -> Section | Missing:
    """For a few images the three strongest directions of local features, and attention."""
    network = seen.network.cpu().eval()
    kind = kinds.of(network)
    if not kind.native:
        return Missing(TITLE, f"{kind.many} have no places on a picture")
    if not network.has_local:
        return Missing(TITLE, f"{network.name} gives no features of places")
    size = _size(network)
    if size is None:
        rows, columns = _grid(network, network.size)
        cells = f"{rows} x {columns} cells"
        return Missing(TITLE, f"its last layer has {cells}, too few for a picture")
    rows = np.random.default_rng(1).permutation(len(seen))[:_ROWS].tolist()
    plain = kind.plain(size)
    views = [plain(seen.samples.read(i, min_side=2 * max(both(size)))) for i in rows]
    x = kind.prepare(torch.from_numpy(np.stack(views)), network)
    found = [network.features(one[None]) for one in x]  # one by one: large images, little memory
    maps = colored(torch.cat([f.local for f in found]).numpy(), found[0].grid)
    columns = {"image": views, "features": list(maps)}
    note = (
        "Colors are the three strongest directions among the local features of these images: "
        "parts of one color are alike to the encoder, also across images."
    )
    attention = _attention(network, x)
    if attention is not None:
        looks = [_lit(v, a.mean(0), found[0].grid) for v, a in zip(views, attention)]
        columns["attention"] = looks
        heads = min(_HEADS, attention.shape[1]) if attention.shape[1] > 1 else 0
        for head in range(heads):
            each = [_lit(v, a[head], found[0].grid) for v, a in zip(views, attention)]
            columns[f"head {head + 1}"] = each
        note += (
            " Attention is the last block's, bright where it looks: the mean, then single heads."
        )
    if size != network.size:
        own = told_size(network.size)
        note += f" The images were shown at {told_size(size)} px, not {own}, for more cells."
    few = len(columns) == 2
    strips = (
        strip(
            (
                figure(data_url(shown[n]), f"{name} of {seen.name(i)}", name)
                for name, shown in columns.items()
            ),
            style="sample" if few else "",
        )
        for n, i in enumerate(rows)
    )
    kind = "samples" if few else "scroll"
    return Section(TITLE, f'<div class="{kind}">{"".join(strips)}</div>', note)


def colored(local: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """[B, N, D] local features -> [B, 3, rows, columns] uint8, principal components as colors."""
    batch, _, width = local.shape
    components = principal(local.reshape(-1, width), 3)
    components = np.pad(components, ((0, 0), (0, 3 - components.shape[1])))
    low, high = np.percentile(components, [2, 98], axis=0)
    span = np.where(high > low, high - low, 1)
    rgb = ((components - low) / span).clip(0, 1).reshape(batch, *grid, 3)
    return (255 * rgb).round().astype(np.uint8).transpose(0, 3, 1, 2)


def _grid(network: Encoder, size: Size) -> tuple[int, int]:
    return network.features(torch.zeros(1, network.channels, *both(size))).grid


def _size(network: Encoder) -> Size | None:
    """Side of images that give enough cells: its own, or up to four times that."""
    own = min(_grid(network, network.size))
    factor = min(4, -(-_CELLS // own))
    if factor > 1 and isinstance(network, Image | Wrapped):
        size = network.fit(part(network.size, factor, 1))
        try:
            _grid(network, size)
        except Exception:  # networks of windows fail in many ways on sizes that are not their own
            pass
        else:
            return size if own * factor >= _LEAST else None
    return network.size if own >= _LEAST else None


def _attention(network: Encoder, x: Tensor) -> Tensor | None:
    if not isinstance(network, Image):
        return None
    try:
        return torch.cat([network.attention(one[None]) for one in x])
    except UserError:  # no plain ViT
        return None


def _lit(image: np.ndarray, weights: Tensor, grid: tuple[int, int]) -> np.ndarray:
    """uint8 [C, H, W] dark where weights [N] are small."""
    sides = within(image.shape[1:], 2 * THUMB)
    pixels = F.interpolate(
        torch.from_numpy(image)[None].float(), sides, mode="bilinear", antialias=True
    )
    light = F.interpolate(weights.view(1, 1, *grid), sides, mode="bilinear")[0]
    light = (light - light.min()) / (light.quantile(0.99) - light.min() + 1e-12)
    return (pixels[0] * (0.12 + 0.88 * light.clamp(0, 1))).clamp(0, 255).byte().numpy()
