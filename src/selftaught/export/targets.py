"""The libraries that encoders are exported to: how each one's files are written and read back."""

import copy
import json
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from selftaught import augment, kinds
from selftaught.backbones import Encoder, Image, Wrapped, outputs, untrained
from selftaught.backbones.image.create import channels_first
from selftaught.backbones.text.encoder import Text
from selftaught.errors import UserError
from selftaught.export import encoder as plain
from selftaught.export import text
from selftaught.export.quiet import quiet
from selftaught.export.timm import plain_timm
from selftaught.sides import both, told_size

Features = dict[str, Tensor]
"""pooled: [B, D]; local: [B, N, L], where there are features of places."""

PREPROCESSING = "preprocessing.json"
ONNX, PT2, HUB = "encoder.onnx", "encoder.pt2", "model.safetensors"
_PROTOBUF = 1.5 * 2**30
"""Bytes of weights above which they lie beside the ONNX file: protobuf ends at 2 GiB."""

_WIDE = 0.1
"""Share of the weights that a file in 16 bits keeps in 32."""


@dataclass(frozen=True)
class Target:
    """A library to export to.

    library: its name. write: files into a folder, given encoder, folder and whether in 16 bits.
    read: the files as a function of normalized images, run by the library alone.
    """

    library: str
    write: Callable[[Encoder, Path, bool], None]
    read: Callable[[Path, Encoder], Callable[[Tensor], Features]]


def first_words(error: BaseException) -> str:
    """What another library says, or what made it fail, short enough for a sentence."""
    error = error.__cause__ or error
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _weights(encoder: Encoder) -> dict[str, Tensor]:
    return encoder.get_submodule("net").state_dict()


def preprocessing(encoder: Encoder) -> dict[str, Any]:
    """What is done to an image before the network sees it, and what comes out."""
    kind, local = kinds.of(encoder), encoder.local_dim if encoder.has_local else None
    if not kind.photos:
        made = {"pooled": encoder.dim, "local": local}
        return kind.config | {"size": encoder.size, "channels": encoder.channels} | made
    view = augment.plain(encoder.size)
    return {
        **view.told,
        "interpolation": "bilinear, antialiased",
        "crop": "center",
        "channels": encoder.channels,
        "range": [0, 1],
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "pooled": encoder.dim,
        "local": local,
    }


# timm and transformers ---------------------------------------------------------------------------


def _write_timm(encoder: Encoder, folder: Path, fp16: bool) -> None:
    if isinstance(encoder, Text):
        raise UserError(f"timm has no networks for texts, as {encoder.name} is: export it --to hf")
    _write_hub(encoder, folder, fp16)


def _write_hub(encoder: Encoder, folder: Path, fp16: bool) -> None:
    """One folder for timm and transformers: their config.json, and weights of timm's names."""
    if isinstance(encoder, Text):
        text.write(encoder, folder, fp16)
        return
    if not isinstance(encoder, Image):
        raise _no_such(encoder, f"{encoder.name} is a module of one's own")
    config = _hub_config(encoder)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    state = {k: v.contiguous() for k, v in _weights(encoder).items()}
    save_file(state, folder / HUB, metadata={"format": "pt"})


def _hub_config(encoder: Image) -> dict[str, Any]:
    """Nothing of timm's own entry is kept but names of layers: the weights are other ones."""
    found = plain_timm(encoder)
    if encoder.sobel or encoder.input != "colors" or found.changes:
        why = f"has a stem adapted to {told_size(encoder.size)} px"
        if encoder.sobel or encoder.input != "colors":
            why = f"sees {'edges' if encoder.sobel else encoder.input}"
        raise _no_such(encoder, f"this {encoder.name} {why}")
    try:
        with torch.device("meta"):
            timm.create_model(found.name, **found.options).load_state_dict(
                _weights(encoder), assign=True
            )
    except (RuntimeError, TypeError) as error:
        raise _no_such(encoder, first_words(error)) from error
    # transformers gives num_classes itself, and fails if it stands in model_args as well
    options = {k: v for k, v in found.options.items() if k != "num_classes"}
    view = augment.plain(encoder.size)
    theirs = cast(Any, encoder.net).pretrained_cfg
    pretrained = {
        "input_size": [encoder.channels, *both(encoder.size)],
        "fixed_input_size": "img_size" in options and "dynamic_img_size" not in options,
        "interpolation": "bilinear",
        "crop_pct": _crop_share(view),
        "crop_mode": "center",
        "mean": list(encoder.mean),
        "std": list(encoder.std),
        "num_classes": 0,
        "classifier": theirs.get("classifier"),
    }
    if encoder.channels == 3:  # older timm would adapt it, from 3 channels that it does not have
        pretrained["first_conv"] = theirs.get("first_conv")
    return {
        "architecture": encoder.name,
        "num_classes": 0,
        "num_features": encoder.local_dim,
        "model_args": options,
        "pretrained_cfg": pretrained,
    }


def _no_such(encoder: Encoder, why: str) -> UserError:
    return UserError(
        f"timm has no such network ({why}), nor has transformers, which builds it with timm; "
        "export it --to onnx, torch-export or safetensors"
    )


def _crop_share(view: augment.Plain) -> float:
    """size / resize, from which timm's floor(size / share) finds `resize` again.

    Of a rectangle it is that of the shorter side.
    """
    size, resize = min(zip(both(view.size), both(view.resize)))
    share = size / resize
    while math.floor(size / share) < resize:
        share = math.nextafter(share, 0)
    return share


def _read_timm(folder: Path, encoder: Encoder) -> Callable[[Tensor], Features]:
    net: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    data = timm.data.resolve_model_data_config(net)
    _check_processing(data, encoder)
    return lambda x: {"pooled": net(x), "local": _cells(net.forward_features(x), encoder)}


def _read_hf(folder: Path, encoder: Encoder) -> Callable[[Tensor], Features]:
    import transformers

    if isinstance(encoder, Text):
        return text.read(folder, encoder)

    with quiet():
        net = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    _check_processing(processor.data_config, encoder)

    def read(x: Tensor) -> Features:
        found = net(pixel_values=x)
        return {"pooled": found.pooler_output, "local": _cells(found.last_hidden_state, encoder)}

    return read


def _check_processing(found: dict[str, Any], encoder: Encoder) -> None:
    """Raise ValueError unless timm's description of the images is the encoder's."""
    view = augment.plain(encoder.size)
    wanted = {
        "input_size": (encoder.channels, *both(encoder.size)),
        "mean": tuple(encoder.mean),
        "std": tuple(encoder.std),
        "interpolation": "bilinear",
        "crop_pct": _crop_share(view),
        "crop_mode": "center",
    }
    for name, value in wanted.items():
        other = found[name]
        if (tuple(other) if isinstance(other, list) else other) != value:
            raise ValueError(f"{name} of images is {other} instead of {value}")


def _cells(maps: Tensor, encoder: Encoder) -> Tensor:
    """[B, N, L] from feature maps, or from tokens of which the first are no cells."""
    if maps.dim() == 4:
        return channels_first(maps, encoder.local_dim).flatten(2).mT
    return maps[:, cast(Any, encoder).net.num_prefix_tokens :]


# graphs ------------------------------------------------------------------------------------------


class _Outputs(nn.Module):
    """The encoder as a graph: both kinds of features, by name."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = copy.deepcopy(encoder).eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Features:
        return outputs(self.encoder, image)


def _example(encoder: Encoder) -> tuple[Tensor]:
    kind = kinds.of(encoder)
    return (kind.prepare(kind.blank(2, encoder), encoder),)


@contextmanager
def _told(encoder: Encoder, library: str) -> Iterator[None]:
    """A block whose errors say that the network is not one for graphs."""
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of the exporter's own deprecations
            yield
    except Exception as error:  # hundreds of kinds, by whatever the network does
        raise UserError(
            f"{library} cannot express this {encoder.name} ({first_words(error)}); export it --to "
            "safetensors, or train another backbone"
        ) from error


def _write_onnx(encoder: Encoder, folder: Path, fp16: bool) -> None:
    batch = {"image": {0: torch.export.Dim("batch")}}
    with _told(encoder, "ONNX"):
        program = torch.onnx.export(
            _Outputs(encoder),
            _example(encoder),
            dynamo=True,
            input_names=["image"],
            output_names=["pooled", "local"][: 1 + encoder.has_local],
            dynamic_shapes=batch,
            verbose=False,
        )
    assert program is not None  # of an exporter without a file to write
    if fp16:
        _halve(program.model)
    program.model.metadata_props["selftaught"] = json.dumps(preprocessing(encoder))
    size = sum(p.numel() * p.element_size() for p in _weights(encoder).values())
    program.save(folder / ONNX, external_data=size > _PROTOBUF)
    _write_preprocessing(encoder, folder)


def _halve(model: Any) -> None:
    """Store weights in 16 bits, which runtimes widen when they load them.

    The narrowest layers, a tenth of the weights, stay in 32 bits: most of the rounding error is
    theirs (a trained test_resnet: 3.0e-3 with them rounded, 6.5e-4 without). Computing in 16 bits
    as well would cost a ViT another 2e-3.
    """
    import onnx_ir as ir

    values = [v for v in model.graph.initializers.values() if v.dtype == ir.DataType.FLOAT]
    values.sort(key=lambda v: v.const_value.size)
    done, total = 0, sum(v.const_value.size for v in values)
    for value in values:
        done += value.const_value.size
        if len(value.shape) > 1 and done > _WIDE * total:
            del model.graph.initializers[value.name]
            half = ir.Tensor(value.const_value.numpy().astype("float16"), name=f"{value.name}.half")
            stored = ir.Value(
                name=half.name, shape=value.shape, type=ir.TensorType(half.dtype), const_value=half
            )
            model.graph.register_initializer(stored)
            to = [ir.AttrInt64("to", ir.DataType.FLOAT)]
            value.const_value = None
            widen = ir.Node("", "Cast", [stored], to, outputs=[value])
            model.graph.insert_before(model.graph[0], widen)


def _read_onnx(folder: Path, encoder: Encoder) -> Callable[[Tensor], Features]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def read(x: Tensor) -> Features:
        found = session.run(names, {"image": x.numpy()})
        return {name: torch.from_numpy(value) for name, value in zip(names, found, strict=True)}

    return read


def _write_pt2(encoder: Encoder, folder: Path, fp16: bool) -> None:
    batch = {"image": {0: torch.export.Dim("batch")}}
    with _told(encoder, "torch.export"):
        program = torch.export.export(_Outputs(encoder), _example(encoder), dynamic_shapes=batch)
        about = {PREPROCESSING: json.dumps(preprocessing(encoder))}
        torch.export.save(program, folder / PT2, extra_files=about)
    _write_preprocessing(encoder, folder)


def _read_pt2(folder: Path, encoder: Encoder) -> Callable[[Tensor], Features]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.load(folder / PT2).module()


def _write_preprocessing(encoder: Encoder, folder: Path) -> None:
    content = json.dumps(preprocessing(encoder), indent=2) + "\n"
    (folder / PREPROCESSING).write_text(content, "utf-8")


# our own files -----------------------------------------------------------------------------------


def _write_safetensors(encoder: Encoder, folder: Path, fp16: bool) -> None:
    plain.save(encoder, folder, force=True)  # whether it is finite was asked before
    _write_preprocessing(encoder, folder)


def _read_safetensors(folder: Path, encoder: Encoder) -> Callable[[Tensor], Features]:
    module = encoder.made_by or untrained(encoder.net) if isinstance(encoder, Wrapped) else None
    found = plain.load(folder, module)
    weights = load_file(folder / plain.WEIGHTS)
    if not all(v.equal(weights[k]) or v.isnan().any() for k, v in _weights(encoder).items()):
        raise ValueError("other weights")

    return lambda x: outputs(found, x)


TARGETS = {
    "timm": Target("timm", _write_timm, _read_timm),
    "hf": Target("transformers", _write_hub, _read_hf),
    "onnx": Target("onnxruntime", _write_onnx, _read_onnx),
    "safetensors": Target("safetensors", _write_safetensors, _read_safetensors),
    "torch-export": Target("torch.export", _write_pt2, _read_pt2),
}
