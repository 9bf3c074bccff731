"""What robots.txt allows (RFC 9309), and what pages and headers reserve (noai, TDM)."""

import re
from collections.abc import Iterable
from typing import Any, final

from selftaught.curate.fetch.extra import needed

MAX_ROBOTS = 500 << 10
"""Bytes of robots.txt that are read: RFC 9309 asks for at least as many."""

RESERVED = ("noai", "noimageai", "noindex", "noimageindex", "none")
"""Words of X-Robots-Tag and `<meta name=robots>` by which images are left."""

_VALUED = ("unavailable_after", "max-snippet", "max-image-preview", "max-video-preview")


@final
class Rules:
    """What a host's robots.txt says to one agent.

    Args:
        content: of the file, up to `MAX_ROBOTS` bytes; None where there is no such file.
        agent: name by which it speaks to us.
    """

    def __init__(self, content: bytes | None, agent: str):
        self.agent = agent
        self._rules: Any = None
        if content is not None:
            text = content[:MAX_ROBOTS].decode("utf-8-sig", "replace")
            self._rules = needed("protego").Protego.parse(text)

    def allows(self, url: str) -> bool:
        """Whether it may be requested."""
        return self._rules is None or bool(self._rules.can_fetch(url, self.agent))

    @property
    def delay(self) -> float:
        """Seconds between requests that it asks for."""
        if self._rules is None:
            return 0.0
        rate = self._rules.request_rate(self.agent)
        spaced = rate.seconds / rate.requests if rate is not None and rate.requests else 0.0
        return max(float(self._rules.crawl_delay(self.agent) or 0.0), spaced)


def reserved(values: Iterable[str], agent: str) -> str | None:
    """The word of X-Robots-Tag, or of a page's `robots`, by which images are left, if there is one.

    Args:
        values: of headers, such as `noai, noimageai` or `selftaught: noindex`.
        agent: our name; what is said to others does not count.
    """
    for value in values:
        to = ""
        for word in re.split(r"[,;]", value.lower()):
            before, colon, after = word.partition(":")
            if colon and before.strip() not in _VALUED:
                to, word = before.strip(), after
            if word.strip() in RESERVED and to in ("", agent.lower()):
                return word.strip()
    return None
