"""Save and load encoders; what was saved has been read back and compared."""

import copy
import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from selftaught import __version__, code, kinds
from selftaught.backbones import Encoder, Image, Wrapped, untrained
from selftaught.backbones.wrapped import made
from selftaught.errors import SelftaughtError, TrainingError, UserError
from selftaught.export.facts import CONFIG, WEIGHTS, encoder_files
from selftaught.export.files import atomic
from selftaught.export.timm import plain_timm, timm_code
from selftaught.parts import lora
from selftaught.signature import current

log = logging.getLogger("selftaught")

FORMAT = 1
"""Version of `encoder.json`; raised when an older selftaught could misread a newer file."""

_PREFIXES = ("module.", "_orig_mod.", "net.", "backbone.net.", "backbone.", "encoder.", "model.")


def save(
    encoder: Encoder,
    folder: str | Path,
    *,
    force: bool = False,
    quick: bool = False,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write `encoder.safetensors` and `encoder.json` into `folder`; both whole or as they were.

    The weights have timm's own names, or those of the module that is one's own. Before they take
    their place they are loaded again, and the features of one random image compared bit by bit.

    Args:
        encoder: network to save, on any device, in any mode; it is left as it is.
        folder: made where it does not exist.
        force: whether to save weights that are not finite, for a post-mortem.
        quick: whether to leave out what takes longer than writing: the comparison, and code for
            plain timm. For weights that are still being trained.
        facts: plain values that `encoder.json` is to say, too.

    Returns:
        `folder`.

    Raises:
        TrainingError: weights are not finite, or what was written does not read back the same.
        UserError: the folder cannot be written to.
    """
    folder = Path(folder)
    network = lora.plain(encoder.get_submodule("net").state_dict())  # while it trains
    state = {k: v.detach().cpu().contiguous().clone() for k, v in network.items()}
    check_finite(state, force)
    with (
        torch.random.fork_rng(devices=[]),
        atomic(folder / CONFIG) as config,
        atomic(folder / WEIGHTS) as weights,
    ):
        kinds.of(encoder).keep(folder)  # the folder is there by now
        _write(state, weights)
        about = _describe(encoder, weights, quick) | dict(facts or {})
        if not quick:
            _verify(encoder, about, config, weights)
        config.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    return folder


def load(path: str | Path, module: nn.Module | str | None = None) -> Encoder:
    """The encoder in a run folder, in a folder of `save`, or in its `.safetensors`; on the CPU.

    Args:
        path: of the folder or the file.
        module: where the encoder is a module of one's own: that module, which gets the weights, or
            the function that builds it, as `file.py:function`. Without it the function that
            `encoder.json` names is called, where its file lies in the user's folder: code that came
            with a run is not.

    Raises:
        UserError: a file is missing, damaged, changed, of another kind or of another network.
    """
    config, weights = encoder_files(Path(path))
    about = _read_config(config)
    return _fill(_build(about, config, module), weights, about["sha256"], config)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        about = json.loads(path.read_text("utf-8"))
        version, _ = about["format"], about["sha256"]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); copy it again from its run") from error
    if version != FORMAT:
        raise UserError(
            f"{path} has format {version}, this selftaught reads format {FORMAT}; update selftaught"
        )
    return about


def _build(
    about: dict[str, Any], config: Path, module: nn.Module | str | None = None
) -> Image | Wrapped:
    """The network that `encoder.json` describes, with new weights."""
    try:
        if about.get("module"):
            return _own(about, config, module)
        kind = kinds.made(about.get("kind")).beside(config.parent)
        encoder: Any = kind.build(**current(about["encoder"]))
        encoder.mean, encoder.std = tuple(about["mean"]), tuple(about["std"])
    except (TypeError, KeyError) as error:
        raise UserError(
            f"{config} does not describe an encoder ({error}); copy it again from its run"
        ) from error
    return encoder


def _own(about: dict[str, Any], config: Path, module: nn.Module | str | None) -> Wrapped:
    """A module of one's own, as `encoder.json` describes it."""
    described = current(about["encoder"])
    name = str(described.pop("name"))
    if isinstance(module, nn.Module):
        kept = {k: described[k] for k in ("size", "channels", "mean", "std")}
        encoder = Wrapped(module, **kept)
        encoder.sobel, encoder.input = bool(described["sobel"]), str(described["input"])
        return encoder
    if module is None and code.names(name) and code.at_hand(name, config.parent):
        module = name
    if module is None:
        by = "was built in Python"
        if code.names(name):
            by = f"{name} builds, whose file is not in the folder where you are, apart from the run"
        raise UserError(
            f"the encoder in {config.parent} is a {about['module']} that {by}: build it, and give "
            f"it as in selftaught.load({str(config.parent)!r}, module); or name the function, so "
            f"that it may run: --backbone {name if code.names(name) else 'FILE.py:FUNCTION'}"
        )
    return made(module, **described)


def _fill(encoder: Image | Wrapped, weights: Path, sha256: str, config: Path) -> Encoder:
    try:
        state = load_file(weights)
    except SafetensorError as error:
        raise UserError(
            f"{weights} is not a whole safetensors file ({error}); copy it again from its run"
        ) from error
    _fit(state, encoder.net.state_dict(), weights, encoder.name)
    if _sha256(weights) != sha256:
        raise UserError(
            f"{weights} is not the file that {config} was written with: its checksum differs. "
            "Copy both again, from the same run"
        )
    encoder.net.load_state_dict(state)
    return encoder.eval()


def _fit(state: dict[str, Tensor], wanted: dict[str, Tensor], path: Path, name: str) -> None:
    """Raise UserError, with counts, examples and the likely cause, where keys or shapes differ."""
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        hint = f"it is probably another network than {name}"
        for prefix in _PREFIXES:
            if {k.removeprefix(prefix) for k in state} == wanted.keys():
                hint = f"all would fit without the prefix {prefix!r}: remove it from the names"
        raise UserError(
            f"{path} does not fit {name}: {len(missing)} of {len(wanted)} weights are missing"
            f"{_examples(missing)}, {len(extra)} are not known{_examples(extra)}; {hint}"
        )
    shapes = [
        f"{k} {list(state[k].shape)} instead of {list(v.shape)}"
        for k, v in wanted.items()
        if state[k].shape != v.shape
    ]
    if shapes:
        raise UserError(
            f"{path} does not fit {name}: {len(shapes)} of {len(wanted)} weights have another "
            f"shape{_examples(shapes)}; was it trained at another size or on other channels?"
        )


def _examples(names: list[str]) -> str:
    more = ", ..." if len(names) > 5 else ""
    return f" ({', '.join(names[:5])}{more})" if names else ""


def check_finite(state: dict[str, Tensor], force: bool) -> None:
    """Raise TrainingError where weights are not finite; with `force` a warning."""
    bad = [k for k, v in state.items() if v.is_floating_point() and not v.isfinite().all()]
    if not bad:
        return
    message = f"{len(bad)} of {len(state)} weights of the encoder are not finite{_examples(bad)}"
    if not force:
        raise TrainingError(
            f"{message}; it is not saved. Train again with a lower learning rate, or save it "
            "with force to look at it"
        )
    log.warning("%s; saved because of force", message)


def _write(state: dict[str, Tensor], path: Path) -> None:
    try:
        save_file(state, path, metadata={"format": "pt"})
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(str(error)) from error


def _describe(encoder: Encoder, weights: Path, quick: bool = False) -> dict[str, Any]:
    timms, kind = isinstance(encoder, Image), kinds.of(encoder)
    timms_own = _timm_code(encoder, weights) if isinstance(encoder, Image) and not quick else None
    return {
        "format": FORMAT,
        "selftaught": __version__,
        "encoder": encoder.config | ({"pretrained": False} if timms else {}),
        **({"module": encoder.name} if isinstance(encoder, Wrapped) else {}),
        **kind.written("kind"),
        "dim": encoder.dim,
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "timm": timms_own,
        "sha256": _sha256(weights),
    }


def _timm_code(encoder: Image, weights: Path) -> str | None:
    """Code that was seen to give the same features; None where plain timm has no such network."""
    try:
        _check_same(encoder, plain_timm(encoder).build(load_file(weights)))
    except (TypeError, RuntimeError, AssertionError, TrainingError) as error:
        why = str(error).partition("\n")[0].rstrip(":")  # torch goes on with every tensor's name
        log.warning("plain timm cannot load this %s, selftaught can (%s)", encoder.name, why)
        return None
    return timm_code(encoder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_same(encoder: Encoder, other: Encoder | nn.Module) -> None:
    """Raise TrainingError unless `other` has the features of `encoder`, bit by bit."""
    # channels last, as training may have it, adds up in another order
    layout = torch.contiguous_format
    ours = copy.deepcopy(encoder).cpu().to(memory_format=layout).eval()
    dtype = next(ours.parameters()).dtype
    with torch.inference_mode():
        x = _noise(encoder, dtype)
        module: Any = other  # torch does not say that `to` takes a layout
        wanted, found = ours(x), module.to(dtype=dtype, memory_format=layout)(x)
    if not torch.equal(found.nan_to_num(), wanted.nan_to_num()):
        raise TrainingError("its features differ after saving and loading")


def _noise(encoder: Encoder, dtype: torch.dtype) -> Tensor:
    """Two inputs at random, as the encoder takes them; whole numbers, as of words, as they are."""
    kind = kinds.of(encoder)
    blank = kind.prepare(kind.blank(2, encoder), encoder)
    return torch.rand(blank.shape).to(dtype) if blank.is_floating_point() else blank


def _verify(encoder: Encoder, about: dict[str, Any], config: Path, weights: Path) -> None:
    try:
        module = None
        if isinstance(encoder, Wrapped):  # whose function is asked again, where it has one
            module = encoder.made_by or untrained(encoder.net)
        built = _build(about, config, module)
        _check_same(encoder, _fill(built, weights, about["sha256"], config))
    except SelftaughtError as error:
        raise TrainingError(
            f"the encoder {encoder.name} was written, but {error}; nothing was kept. Was its "
            "network changed by hand after it was made?"
        ) from error
