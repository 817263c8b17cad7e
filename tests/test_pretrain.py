"""Contrastive pre-training: groups, loss, learning, resume and stop."""

import math

import pytest
import torch

from engine.encoders import load_encoder
from engine.encoders.pretrain import Recipe, groups, pretrain, rate_at, state_name
from engine.errors import CheckpointError, NonFiniteError, UsageError
from tests.tiny_clip import CONFIG

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
RECIPE = Recipe(images=64, epochs=3, batch=8, rate=3e-3, seed=1)


def _captioned(indices, seed):
    """Noisy squares of one colour each, dealt in turn."""
    names, images = list(COLOURS), []
    for index in indices:
        generator = torch.Generator().manual_seed(1000 * seed + index)
        noise = torch.randint(-40, 41, (3, 16, 16), generator=generator)
        colour = torch.tensor(COLOURS[names[index % 4]])[:, None, None]
        images.append((colour + noise).clamp(0, 255).to(torch.uint8))
    captions = [f"a {names[index % 4]} picture" for index in indices]
    return torch.stack(images), captions, torch.tensor([index % 4 for index in indices])


def _run(recipe=RECIPE, **options):
    return pretrain(recipe, captioned=_captioned, config=CONFIG, **options)


def test_it_learns_and_becomes_an_encoder(store):
    tensors, log = _run(Recipe(images=160, epochs=4, batch=8, rate=3e-3, seed=1))
    assert {v.dtype for v in tensors.values()} == {torch.float16}
    assert log[-1]["loss"] < 0.5 * log[0]["loss"] < math.log(4)
    assert log[-1]["accuracy"] > 0.9
    assert set(log[0]) == {"step", "loss", "accuracy", "rate", "scale", "seconds"}
    store.put("encoder", tensors, {"name": "tiny", "config": CONFIG})
    encoder = load_encoder("tiny", store)
    images, _, labels = _captioned(range(400, 440), 9)
    head = encoder.text.head(tuple(COLOURS), ("a {} picture",))
    predicted = encoder.logits(encoder.theta0, encoder.preprocess(images), head).argmax(1)
    assert float((predicted == labels).float().mean()) > 0.9


def test_one_seed_one_encoder():
    first, again, other = (_run(Recipe(images=16, epochs=1, batch=8, seed=s))[0] for s in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


@pytest.mark.parametrize("fresh", [False, True])
@pytest.mark.parametrize("stop_at", [0, 5, 16])
def test_resumed_equals_uninterrupted(store, stop_at, fresh):
    recipe = Recipe(images=32, epochs=4, batch=8, fresh=fresh)
    expected, expected_log = _run(recipe)

    def stop(done, total, entry):
        if done == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(recipe, progress=stop, save_state=store.save_state)
    steps = []
    got, log = _run(
        recipe, progress=lambda d, t, e: steps.append((d, t)), load_state=store.load_state
    )
    # while pictures are rendered a step is told again
    assert sorted({done for done, _ in steps if done > stop_at}) == list(range(stop_at + 1, 17))
    assert all(torch.equal(expected[k], got[k]) for k in expected)
    for entry in (*log, *expected_log):
        entry.pop("seconds")
    assert log == expected_log


def test_a_foreign_state_is_refused(store):
    store.save_state(state_name(RECIPE, CONFIG), {"x": torch.ones(1)}, {"done": 3})
    with pytest.raises(CheckpointError, match="delete it and start again"):
        _run(load_state=store.load_state)


def test_states_of_other_recipes_are_apart():
    assert state_name(RECIPE, CONFIG) != state_name(Recipe(), CONFIG) != state_name(Recipe())


def test_groups_hold_each_class_once_and_each_picture_once():
    classes = torch.tensor([i % 5 for i in range(48)])
    parts = groups(classes, 256, seed=0, epoch=0, distinct=True)
    assert [len(p) for p in parts] == [5] * 9 + [3]
    assert all(len(classes[p].unique()) == len(p) for p in parts)
    assert torch.cat(parts).sort().values.tolist() == list(range(48))
    other = groups(classes, 256, seed=0, epoch=1, distinct=True)
    assert not torch.equal(torch.cat(parts), torch.cat(other))
    small = groups(classes, 2, seed=0, epoch=0, distinct=True)
    assert {len(p) for p in small} == {2}  # a group of one teaches nothing


def test_groups_without_regard_to_classes_are_whole_batches():
    parts = groups(torch.zeros(20, dtype=torch.long), 8, seed=0, epoch=0, distinct=False)
    assert [len(p) for p in parts] == [8, 8, 4]


def test_rate_warms_up_and_falls_to_nothing():
    rates = [rate_at(step, 100, 2.0) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == pytest.approx(2.0)
    assert rates[10] == pytest.approx(2.0)
    assert rates[55] == pytest.approx(1.0)
    assert rates[-1] < 0.002
    assert rates == sorted(rates[:11]) + sorted(rates[11:], reverse=True)


def test_an_empty_recipe_is_refused():
    with pytest.raises(UsageError, match="at least 1"):
        _run(Recipe(images=0))
    with pytest.raises(UsageError, match="at least 2 pictures"):
        _run(Recipe(images=1))


def test_a_loss_that_explodes_stops_the_run(store):
    with pytest.raises(NonFiniteError, match="lower the learning rate"):
        _run(Recipe(images=64, epochs=3, batch=8, rate=1e30), save_state=store.save_state)
    assert store.load_state(state_name(RECIPE, CONFIG)) is None


def test_the_world_is_the_default():
    _, log = pretrain(Recipe(images=222, epochs=1, batch=111))
    assert log[-1]["step"] == 2
    assert log[-1]["loss"] == pytest.approx(math.log(111), abs=0.7)
