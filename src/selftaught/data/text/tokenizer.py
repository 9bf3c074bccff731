"""Texts cut into tokens, by a file that Hugging Face's tokenizers read."""

import hashlib
import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from selftaught.errors import Unwritable, UserError

FILE = "tokenizer.json"
"""What it is called in the folder of a run, and in one of Hugging Face's."""
SPECIAL = {
    "pad": ("[PAD]", "<pad>"),
    "unknown": ("[UNK]", "<unk>"),
    "start": ("[CLS]", "<s>", "<|begin_of_text|>", "<|endoftext|>"),
    "end": ("[SEP]", "</s>", "<|end_of_text|>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>"),
}
"""Tokens that are no text, by what they are for, as tokenizers call them; ours the first."""
_BYTES = 256


class Vocabulary(NamedTuple):
    """words: entries in all. The others: which of them are no text."""

    words: int
    pad: int
    start: int
    end: int
    mask: int


class Tokens(NamedTuple):
    """A text. ids: int64 [n]. continues: bool [n], whether a token goes on with the word before."""

    ids: np.ndarray
    continues: np.ndarray
    vocabulary: Vocabulary


class Tokenizer:
    """Cuts texts into tokens; alike where its file is, and picklable.

    Special tokens that a file lacks are added to it, and those that stand in a text are text.

    Args:
        text: a `tokenizer.json`.

    Raises:
        UserError: it is none, or the extra `hf` is not installed.
    """

    def __init__(self, text: str):
        try:
            self._made = needed().Tokenizer.from_str(text)
        except UserError:
            raise
        except Exception as error:  # the library raises no class of its own
            raise UserError(
                f"this is no {FILE} that can be read ({error}); tokenizers saves one, as "
                "AutoTokenizer's save_pretrained does"
            ) from error
        self._made.no_padding()
        self._made.no_truncation()
        known = self._made.get_vocab(with_added_tokens=True)
        for names in (SPECIAL[purpose] for purpose in Vocabulary._fields[1:]):
            if not any(name in known for name in names):
                self._made.add_special_tokens([names[0]])
        self._made.encode_special_tokens = True

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.text,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.hash == other.hash

    def __hash__(self) -> int:
        return hash(self.hash)

    @cached_property
    def text(self) -> str:
        """The content of its file."""
        return self._made.to_str(pretty=True)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of its file."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        known = self._made.get_vocab(with_added_tokens=True)
        ids = {
            purpose: next(known[name] for name in SPECIAL[purpose] if name in known)
            for purpose in Vocabulary._fields[1:]
        }
        return Vocabulary(max(known.values()) + 1, **ids)

    def special(self, purpose: str) -> str:
        """The name of a special token: `pad`, `start`, `end` or `mask`."""
        return self._made.id_to_token(getattr(self.vocabulary, purpose))

    @property
    def unknown(self) -> str | None:
        """The name of the token for what has none; byte pairs need none."""
        known = self._made.get_vocab(with_added_tokens=True)
        return next((name for name in SPECIAL["unknown"] if name in known), None)

    def encode(self, text: str) -> Tokens:
        """The tokens of a text, none before or after it."""
        found = self._made.encode(text, add_special_tokens=False)
        words = np.array([-1 if w is None else w for w in found.word_ids], np.int64)
        continues = np.diff(words, prepend=-2) == 0
        return Tokens(np.array(found.ids, np.int64), continues & (words >= 0), self.vocabulary)

    def decode(self, ids: Iterable[int]) -> str:
        """Tokens as text, special ones left out."""
        return self._made.decode([int(i) for i in ids])

    def shown(self, ids: Iterable[int]) -> str:
        """Tokens as text, special ones too, but for what fills up."""
        kept = [int(i) for i in ids if i != self.vocabulary.pad]
        return self._made.decode(kept, skip_special_tokens=False)

    def save(self, folder: Path) -> Path:
        """Write its file into a folder, whole or not at all."""
        path = folder / FILE
        temporary = path.with_name(f".{FILE}.{os.getpid()}")
        try:
            temporary.write_text(self.text, "utf-8")
            os.replace(temporary, path)
        except OSError as error:
            raise Unwritable.of(path, error) from error
        return path


def read(path: str | Path) -> Tokenizer:
    """The tokenizer of a file, or of a folder that has one.

    Raises:
        UserError: there is none.
    """
    path = Path(path)
    file = path / FILE if path.is_dir() else path
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(
            f"the tokenizer {file} cannot be read ({reason}): name a {FILE}, or a folder with one, "
            "as AutoTokenizer's save_pretrained writes"
        ) from error
    try:
        return Tokenizer(text)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def train(texts: Iterable[str], words: int = 4096, lower: bool = True) -> Tokenizer:
    """A tokenizer of byte pairs, made of texts: the same for the same texts.

    Not WordPiece or Unigram, whose trainers make another vocabulary each time they are run. Any
    text can be written in its tokens, since each byte is one.

    Args:
        texts: all that it is made of.
        words: entries at most; there are fewer where the texts hold no more pairs.
        lower: whether capitals are read as small letters.
    """
    least = _BYTES + len(SPECIAL)
    if words < least:
        raise UserError(
            f"words={words} is less than the {_BYTES} bytes and {len(SPECIAL)} special tokens that "
            f"any vocabulary needs: use {least} or more, such as 4096"
        )
    library = needed()
    made = library.Tokenizer(library.models.BPE())
    steps = [library.normalizers.NFC()]
    steps += [library.normalizers.Lowercase()] if lower else []
    made.normalizer = library.normalizers.Sequence(steps)
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.decoder = library.decoders.ByteLevel()
    special = [names[0] for names in SPECIAL.values()]
    trainer = library.trainers.BpeTrainer(
        vocab_size=words,
        min_frequency=2,
        special_tokens=special,
        initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # said before it is used: a process that is forked later would else warn of what it finds
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    made.train_from_iterator(texts, trainer)
    start, end = SPECIAL["start"][0], SPECIAL["end"][0]
    made.post_processor = library.processors.TemplateProcessing(
        single=f"{start} $A {end}",
        pair=f"{start} $A {end} $B:1 {end}:1",
        special_tokens=[(name, made.token_to_id(name)) for name in (start, end)],
    )
    return Tokenizer(made.to_str())


def needed() -> Any:
    """The library `tokenizers`, of the extra `hf`."""
    try:
        import tokenizers
        from tokenizers import (  # noqa: F401
            decoders,
            models,
            normalizers,
            pre_tokenizers,
            processors,
            trainers,
        )
    except ImportError as error:
        raise UserError(
            'texts need tokenizers, which is not installed; pip install "selftaught[hf]"'
        ) from error
    return tokenizers
