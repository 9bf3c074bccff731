"""MAE (He et al., 2022), https://arxiv.org/abs/2111.06377."""

import math
from typing import Literal

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from selftaught import augment
from selftaught.backbones import Image, interpolate, sincos
from selftaught.backbones.cross import CrossPredictor
from selftaught.errors import UserError
from selftaught.masks import Grid, Split, enlarge, keep_lowest
from selftaught.method import Batch, Few, Method, Needs, Pictures, Pipeline, Recipe, ReferenceLoss
from selftaught.objectives.masked import hidden_mean, patchify, standardize, unpatchify
from selftaught.roles import Count, DecoderWidth, Fraction, HiddenShare, Number, Positive
from selftaught.sides import Size


class MAE(Method):
    """Encode a few patches, decode the pixels of the others.

    The names of the decoder's weights are those of the reference code. The recipe is its README's
    for 800 epochs, of which 40 are warm-up.

    Two later papers are options. With `decoder="cross"` (CrossMAE, Fu et al., 2024, arXiv
    2401.14391) each hidden patch is decoded by itself, from what is seen alone, so that it is
    enough to ask for some of them: with `asked=0.25` most of the decoder's time is saved. With
    `unit=4` (Pixio, Yang et al., 2025, arXiv 2512.15715) squares of patches are hidden together,
    which are harder to guess from their neighbors; it has a deeper decoder, too (`depth=32`).

    Args:
        backbone: a ViT; from scratch it gets the reference's fixed positions and initial weights.
        ratio: fraction of the patches that is hidden, in (0, 1).
        depth: number of the decoder's blocks.
        decoder: `self`, whose patches look at each other, or `cross`, which look at the seen ones.
        unit: side, in patches, of the squares that are hidden together.
        normalize: whether each patch of the target is standardized; off in the reference's parser,
            on in the recipe that its README recommends.
        pool: how the encoder sums an image up: by the class token, as in the paper's linear probe,
            or by the mean of the patches, as in its fine-tuning.

    Other Args:
        dim: width of the decoder, a multiple of 4 and of `heads`.
        heads: of the decoder's attention.
        mlp_ratio: width of the decoder's MLPs, as a multiple of `dim`.
        asked: share of the hidden patches that a `cross` decoder is asked for.
    """

    recipe = Recipe("adamw", lr=1.5e-4, weight_decay=0.05, warmup=0.05, betas=(0.9, 0.95))
    few = Few(dim=64, depth=2, heads=2, weight_decay=0.05)
    needs = Needs(
        backbone="vit_small_patch16_224",
        batch=1,
        views="own",
        kinds=("image", "sound"),
        shards=True,
    )

    decoder_pos_embed: Tensor

    def __init__(
        self,
        backbone: Image,
        ratio: HiddenShare = 0.75,
        dim: DecoderWidth = 512,
        depth: Number = 8,
        heads: Count = 16,
        mlp_ratio: Positive = 4.0,
        normalize: bool = True,
        pool: Literal["class", "mean"] = "mean",
        decoder: Literal["self", "cross"] = "self",
        unit: Count = 1,
        asked: Fraction = 1.0,
    ):
        super().__init__()
        self.backbone = backbone
        self.ratio, self.normalize, self.pool = ratio, normalize, pool
        self.dim, self.depth, self.heads, self.mlp_ratio = dim, depth, heads, mlp_ratio
        self.patch, self.grid = backbone.patch, backbone.grid(backbone.size)
        self.decoder, self.unit, self.asked = decoder, unit, asked
        patches = math.prod(self.units(self.grid))
        if not 1 <= int(patches * (1 - ratio)) < patches:
            kind = "patches" if unit == 1 else f"squares of {unit} x {unit} patches"
            raise UserError(
                f"ratio={ratio} of {patches} {kind} leaves {int(patches * (1 - ratio))} to see; "
                "at least 1 must be seen and 1 hidden: change ratio, or use larger images or a "
                "smaller patch_size"
            )
        if asked < 1 and decoder == "self":
            raise UserError(
                f"asked={asked} of the hidden patches: of a decoder whose patches look at each "
                "other all are made; set decoder to cross, or leave asked out"
            )
        if heads < 1 or dim % heads:
            raise UserError(f"dim={dim} must be a multiple of heads={heads}, 1 at least")
        backbone.arrange(pool, positions="timm" if backbone.trained else "sincos")
        self.prefix = backbone.prefix
        self.cross = None
        if decoder == "cross":
            places = sincos(self.grid, dim).float()
            self.cross = CrossPredictor(backbone.dim, dim, depth, heads, mlp_ratio, places)
        else:
            self.decoder_embed = nn.Linear(backbone.dim, dim)
            self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
            self.register_buffer("decoder_pos_embed", sincos(self.grid, dim, self.prefix).float())
            self.decoder_blocks = nn.Sequential(
                *(Block(dim, heads, mlp_ratio, qkv_bias=True) for _ in range(depth))
            )
            self.decoder_norm = nn.LayerNorm(dim, eps=1e-6)
        self.decoder_pred = nn.Linear(dim, self.patch**2 * backbone.channels)
        initialize(self, skip=backbone if backbone.trained else None)

    def units(self, grid: Grid) -> Grid:
        """Rows and columns of the squares that are hidden together."""
        if any(side % self.unit for side in grid):
            raise UserError(
                f"unit={self.unit} does not divide a grid of {grid[0]} x {grid[1]} patches: take a "
                "divisor of both, another size, or another patch_size"
            )
        return grid[0] // self.unit, grid[1] // self.unit

    def reference_losses(self, batch: int) -> tuple[ReferenceLoss, ...]:
        numbers = self.decoder_pred.out_features
        mean = ReferenceLoss(1 - 1 / numbers, "each patch painted in its mean color")
        return (mean,) if self.normalize else ()

    def views(self, size: Size) -> Pipeline:
        return augment.Noised(augment.crop(size), math.prod(self.units(self.backbone.grid(size))))

    def loss(self, batch: Batch) -> Tensor:
        """views: images [B, C, H, W] and noise [B, N], which says what is hidden."""
        images, noise = batch.views
        keep, hidden = self.split(noise, self.backbone.grid((images.shape[-2], images.shape[-1])))
        tokens, grid = self.backbone.tokens(images, keep)
        if not self.cross:
            return self.compare(self.decode(tokens, grid, keep), images, hidden)
        asked = self.some(noise, hidden, grid)
        painted = self.decode_some(tokens, grid, keep, asked)
        target = self.target(images).gather(1, asked[..., None].expand_as(painted))
        return (painted - target).square().mean()

    def split(self, noise: Tensor, grid: Grid) -> Split:
        """Which patches are seen and which hidden, by noise [B, N] of squares of them."""
        if self.unit == 1:
            return keep_lowest(noise, self.ratio)
        coarse = keep_lowest(noise, self.ratio).hidden.unflatten(1, self.units(grid))
        hidden = enlarge(coarse, grid).flatten(1)
        return Split((~hidden).nonzero()[:, 1].view(len(hidden), -1), hidden)

    def some(self, noise: Tensor, hidden: Tensor, grid: Grid) -> Tensor:
        """[B, A] places of the hidden patches that are asked for, those of highest noise."""
        of_patches = enlarge(noise.unflatten(1, self.units(grid)), grid).flatten(1)
        ranked = torch.where(hidden, of_patches, -1).sort(dim=1, descending=True, stable=True)
        squares = math.prod(self.units(grid))
        count = (squares - int(squares * (1 - self.ratio))) * self.unit**2
        return ranked.indices[:, : max(1, round(self.asked * count))]

    def target(self, images: Tensor) -> Tensor:
        """[B, N, p * p * C] what is to be painted."""
        target = patchify(images, self.patch)
        return standardize(target) if self.normalize else target

    def compare(self, painted: Tensor, images: Tensor, hidden: Tensor) -> Tensor:
        """Squared error of patches [B, N, p * p * C], mean over those that are hidden, [B, N]."""
        return hidden_mean((painted - self.target(images)).square().mean(2), hidden)

    def decode(self, tokens: Tensor, grid: tuple[int, int], keep: Tensor) -> Tensor:
        """Pixels [B, N, p * p * C] from tokens [B, P + K, D]; keep: [B, K] places of the last K."""
        if self.cross:
            every = torch.arange(math.prod(grid), device=keep.device).expand(len(keep), -1)
            return self.decode_some(tokens, grid, keep, every)
        tokens = self.decoder_embed(tokens)
        extra, seen = tokens[:, : self.prefix], tokens[:, self.prefix :]
        all_hidden = self.mask_token.to(seen.dtype).expand(len(keep), math.prod(grid), -1)
        patches = all_hidden.scatter(1, keep[..., None].expand_as(seen), seen)
        position = interpolate(self.decoder_pos_embed, self.grid, grid, self.prefix)
        decoded = self.decoder_blocks(torch.cat([extra, patches], 1) + position)
        return self.decoder_pred(self.decoder_norm(decoded))[:, self.prefix :]

    def decode_some(self, tokens: Tensor, grid: Grid, keep: Tensor, asked: Tensor) -> Tensor:
        """Pixels [B, A, p * p * C] of the places `asked`, by the decoder that looks at `tokens`."""
        assert self.cross is not None
        places = interpolate(self.cross.positions, self.grid, grid)
        return self.decoder_pred(self.cross(tokens[:, self.prefix :], keep, asked, places))

    def show(self, batch: Batch) -> Pictures:
        images, noise = batch.views
        patches = patchify(images, self.patch)
        keep, hidden = self.split(noise, self.backbone.grid((images.shape[-2], images.shape[-1])))
        tokens, grid = self.backbone.tokens(images, keep)
        painted = self.decode(tokens, grid, keep).float()
        note = f"{self.ratio:.0%} of the patches are hidden; the seen ones are shown as they are."
        if self.normalize:  # undo what the target has been through
            deviation, mean = torch.std_mean(patches, -1, keepdim=True)
            painted = painted * deviation + mean
            note += " Each patch is painted as it was learned, up to brightness and contrast, which"
            note += " are those of the true patch."
        mask = hidden[..., None].bool()
        columns = {
            "seen": torch.where(mask, 0, patches),
            "painted": torch.where(mask, painted, patches),
            "true": patches,
        }
        columns = {name: unpatchify(x, self.patch, grid) for name, x in columns.items()}
        return Pictures("Reconstructions", note, columns)


def initialize(mae: nn.Module, skip: nn.Module | None) -> None:
    """The reference's initial weights, in all of `mae` but `skip`."""
    kept = set() if skip is None else set(skip.modules())
    for module in mae.modules():
        if module in kept:
            continue
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))  # the patch embedding is linear too
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        for name, parameter in module.named_parameters(recurse=False):
            if name.endswith("_token"):
                nn.init.normal_(parameter, std=0.02)
