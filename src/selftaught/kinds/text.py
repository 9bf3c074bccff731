"""Texts: sentences, lines, documents, as str."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import log
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from selftaught.errors import UserError
from selftaught.kinds import Facts, Floor, Judge, Kind, of
from selftaught.roles import Role

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from selftaught.backbones import Encoder
    from selftaught.data import Samples
    from selftaught.data.source import Source
    from selftaught.data.text.tokenizer import Tokenizer

WORDS = 4096
"""Entries of a vocabulary that is made of the data, where nobody says another number."""
SIZES = (32, 64, 128)
"""Tokens of a view: the fewest that hold `MOST` of the texts whole."""
MOST = 0.9
COUNTED, LONG = 20_000, 4096
"""Texts of which tokens are counted, from all over the data, and characters of each."""
SIDE = 96
"""Pixels along a side of a picture of a view."""


@dataclass(frozen=True)
class Text(Kind):
    """Lines, rows or files, cut into tokens.

    Args:
        tokenizer: a `tokenizer.json`, or a folder with one; by default byte pairs are learned from
            the data, and kept as `tokenizer.json` in the folder of the run.
        lower: whether capitals are read as small letters, by a tokenizer that is learned.

    Other Args:
        hash: SHA-256 of the tokenizer.
        entropy: of a token drawn by its frequency in the data, in nats: the loss of guessing.
        length: tokens of a text on average, as far as a view holds them.
    """

    tokenizer: str | None = None
    lower: bool = True
    hash: Annotated[str, Role("tokenizer", from_data=True)] = ""
    entropy: Annotated[float, Role("entropy", from_data=True)] = 0.0
    length: Annotated[float, Role("length", from_data=True)] = 0.0

    word = "text"
    one, many, unit, counted, axes = "text", "texts", "tokens", "characters", 2
    suffixes = frozenset({".txt", ".text"})
    columns = (
        "text",
        "sentence",
        "caption",
        "content",
        "document",
        "review",
        "description",
        "title",
    )
    encoder = "text.encoder:Text"
    backbone = "bert_base"
    standins = {  # noqa: RUF012
        False: {"bert_base": "bert_tiny", "gpt_base": "gpt_tiny"},
        True: {"bert_base": "bert_small", "gpt_base": "gpt_small"},
    }
    method = "bert"
    extra = "hf"
    typed = True

    # ---------------------------------------------------------------------------------- reading

    def open(
        self,
        source: Any,
        column: str | None = None,
        labels: str | None = None,
        path_column: str | None = None,
    ) -> "Source":
        from selftaught.data.text.opening import open_texts

        return open_texts(source, column=column, labels=labels)

    def decode(self, raw: Any, name: str) -> str:
        from selftaught.data.text.coding import as_text

        return as_text(raw)

    def facts(self, sample: str) -> Facts:
        return Facts(len(sample), not any(c.isalnum() for c in sample), sample.encode())

    # ------------------------------------------------------------------------------------ tokens

    @property
    def cut(self) -> "Tokenizer":
        """What cuts texts into tokens.

        Raises:
            UserError: it was not read, nor learned.
        """
        found = self.__dict__.get("_cut")
        if found is None:
            raise UserError(
                f"the tokenizer of these texts ({self.hash[:8] or 'none yet'}) is not here: open "
                "the whole folder of the run or the encoder, which has a tokenizer.json"
            )
        return found

    def cutting(self, tokenizer: "Tokenizer", entropy: float = 0.0, length: float = 0.0) -> "Text":
        """This kind, with a tokenizer and what was counted with it."""
        found = replace(self, hash=tokenizer.hash, entropy=entropy, length=length)
        found.__dict__["_cut"] = tokenizer
        return found

    def beside(self, folder: Path) -> "Text":
        """This kind, with the tokenizer of a folder.

        Raises:
            UserError: it is another one than this kind has.
        """
        from selftaught.data.text import tokenizer

        if "_cut" in self.__dict__ or not (folder / tokenizer.FILE).exists():
            return self
        found = tokenizer.read(folder)
        if self.hash and found.hash != self.hash:
            raise UserError(
                f"{folder / tokenizer.FILE} is another tokenizer ({found.hash[:8]}) than the one "
                f"that was trained with ({self.hash[:8]}): put that back"
            )
        return self.cutting(found, self.entropy, self.length)

    def keep(self, folder: Path) -> None:
        """Write the tokenizer into a folder, where it is not there."""
        if "_cut" in self.__dict__:
            self.cut.save(folder)

    def fill(self, given: dict[str, Any], samples: "Samples") -> tuple["Text", dict[str, Any]]:
        """The tokenizer, its number of words, and how long views are, as the data has them."""
        from selftaught.data.text import tokenizer

        known = self.__dict__.get("_cut")
        if known is None and self.tokenizer is not None:
            known = tokenizer.read(self.tokenizer)
        if known is None:
            known = tokenizer.train(_all(samples), given.get("words") or WORDS, self.lower)
        words = known.vocabulary.words
        if (asked := given.get("words")) and asked < words and self.tokenizer is not None:
            raise UserError(
                f"words={asked} is less than the {words} of {self.tokenizer}: leave it out"
            )
        counts, lengths = _counted(samples, known)
        given = given | {"words": words, "pad": known.vocabulary.pad}
        if given.get("size") is None:
            fits = [n for n in SIZES if (lengths + 2 <= n).mean() >= MOST] if len(lengths) else []
            given["size"] = (fits or SIZES[-1:])[0]
        length = float(lengths.clip(max=given["size"] - 2).mean()) if len(lengths) else 0.0
        return self.cutting(known, round(_entropy(counts), 4), round(length, 2)), given

    # ------------------------------------------------------------------------------------ views

    def plain(self, size: Any) -> Callable[..., Any]:
        from selftaught.augment.text.windows import Start

        return Start(self.cut, size)

    def views(self, pipeline: Any) -> Any:
        from selftaught.augment.text.windows import Tokenized

        return Tokenized(self.cut, pipeline, pipeline.size)

    def single(self, views: Any) -> Any:
        """A window of tokens: what changes colors of images has no counterpart among words."""
        from selftaught.augment.text.windows import Tokenized, Window

        (view,) = views.views
        size = max(view.shape)
        return Tokenized(self.cut, Window(size), size)

    def alike(self, size: Any) -> Any:
        """Two windows, each without some of its tokens."""
        from selftaught.augment.text.windows import Thinned

        return self.views(Thinned(size))

    def bytes(self, size: Any, channels: int) -> int:
        return 8 * size

    def inputs(self, views: Any) -> "list[Tensor]":
        """Ids [B, L]: int64, which nothing else among views of texts is."""
        import torch

        from selftaught.augment.pipeline import tensors

        return [x for x in tensors(views) if x.ndim == self.axes and x.dtype == torch.int64]

    def there(self, views: "Tensor", encoder: Any) -> "Tensor":
        return views != encoder.pad

    def blank(self, count: int, encoder: "Encoder") -> "Tensor":
        import torch

        config = encoder.config
        shape: Any = (count, encoder.size)
        return torch.full(shape, (config["pad"] + 1) % config["words"])

    # ----------------------------------------------------------------------- scores and pages

    def floors(self) -> Mapping[str, Floor]:
        return {"bag of tokens": self._bag}

    def _bag(self, ids: "Tensor") -> "Tensor":
        from selftaught.kinds.floors.text import bag

        return bag(ids, self.cut.vocabulary.words, self.cut.vocabulary[1:])

    def judges(self) -> Mapping[str, Mapping[str, Judge]]:
        from selftaught.kinds.floors.text import by_neighbors, by_words

        return {"words": {"k-NN": by_neighbors, "probe": by_words, "attentive": by_words}}

    about_floors = (
        "Bag of tokens: how often each is there, by the square root, unit length. Words: by their "
        "rareness (tf-idf), those of the texts themselves; the probe is logistic regression. "
    )

    def said(self, sample: str) -> str:
        return sample

    def thumbnail(self, sample: str, side: int) -> "np.ndarray":
        from selftaught.data.text.page import page

        return page(sample, side)

    def pictures(self, view: "np.ndarray") -> "list[np.ndarray]":
        from selftaught.data.text.page import page

        if view.dtype != "int64" or view.ndim not in (1, 2):
            return []
        return [page(self.cut.shown(ids), SIDE) for ids in view.reshape(-1, view.shape[-1])]


def guessing(encoder: Any, ends: bool = False) -> tuple[float, str] | None:
    """The loss of who knows how frequent tokens are and nothing else, and how it is made; None
    where the data was not counted.

    Args:
        encoder: which knows its kind.
        ends: whether the token at the end of a text is asked for, too.
    """
    kind = of(encoder)
    if not isinstance(kind, Text) or not kind.entropy:
        return None
    told = "entropy of the tokens' frequencies"
    if not ends:
        return kind.entropy, told
    share = 1 / (kind.length + 1)
    rest = -share * log(share) - (1 - share) * log(1 - share)
    return rest + (1 - share) * kind.entropy, f"{told} and of ends"


def pieces(encoder: Any, ids: Any, said: Mapping[int, int]) -> list[tuple[str, str | None]]:
    """A text as `Passages` has it; empty where the tokenizer is not known.

    Args:
        encoder: which knows its kind.
        ids: [L] as they stand there, without anything hidden.
        said: token by the place that it was said for.
    """
    kind = of(encoder)
    if not isinstance(kind, Text) or "_cut" not in kind.__dict__:
        return []
    found: list[tuple[str, str | None]] = []
    rest: list[int] = []
    for place, token in enumerate([*map(int, ids), kind.cut.vocabulary.pad]):
        if place in said or token == kind.cut.vocabulary.pad:
            found += [(kind.cut.decode(rest), None)] if rest else []
            rest = []
        if token == kind.cut.vocabulary.pad:
            break
        if place in said:
            found.append((kind.cut.shown([token]), kind.cut.shown([said[place]])))
        else:
            rest.append(token)
    return found


def _all(samples: "Samples") -> Iterator[str]:
    """All texts, those aside that cannot be read."""
    from selftaught.data import BadSample

    for i in range(len(samples)):
        try:
            yield samples.read(i)
        except BadSample:
            continue


def _counted(samples: "Samples", tokenizer: "Tokenizer") -> "tuple[np.ndarray, np.ndarray]":
    """How often each token is there, and how many each text has, of some from all over the data."""
    import numpy as np

    from selftaught.data import BadSample

    counts, lengths = np.zeros(tokenizer.vocabulary.words), []
    for i in np.linspace(0, len(samples) - 1, min(COUNTED, len(samples))).astype(int).tolist():
        try:
            ids = tokenizer.encode(samples.read(i)[:LONG]).ids
        except BadSample:
            continue
        counts += np.bincount(ids, minlength=len(counts))
        lengths.append(len(ids))
    return counts, np.array(lengths, np.int64)


def _entropy(counts: "np.ndarray") -> float:
    import numpy as np

    share = counts[counts > 0] / max(counts.sum(), 1.0)
    return float(-(share * np.log(share)).sum())
