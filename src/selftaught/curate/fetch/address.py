"""Addresses of images: how they are spelled, and what is known of them before any request."""

import hashlib
import re
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from selftaught.curate.fetch.extra import needed
from selftaught.curate.fetch.refused import Refused

PORTS = {"http": 80, "https": 443}
"""Schemes that are requested, and their ports."""

_MAX = 8192  # servers take no longer ones
_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_PATH = "/%:@!$&'()*+,;=~-._"
_QUERY = _PATH + "?[]|`{}^\\"


class Held(NamedTuple):
    """A record of a WARC that holds an image, so that nobody is asked for it."""

    file: str
    offset: int


class Address(NamedTuple):
    """An image that is to be had.

    Args:
        url: where it is, as `canonical` spells it, or what a list has in place of that.
        page: the first page that names it; nothing where there is none.
        text: what the page says that it shows.
        held: where it lies already.
        refused: why it is left although nobody was asked.
    """

    url: str
    page: str = ""
    text: str = ""
    held: Held | None = None
    refused: str = ""

    @property
    def key(self) -> str:
        """Name of the member of a shard: 32 hexadecimal digits of the address's SHA-256."""
        return hashlib.sha256(self.url.encode("utf-8", "replace")).hexdigest()[:32]


class Target(NamedTuple):
    """Where a request goes by name: `host` in ASCII, `path` with the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Host and, where it is not the usual one, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """That which one robots.txt is for."""
        return f"{self.scheme}://{self.authority}"

    @property
    def url(self) -> str:
        """The address in full."""
        return self.origin + self.path


def target(url: str, base: str = "") -> Target:
    """The parts of an address, of which each has one spelling.

    Args:
        url: as it was found, perhaps relative; blanks around and line breaks within do not count.
        base: what it is relative to.

    Raises:
        Refused: it is none that can be requested.
    """
    text = re.sub(r"[\t\r\n]", "", url.strip())
    if len(text) > _MAX:
        raise Refused(f"address of {len(text):,} characters")
    if text.startswith("//") and not base:
        text = "https:" + text
    try:
        parts = urlsplit(urljoin(base, text) if base else text)
        port = parts.port
    except ValueError as error:
        raise Refused("no address that can be requested") from error
    scheme = parts.scheme.lower()
    if scheme not in PORTS:
        what = f"{scheme}: is not requested" if scheme else "no address with http or https"
        raise Refused(what)
    if parts.username is not None or parts.password is not None:
        raise Refused("address with a user name")
    return Target(scheme, _host(parts.hostname or ""), port or PORTS[scheme], _path(parts))


def canonical(url: str, base: str = "") -> str | None:
    """One spelling of an address without its fragment; None where it cannot be requested."""
    try:
        return target(url, base).url
    except Refused:
        return None


def plain(text: str) -> str:
    """Such that any file can hold it: what is no text becomes question marks."""
    return text.encode("utf-8", "replace").decode()


def _host(name: str) -> str:
    host = name.rstrip(".").lower()
    if not host.isascii():
        try:
            host = needed("idna").encode(host, uts46=True).decode("ascii")
        except UnicodeError as error:
            raise Refused("no name of a host") from error
    if not host or len(host) > 253 or not re.fullmatch(r"[a-z0-9._:%-]+", host):
        raise Refused("no name of a host")
    return host


def _path(parts: SplitResult) -> str:
    try:
        path = quote(parts.path or "/", safe=_PATH)
        query = quote(parts.query, safe=_QUERY)
    except UnicodeError as error:  # half a pair of surrogates
        raise Refused("no address that can be requested") from error
    path = path if path.startswith("/") else "/" + path
    return _CONTROL.sub("", f"{path}?{query}" if query else path)
