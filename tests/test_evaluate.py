import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.func import jvp

from engine.errors import NonFiniteError, UsageError
from engine.evaluate import (
    ALPHAS,
    accuracy,
    addition,
    confusion,
    evaluate_nonlinear,
    linearized_accuracy,
    normalized_accuracy,
    search_alpha,
    search_alphas,
    wilson_interval,
)
from engine.evaluate import search as search_module
from engine.finetune import Recipe, finetune
from engine.responses import Responses, accuracy_over, responses
from tests.fake_encoder import fake_encoder, fake_split, fake_taus, other_task

NAMES = ("ab", "cd", "efg")
ENCODER = fake_encoder()
TASKS = {name: other_task(name, 3 + i) for i, name in enumerate(NAMES)}
SPLITS = {
    kind: {name: fake_split(TASKS[name], kind, n) for name in NAMES}
    for kind, n in (("train", 120), ("validation", 30), ("test", 40))
}


@pytest.fixture(scope="module")
def taus():
    recipe = Recipe(steps=60, warmup=6, batch=32, rate=1e-3)
    kinds = SPLITS["train"], SPLITS["validation"]
    return {
        mode: {
            n: finetune(ENCODER, TASKS[n], *(kind[n] for kind in kinds), mode, recipe).tau
            for n in NAMES
        }
        for mode in ("nonlinear", "linear")
    }


@pytest.fixture(scope="module")
def readings(taus):
    split = SPLITS["validation"]
    return {name: responses(ENCODER, TASKS[name], split[name], taus["linear"]) for name in NAMES}


def trained_mode(mode):
    return "linear" if mode == "linear" else "nonlinear"


# ------------------------------------------------------------------------------------- measures


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (3, 7), (432, 500), (1, 1)])
@pytest.mark.parametrize("z", [1.96, 1.0])
def test_wilson_interval_solves_its_quadratic(correct, n, z):
    # (p_hat - p)^2 = z^2 p (1 - p) / n
    p_hat, q = correct / n, z * z / n
    low, high = sorted(np.roots([1 + q, -(2 * p_hat + q), p_hat**2]).real)
    assert wilson_interval(correct, n, z) == pytest.approx((low, high), abs=1e-9)
    assert 0 <= wilson_interval(correct, n, z)[0] <= p_hat <= wilson_interval(correct, n, z)[1] <= 1


def test_impossible_counts_are_bugs():
    for correct, n in ((3, 2), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match=f"got {correct} of {n}"):
            wilson_interval(correct, n)


def test_accuracy_counts():
    assert accuracy(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 1, 1, 2])) == 0.75
    with pytest.raises(ValueError, match="expected the same, and not empty"):
        accuracy(torch.tensor([0]), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="expected the same, and not empty"):
        accuracy(torch.zeros(0), torch.zeros(0))


def test_normalized_accuracy_is_equation_seven():
    merged, single = {"a": 0.5, "b": 0.9, "c": 0.3}, {"a": 0.8, "c": 0.6, "b": 0.9}
    assert normalized_accuracy(merged, single) == pytest.approx((0.625 + 1 + 0.5) / 3, rel=1e-15)
    assert normalized_accuracy(single, single) == 1
    with pytest.raises(UsageError, match="single-task accuracy of b is 0"):
        normalized_accuracy(merged, {**single, "b": 0.0})
    with pytest.raises(ValueError, match="expected the same"):
        normalized_accuracy(merged, {"a": 1.0})


def test_confusion_counts_every_pair():
    labels, guesses = torch.randint(0, 4, (2, 200), generator=torch.Generator().manual_seed(0))
    matrix = confusion(guesses, labels, 5)
    for row in range(5):
        for column in range(5):
            pairs = zip(labels.tolist(), guesses.tolist(), strict=True)
            assert int(matrix[row, column]) == sum(pair == (row, column) for pair in pairs)
    assert accuracy(guesses, labels) == int(matrix.trace()) / 200


def slow_accuracy(mode, tau, name, kind):
    """One image at a time, in plain Python: theta0 + tau or its first-order expansion."""
    split, head, right = SPLITS[kind][name], ENCODER.head(TASKS[name]), 0
    for n in range(len(split.labels)):
        x = ENCODER.preprocess(split.images[n : n + 1])

        def f(theta, x=x):
            return ENCODER.features(theta, x)

        if mode == "nonlinear":
            z = f({key: value + tau[key] for key, value in ENCODER.theta0.items()})
        else:
            z = sum(jvp(f, (ENCODER.theta0,), (tau,)))
        scores = [float(z[0] @ row) for row in head]
        right += scores.index(max(scores)) == int(split.labels[n])
    return right / len(split.labels)


def scaled_sum(taus, alphas):
    return {key: sum(alphas[name] * taus[name][key] for name in alphas) for key in ENCODER.theta0}


def test_nonlinear_accuracy_is_that_image_by_image(taus):
    tau = scaled_sum(taus["nonlinear"], {"ab": 0.7, "efg": -0.4})
    theta = {key: value + tau[key] for key, value in ENCODER.theta0.items()}
    for name in NAMES:
        head = ENCODER.head(TASKS[name])
        got = evaluate_nonlinear(ENCODER, theta, SPLITS["test"][name], head, batch=17)
        assert got == slow_accuracy("nonlinear", tau, name, "test")


def test_linearized_accuracy_is_that_image_by_image(taus, readings):
    alphas = {"ab": 0.7, "efg": -0.4}
    for name in NAMES:
        got = linearized_accuracy(readings[name], alphas)
        assert got == slow_accuracy(
            "linear", scaled_sum(taus["linear"], alphas), name, "validation"
        )
    with pytest.raises(ValueError, match=r"got alphas for \['zz'\]"):
        linearized_accuracy(readings["ab"], {"zz": 1.0})


def test_a_control_task_is_one_more_entry(taus):
    control = other_task("objects", 4)
    split = fake_split(control, "test", 50)
    reading = responses(ENCODER, control, split, taus["linear"])
    zero, strong = (linearized_accuracy(reading, {"ab": alpha}) for alpha in (0.0, -2.0))
    head = ENCODER.head(control)
    assert zero == evaluate_nonlinear(ENCODER, ENCODER.theta0, split, head)
    assert zero != strong


def test_weights_that_overflow_are_refused(taus):
    theta = {key: value * 1e30 for key, value in ENCODER.theta0.items()}
    theta["6.weight"] = theta["6.weight"] * 1e30
    head = ENCODER.head(TASKS["ab"])
    with pytest.raises(NonFiniteError, match="scores of miniature-fake"):
        evaluate_nonlinear(ENCODER, theta, SPLITS["test"]["ab"], head)


# ------------------------------------------------------------------------------------- addition


def run(taus, mode, **options):
    vectors = taus[trained_mode(mode)]
    splits = SPLITS["validation"], SPLITS["test"]
    return addition(ENCODER, mode, TASKS, vectors, *splits, **options)


@pytest.mark.parametrize(
    ("mode", "convention"),
    [("nonlinear", "sum"), ("nonlinear", "mean"), ("posthoc", "mean"), ("linear", "sum")],
)
def test_addition_equals_plain_loops(taus, mode, convention):
    alphas = (0.0, 0.3, 0.6, 0.9)
    got = run(taus, mode, convention=convention, alphas=alphas)
    vectors = taus[trained_mode(mode)]
    curve = []
    for alpha in alphas:
        factor = alpha / 3 if convention == "mean" else alpha
        tau = scaled_sum(vectors, dict.fromkeys(NAMES, factor))
        merged = [slow_accuracy(mode, tau, name, "validation") for name in NAMES]
        single = [slow_accuracy(mode, vectors[name], name, "validation") for name in NAMES]
        ratios = [m / s for m, s in zip(merged, single, strict=True)]
        curve.append({"alpha": alpha, "absolute": sum(merged) / 3, "normalized": sum(ratios) / 3})
    for entry, expected in zip(got["validation"], curve, strict=True):
        assert entry == pytest.approx(expected, rel=1e-12)
    values = [entry["normalized"] for entry in curve]
    assert got["alpha"] == alphas[values.index(max(values))]
    factor = got["alpha"] / 3 if convention == "mean" else got["alpha"]
    tau = scaled_sum(vectors, dict.fromkeys(NAMES, factor))
    for name in NAMES:
        assert got["merged"][name] == slow_accuracy(mode, tau, name, "test")
        assert got["single"][name] == slow_accuracy(mode, vectors[name], name, "test")
        nothing = {key: torch.zeros_like(value) for key, value in tau.items()}
        assert got["zeroshot_tasks"][name] == slow_accuracy(mode, nothing, name, "test")
    assert got["absolute"] == pytest.approx(sum(got["merged"].values()) / 3)
    assert got["zeroshot"] == pytest.approx(sum(got["zeroshot_tasks"].values()) / 3)
    assert got["normalized"] == normalized_accuracy(got["merged"], got["single"])


def test_addition_says_what_the_command_promises(taus):
    calls = []
    got = run(taus, "linear", progress=lambda *done: calls.append(done))
    promised = ["encoder", "mode", "alpha", "absolute", "normalized", "zeroshot", "single"]
    promised += ["merged", "validation", "n"]
    assert set(promised) <= got.keys()
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert [entry["alpha"] for entry in got["validation"]] == list(ALPHAS)
    assert len(ALPHAS) == 21
    assert ALPHAS[:3] == (0.0, 0.05, 0.1)
    assert ALPHAS[-1] == 1.0
    assert got["n"] == dict.fromkeys(NAMES, 40)
    assert got["n_validation"] == dict.fromkeys(NAMES, 30)
    assert got["split_digests"]["test"] == {n: SPLITS["test"][n].digest for n in NAMES}
    assert got["intervals"]["merged"]["ab"] == list(
        wilson_interval(round(got["merged"]["ab"] * 40), 40)
    )
    assert {"versions", "commit", "encoder_digest", "convention", "exact"} <= got.keys()
    assert calls == [(k, 29) for k in range(1, 30)]


def test_alpha_is_chosen_without_the_test_split(taus):
    def shuffled(split):
        order = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(3))
        return replace(split, labels=split.labels[order])

    other = {name: shuffled(split) for name, split in SPLITS["test"].items()}
    one = run(taus, "nonlinear")
    two = addition(ENCODER, "nonlinear", TASKS, taus["nonlinear"], SPLITS["validation"], other)
    assert one["validation"] == two["validation"]
    assert one["alpha"] == two["alpha"]
    assert one["merged"] != two["merged"]


def test_first_alpha_wins_among_equals(taus):
    nothing = {n: {k: 0 * v for k, v in tau.items()} for n, tau in taus["linear"].items()}
    splits = SPLITS["validation"], SPLITS["test"]
    assert addition(ENCODER, "linear", TASKS, nothing, *splits)["alpha"] == 0.0


def test_remembered_responses_may_hold_more_vectors_in_another_order(taus, readings):
    few = {name: taus["linear"][name] for name in ("ab", "efg")}
    splits = SPLITS["validation"], SPLITS["test"]
    backwards = dict(reversed(taus["linear"].items()))

    def respond(task, split):
        return responses(ENCODER, task, split, backwards)

    fresh = addition(ENCODER, "linear", TASKS, few, *splits)
    assert addition(ENCODER, "linear", TASKS, few, *splits, respond=respond) == fresh


def test_addition_refuses_what_does_not_fit(taus):
    splits = SPLITS["validation"], SPLITS["test"]
    with pytest.raises(UsageError, match="tasks lacks cd, efg"):
        addition(ENCODER, "linear", {"ab": TASKS["ab"]}, taus["linear"], *splits)
    with pytest.raises(UsageError, match="no task vectors were given"):
        addition(ENCODER, "linear", TASKS, {}, *splits)
    with pytest.raises(ValueError, match="got mode 'lora'"):
        addition(ENCODER, "lora", TASKS, taus["linear"], *splits)
    with pytest.raises(ValueError, match="got 'max', expected one of sum, mean"):
        run(taus, "linear", convention="max")


# --------------------------------------------------------------------------------------- search


@pytest.mark.parametrize("convention", ["sum", "mean"])
def test_search_alpha_agrees_with_addition(taus, readings, convention):
    expected = run(taus, "linear", convention=convention)
    got = search_alpha(readings, convention)
    assert got["validation"] == expected["validation"]
    assert got["alpha"] == expected["alpha"]


def random_reading(task, names, N=60, C=6, seed=0):
    """Responses in which a vector helps its own task and disturbs the others."""
    source = torch.Generator().manual_seed(seed + sum(map(ord, task)))
    d = 12
    head = torch.nn.functional.normalize(torch.randn(C, d, generator=source), dim=1)
    labels = torch.randint(0, C, (N,), generator=source)
    z0 = torch.randn(N, d, generator=source) + 0.5 * head[labels]
    jz = torch.randn(len(names), N, d, generator=source) * 0.7
    jz[names.index(task)] += 2 * head[labels]
    return Responses(task, "validation", tuple(names), z0, jz, labels, head)


def exact(readings, alphas, single):
    row = torch.tensor([list(alphas)], dtype=torch.float64)
    ratios = [
        float(accuracy_over(reading.scores(), reading.labels, row)[0]) / single[task]
        for task, reading in readings.items()
    ]
    return sum(ratios) / len(ratios)


def singles(readings):
    return {task: linearized_accuracy(reading, {task: 1.0}) for task, reading in readings.items()}


def test_line_is_what_trying_each_point_gives():
    names = ["p", "q", "r"]
    readings = {task: random_reading(task, names, C=4 + i) for i, task in enumerate(names)}
    single = singles(readings)
    margins = search_module._margins(readings, names, single, 1.0)
    grid = torch.linspace(-1, 2, 61, dtype=torch.float64)
    alphas = torch.tensor([0.2, 0.9, -0.3], dtype=torch.float64)
    for t in range(3):
        rest = margins.at(alphas) - alphas[t] * margins.slopes[t]
        line = search_module._along(rest, margins.slopes[t], margins.weights, grid)
        for g, value in zip(grid.tolist(), line.tolist(), strict=True):
            setting = alphas.tolist()
            setting[t] = g
            assert value == pytest.approx(exact(readings, setting, single), abs=1e-12)


def test_image_lost_on_the_whole_line_is_never_counted():
    names = ["p"]
    reading = random_reading("p", names)
    scores = torch.zeros_like(reading.jz)  # the vector changes nothing
    still = Responses("p", "validation", ("p",), reading.z0, scores, reading.labels, reading.head)
    margins = search_module._margins({"p": still}, names, {"p": 1.0}, 1.0)
    line = search_module._along(
        margins.base, margins.slopes[0], margins.weights, torch.linspace(-1, 2, 7).double()
    )
    expected = linearized_accuracy(still, {})
    torch.testing.assert_close(line, torch.full((7,), expected, dtype=torch.float64))


@pytest.mark.parametrize("convention", ["sum", "mean"])
@pytest.mark.parametrize("seed", range(3))
def test_search_never_ends_below_the_best_shared_alpha(seed, convention):
    names = ["p", "q", "r", "s"]
    readings = {task: random_reading(task, names, seed=seed) for task in names}
    got = search_alphas(readings, convention=convention)
    factor = 0.25 if convention == "mean" else 1.0
    single = singles(readings)
    setting = [alpha * factor for alpha in got["alphas"].values()]
    assert got["normalized"] == pytest.approx(exact(readings, setting, single), abs=1e-12)
    shared = search_alpha(readings, convention)
    assert got["shared"] == {key: shared[key] for key in ("alpha", "absolute", "normalized")}
    assert got["normalized"] > shared["normalized"]  # four free alphas find something here
    assert list(got["alphas"]) == names
    assert all(-1 <= alpha <= 2 for alpha in got["alphas"].values())
    assert all(round(alpha, 2) == alpha for alpha in got["alphas"].values())
    assert search_alphas(readings, convention=convention) == got


def test_search_finds_the_best_of_every_setting_of_two_alphas():
    names = ["p", "q"]
    readings = {task: random_reading(task, names, N=40, seed=5) for task in names}
    single = singles(readings)
    steps = torch.arange(0, 31, dtype=torch.float64) * 0.1 - 1
    every = torch.cartesian_prod(steps, steps)
    values = sum(
        accuracy_over(r.scores(), r.labels, every) / single[task] for task, r in readings.items()
    )
    got = search_alphas(readings, step=0.1)
    # a local optimum on the same grid: within one image in forty of the best of 961 settings
    assert float(values.max()) / 2 - 1 / 40 <= got["normalized"] <= float(values.max()) / 2 + 1e-12


def test_search_stays_in_its_box():
    names = ["p", "q", "r"]
    readings = {task: random_reading(task, names) for task in names}
    got = search_alphas(readings, lo=0.0, hi=0.3)
    assert all(0 <= alpha <= 0.3 for alpha in got["alphas"].values())
    assert got["shared"]["alpha"] <= 0.3
    with pytest.raises(UsageError, match="has none of the alphas 0 to 1; widen it"):
        search_alphas(readings, lo=1.5, hi=2.0)


def test_the_middle_of_the_longest_best_run_is_taken():
    values = torch.tensor([0.0, 5, 1, 5, 5, 5, 2, 5, 5])
    assert search_module._middle_of_best(values) == 4
    assert search_module._middle_of_best(torch.tensor([7.0, 1, 7])) == 0
    assert search_module._middle_of_best(torch.ones(4)) == 1


def test_alphas_of_eight_tasks_of_five_hundred_images_beat_the_shared_one():
    names = [f"task {t}" for t in range(8)]
    readings = {task: random_reading(task, names, N=500, C=12) for task in names}
    got = search_alphas(readings)
    assert got["normalized"] > got["shared"]["normalized"]


def test_random_vectors_are_taken_too():
    vectors = fake_taus(ENCODER, NAMES, scale=0.02)
    readings = {
        name: responses(ENCODER, TASKS[name], SPLITS["validation"][name], vectors) for name in NAMES
    }
    got = search_alphas(readings)
    assert got["normalized"] >= got["shared"]["normalized"]
