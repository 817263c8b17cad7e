"""Merging methods on the Merge page in Chromium: chosen by mouse and by keyboard, live, exact."""

import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import safetensors.torch
import torch

from engine.encoders import load_encoder
from engine.evaluate import MERGED, evaluate_nonlinear, linearized_accuracy
from engine.merging import apply, prepare
from engine.responses import responses
from engine.store import Store
from engine.tasks import CONTROL, load_split, load_task
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
WIDGET = "[data-testid=alpha-widget]"
LIMIT = 180_000  # ms: the first view computes every score, on a machine that may be busy
FEW = ("signs", "letters", "textures")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make_world(tmp_path_factory.mktemp("cache"), FEW)


@pytest.fixture(scope="module")
def address(world, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(world.home)})


def open_merge(page, address: str, query: str = "") -> None:
    page.goto(f"{address}/merge{query}", timeout=LIMIT)
    page.wait_for_selector(WIDGET, timeout=LIMIT)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=LIMIT)


def asked(page, key: str) -> str | None:
    return parse_qs(urlsplit(page.url).query).get(key, [None])[0]


def readouts(page) -> dict[str, str]:
    return {
        name: page.get_by_test_id(f"value-{name}").inner_text().strip() for name in (*FEW, CONTROL)
    }


def wait_until(page, condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        page.wait_for_timeout(20)  # not time.sleep: the page's address is learnt from its events
    raise AssertionError("waited in vain")


def is_exact(page) -> bool:
    return page.get_by_test_id("status").inner_text().startswith("exact")


def shown(value: float) -> str:
    return f"{100 * value:.1f}"


def engine(store: Store, reading: str, method: str, alpha: float, n: int, **options) -> dict:
    """Accuracies of the merged model on the first n test images, by the engine alone."""
    trained = "linear" if reading == "linear" else "nonlinear"
    encoder = load_encoder("miniature", store)
    taus = {
        task: {
            name: value.float()
            for name, value in store.get(
                store.one("checkpoint", "", task=task, mode=trained)
            ).items()
        }
        for task in sorted(FEW, key=("letters", "signs", "textures").index)
    }
    direction = prepare(taus, method, **options)
    found = {}
    for name in (*FEW, CONTROL):
        task = load_task(name)
        split = load_split(task, "test", 32, store, n)
        if reading == "nonlinear":
            theta = apply(encoder.theta0, direction, alpha)
            found[name] = evaluate_nonlinear(encoder, theta, split, encoder.head(task))
        else:
            reading_of = responses(encoder, task, split, {MERGED: direction})
            found[name] = linearized_accuracy(reading_of, {MERGED: alpha})
    return {name: shown(value) for name, value in found.items()}


def choose_method(page, title: str) -> None:
    page.locator(".st-key-merge_method").get_by_role("combobox").click()
    page.get_by_role("option", name=title, exact=True).click()


def drag(page, start: float, end: float) -> set:
    """Drag the direction's slider between two shares of its length, and return what was read."""
    box = page.get_by_test_id("range-all").bounding_box()
    middle, seen = box["y"] + box["height"] / 2, set()
    page.mouse.move(box["x"] + box["width"] * start, middle)
    page.mouse.down()
    for step in range(1, 21):
        page.mouse.move(box["x"] + box["width"] * (start + (end - start) * step / 20), middle)
        seen.add(tuple(readouts(page).values()))
    return seen


def test_a_method_is_chosen_and_dragged_live_and_exact(page, address, world):
    open_merge(page, address)
    choose_method(page, "TIES")
    wait_until(page, lambda: asked(page, "m") == "ties")
    wait_until(page, lambda: page.get_by_test_id("range-signs").count() == 0)
    assert asked(page, "a") == "0.3"  # kept from the sliders
    assert page.get_by_test_id("range-all").get_attribute("max") == "2"
    seen = drag(page, 0.15, 0.8)
    assert asked(page, "a") == "0.3"  # nothing was released: the browser alone computed
    assert len(seen) > 5
    assert is_exact(page)
    page.mouse.up()
    wait_until(page, lambda: float(asked(page, "a")) > 1.4)
    alpha = float(asked(page, "a"))
    assert readouts(page) == engine(world, "linear", "ties", alpha, 500)
    page.reload()
    page.wait_for_selector(WIDGET, timeout=LIMIT)
    wait_until(page, lambda: page.get_by_test_id("number-all").count())
    assert float(page.get_by_test_id("number-all").input_value()) == alpha


def test_the_keyboard_chooses_a_method_and_moves_its_slider(page, address, world):
    open_merge(page, address)
    box = page.locator(".st-key-merge_method").get_by_role("combobox")
    box.focus()
    page.keyboard.type("Iso-CTS")
    page.keyboard.press("Enter")
    wait_until(page, lambda: asked(page, "m") == "iso-cts")
    wait_until(page, lambda: page.get_by_test_id("range-signs").count() == 0)
    slider = page.get_by_test_id("range-all")
    slider.focus()
    for _ in range(5):
        slider.press("PageUp")
    wait_until(page, lambda: asked(page, "a") == "0.8")
    assert readouts(page) == engine(world, "linear", "iso-cts", 0.8, 500)


def test_an_option_is_set_where_it_is_explained(page, address, world):
    open_merge(page, address, "?m=ties&a=1")
    page.get_by_text("share of each task vector that is kept", exact=False).wait_for()
    field = page.locator(".st-key-merge_option_ties_density").get_by_role("spinbutton")
    field.fill("0.6")
    field.press("Enter")
    wait_until(page, lambda: asked(page, "o") == "density:0.6")
    wanted = engine(world, "linear", "ties", 1.0, 500, density=0.6)
    wait_until(page, lambda: page.locator(WIDGET).count() and readouts(page) == wanted, 60)


def test_a_nonlinear_method_is_approximate_then_exact(page, address, world):
    open_merge(page, address, "?r=nonlinear&m=dare&a=0.4")
    wait_until(page, lambda: is_exact(page))
    drag(page, 0.2, 0.45)
    assert not is_exact(page)
    page.mouse.up()
    wait_until(page, lambda: is_exact(page))
    alpha = float(asked(page, "a"))
    assert alpha > 0.8
    assert readouts(page) == engine(world, "nonlinear", "dare", alpha, 250)


def test_validations_alpha_is_marked_and_taken(page, address):
    open_merge(page, address, "?m=tsv")
    best = page.get_by_test_id("best-shared")
    wait_until(page, best.is_enabled)
    assert best.inner_text() == "Best alpha"
    assert not page.get_by_test_id("best-per-task").is_visible()
    chosen = page.get_by_test_id("curve").locator("text.chosen").text_content().split()[-1]
    best.click()
    wait_until(page, lambda: float(asked(page, "a")) == float(chosen))


def test_settings_of_two_methods_stand_side_by_side(page, address):
    open_merge(page, address, "?m=ties&a=0.5")
    page.get_by_role("button", name="Pin", exact=True).click()
    wait_until(page, lambda: page.get_by_test_id("restore-0").count())
    choose_method(page, "TSV-M")
    wait_until(page, lambda: asked(page, "m") == "tsv")
    wait_until(page, lambda: page.get_by_test_id("restore-0").count())
    wait_until(page, lambda: page.get_by_test_id("restore-0").is_disabled())
    assert "ties (density 0.2)" in page.get_by_test_id("pins").inner_text()
    choose_method(page, "TIES")
    wait_until(page, lambda: asked(page, "m") == "ties")
    wait_until(page, lambda: page.get_by_test_id("restore-0").is_enabled())


def test_the_merged_file_is_made_by_the_method(page, address, world, downloaded):
    open_merge(page, address, "?m=ties&a=0.5")
    file = downloaded(page, page.get_by_role("button", name=re.compile("Merged task vector")))
    assert file.suggested_filename == "merged_miniature_linear_ties.safetensors"
    tensors = safetensors.torch.load_file(file.path())
    taus = {
        task: world.get(world.one("checkpoint", "", task=task, mode="linear"))
        for task in ("letters", "signs", "textures")
    }
    for name, value in prepare(taus, "ties").items():
        got = tensors[f"tau.visual.{name}"].double()
        torch.testing.assert_close(got, 0.5 * value.double(), atol=1e-6, rtol=0)


def test_nothing_is_wider_than_a_telephone(open_page, address):
    with open_page(390, 844) as page:
        open_merge(page, address, "?m=dare&a=0.5")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        row = page.get_by_test_id("row-signs").bounding_box()
        assert row["x"] + row["width"] <= 390
