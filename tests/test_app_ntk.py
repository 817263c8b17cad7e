"""The Eigenfunctions page: pure parts, what is kept, the plan, background work, every control."""

import json
import shutil
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import state
from app.components import energy as component
from app.compute import catalogue, energies, energy_tables, ntk, ntk_jobs, ntk_kept, ntk_pairs
from app.compute.ntk_questions import Question
from app.figures import ntk as figures
from engine.__main__ import main
from engine.encoders import load_encoder
from engine.errors import CheckpointError
from engine.jobs import Jobs
from engine.jobs.words import values_of
from engine.ntk import kept_local_energy
from engine.store import Store, digest_tensors
from engine.tasks import CONTROL, load_task
from tests import shown_pages
from tests.made_jobs import asleep, change_job
from tests.shown_pages import FEW, texts, use
from tests.tiny_energies import keep_energies
from tests.tiny_world import make_encoder, make_world

N = 8

pytestmark = pytest.mark.usefixtures("fresh_caches")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    """Task vectors of two tasks, and the energies of one of them against two controls."""
    store = make_world(tmp_path_factory.mktemp("world"), FEW)
    keep_energies(store, "signs", ("letters", CONTROL), N)
    return store


@pytest.fixture(autouse=True)
def no_supervisor(monkeypatch) -> None:
    asleep(monkeypatch)


@pytest.fixture
def here(world, monkeypatch) -> Store:
    return use(monkeypatch, world)


@pytest.fixture
def own(world, monkeypatch, tmp_path) -> Store:
    """The same store, to be changed."""
    return use(monkeypatch, Store(shutil.copytree(world.home, tmp_path / "own")))


def open_page(**query: str) -> AppTest:
    return shown_pages.open_page("ntk", **query)


def header(page: AppTest) -> dict:
    (widget,) = page.get("bidi_component")
    return header_of(widget.proto.bytes)


def header_of(payload: bytes) -> dict:
    (length,) = struct.unpack_from("<I", payload)
    return json.loads(payload[4 : 4 + length])


def charts(page: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]


def buttons(page: AppTest) -> set[str]:
    return {button.key for button in page.button}


def kept(store: Store, control: str = "letters"):
    encoder = load_encoder("miniature", store)
    (energy,) = kept_local_energy(store, encoder, task="signs", control=control, points=N)
    return energy


# --------------------------------------------------------------------------------- pure functions


def test_a_view_comes_back_from_its_address():
    view = state.NtkView("m", "m-random", "signs", "objects", 200, "3", "ridge0.01", "class")
    query = state.ntk_query(view)
    assert state.ntk_visited(query) == view
    assert not state.elsewhere(query, query)
    assert state.ntk_visited({}) is None


@pytest.mark.parametrize("points", ["", "-3", "1e3", "٣", "123456", "x"])
def test_a_number_of_points_that_is_none_counts_as_not_given(points):
    assert state.ntk_visited({"e": "m", "n": points}).points is None


@pytest.mark.parametrize(
    "raw",
    [
        None,
        3,
        {},
        {"view": 1},
        {"view": {"revision": 1, "setting": "R2"}},
        {"view": {"setting": 2}},
    ],
)
def test_a_malformed_state_counts_as_not_given(raw):
    view = component.read_view(raw, ["R1", "R2"], "R1", "sorted", 0)
    assert view == component.View("R1", "sorted")


def test_a_released_setting_is_read():
    raw = {"view": {"revision": 2, "setting": "R2", "order": "class"}}
    assert component.read_view(raw, ["R1", "R2"], "R1", "sorted", 2) == component.View(
        "R2", "class"
    )


def packed(n: int = 3, **changes) -> bytes:
    pictures = np.full((n, 32, 32, 3), 7, np.uint8) if n <= 2000 else None
    blocks = [
        component.Block("a", np.zeros(n), ["x"], pictures),
        component.Block("b", np.zeros(n), ["x"]),
    ]
    mean = np.arange(4 * n, dtype=float).reshape(2, 2 * n) / 10
    curve = component.Curve("m", "paper", "t", "", (0, 1), mean, mean, [(0.5, 0.4, 0.6)] * 2)
    stops = [component.Setting("R1", "leading", "1"), component.Setting("l", "ridge", "2")]
    return component.pack(stops, blocks, [curve], **({"setting": "l"} | changes))


def test_the_browser_gets_what_was_packed():
    payload = packed()
    head = header_of(payload)
    start = 4 + struct.unpack_from("<I", payload)[0]
    assert start % 4 == 0
    place = head["curves"][0]["mean"]
    values = np.frombuffer(payload, "<f4", 12, start + place["offset"])
    assert values.tolist() == pytest.approx([i / 10 for i in range(12)])
    assert head["blocks"][0]["pictures"]["shape"] == [3, 32, 32, 3]
    assert head["blocks"][1]["pictures"] is None
    assert head["setting"] == "l"


def test_pictures_that_do_not_fit_are_left_out():
    head = header_of(packed(2000))
    assert head["blocks"][0]["pictures"] is None
    assert head["curves"][0]["mean"]["shape"] == [2, 4000]
    with pytest.raises(ValueError, match="show fewer points"):
        packed(200_000)


@pytest.mark.parametrize("changes", [{"setting": "R9"}, {"order": "backwards"}])
def test_what_is_not_offered_is_refused(changes):
    with pytest.raises(ValueError, match="expected one of those offered"):
        packed(**changes)


def panel(first, second, place=(0, 0)) -> figures.Panel:
    arrays = tuple(np.asarray(block, dtype=float) for block in (first, second))
    labels = tuple(np.arange(block.shape[1]) % 2 for block in arrays)
    return figures.Panel("t", ("a", "b"), arrays, labels, (["x", "y"], ["x", "y"]), place)


def test_points_are_drawn_in_the_order_asked_for():
    energy, labels = np.array([0.1, 0.9, 0.5, 0.7]), np.array([1, 0, 1, 0])
    assert figures.order_of(energy, labels, "sorted").tolist() == [1, 3, 2, 0]
    assert figures.order_of(energy, labels, "class").tolist() == [1, 3, 2, 0]
    assert figures.order_of(energy, np.array([0, 1, 0, 1]), "class").tolist() == [2, 0, 1, 3]
    assert figures.order_of(energy, labels, "drawn").tolist() == [0, 1, 2, 3]


def test_every_logit_has_a_line_and_their_mean_a_band():
    first, second = [[0.2, 0.8], [0.4, 1.0]], [[0.1, 0.3], [0.1, 0.1]]
    drawn = figures.local_energy([panel(first, second)], "sorted", ["p", "q"]).data
    thin = [trace for trace in drawn if (trace.name or "").startswith("logit")]
    assert [list(trace.y) for trace in thin] == [[0.8, 0.2], [1.0, 0.4], [0.3, 0.1], [0.1, 0.1]]
    means = [list(trace.y) for trace in drawn if trace.name and "points" in trace.name]
    assert means == [pytest.approx([0.9, 0.3]), pytest.approx([0.2, 0.1])]
    (band, _) = [trace for trace in drawn if trace.fill == "toself"]
    assert list(band.y) == pytest.approx([1.0, 0.4, 0.2, 0.8])


def test_a_distribution_ends_at_one_and_a_histogram_sums_to_one():
    panels = [panel([[0.2, 0.8, 0.4]], [[0.0, 1.0, 0.5]])]
    for trace in figures.densities(panels, "ecdf").data:
        assert trace.y[-1] == 1
        assert list(trace.y) == sorted(trace.y)
    for trace in figures.densities(panels, "histogram").data:
        assert sum(trace.y) == pytest.approx(1)


def test_the_spectrum_is_relative_and_logarithmic():
    figure = figures.spectrum({"m": np.array([[4.0, 2.0, 0.0], [8.0, 2.0, 1.0]])}, {"m": 1.7})
    assert figure.layout.yaxis.type == "log"
    assert list(figure.data[0].y) == [1.0, 0.5, None]  # zero is not drawn as something else
    assert figure.layout.shapes[0].x0 == 1.7


def test_a_pair_that_is_not_computed_stays_empty():
    figure = figures.localization(["a"], ["b", "c"], [[0.75, None]], [[0.1, None]], [["p", "q"]])
    assert list(figure.data[0].text[0]) == ["0.75<br>±0.10", ""]
    assert figure.data[0].z[0][1] is None


def test_scores_carry_their_intervals():
    figure = figures.scores(["r"], {"m": [0.7]}, {"m": [(0.6, 0.75)]})
    error = figure.data[0].error_x
    assert (error.array[0], error.arrayminus[0]) == pytest.approx((0.05, 0.1))


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("miniature", "miniature-random"),
        ("ViT-B-32-quickgelu:openai", "ViT-B-32-quickgelu:random"),
        ("ViT-B-32-quickgelu:random", None),
        ("other", None),
    ],
)
def test_an_encoder_stands_beside_itself_without_pretraining(encoder, expected):
    names = ["miniature", "miniature-random", "ViT-B-32-quickgelu:random"]
    assert ntk.twin(encoder, names) == expected


def test_questions_that_share_rows_are_answered_together():
    one = Question("m", "signs", "letters", 8, "3")
    two = Question("m", "letters", "signs", 8, "3")
    three = Question("m", "signs", "objects", 8, "3")
    assert ntk.together([one, two, three]) == [(one, three), (two,)]


# --------------------------------------------------------------------------- energies to be drawn


def test_tables_are_the_engine_s(here):
    energy = kept(here)
    for arrangement in energies.ARRANGEMENTS:
        for stop, reading in (
            ("R3", {"leading": 3}),
            (f"R{N}", {}),
            ("ridge0.1", {"ridge": 0.1}),
        ):
            table = energies.table_of(energy, arrangement, stop)
            both = [energy.task_energy, energy.control_energy]
            wanted = torch.cat([give(arrangement, **reading) for give in both], dim=1)
            np.testing.assert_allclose(table, wanted.numpy(), atol=2e-3)  # kept in float16
            score = energies.score_of(energy, arrangement, stop)
            assert score["auc"] == pytest.approx(
                energy.score(arrangement, **reading)["auc"], abs=0.02
            )


def test_layers_by_block_and_by_module_sum_to_one(here):
    shown = [shown_of(here)]
    for by in ("block", "module"):
        names, shares = energy_tables.layer_shares(shown, by)
        assert sum(shares["miniature"]) == pytest.approx(1, abs=1e-6)
        assert len(names) == len(set(names))
    assert energy_tables.layer_shares(shown, "block")[0] == [
        "input",
        "resblocks 0",
        "resblocks 1",
        "output",
    ]


def shown_of(store: Store) -> energies.Shown:
    question = Question("miniature", "signs", "letters", N, "3")
    return energies.Shown("miniature", question, kept(store))


def test_rows_hold_every_point_of_every_arrangement(here):
    rows = energy_tables.point_rows([shown_of(here)], f"R{N}")
    assert len(rows) == 3 * 2 * N
    total = {name: 0.0 for name in energies.ARRANGEMENTS}
    for row in rows:
        total[row["arrangement"]] += row["mean"]
    assert list(total.values()) == pytest.approx([N] * 3, abs=0.05)  # an energy sums to R


# ------------------------------------------------------------------------------------- the page


def test_what_is_kept_opens_at_once(here):
    page = open_page(e="miniature", t="signs", k="letters")
    assert not page.exception
    assert not page.error
    head = header(page)
    assert [curve["arrangement"] for curve in head["curves"]] == list(energies.ARRANGEMENTS)
    assert head["setting"] == f"R{N}"
    assert f"exact to float16, n = {N}" in head["status"]
    said = texts(page, "caption")
    # energies are rounded; spectra and layers are not
    assert f"Exact to float16, n = {N}" in said
    assert f"over the task's points. Exact, n = {N}" in said
    assert page.number_input(key=state.NTK_POINTS).value == N
    # lines, densities, scores, spectrum, weighted, layers, blocks, pairs, and two of the ring
    assert len(charts(page)) == 10
    assert page.query_params[state.QUERY_POINTS] == str(N)


def test_a_released_setting_moves_figures_and_address(here):
    page = open_page(t="signs", k="letters")
    before = charts(page)[0]
    held = {"revision": header(page)["revision"], "setting": "R2", "order": "drawn"}
    page.session_state[state.NTK_EXPLORER] = {"view": held}
    page.run()
    assert not page.exception
    assert page.query_params[state.QUERY_SETTING] == "R2"
    assert page.query_params[state.QUERY_ORDER] == "drawn"
    after = charts(page)[0]
    assert before != after
    mean = next(trace for trace in after["data"] if "point" in trace.get("name", ""))
    wanted = energies.table_of(kept(here), "paper", "R2").mean(axis=0)[:N]
    assert list(mean["y"]) == pytest.approx(wanted.tolist())


def test_an_address_restores_the_view(here):
    page = open_page(e="miniature", t="signs", k=CONTROL, n=str(N), l="3", s="ridge0.1", o="class")
    head = header(page)
    assert (head["setting"], head["order"]) == ("ridge0.1", "class")
    assert page.selectbox(key=state.NTK_CONTROL).value == CONTROL


def test_a_senseless_address_is_survived(here):
    page = open_page(e="../x", t="<b>", k="signs", n="99999", l="77", s="Rx", o="up", b="?")
    assert not page.exception
    assert not page.error
    assert page.selectbox(key=state.NTK_ENCODER).value == "miniature"


def test_every_control_moves_once(here):
    page = open_page(t="signs", k="letters")
    page.segmented_control(key="ntk_density").set_value("histogram").run()
    page.segmented_control(key="ntk_layers_by").set_value("module").run()
    page.segmented_control(key="ntk_matrix_kind").set_value("paper").run()
    page.selectbox(key=state.NTK_CONTROL).set_value(CONTROL).run()
    assert not page.exception
    assert header(page)["curves"]
    page.selectbox(key=state.NTK_LOGITS).set_value("1").run()
    assert not page.exception
    assert "ntk_start" in buttons(page)  # not kept: the plan is shown, nothing starts by itself
    page.number_input(key=state.NTK_POINTS).set_value(12).run()
    assert "ntk_start" in buttons(page)


def test_the_plan_stands_before_the_work_and_the_answer_is_kept(monkeypatch, tmp_path):
    store = use(monkeypatch, make_world(tmp_path, FEW))
    page = open_page(t="letters", k="signs", n=str(N), l="1")
    assert [metric.label for metric in page.metric[:3]] == [
        "Estimated time",
        "Operations",
        "Memory beyond the encoder",
    ]
    assert store.find("result", what="ntk") == []
    page.button(key="ntk_start").click().run()
    assert not page.exception
    (job,) = Jobs(store.home).list()
    assert (job.verb, *job.arguments) == (
        "ntk", "--encoder", "miniature", "--task", "letters", "--control", "signs", "--points",
        str(N), "--logits", "1", "--precision", "float32", "--seed", "0", "--readout", "cosine",
        "--layer-scores",
    )  # fmt: skip
    assert "ntk_start" not in buttons(page)
    assert {f"ntk_cancel_{job.id}"} <= set(buttons(page))
    assert main([job.verb, *job.arguments, "--cache", str(tmp_path), "--json"]) == 0
    change_job(job, state="done")
    page.run()
    assert not page.exception
    assert not page.error
    assert header(page)["status"].startswith("exact")
    (entry,) = store.find("result", what="ntk")
    assert (entry.meta["task"], entry.meta["points"], len(entry.meta["logits"])) == (
        "letters",
        N,
        1,
    )


def test_a_job_answers_questions_that_share_its_rows(here):
    ask = [Question("miniature", "letters", control, N, "10") for control in ("signs", CONTROL)]
    other = Question("miniature", "signs", "letters", N, "trace")
    ids = ntk_jobs.launch([ask[0], other, ask[1]])
    jobs = [Jobs(here.home).get(id) for id in ids]
    assert [values_of(job.arguments, "--control") for job in jobs] == [
        ["signs", CONTROL],
        ["letters"],
    ]
    assert ntk_jobs.launch([ask[0], other, ask[1]]) == ids  # asked again while at work
    assert [ntk_jobs.answers(jobs[0], each) for each in (*ask, other)] == [True, True, False]
    assert not ntk_jobs.answers(jobs[0], replace(ask[0], points=N + 1))
    assert not ntk_jobs.answers(jobs[0], replace(ask[0], control="vehicles"))
    assert jobs[0].option("--logits") == "10"
    few = ntk_jobs.words([Question("miniature", "sites", "letters", N, "10")])
    assert few[few.index("--logits") + 1] == str(len(load_task("sites").classnames))
    for job in jobs:
        change_job(job, state="done")


def test_jobs_can_be_cancelled_resumed_and_discarded(monkeypatch, tmp_path):
    store = use(monkeypatch, make_world(tmp_path, FEW))
    page = open_page(t="letters", k="signs", n=str(N), l="1")
    page.button(key="ntk_all_miniature_start").click().run()
    assert not page.exception
    jobs = Jobs(store.home)
    assert len(jobs.list()) == len(catalogue.task_names()[0])
    assert "ntk_start" not in buttons(page)  # one of them answers this pair too
    page.button(key="ntk_cancel_all").click().run()
    assert not page.exception
    assert {job.state for job in jobs.list()} == {"cancelled"}
    assert "ntk_start" in buttons(page.run())
    newest = jobs.list()[0]
    page.button(key=f"ntk_resume_{newest.id}").click().run()
    assert jobs.get(newest.id).state == "queued"
    change_job(newest, state="failed", error="no space is left; make room and resume")
    page.run()
    assert "No space is left; make room and resume" in texts(page, "error")
    page.button(key=f"ntk_delete_{newest.id}").click().run()
    assert newest.id not in {job.id for job in jobs.list()}


def test_pairs_are_listed_and_the_missing_ones_offered(here):
    page = open_page(t="signs", k="letters")
    matrix = charts(page)[7]["data"][0]
    assert list(matrix["y"]) == catalogue.titles(["signs"])
    assert list(matrix["x"]) == catalogue.titles(["letters", CONTROL])
    wanted = [kept(here, name).scores["heldout"]["auc"] for name in ("letters", CONTROL)]
    assert list(matrix["z"][0]) == pytest.approx(wanted)
    assert "ntk_all_miniature_start" in buttons(page)


def test_the_ring_s_energy_is_the_same_everywhere(here):
    from app.compute import ring

    found = ring.example()
    assert found.residual < 1e-12
    half = ring.POINTS // 2
    for R in (1, 5, 31):
        np.testing.assert_allclose(found.energy[R - 1], R / ring.POINTS, atol=1e-12)
    assert [row["frequency"] for row in ring.rows(found)][:4] == [0, 1, 1, 2]
    assert [row["energy_on_task"] for row in ring.rows(found)] == pytest.approx([0.5] * 2 * half)
    page = open_page(t="signs", k="letters")
    page.slider(key="ntk_ring_R").set_value(3).run()
    assert not page.exception
    drawn = charts(page)[-2]["data"][-1]
    assert list(drawn["y"]) == pytest.approx([3 / ring.POINTS] * ring.POINTS)


def test_an_empty_cache_names_the_next_command(monkeypatch, tmp_path):
    use(monkeypatch, Store(tmp_path))
    page = open_page()
    assert not page.exception
    assert "python -m engine pretrain" in texts(page, "info")


def test_without_task_vectors_the_kernel_is_still_offered(monkeypatch, tmp_path):
    use(monkeypatch, make_encoder(tmp_path))
    page = open_page()
    assert not page.exception
    assert "ntk_start" in buttons(page)


def test_an_encoder_beside_that_cannot_be_read_hides_nothing(own):
    own.put("encoder", {"visual.proj": torch.zeros(1)}, {"name": "miniature-random"})
    page = open_page(t="signs", k="letters", b="miniature-random")
    assert not page.exception
    assert page.error
    assert header(page)["curves"]


def test_a_users_error_is_a_message_and_a_bug_stays_loud(here, monkeypatch):
    def damaged(question):
        raise CheckpointError("this file is damaged; delete it")

    monkeypatch.setattr(ntk_kept, "answer", damaged)
    assert "This file is damaged; delete it" in texts(open_page(), "error")

    def wrong(question):
        raise ValueError("received 3, expected 4")

    monkeypatch.setattr(ntk_kept, "answer", wrong)
    assert open_page().exception[0].proto.type == "ValueError"


def put_vector(store: Store, task: str, scale: float) -> None:
    """Store a newer linearly fine-tuned task vector."""
    entry = store.one("checkpoint", "", task=task, mode="linear")
    tau = {name: scale * value for name, value in store.get(entry).items()}
    store.put("checkpoint", tau, {**entry.meta, "tau_digest": digest_tensors(tau)})


def test_a_changed_task_vector_counts_as_not_computed_and_says_so(own):
    assert "ntk_start" not in buttons(open_page(t="signs", k="letters"))
    put_vector(own, "signs", 2)
    page = open_page(t="signs", k="letters")
    assert not page.exception
    assert "task vector of miniature is newer than the energies that are kept" in texts(
        page, "info"
    )
    assert "ntk_start" in buttons(page)
    assert page.number_input(key=state.NTK_POINTS).value == N  # what is to be computed again
    assert ntk_pairs.pairs("miniature")  # scores do not depend on it


def test_without_a_task_vector_the_page_says_how_to_make_one(monkeypatch, tmp_path):
    store = use(monkeypatch, make_world(tmp_path, FEW, modes=("nonlinear",)))
    keep_energies(store, "signs", ("letters",), N, weighted=False)
    page = open_page(t="signs", k="letters")
    assert header(page)["curves"]
    assert "finetune --encoder miniature --mode linear --tasks signs" in texts(page, "info")
    put = make_world(tmp_path, FEW, modes=("linear",))
    assert put.find("checkpoint", mode="linear")
    page = open_page(t="signs", k="letters")
    assert "ntk_start" in buttons(page)  # the next step that was promised


def test_the_trace_kernel_says_where_coefficients_are(monkeypatch, tmp_path):
    store = use(monkeypatch, make_world(tmp_path, FEW))
    keep_energies(store, "signs", ("letters",), N, logits="trace", weighted=False)
    page = open_page(t="signs", k="letters", l="trace")
    assert header(page)["curves"]
    assert "choose a number of logits under **Kernels of**" in texts(page, "info")


def test_other_prompts_are_another_question(here, monkeypatch):
    from app.compute import models
    from engine.tasks import load_task

    question = Question("miniature", "signs", "letters", N, "3")
    assert ntk_kept.answer(question) is not None
    reworded = replace(load_task("signs"), templates=("a sign of {}.",))
    original = models.task
    monkeypatch.setattr(models, "task", lambda r: reworded if r == "signs" else original(r))
    assert ntk_kept.answer(question) is None
    assert not ntk_kept.is_outdated(question)
    assert ntk_pairs.pairs("miniature") == {}


def test_encoders_with_other_settings_are_shown_at_those_they_share(here):
    fine, coarse = shown_of(here), shown_of(here)
    few = replace(
        coarse.energy,
        leading=(2, N),
        energy_leading=coarse.energy.energy_leading[:, :, [1, -1]],
        ridges=(0.01, 0.5),
        energy_ridge=coarse.energy.energy_ridge[:, :, [3, 0]],
    )
    shown = [fine, energies.Shown("other", fine.question, few)]
    assert [stop.key for stop in energies.common(shown)] == ["R2", f"R{N}", "ridge0.01"]
    head = header_of(energies.explorer(shown, "R2", "sorted", 0))
    assert {curve["mean"]["shape"][0] for curve in head["curves"]} == {3}


def test_regression_and_blocks_stand_on_the_page(here):
    page = open_page(t="signs", k="letters")
    said = texts(page, "caption")
    assert f"kernel regression on the task's {N} points explains" in said
    found = kept(here)
    rows = energy_tables.block_rows([shown_of(here)])
    assert [row["auc"] for row in rows] == [score["auc"] for score in found.layer_scores.values()]
    drawn = charts(page)[6]["data"][0]
    assert list(drawn["x"]) == pytest.approx([row["auc"] for row in rows])
    spectrum = charts(page)[3]["data"][-1]
    assert spectrum["name"] == "miniature, square kernel"
    assert spectrum["y"][0] == 1


def test_points_are_drawn_from_so_many_images_as_asked(here):
    page = open_page(t="signs", k="letters")
    assert page.number_input(key=state.NTK_LIMIT).value is None
    page.number_input(key=state.NTK_LIMIT).set_value(40).run()
    assert not page.exception
    assert page.query_params[state.QUERY_LIMIT] == "40"
    assert "ntk_start" in buttons(page)  # other points: another answer
    question = Question("miniature", "signs", "letters", N, "3", limit=40)
    assert len(ntk_kept.split(question, "signs").labels) == 40
    page = open_page(t="signs", k="letters", f="40", n=str(N), l="3")
    assert page.number_input(key=state.NTK_LIMIT).value == 40


def test_an_encoder_may_be_typed(here):
    page = open_page(t="signs", k="letters", b="ViT-B-32:nonsense")
    assert not page.exception
    assert page.selectbox(key=state.NTK_BESIDE).value == "ViT-B-32:nonsense"
    assert "nonsense" in texts(page, "error")
    assert header(page)["curves"]  # the first encoder is not hidden


def test_the_matrix_counts_tasks_that_were_brought(here, monkeypatch, tmp_path):
    for name in ("birds", "fish"):
        for split in ("train", "test"):
            for label in ("a", "b"):
                place = tmp_path / name / split / label
                place.mkdir(parents=True)
                for k in range(3):
                    Image.new("RGB", (32, 32), (40 * k, len(name), 9)).save(place / f"{k}.png")
    brought = {str(tmp_path / name): name for name in ("birds", "fish")}
    gone = {str(tmp_path / "gone"): "gone"}
    monkeypatch.setattr(catalogue, "own_tasks", lambda: brought | gone)
    missing = ntk_pairs.unanswered("miniature", N, "3", [("signs", "letters"), ("birds", "fish")])
    pairs = {(question.task, question.control) for question in missing}
    birds, fish = brought
    assert (birds, "signs") in pairs
    assert ("signs", birds) in pairs
    assert (fish, birds) in pairs
    assert (birds, fish) not in pairs  # kept
    assert ("signs", "letters") not in pairs
    assert not any(str(tmp_path / "gone") in pair for pair in pairs)
    assert len(pairs) == 10 * 10 - 2
