import json
from collections import namedtuple
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_world import make_encoder

from benchmarks import measuring
from engine.commands import jobs as verb
from engine.encoders import load_encoder
from engine.errors import EngineError
from engine.finetune import recipe_for
from engine.jobs import Jobs, estimate, folder, probe, processes
from engine.store import default_store

SIZES = {"train": 300, "validation": 50, "test": 80}


@pytest.fixture
def store(tmp_path):
    return make_encoder(tmp_path / "cache")


def guess(store, mode="nonlinear", **changes):
    recipe = recipe_for("miniature", mode, **changes)
    return estimate.estimate(store, "miniature", mode, recipe, SIZES, "cpu")


def test_bytes_alive_are_counted_once_and_given_back():
    with probe._counted() as count:
        first = torch.zeros(1000)  # 4000 bytes
        first.view(10, 100)  # the same bytes
        second = first + 1
        del second
        third = torch.ones(500)
        del third
        torch.ones(250)
    assert count.most == 8000
    assert count.now == 4000
    del first
    assert count.now == 0


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_the_memory_of_a_larger_batch_is_foretold(store, mode):
    """The line through two small batches, a tenth steeper, against a batch counted directly."""
    encoder = load_encoder("miniature", store)
    found = probe._measured(encoder, mode, "float32")
    counted = probe._held_by(encoder, mode, "float32", 128)
    assert found.fixed + 128 * found.each == pytest.approx(counted, rel=0.12)
    assert found.parameters == sum(value.numel() for value in encoder.theta0.values())


def test_a_cost_grows_as_the_recipe_says(store):
    one, two = guess(store, steps=100, warmup=0), guess(store, steps=200, warmup=0)
    assert (one.steps, two.steps) == (100, 200)
    known = next(iter(folder.read_table(store.home / "jobs" / "rates.json").values()))
    step = known["start"] + 128 * known["image"]
    assert two.seconds - one.seconds == pytest.approx(100 * step)
    assert guess(store, batch=256).memory - one.memory == pytest.approx(128 * known["each"], abs=2)
    assert guess(store, accumulate=2).memory < one.memory
    assert one.disk == pytest.approx(4 * known["parameters"], abs=10**5)
    assert one.refusal is None
    assert one.measured == "measured on two small batches"


def test_what_was_measured_is_remembered_by_machine(store, monkeypatch):
    first = guess(store)
    monkeypatch.setattr(probe, "_measured", lambda *_: pytest.fail("measured again"))
    again = guess(store)  # what fits depends on the memory that is free at the moment
    assert again == replace(first, batch_that_fits=again.batch_that_fits)
    path = store.home / "jobs" / "rates.json"
    monkeypatch.undo()
    path.write_text("[damaged")
    assert guess(store).steps == first.steps
    assert json.loads(path.read_text())


def test_what_cannot_fit_is_refused_with_the_batch_that_would(store, monkeypatch):
    few = guess(store, batch=100).memory  # what is there holds these and not one more
    monkeypatch.setattr(estimate, "memory_there", lambda _: int((few + 10) / estimate.MARGIN))
    said = guess(store)
    assert said.batch_that_fits == 100
    assert f"about {said.batch_that_fits} would fit: set accumulate to" in said.refusal
    assert guess(store, batch=said.batch_that_fits).refusal is None
    assert guess(store, batch=said.batch_that_fits + 1).refusal is not None
    pieces = -(-128 // said.batch_that_fits)
    assert guess(store, accumulate=pieces).refusal is None
    monkeypatch.setattr(estimate, "memory_there", lambda _: 1000)
    assert "not even one image fits" in guess(store).refusal


def test_blocks_computed_again_take_less_memory(store):
    plain, again = guess(store, batch=512), guess(store, batch=512, checkpointing=True)
    assert again.memory < plain.memory
    assert again.batch_that_fits > plain.batch_that_fits
    rates = folder.read_table(store.home / "jobs" / "rates.json")
    assert sorted(key.endswith("| checkpointing") for key in rates) == [False, True]


def test_checkpointing_is_offered_where_it_is_off(store, monkeypatch):
    monkeypatch.setattr(estimate, "memory_there", lambda _: 1000)
    assert "turn checkpointing on" in guess(store).refusal
    assert "checkpointing" not in guess(store, checkpointing=True).refusal


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_the_estimate_is_near_the_peak_of_a_real_fine_tune(mode):
    """In a fresh process, torch and all; what may not happen is a peak above the estimate."""
    words = ["peak", "--encoder", "miniature", "--batch", "256", "--modes", mode]
    peak = measuring.fresh("benchmarks.gpu_parts", words)["peak"]
    recipe = recipe_for("miniature", mode, batch=256)
    sizes = {"train": 512, "validation": 2}
    told = estimate.estimate(default_store(), "miniature", mode, recipe, sizes, "cpu").memory
    assert 0.95 < told / peak < 1.4


def test_a_full_disk_is_refused(store, monkeypatch):
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(estimate.shutil, "disk_usage", lambda _: usage(10_000))
    assert "MB of disk" in guess(store).refusal
    assert "make room there" in guess(store).refusal


def test_an_absent_device_is_named(store, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="no cuda device here; take cpu"):
        estimate.estimate(
            store, "miniature", "linear", recipe_for("miniature", "linear"), {}, "cuda"
        )


def test_like_jobs_done_here_tell_the_time(store, monkeypatch):
    monkeypatch.setattr(Jobs, "_start_supervisor", lambda self: None)
    guess(store)
    jobs, steps = Jobs(store.home), recipe_for("miniature", "nonlinear", steps=100)
    for seconds, batch in ((200.0, 128), (400.0, 128), (9.0, 64)):
        job = jobs.submit(["finetune"])
        told = {"encoder": "miniature", "mode": "nonlinear", "recipe": {**steps.__dict__}}
        told["recipe"]["batch"] = batch
        folder.replace_table(job.folder / "answer.json", told)
        folder.append_event(
            job.folder, {"kind": "log", "step": 100, "part_step": 100, "seconds": seconds}
        )
        who = {**processes.identity(), "claim": "c"}
        folder.replace_table(job.folder / "pid.json", who)
        with folder.changing(job.folder) as status:
            status |= {"state": "done", "claim": "c", "device": "cpu"}
    assert guess(store).measured == "measured on 2 like jobs done here"
    more, less = guess(store, steps=200, warmup=0), guess(store, steps=100, warmup=0)
    assert more.seconds - less.seconds == pytest.approx(100 * 3.0)  # the median of 2 and 4


def test_a_job_out_of_memory_says_which_batch_would_fit(store, monkeypatch):
    monkeypatch.setattr(Jobs, "_start_supervisor", lambda self: None)
    monkeypatch.setattr(verb, "_take_place", lambda *_: None)

    def without_memory(args, words):
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(verb.commands, "call", without_memory)
    monkeypatch.setattr(verb.os, "chdir", lambda _: None)
    jobs = Jobs(store.home)
    job = jobs.submit(["finetune", "--batch", "96", "--accumulate", "3", "--device", "cpu"])
    with pytest.raises(EngineError, match="out of memory with 32 images at once; about 16 would"):
        verb._call(jobs, job)()
    job = jobs.submit(["finetune", "--encoder", "nosuch"])
    with pytest.raises(EngineError, match="out of memory; duplicate it with a smaller batch"):
        verb._call(jobs, job)()
    job = jobs.submit(["finetune", "--steps", "none"])
    with pytest.raises(EngineError, match="'none' is not a whole number"):
        verb._call(jobs, job)()


def test_the_memory_of_this_machine_is_read(monkeypatch):
    assert probe.memory_there("cpu") > 10**8
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=7)
    )
    assert probe.memory_there("cuda") == 7
