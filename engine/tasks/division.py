"""Which image belongs to which split, and in which order: index arithmetic, fixed for ever."""

import numpy as np

SEED = 0


def order(n: int, seed: int = SEED) -> np.ndarray:
    """Return a permutation of n indices, the same on every machine and in every version.

    Sorts the raw output of a PCG64 generator, a stream NumPy keeps unchanged.

    Args:
        n: How many.
        seed: Which permutation.

    Returns:
        int64 (n,).
    """
    return np.argsort(np.random.PCG64(seed).random_raw(n), kind="stable").astype(np.int64)


def hold_out(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Split n training images into those trained on and the validation images.

    The published protocol: min(10 %, 5,000) of train by a seeded split.

    Args:
        n: Images in the training pool.

    Returns:
        Indices of train and of validation, disjoint, together 0 .. n - 1, each shuffled.
    """
    indices = order(n)
    size = min(n // 10, 5000)
    return indices[size:], indices[:size]


def stratified(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Split images into train and test, a fifth of each class to test.

    Args:
        labels: int64 (N,).

    Returns:
        Indices of train and of test, disjoint, together 0 .. N - 1, ascending.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        test[members[order(len(members), seed=SEED + 1 + int(label))[: len(members) // 5]]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)
