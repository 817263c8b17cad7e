"""The verb ``ntk``: its answer, its plan, what it keeps, and what it refuses."""

import json

import numpy as np
import pytest
from PIL import Image

from engine.__main__ import main
from engine.encoders import load_encoder
from engine.ntk import kept_local_energy
from engine.store import Store, digest_tensors
from engine.tasks import miniature
from tests.tiny_world import make_world

WORDS = ("ntk", "--task", "signs", "--points", "6", "--threads", "1")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache with a tiny encoder and a task vector of one task; small splits, nothing embedded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.store.ROOT", tmp_path_factory.mktemp("checkout"))
        patch.setitem(miniature.SIZES, "train", 60)
        place = tmp_path_factory.mktemp("cache")
        make_world(place, tasks=("signs",), modes=("linear",))
        yield place


@pytest.fixture
def ask(home, capsys):
    def asked(*words):
        capsys.readouterr()
        assert main([*WORDS, *words, "--cache", str(home), "--json"]) == 0
        said = capsys.readouterr()
        return json.loads(said.out), said.err

    return asked


def test_the_answer_and_its_plan_and_what_is_kept(home, ask):
    record, told = ask("--logits", "2")
    assert list(record)[3:8] == [
        "local_energy",
        "localization_auc",
        "corrected_auc",
        "spectrum",
        "logits",
    ]
    assert "tangent kernel of 6 x 18 points, 2 logits: layerwise" in told
    assert "GFLOP" in told
    assert record["control"] == "objects"
    assert sum(record["local_energy"]["task"] + record["local_energy"]["control"]) == (
        pytest.approx(6, rel=2e-3)  # energies are kept in float16
    )
    assert record["localization_auc"] == record["scores"]["paper"]["auc"]
    assert record["corrected_auc"] == record["scores"]["heldout"]["auc"]
    assert record["precision"] == "float64"
    assert len(record["spectrum"]) == len(record["logits"]) == 2
    assert sum(record["layers"].values()) == pytest.approx(1)
    assert len(record["captured"]) == 2  # there is a linearly fine-tuned task vector
    store = Store(home)
    (kept,) = kept_local_energy(store, load_encoder("miniature", store), task="signs", points=6)
    assert kept.record() == record
    again, told = ask("--logits", "2")
    assert again == record
    assert "tangent kernel" not in told  # looked up


def test_algorithms_agree_from_the_command_line(ask):
    answers = [
        ask("--logits", "1", "--force", "--algorithm", algorithm)[0]
        for algorithm in ("layerwise", "jacobian", "products")
    ]
    assert [answer["algorithm"] for answer in answers] == ["layerwise", "jacobian", "products"]
    for answer in answers[1:]:
        assert answer["spectrum"][0] == pytest.approx(answers[0]["spectrum"][0], rel=1e-5)


def test_several_controls_give_pairs_and_a_table(home, ask, capsys):
    record, _ = ask("--logits", "trace", "--control", "objects", "sites", "--memory", "50")
    assert [pair["control"] for pair in record["pairs"]] == ["objects", "sites"]
    assert record["pairs"][0]["logits"] == ["trace"]
    words = [*WORDS, "--logits", "trace", "--control", "objects", "sites", "--cache", str(home)]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:7]] == [
        "signs", "null", "heldout", "signs", "null", "heldout",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--control", "signs"), "choose another control"),
        (("--control", "sites", "sites"), "a control is named twice"),
        (("--control", "nowhere"), "nowhere"),
        (("--points", "60"), "60 points need 120 images of signs"),
        (("--points", "1"), "2 or more"),
        (("--logits", "99"), "expected from 1 to"),
        (("--logits", "nine"), "no class is called 'nine'"),
    ],
)
def test_mistakes_are_one_sentence(home, capsys, words, said):
    assert main([*WORDS, *words, "--cache", str(home)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert said in printed.err.splitlines()[-1]


def test_energies_at_the_settings_asked_for(ask):
    words = ("--logits", "2", "--leading", "4", "5", "--ridge", "0.2")
    record, told = ask(*words)
    assert "tangent kernel" in told  # what was kept lacked them
    assert list(record["leading_energy"]) == ["4", "5"]
    for R, found in record["leading_energy"].items():
        for blocks in found.values():
            assert sum(blocks["task"] + blocks["control"]) == pytest.approx(int(R), rel=5e-3)
    found = record["ridge_energy"]["0.2"]["heldout"]
    wide = record["spectrum"][0]
    share = [s**2 / (s**2 + (0.2 * wide[0]) ** 2) for s in wide]
    assert sum(record["ridge_energy"]["0.2"]["paper"]["task"]) < sum(share) + 1
    assert len(found["task"]) == len(found["control"]) == 6
    again, told = ask(*words)
    assert again == record
    assert "tangent kernel" not in told
    plain, _ = ask("--logits", "2")
    assert "leading_energy" not in plain


def test_scores_of_blocks_and_regression(home, ask):
    record, _ = ask("--logits", "2", "--layer-scores", "--regression")
    assert list(record["layer_scores"]) == ["input", "resblocks 0", "resblocks 1", "output"]
    for score in record["layer_scores"].values():
        low, high = score["auc_interval"]
        assert low <= score["auc"] <= high
    assert len(record["eigvals"]) == 2
    assert record["eigvals"][0] == sorted(record["eigvals"][0], reverse=True)
    found = record["regression"]
    assert found["n"] == 6
    assert len(found["explained"]) == len(found["correlation"]) == 2
    assert all(-1 <= value <= 1 for value in found["correlation"])


def folder_of(place, name, n, seed):
    """A task of pictures of two classes on disk."""
    source = np.random.default_rng(seed)
    for label in ("light", "dark"):
        where = place / name / "train" / label
        where.mkdir(parents=True)
        for k in range(n):
            pixels = source.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(where / f"{k}.png")
        test = place / name / "test" / label
        test.mkdir(parents=True)
        Image.fromarray(pixels).save(test / "0.png")
    return str(place / name)


def test_of_a_task_on_disk_only_a_prefix_is_decoded(home, ask, tmp_path, capsys):
    birds, fish = (folder_of(tmp_path, name, 20, k) for k, name in enumerate(("birds", "fish")))
    words = ["--task", birds, "--control", fish, "--points", "4", "--logits", "1"]
    record, _ = ask(*words, "--limit", "10")
    assert record["content"]["limits"] == {"birds": 10, "fish": 10}
    assert max(record["indices"]["task"] + record["indices"]["control"]) < 10
    decoded = [path.stat().st_size for path in (home / "pixels").glob("*/rows.bin")]
    assert decoded == [10 * 3 * 32 * 32] * 2
    wide, _ = ask(*words)
    assert wide["content"]["limits"] == {"birds": 2000, "fish": 2000}
    assert wide["indices"] != record["indices"]
    again, told = ask(*words, "--limit", "10")
    assert again == record
    assert "tangent kernel" not in told
    bad = ["ntk", *words, "--limit", "7", "--cache", str(home)]
    assert main(bad) == 2
    assert "--limit 7 leaves too few images" in capsys.readouterr().err


def test_a_new_task_vector_is_measured_with(home, ask):
    store = Store(home)
    first, _ = ask("--logits", "1", "--seed", "3")
    entry = store.one("checkpoint", "", task="signs", mode="linear")
    tau = {name: -2 * value for name, value in store.get(entry).items()}
    newer = store.put("checkpoint", tau, {**entry.meta, "tau_digest": digest_tensors(tau)})
    try:
        second, told = ask("--logits", "1", "--seed", "3")
        assert "tangent kernel" in told
        assert second["content"]["tau"] != first["content"]["tau"]
        assert second["local_energy"] == first["local_energy"]
    finally:
        store.delete(newer)
    back, told = ask("--logits", "1", "--seed", "3")
    assert back == first
    assert "tangent kernel" not in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--leading", "7"), "6 points have 6 eigenfunctions; give 1 to 6"),
        (("--ridge", "-0.1"), "--ridge -0.1 is not above 0"),
        (("--regression", "--logits", "trace"), "the trace kernel is a sum over them"),
        (("--regression", "--task", "letters"), "has no linear task vector of letters"),
    ],
)
def test_settings_that_cannot_be_are_one_sentence(home, capsys, words, said):
    assert main([*WORDS, *words, "--cache", str(home)]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]
