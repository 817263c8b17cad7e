"""Task negation and addition along a prepared direction, against slow twins."""

import json

import pytest
import torch

from engine import merging
from engine.__main__ import main
from engine.encoders import load_encoder
from engine.errors import UsageError
from engine.evaluate import ALPHAS, FARTHER, addition, negation
from engine.finetune import Recipe, finetune
from engine.tasks import load_split, load_task, miniature
from tests.fake_encoder import fake_encoder, fake_split, other_task
from tests.tiny_world import make_world

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


@pytest.mark.parametrize("mode", ["nonlinear", "posthoc", "linear"])
@pytest.mark.parametrize(("method", "keep"), [("sum", 0.95), ("ties", 0.5), ("tsv", 0.8)])
def test_negation_along_a_direction_equals_a_plain_loop(taus, mode, method, keep):
    trained = taus["linear" if mode == "linear" else "nonlinear"]
    m = merging.prepare(trained, method)
    alphas = (0.0, 0.5, 1.0, 2.0)
    found = run(taus, mode, direction=m, alphas=alphas, keep=keep)
    validation, test = SPLITS["validation"], SPLITS["test"]
    intact = right(mode, m, 0.0, CONTROL, validation["whole"])
    tried = []
    for alpha in alphas:
        left = [right(mode, m, -alpha, TASKS[n], validation[n]) / 30 for n in NAMES]
        kept = right(mode, m, -alpha, CONTROL, validation["whole"])
        if kept >= keep * intact:
            tried.append((sum(left) / 2, alpha, left, kept))
    # equal means differ in their last bit, as do the sums of the same numbers in another order
    _, alpha, left, kept = min(tried, key=lambda entry: (round(entry[0], 12), entry[1]))
    control = right(mode, m, -alpha, CONTROL, test["whole"]) / 40
    for name, on_validation in zip(NAMES, left, strict=True):
        row = found["tasks"][name]
        assert (row["alpha"], row["target_validation"]) == (alpha, on_validation)
        assert (row["control_validation"], row["control"]) == (kept / 30, control)
        assert row["target"] == right(mode, m, -alpha, TASKS[name], test[name]) / 40
        assert [entry["alpha"] for entry in row["curve"]] == list(alphas)
    assert found["control"] == pytest.approx(control)
    assert found["target"] == pytest.approx(sum(r["target"] for r in found["tasks"].values()) / 2)


def test_one_task_along_its_own_sum_is_negation(taus):
    alone = {"ab": taus["linear"]["ab"]}
    splits = SPLITS["validation"], SPLITS["test"]
    plain = negation(ENCODER, "linear", TASKS, alone, CONTROL, *splits)
    direction = merging.prepare(alone, "sum")
    along = negation(ENCODER, "linear", TASKS, alone, CONTROL, *splits, direction=direction)
    assert along["tasks"] == plain["tasks"]


def test_progress_reaches_its_end(taus):
    for more in ({}, {"direction": merging.prepare(taus["linear"], "mean")}):
        told = []
        run(taus, "linear", progress=lambda *step, told=told: told.append(step), **more)
        assert [done for done, _ in told] == list(range(1, told[-1][1] + 1))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(miniature.SIZES, "train", 300)
        patch.setitem(miniature.SIZES, "test", 60)
        yield make_world(tmp_path_factory.mktemp("world"), ("letters", "signs"))


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_the_verb_negates_along_a_method_and_keeps_it_apart(world, mode, capsys):
    names = ("letters", "signs")

    def ask(*more: str) -> dict:
        capsys.readouterr()
        words = ["negation", "--mode", mode, "--tasks", *names, "--cache", str(world.home)]
        assert main([*words, "--json", *more]) == 0
        return json.loads(capsys.readouterr().out)

    single, along = ask(), ask("--method", "dare", "--option", "drop=0.25")
    assert (along["method"], along["options"]) == ("dare", {"drop": 0.25, "seed": 0})
    assert "method" not in single
    assert len(along["tasks"]["signs"]["curve"]) == 41
    assert ask("--method", "dare", "--option", "drop=0.25", "seed=0") == along
    assert ask() == single
    assert len(world.find("result", what="negation", mode=mode)) == 2
    # by the engine's parts, from the store's own tensors
    encoder = load_encoder("miniature", world)
    trained = [world.one("checkpoint", "", task=name, mode=mode) for name in names]
    taus = {e.meta["task"]: world.get(e) for e in trained}
    direction = merging.prepare(taus, "dare", drop=0.25)
    tasks, control = {name: load_task(name) for name in names}, load_task("objects")
    splits = [
        {n: load_split(t, kind, 32, world) for n, t in {**tasks, "objects": control}.items()}
        for kind in ("validation", "test")
    ]
    again = negation(
        encoder, mode, tasks, taus, control, *splits, direction=direction, alphas=FARTHER
    )
    assert again["tasks"] == along["tasks"]
