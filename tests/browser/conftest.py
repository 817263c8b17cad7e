"""A Streamlit server in a process of its own, and Chromium pages that record their errors."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import find_chromium

ROOT = Path(__file__).parents[2]
CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HARDENED = [
    "--server.address=127.0.0.1",
    "--server.headless=true",
    "--server.fileWatcherType=none",
    "--server.allowedHosts=localhost",
    "--server.allowedHosts=127.0.0.1",
    "--browser.gatherUsageStats=false",
    "--client.toolbarMode=minimal",
]
START_LIMIT = 60.0  # seconds for a server to become healthy on a busy machine
READY = "[data-testid=stApp][data-test-script-state=notRunning]"


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Callable[..., str]]:
    """``server(app_path, env) -> url``: start a Streamlit app and wait until it is healthy.

    Every server of a module is stopped at its end; asking twice for the same app and environment
    gives the same one.
    """
    running: dict[tuple, tuple[subprocess.Popen, str]] = {}

    def start(app_path: str | Path, env: dict[str, str] | None = None) -> str:
        asked = (str(app_path), tuple(sorted((env or {}).items())))
        if asked not in running:
            log = tmp_path_factory.mktemp("server") / "log.txt"
            running[asked] = _start(Path(app_path), env or {}, log)
        return running[asked][1]

    yield start
    for process, _ in running.values():
        _stop(process)


@pytest.fixture(scope="session")
def chromium() -> Iterator:
    """One Chromium for the whole session."""
    executable = find_chromium()
    if executable is None:
        if os.environ.get("TAUSCOPE_REQUIRE_BROWSER") == "1":
            pytest.fail("no Chromium found, but TAUSCOPE_REQUIRE_BROWSER=1 asks for one")
        pytest.skip("Chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def context(chromium) -> Iterator:
    """One profile for the whole session: its cache keeps what the pages' scripts compile to."""
    opened = chromium.new_context()
    yield opened
    opened.close()


@pytest.fixture
def open_page(context) -> Callable:
    """``with open_page(width=, height=, color_scheme=) as page``: ``page.errors`` lists errors.

    Nothing else of a page is left to the next one.
    """

    @contextmanager
    def opened(width: int = 1440, height: int = 900, color_scheme: str = "light"):
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=color_scheme)
        page.errors = []
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on(
            "console",
            lambda message: page.errors.append(message.text) if message.type == "error" else None,
        )
        try:
            yield page
        finally:
            if page.url.startswith("http"):
                page.evaluate("localStorage.clear()")
            page.close()
            context.clear_cookies()

    return opened


def faults(page) -> list[str]:
    """Errors of a page but for the 404 of Streamlit's own search for its address below a page's."""
    return [error for error in page.errors if "404" not in error]


@pytest.fixture
def page(open_page) -> Iterator:
    """A page of 1440 x 900 in light colours; in the end it fits and has reported no error."""
    with open_page() as opened:
        yield opened
        if opened.url.startswith("http"):
            assert opened.evaluate("document.documentElement.scrollWidth") <= 1440
        assert faults(opened) == []


@pytest.fixture
def settled() -> Callable:
    """``settled(page)``: wait until the script behind the page has run to its end."""
    return lambda page, timeout=30_000: page.wait_for_selector(READY, timeout=timeout)


@pytest.fixture
def downloaded() -> Callable:
    """``downloaded(page, button) -> download``: click, and again where a rerun came between.

    Streamlit makes a file under a number of the last run; a click that meets the next run's end
    is answered by a sentence below the button, as its user sees it, and no file.
    """

    def click(page, button, timeout: float = 60.0):
        found: list = []

        def keep(file) -> None:  # Playwright takes no builtin
            found.append(file)

        page.on("download", keep)
        page.wait_for_selector(READY, timeout=1000 * timeout)
        button.click()
        end = time.monotonic() + timeout
        while not found and time.monotonic() < end:
            page.wait_for_timeout(100)
            refused = page.get_by_test_id("stDownloadButtonError")
            if not found and refused.count():
                refused.first.wait_for(state="detached")
                button.click()
        page.remove_listener("download", keep)
        assert found, "no file came"
        return found[0]

    return click


_ports: list[int] = []  # used by servers that have ended: the browser's cache goes by address


def _free_port() -> int:
    for port in [*_ports, 0]:
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
            except OSError:
                continue
            found = listener.getsockname()[1]
        if found not in _ports:
            _ports.append(found)
        return found
    raise AssertionError("no port is free")


def _start(app_path: Path, env: dict[str, str], log: Path) -> tuple[subprocess.Popen, str]:
    port = _free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(app_path), f"--server.port={port}"]
    with log.open("w") as output:
        process = subprocess.Popen(
            command + HARDENED,
            cwd=ROOT,
            env={**os.environ, **env},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/_stcore/health", timeout=2) as answer:
                if answer.status == 200:
                    return process, url
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    _stop(process)
    raise RuntimeError(f"{app_path.name} did not become healthy: {log.read_text()[-2000:]}")


def _stop(process: subprocess.Popen) -> None:
    """End the server and whatever it started: it leads a process group of its own."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=10)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=10)
