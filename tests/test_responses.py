import random

import pytest
import torch
from torch.func import jvp

from engine import responses as module
from engine.errors import CheckpointError, NonFiniteError, ParameterMismatchError
from engine.responses import (
    Responses,
    accuracy_over,
    correct_over,
    merged_scores,
    predictions,
    responses,
)
from engine.store import Store
from tests.fake_encoder import FakeTask, fake_encoder, fake_split, fake_taus

TASK = FakeTask()
SPLIT = fake_split(TASK, "test", 30)
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def encoder():
    return fake_encoder()


@pytest.fixture(scope="module")
def taus(encoder):
    return fake_taus(encoder, NAMES)


@pytest.fixture(scope="module")
def reading(encoder, taus):
    return responses(encoder, TASK, SPLIT, taus)


def random_scores(T=3, N=40, C=5, seed=0):
    source = torch.Generator().manual_seed(seed)
    scores = torch.randn(1 + T, N, C, generator=source)
    return scores, torch.randint(0, C, (N,), generator=source)


def test_responses_equal_f_lin_at_random_alphas_image_by_image(encoder, taus, reading):
    precise = fake_encoder(dtype=torch.float64)
    head, source = precise.head(TASK), random.Random(0)
    for n in range(len(SPLIT.labels)):
        alphas = [source.uniform(-1, 2) for _ in NAMES]
        tau = {
            key: sum(a * taus[name][key].double() for a, name in zip(alphas, NAMES, strict=True))
            for key in precise.theta0
        }
        x = precise.preprocess(SPLIT.images[n : n + 1])
        theta0 = {key: value.double() for key, value in encoder.theta0.items()}
        z0, jz = jvp(lambda theta, x=x: precise.features(theta, x), (theta0,), (tau,))
        got = merged_scores(reading.scores(), alphas)[n]
        # passes in float32 against float64
        torch.testing.assert_close(got, ((z0 + jz) @ head.T)[0], rtol=1e-4, atol=1e-5)


def test_batches_do_not_matter(encoder, taus, reading):
    small = responses(encoder, TASK, SPLIT, taus, batch=7)
    torch.testing.assert_close(small.z0, reading.z0, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(small.jz, reading.jz, rtol=1e-5, atol=1e-6)
    assert small.jz.shape == (3, 30, encoder.embed_dim)


def test_scores_are_heads_products(reading):
    scores = reading.scores()
    assert scores.dtype == torch.float32
    assert scores.shape == (4, 30, 3)
    for t, z in enumerate([reading.z0, *reading.jz]):
        for n, c in ((0, 0), (29, 2), (11, 1)):
            exact = sum(a * b for a, b in zip(z[n].tolist(), reading.head[c].tolist(), strict=True))
            assert float(scores[t, n, c]) == pytest.approx(exact, rel=1e-6, abs=1e-7)


def test_merged_scores_are_ieee_doubles_in_the_order_of_the_definition():
    scores, _ = random_scores(T=8, N=60, C=7)
    source = random.Random(1)
    for _ in range(5):
        alphas = [source.uniform(-1, 2) for _ in range(8)]
        got = merged_scores(scores, alphas)
        assert got.dtype == torch.float64
        for n in range(60):
            for c in range(7):
                s = float(scores[0, n, c])  # Python floats: one rounding an operation
                for alpha, change in zip(alphas, scores[1:, n, c].tolist(), strict=True):
                    s = s + alpha * change
                assert float(got[n, c]) == s


def test_theta0_is_read_at_alpha_zero_and_each_vector_at_one(reading):
    scores = reading.scores()
    assert torch.equal(merged_scores(scores, [0, 0, 0]), scores[0].double())
    alone = merged_scores(scores, [0, 1, 0])
    assert torch.equal(alone, scores[0].double() + scores[2].double())


def test_ties_go_to_the_lowest_class():
    scores = torch.tensor([[0.0, 2.0, 2.0], [1.0, 1.0, 1.0], [-1.0, 3.0, 3.0]])
    assert predictions(scores).tolist() == [1, 0, 1]
    wide = torch.zeros(50, 1000, dtype=torch.float64)
    wide[:, 501:] = 1
    assert predictions(wide).tolist() == [501] * 50


@pytest.mark.parametrize("chunk", [1, 450, 1 << 20])
def test_sweep_gives_the_same_bits_as_one_setting_at_a_time(monkeypatch, chunk):
    monkeypatch.setattr(module, "CHUNK", chunk)
    scores, labels = random_scores()
    scores[:, :, 3] = scores[:, :, 1]  # ties, which any other rounding would break
    grid = torch.rand(37, 3, dtype=torch.float64) * 3 - 1
    counts = correct_over(scores, labels, grid)
    for setting, count in zip(grid.tolist(), counts.tolist(), strict=True):
        merged = merged_scores(scores, setting)
        best = [row.index(max(row)) for row in merged.tolist()]
        assert count == sum(b == y for b, y in zip(best, labels.tolist(), strict=True))
    assert torch.equal(accuracy_over(scores, labels, grid), counts.double() / 40)
    assert len(correct_over(scores, labels, grid[:0])) == 0


def test_sweep_equals_merged_scores_inside_too():
    scores, _ = random_scores(T=4)
    grid = torch.rand(9, 4, dtype=torch.float64)
    together = module._merged(scores, grid)
    for a in range(9):
        assert torch.equal(together[a], merged_scores(scores, grid[a]))


def test_wrong_number_of_alphas_is_a_bug():
    scores, labels = random_scores()
    with pytest.raises(ValueError, match="got 2 alphas, expected 3"):
        merged_scores(scores, [1, 2])
    with pytest.raises(ValueError, match=r"got a grid of shape \(5, 2\), expected \(A, 3\)"):
        correct_over(scores, labels, torch.zeros(5, 2))


def test_store_gives_back_what_it_was_given(reading, tmp_path):
    store = Store(tmp_path)
    tensors, meta = reading.to_tensors()
    entry = store.put("responses", tensors, {**meta, "encoder": "fake"})
    (found,) = store.find("responses", task="shapes", split="test")
    assert found.digest == entry.digest
    again = Responses.from_tensors(store.get(found), found.meta)
    assert (again.task, again.split, again.names) == ("shapes", "test", NAMES)
    for name in ("z0", "jz", "labels", "head"):
        assert torch.equal(getattr(again, name), getattr(reading, name))


def test_stored_responses_that_do_not_fit_are_refused(reading):
    tensors, meta = reading.to_tensors()
    with pytest.raises(CheckpointError, match="stored responses lack 'jz'"):
        Responses.from_tensors({k: v for k, v in tensors.items() if k != "jz"}, meta)
    with pytest.raises(CheckpointError, match="do not fit together"):
        Responses.from_tensors(tensors, {**meta, "names": ["a"]})
    with pytest.raises(CheckpointError, match="do not fit together"):
        Responses.from_tensors({**tensors, "labels": tensors["labels"][1:]}, meta)
    with pytest.raises(CheckpointError, match="do not fit together"):
        Responses.from_tensors({**tensors, "z0": tensors["z0"][0]}, meta)


def test_part_of_the_images_and_of_the_vectors(reading):
    first = reading.take(4)
    assert torch.equal(first.scores(), reading.scores()[:, :4])
    assert first.labels.tolist() == SPLIT.labels[:4].tolist()
    swapped = reading.select(["c", "a"])
    assert swapped.names == ("c", "a")
    assert torch.equal(swapped.scores(), reading.scores()[[0, 3, 1]])
    with pytest.raises(ValueError, match=r"got \['z'\], expected among \['a', 'b', 'c'\]"):
        reading.select(["z"])


def test_half_precision_vectors_are_used_as_they_are(encoder, taus):
    half = {name: {k: v.half() for k, v in tau.items()} for name, tau in taus.items()}
    exact = {name: {k: v.float() for k, v in tau.items()} for name, tau in half.items()}
    got, expected = (responses(encoder, TASK, SPLIT, t) for t in (half, exact))
    assert torch.equal(got.jz, expected.jz)
    assert not torch.equal(got.jz, responses(encoder, TASK, SPLIT, taus).jz)


def test_without_vectors_there_is_zero_shot(encoder, reading):
    bare = responses(encoder, TASK, SPLIT, {})
    assert bare.scores().shape == (1, 30, 3)
    torch.testing.assert_close(bare.z0, reading.z0)
    assert torch.equal(merged_scores(bare.scores(), []), bare.scores()[0].double())


def test_what_does_not_fit_or_is_not_finite_is_refused(encoder, taus):
    short = {key: value for key, value in taus["a"].items() if key != "0.bias"}
    with pytest.raises(ParameterMismatchError, match="task vector of a does not fit"):
        responses(encoder, TASK, SPLIT, {"a": short})
    bad = {key: value * torch.inf for key, value in taus["a"].items()}
    with pytest.raises(NonFiniteError, match="features of shapes: J tau holds"):
        responses(encoder, TASK, SPLIT, {"a": bad})
