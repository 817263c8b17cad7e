"""The Fine-tune page in Streamlit's own test runner, and the pure functions behind it."""

import json
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from streamlit.testing.v1 import AppTest

from app import state
from app.components.jobs import read_ticked
from app.compute import jobs as shown
from app.compute import launching
from app.figures import jobs as figures
from engine.errors import UsageError
from engine.jobs import Jobs
from engine.store import Store
from tests import shown_pages
from tests.made_jobs import asleep, change_job, make_job
from tests.shown_pages import PAGES, settle, texts
from tests.tiny_world import make_world

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Store:
    return make_world(tmp_path_factory.mktemp("world"), ("signs", "letters"))


@pytest.fixture
def here(world, tmp_path, monkeypatch) -> Jobs:
    """Jobs of an empty folder, beside a store with an encoder; nothing queued is ever started."""
    asleep(monkeypatch)
    monkeypatch.setenv("TAUSCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr("engine.store.default_store", lambda: Store(world.home))
    return Jobs(tmp_path)


def open_page(*jobs: str) -> AppTest:
    query = {state.QUERY_JOB: ",".join(jobs)} if jobs else {}
    return settle(shown_pages.open_page("finetune", **query))


def button(page: AppTest, name: str):
    return page.button(key=f"finetune_{name}")


def curves(page: AppTest, place: int = 0) -> list[dict]:
    return json.loads(page.get("plotly_chart")[place].proto.spec)["data"]


def table(page: AppTest) -> dict:
    (widget,) = page.get("bidi_component")
    return json.loads(widget.proto.json)


# ------------------------------------------------------------------------------- pure functions


@pytest.mark.parametrize(
    ("text", "seeds"),
    [
        ("0", (0,)),
        ("0, 2,5", (0, 2, 5)),
        ("0-3", (0, 1, 2, 3)),
        ("7 1-2 7", (7, 1, 2)),
        ("", ()),
        ("3-1", ()),
        ("-1", ()),
        ("1.5", ()),
        ("one", ()),
        ("0-100", ()),
        ("0-99 100", ()),
        ("٣", ()),
        ("9999999999", ()),
    ],
)
def test_seeds_are_read_as_typed(text, seeds):
    assert state.seeds_of(text) == seeds


def test_jobs_of_the_address_are_names_only():
    asked = {state.QUERY_JOB: "20261122-201500-a1b2c3,../../etc,<b>," + "a" * 99 + ",x,x"}
    assert state.jobs_of(asked) == ("20261122-201500-a1b2c3", "x")
    assert state.jobs_of({}) == ()


def test_only_what_was_seen_at_work_has_ended():
    seen = {"a": "running", "b": "done", "c": "queued"}
    now = {"a": "failed", "b": "done", "c": "running", "d": "done"}
    assert state.ended(seen, now, shown.OVER) == ["a"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_are_written_for_people(value, text):
    assert shown.seconds(value) == text


def test_a_plan_becomes_the_words_of_the_command_line():
    plan = launching.Plan(
        "miniature", ("signs",), ("linear",), (3,), (("weight_decay", 0.0),), "cpu", limit=64
    )
    (line,) = plan.suite().lines()
    assert line == (
        "finetune --encoder miniature --tasks signs --mode linear --seed 3 "
        "--weight_decay 0.0 --device cpu --limit 64"
    ).replace("t_d", "t-d").split(" ")


def test_the_words_are_the_parsers_own():
    from engine.commands.parser import build_parser

    changes = {**dict.fromkeys(launching.NUMBERS, 2), "augment": "none", "precision": "float32"}
    plan = launching.Plan("miniature", ("signs",), ("linear",), (3,), tuple(changes.items()))
    read = build_parser().parse_args(plan.suite().lines()[0])
    assert {name: getattr(read, name) for name in changes} == changes


def test_a_job_fills_the_form_it_came_from(here):
    job = make_job(here, seed=4, options=("--steps", "7", "--rate", "1e-05", "--device", "cpu"))
    fields = launching.form_of(job)
    plan = launching.plan_of(fields, state.seeds_of(fields["seeds"]))
    assert plan.suite().lines()[0][1:] == [
        *("--encoder", "miniature", "--tasks", "signs", "--mode", "linear", "--seed", "4"),
        *("--steps", "7", "--rate", "1e-05", "--device", "cpu"),
    ]


def test_every_run_has_a_colour_a_dash_and_a_mark_of_its_own():
    runs = [figures.Curve(str(place), [{"step": 1, "loss": 1.0}], 9) for place in range(6)]
    drawn = figures.loss_curves(runs).data
    for looks in (
        {line.line.color for line in drawn},
        {line.line.dash for line in drawn},
        {line.marker.symbol for line in drawn},
    ):
        assert len(looks) == 6


def test_a_point_without_validation_is_left_out_and_the_axis_stands_still():
    points = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0, "validation": 0.25}]
    figure = figures.validation_curves([figures.Curve("a", points, 100)])
    assert figure.data[0].x == (2,)
    assert figure.data[0].y == (0.25,)
    assert figure.layout.xaxis.range == (0, 102)


def test_rows_say_what_is_known(here):
    running = make_job(here, "running", step=5, rate=2.0, seconds_left=7.5, seconds=3.0)
    make_job(here, mode="nonlinear", seed=1)
    rows = shown.rows(here.list(), datetime.fromtimestamp(running.created + 200, UTC))
    cells = {row["id"]: row["cells"] for row in rows}
    titles = [title for title, _ in shown.COLUMNS]
    assert dict(zip(titles, cells[running.id], strict=True)) == {
        "state": ["▶ running", "running"],
        "job": ["signs · linear · seed 0"] * 2,
        "progress": ["25 %", 0.25],
        "step": ["5 / 20", 5],
        "loss (nats)": ["0.600", 0.6],
        "validation (%)": ["55.0", pytest.approx(55.0)],
        "rate (steps/s)": ["2.00", 2.0],
        "time left": ["8 s", 7.5],
        "at work": ["3 s", 3.0],
        "where": ["auto", "auto"],
        "age": ["3 min", -running.created],
    }
    (queued,) = (found for name, found in cells.items() if name != running.id)
    assert queued[0] == ["◌ queued", "queued"]
    assert queued[titles.index("loss (nats)")] == ["–", None]


@pytest.mark.parametrize(
    ("raw", "ticked"),
    [
        ({"ticked": {"ids": ["b", 3, "a"], "at": 7}}, (["b", "a"], 7)),
        ({"ticked": {"ids": [], "at": 1}}, ([], 1)),
        ({"ticked": {"ids": "a", "at": 1}}, ([], None)),
        ({"ticked": {"ids": ["a"], "at": True}}, ([], None)),
        ({"ticked": [1]}, ([], None)),
        (None, ([], None)),
    ],
)
def test_what_is_ticked_is_read_from_the_table(raw, ticked):
    assert read_ticked(raw) == ticked


def test_the_first_paint_needs_no_torch(here):
    make_job(here, "done", step=20)
    script = (
        "import sys; from streamlit.testing.v1 import AppTest;"
        f"page = AppTest.from_file({str(PAGES / 'finetune.py')!r}, default_timeout=240);"
        f"page.query_params['job'] = {here.list()[0].id!r};"
        "page.run(); assert not page.exception, page.exception;"
        "assert len(page.get('bidi_component')) == 1 and len(page.get('plotly_chart')) == 2;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "False", done.stderr


# --------------------------------------------------------------------------------------- the page


def test_an_empty_page_says_what_to_do(here):
    page = open_page()
    assert not page.error
    assert "No jobs yet. Choose above what to fine-tune and press Launch" in texts(page, "info")


def test_the_cost_stands_beside_the_button(here):
    page = open_page()
    assert button(page, "launch").label == "Launch 1 job"
    told = {metric.label: metric.value for metric in page.metric}
    assert told["Jobs"] == "1"
    assert told["Steps"] == "300"
    page.text_input(key=state.FINETUNE_FORM + "seeds").set_value("0-2")
    page.number_input(key=state.FINETUNE_FORM + "steps").set_value(40)
    page = settle(page)
    told = {metric.label: metric.value for metric in page.metric}
    assert (told["Jobs"], told["Steps"]) == ("3", "120")


def test_launching_queues_a_suite_and_looks_at_it(here):
    page = open_page()
    form = state.FINETUNE_FORM
    page.multiselect(key=form + "tasks").set_value(["signs", "letters"])
    page.get("button_group")[0].set_value(["nonlinear", "linear"])
    page.text_input(key=form + "seeds").set_value("0-1")
    page.number_input(key=form + "steps").set_value(12)
    page = settle(page)
    button(page, "launch").click()
    page = settle(page)
    found = here.list()
    asked = {(job.option("--tasks"), job.option("--mode"), job.option("--seed")) for job in found}
    assert len(found) == len(asked) == 8
    assert {job.option("--steps") for job in found} == {"12"}
    assert len({job.suite for job in found}) == 1
    assert set(page.session_state[state.FINETUNE_CHOSEN]) <= {job.id for job in found}
    assert "8 jobs launched" in texts(page, "toast") or len(table(page)["rows"]) == 8


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("seeds", "three", "Give seeds as whole numbers"),
        ("tasks", [], "Choose at least one task"),
        ("modes", [], "Choose at least one way"),
    ],
)
def test_what_is_lacking_is_named(here, name, value, said):
    page = open_page()
    page.session_state[state.FINETUNE_FORM + name] = value
    page = settle(page)
    assert said in texts(page, "info")
    assert button(page, "launch").disabled


def test_a_folder_that_is_no_task_is_refused_with_the_reason(here):
    page = open_page()
    page.session_state[state.FINETUNE_FORM + "tasks"] = ["/nowhere/at/all"]
    page = settle(page)
    assert "/nowhere/at/all is not a folder" in texts(page, "info")
    assert button(page, "launch").disabled


def test_a_recipe_that_cannot_be_carried_out_is_refused(here):
    page = open_page()
    page.session_state[state.FINETUNE_FORM + "steps"] = 10
    page.session_state[state.FINETUNE_FORM + "warmup"] = 20
    page = settle(page)
    assert "Warmup of the recipe is 20" in texts(page, "error")
    assert button(page, "launch").disabled


def test_what_cannot_fit_is_refused_with_the_reason(here, monkeypatch):
    from engine.jobs import estimate

    real = estimate.estimate

    def short(*args, **settings):
        from dataclasses import replace

        return replace(real(*args, **settings), refusal="it needs 9 GB and 1 GB is free; take less")

    monkeypatch.setattr(estimate, "estimate", short)
    page = open_page()
    page.session_state[state.FINETUNE_FORM + "steps"] = 77  # not estimated before
    page = settle(page)
    assert "It needs 9 GB and 1 GB is free; take less." in texts(page, "error")
    assert button(page, "launch").disabled


def test_a_refused_launch_is_a_message(here, monkeypatch):
    def refuse(self, *args, **settings):
        raise UsageError("there is no Slurm here; take local")

    monkeypatch.setattr(Jobs, "submit", refuse)
    page = open_page()
    button(page, "launch").click().run()
    assert not page.exception
    assert "There is no Slurm here" in texts(page, "error")


def test_the_link_to_a_job_restores_it(here):
    old = make_job(here, "done", step=20)
    make_job(here, "running", task="letters", step=3)
    page = open_page(old.id)
    assert page.query_params[state.QUERY_JOB] == [old.id] or page.query_params["job"] == old.id
    assert page.session_state[state.FINETUNE_CHOSEN] == [old.id]
    assert table(page)["chosen"] == [old.id]
    assert list(curves(page)[0]["x"]) == list(range(1, 21))
    assert list(curves(page, 1)[0]["x"]) == [5, 10, 15, 20]
    assert "signs: step 20 of 20" in " ".join(code.value for code in page.code)


def test_a_link_to_nothing_says_so(here):
    make_job(here, "done", step=20)
    page = open_page("20200101-000000-abcdef")
    assert "is not here" in texts(page, "warning")


def test_the_ticked_job_stays_ticked_when_its_row_moves(here):
    first = make_job(here, "running", step=3)
    page = open_page(first.id)
    make_job(here, "queued", task="letters")
    page.run()
    assert len(table(page)["rows"]) == 2
    assert table(page)["chosen"] == [first.id]
    assert page.session_state[state.FINETUNE_CHOSEN] == [first.id]


def test_a_tick_leads_to_the_job_and_into_the_address(here):
    old, new = make_job(here, "done", step=20), make_job(here, "done", task="letters", step=20)
    page = open_page(new.id)
    page.session_state[state.FINETUNE_TABLE] = {"ticked": {"ids": [old.id, "gone"], "at": 7}}
    page.run()
    assert table(page)["heard"] == 7
    assert table(page)["chosen"] == page.session_state[state.FINETUNE_CHOSEN] == [old.id]
    assert page.query_params[state.QUERY_JOB] in (old.id, [old.id])


def test_several_jobs_are_compared(here):
    a = make_job(here, "done", step=20)
    b = make_job(here, "running", task="letters", step=4)
    page = open_page(a.id, b.id)
    names = {line["name"] for line in curves(page)}
    assert names == {"signs · linear · seed 0", "letters · linear · seed 0"}
    assert not button(page, "cancel").disabled
    assert button(page, "duplicate").disabled


@pytest.mark.parametrize(
    ("kind", "possible"),
    [
        ("queued", {"cancel", "duplicate"}),
        ("running", {"cancel", "duplicate"}),
        ("done", {"duplicate", "delete"}),
        ("failed", {"resume", "retry", "duplicate", "delete"}),
        ("cancelled", {"resume", "retry", "duplicate", "delete"}),
        ("lost", {"resume", "retry", "duplicate", "delete"}),
    ],
)
def test_each_state_offers_what_it_allows(here, kind, possible):
    job = make_job(here, kind, step=5)
    page = open_page(job.id)
    names = ("cancel", "resume", "retry", "duplicate", "delete")
    assert {name for name in names if not button(page, name).disabled} == possible


def test_cancel_resume_and_retry_reach_the_job(here):
    queued = make_job(here)
    button(open_page(queued.id), "cancel").click().run()
    assert here.get(queued.id).state == "cancelled"
    button(open_page(queued.id), "resume").click().run()
    assert here.get(queued.id).state == "queued"
    failed = make_job(here, "failed", step=5, error="x")
    button(open_page(failed.id), "retry").click().run()
    assert (here.get(failed.id).state, here.get(failed.id).step) == ("queued", 0)


def test_a_failure_names_cause_and_action(here):
    job = make_job(here, "failed", step=5, error="out of memory; duplicate it with a batch of 8")
    page = open_page(job.id)
    assert "Out of memory; duplicate it with a batch of 8." in texts(page, "error")


def test_duplicating_fills_the_form(here):
    job = make_job(here, "done", seed=5, options=("--steps", "9", "--rate", "0.01"), step=9)
    page = open_page(job.id)
    button(page, "duplicate").click()
    page = settle(page)
    form = state.FINETUNE_FORM
    assert page.session_state[state.FINETUNE_OPEN]
    assert page.text_input(key=form + "seeds").value == "5"
    assert page.number_input(key=form + "steps").value == 9
    assert page.number_input(key=form + "rate").value == 0.01
    assert page.number_input(key=form + "batch").value is None


def test_a_copy_keeps_the_words_that_have_no_field(here):
    options = ("--checkpointing", "--half", "--measure-on", "16", "--slurm", "partition=gpu")
    job = make_job(here, "done", task="letters", options=(*options, "--rate", "0.01"), step=9)
    page = open_page(job.id)
    button(page, "duplicate").click()
    page = settle(page)
    assert page.toggle(key=state.FINETUNE_FORM + "checkpointing").value is True
    assert "`--half --measure-on 16 --slurm partition=gpu`" in texts(page, "caption")
    page.number_input(key=state.FINETUNE_FORM + "batch").set_value(8)
    page = settle(page)
    button(page, "launch").click()
    page = settle(page)
    (copied,) = [found for found in here.list() if found.id != job.id]
    asked = {name: copied.option(name) for name in ("--half", "--checkpointing", "--measure-on")}
    assert asked == {"--half": "", "--checkpointing": "", "--measure-on": "16"}
    assert (copied.option("--slurm"), copied.option("--batch")) == ("partition=gpu", "8")
    assert (copied.option("--rate"), copied.option("--tasks")) == ("0.01", "letters")
    # what is left out is not launched
    button(page, "kept_out").click()
    page.toggle(key=state.FINETUNE_FORM + "checkpointing").set_value(False)
    page = settle(page)
    assert "--half" not in texts(page, "caption")
    button(page, "launch").click()
    settle(page)
    (last,) = [found for found in here.list() if found.id not in (job.id, copied.id)]
    assert all(last.option(name) is None for name in (*asked, "--slurm"))


def test_the_form_offers_checkpointing_and_the_cost_follows_it(here, monkeypatch):
    from engine.jobs import estimate

    seen, real = [], estimate.estimate
    monkeypatch.setattr(
        estimate, "estimate", lambda *a, **s: seen.append(a[3].checkpointing) or real(*a, **s)
    )
    page = open_page()
    page.number_input(key=state.FINETUNE_FORM + "steps").set_value(43)  # not estimated before
    page.toggle(key=state.FINETUNE_FORM + "checkpointing").set_value(True)
    page = settle(page)
    assert seen[-1] is True
    button(page, "launch").click()
    settle(page)
    (job,) = here.list()
    assert job.option("--checkpointing") == ""


def test_deleting_asks_and_keeps_the_checkpoint_unless_told(here):
    import torch

    store = Store(here.home)
    entry = store.put("checkpoint", {"a": torch.ones(2)}, {"task": "signs"})
    made = [["checkpoint", entry.digest]]
    kept, whole = (make_job(here, "done", seed=s, step=20, artifacts=made) for s in (0, 1))
    page = open_page(kept.id)
    button(page, "delete").click().run()
    assert len(here.list()) == 2
    button(page, "delete_back").click().run()
    assert len(here.list()) == 2
    button(page, "delete").click().run()
    button(page, "delete_kept").click().run()
    assert [job.id for job in here.list()] == [whole.id]
    assert store.find("checkpoint")
    page = open_page(whole.id)
    button(page, "delete").click().run()
    button(page, "delete_whole").click().run()
    assert here.list() == []
    assert not store.find("checkpoint")


def test_the_end_of_a_job_is_told_once(here):
    job = make_job(here, "running", step=3)
    page = open_page(job.id)
    assert not page.toast
    change_job(job, state="failed", error="the disk is full; free some space", ended=1.0)
    told = texts(page.run(), "toast")
    assert "signs · linear · seed 0 failed: the disk is full" in told
    assert not page.run().toast


def test_a_damaged_job_is_named_and_the_others_are_shown(here):
    broken, whole = make_job(here, "running", step=3), make_job(here, "done", seed=1, step=20)
    (broken.folder / "spec.json").write_text("{")
    page = open_page(whole.id)
    assert "Damaged job" in texts(page, "error")
    assert len(table(page)["rows"]) == 1


def test_a_job_s_command_stands_an_option_a_line_and_is_a_shell_s():
    from app.pages.finetuning.details import command

    job = SimpleNamespace(verb="finetune", arguments=("--tasks", "/a b/c", "signs", "--half"))
    said = command(job)
    assert said.splitlines()[1] == "  --tasks '/a b/c' signs \\"
    assert shlex.split(said.replace("\\\n", "")) == [
        "python",
        "-m",
        "engine",
        "finetune",
        *job.arguments,
    ]
