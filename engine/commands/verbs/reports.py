"""The verb that writes the papers' tables and figures."""

from engine.commands.verbs import options


def _reproduce(verbs) -> None:
    verb = options.declare(
        verbs,
        "reproduce",
        "make the papers' tables and figures of what is kept, after running what is missing",
        "Tables 1 to 5 and Figures 2 to 17: accuracy of theta_0 + alpha sum_t tau_t, normalized by"
        "\nthat of theta_0 + tau_t (Eq. 7), negation, xi (Eq. 6), local energy (Sec. 6.1), other"
        "\nmerging methods. What is missing runs as jobs; the report is one HTML file with CSV, SVG"
        "\nand JSON beside it, and published figures beside ours.",
        "reproduce --encoder miniature --out report",
    )
    options.encoder(verb)
    verb.add_argument(
        "--exhibits",
        nargs="+",
        metavar="X",
        help="single addition addition-tasks negation random convnext closed disentanglement "
        "energy merging (default: all)",
    )
    options.tasks(verb)
    verb.add_argument(
        "--control", default="objects", metavar="T", help="task to keep (default: objects)"
    )
    verb.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        metavar="N",
        help="of the fine-tunes; means and intervals over several (default: all that are there)",
    )
    verb.add_argument("--out", default="report", metavar="DIR", help="folder (default: report)")
    verb.add_argument("--kept", action="store_true", help="run nothing: write what is kept")
    verb.add_argument(
        "--here", action="store_true", help="run what is missing in this process, not as jobs"
    )
    verb.add_argument(
        "--dry-run", action="store_true", help="say what is missing and what it costs"
    )
    options.device(verb)


VERBS = (_reproduce,)
