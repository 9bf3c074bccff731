"""Permutations of any length of which any place is told at once: nothing is drawn, nothing kept.

A Feistel network (Luby and Rackoff, 1988) permutes the numbers of an even number of bits; where one
leads beyond the length, it is followed until it comes back (cycle walking, Black and Rogaway,
2002), which leaves a permutation of the others.
"""

import numpy as np

ROUNDS = 6


def keys_of(*words: int) -> np.ndarray:
    """Keys of a permutation, uint64 [ROUNDS], by what tells it from others."""
    return np.random.SeedSequence(words).generate_state(ROUNDS, np.uint64)


def told_apart(keys: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Keys of many permutations, uint64 [ROUNDS, N], of one's keys and numbers [N] that tell them
    apart."""
    return _mixed(keys[:, None] ^ _mixed(which.astype(np.uint64))[None])


def permuted(places: np.ndarray, length: np.ndarray | int, keys: np.ndarray) -> np.ndarray:
    """Where permutations lead.

    Args:
        places: [N], each below its length.
        length: of the permutation, or of each place's own, [N]; below 2^62.
        keys: uint64 [ROUNDS], or [ROUNDS, N] for one of each.

    Returns:
        int64 [N].
    """
    lengths = np.broadcast_to(np.asarray(length, np.uint64), places.shape)
    keys = np.broadcast_to(keys.reshape(ROUNDS, -1), (ROUNDS, *places.shape))
    half = _half(lengths)
    found = _through(places.astype(np.uint64), half, keys)
    beyond = np.flatnonzero(found >= lengths)
    while len(beyond):
        found[beyond] = _through(found[beyond], half[beyond], keys[:, beyond])
        beyond = beyond[found[beyond] >= lengths[beyond]]
    return found.astype(np.int64)


def _half(lengths: np.ndarray) -> np.ndarray:
    """Bits of each of the two halves that hold all numbers below a length."""
    bits = np.zeros(lengths.shape, np.uint64)
    left = lengths - np.uint64(1)
    while left.any():
        bits += left > 0
        left = left >> np.uint64(1)
    return np.maximum((bits + np.uint64(1)) >> np.uint64(1), np.uint64(1))


def _through(x: np.ndarray, half: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """The network, once: a permutation of the numbers of 2 `half` bits."""
    low = (np.uint64(1) << half) - np.uint64(1)
    left, right = x >> half, x & low
    for key in keys:
        left, right = right, left ^ (_mixed(right ^ key) & low)
    return left << half | right


def _mixed(x: np.ndarray) -> np.ndarray:
    """Numbers of 64 bits in which each bit depends on all (the end of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
