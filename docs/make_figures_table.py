"""Fill the README's table from what ``python -m engine addition --json`` answers.

Run as ``python docs/make_figures_table.py`` from anywhere; the numbers are never written by hand.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
BEGIN, END = "<!-- figures:begin -->", "<!-- figures:end -->"
MODES = ("nonlinear", "posthoc", "linear")


def addition(encoder: str, mode: str) -> dict:
    """Ask the command line.

    Args:
        encoder: Name of an encoder.
        mode: Reading of the weights.

    Returns:
        Its JSON object.
    """
    command = [sys.executable, "-m", "engine", "addition", "--json"]
    done = subprocess.run(
        [*command, "--encoder", encoder, "--mode", mode],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def rows_of(results: list[dict]) -> list[str]:
    """Set results as a Markdown table.

    Args:
        results: Answers of ``addition``.

    Returns:
        Lines: head, rule, one row a result.
    """
    lines = [
        "| encoder | mode | zero-shot | single task | merged | normalized | alpha |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        single = sum(result["single"].values()) / len(result["single"])
        cells = [
            result["encoder"],
            result["mode"],
            *(f"{100 * x:.1f}" for x in (result["zeroshot"], single)),
            *(f"{100 * x:.1f}" for x in (result["absolute"], result["normalized"])),
            f"{result['alpha']:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def table_of(results: list[dict]) -> str:
    """Write the table with the sentence that says what it shows.

    Args:
        results: Answers of ``addition``, all of the same tasks and images.

    Returns:
        Markdown.

    Raises:
        ValueError: If the answers are of different images.
    """
    counts = {json.dumps(result["n"], sort_keys=True) for result in results}
    if len(counts) != 1:
        raise ValueError("the results are of different images and cannot stand in one table")
    n = results[0]["n"]
    seeds = sorted({seed for result in results for seed in result["seeds"].values()})
    told = (
        f"Mean accuracy in per cent over {len(n)} tasks, {sum(n.values()):,} test images in all, "
        f"exact; one alpha for all, chosen on validation; fine-tuning seed "
        f"{', '.join(map(str, seeds))}. Printed by `python -m engine addition --encoder ENCODER "
        "--mode MODE --json`."
    )
    return "\n".join([*rows_of(results), "", told])


def filled(text: str, table: str) -> str:
    """Put a table between the marks.

    Args:
        text: The README.
        table: Markdown.

    Returns:
        The README with the table.

    Raises:
        ValueError: If the marks are not there, once each and in order.
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md needs {BEGIN} and {END}, once each and in this order")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def main() -> None:
    """Ask for every encoder and mode and write the README."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoders", nargs="+", default=["miniature", "miniature-random"])
    chosen = parser.parse_args().encoders
    results = [addition(encoder, mode) for encoder in chosen for mode in MODES]
    README.write_text(filled(README.read_text(), table_of(results)))


if __name__ == "__main__":
    main()
