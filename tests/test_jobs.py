import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import light_jobs
import pytest
from light_jobs import LightJobs, count, start_supervisor

from engine.errors import EngineError, MissingDataError, UsageError
from engine.jobs import (
    Jobs,
    Suite,
    folder,
    local,
    mishaps,
    processes,
    reporting,
    runner,
    slots,
    words,
)


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("TAUSCOPE_GPUS", "")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    yield LightJobs(tmp_path)
    for child in light_jobs.CHILDREN:
        child.kill()
        child.wait()
    light_jobs.CHILDREN.clear()
    for path in (tmp_path / "jobs").glob("2*"):
        if local.process_of(path):
            processes.kill(local.process_of(path))


@pytest.fixture
def still(jobs, monkeypatch):
    """Jobs that nobody starts."""
    monkeypatch.setattr(LightJobs, "_start_supervisor", lambda self: None)
    return jobs


def begun(jobs, id, step=1):
    until = time.monotonic() + 30
    while not jobs.curve(id) or jobs.curve(id)[-1]["step"] < step:
        assert time.monotonic() < until, jobs.get(id)
        time.sleep(0.02)


STEP_BACK = """
import os, pathlib
from engine.jobs.processes import step_back
step_back(7)
group = pathlib.Path("/proc/self/autogroup")
print(os.nice(0), *(group.read_text().split()[-1:] if group.exists() else []))
"""


@pytest.mark.parametrize("leads", [True, False])
def test_a_detached_process_steps_back_with_its_whole_session(leads):
    """Linux weighs sessions before processes: niceness alone yields nothing to a dashboard."""
    said = subprocess.run(
        [sys.executable, "-c", STEP_BACK],
        cwd=local.ROOT,
        capture_output=True,
        text=True,
        check=True,
        start_new_session=leads,
    ).stdout.split()
    own, group = int(said[0]), said[1:]
    assert own == min(os.nice(0) + 7, 19)
    # whoever only visits a session leaves it as it is
    assert group in ([], [str(own)] if leads else group_of_this())


def group_of_this() -> list[str]:
    """Read the niceness of this session's autogroup; nothing where it is in none."""
    path = Path("/proc/self/autogroup")
    return path.read_text().split()[-1:] if path.exists() else []


# -------------------------------------------------------------------------------- one after another


def test_a_job_runs_and_its_folder_tells_all_of_it(jobs):
    asked = jobs.ask(steps=5, pause=0.1)
    assert (asked.state, asked.waiting, asked.attempt) == ("queued", "it waits for its turn", 0)
    (job,) = jobs.wait(asked.id)
    assert (job.state, job.step, job.steps, job.part) == ("done", 5, 5, "counting")
    assert (job.error, job.rate, job.seconds_left, job.attempt) == (None, None, None, 1)
    assert job.loss == 1 / 5
    assert job.device == "cpu"
    assert job.peak_memory > 10**6
    assert job.created <= job.started < job.ended
    assert job.seconds == pytest.approx(job.ended - job.started, abs=0.2)
    assert jobs.answer(job.id) == {"counted": 5}
    assert [event["step"] for event in jobs.curve(job.id)] == [1, 2, 3, 4, 5]
    assert {event["learning_rate"] for event in jobs.curve(job.id)} == {0.5}
    states = [event["state"] for event in jobs.events(job.id) if event["kind"] == "state"]
    assert states == ["running", "done"]
    everything = jobs.events(job.id)
    assert [event["n"] for event in everything] == list(range(1, len(everything) + 1))
    assert jobs.events(job.id, since=3) == everything[3:]
    assert Jobs(jobs.home).get(job.id) == job  # another process sees the same
    assert json.loads(json.dumps(job.record()))["folder"] == str(job.folder)
    assert [path.name for path in job.folder.glob(".*")] == []


def test_a_running_job_tells_its_rate_and_the_time_left(jobs):
    id = jobs.ask(steps=400, pause=0.02).id
    begun(jobs, id, 60)
    time.sleep(0.6)
    job = jobs.get(id)
    assert job.state == "running"
    assert 10 < job.rate < 50  # at most one step in 0.02 s
    assert job.seconds_left == pytest.approx((400 - job.step) / job.rate)
    assert job.pid == processes.identity(job.pid)["pid"]
    jobs.cancel(id)
    jobs.wait(id)


def test_the_first_asked_comes_first_unless_another_matters_more(still, jobs, monkeypatch):
    first, second, third = jobs.ask(), jobs.ask(), jobs.ask(priority=5)
    monkeypatch.setattr(LightJobs, "_start_supervisor", start_supervisor)
    jobs.wait(first.id, second.id, third.id)
    ends = sorted((turn for turn in jobs.turns() if "ended" in turn), key=lambda t: t["began"])
    assert [turn["id"] for turn in ends] == [third.id, first.id, second.id]
    for one, next_one in zip(ends, ends[1:], strict=False):
        assert one["ended"] <= next_one["began"]


def test_two_slots_on_the_cpu_run_two_at_once(jobs, monkeypatch):
    monkeypatch.setenv("TAUSCOPE_CPU_SLOTS", "2")
    ids = [jobs.ask(steps=40, pause=0.05).id for _ in range(3)]
    begun(jobs, ids[0])
    begun(jobs, ids[1])
    assert [jobs.get(id).state for id in ids] == ["running", "running", "queued"]
    for id in ids:
        jobs.cancel(id)
    assert {job.state for job in jobs.wait(*ids)} == {"cancelled"}


def test_ten_jobs_with_supervisors_racing_and_dying_are_each_done_once(jobs, monkeypatch):
    monkeypatch.setenv("TAUSCOPE_GPUS", "GPU-a,GPU-b")
    other = LightJobs(jobs.home)  # a second dashboard
    supervisors = [start_supervisor(jobs) for _ in range(3)]
    ids = [(jobs, other)[n % 2].ask(steps=4, pause=0.05).id for n in range(10)]
    supervisors += [start_supervisor(jobs) for _ in range(3)]
    for _ in range(4):  # whoever supervises is killed, wherever it is
        time.sleep(0.4)
        for child in [*light_jobs.CHILDREN]:
            child.send_signal(signal.SIGKILL)
        jobs.pump()
        other.pump()
    done = jobs.wait(*ids)
    assert [job.state for job in done] == ["done"] * 10
    turns = [turn for turn in jobs.turns() if "ended" in turn]
    assert sorted(turn["id"] for turn in turns) == sorted(ids)
    assert len(jobs.turns()) == 20  # a beginning and an end each: none began twice
    assert {(t["device"], t["visible"]) for t in turns} == {
        ("cuda:0", "GPU-a"),
        ("cuda:1", "GPU-b"),
    }
    for device in ("cuda:0", "cuda:1"):
        own = sorted((t["began"], t["ended"]) for t in turns if t["device"] == device)
        assert all(one[1] <= two[0] for one, two in zip(own, own[1:], strict=False))


def test_a_job_of_two_gpus_waits_for_both_and_is_not_overtaken(jobs, monkeypatch):
    monkeypatch.setenv("TAUSCOPE_GPUS", "0,1")
    one = jobs.ask(steps=20, pause=0.05)
    begun(jobs, one.id)
    both, last = jobs.ask(gpus=2), jobs.ask()
    jobs.wait(one.id, both.id, last.id)
    turns = {turn["id"]: turn for turn in jobs.turns() if "ended" in turn}
    assert turns[both.id]["device"] == "cuda:0,1"
    assert turns[both.id]["visible"] == "0,1"
    assert turns[one.id]["ended"] <= turns[both.id]["began"]
    assert turns[both.id]["ended"] <= turns[last.id]["began"]


def test_what_can_never_run_here_says_so(jobs):
    (job,) = jobs.wait(jobs.ask(device="cuda").id)
    assert job.state == "failed"
    assert "asks for 1 GPU and 0 are here; duplicate it with --device cpu" in job.error


# --------------------------------------------------------------------------------------- dependence


def test_a_job_waits_for_another(jobs):
    first = jobs.ask(steps=15, pause=0.05)
    second = jobs.ask(after=[first.id[:-2]])
    assert second.waiting == f"it waits for {first.id}"
    jobs.wait(first.id, second.id)
    turns = {turn["id"]: turn for turn in jobs.turns() if "ended" in turn}
    assert turns[first.id]["ended"] <= turns[second.id]["began"]


def test_a_failed_dependency_holds_back_until_it_is_resumed(jobs):
    first = jobs.ask(steps=4, fails=2)
    second = jobs.ask(after=[first.id])
    (failed,) = jobs.wait(first.id)
    assert failed.error == "the disk is full; free some space and resume it"
    for child in light_jobs.CHILDREN:
        child.wait(20)  # nothing can be done: no supervisor stays for it
    waiting = f"it waits for {first.id}, which is failed; resume or retry that one"
    assert jobs.get(second.id).waiting == waiting
    jobs.resume(first.id)  # it goes on after the second step
    assert [job.state for job in jobs.wait(first.id, second.id)] == ["done", "done"]


def test_a_deleted_dependency_is_a_failure(still, monkeypatch):
    first = still.ask()
    second = still.ask(after=[first.id])
    still.delete(first.id)
    monkeypatch.setattr(LightJobs, "_start_supervisor", start_supervisor)
    (job,) = still.wait(second.id)
    assert (job.state, job.error) == (
        "failed",
        f"it waits for {first.id}, which was deleted; duplicate it with after=()",
    )
    with pytest.raises(MissingDataError, match="no job is called"):
        still.ask(after=[first.id])


# ------------------------------------------------------------------------- cancelled, killed, again


def test_a_cancelled_job_leaves_and_goes_on_where_it_was(jobs):
    id = jobs.ask(steps=30, pause=0.05).id
    begun(jobs, id, 3)
    assert jobs.cancel(id).state in ("running", "cancelled")
    (job,) = jobs.wait(id)
    assert (job.state, job.error) == ("cancelled", None)
    stopped = jobs.curve(id)[-1]["step"]
    assert 3 <= stopped < 30
    assert jobs.resume(id).state in ("queued", "running")
    (job,) = jobs.wait(id)
    assert (job.state, job.attempt, job.step) == ("done", 2, 30)
    steps = [event["step"] for event in jobs.curve(id)]
    assert steps == sorted(set(steps))
    with pytest.raises(UsageError, match="is done; duplicate it"):
        jobs.resume(id)
    with pytest.raises(UsageError, match="only what is at work"):
        jobs.cancel(id)


def test_a_queued_job_is_cancelled_at_once(still):
    id = still.ask().id
    assert still.cancel(id).state == "cancelled"
    assert still.resume(id).state == "queued"


def test_what_does_not_leave_is_killed(jobs):
    id = jobs.ask(steps=2000, pause=0.05, deaf=1).id
    begun(jobs, id)
    jobs.cancel(id)
    time.sleep(1.2)
    assert jobs.get(id).state == "running"
    with pytest.raises(UsageError, match="cancel it first"):
        jobs.delete(id)
    jobs.cancel(id, force=True)
    (job,) = jobs.wait(id)
    assert (job.state, job.error) == ("cancelled", None)
    jobs.delete(id)
    assert jobs.list() == []
    assert not job.folder.exists()


def test_a_killed_job_is_lost_at_once_and_resumes(jobs):
    id = jobs.ask(steps=30, pause=0.05).id
    begun(jobs, id, 3)
    os.kill(jobs.get(id).pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while jobs.get(id).state != "lost":  # a killed process takes a moment to go
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert "its process is gone" in jobs.get(id).error
    assert "resume it" in jobs.get(id).error
    jobs.wait(id, states=("lost",))
    until = time.monotonic() + 10
    while json.loads((jobs.root / id / "status.json").read_text())["state"] != "lost":
        assert time.monotonic() < until
        jobs.pump()
        time.sleep(0.05)
    jobs.resume(id)
    (job,) = jobs.wait(id)
    assert (job.state, job.error, job.attempt) == ("done", None, 2)


def test_retry_begins_anew_and_duplicate_makes_another(jobs):
    id = jobs.ask(steps=6, fails=3).id
    jobs.wait(id)
    (jobs.home / f"step-{id}").unlink()  # what the store's working state is to a real verb
    assert jobs.retry(id).step == 0
    (job,) = jobs.wait(id)
    assert job.attempt == 2
    assert job.state == "failed"
    other = jobs.duplicate(id, steps=2, fails=None, priority=3)
    assert other.arguments == ("--pause", "0.02", "--steps", "2")
    assert (other.priority, other.attempt) == (3, 0)
    assert jobs.wait(other.id)[0].state == "done"


def test_another_process_with_the_same_number_is_not_the_job(still):
    job = still.ask()
    with folder.changing(job.folder) as status:
        status |= {"state": "running", "claim": "c", "claimed": time.time(), "started": 1.0}
    who = {**processes.identity(), "claim": "c"}
    folder.replace_table(job.folder / "pid.json", who)
    assert still.get(job.id).state == "running"
    folder.replace_table(job.folder / "pid.json", {**who, "started": who["started"] - 1})
    assert still.get(job.id).state == "lost"
    folder.replace_table(job.folder / "pid.json", {**who, "boot": "another"})
    assert still.get(job.id).state == "lost"
    elsewhere = job.folder / "pid.json"
    folder.replace_table(elsewhere, {**who, "host": "another", "started": 1.0})
    assert still.get(job.id).state == "running"  # its heart beat just now
    os.utime(elsewhere, (time.time() - 300,) * 2)
    assert still.get(job.id).state == "lost"


def test_a_claim_whose_process_never_came_is_given_up(still):
    job = still.ask()
    with folder.changing(job.folder) as status:
        status |= {"state": "running", "claim": "c", "claimed": time.time() - 1e4, "started": 1.0}
    still.pump()
    assert still.get(job.id).state == "queued"


def test_only_one_process_does_a_job_and_only_with_its_claim(still, monkeypatch):
    job, ran = still.ask(), []
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest keeps its own
    with folder.changing(job.folder) as status:
        status |= {"state": "running", "claim": "mine", "claimed": time.time()}
    assert runner.run(still, job, "another", lambda: ran.append(1)) == runner.NOT_MINE

    def verb():
        ran.append(1)
        # its own lock: whoever else comes meanwhile goes away
        code = [sys.executable, str(light_jobs.SCRIPT), "run", str(still.home), job.id, "mine"]
        return {"other": subprocess.run(code, check=False).returncode}

    assert runner.run(still, job, "mine", verb) == runner.DONE
    assert still.answer(job.id) == {"other": runner.NOT_MINE}
    assert ran == [1]
    assert runner.run(still, job, "mine", verb) == runner.NOT_MINE


def test_a_cancel_that_an_import_swallows_is_heeded_at_the_next_step(still, monkeypatch):
    handlers = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    job, steps = still.ask(), []
    with folder.changing(job.folder) as status:
        status |= {"state": "running", "claim": "mine", "claimed": time.time()}

    def verb():
        with contextlib.suppress(KeyboardInterrupt):  # as ``import torch`` does within
            handlers[signal.SIGTERM](signal.SIGTERM, None)
        for step in range(3):
            steps.append(step)
            reporting.report("one", step, 3)
        return {}

    assert runner.run(still, job, "mine", verb) == runner.LEFT
    assert (still.get(job.id).state, steps) == ("cancelled", [0])


# ------------------------------------------------------------------------------ damaged and hostile


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("spec.json", b""),
        ("spec.json", b"[1, 2]"),
        ("spec.json", b"{" * 100_000),
        ("spec.json", b"[" * 100_000),
        ("spec.json", b"\xff\xfe\x00"),
        ("spec.json", b" " * (2**20 + 1)),
        ("spec.json", json.dumps({"format": "tauscope-job-1", "id": "../../etc"}).encode()),
        ("spec.json", None),
        ("status.json", None),
        ("status.json", b'{"state": "flying"}'),
        ("status.json", b'{"state": ["queued"]}'),
        ("status.json", b'{"state": "done", "loss": "low"}'),
        ("status.json", b'{"state": "done", "step": 1e999}'),
        ("status.json", b'{"state": "done", "step": null}'),
        ("status.json", b'{"state": "running", "claim": [1], "claimed": "x"}'),
        ("status.json", b'{"state": "done", "artifacts": [["checkpoint", "../x"]]}'),
    ],
)
def test_a_damaged_folder_is_one_sentence_and_hides_no_other(still, name, content):
    good, bad = still.ask(), still.ask()
    path = bad.folder / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert [job.id for job in still.list()] == [good.id]
    ((folder_named, sentence),) = still.damaged()
    assert folder_named == bad.folder
    assert f"delete it with: python -m engine jobs delete {bad.id}" in sentence
    assert "\n" not in sentence
    assert len(sentence) < 400
    still.pump()
    with pytest.raises(EngineError):
        still.get(bad.id)
    still.delete(bad.id)
    assert still.damaged() == []


def test_a_destroyed_status_is_a_lost_job_that_resumes(still, jobs, monkeypatch):
    job = jobs.ask()
    (job.folder / "status.json").write_bytes(b'{"state": "run')
    assert jobs.get(job.id).state == "lost"
    assert "its status is damaged" in jobs.get(job.id).error
    jobs.pump()
    monkeypatch.setattr(LightJobs, "_start_supervisor", start_supervisor)
    jobs.resume(job.id)
    assert jobs.wait(job.id)[0].state == "done"


def test_foreign_things_among_the_jobs_are_passed_over(still, tmp_path):
    job = still.ask()
    (still.root / "20260101-000000-abcdef").write_text("a file")
    (still.root / "20260101-000000-abcde0").symlink_to(tmp_path)
    (still.root / ".new-20260101-000000-abcde1").mkdir()
    (still.root / "notes").mkdir()
    (job.folder / "pid.json").write_bytes(b'{"pid": "all"}')
    (job.folder / "events.jsonl").write_bytes(b'{"kind": "log", "step": 1}\n{"torn": \n\xff\n[]\n')
    assert [found.id for found in still.list()] == [job.id]
    assert still.damaged() == []
    assert still.events(job.id) == [{"kind": "log", "step": 1, "n": 1}]
    for name in ("../..", "20260101-000000-abcde0", "", "x" * 500, "2026/../.."):
        with pytest.raises(MissingDataError):
            still.get(name)


def test_a_torn_last_event_spoils_no_later_one(still):
    job = still.ask()
    with (job.folder / "events.jsonl").open("ab") as file:
        file.write(b'{"kind": "log", "st')
    folder.append_event(job.folder, {"kind": "log", "step": 7})
    assert [event["step"] for event in still.events(job.id)] == [7]


def test_steps_run_again_stand_in_the_curve_once(still):
    job = still.ask()
    for step, loss in ((1, 1.0), (2, 0.9), (3, 0.8), (2, 0.7), (4, 0.6)):
        folder.append_event(job.folder, {"kind": "log", "step": step, "loss": loss})
    assert [(e["step"], e["loss"]) for e in still.curve(job.id)] == [(1, 1.0), (2, 0.7), (4, 0.6)]


# ------------------------------------------------------------------------------------- a full disk


def test_the_last_word_is_written_on_a_full_disk(still, monkeypatch):
    job = still.ask()
    monkeypatch.setattr(folder.Path, "open", _full(folder.Path.open))
    with pytest.raises(OSError, match="No space left"), folder.changing(job.folder) as status:
        status["step"] = 1
    with folder.changing(job.folder, at_any_cost=True) as status:
        status |= {"state": "failed", "error": "the disk is full"}
    monkeypatch.undo()
    assert (still.get(job.id).state, still.get(job.id).error) == ("failed", "the disk is full")
    assert not (job.folder / folder.RESERVE).exists()


def _full(open_):
    """New files fail as on a full disk; what is there can be overwritten."""

    def opened(self, mode="r", *rest, **named):
        if "x" in mode:
            raise OSError(errno.ENOSPC, "No space left on device")
        return open_(self, mode, *rest, **named)

    return opened


def test_submitting_on_a_full_disk_leaves_no_half_job(still, monkeypatch):
    monkeypatch.setattr(folder.Path, "open", _full(folder.Path.open))
    with pytest.raises(EngineError, match="No space left on device; free some space"):
        still.ask()
    monkeypatch.undo()
    assert still.list() == []
    assert still.damaged() == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (MemoryError(), "out of memory; duplicate it with a smaller batch"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "--accumulate 2, 4"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory"),
        (OSError(errno.ENOSPC, "No space", "/x/y"), "the disk is full at /x/y; free some space"),
        (PermissionError(errno.EACCES, "denied", "/x/y"), "cannot read or write /x/y: denied"),
        (UsageError("say which"), "say which"),
        (KeyError("theta"), "a bug: KeyError: 'theta'; the log says where"),
        (SystemExit(2), "its words cannot be read"),
    ],
)
def test_a_failure_is_one_sentence_with_the_next_action(error, sentence):
    said = mishaps.sentence(error)
    assert sentence in said
    assert "\n" not in said


# ------------------------------------------------------------------------------- words and settings


def test_words_are_changed_option_by_option():
    line = ["--tasks", "a", "b", "--seed=3", "--alphas", "x=-1", "-0.5", "--half"]
    assert words.values_of(line, "tasks") == ["a", "b"]
    assert words.value_of(line, "--seed") == "3"
    assert words.value_of(line, "half") == ""
    assert words.value_of(line, "mode") is None
    assert words.changed(line, {"tasks": ["c"], "seed": None, "half": False, "force": True}) == [
        "--alphas", "x=-1", "-0.5", "--tasks", "c", "--force",
    ]  # fmt: skip
    line = [
        "--background",
        "--seed",
        "1",
        "--on",
        "local",
        "--json",
        "--priority=4",
        "--cache",
        "x",
    ]
    assert words.without(line, words.STARTING) == ["--seed", "1"]


def test_a_suite_is_a_job_a_task_mode_and_seed(still):
    suite = Suite("miniature", ("signs", "digits"), ("linear",), (0, 1), ("--half",))
    jobs = still.submit_suite(suite, priority=2)
    assert [job.title for job in jobs] == [
        f"finetune {task} linear miniature seed {seed}"
        for seed in (0, 1)
        for task in ("signs", "digits")
    ]
    assert len({job.suite for job in jobs}) == 1
    assert jobs[0].arguments[-1] == "--half"
    assert {job.option("--tasks") for job in still.list()} == {"signs", "digits"}
    with pytest.raises(UsageError, match="at least one task"):
        still.submit_suite(Suite("miniature", (), ("linear",), (0,)))


@pytest.mark.parametrize(
    ("line", "own", "sentence"),
    [
        ([], {}, "is no verb"),
        (["rm -rf"], {}, "is no verb"),
        (["jobs", "list"], {}, "none itself"),
        (["finetune"], {"on": "cloud"}, "no back end 'cloud'"),
        (["finetune"], {"device": "tpu"}, "no device 'tpu'"),
        (["finetune"], {"gpus": 0}, "gpus is 0"),
        (["finetune", "\0"], {}, "zero byte"),
        (["finetune", "x" * 70_000], {}, "too long"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(still, line, own, sentence):
    with pytest.raises(UsageError, match=sentence):
        still.submit(line, **own)
    assert still.list() == []


def test_settings_come_from_the_environment_then_the_file_then_the_machine(tmp_path, monkeypatch):
    for name in ("TAUSCOPE_GPUS", "TAUSCOPE_CPU_SLOTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-x")
    assert slots.settings(tmp_path) == slots.Settings(gpus=("3", "GPU-x"))
    told = {"gpus": ["0"], "cpu_slots": 4, "threads": 2, "nice": 0, "slurm": {"partition": "a"}}
    (tmp_path / "settings.json").write_text(json.dumps(told))
    assert slots.settings(tmp_path) == slots.Settings(("0",), 4, 2, 0, {"partition": "a"})
    monkeypatch.setenv("TAUSCOPE_CPU_SLOTS", "1")
    assert slots.settings(tmp_path).cpu_slots == 1
    for wrong in ('{"gpus": 3}', '{"gpus": ["a b"]}', '{"cpu_slots": 1.5}', "[", '{"slurm": 1}'):
        (tmp_path / "settings.json").write_text(wrong)
        if "cpu" in wrong:
            monkeypatch.delenv("TAUSCOPE_CPU_SLOTS")
        with pytest.raises(UsageError, match=r"settings\.json"):
            slots.settings(tmp_path)


def test_the_gpus_of_the_machine_are_found(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = tmp_path / "nvidia-smi"
    said.write_text(
        "#!/bin/sh\ncat <<E\nGPU 0: NVIDIA H200 (UUID: GPU-11-a)\n"
        "GPU 1: NVIDIA H200 (UUID: GPU-22)\nE\n"
    )
    said.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert slots.found_gpus() == ["GPU-11-a", "GPU-22"]
    said.write_text(
        "#!/bin/sh\ncat <<E\nGPU 0: NVIDIA H200 (UUID: GPU-11)\n"
        "  MIG 1g.18gb     Device  0: (UUID: MIG-33-4)\nE\n"
    )
    assert slots.found_gpus() == ["MIG-33-4"]


def test_a_list_of_jobs_brings_no_torch():
    code = "import sys, engine.jobs, engine.jobs.supervisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=local.ROOT).returncode == 0


def test_the_verb_of_these_tests_is_told_by_the_folder(still):
    assert callable(count(still, still.ask()))
