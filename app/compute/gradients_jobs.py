"""Background jobs that measure task vectors against gradients: their words, and their end."""

from collections.abc import Collection, Mapping
from typing import Any

from app.compute import catalogue, jobs

VERB = "gradients"


def tasks() -> dict[str, str]:
    """Return what can be measured, name to title: the miniature's tasks."""
    names = catalogue.task_names()[0]
    return dict(zip(names, catalogue.titles(names), strict=True))


def words(encoder: str, regime: str, fields: Mapping[str, Any]) -> list[str]:
    """Return the command line that measures; what is left empty takes the verb's own default.

    Args:
        encoder: Its name.
        regime: "gd", "sgd" or "adamw".
        fields: {"tasks": names, "epochs", "seed", ..: number or None}, named as the options.
    """
    line = [VERB, "--encoder", encoder, "--regime", regime]
    for name, value in fields.items():
        if value is None or value == []:
            continue
        line.append(f"--{name.replace('_', '-')}")
        line += [str(part) for part in value] if isinstance(value, list) else [str(value)]
    return line


def answered(ids: Collection[str]) -> bool:
    """Say whether one of these jobs is done; those deleted meanwhile are not."""
    return any(job.id in ids and job.state == "done" for job in jobs.queue().list())
