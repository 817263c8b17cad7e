"""The Fine-tune page in Chromium: launch, watch, reload, restart, merge; cancel and resume."""

import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from engine.__main__ import main
from engine.encoders import load_encoder
from engine.evaluate import linearized_accuracy
from engine.jobs import Jobs
from engine.responses import responses
from engine.store import Store
from engine.tasks import load_split, load_task
from tests.browser import conftest
from tests.browser.conftest import faults
from tests.made_jobs import make_job
from tests.tiny_world import make_encoder

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
APP = ROOT / "app" / "server.py"
LIMIT = 180_000  # ms, on a machine that may be busy
SERVED = {"TAUSCOPE_JOB_THREADS": "1"}
STEPS = 120  # some seconds of work: enough to watch, to reload and to restart the server


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make_encoder(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def address(world, server) -> str:
    """One dashboard for the tests that do not stop theirs."""
    return server(APP, SERVED | {"TAUSCOPE_CACHE": str(world.home)})


@contextmanager
def serving(world: Store, log: Path):
    """Run a dashboard of its own on this cache, and stop it."""
    process, address = conftest._start(APP, SERVED | {"TAUSCOPE_CACHE": str(world.home)}, log)
    try:
        yield address
    finally:
        conftest._stop(process)


@pytest.fixture
def jobs(world):
    """The jobs of this cache; at the end they are stopped and deleted, with what they made."""
    found = Jobs(world.home)
    yield found
    for job in found.list():
        if not job.finished:
            found.cancel(job.id, force=True)
            until(lambda id=job.id: found.get(id).finished)
        found.delete(job.id, artifacts=True)


def field(page, name: str):
    return page.locator(f".st-key-finetune_form_{name} input").first


def press(page, name: str) -> None:
    page.locator(f".st-key-finetune_{name} button:not([disabled])").first.click(timeout=LIMIT)


def row(page, job):
    return page.get_by_test_id(f"job-{job.id}")


def launch(page, address: str, seed: int, **numbers: float) -> None:
    """Fill the form and press Launch, with the mouse and the keyboard."""
    page.goto(f"{address}/finetune", timeout=LIMIT)
    page.locator(".st-key-finetune_launch button").wait_for(timeout=LIMIT)
    for name, value in {"seeds": seed, **numbers}.items():
        field(page, name).fill(str(value))
        field(page, name).press("Enter")
        page.wait_for_selector(conftest.READY, timeout=LIMIT)
    if "steps" in numbers:  # what it will cost follows what was typed
        cost = page.locator(".st-key-finetune_cost")
        cost.get_by_text(f"{numbers['steps']:,}", exact=True).wait_for(timeout=LIMIT)
    press(page, "launch")


def until(condition, seconds: float = 180.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def shown_step(page) -> int:
    """The step that the page shows of the chosen job; -1 before it shows one."""
    text = page.get_by_test_id("stProgress").first.inner_text()
    before, found, _ = text.partition(" of ")
    return int(before.rpartition(" ")[2].replace(",", "")) if found else -1


def merged_accuracy(world: Store, entry, alpha: float) -> float:
    """Accuracy of f_lin at theta_0 + alpha tau on the page's sample, by the engine alone."""
    encoder, task = load_encoder("miniature", world), load_task(entry.meta["task"])
    split = load_split(task, "test", encoder.image_size, world, 500)
    reading = responses(encoder, task, split, {task.name: world.get(entry)})
    return linearized_accuracy(reading, {task.name: alpha})


def test_a_fine_tune_outlives_page_and_server_and_is_merged(open_page, world, jobs, tmp_path):
    with open_page() as page:
        with serving(world, tmp_path / "first.txt") as address:
            launch(page, address, seed=4711, steps=STEPS)
            (job,) = until(jobs.list)
            assert (job.option("--mode"), job.option("--seed")) == ("linear", "4711")
            page.wait_for_url(f"**/finetune?job={job.id}", timeout=LIMIT)
            first = until(lambda: max(shown_step(page), 0))
            until(lambda: shown_step(page) > first)
            page.reload()
            page.get_by_test_id("stProgress").first.wait_for(timeout=LIMIT)
            assert job.id in page.url
            assert until(lambda: max(shown_step(page), 0)) > first
        # without any dashboard it goes on
        before = jobs.get(job.id).step
        until(lambda: jobs.get(job.id).finished or jobs.get(job.id).step > before)
        with serving(world, tmp_path / "second.txt") as address:
            page.goto(f"{address}/finetune?job={job.id}", timeout=LIMIT)
            page.errors.clear()  # what the stopped server left behind
            row(page, job).get_by_text("✓ done").wait_for(timeout=LIMIT)
            until(lambda: jobs.get(job.id).state == "done")
            until(lambda: shown_step(page) == STEPS)
            page.get_by_role("link", name="Its checkpoint in Merge").wait_for(timeout=LIMIT)
            (entry,) = world.find("checkpoint")
            assert jobs.get(job.id).artifacts == (entry.digest,)
            assert (entry.meta["seed"], entry.meta["steps"]) == (4711, STEPS)
            # the mouse alone leads to Merge, and there it is
            page.get_by_role("link", name="Merge", exact=True).first.click()
            page.get_by_test_id("range-handwriting").wait_for(timeout=LIMIT)
            shown = page.get_by_test_id("value-handwriting").inner_text().strip()
            alpha = float(page.get_by_test_id("number-handwriting").input_value())
            assert shown == f"{100 * merged_accuracy(world, entry, alpha):.1f}"
            assert faults(page) == []


def test_cancelled_and_resumed_it_equals_an_uninterrupted_run(
    open_page, address, world, jobs, tmp_path
):
    with open_page() as page:
        launch(page, address, seed=5, steps=STEPS)
        (job,) = until(jobs.list)
        until(lambda: shown_step(page) > 5)
        press(page, "cancel")
        stopped = until(lambda: jobs.get(job.id).finished and jobs.get(job.id))
        assert stopped.state == "cancelled"
        assert 5 < stopped.step < STEPS
        press(page, "resume")
        until(lambda: jobs.get(job.id).state == "done")
        assert jobs.get(job.id).attempt == 2
        until(lambda: shown_step(page) == STEPS)
    (entry,) = world.find("checkpoint")
    # the same words in a cache of their own, never stopped
    alone = make_encoder(tmp_path / "alone")
    words = [*jobs.get(job.id).arguments, "--threads", "1", "--cache", str(alone.home)]
    assert main([job.verb, *words]) == 0
    (other,) = alone.find("checkpoint")
    interrupted, whole = world.get(entry), alone.get(other)
    assert interrupted.keys() == whole.keys()
    assert all(torch.equal(interrupted[name], whole[name]) for name in whole)


def test_a_failure_is_shown_and_the_page_fits_a_phone(open_page, address, jobs):
    with open_page(390, 844, "dark") as page:
        launch(page, address, seed=1, steps=20, rate=1e9, warmup=0)
        (job,) = until(jobs.list)
        failed = until(lambda: jobs.get(job.id).finished and jobs.get(job.id))
        assert failed.state == "failed"
        alert = page.get_by_role("alert").filter(has_text="train with a lower rate")
        alert.first.wait_for(timeout=LIMIT)
        page.wait_for_selector(conftest.READY, timeout=LIMIT)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert faults(page) == []


def test_jobs_are_ticked_with_the_mouse_and_the_keyboard(open_page, address, jobs):
    for seed in range(3):
        make_job(jobs, "done", seed=seed, step=20)
    failed = make_job(jobs, "failed", task="letters", step=5, error="no space; free some")
    top, second, third, last = jobs.list()
    with open_page() as page:
        page.goto(f"{address}/finetune?job={top.id}", timeout=LIMIT)
        box = row(page, third).get_by_role("checkbox")
        box.wait_for(timeout=LIMIT)
        # the mouse on a row looks at its job alone, on a box at one more
        row(page, last).get_by_text("%").click()
        page.wait_for_url(f"**/finetune?job={last.id}", timeout=LIMIT)
        box.click()
        page.get_by_role("heading", name="2 jobs chosen").wait_for(timeout=LIMIT)
        # the keyboard leads from box to box, and the focus outlives the answer
        page.keyboard.press("ArrowUp")
        page.keyboard.press("Space")
        page.get_by_role("heading", name="3 jobs chosen").wait_for(timeout=LIMIT)
        assert row(page, second).get_by_role("checkbox").evaluate("box => box.matches(':focus')")
        asked = page.url.partition("job=")[2].replace("%2C", ",").split(",")
        assert asked == [second.id, third.id, last.id]
        page.get_by_role("checkbox", name="Tick all jobs").click()
        page.get_by_role("heading", name="4 jobs chosen").wait_for(timeout=LIMIT)
        # sorted by the loss the largest stands first, then last, then all where they were
        shown = page.get_by_test_id("jobs-table").locator("tbody tr")
        for place in (0, 3, jobs.list().index(failed)):
            page.get_by_role("button", name="loss (nats)").click()
            shown.nth(place).get_by_text("failed").wait_for(timeout=LIMIT)
        assert page.locator("th[aria-sort=descending], th[aria-sort=ascending]").count() == 0
        assert faults(page) == []
