import math

import pytest
import torch

from engine import merging
from engine.errors import NonFiniteError, ParameterMismatchError, UsageError
from engine.task_vectors import (
    combine,
    cosine,
    cosine_matrix,
    dot,
    layer_of,
    norm,
    norms_by_layer,
)
from tests.fake_encoder import fake_encoder, fake_taus

THETA0 = fake_encoder().theta0
TAUS = fake_taus(fake_encoder(), ["a", "b", "c"])


def test_combination_equals_its_formula_value_by_value():
    alphas = {"a": 0.3, "b": -1.0, "c": 2.0}
    theta = combine(THETA0, TAUS, alphas)
    for name, value in THETA0.items():
        flat = theta[name].flatten().tolist()
        for p, start in enumerate(value.flatten().tolist()):
            parts = [alphas[task] * float(TAUS[task][name].flatten()[p]) for task in TAUS]
            # float32 rounds after each of three additions
            assert flat[p] == pytest.approx(start + sum(parts), rel=1e-6, abs=1e-6)


def test_nothing_added_is_the_pretrained_model_in_memory_of_its_own():
    theta = combine(THETA0, {}, {})
    assert all(torch.equal(theta[key], THETA0[key]) for key in THETA0)
    assert not any(theta[key].data_ptr() == THETA0[key].data_ptr() for key in THETA0)
    zero = combine(THETA0, TAUS, dict.fromkeys(TAUS, 0.0))
    assert all(torch.equal(zero[key], THETA0[key]) for key in THETA0)


def test_combination_changes_neither_of_its_inputs():
    before = {key: value.clone() for key, value in THETA0.items()}
    tau = {key: value.clone() for key, value in TAUS["a"].items()}
    combine(THETA0, TAUS, dict.fromkeys(TAUS, 1.0))
    assert all(torch.equal(THETA0[key], before[key]) for key in before)
    assert all(torch.equal(TAUS["a"][key], tau[key]) for key in tau)


def test_float16_task_vector_is_scaled_in_single_precision():
    half = {key: value.half() for key, value in TAUS["a"].items()}
    exact = {key: value.float() for key, value in half.items()}
    got, expected = (combine(THETA0, {"a": tau}, {"a": 0.1}) for tau in (half, exact))
    for key in THETA0:
        assert got[key].dtype == torch.float32
        assert torch.equal(got[key], expected[key])


def test_mismatches_are_refused():
    with pytest.raises(ValueError, match=r"got alphas for \['a'\], expected for \['a', 'b', 'c'\]"):
        combine(THETA0, TAUS, {"a": 1.0})
    short = {key: value for key, value in TAUS["a"].items() if key != "0.bias"}
    with pytest.raises(ParameterMismatchError, match=r"task vector of a .*: 1 missing \(0\.bias\)"):
        combine(THETA0, {"a": short}, {"a": 1.0})
    bad = {key: value.clone() for key, value in TAUS["a"].items()}
    bad["0.bias"][2] = torch.inf
    # at alpha = 0 too: 0 x inf is NaN
    for alpha in (1.0, 0.0):
        with pytest.raises(NonFiniteError, match=r"merged weights: 0\.bias holds 1"):
            combine(THETA0, {"a": bad}, {"a": alpha})


def test_norm_and_dot_equal_exact_sums():
    flat = {
        task: [float(v) for t in tau.values() for v in t.flatten()] for task, tau in TAUS.items()
    }
    products = [a * b for a, b in zip(flat["a"], flat["b"], strict=True)]
    assert dot(TAUS["a"], TAUS["b"]) == pytest.approx(math.fsum(products), rel=1e-12)
    squares = math.fsum(v * v for v in flat["a"])
    assert norm(TAUS["a"]) == pytest.approx(math.sqrt(squares), rel=1e-14)


def test_squared_norms_of_layers_sum_to_the_whole():
    tau = {
        "transformer.resblocks.0.attn.in_proj_weight": torch.full((2, 2), 1.0),
        "transformer.resblocks.0.mlp.c_fc.bias": torch.full((5,), 1.0),
        "transformer.resblocks.1.ln_1.weight": torch.full((4,), 2.0),
        "conv1.weight": torch.full((16,), 0.5),
        "proj": torch.zeros(3, 3),
    }
    layers = norms_by_layer(tau)
    assert layers == {
        "transformer.resblocks.0": 3.0,
        "transformer.resblocks.1": 4.0,
        "conv1": 2.0,
        "proj": 0.0,
    }
    assert math.hypot(*layers.values()) == pytest.approx(norm(tau), rel=1e-12)
    assert layer_of("trunk.stages.2.blocks.1.norm.weight") == "trunk.stages.2.blocks.1"


def test_cosine_is_accumulated_in_float64():
    # in float32 the small entries would vanish beside the large one
    a = {"w": torch.cat([torch.tensor([4096.0]), torch.full((100_000,), 1e-2)])}
    expected = 4096 / math.sqrt(4096**2 + 100_000 * float(torch.tensor(1e-2)) ** 2)
    b = {"w": torch.zeros(100_001).index_fill_(0, torch.tensor([0]), 3.0)}
    assert cosine(a, b) == pytest.approx(expected, rel=1e-12)


def test_cosine_laws():
    a, b = TAUS["a"], TAUS["b"]
    assert cosine(a, a) == pytest.approx(1, abs=1e-12)
    assert cosine(a, {key: -3 * value for key, value in a.items()}) == pytest.approx(-1, abs=1e-7)
    assert cosine(a, b) == cosine(b, a)
    assert cosine(a, b) == pytest.approx(dot(a, b) / norm(a) / norm(b), rel=1e-12)


def test_cosine_matrix_holds_every_pair():
    matrix = cosine_matrix(TAUS)
    assert matrix.dtype == torch.float64
    assert torch.equal(matrix, matrix.T)
    for i, one in enumerate(TAUS.values()):
        for j, other in enumerate(TAUS.values()):
            assert float(matrix[i, j]) == pytest.approx(cosine(one, other), abs=1e-12)
    assert cosine_matrix({}).shape == (0, 0)


def test_zero_has_no_cosine():
    zero = {key: torch.zeros_like(value) for key, value in THETA0.items()}
    with pytest.raises(UsageError, match="task vector of idle is zero and has no cosine"):
        cosine_matrix({"a": TAUS["a"], "idle": zero})


def test_cosine_refuses_nan_by_name():
    bad = {key: value * torch.nan for key, value in TAUS["a"].items()}
    with pytest.raises(NonFiniteError, match=r"task vector of broken: 0\.weight"):
        cosine_matrix({"a": TAUS["a"], "broken": bad})


@pytest.mark.parametrize(("method", "factor"), [("sum", 1.0), ("mean", 1 / 3)])
def test_direction_applied_is_the_combination(method, factor):
    direction = merging.prepare(TAUS, method)
    got = merging.apply(THETA0, direction, 0.7)
    expected = combine(THETA0, TAUS, dict.fromkeys(TAUS, 0.7 * factor))
    torch.testing.assert_close(got, expected)
    assert merging.share(method, 3) == factor


def test_direction_of_float16_task_vectors_is_single_precision():
    half = {task: {k: v.half() for k, v in tau.items()} for task, tau in TAUS.items()}
    direction = merging.prepare(half, "sum")
    assert all(value.dtype == torch.float32 for value in direction.values())
    expected = sum(half[task]["0.weight"].double() for task in half)
    torch.testing.assert_close(direction["0.weight"].double(), expected, rtol=1e-6, atol=1e-7)


def test_unknown_method_and_no_tasks_are_bugs():
    with pytest.raises(ValueError, match="got 'no such' and 2 task vectors"):
        merging.prepare(dict(list(TAUS.items())[:2]), "no such")
    with pytest.raises(ValueError, match="and 0 task vectors"):
        merging.prepare({}, "sum")
