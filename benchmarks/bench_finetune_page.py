"""Measure the Fine-tune page's answers to clicks while jobs on the CPU keep every core at work.

Run as ``python -m benchmarks.bench_finetune_page [--clicks N] [--jobs N]`` where Chromium is
installed. It starts a dashboard and the jobs on a cache of its own, ticks a job of the table and
chooses in the form, and measures from the mouse button to the page that shows it. Prints JSON.
"""

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Locator, Page, sync_playwright

from benchmarks.page_clock import timed
from engine.jobs import Jobs
from engine.provenance import provenance
from tests.browser import conftest
from tests.tiny_world import make_encoder

APP = Path(__file__).parents[1] / "app" / "server.py"
PATIENCE = 600_000  # ms
STEPS = 1_000_000  # more than the measurement lasts
ANSWERS = "h3, .st-key-finetune_launch button"


def start_jobs(jobs: Jobs, count: int) -> list:
    """Start jobs that outlast the measurement, all at once.

    Args:
        jobs: Of an empty cache.
        count: How many.

    Returns:
        The jobs, each past its first steps.

    Raises:
        RuntimeError: If one ends at once.
    """
    words = ["finetune", "--tasks", "signs", "--mode", "linear", "--steps", str(STEPS)]
    made = [jobs.submit([*words, "--device", "cpu", "--seed", str(n)]) for n in range(count)]
    while not all(jobs.get(job.id).step > 3 for job in made):
        if any(jobs.get(job.id).finished for job in made):
            raise RuntimeError("a job ended before the measurement; see its log")
        time.sleep(0.5)
    return made


def clicks(page: Page, box: Locator, count: int) -> list[float]:
    """Tick a row again and again and measure each answer.

    Args:
        page: At the Fine-tune page, with at least two jobs, the newest ticked.
        box: The box of an older one.
        count: How many clicks.

    Returns:
        Milliseconds from the mouse button to the painted answer, one a click.
    """
    found = []
    for n in range(count):
        # every second click adds the older job to the chosen ones, the others take it away
        wanted = "2 jobs chosen" if n % 2 == 0 else "seed"
        page.wait_for_timeout(350 + 37 * (n % 7))  # anywhere between two of the table's own turns
        found.append(click(page, box, wanted))
    return found


def presses(page: Page, count: int) -> list[float]:
    """Change a choice of the form again and again: the number of jobs on its button follows.

    Args:
        page: At the Fine-tune page, with one task and one way of training chosen.
        count: How many clicks.

    Returns:
        As :func:`clicks`.
    """
    pill = page.locator(".st-key-finetune_form_modes button").filter(has_text="Non-linear").first
    found = []
    for n in range(count):
        wanted = "Launch 2 jobs" if n % 2 == 0 else "Launch 1 job"
        page.wait_for_timeout(350 + 37 * (n % 7))
        found.append(click(page, pill, wanted))
    return found


def click(page: Page, target: Locator, wanted: str) -> float:
    """Click and wait for an answer; milliseconds from the mouse button to its first frame."""
    box = target.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    return timed(page, lambda: page.mouse.click(x, y), "pointerdown", ANSWERS, wanted)


def told(found: list[float]) -> dict:
    """Say how long clicks took, in ms."""
    ordered = sorted(found)
    return {
        "clicks": len(found),
        "median_ms": round(statistics.median(found), 1),
        "p95_ms": round(ordered[max(0, round(0.95 * len(ordered)) - 1)], 1),
        "most_ms": round(ordered[-1], 1),
    }


def measure(home: Path, count: int, at_work: int) -> dict:
    """Measure with so many jobs at work.

    Args:
        home: Of an empty cache.
        count: Clicks; the first two warm up and are not counted.
        at_work: Jobs.

    Returns:
        What is printed of them.
    """
    os.environ["TAUSCOPE_CPU_SLOTS"] = str(at_work)
    os.environ["TAUSCOPE_JOB_THREADS"] = "1"
    jobs = Jobs(make_encoder(home).home)
    made = start_jobs(jobs, at_work)
    env = {"TAUSCOPE_CACHE": str(home)}
    process, address = conftest._start(APP, env, home / "server.txt")
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(
                executable_path=conftest.find_chromium(), args=conftest.CHROMIUM_FLAGS
            )
            page = browser.new_page(viewport={"width": 1440, "height": 900})
            newest, older = jobs.list()[0].id, jobs.list()[-1].id
            page.goto(f"{address}/finetune?job={newest}", timeout=PATIENCE)
            box = page.get_by_test_id(f"job-{older}").locator("input")
            box.wait_for(timeout=PATIENCE)
            page.wait_for_timeout(3000)
            before = [jobs.get(job.id).step for job in made]
            ticks = clicks(page, box, count + 2)[2:]
            page.locator("summary").filter(has_text="New fine-tunes").click()
            page.locator(".st-key-finetune_launch button").wait_for(timeout=PATIENCE)
            page.wait_for_timeout(3000)
            choices = presses(page, count + 2)[2:]
            steps = [jobs.get(job.id).step - b for job, b in zip(made, before, strict=True)]
            browser.close()
    finally:
        conftest._stop(process)
        for job in made:
            if not jobs.get(job.id).finished:
                jobs.cancel(job.id, force=True)
    return {
        "table": told(ticks),
        "form": told(choices),
        "jobs_at_work": at_work,
        "steps_of_the_jobs_meanwhile": steps,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clicks", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as home:
        found = measure(Path(home), asked.clicks, asked.jobs)
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "load_before": before}
    json.dump({**found, **machine, **provenance()}, sys.stdout, indent=2)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
