"""How libraries name the layers of a network, as rules that give them the names that timm has.

A layout is a few lines: a name by which its files are known, and what its names become. It reads
names alone, so that a file can be told of without torch. What is joined, cut or reshaped besides is
the same for all, and lies in `carrying`.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class Layout:
    """The names of one library for one family of networks.

    Args:
        library: whose they are.
        family: of networks.
        sign: end of the name of a tensor that no other layout has; what comes before is the prefix.
        rules: patterns and replacements, one after the other, for names without the prefix.
        ordered: for networks whose blocks are told by their order, what finds the blocks; see
            `_in_order`.
        layers: names of the layers of such a block, in order, where they are not numbered.
        epsilon: patterns of timm's names -> that of the library's batch norms, where timm has
            another.
        padded: whether timm's network is one that pads as TensorFlow does, or is not; None where
            there is no such choice.
    """

    library: str
    family: str
    sign: str
    rules: tuple[Rule, ...] = ()
    ordered: Callable[[str], tuple[int, ...] | None] | None = None
    layers: tuple[str, ...] = ()
    epsilon: tuple[tuple[str, float], ...] = ()
    padded: bool | None = None

    def prefixes(self, names: Iterable[str]) -> set[str]:
        """What may come before the names of a network of this layout."""
        pattern = re.compile(rf"(.*?){self.sign}")
        found = {m[1] for name in names if (m := pattern.fullmatch(name))}
        return {prefix for prefix in found if not prefix or prefix.endswith(".")}

    def renamed(self, names: Collection[str], own: Collection[str] = ()) -> dict[str, str]:
        """Names without prefix -> timm's names; `own` are those of the network, in its order."""
        if self.ordered is not None:
            return self._in_order(names, own, self.ordered)
        return {name: _by_rules(name, self.rules) for name in names}

    def _in_order(
        self,
        names: Collection[str],
        own: Collection[str],
        block: Callable[[str], tuple[int, ...] | None],
    ) -> dict[str, str]:
        """The names of MobileNets and EfficientNets, which each library cuts into stages its way:
        the n-th block becomes the n-th, and within it the n-th layer.

        block: numbers of a tensor's block, by which blocks are sorted; None outside of all.
        """
        found = {n: _by_rules(n, self.rules) for n in names if block(n) is None}
        inside = sorted((n for n in names if block(n)), key=lambda n: (block(n), self._place(n)))
        theirs = [list(_layers(group)) for _, group in groupby(inside, block)]
        blocks = (n for n in own if _BLOCK.match(n))
        ours = [list(_layers(group)) for _, group in groupby(blocks, _block_of)]
        for number, layers in enumerate(theirs):
            fits = number < len(ours) and len(ours[number]) == len(layers)
            for place, (layer, tensors) in enumerate(layers):
                new = ours[number][place][0] if fits else f"blocks.{number}.{place}"
                found |= {t: f"{new}{t.removeprefix(layer)}" for t in tensors}
        return found

    def _place(self, name: str) -> list[Any]:
        """A key by which the layers of a block are in order, and layer 10 comes after layer 9."""
        if self.layers:
            return [next((i for i, n in enumerate(self.layers) if f".{n}." in name), -1), name]
        return [(p.isdigit(), int(p) if p.isdigit() else p) for p in re.split(r"[._]", name)]


def _by_rules(name: str, rules: Iterable[Rule]) -> str:
    for pattern, new in rules:
        name = re.sub(pattern, new, name)
    return name


def _layers(names: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Layers, and the names of their tensors, in the order given."""
    for layer, group in groupby(names, lambda n: n.rpartition(".")[0]):
        yield layer, list(group)


_BLOCK = re.compile(r"blocks\.\d+\.\d+\.")


def _block_of(name: str) -> str:
    match = _BLOCK.match(name)
    return match[0] if match else ""


def _numbers(pattern: str) -> Callable[[str], tuple[int, ...] | None]:
    """Where a block stands, by the numbers that a pattern finds at the beginning of names."""
    compiled = re.compile(pattern)

    def found(name: str) -> tuple[int, ...] | None:
        match = compiled.match(name)
        return tuple(int(n) for n in match.groups() if n is not None) if match else None

    return found


def _stage(template: str, shift: int = 0) -> Callable[[re.Match[str]], str]:
    """Every second of torchvision's `features` is a stage, those between make images smaller."""
    return lambda m: template.format((int(m[1]) + shift) // 2, *m.groups()[1:])


_PLAIN_TRANSFORMERS: tuple[Rule, ...] = (
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.register_tokens$", "reg_token"),
    (r"^embeddings\.mask_token$", "mask_token"),
    (r"^embeddings\.patch_embeddings\.(projection\.)?", "patch_embed.proj."),
    (r"^(encoder\.|model\.)?layers?\.(\d+)\.", r"blocks.\2."),
    (r"\.attention\.(attention\.)?(relative_position_bias_\w+)$", r".attn.\2"),
    (r"\.attention\.(attention\.)?relative_position_bias\.", ".attn."),
    (r"^(blocks\.\d+)\.relative_position_bias\.", r"\1.attn."),
    (r"^(encoder\.relative|shared)_position_bias\.", "rel_pos_bias."),
    (r"\.attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue|_proj)\.", r".attn.\1."),
    (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
    (r"\.mlp\.weights_in\.", ".mlp.fc1."),
    (r"\.mlp\.weights_out\.", ".mlp.fc2."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.layer_scale([12])\.lambda1$", r".ls\1.gamma"),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"^(layernorm|layer_norm|norm)\.", "norm."),
    (r"^pooler\.layernorm\.", "fc_norm."),
)
_CONVNEXT: tuple[Rule, ...] = (
    (r"\.(dwconv|depthwise_conv)\.", ".conv_dw."),
    (r"\.(layernorm|layer_norm)\.", ".norm."),
    (r"\.(pwconv|pointwise_conv)([12])\.", r".mlp.fc\2."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"(?<!\.mlp)\.grn\.", ".mlp.grn."),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"^(layernorm|layer_norm|norm)\.", "head.norm."),
)
_SWIN: tuple[Rule, ...] = (
    (r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) + 1}.downsample"),
)


def _children(names: Collection[str]) -> dict[str, str]:
    """Places of a ResNet's children -> their names."""
    groups = sorted({int(m[1]) for n in names if (m := re.match(r"(\d+)\.0\.conv1\.", n))})
    found = {str(n): f"layer{i}" for i, n in enumerate(groups, 1)}
    return found | {"0": "conv1", "1": "bn1"}


class _Children(Layout):
    """nn.Sequential(*resnet.children()), as tutorials of many libraries make it."""

    def renamed(self, names: Collection[str], own: Collection[str] = ()) -> dict[str, str]:
        places = _children(names)
        parts = {n: n.partition(".") for n in names}
        return {n: f"{places.get(p[0], p[0])}.{p[2]}" for n, p in parts.items()}


class _Gated(Layout):
    """A ViT of transformers whose MLPs may have a gate."""

    def renamed(self, names: Collection[str], own: Collection[str] = ()) -> dict[str, str]:
        gated = any(".gate_proj." in n for n in names)
        new = {"gate": "w1", "up": "w2", "down": "w3"} if gated else {"up": "fc1", "down": "fc2"}
        found = super().renamed(names, own)
        pattern = r"\.mlp\.(gate|up|down)_proj\."
        return {
            n: re.sub(pattern, lambda m: f".mlp.{new[m[1]]}.", name) for n, name in found.items()
        }


_LITE = ("_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_se_reduce", "_se_expand")
_LITE += ("_project_conv", "_bn2")

LAYOUTS = (
    _Gated(
        "transformers",
        "DINOv3 ViT",
        r"embeddings\.patch_embeddings\.weight",
        ((r"^embeddings\.register_tokens$", "storage_tokens"), *_PLAIN_TRANSFORMERS),
    ),
    _Gated(
        "transformers",
        "ViT",
        r"embeddings\.patch_embeddings\.projection\.weight",
        _PLAIN_TRANSFORMERS,
    ),
    Layout(
        "transformers",
        "Swin",
        r"embeddings\.patch_embeddings\.projection\.weight",
        (
            (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
            (r"^embeddings\.norm\.", "patch_embed.norm."),
            (r"^encoder\.", ""),
            (r"\.attention\.(self\.)?(q|k|v)(?:uery|ey|alue|_proj)\.", r".attn.\2."),
            (r"\.attention\.(self|relative_position_bias)\.", ".attn."),
            (r"\.attention\.(output\.dense|o_proj)\.", ".attn.proj."),
            (r"\.intermediate\.dense\.", ".mlp.fc1."),
            (r"\.output\.dense\.", ".mlp.fc2."),
            (r"\.layernorm_before\.", ".norm1."),
            (r"\.layernorm_after\.", ".norm2."),
            (r"^layernorm\.", "norm."),
            *_SWIN,
        ),
    ),
    Layout(
        "transformers",
        "ConvNeXt",
        r"embeddings\.patch_embeddings\.weight",
        (
            (r"^embeddings\.patch_embeddings\.", "stem.0."),
            (r"^embeddings\.layernorm\.", "stem.1."),
            (r"^encoder\.stages\.(\d+)\.downsampling_layer\.", r"stages.\1.downsample."),
            (r"^encoder\.stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
            *_CONVNEXT,
        ),
    ),
    Layout(
        "transformers",
        "DINOv3 ConvNeXt",
        r"(?:model\.)?stages\.0\.downsample_layers\.0\.weight",
        (
            (r"^model\.", ""),
            (r"^stages\.0\.downsample_layers\.", "stem."),
            (r"^stages\.(\d+)\.downsample_layers\.", r"stages.\1.downsample."),
            (r"^stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
            *_CONVNEXT,
        ),
    ),
    Layout(
        "transformers",
        "ResNet",
        r"embedder\.embedder\.convolution\.weight",
        (
            (r"^embedder\.embedder\.convolution\.", "conv1."),
            (r"^embedder\.embedder\.normalization\.", "bn1."),
            (r"^encoder\.stages\.(\d+)\.layers\.", lambda m: f"layer{int(m[1]) + 1}."),
            (r"\.shortcut\.convolution\.", ".downsample.0."),
            (r"\.shortcut\.normalization\.", ".downsample.1."),
            (r"\.layer\.(\d)\.convolution\.", lambda m: f".conv{int(m[1]) + 1}."),
            (r"\.layer\.(\d)\.normalization\.", lambda m: f".bn{int(m[1]) + 1}."),
        ),
    ),
    Layout(
        "torchvision",
        "ViT",
        r"conv_proj\.weight",
        (
            (r"^class_token$", "cls_token"),
            (r"^conv_proj\.", "patch_embed.proj."),
            (r"^encoder\.pos_embedding$", "pos_embed"),
            (r"^encoder\.layers\.encoder_layer_", "blocks."),
            (r"\.ln_([12])\.", r".norm\1."),
            (r"\.self_attention\.in_proj_", ".attn.qkv."),
            (r"\.self_attention\.out_proj\.", ".attn.proj."),
            (r"\.mlp\.(0|linear_1)\.", ".mlp.fc1."),
            (r"\.mlp\.(3|linear_2)\.", ".mlp.fc2."),
            (r"^encoder\.ln\.", "norm."),
        ),
    ),
    Layout(
        "torchvision",
        "ConvNeXt",
        r"features\.1\.0\.block\.0\.bias",
        (
            (r"^features\.0\.", "stem."),
            (r"^features\.([246])\.", _stage("stages.{}.downsample.")),
            (r"^features\.([1357])\.(\d+)\.block\.0\.", _stage("stages.{}.blocks.{}.conv_dw.")),
            (r"^features\.([1357])\.(\d+)\.block\.2\.", _stage("stages.{}.blocks.{}.norm.")),
            (r"^features\.([1357])\.(\d+)\.block\.3\.", _stage("stages.{}.blocks.{}.mlp.fc1.")),
            (r"^features\.([1357])\.(\d+)\.block\.5\.", _stage("stages.{}.blocks.{}.mlp.fc2.")),
            (r"^features\.([1357])\.(\d+)\.layer_scale$", _stage("stages.{}.blocks.{}.gamma")),
            (r"^classifier\.0\.", "head.norm."),
        ),
    ),
    Layout(
        "torchvision",
        "Swin",
        r"features\.1\.0\.attn\.qkv\.weight",
        (
            (r"^features\.0\.0\.", "patch_embed.proj."),
            (r"^features\.0\.2\.", "patch_embed.norm."),
            (r"^features\.([246])\.", _stage("layers.{}.downsample.")),
            (r"^features\.([1357])\.(\d+)\.", _stage("layers.{}.blocks.{}.")),
            (r"\.mlp\.0\.", ".mlp.fc1."),
            (r"\.mlp\.3\.", ".mlp.fc2."),
        ),
    ),
    Layout(
        "torchvision",
        "MobileNetV2",
        r"features\.1\.conv\.0\.0\.weight",
        (
            (r"^features\.0\.0\.", "conv_stem."),
            (r"^features\.0\.1\.", "bn1."),
            (r"^features\.18\.0\.", "conv_head."),
            (r"^features\.18\.1\.", "bn2."),
        ),
        _numbers(r"features\.(\d+)\.conv\."),
        padded=False,
    ),
    Layout(
        "torchvision",
        "MobileNetV3",
        r"features\.1\.block\.0\.0\.weight",
        (
            (r"^features\.0\.0\.", "conv_stem."),
            (r"^features\.0\.1\.", "bn1."),
            (r"^classifier\.0\.", "conv_head."),
        ),
        _numbers(r"features\.([1-9]\d*)\."),
        epsilon=((r"mobilenetv3", 1e-3),),
        padded=False,
    ),
    Layout(
        "torchvision",
        "EfficientNet",
        r"features\.1\.0\.block\.0\.0\.weight",
        (
            (r"^features\.0\.0\.", "conv_stem."),
            (r"^features\.0\.1\.", "bn1."),
            (r"^features\.\d\.0\.", "conv_head."),
            (r"^features\.\d\.1\.", "bn2."),
        ),
        _numbers(r"features\.(\d+)\.(\d+)\.block\."),
        epsilon=((r"efficientnet_b[567]|efficientnetv2", 1e-3), (r"efficientnet", 1e-5)),
        padded=False,
    ),
    Layout(
        "efficientnet_pytorch",
        "EfficientNet",
        r"_conv_stem\.weight",
        (
            (r"^_conv_stem\.", "conv_stem."),
            (r"^_bn0\.", "bn1."),
            (r"^_conv_head\.", "conv_head."),
            (r"^_bn1\.", "bn2."),
        ),
        _numbers(r"_blocks\.(\d+)\."),
        _LITE,
        epsilon=((r"efficientnet", 1e-3),),
        padded=True,
    ),
    Layout(
        "torchvision",
        "VGG",
        r"features\.0\.weight",
        (
            (r"^classifier\.0\.", "pre_logits.fc1."),
            (r"^classifier\.[34]\.", "pre_logits.fc2."),
        ),
    ),
    _Children("torchvision", "ResNet in an nn.Sequential", r"\d+\.0\.conv1\.weight"),
    Layout(
        "Meta's ConvNeXt",
        "ConvNeXt",
        r"downsample_layers\.0\.0\.weight",
        (
            (r"^downsample_layers\.0\.", "stem."),
            (r"^downsample_layers\.(\d)\.", r"stages.\1.downsample."),
            (r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2."),
            *_CONVNEXT,
        ),
    ),
    Layout("Microsoft's Swin", "Swin", r"layers\.0\.downsample\.reduction\.weight", _SWIN),
)
"""All but timm's own names, which those of most papers' ViTs and ResNets are."""
