"""Real fine-tunes as jobs, killed, starved of disk, cancelled: equal to the bit in the end."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tiny_world import make_encoder

from engine.__main__ import main
from engine.commands import jobs as verb
from engine.jobs import Jobs, local, supervisor
from engine.store import Store, digest_tensors
from engine.tasks import miniature

EVERY = 2  # steps between working states
STEPS = 80  # of a run that is killed again and again
WORDS = ["finetune", "--tasks", "signs", "--batch", "16", "--threads", "1", "--device", "cpu"]
WORDS += ["--checkpoint-every", str(EVERY), "--rate", "0.001"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def world():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(miniature.SIZES, "train", 300)
        patch.setitem(miniature.SIZES, "test", 80)
        patch.setenv("TAUSCOPE_JOB_NICE", "0")
        yield


class Forked(Jobs):
    """Jobs whose process is forked from this one, which has torch already."""

    def _start_supervisor(self):
        return None

    def begin(self, id, before=lambda: None):
        self.before = before
        place = {"device": "cpu", "visible": "", "threads": None, "nice": 0}
        supervisor._start(self, self.get(id), place, "cpu")
        return self.child

    def launch(self, jobs, job, claim, place):
        self.claim = claim
        self.child = pid = os.fork()
        if pid == 0:
            code = 99
            with contextlib.suppress(BaseException):
                log = os.open(job.folder / "log.txt", os.O_WRONLY | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                sys.stdout = sys.stderr = os.fdopen(2, "w", buffering=1)
                os.setsid()
                self.before()
                code = verb._run(self, self.get(job.id), claim)
            os._exit(code)
        return {"place": place}

    def end(self, id):
        """Begin it and let it end by itself; return the job."""
        os.waitpid(self.begin(id), 0)
        return self.get(id)


@pytest.fixture
def forked(tmp_path, monkeypatch):
    jobs = Forked(tmp_path / "cache")
    make_encoder(jobs.home)
    monkeypatch.setattr(local, "launch", jobs.launch)
    return jobs


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """``uninterrupted(steps, mode, seed) -> digest`` of the task vector of a plain run."""
    known = {}

    def digest(steps, mode, seed=0):
        if (steps, mode, seed) not in known:
            home = tmp_path_factory.mktemp("plain")
            make_encoder(home)
            assert main([*words(steps, mode, seed), "--cache", str(home)]) == 0
            known[steps, mode, seed] = tau_digest(home)
        return known[steps, mode, seed]

    return digest


def words(steps, mode, seed=0):
    return [*WORDS, "--steps", str(steps), "--mode", mode, "--seed", str(seed)]


def tau_digest(home, **meta):
    store = Store(home)
    (entry,) = store.find("checkpoint", **meta)
    return digest_tensors(store.get(entry))


def check_consistent(jobs, id):
    """What a reader meets after any death: whole files, and at most a few steps lost."""
    store = Store(jobs.home)
    assert store.damaged() == []
    for kind in ("encoder", "checkpoint", "split", "responses", "result"):
        for entry in store.find(kind):
            store.get(entry)
    assert jobs.damaged() == []
    told = [event["part_step"] for event in jobs.curve(id)]
    status = json.loads((jobs.root / id / "status.json").read_text())
    saved = 0
    for path in (jobs.home / "state").glob("[!.]*.safetensors"):
        found = store.load_state(path.stem)
        assert found is not None
        saved = max(saved, found[1]["step"])
    if told and status["state"] == "lost":
        assert saved >= EVERY * ((told[-1] - 1) // EVERY)
    return saved


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(forked, uninterrupted, mode):
    source, kills, saved, seed = random.Random(mode), 0, [], 0
    while kills < 10:  # in each of two modes
        id = forked.submit(words(STEPS, mode, seed)).id
        while forked.get(id).state == "queued":
            pid = forked.begin(id)
            status = None if kills < 10 else os.waitpid(pid, 0)[1]
            if status is None:
                if source.random() < 0.7:  # most die at their steps, some before the first
                    status = steps_taken(forked, id, pid, source.randrange(1, 8))
                time.sleep(source.uniform(0.0, 0.2))
            if status is None:
                os.kill(pid, signal.SIGKILL)
                _, status = os.waitpid(pid, 0)
            kills += os.WIFSIGNALED(status)
            local._ended[forked.claim] = os.waitstatus_to_exitcode(status)  # as a parent knows
            saved.append(check_consistent(forked, id))
            forked.pump()
            if forked.get(id).state == "lost":
                forked.resume(id)
        assert forked.get(id).state == "done"
        assert tau_digest(forked.home, seed=seed) == uninterrupted(STEPS, mode, seed)
        assert list((forked.home / "state").glob("[!.]*")) == []
        seed += 1
    assert max(saved) > 2 * EVERY  # some died late enough to have something to lose


def steps_taken(jobs, id, pid, entries):
    """Wait until its log has so many entries more; its end, if that comes first."""
    until, before = time.monotonic() + 100, len(jobs.events(id))
    while time.monotonic() < until:
        if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return os.waitpid(pid, 0)[1]
        if len(jobs.events(id)) > before + entries:
            return None
        time.sleep(0.005)
    pytest.fail(f"no step was taken: {jobs.log_tail(id)}")


class Half:
    """A file whose writer dies half way."""

    def __init__(self, file):
        self.file = file

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("moment", ["half way", "before the rename", "after the rename"])
def test_a_run_killed_while_it_writes_leaves_no_half_file(forked, uninterrupted, moment):
    id = forked.submit(words(20, "nonlinear")).id
    for call in (1, 2, 5):

        def deadly(call=call):
            """Die within the n-th writing of a tensor file."""
            replace, open_, seen = Path.replace, Path.open, [0]

            def die(target):
                seen[0] += str(target).endswith("safetensors")
                if seen[0] == call and str(target).endswith("safetensors"):
                    os.kill(os.getpid(), signal.SIGKILL)

            def dying_replace(self, target):
                if moment == "before the rename":
                    die(target)
                replace(self, target)
                if moment == "after the rename":
                    die(target)

            def dying_open(self, mode="r", *rest, **named):
                file = open_(self, mode, *rest, **named)
                if moment == "half way" and ".safetensors" in self.name and mode in ("xb", "wb"):
                    seen[0] += 1
                    return Half(file) if seen[0] == call else file
                return file

            Path.replace, Path.open = dying_replace, dying_open

        _, status = os.waitpid(forked.begin(id, deadly), 0)
        assert os.WIFSIGNALED(status)
        check_consistent(forked, id)
        forked.pump()
        assert forked.get(id).state == "lost"
        forked.resume(id)
    assert forked.end(id).state == "done"
    assert tau_digest(forked.home) == uninterrupted(20, "nonlinear")


def test_a_run_told_to_leave_saves_its_last_step(forked, uninterrupted):
    id = forked.submit(words(100, "linear")).id
    pid = forked.begin(id)
    until = time.monotonic() + 60
    while not forked.curve(id):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    job = forked.get(id)
    assert (job.state, job.error) == ("cancelled", None)
    assert check_consistent(forked, id) >= forked.curve(id)[-1]["part_step"]
    forked.resume(id)
    assert forked.end(id).state == "done"
    assert tau_digest(forked.home) == uninterrupted(100, "linear")


def test_a_full_disk_is_a_clear_failure_and_hurts_nothing(forked, uninterrupted, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in forked.home.rglob("*.*")) + 2**20
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size + 2**20}", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small disk can be mounted here")
    try:
        _fill_and_free(forked, disk, uninterrupted)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill_and_free(forked, disk, uninterrupted):
    shutil.copytree(forked.home, disk / "cache")
    forked.home, forked.root = disk / "cache", disk / "cache" / "jobs"
    id = forked.submit(words(60, "nonlinear")).id
    pid = forked.begin(id)
    until = time.monotonic() + 60
    while not list((forked.home / "state").glob("*")):  # it is at work
        assert time.monotonic() < until
        time.sleep(0.005)
    with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(512))
    os.waitpid(pid, 0)
    job = forked.get(id)
    assert job.state == "failed", forked.log_tail(id)
    assert "free some space" in job.error
    assert "\n" not in job.error
    assert Store(forked.home).damaged() == []
    assert [path for path in forked.home.rglob(".*.tmp") if path.parent.name != "jobs"] == []
    (disk / "ballast").unlink()
    check_consistent(forked, id)
    forked.resume(id)
    assert forked.end(id).state == "done"
    assert tau_digest(forked.home) == uninterrupted(60, "nonlinear")


def test_the_command_line_launches_cancels_resumes_and_deletes(tmp_path, capsys, monkeypatch):
    """With real processes throughout; two homes, one of them never disturbed."""
    make_encoder(tmp_path)
    monkeypatch.setenv("TAUSCOPE_GPUS", "")

    def ask(*line):
        capsys.readouterr()
        assert main([*line, "--cache", str(tmp_path), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    line = [*words(160, "linear"), "--limit", "200"]
    id = ask(*line, "--background")["job"]
    reading = "evaluate --tasks signs --control none --limit 20 --alpha 1 --mode linear".split()
    after = ask(*reading, "--background", "--after", id)["job"]
    _until(lambda: ask("jobs", "show", id)["step"] > 20)
    shown = ask("jobs", "show", id)
    assert shown["state"] == "running"
    assert {"step", "steps", "loss", "rate", "seconds_left"} <= shown.keys()
    assert ask("jobs", "cancel", id)["jobs"][0]["state"] in ("running", "cancelled")
    _until(lambda: ask("jobs", "show", id)["state"] == "cancelled")
    assert id in ask("jobs", "show", after)["waiting"]
    ask("jobs", "resume", id)
    _until(lambda: ask("jobs", "show", after)["state"] == "done")
    job = ask("jobs", "show", id)
    assert (job["state"], job["attempt"], job["step"]) == ("done", 2, 160)
    (entry,) = Store(tmp_path).find("checkpoint")
    assert job["artifacts"] == [entry.digest]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(miniature.SIZES, "train", 5000)  # as the processes have it
        patch.setitem(miniature.SIZES, "test", 1000)
        home = tmp_path / "plain"
        make_encoder(home)
        threads = torch.get_num_threads()
        assert main([*line, "--cache", str(home)]) == 0
        torch.set_num_threads(threads)
    assert tau_digest(home) == digest_tensors(Store(tmp_path).get(entry))
    assert any("attempt 2" in said for said in ask("jobs", "logs", id)["lines"])
    assert ask("jobs", "delete", id, "--artifacts", "--yes")["artifacts"] == [entry.digest]
    assert Store(tmp_path).find("checkpoint") == []
    assert [found["id"] for found in ask("jobs", "list")["jobs"]] == [after]


def _until(holds, seconds=300):
    until = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.2)
