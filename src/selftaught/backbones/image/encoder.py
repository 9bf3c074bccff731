"""Image encoders: any timm model by name, fitted to the size and channels of the images."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch
from timm.layers import PatchEmbed
from timm.models.beit import RelativePositionBias
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selftaught.backbones.encoder import Features
from selftaught.backbones.image.create import (
    SMALL,
    beit,
    cells,
    channels_first,
    create,
    known,
    patch_layer,
    plain_vit,
)
from selftaught.backbones.image.lightness import halve
from selftaught.backbones.image.packed import packable, run_packed
from selftaught.backbones.image.rotary import through
from selftaught.backbones.image.shown import Shown
from selftaught.backbones.positions import Grid, Resample, resampled, sincos
from selftaught.backbones.weights.carrying import Network, exact_weights, network, vit_weights
from selftaught.backbones.weights.places import TIMM
from selftaught.backbones.weights.reading import Source, opened
from selftaught.backbones.weights.whose import as_timm_has_it
from selftaught.errors import UserError
from selftaught.roles import Count, ImageSize, PartialShare, Positive
from selftaught.sides import Size, as_option, both, one, short, told_size
from selftaught.signature import Checked

log = logging.getLogger("selftaught")


class Image(Checked, Shown):
    """A timm model without its classifier. Images: [B, channels, H, W], normalized floats.

    dim: width of pooled features. local_dim: width of local ones, the same unless layers follow
    the pooling (MobileNetV3, VGG). mean, std: of each channel, what images are normalized with.

    Args:
        name: of a timm model, convolutional or transformer; for `pretrain` also the function that
            builds a module of one's own, as my_module.py:make_encoder.
        size: side of the images in pixels, or rows x columns; below 64 the stem is adapted.
        pretrained: whether to start from timm's weights, which needs a network or a filled cache.
        weights: to start from: a file or a folder of any library's, a name of a hub, or timm for
            timm's own, none for a fresh draw; `selftaught weights FILE` says what a file is.

    Other Args:
        channels: of the images.
        drop_path: rate of stochastic depth.
        patch_size: side in pixels of the patches that a transformer cuts images into; as its name
            says unless given, below 64 px about an eighth of the image.
        pool: pooled features of a ViT: as timm has it, the class token, or the mean of the patches.
        class_token: whether a ViT keeps its class token.
        positions: of a ViT: learned as timm has them, or fixed sines and cosines in their table, if
            it has one beside rotary positions; of a BEiT: a bias of each block, as timm has it, or
            one that all blocks share, as in pretraining.
        sobel: whether the network sees edges in place of colors; at least 2 channels.
        input: the colors, or their lightness alone, or lightness and color apart in two halves of
            the network's channels, which know nothing of each other (ResNets).
        resample: how the positions of a ViT are carried to images of another size: `plain` bicubic
            (MAE, BEiT, I-JEPA), with DINO's and DINOv2's `offset`, or `smooth` (antialiased: timm,
            DINOv2 with registers); as the weights or the method have it unless given, else plain.
        mean, std: of each channel, or one value for all: what images are normalized with, as the
            weights were trained; by default what is known of the weights, else ImageNet's.
    """

    def __init__(
        self,
        name: str = "resnet50",
        size: ImageSize = 224,
        channels: Count = 3,
        pretrained: bool = False,
        drop_path: PartialShare = 0.0,
        patch_size: Count | None = None,
        pool: Literal["timm", "class", "mean"] = "timm",
        class_token: bool = True,
        positions: Literal["timm", "sincos", "shared"] = "timm",
        sobel: bool = False,
        input: Literal["colors", "lightness", "halves"] = "colors",
        resample: Literal["plain", "offset", "smooth"] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[Positive, ...] | None = None,
        weights: str | Path | None = None,
    ):
        super().__init__()
        pretrained, weights = begun_with(pretrained, weights)
        source = None if weights is None else opened(weights)
        size = one(size)
        self.name, self.size, self.channels = name, size, channels
        self.pretrained, self.drop_path = pretrained, drop_path
        self.pool, self.class_token, self.positions = "timm", True, "timm"
        self.weights, self.trained = weights, pretrained or weights is not None
        self.resample: Resample | None = resample
        self.patch_size = patch_size
        self.own(create(name, size, channels, pretrained, drop_path, patch_size))
        net = cast(Any, self.net)
        self.dim: int = net.head_hidden_size
        self.local_dim: int = net.num_features
        given = net.pretrained_cfg if pretrained else {}
        self.normalized(mean, std, given)
        if plain_vit(self.net) is not None:
            self.grid(size)
        if source is not None:
            self._load(source, mean, std, sobel)
        if pool != "timm" or not class_token or positions != "timm":
            self.arrange(pool, class_token, positions)
        if sobel:
            self.see_edges()
        if input != "colors":
            self.see(input)

    @property
    def has_local(self) -> bool:
        """Every network of timm's makes features of places."""
        return True

    def _load(
        self,
        source: Source,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        edges: bool,
    ) -> None:
        """Take the weights of a file, and what images are to be like; say what was found."""
        found = network(source.content, source.path, self.net, self.name)
        if plain_vit(self.net) is None:
            self.net.load_state_dict(self._others(found, edges))
        else:
            self._load_vit(found)
        about = source.normalization
        if about is not None and len(about.mean) not in (1, self.channels):
            about = None  # of images of other channels
        if about is not None:
            self.normalized(mean, std, {"mean": about.mean, "std": about.std})
        where = "as given" if mean and std else about.where if about else ""
        where = where or self._assumed(found, mean, std)
        told = [round(v, 3) for v in self.mean], [round(v, 3) for v in self.std]
        log.info(
            "%s; normalized with mean %s, std %s (%s)",
            found.told(self.net.state_dict()),
            *told,
            where,
        )

    def _assumed(
        self, found: Network, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
    ) -> str:
        """Normalize as weights of this kind usually want it, where nothing beside them says how."""
        if theirs := known(self.name, found.path):
            self.normalized(mean, std, {"mean": theirs.mean, "std": theirs.std})
            return f"as timm has it of {self.name}.{theirs.tag}"
        about = cast(Any, self.net).pretrained_cfg
        usual = f"ImageNet's, which {found.path.name} does not say; --mean and --std say otherwise"
        if as_timm_has_it(found.author, found.layout):
            self.normalized(mean, std, {k: about[k] for k in ("mean", "std")})
            usual = f"as {self.name} is usually trained; --mean and --std say otherwise"
        return usual

    def _load_vit(self, found: Network) -> None:
        net = self._vit()
        state = found.state
        pooled = "fc_norm.weight" in state and "norm.weight" not in state  # as timm has
        pooled |= net.attn_pool is not None and "attn_pool.latent" in state
        if "cls_token" not in state:
            self.arrange("timm" if pooled else "mean", class_token=False)
        elif not pooled and (isinstance(net.norm, nn.Identity) or isinstance(net, Eva)):
            # the papers' models normalize every token; timm averages the patches of rotary ones
            self.arrange("class")
        carried, how = vit_weights(found, net)
        self.resample = self.resample or how
        net.load_state_dict(carried)  # norms have the epsilon that goes with its name

    def _others(self, found: Network, edges: bool) -> dict[str, Tensor]:
        if beit(self.net) is not None:
            self._arrange_as(found)
        try:
            return exact_weights(found, self.net, edges)
        except UserError as error:
            if short(self.size) >= SMALL:
                raise
            raise UserError(
                f"{error}; below {SMALL} px the first layers of {self.name} are others"
            ) from error

    def _arrange_as(self, found: Network) -> None:
        """Make a BEiT one of the kind that its weights are of: its biases, and its last norm."""
        shared = any(k.startswith("rel_pos_bias.") for k in found.state)
        each = "norm.weight" in found.state and "fc_norm.weight" not in found.state
        if shared or each:
            self.arrange("class" if each else "timm", positions="shared" if shared else "timm")

    @property
    def config(self) -> dict[str, Any]:
        """Arguments that rebuild this network; set `pretrained` to false where weights follow."""
        sizes = {"name": self.name, "size": self.size, "channels": self.channels}
        training = {"pretrained": self.pretrained, "drop_path": self.drop_path}
        arranged = ("patch_size", "pool", "class_token", "positions", "sobel", "input", "resample")
        arranged += ("mean", "std")
        return sizes | training | {k: getattr(self, k) for k in arranged}

    def partner(self, name: str = "", channels: int = 0) -> "Image":
        """An untrained network for other views: like this one, or of another name or channels."""
        given: dict[str, Any] = {"pretrained": False, "name": name or self.name}
        if given["name"] != self.name:  # which may have no patches
            given["patch_size"] = None
        if channels not in (0, self.channels):
            given |= {"channels": channels, "mean": None, "std": None}
        return Image(**{**self.config, **given})

    def arrange(
        self,
        pool: Literal["timm", "class", "mean"],
        class_token: bool = True,
        positions: Literal["timm", "sincos", "shared"] = "timm",
    ) -> None:
        """Make a plain ViT, or a BEiT, one of a paper's kind: `pool`, `class_token`, `positions`.

        With `pool` other than "timm" the final norm is applied to every token, before pooling, and
        no other layer pools. "class" is "mean" for a network that has no class token.
        """
        if positions == "shared" or beit(self.net) is not None:
            self._arrange_beit(pool, class_token, positions)
            return
        net = self._vit()
        if not class_token and net.cls_token is not None:
            net.cls_token = None
            net.num_prefix_tokens -= 1
            if net.global_pool == "token":
                net.global_pool = "avg"
            if net.pos_embed is not None and not net.no_embed_class:
                net.pos_embed = nn.Parameter(cast(Tensor, net.pos_embed)[:, 1:].detach().clone())
            if isinstance(net, Eva):
                for block in net.blocks:  # each turns what comes after as many
                    cast(Any, block).attn.num_prefix_tokens -= 1
            else:
                net.has_class_token = False
        if pool != "timm":
            if isinstance(net.norm, nn.Identity):
                net.norm, net.fc_norm = net.fc_norm, net.norm
            net.attn_pool = None
            if not isinstance(net, Eva):
                net.pool_include_prefix = False
            net.global_pool = "token" if pool == "class" and net.cls_token is not None else "avg"
        if positions == "sincos" and net.pos_embed is not None:
            prefix = 0 if net.no_embed_class else net.num_prefix_tokens
            table = sincos(self.grid(self.size), net.embed_dim, prefix).float()
            net.pos_embed = nn.Parameter(table, requires_grad=False)
            self.positions = positions
        self.class_token = self.class_token and class_token
        self.pool = self.pool if pool == "timm" else pool

    def _arrange_beit(self, pool: str, class_token: bool, positions: str) -> None:
        net = beit(self.net)
        if net is None or not class_token or positions == "sincos":
            raise UserError(
                f"{self.name} is a {type(self.net).__name__}: only a BEiT shares its position "
                "biases, and it keeps its class token and has no other positions; use "
                "vit_small_patch16_224"
            )
        if pool != "timm":
            if isinstance(net.norm, nn.Identity):
                net.norm, net.fc_norm = net.fc_norm, net.norm
            net.global_pool = "token" if pool == "class" else "avg"
            self.pool = pool
        if positions == "shared" and net.rel_pos_bias is None:
            blocks = [cast(Any, block) for block in net.blocks]
            grid = cast(Grid, net.patch_embed.grid_size)  # None for models of any size alone
            net.rel_pos_bias = RelativePositionBias(grid, blocks[0].attn.num_heads)
            for block in blocks:
                block.attn.relative_position_bias_table = None
                block.attn.relative_position_index = None
                block.attn.window_size = None
            self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> pooled [B, dim]."""
        return self._run(self.net, x) if plain_vit(self.net) is None else self.features(x).pooled

    def _halve(self) -> None:
        halve(self.net, self.name)

    @property
    def patch(self) -> int:
        """Side of a token's patch in pixels; plain ViTs only."""
        return cast(Any, self._vit().patch_embed).patch_size[0]

    @property
    def prefix(self) -> int:
        """Number of class and register tokens before those of patches; plain ViTs only."""
        return self._vit().num_prefix_tokens

    @property
    def heads(self) -> int:
        """Number of attention heads in a block; plain ViTs only."""
        return cast(Any, self._vit().blocks[0]).attn.num_heads

    @property
    def is_beit(self) -> bool:
        """Whether it is a ViT whose positions are biases of its attention."""
        return beit(self.net) is not None

    @property
    def is_hierarchical(self) -> bool:
        """Whether its last features are coarser than its first patches, as a Swin's are."""
        return self.reduction != self.stem

    @property
    def stem(self) -> int:
        """Side, in pixels, of the patches of the first layer; of transformers such as Swin too."""
        return cast(Any, self._patches()).patch_size[0]

    @property
    def stem_dim(self) -> int:
        """Width of what those patches become."""
        return self._patches().proj.out_channels

    @property
    def reduction(self) -> int:
        """Pixels of the image to one local feature, along a side."""
        return cast(Any, self.net).feature_info[-1]["reduction"]

    def grid(self, size: Size) -> Grid:
        """Rows and columns of tokens of an image of `size` pixels; plain ViTs only."""
        patch, (height, width) = self.patch, both(size)
        told = told_size(one((height, width)))
        if height < patch or width < patch:
            raise UserError(
                f"images of {told} px are smaller than the {patch}-px patches of "
                f"{self.name}; use a size that is a multiple of {patch}, or a smaller patch_size"
            )
        if height % patch or width % patch:
            fits = one([max(1, round(side / patch)) * patch for side in (height, width)])
            raise UserError(
                f"{self.name} cuts images into {patch}-px patches, which {told} px is "
                f"no multiple of; use size {as_option(fits)}"
            )
        return height // patch, width // patch

    def features(
        self, x: Tensor, keep: Tensor | None = None, replace: tuple[Tensor, Tensor] | None = None
    ) -> Features:
        """Pooled and local features.

        Args:
            x: [B, channels, H, W]; of any size for most networks, of whole patches for ViTs.
            keep: [B, K] indices of the patches to encode, the others are never seen; ViT only.
            replace: (mask [B, N], token [D]): patches whose embedding, the first layer's output,
                the token replaces; ViT, BEiT, Swin and others that begin with patches.
        """
        net = plain_vit(self.net)
        if net is None and keep is None and replace is not None:
            with self._patches().register_forward_hook(_Replace(*replace)):
                return self.features(x)
        if net is not None or keep is not None:
            return self._found(*self.tokens(x, keep, replace))
        anything = cast(Any, self.net)
        maps = self._run(anything.forward_features, x)
        pooled = anything.forward_head(maps, pre_logits=True)
        if maps.dim() == 4:
            maps = channels_first(maps, self.local_dim)
            return Features(pooled, maps.flatten(2).mT, (maps.shape[2], maps.shape[3]))
        count, (height, width) = cells(anything, maps), x.shape[-2:]
        rows = round((count * height / width) ** 0.5)
        if rows * (count // rows) != count:
            raise UserError(f"{self.name} makes {count} tokens of {height} x {width} px: no grid")
        return Features(pooled, maps[:, -count:], (rows, count // rows))

    def features_together(
        self, batches: Sequence[Tensor], replace: tuple[Tensor, Tensor] | None = None
    ) -> list[Features]:
        """Features of images of several sizes, in one pass; plain ViTs only.

        Args:
            batches: [B, channels, H, W] each, of one size each.
            replace: see `features`; of the first batch.
        """
        net = self._vit()
        swaps = [replace, *[None] * (len(batches) - 1)]
        if not packable(net.blocks):
            return [self.features(x, replace=r) for x, r in zip(batches, swaps)]
        starts, grids = zip(*(self._embedded(x, None, r) for x, r in zip(batches, swaps)))
        found = run_packed(net.blocks, starts)
        return [self._found(net.norm(tokens), grid) for tokens, grid in zip(found, grids)]

    def _found(self, tokens: Tensor, grid: Grid) -> Features:
        net = self._vit()
        pooled = net.forward_head(tokens, pre_logits=True)
        return Features(pooled, tokens[:, net.num_prefix_tokens :], grid)

    def tokens(
        self,
        x: Tensor,
        keep: Tensor | None = None,
        replace: tuple[Tensor, Tensor] | None = None,
        looks: Tensor | None = None,
    ) -> tuple[Tensor, Grid]:
        """All tokens of a plain ViT, [B, P + N, D], and the grid of its patches.

        The first P are class token and registers. See `features` for the other arguments. Position
        tables of another grid are carried over as `resample` says.

        Args:
            looks: bool [B, N, N], whether patch i (row) looks at patch j in every block; class
                token and registers, which all patches look at, then see themselves alone.

        Raises:
            UserError: `looks` is given, and the network has rotary positions.
        """
        net = self._vit()
        start, grid = self._embedded(x, keep, replace)
        if looks is not None:
            return net.norm(self._looking(start, looks)), grid
        found = through(net, start, grid, keep) if isinstance(net, Eva) else net.blocks(start)
        return net.norm(found), grid

    def _looking(self, tokens: Tensor, looks: Tensor) -> Tensor:
        net, prefix = self._vit(), self.prefix
        if isinstance(net, Eva):
            raise UserError(
                f"{self.name} has rotary positions, and its patches look at all others; one whose "
                "patches look at some alone is vit_small_patch16_224"
            )
        allowed = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
        allowed = allowed.repeat(len(looks), 1, 1)
        allowed[:, prefix:, :prefix] = True
        allowed[:, prefix:, prefix:] = looks
        for block in net.blocks:
            tokens = block(tokens, attn_mask=allowed[:, None])
        return tokens

    def _embedded(
        self, x: Tensor, keep: Tensor | None, replace: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Grid]:
        """What goes into the first block."""
        net = self._vit()
        grid = self.grid((x.shape[-2], x.shape[-1]))
        tokens = net.patch_embed(self._seen(x)).flatten(1, -2)
        if replace is not None:
            tokens = _Replace(*replace).swap(tokens)
        count = x.shape[0]  # not len, which would make a constant of it in an exported graph
        extra = [t.expand(count, -1, -1) for t in (net.cls_token, net.reg_token) if t is not None]
        table = net.pos_embed
        if table is not None:
            prefix = table.shape[1] - cast(int, net.patch_embed.num_patches)
            own = cast(Grid, net.patch_embed.grid_size)  # None for models of any size alone
            table = resampled(table, own, grid, prefix, self.resample or "plain")
            tokens = tokens + table[:, prefix:]
            if prefix:
                extra = [torch.cat(extra, 1) + table[:, :prefix]]
        if keep is not None:
            tokens = tokens.take_along_dim(keep[..., None], 1)
        return net.norm_pre(net.pos_drop(torch.cat([*extra, tokens], 1))), grid

    def attention(self, x: Tensor) -> Tensor:
        """[B, heads, N] how the last block of a plain ViT looks at the patches of images x.

        It is the class token's attention, or without one the mean of the patches'; what goes to
        class token and registers is left out, so that a row sums to 1 at most. Call it in
        evaluation mode.
        """
        seen: list[Tensor] = []
        layer = cast(Any, self._vit().blocks[-1]).attn
        hook = layer.attn_drop.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        fused, layer.fused_attn = layer.fused_attn, False  # which never has the weights themselves
        try:
            self.tokens(x)
        finally:
            hook.remove()
            layer.fused_attn = fused
        asking = slice(0, 1) if self._vit().cls_token is not None else slice(self.prefix, None)
        return seen[0][:, :, asking, self.prefix :].mean(2)

    def _patches(self) -> PatchEmbed:
        layer = patch_layer(self.net)
        if layer is None:
            raise UserError(
                f"{self.name} is a {type(self.net).__name__}, which does not begin with patches; "
                "replacing them needs a backbone such as vit_small_patch16_224, "
                "beit_base_patch16_224 or swin_tiny_patch4_window7_224"
            )
        return layer

    def _vit(self) -> VisionTransformer | Eva:
        net = plain_vit(self.net)
        if net is None:
            raise UserError(
                f"{self.name} is a {type(self.net).__name__}, which cannot skip patches; masking "
                "needs a plain ViT backbone such as vit_small_patch16_224, and so does pool"
            )
        return net


@dataclass(frozen=True)
class _Replace:
    """A hook on a patch embedding: where `mask` [B, N] is True, `token` stands for its output."""

    mask: Tensor
    token: Tensor

    def __call__(self, module: nn.Module, given: Any, embedded: Tensor) -> Tensor:
        return self.swap(embedded)

    def swap(self, embedded: Tensor) -> Tensor:
        """embedded: [B, N, D] or [B, rows, cols, D]."""
        mask = self.mask.reshape(embedded.shape[:-1])[..., None]
        return torch.where(mask, self.token.to(embedded.dtype), embedded)


def backbone(
    name: str = "resnet50",
    size: Size = 224,
    channels: int = 3,
    pretrained: bool = False,
    drop_path: float = 0.0,
    patch_size: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    weights: str | Path | None = None,
) -> Image:
    """An image encoder by its timm name; see `Image`."""
    given = {"mean": mean, "std": std, "weights": weights}
    return Image(name, size, channels, pretrained, drop_path, patch_size, **given)


def begun_with(pretrained: bool, weights: str | Path | None) -> tuple[bool, str | Path | None]:
    """`weights="timm"` is what `pretrained` is; other weights come before timm's."""
    return (True, None) if str(weights) == TIMM else (pretrained and weights is None, weights)
