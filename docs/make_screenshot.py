"""Take the README's screenshot: the Merge page of the embedded miniature, in a real browser.

Run as ``python docs/make_screenshot.py [OUT.png]`` where Chromium is installed.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "screenshot.png"
VIEW = "merge?e=miniature&r=linear"
READY = "[data-testid=stApp][data-test-script-state=notRunning]"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)
PATIENCE = 300  # seconds: the first view of a fresh clone may have to compute


@contextlib.contextmanager
def server() -> Generator[str]:
    """Run the dashboard on a free port of the loopback.

    Yields:
        Its address.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", "app/server.py"]
    process = subprocess.Popen(
        [*command, "--server.headless", "true", "--server.port", str(port)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        _wait_for(f"{address}/_stcore/health", process)
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def _wait_for(address: str, process: subprocess.Popen) -> None:
    """Wait until the server answers.

    Raises:
        RuntimeError: If it never does.
    """
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            urllib.request.urlopen(address, timeout=2).close()
            return
        time.sleep(0.2)
    raise RuntimeError("the dashboard did not start; run `make app` to see why")


def settle(page: Page) -> None:
    """Wait until the page has drawn everything: no script, no progress bar, the sliders there.

    Args:
        page: Already at the view.
    """
    page.wait_for_selector(READY, timeout=PATIENCE * 1000)
    page.locator("input[type=range]").first.wait_for(timeout=PATIENCE * 1000)
    busy = "[data-testid=stProgress], [data-testid=stSpinner]"
    page.wait_for_function(
        "selector => document.querySelector(selector) === null", arg=busy, timeout=PATIENCE * 1000
    )
    page.wait_for_timeout(1500)  # the last transition


def take(address: str, out: Path) -> None:
    """Open the view and write its picture.

    Args:
        address: Of the server.
        out: A PNG file.

    Raises:
        SystemExit: If there is no browser.
    """
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise SystemExit("Chromium is not installed; on Debian: apt-get install chromium")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1440, "height": 1000}, color_scheme="light")
        page.goto(f"{address}/{VIEW}")
        settle(page)
        page.screenshot(path=out)
        browser.close()


def main() -> None:
    """Start the dashboard, take the picture, stop it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=OUT)
    out = parser.parse_args().out
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # so that the server ends too
    with server() as address:
        take(address, out)


if __name__ == "__main__":
    main()
