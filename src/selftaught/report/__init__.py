"""A run folder as one page: `report.write("runs/simclr-photos")` makes its `report.html`.

`report.compare(["runs/first", "runs/second"])` sets runs side by side.
"""

from typing import TYPE_CHECKING

from selftaught.lazily import lazily

if TYPE_CHECKING:
    from selftaught.report.beside import compare as compare
    from selftaught.report.commands import compare_command as compare_command
    from selftaught.report.commands import report_command as report_command
    from selftaught.report.page import write as write

__all__, __getattr__ = lazily(__name__, __file__)
