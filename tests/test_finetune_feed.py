"""The batches of a run: the same whether the next one is fetched ahead or not."""

import threading

import pytest
import torch

from engine.finetune.batches import Feed, batch_indices
from tests.fake_encoder import FakeTask, fake_split

SPLIT = fake_split(FakeTask(), "train", 23)
CPU = torch.device("cpu")


@pytest.mark.parametrize("ahead", [False, True])
def test_each_step_gets_its_images_in_any_order(ahead):
    feed = Feed(SPLIT, seed=4, batch=9, device=CPU, ahead=ahead)
    for step in (0, 1, 2, 7, 8, 3):  # a resumed run begins anywhere
        images, labels = feed.take(step)
        index = batch_indices(4, step, 23, 9)
        assert torch.equal(images, SPLIT.images[index])
        assert torch.equal(labels, SPLIT.labels[index])
    feed.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("batches")]


def test_the_next_batch_is_gathered_beside_the_step(monkeypatch):
    feed, steps, gathered = Feed(SPLIT, 0, 5, CPU, ahead=True), [], threading.Event()
    plain = feed._gathered

    def watched(step):
        steps.append((step, threading.current_thread() is threading.main_thread()))
        found = plain(step)
        if step == 1:
            gathered.set()
        return found

    monkeypatch.setattr(feed, "_gathered", watched)
    feed.take(0)
    assert gathered.wait(10)  # nothing was asked of step 1 yet
    feed.take(1)
    feed.close()
    assert steps[:2] == [(0, True), (1, False)]
    assert all(step != 1 for step, _ in steps[2:])


def test_what_goes_wrong_in_the_thread_is_heard_at_its_step():
    class Broken:
        labels = SPLIT.labels

        @property
        def images(self):
            raise OSError("the disk is gone")

    feed = Feed(SPLIT, 0, 5, CPU, ahead=True)
    feed.split = Broken()
    with pytest.raises(OSError, match="the disk is gone"):
        feed.take(0)
    feed.split = SPLIT
    feed.take(0)  # sets off step 1
    feed._next[1].result()
    feed.split = Broken()
    feed.take(1)  # sets off step 2, which fails
    with pytest.raises(OSError, match="the disk is gone"):
        feed.take(2)
    feed.close()
