"""Scores on several tasks in two streams: what one stream gives, whoever else is at work."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from engine.errors import NonFiniteError
from engine.evaluate import nonlinear_scores, scores_of_tasks
from tests.fake_encoder import fake_encoder, fake_split, other_task

ENCODER = fake_encoder()
TASKS = [other_task(name, 3 + i) for i, name in enumerate(("ab", "cd", "efg"))]
ASKED = [
    (fake_split(task, "test", n).images, ENCODER.head(task))
    for task, n in zip(TASKS, (40, 7, 23), strict=True)
]


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(max(2, before))
    yield
    torch.set_num_threads(before)


def one_after_the_other(theta):
    return [nonlinear_scores(ENCODER, theta, images, head) for images, head in ASKED]


@pytest.mark.parametrize("batch", [1, 8, 100])
def test_the_same_scores_in_the_same_order(batch):
    found = scores_of_tasks(ENCODER, ENCODER.theta0, ASKED, batch)
    for each, expected in zip(found, one_after_the_other(ENCODER.theta0), strict=True):
        assert each.shape == expected.shape
        assert each.dtype == expected.dtype
        torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-5)


def test_threads_of_others_stay_as_they_were():
    before = torch.get_num_threads()
    scores_of_tasks(ENCODER, ENCODER.theta0, ASKED)
    assert torch.get_num_threads() == before
    later = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [before]


def test_two_visitors_at_once_each_get_their_own_model():
    thetas = [{k: v * factor for k, v in ENCODER.theta0.items()} for factor in (1.0, 0.5)] * 4
    with ThreadPoolExecutor(4) as visitors:
        found = list(visitors.map(lambda t: scores_of_tasks(ENCODER, t, ASKED, 4), thetas))
    for theta, mine in zip(thetas, found, strict=True):
        for each, expected in zip(mine, one_after_the_other(theta), strict=True):
            torch.testing.assert_close(each, expected, rtol=1e-5, atol=1e-5)


def test_no_images_no_scores_and_one_thread_no_streams():
    empty = [(images[:0], head) for images, head in ASKED]
    assert [tuple(s.shape) for s in scores_of_tasks(ENCODER, ENCODER.theta0, empty)] == [
        (0, len(head)) for _, head in ASKED
    ]
    torch.set_num_threads(1)
    found = scores_of_tasks(ENCODER, ENCODER.theta0, ASKED)
    for each, expected in zip(found, one_after_the_other(ENCODER.theta0), strict=True):
        torch.testing.assert_close(each, expected, rtol=0, atol=0)


def test_a_nan_is_refused_and_the_encoder_is_as_good_as_before():
    broken = {name: value.clone() for name, value in ENCODER.theta0.items()}
    next(iter(broken.values())).fill_(float("nan"))
    with pytest.raises(NonFiniteError):
        scores_of_tasks(ENCODER, broken, ASKED, 4)
    found = scores_of_tasks(ENCODER, ENCODER.theta0, ASKED, 4)
    torch.testing.assert_close(found[0], one_after_the_other(ENCODER.theta0)[0])
