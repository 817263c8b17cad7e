"""The Negate page in Chromium: drag, keyboard, each task's own alpha, and what lacks as a job."""

from pathlib import Path

import pytest

from engine.__main__ import main
from engine.store import Store
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
FEW = ("signs", "letters")
LIMIT = 180_000


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    store = make_world(tmp_path_factory.mktemp("cache"), FEW)
    words = ["negation", "--mode", "linear", "--tasks", *FEW, "--cache", str(store.home)]
    assert main(words) == 0
    return store


@pytest.fixture(scope="module")
def address(world, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(world.home)}) + "/negate"


def test_readouts_follow_the_slider_and_equal_the_record(world, address, open_page, settled):
    record = world.find("result", what="negation", mode="linear")[0].meta["record"]

    def shown(page, task: str) -> tuple[str, str]:
        kinds = ("target", "control")
        texts = [page.get_by_test_id(f"{k}-{task}-linear").inner_text() for k in kinds]
        return texts[0], texts[1].split()[-1]

    def expected(task: str, place: int) -> tuple[str, str]:
        point = record["tasks"][task]["curve"][place]
        return tuple(f"{100 * point[f'{k}_validation']:.1f}" for k in ("target", "control"))

    with open_page() as page:
        page.goto(address)
        slider = page.get_by_test_id("negation-slider")
        slider.wait_for(timeout=LIMIT)
        for task in FEW:
            chosen = round(record["tasks"][task]["alpha"] / 0.05)
            assert shown(page, task) == expected(task, chosen)
        box = slider.bounding_box()
        middle = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + 10, middle)
        page.mouse.down()
        seen = set()
        for part in range(1, 9):
            page.mouse.move(box["x"] + box["width"] * part / 10, middle)
            place = int(slider.input_value())
            seen.add(place)
            for task in FEW:
                assert shown(page, task) == expected(task, place)
        page.mouse.up()
        assert len(seen) == 8
        slider.focus()
        page.keyboard.press("ArrowRight")
        place = int(slider.input_value())
        assert page.get_by_test_id("negation-alpha").inner_text() == f"{0.05 * place:.2f}"
        page.wait_for_url(f"**a={0.05 * place:.6g}*", timeout=LIMIT)
        settled(page)
        page.reload()
        slider.wait_for(timeout=LIMIT)
        assert int(slider.input_value()) == place
        page.get_by_test_id("negation-each").click()
        page.wait_for_url("**a=own*", timeout=LIMIT)
        assert shown(page, "signs") == expected(
            "signs", round(record["tasks"]["signs"]["alpha"] / 0.05)
        )


def test_what_lacks_runs_as_jobs_and_appears(world, address, open_page):
    with open_page(width=390, height=844) as page:
        page.goto(address)
        page.get_by_test_id("negation-grid").wait_for(timeout=LIMIT)
        assert page.get_by_test_id("target-signs-posthoc").count() == 0
        page.get_by_role("button", name="Measure what lacks").click()
        page.get_by_test_id("target-signs-posthoc").wait_for(timeout=LIMIT)
        page.get_by_test_id("target-signs-nonlinear").wait_for(timeout=LIMIT)
        page.get_by_role("button", name="Measure what lacks").wait_for(state="detached")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert {entry.meta["mode"] for entry in world.find("result", what="negation")} == {
        "nonlinear",
        "posthoc",
        "linear",
    }
