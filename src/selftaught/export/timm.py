"""The same network in plain timm, for people without selftaught."""

import copy
import json
from dataclasses import dataclass
from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from selftaught.backbones import Image
from selftaught.backbones.image.create import patch_layer
from selftaught.export.facts import WEIGHTS
from selftaught.sides import both, told_size


@dataclass(frozen=True)
class PlainTimm:
    """How timm builds an encoder.

    name, options: of the call of `timm.create_model`.
    changes: (name, layer) that replace what timm made: the stem, adapted to small images.
    """

    name: str
    options: dict[str, Any]
    changes: tuple[tuple[str, nn.Module], ...]

    def build(self, weights: dict[str, Tensor]) -> nn.Module:
        """What `timm_code` builds, in evaluation mode."""
        net = timm.create_model(self.name, **self.options)
        for where, layer in self.changes:
            net.set_submodule(where, copy.deepcopy(layer))
        net.load_state_dict(weights)
        return net.eval()


def plain_timm(encoder: Image) -> PlainTimm:
    """Find how timm builds `encoder.net`, by comparing it with what timm would build."""
    options: dict[str, Any] = {"num_classes": 0, "in_chans": encoder.channels}
    wanted: dict[str, Any] = {"img_size": encoder.size, "dynamic_img_size": True}
    if patches := patch_layer(encoder.net):
        wanted["patch_size"] = patches.patch_size[0]
    if encoder.pool != "timm" or not encoder.class_token:
        net = cast(Any, encoder.net)
        last = not isinstance(net.fc_norm, nn.Identity)
        wanted |= {"global_pool": net.global_pool, "fc_norm": last, "use_fc_norm": last}
        wanted |= {"pool_include_prefix": getattr(net, "pool_include_prefix", False)}
    if not encoder.class_token:
        wanted["class_token"] = False
    if encoder.positions == "shared":
        wanted |= {"use_rel_pos_bias": False, "use_shared_rel_pos_bias": True}
    for key, value in wanted.items():  # timm has no list of what a model's class knows
        if _builds(encoder.name, {**options, key: value}, key):
            options[key] = value
    original = _on_meta(encoder.name, options)
    theirs = dict(original.named_modules())
    changes = tuple(
        (where, layer)
        for where, layer in encoder.net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.Identity)
        and isinstance(theirs.get(where), nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        and repr(layer) != repr(theirs[where])
    )
    return PlainTimm(encoder.name, options, changes)


def timm_code(encoder: Image) -> str:
    """Python that rebuilds `encoder` with timm alone from `encoder.safetensors`, as `model`.

    Its paths are relative to the folder of the weights. Tested by running it.
    """
    plain = plain_timm(encoder)
    given = [json.dumps(plain.name)]
    given += [f"{k}={json.dumps(v) if isinstance(v, str) else v}" for k, v in plain.options.items()]
    mean, std = ([round(v, 6) for v in values] for values in (encoder.mean, encoder.std))
    rows, columns = both(encoder.size)
    head = [
        f"# images: floats [B, {encoder.channels}, {rows}, {columns}] in 0..1, "
        "then (x - mean) / std with",
        f"# mean = {mean}, std = {std}",
        *_what_it_sees(encoder),
        "import timm",
    ]
    if not plain.changes:
        return "\n".join(
            [
                *head,
                "",
                "model = timm.create_model(",
                *(f"    {g}," for g in given),
                f'    checkpoint_path="{WEIGHTS}",',
                ").eval()\n",
            ]
        )
    return "\n".join(
        [
            *head,
            "import torch",
            "from safetensors.torch import load_file",
            "",
            f"model = timm.create_model({', '.join(given)})",
            f"# the stem, adapted to images of {told_size(encoder.size)} px",
            *(f"model.{_attribute(w)} = torch.nn.{layer!r}" for w, layer in _named(plain)),
            *(f"model.{_attribute(w)}.stride = (1, 1)" for w in _strides(plain)),
            f'model.load_state_dict(load_file("{WEIGHTS}"))',
            "model.eval()\n",
        ]
    )


def _what_it_sees(encoder: Image) -> list[str]:
    if encoder.input == "colors":
        return []
    return [
        f"# of which it is to see what selftaught.backbones.image.lightness.{encoder.input} makes"
    ]


def _named(plain: PlainTimm) -> list[tuple[str, nn.Module]]:
    """Changes that torch's own layers make."""
    return [c for c in plain.changes if type(c[1]) in (nn.Conv2d, nn.Identity)]


def _strides(plain: PlainTimm) -> list[str]:
    """timm's own kinds of convolution: they stay, with another stride."""
    return [where for where, layer in plain.changes if type(layer) not in (nn.Conv2d, nn.Identity)]


def _builds(name: str, options: dict[str, Any], key: str) -> bool:
    try:
        _on_meta(name, options)
    except TypeError as error:
        if f"'{key}'" not in str(error):
            raise
        return False
    return True


def _on_meta(name: str, options: dict[str, Any]) -> nn.Module:
    """The model without memory for its weights: fast for the largest."""
    with torch.device("meta"):
        return timm.create_model(name, **options)


def _attribute(name: str) -> str:
    """`layer1.0.conv1` as Python writes it: `layer1[0].conv1`."""
    parts = [f"[{p}]" if p.isdigit() else f".{p}" for p in name.split(".")]
    return "".join(parts).removeprefix(".")
