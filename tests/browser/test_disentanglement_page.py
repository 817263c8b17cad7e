"""The Disentanglement page in Chromium: a pair, a hover, a click, and what follows elsewhere."""

import json
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
FEW = ("letters", "signs", "textures")
LIMIT = 180_000  # ms: the first view computes every score, on a machine that may be busy
CHART = ".st-key-map_linear .js-plotly-plot"


@pytest.fixture(scope="module")
def address(tmp_path_factory, server) -> str:
    world = make_world(tmp_path_factory.mktemp("cache"), FEW)
    return server(APP, {"TAUSCOPE_CACHE": str(world.home)})


def open_maps(page, address: str, query: str = "?t=letters,signs&g=11") -> None:
    page.goto(f"{address}/disentanglement{query}", timeout=LIMIT)
    page.locator(CHART).wait_for(timeout=LIMIT)
    page.wait_for_selector("[data-testid=stApp][data-test-script-state=notRunning]", timeout=LIMIT)


def query_of(page) -> dict[str, str]:
    return {key: value[0] for key, value in parse_qs(urlsplit(page.url).query).items()}


def alphas_of(page) -> list[float]:
    return [float(part) for part in query_of(page).get("a", "").split(",") if part]


def wait_until(page, condition, seconds: float = 60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        page.wait_for_timeout(50)
    raise AssertionError("waited in vain")


def point_of(page, alphas: tuple[float, float]) -> tuple[float, float]:
    """Where on the screen a cell of the linear map lies."""
    page.locator(CHART).scroll_into_view_if_needed()
    return tuple(
        page.locator(CHART).evaluate(
            """(plot, [a, b]) => {
                const box = plot.querySelector(".nsewdrag").getBoundingClientRect();
                const at = ({ range }, value) => (value - range[0]) / (range[1] - range[0]);
                const { xaxis, yaxis } = plot._fullLayout;
                return [box.x + at(xaxis, a) * box.width, box.bottom - at(yaxis, b) * box.height];
            }""",
            list(alphas),
        )
    )


def test_a_pair_a_hover_and_a_click_move_alphas_everywhere(page, address, settled):
    open_maps(page, address)
    page.get_by_label("Second task").first.click()
    page.get_by_role("option", name="Textures", exact=True).click()
    wait_until(page, lambda: query_of(page).get("t") == "letters,textures")
    title = re.compile("α₂, Textures")
    page.locator(CHART).get_by_text(title).wait_for(timeout=LIMIT)
    settled(page, LIMIT)

    x, y = point_of(page, (1.2, -0.6))
    page.mouse.move(x - 3, y)
    page.mouse.move(x + 1, y + 1)
    words = page.locator(f"{CHART} .hoverlayer")
    wait_until(page, lambda: "ξ" in (words.text_content() or ""))
    said = words.text_content()
    assert re.search("α₁ 1.20, α₂ [-−]0.60", said)
    assert re.search(r"ξ \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", said)
    assert "n = 500" in said

    page.mouse.click(x + 1, y + 1)
    wait_until(page, lambda: alphas_of(page) == [1.2, -0.6])
    page.get_by_text("Linear, α Capital letters = 1.20, α Textures = -0.60").wait_for(timeout=LIMIT)
    assert page.locator("[data-testid=stImage] img").count() > 0

    # a second click, on the map that was drawn anew
    settled(page, LIMIT)
    page.wait_for_timeout(500)
    page.mouse.click(*point_of(page, (0.6, 0.6)))
    wait_until(page, lambda: alphas_of(page) == [0.6, 0.6])
    settled(page, LIMIT)
    page.wait_for_timeout(500)
    page.mouse.click(*point_of(page, (1.2, -0.6)))
    wait_until(page, lambda: alphas_of(page) == [1.2, -0.6])

    page.get_by_role("link", name="Merge at these alphas").click()
    page.get_by_test_id("number-letters").wait_for(timeout=LIMIT)
    wait_until(page, lambda: page.get_by_test_id("number-letters").input_value() == "1.20")
    assert page.get_by_test_id("number-textures").input_value() == "-0.60"
    assert page.get_by_test_id("number-signs").input_value() == "0.30"
    wait_until(page, lambda: "1.2" in query_of(page).get("a", ""))
    there = dict(zip(query_of(page)["t"].split(","), alphas_of(page), strict=True))
    assert there == {"letters": 1.2, "signs": 0.3, "textures": -0.6}


def test_the_address_of_another_restores_the_view(page, address):
    open_maps(page, address, "?t=signs,textures&g=21&x=-1,2&a=0.5,-0.7&v=cut&h=0.3")
    assert alphas_of(page) == [0.5, -0.7]
    assert query_of(page)["x"] == "-1,2"
    page.get_by_text("ξ ≤ 0.30").first.wait_for(timeout=LIMIT)
    page.locator(".st-key-section_0 .js-plotly-plot").wait_for(timeout=LIMIT)


def test_forward_passes_are_drawn_as_they_come_and_can_be_left(page, address, settled):
    open_maps(page, address, "?t=letters,signs&g=21")
    page.get_by_role("button", name=re.compile("Compute 21 × 21 cells")).click()
    page.locator(".st-key-map_nonlinear .js-plotly-plot").wait_for(timeout=LIMIT)
    page.get_by_text(re.compile(r"of 441 cells, about .* left")).wait_for(timeout=LIMIT)
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name=re.compile("Compute 21 × 21 cells")).wait_for(timeout=LIMIT)
    settled(page, LIMIT)


def test_a_cell_of_the_matrix_opens_its_pair(page, address, settled):
    open_maps(page, address, "?t=letters,signs&g=11&v=pairs")
    chart = page.locator(".st-key-pairs_linear .js-plotly-plot")
    chart.wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    chart.scroll_into_view_if_needed()
    box = chart.locator(".nsewdrag").bounding_box()
    # row textures, column signs
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 0.8)
    page.mouse.click(box["x"] + box["width"] * 0.5, box["y"] + box["height"] * 5 / 6)
    wait_until(page, lambda: query_of(page).get("t") == "textures,signs")


def test_a_map_gives_its_numbers_with_their_provenance(page, address):
    open_maps(page, address)
    page.locator(".st-key-map_linear_download").get_by_role("button", name="Download").click()
    with page.expect_download() as caught:
        page.get_by_role("button", name="JSON", exact=True).last.click()
    record = json.loads(Path(caught.value.path()).read_text())
    assert len(record["rows"]) == 121
    assert record["provenance"]["kind"] == "exact"
    assert record["provenance"]["n"] == {"letters": 500, "signs": 500}
    assert set(record["provenance"]["checkpoints"]) == {"letters", "signs"}


@pytest.mark.parametrize(("width", "scheme"), [(1440, "dark"), (390, "light"), (390, "dark")])
def test_the_page_fits_without_errors(open_page, settled, address, width, scheme):
    with open_page(width, 844, scheme) as page:
        open_maps(page, address)
        assert [error for error in page.errors if "404" not in error] == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
