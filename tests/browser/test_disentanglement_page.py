"""The Disentanglement page in Chromium: a pair, a hover, a click, and what follows elsewhere."""

import json
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from engine.jobs import Jobs
from engine.store import Store
from tests.browser.conftest import faults
from tests.tiny_world import make_world

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "app" / "server.py"
FEW = ("letters", "signs", "textures")
LIMIT = 180_000  # ms: the first view computes every score, on a machine that may be busy
MAP = ".st-key-map_linear .tauscope-ximap"  # Playwright looks into shadows


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    found = make_world(tmp_path_factory.mktemp("cache"), FEW)
    make_world(found.home, FEW, name="miniature-random", seed=2)
    return found


@pytest.fixture(scope="module")
def address(world, server) -> str:
    return server(APP, {"TAUSCOPE_CACHE": str(world.home), "TAUSCOPE_JOB_NICE": "0"})


def open_maps(page, address: str, query: str = "?t=letters,signs&g=11") -> None:
    page.goto(f"{address}/disentanglement{query}", timeout=LIMIT)
    page.locator(f"{MAP}[data-drawn]").wait_for(timeout=LIMIT)
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
    found = page.locator(MAP)
    found.scroll_into_view_if_needed()
    return tuple(
        found.evaluate(
            """(map, [a, b]) => {
                const box = map.querySelector(".plot").getBoundingClientRect();
                const [low, high] = [Number(map.dataset.low), Number(map.dataset.high)];
                const at = (alpha) => (alpha - low) / (high - low);
                return [box.x + at(a) * box.width, box.bottom - at(b) * box.height];
            }""",
            list(alphas),
        )
    )


def test_a_pair_a_hover_and_a_click_move_alphas_everywhere(page, address, settled):
    open_maps(page, address)
    page.get_by_label("Second task").first.click()
    page.get_by_role("option", name="Textures", exact=True).click()
    wait_until(page, lambda: query_of(page).get("t") == "letters,textures")
    page.locator(f"{MAP}[data-titles$=Textures]").wait_for(timeout=LIMIT)
    settled(page, LIMIT)

    x, y = point_of(page, (1.2, -0.6))
    page.mouse.move(x - 3, y)
    page.mouse.move(x + 1, y + 1)
    words = page.locator(f"{MAP} .tip")
    wait_until(page, lambda: "ξ" in (words.text_content() or ""))
    said = words.text_content()
    assert re.search("α₁ 1.20, α₂ [-−]0.60", said)
    assert re.search(r"ξ \d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", said)
    assert "n = 500" in said
    # the other maps outline the same cell
    assert page.locator(".st-key-map_posthoc .pointer").is_visible()

    page.mouse.click(x + 1, y + 1)
    wait_until(page, lambda: alphas_of(page) == [1.2, -0.6])
    page.get_by_text("Linear, α Capital letters = 1.20, α Textures = -0.60").wait_for(timeout=LIMIT)
    assert page.locator("[data-testid=stImage] img").count() > 0

    # a second click, on the same map
    page.mouse.click(*point_of(page, (0.6, 0.6)))
    wait_until(page, lambda: alphas_of(page) == [0.6, 0.6])
    settled(page, LIMIT)
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


def test_arrow_keys_walk_and_enter_sets_the_alphas(page, address, settled):
    open_maps(page, address, "?t=letters,signs&g=11&a=0.6,0.6")
    plot = page.locator(f"{MAP} .plot")
    plot.focus()
    assert "Arrow keys move" in plot.get_attribute("aria-label")
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    assert "α₁ 0.60, α₂ 1.20" in page.locator(f"{MAP} .said").text_content()
    page.keyboard.press("Enter")
    wait_until(page, lambda: alphas_of(page) == [0.6, 1.2])
    settled(page, LIMIT)
    for _ in range(3):  # to the border, and no further
        page.keyboard.press("Shift+ArrowLeft")
    assert "α₁ −3.00, α₂ 1.20" in page.locator(f"{MAP} .said").text_content()
    page.keyboard.press("Escape")
    assert not page.locator(f"{MAP} .tip").is_visible()


def test_cells_have_their_colours_and_the_marks_their_places(page, address):
    open_maps(page, address, "?t=letters,signs&g=11&a=1.2,-0.6")
    found = page.locator(MAP).evaluate(
        """(map) => {
            const canvas = map.querySelector("canvas"), box = canvas.getBoundingClientRect();
            const pixels = canvas.getContext("2d").getImageData(0, 0, 11, 11).data;
            const circle = map.querySelector(".chosen").getBoundingClientRect();
            const plot = map.querySelector(".plot").getBoundingClientRect();
            return {
                middle: [...pixels.slice(4 * (5 * 11 + 5), 4 * (5 * 11 + 5) + 4)],
                colours: new Set(pixels).size,
                covers: Math.abs(box.width - plot.width) + Math.abs(box.height - plot.height),
                chosen: [circle.x + circle.width / 2, circle.y + circle.height / 2],
            };
        }"""
    )
    assert found["middle"] == [254, 232, 56, 255]  # xi(0, 0) = 0, the light end of Cividis
    assert found["colours"] > 20
    assert found["covers"] < 1
    assert found["chosen"] == pytest.approx(point_of(page, (1.2, -0.6)), abs=1.5)


@pytest.mark.parametrize(("kind", "head"), [("png", b"\x89PNG"), ("svg", b"<svg")])
def test_a_map_is_saved_as_a_picture(page, address, kind, head):
    open_maps(page, address)
    with page.expect_download() as caught:
        page.locator(MAP).get_by_test_id(f"save-{kind}").click()
    assert caught.value.suggested_filename == f"xi_miniature_linear_letters_signs.{kind}"
    data = Path(caught.value.path()).read_bytes()
    assert data.startswith(head)
    if kind == "svg":
        text = data.decode()
        assert "exact, n = 500 + 500" in text
        assert "α₁, Capital letters" in text
        assert text.count("<rect") > 50


def test_the_random_encoder_s_maps_stand_below(page, address, settled):
    open_maps(page, address, "?t=letters,signs&g=11&b=miniature-random")
    page.get_by_role("heading", name="miniature-random").wait_for(timeout=LIMIT)
    below = page.locator(".st-key-beside_map_linear .tauscope-ximap[data-drawn]")
    below.wait_for(timeout=LIMIT)
    ends = page.locator(".tauscope-ximap .drawing text:last-of-type").all_text_contents()
    assert len(set(ends)) == 1  # all maps share their colours' range
    settled(page, LIMIT)


def test_other_distances_are_drawn(page, address, settled):
    open_maps(page, address, "?t=letters,signs&g=11&d=kl")
    page.locator(MAP).get_by_text("ξ (nats)").wait_for(timeout=LIMIT)
    settled(page, LIMIT)
    assert query_of(page)["d"] == "kl"


def test_the_matrix_of_forward_passes_is_computed(page, address, settled):
    open_maps(page, address, "?t=letters,signs&g=11&v=pairs&r=nonlinear")
    page.get_by_role("button", name=re.compile("Compute 3 pairs at α = 1.00")).click()
    page.locator(".st-key-pairs_nonlinear .js-plotly-plot").wait_for(timeout=LIMIT)
    settled(page, LIMIT)


def test_the_address_of_another_restores_the_view(page, address):
    open_maps(page, address, "?t=signs,textures&g=21&x=-1,2&a=0.5,-0.7&v=cut&h=0.3")
    assert alphas_of(page) == [0.5, -0.7]
    assert query_of(page)["x"] == "-1,2"
    page.get_by_text("ξ ≤ 0.30").first.wait_for(timeout=LIMIT)
    page.locator(".st-key-section_0 .js-plotly-plot").wait_for(timeout=LIMIT)


def test_forward_passes_are_drawn_as_they_come_and_can_be_left(page, address, world, settled):
    open_maps(page, address, "?t=letters,signs&g=21")
    page.get_by_role("button", name=re.compile("Compute 21 × 21 cells")).click()
    partial = page.locator(".st-key-map_nonlinear .tauscope-ximap[data-drawn]")
    partial.wait_for(timeout=LIMIT)
    page.get_by_text(re.compile(r"of 441 cells, about .* left")).wait_for(timeout=LIMIT)
    (job,) = Jobs(world.home).list()
    assert job.state == "running"
    link = page.get_by_role("link", name="On Fine-tune")
    assert link.get_attribute("href").endswith(f"finetune?job={job.id}")
    page.get_by_role("button", name="Cancel").click()
    again = page.get_by_role("button", name=re.compile("Compute 21 × 21 cells"))
    again.wait_for(timeout=LIMIT)
    assert partial.is_visible()  # what was done is still drawn
    wait_until(page, lambda: Jobs(world.home).get(job.id).state == "cancelled", 120)
    settled(page, LIMIT)


def test_a_small_map_is_computed_by_a_job_and_appears_by_itself(page, address, world, settled):
    open_maps(page, address, "?t=signs,textures&g=11&x=-1,1")
    before = len(Jobs(world.home).list())
    page.get_by_role("button", name=re.compile("Compute 11 × 11 cells")).click()
    done = page.locator(".st-key-map_nonlinear_download")
    done.wait_for(timeout=2 * LIMIT)
    jobs = Jobs(world.home).list()
    assert len(jobs) == before + 1
    assert (jobs[0].verb, jobs[0].state) == ("disentanglement", "done")
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


def test_a_map_gives_its_numbers_with_their_provenance(page, address, downloaded):
    open_maps(page, address)
    page.locator(".st-key-map_linear_download").get_by_role("button", name="Download").click()
    file = downloaded(page, page.get_by_role("button", name="JSON", exact=True).last)
    record = json.loads(Path(file.path()).read_text())
    assert len(record["rows"]) == 121
    assert record["provenance"]["kind"] == "exact"
    assert record["provenance"]["n"] == {"letters": 500, "signs": 500}
    assert set(record["provenance"]["checkpoints"]) == {"letters", "signs"}


def test_the_page_fits_a_telephone_without_errors(open_page, settled, address):
    with open_page(390, 844, "dark") as page:
        open_maps(page, address)
        assert faults(page) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
