"""The alpha widget in a real browser: mouse, keyboard, and every number against numpy."""

import statistics
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from alpha_demo_data import SLIDERS, exact_right

pytestmark = pytest.mark.browser
APP = Path(__file__).parent / "alpha_demo_app.py"
TASKS = [*SLIDERS, "objects"]
IMAGES = 500
NONLINEAR = {"DEMO_READING": "nonlinear", "DEMO_IMAGES": "250"}
SLOW = {**NONLINEAR, "DEMO_DELAY": "1.5"}


def _open(page, url, settled):
    page.goto(url)
    page.wait_for_function("window.__tauscope_alpha?.updates > 0", timeout=30_000)
    settled(page)


def _hook(page) -> dict:
    return page.evaluate("window.__tauscope_alpha")


def _slider(page, name):
    return page.get_by_test_id(f"range-{name}")


def _point(page, name, alpha) -> tuple[float, float]:
    """Where the middle of the thumb is at this alpha."""
    box = _slider(page, name).bounding_box()
    return box["x"] + 8 + (box["width"] - 16) * (alpha + 1) / 3, box["y"] + box["height"] / 2


def _set_all(page, alphas):
    """Type into every number box, then release the last."""
    for name, alpha in alphas.items():
        page.get_by_test_id(f"number-{name}").fill(f"{alpha:.2f}")
    page.keyboard.press("Tab")


def _type_at_once(page, alphas):
    """What typing does, in one go: an "input" event a box, and a "change" on the last."""
    page.locator("[data-testid^=number-]:not([data-testid=number-all])").evaluate_all(
        """(boxes, alphas) => {
            for (const box of boxes) {
                box.value = alphas[box.dataset.testid.slice("number-".length)];
                box.dispatchEvent(new Event("input"));
            }
            boxes[0].dispatchEvent(new Event("change"));
        }""",
        alphas,
    )


def _wait_shown(page, alphas):
    """Wait until the readouts are those of these alphas."""
    page.wait_for_function(
        """(wanted) => Object.entries(wanted).every(
            ([name, alpha]) => window.__tauscope_alpha.alphas[name] === alpha)""",
        arg=alphas,
    )


def _wait_released(page, alphas):
    """Wait until Python says it holds these alphas."""
    page.wait_for_function(
        """(wanted) => {
            const shown = document.querySelector("[data-testid=stSidebar] code")?.textContent;
            try { var held = JSON.parse(shown); } catch { return false; }
            return Object.entries(wanted).every(([k, v]) => Math.abs(held[k] - v) < 1e-12);
        }""",
        arg=alphas,
        timeout=20_000,
    )


@pytest.fixture
def linear(page, server, settled):
    _open(page, server(APP), settled)
    yield page
    assert page.errors == []


def test_the_readout_equals_numpy_for_twenty_settings(linear):
    rng = np.random.default_rng(0)
    for setting in range(20):
        drawn = rng.integers(-100, 201, len(SLIDERS)) / 100
        if setting < 6:  # ties: the lowest class wins
            drawn = rng.integers(-2, 5, len(SLIDERS)) / 2
        alphas = dict(zip(SLIDERS, drawn.tolist(), strict=True))
        _type_at_once(linear, alphas)
        _wait_shown(linear, alphas)
        right = [exact_right(e, IMAGES, alphas.values()) for e in range(len(TASKS))]
        hook = _hook(linear)
        assert [hook["correct"][task] for task in TASKS] == right
        assert hook["metrics"]["absolute"] == pytest.approx(np.mean(right[:8]) / IMAGES, abs=1e-12)
        shown = linear.get_by_test_id("value-signs").inner_text()
        assert shown == f"{100 * hook['metrics']['tasks']['signs']:.1f}"
    _wait_released(linear, alphas)


def test_the_mean_convention_divides_by_the_number_of_vectors(page, server, settled):
    _open(page, server(APP, {"DEMO_CONVENTION": "mean"}), settled)
    alphas = {name: 0.4 + 0.2 * t for t, name in enumerate(SLIDERS)}
    _set_all(page, alphas)
    page.wait_for_function("window.__tauscope_alpha.alphas.shapes === 1.8")
    coefficients = [float(f"{alpha:.2f}") / len(SLIDERS) for alpha in alphas.values()]
    right = [exact_right(e, IMAGES, coefficients) for e in range(len(TASKS))]
    assert [_hook(page)["correct"][task] for task in TASKS] == right


def test_normalised_accuracy_and_control_follow_their_definitions(linear):
    linear.get_by_test_id("best-per-task").click()
    alphas = [0.2 + 0.05 * t for t in range(len(SLIDERS))]
    ratios = []
    for e in range(len(SLIDERS)):
        alone = exact_right(e, IMAGES, np.eye(len(SLIDERS))[e])
        ratios.append(exact_right(e, IMAGES, alphas) / alone)
    metrics = _hook(linear)["metrics"]
    assert metrics["normalized"] == pytest.approx(np.mean(ratios), abs=1e-12)
    before, after = (exact_right(8, IMAGES, a) / IMAGES for a in ([0.0] * 8, alphas))
    assert metrics["control"] == pytest.approx(after, abs=1e-12)
    change = f"{'−' if after < before else '+'}{abs(100 * (after - before)):.1f} points"
    assert change in linear.locator(".tile.control").inner_text()


def test_dragging_updates_thirty_times_a_second_and_sends_nothing(page, server, settled):
    sent = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    _open(page, server(APP), settled)
    rates, fed = [], []
    for attempt in range(5):  # the best of five: other work on the machine is not the widget's
        ends = (-0.8, 1.8) if attempt % 2 else (1.8, -0.8)  # each drag starts where one ended
        (first, y), (second, _) = (_point(page, "letters", alpha) for alpha in ends)
        page.mouse.move(*_point(page, "letters", _hook(page)["alphas"]["letters"]))
        page.mouse.down()
        before, frames = _hook(page)["updates"], len(sent)
        started = page.evaluate("performance.now()")
        for target in (first, second, first):
            page.mouse.move(target, y, steps=40)
        seconds = (page.evaluate("performance.now()") - started) / 1000
        after = _hook(page)
        assert len(sent) == frames, "alphas were sent while dragging"
        page.mouse.up()
        page.wait_for_timeout(400)
        assert len(sent) > frames, "alphas were not sent on release"
        rates.append((after["updates"] - before) / seconds)
        if rates[-1] < 30:
            fed.append(_feed(page))  # without the driver's round trip a move
        if max(rates + fed) >= 30:
            break
    assert max(rates + fed) >= 30, (rates, fed)
    assert statistics.median(after["times"][-60:]) < 15
    assert page.errors == []


def _feed(page) -> float:
    """Updates a second when a new value arrives with every frame for a second."""
    return _slider(page, "letters").evaluate(
        """async (slider) => {
            const start = performance.now(), before = window.__tauscope_alpha.updates;
            for (let i = 0; performance.now() - start < 1000; i++) {
                slider.value = String(Math.sin(i / 20));
                slider.dispatchEvent(new Event("input"));
                await new Promise(requestAnimationFrame);
            }
            const seconds = (performance.now() - start) / 1000;
            return (window.__tauscope_alpha.updates - before) / seconds;
        }"""
    )


def test_a_released_drag_reaches_python(linear):
    linear.mouse.move(*_point(linear, "digits", 0.3))
    linear.mouse.down()
    linear.mouse.move(*_point(linear, "digits", 0.8), steps=8)
    linear.mouse.move(*_point(linear, "digits", 1.2), steps=8)
    linear.mouse.up()
    alpha = _hook(linear)["alphas"]["digits"]
    assert alpha == pytest.approx(1.2, abs=0.03)
    _wait_released(linear, {"digits": alpha, "signs": 0.3})
    assert _hook(linear)["alphas"]["digits"] == alpha, "the rerun moved the slider"


def test_the_keyboard_moves_by_a_hundredth_and_a_tenth(linear):
    slider = _slider(linear, "land")
    slider.focus()
    for key, alpha in [
        ("ArrowRight", 0.31),
        ("ArrowLeft", 0.30),
        ("PageUp", 0.40),
        ("PageDown", 0.30),
        ("Home", -1.0),
        ("End", 2.0),
    ]:
        linear.keyboard.press(key)
        linear.wait_for_function(
            "(alpha) => Math.abs(window.__tauscope_alpha.alphas.land - alpha) < 1e-9", arg=alpha
        )
        linear.wait_for_timeout(30)
        assert slider.get_attribute("aria-valuetext") == f"alpha {alpha:.2f}"
    assert _hook(linear)["selected"] == "land"
    _wait_released(linear, {"land": 2.0})
    assert slider.evaluate("(node) => node.getRootNode().activeElement === node"), "focus was lost"


def test_the_master_slider_sets_all_and_says_when_they_differ(linear):
    mixed = linear.locator("span.mixed")
    assert not mixed.is_visible()
    linear.get_by_test_id("number-digits").fill("1.1")
    mixed.wait_for(state="visible")
    assert linear.get_by_test_id("number-all").input_value() == "0.40"
    assert linear.locator(".cross.mixed").count() == 1
    linear.get_by_test_id("number-all").fill("0.5")
    mixed.wait_for(state="hidden")
    assert set(_hook(linear)["alphas"].values()) == {0.5}


def test_buttons_set_the_sliders_and_tell_python(linear):
    linear.get_by_test_id("best-shared").click()
    _wait_released(linear, dict.fromkeys(SLIDERS, float(np.linspace(0, 1, 21)[7])))
    linear.get_by_test_id("best-per-task").click()
    _wait_released(linear, {name: 0.2 + 0.05 * t for t, name in enumerate(SLIDERS)})
    linear.get_by_test_id("reset").click()
    _wait_released(linear, dict.fromkeys(SLIDERS, 0.0))
    assert "+0.0 points" in linear.locator(".tile.control").inner_text()


def test_pinned_settings_stand_side_by_side(linear):
    linear.get_by_test_id("pin").click()
    linear.get_by_test_id("restore-0").wait_for()
    linear.get_by_test_id("reset").click()
    linear.get_by_test_id("pin").click()
    linear.get_by_test_id("restore-1").wait_for()
    row = linear.get_by_test_id("pin-table").locator("tbody tr").nth(2)
    alone, held = (exact_right(0, IMAGES, [a] * 8) / IMAGES for a in (0.0, 0.3))
    cells = [cell.split("α")[0].strip() for cell in row.locator("td").all_inner_texts()]
    assert cells == [
        f"{100 * alone:.1f}",
        f"{100 * held:.1f}",
        f"−{100 * (held - alone):.1f}",
        f"{100 * alone:.1f}",
        "+0.0",
    ]
    linear.get_by_test_id("restore-0").click()
    _wait_released(linear, dict.fromkeys(SLIDERS, 0.3))
    linear.get_by_test_id("unpin-1").click()
    linear.get_by_test_id("restore-1").wait_for(state="detached")
    assert linear.get_by_test_id("restore-0").inner_text() == "Pin 1"


def test_the_task_under_the_mouse_shows_its_confusion_and_examples(linear):
    linear.get_by_test_id("row-textures").hover()
    title = linear.get_by_test_id("confusion-title")
    right = exact_right(4, IMAGES, [0.3] * 8)
    linear.wait_for_function("window.__tauscope_alpha.selected === 'textures'")
    assert title.inner_text() == f"Confusion: Textures, {right} of {IMAGES} right"
    canvas = linear.get_by_test_id("confusion")
    box = canvas.bounding_box()
    linear.mouse.move(box["x"] + 92 + (box["width"] - 92) / 22, box["y"] + box["height"] / 22)
    tip = linear.locator(".tip")
    tip.wait_for(state="visible")
    assert tip.inner_text().startswith("true: zero\npredicted: zero\n")
    frames = linear.get_by_test_id("pictures").locator("figure")
    assert frames.count() == 24
    assert set(frames.locator(".symbol").all_inner_texts()) == {"✓", "✗"}
    before = frames.locator(".symbol").all_inner_texts()
    linear.get_by_test_id("number-textures").fill("2")
    linear.wait_for_function("window.__tauscope_alpha.alphas.textures === 2")
    after = frames.locator(".symbol").all_inner_texts()
    assert after.count("✓") > before.count("✓")
    assert linear.locator("figure.changed").count() > 0


def test_the_interval_is_wilsons(linear):
    right = exact_right(2, IMAGES, [0.3] * 8)
    # the ends are where (p - right / n)^2 = z^2 p (1 - p) / n
    z2 = 1.959963984540054**2 / IMAGES
    share = right / IMAGES
    low, high = sorted(np.roots([1 + z2, -2 * share - z2, share**2]))
    bar = linear.get_by_test_id("bar-letters")
    bar.hover()
    lines = linear.locator(".tip").inner_text().split("\n")
    assert lines[0] == f"Letters: {100 * share:.1f} %"
    assert lines[1] == (f"{right} of {IMAGES}, 95 % interval {100 * low:.1f} to {100 * high:.1f}")
    zeroshot, alone = (exact_right(2, IMAGES, a) / IMAGES for a in ([0] * 8, np.eye(8)[2]))
    assert lines[2:] == [
        f"zero-shot {100 * zeroshot:.1f} %",
        f"own vector alone {100 * alone:.1f} %",
    ]
    drawn = bar.locator(".whisker").evaluate("(node) => [node.style.left, node.style.width]")
    places = [float(text.rstrip("%")) for text in drawn]
    assert places == pytest.approx([100 * low, 100 * (high - low)], abs=1e-3)


def test_python_moves_the_sliders_with_a_new_revision_only(linear):
    linear.get_by_test_id("number-digits").fill("1.5")
    linear.keyboard.press("Tab")
    _wait_released(linear, {"digits": 1.5, "signs": 0.3})
    assert _hook(linear)["alphas"]["digits"] == 1.5
    linear.get_by_role("button", name="Move the sliders from Python").click()
    _wait_released(linear, dict.fromkeys(SLIDERS, 0.7))
    _wait_shown(linear, dict.fromkeys(SLIDERS, 0.7))
    assert linear.get_by_test_id("number-digits").input_value() == "0.70"


def _status(page, wanted):
    page.wait_for_function(
        "(wanted) => window.__tauscope_alpha.status === wanted", arg=wanted, timeout=20_000
    )


def test_the_nonlinear_reading_is_approximate_until_python_answers(page, server, settled):
    _open(page, server(APP, SLOW), settled)
    assert _hook(page)["status"] == "exact"
    assert page.get_by_test_id("status").inner_text() == "exact, n = 250 a task · test"
    page.mouse.move(*_point(page, "digits", 0.3))
    page.mouse.down()
    page.mouse.move(*_point(page, "digits", 1.0), steps=5)
    _status(page, "approximate")
    assert page.locator(".tauscope-alpha.approximate").count() == 1
    page.mouse.up()
    _status(page, "computing")
    _status(page, "exact")
    assert page.locator(".tauscope-alpha.approximate").count() == 0
    alphas = _hook(page)["alphas"]
    right = [exact_right(e, 250, alphas.values(), saturating=True) for e in range(len(TASKS))]
    assert [_hook(page)["correct"][task] for task in TASKS] == right
    assert page.get_by_test_id("best-per-task").is_disabled()
    assert "Linearized readings only" in page.get_by_test_id("best-per-task").get_attribute("title")
    assert page.errors == []


def test_data_that_arrives_during_a_drag_does_not_interrupt_it(page, server, settled):
    _open(page, server(APP, SLOW), settled)
    page.get_by_test_id("reset").click()
    page.mouse.move(*_point(page, "signs", 0.0))
    page.mouse.down()
    page.mouse.move(*_point(page, "signs", 0.5), steps=5)
    held = _hook(page)
    settled(page)
    page.wait_for_function(
        "(n) => window.__tauscope_alpha.updates > n", arg=held["updates"], timeout=20_000
    )
    assert _hook(page)["alphas"]["signs"] == held["alphas"]["signs"] != 0
    assert _hook(page)["status"] == "approximate"
    page.mouse.move(*_point(page, "signs", 0.9), steps=5)
    page.mouse.up()
    assert _hook(page)["alphas"]["signs"] == pytest.approx(0.9, abs=0.03)
    assert _slider(page, "signs").evaluate("(node) => node.getRootNode().activeElement === node")
    _status(page, "exact")


@pytest.mark.parametrize("width", [1440, 390])
def test_in_the_dark_both_widths_draw_without_errors(open_page, server, settled, width):
    with open_page(width=width, height=844, color_scheme="dark") as page:
        _open(page, server(APP), settled)
        assert page.locator(".tauscope-alpha.dark").count() == 1
        page.get_by_test_id("best-shared").click()
        page.wait_for_function("window.__tauscope_alpha.status === 'exact'")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        box = page.get_by_test_id("alpha-widget").bounding_box()
        inner = page.get_by_test_id("alpha-widget").evaluate("(node) => node.scrollWidth")
        assert inner <= box["width"] + 1
        row = (
            _slider(page, "digits").bounding_box(),
            page.get_by_test_id("bar-digits").bounding_box(),
        )
        stacked = row[0]["y"] + row[0]["height"] <= row[1]["y"]
        assert stacked == (width == 390)
        assert page.errors == []


def test_nothing_jumps_while_alphas_change(linear):
    def height():
        return linear.get_by_test_id("alpha-widget").bounding_box()["height"]

    heights = {height()}
    for alpha in ("-1", "0", "0.35", "2"):
        linear.get_by_test_id("number-all").fill(alpha)
        linear.get_by_test_id("row-scenes" if alpha == "0" else "row-objects").hover()
        linear.wait_for_timeout(80)
        heights.add(height())
    assert len(heights) == 1
