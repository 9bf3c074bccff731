"""What a notebook shows: one is executed, and its outputs are looked at."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from selftaught import notebook
from tests.photos import two_classes
from tests.test_door import ECHO

CELLS = [
    ECHO,
    "from selftaught import check, evaluate, pretrain\n"
    "run = pretrain(Echo, 'photos', 'run', size=32, epochs=2, batch=8, workers=1, seed=3,\n"
    "               on_record=lambda row: print('row', int(row['step'])))",
    "run",
    "run.scores",
    "check('photos', workers=0)",
]

pytestmark = pytest.mark.xdist_group("notebook")  # which is executed once, not in each process


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> list[list[Any]]:
    """Of each cell."""
    here = tmp_path_factory.mktemp("notebook")
    two_classes(here / "photos")
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    patch = pytest.MonkeyPatch()
    patch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    patch.setenv("IPYTHONDIR", str(here / "ipython"))
    NotebookClient(made, resources={"metadata": {"path": str(here)}}, timeout=120).execute()
    patch.undo()
    return [cell.outputs for cell in made.cells]


def shown(outputs: list[Any], kind: str = "text/plain") -> str:
    return "\n".join(o.data[kind] for o in outputs if "data" in o)


def test_a_method_of_a_cell_trains_and_says_what_it_does(outputs):
    said = shown(outputs[1])
    plan = "Echo with test_resnet at 32 px on 16 images, 4 steps of 8"
    told = [
        "measuring memory",
        plan,
        "the run is kept in run",
        "step 4/4",
        "By k-NN",
        "report.html",
    ]
    places = [said.index(words) for words in told]
    assert places == sorted(places)
    assert said.splitlines()[-1] == "the encoder is in run, and all about it in run/report.html"
    assert "looking at the data" in shown(outputs[1], "text/html")


def test_messages_and_progress_are_one_output_beside_what_is_printed(outputs):
    texts = [o for o in outputs[1] if "data" in o]
    assert len(texts) == 1
    printed = "".join(o.text for o in outputs[1] if o.get("name") == "stdout")
    assert "row 4" in printed
    assert not [o for o in outputs[1] if o.get("name") == "stderr"]


@pytest.mark.parametrize(
    ("cell", "holds"),
    [
        (2, ["Run run: ", "<li>", "<th>untrained</th>", 'href="run/report.html"']),
        (3, ["<th>this encoder</th>", "<td>k-NN</td>", "<td>probe</td>", "<b>"]),
        (4, ["readable", "16", "duplicates"]),
    ],
)
def test_results_are_shown_as_html(outputs, cell, holds):
    html = shown(outputs[cell], "text/html")
    for words in holds:
        assert words in html


def test_a_cell_keeps_the_last_state_of_the_line_and_escapes_what_it_shows():
    places = []

    def display(what, display_id):
        places.append(display_id)
        return SimpleNamespace(update=lambda new: None)

    cell = notebook.Cell(SimpleNamespace(display=display))
    cell.say("<a>", False)
    line = cell.line(stays=True)
    assert line is cell
    with line:
        assert cell.line(stays=False) is None  # one at a time
        line.show("step 1")
        cell.say("warning: b", True)
        assert repr(cell) == "<a>\nwarning: b\nstep 1"
        line.show("step 2")
    counting = cell.line(stays=False)
    assert counting is cell
    with counting:
        counting.show("reading 1/2")
    cell.say("end", False)
    assert repr(cell) == "<a>\nwarning: b\nstep 2\nend"
    assert "&lt;a&gt;<br><span" in cell._repr_html_()
    assert places == [True]


def test_outside_of_a_kernel_there_is_no_notebook():
    assert notebook.running() is None
    assert not Path("run").exists()
