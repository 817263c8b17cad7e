"""The Merge page in Chromium: mouse, keyboard, link, pinned settings, exactness, latency."""

import json
import random
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import safetensors.torch
import torch

from engine.encoders import load_encoder
from engine.evaluate import evaluate_nonlinear, linearized_accuracy
from engine.responses import responses
from engine.store import Store
from engine.task_vectors import combine
from engine.tasks import CONTROL, load_split, load_task
from tests.browser.conftest import faults
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
WIDGET = "[data-testid=alpha-widget]"
TASKS = ("handwriting", "letters", "signs", "vehicles")  # every one more costs each the more
LIMIT = 180_000  # ms: the first view computes every score, on a machine that may be busy


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make_world(tmp_path_factory.mktemp("cache"), TASKS)


@pytest.fixture(scope="module")
def address(world, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(world.home)})


@pytest.fixture(scope="module")
def engine(world):
    """What the readouts must equal, computed by the engine alone."""
    return Engine(world)


class Engine:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.encoder = load_encoder("miniature", store)

    def accuracies(self, reading: str, alphas: dict[str, float], n: int) -> dict[str, float]:
        """Accuracy of the merged model on the first n test images of every task."""
        trained = "linear" if reading == "linear" else "nonlinear"
        taus = {
            task: self.store.get(self.store.one("checkpoint", "", task=task, mode=trained))
            for task in TASKS
        }
        theta = combine(self.encoder.theta0, taus, alphas)
        found = {}
        for name in (*TASKS, CONTROL):
            task = load_task(name)
            split = load_split(task, "test", 32, self.store, n)
            if reading == "nonlinear":
                head = self.encoder.head(task)
                found[name] = evaluate_nonlinear(self.encoder, theta, split, head)
            else:
                found[name] = linearized_accuracy(self.responses(name, trained, taus, n), alphas)
        return found

    def responses(self, name, trained, taus, n):
        key = (name, trained, n)
        self.known = getattr(self, "known", {})
        if key not in self.known:
            split = load_split(load_task(name), "test", 32, self.store, n)
            self.known[key] = responses(self.encoder, load_task(name), split, taus)
        return self.known[key]


def open_merge(page, address: str, query: str = "") -> None:
    page.goto(f"{address}/merge{query}", timeout=LIMIT)
    page.wait_for_selector(WIDGET, timeout=LIMIT)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=LIMIT)


def in_address(page) -> dict[str, float]:
    """Alphas as the address says them."""
    query = parse_qs(urlsplit(page.url).query)
    names, values = query["t"][0].split(","), query["a"][0].split(",")
    return dict(zip(names, map(float, values), strict=True))


def readouts(page) -> dict[str, str]:
    return {
        name: page.get_by_test_id(f"value-{name}").inner_text().strip()
        for name in (*TASKS, CONTROL)
    }


def wait_until(page, condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        page.wait_for_timeout(20)  # not time.sleep: the page's address is learnt from its events
    raise AssertionError("waited in vain")


def set_number(page, name: str, value: float) -> None:
    field = page.get_by_test_id(f"number-{name}")
    field.fill(f"{value:.2f}")
    field.press("Enter")


def release_all(page, alphas: dict[str, float]) -> None:
    """Move every slider without letting go, then let the last one go: one rerun for all."""
    for name, alpha in alphas.items():
        page.get_by_test_id(f"range-{name}").evaluate(
            """(slider, value) => {
                slider.value = value;
                slider.dispatchEvent(new Event("input", { bubbles: true }));
            }""",
            f"{alpha:.2f}",
        )
    page.get_by_test_id(f"range-{name}").dispatch_event("change")
    wait_until(page, lambda: in_address(page) == alphas)


def is_exact(page) -> bool:
    """Whether the widget says so: not "approximate", and not "computing exact value"."""
    said = page.get_by_test_id("status").inner_text()
    return said.startswith("exact") and "control follows" not in said


def shown(value: float) -> str:
    return f"{100 * value:.1f}"


def test_dragging_moves_readouts_and_release_writes_the_address(page, address, settled):
    open_merge(page, address)
    assert in_address(page) == dict.fromkeys(TASKS, 0.3)
    before = readouts(page)
    box = page.get_by_test_id("range-signs").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * (1.3 / 3), middle)
    page.mouse.down()
    seen = set()
    for step in range(20):
        page.mouse.move(box["x"] + box["width"] * (0.45 + step / 40), middle)
        seen.add(tuple(readouts(page).values()))
    # everything so far came from the browser alone: nothing was released
    assert in_address(page)["signs"] == 0.3
    assert len(seen) > 5
    page.mouse.up()
    wait_until(page, lambda: in_address(page)["signs"] > 0.8)
    assert readouts(page) != before
    held = in_address(page)
    page.reload()
    page.wait_for_selector(WIDGET, timeout=LIMIT)
    settled(page)
    assert in_address(page) == held
    assert float(page.get_by_test_id("number-signs").input_value()) == held["signs"]
    assert faults(page) == []


@pytest.mark.parametrize("reading", ["linear", "posthoc"])
def test_readouts_equal_the_engine(page, address, engine, reading):
    open_merge(page, address, f"?r={reading}")
    source = random.Random(7)
    for _ in range(20 if reading == "linear" else 5):
        alphas = {task: round(source.uniform(-1, 2), 2) for task in TASKS}
        release_all(page, alphas)
        exact = engine.accuracies(reading, alphas, 500)
        assert readouts(page) == {name: shown(value) for name, value in exact.items()}
    assert is_exact(page)


def test_the_nonlinear_reading_is_exact_after_release_and_approximate_until(page, address, engine):
    open_merge(page, address, "?r=nonlinear")
    source = random.Random(8)
    for _ in range(5):
        alphas = {task: round(source.uniform(-0.5, 1), 2) for task in TASKS}
        release_all(page, alphas)
        wait_until(page, lambda: is_exact(page))
        exact = engine.accuracies("nonlinear", alphas, 250)
        assert readouts(page) == {name: shown(value) for name, value in exact.items()}
    wait_until(page, lambda: "1,000" in page.get_by_test_id("full").inner_text(), 120)
    whole = engine.accuracies("nonlinear", alphas, 1000)
    mean = sum(whole[task] for task in TASKS) / len(TASKS)
    assert shown(mean) in page.get_by_test_id("full").inner_text()
    box = page.get_by_test_id("range-signs").bounding_box()
    middle, at = box["y"] + box["height"] / 2, box["x"] + box["width"] * 0.3
    page.mouse.move(at, middle)
    page.mouse.down()
    page.mouse.move(at + 9, middle)
    assert not is_exact(page)
    page.mouse.up()
    wait_until(page, lambda: is_exact(page))


def test_the_keyboard_moves_a_slider(page, address):
    open_merge(page, address)
    slider = page.get_by_test_id("range-letters")
    slider.focus()
    for _ in range(3):
        slider.press("ArrowRight")
    wait_until(page, lambda: in_address(page)["letters"] > 0.3)


def test_the_address_of_another_restores_everything(page, address):
    query = "?e=miniature&r=posthoc&c=mean&t=signs,letters&a=1.25,-0.5"
    open_merge(page, address, query)
    assert in_address(page) == {"letters": -0.5, "signs": 1.25}
    assert page.get_by_test_id("number-letters").input_value() == "-0.50"
    assert page.get_by_test_id("number-signs").input_value() == "1.25"
    assert page.get_by_test_id("row-vehicles").count() == 0
    assert "mean" in page.get_by_test_id("alpha-widget").inner_text()


def test_pinning_downloads_and_the_merged_weights(page, address, engine, downloaded):
    open_merge(page, address)
    page.get_by_role("button", name="Pin", exact=True).click()
    page.get_by_text("Pinned settings", exact=True).wait_for(timeout=LIMIT)
    set_number(page, "signs", 1.0)
    page.get_by_role("button", name="Pin", exact=True).click()
    wait_until(page, lambda: page.get_by_test_id("unpin-1").count())
    file = downloaded(page, page.get_by_role("button", name=re.compile("Merged task vector")))
    tensors = safetensors.torch.load_file(file.path())
    wanted = {}
    for task in TASKS:
        entry = engine.store.one("checkpoint", "", task=task, mode="linear")
        for name, value in engine.store.get(entry).items():
            alpha = 1.0 if task == "signs" else 0.3
            wanted[name] = wanted.get(name, 0) + alpha * value.double()
    assert tensors.keys() == {f"tau.visual.{name}" for name in wanted}
    for name, value in wanted.items():
        torch.testing.assert_close(tensors[f"tau.visual.{name}"].double(), value, atol=1e-6, rtol=0)


def test_the_figure_gives_csv_json_and_svg(page, address, downloaded, settled):
    open_merge(page, address)
    block = page.locator(".st-key-merge_figure_download")
    block.get_by_role("button", name="Download").click()
    file = downloaded(page, page.get_by_role("button", name="JSON", exact=True).last)
    record = json.loads(Path(file.path()).read_text())
    assert record["provenance"]["kind"] == "exact"
    assert set(record["provenance"]["checkpoints"]) == set(TASKS)
    assert record["provenance"]["n"]["signs"] == 500
    file = downloaded(page, page.get_by_role("button", name="CSV", exact=True).last)
    assert file.suggested_filename.endswith(".csv")
    assert len(Path(file.path()).read_text().splitlines()) == 1 + len(TASKS) + 1 + 3
    page.get_by_role("radio", name="SVG").or_(page.get_by_role("button", name="SVG")).click()
    page.keyboard.press("Escape")
    settled(page, LIMIT)
    figure = page.locator(".st-key-merge_figure .js-plotly-plot").first
    figure.hover(timeout=LIMIT)
    with page.expect_download(timeout=LIMIT) as caught:
        figure.locator("[data-title^=Download]").click(timeout=LIMIT)
    assert caught.value.suggested_filename.endswith(".svg")
    drawn = Path(caught.value.path()).read_text()
    assert drawn.lstrip().startswith("<svg")
    assert all(load_task(task).title in drawn for task in TASKS)
