"""Visual tokenizers: images [B, C, H, W] with colors in [0, 1] -> ids [B, rows, cols]."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from selftaught.backbones.image.encoder import Image
from selftaught.backbones.weights.reading import read_weights
from selftaught.errors import UserError
from selftaught.sides import both
from selftaught.signature import current


def map_pixels(x: Tensor) -> Tensor:
    """Colors in [0, 1] into [0.1, 0.9], as DALL-E's tokenizer wants them."""
    return 0.8 * x + 0.1


def unmap_pixels(x: Tensor) -> Tensor:
    """The inverse of `map_pixels`, cut to [0, 1]."""
    return ((x - 0.1) / 0.8).clamp(0, 1)


class Tokenizer(nn.Module):
    """The most likely of `vocabulary` tokens at each place of a backbone's features.

    cell: pixels to a place, along a side.

    Args:
        backbone: what sees the image.
        vocabulary: number of tokens.
    """

    def __init__(self, backbone: Image, vocabulary: int):
        super().__init__()
        self.backbone, self.vocabulary = backbone, vocabulary
        self.channels = backbone.channels
        self.head = nn.Conv2d(backbone.local_dim, vocabulary, 1)
        with torch.no_grad():
            images = torch.zeros(2, backbone.channels, *both(backbone.size))
            self.cell = both(backbone.size)[0] // backbone.features(images).grid[0]

    def logits(self, images: Tensor) -> Tensor:
        """[B, V, rows, cols] from normalized images."""
        seen = self.backbone.features(images)
        return self.head(seen.local.mT.unflatten(2, seen.grid))

    def forward(self, colors: Tensor) -> Tensor:
        mean, std = colors.new_tensor([self.backbone.mean, self.backbone.std])[..., None, None]
        return self.logits((colors - mean) / std).argmax(1)


class RandomTokenizer(nn.Module):
    """Nearest of random unit vectors to a random projection of each standardized patch.

    Untrained, after BEST-RQ (Chiu et al., 2022): what a trained tokenizer must beat.

    Args:
        patch: side in pixels.
        channels: of the images.
        vocabulary: number of tokens.
        dim: of the vectors.
    """

    def __init__(self, patch: int, channels: int, vocabulary: int, dim: int = 16):
        super().__init__()
        self.cell, self.vocabulary = patch, vocabulary
        numbers = patch * patch * channels
        draws = torch.Generator().manual_seed(0)
        for name, shape in (("projection", (numbers, dim)), ("codes", (vocabulary, dim))):
            self.register_buffer(name, torch.randn(shape, generator=draws, device="cpu"))

    def forward(self, colors: Tensor) -> Tensor:
        rows, cols = (side // self.cell for side in colors.shape[-2:])
        patches = F.unfold(colors, self.cell, stride=self.cell).mT
        patches = F.layer_norm(patches, patches.shape[-1:])
        codes = F.normalize(self.get_buffer("codes").to(patches), dim=1)
        found = patches @ self.get_buffer("projection").to(patches) @ codes.T
        return found.argmax(2).unflatten(1, (rows, cols))


class DallEConv(nn.Module):
    """A convolution that keeps the size, with DALL-E's names of weights."""

    def __init__(self, dim: int, out: int, kernel: int):
        super().__init__()
        self.w = nn.Parameter(torch.empty(out, dim, kernel, kernel))
        self.b = nn.Parameter(torch.zeros(out))
        nn.init.normal_(self.w, std=1 / math.sqrt(dim * kernel**2))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.w, self.b, padding=self.w.shape[-1] // 2)


class DallEBlock(nn.Module):
    """x + res(x) / layers^2, `layers` those of the whole encoder (Ramesh et al., 2021)."""

    def __init__(self, dim: int, out: int, layers: int):
        super().__init__()
        self.gain = 1 / layers**2
        self.id_path = DallEConv(dim, out, 1) if dim != out else nn.Identity()
        widths = [(dim, out // 4, 3), (out // 4, out // 4, 3), (out // 4, out // 4, 3)]
        self.res_path = nn.Sequential()
        for i, shape in enumerate([*widths, (out // 4, out, 1)], 1):
            self.res_path.add_module(f"relu_{i}", nn.ReLU())
            self.res_path.add_module(f"conv_{i}", DallEConv(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return self.id_path(x) + self.gain * self.res_path(x)


class DallETokenizer(nn.Module):
    """DALL-E's public encoder, for weights that the user has: 8 x 8 pixels become one of 8192.

    Args:
        hidden: width of the first group; each of the others doubles it.
        vocabulary: number of tokens.
        channels: of the images.
        groups, depth: number of groups, between which sides are halved, and of blocks in each.
    """

    def __init__(
        self,
        hidden: int = 256,
        vocabulary: int = 8192,
        channels: int = 3,
        groups: int = 4,
        depth: int = 2,
    ):
        super().__init__()
        self.cell, self.vocabulary = 2 ** (groups - 1), vocabulary
        self.channels = channels
        self.blocks = nn.Sequential()
        self.blocks.add_module("input", DallEConv(channels, hidden, 7))
        before = hidden
        for g in range(groups):
            group = nn.Sequential()
            for i in range(depth):
                now = hidden * 2**g
                group.add_module(f"block_{i + 1}", DallEBlock(before, now, groups * depth))
                before = now
            if g + 1 < groups:
                group.add_module("pool", nn.MaxPool2d(2))
            self.blocks.add_module(f"group_{g + 1}", group)
        output = nn.Sequential()
        output.add_module("relu", nn.ReLU())
        output.add_module("conv", DallEConv(before, vocabulary, 1))
        self.blocks.add_module("output", output)

    def forward(self, colors: Tensor) -> Tensor:
        return self.blocks(map_pixels(colors)).argmax(1)


def load_tokenizer(path: Path) -> Tokenizer | DallETokenizer:
    """The tokenizer of a `discrete_vae` run folder, or DALL-E's encoder from its weights.

    Weights are read without running code: `encoder.pkl` as published is a pickled program, whose
    state dict is to be saved once with torch.

    Raises:
        UserError: it is neither, or damaged.
    """
    path = Path(path)
    try:
        return (_from_run(path) if path.is_dir() else _dall_e(read_weights(path))).eval()
    except (KeyError, ValueError, RuntimeError, OSError, UserError) as error:
        raise UserError(
            f"{path} is no tokenizer ({error}); give the run folder of `selftaught pretrain "
            "discrete_vae`, or the state dict of DALL-E's encoder, saved with "
            "torch.save(encoder.state_dict(), ...)"
        ) from error


def _dall_e(state: dict[str, Any]) -> DallETokenizer:
    if "blocks.input.w" not in state or "blocks.output.conv.w" not in state:
        raise ValueError("its weights are not those of DALL-E's encoder")
    first = state["blocks.input.w"]
    tokenizer = DallETokenizer(
        first.shape[0],
        state["blocks.output.conv.w"].shape[0],
        first.shape[1],
        groups=len({k.split(".")[1] for k in state if k.startswith("blocks.group_")}),
        depth=len({k.split(".")[2] for k in state if k.startswith("blocks.group_1.")}),
    )
    tokenizer.load_state_dict(state)
    return tokenizer


def _from_run(path: Path) -> Tokenizer:
    about = json.loads((path / "encoder.json").read_text("utf-8"))
    newest = max((path / "checkpoints").glob("step-*.pt"))
    state = {
        name.removeprefix("tokenizer."): x
        for name, x in read_weights(newest)["method"].items()
        if name.startswith("tokenizer.")
    }
    if not state:
        raise ValueError("it is the run of another method")
    tokenizer = Tokenizer(Image(**current(about["encoder"])), len(state["head.bias"]))
    tokenizer.load_state_dict(state)
    return tokenizer
