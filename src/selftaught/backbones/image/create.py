"""timm's quirks behind one door: any model, for images of any size and number of channels."""

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from timm.layers import PatchEmbed
from timm.models.beit import Beit
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from selftaught import timm_names
from selftaught.backbones.image.packed import with_packing
from selftaught.backbones.weights import hub
from selftaught.backbones.weights.places import REPOSITORY
from selftaught.errors import UserError, out_of_memory
from selftaught.sides import Size, as_option, both, one, short, told_size

log = logging.getLogger("selftaught")

SMALL = 64
"""Images with fewer pixels a side get an adapted stem: ImageNet's throws most of them away."""


def create(
    name: str,
    size: Size,
    channels: int,
    pretrained: bool,
    drop_path: float,
    patch_size: int | None = None,
) -> nn.Module:
    """The timm model `name` without classifier, fitted to `size` pixels and `channels`.

    Raises:
        UserError: no such model, a size or patches that it cannot have, or weights that cannot be
            had.
    """
    if not timm.is_model(name):
        raise timm_names.unknown(name)
    if short(size) < 1 or channels < 1:
        raise UserError(
            f"a backbone needs size and channels of at least 1, got {size} and {channels}"
        )
    if patch_size is not None and patch_size < 1:
        raise UserError(f"patch_size is a number of pixels, at least 1, got {patch_size}")
    if not 0 <= drop_path < 1:
        raise UserError(f"drop_path is a probability in [0, 1), got {drop_path}")
    options: dict[str, Any] = {
        "num_classes": 0,
        "in_chans": channels,
        "drop_path_rate": drop_path,
        "img_size": size,
        "dynamic_img_size": True,
    }
    if short(size) < SMALL or patch_size is not None:
        with torch.device("meta"):
            plan = _build(name, False, {**options, "img_size": None})
        if patches := patch_layer(plan):
            own = int(patches.patch_size[0])
            options["patch_size"] = patch_size or _small_patch(plan, own, size)
        elif patch_size is not None:
            raise UserError(
                f"{name} does not begin with patches, so they have no size; leave out patch_size, "
                "or use a backbone such as vit_small_patch16_224"
            )
    net = with_packing(_build(name, pretrained, options))
    if plain_vit(net) is None:
        fresh = _fit_stem(net, name, size, channels)
        if pretrained and fresh:
            log.warning(
                "%s for %s px: new random weights in %s, pretrained ones everywhere else",
                name,
                told_size(size),
                ", ".join(fresh),
            )
    return net


def plain_vit(net: nn.Module) -> VisionTransformer | Eva | None:
    """`net`, if its tokens are patches of pixels that can be left out one by one."""
    if type(net) not in (VisionTransformer, Eva) or patch_layer(net) is None:
        return None
    return cast(VisionTransformer | Eva, net)


def beit(net: nn.Module) -> Beit | None:
    """`net`, if it is a ViT whose positions are biases of its attention."""
    return net if type(net) is Beit else None


def patch_layer(net: nn.Module) -> PatchEmbed | None:
    """The layer that cuts images into patches, where that is the whole stem."""
    layer = dict(net.named_children()).get("patch_embed")
    return layer if isinstance(layer, PatchEmbed) else None


def channels_first(maps: Tensor, dim: int) -> Tensor:
    """[B, dim, H, W] from what a timm model calls its feature maps (Swin's are [B, H, W, dim])."""
    return maps if maps.shape[1] == dim else maps.permute(0, 3, 1, 2)


def cells(net: Any, tokens: Tensor) -> int:
    """Number of local tokens among [B, P + N, D]; some of timm's classes do not say what P is."""
    return tokens.shape[1] - getattr(net, "num_prefix_tokens", 0)


def _build(name: str, pretrained: bool, options: dict[str, Any]) -> nn.Module:
    """timm's model with those of `options` that its class knows: timm has no list of them."""
    options = {k: v for k, v in options.items() if v is not None}
    while True:
        try:
            with hub.at_once(_repository(name) if pretrained else None):
                return timm.create_model(name, pretrained=pretrained, **options)
        except TypeError as error:
            refused = next((k for k in options if f"'{k}'" in str(error)), None)
            if refused is None:
                raise
            if options.pop(refused) and refused == "drop_path_rate":
                raise UserError(f"{name} has no stochastic depth; set drop_path to 0") from error
        except Exception as error:
            reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            if pretrained:  # each layer below timm has its own exceptions for a missing network
                absent = hub.absent(_repository(name) or name, hub.reason(error))
                raise UserError(
                    f"{absent}; or connect once so that they are cached, or set pretrained to false"
                ) from error
            raise UserError(
                f"{name} cannot be built for {told_size(options.get('img_size', 0))} px "
                f"({reason}); use a multiple of 32, or another backbone"
            ) from error


def _repository(name: str) -> str | None:
    """Where the pretrained weights of a model lie on the hub."""
    known: Any = timm.get_pretrained_cfg(name)
    return known.hf_hub_id if known is not None else None


def known(name: str, weights: Path) -> Any:
    """timm's settings of weights of the network `name` that it has published, by where they lie in
    the hub's cache or by the name of their file; None for others."""
    for full in timm.list_pretrained(f"{name}.*"):
        about: Any = timm.get_pretrained_cfg(full)
        if f"{REPOSITORY}{full}" in weights.parts or str(about.url).endswith(f"/{weights.name}"):
            return about
    return None


def offered(name: str) -> tuple[str, int] | None:
    """What timm has for the network `name`: weights, by the name that the hub has for them, and
    their bytes; None where it has none."""
    repository = _repository(name)
    if not repository:
        return None
    with torch.device("meta"):
        net = timm.create_model(name)
    numbers = sum(x.numel() for x in net.state_dict().values())
    return repository.removeprefix("timm/"), 4 * numbers


def _small_patch(net: Any, patch: int, size: Size) -> int:
    """Patch that leaves about 8 x 8 cells after the last block of `net`, and no fewer than 4 x 4.

    Of a rectangle those are the cells along the shorter side. A size with no such divisor gets a
    patch that does not fit, which `Image` refuses in words.
    """
    merged = net.feature_info[-1]["reduction"] // patch
    side, whole = short(size), math.gcd(*both(size))
    cells = {p: side // p / merged for p in range(1, side + 1) if whole % p == 0}
    best = min(cells, key=lambda p: (cells[p] < 4, abs(cells[p] - 8)))
    return best if cells[best] <= 16 else side // 8


def _fit_stem(net: nn.Module, name: str, size: Size, channels: int) -> list[str]:
    """Try an image of `size` pixels; for a small one, undo the earliest strides until the last map
    is 4 x 4, or of a rectangle has 4 cells along the shorter side.

    For ResNets this is what the papers do for CIFAR: a 3 x 3 convolution of stride 1, no max-pool.
    Returns the names of the layers that have new weights.
    """
    fresh: list[str] = []
    image = torch.zeros(1, channels, *both(size))
    least = min(4, short(size)) if short(size) < SMALL else 1
    try:
        while (strides := _strides(net, image, least)).shrinking:
            for where in strides.shrinking:
                old = net.get_submodule(where)
                if not isinstance(old, nn.Conv2d):
                    net.set_submodule(where, nn.Identity())
                elif old.kernel_size[0] in (1, 3, 5):
                    old.stride = (1, 1)
                else:
                    net.set_submodule(where, _conv3x3(old))
                    fresh.append(where)
        uneven = any(strides.steps) or any(side % 32 for side in both(size))
        unseen = _unseen(net, size, channels) if uneven else (0, 0)
    except Exception as error:  # models fail in many ways on sizes they were not written for
        if out_of_memory(error):
            raise
        raise UserError(
            f"{name} cannot take images of {told_size(size)} px ({type(error).__name__}: {error}); "
            f"use its own size, {_own_size(net)} px, or a backbone such as resnet18"
        ) from error
    if any(unseen):
        seen = [side - lost for side, lost in zip(both(size), unseen)]
        # one more step where that stride alone is to blame
        more = [n + (s if 0 < k < s else 0) for n, k, s in zip(seen, unseen, strides.steps)]
        sizes = dict.fromkeys(as_option(one(sides)) for sides in (seen, more) if all(sides))
        lost = [str(n) for n in dict.fromkeys(n for n in unseen if n)]
        raise UserError(
            f"the last {' and '.join(lost)} of {told_size(size)} rows and columns never reach the "
            f"features of {name}, which cuts off what is no multiple of its patches or strides; "
            f"use size {' or '.join(sizes)}"
        )
    return fresh


def _own_size(net: Any) -> int:
    return net.pretrained_cfg["input_size"][-1]


def _conv3x3(old: nn.Conv2d) -> nn.Conv2d:
    biased = old.bias is not None
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, 1, 1, groups=old.groups, bias=biased)
    nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    return new


class _Strides(NamedTuple):
    """What the strided layers do to an image.

    shrinking: names of the first of them that are to go; none if the last map has enough rows and
    columns. steps: pixels of the image to a stride of the first that leaves out rows, and of the
    first that leaves out columns; 0 if none does.
    """

    shrinking: list[str]
    steps: tuple[int, int]


@torch.no_grad()
def _strides(net: Any, image: Tensor, least: int) -> _Strides:
    """Strided layers of `net` where the last map of `image` is to have `least` rows and columns.

    Layers with inputs of one size are branches of one block, and must change together.
    """
    seen: list[tuple[str, tuple[int, int]]] = []

    def note(where: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: seen.append((where, both(inputs[0].shape[-2:])))

    hooks = [
        layer.register_forward_pre_hook(note(where))
        for where, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        and layer.stride not in (1, (1, 1))
    ]
    training, cells = net.training, 0.0
    try:
        cells = _cells(net, net.eval().forward_features(image), image)
    except Exception:  # a small image may have no pixels left somewhere inside
        if least == 1 or not seen:
            raise
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    if cells >= least:
        return _Strides([], (_step(net, image, seen, 0), _step(net, image, seen, 1)))
    if not seen:
        raise ValueError(f"{cells:.0f} x {cells:.0f} features are left")
    return _Strides([where for where, sides in seen if sides == seen[0][1]], (0, 0))


def _step(net: Any, image: Tensor, seen: list[tuple[str, tuple[int, int]]], axis: int) -> int:
    """See `_Strides.steps`; axis: 0 for rows, 1 for columns."""
    for where, sides in seen:
        if stride := _leaves_out(net.get_submodule(where), sides[axis], axis):
            return image.shape[2 + axis] // sides[axis] * stride
    return 0


def _leaves_out(layer: Any, side: int, axis: int) -> int:
    """The stride of a layer that may not look at the last of `side` rows or columns; else 0."""
    kernel, stride, padding = (
        value[axis] if isinstance(value, tuple) else value
        for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    if kernel < stride:  # leaves out rows everywhere, as shortcuts do, beside which others look
        return 0
    over = 0 if isinstance(padding, str) else (side + padding - kernel) % stride
    return stride if over else 0


def _unseen(net: Any, size: Size, channels: int) -> tuple[int, int]:
    """How many of the last rows and of the last columns of an image no feature depends on; of a
    square the more of both.

    Not what its layers say counts, but the gradient. Weights that are all zeros, by which blocks
    begin as their shortcuts, are ones meanwhile: they will have learned to look.
    """
    random = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, *both(size), generator=random).requires_grad_()
    silent = [p for p in net.parameters() if not bool(p.any())]
    training = net.training
    try:
        with torch.enable_grad():
            for p in silent:
                p.data.fill_(1)
            found = net.eval().forward_features(image)
            weights = torch.randn(found.shape, generator=random)
            (gradient,) = torch.autograd.grad((found * weights).sum(), image)
    finally:
        net.train(training)
        for p in silent:
            p.data.zero_()
    reached = [gradient.abs().sum((0, 1, axis)).nonzero() for axis in (3, 2)]
    lost = [side - 1 - (int(r.max()) if len(r) else -1) for side, r in zip(both(size), reached)]
    return (lost[0], lost[1]) if isinstance(size, tuple) else (max(lost), max(lost))


def whole(net: nn.Module) -> int:
    """Pixels that sides of images are to be a multiple of: the first layer's patches, or 1."""
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    patches = first is not None and first.kernel_size == first.stride and first.padding == (0, 0)
    return first.stride[0] if first is not None and patches else 1


def _cells(net: Any, maps: Any, image: Tensor) -> float:
    """Along the shorter side of an image, of what it became."""
    if not isinstance(maps, Tensor):
        raise TypeError("it returns several maps")
    if maps.dim() == 4:
        return min(channels_first(maps, net.num_features).shape[2:])
    return (cells(net, maps) * min(image.shape[2:]) / max(image.shape[2:])) ** 0.5
