"""Self-supervised learning: from a folder of unlabeled images to an encoder that can be trusted.

Everything is imported on first use, so that ``import selftaught`` costs nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught import (
        augment,
        backbones,
        data,
        dist,
        errors,
        evaluate,
        export,
        masks,
        method,
        methods,
        objectives,
        parts,
        report,
        roles,
        schedule,
        search,
    )
    from selftaught.backbones import backbone
    from selftaught.data import open_data
    from selftaught.data.check import check
    from selftaught.engine.pretrain import pretrain
    from selftaught.evaluate import embed
    from selftaught.export import load

__version__ = version("selftaught")

_HOME = {
    "backbone": "selftaught.backbones",
    "check": "selftaught.data.check",
    "embed": "selftaught.evaluate",
    "load": "selftaught.export",
    "open_data": "selftaught.data",
    "pretrain": "selftaught.engine.pretrain",
}

__all__ = [
    "augment",
    "backbone",
    "backbones",
    "check",
    "data",
    "dist",
    "embed",
    "errors",
    "evaluate",
    "export",
    "load",
    "masks",
    "method",
    "methods",
    "objectives",
    "open_data",
    "parts",
    "pretrain",
    "report",
    "roles",
    "schedule",
    "search",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in __all__:
        return import_module(f"selftaught.{name}")
    raise AttributeError(f"module 'selftaught' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
