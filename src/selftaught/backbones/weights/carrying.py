"""Weights of any library, carried to the names and shapes that networks have here."""

import logging
import re
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from timm.layers import resize_rel_pos_bias_table
from timm.models import adapt_input_conv
from timm.models.beit import Beit
from timm.models.eva import Eva, checkpoint_filter_fn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selftaught.backbones.positions import Resample, grid_of, resampled
from selftaught.backbones.weights.header import flat
from selftaught.backbones.weights.layouts import LAYOUTS, Layout
from selftaught.backbones.weights.normalization import beside
from selftaught.backbones.weights.prefixes import rank
from selftaught.backbones.weights.whose import whose
from selftaught.errors import UserError
from selftaught.sides import told_sides

log = logging.getLogger("selftaught")


@dataclass
class Network:
    """One network of a file, under timm's names, and what is to be told of it.

    path, name: of the file and of timm's network, for messages.
    state: its tensors.
    layout: how its library names them; None where that is as timm does.
    author: whose weights they are, in words.
    notes: how they were adapted, in words.
    left: tensors that are no part of the backbone, by the first part of their names.
    """

    path: Path
    name: str
    state: dict[str, Tensor]
    layout: Layout | None
    author: str
    notes: list[str] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)

    def told(self, own: dict[str, Tensor]) -> str:
        """What was found, in one line; `own` are the weights of the network."""
        parts = [f"{self.path}: {self.author}; {len(own)} of {len(own)} tensors of {self.name}"]
        if self.left:
            heads = ", ".join(sorted(self.left))
            parts.append(f"left out: {sum(self.left.values())} weights of {heads}")
        return "; ".join([*parts, *self.notes])


def network(content: dict[str, Any], path: Path, net: nn.Module, name: str) -> Network:
    """The weights of one network of a file, as floats, under the names that it has alone.

    Containers and prefixes (`state_dict`, `module.`, `_orig_mod.`, `base_encoder.` ...) are found
    by where the names of `net` lie, those of other libraries by their layouts. Of several networks
    the EMA teacher is taken where that is the encoder (teacher, target, EMA), or what is online,
    and never a momentum encoder or a student.

    Args:
        content: of the file.
        path: of it, for messages.
        net: timm's network, whose names are looked for.
        name: of the network, for messages.

    Raises:
        UserError: it has no such network or several, or values that are no numbers.
    """
    tensors = dict(flat(content, Tensor))
    if not tensors:
        raise UserError(f"{path} holds no weights by name")
    own = list(net.state_dict())
    plain = isinstance(net, VisionTransformer | Eva)
    anchor = _PATCHES if plain else next(k for k in own if k.endswith("weight"))
    # without a rule: timm's own names, which those of most papers are
    as_timm = Layout("timm", "", re.escape(anchor))
    counts: dict[tuple[Layout, str], int] = {}
    for layout in (as_timm, *LAYOUTS):
        for prefix in layout.prefixes(tensors):
            inside = [k[len(prefix) :] for k in tensors if k.startswith(prefix)]
            names = set(layout.renamed(inside, own).values())
            counts[layout, prefix] = sum(_there(k, names) for k in own)
    most = max(counts.values(), default=0)
    # an own name alone, such as the first layer's, is no likeness
    fits = {key: count for key, count in counts.items() if count and count >= 0.9 * most}
    if not fits:
        begin = ", ".join(sorted({k.split(".")[0] for k in tensors})[:5])
        what = f"ViT such as {name}" if plain else f"{name} of timm"
        raise UserError(
            f"{path} holds no {what} (its names begin with {begin}); `selftaught weights {path}` "
            "says what it is, and which --backbone takes it"
        )
    layout = max(fits, key=lambda key: fits[key])[0]
    found = sorted((rank(prefix), prefix) for other, prefix in fits if other is layout)
    best = [prefix for rank, prefix in found if rank == found[0][0]]
    states = [{k[len(b) :]: v.float() for k, v in tensors.items() if k.startswith(b)} for b in best]
    if any(_unlike(states[0], other) for other in states[1:]):
        raise UserError(
            f"{path} holds several networks ({', '.join(s.rstrip('.') or 'bare' for s in best)}); "
            "save the state dict of the one that is meant"
        )
    lost = [k for k, v in states[0].items() if not bool(v.isfinite().all())]
    if lost:
        raise UserError(
            f"{len(lost)} of {len(states[0])} weights in {path} have values that are no numbers "
            f"({', '.join(lost[:3])}): that training had failed; use an earlier checkpoint"
        )
    given = None if layout is as_timm else layout
    _padded_alike(given, path, name)
    names = layout.renamed(list(states[0]), own)
    state = _joined({names[k]: v for k, v in states[0].items()}, net)
    usual = "torchvision and timm" if anchor == "conv1.weight" else "timm"
    author = whose(list(tensors), given.library if given else usual)
    made = Network(path, name, state, given, author)
    beside = best[0].rstrip(".").rpartition(".")[0]
    for key in tensors:
        first = key.removeprefix(f"{beside}." if beside else "").split(".")[0]
        if not key.startswith(tuple(best)) and not first.startswith("optim"):
            made.left[first] = made.left.get(first, 0) + 1
    if len(found) > len(best):
        made.notes.append(f"of its networks {best[0].rstrip('.')} is taken")
    return made


_PATCHES = "patch_embed.proj.weight"


def _there(name: str, names: set[str]) -> bool:
    """Whether a tensor is there, or what it is joined from."""
    if name in names:
        return True
    joined = name.replace(".attn.qkv.", ".attn.q.")
    return joined != name and joined in names


def _unlike(state: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return state.keys() != other.keys() or any(
        not torch.equal(v, other[k]) for k, v in state.items()
    )


def _padded_alike(layout: Layout | None, path: Path, name: str) -> None:
    """Refuse a network that pads images in another way than the library of the weights."""
    if layout is None or layout.padded is None or layout.padded == name.startswith("tf_"):
        return
    other = f"tf_{name}" if layout.padded else name.removeprefix("tf_")
    raise UserError(
        f"{path} is of {layout.library}, whose {layout.family} pads images "
        f"{'as TensorFlow does' if layout.padded else 'alike on all sides'}, and {name} does not; "
        f"use --backbone {other}"
    )


def _joined(state: dict[str, Tensor], net: nn.Module) -> dict[str, Tensor]:
    """With the parts of a layer that timm has in one: queries, keys and values; gated MLPs."""
    found = dict(state)
    for name in [k for k in state if k.endswith(".attn.q.weight")]:
        base = name.removesuffix("q.weight")
        found[f"{base}qkv.weight"] = torch.cat([found.pop(f"{base}{p}.weight") for p in "qkv"])
        bias = {p: found.pop(f"{base}{p}.bias", None) for p in "qkv"}
        q, k, v = bias["q"], bias["k"], bias["v"]
        if q is None or v is None:
            continue
        if k is None and isinstance(net, Beit):
            found[f"{base}q_bias"], found[f"{base}v_bias"] = q, v
        else:
            found[f"{base}qkv.bias"] = torch.cat([q, torch.zeros_like(q) if k is None else k, v])
    own = net.state_dict().keys()
    packed = "blocks.0.mlp.fc1.weight" in own
    for name in [k for k in found if packed and re.search(r"\.mlp\.w(12|1|3)\.", k)]:
        base, _, kind = name.rpartition(".")
        if base.endswith("w12"):
            found[f"{base[:-3]}fc1.{kind}"] = found.pop(name)
        elif base.endswith("w1"):
            parts = [found.pop(name), found.pop(f"{base[:-1]}2.{kind}")]
            found[f"{base[:-2]}fc1.{kind}"] = torch.cat(parts)
        else:
            found[f"{base[:-2]}fc2.{kind}"] = found.pop(name)
    return found


def exact_weights(found: Network, net: nn.Module, edges: bool = False) -> dict[str, Tensor]:
    """The state dict of a network that is no plain ViT: all of its weights.

    Args:
        found: as `network` gave it; what is done is noted there.
        net: timm's network.
        edges: whether it is to see edges, which come in two channels.

    Raises:
        UserError: weights are missing, not known, or of another shape.
    """
    own = net.state_dict()
    first = next(k for k in own if k.endswith("weight"))
    state = {k: _shaped(v, own.get(k)) for k, v in found.state.items()}
    state = _for_channels(state, first, own[first].shape, found, edges)
    state = {k: v for k, v in own.items() if k.endswith("num_batches_tracked")} | state
    state = _without_heads(state, own, found)
    state = _relative(_last_norm(state, net, found), net, found)
    state = _same_epsilon(state, net, found)
    hint = f"its weights need timm's names; `selftaught weights {found.path}` says whose they are"
    _fit(state, own, found, hint)
    return state


def _last_norm(state: dict[str, Tensor], net: nn.Module, found: Network) -> dict[str, Tensor]:
    """With a norm that does not scale where a BEiT was saved without its pooling layer."""
    if not isinstance(net, Beit) or {"norm.weight", "fc_norm.weight"} & state.keys():
        return state
    fresh = {k: v for k, v in net.state_dict().items() if k.startswith(("norm.", "fc_norm."))}
    found.notes.append("it has no last norm, so that one without learned weights stands for it")
    plain = {k: torch.ones_like(v) if k.endswith("weight") else v * 0 for k, v in fresh.items()}
    return state | plain


def _shaped(value: Tensor, own: Tensor | None) -> Tensor:
    """A linear layer as the convolution that it is, or the other way round, and factors alike."""
    if own is None or value.shape == own.shape or value.dim() == own.dim():
        return value
    thin = [s for s in value.shape if s > 1] == [s for s in own.shape if s > 1]
    linear = value.dim() == 2 and own.dim() == 4 and value.shape[0] == own.shape[0]
    same = value.numel() == own.numel()
    return value.reshape(own.shape) if same and (thin or linear) else value


def _without_heads(
    state: dict[str, Tensor], own: dict[str, Tensor], found: Network
) -> dict[str, Tensor]:
    heads = [k for k in state if k not in own and re.match(_HEADS, k)]
    for k in heads:
        first = k.split(".")[0]
        found.left[first] = found.left.get(first, 0) + 1
    fixed = [k for k in state if k not in own and re.search(_FIXED, k)]
    return {k: v for k, v in state.items() if k not in {*heads, *fixed}}


_HEADS = (
    r"(head|heads|head_dist|fc|_fc|fc_norm|classifier|projector|projection_head|proj_head"
    r"|projection|predictor|prediction_head|prototypes|pooler|decoder\w*|mask_token|masked_embed"
    r"|lm_head|top_layer|sobel|dino_head|ibot_head|queue\w*|linear|online_classifier|bn)(\.|$)"
)
_FIXED = r"(\.relative_position_index|\.attn_mask|^norms\.3\.\w+|\.sobel\.\w+|^n_averaged)$"
"""What follows from a network's form, or is there twice, or counts what torch has averaged."""


def _for_channels(
    state: dict[str, Tensor],
    first: str,
    shape: Sequence[int],
    found: Network,
    edges: bool = False,
) -> dict[str, Tensor]:
    """With the first layer for as many channels as `shape` has, as timm does it for its weights."""
    weight = state.get(first)
    if weight is None or weight.dim() != 4 or weight.shape[1] == shape[1]:
        return state
    had, wanted = weight.shape[1], shape[1]
    if (weight.shape[0], *weight.shape[2:]) != (shape[0], *shape[2:]):
        return state  # of another network altogether, which is told elsewhere
    if had == 2 and edges:
        return state | {first: nn.functional.pad(weight, (0, 0, 0, 0, 0, wanted - had))}
    if had != 3:
        hint = " (or --sobel, if they are of edges)" if had == 2 else ""
        raise UserError(
            f"{found.path} is of images of {had} channels, this {found.name} of {wanted}; use "
            f"--channels {had}{hint} or weights of 3 channels, which can be spread over others"
        )
    log.warning(
        "%s was trained on 3 channels (--channels 3): its first layer is spread over %d",
        found.path,
        wanted,
    )
    found.notes.append(f"first layer 3 -> {wanted} channels")
    return state | {first: adapt_input_conv(wanted, weight)}


def _relative(state: dict[str, Tensor], net: Any, found: Network) -> dict[str, Tensor]:
    """With relative positions for the windows of `net`, as timm carries them (Swin, BEiT)."""
    own, changed = net.state_dict(), {}
    for name, table in state.items():
        wanted = own.get(name)
        if not name.endswith("relative_position_bias_table") or wanted is None:
            continue
        if table.shape == wanted.shape or table.shape[1:] != wanted.shape[1:]:
            continue
        layer = net.get_submodule(name.rpartition(".")[0])
        with warnings.catch_warnings(action="ignore"):  # of how fast it interpolates
            changed[name] = resize_rel_pos_bias_table(table, layer.window_size, wanted.shape)
    if changed:
        found.notes.append(f"{len(changed)} tables of relative positions resampled")
    return state | changed


def _same_epsilon(state: dict[str, Tensor], net: nn.Module, found: Network) -> dict[str, Tensor]:
    """With batch norms that give what theirs give: another epsilon is a part of the variance."""
    known = found.layout.epsilon if found.layout else ()
    theirs = next((value for pattern, value in known if re.search(pattern, found.name)), None)
    if theirs is None:
        return state
    changed = {}
    for name, layer in net.named_modules():
        key = f"{name}.running_var"
        if isinstance(layer, nn.BatchNorm2d) and key in state and layer.eps != theirs:
            changed[key] = state[key] + (theirs - layer.eps)
    if changed:
        found.notes.append(f"the epsilon {theirs:g} of its norms is in their variances")
    return state | changed


def vit_weights(found: Network, net: Any) -> tuple[dict[str, Tensor], Resample]:
    """The state dict of a plain ViT, and how its positions are resampled.

    Positions of another grid are carried over as the papers' code does it: bicubic for MAE and
    I-JEPA, with DINOv2's offset, and antialiased where DINOv2 has registers.

    Args:
        found: as `network` gave it; what is done is noted there.
        net: timm's VisionTransformer, or its Eva for rotary positions; it loses its class token
            first where the file has none.

    Raises:
        UserError: the file is of another network, or its table of positions is all zeros.
    """
    path, name = found.path, found.name
    # DINOv2's trainings number blocks within groups as well
    state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", k): v for k, v in found.state.items()}
    if "register_tokens" in state:
        state["reg_token"] = state.pop("register_tokens")
    state = _without_heads(state, net.state_dict(), found)
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
    if state[_PATCHES].dim() == 5:
        raise UserError(
            f"{path} is of clips, whose patches have {state[_PATCHES].shape[2]} frames; in Python "
            "selftaught.backbones.ClipEncoder takes the weights of V-JEPA"
        )
    state = _for_channels(state, _PATCHES, own[_PATCHES].shape, found)
    _same_patches(state[_PATCHES], net, path, name)
    state, how = _turned(state, net, path, name) if rotary else _placed(state, net, found)
    depth = len({k.split(".")[1] for k in state if k.startswith("blocks.")})
    hint = f"it has {depth} blocks of width {len(state[_PATCHES])}"
    if any("ls1" in k for k in state.keys() - own.keys()):
        hint = "it has layer scale: use a backbone named ..._dinov2"
    _fit(state, own, found, hint)
    return state, how


def _placed(
    state: dict[str, Tensor], net: Any, found: Network
) -> tuple[dict[str, Tensor], Resample]:
    """With the table of positions for the grid of `net`."""
    path = found.path
    table, layer_scale = state["pos_embed"], any(k.endswith("ls1.gamma") for k in state)
    about, patch = beside(path), net.patch_embed.patch_size[0]
    size = about.size if about else None
    laid = (  # what is known of the images first: 1 + 3 * 8 positions are a square, too
        (grid, extra)
        for told in dict.fromkeys((size, None))
        for extra in (0, 1)
        if (grid := grid_of(table.shape[1] - extra, told, patch))
    )
    old, prefix = next(laid, (None, 0))
    if old is None:
        raise UserError(f"{path} has {table.shape[1]} positions, which are no square of patches")
    if net.no_embed_class and prefix:
        # timm keeps the class token's position in the token itself
        state["cls_token"] = state["cls_token"] + table[:, :1]
        table, prefix = table[:, 1:], 0
    registers = "reg_token" in state
    how: Resample = "smooth" if registers else "offset" if layer_scale else "plain"
    grids = old, net.patch_embed.grid_size
    if grids[0] != grids[1]:
        found.notes.append(f"positions {told_sides(old)} -> {told_sides(grids[1])}, resample {how}")
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


def _fit(state: dict[str, Tensor], own: dict[str, Tensor], found: Network, hint: str) -> None:
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    unlike = [
        f"{k} {list(state[k].shape)} for {list(own[k].shape)}"
        for k in own
        if k in state and own[k].shape != state[k].shape
    ]
    wrong = [
        f"{len(names)} {of}{what} ({', '.join(names[:3])}{', ...' * (len(names) > 3)})"
        for names, of, what in (
            (missing, f"of {len(own)} weights ", "are missing"),
            (extra, "", "are not known"),
            (unlike, "", "have another shape"),
        )
        if names
    ]
    if missing and not extra and not unlike:
        hint = (
            "it holds a part of this network: give the whole file, or name the network that it is "
            f"of, as `selftaught weights {found.path}` tells it"
        )
    if wrong:
        raise UserError(f"{found.path} does not fit {found.name}: {', '.join(wrong)}; {hint}")
