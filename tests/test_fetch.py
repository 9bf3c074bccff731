"""Fetching: against a real server on the loopback that sets traps; no other machine is named.

Names of hosts are looked up in a table that the test has, so that a name may lead anywhere; what is
not in it fails the test, and so does a connection to another machine (conftest).
"""

import errno
import gzip
import hashlib
import io
import ipaddress
import os
import random
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Picture
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from selftaught.curate import fetch
from selftaught.curate.fetch import Address, Fetching, Web, addresses, shard, transient, wire
from selftaught.curate.fetch.address import canonical
from selftaught.curate.fetch.guard import public
from selftaught.curate.fetch.kept import SUFFIXES, format_of
from selftaught.curate.fetch.pages import candidates, read_page
from selftaught.curate.fetch.refused import Refused
from selftaught.curate.fetch.robots import Rules, reserved
from selftaught.curate.fetch.warc import held_image
from selftaught.curate.fetch.web import Pace
from selftaught.data import open_data
from selftaught.errors import Unwritable, UserError
from tests.photos import shipped

PHOTOS = shipped(6)
LOOPBACK = ("127.0.0.0/8",)
QUICK = Fetching(
    allow=LOOPBACK, per_host=1000.0, timeout=30.0, retries=0, backoff=0.01, connections=4
)


class Handler(BaseHTTPRequestHandler):
    """Answers by what the test's server has for a path: a photo, or a function of the handler."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        own: Any = self.server
        host = self.headers["Host"].partition(":")[0]
        own.requests.append((host, self.path, dict(self.headers)))
        self.close_connection = True
        if self.path == "/robots.txt":
            answer = own.robots.get(host)
            return self.send(404) if answer is None else self.answer(answer)
        answer = own.paths.get(self.path)
        return self.send(404) if answer is None else self.answer(answer)

    def answer(self, answer) -> None:
        if callable(answer):
            answer(self)
        else:
            self.send(200, answer)

    def send(self, status: int, body: bytes = b"", **headers: str | None) -> None:
        """An answer; a header that is None is left out."""
        named = {"Content-Type": "image/jpeg", "Content-Length": str(len(body))}
        named |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.send_response(status)
        for name, value in named.items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen of tests."""


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.robots: dict[str, object] = {}
        self.paths: dict[str, object] = {f"/{n}.jpg": photo for n, photo in enumerate(PHOTOS)}
        self.over = threading.Event()

    def handle_error(self, request, client_address) -> None:
        """Whoever fetches hangs up on some answers, as it should."""

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_address[1]}{path}"

    def asked(self, host: str | None = None) -> list[str]:
        """The paths that were asked for."""
        return [path for at, path, _ in self.requests if host in (None, at)]


@pytest.fixture
def server() -> Iterator[Server]:
    own = Server()
    thread = threading.Thread(target=own.serve_forever, args=(0.01,))
    thread.start()
    yield own
    own.over.set()
    own.shutdown()
    thread.join()
    own.server_close()


@pytest.fixture(autouse=True)
def names(monkeypatch) -> dict[str, list[list[str]]]:
    """Hosts, with the addresses that each look-up gives, the last one forever."""
    table: dict[str, list[list[str]]] = {"localhost": [["127.0.0.1"]]}

    def getaddrinfo(host, port, family=0, type=0, proto=0, flags=0):
        try:
            found = [str(ipaddress.ip_address(host))]
        except ValueError:
            if host not in table:
                raise AssertionError(f"a test looked up {host}") from None
            answers = table[host]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(0, socket.SOCK_STREAM, 6, "", (ip, port or 0)) for ip in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return table


def fetched(place: Path, urls: list[str], asked: Fetching = QUICK, **options) -> list[dict]:
    """The rows of a shard of some addresses."""
    shard([Address(url) for url in urls], place, asked, **options)
    return pq.read_table(f"{place}.parquet").to_pylist()


def reason(place: Path, url: str, asked: Fetching = QUICK) -> str:
    """Why an address is left; it must be."""
    (row,) = fetched(place, [url], asked)
    assert row["reason"], row
    assert (row["bytes"], row["sha256"], row["type"]) == (0, "", "")
    with tarfile.open(f"{place}.tar") as tar:
        assert tar.getnames() == []
    return row["reason"]


# ------------------------------------------------------------------------------------ what is kept


def test_images_are_kept_as_they_came_in_the_order_of_their_addresses(server, tmp_path):
    server.paths["/slow.png"] = lambda h: (time.sleep(0.2), h.send(200, PHOTOS[1]))
    server.paths["/moved"] = lambda h: h.send(302, Location="/2.jpg")
    server.paths["/wrongly-named"] = lambda h: h.send(200, PHOTOS[3], Content_Type="text/plain")
    urls = [server.url(p) for p in ("/slow.png", "/none.jpg", "/0.jpg", "/moved", "/wrongly-named")]
    told: list[tuple[int, int]] = []
    given = [Address(url, "http://page.test/", f"text {n}") for n, url in enumerate(urls)]
    counts = shard(given, tmp_path / "a", QUICK, told=lambda *done: told.append(done))
    assert told == [(n, 5) for n in range(1, 6)]
    assert (counts.addresses, counts.kept, counts.transient) == (5, 4, 0)
    assert counts.reasons == {"404 Not Found": 1}
    wanted = [PHOTOS[1], PHOTOS[0], PHOTOS[2], PHOTOS[3]]
    assert counts.bytes == sum(map(len, wanted))
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
        assert [tar.extractfile(m).read() for m in members] == wanted
        assert {(m.mtime, m.uid, m.gid, m.uname, m.mode) for m in members} == {(0, 0, 0, "", 0o644)}
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [r["url"] for r in rows] == urls
    assert [r["text"] for r in rows] == [f"text {n}" for n in range(5)]
    assert {r["page"] for r in rows} == {"http://page.test/"}
    assert rows[3]["final_url"] == server.url("/2.jpg")
    assert [r["status"] for r in rows] == [200, 404, 200, 200, 200]
    kept = [r for r in rows if not r["reason"]]
    assert [r["key"] + SUFFIXES[r["type"]] for r in kept] == [m.name for m in members]
    assert [r["sha256"] for r in kept] == [hashlib.sha256(image).hexdigest() for image in wanted]
    assert [r["bytes"] for r in kept] == [len(image) for image in wanted]
    assert len(open_data(str(tmp_path / "a.tar"))) == 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_formats_are_told_by_the_first_bytes(kind, server, tmp_path):
    made = io.BytesIO()
    Picture.new("RGB", (40, 30), (200, 10, 10)).save(made, kind)
    server.paths["/x"] = lambda h: h.send(200, made.getvalue(), Content_Type=None)
    (row,) = fetched(tmp_path / "a", [server.url("/x")])
    assert (row["type"], row["reason"]) == (kind, "")
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == [row["key"] + SUFFIXES[kind]]
    only = replace(QUICK, types=("webp",))
    (row,) = fetched(tmp_path / "b", [server.url("/x")], only)
    assert row["reason"] == ("" if kind == "WEBP" else f"{kind} is not asked for")


def test_two_runs_give_the_same_bytes(server, tmp_path):
    server.paths["/1.jpg"] = lambda h: (time.sleep(0.1), h.send(200, PHOTOS[1]))
    server.paths["/5.jpg"] = lambda h: h.send(503)
    given = [Address(server.url(f"/{n}.jpg"), f"http://p.test/{n}", "é") for n in range(7)]
    first = shard(given, tmp_path / "a" / "00000", QUICK)
    server.paths["/1.jpg"] = PHOTOS[1]
    server.paths["/0.jpg"] = lambda h: (time.sleep(0.1), h.send(200, PHOTOS[0]))
    second = shard(given, tmp_path / "b" / "00000", replace(QUICK, connections=1))
    assert first == second
    for name in ("00000.tar", "00000.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["00000.parquet", "00000.tar"]


def test_a_shard_that_is_there_is_not_fetched_again(server, tmp_path):
    given = [Address(server.url("/0.jpg")), Address(server.url("/none"))]
    first = shard(given, tmp_path / "a", QUICK)
    count = len(server.requests)
    assert shard(given, tmp_path / "a", QUICK) == first
    assert len(server.requests) == count
    with pytest.raises(UserError, match="other addresses"):
        shard(given[:1], tmp_path / "a", QUICK)
    (tmp_path / "a.parquet").unlink()  # a tar alone is of one that was interrupted
    assert shard(given, tmp_path / "a", QUICK) == first
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a Parquet"):
        shard(given, tmp_path / "a", QUICK)


def test_the_same_address_twice_is_one_image(server, tmp_path):
    url = server.url("/0.jpg")
    given = [Address(url, "p", "first"), Address(url, "q", "second")]
    assert shard(given, tmp_path / "a", QUICK).addresses == 1
    assert pq.read_table(tmp_path / "a.parquet")["text"].to_pylist() == ["first"]
    assert shard([], tmp_path / "none", QUICK) == fetch.Counts()


def test_a_place_that_cannot_be_written_is_told(server, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(Unwritable, match="cannot be written"):
        shard([Address(server.url("/0.jpg"))], tmp_path / "file" / "a", QUICK)
    assert server.requests == []


KILLED = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever began it may have had it ignored
from selftaught.curate.fetch import Address, Fetching, shard
base, out = sys.argv[1], Path(sys.argv[2])
asked = Fetching(allow=("127.0.0.0/8",), per_host=1000.0, timeout=60.0, connections=2)
for n in range(3):
    given = [Address(f"{base}/{n}-{k}.jpg") for k in range(4)]
    shard(given, out / f"{n:05d}", asked, told=lambda *done: print(n, *done, flush=True))
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle_and_run_again_is_as_if_it_never_was(sign, server, tmp_path):
    for n in range(3):
        for k in range(4):
            server.paths[f"/{n}-{k}.jpg"] = PHOTOS[(n + k) % 6]
    held = server.paths["/1-3.jpg"]

    def run(out: Path) -> subprocess.Popen:
        command = [sys.executable, "-c", KILLED, server.url(""), str(out)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    server.paths["/1-3.jpg"] = lambda h: server.over.wait(100)
    process = run(tmp_path / "killed")
    assert any(line.startswith("1 3 4") for line in process.stdout)
    begun = time.monotonic()
    os.kill(process.pid, sign)
    process.communicate(timeout=90)
    assert process.returncode in (-sign, 1, 130)
    assert time.monotonic() - begun < 20, "it waits for those whom it asked"
    there = sorted(p.name for p in (tmp_path / "killed").iterdir() if p.is_file())
    assert there == ["00000.parquet", "00000.tar"]
    server.paths["/1-3.jpg"] = held
    count = len(server.requests)
    for out in ("killed", "whole"):
        assert run(tmp_path / out).communicate(timeout=60)[1] == ""
    assert not any(path.startswith("/0-") for path in server.asked()[count : count + 8])
    whole = sorted((tmp_path / "whole").iterdir())
    assert [p.name for p in whole] == sorted(p.name for p in (tmp_path / "killed").iterdir())
    assert len(whole) == 6
    for path in whole:
        assert path.read_bytes() == (tmp_path / "killed" / path.name).read_bytes(), path.name


# ---------------------------------------------------------------------------- where it may not go


GLOBAL = ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
PRIVATE = [
    *("127.0.0.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
    *("0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.0.8", "192.0.2.1"),
    *(
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.9",
        "::1",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fd00::1",
    ),
    *("fec0::1", "ff02::1", "2001:db8::1", "2001::1", "3fff::1", "5f00::1", "100::1"),
    *("::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1"),
    "2002:7f00:1::",
]


def test_which_addresses_are_public():
    assert [ip for ip in GLOBAL if not public(ipaddress.ip_address(ip))] == []
    assert [ip for ip in PRIVATE if public(ipaddress.ip_address(ip))] == []


@pytest.mark.parametrize("ip", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::ffff:10.0.0.1"])
def test_private_addresses_are_not_asked(ip, names, server, tmp_path):
    names["inside.test"] = [[ip]]
    given = replace(QUICK, allow=())
    why = f"private address {ip.removeprefix('::ffff:')}"
    assert reason(tmp_path / "a", "http://inside.test/0.jpg", given) == why
    host = f"[{ip}]" if ":" in ip else ip
    assert reason(tmp_path / "b", f"http://{host}/0.jpg", given) == why
    assert server.requests == []


def test_localhost_is_private_unless_it_is_allowed(server, names, tmp_path):
    url = server.url("/0.jpg", "localhost")
    no = replace(QUICK, allow=())
    assert reason(tmp_path / "a", url, no) == "private address 127.0.0.1"
    assert server.requests == []
    names["own.localhost"] = names["other.test"] = [["127.0.0.1"]]
    own = replace(QUICK, allow=("localhost",))
    assert fetched(tmp_path / "b", [url], own)[0]["reason"] == ""
    url = server.url("/0.jpg", "own.localhost")
    assert fetched(tmp_path / "c", [url], own)[0]["reason"] == ""
    assert reason(tmp_path / "d", server.url("/0.jpg", "other.test"), own).startswith("private")


def test_one_private_record_among_public_ones_is_enough(names, tmp_path):
    names["both.test"] = [["8.8.8.8", "10.0.0.1"]]
    assert reason(tmp_path / "a", "http://both.test/x.jpg") == "private address 10.0.0.1"


def test_ports_are_those_of_the_web(names, tmp_path):
    names["public.test"] = [["8.8.8.8"]]
    for n, url in enumerate(["http://public.test:22/x.jpg", "https://public.test:80/x.jpg"]):
        assert reason(tmp_path / f"{n}", url) == f"port {(22, 80)[n]}"


def test_a_name_is_looked_up_once_so_that_it_cannot_lead_elsewhere_later(names, server, tmp_path):
    names["turns.test"] = [["127.0.0.1"], ["10.0.0.1"]]
    urls = [server.url(f"/{n}.jpg", "turns.test") for n in range(3)]
    web = Web(QUICK)
    assert {row["reason"] for row in fetched(tmp_path / "a", urls, web=web)} == {""}
    again = [server.url("/3.jpg", "turns.test")]
    assert fetched(tmp_path / "b", again, web=web)[0]["reason"] == ""
    assert names["turns.test"] == [["10.0.0.1"]], "it was looked up once"
    assert server.asked().count("/robots.txt") == 1


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("http://169.254.169.254/latest/meta-data", "redirected: private address 169.254.169.254"),
        ("http://10.0.0.1/x.jpg", "redirected: private address 10.0.0.1"),
        ("http://[::1]/x.jpg", "redirected: private address ::1"),
        ("//inside.test/x.jpg", "redirected: private address 192.168.0.9"),
        ("http://public.test:25/x.jpg", "redirected: port 25"),
        ("file:///etc/passwd", "redirected: file: is not requested"),
        ("ftp://public.test/x.jpg", "redirected: ftp: is not requested"),
        ("http://me:secret@public.test/", "redirected: address with a user name"),
        ("http://[oops/", "redirected: no address that can be requested"),
        (None, "302 without an address"),
        ("/away", "more than 5 redirects"),
    ],
)
def test_redirects_are_checked_anew(place, why, names, server, tmp_path):
    names["inside.test"], names["public.test"] = [["192.168.0.9"]], [["8.8.8.8"]]
    server.paths["/away"] = lambda h: h.send(302, Location=place)
    assert reason(tmp_path / "a", server.url("/away")) == why
    assert server.asked().count("/away") == (6 if place == "/away" else 1)


def test_a_certificate_that_does_not_hold_and_plain_speech_are_no_connection(server, tmp_path):
    url = server.url("/0.jpg").replace("http:", "https:")
    assert "no secure connection" in reason(tmp_path / "a", url)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://a.test/x.jpg", "ftp: is not requested"),
        ("photo.jpg", "no address with http or https"),
        ("http://", "no name of a host"),
        ("http://a_b!/x.jpg", "no name of a host"),
        ("http://u@a.test/x.jpg", "address with a user name"),
        ("http://a.test:99999/x.jpg", "no address that can be requested"),
        ("http://a.test/" + "x" * 9000, "address of 9,014 characters"),
    ],
)
def test_what_is_no_address_is_told(url, why, tmp_path):
    assert reason(tmp_path / "a", url) == why


def test_hosts_that_are_not_known_are_looked_up_once(names, tmp_path):
    names["nowhere.test"] = [[], ["127.0.0.1"]]
    rows = fetched(tmp_path / "a", [f"http://nowhere.test/{n}.jpg" for n in range(3)])
    assert [row["reason"] for row in rows] == ["host is not known"] * 3
    assert not any(row["transient"] for row in rows)


def test_of_several_addresses_the_first_that_answers_is_connected_to(names, server, tmp_path):
    names["both.test"] = [["::1", "127.0.0.1"]]
    asked = replace(QUICK, allow=(*LOOPBACK, "::1"))
    assert fetched(tmp_path / "b", [server.url("/0.jpg", "both.test")], asked)[0]["reason"] == ""


def test_blocked_hosts_are_left_with_their_subdomains(server, names, tmp_path):
    names["a.blocked.test"] = names["notblocked.test"] = [["127.0.0.1"]]
    (tmp_path / "hosts").write_text("# ads\n0.0.0.0 blocked.test\n\nother.test # too\n")
    asked = replace(QUICK, blocklist=tmp_path / "hosts")
    for host in ("a.blocked.test", "blocked.test", "other.test"):
        url = server.url("/0.jpg", host)
        assert reason(tmp_path / host, url, asked) == "host is on the blocklist"
    server.paths["/away"] = lambda h: h.send(301, Location="http://other.test/")
    why = "redirected: host is on the blocklist"
    assert reason(tmp_path / "away", server.url("/away"), asked) == why
    url = server.url("/0.jpg", "notblocked.test")
    assert fetched(tmp_path / "not", [url], asked)[0]["reason"] == ""
    (tmp_path / "hosts").write_text("# nothing\n")
    with pytest.raises(UserError, match="is empty"):
        Web(asked)
    with pytest.raises(UserError, match="does not exist"):
        Web(replace(QUICK, blocklist=tmp_path / "host"))


def test_options_that_cannot_be():
    with pytest.raises(UserError, match=r"10\.0\.0\.0/99"):
        Web(Fetching(allow=("10.0.0.0/99",)))
    with pytest.raises(UserError, match="contact"):
        Web(Fetching(contact="me\r\nX-Evil: 1"))
    with pytest.raises(UserError, match="base must be an address"):
        list(addresses(Path("x.html"), Fetching(base="site.test")))
    with pytest.raises(UserError, match="per_host must be above 0"):
        Fetching(per_host=0.0)


# ------------------------------------------------------------------------------- hostile answers


def endless(handler: Handler) -> None:
    handler.send(200, PHOTOS[0], Content_Length=None)
    for _ in range(10_000):
        handler.wfile.write(bytes(10_000))


def cut(handler: Handler) -> None:
    handler.send(200, PHOTOS[0][: len(PHOTOS[0]) // 2], Content_Length=str(len(PHOTOS[0])))


def slowly(handler: Handler) -> None:
    """Never silent for long: only a deadline for the whole ends it."""
    handler.send(200, PHOTOS[0], Content_Length="200000")
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b"x")


def slow_header(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not handler.server.over.wait(0.05):
        handler.wfile.write(b"x")


def huge_header(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for n in range(90):
        handler.wfile.write(b"X-%d: %s\r\n" % (n, b"x" * 60_000))
    handler.wfile.write(b"\r\n" + PHOTOS[0])


def many_headers(handler: Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(200)))
    handler.wfile.write(b"\r\n" + PHOTOS[0])


def bad_chunks(handler: Handler) -> None:
    handler.send(200, Transfer_Encoding="chunked", Content_Length=None)
    handler.wfile.write(b"%x\r\n" % len(PHOTOS[0]) + PHOTOS[0] + b"\r\n-1\r\n")
    for _ in range(10_000):
        handler.wfile.write(bytes(10_000))


def cut_chunks(handler: Handler) -> None:
    handler.send(200, Transfer_Encoding="chunked", Content_Length=None)
    handler.wfile.write(b"%x\r\n" % (2 * len(PHOTOS[0])) + PHOTOS[0])


def bomb(handler: Handler) -> None:
    assert handler.headers["Accept-Encoding"] == "identity"
    packed = gzip.compress(PHOTOS[0] + bytes(5_000_000))
    handler.send(200, packed, Content_Encoding="gzip")


SMALL = replace(QUICK, max_bytes=300_000, timeout=0.7)


@pytest.mark.parametrize(
    ("trap", "why"),
    [
        (endless, "larger than 300 kB"),
        (lambda h: h.send(200, PHOTOS[0], Content_Length="300001"), "larger than 300 kB"),
        (cut, "cut off"),
        (lambda h: h.send(200, PHOTOS[0], Content_Length=str(10**5)), "cut off"),
        (slowly, "timeout after 0.7 s"),
        (slow_header, "timeout after 0.7 s"),
        (lambda h: h.server.over.wait(30), "timeout after 0.7 s"),
        (huge_header, "answer without an end"),
        (many_headers, "answer is no HTTP"),
        (bad_chunks, "answer without an end"),
        (cut_chunks, "connection was cut"),
        (lambda h: None, "connection was closed without an answer"),
        (lambda h: h.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n"), "answer is no HTTP (BadStatusLine)"),
        (bomb, "packed content, which was not asked for"),
        (lambda h: h.send(200, b"<html>", Content_Type="text/html"), "text/html is no image"),
        (lambda h: h.send(200, b"<html>", Content_Type="Text/HTML;x"), "Text/HTML is no image"),
        (lambda h: h.send(200, b"<html>"), "said to be image/jpeg, and is not"),
        (lambda h: h.send(200, b"<svg>", Content_Type=None), "content of no type is no image"),
        (lambda h: h.send(200, b"BM and so on" * 9), "said to be image/jpeg, and is not"),
        (lambda h: h.send(200), "empty"),
        (lambda h: h.send(204, Content_Length=None), "204 No Content"),
        (lambda h: h.send(404), "404 Not Found"),
        (lambda h: h.send(299), "status 299"),
        (lambda h: h.send(200, b"\x1b[31m", Content_Type="\x1b[31m/\x07"), "31m/ is no image"),
    ],
)
def test_traps(trap: Callable[[Handler], object], why: str, server, tmp_path):
    server.paths["/trap"] = trap
    begun = time.monotonic()
    asked = SMALL if why.startswith("timeout") else replace(SMALL, timeout=30.0)
    found = reason(tmp_path / "a", server.url("/trap"), asked)
    assert found.startswith(why), found
    assert time.monotonic() - begun < 20
    assert fetched(tmp_path / "b", [server.url("/0.jpg")])[0]["reason"] == ""


def test_a_server_that_nobody_runs_is_no_connection(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{free.getsockname()[1]}/x.jpg"
        (row,) = fetched(tmp_path / "a", [url], replace(QUICK, robots=False))
    assert (row["reason"], row["transient"]) == ("no connection (Connection refused)", True)


# ------------------------------------------------------------------- faults that pass, and manners


def failing(status: int, times: int, **headers: str) -> Callable[[Handler], None]:
    """An answer that is a photo after some times."""
    left = [times]

    def answer(handler: Handler) -> None:
        left[0] -= 1
        if left[0] >= 0:
            handler.send(status, **headers)
        else:
            handler.send(200, PHOTOS[0])

    return answer


@pytest.mark.parametrize(("status", "header"), [(429, "0"), (503, None), (500, None)])
def test_what_passes_is_tried_again(status, header, server, tmp_path):
    server.paths["/x"] = failing(status, 2, Retry_After=header)
    asked = replace(QUICK, retries=2)
    (row,) = fetched(tmp_path / "a", [server.url("/x")], asked)
    assert (row["reason"], row["status"]) == ("", 200)
    assert server.asked().count("/x") == 3
    server.paths["/x"] = failing(status, 3)
    (row,) = fetched(tmp_path / "b", [server.url("/x")], asked)
    assert (row["status"], row["transient"]) == (status, True)
    assert server.asked().count("/x") == 6
    assert row["reason"].startswith(f"{status} ")


def test_faults_that_may_pass_can_be_fetched_later(server, tmp_path):
    server.paths["/x"] = failing(503, 1)
    given = [Address(server.url(p), "page", "text") for p in ("/0.jpg", "/x", "/none")]
    assert shard(given, tmp_path / "a", QUICK).transient == 1
    left = transient(tmp_path / "a")
    assert left == given[1:2]
    assert shard(left, tmp_path / "b", QUICK).kept == 1


def test_retry_after_is_waited_for_and_too_long_a_time_ends_the_host(server, tmp_path):
    server.paths["/x"] = failing(429, 1, Retry_After="1")
    begun = time.monotonic()
    fetched(tmp_path / "a", [server.url("/x")], replace(QUICK, retries=1))
    assert time.monotonic() - begun > 0.9
    later = formatdate(time.time() + 900, usegmt=True)
    for n, said in enumerate(("3600", later)):
        server.paths["/x"] = failing(429, 9, Retry_After=said)
        urls = [server.url(p) for p in ("/0.jpg", "/x", "/1.jpg", "/2.jpg")]
        rows = fetched(tmp_path / f"b{n}", urls, replace(QUICK, retries=3))
        why = "not asked: its host wants to be left alone for more than 60 s"
        assert [r["reason"] for r in rows] == ["", "429 Too Many Requests", why, why]
        assert [r["transient"] for r in rows] == [False, True, True, True]
    assert not {"/1.jpg", "/2.jpg"} & set(server.asked())


def test_a_host_that_is_down_is_not_asked_forever(server, names, tmp_path):
    names["down.test"] = [["127.0.0.1"]]
    for n in range(8):
        server.paths[f"/down-{n}"] = lambda h: h.send(500)
    urls = [server.url(f"/down-{n}", "down.test") for n in range(8)]
    rows = fetched(tmp_path / "a", [*urls, server.url("/0.jpg")])
    told = ["500 Internal Server Error"] * 5 + ["not asked: 5 before it failed"] * 3
    assert [r["reason"] for r in rows] == [*told, ""]
    assert [r["transient"] for r in rows] == [True] * 8 + [False]
    assert len(server.asked("down.test")) == 6  # robots.txt and five


def test_robots_are_obeyed(server, names, tmp_path):
    hosts = ("a.test", "b.test", "c.test", "d.test", "e.test", "f.test", "g.test")
    names.update({host: [["127.0.0.1"]] for host in hosts})
    text = b"User-agent: *\nDisallow: /private\nAllow: /private/open\n"
    server.robots["a.test"] = text
    server.robots["b.test"] = b"User-agent: selftaught\nDisallow: /\n\nUser-agent: *\nAllow: /\n"
    server.robots["c.test"] = lambda h: h.send(500)
    server.robots["d.test"] = lambda h: h.send(403)
    server.robots["e.test"] = lambda h: h.send(302, Location=server.url("/robots.txt", "a.test"))
    server.robots["f.test"] = lambda h: h.send(200, gzip.compress(text), Content_Encoding="gzip")
    server.robots["g.test"] = lambda h: h.send(200, text, Content_Length="1000")
    for path in ("/private/x", "/private/open", "/open"):
        server.paths[path] = PHOTOS[0]
    forbids = "robots.txt forbids"
    no = "robots.txt cannot be had: 500 Internal Server Error"
    cut_off = "robots.txt cannot be had: cut off"
    wanted = {
        "a.test": [forbids, "", ""],
        "b.test": [forbids] * 3,
        "c.test": [no] * 3,
        "d.test": ["", "", ""],
        "e.test": [forbids, "", ""],
        "f.test": [forbids, "", ""],
        "g.test": [cut_off] * 3,
    }
    for host in hosts:
        urls = [server.url(p, host) for p in ("/private/x", "/private/open", "/open")]
        rows = fetched(tmp_path / host, urls)
        assert [r["reason"] for r in rows] == wanted[host], host
        assert [r["transient"] for r in rows] == [host in ("c.test", "g.test")] * 3
    assert set(server.asked("b.test")) | set(server.asked("c.test")) == {"/robots.txt"}
    everything = replace(QUICK, robots=False)
    count = server.asked("b.test").count("/robots.txt")
    url = server.url("/private/x", "b.test")
    assert fetched(tmp_path / "no", [url], everything)[0]["reason"] == ""
    assert server.asked("b.test").count("/robots.txt") == count


def test_robots_of_where_a_redirect_leads_are_obeyed(server, names, tmp_path):
    names["a.test"] = names["b.test"] = [["127.0.0.1"]]
    server.robots["b.test"] = b"User-agent: *\nDisallow: /\n"
    server.paths["/away"] = lambda h: h.send(302, Location=server.url("/0.jpg", "b.test"))
    why = reason(tmp_path / "a", server.url("/away", "a.test"))
    assert why == "redirected: robots.txt forbids"
    assert server.asked("b.test") == ["/robots.txt"]


def test_robots_without_an_end_are_read_to_a_bound():
    long = b"User-agent: *\nDisallow: /a\n" + b"# x\n" * 200_000 + b"Disallow: /b\n"
    rules = Rules(long, "selftaught")
    assert not rules.allows("http://h.test/a")
    assert rules.allows("http://h.test/b")
    assert Rules(b"\xff\xfe<html>\0", "selftaught").allows("http://h.test/a")
    spaced = Rules(b"User-agent: *\nRequest-rate: 1/8s\n", "selftaught")
    assert spaced.delay == 8


def test_a_host_is_asked_no_more_often_than_it_wants(server, names, tmp_path):
    names["a.test"] = names["b.test"] = names["c.test"] = [["127.0.0.1"]]
    at: dict[str, list[float]] = {"a.test": [], "b.test": []}

    def noted(handler: Handler) -> None:
        at[handler.headers["Host"].partition(":")[0]].append(time.monotonic())
        handler.send(200, PHOTOS[0])

    for n in range(4):
        server.paths[f"/n{n}"] = noted
    server.robots["b.test"] = b"User-agent: *\nCrawl-delay: 0.3\n"
    server.robots["c.test"] = b"User-agent: *\nCrawl-delay: 61\n"
    urls = [server.url(f"/n{n}", host) for host in at for n in range(4)]
    rows = fetched(tmp_path / "a", urls, replace(QUICK, per_host=5.0))
    assert {r["reason"] for r in rows} == {""}
    # the server notes a request somewhat later than it was sent
    assert min(b - a for a, b in zip(at["a.test"], at["a.test"][1:])) > 0.1
    assert at["a.test"][-1] - at["a.test"][0] > 0.5
    assert at["b.test"][-1] - at["b.test"][0] > 0.8
    assert at["a.test"][0] < at["b.test"][-1], "hosts wait for each other"
    assert at["b.test"][0] < at["a.test"][-1]
    why = reason(tmp_path / "c", server.url("/0.jpg", "c.test"))
    assert why == "robots.txt asks for 61 s between requests"


def test_pace_of_one_host_is_kept_by_all_who_ask_it():
    pace = Pace()
    times: list[float] = []

    def ask() -> None:
        pace.wait("a.test", 0.1)
        times.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(4)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(times) - begun >= 0.29
    pace.hold("a.test", 60)
    threading.Timer(0.1, pace.stop).start()
    with pytest.raises(Refused, match="stopped"):
        pace.wait("a.test", 0.1)


def test_whoever_asks_says_who_it_is(server, tmp_path):
    asked = replace(QUICK, contact="https://lab.test/crawl")
    fetched(tmp_path / "a", [server.url("/0.jpg")], asked)
    sent = [headers["User-Agent"] for _, _, headers in server.requests]
    assert len(sent) == 2
    assert all(s.startswith("selftaught/") for s in sent)
    assert all(s.endswith(" (+https://lab.test/crawl)") for s in sent)
    server.robots["127.0.0.1"] = b"User-agent: MyBot\nDisallow: /\n"
    mine = replace(QUICK, user_agent="MyBot/2.0 (me@lab.test)")
    assert reason(tmp_path / "b", server.url("/0.jpg"), mine) == "robots.txt forbids"
    assert server.requests[-1][2]["User-Agent"] == "MyBot/2.0 (me@lab.test)"
    assert not {"Cookie", "Referer"} & server.requests[-1][2].keys()


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"X_Robots_Tag": "noai"}, "X-Robots-Tag says noai"),
        ({"X_Robots_Tag": "max-snippet: 5, NoImageAI"}, "X-Robots-Tag says noimageai"),
        ({"X_Robots_Tag": "selftaught: noindex"}, "X-Robots-Tag says noindex"),
        ({"X_Robots_Tag": "otherbot: noindex, none"}, ""),
        ({"X_Robots_Tag": "unavailable_after: 25 Jun 2030 15:00:00 GMT"}, ""),
        ({"X_Robots_Tag": "all"}, ""),
        ({"tdm_reservation": "1"}, "tdm-reservation reserves it"),
        ({"tdm_reservation": "0"}, ""),
    ],
)
def test_images_that_are_reserved_are_left(headers, why, server, tmp_path):
    server.paths["/x"] = lambda h: h.send(200, PHOTOS[0], **headers)
    (row,) = fetched(tmp_path / "a", [server.url("/x")])
    assert row["reason"] == why
    (row,) = fetched(tmp_path / "b", [server.url("/x")], replace(QUICK, opt_outs=False))
    assert row["reason"] == ""


def test_endings_that_addresses_must_have(server, tmp_path):
    asked = replace(QUICK, suffixes=("jpg", ".PNG"))
    why = "address does not end in .jpg, .png"
    assert reason(tmp_path / "a", server.url("/x.svg?y=.jpg"), asked) == why
    assert server.requests == []
    assert fetched(tmp_path / "b", [server.url("/0.jpg?y=1")], asked)[0]["reason"] != why


# --------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("HTTP://A.Test:80/x y.jpg#top", "http://a.test/x%20y.jpg"),
        ("https://a.test:443", "https://a.test/"),
        ("https://a.test:8443/x?q=a b&c=%20", "https://a.test:8443/x?q=a%20b&c=%20"),
        (" http://a.test/\n x.jpg ", "http://a.test/%20x.jpg"),
        ("http://faß.test/ü.jpg", "http://xn--fa-hia.test/%C3%BC.jpg"),
        ("http://a.test./x", "http://a.test/x"),
        ("http://[2606:4700::1]/x", "http://[2606:4700::1]/x"),
        ("//a.test/x", "https://a.test/x"),
        ("ftp://a.test/x", None),
        ("x.jpg", None),
        ("http://good.test\\@10.0.0.1/", None),
        ("http://a.test/\ud800", None),
    ],
)
def test_addresses_have_one_spelling(given, wanted):
    assert canonical(given) == wanted
    if wanted is not None:
        assert canonical(wanted) == wanted


def test_candidates_of_a_srcset():
    assert candidates("a.jpg, b.jpg 2x") == [("a.jpg", 1.0), ("b.jpg", 2.0)]
    assert candidates("/c,d.jpg 100w,\n /e.jpg 1.5x ,") == [("/c,d.jpg", 100.0), ("/e.jpg", 1.5)]
    assert candidates("https://a.test/w_800,h_600/x.jpg 800w 600h, y.jpg 400w") == [
        ("https://a.test/w_800,h_600/x.jpg", 800.0),
        ("y.jpg", 400.0),
    ]
    assert candidates("") == []


PAGE = """<html><head><meta charset=utf-8><base href="/img/">
<meta property="og:image" content="og.jpg"><meta property="og:image:alt" content="A preview">
</head><body>
<img src="plain.jpg" alt=" Two
  words ">
<img src="small.jpg" srcset="small.jpg 300w, large.jpg 1200w, mid.jpg 600w" alt="é">
<img src="data:image/gif;base64,R0lGOD" data-src="lazy.jpg">
<img src="data:image/gif;base64,R0lGOD">
<picture><source srcset="wide.avif 2000w, narrow.avif 500w" type="image/avif">
  <img src="fallback.jpg" alt="picture"></picture>
<picture><source srcset="same.webp" type="image/webp"><img src="same.jpg"></picture>
<img src="javascript:alert(1)"><img src=""><img><img src="http://[bad/">
<img src="//cdn.test/x.jpg"><img src="https://other.test/y.jpg#frag">
<img src="plain.jpg" alt="again">
<noscript><img src="noscript.jpg"></noscript>
</body></html>"""


def test_images_of_a_page():
    page = read_page(PAGE.encode(), "https://site.test/dir/page.html", "selftaught")
    base = "https://site.test/img/"
    assert page.images == (
        (base + "plain.jpg", "Two words"),
        (base + "large.jpg", "é"),
        (base + "lazy.jpg", ""),
        (base + "wide.avif", "picture"),
        (base + "same.jpg", ""),
        ("https://cdn.test/x.jpg", ""),
        ("https://other.test/y.jpg", ""),
        (base + "noscript.jpg", ""),
        (base + "og.jpg", "A preview"),
    )
    assert (page.reserved, page.relative) == ("", 0)
    alone = read_page(PAGE.encode(), "", "selftaught")
    whole = ["https://cdn.test/x.jpg", "https://other.test/y.jpg"]
    assert [image.url for image in alone.images] == whole
    assert alone.relative == 8


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ('<meta name="robots" content="noai, noimageai">', "its page says noai"),
        ('<meta name="Selftaught" content="noimageindex">', "its page says noimageindex"),
        ('<meta name="otherbot" content="noai">', ""),
        ('<meta name="robots" content="index, max-image-preview:none">', ""),
        ('<meta name="tdm-reservation" content="1">', "its page reserves it (tdm-reservation)"),
    ],
)
def test_pages_that_reserve_their_images(meta, why, server, tmp_path):
    html = f'{meta}<img src="{server.url("/0.jpg")}">'
    assert read_page(html.encode(), "", "selftaught").reserved == why
    (tmp_path / "page.html").write_text(html)
    (found,) = addresses(tmp_path / "page.html", QUICK)
    assert found.refused == why
    shard([found], tmp_path / "a", QUICK)
    assert pq.read_table(tmp_path / "a.parquet")["reason"].to_pylist() == [why]
    assert bool(server.requests) == (not why)
    (found,) = addresses(tmp_path / "page.html", replace(QUICK, opt_outs=False))
    assert found.refused == ""


@pytest.mark.parametrize(
    ("charset", "meta"),
    [("utf-8", ""), ("utf-16", ""), ("windows-1251", "windows-1251"), ("utf-8", "no-such-one")],
)
def test_texts_of_pages_in_other_charsets(charset, meta):
    html = f"<meta charset='{meta}'><img src='http://a.test/x.jpg' alt='Ж'>".encode(charset)
    (image,) = read_page(html, "", "selftaught").images
    assert image.text == "Ж"


def test_tags_are_not_looked_for_in_text():
    html = """<!-- <img src="comment.jpg"> --><script>"<img src='script.jpg'>"</script>
    <style><img src="style.jpg"></style><textarea><img src="text.jpg"></textarea>
    <IMG/SRC='a.jpg'/alt="1 > 0 &amp; &#233;"><img src=b.jpg alt=unquoted src=second.jpg>
    <imgx src="no.jpg"><img
      alt = "c"
      src = c.jpg ><script>var unclosed = "<img src='d.jpg'>";"""
    page = read_page(html.encode(), "http://a.test/", "selftaught")
    found = [(image.url.rpartition("/")[2], image.text) for image in page.images]
    assert found == [("a.jpg", "1 > 0 & é"), ("b.jpg", "unquoted"), ("c.jpg", "c")]


HOSTILE = {
    "deep": b"<div>" * 200_000 + b"<img src='http://a.test/x.jpg' alt='\xff\0'>",
    "attributes": b"<img " + b" ".join(b"a%d=1" % n for n in range(100_000)) + b">",
    "unclosed": b"<img a=\"b' " * 100_000,
    "names": b"<img" + b"/" * 500_000 + b" " * 500_000,
    "commas": b"<img srcset='" + b"," * 1_000_000 + b"'>",
    "blanks": b"<img srcset='a" + b" " * 1_000_000 + b"'>",
    "entities": b"<img src='" + b"&#x" * 300_000 + b"'>",
    "pictures": b"<picture><source srcset='a 2x'>" * 30_000,
    "bytes": bytes(range(256)) * 4000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_take_no_longer_than_others(name):
    begun = time.process_time()
    page = read_page(HOSTILE[name], "http://a.test/", "selftaught")
    assert time.process_time() - begun < 10  # quadratic ones take minutes
    named = {"deep": [("http://a.test/x.jpg", "\ufffd")], "blanks": [("http://a.test/a", "")]}
    assert [*page.images] == named.get(name, [])


def test_pages_without_sense():
    assert read_page(b"", "", "selftaught").images == ()
    assert read_page(b"<base href='http://[x'><img src=a.jpg>", "", "selftaught").relative == 1
    assert read_page(b"<img src='http://a.test/x.jpg'", "", "selftaught").images == ()


def test_a_folder_of_pages_and_what_they_are_relative_to(tmp_path, caplog):
    site = tmp_path / "site"
    (site / "sub").mkdir(parents=True)
    (site / "b.html").write_text('<img src="b.jpg"><img src="http://x.test/one.jpg" alt="b">')
    (site / "sub" / "c.HTM").write_text('<img src="c.jpg"><img src="http://x.test/one.jpg">')
    (site / "notes.txt").write_text("http://x.test/not-this.jpg")
    found = [*addresses(site, QUICK)]
    assert found == [Address("http://x.test/one.jpg", str(site / "b.html"), "b")]
    assert "2 relative addresses" in caplog.text
    based = [*addresses(site, replace(QUICK, base="https://site.test/blog"))]
    assert [(a.url, a.page) for a in based] == [
        ("https://site.test/blog/b.jpg", "https://site.test/blog/b.html"),
        ("http://x.test/one.jpg", "https://site.test/blog/b.html"),
        ("https://site.test/blog/sub/c.jpg", "https://site.test/blog/sub/c.HTM"),
    ]
    one = [*addresses(site / "b.html", replace(QUICK, base="https://site.test/blog/page"))]
    assert one[0].url == "https://site.test/blog/b.jpg"


def test_lists_of_addresses(tmp_path):
    urls = ["http://a.test/1.jpg", "HTTP://A.test/2.jpg", "", "nonsense", "http://a.test/1.jpg"]
    wanted = [
        ("http://a.test/1.jpg", "one"),
        ("http://a.test/2.jpg", "two, or"),
        ("nonsense", "four"),
    ]
    texts = ["one", "two, or", "three", "four", "five"]

    def read(name: str, **options: object) -> list[tuple[str, str]]:
        return [(a.url, a.text) for a in addresses(tmp_path / name, replace(QUICK, **options))]

    (tmp_path / "u.txt").write_text("# links\n" + "\r\n".join(urls) + "\n")
    assert [url for url, _ in read("u.txt")] == [url for url, _ in wanted]
    with gzip.open(tmp_path / "u.txt.gz", "wt") as file:
        file.write("\n".join(urls))
    assert [url for url, _ in read("u.txt.gz")] == [url for url, _ in wanted]
    quoted = "".join(f'{n};"{t}";{u}\n' for n, (u, t) in enumerate(zip(urls, texts)))
    (tmp_path / "u.csv").write_text("id;Caption;Image URL\n" + quoted)
    assert read("u.csv") == wanted
    (tmp_path / "u.tsv").write_text("".join(f"{t}\t{u}\n" for u, t in zip(urls, texts)))
    assert read("u.tsv") == wanted
    table = pa.table({"URL": [*urls, None], "TEXT": [*texts, None], "pixels": [b"x"] * 6})
    pq.write_table(table, tmp_path / "u.parquet", row_group_size=2)
    assert read("u.parquet") == wanted
    pq.write_table(table.rename_columns(["where", "TEXT", "x"]), tmp_path / "w.parquet")
    assert read("w.parquet", column="where") == wanted
    with pytest.raises(UserError, match="its columns are where, TEXT, x; name one with --column"):
        read("w.parquet")
    with pytest.raises(UserError, match="has no column nowhere"):
        read("w.parquet", column="nowhere")


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.doc", b"x", "neither a WARC nor a page nor a list"),
        ("x.txt", b"\n", "names no image"),
        ("x.txt", b"a\0b", "is no text"),
        ("x.html", b"<p>", "names no image"),
        ("x.parquet", b"x", "not a Parquet"),
        ("x.warc", b"nothing\r\n\r\n", "is no WARC that can be read"),
        (
            "x.warc.gz",
            gzip.compress(b"WARC/1.0\r\n", mtime=0)[:-9],
            "names no image|cannot be read|no WARC",
        ),
        ("x.csv", b"", "no column of addresses"),
        ("x.tsv", b"a\tb\nc\td\n", "its columns are a, b"),
    ],
)
def test_sources_that_give_nothing(name, content, why, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=why):
        list(addresses(tmp_path / name, QUICK))


def test_sources_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        list(addresses(tmp_path / "pages.warc", QUICK))
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="holds neither"):
        list(addresses(tmp_path / "folder", QUICK))


# -------------------------------------------------------------------------------------------- WARC


def warc(path: Path, records: list[tuple[str, str, bytes, dict[str, str]]], gz: bool = True):
    """A WARC of answers, each an address, a status, a body and headers."""
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=gz)
        writer.write_record(writer.create_warcinfo_record(path.name, {"software": "a test"}))
        for url, status, body, headers in records:
            http = StatusAndHeaders(status, [*headers.items()], protocol="HTTP/1.1")
            record = writer.create_warc_record(
                url, "response", io.BytesIO(body), http_headers=http, length=len(body)
            )
            writer.write_record(record)
        own = {"warc_content_type": "image/jpeg", "length": len(PHOTOS[4])}
        stream = io.BytesIO(PHOTOS[4])
        url = "http://w.test/own.jpg"
        writer.write_record(writer.create_warc_record(url, "resource", stream, **own))


HTML = {"Content-Type": "text/html; charset=windows-1251"}
JPEG = {"Content-Type": "image/jpeg"}


@pytest.mark.parametrize("gz", [True, False])
def test_images_that_a_warc_holds_are_taken_from_it(gz, server, tmp_path):
    page = f'<img src=in.jpg alt="Ж"><img src=late.jpg alt=late><img src="{server.url("/0.jpg")}">'
    html = page.encode("windows-1251")
    records = [
        ("http://w.test/in.jpg", "200 OK", PHOTOS[1], JPEG),
        ("http://w.test/page", "200 OK", html, HTML),
        ("http://w.test/again", "200 OK", gzip.compress(html), HTML | {"Content-Encoding": "gzip"}),
        ("http://w.test/gone", "404 Not Found", b"<img src=gone.jpg>", HTML),
        ("http://w.test/late.jpg", "200 OK", PHOTOS[2], JPEG),
        ("http://w.test/lies.jpg", "200 OK", b"<html>", JPEG),
        ("http://w.test/kept.jpg", "200 OK", PHOTOS[3], JPEG | {"X-Robots-Tag": "noai"}),
        ("http://w.test/bomb.jpg", "200 OK", gzip.compress(PHOTOS[0] + bytes(3_000_000)),
         JPEG | {"Content-Encoding": "gzip"}),
        ("http://w.test/mine", "200 OK", b'<img src=no.jpg>', HTML | {"X-Robots-Tag": "noai"}),
    ]  # fmt: skip
    file = tmp_path / ("pages.warc.gz" if gz else "pages.warc")
    warc(file, records, gz)
    asked = replace(QUICK, max_bytes=1_000_000)
    found = [*addresses(file, asked)]
    wanted = {
        "http://w.test/in.jpg": ("Ж", ""),
        "http://w.test/late.jpg": ("late", ""),
        server.url("/0.jpg"): ("", ""),
        "http://w.test/lies.jpg": ("", "said to be image/jpeg, and is not"),
        "http://w.test/kept.jpg": ("", "X-Robots-Tag says noai"),
        "http://w.test/bomb.jpg": ("", "larger than 1 MB"),
        "http://w.test/no.jpg": ("", "X-Robots-Tag says noai"),
        "http://w.test/own.jpg": ("", ""),
    }
    assert {a.url: a.text for a in found} == {url: text for url, (text, _) in wanted.items()}
    assert [a.url for a in found] == list(wanted)
    assert {a.page for a in found[:3]} == {"http://w.test/page"}
    counts = shard(found, tmp_path / "a", asked)
    rows = pq.read_table(tmp_path / "a.parquet").to_pylist()
    assert [r["reason"] for r in rows] == [why for _, why in wanted.values()]
    assert counts.kept == 4
    with tarfile.open(tmp_path / "a.tar") as tar:
        images = [tar.extractfile(m).read() for m in tar.getmembers()]
    assert images == [PHOTOS[1], PHOTOS[2], PHOTOS[0], PHOTOS[4]]
    assert server.asked() == ["/robots.txt", "/0.jpg"]


def test_warcs_of_a_folder_give_each_address_once(server, tmp_path):
    folder = tmp_path / "crawl"
    folder.mkdir()
    html = b'<img src="http://x.test/one.jpg">'
    for name in ("b", "a"):
        warc(folder / f"{name}.warc.gz", [(f"http://{name}.test/", "200 OK", html, HTML)])
    found = [*addresses(folder, QUICK)]
    assert [a.url for a in found] == ["http://x.test/one.jpg", "http://w.test/own.jpg"]
    assert found[0].page == "http://a.test/"


def test_warcs_that_are_damaged_or_packed_as_a_whole(tmp_path):
    plain, whole = tmp_path / "plain.warc", tmp_path / "whole.warc.gz"
    warc(plain, [("http://w.test/in.jpg", "200 OK", PHOTOS[1], JPEG)] * 3, gz=False)
    whole.write_bytes(gzip.compress(plain.read_bytes()))
    with pytest.raises(UserError, match="warcio recompress"):
        list(addresses(whole, QUICK))
    warc(whole, [("http://w.test/in.jpg", "200 OK", PHOTOS[1], JPEG)])
    (held, _) = addresses(whole, QUICK)
    whole.write_bytes(whole.read_bytes()[: held.held.offset])
    with pytest.raises(UserError, match="is not what it was"):
        shard([held], tmp_path / "a", QUICK)


@pytest.mark.parametrize("gz", [True, False])
def test_of_a_warc_that_is_damaged_what_comes_before_is_used(gz, tmp_path, caplog):
    """As a crawl that was killed leaves it, and as a disk may."""
    file = tmp_path / ("crawl.warc.gz" if gz else "crawl.warc")
    records = [(f"http://w.test/{n}.jpg", "200 OK", PHOTOS[n], JPEG) for n in range(4)]
    warc(file, records, gz)
    whole, web = file.read_bytes(), Web(QUICK)
    rng = random.Random(0)
    cut, damaged = set(), set()
    for n in range(60):
        content = bytearray(whole[: rng.randrange(1, len(whole))] if n % 2 else whole)
        for _ in range(0 if n % 2 else 3):
            content[rng.randrange(len(content))] = rng.randrange(256)
        file.write_bytes(content)
        try:
            found = [*addresses(file, QUICK)]
        except UserError as error:
            damaged.add(str(error).partition(":")[0])
            continue
        for address in found:
            try:
                held = held_image(address.held, address.url, web)
                if n % 2:
                    assert held.content in PHOTOS
            except (Refused, UserError) as error:
                cut.add(str(error))
    assert "cut off in its WARC" in cut
    assert damaged
    assert not any("warcio recompress" in why for why in damaged)


def test_words_by_which_images_are_reserved():
    assert reserved(["index, follow"], "selftaught") is None
    assert reserved(["otherbot: noai", "noindex"], "selftaught") == "noindex"
    assert reserved(["SelfTaught: none"], "selftaught") == "none"


def test_bytes_that_only_begin_like_an_image():
    assert format_of(b"") is None
    assert format_of(b"BM" + bytes(62)) is None
    assert format_of(zlib.compress(PHOTOS[0])) is None
    assert format_of(b"%PDF-1.7") is None


def test_no_image_is_judged_by_what_this_machine_lacks(server, tmp_path, monkeypatch):
    def full(*given: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(wire.socket, "socket", full)
    with pytest.raises(OSError, match="Too many open files"):
        shard([Address(server.url("/0.jpg"))], tmp_path / "a", QUICK)
    assert [*tmp_path.iterdir()] == []
