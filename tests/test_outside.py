"""What comes from outside: names that a terminal would obey, strangers' files, ends of pipes."""

import contextlib
import csv
import io
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.table import Table

import selftaught
from selftaught import voice
from selftaught.cli import main
from selftaught.curate.fetch.lists import listed
from selftaught.data import opening, quarantine
from selftaught.data.quarantine import Bad
from selftaught.engine.progress import Progress
from selftaught.errors import SelftaughtError
from selftaught.printable import cell, from_cell, lines, printable, row
from selftaught.terminal import Moving, Terminal, standard_error
from tests.test_faults import TARGET, words
from tests.test_folder import finished, images, run  # noqa: F401  fixtures

EVIL = ["=cmd|' /C calc'!A0", "+1", "-1", "@sum", "\t=1", "\r=1", "\x1b[2J", "\u202egnp", "a\nb"]
EVIL += [
    "\x9b31m",
    "＝1",
    "\u2028x",
    "x\x00",
    "'=1",
    "'",
    "\\x1b",
    " =1",
    "a;=1",
    '"',
    "\U000e0041",
]
FINE = ["grün.png", "写真.png", "👩‍🚀.png", "می‌خواهم", "a b", "C:\\new.png", "it's", "", "[red]"]


# texts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", EVIL)
def test_nothing_that_a_terminal_obeys_is_shown(text):
    assert not any(ord(c) < 32 or ord(c) in (127, 0x9B, 0x202E, 0x2028) for c in printable(text))


@pytest.mark.parametrize("text", FINE)
def test_what_people_write_stays(text):
    assert printable(text) == text
    assert cell(text) == text


def test_a_name_cannot_pass_for_a_message():
    assert lines("x\nerror: y") == "x\n  error: y"
    assert lines("first:\n  a\n  b") == "first:\n  a\n  b"
    assert lines("x\r\x1b[1Ay") == "x\\r\\x1b[1Ay"


@given(st.text() | st.text("'=\\nx01abu\x1b\r \u202e;\"", max_size=9))
def test_cells_are_read_as_they_were(text):
    text = text.encode("utf-8", "replace").decode()
    written = cell(text)
    assert from_cell(written) == text
    assert not written.lstrip().startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert printable(written) == written
    assert next(csv.reader(io.StringIO(row([text, "b"])))) == [written, "b"]


@pytest.mark.parametrize("written", ["'tis.png", "'quoted'", "=1", "a\\x1bb"])
def test_cells_that_somebody_else_wrote_stay(written):
    assert from_cell(written) == written


def test_a_quarantine_list_of_evil_names_is_read_as_it_was(tmp_path):
    before = csv.field_size_limit()
    long = tmp_path / "long.csv"
    long.write_text("url,text\n" + 2 * f"http://w.test/a.png,{'x' * 200_000}\n")
    half_read = listed(long, None)
    assert len(next(half_read).text) == 200_000
    bad = {name: Bad(f"why {name}", i) for i, name in enumerate([*EVIL, *FINE, "\udcff\x1b"])}
    path = tmp_path / quarantine.FILE
    quarantine.save(path, bad)
    assert quarantine.load(path) == bad
    assert len(path.read_bytes().splitlines()) == 1 + len(bad)
    path.write_text("path,reason,first_step\n" + "x" * 200_000 + ",y,\n")
    with pytest.raises(SelftaughtError, match="is no quarantine list"):
        quarantine.load(path)
    path.write_text("path,reason,first_step\nx,y," + "9" * 5000 + "\n")
    assert quarantine.load(path) == {"x": Bad("y")}
    assert len(list(half_read)) == 1
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("text", [*EVIL, "[red]x[/]", "[/nothing]", ":smile:"])
def test_tables_show_texts_as_they_are(text):
    shown = io.StringIO()
    table = Table("name")
    table.add_row(text)
    console = Terminal(file=shown, width=200, force_terminal=True)
    console.print(table)
    console.print(text)
    left = shown.getvalue().replace("\x1b[1m", "").replace("\x1b[0m", "")
    assert printable(left, "\n") == left
    if text[0] in "[:":
        assert left.count(text) == 2


def test_messages_show_names_as_text(tmp_path, capsys):
    folder = tmp_path / "data"
    for name in ("=a\x1b[31m", "[red]\u202eb\nerror: forged"):
        (folder / name).mkdir(parents=True)
        for i in range(8):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
        (folder / name / "=x\x1b]0;y\x07\nerror: z.png").write_bytes(b"none")
    out = tmp_path / "run"
    command = words(TARGET, folder, out, "--epochs", "2", "--workers", "0")
    listed = str(tmp_path / "checked" / quarantine.FILE)
    for arguments, code in (
        (["check", str(folder), "--out", str(tmp_path / "checked"), "--workers", "0"], 0),
        ([*command, "--max-bad", "0"], 3),
        ([*command, "--max-bad", "0.5", "--overwrite"], 0),
        ([*command, "--quarantine", listed, "--out", str(tmp_path / "other")], 0),
        (["evaluate", str(out), str(folder), "--workers", "0"], 0),
        (["report", str(out)], 0),
        (["evaluate", str(out), str(folder / "\x1bgone\nerror: x")], 2),
    ):
        assert main(arguments) == code
        said = "".join(capsys.readouterr())
        assert printable(said, "\n") == said, arguments
        assert not any(line.startswith("error: forged") for line in said.splitlines())
    assert not (tmp_path / "other" / quarantine.FILE).exists()  # they were left out by name


# ends of pipes, full disks ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    ["--help", "--version", "methods", "methods --json", "methods mae", "pretrain --help"],
)
def test_output_that_cannot_be_written_is_told(command):
    done = subprocess.run(
        f"{sys.executable} -m selftaught {command} > /dev/full",
        shell=True,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "standard output cannot be written (No space left on device)" in done.stderr


def test_tables_that_cannot_be_written_are_told(run, images):  # noqa: F811
    evaluate = ["evaluate", run, images, "--probes", "knn", "--workers", "0"]
    for command in (["check", images, "--workers", "0"], evaluate):
        for end, codes in (
            ("> /dev/full", (1,)),
            ("| head -c 1 > /dev/null; exit ${PIPESTATUS[0]}", (0, 141)),
        ):
            line = " ".join([sys.executable, "-m", "selftaught", *map(str, command), end])
            done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, cwd=run)
            assert done.returncode in codes, done.stderr
            assert "Traceback" not in done.stderr
            assert "Exception ignored" not in done.stderr


def test_errors_that_nobody_can_read_keep_their_code():
    done = subprocess.run(f"{sys.executable} -m selftaught none 2> /dev/full", shell=True)
    assert done.returncode == 2


# strangers' files ---------------------------------------------------------------------------------

DEEP = b"[" * 100_000
STRANGERS = {
    "not text": b"\xff\xfe\x00\x9b" * 50,
    "deep": DEEP,
    "deep mapping": b'{"a":' * 100_000,
    "list": b"[1, 2]",
    "number": b"9" * 5000,
    "empty": b"",
    "folder": None,
}
FILES = (
    "run.yaml",
    "metrics.csv",
    "diagnosis.json",
    "encoder.json",
    "encoder.safetensors",
    "scores.json",
    "evaluated.json",
    "views.npz",
    "bad_files.csv",
    "report.html",
    "checkpoints",
    "checkpoints/finished",
)


@pytest.mark.parametrize("kind", STRANGERS)
def test_strangers_in_a_run_folder_are_answered_in_words(kind, run, images, tmp_path, capsys):  # noqa: F811
    content = STRANGERS[kind]
    resume = words(TARGET, images, run, "--epochs", "1", "--workers", "0", "--resume")
    resume += ["--no-evaluate"]  # which reads none of these files
    for name in FILES:
        path, kept = run / name, tmp_path / "kept"
        if path.exists():
            shutil.move(path, kept)
        path.mkdir(parents=True) if content is None else path.write_bytes(content)
        commands = [["report", str(run), "--images", "4"], resume]
        commands += [["compare", str(run), str(run / ".." / "other")]] if name == "run.yaml" else []
        if name.startswith(("encoder", "run", "scores", "diagnosis")):
            export = ["export", str(run), "--to", "safetensors", "--out"]
            commands += [[*export, str(tmp_path / f"e-{name}")]]
            commands += [["evaluate", str(run), str(images), "--workers", "0", "--probes", "knn"]]
            with contextlib.suppress(SelftaughtError):
                selftaught.load(run)
        for command in commands:
            code = main(command)
            said = capsys.readouterr().err
            assert code in (0, 1, 2), (name, command, said)
            assert all(len(line) < 2000 for line in said.splitlines()), (name, command, said)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        if kept.exists():
            shutil.move(kept, path)


def test_metrics_of_somebody_else_do_not_end_a_run(run, images, caplog):  # noqa: F811
    whole = (run / "metrics.csv").read_bytes()
    (run / "metrics.csv").write_bytes(whole + b"\xff\xfe,\n1,2\nx,y,z\n\x00\x00\n")
    command = words(TARGET, images, run, "--epochs", "2", "--workers", "0", "--resume")
    assert main(command) == 0
    assert "are no whole rows and go" in caplog.text
    assert (run / "metrics.csv").read_bytes().startswith(whole.splitlines()[0])


def test_a_data_folder_that_cannot_be_listed_is_told(run, tmp_path, monkeypatch, capsys):  # noqa: F811
    real = os.scandir

    def refuse(path="."):
        if "secret" in str(path):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    (tmp_path / "secret").mkdir()
    monkeypatch.setattr(os, "scandir", refuse)
    for command in (
        ["check", str(tmp_path / "secret"), "--out", str(tmp_path / "c")],
        words(TARGET, tmp_path / "secret", tmp_path / "run"),
        ["embed", str(run), str(tmp_path / "secret")],
    ):
        assert main(command) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert "cannot be listed: check its permissions" in said


# the line of a training ---------------------------------------------------------------------------


def progress(peak: float = 0.0) -> Progress:
    made = Progress(123_456, 1234, 256, (1e12, peak))
    for _ in range(3):
        made.advance(0.01)
    return made


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
@pytest.mark.parametrize("peak", [0.0, 1e15])
def test_the_line_of_a_training_is_one_line(width, peak):
    line = progress(peak).line(99_999, 12.3456, width)
    assert len(line) <= width
    assert "loss 12.3456" in line
    assert ("step 99999/123456" in line) == (width >= 40)


@pytest.fixture
def screen(monkeypatch):
    """A terminal of 80 columns on which a command speaks; what was written to it."""
    shown = io.StringIO()
    console = Terminal(file=shown, width=80, force_terminal=True, soft_wrap=True)
    monkeypatch.setattr("selftaught.terminal.standard_error", lambda: console)
    monkeypatch.setenv("TERM", "xterm-256color")
    logger = logging.getLogger("selftaught")
    before = logger.handlers, logger.level
    voice.command_speaks()
    yield shown
    logger.handlers = before[0]
    logger.setLevel(before[1])


def rows(text: str, width: int = 80) -> list[str]:
    """What a terminal of that many columns holds at the end."""
    held, at, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[?0-9;]*[a-zA-Z]|.|\n", re.sub(r"\x1b\[[0-9;]*m", "", text)):
        if part == "\n":
            at, column = at + 1, 0
            held += [""] * (at + 1 - len(held))
        elif part == "\r":
            column = 0
        elif part == "\x1b[2K":
            held[at] = ""
        elif part == "\x1b[1A":
            at -= 1
        elif not part.startswith("\x1b"):
            if column == width:
                at, column = at + 1, 0
                held += [""] * (at + 1 - len(held))
            held[at] = held[at][:column].ljust(column) + part + held[at][column + 1 :]
            column += 1
    return held


def test_messages_stand_above_the_line_that_moves(screen, capsys):
    """Every message is still there at the end, on lines of its own."""
    log = logging.getLogger("selftaught")
    with progress() as line:
        line.show(1, 1.0)
        log.warning("%s", "x" * 200)
        line.show(2, 1.0)
        log.info("a look")
        sys.stderr.write("from elsewhere\n")
        line.show(3, 1.0)
    found = rows(screen.getvalue())
    text = "warning: " + "x" * 200
    assert found[:5] == [text[:80], text[80:160], text[160:], "a look", "from elsewhere"]
    assert sum("step " in row for row in found) == 1
    assert "step 3/123456" in found[-2]
    assert found[-1] == ""


def test_a_warning_is_yellow_and_the_line_below_it_is_not(screen):
    with progress() as line:
        line.show(1, 1.0)
        before = len(screen.getvalue())
        logging.getLogger("selftaught").warning("beware")
    said = screen.getvalue()[before:]
    assert "\x1b[33mwarning: beware\x1b[0m" in said
    assert said.count("\x1b[33m") == 1


def test_what_goes_into_a_file_is_not_taken_for_the_terminal(screen, capsys):
    with progress() as line:
        line.show(1, 1.0)
        sys.stdout.write("a row\n")  # standard output is no terminal here
    assert capsys.readouterr().out == "a row\n"
    assert "a row" not in screen.getvalue()


@pytest.mark.parametrize("change", [{"TERM": "dumb"}, {"TTY_COMPATIBLE": "0"}])
def test_where_nothing_can_be_written_over_progress_is_lines(change, screen, monkeypatch, caplog):
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    plain = Terminal(file=screen, width=80, soft_wrap=True)
    monkeypatch.setattr("selftaught.terminal.standard_error", lambda: plain)
    monkeypatch.setattr(screen, "isatty", lambda: True)
    voice.command_speaks()
    with progress() as line:
        line.show(1, 1.0)
        line.show(2, 1.0)
    assert "\x1b" not in screen.getvalue()
    assert [row.split(" · ")[1] for row in screen.getvalue().splitlines()] == [
        "step 1/123456",
        "step 2/123456",
    ]


def test_a_first_step_that_takes_long_is_told_of(screen, monkeypatch):
    monkeypatch.setattr("selftaught.voice.SLOW", 0.02)
    waiting = Progress(10, 10, 8)
    with waiting:
        until = time.monotonic() + 10
        while "first step: 0:00" not in screen.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
        waiting.advance(0.0)
        waiting.show(1, 1.0)
    found = rows(screen.getvalue())
    assert "step 1/10" in found[0]
    assert found[1:] == [""]


def test_a_line_within_another_one_is_left_out(screen, monkeypatch):
    """A look from within a training, say."""
    monkeypatch.setattr(voice, "SLOW", 0.0)
    with progress() as line:
        line.show(1, 1.0)
        with voice.counted("reading") as show:
            show(1, 10)
        line.show(2, 1.0)
    with voice.counted("embedding") as show:
        show(1234, 5000)
    found = rows(screen.getvalue())
    assert "reading" not in screen.getvalue()
    assert "embedding 1,234/5,000 · 0:00 left" in screen.getvalue()
    assert "step 2/123456" in found[0]
    assert not any(found[1:])  # what counted is gone


def test_in_a_file_what_is_counted_is_told_now_and_then(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "selftaught")
    monkeypatch.setattr(logging.getLogger("selftaught"), "handlers", [])
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    with voice.counted("reading") as show:
        for done in range(1, 101):
            now[0] += 1.0
            show(done, 100)
    assert [r.getMessage().split(" ·")[0] for r in caplog.records] == [
        f"reading {n}/100" for n in range(10, 101, 10)
    ]


def test_messages_come_ever_more_rarely(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "selftaught")
    monkeypatch.setattr(logging.getLogger("selftaught"), "handlers", [])
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    shown = []
    line = Progress(10**6, 10**6, 1)
    while now[0] < 36_000:
        now[0] += 5.0
        if line.advance(0.0):
            line.show(1, 1.0)
            shown.append(now[0])
    gaps = np.diff(shown)
    assert gaps[0] == 10
    assert gaps[-1] == pytest.approx(0.05 * shown[-2], abs=10)
    assert len(shown) < 150
    assert len(caplog.records) == len(shown)


@pytest.fixture
def unheard(monkeypatch):
    """A logger as the library's is where nobody has set up logging, as pytest has here."""
    logger = logging.Logger("selftaught")
    monkeypatch.setattr(voice, "log", logger)
    return logger


def test_a_library_is_heard_where_nobody_has_set_up_logging(unheard, capsys):
    logger = unheard
    with voice.heard():
        logger.info("of %s", "a\x1b[2Jb")
        with voice.heard():  # evaluate within pretrain, say
            logger.info("once")
    logger.info("nothing more")
    assert capsys.readouterr().err == "of a\\x1b[2Jb\nonce\n"
    assert logger.handlers == []
    assert logger.level == logging.NOTSET


@pytest.mark.parametrize("level", [logging.WARNING, logging.ERROR])
def test_a_level_that_was_set_stays(level, unheard, capsys):
    logger = unheard
    logger.setLevel(level)
    with voice.heard():
        assert voice.line() is None
        logger.info("nothing")
        logger.error("that")
    assert capsys.readouterr().err == "warning: that\n"
    assert logger.level == level


def test_who_has_set_up_logging_hears_alone(unheard, capsys):
    logger, heard = unheard, []
    own = logging.Handler()
    own.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(own)
    logger.setLevel(logging.INFO)
    with voice.heard():
        logger.info("a")
        assert voice.line() is None  # lines of theirs and one that moves would be glued together
    assert heard == ["a"]
    assert capsys.readouterr().err == ""


def test_what_is_shown_goes_through_one_console(capsys):
    assert standard_error() is standard_error()
    main(["check", "nowhere"])
    (handler,) = logging.getLogger("selftaught").handlers
    assert isinstance(handler, voice.Shown)
    assert isinstance(handler.voice, voice.OnStandardError)
    assert handler.voice.console is standard_error()
    assert Moving().console is standard_error()


def test_no_color_is_honored(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    shown = io.StringIO()
    Terminal(file=shown, force_terminal=True).print("x", style="yellow")
    assert "\x1b[33m" not in shown.getvalue()


def test_a_run_says_what_it_does_before_its_first_step(images, tmp_path, caplog, monkeypatch):  # noqa: F811
    caplog.set_level(logging.INFO, "selftaught")
    monkeypatch.setattr("selftaught.voice.SLOW", 0.05)
    real = opening.open_data

    def slow(*given, **more):
        time.sleep(0.5)
        return real(*given, **more)

    monkeypatch.setattr("selftaught.engine.settings.open_data", slow)
    assert main(words(TARGET, images, tmp_path / "run", "--epochs", "1", "--workers", "0")) == 0
    said = caplog.text
    told = [said.index(w) for w in ("opening", "measuring memory", "looking at the data", "step 1")]
    assert told == sorted(told)
    assert Path(tmp_path / "run" / "report.html").exists()
