"""Every page with an open_clip tower from a file and tasks of folders, beside the miniature."""

import json

import numpy as np
import open_clip
import pytest
import safetensors.torch
from PIL import Image
from streamlit.testing.v1 import AppTest

from app import state, widgets
from app.components.alpha import header_of
from app.compute import catalogue, energies, jobs
from engine.__main__ import main
from engine.encoders import load_encoder
from engine.encoders.towers import build_model
from engine.evaluate import linearized_accuracy
from engine.jobs import Jobs
from engine.responses import responses
from engine.store import Store
from engine.tasks import load_split, load_task, miniature
from tests import shown_pages
from tests.made_jobs import asleep
from tests.shown_pages import settle, texts, use
from tests.test_app_disentanglement import maps
from tests.test_real_chain import SMALL
from tests.tiny_world import make_world

TASKS = ("bars", "dots")
COLOURS = {"amber": (250, 190, 20), "teal": (10, 130, 130), "plum": (130, 30, 120)}
TRAIN, TEST, POINTS = 20, 12, 6  # pictures a class, and points of a kernel's block
RATES = {"nonlinear": "2e-4", "linear": "2e-3"}  # something is learnt in a few steps

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_caches")]


def draw(folder, task: str) -> None:
    """Write a task as a folder of pictures a class: coloured bars or dots on noise."""
    source = np.random.default_rng(len(task) + ord(task[0]))
    for part, count in (("train", TRAIN), ("test", TEST)):
        for name, colour in COLOURS.items():
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = source.integers(0, 256, (48, 48, 3), dtype=np.uint8)
                at = source.integers(4, 28)
                rows = slice(at, at + 14)
                pixels[rows, rows if task == "dots" else slice(None)] = colour
                Image.fromarray(pixels).save(folder / part / name / f"{index}.png")


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(open_clip.factory._MODEL_CONFIGS, "small-quickgelu", SMALL)
        patch.setitem(miniature.SIZES, "train", 400)
        patch.setitem(miniature.SIZES, "test", 60)
        yield patch


@pytest.fixture(scope="module")
def encoder(tmp_path_factory, patch) -> str:
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    safetensors.torch.save_file(build_model(SMALL, 3).state_dict(), path)
    return f"small-quickgelu:{path}"


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("tasks")
    for task in TASKS:
        draw(folder / task, task)
    return {task: str(folder / task) for task in TASKS}


@pytest.fixture(scope="module")
def world(tmp_path_factory, encoder, paths) -> Store:
    """The miniature's stand-in, and beside it all that the command line makes of a small tower."""
    store = make_world(tmp_path_factory.mktemp("world"), ("signs",))
    on = ["--encoder", encoder, "--cache", str(store.home)]
    tasks = ["--tasks", *paths.values()]
    for mode, rate in RATES.items():
        recipe = ["--steps", "12", "--batch", "16", "--rate", rate, "--warmup", "2"]
        assert main(["finetune", *on, *tasks, "--mode", mode, *recipe]) == 0
    for mode in state.READINGS:
        assert main(["addition", *on, *tasks, "--mode", mode]) == 0
    assert main(["negation", *on, *tasks, "--mode", "posthoc"]) == 0
    pair = ["--task", paths["dots"], "--control", paths["bars"]]
    assert main(["ntk", *on, *pair, "--points", str(POINTS), "--logits", "1"]) == 0
    return store


@pytest.fixture
def here(world, monkeypatch) -> Store:
    asleep(monkeypatch)
    return use(monkeypatch, world)


def open_page(name: str, **query: str) -> AppTest:
    page = settle(shown_pages.open_page(name, **query))
    assert not page.error, texts(page, "error")
    return page


def charts(page: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in page.get("plotly_chart")]


def record(store: Store, what: str, **meta) -> dict:
    (entry,) = store.find("result", what=what, **meta)
    return entry.meta["record"]


def taus(store: Store, encoder: str, mode: str) -> dict[str, dict]:
    found = catalogue.newest(catalogue.checkpoints(), encoder, mode)
    assert list(found) == list(TASKS)
    return {name: store.get(item.entry) for name, item in found.items()}


def test_overview_shows_its_accuracies(here, encoder):
    page = open_page("overview")
    chooser = page.selectbox(key=state.OVERVIEW_ENCODER)
    assert chooser.options == ["miniature", encoder]
    page = settle(chooser.set_value(encoder).run())
    assert [metric.value for metric in page.metric] == ["2 tasks", "2 tasks"]
    drawn = charts(page)[0]["data"][0]
    shown = dict(zip(drawn["y"], drawn["text"], strict=True))
    for task in TASKS:
        kept = [
            here.find("checkpoint", encoder=encoder, task=task, mode=mode)[0].meta["accuracy"]
            for mode in catalogue.MODES
        ]
        assert shown[task] == [f"{100 * accuracy['test']:.1f}" for accuracy in kept]


def test_checkpoints_lists_and_compares_them(here, encoder):
    from engine.task_vectors import cosine

    page = open_page("checkpoints")
    listed = page.dataframe[0].value
    assert (listed["encoder"] == encoder).sum() == 4
    page = settle(page.selectbox(key=state.CHECKPOINTS_ENCODER).set_value(encoder).run())
    mine = taus(here, encoder, "nonlinear")
    matrix = next(chart for chart in charts(page) if chart["data"][0]["type"] == "heatmap")
    assert list(matrix["data"][0]["y"]) == list(TASKS)
    assert float(matrix["data"][0]["text"][0][1]) == pytest.approx(
        cosine(mine["bars"], mine["dots"]), abs=0.005
    )


@pytest.mark.parametrize("reading", ["linear", "posthoc"])
def test_merge_reads_what_the_engine_reads(here, encoder, paths, reading):
    alphas = {"bars": 0.8, "dots": -0.3}
    page = open_page("merge", e=encoder, r=reading, t="bars,dots", a="0.8,-0.3")
    assert page.selectbox(key=state.MERGE_ENCODER).options == ["miniature", encoder]
    header = header_of(shown_pages.sliders(page))
    assert (header["reading"], header["alphas"]) == (reading, list(alphas.values()))
    drawn = charts(page)[-1]["data"][0]
    shown = dict(zip(drawn["y"], drawn["x"], strict=True))
    loaded = load_encoder(encoder, here)
    mine = taus(here, encoder, "linear" if reading == "linear" else "nonlinear")
    for name in TASKS:
        task = load_task(paths[name])
        split = load_split(task, "test", loaded.image_size, here)
        exact = linearized_accuracy(responses(loaded, task, split, mine), alphas)
        assert shown[name] == pytest.approx(exact, abs=1e-12)


def test_merge_reads_the_network_itself(here, encoder, paths):
    from engine.evaluate import evaluate_nonlinear
    from engine.task_vectors import combine

    page = open_page("merge", e=encoder, r="nonlinear", t="bars,dots", a="0.5,1")
    drawn = charts(page)[-1]["data"][0]
    shown = dict(zip(drawn["y"], drawn["x"], strict=True))
    loaded = load_encoder(encoder, here)
    theta = combine(loaded.theta0, taus(here, encoder, "nonlinear"), {"bars": 0.5, "dots": 1.0})
    for name in TASKS:
        task = load_task(paths[name])
        split = load_split(task, "test", loaded.image_size, here)
        exact = evaluate_nonlinear(loaded, theta, split, loaded.head(task))
        assert shown[name] == pytest.approx(exact, abs=1e-12)


def test_disentanglement_draws_the_pair(here, encoder, paths, capsys):
    page = open_page("disentanglement", e=encoder, t="bars,dots", a="1,1", g="11", x="-1,1")
    assert page.selectbox(key=state.XI_ENCODER).value == encoder
    drawn = maps(page)
    for mode, title in (("posthoc", "post-hoc linearized"), ("linear", "linear")):
        capsys.readouterr()
        words = ["disentanglement", "--encoder", encoder, "--tasks", *paths.values()]
        words += ["--mode", mode, "--grid", "11", "--range", "1", "--json"]
        assert main([*words, "--cache", str(here.home)]) == 0
        answer = json.loads(capsys.readouterr().out)
        shown = drawn[f"{encoder}, {title}"]["tables"]["xi"]
        assert np.max(answer["xi"]) > 0
        np.testing.assert_allclose(shown, np.array(answer["xi"]), atol=1e-6)  # sent in float32


def test_negate_shows_what_the_command_measured(here, encoder):
    page = open_page("negate", e=encoder)
    assert page.selectbox(key=state.NEGATE_ENCODER).value == encoder
    (metric,) = page.metric
    assert metric.label == "Post-hoc linearized: mean of 2 tasks"
    assert metric.value == f"{100 * record(here, 'negation')['target']:.1f} %"


def test_eigenfunctions_opens_what_is_kept(here, encoder, paths):
    from engine.ntk import kept_local_energy

    page = open_page("ntk", e=encoder, t=paths["dots"], k=paths["bars"])
    assert page.selectbox(key=state.NTK_ENCODER).value == encoder
    assert page.number_input(key=state.NTK_POINTS).value == POINTS
    asked = {"task": "dots", "control": "bars", "points": POINTS}
    (kept,) = kept_local_energy(here, load_encoder(encoder, here), **asked)
    mean = next(t for t in charts(page)[0]["data"] if "point" in t.get("name", ""))
    wanted = energies.table_of(kept, "paper", f"R{POINTS}").mean(axis=0)[:POINTS]
    assert list(mean["y"]) == pytest.approx(sorted(wanted.tolist(), reverse=True))


def test_results_are_of_its_own_tasks(here, encoder, monkeypatch):
    monkeypatch.setattr(jobs, "queue", lambda: Jobs(here.home))
    page = open_page("results", e=encoder, v="addition")
    assert page.selectbox(key=state.RESULTS_TASKS).value == state.OWN
    (table,) = [json.loads(item.proto.json) for item in page.get("bidi_component")]
    cells = {
        line["title"]: [cell["sides"][0]["text"] for cell in line["cells"]]
        for line in table["rows"]
    }
    titles = ("Non-linear FT", "Post-hoc linearization", "Linear FT")
    for title, mode in zip(titles, ("nonlinear", "posthoc", "linear"), strict=True):
        made = record(here, "addition", mode=mode)
        measured = (made["absolute"], made["normalized"])
        assert cells[title][:2] == [f"{100 * value:.1f}" for value in measured]
    page.selectbox(key=state.RESULTS_TASKS).set_value(state.EIGHT).run()
    page = settle(page)
    (table,) = [json.loads(item.proto.json) for item in page.get("bidi_component")]
    assert {line["cells"][0]["sides"][0]["text"] for line in table["rows"]} == {"not run yet"}
    assert page.query_params[state.QUERY_TASKS] in (state.EIGHT, [state.EIGHT])


def test_finetune_offers_it_and_tells_its_cost(here, encoder, paths):
    from engine.finetune import recipe_for

    page = open_page("finetune")
    chooser = page.selectbox(key=f"{state.FINETUNE_FORM}encoder")
    assert chooser.options == ["miniature", encoder]
    chooser.set_value(encoder)
    page.multiselect(key=f"{state.FINETUNE_FORM}tasks").set_value([paths["dots"]])
    page = settle(page.run())
    told = {metric.label: metric.value for metric in page.metric}
    assert told["Steps"] == f"{recipe_for(encoder, 'linear').steps:,}"
    count = sum(value.numel() for value in load_encoder(encoder, here).theta0.values())
    assert told["Disk"] == widgets.megabytes(4 * count + 50_000)
    page.button(key="finetune_launch").click().run()
    (job,) = Jobs(here.home).list()
    assert (job.option("--encoder"), job.option("--tasks")) == (encoder, paths["dots"])
