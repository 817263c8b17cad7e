"""Every page in Streamlit's own test runner: normal, empty and failing views, each control once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app import state
from app.components.alpha import header_of
from app.compute import catalogue, merging, readouts
from app.widgets import addresses
from engine.errors import CheckpointError, MissingDataError
from engine.store import Store
from engine.tasks import CONTROL, TASKS
from tests.shown_pages import FEW, open_page, settle, sliders, texts, use
from tests.tiny_world import make_encoder, make_world

NAMES = ("overview", "checkpoints", "merge")

pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    """A store with task vectors of two tasks, so that everything is computed in seconds."""
    return make_world(tmp_path_factory.mktemp("world"), FEW)


@pytest.fixture
def here(world, monkeypatch) -> Store:
    return use(monkeypatch, world)


def payload(page: AppTest) -> dict:
    return header_of(sliders(page))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_runs_alone(name, here):
    page = settle(open_page(name))
    assert not page.exception
    assert not page.error
    assert page.title[0].value


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_cache_names_the_next_command(name, monkeypatch, tmp_path):
    use(monkeypatch, Store(tmp_path))
    page = open_page(name)
    assert not page.exception
    assert not page.error
    assert "python -m engine" in texts(page, "info")


@pytest.mark.parametrize("name", NAMES)
def test_an_encoder_without_checkpoints_names_the_next_command(name, monkeypatch, tmp_path):
    use(monkeypatch, make_encoder(tmp_path))
    page = open_page(name)
    assert not page.exception
    assert "python -m engine finetune" in texts(page, "info")


@pytest.mark.parametrize("name", NAMES)
def test_a_users_error_is_a_message(name, here, monkeypatch):
    def broken():
        raise CheckpointError("this file is damaged; make it again")

    monkeypatch.setattr(catalogue, "checkpoints", broken)
    page = open_page(name)
    assert not page.exception
    assert "This file is damaged; make it again" in texts(page, "error")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_information(name, here, monkeypatch):
    def missing():
        raise MissingDataError("the encoder is not on disk; make it with `python -m engine x`")

    monkeypatch.setattr(catalogue, "checkpoints", missing)
    page = open_page(name)
    assert not page.exception
    assert not page.error
    assert "python -m engine x" in texts(page, "info")


@pytest.mark.parametrize("name", NAMES)
def test_a_bug_stays_loud(name, here, monkeypatch):
    def wrong():
        raise ValueError("received 3, expected 4")

    monkeypatch.setattr(catalogue, "checkpoints", wrong)
    page = open_page(name)
    assert page.exception[0].proto.type == "ValueError"


def test_overview_shows_every_task_and_what_is_cached(here):
    page = open_page("overview")
    cards = " ".join(item.proto.body for item in page.get("html"))
    assert cards.count("data:image/png;base64,") == len(TASKS) + 1
    assert [metric.value for metric in page.metric] == ["2 tasks", "2 tasks"]
    (chart,) = page.get("plotly_chart")
    drawn = json.loads(chart.proto.spec)["data"][0]
    shown = dict(zip(drawn["y"], drawn["text"], strict=True))
    assert shown[catalogue.titles(["signs"])[0]] == ["40.0", "40.0"]
    assert shown[catalogue.titles(["textures"])[0]] == ["–", "–"]


def test_overview_chooses_an_encoder(monkeypatch, tmp_path):
    store = use(monkeypatch, make_world(tmp_path, FEW))
    store.put("encoder", {"visual.proj": torch.zeros(1)}, {"name": "miniature-random"})
    page = open_page("overview")
    page.selectbox(key=state.OVERVIEW_ENCODER).set_value("miniature-random").run()
    assert not page.exception
    assert "--encoder miniature-random --mode nonlinear" in texts(page, "info")


def test_checkpoints_lists_what_is_damaged(monkeypatch, tmp_path):
    store = use(monkeypatch, make_world(tmp_path, FEW))
    store.find("checkpoint", task="signs")[0].path.with_suffix(".json").write_text("{")
    page = open_page("checkpoints")
    assert not page.exception
    assert "is damaged or foreign" in texts(page, "error")
    assert len(page.dataframe[0].value) == 3


def test_checkpoints_shows_a_selected_one(here):
    page = open_page("checkpoints")
    page.session_state[state.CHECKPOINTS_TABLE] = {
        "selection": {"rows": [0], "columns": [], "cells": []}
    }
    page.run()
    assert not page.exception
    newest = here.find("checkpoint")[0]
    record = json.loads(page.json[0].value)
    assert record["digest"] == newest.digest
    assert record["train_digest"] == "0" * 64
    curve = json.loads(page.get("plotly_chart")[0].proto.spec)["data"][0]
    assert list(curve["x"])[:3] == [1, 2, 3]
    assert {button.label for button in page.get("download_button")} >= {
        "Task vector (safetensors)",
        "Provenance (JSON)",
    }


def test_checkpoints_compares_by_training_mode(here):
    page = open_page("checkpoints")
    first = page.get("plotly_chart")[0].proto.spec
    page.segmented_control(key=state.CHECKPOINTS_MODE).set_value("linear").run()
    assert not page.exception
    second = page.get("plotly_chart")[0].proto.spec
    assert first != second
    matrix = torch.tensor(json.loads(second)["data"][0]["z"], dtype=torch.float64)
    taus = [
        torch.cat([value.double().flatten() for _, value in sorted(here.get(entry).items())])
        for task in catalogue.newest(catalogue.checkpoints(), "miniature", "linear")
        for entry in here.find("checkpoint", task=task, mode="linear")
    ]
    cosine = taus[0] @ taus[1] / (taus[0].norm() * taus[1].norm())
    assert matrix[0, 1] == pytest.approx(float(cosine), abs=1e-9)


def test_merge_packs_what_the_sliders_move_over(here):
    header = payload(settle(open_page("merge")))
    assert header["reading"] == "linear"
    assert [slider["name"] for slider in header["sliders"]] == ["letters", "signs"]
    assert [task["name"] for task in header["tasks"]] == ["letters", "signs", CONTROL]
    assert header["alphas"] == [state.START, state.START]
    assert len(header["curve"]) == 21
    assert header["presets"]["shared"]["alphas"] is not None
    assert header["presets"]["each"]["alphas"] is not None


def test_merge_keeps_validation_for_the_next_view(here):
    settle(open_page("merge"))
    (kept,) = here.find("result", what="presets", mode="linear")
    assert kept.meta["record"]["n_validation"] == {"letters": 500, "signs": 500}
    assert here.find("responses", split="test", task=CONTROL)


@pytest.mark.parametrize("reading", ["nonlinear", "posthoc"])
def test_merge_changes_the_reading(here, reading):
    page = settle(open_page("merge"))
    page.segmented_control(key=state.MERGE_READING).set_value(reading).run()
    page = settle(page)
    assert payload(page)["reading"] == reading
    assert page.query_params[state.QUERY_READING] == reading
    assert (payload(page)["anchor"] is not None) == (reading == "nonlinear")


def test_merge_changes_the_convention(here):
    page = settle(open_page("merge"))
    page.segmented_control(key=state.MERGE_CONVENTION).set_value("mean").run()
    assert payload(settle(page))["convention"] == "mean"


def test_merge_leaves_a_task_out_and_keeps_alphas(here):
    page = settle(open_page("merge"))
    release(page, {"letters": 0.7, "signs": -0.2})
    page.multiselect(key=state.MERGE_TASKS).set_value(["signs"]).run()
    page = settle(page)
    assert payload(page)["alphas"] == [-0.2]
    page.multiselect(key=state.MERGE_TASKS).set_value([]).run()
    # without a choice all of them are merged again
    assert [slider["name"] for slider in payload(settle(page))["sliders"]] == list(sorted(FEW))


def release(page: AppTest, alphas: dict[str, float]) -> AppTest:
    """Do what the widget does when its user lets a slider go."""
    revision = payload(page)["revision"]
    page.session_state[state.MERGE_WIDGET] = {"alphas": {"revision": revision, "values": alphas}}
    return page.run()


def test_merge_writes_released_alphas_into_the_address(here):
    page = release(settle(open_page("merge")), {"letters": 0.7, "signs": -0.2})
    assert not page.exception
    assert page.query_params[state.QUERY_TASKS] == "letters,signs"
    assert page.query_params[state.QUERY_ALPHAS] == "0.7,-0.2"


def test_merge_restores_an_address(here):
    query = {"e": "miniature", "r": "posthoc", "c": "mean", "t": "signs,letters", "a": "1.5,-0.25"}
    page = settle(open_page("merge", **query))
    header = payload(page)
    assert (header["reading"], header["convention"]) == ("posthoc", "mean")
    assert header["alphas"] == [-0.25, 1.5]


def test_a_message_with_the_address_before_moves_no_slider_back(here, monkeypatch):
    opened = {"e": "miniature", "r": "linear", "t": "letters,signs", "a": "1,1"}
    page = settle(open_page("merge", **opened))
    before = dict(page.query_params)
    page = release(page, {"letters": 0.7, "signs": -0.2})
    after = dict(page.query_params)
    assert before != after

    def at(query):
        for name, value in query.items():
            page.query_params[name] = value
        page.run()
        return payload(page)["alphas"]

    assert at(before) == [0.7, -0.2]  # as the browser has it until it hears of the new one
    assert page.query_params == after
    monkeypatch.setattr(addresses, "UNDER_WAY", 0.0)
    assert at(before) == [1, 1]  # later it is somebody's wish


def test_an_address_asks_once_even_where_its_page_is_not_drawn_to_the_end(here, monkeypatch):
    def never(work, patience=0.0):
        return work

    with monkeypatch.context() as patch:
        patch.setattr("app.compute.background.follow", never)
        page = open_page("merge", e="miniature", r="nonlinear")
        page.segmented_control(key=state.MERGE_READING).set_value("linear").run()
    assert page.segmented_control(key=state.MERGE_READING).value == "linear"
    assert payload(settle(page))["reading"] == "linear"


def test_merge_survives_a_senseless_address(here):
    query = {"e": "../../x", "r": "magic", "t": "<script>,signs", "a": "nan,1e9"}
    header = payload(settle(open_page("merge", **query)))
    assert [slider["name"] for slider in header["sliders"]] == ["signs"]
    assert header["alphas"] == [state.HIGHEST]


def test_the_control_task_is_estimated_until_its_own_pass_is_made(here):
    choice = merging.choose(
        "miniature", "nonlinear", "mean", merging.available("miniature", "nonlinear")
    )
    work = merging.sample(choice, "a visitor")
    assert work.wait(120)
    sample, alphas = work.result, {"letters": 0.6, "signs": -0.2}
    early = merging.exact_forward(choice, alphas, 20, merged_alone=True)
    later = merging.exact_forward(choice, alphas, 20)
    assert [answer is None for answer in early.answers] == [False, False, True]
    assert (early.complete, later.complete) == (False, True)
    for one, other in zip(early.answers[:2], later.answers[:2], strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
    sample = replace(sample, tasks=[task.first(20) for task in sample.tasks])
    *merged, control = readouts.evaluated(choice, sample, early)
    assert not any(task.pending for task in merged)
    assert (control.pending, control.is_control) == (True, True)
    planes = sample.tasks[-1].scores
    np.testing.assert_allclose(
        control.scores[0], planes[0] + 0.3 * planes[1] - 0.1 * planes[2], atol=1e-5
    )
    known = readouts.evaluated(choice, sample, later)[-1]
    assert not known.pending
    np.testing.assert_array_equal(known.scores[0], later.answers[-1].scores)
    # from a setting measured before, as the browser moved from there
    moved = merging.exact_forward(choice, {"letters": 1.0, "signs": -0.2}, 20, merged_alone=True)
    assert not moved.is_at(choice, alphas)
    near = readouts.evaluated(choice, sample, moved, later)[-1]
    wanted = later.answers[-1].scores + 0.2 * planes[1]
    np.testing.assert_allclose(near.scores[0], wanted, atol=1e-5)


def test_merge_pins_and_compares(here):
    page = settle(open_page("merge"))
    pin = {
        "alphas": {"letters": 0.5, "signs": 0.5},
        "metrics": {"absolute": 0.4, "normalized": 0.8, "control": 0.3, "tasks": {"signs": 0.4}},
        "exact": True,
    }
    choice = merging.choose("miniature", "linear", "sum", merging.available("miniature", "linear"))
    context = {
        "encoder": "miniature",
        "reading": "linear",
        "convention": "sum",
        "digests": list(choice.digests),
    }
    page.session_state[state.MERGE_PINS] = [
        {"name": "A", "context": context, **pin},
        {"name": "B", "context": context, **pin, "metrics": {**pin["metrics"], "absolute": 0.5}},
    ]
    page.run()
    assert not page.exception
    table = page.dataframe[0].value.set_index("measure")
    assert table.loc["mean absolute", "B − A"] == "0.100"
    assert [pin["name"] for pin in payload(page)["pinned"]] == ["A", "B"]
    page.button(key="pins_forget").click().run()
    assert payload(page)["pinned"] == []


def test_merge_readout_equals_the_engine(here):
    from engine.encoders import load_encoder
    from engine.evaluate import linearized_accuracy
    from engine.responses import responses
    from engine.tasks import load_split, load_task

    alphas = {"letters": 0.9, "signs": -0.4}
    page = release(settle(open_page("merge")), alphas)
    chart = json.loads(page.get("plotly_chart")[-1].proto.spec)
    drawn = dict(zip(chart["data"][0]["y"], chart["data"][0]["x"], strict=True))
    encoder = load_encoder("miniature", here)
    taus = {
        name: here.get(here.find("checkpoint", task=name, mode="linear")[0])
        for name in sorted(alphas)
    }
    for name in alphas:
        task = load_task(name)
        split = load_split(task, "test", 32, here, 500)
        exact = linearized_accuracy(responses(encoder, task, split, taus), alphas)
        assert drawn[task.title] == pytest.approx(exact, abs=1e-12)


def test_a_table_of_uneven_rows_is_written_whole():
    from app.widgets import to_csv

    text = to_csv([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation": 0.5}])
    assert text == "step,loss,validation\n1,2.0,\n2,1.0,0.5\n"


def test_a_text_cannot_become_a_formula():
    from app.widgets import to_csv

    assert to_csv([{"task": "=1+1"}, {"task": "-x"}]) == "task\n'=1+1\n'-x\n"


def test_vectors_of_different_weights_are_never_mixed(monkeypatch, tmp_path):
    store = use(monkeypatch, make_world(tmp_path, FEW))
    meta = dict(store.find("checkpoint", mode="linear", task="signs")[0].meta)
    newer = {**meta, "encoder_digest": "f" * 64}
    store.put("checkpoint", {"proj": torch.ones(3)}, newer)
    found = catalogue.newest(catalogue.checkpoints(), "miniature", "linear")
    assert [item.encoder_digest for item in found.values()] == ["f" * 64]
    kept = catalogue.newest(catalogue.checkpoints(), "miniature", "linear", meta["encoder_digest"])
    assert list(kept) == ["letters", "signs"]
