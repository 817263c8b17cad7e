"""Measure how soon the Disentanglement page draws its maps anew: another grid, range or pair.

Run as ``python -m benchmarks.bench_xi_page [--times N]`` where Chromium is installed. It starts a
dashboard on a cache of its own beside the embedded one, and measures from the mouse button or key
to the second frame in which both linearized maps show what was asked for. Prints JSON.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from engine.provenance import provenance
from tests.browser import conftest

APP = Path(__file__).parents[1] / "app" / "server.py"
PATIENCE = 300_000  # ms
VIEW = "?t=handwriting,signs&g=20&v=summary"
# what the two linearized maps show, drawn by the component or by Plotly, each in its shadow or not
SHOWN = """() => {
  const all = (root, wanted, found = []) => {
    for (const node of root.querySelectorAll('*')) {
      if (node.matches(wanted)) found.push(node);
      if (node.shadowRoot) all(node.shadowRoot, wanted, found);
    }
    return found;
  };
  const told = new Set();
  for (const mode of ['posthoc', 'linear']) {
    const place = document.querySelector(`.st-key-map_${mode}`);
    const map = place && all(place, '.tauscope-ximap')[0];
    const plot = place && place.querySelector('.js-plotly-plot');
    if (map && !map.dataset.titles) told.add('none');
    else if (map) told.add(`${map.dataset.grid} ${Number(map.dataset.low).toFixed(3)} ` +
      map.dataset.titles.split(' / ')[1]);
    else if (plot?._fullLayout?.xaxis) told.add(`${plot._fullData[0].x.length} ` +
      `${plot._fullLayout.xaxis.range[0].toFixed(3)} ` +
      plot._fullLayout.yaxis.title.text.replace('α₂, ', ''));
    else told.add('none');
  }
  return [...told].join('; ');
}"""
CLOCK = f"""([event, wanted]) => {{
  const shown = {SHOWN}, seen = {{}};
  document.addEventListener(event, () => {{ seen.began = performance.now(); }},
    {{once: true, capture: true}});
  const look = () => {{
    if (seen.began === undefined || shown() !== wanted) return requestAnimationFrame(look);
    requestAnimationFrame(() => {{ seen.ended = performance.now(); }});
  }};
  look();
  return seen;
}}"""


def timed(page: Page, event: str, wanted: str, act) -> float:
    """Return the milliseconds from an event to the frame in which the maps show what is wanted."""
    clock = page.evaluate_handle(CLOCK, [event, wanted])
    act()
    page.wait_for_function("seen => seen.ended !== undefined", arg=clock, timeout=PATIENCE)
    found = clock.evaluate("seen => seen.ended - seen.began")
    page.wait_for_selector(conftest.READY, timeout=PATIENCE)
    page.wait_for_timeout(400)
    return found


def choose(page: Page, label: str, option: str, wanted: str) -> float:
    """Choose another option of a select box, timed from the option's mouse button."""
    page.get_by_label(label).first.click()
    target = page.get_by_role("option", name=option, exact=True)
    target.wait_for(timeout=PATIENCE)
    page.wait_for_timeout(200)
    return timed(page, "mousedown", wanted, target.click)


def edge(low: float, high: float, grid: int) -> str:
    """Return where an axis begins: half a cell before the first alpha."""
    return f"{low - (high - low) / (2 * (grid - 1)):.3f}"


def measure(page: Page, times: int) -> dict[str, list[float]]:
    """Change grid, pair and range in turn.

    Args:
        page: At the view of :data:`VIEW`, both linearized maps drawn.
        times: How often each.

    Returns:
        Milliseconds by kind of change; the first of each kind warms up and is left out.
    """
    found: dict[str, list[float]] = {}
    for turn in range(times + 1):
        for grid in (51, 101, 20):
            wanted = f"{grid} {edge(-3, 3, grid)} Traffic signs"
            took = choose(page, "Grid", f"{grid} × {grid}", wanted)
            found.setdefault(f"grid {grid}", []).append(took)
        for title in ("Textures", "Traffic signs"):
            took = choose(page, "Second task", title, f"20 {edge(-3, 3, 20)} {title}")
            found.setdefault("pair", []).append(took)
        thumb = page.get_by_role("slider").first
        for key, low in (("ArrowRight", -2.5), ("ArrowLeft", -3.0)):
            thumb.focus()
            wanted = f"20 {edge(low, 3, 20)} Traffic signs"
            took = timed(page, "keydown", wanted, lambda key=key: page.keyboard.press(key))
            found.setdefault("range", []).append(took)
        sys.stderr.write(f"turn {turn} of {times}\n")
    return {kind: each[len(each) // (times + 1) :] for kind, each in found.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=5)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home, sync_playwright() as play:
        process, address = conftest._start(APP, {"TAUSCOPE_CACHE": home}, Path(home) / "server.txt")
        try:
            browser = play.chromium.launch(
                executable_path=conftest.find_chromium(), args=conftest.CHROMIUM_FLAGS
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            page.goto(f"{address}/disentanglement{VIEW}", timeout=PATIENCE)
            wanted = f"20 {edge(-3, 3, 20)} Traffic signs"
            drawn = f"wanted => ({SHOWN})() === wanted"
            page.wait_for_function(drawn, arg=wanted, timeout=PATIENCE)
            page.wait_for_timeout(5000)  # the other tasks' class scores are read meanwhile
            found = measure(page, asked.times)
            browser.close()
        finally:
            conftest._stop(process)
    told = {
        kind: {
            "changes": len(each),
            "median_ms": round(statistics.median(each), 1),
            "most_ms": round(max(each), 1),
        }
        for kind, each in found.items()
    }
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": before}
    json.dump({"redraw": told, **machine, **provenance()}, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
