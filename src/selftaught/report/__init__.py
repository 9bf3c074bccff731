"""A run folder as one page: `report.write("runs/simclr-photos")` makes its `report.html`.

`report.compare(["runs/first", "runs/second"])` sets runs side by side.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selftaught.report.beside import compare as compare
    from selftaught.report.commands import compare_command as compare_command
    from selftaught.report.commands import report_command as report_command
    from selftaught.report.page import write as write

_MODULE = {
    "write": "page",
    "compare": "beside",
    "report_command": "commands",
    "compare_command": "commands",
}

__all__ = sorted(_MODULE)


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE[name]}"), name)
