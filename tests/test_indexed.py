"""Indexes of shards: what a scan would find, mapped; what has changed is refused."""

import io
import json
import os
import pickle
import subprocess
import sys
import tarfile
import tracemalloc

import numpy as np
import PIL.Image
import pytest

from selftaught.cli import main
from selftaught.data import open_data
from selftaught.data.columns import Columns
from selftaught.data.image.formats import IMAGE
from selftaught.data.indexed import BESIDE, about, build
from selftaught.data.ranges import Local
from selftaught.data.shards import scanned
from selftaught.errors import UserError
from selftaught.index import store


def write(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def picture(number: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Three shards of four images, with labels, and with names that need a second look."""
    for shard in range(3):
        members = []
        for k in range(4):
            n = 4 * shard + k
            members += [(f"{n:03}.png", picture(n)), (f"{n:03}.cls", b"%d" % (n % 2))]
        if shard == 1:  # a key that comes back, a name with dots, a link, and what is hidden
            members += [("004.webp", b"x"), ("a.b.png", picture(99)), ("._005.png", b"")]
        write(tmp_path / "shards" / f"s-{shard}.tar", members)
    return tmp_path / "shards"


def all_of(samples):
    names = [(samples.name(i), samples.source.load(i)) for i in range(len(samples))]
    return names, samples.labels.tolist(), samples.classes, samples.skipped, samples.fingerprint


def test_an_index_is_what_a_scan_finds(shards, tmp_path, capsys):
    before = all_of(open_data(shards))
    assert main(["index", str(shards), "--out", str(tmp_path / "idx")]) == 0
    assert "13 images of 3 shards are listed in" in capsys.readouterr().out
    explicit = open_data(tmp_path / "idx")
    assert all_of(explicit) == before
    assert explicit.source.columns.files is not None
    assert open_data(shards).source.columns.files is None  # this one does not lie beside them
    assert main(["index", str(shards)]) == 0
    beside = open_data(shards)
    assert all_of(beside) == before
    assert beside.source.columns.files[0].parent == shards / BESIDE
    again = pickle.loads(pickle.dumps(beside))
    assert all_of(again) == before
    assert len(pickle.dumps(beside)) < 4000 + 100 * 3  # of whatever number of samples
    # the index moves with its shards
    os.rename(shards, tmp_path / "moved")
    assert all_of(open_data(tmp_path / "moved")) == before
    assert open_data(tmp_path / "moved").source.columns.files is not None


def test_an_index_of_some_shards_is_not_that_of_others(shards):
    assert main(["index", str(shards / "s-{0..1}.tar")]) == 0
    assert open_data(str(shards / "s-{0..1}.tar")).source.columns.files is not None
    assert open_data(shards).source.columns.files is None
    assert len(open_data(shards)) == 13


@pytest.mark.parametrize("change", ["longer", "other"])
def test_a_stale_index_is_refused_by_name_and_left_aside_beside(shards, change, caplog):
    assert main(["index", str(shards)]) == 0
    members = [(f"{n:03}.png", picture(n)) for n in (4, 5, 6, 7)]
    if change == "longer":
        write(shards / "s-1.tar", [*members, ("new.png", bytes(20000))])
    else:  # as large as before, with other samples
        size = (shards / "s-1.tar").stat().st_size
        write(shards / "s-1.tar", [("n.png", bytes(700)), ("m.png", bytes(12000))])
        assert (shards / "s-1.tar").stat().st_size == size
    with pytest.raises(UserError, match=r"s-1\.tar has changed since .*selftaught index .* again"):
        open_data(shards / BESIDE)
    with caplog.at_level("WARNING", "selftaught"):
        samples = open_data(shards)
    assert "s-1.tar has changed" in caplog.text
    assert "the shards are scanned" in caplog.text
    assert len(samples) == (13 if change == "longer" else 10)
    assert main(["index", str(shards)]) == 0
    assert len(open_data(shards / BESIDE)) == len(samples)
    assert len(list((shards / BESIDE).iterdir())) == 3  # of the old one nothing is left


def test_copies_of_shards_with_other_times_fit(shards):
    assert main(["index", str(shards)]) == 0
    for shard in shards.glob("*.tar"):
        os.utime(shard, (1, 1))
    assert len(open_data(shards / BESIDE)) == 13


def test_what_an_index_was_not_made_for_is_refused(shards, tmp_path):
    out = tmp_path / "idx"
    assert main(["index", str(shards), "--out", str(out)]) == 0
    with pytest.raises(UserError, match="made with labels not given, and tree is asked for"):
        open_data(out, labels="tree")
    with pytest.raises(UserError, match=r"column not given, and \.seg\.png is asked for"):
        open_data(out, column=".seg.png")
    whole = json.loads((out / "data-index.json").read_text())
    (out / "data-index.json").write_text(json.dumps(whole | {"kind": "sound"}))
    with pytest.raises(UserError, match="lists samples of the kind sound, and image was asked for"):
        open_data(out)
    (out / "data-index.json").write_text(json.dumps(whole | {"version": 99}))
    with pytest.raises(UserError, match="version 99"):
        open_data(out)
    (out / "data-index.json").write_text("{")
    with pytest.raises(UserError, match="no index that can be read"):
        open_data(out)
    (out / "data-index.json").write_text(json.dumps(whole))
    file = out / whole["files"][0][0]
    damaged = bytearray(file.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(UserError, match="is damaged: index the shards again"):
        open_data(out)


def test_nothing_else_is_overwritten_or_listed(shards, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("a")
    assert main(["index", str(shards), "--out", str(tmp_path / "mine")]) == 2
    assert "is there, and no index of data" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "mine")]) == 2
    assert "holds no tar shards" in capsys.readouterr().err
    assert main(["index", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    write(tmp_path / "text.tar", [("a.txt", b"a")])
    assert main(["index", str(tmp_path / "text.tar")]) == 2
    assert "hold nothing to list; left out: 1 .txt" in capsys.readouterr().err
    assert not (tmp_path / BESIDE).exists()


def many(path, count: int) -> None:
    """A shard of as many members, each of no bytes worth speaking of."""
    header = tarfile.TarInfo("0000000.jpg")
    header.size = 4
    with path.open("wb") as file:
        for n in range(count):
            header.name = f"{n:07}.jpg"
            file.write(header.tobuf(tarfile.GNU_FORMAT) + bytes(512))
        file.write(bytes(1024))


def test_a_hundred_thousand_samples_take_tens_of_bytes_each(tmp_path):
    count = 100_000
    many(tmp_path / "a.tar", count)
    build(tmp_path / "small", [str(tmp_path / "a.tar")], Local(), "image", None, None, IMAGE)
    tracemalloc.start()
    build(tmp_path / "idx", [str(tmp_path / "a.tar")], Local(), "image", None, None, IMAGE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    samples = open_data(tmp_path / "idx")
    opened = tracemalloc.get_traced_memory()[1] - before
    tracemalloc.stop()
    assert len(samples) == count
    assert peak / count < 80
    assert opened < 1 << 19  # a buffer, of whatever number of samples


def test_of_several_processes_one_lists_the_shards(shards, tmp_path):
    """Each of them maps the same index of this machine's cache."""
    code = (
        "import sys; from selftaught.data import open_data; s = open_data(sys.argv[1]);"
        "print(s.fingerprint, s.source.columns.files[0].stat().st_ino)"
    )
    env = os.environ | {"WORLD_SIZE": "3", "SELFTAUGHT_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-c", code, str(shards)]
    running = [
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = {process.communicate()[0] for process in running}
    assert len(said) == 1
    assert said.pop().split()[0] == open_data(shards).fingerprint
    assert not list(shards.glob(f"{BESIDE}*"))


def test_blocks_are_neighbors_within_four_mebibytes(tmp_path):
    for shard, sizes in enumerate(([3 << 20, 3 << 20, 100, 100], [100])):
        members = [(f"{shard}{k}.jpg", bytes(size)) for k, size in enumerate(sizes)]
        write(tmp_path / f"{shard}.tar", members)
    source = scanned([str(tmp_path / f"{n}.tar") for n in (0, 1)], Local(), None, None)
    assert source.blocks().tolist() == [2, 4, 5]


def test_columns_of_no_sample_are_none(tmp_path):
    assert len(Columns.of([])) == 0


def test_the_kind_of_an_index_is_known(tmp_path):
    from selftaught import kinds

    write(tmp_path / "s" / "a.tar", [(f"{n}.wav", b"x") for n in range(3)])
    assert main(["index", str(tmp_path / "s"), "--kind", "sound"]) == 0
    assert about(tmp_path / "s" / BESIDE).kind == "sound"
    assert kinds.guess(str(tmp_path / "s" / BESIDE), tuple(kinds.files())) == "sound"


def test_the_two_kinds_of_index_are_told_apart(shards, tmp_path):
    """That of `search` is no data, and that of data is nothing to search by."""
    (tmp_path / "searched").mkdir()
    (tmp_path / "searched" / "search-index.json").write_text("{}")
    with pytest.raises(UserError, match="is what `selftaught search` keeps: features"):
        open_data(tmp_path / "searched")
    assert main(["index", str(shards)]) == 0
    with pytest.raises(UserError, match="holds nothing to search by"):
        store._about(shards / BESIDE)
