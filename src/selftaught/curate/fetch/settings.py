"""What fetching may be asked for: each option once. Nothing heavy is imported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from selftaught.roles import Count, Number, Positive
from selftaught.signature import Options


@dataclass(frozen=True)
class Fetching(Options):
    """How images are fetched, from whom, and what is left alone.

    Args:
        contact: address of a page, or e-mail address, of whoever fetches, for those who run the
            servers: it is sent with each request.
        connections: requests at a time, one a host.
        per_host: requests a second to a host, at most.
        timeout: seconds for a request, from the connection to the last byte.
        max_bytes: of an image; larger ones are left.
        blocklist: file of hosts, one a line, from which nothing is fetched, nor from their
            subdomains.
        base: address of the pages in files of HTML that do not say it, for relative addresses; of
            a folder, that of the folder.

    Other Args:
        column: of a list that holds the addresses, where it is not found by itself.
        types: formats that are kept, by the content's first bytes.
        suffixes: endings that addresses must have, such as .jpg,.png; by default any.
        retries: further tries after faults that may pass: no answer, 429, 5xx.
        backoff: seconds before the first of them; each further one waits twice as long.
        max_delay: seconds between requests that a server may ask for; where it asks for more, its
            images are left.
        max_redirects: redirects that are followed.
        robots: whether robots.txt is asked and obeyed.
        opt_outs: whether noai, noimageai, noindex, noimageindex and TDM reservations are obeyed, in
            headers of images and in pages.
        allow: hosts and networks of one's own, such as localhost,10.1.0.0/16, that may be
            private and have any port.
        user_agent: sent in place of selftaught/VERSION; rules of robots.txt for its first word
            are obeyed.
    """

    contact: str | None = None
    connections: Count = 32
    per_host: Positive = 1.0
    timeout: Positive = 20.0
    max_bytes: Count = 20_000_000
    blocklist: Path | None = None
    base: str | None = None
    column: str | None = None
    types: tuple[Literal["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic"], ...] = (
        "jpeg",
        "png",
        "webp",
        "gif",
        "bmp",
        "tiff",
        "avif",
        "heic",
    )
    suffixes: tuple[str, ...] = ()
    retries: Number = 2
    backoff: Positive = 1.0
    max_delay: Positive = 60.0
    max_redirects: Number = 5
    robots: bool = True
    opt_outs: bool = True
    allow: tuple[str, ...] = ()
    user_agent: str | None = None
