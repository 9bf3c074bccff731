"""Files of weights: read without running code, and carried to the names that a ViT has here."""

import argparse
import math
import pickle
import re
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.eva import Eva, checkpoint_filter_fn
from torch import Tensor

from selftaught.errors import UserError

from .positions import Resample, resampled


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a file of torch or of safetensors; code in it is never run.

    Raises:
        UserError: it cannot be read, or holds more than weights and plain values.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]):  # of many training scripts
            found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror or error})") from error
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} is no file of weights, or holds objects whose loading could run code; save "
            "its state dict alone with torch.save(model.state_dict(), ...), or as safetensors"
        ) from error
    except (RuntimeError, EOFError, SafetensorError, ValueError, KeyError) as error:
        reason = next(iter(str(error).splitlines()), "it is empty")
        raise UserError(f"{path} is no whole file of weights ({reason}); copy it again") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} holds a {type(found).__name__}, not weights by name")
    return found


def vit_weights(path: Path, net: Any, name: str) -> tuple[dict[str, Tensor], Resample]:
    """The state dict of a plain ViT from a public checkpoint, and how its positions are resampled.

    It may be of MAE, I-JEPA, DINOv2, DINOv3 or timm. Of files with several networks the target
    encoder (I-JEPA) or the teacher (DINOv2) is taken.
    Positions of another grid are carried over as the papers' code does it: bicubic for MAE and
    I-JEPA, with DINOv2's offset, and antialiased where DINOv2 has registers.

    Args:
        path: the file.
        net: timm's VisionTransformer, or its Eva for rotary positions; it loses its class token
            first where the file has none.
        name: of the network, for messages.

    Raises:
        UserError: the file is of another network, or its table of positions is all zeros.
    """
    state = _network(read_weights(path), path)
    rotary = isinstance(net, Eva)
    table = state.get("pos_embed")
    if "patch_embed.proj.weight" not in state or (table is None and not rotary):
        hint = "weights in the form of transformers are to be converted first"
        if {"reg_token", "storage_tokens"} & state.keys():
            hint = "if it is DINOv3, whose positions are no table, use a backbone named ..._dinov3"
        raise UserError(
            f"{path} holds no ViT with the names of MAE, I-JEPA, DINOv2 or timm (its names begin "
            f"with {', '.join(sorted({k.split('.')[0] for k in state})[:5])}); {hint}"
        )
    if table is not None and not bool(table.any()):
        raise UserError(
            f"the table of positions in {path} is all zeros: that model was trained without "
            "positions, which a library's ViTMAE does when it is built from its configuration; "
            "its features are not worth continuing from"
        )
    _same_patches(state["patch_embed.proj.weight"], net, path, name)
    own = net.state_dict()
    state, how = _turned(state, net, path, name) if rotary else _placed(state, net, path)
    _fit(state, own, path, name)
    return state, how


def _placed(state: dict[str, Tensor], net: Any, path: Path) -> tuple[dict[str, Tensor], Resample]:
    """With the table of positions for the grid of `net`."""
    table, layer_scale = state["pos_embed"], any(k.endswith("ls1.gamma") for k in state)
    if net.no_embed_class and table.shape[1] == 1 + _square(table.shape[1] - 1):
        # timm keeps the class token's position in the token itself
        state["cls_token"] = state["cls_token"] + table[:, :1]
        table = table[:, 1:]
    prefix = table.shape[1] - _square(table.shape[1])
    side = math.isqrt(table.shape[1] - prefix)
    if side * side + prefix != table.shape[1] or prefix > 1:
        raise UserError(f"{path} has {table.shape[1]} positions, which are no square of patches")
    registers = "reg_token" in state
    how: Resample = "smooth" if registers else "offset" if layer_scale else "plain"
    grids = (side, side), net.patch_embed.grid_size
    return state | {"pos_embed": resampled(table.float(), *grids, prefix, how)}, how


def _turned(
    state: dict[str, Tensor], net: Eva, path: Path, name: str
) -> tuple[dict[str, Tensor], Resample]:
    """With timm's names, which it knows best: for queries and values its biases are apart."""
    joined = [v for k, v in state.items() if k.endswith("attn.qkv.bias")]
    biases = [part for v in joined for part in v.chunk(3)[::2]]  # those of keys are masked
    if "blocks.0.attn.q_bias" not in net.state_dict() and any(bool(b.any()) for b in biases):
        raise UserError(
            f"{path} has biases of queries and values, and {name} none; use backbone {name}_qkvb"
        )
    with redirect_stdout(StringIO()):  # it writes there of each bias, all zeros, that is left out
        return checkpoint_filter_fn(state, net), "smooth"


def has_class_token(content: dict[str, Any]) -> bool:
    """Whether a checkpoint has one anywhere."""
    return any(
        key.endswith("cls_token") or (isinstance(value, dict) and has_class_token(value))
        for key, value in content.items()
        if isinstance(key, str)
    )


def _network(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """The weights of the encoder alone, under timm's names."""
    for key in ("target_encoder", "teacher", "model", "state_dict"):
        if isinstance(content.get(key), dict):
            content = content[key]
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    for prefix in ("module.", "teacher.", "backbone.", "encoder.", "net."):
        if any(k.startswith(prefix) for k in state):
            state = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    left = ("decoder_", "head.", "dino_head.", "ibot_head.", "fc_norm.", "mask_token")
    state = {k: v.float() for k, v in state.items() if not k.startswith(left)}
    # DINOv2's trainings number blocks within groups as well
    state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", k): v for k, v in state.items()}
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
    if not state:
        raise UserError(f"{path} holds no weights by name")
    return state


def _same_patches(weight: Tensor, net: Any, path: Path, name: str) -> None:
    own = net.patch_embed.proj.weight
    if weight.shape == own.shape:
        return
    if weight.shape[2:] != own.shape[2:]:
        raise UserError(
            f"the patches of {path} are of {weight.shape[-1]} px, those of this {name} of "
            f"{own.shape[-1]} px; use a backbone named patch{weight.shape[-1]} and images of at "
            "least 64 px, below which patches are made smaller"
        )
    raise UserError(
        f"{path} has {weight.shape[1]} channels and width {weight.shape[0]}, this {name} "
        f"{own.shape[1]} and {own.shape[0]}; use a backbone of that size, such as "
        f"{_SIZES.get(weight.shape[0], 'vit_base')}_patch{weight.shape[-1]}_..."
    )


_SIZES = {192: "vit_tiny", 384: "vit_small", 768: "vit_base", 1024: "vit_large", 1280: "vit_huge"}


def _fit(state: dict[str, Tensor], own: dict[str, Tensor], path: Path, name: str) -> None:
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    unlike = [k for k in own if k in state and own[k].shape != state[k].shape]
    if missing or extra or unlike:
        depth = len({k.split(".")[1] for k in state if k.startswith("blocks.")})
        hint = (
            "it has layer scale: use a backbone named ..._dinov2"
            if any("ls1" in k for k in extra)
            else f"it has {depth} blocks of width {state['patch_embed.proj.weight'].shape[0]}"
        )
        raise UserError(
            f"{path} does not fit {name}: {len(missing)} of {len(own)} weights are missing "
            f"({', '.join(missing[:3])}), {len(extra)} are not known ({', '.join(extra[:3])}), "
            f"{len(unlike)} have another shape ({', '.join(unlike[:3])}); {hint}"
        )


def _square(count: int) -> int:
    """The largest square number up to `count`."""
    return math.isqrt(count) ** 2
