"""Task addition with an alpha for each task: against a loop over images, and its refusals."""

import json

import pytest
import torch

from engine.__main__ import main
from engine.commands.exporting import choose_entries
from engine.errors import UsageError
from engine.evaluate import addition, addition_each
from engine.finetune import Recipe, finetune
from engine.store import Store
from engine.tasks import miniature
from tests.fake_encoder import fake_encoder, fake_split, other_task
from tests.tiny_world import make_world

NAMES = ("ab", "cd")
ENCODER = fake_encoder()
TASKS = {name: other_task(name, 3 + i) for i, name in enumerate(NAMES)}
SPLITS = {
    kind: {name: fake_split(task, kind, n) for name, task in TASKS.items()}
    for kind, n in (("train", 120), ("validation", 40), ("test", 50))
}


@pytest.fixture(scope="module")
def taus():
    recipe = Recipe(steps=40, warmup=4, batch=32, rate=1e-3)
    return {
        n: finetune(
            ENCODER, TASKS[n], SPLITS["train"][n], SPLITS["validation"][n], "linear", recipe
        ).tau
        for n in NAMES
    }


def right(taus, alphas, task, split) -> float:
    """Classify image by image, the tangent by torch.func."""
    tau = {key: sum(alphas[name] * taus[name][key] for name in alphas) for key in ENCODER.theta0}
    count = 0
    for image, label in zip(split.images, split.labels, strict=True):
        x = ENCODER.preprocess(image[None])
        z, dz = torch.func.jvp(
            lambda theta, x=x: ENCODER.features(theta, x), (ENCODER.theta0,), (tau,)
        )
        scores = (z + dz).double() @ ENCODER.head(task).double().T
        count += int(scores.argmax() == label)
    return count / len(split.labels)


def test_it_equals_a_loop_and_is_never_below_the_shared_alpha(taus):
    splits = SPLITS["validation"], SPLITS["test"]
    found = addition_each(ENCODER, "linear", TASKS, taus, *splits)
    shared = addition(ENCODER, "linear", TASKS, taus, *splits)
    assert found["alpha"] == pytest.approx(sum(found["alphas"].values()) / 2)
    for name in NAMES:
        there = right(taus, found["alphas"], TASKS[name], SPLITS["test"][name])
        assert found["merged"][name] == there
        assert found["single"][name] == shared["single"][name]
    best = max(entry["normalized"] for entry in shared["validation"])
    assert found["validation"][0]["normalized"] >= best
    merged = [right(taus, found["alphas"], TASKS[n], SPLITS["validation"][n]) for n in NAMES]
    assert found["validation"][0]["absolute"] == pytest.approx(sum(merged) / 2)


def test_nonlinear_models_have_no_function_space(taus):
    with pytest.raises(UsageError, match="choose --mode posthoc or linear"):
        addition_each(ENCODER, "nonlinear", TASKS, taus, SPLITS["validation"], SPLITS["test"])


@pytest.mark.parametrize(
    "more", [("--mode", "nonlinear"), ("--method", "ties"), ("--convention", "mean")]
)
def test_contradictions_are_refused(more, tmp_path, capsys):
    mode = () if "--mode" in more else ("--mode", "linear")
    assert main(["addition", "--each", *mode, *more, "--cache", str(tmp_path)]) == 2
    assert "--each is the sum with an alpha for each task" in capsys.readouterr().err


def test_the_answer_is_kept_apart_from_the_shared_one(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(miniature.SIZES, "train", 300)
    monkeypatch.setitem(miniature.SIZES, "test", 60)
    monkeypatch.setattr("engine.store.ROOT", tmp_path / "checkout")
    make_world(tmp_path / "cache", ("signs", "handwriting"))
    words = ["addition", "--tasks", "signs", "handwriting", "--mode", "linear", "--json"]
    words += ["--cache", str(tmp_path / "cache")]
    answers = []
    for more in ([], ["--each"], ["--each"]):
        assert main([*words, *more]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    shared, each, again = answers
    assert each == again
    assert set(each["alphas"]) == {"signs", "handwriting"}
    assert "alphas" not in shared
    assert len(Store(tmp_path / "cache").find("result", what="addition")) == 2


def test_embedding_keeps_the_sum_and_every_method(tmp_path):
    store = make_world(tmp_path / "cache", ("signs",))
    taus = {"signs": store.find("checkpoint", mode="linear")[0].meta["tau_digest"]}
    asked = [("sum", {}), ("each", {}), ("ties", {"density": 0.2}), ("ties", {"density": 0.1})]
    for method, options in asked:
        record = {"convention": "sum", "method": method, "options": options, "limit": None}
        meta = {"what": "addition", "key": f"{method}{options}", "encoder": "miniature"}
        store.put("result", {}, {**meta, "mode": "linear", "taus": taus, "record": record})
    chosen = choose_entries(store, ["miniature"], ["result"])
    kept = [(e.meta["record"]["method"], e.meta["record"]["options"]) for e in chosen]
    assert sorted(kept, key=str) == sorted(asked, key=str)
