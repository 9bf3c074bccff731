"""Self-supervised learning: from a folder of unlabelled images to an encoder that can be trusted.

Everything is imported on first use, so that ``import selftaught`` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("selftaught")

_HOME = {
    "backbone": "selftaught.backbones",
    "check": "selftaught.data.check",
    "embed": "selftaught.evaluate",
    "load": "selftaught.export",
    "open_data": "selftaught.data",
    "pretrain": "selftaught.engine.pretrain",
}
_ROOMS = ("augment", "backbones", "data", "evaluate", "export", "methods", "report")

__all__ = [*_HOME, *_ROOMS]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _ROOMS:
        return import_module(f"selftaught.{name}")
    raise AttributeError(f"module 'selftaught' has no attribute {name!r}")
