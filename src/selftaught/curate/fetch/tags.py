"""The tags of a page that are asked for, in a time that grows with the page and no faster.

A parser that builds the tree of a page looks back from each tag through all that are open, and
from each attribute through those before it: a hostile page of 300 kB keeps it busy for half a
minute, one of 10 MB for days. What is wanted here needs no tree.
"""

import re
from collections.abc import Iterator
from html import unescape

_RAW = ("script", "style", "textarea", "title", "xmp", "iframe", "noembed", "noframes")
"""Elements whose content is text, whatever it looks like."""

_ATTRIBUTE = re.compile(
    r"""[\s/]*([^\s/>][^\s/>=]*)  # a name
    (?:\s*=\s*(?: "([^"]*)" | '([^']*)' | ([^\s>"'][^\s>]*) | ))?""",
    re.VERBOSE,
)
_END = re.compile(r"[\s/]*>")


def tags(page: str, *names: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Tags by name, with their attributes; of closing ones the name begins with a slash.

    Comments, scripts and other text are passed over.

    Args:
        page: HTML.
        names: in small letters.
    """
    any_of = "|".join(map(re.escape, (*names, *_RAW)))
    wanted = re.compile(rf"<(?:(!--)|({any_of})(?=[\s/>]))", re.IGNORECASE)
    at = 0
    while match := wanted.search(page, at):
        if match[1]:
            at = page.find("-->", match.end())
            if at < 0:
                return
            continue
        name = match[2].lower()
        attributes, at = _attributes(page, match.end())
        if name in names:
            yield name, attributes
        if name in _RAW:
            end = re.compile(rf"</{name}", re.IGNORECASE).search(page, at)
            if end is None:
                return
            at = end.end()


def _attributes(page: str, at: int) -> tuple[dict[str, str], int]:
    """The attributes of a tag, of several by one name the first, and where it ends."""
    found: dict[str, str] = {}
    while True:
        if end := _END.match(page, at):
            return found, end.end()
        match = _ATTRIBUTE.match(page, at)
        if match is None:  # the page ends within the tag
            return {}, len(page)
        value = next((v for v in match.groups()[1:] if v is not None), "")
        found.setdefault(match[1].lower(), unescape(value))
        at = match.end()
