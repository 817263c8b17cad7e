"""The Gradients page in Chromium: the live slider, a click that leads to a map, checks, jobs."""

import json
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.__main__ import main
from engine.encoders import load_encoder
from engine.gradients import keep_gradients, kept_gradients
from engine.store import Store
from tests.browser.conftest import faults
from tests.gradient_records import TASKS, make_record
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
EXPLORER = "[data-testid=epochs-explorer]"
FEW = ["--tasks", "signs", "letters", "--epochs", "2", "--images", "8", "--exact-images", "4"]
LIMIT = 240_000  # ms, on a machine that may be busy


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    """A measured answer of full-batch descent; a made-up one of AdamW, which has three pairs."""
    store = make_world(tmp_path_factory.mktemp("cache"), TASKS)
    words = ["gradients", *FEW, "--steps", "2", "--limit", "20", "--cache", str(store.home)]
    assert main(words) == 0
    digest = load_encoder("miniature", store).digest
    keep_gradients(store, "made up", make_record("adamw", encoder_digest=digest))
    return store


@pytest.fixture(scope="module")
def address(world, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(world.home)}) + "/gradients"


@pytest.fixture(scope="module")
def record(world) -> dict:
    (found,) = kept_gradients(world, load_encoder("miniature", world).digest, regime="gd")
    return found


def in_address(page, key: str) -> str | None:
    return parse_qs(urlsplit(page.url).query).get(key, [None])[0]


def wait_until(page, condition, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        page.wait_for_timeout(50)
    raise AssertionError("waited in vain")


def drawn(page, title: str) -> None:
    page.locator(".js-plotly-plot", has_text=title).first.wait_for(timeout=LIMIT)


def shown(page) -> dict[str, str]:
    names = ("absolute", "normalized", "converged", *(f"merged-{t}" for t in ("signs", "letters")))
    return {name: page.get_by_test_id(f"epochs-{name}").inner_text() for name in names}


def expected(merged: dict, e: int, a: int) -> dict[str, str]:
    means = {"absolute": "absolute", "normalized": "normalized"}
    means["converged"] = "normalized_converged"
    values = {name: merged[key][e][a] for name, key in means.items()}
    values |= {f"merged-{t}": merged["accuracy"][t][e][a] for t in ("signs", "letters")}
    return {name: "–" if v is None else f"{100 * v:.1f}" for name, v in values.items()}


def test_dragging_over_epochs_moves_accuracy_to_what_was_measured(page, settled, address, record):
    merged = record["merged"]["nonlinear"]
    place = merged["alphas"].index(0.5)
    page.goto(f"{address}?e=miniature&m=gd&v=trajectory&p=1&a=0.5", timeout=LIMIT)
    page.wait_for_selector(EXPLORER, timeout=LIMIT)
    wait_until(page, lambda: shown(page) == expected(merged, 0, place))
    settled(page, LIMIT)  # nothing above the slider is still to come
    slider = page.get_by_test_id("epochs-slider-epoch")
    box = slider.bounding_box()
    page.mouse.move(box["x"] + 6, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 3, box["y"] + box["height"] / 2, steps=8)
    wait_until(page, lambda: page.get_by_test_id("epochs-value-epoch").inner_text() == "2 of 2")
    assert shown(page) == expected(merged, 1, place)
    assert in_address(page, "p") == "1"  # all that was the browser alone
    page.mouse.up()
    wait_until(page, lambda: in_address(page, "p") == "2")
    drawn(page, "after 2 epochs")
    page.reload()
    page.wait_for_selector(EXPLORER, timeout=LIMIT)
    wait_until(page, lambda: shown(page) == expected(merged, 1, place))


def test_the_keyboard_moves_alpha_and_the_merge_in_the_plane(page, address, record):
    merged, plane = record["merged"]["linear"], record["trajectory"]["linear"]["projection"]
    page.goto(f"{address}?e=miniature&m=gd&v=trajectory&r=linear&p=2&a=own", timeout=LIMIT)
    page.wait_for_selector(EXPLORER, timeout=LIMIT)
    chosen = next(
        row["alpha"]
        for row in record["early"]["linear"]
        if row["epoch"] == 2 and not row["at_mean"]
    )
    root = page.locator(EXPLORER)
    wait_until(page, lambda: root.get_attribute("data-alpha") == f"{chosen:g}")
    page.get_by_test_id("epochs-mean").press("Enter")
    wait_until(page, lambda: root.get_attribute("data-alpha") == f"{plane['alpha']:g}")
    # at the record's own alpha the browser's sum is the projected merge
    at = root.evaluate("node => node.held.plane.paths.at(-1)")
    for found, merge in zip(at, plane["merge"], strict=True):
        assert found == pytest.approx(merge, rel=1e-6, abs=1e-9)
    slider = page.get_by_test_id("epochs-slider-alpha")
    slider.focus()
    before = root.get_attribute("data-alpha")
    slider.press("ArrowRight")
    a = merged["alphas"].index(plane["alpha"]) + 1
    wait_until(page, lambda: root.get_attribute("data-alpha") != before)
    assert shown(page) == expected(merged, 1, a)
    wait_until(page, lambda: in_address(page, "a") == f"{merged['alphas'][a]:.6g}")


def test_a_click_on_a_point_chooses_its_pair_and_leads_to_its_map(page, address):
    page.goto(f"{address}?e=miniature&m=adamw&v=bridge&q=signs,letters", timeout=LIMIT)
    drawn(page, "and disentanglement")
    chart = page.locator(".js-plotly-plot", has_text="and disentanglement")
    points = chart.locator(".points path")
    wait_until(page, lambda: points.count() == 6)
    wanted = next(
        (place, point["pair"])
        for place, point in enumerate(
            point
            for mode in ("nonlinear", "linear")
            for point in make_record("adamw")["bridge"]["points"]
            if point["mode"] == mode and point["alpha"] == 1.0
        )
        if point["pair"] == ["letters", "sites"]
    )
    points.nth(wanted[0]).scroll_into_view_if_needed()
    box = points.nth(wanted[0]).bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    chart.locator(".hovertext", has_text="Letters with Sites").wait_for(timeout=LIMIT)
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    wait_until(page, lambda: in_address(page, "q") == "letters,sites")
    button = page.get_by_role("button", name="Open their disentanglement map")
    button.focus()
    button.press("Enter")
    page.wait_for_url("**/disentanglement*", timeout=LIMIT)
    wait_until(page, lambda: in_address(page, "t") == "letters,sites")
    assert in_address(page, "a") == "1,1"


def test_the_check_runs_beside_the_page(page, address, downloaded):
    page.goto(f"{address}?e=miniature&m=gd&v=exactness", timeout=LIMIT)
    drawn(page, "full-batch steps")
    page.locator(".st-key-gradients_check_start button").click()
    page.get_by_text("checks pass").wait_for(timeout=LIMIT)
    drawn(page, "Small smooth network")
    assert page.get_by_role("alert").count() == 0
    block = page.locator(".st-key-gradients_errors_download")
    block.get_by_role("button", name="Download").click()
    file = downloaded(page, page.get_by_role("button", name="JSON", exact=True).last)
    found = json.loads(Path(file.path()).read_text())
    assert found["provenance"]["regime"] == "gd"
    assert {row["task"] for row in found["rows"]} == {"signs", "letters"}


def test_a_job_is_launched_cancelled_resumed_and_its_answer_appears(page, settled, address, world):
    page.goto(f"{address}?e=miniature&m=gd&v=early", timeout=LIMIT)
    drawn(page, "By task")
    page.get_by_text("Measure with other settings").click()
    box = page.locator(".st-key-gradients_form_tasks input")
    for title in ("Traffic signs", "Capital letters"):
        settled(page, LIMIT)
        box.fill(title)
        page.get_by_role("option", name=title, exact=True).click()
    page.keyboard.press("Escape")
    for field, value in (("epochs", "1"), ("images", "6")):
        number = page.locator(f".st-key-gradients_form_{field} input")
        number.fill(value)
        number.press("Enter")
    page.get_by_text("--epochs 1 --images 6").wait_for(timeout=LIMIT)
    page.locator(".st-key-gradients_form_start button").click()
    # the newest comes first: the check of the test before may still be at work
    page.get_by_role("button", name="Cancel").first.click(timeout=LIMIT)
    page.get_by_role("button", name="Resume").first.click(timeout=LIMIT)
    page.get_by_role("button", name="Cancel").first.wait_for(timeout=LIMIT)
    page.get_by_text("2 tasks, 1 epochs").first.wait_for(timeout=LIMIT)
    digest = load_encoder("miniature", world).digest
    assert [record["epochs"] for record in kept_gradients(world, digest, regime="gd")] == [1, 2]


@pytest.mark.parametrize("section", ["exactness", "trajectory", "early", "bridge"])
def test_the_page_fits_a_telephone_and_reports_no_errors(open_page, address, section):
    with open_page(390, 844, "dark") as page:
        page.goto(f"{address}?e=miniature&m=gd&v={section}", timeout=LIMIT)
        page.locator(".js-plotly-plot").first.wait_for(timeout=LIMIT)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert faults(page) == []
