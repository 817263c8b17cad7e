"""The verb that looks after background jobs, ``jobs``, and how a verb becomes one; torch-free."""

import argparse
import contextlib
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from engine import commands
from engine.commands import sharding, suites
from engine.commands.printing import Outcome, duration, percent, say, table
from engine.errors import EngineError, UsageError
from engine.jobs import Job, Jobs, reporting, runner
from engine.jobs import words as word
from engine.jobs.folder import read_table
from engine.jobs.mishaps import is_out_of_memory, sentence
from engine.jobs.processes import step_back
from engine.jobs.slots import settings

ROOT = Path(__file__).resolve().parents[2]


def open_jobs(args: argparse.Namespace) -> Jobs:
    """Open the jobs of the store that was asked for.

    Args:
        args: With ``cache``, a folder or None: then ``default_store()``'s home, without torch.

    Returns:
        The jobs.
    """
    return Jobs(Path(args.cache or os.environ.get("TAUSCOPE_CACHE") or ROOT / "cache" / "local"))


def submit(args: argparse.Namespace, words: Sequence[str]) -> Outcome:
    """Queue a verb instead of running it.

    Args:
        args: With ``verb``, ``on``, ``priority``, ``after`` and ``cache``.
        words: What was typed, the verb among it.

    Returns:
        ``{"job": id}``, as text too; of a measure in shares also ``"shards"``, their jobs' ids;
        of a suite ``{"jobs": ids, "suite": name}``.
    """
    sharding.check(args)
    place = list(words).index(args.verb)
    rest = word.without(words[place + 1 :], {"--after": None})
    options = {"priority": args.priority, "after": args.after, "on": args.on or "local"}
    found = open_jobs(args)
    if suites.are_asked(args):
        # what starts the jobs stands there once, and each is one task, mode and seed
        asked = suites.submit(found, args, word.without(rest, word.STARTING), **options)
        record = {"jobs": [job.id for job in asked], "suite": asked[0].suite}
    elif sharding.are_asked(args):
        # what starts a job stands there once, the share behind it
        rest = word.without(rest, word.STARTING)
        whole, parts = sharding.submit(found, args, rest, **options)
        record = {"job": whole.id, "shards": [part.id for part in parts]}
    else:
        record = {"job": found.submit([args.verb, *rest], **options).id}
    return Outcome(record, json.dumps(record))


def jobs(args: argparse.Namespace) -> Outcome:
    """Do what is asked about jobs.

    Args:
        args: With ``action``, ``ids``, ``force``, ``artifacts``, ``yes``, ``lines`` and ``cache``.

    Returns:
        ``{"jobs": [...], "damaged": [...]}`` for list; the job for show; ``{"lines"}`` for logs;
        ``{"jobs": [...]}`` for cancel, resume and retry; ``{"deleted", "artifacts"}`` for delete.

    Raises:
        UsageError: If ids are missing or too many.
        SystemExit: From ``run``, with the job's own status.
    """
    found, action = open_jobs(args), args.action
    if action == "list":
        return _listed(found)
    if not args.ids or (action in ("show", "logs", "run") and len(args.ids) > 1):
        raise UsageError(f"jobs {action} needs an id; see: python -m engine jobs list")
    if action == "run":
        raise SystemExit(_run(found, found.get(args.ids[0]), args.claim))
    found.pump()
    if action == "show":
        job = found.get(args.ids[0])
        return Outcome(job.record(), _shown(job))
    if action == "logs":
        lines = found.log_tail(args.ids[0], args.lines)
        return Outcome({"lines": lines}, "\n".join(lines))
    if action == "delete":
        return _deleted(found, args)
    act = {
        "cancel": lambda id: found.cancel(id, args.force),
        "resume": found.resume,
        "retry": found.retry,
    }[action]
    done = [act(id) for id in args.ids]
    text = "\n".join(f"{job.id} is {job.state}" for job in done)
    return Outcome({"jobs": [job.record() for job in done]}, text)


def _listed(found: Jobs) -> Outcome:
    """Return all jobs, and what is damaged."""
    found.pump()
    jobs, damaged = found.list(), found.damaged()
    rows = [
        (
            job.id,
            job.state,
            f"{job.step}/{job.steps}" if job.steps else "-",
            "-" if job.loss is None else f"{job.loss:.3f}",
            percent(job.validation),
            duration(job.seconds_left),
            job.device or "-",
            job.title,
        )
        for job in jobs
    ]
    heads = ("job", "state", "step", "loss", "validation", "left", "device", "title")
    lines = [table(heads, rows), *(sentence for _, sentence in damaged)]
    told = [{"path": str(path), "problem": sentence} for path, sentence in damaged]
    record = {"jobs": [job.record() for job in jobs], "damaged": told}
    return Outcome(record, "\n".join(lines))


def _shown(job: Job) -> str:
    """Return a job for a reader."""
    facts = {
        "job": job.id,
        "title": job.title,
        "state": job.state,
        "command": " ".join([job.verb, *job.arguments]),
        "step": f"{job.step} of {job.steps}" if job.steps else None,
        "part": job.part,
        "loss": None if job.loss is None else f"{job.loss:.4f}",
        "validation": None if job.validation is None else f"{percent(job.validation)} %",
        "rate": None if job.rate is None else f"{job.rate:.2f} steps a second",
        "left": None if job.seconds_left is None else duration(job.seconds_left),
        "at work": duration(job.seconds),
        "memory": None if job.peak_memory is None else f"{job.peak_memory / 1e6:.0f} MB",
        "device": job.device,
        "waits": job.waiting,
        "error": job.error,
        "made": "\n            ".join(job.artifacts) or None,
        "created": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(job.created)),
        "folder": str(job.folder),
    }
    return "\n".join(f"{name:<12}{value}" for name, value in facts.items() if value is not None)


def _deleted(found: Jobs, args: argparse.Namespace) -> Outcome:
    """Delete jobs, after asking where something that was computed goes with them.

    Returns:
        What was deleted.

    Raises:
        UsageError: If nobody can be asked.
    """
    if args.artifacts and not args.yes:
        if not sys.stdin.isatty():
            raise UsageError("jobs delete --artifacts deletes what was computed; say --yes as well")
        say("delete with the checkpoints and results they made? type yes")
        if sys.stdin.readline().strip() != "yes":
            raise UsageError("nothing was deleted")
    digests = [digest for id in args.ids for digest in found.delete(id, args.artifacts)]
    text = f"deleted {len(args.ids)} jobs and {len(digests)} of what they made"
    return Outcome({"deleted": args.ids, "artifacts": digests}, text)


def _run(found: Jobs, job: Job, claim: str | None) -> int:
    """Do a job in this process; return its exit status."""
    say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {job.title}: attempt {job.attempt}")
    return runner.run(found, job, claim or "", _call(found, job))


def _call(found: Jobs, job: Job) -> Callable[[], dict]:
    """Return what runs the verb of a job with its words, at its place."""

    def call() -> dict:
        from engine.commands.parser import build_parser

        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said):
                args = build_parser().parse_args([job.verb, *job.arguments])
        except SystemExit as error:
            raise UsageError(f"{said.getvalue().strip()}; duplicate it with other words") from error
        args.cache, args.background, args.on = str(found.home), False, None
        _take_place(args, found, job)
        cwd = Path(str(read_table(job.folder / "spec.json").get("cwd")))
        if cwd.is_dir():  # paths were typed there
            os.chdir(cwd)
        try:
            return commands.call(args, [])[0]
        except (RuntimeError, MemoryError) as error:
            if args.verb != "finetune" or not is_out_of_memory(error):
                raise
            traceback.print_exc()
        # here, where the tensors of the failed step are gone
        raise EngineError(_advice(args))

    return call


def _advice(args: argparse.Namespace) -> str:
    """Say which batch would fit where this one did not."""
    import torch

    from engine.commands.choices import open_device, open_store
    from engine.commands.finetuning import RECIPE
    from engine.finetune import recipe_for
    from engine.jobs.estimate import advice

    given = {name: getattr(args, name) for name in RECIPE if getattr(args, name) is not None}
    try:
        device = open_device(args)
        if device == "cuda":
            torch.cuda.empty_cache()
        recipe = recipe_for(args.encoder, args.mode, **given)
        return advice(open_store(args), args.encoder, args.mode, recipe, device)
    except (EngineError, RuntimeError, MemoryError, OSError):  # not even that can be measured
        return sentence(MemoryError())


def _take_place(args: argparse.Namespace, found: Jobs, job: Job) -> None:
    """Compute where the queue has made room, and leave the CPU to whoever looks at a page."""
    kind = (job.device or "auto").partition(":")[0]
    if hasattr(args, "device") and kind in ("cpu", "cuda", "mps"):
        args.device = kind
    if job.gpus > 1 and hasattr(args, "processes"):
        args.processes = job.gpus
    if job.on == "local" and kind == "cpu":
        step_back(settings(found.root).nice)
    if args.verb == "finetune":
        from engine.tasks import TASKS

        reporting.parts(len(args.tasks or TASKS))
