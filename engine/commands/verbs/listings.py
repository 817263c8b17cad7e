"""The verbs that list what is there."""

import argparse

from engine.commands.arguments import positive
from engine.commands.verbs import options


def _encoders(verbs) -> None:
    options.declare(
        verbs,
        "encoders",
        "list the encoders: parameters, size, digest, image size",
        "An encoder with its frozen head is f(x; theta_0), the pre-trained model of Eq. 1.",
        "encoders",
    )


def _tasks(verbs) -> None:
    verb = options.declare(
        verbs,
        "tasks",
        "list the tasks: classes, images, templates; and the data sets of the hub that are here",
        "A task is the support D_t and the distribution mu_t on it of Eq. 1 and Eq. 7.",
        "tasks ~/pictures/birds eurosat\n  python -m engine tasks --add ~/pictures/birds",
    )
    verb.add_argument(
        "paths",
        nargs="*",
        metavar="T",
        help="also these: folders or task files of your own, eurosat and such, hub:owner/name",
    )
    verb.add_argument(
        "--add", nargs="+", default=[], metavar="T", help="remember these: every page offers them"
    )
    verb.add_argument(
        "--words",
        metavar="FILE.yaml",
        help="of the one task added: title, description, classnames, templates; written beside "
        "its data, or into the cache where that cannot be",
    )
    verb.add_argument(
        "--forget", nargs="+", default=[], metavar="T", help="take these off the list again"
    )


def _checkpoints(verbs) -> None:
    verb = options.declare(
        verbs,
        "checkpoints",
        "list the task vectors at hand, and the files that are damaged",
        "A checkpoint holds tau_t = theta_t* - theta_0, the task vector of Eq. 1.",
        "checkpoints --encoder miniature --mode linear",
    )
    verb.add_argument("--encoder", metavar="E", help="only those of this encoder")
    verb.add_argument("--task", metavar="T", help="only those of this task")
    verb.add_argument("--mode", choices=("nonlinear", "linear"), help="only those trained so")


def _jobs(verbs) -> None:
    verb = options.declare(
        verbs,
        "jobs",
        "list, show, cancel, resume, retry or delete background jobs, or print what one said",
        "Any verb takes --background and then is a job, as fine-tuning for tau_t of Eq. 1 is."
        "\nlist; show ID; logs ID; cancel ID: saves its state and leaves; resume ID: goes on from"
        "\nthere; retry ID: from the first step; delete ID [--artifacts].",
        "jobs show 20261122-201500-a1b2c3 --json",
    )
    verb.add_argument(
        "action",
        choices=("list", "show", "cancel", "resume", "retry", "logs", "delete", "run"),
        metavar="{list,show,cancel,resume,retry,logs,delete}",
    )
    verb.add_argument("ids", nargs="*", metavar="ID", help="an id, or its unmistakable beginning")
    verb.add_argument("--force", action="store_true", help="cancel: kill what does not leave")
    verb.add_argument(
        "--artifacts", action="store_true", help="delete: also what it made, after asking"
    )
    verb.add_argument("--yes", action="store_true", help="delete: do not ask")
    verb.add_argument("--lines", type=positive, default=40, metavar="N", help="logs: the last N")
    verb.add_argument("--claim", help=argparse.SUPPRESS)


VERBS = (_encoders, _tasks, _checkpoints, _jobs)
