"""Gradients, paths and sections on encoders: against loops, dense twins and the miniature."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engine import linearize
from engine.encoders import load_encoder
from engine.evaluate import nonlinear_scores
from engine.finetune.adamw import Layout
from engine.gradients import (
    Pieces,
    Reader,
    Regime,
    bridge,
    early,
    exactness,
    follow,
    iterative,
    merged,
    objective_of,
    off_the_full_step,
    one_step,
    rounds_of,
    trajectory,
)
from engine.gradients.bridge import rank_correlation, summary
from engine.gradients.exactness import choose_rates
from engine.gradients.expansion import descend, predicted_merge_error
from engine.gradients.path import HALF_ABOVE, Compact, norm
from engine.gradients.trajectory import grams, shares
from engine.store import default_store
from engine.task_vectors import cosine, cosine_matrix
from engine.tasks import load_split, load_task
from tests.fake_encoder import FakeTask, fake_encoder, fake_split

TASKS = {name: FakeTask(name) for name in ("shapes", "forms", "marks")}
MODES = ("nonlinear", "linear")


@pytest.fixture(scope="module")
def encoder():
    return fake_encoder(dtype=torch.float64)


@pytest.fixture(scope="module")
def splits():
    return {name: fake_split(task, n=24) for name, task in TASKS.items()}


def objectives_of(encoder, splits, mode, **changes):
    return {
        name: replace(objective_of(encoder, task, splits[name], mode), **changes)
        for name, task in TASKS.items()
    }


def loss_of(encoder, task, split, mode):
    """The mean loss written out, with f_lin by torch.func.jvp."""
    head = encoder.head(task)
    x = encoder.preprocess(split.images)
    layout = objective_of(encoder, task, split).layout

    def value(flat):
        if mode == "nonlinear":
            z = encoder.features(layout.split(flat), x)
        else:
            z, moved = torch.func.jvp(
                lambda theta: encoder.features(theta, x),
                (layout.split(layout.theta0),),
                (layout.split(flat - layout.theta0),),
            )
            z = z + moved
        return F.cross_entropy(encoder.logit_scale * F.normalize(z, dim=-1) @ head.T, split.labels)

    return value


@pytest.mark.parametrize("mode", MODES)
def test_value_gradient_and_hessian_product_against_autograd_of_the_plain_loss(
    encoder, splits, mode
):
    task = TASKS["shapes"]
    objective = replace(objective_of(encoder, task, splits["shapes"], mode), batch=7)
    source = torch.Generator().manual_seed(0)
    theta = objective.theta0 + 0.05 * torch.randn(
        objective.theta0.shape, generator=source, dtype=torch.float64
    )
    v = torch.randn(theta.shape, generator=source, dtype=torch.float64)
    loss = loss_of(encoder, task, splits["shapes"], mode)
    gradient = torch.func.grad(loss)(theta)
    product = torch.func.jvp(torch.func.grad(loss), (theta,), (v,))[1]
    value, found = objective.loss_and_gradient(theta)
    assert value == pytest.approx(float(loss(theta)), rel=1e-12)
    assert objective.value(theta) == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(objective.hvp(theta, v), product, rtol=1e-8, atol=1e-10)
    # symmetric: u^T H v = v^T H u
    u = torch.randn(theta.shape, generator=source, dtype=torch.float64)
    there, back = u @ objective.hvp(theta, v), v @ objective.hvp(theta, u)
    assert float(there) == pytest.approx(float(back), rel=1e-9)


def test_moved_is_the_jacobian_times_tau(encoder, splits):
    objective = objective_of(encoder, TASKS["forms"], splits["forms"])
    taus = [torch.ones_like(objective.theta0), torch.linspace(0, 1, len(objective.theta0)).double()]
    named = objective.layout.split
    x = encoder.preprocess(splits["forms"].images)
    wanted = linearize.tangents(encoder.features, encoder.theta0, [named(t) for t in taus], x)[1]
    found = replace(objective, batch=5).moved(taus)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)


def test_a_tick_can_stop_between_passes(encoder, splits):
    seen = []

    def tick():
        seen.append(1)
        if len(seen) == 3:
            raise KeyboardInterrupt

    objective = replace(
        objective_of(encoder, TASKS["shapes"], splits["shapes"], tick=tick), batch=4
    )
    with pytest.raises(KeyboardInterrupt):
        objective.gradient(objective.theta0)
    assert len(seen) == 3


def loop(objectives, regime, epochs, alpha, optimiser):
    """The same walk by torch's own optimisers."""
    theta = objectives[0].theta0.clone().requires_grad_()
    steps = max(regime.steps(o.n) for o in objectives)
    stepper, points = optimiser([theta]), [theta.detach().clone()]
    for step in range(epochs * steps):
        theta.grad = alpha * sum(
            o.gradient(theta.detach(), regime.rows(step, o.n)) for o in objectives
        )
        stepper.step()
        if (step + 1) % steps == 0:
            points.append(theta.detach().clone())
    return points


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["gd", "sgd", "adamw"])
def test_paths_are_those_of_torchs_optimisers(encoder, splits, mode, name):
    objectives = objectives_of(encoder, splits, mode)
    regime = Regime(name, 0.01, None if name == "gd" else 8, seed=4)

    def optimiser(parameters):
        if name == "adamw":
            return torch.optim.AdamW(parameters, lr=0.01, weight_decay=0.0)
        return torch.optim.SGD(parameters, lr=0.01)

    for chosen, alpha in (([objectives["shapes"]], 1.0), (list(objectives.values()), 0.4)):
        path = follow(chosen, regime, 3, alpha)
        points = loop(chosen, regime, 3, alpha, optimiser)
        for k, theta in enumerate(points):
            wanted = theta - chosen[0].theta0
            # kept in float32: one rounding of a difference, whatever k
            torch.testing.assert_close(path.tau(k), wanted, rtol=1e-6, atol=1e-8)
        torch.testing.assert_close(path.last, points[-1] - chosen[0].theta0, rtol=1e-9, atol=1e-12)
        displaced = [float((b - a).norm()) for a, b in zip(points, points[1:], strict=False)]
        assert path.displacement == pytest.approx(displaced, rel=1e-9)
        losses = [sum(o.value(theta) for o in chosen) for theta in points]
        assert path.losses == pytest.approx(losses, rel=1e-9)
        norms = [norm(sum(o.gradient(theta) for o in chosen)) for theta in points[:-1]]
        assert path.gradient == pytest.approx(norms, rel=1e-9)


@pytest.mark.parametrize("name", ["gd", "sgd", "adamw"])
def test_a_stopped_walk_goes_on_to_the_same_bits(encoder, splits, name):
    objective = objective_of(encoder, TASKS["shapes"], splits["shapes"])
    regime = Regime(name, 0.02, None if name == "gd" else 12)
    kept = {}

    def save(tensors, meta):
        kept["state"] = (dict(tensors), json.loads(json.dumps(meta)))

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        follow([objective], regime, 5, progress=stop, save_state=save)
    assert len(kept["state"][1]["losses"]) == 2
    resumed = follow([objective], regime, 5, load_state=lambda: kept["state"], save_state=save)
    whole = follow([objective], regime, 5)
    assert torch.equal(resumed.last, whole.last)
    assert torch.equal(resumed.tau(3), whole.tau(3))
    for field in ("losses", "displacement", "gradient", "used_gradient", "steps", "evaluations"):
        assert getattr(resumed, field) == getattr(whole, field)
    assert resumed.telescoping() == whole.telescoping()


def test_differences_are_compact_and_their_rounding_does_not_add_up(encoder, splits):
    objective = objective_of(encoder, TASKS["shapes"], splits["shapes"])
    path = follow([objective], Regime("gd", 0.05), 40)
    points = descend([objective], 0.05, 40)
    assert {d.values.dtype for d in path.differences} == {torch.float32}
    largest = max(float(d.values.abs().max()) for d in path.differences)
    for k in (1, 20, 39):
        off = float((path.tau(k) - (points[k] - points[0])).abs().max())
        assert off <= largest * torch.finfo(torch.float32).eps
    big = Compact.of(torch.linspace(-3e-7, 5e-7, HALF_ABOVE + 1))
    assert big.values.dtype == torch.float16
    wide = big.wide(torch.zeros(1))
    assert float((wide - torch.linspace(-3e-7, 5e-7, HALF_ABOVE + 1).double()).abs().max()) < 3e-10


@pytest.mark.parametrize("mode", MODES)
def test_exactness_on_an_encoder(encoder, splits, mode):
    objectives = objectives_of(encoder, splits, mode)
    singles = objectives_of(fake_encoder(dtype=torch.float32), splits, mode)
    found = exactness(objectives, singles=singles, steps=4, iterations=40)
    assert found["rates"] == sorted(found["rates"])
    assert max(found["merge"]["ulps"]) <= 16
    for name, task in found["tasks"].items():
        assert task["one_step"]["ulps"] <= 1
        assert task["one_step"]["relative"] < 1e-9 < task["one_step"]["relative_float32"]
        assert task["slope_raw"] == pytest.approx(2, abs=0.1)
        assert task["slope_corrected"] == pytest.approx(3, abs=0.15)
        for raw, after, before in zip(
            task["raw"], task["bound_posteriori"], task["bound_priori"], strict=True
        ):
            assert raw <= after * 1.001  # an estimated curvature: near, not certain
            assert raw <= before * 1.001
        squares = [
            sum(layer["raw"][i] ** 2 for layer in task["layers"].values())
            for i in range(len(found["rates"]))
        ]
        assert squares == pytest.approx([raw**2 for raw in task["raw"]], rel=1e-9)
        own = descend([objectives[name]], found["rates"][-1], 4)[-1] - objectives[name].theta0
        assert task["displacement"][-1] == pytest.approx(float(own.norm()), rel=1e-9)


@pytest.mark.parametrize("mode", MODES)
def test_equalities_layer_by_layer_against_a_loop_over_weights(encoder, splits, mode):
    objectives = objectives_of(encoder, splits, mode)
    rates, steps = [1e-4, 1e-3], 3
    found = exactness(objectives, rates=rates, steps=steps, iterations=2)
    for name, task in found["tasks"].items():
        objective = objectives[name]
        for kind, rate, count in (("one_step", rates[0], 1), ("telescoping", rates[-1], steps)):
            points = descend([objective], rate, count)
            summed = sum(objective.gradient(theta) for theta in points[:-1])
            rest = objective.layout.split(points[-1] - points[0] + rate * summed)
            ends = [objective.layout.split(points[k]) for k in (0, -1)]
            worst = {}
            for weight, values in rest.items():
                layer = next(x for x in task["layers"] if weight.startswith(x))
                sizes = zip(*(end[weight].flatten().tolist() for end in ends), strict=True)
                for value, pair in zip(values.flatten().tolist(), sizes, strict=True):
                    ulps = abs(value) / math.ulp(max(map(abs, pair)))
                    worst[layer] = max(worst.get(layer, 0.0), ulps)
            told = {layer: part[f"{kind}_ulps"] for layer, part in task["layers"].items()}
            assert told == pytest.approx(worst, rel=1e-6)
            assert max(told.values()) == task[kind]["ulps"]


@pytest.fixture(scope="module")
def miniature():
    return load_encoder("miniature", default_store()).to("cpu", torch.float64)


@pytest.mark.parametrize("mode", MODES)
def test_the_checks_on_the_miniature_in_float64(miniature, mode):
    store, few = default_store(), 6
    objectives = {}
    for name in ("letters", "signs"):
        task = load_task(name)
        split = load_split(task, "train", miniature.image_size, store, limit=few)
        objectives[name] = objective_of(miniature, task, split, mode)
    found = exactness(objectives, steps=3, iterations=6, rates=None)
    assert max(found["merge"]["ulps"]) <= 16
    for task in found["tasks"].values():
        assert task["one_step"]["ulps"] <= 1
        assert len(task["layers"]) > 3
        assert all(layer["one_step_ulps"] <= 1 for layer in task["layers"].values())
        assert task["telescoping"]["relative"] < 1e-9
        assert task["slope_raw"] == pytest.approx(2, abs=0.1)
        assert task["slope_corrected"] == pytest.approx(3, abs=0.15)
    objective = objectives["letters"]
    v = objective.gradient(objective.theta0)
    step = 1e-4 / float(v.norm())
    ahead, behind = (objective.gradient(objective.theta0 + s * step * v) for s in (1, -1))
    around = (ahead - behind) / (2 * step)  # central differences, another road to H v
    torch.testing.assert_close(
        objective.hvp(objective.theta0, v), around, rtol=0, atol=1e-5 * float(around.abs().max())
    )


def test_one_step_in_single_precision_cannot_show_the_equality(miniature):
    store, task = default_store(), load_task("letters")
    split = load_split(task, "train", miniature.image_size, store, limit=4)
    double = one_step(objective_of(miniature, task, split), 1e-5)
    single = one_step(objective_of(miniature.to("cpu", torch.float32), task, split), 1e-5)
    assert double["ulps"] <= 1
    assert double["relative"] < 1e-9
    assert single["relative"] > 1e-3  # the trap: the rounding of theta hides it


def test_a_task_vector_of_the_miniature_has_cosine_one_with_itself():
    store = default_store()
    taus = {
        mode: store.get(store.one("checkpoint", "", encoder="miniature", task="letters", mode=mode))
        for mode in MODES
    }
    layout = Layout({name: value.float() for name, value in taus["linear"].items()})
    vectors = [Compact(layout.join(tau)) for tau in taus.values()]
    gram = sum(grams(vectors, layout).values())
    for place, tau in enumerate(taus.values()):
        row = torch.eye(2, dtype=torch.float64)[place]
        assert cosine(tau, tau) == pytest.approx(1, abs=1e-12)
        assert cosine(tau, {k: -3 * v.double() for k, v in tau.items()}) == pytest.approx(
            -1, abs=1e-12
        )
        assert float(row @ gram @ row) == pytest.approx(norm(vectors[place].values) ** 2, rel=1e-12)
    diagonal = cosine_matrix(taus).diagonal()
    torch.testing.assert_close(diagonal.double(), torch.ones(2).double(), rtol=0, atol=1e-12)
    told = gram / gram.diagonal().sqrt().outer(gram.diagonal().sqrt())
    assert float(told[0, 1]) == pytest.approx(cosine(*taus.values()), abs=1e-12)


@pytest.fixture(scope="module")
def walked(encoder, splits):
    objectives = objectives_of(encoder, splits, "nonlinear")
    regime = Regime("sgd", 0.05, batch=8)
    paths = {name: follow([o], regime, 4) for name, o in objectives.items()}
    return objectives, regime, paths, follow(list(objectives.values()), regime, 4, 1 / 3)


def test_trajectory_against_vectors_themselves(walked):
    objectives, _, paths, joint = walked
    layout = objectives["shapes"].layout
    found = trajectory(paths, joint, layout, 1 / 3, [1, 2, 4])
    assert found["uniform"] == 0.25
    for name, path in paths.items():
        task, last = found["tasks"][name], path.tau(4)
        named = layout.split
        g0 = objectives[name].gradient(layout.theta0)
        assert sum(task["displacement_share"]) == pytest.approx(1)
        assert task["displacement_share"] == pytest.approx(shares(path.displacement))
        for k in (1, 3, 4):
            tau = path.tau(k)
            assert task["tau_norm"][k] == pytest.approx(float(tau.norm()), rel=1e-6)
            assert task["cosine_descent"][k - 1] == pytest.approx(
                cosine(named(tau), named(-g0)), abs=1e-6
            )
            assert task["cosine_final"][k - 1] == pytest.approx(
                cosine(named(tau), named(last)), abs=1e-6
            )
        assert task["cosine_final"][-1] == pytest.approx(1, abs=1e-12)
        gradients = [g.wide(last) for g in path.gradients]
        assert task["cosine_gradients"][1][2] == pytest.approx(
            float(gradients[1] @ gradients[2] / gradients[1].norm() / gradients[2].norm())
        )
        layer = task["layers"]["3"]  # the linear layer of the tower
        part = {k: v for k, v in named(path.tau(2)).items() if k.startswith("3.")}
        other = {k: v for k, v in named(-g0).items() if k.startswith("3.")}
        assert layer["cosine_descent"][1] == pytest.approx(cosine(part, other), abs=1e-6)
    names = list(paths)
    taus = [layout.split(paths[n].tau(2)) for n in names]
    assert found["cosine_taus"]["matrices"][1][0][2] == pytest.approx(
        cosine(taus[0], taus[2]), abs=1e-6
    )
    assert found["cosine_gradients_tasks"][1][1] == pytest.approx(1, abs=1e-12)


def test_an_epoch_of_minibatches_is_off_the_full_step_by_the_distance_of_the_vectors(walked):
    objectives, regime, paths, joint = walked
    layout = objectives["shapes"].layout
    found = trajectory(paths, joint, layout, 1 / 3, [1])["tasks"]
    for name, path in paths.items():
        whole = regime.rate * regime.steps(24) * objectives[name].gradient(layout.theta0)
        wanted = float((path.tau(1) + whole).norm() / whole.norm())
        task = found[name]
        length = regime.rate * regime.steps(24) * task["gradient"][0]
        off = off_the_full_step(task["tau_norm"][1], task["cosine_descent"][0], length)
        assert off == pytest.approx(wanted, rel=1e-4)
        assert off > 1e-4  # not equality
    assert off_the_full_step(1.0, 1.0, 0.0) is None
    assert off_the_full_step(1.0, 1.0 + 1e-16, 1.0) == 0.0


def test_the_projection_keeps_distances_as_far_as_a_plane_can(walked):
    objectives, _, paths, joint = walked
    layout = objectives["shapes"].layout
    plane = trajectory(paths, joint, layout, 1 / 3, [4])["projection"]
    assert 0 < sum(plane["explained"]) <= 1 + 1e-12
    assert plane["joint"][0] == pytest.approx([0, 0], abs=1e-9)
    every = [path.tau(k) for path in [*paths.values(), joint] for k in range(5)]
    every += [sum(p.tau(k) for p in paths.values()) / 3 for k in range(5)]
    points = torch.stack(every)
    centred = points - points.mean(dim=0)
    singular = torch.linalg.svdvals(centred).square()
    assert plane["explained"] == pytest.approx((singular[:2] / singular.sum()).tolist(), rel=1e-5)
    coordinates = torch.tensor([
        *(xy for name in paths for xy in plane["paths"][name]),
        *plane["joint"],
        *plane["merge"],
    ]).double()
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    wanted = centred @ axes[:2].T
    torch.testing.assert_close(
        torch.cdist(coordinates, coordinates), torch.cdist(wanted, wanted), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("mode", MODES)
def test_merged_accuracy_against_a_loop_and_the_choice_of_alpha(splits, mode):
    encoder = fake_encoder()
    objectives = objectives_of(encoder, splits, mode)
    paths = {n: follow([o], Regime("sgd", 0.1, batch=8), 4) for n, o in objectives.items()}
    test = {name: fake_split(task, "test", n=30) for name, task in TASKS.items()}
    validation = {name: fake_split(task, "validation", n=20) for name, task in TASKS.items()}
    reader, chooser = (Reader(encoder, mode, TASKS, s) for s in (test, validation))
    alphas = [0.0, 1 / 3, 1.0, 2.0]
    found = merged(paths, [1, 2, 4], alphas, reader, chooser)
    layout = objectives["shapes"].layout
    for e, mark in enumerate((1, 2, 4)):
        summed = sum(path.tau(mark) for path in paths.values()).float()
        for a, alpha in enumerate(alphas):
            accuracies = []
            for name, task in TASKS.items():
                x, head = encoder.preprocess(test[name].images), encoder.head(task)
                if mode == "linear":
                    z = linearize.linearized(
                        encoder.features, encoder.theta0, layout.split(alpha * summed), x
                    )
                    guesses = (z @ head.T).argmax(dim=1)
                else:
                    theta = layout.split(layout.theta0 + alpha * summed)
                    guesses = nonlinear_scores(encoder, theta, test[name].images, head).argmax(1)
                accuracies.append(float((guesses == test[name].labels).double().mean()))
                assert found["accuracy"][name][e][a] == pytest.approx(accuracies[-1], abs=1 / 29)
            assert found["absolute"][e][a] == pytest.approx(sum(accuracies) / 3, abs=1 / 80)
    assert [found["accuracy"][n][0][0] for n in TASKS] == list(found["zeroshot"].values())
    ratios = [found["accuracy"][n][2][2] / found["single"][n][2] for n in TASKS]
    assert found["normalized_converged"][2][2] == pytest.approx(sum(ratios) / 3)
    rows = early(found)
    assert [(row["epoch"], row["at_mean"]) for row in rows] == [
        (k, mean) for k in (1, 2, 4) for mean in (False, True)
    ]
    for row in rows:
        e, a = found["epochs"].index(row["epoch"]), alphas.index(row["alpha"])
        assert row["absolute"] == found["absolute"][e][a]
        assert row["low"] <= row["absolute"] <= row["high"]
        scores = found["validation"]["normalized"][e]
        if row["at_mean"]:
            assert row["alpha"] == 1 / 3
        else:
            assert scores[a] == max(scores)


def test_rounds_of_full_batch_descent_are_joint_training(encoder, splits):
    objectives = objectives_of(encoder, splits, "nonlinear")
    regime = Regime("gd", 0.1)
    walked = rounds_of(objectives, regime, 4)
    joint = follow(list(objectives.values()), regime, 4, 1 / 3)
    for r, tau in enumerate(walked):
        torch.testing.assert_close(tau, joint.tau(r).to(tau), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(walked[-1], joint.last, rtol=1e-10, atol=1e-13)
    apart = rounds_of(objectives, regime, 2, epochs=2)  # two steps a round: no longer the same
    assert float((apart[-1] - joint.last).norm()) > 1e-6


def test_equal_evaluations_of_three_methods(walked):
    objectives, regime, paths, joint = walked
    test = {name: fake_split(task, "test", n=30) for name, task in TASKS.items()}
    reader = Reader(fake_encoder(), "nonlinear", TASKS, test)
    found = iterative(paths, joint, objectives, regime, reader, [1, 2, 4])
    assert list(found["methods"]) == ["one-shot", "ATM", "joint"]
    for rows in found["methods"].values():
        assert [row["epochs"] for row in rows] == [0, 1, 2, 4]
        assert [row["evaluations"] for row in rows] == [0, 72, 144, 288]
    first = {name: rows[0]["absolute"] for name, rows in found["methods"].items()}
    assert len(set(first.values())) == 1  # all begin at theta_0
    atm = found["methods"]["ATM"][1]
    assert atm["tasks"] == found["methods"]["one-shot"][1]["tasks"]  # one round is one merge
    assert joint.evaluations == sum(path.evaluations for path in paths.values()) == 288


@pytest.mark.parametrize("mode", MODES)
def test_the_bridge_against_its_parts(encoder, splits, mode):
    objectives = objectives_of(encoder, splits, mode)
    regime, K = Regime("gd", 2e-5), 4
    paths = {name: follow([o], regime, K) for name, o in objectives.items()}
    test = {name: fake_split(task, "test", n=30) for name, task in TASKS.items()}
    reader = Reader(fake_encoder(), mode, TASKS, test)
    found = bridge(paths, objectives, regime, reader, [1.0, 0.5])
    assert len(found["points"]) == 6
    point = next(p for p in found["points"] if p["pair"] == ["shapes", "marks"] and p["alpha"] == 1)
    a, b = objectives["shapes"], objectives["marks"]
    theta0, joint = a.theta0, descend([a, b], regime.rate, K)[-1]
    error = theta0 + paths["shapes"].last + paths["marks"].last - joint
    assert point["measured"] == pytest.approx(float(error.norm()), rel=1e-6)
    ga, gb = a.gradient(theta0), b.gradient(theta0)
    curved = {"a": {"a": a.hvp(theta0, ga), "b": a.hvp(theta0, gb)},
              "b": {"a": b.hvp(theta0, ga), "b": b.hvp(theta0, gb)}}  # fmt: skip
    guess = predicted_merge_error(curved, 1.0, regime.rate, K)
    assert point["predicted"] == pytest.approx(float(guess.norm()), rel=1e-9)
    assert point["cosine"] > 0.99  # the leading term is the error
    assert point["predicted"] == pytest.approx(point["measured"], rel=0.2)
    ratio = float(curved["a"]["b"].norm() / curved["a"]["a"].norm())
    assert point["interference"][0] == pytest.approx(ratio)
    assert found["interference"][0][2] == pytest.approx(ratio)
    assert found["interference"][1][1] == 1.0
    moved = a.moved([paths["shapes"].last, paths["marks"].last])
    assert point["leak"][0] == pytest.approx(float(moved[1].norm() / moved[0].norm()))
    layout, wrong = a.layout, {}
    for name, other in (("shapes", "marks"), ("marks", "shapes")):
        alone = reader_guesses(mode, layout, [paths[name].last], TASKS[name], test[name])
        both = reader_guesses(
            mode, layout, [paths[name].last, paths[other].last], TASKS[name], test[name]
        )
        wrong[name] = float((alone != both).double().mean())
    assert point["xi_task"] == pytest.approx(wrong, abs=1e-9)
    assert point["xi"] == pytest.approx(sum(wrong.values()))


def reader_guesses(mode, layout, taus, task, split):
    encoder = fake_encoder()
    summed = {n: v.float() for n, v in layout.split(sum(taus)).items()}
    x = encoder.preprocess(split.images)
    if mode == "linear":
        z = linearize.linearized(encoder.features, encoder.theta0, summed, x)
    else:
        z = encoder.features({n: v + summed[n] for n, v in encoder.theta0.items()}, x)
    return (z @ encoder.head(task).T).argmax(dim=1)


def test_predictions_belong_to_full_batch_descent_alone(walked):
    objectives, regime, paths, _ = walked
    test = {name: fake_split(task, "test", n=10) for name, task in TASKS.items()}
    found = bridge(
        paths, objectives, regime, Reader(fake_encoder(), "nonlinear", TASKS, test), [1.0]
    )
    assert {point["predicted"] for point in found["points"]} == {None}
    assert found["summary"][0]["spearman_predicted_measured"] is None
    assert found["summary"][0]["relative_mean"] > 0


def test_rank_correlation_of_orders_and_ties():
    assert rank_correlation([1, 2, 3, 4], [10, 20, 30, 40]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833, abs=1e-6)
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 2], [1, 2]) is None
    assert summary([], []) == []


def test_chosen_rates_lie_where_the_expansion_holds():
    rates = choose_rates(50.0, 4, count=3)
    assert rates == pytest.approx([0.00025, 0.0005, 0.001])


def test_pieces_go_on_and_name_their_parts():
    kept, made, told = {}, [], []

    def make(value):
        made.append(value)
        return {"value": value}

    def pieces():
        return Pieces("g", kept.get, lambda n, t, m: kept.__setitem__(n, (t, m)),
                      lambda *said: told.append(said)).part("linear")  # fmt: skip

    assert pieces().value("a", lambda: make(1)) == {"value": 1}
    again = pieces()
    assert again.value("a", lambda: make(2)) == {"value": 1}
    again.told("pairs", 1, 3)
    assert made == [1]
    assert again.names == {"g-linear-a"}
    assert told == [("linear pairs", 1, 3)]
    assert Pieces().value("a", lambda: make(3)) == {"value": 3}  # nothing is kept without a place
