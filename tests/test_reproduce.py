"""The verb ``reproduce``: what it runs, what it reuses, and the folder it writes."""

import csv
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from types import SimpleNamespace

import pytest

from engine.__main__ import main
from engine.commands import reproducing
from engine.exhibits import EXHIBITS, filled, published
from engine.exhibits.drawing import svg
from engine.exhibits.exhibit import Figure
from engine.exhibits.report import write_report
from engine.store import Store
from engine.tasks import miniature
from tests.tiny_world import make_world

TASKS = ("signs", "handwriting")
WORDS = ("reproduce", "--tasks", *TASKS, "--threads", "1")


@pytest.fixture(scope="module", autouse=True)
def small(tmp_path_factory):
    """A small world, and a checkout whose embedded cache is empty."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(miniature.SIZES, "train", 300)
        patch.setitem(miniature.SIZES, "test", 60)
        patch.setattr("engine.store.ROOT", tmp_path_factory.mktemp("checkout"))
        yield


@pytest.fixture(scope="module")
def made(tmp_path_factory, small):
    """A store and the report of it, whose missing runs were done in this process."""
    home, out = tmp_path_factory.mktemp("cache"), tmp_path_factory.mktemp("report")
    make_world(home, TASKS)
    words = [*WORDS, "--exhibits", "single", "addition", "negation", "convnext", "--here"]
    assert main([*words, "--out", str(out), "--cache", str(home)]) == 0
    return home, out


@pytest.fixture
def ask(capsys):
    """``ask(*words) -> dict``: run a verb with --json."""

    def asked(*words):
        capsys.readouterr()
        assert main([*map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return asked


def report_of(out) -> dict:
    return json.loads((out / "report.json").read_text())


def test_the_verbs_answers_are_the_numbers_of_the_report(made, ask):
    home, out = made
    tables = {t["name"]: t for item in report_of(out)["exhibits"] for t in item["tables"]}
    for row in tables["addition"]["rows"][1:]:
        said = ask("addition", "--tasks", *TASKS, "--mode", row["name"], "--cache", home)
        cells = row["cells"]
        assert cells["absolute"]["value"] == pytest.approx(said["absolute"], abs=1e-8)
        assert cells["normalized"]["value"] == pytest.approx(said["normalized"], abs=1e-8)
        assert cells["alpha"]["value"] == said["alpha"]
    for row in tables["negation"]["rows"][1:]:
        said = ask("negation", "--tasks", *TASKS, "--mode", row["name"], "--cache", home)
        assert row["cells"]["target"]["value"] == pytest.approx(said["target"], abs=1e-8)
        assert row["cells"]["control"]["value"] == pytest.approx(said["control"], abs=1e-8)


def test_every_number_can_be_traced(made):
    home, out = made
    report = report_of(out)
    digests = {entry.digest for entry in Store(home).find("result")}
    count = 0
    for item in report["exhibits"]:
        for table in item["tables"]:
            for row in table["rows"]:
                for cell in row["cells"].values():
                    if cell["state"] == "kept":
                        count += 1
                        assert cell["sources"]
                        assert set(cell["sources"]) <= digests
                        assert set(cell["sources"]) <= set(report["entries"])
    assert count > 30
    for entry in report["entries"].values():
        assert entry["answer"]["checkpoints"].keys() == set(TASKS)
        assert entry["answer"]["split_digests"]
        assert entry["answer"]["versions"]


def test_what_is_kept_is_not_run_again(made, ask, tmp_path, monkeypatch):
    home, _ = made
    monkeypatch.setattr(reproducing, "_run_here", lambda *_: pytest.fail("ran"))
    monkeypatch.setattr(reproducing, "_run_jobs", lambda *_: pytest.fail("ran"))
    said = ask(*WORDS, "--exhibits", "addition", "--out", tmp_path, "--cache", home)
    assert said["ran"] == []
    assert said["exhibits"]["addition"] == {"kept": 3, "missing": [], "why_not": ""}


def test_a_dry_run_says_what_is_missing_and_runs_nothing(made, ask, tmp_path):
    home, _ = made
    out = tmp_path / "report"
    said = ask(*WORDS, "--exhibits", "merging", "--dry-run", "--out", out, "--cache", home)
    assert len(said["missing"]) == 29  # nine in three readings, --each in two; the sum is kept
    assert said["passes"] == sum(row["passes"] for row in said["missing"])
    assert said["seconds"] > 0
    assert not out.exists()


def test_the_page_needs_nothing_from_outside(made):
    page = (made[1] / "index.html").read_text()
    names = "http://www.w3.org/"  # of XML dialects: nothing is fetched
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert all(link.startswith(("#", "data:image/png")) for link in links)
    assert all(address.startswith(names) for address in re.findall(r"https?://[^\s\"'<]+", page))
    assert "<script" not in page
    assert "@import" not in page
    assert "url(" not in page.replace("url(#", "")
    assert "prefers-color-scheme: dark" in page
    ids = re.findall(r'\bid="([^"]+)"', page)
    drawn = [name for name in ids if not name.startswith(tuple(EXHIBITS))]
    assert len(set(drawn)) == len(drawn)


def test_published_figures_stay_apart(made):
    _, out = made
    with (out / "tables" / "addition.csv").open() as file:
        ours = list(csv.DictReader(file))
    assert "published" not in " ".join(ours[0])
    assert "published_percent" in (out / "tables" / "published.csv").read_text()
    # the paper's best accuracy is far from what random task vectors reach
    numbers = {row["absolute"] for row in ours}
    assert not numbers & {str(figure.value) for figure in published("addition")}


def test_drawings_and_tables_can_be_read(made):
    _, out = made
    drawings = sorted((out / "figures").glob("*.svg"))
    assert {path.stem for path in drawings} >= {"single", "single-linear", "addition-curve"}
    for path in drawings:
        root = ET.parse(path).getroot()
        assert root.tag.endswith("svg")
        assert root.get("viewBox")
        assert root.get("width") is None
    for path in (out / "tables").glob("*.csv"):
        with path.open() as file:
            assert list(csv.DictReader(file))


def test_the_same_report_is_written_again_to_the_byte(made, tmp_path):
    store = Store(made[0])
    found = [filled(store, "miniature", name, tasks=TASKS) for name in ("single", "addition")]
    for name in ("one", "two"):
        write_report(tmp_path / name, "miniature", found, {"Made": "then"}, {})
    for path in (tmp_path / "one").rglob("*.*"):
        other = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == other.read_bytes()


def test_text_cannot_break_the_page(made, tmp_path):
    store = Store(made[0])
    found = filled(store, "miniature", "addition", tasks=TASKS)
    table = found.tables[0]
    row = replace(table.rows[0], title="<img src=x onerror=alert(1)>")
    broken = replace(found, tables=(replace(table, rows=(row, *table.rows[1:])),))
    write_report(tmp_path, "<b>mini</b>", [broken], {"Made": "<i>then</i>"}, {})
    page = (tmp_path / "index.html").read_text()
    assert "<img" not in page
    assert "<b>mini" not in page
    assert "<i>then" not in page


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (
            "maps",
            {
                "panels": [
                    {"title": "a and b", "mode": m, "tasks": ["a", "b"], "alphas": [-1.0, 0.0, 1.0],
                     "values": v, "n": 9, "words": []}
                    for m, v in (("nonlinear", [[0.0, 1.0, 2.0]] * 3), ("linear", None))
                ],
                "box": [0, 1],
                "range": [0, 2],
            },
        ),
        (
            "energy",
            {
                "panels": [
                    {"title": t, "task": t, "control": "c", "task_energy": e, "control_energy": e,
                     "logits": ["x"], "words": []}
                    for t, e in (("a", [[0.5, 0.6]]), ("b", None), ("d & e", [[0.1, 0.2]]))
                ]
            },
        ),
        (
            "bars",
            {
                "groups": ["a & b", "c"],
                "series": [{"name": "linear", "title": "<L>", "values": [0.5, None],
                            "low": [0.4, None], "high": [0.6, None]}],
                "axis": "accuracy",
            },
        ),
    ],
)  # fmt: skip
def test_figures_with_gaps_are_drawn(kind, data):
    figure = Figure("f-1", "A <title>", kind, data)
    assert figure.drawable
    root = ET.fromstring(svg(figure))
    assert root[0].text == "A <title>"


class Queue:
    """A queue whose jobs end when looked at, one a look; some fail."""

    def __init__(self, failing=()) -> None:
        self.jobs, self.failing = {}, failing

    def list(self):
        return list(self.jobs.values())

    def submit(self, words, *, after=(), device=None, suite=None):
        assert all(id in self.jobs for id in after)
        id = f"job {len(self.jobs)}"
        self.jobs[id] = SimpleNamespace(
            id=id, verb=words[0], arguments=words[1:], after=after, state="queued", title=id,
            step=0, steps=0, finished=False, error=None,
        )  # fmt: skip
        return self.jobs[id]

    def get(self, id):
        return self.jobs[id]

    def pump(self):
        job = next((job for job in self.jobs.values() if not job.finished), None)
        if job is not None:
            failed = job.verb in self.failing
            job.state, job.finished = ("failed" if failed else "done"), True
            job.error = "it broke; mend it" if failed else None


@pytest.fixture
def queue(monkeypatch):
    made = Queue()
    monkeypatch.setattr(reproducing, "open_jobs", lambda args: made)
    monkeypatch.setattr(reproducing, "LOOK", 0.0)
    return made


def test_missing_runs_wait_for_their_fine_tunes(queue, ask, tmp_path):
    make_world(tmp_path / "cache", TASKS)
    words = [*WORDS, "--exhibits", "addition", "--seeds", "0", "3"]
    ask(*words, "--out", tmp_path / "report", "--cache", tmp_path / "cache")
    by_verb = {}
    for job in queue.list():
        by_verb.setdefault(job.verb, []).append(job)
    assert len(by_verb["finetune"]) == 4  # two tasks in two modes, each once
    assert len(by_verb["addition"]) == 6
    tuned = {job.id for job in by_verb["finetune"]}
    for job in by_verb["addition"]:
        new = job.arguments[job.arguments.index("--seed") + 1] == "3"
        assert len(job.after) == (2 if new else 0)
        assert set(job.after) <= tuned


def test_a_second_call_waits_for_the_jobs_of_the_first(queue, ask, tmp_path):
    make_world(tmp_path / "cache", TASKS)
    words = [*WORDS, "--exhibits", "addition", "--seeds", "0"]
    words += ["--out", tmp_path / "report", "--cache", tmp_path / "cache"]
    first = ("addition", "--encoder", "miniature", "--mode", "linear", "--seed", "0", "--tasks",
             *TASKS, "--threads", "1")  # fmt: skip
    queue.submit(first)
    ask(*words)
    assert len(queue.jobs) == 3


def test_failed_runs_are_named_and_the_report_is_written(queue, tmp_path, capsys):
    make_world(tmp_path / "cache", TASKS)
    queue.failing = ("addition",)
    words = [*WORDS, "--exhibits", "addition", "--out", str(tmp_path / "report")]
    assert main([*words, "--cache", str(tmp_path / "cache")]) == 2
    said = capsys.readouterr().err
    assert "3 of 3 runs failed, first addition --encoder miniature" in said
    assert "it broke; mend it" in said
    assert "not run" in (tmp_path / "report" / "index.html").read_text()


def test_a_job_runs_what_is_missing_itself(monkeypatch):
    args = SimpleNamespace(here=False)
    assert not reproducing._is_here(args)
    monkeypatch.setattr("engine.jobs.reporting._listener", object())
    assert reproducing._is_here(args)


def test_an_unknown_exhibit_is_refused(tmp_path, capsys):
    assert main(["reproduce", "--exhibits", "table1", "--cache", str(tmp_path)]) == 2
    assert "there is no exhibit 'table1'; choose of single, addition" in capsys.readouterr().err
