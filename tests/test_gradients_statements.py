"""Statements 1 to 9 on task vectors and gradients, on a small smooth network in float64."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from engine.errors import UsageError
from engine.gradients import Regime, follow, spectral_norm
from engine.gradients.bounds import bound_posteriori, bound_priori, feed_forward_curvature
from engine.gradients.checks import check, expansion_curves
from engine.gradients.expansion import (
    descend,
    in_ulps,
    predicted_merge_error,
    second_order,
    shadow_correction,
    slope,
    ulp,
)
from engine.gradients.smooth import disjoint_objectives, relu_objective, tanh_objectives

RATES = [2.0**-k for k in range(6, 11)]
STEPS = 5


@pytest.fixture(scope="module")
def tasks():
    return tanh_objectives(tasks=3, seed=3)


def loss_of(task):
    """The mean loss of all inputs in one expression, without the objective's own batches."""

    def value(flat):
        return F.cross_entropy(
            task.features(task.layout.split(flat), task.images), task.labels, reduction="mean"
        )

    return value


def dense_hessian(task, theta=None):
    theta = task.theta0 if theta is None else theta
    return torch.autograd.functional.hessian(loss_of(task), theta)


def walk(tasks, rate, steps):
    """Full-batch descent on a sum of losses, by autograd on the sum itself."""
    theta = tasks[0].theta0.clone().requires_grad_()
    points = [theta.detach().clone()]
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(sum(loss_of(task)(theta) for task in tasks), theta)
        theta = (theta - rate * gradient).detach().requires_grad_()
        points.append(theta.detach().clone())
    return points


def test_gradient_and_hessian_products_equal_dense_ones(tasks):
    task = tasks[0]
    theta = task.theta0 + 0.1
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = torch.autograd.functional.jacobian(loss_of(task), theta)
    torch.testing.assert_close(task.gradient(theta), wanted, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(task.hvp(theta, v), dense_hessian(task, theta) @ v,
                               rtol=1e-11, atol=1e-13)  # fmt: skip


def test_batches_change_rounding_alone(tasks):
    task, small = tasks[0], replace(tasks[0], batch=5)
    v = torch.ones_like(task.theta0)
    for method in ("gradient", "hvp"):
        args = (task.theta0,) if method == "gradient" else (task.theta0, v)
        torch.testing.assert_close(
            getattr(task, method)(*args), getattr(small, method)(*args), rtol=1e-12, atol=1e-15
        )
    assert small.value(task.theta0) == pytest.approx(task.value(task.theta0), rel=1e-13)


def after_one_step(task, rate):
    """tau + eta g, eta g by autograd of the plain loss, and theta^1."""
    tau = follow([task], Regime("gd", rate), 1).last
    step = rate * torch.autograd.functional.jacobian(loss_of(task), task.theta0)
    return tau + step, step, task.theta0 + tau


@pytest.mark.parametrize("rate", [1e-5, 1e-3])
def test_one_step_is_minus_eta_g_within_one_ulp(tasks, rate):  # statement 1, first row of checks
    for task in tasks:
        rest, _, theta = after_one_step(task, rate)
        assert in_ulps(rest, task.theta0, theta) <= 1


@pytest.mark.parametrize("rate", [0.03, 0.7])
def test_one_large_step_is_within_one_ulp_where_no_weight_crosses_zero(tasks, rate):
    before = torch.cat([task.theta0 for task in tasks])
    found = zip(*(after_one_step(task, rate) for task in tasks), strict=True)
    rest, step, after = map(torch.cat, found)
    stays = before * after >= 0
    assert 0 < int((~stays).sum()) < int(stays.sum())
    assert in_ulps(rest[stays], before[stays], after[stays]) <= 1
    # a weight that crosses 0 is smaller before and after than the step that was rounded
    assert bool((step.abs() > torch.maximum(before.abs(), after.abs()))[~stays].all())
    assert in_ulps(rest[~stays], step[~stays]) <= 1


@pytest.mark.parametrize("rate", [1e-5, 1e-3, 0.03, 0.7])
def test_one_step_of_every_task_sums_to_the_gradient_of_the_sum(tasks, rate):  # statement 1
    summed = sum(follow([task], Regime("gd", rate), 1).last for task in tasks)
    everything = torch.autograd.functional.jacobian(
        lambda theta: sum(loss_of(task)(theta) for task in tasks), tasks[0].theta0
    )
    theta0 = tasks[0].theta0
    assert in_ulps(summed + rate * everything, theta0, theta0 + summed) <= 4


@pytest.mark.parametrize("steps", [2, 7, 30])
def test_telescoping_holds_to_rounding_for_any_number_of_steps(tasks, steps):  # statement 2
    path = follow(tasks[:1], Regime("gd", 0.2), steps)
    points = walk(tasks[:1], 0.2, steps)
    summed = sum(
        torch.autograd.functional.jacobian(loss_of(tasks[0]), theta) for theta in points[:-1]
    )
    assert in_ulps(path.last + 0.2 * summed, path.last, tasks[0].theta0) <= 4 * steps
    assert path.telescoping() < 1e-14
    assert follow(tasks[:1], Regime("adamw", 0.01, batch=12), 2).telescoping() is None


def test_the_second_order_term_raises_the_slope_from_two_to_three(tasks):  # statement 3
    task = tasks[1]
    g, hessian = task.gradient(task.theta0), dense_hessian(task)
    raw, corrected = [], []
    for rate in RATES:
        rest = walk([task], rate, STEPS)[-1] - task.theta0 + rate * STEPS * g
        term = second_order(rate, STEPS, hessian @ g)
        by_hand = sum(rate * rate * k * hessian @ g for k in range(STEPS))
        torch.testing.assert_close(term, by_hand, rtol=1e-12, atol=0)
        raw.append(float(rest.norm()))
        corrected.append(float((rest - term).norm()))
    assert slope(RATES, raw)[0] == pytest.approx(2, abs=0.1)
    assert slope(RATES, corrected)[0] == pytest.approx(3, abs=0.15)
    curves = expansion_curves(task, RATES, STEPS)
    assert curves["raw"] == pytest.approx(raw, rel=1e-8)
    assert curves["corrected"] == pytest.approx(corrected, rel=1e-5)


def shadow_by_hand(tasks, points, alpha):
    """C of statement 4, every sum written out, with dense Hessians."""
    total = torch.zeros_like(tasks[0].theta0)
    K = len(points) - 1
    for t, task in enumerate(tasks):
        for j in range(1, K):
            inner = torch.zeros_like(total)
            for m in range(j):
                for s, other in enumerate(tasks):
                    factor = (alpha - 1) if s == t else alpha
                    inner += factor * other.gradient(points[m])
            total += dense_hessian(task, points[j]) @ inner
    return total


@pytest.mark.parametrize("alpha", [1 / 3, 1.0])
def test_the_joint_shadow_path_and_its_correction(tasks, alpha):  # statement 4
    errors = {factor: [] for factor in (-1.0, -0.5, 0.5, 0.0)}
    for rate in RATES:
        points = walk(tasks, alpha * rate, STEPS)
        correction = shadow_correction(tasks, points, alpha)
        if rate == RATES[0]:
            torch.testing.assert_close(
                correction, shadow_by_hand(tasks, points, alpha), rtol=1e-10, atol=1e-12
            )
        summed = sum(walk([task], rate, STEPS)[-1] - task.theta0 for task in tasks)
        along = sum(task.gradient(theta) for task in tasks for theta in points[:-1])
        for factor, values in errors.items():
            rest = summed + rate * along - factor * rate**2 * correction
            values.append(float(rest.norm()))
    assert slope(RATES, errors[-1.0])[0] == pytest.approx(3, abs=0.15)
    for wrong in (-0.5, 0.5, 0.0):  # no other coefficient will do
        assert slope(RATES, errors[wrong])[0] == pytest.approx(2, abs=0.12)


def test_the_merge_misses_the_joint_endpoint_by_the_predicted_term(tasks):  # statement 5
    alpha, rate = 1 / 3, RATES[0]
    names = [task.name for task in tasks]
    gradients = {task.name: task.gradient(task.theta0) for task in tasks}
    curved = {t.name: {s: t.hvp(t.theta0, gradients[s]) for s in names} for t in tasks}
    errors, rests = [], []
    for rate in RATES:
        merge = tasks[0].theta0 + alpha * sum(
            walk([task], rate, STEPS)[-1] - task.theta0 for task in tasks
        )
        error = merge - walk(tasks, alpha * rate, STEPS)[-1]
        guess = predicted_merge_error(curved, alpha, rate, STEPS)
        errors.append(float(error.norm()))
        rests.append(float((error - guess).norm()))
    assert slope(RATES, errors)[0] == pytest.approx(2, abs=0.1)
    assert slope(RATES, rests)[0] == pytest.approx(3, abs=0.15)
    # at alpha = 1/T a covariance of curvature and gradient over the tasks
    mean_h = sum(dense_hessian(task) for task in tasks) / 3
    mean_g = sum(gradients.values()) / 3
    covariance = sum(
        (dense_hessian(task) - mean_h) @ (gradients[task.name] - mean_g) for task in tasks
    )
    wanted = alpha * RATES[-1] ** 2 * STEPS * (STEPS - 1) / 2 * covariance
    torch.testing.assert_close(
        predicted_merge_error(curved, alpha, RATES[-1], STEPS), wanted, rtol=1e-9, atol=1e-15
    )


def test_equal_hessians_leave_no_leading_error():  # statement 5, its last sentence
    task = tanh_objectives(tasks=1, seed=5)[0]
    g = task.gradient(task.theta0)
    v = torch.randn(len(g), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    gradients = {"a": g, "b": v}
    curved = {t: {s: task.hvp(task.theta0, x) for s, x in gradients.items()} for t in "ab"}
    for alpha, size in ((0.5, 0.0), (1.0, None)):
        error = float(predicted_merge_error(curved, alpha, 0.1, 4).norm())
        assert (error < 1e-15) == (size == 0.0)


@pytest.mark.parametrize("alpha", [-0.7, 0.0, 0.4, 1.0, 2.5])
def test_merge_after_one_step_is_the_joint_step(tasks, alpha):
    rate = 0.05
    summed = sum(follow([task], Regime("gd", rate), 1).last for task in tasks)
    joint = follow(tasks, Regime("gd", rate), 1, alpha).last if alpha else torch.zeros_like(summed)
    assert in_ulps(alpha * summed - joint, tasks[0].theta0, joint) <= 8


def test_bounds_hold_with_the_true_curvature_and_power_iteration_finds_it(tasks):  # statement 6
    task, rate, steps = tasks[0], 0.3, 12
    points = walk([task], rate, steps)
    theta0, g = task.theta0, task.gradient(task.theta0)
    norms = [
        float(torch.linalg.eigvalsh(dense_hessian(task, theta0 + s * (p - theta0))).abs().max())
        for p in points
        for s in (0.0, 0.5, 1.0)
    ]
    beta, raw = max(norms), float((points[-1] - theta0 + rate * steps * g).norm())
    distances = [float((p - theta0).norm()) for p in points[:-1]]
    after, before = (
        bound_posteriori(rate, beta, distances),
        bound_priori(rate, beta, steps, float(g.norm())),
    )
    assert 0 < raw <= after <= before
    closed = float(g.norm()) * (((1 + rate * beta) ** steps - 1) / beta - rate * steps)
    assert before == pytest.approx(closed, rel=1e-10)
    found = spectral_norm(task, theta0, iterations=500, tolerance=1e-12)
    assert found.norm == pytest.approx(norms[0], rel=1e-4)
    assert found.norm <= norms[0] * (1 + 1e-12)  # an estimate from below
    assert spectral_norm(task, theta0, iterations=1).norm < norms[0]


def test_the_a_priori_bound_does_not_cancel_and_knows_its_end():
    assert bound_priori(1e-9, 1e-3, 3, 1.0) == pytest.approx(3e-9**1 * 1e-12, rel=1e-6)
    assert bound_priori(0.1, 5.0, 1, 1.0) == 0.0
    assert bound_priori(1.0, 1e200, 9, 1.0) is None


@pytest.mark.parametrize("seed", range(4))
def test_the_feed_forward_bound_holds_and_is_loose(seed):  # statement 7
    task, norms, radius = relu_objective(seed)
    true = float(torch.linalg.eigvalsh(dense_hessian(task)).abs().max())
    bound = feed_forward_curvature(norms, radius)
    assert true <= bound
    assert bound > 10 * true
    s1, s2, s3 = norms
    by_hand = radius**2 / 2 * ((s2 * s3) ** 2 + (s1 * s3) ** 2 + (s1 * s2) ** 2)
    by_hand += math.sqrt(2) * radius * max(s3 + s2, s3 + s1, s2 + s1)
    assert bound == pytest.approx(by_hand)


@pytest.mark.parametrize(("rate", "steps"), [(0.1, 1), (0.5, 9), (2.0, 50)])
def test_without_a_cross_task_kernel_the_merge_is_the_joint_endpoint(rate, steps):  # statement 8
    tasks = disjoint_objectives(tasks=3, seed=1)
    theta0 = tasks[0].theta0
    ends = [follow([task], Regime("gd", rate), steps).last for task in tasks]
    joint = follow(tasks, Regime("gd", rate), steps).last
    assert float((sum(ends) - joint).norm() / joint.norm()) < 1e-13
    for i, task in enumerate(tasks):
        moved = task.moved(ends)
        assert float(moved[i].norm()) > 0
        assert all(float(moved[j].norm()) == 0 for j in range(3) if j != i)
        alone, together = task.outputs(theta0 + ends[i]), task.outputs(theta0 + sum(ends))
        assert torch.equal(alone.argmax(dim=1), together.argmax(dim=1))  # xi = 0
    # and it is the kernel that does it: with shared features the error is there
    shared = tanh_objectives(tasks=3, seed=1)
    apart = sum(follow([task], Regime("gd", rate), 9).last for task in shared)
    assert float((apart - follow(shared, Regime("gd", rate), 9).last).norm() / apart.norm()) > 1e-3


def test_linear_objectives_have_the_hessian_of_the_linear_model():
    task = disjoint_objectives(tasks=2, seed=2)[0]
    theta = task.theta0 + 0.3
    v = torch.linspace(-1, 1, len(theta), dtype=torch.float64)
    torch.testing.assert_close(
        task.hvp(theta, v), dense_hessian(task, theta) @ v, rtol=1e-11, atol=1e-14
    )


def test_negation_after_one_step_is_gradient_ascent(tasks):  # statement 9
    task, rate, alpha = tasks[0], 0.1, 0.7
    tau = follow([task], Regime("gd", rate), 1).last
    ascent = task.theta0 + alpha * rate * task.gradient(task.theta0)
    assert in_ulps(task.theta0 - alpha * tau - ascent, task.theta0, ascent) <= 2
    assert task.value(ascent) > task.value(task.theta0)


def test_an_epoch_of_equal_minibatches_is_the_full_step_to_first_order(tasks):
    task, errors, own = tasks[0], [], []
    g = task.gradient(task.theta0)
    for rate in RATES:
        path = follow([task], Regime("sgd", rate, batch=6), 1)
        errors.append(float((path.last + 4 * rate * g).norm()))
        own.append(path.telescoping())
    assert slope(RATES, errors)[0] == pytest.approx(2, abs=0.1)
    assert errors[-1] > 1e-9  # not equality
    assert max(own) < 1e-13


def test_check_passes_on_several_networks_and_says_what_each_value_must_be():
    for seed in (0, 7):
        found = check(seed)
        assert found["passed"], [row for row in found["checks"] if not row["passed"]]
        assert found["one_step_ulps"] <= 1
        assert found["slope_shadow_half"] == pytest.approx(2, abs=0.1)
        assert found["seconds"] < 30
        names = {row["name"] for row in found["checks"]}
        assert {"slope_raw", "slope_corrected", "disjoint_xi", "self_cosine_error"} <= names
        assert len(found["curves"]["raw"]) == len(found["curves"]["rates"])


def test_slopes_leave_rounding_out():
    rates = [2.0**-k for k in range(8)]
    errors = [rate**3 for rate in rates]
    assert slope(rates, errors)[0] == pytest.approx(3)
    found, used = slope(rates, errors, floor=rates[4] ** 3 / 30 * 0.99)
    assert found == pytest.approx(3)
    assert used == rates[:5]
    assert slope(rates[:2], errors[:2]) == (None, rates[:2])
    assert slope(rates, [0.0] * 8) == (None, [])


def test_an_ulp_is_the_gap_above():
    values = torch.tensor([1.0, -1.0, 3.0, 0.0], dtype=torch.float64)
    wanted = [math.ulp(1.0), math.ulp(1.0), math.ulp(3.0), math.ulp(0.0)]
    assert ulp(values).tolist() == wanted


@pytest.mark.parametrize(
    ("name", "rate", "batch", "message"),
    [
        ("momentum", 0.1, None, "no regime; choose one of gd, sgd, adamw"),
        ("gd", 0.1, 4, "has no batch; leave --batch out"),
        ("sgd", 0.1, None, "needs minibatches; give their size with --batch"),
        ("gd", 0.0, None, "set it to a value above 0 and finite"),
        ("adamw", float("inf"), 4, "set it to a value above 0 and finite"),
    ],
)
def test_what_is_no_regime_is_refused(name, rate, batch, message):
    with pytest.raises(UsageError, match=message):
        Regime(name, rate, batch)


def test_minibatches_must_be_equal(tasks):
    with pytest.raises(UsageError, match="24 images do not fill minibatches of 7"):
        follow(tasks[:1], Regime("sgd", 0.1, batch=7), 1)


def test_descend_keeps_every_point(tasks):
    points = descend(tasks, 0.1, 3)
    for found, wanted in zip(points, walk(tasks, 0.1, 3), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-15)
