"""Drag a slider of the real Merge page by the mouse, and count how often its readouts follow.

The embedded miniature, its eight tasks and the control on 500 images each, both linearized
readings, in Chromium, with an empty local cache. Prints JSON: updates of the readouts a second
while the button is down, the time from mouse event to mouse event, and what an update computes.
The mouse moves at the pace of a real one, whether the page has answered the last move or not: a
driver that waits for each answer sets the pace itself. Quote it from an idle machine.

    python -m benchmarks.bench_drag [--moves 600] [--rate 125]
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.async_api import Page, async_playwright

from engine.provenance import provenance
from tests.browser import conftest

APP = Path(__file__).parents[1] / "app" / "server.py"
PATIENCE = 900_000  # ms: the first view computes every score
WIDGET = "[data-testid=alpha-widget]"
# the texts that stand in the readouts, frame by frame, until told to stop
WATCH = """(places) => {
  const seen = { frames: 0, changes: 0, texts: new Set(), moves: [], on: true, last: '' };
  window.addEventListener('pointermove', () => seen.moves.push(performance.now()), true);
  const look = () => {
    if (!seen.on) return;
    const text = places.map((node) => node.textContent).join(' ');
    seen.frames += 1;
    if (text !== seen.last) seen.changes += 1;
    seen.last = text;
    seen.texts.add(text);
    requestAnimationFrame(look);
  };
  seen.began = performance.now();
  seen.updates = window.__tauscope_alpha.updates;
  requestAnimationFrame(look);
  return seen;
}"""
END = """(seen) => {
  seen.on = false;
  const seconds = (performance.now() - seen.began) / 1000;
  const held = window.__tauscope_alpha;
  const updates = held.updates - seen.updates;
  const gaps = seen.moves.slice(1).map((at, k) => at - seen.moves[k]);
  return { seconds, updates, gaps, times: held.times.slice(-updates), frames: seen.frames,
    changes: seen.changes, texts: seen.texts.size };
}"""


async def drag(page: Page, moves: int, rate: float) -> dict:
    """Drag the first slider to and fro, and return what the page showed meanwhile.

    Args:
        page: The Merge page, its widget drawn.
        moves: Of the mouse, a pixel or more each.
        rate: Moves a second.

    Returns:
        What the watcher in the page has counted and timed.
    """
    box = await page.locator("[data-testid^=range-]").nth(1).bounding_box()
    middle, width = box["y"] + box["height"] / 2, box["width"]
    places = await page.locator("[data-testid^=value-]").element_handles()
    await page.mouse.move(box["x"] + 0.3 * width, middle)
    await page.mouse.down()
    await page.mouse.move(box["x"] + 0.35 * width, middle)  # warms up
    mouse = await page.context.new_cdp_session(page)
    watched = await page.evaluate_handle(WATCH, places)
    began, sent = time.perf_counter(), []
    for step in range(moves):
        sweep = abs((2 * step / 120) % 2 - 1)  # to and fro in 120 moves
        at = {"x": box["x"] + (0.1 + 0.8 * sweep) * width, "y": middle}
        event = {"type": "mouseMoved", "button": "left", "buttons": 1, **at}
        sent.append(asyncio.ensure_future(mouse.send("Input.dispatchMouseEvent", event)))
        await asyncio.sleep(max(0.0, began + (step + 1) / rate - time.perf_counter()))
    await asyncio.gather(*sent)
    found = await watched.evaluate(END)  # the button is still down
    await page.mouse.up()
    return found


def told(found: dict, tasks: int) -> dict:
    """Return the figures of a drag."""
    times, gaps = found["times"], found["gaps"]
    return {
        "rows": tasks,
        "moves": len(gaps) + 1,
        "updates_a_second": round(found["updates"] / found["seconds"], 1),
        "readouts_changed_a_second": round(found["changes"] / found["seconds"], 1),
        "frames_a_second": round(found["frames"] / found["seconds"], 1),
        "distinct_readouts": found["texts"],
        "update_ms": {"median": statistics.median(times), "most": max(times)},
        "between_events_ms": {"median": statistics.median(gaps), "most": max(gaps)},
    }


async def measure(address: str, moves: int, rate: float) -> dict:
    """Return the figures of both linearized readings."""
    record = {}
    async with async_playwright() as play:
        browser = await play.chromium.launch(
            executable_path=conftest.find_chromium(), args=conftest.CHROMIUM_FLAGS
        )
        for reading in ("posthoc", "linear"):
            page = await browser.new_page(viewport={"width": 1440, "height": 900})
            await page.goto(f"{address}/merge?r={reading}", timeout=PATIENCE)
            await page.wait_for_selector(WIDGET, timeout=PATIENCE)
            await page.wait_for_selector(conftest.READY, timeout=PATIENCE)
            await page.get_by_text("Validation points are exact").wait_for(timeout=PATIENCE)
            await page.wait_for_timeout(3000)  # what else is computed after the first paint
            rows = await page.locator("[data-testid^=value-]").count()
            record[reading] = told(await drag(page, moves, rate), rows)
            await page.close()
        await browser.close()
    return record


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--moves", type=int, default=600)
    parser.add_argument("--rate", type=float, default=125, help="moves of the mouse a second")
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home:
        process, address = conftest._start(APP, {"TAUSCOPE_CACHE": home}, Path(home) / "server.txt")
        try:
            record = asyncio.run(measure(address, asked.moves, asked.rate))
        finally:
            conftest._stop(process)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": before}
    json.dump({"drag": record, **machine, **provenance()}, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
