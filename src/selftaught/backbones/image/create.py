"""timm's quirks behind one door: any model, for images of any size and number of channels."""

import logging
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
from selftaught.backbones.weights import hub
from selftaught.backbones.weights.places import REPOSITORY
from selftaught.errors import UserError, out_of_memory

log = logging.getLogger("selftaught")

SMALL = 64
"""Images with fewer pixels a side get an adapted stem: ImageNet's throws most of them away."""


def create(
    name: str,
    size: int,
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
    if size < 1 or channels < 1:
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
    if size < SMALL or patch_size is not None:
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
    net = _build(name, pretrained, options)
    if plain_vit(net) is None:
        fresh = _fit_stem(net, name, size, channels)
        if pretrained and fresh:
            log.warning(
                "%s for %d px: new random weights in %s, pretrained ones everywhere else",
                name,
                size,
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
                f"{name} cannot be built for {options.get('img_size')} px ({reason}); use a "
                "multiple of 32, or another backbone"
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


def _small_patch(net: Any, patch: int, size: int) -> int:
    """Patch that leaves about 8 x 8 cells after the last block of `net`, and no fewer than 4 x 4.

    A size with no such divisor gets a patch that does not fit, which `Image` refuses in words.
    """
    merged = net.feature_info[-1]["reduction"] // patch
    cells = {p: size // p / merged for p in range(1, size + 1) if size % p == 0}
    best = min(cells, key=lambda p: (cells[p] < 4, abs(cells[p] - 8)))
    return best if cells[best] <= 16 else size // 8


def _fit_stem(net: nn.Module, name: str, size: int, channels: int) -> list[str]:
    """Try an image of `size` pixels; for a small one, undo the earliest strides until the last map
    is 4 x 4.

    For ResNets this is what the papers do for CIFAR: a 3 x 3 convolution of stride 1, no max-pool.
    Returns the names of the layers that have new weights.
    """
    fresh: list[str] = []
    image = torch.zeros(1, channels, size, size)
    least = min(4, size) if size < SMALL else 1
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
        unseen = _unseen(net, size, channels) if strides.step or size % 32 else 0
    except Exception as error:  # models fail in many ways on sizes they were not written for
        if out_of_memory(error):
            raise
        raise UserError(
            f"{name} cannot take images of {size} px ({type(error).__name__}: {error}); use its "
            f"own size, {_own_size(net)} px, or a backbone such as resnet18"
        ) from error
    if unseen:
        more = strides.step if unseen < strides.step else 0  # where that stride alone is to blame
        sizes = dict.fromkeys((size - unseen, size - unseen + more))
        raise UserError(
            f"the last {unseen} of {size} rows and columns never reach the features of {name}, "
            f"which cuts off what is no multiple of its patches or strides; use size "
            f"{' or '.join(str(s) for s in sizes if s)}"
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

    shrinking: names of the first of them that are to go; none if the last map has enough rows.
    step: pixels of the image to a stride of the first that leaves out rows; 0 if none does.
    """

    shrinking: list[str]
    step: int


@torch.no_grad()
def _strides(net: Any, image: Tensor, least: int) -> _Strides:
    """Strided layers of `net` where the last map of `image` is to have `least` rows.

    Layers with inputs of one size are branches of one block, and must change together.
    """
    seen: list[tuple[str, int]] = []

    def note(where: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda _, inputs: seen.append((where, inputs[0].shape[-1]))

    hooks = [
        layer.register_forward_pre_hook(note(where))
        for where, layer in net.named_modules()
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d)
        and layer.stride not in (1, (1, 1))
    ]
    training, rows = net.training, 0.0
    try:
        rows = _rows(net, net.eval().forward_features(image))
    except Exception:  # a small image may have no pixels left somewhere inside
        if least == 1 or not seen:
            raise
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    if rows >= least:
        steps = (_leaves_out(net.get_submodule(where), side) for where, side in seen)
        found = ((image.shape[-1] // side) * step for (_, side), step in zip(seen, steps) if step)
        return _Strides([], next(found, 0))
    if not seen:
        raise ValueError(f"{rows:.0f} x {rows:.0f} features are left")
    return _Strides([where for where, side in seen if side == seen[0][1]], 0)


def _leaves_out(layer: Any, side: int) -> int:
    """The stride of a layer that may not look at the last of `side` rows; else 0."""
    kernel, stride, padding = (
        value[0] if isinstance(value, tuple) else value
        for value in (layer.kernel_size, layer.stride, layer.padding)
    )
    if kernel < stride:  # leaves out rows everywhere, as shortcuts do, beside which others look
        return 0
    over = 0 if isinstance(padding, str) else (side + padding - kernel) % stride
    return stride if over else 0


def _unseen(net: Any, size: int, channels: int) -> int:
    """How many of the last rows or columns of an image no feature depends on.

    Not what its layers say counts, but the gradient. Weights that are all zeros, by which blocks
    begin as their shortcuts, are ones meanwhile: they will have learned to look.
    """
    random = torch.Generator().manual_seed(0)
    image = torch.randn(1, channels, size, size, generator=random).requires_grad_()
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
    reached = [gradient.abs().sum((0, 1, axis)).nonzero() for axis in (2, 3)]
    return size - 1 - min(int(r.max()) if len(r) else -1 for r in reached)


def whole(net: nn.Module) -> int:
    """Pixels that sides of images are to be a multiple of: the first layer's patches, or 1."""
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
    patches = first is not None and first.kernel_size == first.stride and first.padding == (0, 0)
    return first.stride[0] if first is not None and patches else 1


def _rows(net: Any, maps: Any) -> float:
    if not isinstance(maps, Tensor):
        raise TypeError("it returns several maps")
    if maps.dim() == 4:
        return channels_first(maps, net.num_features).shape[2]
    return cells(net, maps) ** 0.5
