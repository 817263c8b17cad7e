"""Pages in Streamlit's own test runner, on a store of the test's own."""

from functools import cache
from pathlib import Path

from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest, local_script_runner

from app.compute.background import board
from engine.commands import choices, exporting
from engine.store import Store

# they take default_store by name: imported here, before a test replaces it
TAKERS = (choices, exporting)
PAGES = Path(__file__).parents[1] / "app" / "pages"
TIMEOUT = 240  # seconds: the first run imports torch, on a machine that may be busy
FEW = ("signs", "letters")  # tasks of a store whose every measure takes seconds

# the runner looks through every installed package for components anew with each page: 0.25 s
manifest_scanner.scan_component_manifests = cache(manifest_scanner.scan_component_manifests)
# .. and compiles each page anew
local_script_runner.ScriptCache = cache(local_script_runner.ScriptCache)


def use(monkeypatch, store: Store) -> Store:
    """Let pages see this store and nothing embedded."""
    alone = Store(store.home)
    monkeypatch.setenv("TAUSCOPE_CACHE", str(store.home))
    monkeypatch.setattr("engine.store.default_store", lambda: alone)
    return alone


def open_page(name: str, **query: str) -> AppTest:
    """Run a page once, at this address."""
    page = AppTest.from_file(str(PAGES / f"{name}.py"), default_timeout=TIMEOUT)
    page.query_params.update(query)
    return page.run()


def settle(page: AppTest, runs: int = 3) -> AppTest:
    """Run a page again until what it computes in the background is there."""
    for _ in range(runs):
        for work in board().pending():
            assert work.title == "whole test split" or work.wait(TIMEOUT)
        page.run()
        assert not page.exception
    return page


def texts(page: AppTest, kind: str) -> str:
    """All that a page says in one way: "caption", "info", "error" .."""
    return " ".join(item.value for item in getattr(page, kind))


def sliders(page: AppTest) -> bytes:
    """Return what Merge sends its sliders: the header and what a release changes."""
    _, widget = page.get("bidi_component")  # the first is the arrays that stay
    return widget.proto.bytes
