r"""Measure how fast pictures are decoded once, and served to training ever after.

Routes, in one run on one machine, at 224 pixels:

- ``decoded``: JPEG files through ``load_split`` into the cache: once in the life of a data set.
- ``again``: what the tangent-space paper's public code does at every epoch and every alpha: the
  same files through PIL and torchvision's Resize and CenterCrop, picture by picture.
- ``served``: shuffled batches of 128 out of the mapped cache, uint8, as ``finetune`` takes them;
  ``first`` is the pass after the cache was just written, ``served`` the median of later ones.

The floor is what keeps one GPU busy through the programme of 8 tasks x 2 modes x 2,000 steps of 128
in 30 minutes: 2,276 pictures a second served. A GPU's crops and normalisation run on the GPU.

    python -m benchmarks.bench_data --pictures 2000
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from benchmarks import measuring
from engine.finetune.batches import batch_indices
from engine.provenance import provenance
from engine.store import Store
from engine.tasks import load_split, load_task

SIZE, BATCH = 224, 128
FLOOR = 8 * 2 * 2000 * BATCH / 1800  # pictures a second
SHAPE = (500, 375)  # pixels, a usual photograph of ImageNet's


def write_pictures(root: Path, count: int) -> list[Path]:
    """Write JPEG files with as much detail as photographs have; two classes."""
    draws, paths = np.random.default_rng(0), []
    noise = draws.integers(0, 256, (SHAPE[1], SHAPE[0], 3), dtype=np.uint8)
    base = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2))
    for i in range(count):
        path = root / "train" / str(i % 2) / f"{i:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        turned = base.rotate(float(draws.uniform(0, 360)))
        turned.putpixel((i % SHAPE[0], i // SHAPE[0]), (255, 0, 0))
        turned.save(path, quality=90)
        paths.append(path)
    return paths


def measured(count: int, passes: int) -> dict:
    """Return the rates."""
    with tempfile.TemporaryDirectory() as scratch:
        root, store = Path(scratch) / "photos", Store(Path(scratch) / "cache")
        paths = write_pictures(root, count)
        task, found = load_task(str(root)), []
        clock, worked = measuring.spent_by(
            lambda: found.append(load_split(task, "train", SIZE, store)), "cpu"
        )
        images = found[0].images
        served = [_pass_rate(images) for _ in range(1 + passes)]
        fit = Compose([Resize(SIZE, InterpolationMode.BICUBIC), CenterCrop(SIZE)])
        some = paths[: min(count, 256)]
        again = measuring.spent_by(
            lambda: [np.asarray(fit(Image.open(path).convert("RGB"))) for path in some], "cpu"
        )
        n = len(images)
        return {
            "pictures": n,
            "bytes a file": int(statistics.mean(path.stat().st_size for path in paths)),
            "decoded": {"a second": n / clock, "a core second": n / worked},
            "again": {"a second": len(some) / again[0], "a core second": len(some) / again[1]},
            "first": served[0],
            "served": {
                key: statistics.median(rate[key] for rate in served[1:]) for key in served[0]
            },
            "floor": FLOOR,
        }


def _pass_rate(images: torch.Tensor) -> dict[str, float]:
    """Return pictures a second of one shuffled pass."""
    steps = max(1, len(images) // BATCH)

    def run() -> None:
        for step in range(steps):
            batch = images[batch_indices(0, step, len(images), BATCH)]
            if batch.shape != (BATCH, 3, SIZE, SIZE):
                raise RuntimeError(f"got a batch of shape {tuple(batch.shape)}")

    clock, worked = measuring.spent_by(run, "cpu")
    return {"a second": steps * BATCH / clock, "a core second": steps * BATCH / max(worked, 1e-9)}


def main() -> None:
    """Measure, print a table, and JSON in the last line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rates = measured(args.pictures, args.passes)
    for name in ("decoded", "again", "first", "served"):
        told = ", ".join(f"{rate:,.0f} {unit}" for unit, rate in rates[name].items())
        print(f"{name:8} {told}")
    print(f"floor of serving {FLOOR:,.0f} a second", file=sys.stderr)
    print(json.dumps({**rates, "threads": args.threads, **provenance()}))


if __name__ == "__main__":
    main()
