"""The Negate page in Streamlit's own test runner, and what it is made of."""

import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.components.negation import read_alpha
from app.compute import negation as compute
from app.figures import negation as figures
from engine.__main__ import main
from engine.store import Store
from tests import shown_pages
from tests.shown_pages import FEW, use
from tests.tiny_world import make_encoder, make_world

pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    """Two tasks, measured in the linear reading alone."""
    store = make_world(tmp_path_factory.mktemp("world"), FEW)
    words = ["negation", "--mode", "linear", "--tasks", *FEW, "--cache", str(store.home)]
    assert main(words) == 0
    return store


@pytest.fixture
def here(world, monkeypatch) -> Store:
    return use(monkeypatch, world)


def open_page(**query: str) -> AppTest:
    page = shown_pages.open_page("negate", **query)
    assert not page.exception
    return page


def address(page: AppTest) -> str:
    found = page.query_params["a"]
    return found if isinstance(found, str) else found[0]


def test_the_page_shows_what_the_command_measured(here):
    page = open_page()
    record = here.find("result", what="negation")[0].meta["record"]
    (metric,) = page.metric
    assert metric.label == "Linear: mean of 2 tasks"
    assert metric.value == f"{100 * record['target']:.1f} %"
    assert any("Not run yet: 4 cells" in item.value for item in page.caption)
    assert address(page) == "own"


def test_the_grid_holds_the_validation_curves(here):
    found = compute.kept("miniature")
    titles = {name: name for name in (*FEW, "objects", *compute.READINGS)}
    data = compute.grid(found, list(FEW), titles)
    record = here.find("result", what="negation")[0].meta["record"]
    assert data["alphas"] == [round(0.05 * k, 2) for k in range(21)]
    for task in data["tasks"]:
        assert list(task["cells"]) == ["linear"]
        cell, row = task["cells"]["linear"], record["tasks"][task["name"]]
        assert cell["target"] == [point["target_validation"] for point in row["curve"]]
        assert cell["control"] == [point["control_validation"] for point in row["curve"]]
        assert cell["intact"] == cell["control"][0] == record["control_validation_pretrained"]
        assert cell["control"][data["alphas"].index(cell["chosen"])] >= 0.95 * cell["intact"]


def test_results_of_other_vectors_are_not_shown(here):
    (entry,) = here.find("result", what="negation")
    record = {**entry.meta["record"], "taus": dict.fromkeys(FEW, "0" * 64), "created": "x"}
    other = here.put("result", {}, {**entry.meta, "key": "other", "record": record})
    assert compute.kept("miniature")["linear"]["signs"].record["taus"] != record["taus"]
    here.delete(other)


@pytest.mark.parametrize(
    "changed",
    [
        {"keep": 0.5},
        {"control_task": "letters"},
        {"limit": 100},
        {"method": "ties", "options": {"density": 0.2}},
    ],
)
def test_results_of_other_settings_do_not_take_the_cells(here, changed):
    (entry,) = here.find("result", what="negation")
    before = compute.kept("miniature")
    rows = {
        task: {**row, "alpha": 0.95, "target": 0.0}
        for task, row in entry.meta["record"]["tasks"].items()
    }
    record = {**entry.meta["record"], "tasks": rows, **changed}
    other = here.put("result", {}, {**entry.meta, **changed, "key": "other", "record": record})
    try:
        assert here.find("result", what="negation")[0].digest == other.digest  # the newest
        assert compute.kept("miniature") == before
    finally:
        here.delete(other)


def test_what_lacks_becomes_one_job_a_reading(here, monkeypatch):
    asked = []

    class Queue:
        def list(self):
            return []

        def submit(self, words):
            asked.append(words)
            return type("Job", (), {"id": f"job{len(asked)}"})

    monkeypatch.setattr(compute.jobs, "queue", Queue)
    monkeypatch.setattr(compute, "running", list)
    page = open_page()
    page.button(key=state.NEGATE_RUN).click().run()
    assert not page.exception
    assert [words[:5] for words in asked] == [
        ["negation", "--encoder", "miniature", "--mode", mode] for mode in ("nonlinear", "posthoc")
    ]
    assert all(set(words[6:]) == set(FEW) for words in asked)


def test_the_address_moves_the_slider(here):
    assert address(open_page(a="0.25")) == "0.25"
    assert address(open_page(a="0.27")) == "0.25"
    assert address(open_page(a="none at all")) == "own"


def test_without_vectors_the_page_says_what_to_do(tmp_path, monkeypatch):
    use(monkeypatch, make_encoder(tmp_path))
    page = open_page()
    assert "has no task vectors yet" in page.info[0].value


@pytest.mark.parametrize(
    ("raw", "alpha"),
    [
        ({"alpha": 0.5}, 0.5),
        ({"alpha": None}, None),
        ({"alpha": 7}, 1.0),
        ({"alpha": True}, 0.5),
        ({"alpha": "1"}, 0.5),
        ({}, 0.5),
        (None, 0.5),
    ],
)
def test_a_state_of_the_grid_is_read_with_care(raw, alpha):
    assert read_alpha(raw, [0.0, 0.5, 1.0], 0.6) == alpha


def test_the_figure_draws_every_reading_with_its_interval(here):
    rows = compute.rows(
        compute.kept("miniature"),
        list(FEW),
        {n: n for n in (*FEW, "linear", "nonlinear", "posthoc")},
    )
    figure = figures.negated(rows, ["nonlinear", "posthoc", "linear"], "caption")
    assert [trace.name for trace in figure.data] == ["zero-shot", "linear"]
    drawn = figure.data[1]
    for row, x, high in zip(rows, drawn.x, drawn.error_x.array, strict=True):
        assert (x, x + high) == (row["negated"], pytest.approx(row["negated high"]))
