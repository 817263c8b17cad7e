"""The verb ``reproduce``: the papers' tables and figures, made of what is kept and what is run."""

import argparse
import contextlib
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import torch

from engine.commands.choices import open_encoder, open_store
from engine.commands.jobs import open_jobs
from engine.commands.printing import Outcome, paced, say, table
from engine.errors import EngineError, UsageError
from engine.exhibits import EXHIBITS, Filled, Run, filled, provenance_of, write_report
from engine.jobs import Job, Jobs, reporting
from engine.provenance import provenance
from engine.store import Store

Words = tuple[str, ...]

PROBED = 64  # images of the pass that the cost is told by
LOOK = 1.0  # seconds between two looks at the queue


def reproduce(args: argparse.Namespace) -> Outcome:
    r"""Fill exhibits, run what is missing, write the report.

    .. math:: \frac{1}{T} \sum_t \frac{acc_t[f(x; \theta_0 + \alpha \sum_s \tau_s)]}
              {acc_t[f(x; \theta_0 + \tau_t)]}

    and the papers' other numbers; each exhibit's definition says its own.

    Args:
        args: With ``encoder``, ``exhibits``, ``tasks``, ``control``, ``seeds``, ``out``, ``kept``,
            ``here``, ``dry_run``, ``device``, ``threads`` and ``cache``.

    Returns:
        Of a dry run ``{"missing": [{"words", "before", "passes", "seconds"}]}``; else ``{"out",
        "files", "ran", "exhibits": {name: {"kept", "missing"}}}``.

    Raises:
        UsageError: If an exhibit does not exist.
        EngineError: If runs failed; the report of what is kept is written all the same.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (7) and the tables and figures named.
    """
    store = open_store(args)
    names = list(dict.fromkeys(args.exhibits or EXHIBITS))
    unknown = [name for name in names if name not in EXHIBITS]
    if unknown:
        raise UsageError(f"there is no exhibit {unknown[0]!r}; choose of {', '.join(EXHIBITS)}")
    fillings = _filled(args, store, names)
    missing = _missing(fillings)
    if args.dry_run:
        return _told_dry(args, store, missing)
    failed: dict[Words, str] = {}
    if missing and not args.kept:
        say(f"{len(missing)} of {_count(fillings)} runs are not kept; they are run now")
        failed = _run_here(args, missing) if _is_here(args) else _run_jobs(args, missing)
        fillings = _filled(args, store, names)
    about = _about(args, fillings)
    entries = provenance_of(store, fillings)
    written = write_report(Path(args.out), args.encoder, fillings, about, entries)
    if failed:
        words, error = next(iter(failed.items()))
        raise EngineError(
            f"{len(failed)} of {len(missing)} runs failed, first {' '.join(words)}: {error}; the "
            f"report in {args.out} shows what is kept"
        )
    return _told(args, fillings, [] if args.kept else missing, written)


def _filled(args: argparse.Namespace, store: Store, names: Sequence[str]) -> list[Filled]:
    """Return the exhibits with what is kept now."""
    asked = {"tasks": args.tasks, "control": args.control, "seeds": args.seeds}
    return [filled(store, args.encoder, name, **asked) for name in names]


def _missing(fillings: Sequence[Filled]) -> list[Run]:
    """Return runs that are not kept, each once, in the order of the exhibits."""
    return list({run.words: run for item in fillings for run in item.missing}.values())


def _count(fillings: Sequence[Filled]) -> int:
    return len({run.words for item in fillings for run in item.runs})


def _is_here(args: argparse.Namespace) -> bool:
    """Return whether runs are to be done in this process.

    A job that waited for other jobs would hold the slot they need.
    """
    return args.here or reporting.heard()


def _run_here(args: argparse.Namespace, missing: Sequence[Run]) -> dict[Words, str]:
    """Call the verbs one after the other; return what failed and why."""
    from engine import commands
    from engine.commands.parser import build_parser

    calls = list(dict.fromkeys(words for run in missing for words in (*run.before, run.words)))
    failed: dict[Words, str] = {}
    for place, words in enumerate(calls):
        say(f"{place + 1} of {len(calls)}: {' '.join(words)}")
        own = build_parser().parse_args(words)
        own.cache, own.threads, own.device = args.cache, args.threads, args.device
        try:
            commands.call(own, [])
        except EngineError as error:
            failed[words] = str(error)
    wanted = {run.words for run in missing}
    return {words: error for words, error in failed.items() if words in wanted}


def _run_jobs(args: argparse.Namespace, missing: Sequence[Run]) -> dict[Words, str]:
    """Queue the runs, what they need first, and wait; return what failed and why."""
    jobs, known = open_jobs(args), {}
    for run in missing:
        before: list[str] = []
        for words in run.before:
            # heads come before fine-tunes, which need them
            first = tuple(before) if words[0] == "finetune" and _has_heads(run) else ()
            known.setdefault(words, None)
            known[words] = known[words] or _queued(args, jobs, words, first)
            before.append(known[words])
        known[run.words] = _queued(args, jobs, run.words, tuple(before))
    try:
        ended = _awaited(jobs, [id for id in known.values() if id])
    except KeyboardInterrupt:
        say("the jobs go on: python -m engine jobs list; the same command waits for them again")
        raise
    wanted = {run.words for run in missing}
    return {
        words: ended[id].error or ended[id].state
        for words, id in known.items()
        if words in wanted and ended[id].state != "done"
    }


def _has_heads(run: Run) -> bool:
    return any(words[0] == "heads" for words in run.before)


def _queued(args: argparse.Namespace, jobs: Jobs, words: Words, after: tuple[str, ...]) -> str:
    """Return the id of a job for a call: one that waits or works already, or a new one."""
    threads = () if args.threads is None else ("--threads", str(args.threads))
    asked = (words[0], *words[1:], *threads)
    for job in jobs.list():
        if not job.finished and (job.verb, *job.arguments) == asked:
            return job.id
    device = None if args.device == "auto" else args.device
    return jobs.submit(asked, after=after, device=device, suite="reproduce").id


def _awaited(jobs: Jobs, ids: Sequence[str]) -> dict[str, Job]:
    """Wait until jobs have ended, telling how far they are."""
    speak = paced(5.0)
    while True:
        jobs.pump()
        states = {id: jobs.get(id) for id in ids}
        done = [job for job in states.values() if job.finished]
        working = [job for job in states.values() if job.state == "running"]
        told = "; ".join(
            f"{job.title}{f' {job.step} of {job.steps}' if job.steps else ''}" for job in working
        )
        over = len(done) == len(states)
        speak(
            f"{len(done)} of {len(states)} jobs ended{f'; at work: {told}' if told else ''}", over
        )
        if over:
            return states
        time.sleep(LOOK)


def _about(args: argparse.Namespace, fillings: Sequence[Filled]) -> dict:
    """Return what is told at the top of the report."""
    words = ["python -m engine reproduce", "--encoder", args.encoder]
    for option in ("exhibits", "tasks", "seeds"):
        given = getattr(args, option)
        words += [f"--{option}", *map(str, given)] if given else []
    words += [] if args.control == "objects" else ["--control", args.control]
    seeds = {run.seed for item in fillings for run in item.runs if run.seed is not None}
    return {
        "Encoder": args.encoder,
        "Command": " ".join(words),
        "Made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Seeds of the fine-tunes": sorted(seeds),
        "Runs kept": f"{_count(fillings) - len(_missing(fillings))} of {_count(fillings)}",
        **{key.capitalize(): value for key, value in provenance().items()},
    }


def _told_dry(args: argparse.Namespace, store: Store, missing: Sequence[Run]) -> Outcome:
    """Say what is missing and what it costs."""
    rate = _seconds_a_pass(args, store) if missing else None
    rows = [
        {
            "title": run.title,
            "words": list(run.words),
            "before": [list(words) for words in run.before],
            "passes": run.passes,
            "seconds": None if rate is None else run.passes * rate,
        }
        for run in missing
    ]
    passes = sum(run.passes for run in missing)
    record = {
        "encoder": args.encoder,
        "missing": rows,
        "passes": passes,
        "seconds": None if rate is None else passes * rate,
    }
    if not missing:
        return Outcome(record, "nothing is missing; the report is written from what is kept")
    lines = table(
        ("run", "fine-tunes first", "images", "minutes"),
        [
            (row["title"], len(row["before"]), row["passes"],
             "-" if rate is None else f"{row['seconds'] / 60:.1f}")
            for row in rows
        ],
    )  # fmt: skip
    how = "the encoder cannot be loaded here, so the time is not known"
    if rate is not None:
        how = f"about {passes * rate / 60:.0f} minutes, by one forward pass of {PROBED} images"
    return Outcome(record, f"{lines}\n{passes:,} images through {args.encoder}: {how}")


def _seconds_a_pass(args: argparse.Namespace, store: Store) -> float | None:
    """Measure one image's forward pass; None where the encoder cannot be loaded."""
    with contextlib.suppress(EngineError):
        encoder = open_encoder(args, store)
        side, device = encoder.image_size, next(iter(encoder.theta0.values())).device
        images = torch.zeros(PROBED, 3, side, side, dtype=torch.uint8, device=device)
        with torch.no_grad():
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                encoder.features(encoder.theta0, encoder.preprocess(images)).sum().item()
        return (time.perf_counter() - began) / PROBED
    return None


def _told(
    args: argparse.Namespace, fillings: Sequence[Filled], ran: Sequence[Run], written: dict
) -> Outcome:
    """Say what was written."""
    exhibits = {
        item.exhibit.name: {
            "kept": len(item.runs) - len(item.missing),
            "missing": [list(run.words) for run in item.missing],
            "why_not": item.why_not,
        }
        for item in fillings
    }
    record = {
        "encoder": args.encoder,
        "out": args.out,
        "files": written["files"],
        "ran": [list(run.words) for run in ran],
        "exhibits": exhibits,
    }
    rows = [
        (name, about["kept"], len(about["missing"]), about["why_not"])
        for name, about in exhibits.items()
    ]
    text = table(("exhibit", "runs kept", "not run", ""), rows)
    return Outcome(record, f"{text}\nwritten to {args.out}/index.html")
