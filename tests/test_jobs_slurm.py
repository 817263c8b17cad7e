import json
import os
import re
import signal
import stat
import subprocess
import sys
import time

import pytest
from light_jobs import LightJobs

from engine.errors import EngineError, UsageError
from engine.jobs import Suite, folder, processes, slurm, slurm_task
from engine.jobs.slurm_options import SlurmOptions, slurm_options, with_options
from engine.jobs.supervisor import _look_after

# the commands of a Slurm whose queue is a file; what a real one does, tests/slurm/run.sh shows
COMMANDS = {
    "srun": "exit 1",
    "sbatch": 'cp "$1" "$SLURM_HERE/batch-$(ls "$SLURM_HERE" | grep -c batch-)"\n'
    '[ -e "$SLURM_HERE/full" ] && { echo "sbatch: error: QOSMaxSubmitJobLimit" >&2; exit 1; }\n'
    'echo "Submitted batch job 41"',
    "squeue": '[ -e "$SLURM_HERE/down" ] && exit 1\n'
    'echo x >> "$SLURM_HERE/asked"; cat "$SLURM_HERE/queue"',
    "scancel": 'echo scancel "$@" >> "$SLURM_HERE/calls"',
    "scontrol": 'echo scontrol "$@" >> "$SLURM_HERE/calls"',
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder of a Slurm made of shell scripts."""
    place = tmp_path / "slurm"
    place.mkdir()
    (place / "queue").touch()
    for name, body in COMMANDS.items():
        path = place / name
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(path.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_HERE", str(place))
    monkeypatch.setattr(slurm, "_queues", {})
    return place


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Jobs that nobody starts but the test."""
    monkeypatch.setattr(LightJobs, "_start_supervisor", lambda self: None)
    return LightJobs(tmp_path / "home")


def ask(jobs, *words, **options):
    return jobs.submit(["count", *words], on="slurm", device="cpu", **options)


def status_of(job):
    return folder.read_table(job.folder / "status.json")


def calls(here):
    path = here / "calls"
    return path.read_text().splitlines() if path.exists() else []


def batch_file(here, n=0):
    text = (here / f"batch-{n}").read_text()
    return text, dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.MULTILINE))


def forget_queue():
    slurm._queues.clear()


# ------------------------------------------------------------------------------------- submitting


def test_a_job_goes_to_the_queue_with_what_it_asks_for(jobs, here):
    (jobs.root).mkdir(parents=True)
    common = {"partition": "gpu", "minutes": 90, "memory-gb": 8, "account": "lab"}
    folder.replace_table(jobs.root / "settings.json", {"slurm": common})
    job = ask(jobs, "--slurm", "minutes=20", "constraint=a100", "notice=60")
    _look_after(jobs)
    text, asked = batch_file(here)
    claim = status_of(job)["claim"]
    assert asked["partition"] == "gpu"
    assert asked["time"] == "20"  # the job's own words come first
    assert (asked["mem"], asked["account"], asked["constraint"]) == ("8GB", "lab", "a100")
    assert asked["signal"] == "B:USR1@60"
    assert "requeue" in asked
    assert not {"gpus-per-node", "array"} & asked.keys()
    command = text.strip().splitlines()[-1]
    assert command == (
        f"exec {sys.executable} -m engine.jobs.slurm_task {jobs.home} 3 {job.id}:{claim}"
    )
    told = status_of(job)
    assert (told["state"], told["backend"]["job"]) == ("queued", "41")
    (here / "queue").write_text("41 PENDING\n")
    forget_queue()
    assert jobs.get(job.id).waiting == "it waits in Slurm's queue as job 41"
    assert not list(jobs.root.glob(".slurm/*.pkl"))


def test_a_suite_is_one_array_and_others_are_not_in_it(jobs, here):
    other = ask(jobs)
    suite = Suite("miniature", ("a", "b", "c"), ("linear",), (0,), verb="count")
    found = jobs.submit_suite(suite, on="slurm", device="cuda", gpus=2)
    _look_after(jobs)
    text, asked = batch_file(here, 1)
    assert asked["array"] == "0-2%3"
    assert asked["gpus-per-node"] == "2"
    tasks = re.findall(r"(\d{8}-\d{6}-\w{6}):(\w{16})", text)
    wanted = {(job.id, status_of(job)["claim"]) for job in found}
    assert set(tasks) == wanted
    order = dict.fromkeys(id for id, _ in tasks)
    for place, id in enumerate(order):
        assert status_of(jobs.get(id))["backend"]["job"] == f"41_{place}"
    assert "array" not in batch_file(here, 0)[1]
    assert status_of(other)["backend"]["job"] == "41"
    assert not (here / "batch-2").exists()
    assert [status_of(job)["attempt"] for job in found] == [1, 1, 1]


def test_an_array_is_no_larger_than_the_cluster_takes(jobs, here):
    suite = Suite("miniature", tuple("abcde"), ("linear",), (0,), ("--slurm", "array_size=2"))
    jobs.submit_suite(suite, on="slurm", device="cpu")
    _look_after(jobs)
    assert [batch_file(here, n)[1].get("array") for n in range(3)] == ["0-1%2", "0-1%2", None]


def test_what_slurm_refuses_fails_with_its_words_and_can_be_resumed(jobs, here):
    (here / "full").touch()
    suite = Suite("miniature", ("a", "b"), ("linear",), (0,), verb="count")
    found = jobs.submit_suite(suite, on="slurm", device="cpu")
    _look_after(jobs)
    for job in found:
        assert jobs.get(job.id).state == "failed"
        assert "QOSMaxSubmitJobLimit" in jobs.get(job.id).error
    (here / "full").unlink()
    (here / "queue").write_text("41 PENDING\n")
    assert jobs.resume(found[0].id).state == "queued"
    _look_after(jobs)
    assert jobs.get(found[0].id).state == "queued"
    assert status_of(found[0])["backend"]["job"] == "41"


def test_without_slurm_here_it_is_said_so(jobs, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    job = ask(jobs)
    _look_after(jobs)
    assert jobs.get(job.id).state == "failed"
    assert "Slurm's commands are not on this machine" in jobs.get(job.id).error


# ---------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"minutes": "soon"}, "minutes of here is 'soon'; make it a whole number from 1"),
        ({"gpus": -1}, "gpus of here is '-1'"),
        ({"partition": "a b"}, "partition=a b of here cannot be used; take partition, minutes"),
        ({"array_size": 0}, "array_size of here is '0'"),
        ({"output": "/etc/passwd"}, "output=/etc/passwd of here cannot be used"),
        ({"comment": "one\n#SBATCH --uid=0"}, "make it one line of text"),
        ({"a b": "1"}, "a b=1 of here cannot be used"),
    ],
)
def test_options_that_cannot_be_used_are_named(change, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        with_options(SlurmOptions(), change, "here")


def test_words_that_are_no_pairs_are_named(jobs):
    job = ask(jobs, "--slurm", "gpu")
    with pytest.raises(UsageError, match="'gpu' is not name=value"):
        slurm_options(jobs.root, job)
    assert with_options(SlurmOptions(), {"cpus": 8, "nice": 5}, "here").further == {"nice": "5"}


# ----------------------------------------------------------------------------- what is still there


def submitted(jobs, here, queue):
    job = ask(jobs)
    _look_after(jobs)
    (here / "queue").write_text(queue)
    forget_queue()
    return job


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"])
def test_a_job_in_the_queue_is_there(jobs, here, state):
    assert jobs.get(submitted(jobs, here, f"40 FAILED\n41 {state}\n").id).state == "queued"


@pytest.mark.parametrize("queue", ["", "40 RUNNING\n", "41 CANCELLED\n", "41 NODE_FAIL\n"])
def test_a_job_that_died_in_the_queue_is_lost_and_can_be_resumed(jobs, here, queue):
    job = submitted(jobs, here, queue)
    found = jobs.get(job.id)
    assert (found.state, found.error) == (
        "lost",
        "its process is gone; resume it to go on from its last working state",
    )
    jobs.pump()
    assert status_of(job)["state"] == "lost"
    assert jobs.resume(job.id).state == "queued"


def test_while_slurm_does_not_answer_nothing_is_lost(jobs, here):
    job = submitted(jobs, here, "")
    (here / "down").touch()
    assert jobs.get(job.id).state == "queued"


def test_an_answer_older_than_the_submission_does_not_count(jobs, here):
    slurm._queue(time.time())  # it knows of no job
    job = ask(jobs)
    (here / "queue").write_text("41 PENDING\n")
    _look_after(jobs)
    assert jobs.get(job.id).state == "queued"


def test_the_queue_is_not_asked_at_every_look(jobs, here):
    job = submitted(jobs, here, "41 PENDING\n")
    before = len((here / "asked").read_text().split())
    for _ in range(50):
        jobs.get(job.id)
    assert len((here / "asked").read_text().split()) - before == 1


def test_a_process_at_work_is_there_whatever_the_queue_says(jobs, here):
    job = submitted(jobs, here, "")
    with folder.changing(job.folder) as status:
        status["state"] = "running"
        claim = status["claim"]
    who = {**processes.identity(), "claim": claim}
    folder.replace_table(job.folder / "pid.json", who)
    assert jobs.get(job.id).state == "running"
    folder.replace_table(job.folder / "pid.json", {**who, "host": "another"})
    assert jobs.get(job.id).state == "running"  # its heartbeat is fresh
    old = time.time() - 1000
    os.utime(job.folder / "pid.json", (old, old))
    assert jobs.get(job.id).state == "lost"


def test_cancelling_takes_it_out_of_the_queue(jobs, here):
    job = submitted(jobs, here, "41 PENDING\n")
    assert jobs.cancel(job.id).state == "cancelled"
    assert calls(here) == ["scancel 41"]


def test_one_at_work_is_left_to_save_its_state_unless_forced(jobs, here):
    job = submitted(jobs, here, "41 RUNNING\n")
    with folder.changing(job.folder) as status:
        status["state"] = "running"
    jobs.cancel(job.id)
    assert calls(here) == []
    assert status_of(job)["wanted"] == "cancel"
    jobs.cancel(job.id, force=True)
    assert calls(here) == ["scancel --full --signal=KILL 41", "scancel 41"]


# ---------------------------------------------------------------------- what Slurm starts on a node


def run_task(jobs, job, starts_before=0):
    """Start what the batch file starts, around the light verb."""
    code = (
        "import sys, light_jobs; from pathlib import Path; from engine.jobs import slurm_task;"
        "slurm_task.Jobs = light_jobs.LightJobs;"
        "sys.exit(slurm_task.main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))"
    )
    task = f"{job.id}:{status_of(job)['claim']}"
    root = str(slurm_task.local.ROOT)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(jobs.home), "1", task],
        env={
            **os.environ,
            "SLURM_JOB_ID": "41",
            "SLURM_RESTART_COUNT": str(starts_before),
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": f"{root}{os.pathsep}{root}/tests",
        },
    )


def at_step(jobs, job, step):
    until = time.monotonic() + 60
    while True:
        found = jobs.get(job.id)
        if found.state == "running" and found.step >= step and found.pid:
            return found
        assert time.monotonic() < until, found
        time.sleep(0.05)


def test_a_task_runs_its_job_to_the_end(jobs, here):
    job = ask(jobs, "--steps", "3", "--pause", "0.01")
    _look_after(jobs)
    assert run_task(jobs, job).wait(60) == 0
    assert jobs.get(job.id).state == "done"
    assert jobs.answer(job.id) == {"counted": 3}
    assert calls(here) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_notice_saves_the_state_and_queues_again(jobs, here, number):
    job = ask(jobs, "--steps", "400", "--pause", "0.05")
    _look_after(jobs)
    (here / "queue").write_text("41 RUNNING\n")
    with run_task(jobs, job) as task:
        at_step(jobs, job, 3)
        if number == signal.SIGTERM:  # pre-empted: the queue says so, and starts it again itself
            (here / "queue").write_text("COMPLETING\n")
        task.send_signal(number)
        assert task.wait(60) == 0
    assert calls(here) == (["scontrol requeue 41"] if number == signal.SIGUSR1 else [])
    (here / "queue").write_text("41 PENDING\n")
    forget_queue()
    found = jobs.get(job.id)
    assert (found.state, found.attempt) == ("queued", 1)
    assert found.waiting == "it waits to be started again by Slurm"


def test_a_killed_process_is_started_again_but_not_for_ever(jobs, here):
    job = ask(jobs, "--steps", "400", "--pause", "0.05")
    _look_after(jobs)
    (here / "queue").write_text("RUNNING\n")
    for turn in (1, 2):
        with run_task(jobs, job, turn - 1) as task:
            os.kill(at_step(jobs, job, 2).pid, signal.SIGKILL)
            code = task.wait(60)
        assert len(calls(here)) == 1
        assert code == (0 if turn == 1 else 128 + 9)
    (here / "queue").write_text("")
    forget_queue()
    found = jobs.get(job.id)
    assert (found.state, found.attempt) == ("lost", 2)
    said = [event for event in jobs.events(job.id) if event.get("reason")]
    assert [event["reason"] for event in said] == ["killed by signal 9"]


def test_cancelled_at_work_it_is_not_queued_again(jobs, here):
    job = ask(jobs, "--steps", "400", "--pause", "0.05")
    _look_after(jobs)
    (here / "queue").write_text("41 RUNNING\n")
    with run_task(jobs, job) as task:
        at_step(jobs, job, 2)
        jobs.cancel(job.id)
        assert task.wait(60) == 130
    assert jobs.get(job.id).state == "cancelled"
    assert calls(here) == []


def test_a_task_whose_claim_is_gone_does_nothing(jobs, here):
    job = ask(jobs, "--steps", "3")
    _look_after(jobs)
    with folder.changing(job.folder) as status:
        old, status["claim"] = status["claim"], "another"
    assert slurm_task.main(jobs.home, 3, [f"{job.id}:{old}"]) != 0
    assert (status_of(job)["state"], status_of(job)["attempt"]) == ("queued", 1)
    assert calls(here) == []


def test_requeueing_fails_in_one_sentence(here):
    (here / "down").touch()
    with pytest.raises(EngineError, match=r"squeue does not answer .*; see whether Slurm runs"):
        slurm.requeue("41", noticed=False)


def test_settings_file_is_plain_json(jobs):
    jobs.root.mkdir(parents=True)
    (jobs.root / "settings.json").write_text(json.dumps({"slurm": ["gpu"]}))
    with pytest.raises(UsageError, match="make it a table"):
        slurm_options(jobs.root, ask(jobs))
