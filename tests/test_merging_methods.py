"""Merging methods: the laws they obey; test_merging_twins.py has their formulas."""

import math

import numpy as np
import pytest
import torch

from engine import merging
from engine.errors import NonFiniteError, ParameterMismatchError, UsageError

T = 3


def vectors(dtype=torch.float64, seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "resblocks.0.w": (6, 9),
        "resblocks.1.w": (8, 5),
        "resblocks.2.w": (7, 7),
        "b": (12,),
        "conv1.weight": (3, 2, 4, 4),
    }
    return {
        f"task{t}": {
            name: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            for name, shape in shapes.items()
        }
        for t in range(T)
    }


def row(*values: float) -> dict[str, torch.Tensor]:
    return {"w": torch.tensor(values, dtype=torch.float64)}


@pytest.mark.parametrize("method", list(merging.METHODS))
def test_no_method_changes_its_inputs_and_each_keeps_names_and_shapes(method):
    taus = vectors()
    before = {t: {k: v.clone() for k, v in tau.items()} for t, tau in taus.items()}
    direction = merging.prepare(taus, method)
    assert list(direction) == list(taus["task0"])
    for name, value in direction.items():
        assert value.shape == taus["task0"][name].shape
        assert value.dtype == torch.float64
    for t, tau in taus.items():
        for name, value in tau.items():
            assert torch.equal(value, before[t][name])


@pytest.mark.parametrize("method", list(merging.METHODS))
def test_the_order_of_tasks_and_names_does_not_matter(method):
    taus = vectors()
    turned = {t: dict(reversed(tau.items())) for t, tau in reversed(taus.items())}
    one, other = merging.prepare(taus, method), merging.prepare(turned, method)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", [m for m in merging.METHODS if m not in ("dare", "consensus")])
def test_a_direction_scales_with_its_task_vectors(method):
    taus = vectors()
    twice = {t: {k: 2 * v for k, v in tau.items()} for t, tau in taus.items()}
    one, other = merging.prepare(taus, method), merging.prepare(twice, method)
    for name in one:
        torch.testing.assert_close(2 * one[name], other[name])


def test_ties_with_everything_kept_and_one_task_is_the_task():
    taus = {"a": vectors()["task0"]}
    direction = merging.prepare(taus, "ties", density=1.0)
    for name, value in taus["a"].items():
        assert torch.equal(direction[name], value)


def test_dare_keeps_or_drops_and_is_right_on_average():
    taus = {"a": {"w": torch.full((200, 500), 2.0, dtype=torch.float64)}}
    direction = merging.prepare(taus, "dare", drop=0.75, seed=3)["w"]
    assert set(direction.unique().tolist()) == {0.0, 8.0}
    share = float((direction != 0).double().mean())
    assert abs(share - 0.25) < 5 * math.sqrt(0.25 * 0.75 / direction.numel())
    assert torch.equal(direction, merging.prepare(taus, "dare", drop=0.75, seed=3)["w"])
    assert not torch.equal(direction, merging.prepare(taus, "dare", drop=0.75, seed=4)["w"])
    nothing = merging.prepare(taus, "dare", drop=0.0)["w"]
    assert torch.equal(nothing, taus["a"]["w"])


def test_iso_cts_with_all_directions_common_is_iso_c():
    taus = vectors()
    one, other = merging.prepare(taus, "iso-cts", common=1.0), merging.prepare(taus, "iso-c")
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def test_iso_cts_of_orthogonal_tasks_keeps_each_ones_direction():
    # r = 6, T = 2, common 0.5: c0 = 3, n = round(3 / 2) = 2, c = 2; every matrix is diagonal
    a = torch.diag(torch.tensor([9.0, 7.0, 0.5, 0.4, 0, 0], dtype=torch.float64))
    b = torch.diag(torch.tensor([0, 0, 0, 0, 3.0, 2.0], dtype=torch.float64))
    direction = merging.prepare({"a": {"w": a}, "b": {"w": b}}, "iso-cts", common=0.5)["w"]
    size = (9 + 7 + 0.5 + 0.4 + 3 + 2) / 6
    torch.testing.assert_close(direction, size * torch.eye(6, dtype=torch.float64))


def test_lines_by_hand():
    taus = vectors()
    direction = merging.prepare(taus, "lines", slope=0.6)
    for name, factor in {
        "resblocks.0.w": 1 / T,
        "resblocks.1.w": 1 / T + 0.3,
        "resblocks.2.w": 1 / T + 0.6,
        "b": 1 / T,
        "conv1.weight": 1 / T,
    }.items():
        total = sum(tau[name] for tau in taus.values())
        torch.testing.assert_close(direction[name], factor * total)
    flat = merging.prepare(taus, "lines", slope=0.0)
    mean = merging.prepare(taus, "mean")
    for name in flat:
        torch.testing.assert_close(flat[name], mean[name])


def test_lines_counts_blocks_through_stages():
    tau = {f"stages.{s}.blocks.{k}.w": torch.ones(2) for s in range(2) for k in range(2)}
    direction = merging.prepare({"a": tau}, "lines", slope=0.3)
    factors = [float(value[0]) for value in direction.values()]
    np.testing.assert_allclose(factors, [1.0, 1.1, 1.2, 1.3], rtol=1e-6)


def test_what_a_user_can_get_wrong_is_one_sentence():
    taus = vectors()
    with pytest.raises(UsageError, match="average of TIES is 0.5; give a whole number"):
        merging.prepare(taus, "ties", average=0.5)
    with pytest.raises(UsageError, match="TIES has no option 'gamma'; its options: density"):
        merging.prepare(taus, "ties", gamma=0.1)
    with pytest.raises(UsageError, match="density of TIES is 2; choose from 0 to 1"):
        merging.prepare(taus, "ties", density=2)
    with pytest.raises(UsageError, match="LiNeS needs an encoder made of blocks"):
        merging.prepare({"a": {"w": torch.ones(2)}}, "lines")
    with pytest.raises(ParameterMismatchError):
        merging.prepare({**taus, "x": {"b": torch.ones(12)}}, "ties")
    broken = {**taus, "x": {**taus["task0"], "b": torch.full((12,), torch.nan)}}
    with pytest.raises(NonFiniteError):
        merging.prepare(broken, "iso-c")
