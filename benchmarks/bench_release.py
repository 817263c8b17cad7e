"""Time what a visitor waits for, in Chromium, on the embedded miniature with an empty local cache.

First paint of the first page; and of the Merge page's non-linear reading, from letting a slider go
to the exact values of 250 images of each of eight tasks, and of the control task too. Run from the
repository's root as ``python -m benchmarks.bench_release``; prints JSON. Quote it from an idle
machine.
"""

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from benchmarks.page_clock import timed
from tests.conftest import find_chromium

ROOT = Path(__file__).resolve().parents[1]
PORT = 8791
ADDRESS = f"http://127.0.0.1:{PORT}"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
RELEASES = 12
MALLOC = {  # as `make app` has it
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_MMAP_THRESHOLD_": "100000000000",
}
STATUS = "[data-testid=status]"
ANSWERS = {"merged tasks": "^exact", "control task too": "^exact.*· test"}  # what the badge says


def start_server(home: str) -> subprocess.Popen:
    """Start the dashboard.

    Args:
        home: Its local cache.

    Returns:
        The server's process, once it answers.

    Raises:
        RuntimeError: If it does not answer within 30 s.
    """
    command = [sys.executable, "-m", "streamlit", "run", "app/server.py"]
    process = subprocess.Popen(
        [*command, "--server.headless=true", f"--server.port={PORT}"],
        cwd=ROOT,
        env={**os.environ, **MALLOC, "TAUSCOPE_CACHE": home},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{ADDRESS}/_stcore/health").close()
            return process
        except OSError:
            time.sleep(0.1)
    process.kill()
    raise RuntimeError("the server did not answer within 30 s")


def first_paint(page: Page) -> float:
    """Return the seconds from asking for the first page to its first sentence."""
    began = time.perf_counter()
    page.goto(ADDRESS)
    page.get_by_text("is what fine-tuning on a task adds").wait_for()
    return time.perf_counter() - began


def releases(page: Page) -> dict[str, list[float]]:
    """Drag one slider again and again, and time each release.

    Args:
        page: Any page of the dashboard.

    Returns:
        Seconds from release to the painted exact values, of the merged tasks and, in releases
        between those, of the control task too; the whole split is given time to follow.
    """
    page.goto(f"{ADDRESS}/merge?r=nonlinear")
    page.get_by_test_id("status").wait_for(timeout=120_000)
    page.wait_for_timeout(15_000)
    slider = page.get_by_test_id("range-signs").bounding_box()
    middle, seconds = slider["y"] + slider["height"] / 2, {name: [] for name in ANSWERS}
    for step in range(2 * RELEASES):
        name = list(ANSWERS)[step % 2]
        at = slider["x"] + slider["width"] * (0.3 + step / 60)
        page.mouse.move(at, middle)
        page.mouse.down()
        page.mouse.move(at + 4, middle)
        took = timed(page, page.mouse.up, "pointerup", STATUS, ANSWERS[name])
        seconds[name].append(took / 1000)
        page.wait_for_timeout(6_000)
    return seconds


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as home, sync_playwright() as driver:
        server = start_server(home)
        try:
            browser = driver.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            painted, seconds = first_paint(page), releases(page)
            browser.close()
        finally:
            os.killpg(server.pid, signal.SIGTERM)
    found = {
        "first_paint_s": round(painted, 2),
        "release_to_exact_s": {
            name: {
                "median": round(statistics.median(times), 2),
                "max": round(max(times), 2),
                "n": len(times),
            }
            for name, times in seconds.items()
        },
        "load": os.getloadavg()[0],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
