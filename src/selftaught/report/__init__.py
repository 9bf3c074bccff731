"""A run folder as one page: `report.write("runs/simclr-photos")` makes its `report.html`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught.report.page import write as write

__all__ = ["write"]


def __getattr__(name: str) -> Any:
    if name != "write":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("selftaught.report.page").write
