"""The parser of ``python -m engine``; light, so that ``--help`` is quick."""

import argparse

from engine.commands.arguments import OneSentenceParser
from engine.commands.verbs import (
    data,
    exchanges,
    gradients,
    listings,
    measures,
    options,
    reports,
    trainings,
)


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of ``python -m engine``.

    Returns:
        A parser whose namespace holds ``verb`` and that verb's options.
    """
    parser = OneSentenceParser(
        prog="python -m engine",
        description="Task vectors by hand: fine-tune, merge, measure. Every verb takes --json.",
        epilog=options.PAPER,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for declare in (
        *listings.VERBS,
        *data.VERBS,
        *trainings.VERBS,
        *measures.VERBS,
        *gradients.VERBS,
        *exchanges.VERBS,
        *reports.VERBS,
    ):
        declare(verbs)
    for name, verb in verbs.choices.items():
        if name != "jobs":
            options.background(verb)
    return parser
