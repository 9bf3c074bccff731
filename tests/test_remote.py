"""Data from afar: by ranges and through the cache, whatever the network and servers do."""

import multiprocessing
import os
import pickle
import shutil
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from selftaught.cli import main
from selftaught.data import open_data
from selftaught.data.indexed import BESIDE
from selftaught.data.remote import http
from selftaught.data.remote.cache import Cache, cache_of
from selftaught.data.remote.ranges import Remote, RemoteFile
from selftaught.data.shards import BLOCK
from selftaught.errors import Interrupted, Unreachable, UserError
from selftaught.feed.check import check
from selftaught.feed.lanes import Lanes
from selftaught.feed.order import Order
from tests.ranges_server import serving
from tests.test_engine import curve, train
from tests.test_indexed import all_of, picture, shards, write

assert shards  # a fixture


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """A cache of its own, and a process that knows nothing yet; nobody waits long."""
    monkeypatch.setenv("SELFTAUGHT_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SELFTAUGHT_PATIENCE", "0.1")
    cache_of.cache_clear()
    http._moved.clear()
    yield tmp_path / "cache"
    cache_of.cache_clear()


@pytest.fixture
def server(shards):
    with serving(shards) as made:
        yield made


def test_shards_on_a_server_are_those_on_a_disk(shards, server):
    before = all_of(open_data(shards))
    there = open_data(f"{server.url}/s-{{0..2}}.tar")
    assert all_of(there) == before
    assert (there.read(1) == open_data(shards).read(1)).all()
    sent = server.sent
    assert all_of(open_data(f"{server.url}/s-{{0..2}}.tar")) == before
    assert server.sent - sent < 1000  # all is in the cache, and so is the index
    assert all_of(pickle.loads(pickle.dumps(there))) == before
    assert len(open_data([f"{server.url}/s-0.tar"])) == 4


def test_an_index_beside_shards_on_a_server_is_used(shards, server):
    assert main(["index", str(shards)]) == 0
    before = all_of(open_data(shards))
    there = open_data(f"{server.url}/s-{{0..2}}.tar")
    assert server.sent < 12_000  # nothing was scanned
    assert there.source.paths[0] == f"{server.url}/s-0.tar"
    assert all_of(there) == before
    assert all_of(open_data(f"{server.url}/{BESIDE}")) == before
    write(shards / "s-1.tar", [("new.png", bytes(30_000))])
    with pytest.raises(UserError, match=r"s-1\.tar has changed"):
        open_data(f"{server.url}/{BESIDE}")


def test_what_a_command_lists_of_a_server(shards, server, tmp_path, capsys):
    address = f"{server.url}/s-{{0..2}}.tar"
    assert main(["index", address, "--out", str(tmp_path / "idx")]) == 0
    assert "13 images of 3 shards" in capsys.readouterr().out
    assert all_of(open_data(tmp_path / "idx")) == all_of(open_data(shards))
    assert main(["index", address]) == 2
    assert "name a folder with --out" in capsys.readouterr().err


FAULTS = ("drop", "short", "long", "other", "busy", "compressed")


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_now_and_then_is_tried_again(fault, shards, server):
    counts = Counter()

    def faults(_, path):
        counts[path] += 1
        # not every other time: requests that come side by side may meet it again and again
        return fault if counts[path] <= 2 or counts[path] % 5 == 0 else ""

    server.faults = faults
    assert all_of(open_data(f"{server.url}/s-{{0..2}}.tar")) == all_of(open_data(shards))
    assert server.count > 8


@pytest.mark.parametrize("fault", [*FAULTS, "silent"])
def test_what_goes_wrong_always_is_the_network_s_and_no_sample_s(fault, server, kept, monkeypatch):
    monkeypatch.setattr(http, "READ", 0.2)
    samples = open_data(f"{server.url}/s-0.tar")
    shutil.rmtree(kept / "blocks")
    cache_of.cache_clear()
    server.faults = lambda number, path: fault
    with pytest.raises(Unreachable, match=r"s-0\.tar cannot be reached \(.*7 tries"):
        samples.read(0)
    assert Unreachable("").exit_code == 75  # may be gone on with
    server.faults = lambda number, path: ""
    assert (samples.read(0) == 0).all()


def test_nobody_there(tmp_path):
    with serving(tmp_path) as gone:
        address = f"{gone.url}/a.tar"
    with pytest.raises(Unreachable, match="look at the network"):
        open_data(address)


def test_a_server_without_ranges_sends_a_shard_once(shards, server):
    server.faults = lambda number, path: "whole"
    there = open_data(f"{server.url}/s-{{0..2}}.tar")
    assert all_of(there) == all_of(open_data(shards))
    total = sum(f.stat().st_size for f in shards.glob("*.tar"))
    # once as its length is asked for, in part, and once for all of its blocks
    assert server.sent <= 4 * total


@pytest.mark.parametrize(
    ("fault", "words"), [("gone", "does not exist"), ("refused", "may not be read")]
)
def test_what_is_not_there_or_not_ours_is_said_at_once(fault, words, server):
    server.faults = lambda number, path: fault
    with pytest.raises(UserError, match=words):
        open_data(f"{server.url}/s-0.tar")


def test_a_file_that_changes_is_noticed(shards, server, kept):
    samples = open_data(f"{server.url}/s-0.tar")
    shutil.rmtree(kept / "blocks")
    cache_of.cache_clear()
    server.tag = '"2"'
    with pytest.raises(UserError, match="changed while it was in use"):
        samples.read(0)
    assert (open_data(f"{server.url}/s-0.tar").read(0) == 0).all()  # what was kept is not it


def test_addresses_that_mean_nothing(server):
    with pytest.raises(UserError, match=r"ftp:// is no kind of address .* s3://, gs://"):
        open_data("ftp://127.0.0.1/a.tar")
    with pytest.raises(UserError, match="cannot be listed, as web servers do not tell"):
        open_data(server.url + "/folder/")
    with pytest.raises(UserError, match=r"no \.tar shards and no \.parquet files"):
        open_data(server.url + "/a.jpg")


def test_a_table_on_a_server(tmp_path):
    rows = pa.table({"image": [picture(n) for n in range(9)], "label": ["a", "b", "c"] * 3})
    (tmp_path / "t").mkdir()
    pq.write_table(rows, tmp_path / "t" / "a.parquet", row_group_size=4)
    with serving(tmp_path / "t") as made:
        there = open_data(f"{made.url}/a.parquet")
        here = open_data(tmp_path / "t" / "a.parquet")
        assert all_of(there) == all_of(here)
        assert there.stamp(3)
        assert there.source.blocks().tolist() == [4, 8, 9]


def test_a_remote_file_is_a_file(tmp_path):
    content = np.random.default_rng(0).bytes(3 * BLOCK // 2)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.bin").write_bytes(content)
    with serving(tmp_path / "t") as made:
        file = RemoteFile(f"{made.url}/a.bin", Remote())
        assert file.read() == content
        assert file.seek(-10, os.SEEK_END) == len(content) - 10
        assert file.read(100) == content[-10:]
        assert file.read() == b""
        file.seek(BLOCK - 5)
        assert file.read(10) == content[BLOCK - 5 : BLOCK + 5]


# what the hub and redirections do -----------------------------------------------------------------


def test_the_hub_s_addresses_lead_where_its_files_are(shards, server, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    told = []
    for n in range(3):
        path = f"/datasets/me/things/resolve/v1/data/s-{n}.tar"
        with serving(shards) as _:
            pass
        server.moved[path] = f"{server.url}/s-{n}.tar"
        told.append(f'{{"type": "file", "path": "data/s-{n}.tar", "size": 1, "oid": "x"}}')
    listing = "/api/datasets/me/things/tree/v1/data"
    server.pages[listing] = f"[{', '.join(told)}]".encode()
    there = open_data("hf://datasets/me/things@v1/data")
    assert all_of(there) == all_of(open_data(shards))
    assert server.seen.get("Authorization") in (None, "Bearer hf_secret")
    with pytest.raises(UserError, match="names no repository"):
        open_data("hf://datasets/me")


def test_tokens_do_not_follow_to_other_servers(shards, server, tmp_path, monkeypatch):
    """The hub hands over to a server of files, which is not to know who asks."""
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with serving(tmp_path) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("127.0.0.1", "localhost"))
        hub.moved["/datasets/me/things/resolve/main/s-0.tar"] = f"{server.url}/s-0.tar"
        samples = open_data("hf://datasets/me/things/s-0.tar")
        assert hub.seen["Authorization"] == "Bearer hf_secret"
        assert len(samples) == 4
        assert "Authorization" not in server.seen
        asked = hub.count
        shutil.rmtree(tmp_path / "cache" / "blocks")
        cache_of.cache_clear()
        assert (samples.read(0) == 0).all()
        assert hub.count == asked  # where it leads is remembered
        # for a while: what it led to may end
        shutil.rmtree(tmp_path / "cache" / "blocks")
        cache_of.cache_clear()
        count = server.count
        server.faults = lambda number, path: "refused" if number == count + 1 else ""
        assert (samples.read(0) == 0).all()
        assert hub.count == asked + 1


# the cache ----------------------------------------------------------------------------------------


def test_what_was_used_longest_ago_goes_first(tmp_path):
    cache = Cache(tmp_path / "c", 1000)
    names = [f"{n:016x}-0" for n in range(12)]
    for n, name in enumerate(names):
        cache.put(name, bytes(100))
        file = tmp_path / "c" / name[:2] / name
        if file.exists():
            os.utime(file, (n, n))
        cache.get(names[0], 0, 1, 100)  # in use all the time
        if (first := tmp_path / "c" / "00" / names[0]).exists():
            os.utime(first, (100, 100))
    there = {f.name for f in (tmp_path / "c").glob("??/*")}
    assert names[0] in there
    assert names[1] not in there
    assert names[-1] in there
    assert sum(f.stat().st_size for f in (tmp_path / "c").glob("??/*")) <= 1000


def test_a_block_that_is_not_whole_is_none(tmp_path):
    cache = Cache(tmp_path / "c", 1000)
    cache.put("00-0", b"0123456789")
    assert Cache(tmp_path / "c", 1000).get("00-0", 2, 5, 10) == b"234"
    (tmp_path / "c" / "00" / "00-0").write_bytes(b"01234")
    assert Cache(tmp_path / "c", 1000).get("00-0", 2, 5, 10) is None
    assert not list((tmp_path / "c").glob("??/*"))


def test_a_disk_that_is_full_is_said_once_and_nothing_is_lost(
    server, shards, kept, monkeypatch, caplog
):
    samples = open_data(f"{server.url}/s-0.tar")
    shutil.rmtree(kept / "blocks")
    cache_of.cache_clear()

    def full(*_: object, **__: object):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("selftaught.data.remote.cache.tempfile.mkstemp", full)
    with caplog.at_level("WARNING", "selftaught"):
        assert (samples.read(0) == 0).all()
        assert (samples.read(1) == 1).all()
    assert caplog.text.count("cannot keep what is fetched (No space left on device)") == 1


@pytest.mark.parametrize(("text", "size"), [("1GB", 10**9), ("0.5 TiB", 5 * 10**11), ("77", 77)])
def test_how_much_is_kept_may_be_said(text, size, monkeypatch):
    monkeypatch.setenv("SELFTAUGHT_CACHE_SIZE", text)
    assert cache_of(0).limit == size
    monkeypatch.setenv("SELFTAUGHT_CACHE_SIZE", "much")
    cache_of.cache_clear()
    with pytest.raises(UserError, match="must be a size such as 200GB"):
        cache_of(0)


def _reads(address: str, out) -> None:
    samples = open_data(address)
    out.put([samples.source.load(i) for i in range(len(samples))])


def test_processes_fetch_each_block_once_between_them(tmp_path):
    rng = np.random.default_rng(0)
    members = [(f"{n:03}.jpg", rng.bytes(100_000)) for n in range(100)]
    write(tmp_path / "t" / "a.tar", members)
    assert main(["index", str(tmp_path / "t")]) == 0
    with serving(tmp_path / "t") as made:
        context = multiprocessing.get_context("fork")
        out = context.Queue()
        address = f"{made.url}/a.tar"
        children = [context.Process(target=_reads, args=(address, out)) for _ in range(3)]
        for child in children:
            child.start()
        found = [out.get(timeout=60) for _ in children]
        for child in children:
            child.join()
        assert all(one == [content for _, content in members] for one in found)
        assert made.sent < 1.05 * (tmp_path / "t" / "a.tar").stat().st_size


# what is fetched of what is used ------------------------------------------------------------------


def test_by_blocks_each_byte_is_fetched_once(tmp_path, monkeypatch):
    """With a cache that holds a third of the data; shuffled in full most are fetched again."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr("selftaught.data.shards.BLOCK", 1 << 16)
    monkeypatch.setattr("selftaught.data.remote.ranges.BLOCK", 1 << 16)
    for shard in range(4):
        members = [
            (f"{shard}{n:04}.jpg", rng.bytes(int(rng.integers(2000, 9000)))) for n in range(500)
        ]
        write(tmp_path / "t" / f"s-{shard}.tar", members)
    assert main(["index", str(tmp_path / "t")]) == 0
    used = sum(f.stat().st_size for f in (tmp_path / "t").glob("*.tar"))
    monkeypatch.setenv("SELFTAUGHT_CACHE_SIZE", str(used // 3))
    fetched: dict[str, float] = {}
    fetched: dict[str, float] = {}
    with serving(tmp_path / "t") as made:
        source = open_data(f"{made.url}/s-{{0..3}}.tar").source
        batches = len(source) // 8
        for shuffle in ("blocks", "full"):
            shutil.rmtree(tmp_path / "cache" / "blocks")
            cache_of.cache_clear()
            lanes = Lanes(source.blocks(), 8, batches, 0) if shuffle == "blocks" else None
            order = Order(len(source), 8, batches, 0, lanes)
            order.epochs = range(1)
            before, wanted = made.sent, 0
            for keys in order:
                for _, row in keys[:: 1 if shuffle == "blocks" else 4]:
                    wanted += len(source.load(row))
            fetched[shuffle] = (made.sent - before) / wanted
    # beside the images, the headers of a tar
    assert fetched["blocks"] < 1.1 * used / source.columns.sizes.sum()
    assert fetched["full"] > 5


@pytest.mark.usefixtures("unfinished")
def test_a_training_whose_network_fails_is_saved_and_goes_on(tmp_path, monkeypatch, caplog):
    """Nothing is quarantined, and the run is the one that nothing had happened to."""
    for shard in range(3):
        members = [(f"{shard}{n}.png", picture(60 * shard + 7 * n)) for n in range(8)]
        write(tmp_path / "t" / f"s-{shard}.tar", members)
    assert main(["index", str(tmp_path / "t")]) == 0
    # whatever is kept goes at once, so that each batch needs the network
    monkeypatch.setattr("selftaught.data.remote.cache._OPEN", 1)
    monkeypatch.setenv("SELFTAUGHT_CACHE_SIZE", "1")
    with serving(tmp_path / "t") as made:
        given = {"data": f"{made.url}/s-{{0..2}}.tar", "shuffle": "blocks", "workers": 1}

        def fails(row):
            if row["step"] == 2:
                made.faults = lambda number, path: "drop"

        train(tmp_path / "whole", epochs=4, **given)
        assert "is enough to fetch each block once" in caplog.text
        train(tmp_path / "full", epochs=1, **{**given, "shuffle": "full"})
        assert "--shuffle blocks reads each block once an epoch" in caplog.text
        with pytest.raises(Interrupted, match=r"cannot be reached .*saved.*--resume"):
            train(tmp_path / "failed", epochs=4, on_record=fails, **given)
        assert not (tmp_path / "failed" / "bad_files.csv").exists()
        made.faults = lambda number, path: ""
        train(tmp_path / "failed", epochs=4, resume=True, **given)
    assert curve(tmp_path / "failed") == curve(tmp_path / "whole")


def test_check_lists_no_sample_for_the_network_s_faults(server, kept, tmp_path):
    samples = open_data(f"{server.url}/s-0.tar")
    shutil.rmtree(kept / "blocks")
    cache_of.cache_clear()
    server.faults = lambda number, path: "drop"
    for workers in (0, 1):
        with pytest.raises(Unreachable, match="cannot be reached"):
            check(samples, tmp_path / "checked", workers=workers, progress=False)
    assert not (tmp_path / "checked" / "bad_files.csv").read_text().splitlines()[1:]
    server.faults = lambda number, path: ""
    assert check(samples, workers=1, progress=False).readable == 4
