"""The Disentanglement page: its numbers, its address, what a click does, forward passes."""

import json
import struct

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from app import state
from app.components import ximap as component
from app.compute import catalogue, models
from app.compute import disentanglement as compute
from app.compute import disentanglement_jobs as asking
from app.compute import disentanglement_passes as passes
from app.compute.background import Work
from app.figures import disentanglement as figures
from app.pages.disentangling import view as viewing
from engine.__main__ import build_parser, main
from engine.disentanglement import axis, remembered_map
from engine.errors import CheckpointError
from engine.jobs import Jobs
from engine.store import Store
from tests import shown_pages
from tests.made_jobs import asleep, change_job, set_going
from tests.shown_pages import FEW, TIMEOUT, settle, texts, use
from tests.tiny_world import make_encoder, make_world

pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make_world(tmp_path_factory.mktemp("world"), FEW)


@pytest.fixture
def here(world, monkeypatch) -> Store:
    asleep(monkeypatch)
    return use(monkeypatch, world)


def open_page(**query: str) -> AppTest:
    return settle(shown_pages.open_page("disentanglement", **query), 2)


def charts(page: AppTest) -> dict[str, dict]:
    """Figures by their titles' first line."""
    specs = [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]
    return {spec["layout"]["title"]["text"].split("<br>")[0]: spec for spec in specs}


def unpacked(payload: bytes) -> dict:
    """What the browser makes of a map's buffer: its header, tables as arrays [i][j]."""
    (length,) = struct.unpack_from("<I", payload)
    header, start = json.loads(payload[4 : 4 + length]), 4 + length
    tables = {
        key: np.frombuffer(
            payload, "<f4", int(np.prod(place["shape"])), start + place["offset"]
        ).reshape(place["shape"])
        for key, place in header["tables"].items()
    }
    return {**header, "alphas": np.array(header["alphas"]), "tables": tables}


def maps(page: AppTest) -> dict[str, dict]:
    """Maps by their first line."""
    found = [unpacked(widget.proto.bytes) for widget in page.get("bidi_component")]
    return {item["heading"][0]: item for item in found}


def slow_xi(here: Store, mode: str, pair: tuple[str, str], alphas) -> float:
    """Eq. (6) of arXiv:2305.12827 at one setting, written as a loop over images' scores."""
    from engine.encoders import load_encoder
    from engine.responses import responses
    from engine.tasks import load_split, load_task

    encoder = load_encoder("miniature", here)
    trained = "linear" if mode == "linear" else "nonlinear"
    taus = {t: here.get(here.find("checkpoint", task=t, mode=trained)[0]) for t in pair}
    total = 0.0
    for own, name in enumerate(pair):
        task = load_task(name)
        split = load_split(task, "test", 32, here, 500)
        planes = responses(encoder, task, split, taus).scores().double().numpy()
        changed = 0
        for image in range(planes.shape[1]):
            alone = planes[0, image] + alphas[own] * planes[1 + own, image]
            both = (planes[0, image] + alphas[0] * planes[1, image]) + alphas[1] * planes[2, image]
            changed += int(alone.argmax() != both.argmax())
        total += changed / planes.shape[1]
    return total


# ------------------------------------------------------------------------------ pure functions


def test_an_address_restores_the_view():
    view = state.XiView(
        encoder="miniature",
        beside="miniature-random",
        pair=("a,b", "c"),
        alphas=(0.25, -2.5),
        grid=51,
        limits=(-1.0, 2.0),
        distance="tv",
        threshold=0.2,
        section="pairs",
        reading="posthoc",
    )
    assert state.xi_visited(state.xi_query(view)) == view
    assert not state.elsewhere(state.xi_query(view), state.xi_query(view))


@pytest.mark.parametrize(
    ("query", "field", "empty"),
    [
        ({"t": "a,a"}, "pair", ()),
        ({"t": "a,b,c"}, "pair", ()),
        ({"a": "nan,1"}, "alphas", ()),
        ({"a": "1"}, "alphas", ()),
        ({"g": "100000"}, "grid", None),
        ({"x": "2,-2"}, "limits", ()),
        ({"d": "<script>"}, "distance", None),
        ({"h": "inf"}, "threshold", None),
        ({"r": "magic"}, "reading", None),
    ],
)
def test_a_senseless_address_gives_nothing(query, field, empty):
    assert getattr(state.xi_visited({**query, "e": "x"}), field) == empty


def test_far_alphas_are_clipped_into_the_address_and_for_merge():
    assert state.xi_visited({"a": "99,-99"}).alphas == (state.XI_REACH, -state.XI_REACH)
    assert state.merge_alphas(("a", "b"), (2.5, -3.0)) == {"a": 2.0, "b": -1.0}


def test_alphas_outside_of_merge_s_sliders_hold_until_merge_moves():
    mine = {"a": 2.5, "b": 0.4}
    assert state.alphas_of_pair(("a", "b"), mine, {"a": 2.0, "b": 0.4}) == (2.5, 0.4)
    assert state.alphas_of_pair(("a", "b"), mine, {"a": 1.0, "b": 0.4}) == (1.0, 0.4)
    assert state.alphas_of_pair(("a", "c"), {}, {}) == (state.START, state.START)


@pytest.mark.parametrize("event", [None, {}, {"selection": {"points": []}}, {"selection": None}])
def test_no_point_is_no_click(event):
    assert state.clicked(event) is None


def test_a_click_gives_its_point():
    assert state.clicked({"selection": {"points": [{"x": 1.5, "y": -1}]}}) == {"x": 1.5, "y": -1}


def test_colours_end_at_a_quarter_above_the_largest():
    assert figures.upper_end([np.array([[0.1, np.nan]]), np.array([[0.26]])]) == 0.5
    assert figures.upper_end([np.array([[0.5]])]) == 0.5
    assert figures.upper_end([np.array([[np.nan]])]) == 0.25
    assert figures.upper_end([]) == 0.25


def packed(**changes) -> bytes:
    alphas, xi = np.array([0.0, 1.0, 2.0]), np.arange(9.0).reshape(3, 3)
    xi[2, 0] = np.nan
    told = {
        "shown": "xi",
        "titles": ("A", "B"),
        "limits": (0, 2),
        "chosen": (1.0, 2.0),
        "ends": (0.0, 9.0),
        "colours": figures.colours(),
        "lines": ("ξ {xi} [{low}, {high}]",),
        "heading": ("m, linear", "exact"),
        "name": "ξ",
        "filename": "f",
        "alt": "a map",
    }
    tables = changes.pop("tables", {"xi": xi, "low": xi - 1, "high": xi + 1})
    return component.pack(alphas, tables, **(told | changes))


def test_a_map_s_buffer_holds_its_tables():
    found = unpacked(packed())
    assert found["tables"]["xi"][1, 2] == 5  # alpha_1 = 1, alpha_2 = 2
    assert np.isnan(found["tables"]["low"][2, 0])
    assert found["tables"]["high"][2, 2] == 9
    assert found["colours"][0] == [0.0, "#fee838"]  # light is low
    assert [at for at, _ in found["colours"]] == sorted(at for at, _ in found["colours"])
    assert unpacked(packed(chosen=(0.0, 0.0)))["digest"] == found["digest"]
    with pytest.raises(ValueError, match="expected xi"):
        packed(shown="xi", tables={"low": np.zeros((3, 3))})
    with pytest.raises(ValueError, match=r"\(3, 3\) each"):
        packed(tables={"xi": np.zeros((3, 2))})


@pytest.mark.parametrize(
    "raw",
    [None, {}, {"pick": None}, {"pick": [1]}, {"pick": "ab"}, {"pick": [1, "2"]},
     {"pick": [1, float("nan")]}, {"pick": [True, 1]}, {"pick": [1, 2, 3]}],
)  # fmt: skip
def test_what_is_no_pick_sets_nothing(raw):
    assert component.read_pick(raw) is None


def test_a_difference_s_rows_are_the_second_alpha():
    alphas = np.array([0.0, 1.0, 2.0])
    xi = np.arange(9.0).reshape(3, 3)
    xi[2, 0] = np.nan
    figure = figures.difference(
        alphas,
        xi,
        {"a": xi - 1, "b": xi + 1},
        ("A", "B"),
        limits=(0, 2),
        chosen=(1.0, 2.0),
        lines=("Δξ {xi} from {a} and {b}",),
        title="t",
    )
    heat, cells, marks = figure.data
    assert heat.z[2, 1] == xi[1, 2]  # row: alpha_2 = 2, column: alpha_1 = 1
    assert heat.hoverinfo == "skip"
    assert len(cells.x) == 8  # the cell not computed takes no click
    told = {
        (x, y): tuple(row) for x, y, row in zip(cells.x, cells.y, cells.customdata, strict=True)
    }
    assert told[1.0, 2.0] == (xi[1, 2], xi[1, 2] - 1, xi[1, 2] + 1)
    assert "%{customdata[0]:.3f} from %{customdata[1]:.3f} and %{customdata[2]:.3f}" in (
        cells.hovertemplate
    )
    assert (marks.x[0], marks.y[0]) == (0, 0)
    assert (marks.x[1], marks.y[1]) == (1, 2)


def test_titles_lose_plotly_s_own_signs():
    assert viewing.plain("a %{x} <b>") == "a   x   b "


@pytest.mark.parametrize(
    ("seconds", "said"), [(2, "about 5 s"), (61, "about 60 s"), (600, "about 10 min")]
)
def test_time_left_is_said_roughly(seconds, said):
    assert passes.time_left(seconds) == said


def test_forward_passes_can_be_left_at_every_batch():
    from app.compute.background import Cancelled

    work = Work("x")
    calls = []

    class Encoder:
        def features(self, theta, x):
            calls.append(x)
            return x

    watched = passes.Watched(Encoder(), work, 10)
    assert watched.features({}, 1) == 1
    work.cancel()
    with pytest.raises(Cancelled):
        watched.features({}, 2)
    assert calls == [1]


# ---------------------------------------------------------------------------------- the page


def test_an_empty_cache_names_the_next_command(monkeypatch, tmp_path):
    use(monkeypatch, Store(tmp_path))
    page = open_page()
    assert not page.error
    assert "python -m engine pretrain" in texts(page, "info")


def test_too_few_checkpoints_name_the_next_command(monkeypatch, tmp_path):
    use(monkeypatch, make_encoder(tmp_path))
    assert "python -m engine finetune --encoder miniature" in texts(open_page(), "info")


def test_a_reading_without_checkpoints_names_the_next_command(monkeypatch, tmp_path):
    use(monkeypatch, make_world(tmp_path, FEW, ("nonlinear",)))
    page = open_page(g="11")
    assert "--mode linear" in texts(page, "info")
    assert "miniature, post-hoc linearized" in maps(page)


def test_a_users_error_is_a_message_and_a_bug_stays_loud(here, monkeypatch):
    def broken():
        raise CheckpointError("this file is damaged; make it again")

    def wrong():
        raise ValueError("received 3, expected 4")

    monkeypatch.setattr(catalogue, "checkpoints", broken)
    page = shown_pages.open_page("disentanglement")
    assert not page.exception
    assert "This file is damaged; make it again" in texts(page, "error")
    monkeypatch.setattr(catalogue, "checkpoints", wrong)
    page.run()
    assert page.exception[0].proto.type == "ValueError"


@pytest.mark.parametrize("mode", ["posthoc", "linear"])
def test_linearized_maps_are_the_definition(here, mode):
    page = open_page(t="signs,letters", g="11", x="-2,3")
    name = {"posthoc": "miniature, post-hoc linearized", "linear": "miniature, linear"}[mode]
    found = maps(page)[name]
    alphas, xi = found["alphas"], found["tables"]["xi"]
    for i, j in ((0, 0), (4, 4), (7, 2), (10, 10)):
        setting = (float(alphas[i]), float(alphas[j]))
        wanted = slow_xi(here, mode, ("signs", "letters"), setting)
        assert xi[i, j] == pytest.approx(wanted, abs=1e-6)
    assert xi[4, 4] == 0  # alpha = 0 twice
    assert "n = 500 + 500" in texts(page, "caption")


def test_the_address_is_written_and_read(here):
    page = open_page(t="signs,letters", g="41", x="-1,2", a="0.5,-0.75", v="cut", h="0.2")
    assert page.selectbox(key=state.XI_FIRST).value == "signs"
    assert page.query_params["a"] == "0.5,-0.75"
    assert page.query_params["x"] == "-1,2"
    assert "ξ ≤ 0.20" in texts(page, "caption")
    page.selectbox(key=state.XI_GRID).set_value(11).run()
    assert page.query_params["g"] == "11"


def test_a_click_sets_the_alphas_of_merge_too(here, monkeypatch):
    import streamlit as st

    session = {
        "map_linear": {"pick": [2.5, -0.25]},
        "difference": {"selection": {"points": [{"x": 1.0, "y": 0.5}]}},
        state.MERGE_INITIAL: {"other": 0.7},
    }
    monkeypatch.setattr(st, "session_state", session)
    viewing.pick_cell("map_linear", ("signs", "letters"), "linear")
    assert session[state.XI_ALPHAS] == {"signs": 2.5, "letters": -0.25}
    assert session[state.MERGE_INITIAL] == {"other": 0.7, "signs": 2.0, "letters": -0.25}
    assert session[state.MERGE_REVISION] == 1
    assert session[state.XI_READING] == "linear"
    viewing.pick_difference("difference", ("signs", "letters"))
    assert session[state.XI_ALPHAS] == {"signs": 1.0, "letters": 0.5}


def test_a_click_on_the_matrix_chooses_the_pair(monkeypatch):
    import streamlit as st

    point = {"x": "b", "y": "a", "customdata": {"0": 2, "1": 0}}
    session = {"pairs": {"selection": {"points": [point]}}}
    monkeypatch.setattr(st, "session_state", session)
    viewing.pick_pair("pairs", ("p", "q", "r"))
    assert (session[state.XI_FIRST], session[state.XI_SECOND]) == ("r", "p")


@pytest.mark.parametrize("section", ["images", "cut", "difference", "pairs", "summary"])
def test_every_section_draws(here, section):
    page = open_page(g="11", v=section)
    assert not page.error
    shown = charts(page)
    expected = {"images": 0, "cut": 2, "difference": 1, "pairs": 2, "summary": 0}
    assert len(shown) == expected[section]
    assert list(maps(page)) == ["miniature, post-hoc linearized", "miniature, linear"]
    if section == "summary":
        table = page.dataframe[0].value
        assert list(table["reading"]) == ["Post-hoc linearized", "Linear"]


def test_images_that_change_add_up_to_the_map(here):
    page = open_page(t="signs,letters", g="11", x="-3,2", a="2,-1.5", r="linear")
    shares = [
        float(text.value.split("(")[1].split("%")[0]) / 100
        for text in page.markdown
        if "predictions change" in text.value
    ]
    assert len(shares) == 2
    wanted = slow_xi(here, "linear", ("signs", "letters"), (2.0, -1.5))
    assert sum(shares) == pytest.approx(wanted, abs=2e-3)


def test_a_soft_distance_is_computed(here):
    page = open_page(g="11", d="tv")
    xi = maps(page)["miniature, linear"]["tables"]["xi"]
    assert xi[5, 5] == pytest.approx(0, abs=1e-6)
    assert 0 < xi.max() <= 2


def buttons(page: AppTest) -> set[str]:
    return {button.key for button in page.button}


def run_in_process(here: Store, job) -> None:
    """Do what a job's process does, and say that it is done."""
    assert main([job.verb, *job.arguments, "--cache", str(here.home), "--json"]) == 0
    change_job(job, state="done")


def test_forward_passes_are_one_job_whose_map_appears_by_itself(here, capsys):
    page = open_page(t="signs,letters", g="11", x="-1,1")
    assert "miniature, non-linear" not in maps(page)
    assert "Not computed yet" in texts(page, "info")
    page.segmented_control(key=state.XI_IMAGES).set_value(250).run()
    page.button(key="start").click().run()
    assert not page.exception
    (job,) = Jobs(here.home).list()
    assert (job.verb, *job.arguments) == (
        "disentanglement", "--encoder", "miniature", "--tasks", "letters", "signs",
        "--mode", "nonlinear", "--images", "250", "--seed", "0", "--grid", "11", "--range", "1",
    )  # fmt: skip
    assert "start" not in buttons(page)
    assert "cancel" in buttons(page)
    # another visitor, the tasks the other way round: the same job, and then its map
    other = open_page(t="letters,signs", g="11", x="-1,1")
    other.segmented_control(key=state.XI_IMAGES).set_value(250).run()
    assert "cancel" in buttons(other)
    run_in_process(here, job)
    found = maps(page.run())["miniature, non-linear"]
    alphas, xi = found["alphas"], found["tables"]["xi"]
    for i, j in ((5, 5), (10, 3)):
        wanted = slow_nonlinear(here, ("signs", "letters"), (alphas[i], alphas[j]))
        assert xi[i, j] == pytest.approx(wanted, abs=1e-6)
    turned = maps(other.run())["miniature, non-linear"]
    assert turned["tables"]["xi"].tolist() == xi.T.tolist()
    assert not {"start", "cancel"} & buttons(page)


def test_a_job_is_named_by_all_that_the_map_shows(here):
    vectors = compute.vectors("miniature")["nonlinear"]
    asked = (vectors, ("signs", "letters"), 20, (-3.0, 3.0), "error", 500)
    plain = asking.words(*asked)
    assert "--grid" not in plain  # those of the paper: as Results asks for the map
    assert "--range" not in plain
    assert asking.words(vectors, ("letters", "signs"), *asked[2:]) == plain
    line = asking.words(vectors, ("signs", "letters"), 21, (-1.5, 2.0), "tv", 250)
    args = build_parser().parse_args(line)
    assert (args.grid, args.range, args.distance) == (21, [-1.5, 2.0], "tv")
    assert (args.images, args.tasks, args.seed) == (250, ["letters", "signs"], 0)


def test_a_map_is_drawn_while_its_job_is_at_work_and_goes_on_when_asked_again(here):
    page = open_page(t="signs,letters", g="11", x="-2,2", d="tv")
    page.segmented_control(key=state.XI_IMAGES).set_value(250).run()
    page.button(key="start").click().run()
    (job,) = [job for job in Jobs(here.home).list() if job.state == "queued"]
    name = cells_of(here, job, 9)
    set_going(job, states=[name], step=9, steps=121, seconds_left=75.0)
    page.run()
    assert not page.exception
    xi = maps(page)["miniature, non-linear"]["tables"]["xi"]
    assert int((~np.isnan(xi)).sum()) == 9
    shown = page.get("progress")[-1].proto.text
    assert "9 of 121 cells, about 1 min 15 s left" in shown
    change_job(job, state="failed", error="the disk is full; make room and resume")
    page.run()
    assert "The disk is full; make room and resume." in texts(page, "error")
    assert int((~np.isnan(maps(page)["miniature, non-linear"]["tables"]["xi"])).sum()) == 9
    page.button(key="start").click().run()
    assert Jobs(here.home).get(job.id).state == "queued"  # the same job, from where it was
    page.button(key="cancel").click().run()
    assert Jobs(here.home).get(job.id).state == "cancelled"
    assert "start" in buttons(page)


def cells_of(here: Store, job, count: int) -> str:
    """Compute a few cells as the job would, and leave; return the name of the working state."""
    names = []

    class Told(Store):
        def save_state(self, name, tensors, meta):
            names.append(name)
            super().save_state(name, tensors, meta)

    class Leaving(Exception):
        pass

    def tell(found, done, total):
        if done == count:
            raise Leaving

    vectors = compute.vectors("miniature")["nonlinear"]
    chosen = {name: vectors.checkpoints[name] for name in ("letters", "signs")}
    assert [job.arguments[3], job.arguments[4]] == list(chosen)
    with pytest.raises(Leaving):
        remembered_map(
            Told(here.home),
            models.encoder("miniature"),
            {name: item.entry for name, item in chosen.items()},
            {name: models.vector(item.digest) for name, item in chosen.items()},
            {name: models.task(name) for name in chosen},
            lambda task, split, limit: models.split(task.name, split, 32, limit),
            axis(11, 2.0),
            distance="tv",
            images=250,
            progress=tell,
        )
    return names[-1]


def slow_nonlinear(here: Store, pair: tuple[str, str], alphas) -> float:
    """Eq. (6) of arXiv:2305.12827 at one setting by four plain forward passes."""
    from engine.encoders import load_encoder
    from engine.tasks import load_split, load_task

    encoder = load_encoder("miniature", here)
    taus = [here.get(here.find("checkpoint", task=t, mode="nonlinear")[0]) for t in pair]
    total = 0.0
    for own, name in enumerate(pair):
        split = load_split(load_task(name), "test", 32, here, 250)
        head, x = encoder.head(load_task(name)), encoder.preprocess(split.images)
        answers = []
        for used in ([own], [0, 1]):
            theta = {
                key: value + sum(float(alphas[k]) * taus[k][key] for k in used)
                for key, value in encoder.theta0.items()
            }
            with torch.no_grad():
                answers.append((encoder.features(theta, x) @ head.T).argmax(dim=1))
        total += float((answers[0] != answers[1]).double().mean())
    return total


def test_pages_remember_maps(here):
    found = compute.vectors("miniature")["linear"]
    loaded = settle_scores(found)
    alphas = compute.axis(21, (-3.0, 3.0))
    first = compute.linearized(found, ("signs", "letters"), alphas, "error", loaded)
    assert compute.linearized(found, ("signs", "letters"), alphas, "error", loaded) is first
    other = compute.vectors("miniature")["posthoc"]
    assert compute.linearized(other, ("signs", "letters"), alphas, "error", settle_scores(other))
    assert first.share(2.0) == (1.0, 16)


def settle_scores(vectors) -> dict:
    work = compute.load(vectors, ("signs", "letters"), "test")
    assert work.wait(TIMEOUT)
    return compute.in_memory(vectors, ("signs", "letters"))
