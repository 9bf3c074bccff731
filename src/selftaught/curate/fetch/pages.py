"""Images that a page of HTML names, each at its largest and with what is said of it."""

import codecs
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from selftaught.curate.fetch.address import canonical, plain
from selftaught.curate.fetch.robots import reserved
from selftaught.curate.fetch.tags import tags

MAX_PAGE = 10_000_000
"""Bytes of a page that are looked at."""

LAZY = (
    *("data-src", "data-original", "data-lazy-src", "data-lazy", "data-original-src"),
    *("data-actualsrc", "data-hi-res-src", "data-full-src"),
)
"""Where scripts find an address that they write into `src` once somebody scrolls there."""

_LAZY_SETS = ("data-srcset", "data-lazy-srcset", "data-original-set")
_PREVIEWS = ("og:image", "og:image:url", "og:image:secure_url", "twitter:image")
_MAX_TEXT = 10_000
_EMBEDDED = re.compile(r"\s*(data|javascript|blob|about|cid|chrome|file):", re.IGNORECASE)
_ABSOLUTE = re.compile(r"\s*[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_CANDIDATE = re.compile(r"[\s,]*([^\s,]\S*)")
_SIZE = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)[wx]")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w:.-]+)", re.IGNORECASE)


class Named(NamedTuple):
    """An image of a page: where it is and what is said of it."""

    url: str
    text: str


class Page(NamedTuple):
    """What a page says.

    Args:
        images: in their order, each address once.
        reserved: the words by which the page reserves them; nothing where it does not.
        relative: addresses that are relative to one that is not known.
    """

    images: tuple[Named, ...]
    reserved: str
    relative: int


def read_page(content: bytes, url: str, agent: str, charset: str | None = None) -> Page:
    """The images of a page.

    Args:
        content: of the page.
        url: its address; nothing where that is not known.
        agent: our name, to which a page may speak as to all.
        charset: of its text, as a server says; by default as the page says.
    """
    text = _text(content[:MAX_PAGE], charset)
    bases = (attributes["href"] for _, attributes in tags(text, "base") if "href" in attributes)
    base = canonical(next(bases, ""), url) or url
    found: dict[str, Named] = {}
    metas = [attributes for _, attributes in tags(text, "meta")]
    relative = 0
    for choices, said in (*_images(text), *_previews(metas)):
        addresses = [a for a in choices if a.strip() and not _EMBEDDED.match(a)]
        spelled = next(filter(None, (canonical(a, base) for a in addresses)), None)
        if spelled is not None:
            old = found.get(spelled)
            if old is None or (said and not old.text):
                found[spelled] = Named(spelled, said)
        elif addresses and not base:
            relative += not any(map(_ABSOLUTE.match, addresses))
    return Page(tuple(found.values()), _reserved(metas, agent), relative)


def _images(text: str) -> Iterator[tuple[list[str], str]]:
    """Addresses of each `<img>`, the best first, and its text."""
    sources: list[str] = []  # of the `<picture>` that is open
    for name, attributes in tags(text, "picture", "/picture", "source", "img"):
        sets = [attributes[s] for s in ("srcset", *_LAZY_SETS) if s in attributes]
        if name == "source":
            sources += sets
            continue
        if name == "img":
            sized = [c for one in (*sets, *sources) for c in candidates(one)]
            # what names no size is as large as what stands in src
            larger = sorted((c for c in sized if c[1] > 1), key=lambda c: -c[1])
            equal = [address for address, scale in sized if scale <= 1]
            plain = [attributes[s] for s in (*LAZY, "src") if s in attributes]
            yield [*(a for a, _ in larger), *plain, *equal], _said(attributes.get("alt", ""))
        sources = []


def _previews(metas: Sequence[Mapping[str, str]]) -> Iterator[tuple[list[str], str]]:
    """The images that a page wants to be shown with where it is linked."""
    named = [(m.get("property", m.get("name", "")).lower(), m.get("content", "")) for m in metas]
    text = next((content for name, content in named if name == "og:image:alt"), "")
    for name, content in named:
        if name in _PREVIEWS:
            yield [content], _said(text)


def candidates(srcset: str) -> list[tuple[str, float]]:
    """Addresses of a `srcset`, each with its width in pixels or its density; 1 where it has none.

    See the HTML standard, "parsing a srcset attribute".
    """
    found, at = [], 0
    while match := _CANDIDATE.match(srcset, at):
        address, end = match[1], match.end()
        if address.endswith(","):
            address, at = address.rstrip(","), end
        else:
            comma = srcset.find(",", end)
            at = len(srcset) if comma < 0 else comma
        size = _SIZE.match(srcset, end, at) if at > end else None
        found.append((address, float(size[1]) if size else 1.0))
    return found


def _reserved(metas: Sequence[Mapping[str, str]], agent: str) -> str:
    """Why the images of a page are left, by what its `<meta>` say."""
    for meta in metas:
        name, content = meta.get("name", "").lower().strip(), meta.get("content", "")
        if name in ("robots", agent.lower()) and (word := reserved([content], agent)):
            return f"its page says {word}"
        if name == "tdm-reservation" and content.strip() == "1":
            return "its page reserves it (tdm-reservation)"
    return ""


def _text(content: bytes, charset: str | None) -> str:
    if content.startswith(codecs.BOM_UTF8):
        charset = "utf-8-sig"
    elif content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        charset = "utf-16"
    elif charset is None:
        match = _CHARSET.search(content[:4096])
        charset = match[1].decode("ascii", "replace") if match else "utf-8"
    if charset.lower().replace("_", "-") in ("iso-8859-1", "latin-1", "us-ascii", "ascii"):
        charset = "cp1252"  # as browsers read it
    try:
        text = content.decode(charset, "replace")
    except (LookupError, ValueError):  # there is no such one
        text = content.decode("utf-8", "replace")
    return text.replace("\0", "")


def _said(text: str) -> str:
    """In one line."""
    return plain(" ".join(text.split())[:_MAX_TEXT])
