"""The verb ``gradients``: its answer, what it keeps, how it goes on, and what it refuses."""

import json
import signal
import subprocess
import sys
import time

import pytest

from engine.__main__ import main
from engine.commands import gradienting
from engine.commands.exporting import choose_entries
from engine.encoders import load_encoder
from engine.gradients import joined, keep_gradients, kept_gradients
from engine.store import Store
from engine.tasks import miniature
from tests.conftest import ROOT
from tests.tiny_world import make_encoder

TASKS = ("letters", "signs")
WORDS = ("gradients", "--tasks", *TASKS, "--epochs", "2", "--images", "16", "--exact-images", "4",
         "--steps", "3", "--limit", "12", "--threads", "1", "--device", "cpu")  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache with a tiny encoder; small splits, nothing embedded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.store.ROOT", tmp_path_factory.mktemp("checkout"))
        patch.setitem(miniature.SIZES, "train", 120)
        place = tmp_path_factory.mktemp("cache")
        make_encoder(place)
        yield place


@pytest.fixture
def ask(home, capsys):
    def asked(*words, place=home):
        capsys.readouterr()
        assert main([*map(str, words), "--cache", str(place), "--json"]) == 0
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return asked


@pytest.fixture(scope="module")
def records(home):
    """One answer of each regime, from the store."""
    few = ["--batch", "8", "--modes", "nonlinear"]
    for regime in (["gd"], ["sgd", *few], ["adamw", *few]):
        assert main([*WORDS, "--regime", *regime, "--cache", str(home)]) == 0
    store = Store(home)
    found = kept_gradients(store, load_encoder("miniature", store).digest)
    return {record["regime"]: record for record in found}


def test_check_prints_what_every_statement_comes_to(ask):
    record, _ = ask("gradients", "--check")
    assert record["passed"] is True
    assert record["one_step_ulps"] <= 1
    assert record["slope_raw"] == pytest.approx(2, abs=0.1)
    assert record["slope_corrected"] == pytest.approx(3, abs=0.15)
    assert record["seconds"] < 30


def test_check_tells_a_reader(capsys):
    assert main(["gradients", "--check"]) == 0
    told = capsys.readouterr().out
    assert "slope_corrected" in told
    assert "3 +- 0.15" in told
    assert "all hold; small networks in float64" in told


def test_the_theorems_answer_has_every_section(records):
    record = records["gd"]
    assert record["tasks"] == list(TASKS)
    assert record["precision"] == "float64"
    assert record["steps_per_epoch"] == 1
    assert record["batch"] is None
    for mode in ("nonlinear", "linear"):
        exact = record["exactness"][mode]
        assert exact["images"] == dict.fromkeys(TASKS, 4)
        for task in TASKS:
            assert exact["tasks"][task]["one_step"]["ulps"] <= 1
            assert exact["tasks"][task]["slope_raw"] == pytest.approx(2, abs=0.1)
            assert exact["tasks"][task]["slope_corrected"] == pytest.approx(3, abs=0.15)
            assert set(exact["tasks"][task]["layers"]) == set(record["layers"])
            path = record["trajectory"][mode]["tasks"][task]
            assert len(path["loss"]) == len(path["tau_norm"]) == 3
            assert path["displacement_share"] == pytest.approx(path["gradient_share"])
            assert path["telescoping"] < 1e-12
            assert path["cosine_descent"][0] == pytest.approx(1, abs=1e-6)
        assert record["merged"][mode]["epochs"] == [1, 2]
        assert len(record["early"][mode]) == 4
        methods = record["iterative"][mode]["methods"]
        assert methods["ATM"][-1]["tasks"] == methods["joint"][-1]["tasks"]  # in gd the same walk
        assert methods["joint"][-1]["evaluations"] == 2 * 2 * 16
    points = record["bridge"]["points"]
    assert len(points) == 2 * 2
    assert all(point["predicted"] > 0 and point["cosine"] > 0.9 for point in points)
    assert record["bridge"]["steps"] == 2
    assert len(json.dumps(record)) < 200_000


@pytest.mark.parametrize("regime", ["sgd", "adamw"])
def test_minibatch_regimes_never_borrow_the_theorem(records, regime):
    record = records[regime]
    assert record["exactness"] is None
    assert record["batch"] == 8
    assert record["steps_per_epoch"] == 2
    assert record["precision"] == "float32"
    assert {point["predicted"] for point in record["bridge"]["points"]} == {None}
    path = record["trajectory"]["nonlinear"]["tasks"]["signs"]
    assert (path["telescoping"] is None) == (regime == "adamw")
    differ = path["displacement_share"] != pytest.approx(path["gradient_share"], rel=1e-3)
    assert differ  # shares of steps and of gradients are two things


def test_what_is_kept_is_looked_up(ask, records, monkeypatch, home):
    monkeypatch.setattr(gradienting, "Run", None)  # nothing is computed
    record, _ = ask(*WORDS, "--regime", "gd")
    assert record == records["gd"]
    assert list((home / "state").glob("*.safetensors")) == []  # no working states are left
    found = kept_gradients(Store(home), record["encoder_digest"], regime="adamw", seed=0)
    assert [item["regime"] for item in found] == ["adamw"]
    assert kept_gradients(Store(home), record["encoder_digest"], epochs=99) == []
    assert kept_gradients(Store(home), "0" * 64) == []


def test_what_was_asked_in_parts_is_one_answer_and_what_differs_is_not(records):
    whole = records["gd"]
    parts = ("trajectory", "merged", "early", "iterative")
    old = {**whole, "commit": "old", "bridge": None}
    new = {**whole, **dict.fromkeys(parts), "commit": "new"}
    new["rate"] = {mode: rate * (1 + 1e-9) for mode, rate in whole["rate"].items()}
    other = {**whole, "images": dict.fromkeys(TASKS, 17), **dict.fromkeys(parts)}
    first, second = joined([other, new, old])
    assert {name: first[name] for name in whole if name != "commit"} == {
        name: (new if name == "rate" else whole)[name] for name in whole if name != "commit"
    }
    assert [(part["commit"], part["sections"]) for part in first["parts"]] == [
        ("new", ["exactness", "bridge"]),
        ("old", list(parts)),
    ]
    assert second["images"] == other["images"]  # fewer sections: after the older, fuller one
    assert second["merged"] is None
    assert "parts" not in new  # what is kept is not changed
    far = {**old, "rate": {mode: rate * 1.01 for mode, rate in whole["rate"].items()}}
    assert len(joined([new, far])) == 2
    assert joined([]) == []


def test_seeds_draw_other_images(ask, records):
    words = [*WORDS, "--regime", "gd", "--sections", "trajectory", "--modes", "linear"]
    first, _ = ask(*words)
    second, _ = ask(*words, "--seed", 1)
    losses = [r["trajectory"]["linear"]["tasks"]["signs"]["loss"] for r in (first, second)]
    assert losses[0] != losses[1]
    assert first["bridge"] is first["merged"] is first["exactness"] is first["iterative"] is None
    assert list(first["trajectory"]) == ["linear"]


def test_an_answer_of_each_regime_can_be_embedded_but_none_on_a_users_tasks(home, records):
    store = Store(home)
    chosen = choose_entries(store, ["miniature"], ["result"])
    found = {entry.meta["record"]["regime"] for entry in chosen}
    assert found == {"gd", "sgd", "adamw"}
    part = keep_gradients(store, "p" * 64, {**records["gd"], "bridge": None})
    digests = {entry.digest for entry in choose_entries(Store(home), ["miniature"], ["result"])}
    store.delete(part)
    # a part that is newer does not stand for the whole
    assert {part.digest, *(entry.digest for entry in chosen)} <= digests
    foreign = {
        **records["gd"],
        "seed": 7,
        "sources": {"letters": "/somewhere", "signs": "miniature"},
    }
    entry = keep_gradients(store, "k" * 64, foreign)
    chosen = choose_entries(Store(home), ["miniature"], ["result"])
    store.delete(entry)
    assert 7 not in {item.meta["record"]["seed"] for item in chosen}
    assert len(chosen) >= 3


def stopping_after(counts):
    """A stand-in for the tellers that stops the run after so many reports."""
    left = [counts]

    def teller():
        def tell(name, done, total):
            left[0] -= 1
            if left[0] == 0:
                raise KeyboardInterrupt

        return tell

    return teller


@pytest.mark.parametrize("reports", [3, 9, 17])
def test_stopped_it_goes_on_to_the_same_answer(ask, tmp_path, monkeypatch, reports):
    words = [*WORDS, "--regime", "adamw", "--batch", "8", "--modes", "linear"]
    whole, _ = ask(*words)
    make_encoder(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(gradienting, "_teller", stopping_after(reports))
        assert main([*words, "--cache", str(tmp_path)]) == 130
    assert Store(tmp_path).find("result", what="gradients") == []
    assert list((tmp_path / "state").glob("*.safetensors"))
    resumed, _ = ask(*words, place=tmp_path)
    for part in ("trajectory", "merged", "early", "iterative", "bridge"):
        assert resumed[part] == whole[part]
    assert list((tmp_path / "state").glob("*.safetensors")) == []


def test_it_tells_its_parts_to_a_job(ask, monkeypatch, tmp_path):
    from engine.jobs import reporting

    told, counts = [], []

    class Listener:
        def parts(self, of):
            counts.append(of)

        def report(self, name, done, steps, entry):
            told.append((name, done, steps))

        def working_state(self, name):
            pass

        def artifact(self, kind, digest):
            told.append((kind, None, None))

    monkeypatch.setattr(reporting, "_listener", Listener())
    make_encoder(tmp_path)
    ask(*WORDS, "--regime", "gd", "--modes", "nonlinear", place=tmp_path)
    names = list(dict.fromkeys(name for name, done, _ in told if done is not None))
    assert counts == [len(names)]
    assert "nonlinear path of signs" in names
    assert told[-1][0] == "result"


@pytest.mark.slow
def test_killed_it_goes_on(tmp_path, capsys, as_elsewhere):
    words = ["gradients", "--tasks", "letters", "signs", "--regime", "sgd", "--batch", "16",
             "--epochs", "12", "--images", "160", "--limit", "20", "--threads", "1", "--device",
             "cpu", "--modes", "nonlinear", "--sections", "trajectory", "--json"]  # fmt: skip
    for name in ("killed", "whole"):
        make_encoder(tmp_path / name)
    command = [sys.executable, "-m", "engine", *words, "--cache"]
    process = subprocess.Popen([*command, tmp_path / "killed"], cwd=ROOT, stderr=subprocess.DEVNULL)
    end = time.monotonic() + 120
    while not list((tmp_path / "killed" / "state").glob("*")) and time.monotonic() < end:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    answers = []
    for name in ("killed", "whole"):
        capsys.readouterr()
        assert main([*words, "--cache", str(tmp_path / name)]) == 0
        answers.append(json.loads(capsys.readouterr().out)["trajectory"])
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tasks", "letters"], "name at least two with --tasks"),
        (["--regime", "gd", "--batch", "8"], "has no batch; leave --batch out"),
        (["--regime", "sgd", "--images", "16"], "16 images make no batch of 128"),
        (["--rate", "-1"], "rates are above 0"),
        (["--rates", "0.1", "0"], "rates are above 0"),
        (["--seed", "-2"], "choose 0 or above"),
        (["--encoder", "nothing"], "no encoder is called 'nothing'"),
    ],
)
def test_a_users_mistake_is_one_sentence(home, capsys, words, message):
    assert main(["gradients", *words, "--cache", str(home)]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1
    assert message in said[0]


def test_a_reader_gets_tables(home, records, capsys):
    assert main([*WORDS, "--regime", "gd", "--cache", str(home)]) == 0
    told = capsys.readouterr().out
    for words in ("linear, exactness", "nonlinear, first epoch", "epochs a task", "one-shot",
                  "||E|| / ||alpha sum tau||", "full-batch gradient descent, rate"):  # fmt: skip
        assert words in told
