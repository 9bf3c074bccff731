"""Encoders as files that outlive this library: safetensors for the weights, JSON for the rest.

folder = export.save(encoder, "encoder/")     # encoder.safetensors, encoder.json
encoder = export.load("encoder/")             # or a run folder, or the .safetensors
print(export.timm_code(encoder))              # the same network without selftaught
export.convert("runs/simclr", to="onnx")      # for another library, checked in that library
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught.export.conversion import Exported as Exported
    from selftaught.export.conversion import convert as convert
    from selftaught.export.encoder import load as load
    from selftaught.export.encoder import save as save
    from selftaught.export.files import atomic as atomic
    from selftaught.export.timm import timm_code as timm_code

_MODULE = {
    **dict.fromkeys(("Exported", "convert"), "conversion"),
    **dict.fromkeys(("load", "save"), "encoder"),
    "atomic": "files",
    "timm_code": "timm",
}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
