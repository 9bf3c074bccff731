"""What `selftaught report` and `selftaught compare` run: paths and numbers in, a page out."""

from pathlib import Path

from selftaught.report.beside import Compared, compare
from selftaught.report.page import write
from selftaught.roles import Several


def report_command(
    run: str,
    *,
    data: str | None = None,
    labels: str | None = None,
    images: Several | None = None,
    device: str = "auto",
) -> Path:
    """Write a run as one page, report.html: verdict, curves, scores, and what the encoder sees.

    Args:
        run: folder of a run, finished or not.
        data: where its images are now; by default where they were in training.
        labels: CSV of path,label or name of a column; by default as in training.
        images: how many to look at; by default as many of 2000 as take a quarter of a minute.
        device: such as cpu or cuda; by default the best that the machine has.
    """
    return write(run, data, labels=labels, images=images, device=device)


def compare_command(runs: tuple[str, ...], *, out: Path = Path("compare.html")) -> Compared:
    """Set runs side by side: verdicts, scores with floors, the settings that differ, curves.

    Args:
        runs: folders of two runs or more.
        out: page to write.
    """
    return compare(runs, out)
