"""Task negation and addition along a prepared direction, against slow twins."""

import pytest
import torch

from engine import merging
from engine.errors import UsageError
from engine.evaluate import ALPHAS, addition, negation
from engine.finetune import Recipe, finetune
from tests.fake_encoder import fake_encoder, fake_split, other_task

NAMES = ("ab", "cd")
ENCODER = fake_encoder()
CONTROL = other_task("whole", 4)
TASKS = {name: other_task(name, 3 + i) for i, name in enumerate(NAMES)}
EVERYTHING = {**TASKS, "whole": CONTROL}
SPLITS = {
    kind: {name: fake_split(task, kind, n) for name, task in EVERYTHING.items()}
    for kind, n in (("train", 120), ("validation", 30), ("test", 40))
}


@pytest.fixture(scope="module")
def taus():
    recipe = Recipe(steps=40, warmup=4, batch=32, rate=1e-3)
    kinds = SPLITS["train"], SPLITS["validation"]
    return {
        mode: {
            n: finetune(ENCODER, TASKS[n], *(kind[n] for kind in kinds), mode, recipe).tau
            for n in NAMES
        }
        for mode in ("nonlinear", "linear")
    }


def right(mode, tau, scale, task, split):
    """Count right answers by one pass an image, the tangent by torch.func."""
    count = 0
    for image, label in zip(split.images, split.labels, strict=True):
        x = ENCODER.preprocess(image[None])
        if mode == "nonlinear":
            theta = {k: v + scale * tau[k] for k, v in ENCODER.theta0.items()}
            z = ENCODER.features(theta, x)
        else:
            z, dz = torch.func.jvp(
                lambda theta, x=x: ENCODER.features(theta, x), (ENCODER.theta0,), (tau,)
            )
            z = z + scale * dz
        scores = z.double() @ ENCODER.head(task).double().T
        count += int(scores.argmax() == label)
    return count


def run(taus, mode, **changes):
    trained = "linear" if mode == "linear" else "nonlinear"
    splits = SPLITS["validation"], SPLITS["test"]
    return negation(ENCODER, mode, TASKS, taus[trained], CONTROL, *splits, **changes)


@pytest.mark.parametrize("mode", ["nonlinear", "posthoc", "linear"])
def test_negation_equals_a_plain_loop(taus, mode):
    alphas = (0.0, 0.25, 0.5, 1.0)
    found = run(taus, mode, alphas=alphas)
    trained = taus["linear" if mode == "linear" else "nonlinear"]
    validation, test = SPLITS["validation"], SPLITS["test"]
    intact = right(mode, trained["ab"], 0.0, CONTROL, validation["whole"])
    assert found["control_validation_pretrained"] == intact / 30
    for name in NAMES:
        tried = [
            (
                right(mode, trained[name], -alpha, TASKS[name], validation[name]),
                alpha,
                right(mode, trained[name], -alpha, CONTROL, validation["whole"]),
            )
            for alpha in alphas
        ]
        target, alpha, kept = min(entry for entry in tried if entry[2] >= 0.95 * intact)
        row = found["tasks"][name]
        assert (row["alpha"], row["target_validation"]) == (alpha, target / 30)
        assert row["control_validation"] == kept / 30
        assert [entry["target_validation"] for entry in row["curve"]] == [t[0] / 30 for t in tried]
        on_test = right(mode, trained[name], -alpha, TASKS[name], test[name])
        assert row["target"] == on_test / 40
        low, high = row["intervals"]["target"]
        assert low <= row["target"] <= high
    rows = found["tasks"].values()
    assert found["target"] == pytest.approx(sum(row["target"] for row in rows) / 2)
    assert found["control"] == pytest.approx(sum(row["control"] for row in rows) / 2)


def test_the_control_is_kept_on_validation(taus):
    for keep in (1.0, 0.95, 0.5):
        found = run(taus, "linear", keep=keep)
        bound = keep * found["control_validation_pretrained"]
        assert all(row["control_validation"] >= bound for row in found["tasks"].values())


def test_less_to_keep_forgets_no_less(taus):
    strict, loose = run(taus, "linear", keep=1.0), run(taus, "linear", keep=0.0)
    for name in NAMES:
        kept, free = strict["tasks"][name], loose["tasks"][name]
        assert free["target_validation"] <= kept["target_validation"]
        assert free["target_validation"] == min(e["target_validation"] for e in free["curve"])


def test_zero_is_always_allowed(taus):
    found = run(taus, "linear", alphas=(1.0,), keep=1.0)
    assert all(len(row["curve"]) == 2 for row in found["tasks"].values())


def test_negation_refuses_what_does_not_fit(taus):
    splits = SPLITS["validation"], SPLITS["test"]
    with pytest.raises(UsageError, match="ab cannot be forgotten and kept"):
        negation(ENCODER, "linear", TASKS, taus["linear"], TASKS["ab"], *splits)
    few = {name: SPLITS["test"][name] for name in NAMES}
    with pytest.raises(UsageError, match="test lacks whole"):
        negation(ENCODER, "linear", TASKS, taus["linear"], CONTROL, splits[0], few)
    with pytest.raises(UsageError, match="no task vectors"):
        negation(ENCODER, "linear", TASKS, {}, CONTROL, *splits)


@pytest.mark.parametrize("mode", ["nonlinear", "posthoc", "linear"])
def test_addition_along_the_summed_direction_is_addition(taus, mode):
    trained = taus["linear" if mode == "linear" else "nonlinear"]
    splits = [{name: SPLITS[kind][name] for name in NAMES} for kind in ("validation", "test")]
    plain = addition(ENCODER, mode, TASKS, trained, *splits)
    direction = merging.prepare(trained, "sum")
    along = addition(ENCODER, mode, TASKS, trained, *splits, direction=direction)
    same = ("single", "merged", "zeroshot_tasks", "alpha", "absolute", "normalized")
    assert {key: along[key] for key in same} == {key: plain[key] for key in same}


def test_addition_along_a_direction_equals_a_plain_loop(taus):
    direction = merging.prepare(taus["linear"], "ties", density=0.3)
    splits = SPLITS["validation"], SPLITS["test"]
    found = addition(ENCODER, "linear", TASKS, taus["linear"], *splits, direction=direction)
    assert found["alpha"] in ALPHAS
    for name in NAMES:
        count = right("linear", direction, found["alpha"], TASKS[name], SPLITS["test"][name])
        assert found["merged"][name] == count / 40
