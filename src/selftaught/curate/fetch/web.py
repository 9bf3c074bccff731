"""The web as fetching sees it: robots.txt, pace, redirects, and images that are what they say."""

import re
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import HTTPResponse
from importlib.metadata import version
from typing import NamedTuple, final
from urllib.parse import urlsplit

from selftaught.curate.fetch.address import Target, target
from selftaught.curate.fetch.guard import Guard
from selftaught.curate.fetch.kept import HEAD, format_of, size
from selftaught.curate.fetch.refused import Refused
from selftaught.curate.fetch.robots import MAX_ROBOTS, Rules, reserved
from selftaught.curate.fetch.settings import Fetching
from selftaught.curate.fetch.wire import Lines, exchange
from selftaught.errors import UserError

_REDIRECTS = (301, 302, 303, 307, 308)
_PASSING = (408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
"""Of HTTP: what may be otherwise later, with those of a large proxy."""
_BLOCK = 64 << 10
_DAY = 86_400.0  # RFC 9309, 2.4: rules are not to be kept for longer


class Image(NamedTuple):
    """An image as it came: `url` is where it was after redirects."""

    url: str
    status: int | None
    kind: str
    content: bytes


@final
class Web:
    """Requests with one's options, and what is learned of hosts on the way.

    One may serve several shards, from several threads: hosts are then looked up, and their
    robots.txt read, for all of them.

    Args:
        asked: what may be fetched, and how.

    Raises:
        UserError: an option that cannot be.
    """

    def __init__(self, asked: Fetching):
        self.asked = asked
        self.guard = Guard(asked.allow, asked.blocklist)
        self.agent, self.headers = _identity(asked)
        self.suffixes = tuple("." + s.lower().lstrip(".") for s in asked.suffixes)
        self.kinds = frozenset(kind.upper() for kind in asked.types)
        self.pace = Pace()
        self._lines = Lines()
        self._rules: dict[str, tuple[float, Rules]] = {}
        self._asking: dict[str, threading.Lock] = {}

    def stop(self) -> None:
        """End what is on its way: nothing more is requested."""
        self.pace.stop()
        self._lines.cut()

    def image(self, url: str) -> Image:
        """Request an image.

        Raises:
            Refused: it is not to be had, or not to be taken.
        """
        self.check_ending(url)
        with self._answer(url, self.asked.max_bytes) as (final_url, response):
            try:
                return self._image(final_url, response)
            except Refused as error:
                error.url, error.status = final_url, response.status
                raise

    def check_ending(self, url: str) -> None:
        """Raise Refused where an address has another ending than those that are asked for."""
        if self.suffixes and not urlsplit(url).path.lower().endswith(self.suffixes):
            raise Refused(f"address does not end in {', '.join(self.suffixes)}")

    def check_host(self, url: str) -> None:
        """Raise Refused where an address is of a host that is on the blocklist."""
        self.guard.check_listed(target(url).host)

    def check_size(self, count: int) -> None:
        """Raise Refused where an image has more bytes than are asked for."""
        if count > self.asked.max_bytes:
            raise Refused(f"larger than {size(self.asked.max_bytes)}")

    def check_header(self, tags: list[str], tdm: list[str]) -> None:
        """Raise Refused where X-Robots-Tag or tdm-reservation, as they came, reserve an image."""
        if not self.asked.opt_outs:
            return
        if word := reserved(tags, self.agent):
            raise Refused(f"X-Robots-Tag says {word}")
        if any(value.strip() == "1" for value in tdm):
            raise Refused("tdm-reservation reserves it")

    def check_kind(self, head: bytes, said: str, packed: str = "") -> str:
        """The format of an image by its first bytes.

        Args:
            head: `HEAD` of them.
            said: type of the content, as the server says.
            packed: how, as the server says.

        Raises:
            Refused: it is none, or none that is asked for.
        """
        kind = format_of(head)
        if kind is None:
            said = re.sub(r"[^\w/+.-]", "", said.partition(";")[0])[:60] or "content of no type"
            if packed.strip().lower() not in ("", "identity"):
                raise Refused("packed content, which was not asked for")
            if not head:
                raise Refused("empty")
            held = said.startswith("image/")
            raise Refused(f"said to be {said}, and is not" if held else f"{said} is no image")
        if kind not in self.kinds:
            raise Refused(f"{kind} is not asked for")
        return kind

    # ---------------------------------------------------------------------------------- one request

    @contextmanager
    def _answer(
        self, url: str, most: int, robots: bool = True
    ) -> Iterator[tuple[str, HTTPResponse]]:
        """The answer after redirects, each of which is checked as the first address is.

        Args:
            url: what is asked for.
            most: bytes of the body.
            robots: whether robots.txt is asked; not for itself.
        """
        for hop in range(self.asked.max_redirects + 1):
            try:
                to = target(url)
                with self._asked(to, most, robots) as response:
                    if response.status not in _REDIRECTS:
                        yield to.url, response
                        return
                    url = _redirected(response, to)
            except Refused as error:
                error.url = error.url or url
                if hop and error.status is None and not error.transient:
                    error.reason = f"redirected: {error.reason}"
                raise
        refused = Refused(f"more than {self.asked.max_redirects} redirects")
        refused.url = url
        raise refused

    @contextmanager
    def _asked(self, to: Target, most: int, robots: bool) -> Iterator[HTTPResponse]:
        ips = self.guard.check(to)
        if robots:
            self.pace.wait(to.host, self._interval(to))
        timeout = self.asked.timeout
        with exchange(to, ips, self.headers, timeout, most, self._lines) as response:
            yield response

    def _interval(self, to: Target) -> float:
        """Seconds between requests to a host, which lets us ask for `to`; Refused where not."""
        interval = 1 / self.asked.per_host
        if not self.asked.robots:
            return interval
        rules = self._rules_of(to)
        if not rules.allows(to.url):
            raise Refused("robots.txt forbids")
        if rules.delay > self.asked.max_delay:
            raise Refused(f"robots.txt asks for {rules.delay:g} s between requests")
        return max(interval, rules.delay)

    def _rules_of(self, to: Target) -> Rules:
        """What robots.txt of a host says, asked for once a day, by one thread."""
        with self._asking.setdefault(to.origin, threading.Lock()):
            known = self._rules.get(to.origin)
            if known is None or time.monotonic() > known[0] + _DAY:
                known = time.monotonic(), Rules(self._robots(to), self.agent)
                self._rules[to.origin] = known
            return known[1]

    def _robots(self, to: Target) -> bytes | None:
        """robots.txt, None where there is none; where it is not known, all is forbidden.

        RFC 9309, 2.3.1: an answer 4xx allows all, 5xx and none forbid all.
        """
        try:
            with self._answer(f"{to.origin}/robots.txt", MAX_ROBOTS, False) as (_, response):
                status = response.status
                if status == HTTPStatus.OK:
                    return _robots_text(response)
        except Refused as error:
            reason = f"robots.txt cannot be had: {error.reason}"
            raise Refused(reason, error.transient) from error
        if 400 <= status < 500 and status != HTTPStatus.TOO_MANY_REQUESTS:
            return None
        raise Refused(f"robots.txt cannot be had: {_phrase(status)}", transient=True)

    # ------------------------------------------------------------------------------------ one image

    def _image(self, url: str, response: HTTPResponse) -> Image:
        status, header = response.status, response.headers
        if status != HTTPStatus.OK:
            wait = _wait(header.get("Retry-After", "")) if status in (429, 503) else 0.0
            raise Refused(_phrase(status), status in _PASSING, status, wait)
        self.check_header(
            header.get_all("X-Robots-Tag") or [], header.get_all("tdm-reservation") or []
        )
        self.check_size(response.length or 0)
        said, packed = header.get("Content-Type", ""), header.get("Content-Encoding", "")
        blocks = [response.read(HEAD)]
        kind = self.check_kind(blocks[0], said, packed)
        count = len(blocks[0])
        while block := response.read(_BLOCK):
            blocks.append(block)
            count += len(block)
            self.check_size(count)
        if response.length:  # read(n) does not say that the end is missing
            raise Refused(f"cut off, {response.length:,} bytes before its end", transient=True)
        return Image(url, status, kind, b"".join(blocks))


@final
class Pace:
    """When each host may be asked next."""

    def __init__(self) -> None:
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def next(self, host: str) -> float:
        """Time, of the monotonic clock, from which on it may be asked."""
        return self._next.get(host, 0.0)

    def wait(self, host: str, interval: float) -> None:
        """Wait for a turn of it, and take it: the next one is `interval` seconds later."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self.next(host))
            self._next[host] = turn + interval
        if self._stopped.wait(turn - now):
            raise Refused("stopped", transient=True)

    def hold(self, host: str, seconds: float) -> None:
        """Leave it alone for so long."""
        with self._lock:
            self._next[host] = max(self.next(host), time.monotonic() + seconds)

    def stop(self) -> None:
        """Let nobody wait any longer."""
        self._stopped.set()


def _identity(asked: Fetching) -> tuple[str, Mapping[str, str]]:
    """Our name in robots.txt, and the headers that say who asks."""
    own = asked.user_agent or f"selftaught/{version('selftaught')}"
    full = f"{own} (+{asked.contact})" if asked.contact else own
    agent = re.match(r"[\w-]+", own)
    if agent is None or not full.isascii() or not full.isprintable():
        raise UserError(
            f"user_agent and contact must be ASCII and begin with a name, as MyBot/1.0, got {full}"
        )
    headers = {"User-Agent": full, "Accept": "image/*, */*;q=0.5"}
    # packed answers could unpack to anything, and images are packed already
    return agent[0], headers | {"Accept-Encoding": "identity", "Connection": "close"}


def _redirected(response: HTTPResponse, to: Target) -> str:
    place = response.headers.get("Location")
    if not place:
        raise Refused(f"{response.status} without an address", status=response.status)
    with suppress(UnicodeError):  # headers are read as Latin-1, and many servers write UTF-8
        place = place.encode("latin-1").decode("utf-8")
    try:
        return target(place, to.url).url
    except Refused as error:
        raise Refused(f"redirected: {error.reason}", status=response.status) from error


def _robots_text(response: HTTPResponse) -> bytes:
    """The beginning of robots.txt; Refused where it was cut, as the rules of the rest are lost."""
    content = response.read(MAX_ROBOTS)
    if response.length and len(content) < MAX_ROBOTS:
        raise Refused("cut off", transient=True)
    packed = response.headers.get("Content-Encoding", "").strip().lower()
    if packed in ("", "identity"):
        return content
    try:
        return zlib.decompressobj(32 + zlib.MAX_WBITS).decompress(content, MAX_ROBOTS)
    except zlib.error as error:
        raise Refused("packed content, which was not asked for") from error


def _phrase(status: int) -> str:
    """404 Not Found, in the standard's words rather than the server's."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"status {status}"


def _wait(said: str) -> float:
    """Seconds of Retry-After, which may be a date; 0 where it says nothing."""
    if re.fullmatch(r"\d{1,9}", said.strip()):
        return float(said)
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return 0.0
