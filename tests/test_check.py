"""`check`: counts what is there, whatever the files do to the process that reads them."""

import dataclasses
import io
import logging
import os
import signal
import time

import numpy as np
import pytest
from PIL import Image

from selftaught import voice
from selftaught.data import MAX_PIXELS, open_data
from selftaught.data import quarantine as bad_list
from selftaught.errors import UserError
from selftaught.feed import check as check_module
from selftaught.feed.check import check, scan
from selftaught.terminal import Terminal
from tests.children import other_children

RNG = np.random.default_rng(0)


def photo(size=(40, 50)) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def saved(image, kind="PNG", **options) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


@pytest.fixture
def folder(tmp_path):
    """Twelve files of known faults."""
    root = tmp_path / "photos"
    (root / "cat").mkdir(parents=True)
    (root / "dog").mkdir()
    one = photo()
    files = {
        "cat/one.png": saved(one),
        "cat/again.bmp": saved(one, "BMP"),  # the same pixels, other bytes
        "cat/copy.png": saved(one),
        "cat/gray.jpg": saved(photo((64, 64)).convert("L"), "JPEG"),
        "cat/flat.png": saved(Image.new("RGB", (33, 34), "red")),
        "dog/small.png": saved(photo((20, 90))),
        "dog/moving.gif": saved(
            photo().convert("P"), "GIF", save_all=True, append_images=[photo().convert("P")]
        ),
        "dog/deep.png": saved(Image.fromarray(RNG.integers(0, 65536, (35, 36), dtype=np.uint16))),
        "dog/empty.jpg": b"",
        "dog/text.jpg": b"I am no image at all",
        "dog/half.jpg": saved(photo(), "JPEG")[:900],
        "dog/huge.png": saved(Image.new("1", (3000, 3000))),
        "notes.txt": b"x",
        ".hidden.png": b"",
    }
    for name, data in files.items():
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize("workers", [0, 1])
def test_every_fault_is_counted(folder, tmp_path, workers):
    report = check(folder, tmp_path / "out", workers=workers, max_pixels=1_000_000)
    assert (report.total, report.readable) == (12, 8)
    assert dict(report.unreadable) == {
        "empty": 1,
        "not an image": 1,
        "truncated": 1,
        "too many pixels": 1,
    }
    assert (report.constant, report.tiny, report.animated, report.truncated) == (1, 1, 1, 1)
    assert report.duplicates == 2
    assert sorted(report.duplicate_groups[0]) == ["cat/again.bmp", "cat/copy.png", "cat/one.png"]
    assert report.widths == (20, 40, 64)
    assert report.heights == (34, 50, 90)
    assert report.channels == ((1, 3), (3, 5))
    assert report.depths == ((8, 7), (16, 1))
    assert dict(report.formats) == {"PNG": 5, "BMP": 1, "JPEG": 1, "GIF": 1}
    assert report.classes == (("cat", 5), ("dog", 7))
    assert report.skipped.ignored == {".txt": 1}
    assert report.skipped.hidden == 1
    listed = bad_list.load(tmp_path / "out" / "bad_files.csv")
    assert sorted(listed) == ["dog/empty.jpg", "dog/half.jpg", "dog/huge.png", "dog/text.jpg"]
    assert "3000 x 3000" in listed["dog/huge.png"].reason
    samples = open_data(folder)
    found = {samples.name(int(i)) for i in bad_list.positions(samples, listed)}
    assert found == set(listed)


def test_what_cannot_be_asked_for_is_refused(tmp_path):
    for options, words in (
        ({"workers": -1}, "workers must be at least 0, got -1"),
        ({"timeout": 0.0}, "timeout must be above 0, got 0"),
        ({"max_pixels": 0}, "max_pixels must be at least 1, got 0"),
        ({"tiny": "some"}, "tiny must be a whole number, got 'some'"),
        ({"truncated": "keeps"}, "did you mean keep"),
    ):
        with pytest.raises(UserError, match=words):
            check(tmp_path, **options)


def test_shares_of_any_size_are_told(folder):
    report = check(folder, workers=0)
    for bad, share in ((1000, "100 %"), (333, "33 %"), (1, "0.1 %")):
        told = dataclasses.replace(report, total=1000, bad=(("name", "reason"),) * bad).rows()
        assert dict(told)["unreadable"] == f"{bad:,} ({share})"


def test_reports_read_well(folder):
    report = check(folder, workers=0, max_pixels=1_000_000)
    assert report.quarantine is None
    text = report.text()
    assert "unreadable                    4 (33 %)" in text
    assert "exact duplicates (by pixels)  2" in text
    assert "1 .txt, 1 hidden" in text
    assert "dog/empty.jpg: is empty (0 bytes)" in text
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(report.render())
    assert "dog/text.jpg" in console.file.getvalue()  # type: ignore[attr-defined]
    assert len({len(row) for row in report.rows()}) == 1


def test_headers_alone(folder):
    report = check(folder, workers=0, full=False, max_pixels=1_000_000)
    # a half image has a whole header: only decoding tells
    assert report.readable == 9
    assert report.duplicates == 1  # of bytes
    assert "exact duplicates (by files)" in report.text()


def test_truncated_images_can_be_kept(folder):
    report = check(folder, workers=0, truncated="keep", max_pixels=1_000_000)
    assert "dog/half.jpg" not in dict(report.bad)


def test_other_channels_are_named(folder):
    report = check(folder / "cat", workers=0, channels=4)
    assert dict(report.unreadable) == {"other number of channels": 5}


class Traps:
    """Samples that kill, hang, or raise in the process that reads them."""

    def __init__(self, home: str, deadly: tuple[int, ...], hanging: tuple[int, ...] = ()):
        self.home, self.deadly, self.hanging = home, deadly, hanging

    def __len__(self):
        return 40

    def __getitem__(self, i):
        if os.getpid() == int(self.home):  # never in the process that checks
            os._exit(1)
        if i in self.deadly:
            os.kill(os.getpid(), signal.SIGSEGV)
        if i in self.hanging:
            time.sleep(60)
        return np.full((40, 40, 3), i, np.uint8)


def test_a_file_that_kills_its_reader_is_found_and_the_rest_is_read(tmp_path):
    report = check(Traps(str(os.getpid()), (0, 17, 18)), tmp_path, workers=2, timeout=30)
    assert [name for name, _ in report.bad] == ["Traps::0", "Traps::17", "Traps::18"]
    assert all("kills the process that reads it (signal SIGSEGV)" in why for _, why in report.bad)
    assert report.readable == 37
    assert dict(report.unreadable) == {"kills the decoder": 3}
    assert len(bad_list.load(tmp_path / "bad_files.csv")) == 3


def test_a_file_that_hangs_is_given_up(tmp_path):
    report = check(Traps(str(os.getpid()), (), (5,)), workers=1, timeout=0.5)
    assert report.bad == (("Traps::5", "takes more than 0.5 s to read"),)
    assert report.readable == 39


class Flaky:
    """Dies once, as a process does that is killed for other reasons."""

    def __init__(self, flag: str):
        self.flag = flag

    def __len__(self):
        return 20

    def __getitem__(self, i):
        if i == 9 and not os.path.exists(self.flag):
            with open(self.flag, "w"):
                os.kill(os.getpid(), signal.SIGKILL)
        return np.full((40, 40, 3), i, np.uint8)


def test_one_accident_is_forgiven(tmp_path):
    report = check(Flaky(str(tmp_path / "flag")), workers=1)
    assert report.bad == ()
    assert report.readable == 20


def test_each_sample_is_reported_once(tmp_path):
    for k in range(70):
        (tmp_path / f"{k:02}.png").write_bytes(saved(Image.new("L", (40, 40), k)))
    seen = [i for i, _ in scan(open_data(tmp_path), workers=2)]
    assert sorted(seen) == list(range(70))


def test_what_cannot_be_sent_is_read_here(caplog):
    class Local:
        def __len__(self):
            return 20

        def __getitem__(self, i):
            return np.full((40, 40, 3), i, np.uint8)

    report = check(Local(), workers=1)
    assert report.readable == 20
    assert "reading in this process" in caplog.text


def test_nothing_is_left_running_when_stopped(tmp_path):
    for k in range(40):
        (tmp_path / f"{k:02}.png").write_bytes(saved(Image.new("L", (40, 40), k)))
    found = scan(open_data(tmp_path), workers=2)
    next(found)
    assert other_children()
    found.close()  # type: ignore[attr-defined]
    assert not other_children()


def test_errors_come_before_the_work(tmp_path):
    (tmp_path / "a.png").write_bytes(saved(photo()))
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be read or written"):
        check(tmp_path / "a.png", tmp_path / "file" / "below")
    with pytest.raises(UserError, match="does not exist"):
        check(tmp_path / "gone")


def test_progress_shows_on_a_terminal_only(folder, monkeypatch, capsys):
    check(folder, workers=0)
    assert capsys.readouterr().err == ""
    shown = io.StringIO()
    console = Terminal(file=shown, width=40, force_terminal=True, soft_wrap=True)
    monkeypatch.setattr("selftaught.terminal.standard_error", lambda: console)
    monkeypatch.setattr(voice, "log", logging.Logger("selftaught"))  # nobody listens there
    monkeypatch.setattr(voice, "SLOW", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    check(folder, workers=0)
    assert "reading 1/" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[2K")  # and is gone when it is done
    before = shown.getvalue()
    check(folder, workers=0, progress=False)
    assert shown.getvalue() == before


def test_the_command_line_can_read_the_signature():
    from pathlib import Path

    from selftaught.signature import read_function

    found = read_function(Path(check_module.__file__), "check")
    assert {p.name for p in found.parameters if p.type is None} == {"data"}
    assert all(p.doc for p in found.parameters)
    assert found["max_pixels"].default == MAX_PIXELS
