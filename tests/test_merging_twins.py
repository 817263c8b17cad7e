"""Every merging method against a slow twin and a hand-worked case; a new one must bring both.

The twins are plain loops over entries, or linear algebra without a singular value decomposition:
eigenvectors of W^T W and polar factors by Newton's iteration.
"""

import math

import numpy as np
import pytest
import torch

from engine import merging

T = 3
SHAPES = {
    "blocks.0.w": (6, 9),
    "blocks.1.w": (8, 5),
    "blocks.2.w": (7, 7),
    "b": (12,),
    "conv1.weight": (3, 2, 4, 4),
}
Arrays = dict[str, dict[str, np.ndarray]]


def vectors(seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {
        f"task{t}": {
            name: torch.randn(shape, generator=generator, dtype=torch.float64)
            for name, shape in SHAPES.items()
        }
        for t in range(T)
    }


def entries(function, taus: Arrays) -> dict[str, np.ndarray]:
    """Merge entry by entry: ``function`` takes the tasks' values at one place."""
    first = next(iter(taus.values()))
    merged = {name: np.zeros_like(value) for name, value in first.items()}
    for name, value in first.items():
        for place in np.ndindex(value.shape):
            merged[name][place] = function([float(tau[name][place]) for tau in taus.values()])
    return merged


def matrices(function, taus: Arrays) -> dict[str, np.ndarray]:
    """Merge matrices by a function and the rest by the mean, entry by entry."""
    merged = entries(lambda values: math.fsum(values) / len(values), taus)
    for name, value in merged.items():
        if value.ndim == 2:
            merged[name] = function([tau[name] for tau in taus.values()])
    return merged


# ------------------------------------------------------------------------------------ the twins


def ranked(values: list[float]) -> list[int]:
    """Return how many entries are smaller in magnitude; of equals the earlier ones are."""
    return [
        sum(abs(o) < abs(v) or (abs(o) == abs(v) and j < i) for j, o in enumerate(values))
        for i, v in enumerate(values)
    ]


def flat_of(tau: dict[str, np.ndarray]) -> list[float]:
    return [float(v) for value in tau.values() for v in value.ravel()]


def shaped(flat, like: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rest, found = list(flat), {}
    for name, value in like.items():
        found[name] = np.array(rest[: value.size]).reshape(value.shape)
        rest = rest[value.size :]
    return found


def ties(taus: Arrays, *, density=0.2, average=0, drop=0.0, seed=0):
    if drop:
        taus = thinned(taus, drop, seed)
    kept = []
    for tau in taus.values():
        flat = flat_of(tau)
        least = len(flat) - int(density * len(flat))
        kept.append([
            v if rank >= least else 0.0 for v, rank in zip(flat, ranked(flat), strict=True)
        ])
    signs = [(s > 0) - (s < 0) for s in map(sum, zip(*kept, strict=True))]
    majority = 1 if sum(signs) >= 0 else -1
    merged = []
    for values, sign in zip(zip(*kept, strict=True), signs, strict=True):
        agreeing = [v for v in values if v * (sign or majority) > 0]
        merged.append(sum(agreeing) / (max(1, len(agreeing)) if average else 1))
    return shaped(merged, next(iter(taus.values())))


def thinned(taus: Arrays, drop: float, seed: int) -> Arrays:
    """Drop entries, a draw each from one stream: tasks and names by the alphabet."""
    stream, found = torch.Generator().manual_seed(seed), {}
    for task in sorted(taus):
        drawn = {}
        for name in sorted(taus[task]):
            drawn[name] = np.zeros_like(taus[task][name])
            for place in np.ndindex(drawn[name].shape):
                if float(torch.rand((), generator=stream)) >= drop:
                    drawn[name][place] = taus[task][name][place] / (1 - drop)
        found[task] = {name: drawn[name] for name in taus[task]}
    return found


def dare(taus: Arrays, *, drop=0.5, seed=0):
    return entries(math.fsum, thinned(taus, drop, seed))


def breadcrumbs(taus: Arrays, *, density=0.9, gamma=0.01):
    left = {}
    for task, tau in taus.items():
        left[task] = {}
        for name, value in tau.items():
            flat = flat_of({name: value})
            low = int(max(0, 1 - density - gamma) * len(flat))
            high = len(flat) - int(gamma * len(flat))
            kept = [
                v if low <= rank < high else 0.0 for v, rank in zip(flat, ranked(flat), strict=True)
            ]
            left[task][name] = np.array(kept).reshape(value.shape)
    return entries(math.fsum, left)


def consensus(taus: Arrays, *, threshold=0.4, agree=2):
    def merge(values: list[float]) -> float:
        needed = 0
        for t, value in enumerate(values):
            rest = math.fsum(values[:t] + values[t + 1 :])
            needed += abs(value) > threshold * abs(rest)
        return math.fsum(values) if needed >= agree else 0.0

    return entries(merge, taus)


def newton(matrix: np.ndarray) -> np.ndarray:
    """Return the polar factor by Newton's iteration with the pseudo-inverse."""
    X = matrix / np.linalg.norm(matrix, 2)
    for _ in range(60):
        X = 0.5 * (X + np.linalg.pinv(X).T)
    return X


def leading(W: np.ndarray, count: int):
    """Return leading singular triplets from the eigenvectors of W^T W: columns, sizes, columns."""
    values, vectors = np.linalg.eigh(W.T @ W)
    order = np.argsort(-values)[:count]
    sizes = np.sqrt(values[order])
    V = vectors[:, order]
    return W @ V / sizes, sizes, V


def joined(pieces) -> np.ndarray:
    U, S, V = (np.concatenate(part, axis=-1) for part in zip(*pieces, strict=True))
    return newton(U) @ np.diag(S) @ newton(V).T


def tsv(taus: Arrays):
    def merge(parts):
        return joined([leading(W, min(W.shape) // len(parts)) for W in parts])

    return matrices(merge, taus)


def iso_c(taus: Arrays):
    def merge(parts):
        total = sum(parts)
        size = np.trace(newton(total).T @ total) / min(total.shape)  # tr |W| = sum of sizes
        return size * newton(total)

    return matrices(merge, taus)


def iso_cts(taus: Arrays, *, common=0.8):
    def merge(parts):
        r = min(parts[0].shape)
        n = round((r - int(common * r)) / len(parts))
        pieces = [leading(sum(parts), r - n * len(parts))]
        shared = pieces[0][0]
        outside = np.eye(len(shared)) - shared @ shared.T
        pieces += [leading(outside @ W, n) for W in parts]
        mean = np.concatenate([S for _, S, _ in pieces]).mean()
        return joined([(U, np.full_like(S, mean), V) for U, S, V in pieces])

    return matrices(merge, taus)


def lines(taus: Arrays, *, slope=0.5):
    total = entries(math.fsum, taus)
    depths = [0.0, 0.5, 1.0, 0.0, 0.0]  # of SHAPES
    return {
        name: (1 / len(taus) + (slope * depth if name.startswith("blocks") else 0)) * value
        for (name, value), depth in zip(total.items(), depths, strict=True)
    }


TWINS = {
    "sum": lambda taus: entries(math.fsum, taus),
    "mean": lambda taus: entries(lambda values: math.fsum(values) / len(values), taus),
    "ties": ties,
    "dare": dare,
    "breadcrumbs": breadcrumbs,
    "consensus": consensus,
    "tsv": tsv,
    "iso-c": iso_c,
    "iso-cts": iso_cts,
    "lines": lines,
}
# beside the usual values; every option of a method is moved at least once
MOVED = {
    "ties": [{"density": 0.3}, {"average": 1}, {"drop": 0.4, "seed": 3, "average": 1}],
    "dare": [{"drop": 0.9}, {"drop": 0.3, "seed": 5}],
    "breadcrumbs": [{"density": 0.6}, {"density": 0.5, "gamma": 0.2}],
    "consensus": [{"threshold": 1.3}, {"agree": 1}, {"agree": 3, "threshold": 0.1}],
    "iso-cts": [{"common": 0.45}],
    "lines": [{"slope": 1.2}],
}

# -------------------------------------------------------------------------------- worked by hand

c, s = math.cos(math.pi / 8), math.sin(math.pi / 8)
h = math.sqrt(0.5)
# each task: a strong direction and a weak one that only TSV-M drops; left vectors at 0 and 90
# degrees, and at 45 and 135; right vectors e1, e2 and e2, e1
SLANTED = {"a": [[3, 0], [0, 1]], "b": [[-0.5 * h, 2 * h], [0.5 * h, 2 * h]]}
# by method: (task vectors of one parameter, options, what comes out)
HAND = {
    "sum": ({"a": [[1, 2], [3, 4]], "b": [[0, -2], [5, 1]]}, {}, [[1, 0], [8, 5]]),
    "mean": ({"a": [[1, 2], [3, 4]], "b": [[0, -2], [5, 1]]}, {}, [[0.5, 0], [4, 2.5]]),
    # half of each is kept: (4, -3, 0, 0), (-2, -5, 0, 0); elected signs +, -, majority
    "ties": (
        {"a": [4, -3, 1, 0.5], "b": [-2, -5, 0.1, 1.5]},
        {"density": 0.5},
        [4, -8, 0, 0],
    ),
    # torch's first draws by seed 0 are 0.4963, 0.7682, 0.0885, 0.1320: one is 0.5 or more
    "dare": ({"a": [1, 2, 3, 4]}, {"drop": 0.5, "seed": 0}, [0, 4, 0, 0]),
    # of ten entries one goes at the top (10) and two at the bottom (1, 2)
    "breadcrumbs": (
        {"a": [10, -9, 8, 7, -6, 5, 4, 3, 2, 1], "b": [0.0] * 10},
        {"density": 0.7, "gamma": 0.1},
        [0, -9, 8, 7, -6, 5, 4, 3, 0, 0],
    ),
    # the second entry matters to a alone; the third is large in both, against each other
    "consensus": ({"a": [3, 3, 1], "b": [2, 0, -2]}, {"threshold": 0.4}, [5, 0, -1]),
    # k = 1: sizes 3 and 2 with left vectors at 0 and 45 degrees, which the polar factor turns
    # apart to -22.5 and 67.5; right vectors e1 and e2 are orthogonal already
    "tsv": (SLANTED, {}, [[3 * c, 2 * s], [-3 * s, 2 * c]]),
    # the sum is ((3, 0), (4, 5)): sizes 3 sqrt 5 and sqrt 5, polar factor ((2, -1), (1, 2)) /
    # sqrt 5, for a 2 x 2 matrix A of positive determinant A + cof A up to scale
    "iso-c": ({"a": [[3, 0], [0, 5]], "b": [[0, 0], [4, 0]]}, {}, [[4, -2], [2, 4]]),
    # nothing in common: n = 1 each, the vectors of TSV-M, both of size (3 + 2) / 2
    "iso-cts": (SLANTED, {"common": 0}, [[2.5 * c, 2.5 * s], [-2.5 * s, 2.5 * c]]),
    # one block of one: depth 0, so a = 1/2 alone
    "lines": ({"a": [[1, 2]], "b": [[3, 4]]}, {"slope": 0.7}, [[2, 3]]),
}


@pytest.mark.parametrize("method", dict.fromkeys((*merging.METHODS, *merging.CONVENTIONS)))
def test_every_method_has_a_twin_and_a_hand_worked_case(method):
    assert method in TWINS, f"write a slow twin of {method}"
    assert method in HAND, f"work a small case of {method} by hand"
    moved = {name for options in MOVED.get(method, ()) for name in options}
    assert moved == set(merging.METHODS[method].options), f"move every option of {method}"


@pytest.mark.parametrize(
    ("method", "options"), [(m, o) for m in TWINS for o in ({}, *MOVED.get(m, ()))]
)
def test_methods_equal_their_slow_twins(method, options):
    taus = vectors()
    plain = {t: {k: v.numpy().copy() for k, v in tau.items()} for t, tau in taus.items()}
    expected = TWINS[method](plain, **options)
    found = merging.prepare(taus, method, **options)
    assert list(found) == list(SHAPES)
    for name, value in found.items():
        # polar factors by Newton's iteration are good to eight digits
        np.testing.assert_allclose(value.numpy(), expected[name], rtol=0, atol=1e-8)
    for task, tau in vectors().items():  # whatever the options, the inputs are as they were
        assert all(torch.equal(taus[task][name], value) for name, value in tau.items())


@pytest.mark.parametrize("method", TWINS)
def test_a_direction_shares_no_memory_with_its_inputs(method):
    taus = {"a": vectors()["task0"]}
    found = merging.prepare(taus, method)
    for name, value in found.items():
        value.add_(1.0)
        assert torch.equal(taus["a"][name], vectors()["task0"][name])


@pytest.mark.parametrize("method", HAND)
def test_methods_give_what_was_worked_by_hand(method):
    given, options, expected = HAND[method]
    taus = {
        task: {"blocks.0.w": torch.tensor(value, dtype=torch.float64)}
        for task, value in given.items()
    }
    found = merging.prepare(taus, method, **options)["blocks.0.w"]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-12)


def test_ties_averages_by_hand():
    taus = {"a": {"w": torch.tensor([4.0, -3, 1, 0.5])}, "b": {"w": torch.tensor([-2.0, -5, 0, 1])}}
    found = merging.prepare(taus, "ties", density=0.5, average=1)["w"]
    assert found.tolist() == [4.0, -4.0, 0.0, 0.0]


def rotated(size: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((size, size), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("common", [0.0, 0.05, 0.3, 0.8, 0.95, 1.0])
@pytest.mark.parametrize(("size", "tasks"), [(11, 3), (5, 3), (2, 3), (8, 5), (7, 2), (1, 2)])
def test_iso_cts_has_one_singular_value_whatever_is_common(size, tasks, common):
    # round((11 - 0) / 3) = 4 directions a task would be 12 of 11: one fewer than none in common
    taus = {f"t{t}": {"w": rotated(size, t)} for t in range(tasks)}
    values = torch.linalg.svdvals(merging.prepare(taus, "iso-cts", common=common)["w"])
    torch.testing.assert_close(values, values[0].expand_as(values))
    assert float(values[0]) > 0


def test_kept_answers_are_found_by_options_that_came_later():
    usual = {"density": 0.2, "average": 0, "drop": 0.0, "seed": 0}
    assert merging.asked_of("ties", usual) == {"density": 0.2}
    assert merging.asked_of("ties", {**usual, "average": 1}) == {"density": 0.2, "average": 1}
    assert merging.asked_of("dare", {"drop": 0.5, "seed": 0}) == {"drop": 0.5, "seed": 0}


@pytest.mark.parametrize(
    ("method", "name"), [(m, n) for m, about in merging.METHODS.items() for n in about.options]
)
def test_an_option_at_its_usual_value_changes_nothing(method, name):
    option = merging.METHODS[method].options[name]
    taus = vectors()
    left_out = merging.METHODS[method].function(taus)
    named = merging.METHODS[method].function(taus, **{name: option.usual})
    for key, value in left_out.items():
        assert torch.equal(named[key], value)
