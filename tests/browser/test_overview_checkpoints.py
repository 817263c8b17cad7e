"""Overview and Checkpoints in Chromium: they paint at once, without errors, and fit a phone."""

import json
import re
from pathlib import Path

import pytest

from engine.tasks import TASKS
from tests.browser.conftest import faults
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
FEW = ("signs", "letters")
LIMIT = 120_000  # ms, on a machine that may be busy


@pytest.fixture(scope="module")
def address(tmp_path_factory, server) -> str:
    world = make_world(tmp_path_factory.mktemp("cache"), FEW)
    return server(APP, {"TAUSCOPE_CACHE": str(world.home)})


def test_the_first_page_opens_complete(page, address):
    page.goto(address, timeout=LIMIT)
    page.get_by_text("is what fine-tuning on a task adds").wait_for(timeout=LIMIT)
    page.get_by_text("What is here", exact=True).wait_for(timeout=LIMIT)
    assert faults(page) == []


@pytest.mark.parametrize("path", ["", "/checkpoints"])
def test_a_page_opens_without_errors_and_fits_a_telephone(open_page, settled, address, path):
    with open_page(390, 844, "dark") as page:
        page.goto(address + path, timeout=LIMIT)
        page.locator(".js-plotly-plot").first.wait_for(timeout=LIMIT)
        settled(page, LIMIT)
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.get_by_role("alert").count() == 0


def test_overview_leads_on(page, settled, address):
    page.goto(address, timeout=LIMIT)
    pictures = page.locator("img[alt^='Test pictures of']")
    pictures.nth(len(TASKS)).wait_for(timeout=LIMIT)
    assert pictures.count() == len(TASKS) + 1  # and the control's
    page.get_by_role("link", name=re.compile("what is trained")).click(timeout=LIMIT)
    page.get_by_role("heading", name="Checkpoints").wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    assert page.url.endswith("/checkpoints")


def test_a_row_opens_its_details_and_gives_its_file(page, settled, address, downloaded):
    page.goto(f"{address}/checkpoints", timeout=LIMIT)
    table = page.get_by_test_id("stDataFrame").first
    table.wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    # the table is a canvas: the box before the first row stands below the head
    page.wait_for_timeout(1000)
    box = table.bounding_box()
    page.mouse.click(box["x"] + 16, box["y"] + 52)
    page.get_by_text("Training loss", exact=True).wait_for(timeout=LIMIT)
    file = downloaded(page, page.get_by_role("button", name="Provenance (JSON)"))
    record = json.loads(Path(file.path()).read_text())
    assert record["task"] in FEW
    assert len(record["log"]) == 20
    file = downloaded(page, page.get_by_role("button", name="Task vector (safetensors)"))
    assert Path(file.path()).stat().st_size > 10_000


def test_a_figure_is_saved_as_svg_by_its_camera(page, settled, address):
    page.goto(f"{address}/checkpoints", timeout=LIMIT)
    page.locator(".js-plotly-plot").first.wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    page.locator(".st-key-cosines_download").get_by_role("button", name="Download").click()
    page.get_by_role("radio", name="SVG").or_(page.get_by_role("button", name="SVG")).click()
    page.keyboard.press("Escape")
    settled(page, LIMIT)
    figure = page.locator(".st-key-cosines .js-plotly-plot").first
    figure.hover()
    with page.expect_download() as caught:
        figure.locator("[data-title^=Download]").click()
    assert caught.value.suggested_filename == "cosines_miniature_nonlinear.svg"
    assert "Traffic signs" in Path(caught.value.path()).read_text()
