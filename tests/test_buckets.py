"""Data in buckets: by pyarrow's own clients, from an S3 server of this machine."""

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from pyarrow import fs

from selftaught import dist
from selftaught.cli import main
from selftaught.data import open_data
from selftaught.data.indexed import BESIDE
from selftaught.data.remote import aside
from selftaught.data.remote.bucket import Bucket
from selftaught.data.remote.cache import cache_of
from selftaught.errors import Unreachable, UserError
from selftaught.feed.passes import reading
from selftaught.feed.views import ViewDataset
from selftaught.kinds import images
from tests.front import fronting
from tests.test_indexed import all_of, shards

assert shards, dist  # a fixture


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    made = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    made.start()
    host, port = made.get_host_and_port()
    yield f"http://{host}:{port}"
    made.stop()


@pytest.fixture(autouse=True)
def ready(endpoint: str, tmp_path: Path, monkeypatch):
    """Credentials, a cache, and nobody left who has begun with others."""
    environment = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "me",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "SELFTAUGHT_CACHE": str(tmp_path / "cache"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cache_of.cache_clear()
    aside.end()
    yield
    aside.end()
    cache_of.cache_clear()


def bucket(endpoint: str, name: str, files: dict[str, bytes]) -> None:
    """A bucket with these files, written by plain requests."""
    for path, content in {"": b"", **files}.items():
        url = f"{endpoint}/{name}/{path}" if path else f"{endpoint}/{name}"
        told = {"Content-Type": "application/octet-stream"}
        urllib.request.urlopen(urllib.request.Request(url, content, told, method="PUT")).close()


def contents(folder: Path, below: str) -> dict[str, bytes]:
    return {
        f"{below}{file.relative_to(folder)}": file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_shards_in_a_bucket_are_those_on_a_disk(endpoint, shards):
    before = all_of(open_data(shards))
    bucket(endpoint, "one", contents(shards, "data/"))
    for address in (
        "s3://one/data/",
        "s3://one/data",
        "s3://one/data/s-{0..2}.tar",
        "s3://one/data/s-*.tar",
    ):
        assert all_of(open_data(address)) == before
    assert len(open_data("s3://one/data/s-[12].tar")) == 9
    assert not fs_is_up()


def fs_is_up() -> bool:
    """Whether this process has a client, which must not be: it forks others."""
    from selftaught.data.remote import bucket as module

    return module._made.cache_info().currsize > 0


def test_an_index_beside_shards_in_a_bucket_is_used(endpoint, shards, caplog):
    before = all_of(open_data(shards))
    assert main(["index", str(shards)]) == 0
    bucket(endpoint, "two", contents(shards, ""))
    with caplog.at_level("INFO", "selftaught"):
        there = open_data("s3://two/")
        assert all_of(there) == before
        assert all_of(open_data(f"s3://two/{BESIDE}")) == before
    assert "from afar" not in caplog.text


def test_a_bucket_is_indexed_by_the_command(endpoint, shards, tmp_path, capsys):
    bucket(endpoint, "three", contents(shards, ""))
    assert main(["index", "s3://three/", "--out", str(tmp_path / "idx")]) == 0
    assert "13 images of 3 shards" in capsys.readouterr().out
    assert all_of(open_data(tmp_path / "idx")) == all_of(open_data(shards))


def test_processes_that_read_have_clients_of_their_own(endpoint, shards):
    """Forked after this one has read, and again after others have."""
    bucket(endpoint, "four", contents(shards, ""))
    samples = open_data("s3://four/s-0.tar")
    samples.read(0)
    for _ in range(2):
        cache_of(os.getpid()).folder.rename(cache_of(os.getpid()).folder.with_name("old"))
        views = ViewDataset(samples, images().plain(8), seed=0)
        with reading(views, range(4), 2, workers=2) as batches:
            got = list(batches)
        assert [b.index.tolist() for b in got] == [[0, 1], [2, 3]]
        assert not any(b.bad for b in got)
        __import__("shutil").rmtree(cache_of(os.getpid()).folder.with_name("old"))


def test_what_is_not_there(endpoint, shards):
    bucket(endpoint, "five", {})
    with pytest.raises(UserError, match=r"s3://five/a\.tar does not exist"):
        open_data("s3://five/a.tar")
    with pytest.raises(UserError, match=r"stands for no file|does not exist"):
        open_data("s3://five/folder/")
    with pytest.raises(UserError, match="does not exist"):
        open_data("s3://none/a.tar")
    bucket(endpoint, "five", {"photos/a.jpg": b"a"})
    with pytest.raises(UserError, match=r"no \.tar shards and no \.parquet files"):
        open_data("s3://five/photos")


def test_an_answer_that_breaks_off_among_its_headers_is_no_change(endpoint, monkeypatch):
    content = bytes(range(256)) * 8
    bucket(endpoint, "six", {"a.bin": content})
    with fronting(int(endpoint.rpartition(":")[2])) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{front.server_address[1]}")
        known = Bucket().facts("s3://six/a.bin")
        first = front.count + 1
        front.drops = lambda number: number == first  # it has no size
        assert Bucket().fetch("s3://six/a.bin", 10, 20, known, lambda *_: None) == content[10:30]
        assert front.dropped == 1
        writing = fs.S3FileSystem(endpoint_override=endpoint.partition("://")[2], scheme="http")
        with writing.open_output_stream("six/a.bin") as file:
            file.write(content + b"more")
        aside.end()
        with pytest.raises(UserError, match=r"a.bin has changed .*2,048 bytes then, 2,052 now"):
            Bucket().fetch("s3://six/a.bin", 10, 20, known, lambda *_: None)


def test_what_is_first_told_of_an_object_is_told_whole(endpoint, monkeypatch):
    bucket(endpoint, "seven", {"a.bin": b"some", "none.bin": b""})
    with fronting(int(endpoint.rpartition(":")[2])) as front:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{front.server_address[1]}")
        front.drops = lambda number: number == 1
        assert Bucket().facts("s3://seven/a.bin").size == 4
        assert front.dropped == 1
        assert Bucket().facts("s3://seven/none.bin").size == 0


def test_nobody_there(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("SELFTAUGHT_PATIENCE", "0.1")
    with pytest.raises(Unreachable, match=r"s3://one/.* cannot be reached"):
        open_data("s3://one/a.tar")


def test_pyarrow_has_both_kinds_of_buckets():
    assert fs.S3FileSystem
    assert fs.GcsFileSystem
