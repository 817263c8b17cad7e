"""The Results page in Streamlit's own test runner, against what the store and the engine say."""

import io
import json
import zipfile

import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.compute import jobs, result_tables
from app.compute import results as compute
from app.figures import results as figures
from engine.__main__ import main
from engine.exhibits import EXHIBITS, filled
from engine.exhibits.comparing import compared
from engine.exhibits.exhibit import Cell, Column, Row, Table
from engine.jobs import Jobs
from engine.store import Store
from engine.tasks import TASKS, miniature
from tests import shown_pages
from tests.shown_pages import settle, texts, use
from tests.tiny_world import make_world

ALL = "all, their mean"


class Still(Jobs):
    """Real folders, and nobody who starts the work."""

    def _start_supervisor(self):
        return None


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(miniature.SIZES, "train", 2000)
        patch.setitem(miniature.SIZES, "test", 120)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory, small) -> Store:
    """Eight tasks, two seeds, task addition measured in the linear reading of both."""
    store = make_world(tmp_path_factory.mktemp("world"))
    for entry in store.find("checkpoint", seed=0):
        tau = {name: 1.2 * value for name, value in store.get(entry).items()}
        mark = {"seed": 1, "tau_digest": f"1{entry.meta['tau_digest'][1:]}"}
        store.put("checkpoint", tau, {**entry.meta, **mark})
    for seed in ("0", "1"):
        words = ["addition", "--mode", "linear", "--seed", seed, "--cache", str(store.home)]
        assert main(words) == 0
    return store


@pytest.fixture(autouse=True)
def here(world, monkeypatch, fresh_caches) -> Store:
    import shutil

    alone = use(monkeypatch, world)
    monkeypatch.setattr(jobs, "queue", lambda: Still(alone.home))
    yield alone
    shutil.rmtree(alone.home / "jobs", ignore_errors=True)


def open_page(**query: str) -> AppTest:
    return settle(shown_pages.open_page("results", **query), 2)


def tables(page: AppTest) -> dict[str, dict]:
    """What every table component was given, by its title."""
    found = [json.loads(item.proto.json) for item in page.get("bidi_component")]
    return {data["title"]: data for data in found}


def cell(data: dict, row: str, column: int, side: int = 0) -> dict:
    (found,) = [line for line in data["rows"] if line["title"] == row]
    return found["cells"][column]["sides"][side]


def of_seed(store: Store, seed: int) -> dict:
    (found,) = [
        entry.meta["record"]
        for entry in store.find("result", what="addition")
        if set(entry.meta["record"]["seeds"].values()) == {seed}
    ]
    return found


# --------------------------------------------------------------------------------------- the page


def test_cells_show_what_the_command_measured(here):
    page = open_page(e="miniature", sd="0", v="addition,addition-tasks")
    record = of_seed(here, 0)
    shown = cell(tables(page)["Task addition"], "Linear FT", 0)
    assert shown["text"] == f"{100 * record['absolute']:.1f}"
    assert shown["state"] == "kept"
    assert "seed 0" in shown["hint"]
    normalized = cell(tables(page)["Task addition"], "Linear FT", 1)
    assert normalized["text"] == f"{100 * record['normalized']:.1f}"
    by_task = tables(page)["Task addition, task by task"]
    for line, task in zip(by_task["rows"][:-1], TASKS, strict=True):
        assert line["cells"][3]["sides"][0]["text"] == f"{100 * record['merged'][task]:.1f}"
    lacking = cell(tables(page)["Task addition"], "Non-linear FT", 0)
    assert (lacking["text"], lacking["run"]) == ("not run yet", "0/nonlinear/absolute")


def test_several_seeds_give_mean_and_interval(here):
    shown = cell(tables(open_page(v="addition"))["Task addition"], "Linear FT", 0)
    values = [of_seed(here, seed)["absolute"] for seed in (0, 1)]
    assert shown["text"] == f"{50 * sum(values):.1f}"
    assert "t, seeds" in shown["hint"]
    assert "seed 0, 1" in shown["hint"]


def test_two_seeds_stand_side_by_side_with_their_difference(here):
    page = open_page(v="addition", sd="0", b="miniature", bsd="1")
    data = tables(page)["Task addition"]
    assert data["sides"] == ["miniature, seed 0", "miniature, seed 1"]
    (line,) = [row for row in data["rows"] if row["title"] == "Linear FT"]
    first, second = (of_seed(here, seed)["absolute"] for seed in (0, 1))
    assert [side["text"] for side in line["cells"][0]["sides"]] == [
        f"{100 * first:.1f}",
        f"{100 * second:.1f}",
    ]
    sign = "−" if second < first else "+"
    assert line["cells"][0]["between"] == f"{sign}{100 * abs(second - first):.1f}"
    assert page.query_params["bsd"] in ("1", ["1"])


def test_the_same_twice_is_not_compared(here):
    page = open_page(v="addition", sd="0", b="miniature", bsd="0")
    assert tables(page)["Task addition"]["sides"] == ["miniature, seed 0"]
    assert "Both are the same" in texts(page, "caption")


def test_filters_leave_out_readings_and_complete_rows(here):
    page = open_page(v="addition", sd="0", r="linear,posthoc")
    titles = [row["title"] for row in tables(page)["Task addition"]["rows"]]
    assert titles == ["Pre-trained", "Post-hoc linearization", "Linear FT"]
    page.toggle(key=state.RESULTS_LACKING).set_value(True).run()
    titles = [row["title"] for row in tables(page)["Task addition"]["rows"]]
    assert titles == ["Post-hoc linearization"]
    page = open_page(v="addition-tasks", r="linear")
    heads = [column["title"] for column in tables(page)["Task addition, task by task"]["columns"]]
    assert heads == ["Pre-trained, %", "Linear FT, %"]


def test_a_cell_is_run_once_its_user_has_confirmed(here):
    page = open_page(v="addition", sd="0")
    page.session_state["results_table_addition"] = {"run": "0/nonlinear/absolute"}
    page.run()
    command = "python -m engine addition --encoder miniature --mode nonlinear --seed 0"
    assert [item.value for item in page.code] == [command]
    assert Still(here.home).list() == []
    page.session_state["results_table_addition"] = {"run": None}
    page.button(key="results_forget").click().run()
    assert not page.code
    page.session_state["results_table_addition"] = {"run": "0/nonlinear/absolute"}
    page.run()
    page.session_state["results_table_addition"] = {"run": None}
    page.button(key="results_queue").click().run()
    (job,) = Still(here.home).list()
    assert (job.verb, *job.arguments) == tuple(command.split()[3:])
    shown = cell(tables(settle(page))["Task addition"], "Non-linear FT", 0)
    assert (shown["text"], shown["run"]) == ("queued", None)


def test_what_lacks_is_run_together_and_never_twice(here):
    page = open_page(v="addition", sd="0")
    page.button(key="results_run_addition").click().run()
    page.button(key="results_queue").click().run()
    found = {job.option("--mode") for job in Still(here.home).list()}
    assert found == {"nonlinear", "posthoc"}
    runs = filled(here, "miniature", "addition", seeds=[0]).missing
    assert sorted(compute.launch(runs)) == sorted(job.id for job in Still(here.home).list())
    assert len(Still(here.home).list()) == 2


def test_fine_tunes_that_lack_are_queued_before(here):
    runs = filled(here, "miniature", "addition", seeds=[7]).missing
    run = next(run for run in runs if "linear" in run.words)
    assert len(run.before) == len(TASKS)
    (made,) = compute.launch([run])
    queued = {job.id: job for job in Still(here.home).list()}
    assert set(queued[made].after) == set(queued) - {made}
    assert {job.verb for job in queued.values()} == {"addition", "finetune"}


def test_an_exhibit_of_another_encoder_says_so(here):
    page = open_page(v="convnext")
    assert "does not apply to miniature" in texts(page, "info")
    assert not page.get("bidi_component")


def test_published_figures_stand_apart_with_their_source(here):
    page = open_page(v="addition", sd="0")
    table = page.dataframe[0].value
    (line,) = [r for r in table.to_dict("records") if r["row"] == "Linear FT"][:1]
    assert line["of"] == "ViT-B/32"
    assert line["source"] == "arXiv:2305.12827"
    record = of_seed(here, 0)
    assert line["here, %"] == f"{100 * record['absolute']:.1f}"
    # the miniature is none of the papers' encoders: nothing printed stands in its cells
    rows = tables(page)["Task addition"]["rows"]
    assert all(not c["published"] for row in rows for c in row["cells"])


def test_an_empty_cache_names_the_next_command(monkeypatch, tmp_path):
    use(monkeypatch, Store(tmp_path))
    page = open_page()
    assert "python -m engine pretrain" in texts(page, "info")


def test_a_senseless_address_is_survived(here):
    page = open_page(e="../x", sd="-1", b="<script>", bsd="9" * 40, v="../,addition,x", r="magic")
    assert list(tables(page)) == ["Task addition"]
    assert page.selectbox(key=state.RESULTS_SEED).value == ALL


def test_nothing_chosen_says_what_to_choose(here):
    page = open_page(v="addition")
    page.pills(key=state.RESULTS_EXHIBITS).set_value([]).run()
    assert "Choose an exhibit above" in texts(page, "info")


# ------------------------------------------------------------------------------------- taken away


def test_the_report_is_one_file(here):
    side = compute.Side("miniature", 0)
    fillings = {name: filled(here, "miniature", name, seeds=[0]) for name in ("addition", "single")}
    archive = zipfile.ZipFile(io.BytesIO(compute.report_zip(side, fillings)))
    names = archive.namelist()
    assert {"index.html", "report.json", "tables/addition.csv", "tables/single.csv"} <= set(names)
    assert any(name.endswith(".svg") for name in names)
    record = json.loads(archive.read("report.json"))
    assert [one["name"] for one in record["exhibits"]] == ["addition", "single"]
    told = compute.everything(side, fillings)
    assert json.loads(json.dumps(told))["seed"] == 0
    (entry,) = [
        e for e in here.find("result", what="addition") if e.meta["record"] == of_seed(here, 0)
    ]
    assert set(told["entries"]) == {entry.digest}


def test_a_tables_file_says_whose_each_line_is(here):
    fillings = [filled(here, "miniature", "addition", seeds=[seed]) for seed in (0, 1)]
    sides = [compute.Side("miniature", seed) for seed in (0, 1)]
    lines = result_tables.rows([one.tables[0] for one in fillings], sides)
    assert [line["of"] for line in lines[:4]] == ["miniature, seed 0"] * 4
    assert lines[7]["absolute"] == of_seed(here, 1)["absolute"]


# ------------------------------------------------------------------------------------- pure parts


def make(values: dict[str, dict[str, float]], better: str = "up", name: str = "t") -> Table:
    columns = tuple(Column(c, c, better=better) for c in next(iter(values.values())))
    rows = tuple(
        Row(row, row, {c: Cell("kept", value) for c, value in cells.items()})
        for row, cells in values.items()
    )
    return Table(name, "T", columns, rows)


@pytest.mark.parametrize(
    ("name", "better", "values", "best"),
    [
        # what is pre-trained is no rival
        (
            "addition",
            "up",
            {"pretrained": {"x": 0.9}, "posthoc": {"x": 0.3}, "linear": {"x": 0.2}},
            {("posthoc", "x")},
        ),
        ("negation", "down", {"posthoc": {"x": 0.1}, "linear": {"x": 0.3}}, {("posthoc", "x")}),
        ("alpha", "", {"posthoc": {"x": 0.1}, "linear": {"x": 0.3}}, set()),
        ("energy", "up", {"signs": {"x": 0.1}, "letters": {"x": 0.3}}, set()),
        # tasks are never compared with each other, readings are; equals are all best
        (
            "single",
            "up",
            {"t": {"linear": 0.2, "posthoc": 0.1}, "u": {"linear": 0.5, "posthoc": 0.5}},
            {("t", "linear"), ("u", "linear"), ("u", "posthoc")},
        ),
        (
            "merging",
            "up",
            {"ties": {"linear": 0.2, "posthoc": 0.1}, "tsv": {"linear": 0.1, "posthoc": 0.5}},
            {("ties", "linear"), ("tsv", "posthoc")},
        ),
    ],
)
def test_the_best_is_marked_among_what_is_comparable(name, better, values, best):
    one = make(values, better, name)
    data = result_tables.table([one], [compute.Side("e")], (), {}, state.READINGS, False)
    columns = list(next(iter(values.values())))
    marked = {
        (row["title"], column)
        for row in data["rows"]
        for column, c in zip(columns, row["cells"], strict=True)
        if c["sides"][0]["best"]
    }
    assert marked == best


def test_published_methods_stand_in_the_cells_of_the_nonlinear_reading():
    one = make({"ties": {"nonlinear": 0.2, "linear": 0.1}}, "up", "merging")
    items = compared(EXHIBITS["merging"], "ViT-B-32-quickgelu:openai", (one,))
    data = result_tables.table([one], [compute.Side("e")], items, {}, state.READINGS, False)
    assert [c["published"] for c in data["rows"][0]["cells"]] == ["72.2", ""]


def test_units_and_jobs_are_put_into_words():
    words = ("addition", "--seed", "3")
    columns = (Column("f", "F"), Column("n", "N", "number"), Column("t", "T", "text"))
    row = Row("r", "R", {
        "f": Cell("kept", 0.1234, 0.1, 0.2, "Wilson, images", 1000, (0, 2), (), (), ("ab" * 32,)),
        "n": Cell("kept", 0.35), "t": Cell("not run", words=words)})  # fmt: skip
    one = Table("t", "T", columns, (row,))
    at_work = {words: compute.Pending("running", 0.4)}
    data = result_tables.table([one], [compute.Side("e")], (), at_work, (), False)
    first, number, text = (c["sides"][0] for c in data["rows"][0]["cells"])
    assert (first["text"], first["note"]) == ("12.3", "10.0 – 20.0")
    assert first["hint"].startswith("95 % interval: Wilson, images; n = 1,000; seed 0, 2; from ab")
    assert number["text"] == "0.35"
    assert (text["text"], text["state"], text["run"]) == ("running 40%", "at work", None)
    assert [column["title"] for column in data["columns"]] == ["F, %", "N", "T"]


FIGURES = {
    "bars": {"groups": ["a", "b"], "axis": "accuracy", "series": [
        {"name": "linear", "title": "L", "values": [0.5, None], "low": [0.4, None],
         "high": [0.6, None]}]},
    "points": {"points": [{"label": "a", "x": 0.5, "y": 0.6}, {"label": "b", "x": None, "y": 0.1}],
               "x_axis": "x", "y_axis": "y", "diagonal": True},
    "lines": {"x": [0.0, 0.5], "x_axis": "alpha", "axis": "accuracy", "chosen": {"linear": 0.5},
              "series": [{"name": "linear", "title": "L", "values": [0.1, 0.7]}]},
    "maps": {"box": [0, 1], "range": [0, 2], "panels": [
        {"title": "a and b", "mode": "linear", "tasks": ["a", "b"], "alphas": [0.0, 1.0], "n": 9,
         "values": [[0.0, 0.1], [0.2, 0.3]], "words": []},
        {"title": "a and b", "mode": "nonlinear", "tasks": ["a", "b"], "alphas": None, "n": None,
         "values": None, "words": ["x"]}]},
    "energy": {"panels": [
        {"title": "A", "task": "a", "control": "c", "task_energy": [[0.5, 0.6]],
         "control_energy": [[0.1, 0.2]], "logits": ["x"], "words": []},
        {"title": "B", "task": "b", "control": "c", "task_energy": None, "control_energy": None,
         "logits": [], "words": ["x"]}]},
}  # fmt: skip


@pytest.mark.parametrize("kind", FIGURES)
def test_every_kind_of_figure_is_drawn_with_its_gaps(kind):
    drawn = figures.draw(kind, FIGURES[kind], "Title")
    assert drawn.layout.title.text == "Title"
    traces = list(drawn.data)
    if kind == "maps":
        (heat,) = [trace for trace in traces if trace.type == "heatmap"]
        # xi is kept as [alpha of the first][alpha of the second]; the first is drawn to the right
        assert [list(line) for line in heat.z] == [[0.0, 0.2], [0.1, 0.3]]
        assert any(trace.text == ("not run yet",) for trace in traces if trace.type == "scatter")
    elif kind == "bars":
        assert (list(traces[0].x), list(traces[0].y)) == ([0.5], ["a"])
        assert list(traces[0].error_x.array) == pytest.approx([0.1])
    elif kind == "points":
        assert list(traces[-1].text) == ["a"]
    elif kind == "lines":
        assert list(traces[0].y) == [0.1, 0.7]
        assert (list(traces[1].x), list(traces[1].y)) == ([0.5], [0.7])
    else:
        assert [list(trace.x) for trace in traces[:2]] == [[0, 1], [2, 3]]


def test_an_unknown_kind_of_figure_is_refused():
    with pytest.raises(ValueError, match="got a figure of kind 'pie', expected one of bars"):
        figures.draw("pie", {}, "")


@pytest.mark.parametrize(
    ("kind", "count"), [("bars", 2), ("points", 2), ("lines", 2), ("maps", 4), ("energy", 4)]
)
def test_a_figures_file_has_every_number(kind, count):
    class Drawn:
        data = FIGURES[kind]

    Drawn.kind = kind
    rows = compute.figure_rows(Drawn)
    assert len(rows) == count
    if kind == "maps":
        assert rows[1] == {
            "pair": "a and b", "reading": "linear", "alpha 1": 0.0, "alpha 2": 1.0, "xi": 0.1
        }  # fmt: skip


def test_a_view_is_written_and_read_back():
    view = state.ResultsView("miniature", 3, "x:y", None, ("addition", "single"), ("linear",))
    assert state.results_visited(state.results_query(view)) == view
    whole = state.ResultsView("miniature", readings=state.READINGS)
    assert state.results_query(whole) == {"e": "miniature"}


@pytest.mark.parametrize("raw", [None, 3, {}, {"run": 3}, {"run": "elsewhere"}, {"run": None}])
def test_a_senseless_press_runs_nothing(raw):
    assert state.results_pick(raw, ["0/a/b"]) is None


def test_every_exhibit_is_offered():
    assert list(compute.names()) == list(EXHIBITS)
