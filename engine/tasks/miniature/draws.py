"""Random numbers that depend on a key and a name only: never on order or on the batch."""

from functools import cache
from hashlib import sha256

import numpy as np

from .elementary import Array

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mix(bits: Array) -> Array:
    """Scramble 64-bit words: the output function of SplitMix64.

    Args:
        bits: Unsigned 64-bit words, any shape.

    Returns:
        Scrambled words, same shape; a bijection, so distinct words stay distinct.

    Source:
        Steele, Lea, Flood (2014), Fast Splittable Pseudorandom Number Generators, Fig. 17
        with the constants of Stafford's variant 13.
    """
    bits = np.asarray(bits, dtype=np.uint64)
    bits = (bits ^ (bits >> np.uint64(30))) * _FIRST
    bits = (bits ^ (bits >> np.uint64(27))) * _SECOND
    return bits ^ (bits >> np.uint64(31))


@cache
def word(*parts: object) -> np.uint64:
    """Return a 64-bit hash of plain values (strings, integers)."""
    text = "\x1f".join(str(part) for part in parts)
    return np.uint64(int.from_bytes(sha256(text.encode()).digest()[:8], "little"))


def image_keys(indices: Array, *world: object) -> Array:
    """Give every image its own 64-bit key.

    Args:
        indices: Non-negative int64, shape (N,).
        world: What else the image depends on: family, split, seed.

    Returns:
        Keys as uint64, shape (N,).
    """
    steps = np.atleast_1d(indices).astype(np.uint64) * GOLDEN
    return mix(steps + word(*world))


def balanced_labels(indices: Array, count: int, *world: object) -> Array:
    """Deal the classes out in shuffled rounds: every ``count`` indices hold each class once.

    Args:
        indices: Non-negative int64, shape (N,).
        count: Number of classes C.
        world: What the shuffling depends on.

    Returns:
        Labels in [0, C), int64, shape (N,).
    """
    rounds, seats = np.divmod(np.asarray(indices, dtype=np.int64), count)
    cards = rounds[:, None] * count + np.arange(count)
    order = np.argsort(
        image_keys(cards.ravel(), *world, "deal").reshape(cards.shape), kind="stable"
    )
    return np.take_along_axis(order, seats[:, None], axis=1)[:, 0]


class Draws:
    """Named random numbers for N images: ``draws.uniform("x")`` is the same whenever asked."""

    def __init__(self, keys: Array) -> None:
        self.keys = keys

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.keys)

    def bits(self, name: str) -> Array:
        """Return 64 random bits an image for the stream ``name``, uint64, shape (N,)."""
        return mix(self.keys + word("stream", name))

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> Array:
        """Return float32 values in [low, high), shape (N,)."""
        fraction = (self.bits(name) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)
        return low + (high - low) * fraction

    def bell(self, name: str, centre: float, spread: float) -> Array:
        """Return triangular float32 values, at most ``spread`` from ``centre``, shape (N,)."""
        first, second = self.uniform(name + "/1"), self.uniform(name + "/2")
        return centre + spread * (first - second)

    def chance(self, name: str, probability: float) -> Array:
        """Return booleans, true with the probability given (0 is never, 1 always), shape (N,)."""
        return self.uniform(name) < probability

    def integer(self, name: str, count: int | Array) -> Array:
        """Return int64 values in [0, count), shape (N,)."""
        upper = self.bits(name) >> np.uint64(32)
        return ((upper * np.asarray(count).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


class Dice:
    """Random plain floats in sequence, for drawing a template once."""

    def __init__(self, *world: object) -> None:
        self._key = int(word("dice", *world))
        self._throws = 0

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a float in [low, high)."""
        self._throws += 1
        step = (self._key + self._throws * int(GOLDEN)) % 2**64
        bits = int(mix(np.array([step], dtype=np.uint64))[0])
        return low + (high - low) * (bits >> 11) * 2.0**-53

    def integer(self, count: int) -> int:
        """Return an integer in [0, count)."""
        return int(self.uniform(0.0, count))
