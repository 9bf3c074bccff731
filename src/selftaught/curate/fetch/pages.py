"""Images that a page of HTML names, each at its largest and with what is said of it."""

import codecs
import re
from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import urljoin

from selftaught.curate.fetch.address import canonical, plain
from selftaught.curate.fetch.extra import needed
from selftaught.curate.fetch.robots import reserved

MAX_PAGE = 20_000_000
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
# of srcset: an address without a comma at its end, then a width or a density
_CANDIDATE = re.compile(r"[\s,]*(\S*[^\s,])(?:\s+([^,]*))?")
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
    tree = needed("selectolax.lexbor").LexborHTMLParser(_text(content[:MAX_PAGE], charset))
    base = next((_get(n, "href") for n in tree.css("base[href]")), "")
    base = _joined(url, base) or url
    found: dict[str, Named] = {}
    relative = 0
    for choices, text in (*_images(tree), *_previews(tree)):
        addresses = [a for a in choices if a.strip() and not _EMBEDDED.match(a)]
        spelled = next(filter(None, (canonical(a, base) for a in addresses)), None)
        if spelled is not None:
            old = found.get(spelled)
            if old is None or (text and not old.text):
                found[spelled] = Named(spelled, text)
        elif addresses and not base:
            relative += 1
    return Page(tuple(found.values()), _reserved(tree, agent), relative)


def _images(tree: Any) -> Iterator[tuple[list[str], str]]:
    """Addresses of each `<img>`, the best first, and its text."""
    for node in tree.css("img"):
        sets = [_get(node, name) for name in ("srcset", *_LAZY_SETS)]
        plain = [_get(node, name) for name in (*LAZY, "src")]
        parent = node.parent
        if parent is not None and parent.tag == "picture":
            sources = parent.css("source")
            sets += [_get(s, name) for s in sources for name in ("srcset", *_LAZY_SETS)]
        sized = [c for one in sets for c in candidates(one)]
        # what names no size is as large as what stands in src
        larger = sorted((c for c in sized if c[1] > 1), key=lambda c: -c[1])
        equal = [address for address, scale in sized if scale <= 1]
        yield [*(a for a, _ in larger), *filter(None, plain), *equal], _said(_get(node, "alt"))


def _previews(tree: Any) -> Iterator[tuple[list[str], str]]:
    """The images that a page wants to be shown with where it is linked."""
    metas = [(_get(n, "property") or _get(n, "name"), n) for n in tree.css("meta[content]")]
    texts = [_get(n, "content") for name, n in metas if name.lower() == "og:image:alt"]
    for name, node in metas:
        if name.lower() in _PREVIEWS:
            yield [_get(node, "content")], _said(texts[0] if texts else "")


def candidates(srcset: str) -> list[tuple[str, float]]:
    """Addresses of a `srcset`, each with its width in pixels or its density; 1 where it has none.

    See the HTML standard, "parsing a srcset attribute".
    """
    found = []
    for match in _CANDIDATE.finditer(srcset):
        number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)[wx].*", match[2] or "", re.DOTALL)
        found.append((match[1], float(number[1]) if number else 1.0))
    return found


def _reserved(tree: Any, agent: str) -> str:
    """Why the images of a page are left, by what its `<meta>` say."""
    for node in tree.css("meta[name][content]"):
        name, content = _get(node, "name").lower().strip(), _get(node, "content")
        if name in ("robots", agent.lower()) and (word := reserved([content], agent)):
            return f"its page says {word}"
        if name == "tdm-reservation" and content.strip() == "1":
            return "its page reserves it (tdm-reservation)"
    return ""


def _joined(url: str, base: str) -> str:
    """What addresses are relative to; nothing where it is itself relative to nothing."""
    try:
        joined = urljoin(url, base.strip())
    except ValueError:
        return ""
    return joined if re.match(r"https?://", joined, re.IGNORECASE) else ""


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


def _get(node: Any, name: str) -> str:
    return node.attributes.get(name) or ""


def _said(text: str) -> str:
    """In one line."""
    return plain(" ".join(text.split())[:_MAX_TEXT])
