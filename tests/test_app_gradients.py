"""The Gradients page: its numbers, its address, its four sections, jobs, and what a click does."""

import json
import math

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.components.epochs import View, read_view
from app.compute import gradients as compute
from app.compute import gradients_jobs, gradients_tables
from app.compute import jobs as launching
from app.compute.background import board
from app.figures import gradients as figures
from app.figures import gradients_merging as merging
from engine.__main__ import build_parser
from engine.encoders import load_encoder
from engine.errors import CheckpointError
from engine.gradients import keep_gradients
from engine.jobs import Jobs
from engine.store import Store
from tests import shown_pages
from tests.gradient_records import ALPHAS, LAYERS, MARKS, RATES, TASKS, N, make_record
from tests.made_jobs import asleep, change_job
from tests.shown_pages import TIMEOUT, texts, use
from tests.tiny_world import make_encoder

SECTIONS = ("exactness", "trajectory", "early", "bridge")

pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    """An encoder with an answer of full-batch descent and one of AdamW."""
    store = make_encoder(tmp_path_factory.mktemp("world"))
    digest = load_encoder("miniature", store).digest
    for regime in ("gd", "adamw"):
        keep_gradients(store, regime, make_record(regime, encoder_digest=digest))
    return store


@pytest.fixture
def here(world, monkeypatch) -> Store:
    asleep(monkeypatch)
    return use(monkeypatch, world)


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Store:
    asleep(monkeypatch)
    return use(monkeypatch, make_encoder(tmp_path))


def open_page(**query: str) -> AppTest:
    page = shown_pages.open_page("gradients", **query)
    assert not page.exception
    return page


def charts(page: AppTest) -> dict[str, dict]:
    """Figures by their titles' first line."""
    specs = [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]
    return {spec["layout"]["title"]["text"].split("<br>")[0]: spec for spec in specs}


def lines(spec: dict) -> dict[str, dict]:
    return {trace["name"]: trace for trace in spec["data"] if "name" in trace}


def in_address(page: AppTest, key: str) -> str | None:
    found = page.query_params.get(key)
    return found[0] if isinstance(found, list) else found


def answer(regime: str = "gd", **changes) -> compute.Answer:
    record = make_record(regime, **changes)
    return compute.Answer(compute.run_of(record), record)


# ------------------------------------------------------------------------------ pure functions


def test_an_address_restores_the_view():
    view = state.GradientsView(
        encoder="miniature",
        regime="sgd",
        run="0123abcd",
        section="bridge",
        mode="linear",
        task="a,b",
        epoch=4,
        alpha=0.3,
        pair=("a,b", "c"),
        measure="normalized",
    )
    assert state.gradients_visited(state.gradients_query(view)) == view
    assert not state.elsewhere(state.gradients_query(view), state.gradients_query(view))
    own = state.GradientsView(encoder="x", alpha=state.OWN)
    assert state.gradients_visited(state.gradients_query(own)) == own


@pytest.mark.parametrize(
    ("query", "field", "empty"),
    [
        ({"m": "magic"}, "regime", None),
        ({"r": "posthoc"}, "mode", None),
        ({"p": "-3"}, "epoch", None),
        ({"p": "99999999999"}, "epoch", None),
        ({"a": "nan"}, "alpha", None),
        ({"q": "a"}, "pair", ()),
        ({"q": "a,a"}, "pair", ()),
    ],
)
def test_a_senseless_address_gives_nothing(query, field, empty):
    assert getattr(state.gradients_visited({**query, "e": "x"}), field) == empty


@pytest.mark.parametrize(
    ("raw", "view"),
    [
        ({"view": {"revision": 1, "epoch": 4, "alpha": 0.5}}, View(4, 0.5)),
        ({"view": {"revision": 1, "epoch": 3.4, "alpha": 9}}, View(4, 1.0)),
        ({"view": {"revision": 1, "epoch": 2, "alpha": None}}, View(2, None)),
        ({"view": {"revision": 0, "epoch": 4, "alpha": 0.5}}, View(2, 0.0)),
        ({"view": {"revision": 1, "epoch": "4", "alpha": True}}, View(2, 0.0)),
        ({"view": 7}, View(2, 0.0)),
        (None, View(2, 0.0)),
    ],
)
def test_a_state_of_the_explorer_is_read_with_care(raw, view):
    assert read_view(raw, [1, 2, 4], [0.0, 0.5, 1.0], 2, 0.0, 1) == view


def test_the_explorer_stands_at_the_last_epoch_where_nothing_is_asked():
    assert read_view(None, [1, 2, 4], [0.0, 0.5], None, None, 0) == View(4, None)


def test_an_answer_is_named_by_what_was_asked_alone():
    one = make_record()
    assert compute.run_of(one) == compute.run_of({**one, "seconds": 9.0, "commit": "another"})
    others = [{"seed": 1}, {"epochs": 8}, {"tasks": ["signs"]}, {"n_test": {"signs": 9}}]
    named = {compute.run_of({**one, **change}) for change in others}
    assert len(named | {compute.run_of(one)}) == 5
    assert compute.run_of({**one, "bridge": None}) == compute.run_of(one)  # the same, in parts


def test_the_explorer_holds_what_was_measured_and_stands_where_validation_chose():
    found = answer()
    data = compute.live(found, "linear", 2, None, 7)
    merged = found.record["merged"]["linear"]
    assert (data["epochs"], data["alphas"]) == (list(MARKS), list(ALPHAS))
    for task in data["tasks"]:
        assert task["merged"] == merged["accuracy"][task["name"]]
    assert data["alphas"][data["mean"]] == pytest.approx(1 / len(TASKS))
    for e, place in enumerate(data["chosen"]):
        scores = merged["validation"]["normalized"][e]
        assert scores[place] == max(scores)


def test_the_plane_s_merge_is_the_projection_of_the_merge():
    """The browser draws origin + alpha sum_t (path_t - origin): affine maps keep such sums."""
    projection = answer().record["trajectory"]["nonlinear"]["projection"]
    plane = compute.plane(answer(), "nonlinear")
    for k, merge in enumerate(projection["merge"]):
        origin = plane["paths"][0][0]
        for axis in (0, 1):
            moved = sum(path[k][axis] - origin[axis] for path in plane["paths"])
            assert origin[axis] + plane["alpha"] * moved == pytest.approx(merge[axis], abs=1e-12)


def test_the_worst_equality_is_the_largest_and_missing_ones_are_no_zero():
    record = make_record()
    tasks = record["exactness"]["linear"]["tasks"]
    tasks["letters"]["one_step"]["ulps"] = 0.75
    tasks["signs"]["one_step"]["relative"] = 3e-13
    for part in tasks.values():
        part["one_step"] |= {"ulps_float32": None, "relative_float32": None}
    worst = compute.worst_equalities(compute.Answer("x", record), "linear")
    assert worst["one_step"] == (0.75, 3e-13)
    assert worst["one_step_float32"] == (None, None)
    assert worst["merge"] == (1.0, None)


def test_errors_by_layer_are_relative_to_what_the_layer_moved():
    record = make_record()
    layers = record["exactness"]["nonlinear"]["tasks"]["signs"]["layers"]
    layers["proj"] = {"displacement": [0.0] * 3, "raw": [0.0] * 3, "corrected": [0.0] * 3}
    found = compute.layers_of(compute.Answer("x", record), "nonlinear", "signs", 2)
    assert list(found) == list(LAYERS)
    for layer in LAYERS[:2]:
        assert found[layer]["raw"] == pytest.approx(RATES[2])
        assert found[layer]["corrected"] == pytest.approx(RATES[2] ** 2)
    assert found["proj"] == {"raw": None, "corrected": None}


def test_equalities_by_layer_are_told_where_they_were_measured():
    record = make_record()
    old = record["exactness"]["linear"]["tasks"]["signs"]["layers"]["proj"]
    del old["one_step_ulps"], old["telescoping_ulps"]  # as in answers kept before
    found = compute.Answer("x", record)
    first, *_, last = gradients_tables.layer_equality_rows(found, "linear", "signs")
    assert first == {
        "layer": LAYERS[0],
        "one step (ulps)": 0.5,
        "telescoping (ulps)": 1.5,
        "slope, raw": 2.0,
        "slope, corrected": 3.0,
    }
    assert (last["layer"], last["one step (ulps)"], last["slope, raw"]) == ("proj", None, 2.0)
    rows = gradients_tables.layer_rows(found, "linear", "signs")
    assert [row["telescoping_ulps"] for row in rows[:: len(RATES)]] == [1.5, 1.5, None]


def test_tasks_layers_and_modes_keep_their_order_through_the_store(here):
    (found,) = compute.kept("miniature")["gd"]
    assert found.tasks == list(TASKS) != sorted(TASKS)
    part = found.part("exactness", "linear")
    assert [task for task, _ in found.each(part)] == list(TASKS)
    assert [layer for layer, _ in found.layers(part["tasks"]["signs"])] == list(LAYERS)
    rows = gradients_tables.iterative_rows(found)
    assert [row["method"] for row in rows[:: len(MARKS) + 1]] == [*compute.METHODS] * 2
    assert [row["mode"] for row in rows[:: 3 * (len(MARKS) + 1)]] == ["nonlinear", "linear"]


def test_rows_have_every_number_once():
    found = answer()
    T, K, E, A, L = len(TASKS), MARKS[-1], len(MARKS), len(ALPHAS), len(LAYERS)
    tables = gradients_tables
    assert len(tables.error_rows(found, "linear")) == T * len(RATES)
    assert len(tables.layer_rows(found, "linear", "signs")) == L * len(RATES)
    assert len(tables.layer_share_rows(found, "linear")) == T * L
    assert len(tables.epoch_rows(found, "linear")) == T * K
    assert len(tables.plane_rows(found, "linear")) == (T + 2) * (K + 1)
    assert len(tables.merged_rows(found, "linear")) == T * E * A
    assert len(tables.early_rows(found)) == 2 * E * 2 * (1 + T)
    assert len(tables.iterative_rows(found)) == 2 * 3 * (E + 1)
    assert len(tables.point_rows(found)) == 2 * 2 * math.comb(T, 2)
    for row in tables.merged_rows(found, "linear"):
        e, a = MARKS.index(row["epochs"]), ALPHAS.index(row["alpha"])
        table = found.record["merged"]["linear"]
        assert row["accuracy"] == table["accuracy"][row["task"]][e][a]
        assert row["mean_absolute"] == table["absolute"][e][a]


def test_provenance_says_what_made_the_numbers():
    made = gradients_tables.made(answer("adamw"), "x", mode="linear")
    assert made["kind"] == "exact"
    assert made["regime"] == "adamw"
    assert made["n"]["test"] == dict.fromkeys(TASKS, N)
    assert set(made["split_digests"]["signs"]) == {"train", "validation", "test"}


# ------------------------------------------------------------------------------------- figures


def test_errors_are_drawn_with_slopes_and_the_rounding_floor():
    found = answer().part("exactness", "linear")
    part = {
        **found["tasks"]["signs"],
        "corrected": [0.0, *found["tasks"]["signs"]["corrected"][1:]],
    }
    figure = figures.errors(part, found["rates"], found["floor"], "title")
    raw, corrected, posteriori, priori, floor = figure.data
    assert "slope 2.00" in raw.name
    assert "slope 3.00" in corrected.name
    assert list(raw.y) == part["raw"]
    assert corrected.y[0] is None  # a logarithmic axis has no zero
    assert list(posteriori.y) == part["bound_posteriori"]
    assert priori.y[-1] is None
    assert set(floor.y) == {found["floor"]}
    assert figure.layout.xaxis.type == figure.layout.yaxis.type == "log"
    unfitted = figures.errors({**part, "slope_raw": None}, found["rates"], None, "title")
    assert "slope not fitted" in unfitted.data[0].name
    assert len(unfitted.data) == 4


def test_no_two_lines_look_alike():
    looks = [figures.look(place) for place in range(40)]
    assert len(set(looks)) == 40


def test_a_missing_cosine_is_no_zero():
    figure = figures.cosines([[1.0, None], [None, 1.0]], ["a", "b"], "title")
    (heat,) = figure.data
    assert heat.z[0][1] is None
    assert heat.text[0][1] == "–"
    assert (heat.zmin, heat.zmax) == (-1, 1)


def test_the_early_figure_marks_zero_shot_and_the_last_merge():
    found = answer()
    rows = list(compute.early_rows(found, "linear", at_mean=True).values())
    figure = merging.early({"linear": rows}, "absolute", "axis", "title", 0.3)
    line, converged, zeroshot = figure.data
    assert list(line.x) == list(MARKS)
    assert list(line.y) == [row["absolute"] for row in rows]
    assert np.allclose(line.error_y.array, [row["high"] - row["absolute"] for row in rows])
    assert set(converged.y) == {rows[-1]["absolute"]}
    assert set(zeroshot.y) == {0.3}
    normalized = merging.early({"linear": rows}, "normalized", "axis", "title", None)
    assert normalized.data[0].error_y.array is None


def test_the_scatter_carries_pairs_and_rings_the_one_chosen():
    points = compute.points(answer(), 0.5)
    titles = {task: task for task in TASKS}
    axes = (("predicted", "x"), ("measured", "y"))
    figure = merging.scatter(points, titles, axes, ("letters", "signs"), "title", diagonal=True)
    diagonal, nonlinear, linear = figure.data
    assert diagonal.mode == "lines"
    for trace, mode in ((nonlinear, "nonlinear"), (linear, "linear")):
        mine = [point for point in points if point["mode"] == mode]
        assert list(trace.y) == [point["measured"] for point in mine]
        assert [tuple(carried) for carried in trace.customdata] == [
            (*point["pair"], mode) for point in mine
        ]
        ringed = [set(point["pair"]) == {"signs", "letters"} for point in mine]
        assert [size > 10 for size in trace.marker.size] == ringed
    none = merging.scatter(compute.points(answer("sgd"), 0.5), titles, axes, (), "title")
    assert len(none.data) == 0


# ------------------------------------------------------------------------------------ the page


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("regime", ["gd", "adamw"])
def test_every_section_draws_what_is_kept(here, section, regime):
    page = open_page(v=section, m=regime)
    assert not page.error
    assert in_address(page, "v") == section
    assert in_address(page, "m") == regime
    if (section, regime) == ("exactness", "adamw"):
        assert "statement about full-batch gradient descent" in texts(page, "info")
        assert "no sum of gradients" in texts(page, "info")  # B gradients are SGD's alone
    else:
        assert charts(page)
    for spec in charts(page).values():
        assert spec["layout"]["title"]["text"].count("<br>") == 1


def test_exactness_shows_numbers_with_their_floor(here):
    page = open_page(v="exactness", t="letters", r="linear")
    values = {metric.label: metric.value for metric in page.metric}
    assert values["One full-batch step: τ = −ηg"] == "0.5 ulp"
    assert values["4 steps: τ = −η Σ g(θᵏ)"] == "1.5 ulp"
    assert values["Merge after one step = joint step"] == "1 ulp"
    assert values["The same step in float32"] == "3.0e-04"
    assert "floor 1 ulp" in texts(page, "caption")
    drawn = charts(page)
    spec = drawn["Letters: error after K = 4 full-batch steps"]
    assert "n = 60" in spec["layout"]["title"]["text"]
    assert any("slope 2.00" in name for name in lines(spec))
    page.selectbox(key="gradients_rate").set_value(RATES[0]).run()
    assert "Letters: error by layer at η = 0.01" in charts(page)
    page.selectbox(key=state.GRADIENTS_TASK).set_value("signs").run()
    assert not page.exception
    assert in_address(page, "t") == "signs"


def test_the_check_runs_in_the_background_and_is_shown(here, monkeypatch):
    rates = [0.1, 0.2]
    curves = {name: rates for name in ("rates", *figures.ERRORS)}
    checks = [
        {"name": "one step", "value": 0.5, "passes_when": "at most 1 ulp", "passed": True},
        {"name": "raw slope", "value": 1.7, "passes_when": "2.0 ± 0.1", "passed": False},
    ]
    found = {"checks": checks, "curves": curves, "slope_raw": 1.7, "slope_corrected": 3.0}
    found |= {"passed": False, "seconds": 0.1}
    monkeypatch.setattr("engine.gradients.check", lambda: found)
    page = open_page(v="exactness")
    assert "gradients_check_start" in {button.key for button in page.button}
    page.button(key="gradients_check_start").click().run()
    for work in board().pending():
        assert work.wait(TIMEOUT)
    page.run()
    assert not page.exception
    assert "1 of 2 checks pass" in texts(page, "markdown")
    (table,) = [frame.value for frame in page.dataframe if "passes when" in frame.value]
    assert list(table[""]) == ["✓ passed", "✗ failed"]
    assert "Small smooth network: error against the rate" in charts(page)


def test_trajectory_draws_shares_and_the_four_cosines(here):
    page = open_page(v="trajectory", t="signs", p="2", a="0.5")
    drawn = charts(page)
    part = make_record()["trajectory"]["nonlinear"]["tasks"]["signs"]
    spec = drawn["Displacement: share by epoch"]
    assert lines(spec)["Signs"]["y"] == part["displacement_share"]
    assert lines(spec)["uniform share, 1/K = 25.0%"]["y"] == [0.25, 0.25]
    for name in ("cos(τ⁽ᵏ⁾, −g₀)", "cos(τ⁽ᵏ⁾, τ⁽ᴷ⁾)", "cos(gₜ, gₜ′), gradients of the tasks at θ₀"):
        assert name in drawn
    assert "cos(τₜ, τₜ′), τₜ after 2 epochs" in drawn
    assert "Signs: cos(gᵢ, gⱼ), gradients of its epochs" in drawn
    assert (in_address(page, "p"), in_address(page, "a")) == ("2", "0.5")
    page.segmented_control(key=state.GRADIENTS_QUANTITY).set_value("loss").run()
    assert not page.exception
    assert lines(charts(page)["Loss"])["Signs"]["y"] == part["loss"]


def test_a_released_slider_moves_the_address_and_the_cosines(here):
    page = open_page(v="trajectory", p="1", a="own")
    (widget,) = page.get("bidi_component")
    sent = json.loads(widget.proto.json)
    assert (sent["epoch"], sent["alpha"]) == (1, None)
    assert sent["tasks"][0]["merged"] == make_record()["merged"]["nonlinear"]["accuracy"]["signs"]
    held = {"revision": sent["revision"], "epoch": 4, "alpha": 1.0}
    page.session_state[state.GRADIENTS_EPOCHS] = {"view": held}
    page.run()
    assert not page.exception
    assert (in_address(page, "p"), in_address(page, "a")) == ("4", "1")
    assert "cos(τₜ, τₜ′), τₜ after 4 epochs" in charts(page)


def test_what_the_paper_reports_stands_apart(here):
    page = open_page(v="early")
    assert "What the paper reports" in [item.label for item in page.expander]
    shown = [frame.value for frame in page.dataframe][-3:]
    assert list(shown[0].set_index("").loc["GTSRB"]) == ["68.1", "9.1"]
    assert shown[1].set_index("").loc["converged", "merged, %"] == "72.56"
    assert shown[2].set_index("").loc["30 rounds", "iterative, %"] == "90.45"
    said = " ".join(item.value for item in page.caption)
    assert "Theirs, not measured here. On Task Vectors and Gradients, arXiv:2508.16082" in said
    # nothing of theirs is drawn
    drawn = " ".join(chart.proto.spec for chart in page.get("plotly_chart"))
    assert "72.56" not in drawn


def test_merging_early_stands_beside_the_last_merge(here):
    page = open_page(v="early", y="absolute", r="linear")
    rows = compute.early_rows(answer(), "linear", at_mean=True)
    values = {metric.label: metric.value for metric in page.metric}
    assert values["Linear: merged after 1 epoch"] == f"{100 * rows[1]['absolute']:.1f} %"
    assert values["Linear: after 4 epochs, the last"] == f"{100 * rows[4]['absolute']:.1f} %"
    drawn = charts(page)
    assert "By task, linear" in drawn
    spec = drawn["Merging after 1, 2, 4 … epochs, α = 0.333"]
    assert lines(spec)["Linear"]["y"] == [row["absolute"] for row in rows.values()]
    compute_axis = drawn["Linear: equal compute, α = 0.333"]
    assert compute_axis["layout"]["xaxis"]["title"]["text"] == "images differentiated"
    page.segmented_control(key=state.GRADIENTS_MEASURE).set_value("normalized").run()
    page.segmented_control(key=state.GRADIENTS_AT_MEAN).set_value(False).run()
    assert not page.exception
    assert in_address(page, "y") == "normalized"


def test_the_bridge_shows_every_pair_and_opens_its_map(here):
    page = open_page(v="bridge", q="letters,signs")
    assert in_address(page, "q") == "signs,letters"
    points = compute.points(answer(), 1.0)
    spec = charts(page)["Merge against joint training: predicted and measured"]
    drawn = [value for name in ("Non-linear", "Linear") for value in lines(spec)[name]["y"]]
    assert sorted(drawn) == sorted(point["measured"] for point in points)
    page.segmented_control(key=state.GRADIENTS_ALPHA).set_value(0.5).run()
    page.selectbox(key=state.GRADIENTS_PAIR).set_value(("letters", "sites")).run()
    assert not page.exception
    assert in_address(page, "q") == "letters,sites"
    page.button(key="gradients_to_map_button").click().run()
    assert not page.exception
    held = page.session_state
    assert (held[state.XI_FIRST], held[state.XI_SECOND]) == ("letters", "sites")
    assert held[state.XI_ENCODER] == "miniature"
    assert held[state.XI_ALPHAS]["letters"] == held[state.XI_ALPHAS]["sites"] == 0.5
    assert held[state.GRADIENTS_TO_MAP] == "handed on"  # the app around the page goes on


def test_a_click_on_a_point_chooses_its_pair(monkeypatch):
    from app.pages.gradienting import bridge

    held = {"chart": {"selection": {"points": [{"customdata": ["letters", "sites", "linear"]}]}}}
    monkeypatch.setattr(bridge.st, "session_state", held)
    bridge.pick("chart")
    assert held[state.GRADIENTS_PAIR] == ("letters", "sites")
    assert held[state.XI_READING] == "linear"
    held["chart"] = {"selection": {"points": []}}
    bridge.pick("chart")
    assert held[state.GRADIENTS_PAIR] == ("letters", "sites")


def test_without_the_theorem_the_prediction_is_not_drawn(here):
    page = open_page(v="bridge", m="adamw")
    assert "The prediction is about full-batch gradient descent" in texts(page, "info")
    assert "Merge against joint training, and disentanglement" in charts(page)


def test_a_section_that_was_not_asked_says_how_to_get_it(empty):
    digest = load_encoder("miniature", empty).digest
    keep_gradients(empty, "part", make_record(encoder_digest=digest, bridge=None))
    page = open_page(v="bridge")
    assert "python -m engine gradients --encoder miniature --regime gd" in texts(page, "info")


def test_an_answer_without_a_section_leads_to_the_one_that_has_it(empty):
    digest = load_encoder("miniature", empty).digest
    whole = make_record("adamw", encoder_digest=digest)
    part = make_record("adamw", encoder_digest=digest, seed=3, bridge=None)
    keep_gradients(empty, "whole", whole)
    keep_gradients(empty, "part", part)
    page = open_page(v="bridge", m="adamw")
    assert in_address(page, "u") == compute.run_of(whole)  # most sections first, not the newest
    page = open_page(v="bridge", m="adamw", u=compute.run_of(part))
    assert "Another has it: 3 tasks" in texts(page, "info")
    page.button(key="gradients_other_answer").click().run()
    assert not page.exception
    assert in_address(page, "u") == compute.run_of(whole)
    assert charts(page)


def test_sections_asked_one_after_the_other_are_one_answer(empty):
    digest = load_encoder("miniature", empty).digest
    whole = make_record("adamw", encoder_digest=digest)
    parts = ("trajectory", "merged", "early", "iterative")
    later = {**whole, **dict.fromkeys(parts), "rate": {m: 0.02 + 1e-12 for m in whole["modes"]}}
    keep_gradients(empty, "before", {**whole, "bridge": None, "commit": "old"})
    keep_gradients(empty, "later", later)
    (found,) = compute.kept("miniature")["adamw"]
    assert found.record["bridge"] == whole["bridge"]
    assert found.record["merged"] == whole["merged"]
    assert [part["commit"] for part in found.record["parts"]] == ["test", "old"]
    assert gradients_tables.made(found, "x")["measured_with"]["parts"] == found.record["parts"]
    assert "without" not in compute.named(found)
    assert compute.named(compute.Answer("x", later)).endswith(", bridge only")
    without = compute.Answer("x", {**whole, "bridge": None})
    assert compute.named(without).endswith(", without bridge")


def test_sgd_shows_what_holds_of_it_and_how_far_the_equality_is_off(empty):
    digest = load_encoder("miniature", empty).digest
    record = make_record("sgd", encoder_digest=digest)
    keep_gradients(empty, "sgd", record)
    page = open_page(v="exactness", m="sgd", r="linear")
    assert "not equality" in texts(page, "info")
    (table,) = [frame.value for frame in page.dataframe if "τ⁽¹⁾ + ηB∇L, relative" in frame.value]
    part = record["trajectory"]["linear"]["tasks"]["letters"]
    step = record["rate"]["linear"] * record["steps_per_epoch"] * part["gradient"][0]
    aside = part["tau_norm"][1] * math.sqrt(1 - part["cosine_descent"][0] ** 2)
    along = part["tau_norm"][1] * part["cosine_descent"][0]
    wanted = math.hypot(along - step, aside) / step
    shown = table[table["task"] == "Letters"]["τ⁽¹⁾ + ηB∇L, relative"].item()
    assert shown == f"{wanted:.3g}"
    assert set(table["τ⁽ᴷ⁾ + η Σ g of the steps, relative"]) == {"1.00e-16"}
    assert "gradients_minibatches" not in str(open_page(v="exactness", m="adamw"))


# ---------------------------------------------------------------------------------------- jobs


def test_what_is_not_there_is_offered_and_becomes_one_job(empty):
    page = open_page(v="early", m="sgd")
    assert "Not measured yet: Minibatch SGD, miniature" in texts(page, "markdown")
    page.button(key="gradients_offer_start").click().run()
    assert not page.exception
    (job,) = Jobs(empty.home).list()
    assert job.verb == "gradients"
    assert job.arguments == ("--encoder", "miniature", "--regime", "sgd")
    line = gradients_jobs.words("miniature", "sgd", {})
    assert launching.launch(line) == job.id  # asked again while at work: the same job
    assert "gradients_offer_start" not in {button.key for button in page.run().button}


def test_the_form_writes_the_command_line(here):
    page = open_page(v="exactness")
    page.multiselect(key=state.GRADIENTS_FORM + "tasks").set_value(["signs"]).run()
    assert "One task has nothing to be merged with" in texts(page, "caption")
    page.multiselect(key=state.GRADIENTS_FORM + "tasks").set_value(["signs", "letters"])
    page.number_input(key=state.GRADIENTS_FORM + "epochs").set_value(3).run()
    page.button(key="gradients_form_start").click().run()
    assert not page.exception
    (job,) = Jobs(here.home).list()
    assert job.arguments[4:] == ("--tasks", "letters", "signs", "--epochs", "3")
    parsed = build_parser().parse_args(["gradients", *job.arguments])
    assert (parsed.tasks, parsed.epochs, parsed.regime) == (["letters", "signs"], 3, "gd")
    change_job(job, state="done")


def test_a_job_can_be_cancelled_resumed_and_discarded(empty):
    jobs = Jobs(empty.home)
    job = jobs.submit(gradients_jobs.words("miniature", "gd", {"epochs": 2}))
    page = open_page(v="early")
    page.button(key=f"gradients_cancel_{job.id}").click().run()
    assert not page.exception
    assert jobs.get(job.id).state == "cancelled"
    page.button(key=f"gradients_resume_{job.id}").click().run()
    assert not page.exception
    assert jobs.get(job.id).state == "queued"
    change_job(job, state="failed", error="no space is left; make room and resume")
    page.run()
    assert "No space is left; make room and resume" in texts(page, "error")
    page.button(key=f"gradients_delete_{job.id}").click().run()
    assert jobs.list() == []


def test_a_job_that_ends_shows_its_answer(here):
    digest = load_encoder("miniature", here).digest
    job = Jobs(here.home).submit(gradients_jobs.words("miniature", "gd", {"seed": 7}))
    page = open_page(v="early", m="gd")
    first = in_address(page, "u")
    entry = keep_gradients(here, "seven", make_record(seed=7, encoder_digest=digest))
    assert in_address(page.run(), "u") == first  # it does not jump while one looks at another
    change_job(job, state="done")
    page.run()
    assert not page.exception
    assert in_address(page, "u") == compute.run_of(make_record(seed=7))
    here.delete(entry)


# ------------------------------------------------------------------------- empty and failing


def test_without_an_encoder_the_page_names_the_command(tmp_path, monkeypatch):
    use(monkeypatch, Store(tmp_path))
    page = open_page()
    assert "python -m engine pretrain" in texts(page, "info")


def test_a_users_error_is_a_message_and_a_bug_stays_loud(here, monkeypatch):
    def broken(error):
        def kept(_):
            raise error

        monkeypatch.setattr(compute, "kept", kept)

    broken(CheckpointError("this result is damaged; measure it again"))
    assert "This result is damaged; measure it again" in texts(open_page(), "error")
    broken(RuntimeError("a bug"))
    page = shown_pages.open_page("gradients")
    assert len(page.exception) == 1
