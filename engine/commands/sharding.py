"""One heavy measure as several jobs: a share of its cells or logits each, then one that merges."""

import argparse
from collections.abc import Sequence

from engine.errors import UsageError
from engine.jobs import Job, Jobs
from engine.jobs.job import titled


def check(args: argparse.Namespace) -> None:
    """Refuse shares of what is not divided.

    Args:
        args: Of any verb.

    Raises:
        UsageError: With what to change.
    """
    share, shares = getattr(args, "shard", None), getattr(args, "shards", 1)
    if share is not None and not 1 <= share <= shares:
        raise UsageError(f"--shard {share} needs --shards {share} or more; say of how many it is")
    if shares > 1 and args.verb == "disentanglement":
        if args.mode != "nonlinear":
            raise UsageError("--shards divides forward passes; linearized maps need none of it")
        if args.matrix or args.diagonal:
            raise UsageError("--shards divides the cells of maps; leave --matrix, --diagonal out")


def are_asked(args: argparse.Namespace) -> bool:
    """Return whether a verb is to become several jobs."""
    return getattr(args, "shards", 1) > 1 and args.shard is None


def submit(
    jobs: Jobs, args: argparse.Namespace, words: Sequence[str], **options: object
) -> tuple[Job, list[Job]]:
    """Queue a job for each share, and one behind them that merges what they saved.

    Args:
        jobs: Where.
        args: With ``verb`` and ``shards``.
        words: Behind the verb, as typed.
        **options: Of ``Jobs.submit``.

    Returns:
        The job that merges, and those of the shares.
    """
    title = titled(args.verb, list(words))
    before = options.pop("after", ())
    parts = [
        jobs.submit(
            [args.verb, *words, "--shard", str(share)],
            title=f"{title}, share {share} of {args.shards}",
            after=before,
            suite=title,
            **options,
        )
        for share in range(1, args.shards + 1)
    ]
    whole = jobs.submit(
        [args.verb, *words],
        title=f"{title}, merged from {args.shards} shares",
        after=[part.id for part in parts],
        suite=title,
        **options,
    )
    return whole, parts
