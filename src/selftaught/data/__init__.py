"""Reading samples: folders, list files, Parquet, Hugging Face data, tar shards, arrays, objects.

Nothing heavy is imported before a name is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught.data.image.decode import MAX_PIXELS, BadSample, Header, inspect
    from selftaught.data.opening import open_data
    from selftaught.data.source import Samples, Skipped

_HOMES = {
    "MAX_PIXELS": "image.decode",
    "BadSample": "image.decode",
    "Header": "image.decode",
    "Skipped": "source",
    "Samples": "source",
    "inspect": "image.decode",
    "open_data": "opening",
}

__all__ = ["MAX_PIXELS", "BadSample", "Header", "Samples", "Skipped", "inspect", "open_data"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
