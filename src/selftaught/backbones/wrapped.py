"""Encoders that were made elsewhere: any timm or torch module, as it is."""

import copy
import inspect
import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from selftaught import code
from selftaught.backbones.encoder import Encoder, Features, is_encoder
from selftaught.backbones.image.create import cells, channels_first
from selftaught.backbones.image.encoder import Image
from selftaught.backbones.image.shown import Shown
from selftaught.backbones.positions import Grid
from selftaught.errors import UserError, out_of_memory
from selftaught.sides import Size, both, one

log = logging.getLogger("selftaught")

_OF_PATCHES = {"arrange", "attention", "features_together", "grid", "heads", "is_beit"}
_OF_PATCHES |= {"is_hierarchical", "patch", "prefix", "stem", "stem_dim", "tokens"}
"""What `Image` knows of networks that begin with patches."""


class _Found(NamedTuple):
    """What a blank image becomes: widths of pooled and local features, and the local ones' grid."""

    dim: int
    local_dim: int | None
    grid: Grid | None


class Wrapped(Shown):
    """A module that turns images into features, with what its images are to be like.

    A timm model is asked for what comes before its classifier. Of any other module the output
    counts: features [B, D]; maps [B, D, H, W] or tokens [B, N, D], whose mean is taken; of maps of
    several sizes the smallest.

    Args:
        net: the module, which is used and not copied.
        size: side of the images in pixels, or (rows, columns); by default timm's for the model, or
            224.
        channels: of the images; by default what its first convolution takes, or 3.
        mean, std: what each channel is normalized with; by default timm's for the model, or
            ImageNet's.
        dim: width of its pooled features; by default what a blank image shows.
        trained: whether its weights are worth keeping, so that a training that unlearns them is
            told of. No method draws them anew either way.
        made_by: the function that builds it, as `file.py:function` or `package.module:function`.
    """

    def __init__(
        self,
        net: nn.Module,
        size: Size | None = None,
        channels: int | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        dim: int | None = None,
        trained: bool = False,
        made_by: str | None = None,
    ):
        super().__init__()
        self.own(_module(net))
        self.name, self.trained = type(net).__name__, trained
        self.made_by, self.asked = made_by, dim
        self.resample: str | None = None  # it has no positions that anybody here knows of
        self.from_timm = type(net).__module__.startswith("timm.models.")
        given: dict[str, Any] = {}
        if self.from_timm:
            about: Any = net
            given = dict(about.pretrained_cfg)
            self.name = given.get("architecture", self.name)
            if _as_drawn(net):
                given = {k: v for k, v in given.items() if k not in ("mean", "std")}
                log.info(
                    "%s has no weights of timm's: its images are normalized with ImageNet's mean "
                    "and std; say otherwise with Wrapped(module, mean=, std=)",
                    self.name,
                )
        self.sized = size is not None or "input_size" in given
        self.size = one(size or given.get("input_size", (3, 224, 224))[-2:])
        first = next((m for m in net.modules() if isinstance(m, nn.Conv2d)), None)
        self.channels = channels or (3 if first is None else first.in_channels)
        self.normalized(mean, std, given)

    @property
    def dim(self) -> int:
        """Width of pooled features."""
        return self._found.dim

    @property
    def has_local(self) -> bool:
        """Whether it gives features of places."""
        return self._found.grid is not None

    @property
    def local_dim(self) -> int:
        """Width of local features; UserError where there are none."""
        return self._local()[0]

    @property
    def reduction(self) -> int:
        """Pixels of the image to one local feature, along a side."""
        return round(both(self.size)[0] / self._local()[1][0])

    @property
    def config(self) -> dict[str, Any]:
        """What `build` makes it again by, where it says which function made it."""
        kept = ("size", "channels", "mean", "std", "sobel", "input")
        return {"name": self.made_by or self.name} | {k: getattr(self, k) for k in kept}

    def like(self, net: nn.Module) -> "Wrapped":
        """Another module in the place of this one's."""
        found = Wrapped(
            net, self.size, self.channels, self.mean, self.std, self.asked, made_by=self.made_by
        )
        found.sobel, found.input = self.sobel, self.input
        return found

    def partner(self, name: str = "", channels: int = 0) -> Encoder:
        """An untrained network for other views: like this one, or timm's of another name."""
        if name:
            return Image(name, self.size, channels or self.channels)
        if channels not in (0, self.channels):
            raise UserError(
                f"{self.name} takes images of {self.channels} channels, and the other images have "
                f"{channels}: name a network for them with second_net, such as resnet18"
            )
        return self.like(untrained(self.net, int(torch.randint(2**31, ()))))

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, H, W] -> pooled [B, dim]."""
        return self._pooled(self._output(x))

    def features(self, x: Tensor) -> Features:
        """Pooled and local features; UserError where the module gives pooled ones alone."""
        found = self._output(x)
        pooled = self._pooled(found)
        local, grid = self._places(found, x)
        if local is None or grid is None:
            raise UserError(
                f"{self.name} gives {list(found.shape)} for images {list(x.shape)}, which are no "
                "features of places; give a module that returns maps [B, D, H, W]"
            )
        return Features(pooled, local, grid)

    def _places(self, found: Tensor, x: Tensor) -> tuple[Tensor | None, Grid | None]:
        if found.dim() == 4:
            width: int = found.shape[1]
            if self.from_timm:
                net: Any = self.net
                width = net.num_features
            maps = channels_first(found, width)
            return maps.flatten(2).mT, (maps.shape[2], maps.shape[3])
        if found.dim() == 3:
            count = cells(self.net, found)
            rows = round((count * x.shape[-2] / x.shape[-1]) ** 0.5)
            if rows and count % rows == 0:
                return found[:, -count:], (rows, count // rows)
        return None, None

    def _pooled(self, found: Tensor) -> Tensor:
        if self.from_timm:
            net: Any = self.net
            pooled = net.forward_head(found, pre_logits=True).flatten(1)
        else:
            mean = {2: (), 3: (1,), 4: (2, 3)}[found.dim()]
            pooled = found.mean(mean) if mean else found
        if self.asked not in (None, pooled.shape[1]):
            raise UserError(
                f"{self.name} has features of {pooled.shape[1]} numbers, not dim={self.asked}; "
                "leave dim out"
            )
        return pooled

    def _output(self, x: Tensor) -> Tensor:
        net: Any = self.net
        found = _smallest(self._run(net.forward_features if self.from_timm else net, x))
        if (
            not isinstance(found, Tensor)
            or found.dim() not in (2, 3, 4)
            or found.shape[0] != x.shape[0]
        ):
            raise UserError(
                f"{self.name} gives {_told(found)} for images {list(x.shape)}; an encoder gives a "
                "tensor [B, D], [B, N, D] or [B, D, H, W], or maps of several sizes: wrap it in a "
                "module that returns one"
            )
        return found

    def _local(self) -> tuple[int, Grid]:
        found = self._found
        if found.local_dim is None or found.grid is None:
            raise UserError(
                f"{self.name} gives pooled features [B, {found.dim}] alone, and features of places "
                "are needed here; give a module that returns maps [B, D, H, W]"
            )
        return found.local_dim, found.grid

    @cached_property
    def _found(self) -> _Found:
        """Seen on two blank images, in evaluation mode; weights and generators are left alone."""
        modes = {module: module.training for module in self.modules()}
        some = next((p for p in self.parameters() if p.is_floating_point()), torch.zeros(()))
        x = torch.zeros(2, self.channels, *both(self.size)).to(some.device, some.dtype)
        devices = [some.device] if some.device.type == "cuda" else []
        try:
            with torch.random.fork_rng(devices=devices), torch.no_grad():
                found = self.eval()._output(x)
                pooled, (local, grid) = self._pooled(found), self._places(found, x)
        except UserError:
            raise
        except Exception as error:  # any code may run here
            if out_of_memory(error):
                raise
            if needed := _needed(self.net):
                raise UserError(
                    f"{self.name} takes {len(needed)} inputs ({', '.join(needed)}), and a backbone "
                    "takes images alone: wrap it in a module whose forward has them as its one"
                ) from error
            raise UserError(
                f"{self.name} cannot take images {list(x.shape)} ({type(error).__name__}: "
                f"{error}); say what it takes with Wrapped(module, size=, channels=), or with "
                "--size and --channels"
            ) from error
        finally:
            for module, training in modes.items():
                module.training = training
        return _Found(pooled.shape[1], None if local is None else local.shape[2], grid)

    def __getattr__(self, name: str) -> Any:
        if name in _OF_PATCHES:
            raise UserError(
                f"{self.name} is a module of one's own, of whose patches nothing is known "
                f"({name}); methods that hide or arrange patches need a backbone of timm's by its "
                "name, such as vit_small_patch16_224"
            )
        return super().__getattr__(name)


def _as_drawn(net: nn.Module) -> bool:
    """Whether no norm has learned anything: the network is as it was made."""
    factors = [
        layer.get_parameter(name)
        for layer in net.modules()
        for name, p in layer.named_parameters(recurse=False)
        if "norm" in type(layer).__name__.lower() and p.dim() == 1
    ]
    return bool(factors) and all(bool((p == p[0]).all()) for p in factors)


def _smallest(found: Any) -> Any:
    """Of maps of several sizes, as U-Nets and detectors give them, the smallest; else as it is."""
    maps = list(found.values()) if isinstance(found, Mapping) else found
    if isinstance(found, Tensor) or not isinstance(maps, tuple | list) or len(maps) < 2:
        return found
    if not all(isinstance(m, Tensor) and m.dim() == 4 for m in maps):
        return found
    sides = [m.shape[2] * m.shape[3] for m in maps]
    return maps[sides.index(min(sides))] if len(set(sides)) == len(sides) else found


def _needed(net: nn.Module) -> list[str]:
    """What a module's forward must be given, where that is more than one thing."""
    try:
        parameters = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):  # of compiled code nothing is known
        return []
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    kinds = (*positional, inspect.Parameter.KEYWORD_ONLY)
    names = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    return names if len(names) > 1 else []


def _told(found: Any) -> str:
    """What a module gave, in words."""
    if isinstance(found, Tensor):
        return str(list(found.shape))
    if isinstance(found, Mapping):
        return f"a {type(found).__name__} of {', '.join(map(str, found))}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {', '.join(map(_told, found))}"
    return type(found).__name__


def _module(thing: Any) -> nn.Module:
    """`thing`, where it is a module that Python can look into; UserError otherwise."""
    if isinstance(thing, nn.Module) and not isinstance(thing, torch.jit.ScriptModule):
        return thing
    name = getattr(thing, "__name__", type(thing).__name__)
    what, way = f"an object ({name})", "give the module itself"
    if isinstance(thing, str | Path) and Path(thing).exists():
        what = f"the path {str(thing)!r}"
        way = f"selftaught.load({str(thing)!r}) reads an encoder from there"
    elif isinstance(thing, str):
        what = f"the name {thing!r}"
        way = f"selftaught.backbone({thing!r}, size=96) builds one of timm's"
    elif isinstance(thing, nn.Module):
        what, way = "compiled to TorchScript", "give the module that it was made of"
    elif isinstance(thing, type):
        what, way = f"the class {name}", f"give an instance, {name}(...)"
    elif callable(thing):
        what, way = f"the function {name}", f"give what it returns, {name}(...)"
    raise UserError(f"a backbone is a torch module, and this is {what}: {way}")


def encoder_of(module: Any) -> Any:
    """A module as an encoder: itself where it is one, else wrapped, with a word on what is assumed.

    What says its width itself (`dim`) is handed back as it is: a loss can be computed around it,
    whatever it takes; the engine asks for more.

    Raises:
        UserError: it is no module, or one that cannot be a backbone.
    """
    if is_encoder(module) or (hasattr(module, "dim") and not isinstance(module, type)):
        return module
    found = Wrapped(_module(module))
    log.info(
        "%s is taken as the backbone: images of %d px and %d channels, normalized with mean %s and "
        "std %s, become %d numbers; say otherwise with Wrapped(module, size=, channels=, mean=, "
        "std=)",
        found.name,
        found.size,
        found.channels,
        *([round(v, 3) for v in values] for values in (found.mean, found.std)),
        found.dim,
    )
    return found


def maker(name: str) -> Any:
    """The function `file.py:function` or `package.module:function`, imported.

    Raises:
        UserError: there is none, or its file cannot be imported.
    """
    does = "builds a module; `def function():` returns one"
    found = code.found(name, "backbone", does, "make_encoder")
    if isinstance(found, nn.Module):
        raise UserError(f"{name} is a module, and no function that {does}")
    return found


def build(name: str = "resnet50", **given: Any) -> Image | Wrapped:
    """The encoder of a name: one of timm's, or of the function that the name stands for."""
    if code.names(name):
        return made(name, **given)
    given.pop("usual", None)
    return Image(name, **given)


def made(
    name: str,
    size: Size | None = None,
    channels: int | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    sobel: bool = False,
    input: str = "colors",
    usual: Size | None = None,
    **others: Any,
) -> Wrapped:
    """The encoder that the function called `name` makes, and what its images are to be like.

    Args:
        name: see `maker`. It is called without arguments, or with `size` and `channels` where it
            has parameters of these names and they are given.
        size, channels, mean, std: as of `Wrapped`; they come before those that it says itself.
        sobel, input: as of `Image`.
        usual: size, where nobody gives one.
        others: parameters of timm's networks, which are refused unless they say nothing.
    """
    make = maker(name)
    asked = next((k for k, v in others.items() if v not in _NOTHING.get(k, (None,))), None)
    if asked:
        raise UserError(
            f"{asked} is a parameter of timm's networks, and {name} builds one of your own: leave "
            "it out, and let the function see to it"
        )
    given = {"size": size, "channels": channels}
    taken = inspect.signature(make).parameters
    try:
        net = make(**{k: v for k, v in given.items() if k in taken and v is not None})
    except Exception as error:  # any code may run here
        if out_of_memory(error):
            raise
        raise UserError(f"{name} fails ({type(error).__name__}: {error})") from error
    if not isinstance(net, nn.Module):
        raise UserError(f"{name} gives a {type(net).__name__}; it must return a torch module")
    found = net if isinstance(net, Wrapped) else Wrapped(net)
    found = Wrapped(
        found.net,
        size or (found.size if found.sized else usual),
        channels or found.channels,
        mean or (found.mean if channels in (None, found.channels) else None),
        std or (found.std if channels in (None, found.channels) else None),
        found.asked,
        found.trained,
        code.settled(name),
    )
    if sobel:
        found.see_edges()
    if input != "colors":
        found.see(input)
    return found


_NOTHING: dict[str, tuple[Any, ...]] = {
    "pretrained": (False,),
    "drop_path": (0.0,),
    "pool": ("timm",),
    "class_token": (True,),
    "positions": ("timm",),
}
"""Values of parameters of `Image` that ask for nothing; None, for those that are not here."""


@torch.no_grad()
def untrained(net: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a module with fresh weights from `seed`; the global generator is left alone.

    Layers are reset as they were made. What no layer resets (tokens, positions) is shuffled:
    nothing learned is left of it but its size.
    """
    fresh = copy.deepcopy(net)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for layer in fresh.modules():
            reset = getattr(layer, "reset_parameters", None)  # torch's name, of no common class
            if callable(reset):
                reset()
                continue
            for parameter in layer.parameters(recurse=False):
                order = torch.randperm(parameter.numel()).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return fresh
