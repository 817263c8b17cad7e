"""One fine-tune a task, mode and seed, each a job of its own, asked for in one command."""

import argparse
from collections.abc import Sequence

from engine.errors import UsageError
from engine.jobs import Job, Jobs, Suite
from engine.jobs import words as word

NAMED = ("--encoder", "--tasks", "--mode", "--modes", "--seed", "--seeds")


def are_asked(args: argparse.Namespace) -> bool:
    """Return whether a verb is to become a suite of jobs."""
    return bool(getattr(args, "modes", None) or getattr(args, "seeds", None))


def check(args: argparse.Namespace) -> None:
    """Refuse a suite in the foreground.

    Args:
        args: Of ``finetune``.

    Raises:
        UsageError: With what to change.
    """
    if are_asked(args):
        raise UsageError(
            "--modes and --seeds make one job each; add --background, or say --mode and --seed"
        )


def submit(jobs: Jobs, args: argparse.Namespace, words: Sequence[str], **options) -> list[Job]:
    """Queue a job for each task, mode and seed; on Slurm they are one array.

    Args:
        jobs: Where.
        args: With ``verb``, ``encoder``, ``tasks``, ``mode``, ``modes``, ``seed`` and ``seeds``.
        words: Behind the verb, as typed.
        **options: Of ``Jobs.submit_suite``.

    Returns:
        The jobs, in the suite's order.

    Raises:
        UsageError: If a mode or a seed is given both alone and among several.
    """
    for one, several in (("mode", "modes"), ("seed", "seeds")):
        if getattr(args, several) and word.value_of(words, one) is not None:
            raise UsageError(f"give --{one} or --{several}, not both")
    tasks = args.tasks
    if tasks is None:
        from engine.tasks import TASKS as tasks  # brings torch: only where it is needed
    suite = Suite(
        args.encoder,
        tuple(dict.fromkeys(tasks)),
        tuple(dict.fromkeys(args.modes or [args.mode])),
        tuple(dict.fromkeys(args.seeds or [args.seed or 0])),
        tuple(word.without(words, dict.fromkeys(NAMED))),
        args.verb,
    )
    return jobs.submit_suite(suite, **options)
