"""Selfie (Trinh et al., 2019), https://arxiv.org/abs/1906.02940."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.masks import keep_lowest
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts.drawing import answered
from selftaught.precision import full_precision
from selftaught.roles import Count, HiddenShare, PartialShare
from selftaught.sides import Size, both, one, short, told_size


class Selfie(Method):
    """Tell which of an image's hidden patches belongs to which place, from those that are seen.

    No code of the authors is public. This follows the paper, and where it is silent the one other
    implementation: patches that are seen have no positions. The backbone encodes each patch alone;
    the paper cuts a ResNet-50 off after three of its four stages, here it is whole.

    Args:
        backbone: any; it is shown patches here and whole images afterwards.
        grid: patches along a side, of which it divides the image; if none, near 7 (32 px of 224),
            and near 4 below 128 px.
        ratio: fraction of the patches that is hidden; at least 2 must be, and 1 not.
        depth: number of the pooling transformer's layers.

    Other Args:
        heads: of its attention; they divide the backbone's width.
        hidden: width of its MLPs.
        dropout: rate in the pooling transformer.
    """

    recipe = Recipe("sgd", lr=0.1, batch=256, weight_decay=1e-4, warmup=0.05, nesterov=True)
    few = Few(depth=1, heads=4, hidden=256)
    needs = Needs(backbone="resnet50", batch=1, views="own")

    def __init__(
        self,
        backbone: Image,
        grid: Count | None = None,
        ratio: HiddenShare = 0.25,
        depth: Count = 3,
        heads: Count = 32,
        hidden: Count = 640,
        dropout: PartialShare = 0.1,
    ):
        super().__init__()
        self.backbone, self.grid, self.ratio = backbone, grid, ratio
        self.depth, self.heads, self.hidden, self.dropout = depth, heads, hidden, dropout
        self.cells = self.cut(backbone.size)
        count = math.prod(both(self.cells))
        kept = int(count * (1 - ratio))
        if not 1 <= kept <= count - 2:
            raise UserError(
                f"ratio={ratio} of {count} patches leaves {kept} to see; at least 1 must "
                "be seen and 2 hidden: change ratio, or use a finer grid"
            )
        if heads < 1 or backbone.dim % heads:
            raise UserError(
                f"heads={heads} must divide the width of {backbone.name}, {backbone.dim}"
            )
        layer = nn.TransformerEncoderLayer(
            backbone.dim, heads, hidden, dropout, "gelu", batch_first=True
        )
        norm = nn.LayerNorm(backbone.dim)
        self.pooling = nn.TransformerEncoder(layer, depth, norm, enable_nested_tensor=False)
        self.pos_embedding = nn.Embedding(count, backbone.dim)

    def cut(self, size: Size) -> Size:
        """Patches, which are squares, along the sides of an image of `size` pixels."""
        side, common = short(size), math.gcd(*both(size))
        whole = [n for n in range(2, side // 2) if side % n == 0 and common % (side // n) == 0]
        if not whole:
            raise UserError(
                f"images of {told_size(size)} px cannot be cut into patches of one size"
            )
        usual = 4 if side < 128 else 7
        cells = min(whole, key=lambda n: abs(n - usual)) if self.grid is None else self.grid
        if cells < 1 or side % cells or common % (side // cells):
            raise UserError(
                f"grid={cells} does not divide images of {told_size(size)} px; use one of "
                f"{', '.join(map(str, whole))}"
            )
        return one([n * cells // side for n in both(size)])

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        patches = math.prod(both(self.cells))
        count = patches - int(patches * (1 - self.ratio))
        return (ReferenceLoss(math.log(count), f"ln {count}"),)

    def views(self, size: Size) -> Pipeline:
        return augment.Noised(augment.crop(size), math.prod(both(self.cut(size))))

    def loss(self, batch: Batch) -> Tensor:
        """views: images [B, C, H, W] and noise [B, N]: the patches of most noise are hidden."""
        images, noise = batch.views
        return matching(self.scores(self.embed(images), noise))

    def embed(self, images: Tensor) -> Tensor:
        """[B, N, D] features of the patches of [B, C, H, W]."""
        return self.backbone(patches(images, self.cells)).unflatten(0, (len(images), -1))

    def scores(self, embedded: Tensor, noise: Tensor) -> Tensor:
        """[B, M, M]: how much each hidden place (row) asks for each hidden patch (column)."""
        seen, hidden = keep_lowest(noise, self.ratio)
        places = noise.argsort(1, descending=True)[:, : int(hidden[0].sum())]
        context = embedded.take_along_dim(seen[..., None], 1)
        pooled = self.pooling(F.pad(context, (0, 0, 1, 0)))[:, :1]  # of a vector of zeros
        asked = pooled + self.pos_embedding(places)
        return asked @ embedded.take_along_dim(places[..., None], 1).mT

    def show(self, batch: Batch) -> Pictures:
        images, noise = batch.views
        chosen = self.scores(self.embed(images), noise).argmax(2)
        _, hidden = keep_lowest(noise, self.ratio)
        places = noise.argsort(1, descending=True)[:, : chosen.shape[1]]
        cells = patches(images, self.cells).unflatten(0, (len(images), -1))
        index = torch.arange(cells.shape[1], device=images.device).repeat(len(images), 1)
        index = index.scatter(1, places, places.gather(1, chosen))
        filled = cells[torch.arange(len(cells))[:, None], index]
        right = (chosen == torch.arange(chosen.shape[1], device=images.device)).sum(1).tolist()
        return Pictures(
            "Hidden patches and where they were put",
            "Each hidden place is given the hidden patch of the same image that it asks for most.",
            {
                "seen": whole(cells.masked_fill(hidden[..., None, None, None], 0), self.cells),
                "put": whole(filled, self.cells),
                "true": images,
            },
            {"put": [answered(n, chosen.shape[1]) for n in right]},
        )


@full_precision
def matching(scores: Tensor) -> Tensor:
    """Cross entropy of scores [B, M, M] whose diagonal is right."""
    right = torch.arange(scores.shape[1], device=scores.device).expand(len(scores), -1)
    return F.cross_entropy(scores.flatten(0, 1), right.flatten())


def patches(images: Tensor, cells: Size) -> Tensor:
    """[B, C, H, W] -> [B * rows * columns, C, h, w], row by row of each image."""
    count, across = both(cells)
    rows = images.unflatten(3, (across, -1)).unflatten(2, (count, -1))  # B C rows h cols w
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def whole(cells: Tensor, grid: Size) -> Tensor:
    """[B, rows * columns, C, h, w] -> [B, C, rows * h, columns * w]."""
    rows = cells.unflatten(1, both(grid)).permute(0, 3, 1, 4, 2, 5)  # B C rows h cols w
    return rows.flatten(4).flatten(2, 3)
