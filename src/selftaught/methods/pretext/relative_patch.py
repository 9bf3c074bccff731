"""Context prediction (Doersch et al., 2015), https://arxiv.org/abs/1505.05192."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught import augment
from selftaught.augment.image.view import DRAWS
from selftaught.augment.pipeline import check_image
from selftaught.backbones import Image
from selftaught.errors import UserError
from selftaught.masks import Draws
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.parts import each_cell
from selftaught.roles import Count, HeadWidth, Share, Weight
from selftaught.sides import Size, short

PLACES = (
    (-1, -1), (0, -1), (1, -1), (-1, 0), (1, 0), (-1, 1), (0, 1), (1, 1),
)  # fmt: skip
"""(right, down) from a patch to its neighbor, for each of the eight answers."""
WORDS = (
    "above left", "above", "above right", "left", "right", "below left", "below", "below right",
)  # fmt: skip


class RelativePatch(Method):
    """Tell on which of its eight sides a patch has another one.

    Patches lie on a grid with gaps, each moved a little, so that no line goes on from one to the
    next. Of each a single color channel is left, since the lens shifts channels against each
    other, and by how much gives a patch's place away; and its contrast is the same in all.

    At images of 224 px, patches have the paper's 96. A view is just so large that the grid fits
    wherever it starts: 527 px for patches of 96. The recipe has the reference's rate of 1e-5 for
    the sum over all pairs, as that of their mean.

    Args:
        backbone: image encoder; it sees each patch alone.
        grid: patches along a side, from 2 on; all pairs of neighbors among them are examples.
        gap: between two patches, as a fraction of a patch.
        jitter: largest shift of a patch to any side, as a fraction of a patch.
        blurred: probability that a patch is reduced and enlarged again.
        hidden: width of the layers.
    """

    # 512 patches at a time are 56 grids of 9, with 40 pairs each
    recipe = Recipe(
        "sgd", lr=56 * 40 * 1e-5, batch=56, schedule="constant", momentum=0.0, decay_bias=True
    )
    few = Few(grid=2, hidden=256)
    needs = Needs(batch=1, views="own", squares="lays square patches out in a square")

    def __init__(
        self,
        backbone: Image,
        grid: Count = 3,
        gap: Weight = 0.5,
        jitter: Weight = 0.073,
        blurred: Share = 0.33,
        hidden: HeadWidth = 4096,
    ):
        super().__init__()
        if grid < 2 or gap < 0 or not 0 <= jitter <= max(gap, 0):
            raise UserError(
                f"grid={grid}, gap={gap}, jitter={jitter}: a patch has a neighbor from grid 2 on, "
                "and does not reach beyond the gap to it if 0 <= jitter <= gap"
            )
        self.backbone, self.grid, self.gap, self.jitter = backbone, grid, gap, jitter
        self.blurred, self.hidden = blurred, hidden
        self.tower = nn.Sequential(nn.Linear(backbone.dim, hidden), *_rectified(hidden))
        self.classifier = nn.Sequential(
            nn.Linear(2 * hidden, hidden),
            *_rectified(hidden),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, len(PLACES)),
        )

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        return (ReferenceLoss(math.log(len(PLACES)), f"ln {len(PLACES)}, guessing the side"),)

    def views(self, size: Size) -> Pipeline:
        patch = short(self.backbone.fit(short(size) * 96 / 224))
        gap, jitter = round(self.gap * patch), round(self.jitter * patch)
        return Patches(self.grid, patch, gap, jitter, self.blurred)

    def loss(self, batch: Batch) -> Tensor:
        """views: patches [B, N, C, S, S] of a grid row by row; their channels that stay, [B, N]."""
        logits, places = self.answer(*batch.views)
        return F.cross_entropy(logits.flatten(0, 1), places.repeat(len(logits)))

    def answer(self, patches: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        """[B, P, 8] logits, and the right answers [P], of all pairs of neighbors of a grid."""
        deviation = 255 * patches.new_tensor(self.backbone.std)[:, None, None]
        noise = torch.rand_like(patches)
        seen = one_channel(patches * deviation, kept % patches.shape[2], noise, contrast=1.0)
        features = self.tower(self.backbone(seen.flatten(0, 1))).unflatten(0, kept.shape)
        pairs, places = neighbors(self.grid, self.grid)
        logits = each_cell(self.classifier, features[:, pairs].flatten(2))
        return logits, places.to(kept.device)

    def show(self, batch: Batch) -> Pictures:
        patches, kept = batch.views
        said = self.answer(patches, kept)[0].argmax(2)
        pairs, places = neighbors(self.grid, self.grid)
        rows = torch.arange(len(patches))
        which = rows * 7 % len(pairs)
        one, other = (patches[rows, pairs[which, side]] for side in (0, 1))
        captions = [
            f"“{WORDS[answer]}”{' ✓' if answer == true else f', but {WORDS[true]}'}"
            for answer, true in zip(said[rows, which].tolist(), places[which].tolist())
        ]
        right = (said.cpu() == places).float().mean()
        return Pictures(
            "Patches and their neighbors",
            "Below the second patch, on which side of the first the network thinks that it lay. "
            f"Of all pairs in these images it places {right:.0%}.",
            {"patch": one, "neighbor": other},
            {"neighbor": captions},
        )


@dataclass(frozen=True)
class Patches(augment.Pipeline):
    """An image -> its patches [grid * grid, C, patch, patch], and draws for their channels.

    Args:
        grid: patches along a side.
        patch, gap: in pixels.
        jitter: largest shift to any side, in pixels.
        blurred: probability that a patch is reduced and enlarged again.
    """

    grid: int
    patch: int
    gap: int
    jitter: int
    blurred: float

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        """Patches as uint8, and numbers [grid * grid], modulo C which channel stays.

        Raises:
            UserError: `image` is not a uint8 array [H, W, C] with pixels.
        """
        check_image(image)
        side = self.grid * (self.patch + self.gap) + self.patch - 1
        view = augment.View(side, (0.6, 1.0), (1.0, 1.0), "bilinear", flip=0.0)
        views = augment.Views((view,))
        params = view.params(rng.random(DRAWS).tolist(), *image.shape[:2])
        (square,) = views.render(image, [params])
        corners = lay_grid(rng, side, side, self.patch, self.gap, self.jitter).reshape(-1, 2)
        patches = [square[:, y : y + self.patch, x : x + self.patch] for x, y in corners]
        patches = [blur(p, rng) if rng.random() < self.blurred else p for p in patches]
        return np.stack(patches), rng.integers(0, 3, len(patches))


def lay_grid(
    draws: Draws, height: int, width: int, patch: int, gap: int, jitter: int
) -> np.ndarray:
    """Upper left corners of patches on a grid that starts anywhere in its first cell.

    Args:
        draws: source of randomness.
        height, width: of the image, in pixels.
        patch, gap: side of a patch and space between two, in pixels.
        jitter: largest shift of a patch to any side, in pixels; none leaves the image.

    Returns:
        [rows, columns, 2], (x, y); as many as fit, perhaps none.
    """
    pitch = patch + gap
    left, top = int(draws.integers(0, pitch)), int(draws.integers(0, pitch))
    columns, rows = (
        max(0, side + gap - at) // pitch for side, at in ((width, left), (height, top))
    )
    corners = np.empty((rows, columns, 2), np.int64)
    for row, column in np.ndindex(rows, columns):
        x = left + column * pitch + int(draws.integers(-jitter, jitter + 1))
        y = top + row * pitch + int(draws.integers(-jitter, jitter + 1))
        corners[row, column] = min(max(x, 0), width - patch), min(max(y, 0), height - patch)
    return corners


def neighbors(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """All ordered pairs of neighbors in a grid, [P, 2], and on which side the second lies, [P]."""
    pairs, places = [], []
    for at in range(rows * columns):
        row, column = divmod(at, columns)
        for place, (right, down) in enumerate(PLACES[:4]):  # those above and to the left
            if row + down >= 0 and 0 <= column + right < columns:
                other = (row + down) * columns + column + right
                pairs += [(at, other), (other, at)]
                places += [place, len(PLACES) - 1 - place]
    return torch.tensor(pairs).view(-1, 2), torch.tensor(places, dtype=torch.long)


def one_channel(patches: Tensor, kept: Tensor, noise: Tensor, contrast: float) -> Tensor:
    """Patches of which one channel is left, the others are noise, and the contrast is alike.

    The noise is that of rounding, half a step of a byte: it shows in plain patches alone.

    Args:
        patches: [..., C, H, W] in steps of bytes, with any offset.
        kept: [...] the channel that stays.
        noise: [..., C, H, W] uniform in [0, 1).
        contrast: root of the mean square of a patch in the end; 50 in the paper's code.
    """
    here = torch.arange(patches.shape[-3], device=kept.device) == kept[..., None]
    centered = patches - patches.mean((-2, -1), keepdim=True)
    left = torch.where(here[..., None, None], centered, noise - 0.5)
    size = left.square().mean((-3, -2, -1), keepdim=True).sqrt()
    return contrast * left / size.clamp_min(1e-5)


def blur(patch: np.ndarray, draws: Draws) -> np.ndarray:
    """[C, S, S] reduced, to between about 1/90 of its pixels and nearly all, and enlarged again."""
    side = patch.shape[-1]
    least, most = max(1, round(side * 10 / 96)), max(1, side - 1)
    small = int(math.sqrt(least**2 + draws.random() * (most**2 - least**2)))
    x = torch.from_numpy(patch)[None]
    for size in (small, side):
        x = F.interpolate(x, (size, size), mode="bilinear")
    return x[0].numpy()


def _rectified(width: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm1d(width, affine=False), nn.ReLU(inplace=True)
