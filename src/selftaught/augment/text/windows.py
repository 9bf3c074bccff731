"""Windows of tokens, framed and filled up, so that they stack."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.augment.pipeline import Pipeline
from selftaught.data.text.tokenizer import Tokenizer, Tokens, Vocabulary

STRETCH = 16
"""Characters that are looked at for each token of a window: several times as many as it has."""


def framed(ids: np.ndarray, vocabulary: Vocabulary, size: int) -> np.ndarray:
    """int64 [size]: the first tokens between one of the start and one of the end, filled up."""
    out = np.full(size, vocabulary.pad, np.int64)
    ids = ids[: size - 2]
    out[0], out[1 : len(ids) + 1], out[len(ids) + 1] = vocabulary.start, ids, vocabulary.end
    return out


def window(tokens: Tokens, size: int, rng: np.random.Generator) -> Tokens:
    """At most `size` - 2 tokens from a random place, which leaves room for those of a frame."""
    room = size - 2
    start = int(rng.integers(0, len(tokens.ids) - room + 1)) if len(tokens.ids) > room else 0
    part = slice(start, start + room)
    return tokens._replace(ids=tokens.ids[part], continues=tokens.continues[part])


@dataclass(frozen=True)
class Tokenized(Pipeline):
    """Views of tokens for texts. Of a long text only a random stretch is cut into tokens.

    Args:
        tokenizer: what cuts.
        views: (tokens, generator) -> views.
        size: tokens of a view.
    """

    tokenizer: Tokenizer
    views: Any
    size: int

    def __call__(self, text: str, rng: np.random.Generator) -> Any:  # type: ignore[override]
        return self.views(self.tokenizer.encode(stretch(text, STRETCH * self.size, rng)), rng)


def stretch(text: str, length: int, rng: np.random.Generator) -> str:
    """`length` characters from a random place, without the words that its ends cut."""
    if len(text) <= length:
        return text
    start = int(rng.integers(0, len(text) - length + 1))
    part = text[start : start + length]
    first, last = part.find(" ") + 1, part.rfind(" ")
    whole_start = start == 0 or text[start - 1].isspace()
    whole_end = start + length == len(text) or text[start + length].isspace()
    cut = part[0 if whole_start else first : len(part) if whole_end or last < 0 else last].strip()
    return cut or part


@dataclass(frozen=True)
class Window(Pipeline):
    """One window of a text, from a random place where it is longer."""

    size: int

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> tuple[np.ndarray]:  # type: ignore[override]
        return (framed(window(tokens, self.size, rng).ids, tokens.vocabulary, self.size),)


@dataclass(frozen=True)
class Thinned(Pipeline):
    """Two windows of a text, each without some of its tokens."""

    size: int
    lost: float = 0.2

    def __call__(self, tokens: Tokens, rng: np.random.Generator) -> tuple[np.ndarray, ...]:  # type: ignore[override]
        made = []
        for _ in range(2):
            ids = window(tokens, self.size, rng).ids
            kept = ids[rng.random(len(ids)) >= self.lost]
            made.append(framed(kept if len(kept) else ids, tokens.vocabulary, self.size))
        return tuple(made)


@dataclass(frozen=True)
class Start(Pipeline):
    """What evaluation sees: the first tokens of a text, framed; no randomness."""

    tokenizer: Tokenizer
    size: int

    def __call__(self, text: str, rng: Any = None) -> np.ndarray:  # type: ignore[override]
        return framed(
            beginning(self.tokenizer, text, self.size), self.tokenizer.vocabulary, self.size
        )


def beginning(tokenizer: Tokenizer, text: str, count: int) -> np.ndarray:
    """The first `count` tokens of a text, which need not be cut up to its end."""
    length = STRETCH * count
    while True:
        part = text[:length]
        if length < len(text):
            part = part[: part.rfind(" ")] if " " in part else part
        ids = tokenizer.encode(part).ids
        if len(ids) >= count or length >= len(text):
            return ids[:count]
        length *= 4
