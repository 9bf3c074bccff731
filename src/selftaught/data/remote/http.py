"""Files on web servers, by ranges; whole where a server knows none."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, final
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

from selftaught.data.ranges import Facts
from selftaught.data.remote.store import CONNECT, READ, Fault, Keep, Store, changed, patiently
from selftaught.data.shards import BLOCK
from selftaught.errors import UserError

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOVED = 600.0  # seconds for which a server is taken at its word that a file lies elsewhere
_moved: dict[str, tuple[str, float]] = {}
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@final
class Http(Store):
    """`http://` and `https://`.

    Nothing is listed, and nobody is logged in: what needs that has its own kind of address.
    """

    def facts(self, address: str) -> Facts:
        return facts_of(address, address, {})

    def fetch(self, address: str, offset: int, size: int, facts: Facts, keep: Keep) -> bytes:
        return fetched(address, address, {}, (offset, size), facts, keep)

    def inside(self, address: str) -> list[str]:
        raise UserError(
            f"{address} cannot be listed, as web servers do not tell what they have: name the "
            "shards, such as https://example.org/shard-{000..127}.tar"
        )


def facts_of(address: str, url: str, headers: dict[str, str]) -> Facts:
    """Of a file on a server; as `Store.facts`.

    Args:
        address: what it is called.
        url: where it is.
        headers: further ones, such as who asks.
    """

    def attempt() -> Facts:
        with _answer(url, headers | {"Range": "bytes=0-0"}) as answer:
            _refuse(address, answer)
            _remember(url, answer)
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status == 206 and found and found[3] != "*":
                return Facts(int(found[3]), _stamp(answer))
            if answer.status == 416:
                return Facts(0, _stamp(answer))
            length = answer.headers.get("Content-Length", "")
            if answer.status != 200 or not length.isdecimal():
                raise UserError(f"{address}: the server does not tell how long it is")
            return Facts(int(length), _stamp(answer))

    return patiently(address, attempt)


def fetched(
    address: str,
    url: str,
    headers: dict[str, str],
    part: tuple[int, int],
    facts: Facts,
    keep: Keep,
) -> bytes:
    """Part of a file on a server, (offset, size); as `Store.fetch` and `facts_of`."""
    offset, size = part

    def attempt() -> bytes:
        place, since = _moved.get(url, (url, 0.0))
        if place != url and time.monotonic() - since > _MOVED:
            del _moved[url]
            place = url
        asked = headers if urlsplit(place).netloc == urlsplit(url).netloc else {}
        asked = asked | {"Range": f"bytes={offset}-{offset + size - 1}"}
        with _answer(place, asked) as answer:
            if place != url and answer.status in (401, 403, 404):  # it was for a time
                del _moved[url]
                raise Fault(f"what it led to answers with status {answer.status}")
            _refuse(address, answer)
            if place == url:
                _remember(url, answer)
            if answer.status == 416:
                raise changed(address, "it has become shorter")
            if _stamp(answer) != facts.stamp:
                raise changed(address, f"its tag was {facts.stamp} and is {_stamp(answer)}")
            if answer.status == 200:
                return _from_all(address, answer, part, facts, keep)
            found = _RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != 206 or not found or found[1] is None:
                raise Fault(f"the server answers a range with status {answer.status}")
            if found[3] not in ("*", str(facts.size)):
                raise changed(address, f"{facts.size:,} bytes then, {int(found[3]):,} now")
            if (int(found[1]), int(found[2])) != (offset, offset + size - 1):
                raise Fault(f"the server answers with other bytes than asked for ({found[0]})")
            return _body(answer, size)

    return patiently(address, attempt)


def _from_all(address: str, answer: Any, part: tuple[int, int], facts: Facts, keep: Keep) -> bytes:
    """Part of a file that is sent as a whole; what comes along is kept."""
    offset, size = part
    length = answer.headers.get("Content-Length")
    if length is not None and length != str(facts.size):
        raise changed(address, f"{facts.size:,} bytes then, {length} now")
    wanted = bytearray()
    for start in range(0, facts.size, BLOCK):
        block = _body(answer, min(BLOCK, facts.size - start), start + BLOCK >= facts.size)
        wanted += block[max(0, offset - start) : max(0, offset + size - start)]
        keep(start, block)
    return bytes(wanted)


def _body(answer: Any, size: int, ends: bool = True) -> bytes:
    """So many bytes of an answer, after which it `ends`."""
    data = bytearray()
    while len(data) < size + ends:
        more = answer.read(size + ends - len(data))
        if not more:
            break
        data += more
    if len(data) != size:
        more = "more than" if len(data) > size else f"{len(data):,} of"
        raise Fault(f"the server sent {more} {size:,} bytes")
    return bytes(data)


def _refuse(address: str, answer: Any) -> None:
    """Raise for whatever is no answer with content."""
    if answer.status in (200, 206, 416):
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise Fault("the server sends it compressed")
        return
    if answer.status in _AGAIN:
        after = answer.headers.get("Retry-After", "")
        raise Fault(f"status {answer.status}", float(after) if after.isdecimal() else 0.0)
    if answer.status in (404, 410):
        raise UserError(f"{address} does not exist")
    if answer.status in (401, 403):
        raise UserError(
            f"{address} may not be read (status {answer.status}): log in where it lies, or ask for "
            "access"
        )
    raise UserError(f"{address} cannot be read: the server answers with status {answer.status}")


def _remember(url: str, answer: Any) -> None:
    """Where a file lies to which the answer was redirected."""
    place = url
    for step in answer.retries.history if answer.retries else ():
        place = urljoin(place, step.redirect_location or "")
    if place != url:
        _moved[url] = place, time.monotonic()


def _stamp(answer: Any) -> str:
    """What changes where a file does."""
    headers = answer.headers
    return headers.get("ETag") or headers.get("Last-Modified") or ""


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The answer to a request, whose connection is used again where it was read to its end."""
    urllib3, pool = _library(), _pool(os.getpid(), _proxy(url))
    answer = None
    try:
        answer = pool.request(
            "GET",
            url,
            headers={"Accept-Encoding": "identity", "User-Agent": "selftaught"} | headers,
            preload_content=False,
            decode_content=False,
            retries=urllib3.Retry(
                connect=False,
                read=False,
                status=False,
                other=False,
                redirect=8,
                respect_retry_after_header=False,
            ),
            timeout=urllib3.Timeout(connect=CONNECT, read=READ),
        )
        yield answer
        answer.drain_conn() if answer.status == 206 else answer.close()
    except (urllib3.exceptions.HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise Fault(" ".join(f"{type(error).__name__}: {reason}".split())) from error
    finally:
        if answer is not None:
            answer.release_conn()


@cache
def _pool(process: int, proxy: str) -> Any:
    """Connections of this process: those of another one, that it was forked from, are not its."""
    if proxy:
        return _library().ProxyManager(proxy, maxsize=16)
    return _library().PoolManager(maxsize=16)


def _library() -> Any:
    try:
        import urllib3
    except ImportError as error:
        raise UserError(
            "addresses of web servers are read with an extra: pip install 'selftaught[remote]'"
        ) from error
    return urllib3


def _proxy(url: str) -> str:
    """What the environment names for an address; empty where it is reached directly."""
    parts = urlsplit(url)
    return "" if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme, "")
