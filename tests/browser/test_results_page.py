"""The Results page in Chromium: tables, a run asked for by mouse and by keyboard, downloads."""

import io
import json
import re
import time
import zipfile
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.exhibits import filled
from engine.jobs import Jobs
from engine.store import Store

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
APP = ROOT / "app" / "server.py"
TABLE = "[data-testid=exhibit-table]"
LACKING = "?e=miniature-random&v=merging"  # not embedded
LIMIT = 400_000  # ms: the first view imports the engine and reads the store, on a busy machine


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """An empty local cache: all numbers are the embedded ones; nothing has a slot to run in."""
    home = tmp_path_factory.mktemp("cache")
    (home / "jobs").mkdir()
    (home / "jobs" / "settings.json").write_text(json.dumps({"gpus": [], "cpu_slots": 0}))
    return home


@pytest.fixture(scope="module")
def store(home) -> Store:
    return Store(home, ROOT / "cache" / "embedded")


@pytest.fixture(scope="module")
def address(home, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(home)})


def open_results(page, address: str, query: str = "", wanted: str = TABLE) -> None:
    page.goto(f"{address}/results{query}", timeout=LIMIT)
    page.wait_for_selector(wanted, timeout=LIMIT)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=LIMIT)


def wait_until(page, condition, seconds: float = 120.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        page.wait_for_timeout(50)
    raise AssertionError("waited in vain")


def asked(page, key: str) -> str | None:
    return parse_qs(urlsplit(page.url).query).get(key, [None])[0]


def row(page, title: str) -> list[str]:
    """The numbers of one line of the first table."""
    line = page.locator(
        f"{TABLE} tr", has=page.get_by_role("rowheader", name=title, exact=True)
    ).first
    return line.locator("td .value").all_inner_texts()


def test_the_table_holds_what_the_store_holds(page, address, store):
    open_results(page, address, "?v=addition")
    table = filled(store, "miniature", "addition").tables[0]
    for line in table.rows[1:]:
        cells = [line.cells[name] for name in ("absolute", "normalized")]
        assert all(cell.state == "kept" for cell in cells)
        assert row(page, line.title)[:2] == [f"{100 * cell.value:.1f}" for cell in cells]


def test_two_encoders_are_compared(page, address, store):
    open_results(page, address, "?v=addition&b=miniature-random")
    wait_until(page, lambda: page.locator(f"{TABLE} td.between").count())
    both = [
        filled(store, name, "addition").tables[0].rows[1].cells["absolute"].value
        for name in ("miniature", "miniature-random")
    ]
    line = page.locator(
        f"{TABLE} tr", has=page.get_by_role("rowheader", name="Non-linear FT", exact=True)
    )
    difference = 100 * (both[1] - both[0])
    shown = f"{'−' if difference < 0 else '+'}{abs(difference):.1f}"
    assert line.first.locator("td.between").first.inner_text() == shown


def test_a_cell_is_run_by_mouse_and_forgotten(page, address, home):
    open_results(page, address, LACKING)
    page.get_by_role("button", name=re.compile("^TIES, .*Linear FT.*run it")).first.click()
    page.get_by_role("button", name="Not now").wait_for(timeout=LIMIT)
    box = page.locator(".st-key-results_asked_box")
    wait_until(page, lambda: "ties" in box.inner_text())
    page.get_by_role("button", name="Not now").click()
    page.get_by_role("button", name="Not now").wait_for(state="detached", timeout=LIMIT)
    assert Jobs(home).list() == []


def test_a_cell_is_run_by_keyboard(page, address, home):
    open_results(page, address, LACKING)
    cell = page.get_by_role("button", name=re.compile("^TSV-M, .*Linear FT.*run it")).first
    cell.focus()
    page.keyboard.press("Enter")
    queue = page.get_by_role("button", name="Queue")
    queue.wait_for(timeout=LIMIT)
    queue.focus()
    page.keyboard.press("Enter")
    wait_until(page, lambda: Jobs(home).list())
    (job,) = Jobs(home).list()
    assert (job.verb, job.option("--method"), job.option("--mode")) == ("addition", "tsv", "linear")
    queue.wait_for(state="detached", timeout=LIMIT)


def test_exhibits_are_chosen_and_kept_in_the_address(page, address):
    open_results(page, address, "?v=addition")
    page.get_by_role("button", name=re.compile("^Single-task accuracies")).click()
    wait_until(page, lambda: asked(page, "v") == "single,addition")
    page.get_by_role("heading", name="Single-task accuracies").wait_for(timeout=LIMIT)
    page.reload()
    page.wait_for_selector(TABLE, timeout=LIMIT)
    wait_until(page, lambda: page.get_by_role("heading", name="Single-task accuracies").count())


def test_the_report_and_the_tables_are_taken_away(page, address, downloaded):
    open_results(page, address, "?v=addition")
    file = downloaded(page, page.get_by_role("button", name="What is shown (zip)"))
    archive = zipfile.ZipFile(io.BytesIO(Path(file.path()).read_bytes()))
    assert {"index.html", "report.json", "tables/addition.csv"} <= set(archive.namelist())
    file = downloaded(page, page.get_by_role("button", name="CSV", exact=True).first)
    lines = Path(file.path()).read_text().splitlines()
    assert lines[0].startswith("row,absolute")
    assert len(lines) == 5


def test_nothing_is_wider_than_a_telephone(open_page, address):
    with open_page(390, 844, "dark") as page:
        open_results(page, address, "?v=addition,negation,merging")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
