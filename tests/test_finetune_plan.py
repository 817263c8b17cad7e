"""What ``finetune`` says of its cost before it begins, and a suite asked for in one command."""

import json

import pytest
from tiny_world import make_encoder

from engine.__main__ import main
from engine.commands import planning
from engine.finetune import recipe_for
from engine.jobs import Jobs, estimate, probe
from engine.jobs import folder as files
from engine.tasks import TASKS, miniature


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(miniature.SIZES, "train", 200)
    monkeypatch.setitem(miniature.SIZES, "test", 40)


@pytest.fixture
def store(tmp_path):
    return make_encoder(tmp_path / "cache")


@pytest.fixture
def ask(store, capsys):
    """``ask(*words) -> (status, standard output, error stream)`` of ``finetune``."""

    def asked(*words):
        capsys.readouterr()
        status = main(["finetune", "--device", "cpu", "--cache", str(store.home), *words])
        return status, *capsys.readouterr()

    return asked


def test_a_dry_run_tells_what_the_estimate_says_and_trains_nothing(ask, store):
    words = ["--tasks", "signs", "letters", "--mode", "linear", "--steps", "50", "--limit", "64"]
    status, out, _ = ask(*words, "--measure-on", "8", "--dry-run", "--json")
    told = json.loads(out)
    recipe = recipe_for("miniature", "linear", steps=50)
    sizes = {"train": 64, "validation": 8, "test": 8}
    own = estimate.estimate(store, "miniature", "linear", recipe, sizes, "cpu")
    assert status == 0
    assert [row["task"] for row in told["plan"]] == ["signs", "letters"]
    for name in ("steps", "seconds", "memory", "disk", "refusal", "measured"):
        assert [row[name] for row in told["plan"]] == [getattr(own, name)] * 2
    assert (told["steps"], told["disk"], told["memory"]) == (100, 2 * own.disk, own.memory)
    assert told["seconds"] == pytest.approx(2 * own.seconds)
    assert told["fits"] is True
    assert store.find("checkpoint") == []


def test_a_dry_run_says_what_would_fit(ask, monkeypatch):
    monkeypatch.setattr(estimate, "memory_there", lambda _: 1000)
    status, out, _ = ask("--tasks", "signs", "--dry-run")
    assert status == 0
    assert "cannot be done here: it needs about" in out
    assert "not even one image fits: turn checkpointing on" in out
    assert "nothing was trained" in out


def test_a_plan_stands_before_the_first_step(ask, store):
    recipe = recipe_for("miniature", "nonlinear")
    probe.probed(store, "miniature", "nonlinear", "float32", "cpu")
    status, _, said = ask("--tasks", "signs", "--steps", "2", "--batch", "8")
    plan, *rest = said.splitlines()
    assert status == 0
    assert plan.startswith("plan: signs nonlinear: 2 steps, about ")
    assert "MB of memory" in plan
    assert plan.endswith("(measured on two small batches)")
    assert "step 1 of 2" in rest[0]
    # done already: nothing is planned
    _, _, said = ask("--tasks", "signs", "--steps", "2", "--batch", "8")
    assert "plan:" not in said
    assert recipe.steps * recipe.batch > planning.SHORT


def test_a_run_shorter_than_measuring_is_not_measured(ask, store, monkeypatch):
    monkeypatch.setattr(probe, "_measured", lambda *_: pytest.fail("measured"))
    status, _, said = ask("--tasks", "signs", "--steps", "2", "--batch", "8")
    assert status == 0
    assert "plan: signs nonlinear: 2 steps of 8 images, too few to estimate" in said


def test_what_cannot_fit_is_refused_and_can_be_forced(ask, store, monkeypatch):
    probe.probed(store, "miniature", "linear", "float32", "cpu")
    monkeypatch.setattr(estimate, "memory_there", lambda _: 1000 - planning._held_now())
    words = ["--tasks", "signs", "--mode", "linear", "--steps", "2", "--batch", "8"]
    status, out, said = ask(*words)
    assert (status, out) == (2, "")
    assert "GB are there; not even one image fits: turn checkpointing on" in said
    assert said.splitlines()[-1].endswith("--force tries it all the same")
    assert store.find("checkpoint") == []
    status, _, said = ask(*words, "--force")
    assert status == 0
    assert "tried all the same" in said
    assert len(store.find("checkpoint")) == 1


def test_memory_that_this_process_holds_is_not_asked_for_twice(store, monkeypatch):
    recipe, sizes = recipe_for("miniature", "linear"), {"train": 10}
    monkeypatch.setattr(estimate, "memory_there", lambda _: 10**8)
    asked = (store, "miniature", "linear", recipe, sizes, "cpu")
    assert estimate.estimate(*asked).refusal is not None
    assert estimate.estimate(*asked, held=3 * 10**9).refusal is None
    assert planning._held_now() > 10**8


def test_closer_batches_are_counted_where_memory_is_short(store, monkeypatch):
    plain = probe.probed(store, "miniature", "linear", "float32", "cpu")
    (store.home / "jobs" / "rates.json").unlink()
    seen, real = [], probe._held_by
    monkeypatch.setattr(probe, "memory_there", lambda _: 1000)
    monkeypatch.setattr(probe, "_held_by", lambda *a: seen.append(a[-1]) or real(*a))
    short = probe.probed(store, "miniature", "linear", "float32", "cpu")
    assert max(seen) == 24
    assert short.each == pytest.approx(plain.each, rel=0.1)


def test_a_suite_is_asked_for_in_one_command(ask, store, monkeypatch):
    monkeypatch.setattr(Jobs, "_start_supervisor", lambda self: None)
    words = ["--tasks", "signs", "letters", "--modes", "nonlinear", "linear", "--seeds", "0", "3"]
    status, out, _ = ask(*words, "--steps", "7", "--half", "--background", "--priority", "2")
    told, jobs = json.loads(out), Jobs(store.home)
    made = [jobs.get(id) for id in told["jobs"]]
    assert status == 0
    assert [(j.option("--seed"), j.option("--mode"), j.option("--tasks")) for j in made] == [
        (seed, mode, task)
        for seed in ("0", "3")
        for mode in ("nonlinear", "linear")
        for task in ("signs", "letters")
    ]
    assert {job.suite for job in made} == {told["suite"]}
    for job in made:
        assert (job.option("--steps"), job.option("--half"), job.priority) == ("7", "", 2)
        assert job.option("--seeds") is job.option("--modes") is job.option("--background") is None
        spec = files.read_table(job.folder / "spec.json")
        assert (spec["device"], spec["on"]) == ("cpu", "local")
    assert len(jobs.list()) == 8
    behind = json.loads(ask("--seeds", "1", "--background", "--after", made[0].id)[1])
    found = [jobs.get(id) for id in behind["jobs"]]
    assert [job.option("--tasks") for job in found] == list(TASKS)
    assert {job.after for job in found} == {(made[0].id,)}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--seeds", "0", "1"], "--modes and --seeds make one job each; add --background"),
        (["--seeds", "0", "--seed", "1", "--background"], "give --seed or --seeds, not both"),
        (
            ["--modes", "linear", "--mode", "linear", "--background"],
            "give --mode or --modes, not both",
        ),
    ],
)
def test_a_suite_that_is_unclear_is_refused(ask, store, monkeypatch, words, sentence):
    monkeypatch.setattr(Jobs, "_start_supervisor", lambda self: None)
    status, out, said = ask("--tasks", "signs", *words)
    assert (status, out) == (2, "")
    assert sentence in said
    assert Jobs(store.home).list() == []
