r"""Run every statement of the project about GPUs and print one table of what holds.

Each section runs in processes of its own, so that one that fails costs the others nothing; the
ceilings that shares are of are measured in the same run. A whole run takes about a quarter of an
hour on one H200; where commands are cut off earlier, run some sections at a time into one file:

    benchmarks/gpu_checks.sh --out checks.json --only machine exact bits encode
    benchmarks/gpu_checks.sh --out checks.json --only finetune large memory
    benchmarks/gpu_checks.sh --out checks.json --only xi ntk curvature together

On a machine without a GPU it says so and ends with 2; ``--device cpu --quick`` tries it out on the
miniature: the same code, numbers that mean nothing.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpu_sections import SECTIONS, Asked, Row
from engine.provenance import provenance


def table(sections: dict[str, list[Row]]) -> str:
    """Return the table, in Markdown."""
    lines = ["| section | check | measured | aim | holds |", "|---|---|---|---|---|"]
    for name, rows in sections.items():
        for row in rows:
            holds = {True: "yes", False: "NO", None: ""}[row.holds]
            cells = (name, row.check, row.measured, row.aim, holds)
            lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines)


def _kept(path: Path | None) -> dict[str, list[Row]]:
    """Return the sections an earlier run wrote."""
    if path is None or not path.is_file():
        return {}
    found = json.loads(path.read_text())["sections"]
    return {name: [Row(**row) for row in rows] for name, rows in found.items()}


def main(words: list[str] | None = None) -> int:
    """Return 0 if all that was run holds, 1 if not, 2 where there is no GPU."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=("cpu", "cuda"))
    parser.add_argument("--quick", action="store_true", help="small sizes, to try it out")
    parser.add_argument("--only", nargs="+", default=list(SECTIONS), choices=list(SECTIONS))
    parser.add_argument("--encoder", default="ViT-B-32-quickgelu:random")
    parser.add_argument("--out", type=Path, help="JSON file; sections in it and not run are kept")
    args = parser.parse_args(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write(
            "There is no GPU here: run this on a machine with one, or try it out with "
            "--device cpu --quick.\n"
        )
        return 2
    asked, sections = Asked(args), _kept(args.out)
    for name in args.only:
        began = time.perf_counter()
        sections[name] = SECTIONS[name](asked)
        sys.stderr.write(f"{name}: {time.perf_counter() - began:.0f} s\n")
        if args.out:
            record = {"device": args.device, "quick": args.quick, **provenance()}
            rows = {key: [asdict(row) for row in value] for key, value in sections.items()}
            args.out.write_text(json.dumps({**record, "sections": rows}, indent=1))
    made = provenance()
    sections = {name: sections[name] for name in SECTIONS if name in sections}
    print(f"{time.strftime('%Y-%m-%d')}, commit {made['commit']}, {args.device}\n")
    print(table(sections))
    return int(any(row.holds is False for rows in sections.values() for row in rows))


if __name__ == "__main__":
    sys.exit(main())
