"""The Eigenfunctions page in Chromium: sliders that are followed at once, pictures, work, links."""

import json
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.encoders import load_encoder
from engine.jobs import Jobs
from engine.ntk import kept_local_energy
from engine.store import Store
from tests.browser.conftest import faults
from tests.tiny_energies import keep_energies
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
EXPLORER = "[data-testid=energy-explorer]"
LIMIT = 120_000  # ms, on a machine that may be busy
N = 12
PAIR = "?e=miniature&b=nothing&t=signs&k=letters"


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    store = make_world(tmp_path_factory.mktemp("cache"), ("signs", "letters"))
    keep_energies(store, "signs", ("letters", "objects"), N)
    return store


@pytest.fixture(scope="module")
def address(world, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(world.home), "TAUSCOPE_JOB_NICE": "0"})


def open_pair(page, address: str, query: str = PAIR) -> None:
    page.goto(f"{address}/ntk{query}", timeout=LIMIT)
    page.wait_for_selector(EXPLORER, timeout=LIMIT)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=LIMIT)


def in_address(page, key: str) -> str | None:
    return parse_qs(urlsplit(page.url).query).get(key, [None])[0]


def wait_until(page, condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        page.wait_for_timeout(20)
    raise AssertionError("waited in vain")


def score(page, arrangement: str) -> str:
    return page.get_by_test_id(f"score-{arrangement}-miniature").inner_text()


def energy_of(world: Store, control: str = "letters"):
    encoder = load_encoder("miniature", world)
    (found,) = kept_local_energy(world, encoder, task="signs", control=control, points=N)
    return found


def said(found: dict) -> str:
    low, high = found["auc_interval"]
    return f"AUC {found['auc']:.2f} [{low:.2f}, {high:.2f}]"


def test_what_is_kept_opens_with_the_engine_s_scores(page, address, world):
    open_pair(page, address)
    energy = energy_of(world)
    for arrangement in ("paper", "null", "heldout"):
        assert score(page, arrangement) == said(energy.score(arrangement, leading=N))
    assert "exact" in page.get_by_test_id("energy-status").inner_text()
    assert in_address(page, "n") == str(N)


def test_dragging_the_slider_is_followed_and_release_writes_the_address(page, address, world):
    open_pair(page, address)
    assert in_address(page, "s") == f"R{N}"
    box = page.get_by_test_id("slider-leading").bounding_box()
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] - 8, middle)
    page.mouse.down()
    seen = set()
    for step in range(20):
        page.mouse.move(box["x"] + box["width"] * (1 - step / 20), middle)
        page.wait_for_timeout(20)
        seen.add((page.get_by_test_id("value-leading").inner_text(), score(page, "paper")))
    assert in_address(page, "s") == f"R{N}"  # all that was the browser alone
    assert len(seen) > 3
    page.mouse.up()
    wait_until(page, lambda: in_address(page, "s") != f"R{N}")
    R = int(in_address(page, "s")[1:])
    assert score(page, "heldout") == said(energy_of(world).score("heldout", leading=R))
    page.get_by_text(f"leading R = {R} of {N}").first.wait_for(timeout=LIMIT)
    held = page.url
    page.reload()
    page.wait_for_selector(EXPLORER, timeout=LIMIT)
    wait_until(page, lambda: page.get_by_test_id("value-leading").inner_text() == f"{R} of {N}")
    assert page.url == held


def test_the_keyboard_reaches_slider_points_and_order(page, address, world):
    open_pair(page, address)
    ridge = page.get_by_test_id("slider-ridge")
    ridge.focus()
    ridge.press("ArrowLeft")
    wait_until(page, lambda: (in_address(page, "s") or "").startswith("ridge"))
    energy = energy_of(world)
    chosen = next(r for r in energy.ridges if f"ridge{r:.6g}" == in_address(page, "s"))
    assert score(page, "heldout") == said(energy.score("heldout", ridge=chosen))
    page.get_by_test_id("order-class").press("Enter")
    wait_until(page, lambda: in_address(page, "o") == "class")
    plot = page.get_by_test_id("panel-heldout-miniature").locator(".plot")
    plot.focus()
    plot.press("ArrowRight")
    tip = page.locator(".tauscope-energy .tip")
    first = tip.inner_text()
    assert "local energy" in first
    plot.press("PageUp")
    assert tip.inner_text() != first


def test_a_point_under_the_mouse_shows_its_image(page, address):
    open_pair(page, address)
    plot = page.get_by_test_id("panel-paper-miniature").locator(".plot")
    box = plot.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 20)
    tip = page.locator(".tauscope-energy .tip")
    assert tip.is_visible()
    assert tip.locator("canvas").count() == 1
    first = tip.inner_text()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 20)
    assert tip.inner_text() != first
    assert page.get_by_test_id("gallery-miniature").locator("figure").count() == 20


def test_the_plan_comes_first_and_cancelling_or_finishing_both_work(page, address, world):
    page.goto(f"{address}/ntk{PAIR}&n=6&l=1", timeout=LIMIT)
    button = page.locator(".st-key-ntk_start button")
    button.wait_for(timeout=LIMIT)
    assert page.locator(".st-key-ntk_plan").get_by_text("Estimated time").is_visible()
    before = len(world.find("result", what="ntk"))
    button.focus()
    button.press("Enter")
    link = page.get_by_role("link", name="On Fine-tune")
    link.wait_for(timeout=LIMIT)
    (job,) = Jobs(world.home).list()
    assert link.get_attribute("href").endswith(f"finetune?job={job.id}")
    page.wait_for_selector(EXPLORER, timeout=LIMIT)  # the answer appears by itself
    assert Jobs(world.home).get(job.id).state == "done"
    assert len(world.find("result", what="ntk")) == before + 1
    assert "n = 6" in page.get_by_test_id("energy-status").inner_text()
    page.locator(".st-key-ntk_all_miniature_start button").click()
    page.get_by_role("button", name=re.compile("Cancel all")).click(timeout=LIMIT)
    page.locator(".st-key-ntk_all_miniature_start button").wait_for(timeout=LIMIT)
    assert page.get_by_role("alert").count() == 0


def test_a_figure_gives_its_numbers_with_their_provenance(page, address, downloaded):
    open_pair(page, address, f"{PAIR}&n={N}&l=3")
    block = page.locator(".st-key-ntk_lines_download")
    block.get_by_role("button", name="Download").click()
    file = downloaded(page, page.get_by_role("button", name="JSON", exact=True).last)
    record = json.loads(Path(file.path()).read_text())
    assert len(record["rows"]) == 3 * 2 * N
    assert record["provenance"]["kind"] == "exact to float16"
    assert record["provenance"]["n"] == N


def test_the_page_fits_a_telephone_and_reports_no_errors(open_page, address):
    with open_page(390, 844, "dark") as page:
        open_pair(page, address)
        page.locator(".js-plotly-plot").first.wait_for(timeout=LIMIT)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert faults(page) == []
