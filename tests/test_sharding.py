"""A heavy measure in shares: put together it is the undivided one, to the bit."""

import json
import os
import signal
import time

import pytest
import torch

from engine.__main__ import main
from engine.disentanglement import axis, nonlinear_map
from engine.disentanglement.nonlinear import refining
from engine.disentanglement.shares import check_share, share_of, states_of
from engine.errors import CheckpointError, UsageError
from engine.jobs import Jobs
from engine.jobs.local import process_of
from engine.ntk import kernels
from engine.store import Store
from engine.tasks import miniature
from tests.fake_encoder import FakeTask, fake_encoder, fake_split, fake_taus
from tests.made_jobs import asleep
from tests.tiny_world import make_world

NAMES = ("shapes", "colours")
FIELDS = ("xi", "low", "high")
PAIR = ("--tasks", "signs", "handwriting", "--grid", "4", "--range", "1")
KERNEL = ("--task", "signs", "--points", "6", "--logits", "3")


@pytest.fixture(scope="module")
def world():
    encoder = fake_encoder(dtype=torch.float64)
    tasks = {name: FakeTask(name) for name in NAMES}
    splits = {name: fake_split(task, "test", 40) for name, task in tasks.items()}
    return encoder, tasks, fake_taus(encoder, NAMES, scale=0.3), splits


@pytest.fixture
def states(tmp_path):
    store = Store(tmp_path)
    return {"load_state": store.load_state, "save_state": store.save_state}


def same(one, other) -> bool:
    return all(torch.equal(getattr(one, field), getattr(other, field)) for field in FIELDS)


@pytest.mark.parametrize("shares", [1, 2, 3, 25])
def test_shares_part_the_cells(shares):
    cells = list(refining(5))
    parts = [share_of(cells, share, shares) for share in range(1, shares + 1)]
    assert sorted(sum(parts, [])) == sorted(cells)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert parts[0][0] == (0, 0)  # each goes coarse to fine
    assert len(set(states_of("xi", shares))) == shares + 1


@pytest.mark.parametrize(("share", "shares"), [(None, 26), (None, 0), (4, 3), (0, 3)])
def test_what_is_no_share_is_refused(share, shares):
    with pytest.raises(UsageError, match="share"):
        check_share(share, shares, 25)


@pytest.mark.parametrize("distance", ["error", "kl"])
def test_merged_shares_are_the_map_to_the_bit(world, states, distance):
    alphas = axis(5)
    whole = nonlinear_map(*world, alphas, distance=distance)
    for share in (3, 1, 2):
        part = nonlinear_map(*world, alphas, distance=distance, share=share, shares=3, **states)
        assert part.done == len(share_of(list(refining(5)), share, 3))
    cells = []
    merged = nonlinear_map(
        *world, alphas, distance=distance, shares=3, progress=lambda *_: cells.append(1), **states
    )
    assert cells == []
    assert same(merged, whole)


def test_what_a_share_lacks_is_computed_by_the_merge(world, states):
    alphas, cells = axis(5), []
    nonlinear_map(*world, alphas, share=2, shares=3, **states)
    merged = nonlinear_map(
        *world, alphas, shares=3, progress=lambda _, done, __: cells.append(done), **states
    )
    assert cells == list(range(9, 26))
    assert same(merged, nonlinear_map(*world, alphas))


def test_a_share_killed_outright_goes_on_where_it_was(world, states):
    alphas, share = axis(5), {"share": 1, "shares": 2}

    def die(found, done, total):
        assert total == 13
        if done == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        nonlinear_map(*world, alphas, progress=die, **share, **states)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    cells = []
    tell = {"progress": lambda _, done, __: cells.append(done)}
    nonlinear_map(*world, alphas, **tell, **share, **states)
    assert cells == list(range(7, 14))
    nonlinear_map(*world, alphas, share=2, shares=2, **states)
    merged = nonlinear_map(*world, alphas, shares=2, **states)
    assert same(merged, nonlinear_map(*world, alphas))


def test_a_share_of_another_run_is_refused(world, states):
    nonlinear_map(*world, axis(5), share=1, shares=2, **states)

    def load(name):
        found = states["load_state"](name)
        return found and (found[0], {**found[1], "batch": 7})

    with pytest.raises(CheckpointError, match="1of2 is of another run"):
        nonlinear_map(*world, axis(5), shares=2, load_state=load)


# the verbs


@pytest.fixture
def small(monkeypatch):
    """Small splits, in this process alone and for one test: real processes have whole ones."""
    monkeypatch.setitem(miniature.SIZES, "test", 60)
    monkeypatch.setitem(miniature.SIZES, "train", 60)


@pytest.fixture
def homes(tmp_path, monkeypatch, small):
    """Two caches alike: one for shares, one for the undivided answer."""
    monkeypatch.setattr("engine.store.ROOT", tmp_path / "checkout")
    for name in ("shares", "whole"):
        make_world(tmp_path / name, tasks=("signs", "handwriting"))
    return tmp_path / "shares", tmp_path / "whole"


@pytest.fixture
def ask(capsys):
    def asked(home, *words):
        capsys.readouterr()
        assert main([*words, "--cache", str(home), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return asked


def plain(record: dict) -> dict:
    """An answer without how long it took."""
    return {name: value for name, value in record.items() if name != "seconds"}


def test_the_verb_merges_what_its_shares_have_saved(homes, ask, monkeypatch):
    mine, whole = homes
    words = ("disentanglement", *PAIR, "--shards", "3")
    told = [ask(mine, *words, "--shard", str(share)) for share in (1, 2, 3)]
    assert [item["cells"] for item in told] == [6, 5, 5]
    assert len(list((mine / "state").iterdir())) == 3
    merged = ask(mine, *words)
    assert not list((mine / "state").iterdir())
    assert merged == ask(whole, "disentanglement", *PAIR)
    assert ask(mine, *words, "--shard", "2")["cells"] == 16  # it is kept by now


def test_kernels_in_shares_are_those_of_one_run(homes, ask, monkeypatch):
    mine, whole = homes
    words = ("ntk", *KERNEL, "--shards", "2")
    first = ask(mine, *words, "--shard", "1")
    assert len(first["logits"]) == 2
    assert len(ask(mine, *words, "--shard", "2")["logits"]) == 1
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "_RUN", {})  # nothing is left to compute
        merged = ask(mine, *words)
    assert not list((mine / "state").iterdir())
    assert plain(merged) == plain(ask(whole, "ntk", *KERNEL))


def test_a_share_without_a_logit_has_nothing_to_do(homes, ask):
    told = ask(homes[0], "ntk", *KERNEL[:4], "--logits", "1", "--shards", "2", "--shard", "2")
    assert told == {"shard": 2, "shards": 2, "logits": []}


def test_a_stopped_kernel_goes_on_with_the_next_logit(homes, ask, monkeypatch):
    mine, whole = homes
    real, run = kernels._RUN["layerwise"], []

    def stopping(*arguments):
        run.append(1)
        if len(run) == 3:
            os.kill(os.getpid(), signal.SIGTERM)  # heard at the next step
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setitem(kernels._RUN, "layerwise", stopping)
        assert main(["ntk", *KERNEL, "--cache", str(mine)]) == 130
    assert len(run) == 3
    assert len(list((mine / "state").iterdir())) == 2

    def counted(*arguments):
        run.append(1)
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setitem(kernels._RUN, "layerwise", counted)
        found = ask(mine, "ntk", *KERNEL)
    assert len(run) == 4
    assert plain(found) == plain(ask(whole, "ntk", *KERNEL))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["disentanglement", *PAIR, "--shard", "2"], "--shard 2 needs --shards 2 or more"),
        (["disentanglement", *PAIR, "--shards", "17"], "give fewer --shards"),
        (["disentanglement", *PAIR, "--shards", "2", "--mode", "linear"], "divides forward passes"),
        (["disentanglement", "--matrix", "--shards", "2"], "leave --matrix"),
        (["ntk", *KERNEL, "--shards", "2", "--shard", "3"], "--shard 3 needs --shards 3"),
    ],
)
def test_shares_are_refused_in_one_sentence(homes, capsys, words, said):
    assert main([*words, "--cache", str(homes[0])]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


def test_shares_in_the_background_are_jobs_and_one_that_waits_for_them(homes, ask, monkeypatch):
    asleep(monkeypatch)
    words = ("disentanglement", *PAIR, "--shards", "3", "--background", "--priority", "2")
    told = ask(homes[0], *words)
    jobs = Jobs(homes[0])
    whole, parts = jobs.get(told["job"]), [jobs.get(id) for id in told["shards"]]
    assert whole.after == tuple(told["shards"])
    assert "it waits for" in whole.waiting
    assert whole.option("--shard") is None
    assert [part.option("--shard") for part in parts] == ["1", "2", "3"]
    assert {job.option("--shards") for job in (whole, *parts)} == {"3"}
    assert {job.priority for job in (whole, *parts)} == {2}
    assert len({job.suite for job in (whole, *parts)}) == 1
    assert parts[1].title.endswith("share 2 of 3")
    refused = ("disentanglement", *PAIR, "--shards", "2", "--mode", "posthoc", "--background")
    assert main([*refused, "--cache", str(homes[0])]) == 2
    assert len(jobs.list()) == 4


@pytest.mark.slow
def test_a_killed_share_is_lost_and_resumes_and_the_merge_is_the_map(tmp_path, ask, monkeypatch):
    """With real processes, two at once; the splits are those of every process."""
    monkeypatch.setenv("TAUSCOPE_CPU_SLOTS", "2")
    monkeypatch.setenv("TAUSCOPE_GPUS", "")
    mine, whole = tmp_path / "shares", tmp_path / "whole"
    for home in (mine, whole):
        make_world(home, tasks=("signs", "handwriting"))
    pair = (*PAIR[:3], "--grid", "12", "--images", "300", "--threads", "1", "--device", "cpu")
    words = ("disentanglement", *pair)
    told = ask(mine, *words, "--shards", "2", "--background")
    jobs, (first, second) = Jobs(mine), told["shards"]

    def until(id, holds):
        end = time.monotonic() + 300
        while not holds(job := jobs.get(id)):
            assert time.monotonic() < end, job
            jobs.pump()
            time.sleep(0.1)
        return job

    seen = until(first, lambda job: job.step >= 8)
    assert (seen.steps, seen.state) == (72, "running")
    os.kill(process_of(seen.folder)["pid"], signal.SIGKILL)
    assert until(first, lambda job: job.state == "lost").step >= 8
    assert "which is lost; resume" in until(told["job"], lambda job: first in job.waiting).waiting
    ask(mine, "jobs", "resume", first)
    merged = until(told["job"], lambda job: job.state == "done")
    assert [jobs.get(id).attempt for id in (first, second)] == [2, 1]
    log = "\n".join(jobs.log_tail(first, 200))
    assert log.count("attempt 2") == 1
    assert jobs.answer(merged.id)["xi"] == ask(whole, *words)["xi"]
    assert jobs.answer(merged.id)["interval"] == ask(whole, *words)["interval"]
    assert not list((mine / "state").glob("xi-*"))
