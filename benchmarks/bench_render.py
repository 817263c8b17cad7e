"""Measure how many pictures of the miniature world one core renders a second, family by family.

Seconds are the process's own CPU seconds, so that other work on the machine does not count.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from engine.tasks import miniature


def rates(work: Callable[[int], object], count: int, repeats: int) -> list[float]:
    """Time ``work(start)`` on fresh pictures, after one warm-up.

    Args:
        work: Renders ``count`` pictures from index ``start``.
        count: Pictures a repeat.
        repeats: Timed repeats.

    Returns:
        Pictures a CPU second, one value a repeat.
    """
    work(0)
    found = []
    for i in range(1, repeats + 1):
        start = time.process_time()
        work(i * count)
        found.append(count / (time.process_time() - start))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    n = options.count
    found = {}
    for name in miniature.family_names():
        for style, shifted in (("broad", False), ("shifted", True)):
            timed = rates(
                lambda at, name=name, shifted=shifted: miniature.render(
                    name, "train", range(at, at + n), shifted=shifted
                ),
                n,
                options.repeats,
            )
            found[f"{name}/{style}"] = [statistics.median(timed), min(timed), max(timed)]
    timed = rates(lambda at: miniature.captioned(range(at, at + n)), n, options.repeats)
    found["captioned"] = [statistics.median(timed), min(timed), max(timed)]
    shifted = [value[0] for key, value in found.items() if key.endswith("/shifted")]
    found["mean/shifted"] = [statistics.harmonic_mean(shifted)] * 3
    about = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "torch": torch.__version__,
    }
    if options.json:
        print(json.dumps({"images_per_second": found, "versions": about, "threads": 1}, indent=1))
        return
    print(f"{'pictures a CPU second':26}{'median':>8}{'least':>8}{'most':>8}")
    for key, (middle, least, most) in found.items():
        print(f"{key:26}{middle:8.0f}{least:8.0f}{most:8.0f}")


if __name__ == "__main__":
    main()
