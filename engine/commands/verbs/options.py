"""What verbs share: their common options, each said once."""

import argparse
from collections.abc import Sequence

from engine.commands.arguments import OneSentenceParser, alpha_of_task, finite, positive

MODES = ("nonlinear", "posthoc", "linear")
CONVENTIONS = ("sum", "mean")
# named here, for the parser imports nothing heavy
METHODS = ("ties", "dare", "breadcrumbs", "consensus", "tsv", "iso-c", "iso-cts", "lines")
PAPER = "Equations: Task Arithmetic in the Tangent Space, arXiv:2305.12827."


def declare(verbs: argparse._SubParsersAction, name: str, does: str, equation: str, example: str):
    """Return a new verb with the options every verb has."""
    verb = verbs.add_parser(
        name,
        help=does.replace("%", "%%"),  # argparse formats it
        description=f"{does[0].upper()}{does[1:]}.\n\n{equation}",
        epilog=f"example:\n  python -m engine {example}\n\n{PAPER}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verb.add_argument(
        "--json", action="store_true", help="one JSON object on standard output, nothing else"
    )
    verb.add_argument(
        "--cache",
        metavar="DIR",
        help="where results are kept (default: $TAUSCOPE_CACHE, else cache/local)",
    )
    return verb


def background(verb: argparse.ArgumentParser) -> None:
    """Add what makes any verb a job."""
    later = verb.add_argument_group("in the background, as a job")
    later.add_argument(
        "--background", action="store_true", help='queue it and print {"job": ID}; see: jobs --help'
    )
    later.add_argument("--on", choices=("local", "slurm"), help="where (default: local)")
    later.add_argument(
        "--slurm",
        nargs="+",
        metavar="NAME=VALUE",
        help="for --on slurm: partition=, minutes=, gpus=, cpus=, memory_gb=, array=, or any "
        "option of sbatch, as in constraint=a100; docs/jobs.md says where defaults lie",
    )
    later.add_argument("--priority", type=int, default=0, metavar="N", help="higher first")
    later.add_argument(
        "--after", nargs="+", default=(), metavar="ID", help="jobs that must be done before"
    )


def device(verb: argparse.ArgumentParser) -> None:
    """Add where to compute."""
    verb.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    verb.add_argument(
        "--threads", type=positive, metavar="N", help="CPU threads (default: torch's)"
    )


def encoder(verb: argparse.ArgumentParser) -> None:
    """Add which encoder."""
    verb.add_argument(
        "--encoder",
        default="miniature",
        metavar="E",
        help="miniature (default), miniature-random, or NAME:TAG or NAME:FILE of open_clip, "
        "as in ViT-B-32-quickgelu:openai",
    )


def tasks(verb: argparse.ArgumentParser, what: str = "the miniature's eight") -> None:
    """Add which tasks."""
    verb.add_argument(
        "--tasks",
        nargs="+",
        metavar="T",
        help=f"names of the miniature's tasks or paths of your own (default: {what})",
    )


def mode(verb: argparse.ArgumentParser, modes: Sequence[str] = MODES) -> None:
    """Add in which mode the weights are trained and read."""
    verb.add_argument(
        "--mode",
        choices=modes,
        default="nonlinear",
        help="how the weights are trained and read (default: nonlinear)",
    )


def seed(verb: argparse.ArgumentParser) -> None:
    """Add which task vectors, where some were trained with several seeds."""
    verb.add_argument(
        "--seed", type=int, metavar="N", help="of the fine-tunes (default: each task's newest)"
    )


def merging(verb: argparse.ArgumentParser) -> None:
    """Add the convention of a sum of task vectors."""
    verb.add_argument(
        "--convention",
        choices=("sum", "mean"),
        default="sum",
        help="sum: alpha as it is (Eq. 1); mean: every alpha divided by the number of tasks",
    )


def method(
    verb: OneSentenceParser,
    methods: Sequence[str] = METHODS,
    does: str = "merge by another method than the sum, alpha up to 2",
) -> None:
    """Add which merging method; what each takes is told when help is asked for."""
    verb.more = lambda: explained(methods)
    verb.add_argument(
        "--method", choices=methods, metavar="M", help=f"{does}: {', '.join(methods)}"
    )
    verb.add_argument(
        "--option",
        nargs="+",
        type=alpha_of_task,
        metavar="NAME=X",
        default=[],
        help="hyper-parameters of the method, as in density=0.1; all are listed below",
    )


def explained(methods: Sequence[str]) -> str:
    """Say what merging methods do, and what their options mean.

    Args:
        methods: Names.

    Returns:
        Lines of text, from the engine's own table of methods.
    """
    from engine.merging import METHODS as ABOUT

    lines = ["merging methods and their --option:"]
    for name in methods:
        lines.append(f"  {name}: {ABOUT[name].does}")
        lines += [
            f"    {key}={option.usual:g}: {option.does}; {option.low:.12g} to {option.high:.12g}"
            for key, option in ABOUT[name].options.items()
        ]
    return "\n".join(lines)


def alphas(verb: argparse.ArgumentParser) -> None:
    """Add the coefficients."""
    verb.add_argument(
        "--alphas",
        nargs="+",
        type=alpha_of_task,
        metavar="TASK=A",
        help="a coefficient a task; those not named get 0",
    )
    verb.add_argument("--alpha", type=finite, metavar="A", help="one coefficient for every task")
