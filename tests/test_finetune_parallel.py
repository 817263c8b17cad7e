"""One fine-tune over several processes: the result of one, and what happens when one ends."""

import contextlib
import itertools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from engine.__main__ import main
from engine.commands import finetuning
from engine.errors import EngineError, LostProcessError, UsageError
from engine.finetune import Recipe, finetune
from engine.finetune.parallel import ALONE, Processes, check_gpus, check_share, joined
from engine.store import Store
from tests.fake_encoder import FakeTask, fake_encoder, fake_split
from tests.tiny_clip import CONFIG, tiny_weights

ROOT = Path(__file__).parents[1]
# 15 images a step in 4 pieces: no two processes have equal shares
SHORT = ("--tasks", "signs", "--steps", "8", "--batch", "15", "--rate", "0.003", "--limit", "60")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
# trains on without end until it is told otherwise
LONG = ("--tasks", "signs", "--steps", "100000", "--batch", "4", "--checkpoint-every", "5")


def words(home, *more):
    return ["finetune", *more, "--accumulate", "4", "--device", "cpu", "--cache", str(home)]


def run(*command, **options):
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        **options,
    )


def start(*command):
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def together(count, function, *arguments):
    """Run a function in processes that find what torchrun tells its own; return their exit codes.

    They are forked from one that imported torch and did nothing else.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.commands.finetuning", __name__])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    meeting["TORCHELASTIC_RUN_ID"] = "test"
    running = []
    for rank in map(str, range(count)):
        told = meeting | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(count)}
        running.append(context.Process(target=as_rank, args=(told, function, arguments)))
    with pytest.MonkeyPatch.context() as patch:
        # they would import it once more: whatever pytest, or a page under test, has put there
        patch.setitem(sys.modules, "__main__", ModuleType("__main__"))
        for process in running:
            process.start()
    for process in running:
        process.join(timeout=120)
        process.kill()  # one that hangs ends as killed, and no others
        process.join()
    return [process.exitcode for process in running]


def as_rank(told, function, arguments):
    os.environ.update(ENVIRONMENT | told)
    torch.set_num_threads(1)
    function(*arguments)


def new_store(home):
    store = Store(home)
    store.put("encoder", tiny_weights(), {"name": "miniature", "config": CONFIG})
    return store


def the_checkpoint(store):
    (entry,) = store.find("checkpoint")
    return store.get(entry), entry.meta


def assert_same_up_to_rounding(one, other):
    (tau, meta), (wanted, expected) = one, other
    # Adam divides by the root of tiny squares, which amplifies the rounding of a sum
    torch.testing.assert_close(without_keys(tau), without_keys(wanted), rtol=1e-3, atol=1e-5)
    for entry, known in zip(meta["log"], expected["log"], strict=True):
        assert entry["step"] == known["step"]
        assert entry["loss"] == pytest.approx(known["loss"], rel=1e-5)
        assert entry["grad_norm"] == pytest.approx(known["grad_norm"], rel=1e-4)
        assert entry.get("validation") == pytest.approx(known.get("validation"), abs=0.005)


def without_keys(tau):
    """A shift of all keys leaves a softmax as it is: their biases' gradient is rounding alone."""
    return {
        name: torch.cat([value[:16], value[32:]]) if name.endswith("in_proj_bias") else value
        for name, value in tau.items()
    }


def state_of(home):
    """The one working state, as a path; waits for it."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        found = [path for path in home.glob("state/*.safetensors") if path.name[0] != "."]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no working state was written")


def children_of(pid):
    found = run_ps(["ps", "-o", "pid=", "--ppid", str(pid)])
    return [int(text) for text in found.split()]


def run_ps(command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def gone(pid):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if run_ps(["ps", "-o", "stat=", "-p", str(pid)]).strip()[:1] in ("", "Z"):
            return True
        time.sleep(0.05)
    return False


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The checkpoint that one process makes; both modes run together in double precision below."""
    store = new_store(tmp_path_factory.mktemp("alone"))
    assert main(words(store.home, *SHORT)) == 0
    return the_checkpoint(store)


# ------------------------------------------------------------------------------------ same result


@pytest.mark.slow
def test_several_processes_equal_one_up_to_rounding(alone, tmp_path):
    store = new_store(tmp_path)
    done = run("engine", *words(tmp_path, *SHORT, "--processes", "3", "--json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1  # the first process alone answers
    assert done.stderr.count("step 8 of 8") == 1
    found = the_checkpoint(store)
    assert_same_up_to_rounding(found, alone)
    assert (alone[1]["processes"], found[1]["processes"]) == (1, 3)
    assert json.loads(done.stdout)["checkpoints"][0]["accuracy"] == found[1]["accuracy"]
    assert not list(tmp_path.glob("state/*.safetensors"))
    # the shares really were computed apart: the sums are not to the bit those of one process
    assert any(not torch.equal(found[0][key], alone[0][key]) for key in found[0])


def in_double(out):
    """Fine-tune a fake encoder in both modes and keep what came of it, a file for each process."""
    task, found = FakeTask(), {}
    with joined("cpu") as processes:
        for mode in ("nonlinear", "linear"):
            trained = finetune(
                fake_encoder(dtype=torch.float64), task, fake_split(task, "train", 50),
                fake_split(task, "validation", 300), mode,
                Recipe(steps=20, batch=17, rate=3e-3, warmup=4, accumulate=3, augment="shift"),
                processes=processes,
            )  # fmt: skip
            found[mode] = torch.cat([value.flatten() for value in trained.tau.values()])
            found[mode + " validation"] = torch.tensor(trained.validation)
    save_file(found, f"{out}{processes.rank}")


def test_in_double_precision_nothing_but_the_last_bits_differs(tmp_path):
    assert together(2, in_double, f"{tmp_path}/two-") == [0, 0]
    one, other = (load_file(tmp_path / f"two-{rank}") for rank in (0, 1))
    in_double(f"{tmp_path}/one-")
    expected = load_file(tmp_path / "one-0")
    assert expected["linear"].dtype == torch.float64
    for name, value in expected.items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], value, rtol=1e-9, atol=1e-11)
    assert not torch.equal(one["linear"], expected["linear"])  # the sums were made apart


# ---------------------------------------------------------------------------- stopping and failing


@pytest.mark.slow
@pytest.mark.parametrize("together", ["first", "torchrun"])
def test_asked_to_stop_they_stop_at_one_step_and_go_on_from_there(tmp_path, together):
    new_store(tmp_path)
    command = words(tmp_path, *LONG)
    if together == "first":
        run_as = ("engine", *command, "--processes", "2")
    else:
        run_as = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "engine")
        run_as += tuple(command)
    with start(*run_as) as child:
        state = state_of(tmp_path)
        child.send_signal(signal.SIGTERM)
        child.communicate(timeout=60)
        assert child.returncode == (130 if together == "first" else 1)
    _, meta = Store(tmp_path).load_state(state.stem)
    assert meta["step"] > 5  # not that of the last multiple of checkpoint_every alone


def stop_at_5(arguments):
    """Run the command; the second process alone is asked to stop, at step 5."""

    @contextlib.contextmanager
    def stoppable():
        calls = itertools.count(1)

        def check():
            if next(calls) == 5 and os.environ["RANK"] == "1":
                raise KeyboardInterrupt

        yield check

    finetuning.stoppable = stoppable
    sys.exit(main(arguments))


@pytest.mark.slow
def test_stopped_by_two_and_resumed_equals_uninterrupted(tmp_path, alone):
    store = new_store(tmp_path)
    assert together(2, stop_at_5, words(tmp_path, *SHORT)) == [130, 130]
    _, meta = store.load_state(state_of(tmp_path).stem)
    assert meta["step"] == 5
    # the log of the steps before came along
    assert [entry["step"] for entry in meta["log"]] == [1, 2, 3, 4, 5]
    assert main(words(tmp_path, *SHORT)) == 0  # another number will do
    assert_same_up_to_rounding(the_checkpoint(store), alone)


@pytest.mark.slow
@pytest.mark.parametrize("killed", ["first", "second"])
def test_killed_process_ends_the_others_with_a_sentence(tmp_path, killed):
    new_store(tmp_path)
    with start("engine", *words(tmp_path, *LONG, "--processes", "2")) as child:
        state_of(tmp_path)
        (second,) = children_of(child.pid)
        os.kill(child.pid if killed == "first" else second, signal.SIGKILL)
        _, said = child.communicate(timeout=60)
    assert gone(second)
    assert "Traceback" not in said
    if killed == "second":
        assert child.returncode == 2
        assert said.splitlines()[-1] == (
            "process 2 of 2 was ended by SIGKILL; run the same command again to go on from the "
            "last working state"
        )
    _, meta = Store(tmp_path).load_state(state_of(tmp_path).stem)
    assert meta["step"] >= 5


@pytest.mark.slow
def test_killed_under_torchrun_the_other_says_so(tmp_path):
    new_store(tmp_path)
    launched = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "engine")
    with start(*launched, *words(tmp_path, *LONG)) as child:
        state_of(tmp_path)
        one, other = sorted(children_of(child.pid))
        os.kill(other, signal.SIGKILL)
        _, said = child.communicate(timeout=90)
    assert child.returncode != 0
    assert gone(one)
    assert "another process of this fine-tune ended; run the same command again" in said


@pytest.mark.slow
def test_full_disk_of_the_first_ends_the_second(tmp_path):
    new_store(tmp_path)
    (tmp_path / "state").write_text("no folder")
    done = run("engine", *words(tmp_path, *LONG, "--processes", "2"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"cannot write {tmp_path}/state")
    assert "Traceback" not in done.stderr


# ------------------------------------------------------------------------------------- agreement


def test_rows_are_divided_without_gap_or_overlap():
    for n, size in ((15, 2), (16, 3), (7, 7)):
        rows = torch.cat([Processes(rank, size).rows(n) for rank in range(size)])
        assert torch.equal(rows, torch.arange(n))
    with pytest.raises(UsageError, match="a batch of 2 has no image for each of 3 processes"):
        Processes(0, 3).rows(2)
    with pytest.raises(UsageError, match="take 4 processes or fewer"):
        check_share(4, 5)


def test_too_many_processes_are_refused_in_one_sentence(tmp_path, capsys):
    assert main(words(tmp_path, *SHORT, "--processes", "16")) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "a batch of 15 has no image for each of 16 processes" in said.err


def test_no_gpu_for_each_and_no_gpu_that_can_be_shared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    check_gpus(2)
    with pytest.raises(UsageError, match="3 processes need a GPU each and 2 can be seen"):
        check_gpus(3)
    with (
        pytest.raises(UsageError, match="several processes need --device cuda"),
        joined("mps", processes=2),
    ):
        raise AssertionError


def test_alone_nothing_is_asked_of_a_group():
    value = torch.tensor([1.0, 2.0])
    assert ALONE.total(value) is value
    assert ALONE.spread(value) is value
    assert ALONE.total_number(3) == 3
    assert ALONE.shared({"a": [1]}) == {"a": [1]}
    assert ALONE.after_first(lambda: 5) == 5
    ALONE.check_same("thing", value)
    with joined("cpu") as processes:
        assert processes is ALONE


def test_drift_and_loss_are_noticed(monkeypatch):
    two = Processes(0, 2)

    def other_has(change):
        def all_reduce(value, op=None):
            other = torch.stack([value[0] + change, -value[0] - change])
            value.copy_(torch.maximum(value, other))

        return all_reduce

    for value in (torch.randn(9), torch.randn(9, dtype=torch.float64)):
        monkeypatch.setattr(dist, "all_reduce", other_has(0))
        two.check_same("task vector", value)
        for change in (1, -1):
            monkeypatch.setattr(dist, "all_reduce", other_has(change))
            with pytest.raises(EngineError, match="no longer hold the same task vector"):
                two.check_same("task vector", value)

    def broken(value, **_):
        raise RuntimeError("Connection closed by peer [127.0.0.1]:1")

    monkeypatch.setattr(dist, "all_reduce", broken)
    with pytest.raises(LostProcessError, match="^another process of this fine-tune ended; run"):
        two.total(torch.ones(1))
