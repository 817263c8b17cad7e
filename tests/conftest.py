"""Fixtures for every test, and the rules by which tests are left out."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engine import tasks
from engine.store import Store
from engine.tasks import miniature

WHOLE = dict(miniature.SIZES)
ROOT = Path(__file__).parents[1]
# the shell first: the same engine, without the windows and menus that nobody sees in a test
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


def pytest_configure():
    # small tensors, and the same sums in the same order on every machine
    torch.set_num_threads(1)


def pytest_collection_modifyitems(config, items):
    if config.getoption("--slow"):
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not _has_accelerator():
        pytest.skip("no accelerator on this machine")
    if item.get_closest_marker("browser") and find_chromium() is None:
        missing = f"no Chromium found ({', '.join(BROWSERS)}, or $TAUSCOPE_CHROMIUM)"
        if os.environ.get("TAUSCOPE_REQUIRE_BROWSER") == "1":
            pytest.fail(f"{missing}, but TAUSCOPE_REQUIRE_BROWSER=1 asks for one")
        pytest.skip(missing)


def find_chromium() -> str | None:
    """Return the browser that the tests drive, if there is one."""
    chosen = os.environ.get("TAUSCOPE_CHROMIUM")
    found = (shutil.which(name) for name in ((chosen,) if chosen else BROWSERS))
    return next((path for path in found if path), None)


def _has_accelerator() -> bool:
    return torch.cuda.is_available() or torch.backends.mps.is_available()


@pytest.fixture
def store(tmp_path) -> Store:
    """Give an empty store in a folder of its own, without embedded entries."""
    return Store(tmp_path / "cache")


@pytest.fixture(scope="session", autouse=True)
def rendered_once():
    """Render a split of the miniature world once in this process, not once a store.

    The world's own tests call its functions and see nothing of this.
    """
    render, known = tasks._rendered, {}

    def rendered(task, split, image_size, limit):
        asked = (task, split, image_size, limit, *miniature.SIZES.items())
        if asked not in known:
            known[asked] = render(task, split, image_size, limit)
        found = known[asked]
        return replace(found, images=found.images.clone(), labels=found.labels.clone())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "_rendered", rendered)
        yield


@pytest.fixture
def as_elsewhere(monkeypatch):
    """Give the splits the sizes that a new process finds, whatever a module made of them."""
    for name, size in WHOLE.items():
        monkeypatch.setitem(miniature.SIZES, name, size)


@pytest.fixture
def fresh_caches():
    """Let pages of different stores see nothing that Streamlit kept of each other."""
    import streamlit as st

    st.cache_data.clear()
    yield
    st.cache_data.clear()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Give the folder of small real tasks; skip where it is absent."""
    folder = Path(os.environ.get("TAUSCOPE_DATA") or ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no small real tasks here: set TAUSCOPE_DATA to their folder")
    return folder
