"""Encoders as files that outlive this library: safetensors for the weights, JSON for the rest.

folder = export.save(encoder, "encoder/")     # encoder.safetensors, encoder.json
encoder = export.load("encoder/")             # or a run folder, or the .safetensors
print(export.timm_code(encoder))              # the same network without selftaught
export.convert("runs/simclr", to="onnx")      # for another library, checked in that library
"""

from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught.export.conversion import Exported as Exported
    from selftaught.export.conversion import convert as convert
    from selftaught.export.encoder import load as load
    from selftaught.export.encoder import save as save
    from selftaught.export.files import atomic as atomic
    from selftaught.export.timm import timm_code as timm_code

__all__, __getattr__ = lazily(__name__, __file__)
