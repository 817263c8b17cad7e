"""Merging methods on the Merge page: one direction, one slider, the engine's own numbers."""

import json
import struct

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app import state
from app.components.alpha import EvaluatedTask, header_of, pack
from app.compute import directions, exports, merging, models
from engine.encoders import load_encoder
from engine.evaluate import FARTHER, MERGED, addition, evaluate_nonlinear, search_direction
from engine.merging import CONVENTIONS, METHODS, apply, prepare
from engine.responses import responses
from engine.store import Store, digest_tensors
from engine.tasks import CONTROL, load_split, load_task
from tests.shown_pages import open_page, settle, sliders, use
from tests.tiny_world import make_world

FEW = ("letters", "signs")
OPTIONS = {"ties": {"density": 0.2}, "iso-cts": {"common": 0.8}, "tsv": {}}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make_world(tmp_path_factory.mktemp("world"), FEW)


@pytest.fixture(autouse=True)
def here(world, monkeypatch, fresh_caches) -> Store:
    """Let the page see this store and nothing embedded."""
    return use(monkeypatch, world)


@pytest.fixture(scope="module")
def encoder(world):
    return load_encoder("miniature", world)


def open_merge(query: dict | None = None) -> AppTest:
    return settle(open_page("merge", **(query or {})))


def payload(page: AppTest) -> dict:
    return header_of(sliders(page))


def planes(page: AppTest, place: int) -> np.ndarray:
    """Scores of one evaluated task, read as the browser reads them."""
    changing, settled = sliders(page), page.get("bidi_component")[0].proto.bytes
    header = header_of(changing)
    task, offset = header["tasks"][place], header["settled"]["offset"]

    def array(where):
        data, at = (
            (changing, where["offset"])
            if where["offset"] < offset
            else (settled, where["offset"] - offset)
        )
        (length,) = struct.unpack("<I", data[:4])
        found = np.frombuffer(data, "<f4", int(np.prod(where["shape"])), 4 + length + at)
        return found.reshape(where["shape"])

    scores = array(task["scores"])
    return scores if task["exact"] is None else np.concatenate([array(task["exact"])[None], scores])


def release(page: AppTest, alphas: dict[str, float]) -> AppTest:
    """Do what the widget does when its user lets a slider go."""
    revision = payload(page)["revision"]
    page.session_state[state.MERGE_WIDGET] = {"alphas": {"revision": revision, "values": alphas}}
    return page.run()


def vectors(store: Store, mode: str) -> dict:
    return {
        task: {
            name: value.float()
            for name, value in store.get(store.one("checkpoint", "", task=task, mode=mode)).items()
        }
        for task in FEW
    }


def drawn(page: AppTest) -> dict[str, float]:
    """Merged accuracies as the page's figure draws them, by title."""
    chart = json.loads(page.get("plotly_chart")[-1].proto.spec)["data"][0]
    return dict(zip(chart["y"], chart["x"], strict=True))


# --------------------------------------------------------------------------------------- the page


@pytest.mark.parametrize("method", ["ties", "iso-cts", "tsv"])
def test_a_method_gives_the_engines_direction(here, encoder, method):
    page = open_merge({"m": method})
    header = payload(page)
    assert header["direction"] == METHODS[method].title
    assert [slider["name"] for slider in header["sliders"]] == [state.DIRECTION]
    assert header["span"] == [0.0, state.FARTHEST]
    assert [task["name"] for task in header["tasks"]] == [*FEW, CONTROL]
    taus = vectors(here, "linear")
    direction = prepare(taus, method)
    for place, name in enumerate((*FEW, CONTROL)):
        task = load_task(name)
        split = load_split(task, "test", encoder.image_size, here, 500)
        wanted = responses(encoder, task, split, {MERGED: direction}).scores().numpy()
        np.testing.assert_allclose(planes(page, place), wanted, atol=1e-5)
        own = {name: taus[name]} if name in taus else {}
        if own:
            alone = responses(encoder, task, split, own).scores()
            right = (alone[0] + alone[1]).argmax(dim=1) == split.labels
            assert header["tasks"][place]["single"] == pytest.approx(right.double().mean().item())


def test_every_method_of_the_engine_is_offered_and_explained(here):
    page = open_merge()
    box = page.selectbox(key=state.MERGE_METHOD)
    titles = [about.title for name, about in METHODS.items() if name not in CONVENTIONS]
    assert box.options == ["Task arithmetic", *titles]
    for name in directions.methods():
        page.selectbox(key=state.MERGE_METHOD).set_value(name).run()
        assert not page.exception
        said = " ".join(item.value for item in page.caption)
        about = METHODS[name]
        assert about.does in said
        for option, details in about.options.items():
            field = page.number_input(key=f"{state.MERGE_OPTION}{name}_{option}")
            assert (field.value, field.min, field.max) == (
                details.usual,
                details.low,
                details.high,
            )
            assert details.does in said


def test_a_method_changes_the_direction_and_keeps_alpha(here):
    page = release(open_merge(), {"letters": 0.9, "signs": 0.5})
    page.selectbox(key=state.MERGE_METHOD).set_value("ties").run()
    page = settle(page)
    assert payload(page)["alphas"] == [0.7]
    first = planes(page, 0).copy()
    page.selectbox(key=state.MERGE_METHOD).set_value("dare").run()
    page = settle(page)
    assert payload(page)["alphas"] == [0.7]
    assert not np.array_equal(planes(page, 0)[1], first[1])
    np.testing.assert_array_equal(planes(page, 0)[0], first[0])
    page.selectbox(key=state.MERGE_METHOD).set_value(state.ARITHMETIC).run()
    page = settle(page)
    assert payload(page)["alphas"] == [0.9, 0.5]  # not moved meanwhile: as they were
    page.selectbox(key=state.MERGE_METHOD).set_value("ties").run()
    page = release(settle(page), {state.DIRECTION: 1.25})
    page.selectbox(key=state.MERGE_METHOD).set_value(state.ARITHMETIC).run()
    assert payload(settle(page))["alphas"] == [1.25, 1.25]


def test_an_option_changes_the_direction(here, encoder):
    page = open_merge({"m": "ties"})
    before = planes(page, 0).copy()
    page.number_input(key=f"{state.MERGE_OPTION}ties_density").set_value(0.75).run()
    page = settle(page)
    assert page.query_params[state.QUERY_OPTIONS] == "density:0.75"
    page.number_input(key=f"{state.MERGE_OPTION}ties_average").set_value(1).run()
    assert settle(page).query_params[state.QUERY_OPTIONS] == "density:0.75,average:1"
    page.number_input(key=f"{state.MERGE_OPTION}ties_average").set_value(0).run()
    page = settle(page)
    assert not np.array_equal(before, planes(page, 0))
    task = load_task("letters")
    split = load_split(task, "test", encoder.image_size, here, 500)
    direction = prepare(vectors(here, "linear"), "ties", density=0.75)
    wanted = responses(encoder, task, split, {MERGED: direction}).scores().numpy()
    np.testing.assert_allclose(planes(page, 0), wanted, atol=1e-5)


def test_the_address_keeps_method_options_and_alpha(here):
    page = open_merge({"m": "dare", "o": "drop:0.25,seed:3", "t": "signs,letters", "a": "1.5"})
    header = payload(page)
    assert (header["direction"], header["alphas"]) == ("DARE", [1.5])
    assert page.number_input(key=f"{state.MERGE_OPTION}dare_seed").value == 3
    assert page.query_params[state.QUERY_METHOD] == "dare"
    assert page.query_params[state.QUERY_OPTIONS] == "drop:0.25,seed:3"
    assert page.query_params[state.QUERY_ALPHAS] == "1.5"
    again = open_merge({k: page.query_params[k] for k in page.query_params})
    assert payload(again)["digest"] == header["digest"]


def test_a_senseless_method_is_none(here):
    page = open_merge({"m": "../x", "o": "density:nan,:3,x", "a": "9"})
    assert payload(page)["direction"] is None
    page = open_merge({"m": "ties", "o": "density:17,gamma:1", "a": "-3"})
    assert payload(page)["alphas"] == [0.0]
    assert page.number_input(key=f"{state.MERGE_OPTION}ties_density").value == 1.0


def test_the_nonlinear_reading_of_a_method_is_the_engines(here, encoder):
    page = release(open_merge({"m": "ties", "r": "nonlinear"}), {state.DIRECTION: 0.85})
    page = settle(page)
    assert payload(page)["anchor"] == [0.85]
    direction = prepare(vectors(here, "nonlinear"), "ties")
    theta = apply(encoder.theta0, direction, 0.85)
    for name in (*FEW, CONTROL):
        task = load_task(name)
        split = load_split(task, "test", encoder.image_size, here, 250)
        exact = evaluate_nonlinear(encoder, theta, split, encoder.head(task))
        found = {title: x for title, x in drawn(page).items() if title.startswith(task.title)}
        assert list(found.values()) == [pytest.approx(exact, abs=1e-12)]


def test_validation_chooses_alpha_along_the_direction(here, encoder):
    header = payload(open_merge({"m": "ties"}))
    taus = vectors(here, "linear")
    chosen = {**taus, MERGED: prepare(taus, "ties")}
    readings = {}
    for name in FEW:
        task = load_task(name)
        split = load_split(task, "validation", encoder.image_size, here)
        readings[name] = responses(encoder, task, split, chosen)
    found = search_direction(readings)
    assert [point["alpha"] for point in header["curve"]] == list(FARTHER)
    assert header["chosen"] == found["alpha"]
    assert header["presets"]["shared"]["alphas"] == [found["alpha"]]
    assert header["presets"]["each"]["alphas"] is None
    for shown, point in zip(header["curve"], found["validation"], strict=True):
        assert shown["normalized"] == pytest.approx(point["normalized"])
    # the benchmark itself says the same
    tasks = {name: load_task(name) for name in FEW}
    splits = {
        kind: {n: load_split(t, kind, encoder.image_size, here, 100) for n, t in tasks.items()}
        for kind in ("validation", "test")
    }
    short = {name: reading.take(100) for name, reading in readings.items()}
    record = addition(
        encoder, "linear", tasks, taus, **splits, direction=chosen[MERGED], alphas=FARTHER
    )
    assert search_direction(short)["alpha"] == record["alpha"]


def test_what_the_page_measured_the_command_line_recalls(here, capsys):
    from engine.__main__ import main

    open_merge({"m": "ties", "r": "nonlinear"})
    (kept,) = [e for e in here.find("result", what="addition") if e.meta["mode"] == "nonlinear"]
    words = ["addition", "--method", "ties", "--mode", "nonlinear", "--tasks", *FEW]
    capsys.readouterr()
    assert main([*words, "--cache", str(here.home), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["method"], told["options"]) == ("ties", {"density": 0.2})
    capsys.readouterr()
    assert main([*words, "--option", "drop=0", "--cache", str(here.home), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == told
    assert told["alpha"] == kept.meta["record"]["alpha"]
    assert len(here.find("result", what="addition", mode="nonlinear")) == 1


def test_no_method_changes_its_inputs(here):
    from engine.errors import EngineError

    checkpoints = merging.available("miniature", "linear")
    before = {name: digest_tensors(models.vector(c.digest)) for name, c in checkpoints.items()}
    theta0 = digest_tensors(models.encoder("miniature").theta0)
    for name, about in directions.methods().items():
        options = {key: option.usual for key, option in about.options.items()}
        choice = merging.choose("miniature", "linear", "sum", checkpoints, name, options)
        try:
            exports.merged_file(choice, {state.DIRECTION: 1.0})
        except EngineError as error:
            pytest.fail(f"{name}: {error}")
    after = {name: digest_tensors(models.vector(c.digest)) for name, c in checkpoints.items()}
    assert (before, theta0) == (after, digest_tensors(models.encoder("miniature").theta0))


@pytest.mark.parametrize("reading", ["linear", "nonlinear"])
def test_the_merged_file_is_the_method_at_alpha(here, encoder, reading):
    import safetensors.torch

    checkpoints = merging.available("miniature", reading)
    options = {"density": 0.6}
    choice = merging.choose("miniature", reading, "mean", checkpoints, "ties", options)
    data = exports.merged_file(choice, {state.DIRECTION: 0.4})
    tensors = safetensors.torch.load(data)
    direction = prepare(vectors(here, reading), "ties", density=0.6)
    head = "visual." if reading == "nonlinear" else "tau.visual."
    for name, value in direction.items():
        wanted = 0.4 * value.double()
        if reading == "nonlinear":
            wanted = encoder.theta0[name].double() + wanted
        torch.testing.assert_close(tensors[head + name].double(), wanted, rtol=0, atol=1e-6)
    (length,) = struct.unpack("<Q", data[:8])
    record = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["tauscope"])
    assert (record["method"], record["options"]) == ("ties", options)


def test_settings_of_other_methods_are_compared_but_not_set(here):
    page = open_merge({"m": "ties"})
    choice = merging.choose("miniature", "linear", "sum", merging.available("miniature", "linear"))
    base = {"encoder": "miniature", "reading": "linear", "convention": "sum"}
    base["digests"] = list(choice.digests)
    metrics = {"absolute": 0.4, "normalized": 0.8, "control": 0.3, "tasks": {"signs": 0.4}}
    ties = {**base, "method": "ties", "options": {"density": 0.2}}
    pins = [
        {"name": "A", "context": base, "alphas": {"letters": 0.5, "signs": 0.1}},
        {"name": "B", "context": ties, "alphas": {state.DIRECTION: 0.5}},
        {"name": "C", "context": {**base, "reading": "posthoc"}, "alphas": {}},
    ]
    page.session_state[state.MERGE_PINS] = [
        {**pin, "metrics": metrics, "exact": True} for pin in pins
    ]
    page.run()
    shown = {pin["name"]: pin for pin in payload(page)["pinned"]}
    assert set(shown) == {"A", "B"}
    assert (shown["A"]["alphas"], shown["A"]["note"]) == (None, "sum")
    assert shown["B"]["alphas"] == [0.5]
    table = page.dataframe[0].value.set_index("measure")
    assert list(table.loc["method", ["A", "B"]]) == ["sum", "ties (density 0.2)"]
    assert table.loc["alpha, the direction", "B"] == "0.500"


# ------------------------------------------------------------------------------------- pure parts


def test_alphas_follow_a_change_of_method_and_back():
    tasks = ("a", "b")
    held = state.remembered({}, tasks, {"a": 0.4, "b": 0.9})
    assert held[state.DIRECTION] == 0.65
    unmoved = state.remembered(held, tasks, {state.DIRECTION: 0.65})
    assert (unmoved["a"], unmoved["b"]) == (0.4, 0.9)
    moved = state.remembered(held, tasks, {state.DIRECTION: 1.0})
    assert (moved["a"], moved["b"]) == (1.0, 1.0)
    negative = state.remembered({}, tasks, {"a": -1.0, "b": -0.5})
    assert negative[state.DIRECTION] == 0.0
    back = state.remembered(negative, tasks, {state.DIRECTION: 0.0})
    assert (back["a"], back["b"]) == (-1.0, -0.5)


def test_an_address_of_a_method_is_read_back():
    view = state.MergeView(
        "miniature", "linear", None, ("a,b", "c"), {state.DIRECTION: 1.25}, "dare",
        {"drop": 0.5, "seed": 7.0},
    )  # fmt: skip
    assert state.from_query(state.to_query(view)) == view
    tsv = state.MergeView("m", "linear", None, ("c",), {state.DIRECTION: 1.0}, "tsv")
    assert state.QUERY_OPTIONS not in state.to_query(tsv)
    assert state.from_query(state.to_query(tsv)) == tsv


@pytest.mark.parametrize(
    ("value", "kept"),
    [(0.5, 0.5), (7, 1.0), (-1, 0.0), (None, 0.2), ("x", 0.2), (float("nan"), 0.2), (True, 0.2)],
)
def test_a_number_stays_within_its_range(value, kept):
    assert state.within(value, 0.0, 1.0, 0.2) == kept


def test_one_direction_has_one_slider():
    task = EvaluatedTask("a", "A", np.zeros(2, int), np.zeros((3, 2, 2), np.float32), ("x", "y"))
    with pytest.raises(ValueError, match="got 2 sliders for one direction, expected a single one"):
        pack([task], {"a": "A", "b": "B"}, alphas={"a": 0, "b": 0}, direction="TIES")
