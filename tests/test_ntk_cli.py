"""The verb ``ntk``: its answer, its plan, what it keeps, and what it refuses."""

import json

import pytest

from engine.__main__ import main
from engine.encoders import load_encoder
from engine.ntk import kept_local_energy
from engine.store import Store
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
