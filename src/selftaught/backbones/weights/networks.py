"""Which of timm's networks weights are of, by how many numbers they hold: without torch, from a
list. What follows from the size of images, and biases that some leave out, is not counted.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from selftaught.backbones.weights.header import Shape
from selftaught.backbones.weights.layouts import LAYOUTS, Layout

FILE = Path(__file__).parent / "networks.txt"
FAMILIES = (
    r"(wide_)?resnet(18|34|50|101|152)(_2)?|resnext(50|101)_32x(4|8)d|vgg\d+(_bn)?",
    r"densenet(121|169|201)|mobilenetv2_\d+|mobilenetv3_(small|large)_\d+",
    r"(tf_)?efficientnet_b[0-7]|(tf_)?efficientnet_lite\d|(tf_)?efficientnetv2_[sml]",
    r"convnext(v2)?_(atto|femto|pico|nano|tiny|small|base|large|huge|xlarge)|regnet[xy]_\d+",
    r"swin_(tiny|small|base|large)_patch4_window7_224|swinv2_\w+_window8_256|test_\w+",
    r"vit_(tiny|small|base|large|huge)_patch\d+_224|vit_\w+_dinov3(_qkvb)?",
    r"vit_\w+_patch14_(reg4_)?dinov2|beit_(base|large)_patch16_224|deit3_\w+_patch\d+_224",
    r"eva02_\w+_patch14_224|vit_\w+_patch16_rope_224|xcit_\w+_p(8|16)_224|pvt_v2_b\d|mobilevit(v2)?_\w+|mixer_\w+_224",
)
"""Patterns of the names that the list holds."""
_CANON = re.compile(
    r"(cls_token|pos_embed|reg_token|storage_tokens|register_tokens"
    r"|patch_embed\.(proj|norm)\.\w+|blocks\.[\d.]+(norm|attn|mlp|ls|gamma|conv|bn|se|\d)[\w.]*"
    r"|rel_pos_bias\.\w+|layers\.\d\.(blocks|downsample)\.[\w.]+|stem[\d.]*\.\w+"
    r"|stages\.\d\.(blocks|downsample)\.[\w.]+|layer\d\.\d+\.(conv|bn|downsample|se|shortcut)[\w.]+"
    r"|conv1(\.\d)?\.\w+|(bn1|bn2|norm|fc_norm|head\.norm|conv_stem|conv_head)\.\w+|features\.[\w.]+"
    r"|pre_logits\.fc\d\.\w+)"
)
_UNCOUNTED = re.compile(
    r"(^|\.)(cls_token|pos_embed|mask_token|masked_embed|norms\.3\.\w+)$|relative_position|rel_pos_bias"
    r"|num_batches_tracked$|attn_mask$|attn\.(qkv|q|k|v)\.bias(_mask)?$|\.[qkv]_bias$|rope"
)
_ANCHORS = (
    r"patch_embed\.proj\.weight|conv1(\.0)?\.weight|conv_stem\.weight|stem\.(0|conv1)\.weight"
)


def count(tensors: Mapping[str, Shape]) -> int:
    """How many numbers a network has under timm's names."""
    return sum(t.count for name, t in tensors.items() if not _UNCOUNTED.search(name))


@cache
def _known() -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for line in FILE.read_text(encoding="utf-8").splitlines():
        total, name = line.split()
        found.setdefault(int(total), []).append(name)
    return found


def backbones(tensors: Mapping[str, Shape], layout: Layout | None) -> list[str]:
    """Names of timm's networks that have what is there, the likeliest first."""
    names = _known().get(count(tensors), [])
    if layout is not None and layout.padded is not None:
        names = [n for n in names if n.startswith("tf_") == layout.padded]
    if any("relative_position" in n or "rel_pos_bias" in n for n in tensors):
        names = [n for n in names if n.startswith(("beit", "swin"))]
    elif "pos_embed" in tensors:
        names = [n for n in names if not n.startswith("beit") and "_rope_" not in n]
    # a network with biases takes weights without, and not the other way round
    return sorted(names, key=lambda n: (not n.endswith("_qkvb"), n.startswith(("tf_", "test_"))))


def likeliest(
    tensors: Mapping[str, Shape],
) -> tuple[dict[str, Shape], Layout | None, str]:
    """What a file's encoder seems to be: its tensors under timm's names, the layout that they had,
    and the prefix; all empty where nothing looks like a network.
    """
    from selftaught.backbones.weights.prefixes import rank

    best: tuple[tuple[int, int], dict[str, Shape], Layout | None, str] = ((0, 0), {}, None, "")
    for layout in (Layout("timm", "", f"(?:{_ANCHORS})"), *LAYOUTS):
        for prefix in sorted(layout.prefixes(tensors)):
            inside = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            names = layout.renamed(list(inside))
            like = {names[k]: v for k, v in inside.items() if _CANON.fullmatch(names[k])}
            score = (len(like), -rank(prefix))
            if score > best[0]:
                best = (score, like, None if layout.library == "timm" else layout, prefix)
    return best[1:]
