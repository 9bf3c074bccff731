"""What `selftaught weights` runs: what a file of weights is, and which command takes it."""

import logging
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from selftaught import timm_names
from selftaught.backbones.weights.header import Header, Shape, code_of, header, shards
from selftaught.backbones.weights.networks import backbones, likeliest
from selftaught.backbones.weights.normalization import Normalization, beside, content
from selftaught.backbones.weights.places import ENCODER, located
from selftaught.backbones.weights.prefixes import rank
from selftaught.backbones.weights.values import lost
from selftaught.backbones.weights.whose import as_timm_has_it, whose
from selftaught.errors import UserError

log = logging.getLogger("selftaught")

METHOD = "simclr"
"""Of the command that is shown."""


@dataclass(frozen=True)
class Told:
    """What a file of weights is.

    Args:
        file: that was looked at.
        author: whose weights they are, in words.
        network: timm's name; empty where none of the list has such weights.
        tensors, numbers: of the encoder.
        prefix: what comes before its names.
        others: first parts of the names of what else there is, and how many tensors each has.
        normalization: where something beside the file says it.
        assumed: else, in words.
        looks: what is to be looked at, sentences.
        commands: that take it.
    """

    file: Path
    author: str
    network: str
    tensors: int
    numbers: int
    prefix: str
    others: dict[str, int]
    normalization: Normalization | None
    assumed: str
    looks: tuple[str, ...]
    commands: tuple[str, ...]

    def __str__(self) -> str:
        under = f", under {self.prefix}" if self.prefix else ""
        rows = {
            "whose": self.author,
            "network": self.network or "none that is known by its size",
            "encoder": f"{self.tensors} tensors, {self.numbers / 1e6:.1f} million numbers{under}",
            "besides": ", ".join(f"{n} ({c})" for n, c in self.others.items()) or "nothing",
            "normalization": f"nothing beside the file says it; {self.assumed} is assumed, and "
            "--mean and --std say otherwise",
        }
        if about := self.normalization:
            values = (", ".join(f"{v:g}" for v in part) for part in (about.mean, about.std))
            rows["normalization"] = "mean {}, std {} ({})".format(*values, about.where)
        lines = [str(self.file), *(f"  {name:<15}{text}" for name, text in rows.items())]
        lines += [f"  look out: {look}" for look in self.looks]
        return "\n".join([*lines, "  What takes it:", *(f"    {c}" for c in self.commands)])


def weights_command(file: str) -> Told:
    """Tell what a file of weights is: whose, which network, what else, and what takes it.

    Args:
        file: of any library; a folder of transformers or timm, a run folder, or a name of a hub.
    """
    path = located(file)
    if path.name.endswith(".index.json"):
        parts = [header(shard) for shard in shards(path)]
        found = Header({k: v for part in parts for k, v in part.tensors.items()})
    else:
        found = header(path)
    own, layout, prefix = likeliest(found.tensors)
    names = backbones(own, layout)
    inside = {n: t for n, t in found.tensors.items() if n.startswith(prefix)}
    refused = [
        *_code(found),
        *_values(*(lost(path, inside) if path.suffix != ".json" else ([], []))),
    ]
    quoted = shlex.quote(file)
    if path.name == ENCODER:
        network = str(content(path.parent / "encoder.json").get("encoder", {}).get("name", ""))
        commands = [
            f"selftaught pretrain {METHOD} photos/ --start {quoted}",
            f"selftaught evaluate {quoted} labeled/",
        ]
    else:
        network = _written(path) or (names[0] if names else "")
        named = "" if network else " --backbone NAME"
        commands = [f"selftaught pretrain {METHOD} photos/ --weights {quoted}{named}"]
    if (path.parent.parent / "run.yaml").is_file() and path.parent.name == "checkpoints":
        run = shlex.quote(str(path.parent.parent))
        commands = [f"selftaught pretrain {METHOD} photos/ --start {run}"]
    usual = "torchvision and timm" if "conv1.weight" in own else "timm"
    author = whose(list(found.tensors), layout.library if layout else usual)
    if not own:
        author, commands = "nobody's that is known", ["nothing: it holds no network of images"]
    elif refused:
        commands = ["nothing: the file is refused"]
    return Told(
        path,
        author,
        network,
        len(own),
        sum(t.count for t in own.values()),
        prefix,
        _others(found.tensors, own, prefix),
        beside(path),
        f"that of timm's {network}" if as_timm_has_it(author, layout) else "ImageNet's",
        (*_looks(found, own, network, names), *_twins(found.tensors, prefix), *refused),
        tuple(commands),
    )


def network_of(weights: str | Path) -> str:
    """The backbone that weights are of, where none was named; it is told.

    Raises:
        UserError: they are no weights, or of a network that is not told by its size.
    """
    found = weights_command(str(weights))
    if not found.network:
        raise UserError(
            f"{found.file} does not tell of which network it is ({found.author}; {found.tensors} "
            f"tensors, {found.numbers / 1e6:.1f} million numbers): name it with --backbone"
        )
    log.info("%s is of a %s, which is taken as the backbone", found.file, found.network)
    return found.network


def _others(tensors: dict[str, Shape], own: dict[str, Shape], prefix: str) -> dict[str, int]:
    """First parts of the names that are no part of the encoder, and how many tensors each has."""
    inside = Counter(
        name[len(prefix) :].split(".")[0] if name.startswith(prefix) else name.split(".")[0] + "."
        for name in tensors
    )
    ours = Counter(name.split(".")[0] for name in own)
    left = {name: count - ours.get(name, 0) for name, count in inside.items()}
    # names of another library count as its own where as many are left as were carried
    surplus = sum(left.values()) - (len(tensors) - len(own))
    return {n: c for n, c in left.items() if c > 0 and not (surplus and n in _BODY)}


_BODY = {"embeddings", "encoder", "layer", "layers", "layernorm", "layer_norm", "features", "norm"}
_BODY |= {"embedder", "downsample_layers", "stages", "model", "class_token", "conv_proj"}
_BODY |= {"_conv_stem", "_bn0", "_blocks", "_conv_head", "_bn1"}


def _written(weights: Path) -> str:
    """The network that timm's settings beside weights name; empty where none do."""
    if not weights.name.startswith(("model.", "pytorch_model.")):
        return ""
    name = content(weights.parent / "config.json").get("architecture")
    return name if isinstance(name, str) and name in timm_names.known()[1] else ""


def _twins(tensors: dict[str, Shape], prefix: str) -> list[str]:
    """Whether another network of a file has as much claim to be the encoder."""
    names = [name[len(prefix) :] for name in tensors if name.startswith(prefix)]
    places = (n.removesuffix(names[0]) for n in tensors if names and n.endswith(f".{names[0]}"))
    alike = [p for p in places if p != prefix and all(f"{p}{name}" in tensors for name in names)]
    return [
        f"there is as much under {other}: where the two differ the file is refused, so save the "
        "state dict of the one that is meant"
        for other in alike
        if rank(other) == rank(prefix)
    ]


def _code(found: Header) -> list[str]:
    """What of a pickle is no settings."""
    code = code_of(found.objects)
    return [
        f"it names code ({', '.join(code[:3])}), which nothing here runs, and the file is refused: "
        "save the state dict alone"
    ][: len(code)]


def _values(broken: list[str], zeros: list[str]) -> list[str]:
    looks = []
    if broken:
        looks.append(
            f"{len(broken)} tensors hold values that are no numbers ({', '.join(broken[:3])}): "
            "that training had failed, and the file is refused"
        )
    if zeros:
        looks.append(f"its positions are all zeros ({zeros[0]}), and the file is refused")
    return looks


def _looks(found: Header, own: dict[str, Shape], network: str, names: list[str]) -> list[str]:
    """What of a file is to be looked at."""
    looks = []
    if found.objects and not code_of(found.objects):
        listed = ", ".join(sorted(found.objects)[-3:])
        looks.append(f"it names objects of settings ({listed}), which are passed over")
    first = next((t for n, t in own.items() if len(t.shape) in (4, 5)), None)
    if first is not None and len(first.shape) == 5:
        looks.append("its first layer is of clips; selftaught.backbones.ClipEncoder takes V-JEPA's")
    elif first is not None and first.shape[1] not in (1, 3):
        looks.append(
            f"its first layer is of {first.shape[1]} channels: --channels {first.shape[1]}"
        )
    kinds = {t.kind for t in own.values() if t.count > 1}
    if half := kinds & {"Half", "BFloat16", "F16", "BF16"}:
        looks.append(f"its numbers are rounded to 16 bits ({', '.join(sorted(half))})")
    if own and not network:
        looks.append("no network of timm's that is listed has as many numbers: name it yourself")
    if network in names[:1] and names[1:]:
        looks.append(f"{' and '.join(names[1:4])} would take it, too")
    return looks
