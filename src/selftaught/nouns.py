"""The word for what a command is about: sentences speak of images, and mean what was opened."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

BLANK = "have a single color"
"""What is said of images in which nothing is."""

_NOUNS = ["image", "images", BLANK]
_IMAGES = re.compile(r"(?<![\w/.\\=`-])(?<!still )(an? )?([Ii]mages?)(?![\w/\\=-]|\.\w)")


def speak_of(one: str, many: str, blank: str = BLANK) -> None:
    """From now on say `one` and `many` where a sentence speaks of images, and `blank` of those in
    which nothing is.

    Sentences are written for what most people come with; this is the one place that words them for
    other samples. Whatever opens data calls it.
    """
    _NOUNS[:] = one, many, blank


@contextmanager
def going_on() -> Iterator[None]:
    """A block that opens other data, after which sentences speak of what they spoke of before."""
    before = tuple(_NOUNS)
    yield  # an error is about the other data
    _NOUNS[:] = before


def worded(text: str) -> str:
    """A sentence with the word for what is spoken of; parts of paths and names stay as they are."""
    one, many, blank = _NOUNS
    if many == "images":
        return text

    def other(found: re.Match[str]) -> str:
        article, word = found[1] or "", found[2]
        noun = many if word.endswith("s") else one
        noun = noun.capitalize() if word[0] == "I" else noun
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}" if article else noun

    text = text.replace("raw pixels", "figures that need no training").replace(BLANK, blank)
    return _IMAGES.sub(other, text)


def folder() -> str:
    """Where such samples may lie, in an example of a command."""
    many = _NOUNS[1]
    return "photos/" if many == "images" else f"{many.replace(' ', '-')}/"
