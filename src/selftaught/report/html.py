"""Pieces of a page, and how to take values from files that may hold anything."""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from selftaught.nouns import worded

SAID = 240
"""Letters of a text that are shown."""

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline';
 script-src 'sha256-{allowed}'">
<title>{title}</title><style>{style}</style></head><body><main>
"""


class Section(NamedTuple):
    """A part of the page. title and note are text, body is HTML."""

    title: str
    body: str
    note: str = ""


class Missing(NamedTuple):
    """A part that the page does without, and why, as a sentence without its full stop."""

    title: str
    why: str


def page(title: str, top: Sequence[str], parts: Iterable[Section | Missing | None]) -> str:
    """A whole page that runs one script, this package's, and loads nothing.

    Args:
        title: text.
        top: HTML above the sections.
        parts: in order; those that are missing are told at the end, each with its reason.
    """
    here = Path(__file__)
    script = here.with_name("map.js").read_text("utf-8")
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style = here.with_name("style.css").read_text("utf-8")
    known = [p for p in parts if p is not None]
    sections = [p for p in known if isinstance(p, Section)]
    if absent := [p for p in known if isinstance(p, Missing)]:
        items = "".join(f"<li><b>{escape(m.title)}</b>: {escape(m.why)}.</li>" for m in absent)
        sections.append(Section("Not on this page", f'<ul class="absent">{items}</ul>'))
    links = "".join(f'<a href="#{slug(s.title)}">{escape(s.title)}</a>' for s in sections)
    return "\n".join(
        [
            _HEAD.format(title=escape(title), style=style, allowed=allowed),
            *top,
            f"<nav>{links}</nav>",
            *map(_section, sections),
            f"</main><script>{script}</script></body></html>\n",
        ]
    )


def slug(title: str) -> str:
    """A title as an anchor."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"


def _section(s: Section) -> str:
    note = f'<p class="note">{escape(worded(s.note))}</p>' if s.note else ""
    return (
        f'<section id="{slug(s.title)}"><h2>{escape(worded(s.title))}</h2>{note}{s.body}</section>'
    )


def missing(text: str) -> str:
    """A sentence in place of a figure."""
    return f'<p class="missing">{escape(worded(text))}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts; where all heads are empty there is no row of heads."""
    heads = "".join(f"<th>{escape(worded(h))}</th>" for h in head)
    cells = (("".join(f"<td>{escape(worded(cell))}</td>" for cell in row)) for row in rows)
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    return f"<table>{f'<tr>{heads}</tr>' if any(head) else ''}{body}</table>"


def figure(url: str, name: str, caption: str = "", style: str = "") -> str:
    """An image with its name as alternative text, and a line below."""
    kind = f' class="{style}"' if style else ""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    name = escape(name)
    return f'<figure{kind}><img alt="{name}" title="{name}" src="{url}">{below}</figure>'


def quote(text: str, name: str, caption: str = "", style: str = "") -> str:
    """Words in place of an image, cut where they are many, and a line below."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    said = text if len(text) <= SAID else text[: SAID - 1].rsplit(" ", 1)[0] + " …"
    kind = f"said {style}".strip()
    return (
        f'<figure class="{kind}"><blockquote title="{escape(name)}">{escape(said)}</blockquote>'
        f"{below}</figure>"
    )


def passage(data: bytes) -> str:
    """A text with what was said in place of some of it: JSON, a list of [text, said or null]."""
    parts = []
    try:
        pieces = [(str(stands), said) for stands, said in json.loads(data)]
    except (ValueError, TypeError, RecursionError):
        return missing("This text is damaged.")
    for stands, said in pieces:
        if not isinstance(said, str):
            parts.append(escape(stands))
        elif said == stands:
            parts.append(f'<mark class="right">{escape(stands)}</mark>')
        else:
            parts.append(f'<mark class="wrong"><s>{escape(stands)}</s>{escape(said)}</mark>')
    return f'<p class="passage">{"".join(parts)}</p>'


def strip(figures: Iterable[str], name: str = "", style: str = "") -> str:
    """Figures side by side, under a name."""
    heading = f"<h3>{escape(name)}</h3>" if name else ""
    kind = f"strip {style}".strip()
    return f'{heading}<div class="{kind}">{"".join(figures)}</div>'


# values of files ---------------------------------------------------------------------------------


def texts(node: dict[str, Any], name: str) -> list[str]:
    """The strings of a list."""
    value = node.get(name)
    return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def dicts(value: Any) -> list[dict[str, Any]]:
    """The mappings of a list."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    """A mapping, empty where it is none."""
    return value if isinstance(value, dict) else {}


def real(value: Any) -> float:
    """A number, 0 where it is none."""
    return float(value) if isinstance(value, int | float) else 0.0


def pair(value: Any) -> tuple[float, float]:
    """Two numbers, zeros where they are none."""
    two = value if isinstance(value, list) and len(value) == 2 else [0, 0]
    return real(two[0]), real(two[1])
