"""The Merge page on small real tasks with the embedded miniature, against the engine."""

import json

import pytest

from app import state
from app.components.alpha import header_of
from engine.__main__ import main
from engine.encoders import load_encoder
from engine.evaluate import evaluate_nonlinear, linearized_accuracy
from engine.responses import responses
from engine.store import Store, default_store
from engine.task_vectors import combine
from engine.tasks import load_split, load_task
from tests import shown_pages
from tests.shown_pages import settle, texts

TASKS = ("eurosat", "mnist", "signdigits")
ALPHAS = {"eurosat": 0.7, "mnist": 1.1, "signdigits": -0.4}
N = 500  # images a task that the page reads at most, 250 of the network itself

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_caches")]


@pytest.fixture(scope="module")
def world(tmp_path_factory, real_data) -> Store:
    """The embedded miniature with task vectors of a few steps on real pictures."""
    home = tmp_path_factory.mktemp("world")
    paths = [str(real_data / name) for name in TASKS]
    short = ["--steps", "10", "--batch", "32", "--limit", "400", "--measure-on", "40"]
    for mode in ("nonlinear", "linear"):
        words = ["finetune", "--tasks", *paths, "--mode", mode, *short, "--cache", str(home)]
        assert main(words) == 0
    return Store(home, default_store().embedded)


@pytest.fixture
def here(world, monkeypatch) -> Store:
    monkeypatch.setenv("TAUSCOPE_CACHE", str(world.home))
    monkeypatch.setattr("engine.store.default_store", lambda: world)
    return world


@pytest.mark.parametrize("reading", state.READINGS)
def test_merge_reads_real_pictures_as_the_engine_does(here, real_data, reading):
    values = ",".join(f"{alpha:g}" for alpha in ALPHAS.values())
    asked = {"e": "miniature", "r": reading, "t": ",".join(TASKS), "a": values}
    page = settle(shown_pages.open_page("merge", **asked))
    assert not page.error, texts(page, "error")
    header = header_of(shown_pages.sliders(page))
    assert [slider["name"] for slider in header["sliders"]] == list(TASKS)
    assert header["alphas"] == list(ALPHAS.values())
    drawn = json.loads(page.get("plotly_chart")[-1].proto.spec)["data"][0]
    shown = dict(zip(drawn["y"], drawn["x"], strict=True))
    encoder = load_encoder("miniature", here)
    about = {"mode": "linear" if reading == "linear" else "nonlinear"}
    about |= {"encoder_digest": encoder.digest}
    taus = {name: here.get(here.find("checkpoint", task=name, **about)[0]) for name in TASKS}
    found = {}
    for name in TASKS:
        task = load_task(str(real_data / name))
        if reading == "nonlinear":
            split = load_split(task, "test", 32, here, 250)
            theta = combine(encoder.theta0, taus, ALPHAS)
            found[name] = evaluate_nonlinear(encoder, theta, split, encoder.head(task))
        else:
            split = load_split(task, "test", 32, here, N)
            found[name] = linearized_accuracy(responses(encoder, task, split, taus), ALPHAS)
        assert shown[task.title] == pytest.approx(found[name], abs=1e-12)
    assert len(set(found.values())) > 1
