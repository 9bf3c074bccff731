"""Masks of text."""

from typing import NamedTuple

import numpy as np

from . import Draws


class Masked(NamedTuple):
    """ids: [L] after masking. positions: [K] ascending, asked for. labels: [K] the ids there."""

    ids: np.ndarray
    positions: np.ndarray
    labels: np.ndarray


def count_masked(length: int, ratio: float = 0.15, most: int = 20) -> int:
    """BERT's number of tokens to predict of `length`, [CLS] and [SEP] counted: at least 1."""
    return min(most, max(1, round(length * ratio)))


def mask_tokens(
    draws: Draws,
    ids: np.ndarray,
    special: np.ndarray,
    vocabulary: int,
    mask: int,
    continues: np.ndarray | None = None,
    ratio: float = 0.15,
    most: int = 20,
    reference: bool = False,
) -> Masked:
    """BERT's masking (Devlin et al., 2019, Section 3.1): exactly `count_masked` of the tokens.

    Of these 80 % become [MASK], 10 % any entry of the vocabulary, 10 % stay. With `continues`,
    words are masked as wholes: one that does not fit in the number any more is passed over; where
    none fits, the first one drawn is cut. Masking each token with a probability instead, as some
    libraries do, leaves short texts with nothing to predict.

    With `reference`, quirks of the paper's code are kept: a piece that follows [SEP] belongs to the
    word before it, and where no word fits nothing is masked.

    Args:
        draws: source of randomness: an order of the words, then one or two numbers and an entry for
            each token.
        ids: [L] of one sequence, without padding.
        special: bool [L], True for what is never masked, such as [CLS] and [SEP].
        vocabulary: number of entries.
        mask: id of [MASK].
        continues: bool [L], True for pieces that continue a word ("##ing"); None masks tokens.
        ratio: fraction of the tokens that is predicted.
        most: largest number of them.
        reference: see above.
    """
    words = _words(special, continues, reference)
    number = count_masked(len(ids), ratio, most)
    chosen: list[int] = []
    order = draws.permutation(len(words)) if words else []
    for which in order:
        if len(chosen) + len(words[which]) <= number:
            chosen += words[which]
    if words and not chosen and not reference:
        chosen = words[order[0]][:number]
    masked = ids.copy()
    for position in chosen:
        if draws.random() < 0.8:
            masked[position] = mask
        elif draws.random() >= 0.5:
            masked[position] = draws.integers(0, vocabulary)
    positions = np.sort(np.array(chosen, np.int64))
    return Masked(masked, positions, ids[positions])


def _words(special: np.ndarray, continues: np.ndarray | None, reference: bool) -> list[list[int]]:
    """Positions of each word, or of each token alone where `continues` is None."""
    words: list[list[int]] = []
    open_word = False
    for position in range(len(special)):
        if special[position]:
            open_word = open_word and reference
        elif continues is not None and continues[position] and open_word:
            words[-1].append(position)
        else:
            words.append([position])
            open_word = True
    return words
