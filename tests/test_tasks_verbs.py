"""The verbs ``tasks`` and ``fetch`` with data sets of the hub, offline."""

import json
import re

import datasets
import pytest

from engine.__main__ import main
from engine.tasks import load_split, load_task, registry
from tests.test_registry import LAND, features, library, prepare  # noqa: F401 (a fixture)
from tests.test_tasks import NAMES


def run(capsys, *words):
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def eurosat(library, tmp_path):  # noqa: F811
    parts = {"train": (list(range(10)) * 4, 0), "test": (list(range(10)), 60)}
    return prepare(library, tmp_path, "tanganke/eurosat", parts, features(LAND))


def test_tasks_says_what_is_here_and_what_to_fetch(eurosat, capsys):
    code, out, _ = run(capsys, "tasks", "eurosat", "--json")
    answer = json.loads(out)
    assert code == 0
    assert answer["tasks"][-1]["counts"] == {"train": 36, "validation": 4, "test": 10}
    assert {row["name"]: row["here"] for row in answer["known"]} == {
        name: name == "eurosat" for name in registry.NAMES
    }
    _, out, _ = run(capsys, "tasks")
    assert "here: eurosat" in out
    assert "not here: cars, dtd, gtsrb" in out
    assert "python -m engine fetch cars" in out


def test_fetch_decodes_what_is_here(eurosat, capsys, tmp_path, store):
    home = str(store.home)
    words = ("fetch", "eurosat", "--size", "8", "--leaks", "--json", "--cache", home)
    code, out, _ = run(capsys, *words)
    (row,) = json.loads(out)["tasks"]
    assert code == 0
    assert (row["fetched"], row["leaked"]) == (False, 0)
    assert {name: split["n"] for name, split in row["decoded"].items()} == row["counts"]
    for name, split in row["decoded"].items():
        assert load_split(load_task("eurosat"), name, 8, store).digest == split["digest"]
    code, out, _ = run(capsys, "fetch", "eurosat", "--limit", "3", "--size", "9", "--cache", home)
    assert code == 0
    assert re.search(r"eurosat +36 +4 +10 +- +hub:tanganke/eurosat", out)


def test_fetch_brings_what_is_not_here(library, tmp_path, capsys, monkeypatch):  # noqa: F811
    asked = []

    def load(hub_id, config):
        asked.append((hub_id, config))
        parts = {"train": ([0, 1, 2] * 5, 0), "test": ([0, 1, 2], 50)}
        prepare(library, tmp_path, hub_id, parts, features(NAMES), config)

    monkeypatch.setattr(datasets, "load_dataset", load)
    code, out, err = run(capsys, "fetch", "svhn", "--json")
    assert code == 0
    assert asked == [("ufldl-stanford/svhn", "cropped_digits")]
    assert json.loads(out)["tasks"][0]["fetched"] is True
    assert "fetching ufldl-stanford/svhn" in err
    run(capsys, "fetch", "svhn")
    assert len(asked) == 1  # it is here now


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("fetch", "no such"), "is not a folder"),
        (("fetch", "mnist", "--size", "8", "--encoder", "miniature"), "not both"),
        (("evaluate", "--tasks", "eurosat"), "run `python -m engine fetch eurosat`"),
    ],
)
def test_mistakes_are_one_sentence(words, said, capsys):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_the_error_stream_says_what_is_known_to_be_wrong(library, tmp_path, capsys):  # noqa: F811
    from engine import tasks

    tasks._warn.cache_clear()
    parts = {"train": ([0, 1, 2] * 5, 0), "test": ([0], 50)}
    prepare(library, tmp_path, "tanganke/dtd", parts, features(NAMES))
    code, out, err = run(capsys, "tasks", "dtd", "--json")
    assert code == 0
    assert "known to leak" in err
    assert "known to leak" in json.loads(out)["tasks"][-1]["warning"]


def test_long_decoding_tells_how_far_it_is(caplog):
    from engine.tasks import decoding

    tell = decoding._telling("decoding x train", 100, every=0.0)
    caplog.set_level("INFO", logger="engine")
    tell(1124, 9000)
    assert re.fullmatch(
        r"decoding x train: 1,124 of 9,000 pictures, \d+ a second", caplog.messages[-1]
    )
