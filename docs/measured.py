"""What benchmarks measured, as pages: all methods side by side, and dense ones judged densely."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from selftaught import methods
from selftaught.signature import module_doc

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
LEARNED = {
    "cifar10_100k": "CIFAR-10 at 32 px",
    "clothing_100k": "Phone photos of clothes",
    "cifar10": "CIFAR-10 at 32 px, a longer training",
    "clothing": "Phone photos of clothes, a longer training",
}
"""Results of `benchmarks/learn.py`."""
ELSEWHERE = {
    "bert": "[texts](../your-own-texts.md)",
    "causal_lm": "[texts](../your-own-texts.md)",
    "cpc_audio": "[sounds](../your-own-sounds.md)",
    "masked_series": "[series](../your-own-series.md)",
    "ts2vec": "[series](../your-own-series.md)",
    "temporal_order": "[clips](../your-own-clips.md)",
    "vjepa": "[clips](../your-own-clips.md)",
    "vjepa2": "[clips](../your-own-clips.md)",
    "also": "[scans](../your-own-scans.md)",
    "distill_features": "[teachers](../foundation-models.md)",
}
"""Methods of what is no image, or with a teacher, and the page that tells what they learned."""


def paper(name: str) -> str:
    """Authors and year, linked."""
    line = module_doc(methods.files()[name]).rstrip(".")
    return re.sub(r"^(.*?), (https?://\S+?)(;.*)?$", r"[\1](\2)\3", line)


def family(name: str) -> str:
    """That a method is of."""
    return methods.files()[name].parent.name


def budget(row: dict) -> int:
    """Images seen in training, as the row's command says."""
    return int(row["command"].partition("--samples ")[2].split()[0])


def side_by_side() -> str:
    """All methods at equal budget, from the results of `benchmarks/learn.py`."""
    lines = [
        "# All methods, side by side",
        "",
        "Every method trains a small network on as many images of the same data, for minutes on "
        "CPU cores: this tells methods that learn from those that do not, and is no prophecy for "
        "large networks and long trainings. Per cent right of images that were not trained on, by "
        "k-NN and by a ridge probe; a floor is the best of raw pixels and the same network "
        "untrained; the margin is that of k-NN over its floor, with its 95 % interval. Points a "
        "minute are those of the probe over its floor for a minute of one CPU core. `motion` is "
        "shown frames of clips instead of the images that it is scored on. A click on the head of "
        "a column sorts by it. This page is made from the results of `benchmarks/learn.py`.",
        "",
        "## Which one?",
        "",
    ]
    tables = {data: _equal(data) for data in LEARNED}
    lines += [answer(title, tables[data]) for data, title in LEARNED.items()]
    lines += [
        "",
        "`selftaught methods --start` tells what to type for which data; what is left out of a "
        "command is chosen for yours.",
        "",
    ]
    for data, title in LEARNED.items():
        rows = tables[data]
        lines += [
            f"## {title}",
            "",
            f"{budget(next(iter(rows.values()))):,} images seen by each.",
            "",
            "| method | family | network | k-NN | its floor | margin | probe | its floor "
            "| CPU s | points a minute |",
            "| --- | --- | --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |",
            *(measured(name, row) for name, row in rows.items()),
            "",
            unmeasured(sorted(set(methods.files()) - set(rows))),
            "",
            "Commands, with $DATA for the folder of the data sets:",
            "",
            "```",
            *(row["command"] for row in rows.values()),
            "```",
            "",
        ]
    return "\n".join(lines)


def _equal(data: str) -> dict[str, dict]:
    """Rows of the budget that most have, the best by k-NN first."""
    rows = json.loads((RESULTS / f"learn-{data}.json").read_text(encoding="utf-8"))
    budgets = [budget(row) for row in rows.values()]
    equal = max(set(budgets), key=budgets.count)
    kept = ((name, row) for name, row in rows.items() if budget(row) == equal)
    return dict(sorted(kept, key=lambda item: -item[1]["scores"]["this encoder"][0]))


def answer(title: str, rows: dict[str, dict]) -> str:
    """The best of a table, in a line; labels are not used by those that are named."""
    free = {name: row for name, row in rows.items() if name != "supcon"}
    knn = list(free)[:3]
    probe = sorted(free, key=lambda name: -free[name]["scores"]["this encoder"][1])[:3]
    fast = sorted(free, key=lambda name: -pace(free[name]))[:3]
    above = sum(row["margin"][1] > 0 for row in free.values())
    clear = f"{above} of {len(free)}" if above else f"none of {len(free)}"
    return (
        f"- {title}: most by k-NN {_told(knn)}; by the probe {_told(probe)}; most points of the "
        f"probe a minute {_told(fast)}. Clearly above the floor of k-NN: {clear}."
    )


def _told(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def pace(row: dict) -> float:
    """Points of the probe over its floor for a minute of one CPU core."""
    own, *floors = (scores[1] for scores in row["scores"].values())
    return 60 * (own - max(floors)) / row["cpu_seconds"]


def measured(name: str, row: dict) -> str:
    """A line of the table."""
    own, *floors = row["scores"].values()
    highest = [max(values) for values in zip(*floors)]
    points, low, high = row["margin"]
    margin = f"{points:+.1f} ({low:+.1f} to {high:+.1f})"
    cells = [f"`{name}`", family(name), row["backbone"], f"**{own[0]:.1f}**", f"{highest[0]:.1f}"]
    cells += [margin, f"{own[1]:.1f}", f"{highest[1]:.1f}", f"{row['cpu_seconds']:.0f}"]
    return "| " + " | ".join([*cells, f"{pace(row):+.1f}"]) + " |"


def unmeasured(names: list[str]) -> str:
    """What there is no result of, and where there is one."""
    not_here = [f"`{n}`" for n in names if n not in ELSEWHERE]
    elsewhere = [f"`{n}` ({ELSEWHERE[n]})" for n in names if n in ELSEWHERE]
    parts = {"Not measured at this budget": not_here, "Of other data": elsewhere}
    return " ".join(f"{words}: {', '.join(of)}." for words, of in parts.items() if of)


def densely() -> str:
    """What `benchmarks/dense.py` found, one data set after the other."""
    lines = [
        "# Dense methods, judged densely",
        "",
        "Methods that compare cells are for tasks that need places, so they are judged by "
        "segmentation, beside the same network untrained and beside colors and places alone. "
        "Made from the results of `benchmarks/dense.py`.",
        "",
    ]
    for file in sorted(RESULTS.glob("dense-*.md")):
        lines.append(re.sub(r"^# ", "## ", file.read_text(encoding="utf-8")))
    return "\n".join(lines)
