"""Files of weights: read without running code, and carried to the names that networks have here."""

import argparse
import logging
import math
import pickle
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import adapt_input_conv
from timm.models.eva import Eva, checkpoint_filter_fn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selftaught.backbones.positions import Resample, resampled
from selftaught.errors import UserError

log = logging.getLogger("selftaught")


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


def network(path: Path, net: nn.Module, name: str) -> dict[str, Tensor]:
    """The weights of one network of a checkpoint, as floats, under the names that it has alone.

    Containers and prefixes (`state_dict`, `module.`, `_orig_mod.`, `base_encoder.` ...) are found
    by where the names of `net` lie. Of several networks the EMA teacher is taken where that is the
    encoder (teacher, target, EMA), and never a momentum encoder or a student.

    Args:
        path: the file.
        net: timm's network, whose names are looked for.
        name: of the network, for messages.

    Raises:
        UserError: it cannot be read, has no such network or several, or values that are no numbers.
    """
    flat = dict(_flat(read_weights(path)))
    if not flat:
        raise UserError(f"{path} holds no weights by name")
    own = list(net.state_dict())
    vit = isinstance(net, VisionTransformer | Eva)
    anchor = _PATCHES if vit else next(k for k in own if k.endswith("weight"))
    starts = {k.removesuffix(anchor) for k in flat if k.endswith(anchor)}
    counts = {s: sum(s + k in flat for k in own) for s in starts if not s or s.endswith(".")}
    most = max(counts.values(), default=0)
    found = sorted((_rank(s), s) for s, count in counts.items() if count >= 0.9 * most)
    if not found:
        begin = ", ".join(sorted({k.split(".")[0] for k in flat})[:5])
        what = "ViT with the names of MAE, I-JEPA, DINOv2 or timm" if vit else f"{name} of timm"
        raise UserError(
            f"{path} holds no {what} (its names begin with {begin}); weights in the form of "
            "transformers are to be converted first"
        )
    best = [s for rank, s in found if rank == found[0][0]]
    states = [{k[len(s) :]: v.float() for k, v in flat.items() if k.startswith(s)} for s in best]
    if any(_unlike(states[0], other) for other in states[1:]):
        raise UserError(
            f"{path} holds several networks ({', '.join(s.rstrip('.') or 'bare' for s in best)}); "
            "save the state dict of the one that is meant"
        )
    if len(found) > len(best):
        log.info("of the networks in %s, %s is taken", path, best[0].rstrip("."))
    lost = [k for k, v in states[0].items() if not bool(v.isfinite().all())]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(states[0])} weights in {path} have values that are no numbers "
            f"({', '.join(lost[:3])}): that training had failed; use an earlier checkpoint"
        )
    return states[0]


def _flat(content: dict[str, Any], before: str = "", deep: int = 8) -> Iterator[tuple[str, Tensor]]:
    """Tensors of nested dictionaries by dotted names, without what wrappers add to names."""
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        name = ".".join(part for part in f"{before}{key}".split(".") if part not in _WRAPPERS)
        if isinstance(value, Tensor):
            yield name, value
        elif isinstance(value, dict) and deep:
            yield from _flat(value, f"{name}." if name else "", deep - 1)


_PATCHES = "patch_embed.proj.weight"
_WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}


def _rank(prefix: str) -> int:
    """Which of several networks an encoder is, the least."""
    if re.search(r"teacher|target|ema(?![a-z])", prefix):
        return 0
    return 2 if re.search(r"student|momentum|encoder_k", prefix) else 1


def _unlike(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() != other.keys() or any(
        not torch.equal(v, other[k]) for k, v in state.items()
    )


def exact_weights(
    state: dict[str, Tensor], net: nn.Module, path: Path, name: str
) -> dict[str, Tensor]:
    """The state dict of a network that is no plain ViT: its weights under timm's own names.

    Those of torchvision, MoCo, SwAV, Barlow Twins, VICReg and the like have them for ResNets.

    Raises:
        UserError: weights are missing, not known, or of another shape.
    """
    own = net.state_dict()
    first = next(k for k in own if k.endswith("weight"))
    state = _for_channels(state, first, own[first].shape, path, name)
    state = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")} | state
    state = _without_heads(state, own, path)
    _fit(state, own, path, name, "its weights need timm's names")
    return state


def _without_heads(
    state: dict[str, Tensor], own: dict[str, Tensor], path: Path
) -> dict[str, Tensor]:
    heads = [k for k in state if k not in own and re.match(_HEADS, k)]
    if heads:
        names = sorted({k.split(".")[0] for k in heads})
        log.info("left out of %s: %d weights of %s", path, len(heads), ", ".join(names))
    return {k: v for k, v in state.items() if k not in heads}


_HEADS = (
    r"(head|heads|head_dist|fc|fc_norm|classifier|projector|projection_head|proj_head|projection"
    r"|predictor|prediction_head|prototypes|decoder\w*|mask_token|dino_head|ibot_head|queue\w*)(\.|$)"
)


def _for_channels(
    state: dict[str, Tensor], first: str, shape: Sequence[int], path: Path, name: str
) -> dict[str, Tensor]:
    """With the first layer for as many channels as `shape` has, as timm does it for its weights."""
    weight = state.get(first)
    if weight is None or weight.dim() != 4 or weight.shape[1] == shape[1]:
        return state
    had, wanted = weight.shape[1], shape[1]
    if (weight.shape[0], *weight.shape[2:]) != (shape[0], *shape[2:]):
        return state  # of another network altogether, which is told elsewhere
    if had != 3:
        raise UserError(
            f"{path} is of images of {had} channels, this {name} of {wanted}; use --channels {had} "
            "or weights of 3 channels, which can be spread over others"
        )
    log.warning(
        "%s was trained on 3 channels (--channels 3): its first layer is spread over %d",
        path,
        wanted,
    )
    return state | {first: adapt_input_conv(wanted, weight)}


def vit_weights(
    state: dict[str, Tensor], path: Path, net: Any, name: str
) -> tuple[dict[str, Tensor], Resample]:
    """The state dict of a plain ViT from a public checkpoint, and how its positions are resampled.

    It may be of MAE, I-JEPA, DINOv2, DINOv3 or timm. Positions of another grid are carried over as
    the papers' code does it: bicubic for MAE and I-JEPA, with DINOv2's offset, and antialiased
    where DINOv2 has registers.

    Args:
        state: as `network` gave it.
        path: the file, for messages.
        net: timm's VisionTransformer, or its Eva for rotary positions; it loses its class token
            first where the file has none.
        name: of the network, for messages.

    Raises:
        UserError: the file is of another network, or its table of positions is all zeros.
    """
    # DINOv2's trainings number blocks within groups as well
    state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", k): v for k, v in state.items()}
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
    state = _without_heads(state, net.state_dict(), path)
    rotary = isinstance(net, Eva)
    table = state.get("pos_embed")
    if table is None and not rotary:
        hint = "its positions were left out"
        if {"reg_token", "storage_tokens"} & state.keys():
            hint = "if it is DINOv3, whose positions are no table, use a backbone named ..._dinov3"
        raise UserError(f"{path} holds no positions of a ViT such as {name}; {hint}")
    if table is not None and not bool(table.any()):
        raise UserError(
            f"the table of positions in {path} is all zeros: that model was trained without "
            "positions, which a library's ViTMAE does when it is built from its configuration; "
            "its features are not worth continuing from"
        )
    own = net.state_dict()
    state = _for_channels(state, _PATCHES, own[_PATCHES].shape, path, name)
    _same_patches(state[_PATCHES], net, path, name)
    state, how = _turned(state, net, path, name) if rotary else _placed(state, net, path)
    depth = len({k.split(".")[1] for k in state if k.startswith("blocks.")})
    hint = f"it has {depth} blocks of width {len(state[_PATCHES])}"
    if any("ls1" in k for k in state.keys() - own.keys()):
        hint = "it has layer scale: use a backbone named ..._dinov2"
    _fit(state, own, path, name, hint)
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


def _fit(
    state: dict[str, Tensor], own: dict[str, Tensor], path: Path, name: str, hint: str
) -> None:
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    unlike = [
        f"{k} {list(state[k].shape)} for {list(own[k].shape)}"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    if missing or extra or unlike:
        raise UserError(
            f"{path} does not fit {name}: {len(missing)} of {len(own)} weights are missing "
            f"({', '.join(missing[:3])}), {len(extra)} are not known ({', '.join(extra[:3])}), "
            f"{len(unlike)} have another shape ({', '.join(unlike[:3])}); {hint}"
        )


def _square(count: int) -> int:
    """The largest square number up to `count`."""
    return math.isqrt(count) ** 2
