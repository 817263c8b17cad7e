r"""Time forward passes, tangents and the way of the pictures, against the obvious ways, in one run.

Forward passes of one batch of normalised pixels, in images a second:

- ``forward``: ``Encoder.features`` as the engine calls it; ``open_clip``: the same weights through
  open_clip's own model; ``autocast`` and ``bfloat16``: lower precision by autocast, and by weights;
  ``channels last`` and ``compiled``: what they would give (``torch.compile`` needs a compiler).
- ``tangents 1``, ``tangents 8``: f and J tau_k in one pass; ``jvp 1``: ``torch.func.jvp``, the
  obvious way to one of them. Floor in products: 1 + 2 K forward passes.
- ``rebuilt``: one alpha of the reference code's loop on pictures on disk: weights read from disk,
  model and loader made, pictures decoded, then the pass; ``served``: ours, from the mapped file.

The way of the pictures: JPEGs of 500 x 375 pixels are decoded by ``load_split`` into a mapped file
(floor: decoding and resizing alone, in memory, on as many cores), opened a second time, and served
in random batches onto the device, then cropped at random and normalised there (floor: copying
3 S^2 bytes an image once, at the copying rate measured in this run).

    python -m benchmarks.bench_encode
    python -m benchmarks.bench_encode --device cuda --batch 256 --pictures 4096
"""

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torch.func import jvp
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks import measuring
from engine.encoders import Encoder, load_encoder, plain_attention
from engine.encoders.towers import architecture_config, build_model
from engine.finetune.batches import Feed, augmented, generator
from engine.linearize import tangents
from engine.provenance import provenance
from engine.store import Store, default_store
from engine.tasks import Split, load_split, load_task
from engine.tasks.pixels import fit

ENCODER = "ViT-B-32-quickgelu:random"
WIDTH, HEIGHT = 500, 375


def passes(encoder: Encoder, x: Tensor, skipped: list[str]) -> dict[str, Callable[[], object]]:
    """Return the forward passes by name.

    Args:
        encoder: In float32.
        x: Normalised pixels.
        skipped: Names to leave out.

    Returns:
        Calls without arguments.
    """
    low = encoder.to(x.device, torch.bfloat16)
    last = x.contiguous(memory_format=torch.channels_last)
    source = torch.Generator().manual_seed(0)
    taus = [
        {k: 1e-3 * torch.randn(v.shape, generator=source).to(v) for k, v in encoder.theta0.items()}
        for _ in range(2)
    ]

    def autocast() -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return encoder.features(encoder.theta0, x)

    def obvious_tangent() -> tuple[Tensor, Tensor]:
        with plain_attention():
            return jvp(lambda t: encoder.features(t, x), (encoder.theta0,), (taus[0],))

    def pushed(k: int) -> tuple[Tensor, Tensor]:
        # the same two vectors over again: eight of ViT-L/14 would take 10 GB
        return tangents(encoder.features, encoder.theta0, [taus[i % 2] for i in range(k)], x)

    found = {
        "forward": lambda: encoder.features(encoder.theta0, x),
        "autocast": autocast,
        "bfloat16": lambda: low.features(low.theta0, x.bfloat16()),
        "channels last": lambda: encoder.features(encoder.theta0, last),
        "tangents 1": lambda: pushed(1),
        "tangents 8": lambda: pushed(8),
        "jvp 1": obvious_tangent,
    }
    if ":" in encoder.name:
        tower = build_model(architecture_config(encoder.name.partition(":")[0])).visual
        found["open_clip"] = _silently(tower.to(x.device).eval(), x)
    if "compiled" not in skipped:
        compiled = torch.compile(encoder.features)
        found["compiled"] = lambda: compiled(encoder.theta0, x)
    return {name: torch.no_grad()(call) for name, call in found.items() if name not in skipped}


def _silently(tower: torch.nn.Module, x: Tensor) -> Callable[[], Tensor]:
    """Return a call of a module."""
    return lambda: tower(x)


def bench_passes(encoder: Encoder, args: argparse.Namespace, limits: dict) -> dict:
    """Return images a second of each forward pass, and shares of the ceiling."""
    source, size = torch.Generator().manual_seed(0), encoder.image_size
    x = torch.randn(args.batch, 3, size, size, generator=source).to(args.device)
    routes = passes(encoder, x, args.skip)
    found = measuring.alternating(routes, args.repeats, args.device)
    for name, row in found.items():
        if "seconds" not in row:
            continue
        row["images_a_second"] = args.batch / row["seconds"]
        if name not in ("compiled", "open_clip"):
            row["operations"] = measuring.operations(routes[name])
            low = "bfloat16" if name in ("autocast", "bfloat16") else "float32"
            row["share_of_ceiling"] = row["operations"] / row["seconds"] / limits[low]
    return found


def make_pictures(folder: Path, count: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
    """Write JPEGs as cameras give them: smooth shapes, some grain; two classes."""
    source = np.random.default_rng(0)
    for k in range(count):
        coarse = source.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)
        grain = source.normal(0, 6, (size[1], size[0], 1))
        pixels = (np.asarray(smooth) + grain).clip(0, 255).astype(np.uint8)
        path = folder / "train" / f"class{k % 2}" / f"{k}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=90)


def decoding_floor(folder: Path, size: int) -> float:
    """Return the pictures a second that these cores decode and resize, and nothing else."""
    data = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))[:256]]

    def one(encoded: bytes) -> None:
        with Image.open(io.BytesIO(encoded)) as image:
            fit(image, size)

    one(data[0])
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return len(data) / measuring.seconds_of(lambda: list(pool.map(one, data)), "cpu")


def bench_pictures(encoder: Encoder, args: argparse.Namespace, limits: dict) -> dict:
    """Return pictures a second: decoded, opened again, served, prepared; and the floors."""
    size, batch = encoder.image_size, args.batch
    with tempfile.TemporaryDirectory() as name:
        folder, store = Path(name) / "pictures", Store(Path(name) / "cache")
        make_pictures(folder, args.pictures)
        task = load_task(str(folder))
        floor = decoding_floor(folder, size)
        began = time.perf_counter()
        split = load_split(task, "train", size, store)
        decoded = time.perf_counter() - began
        began = time.perf_counter()
        again = load_split(task, "train", size, store)
        opened = time.perf_counter() - began
        n = len(split.labels)
        found = {
            "pictures": n,
            "decoded_a_second": n / decoded,
            "floor_decoded_a_second": floor,
            "opened_again_seconds": opened,
            "loops": bench_alpha(encoder, task, again, Path(name), args),
        }
        found |= served(encoder, again, batch, args)
    found["floor_served_a_second"] = limits["host copy"] / 2 / (3 * size**2)
    found["bytes_an_image"] = 3 * size**2
    return found


def served(encoder: Encoder, split: Split, batch: int, args: argparse.Namespace) -> dict:
    """Return the images a second that reach the device, and those that are ready to be encoded."""
    device, steps = torch.device(args.device), max(8, 4 * args.repeats)
    found = {}
    for name in ("served", "prepared"):
        feed = Feed(split, 0, min(batch, len(split.labels)), device)
        images, _ = feed.take(0)

        def run(name: str = name, feed: Feed = feed) -> None:
            for step in range(1, steps + 1):
                images, _ = feed.take(step)
                if name == "prepared":
                    encoder.preprocess(augmented(images, "crop", generator(0, "augment", step)))

        found[f"{name}_a_second"] = steps * len(images) / measuring.seconds_of(run, args.device)
        feed.close()
    return found


class Decoded(Dataset):
    """Pictures decoded from their files each time they are asked for, as any data set does."""

    def __init__(self, folder: Path, encoder: Encoder, count: int) -> None:
        self.paths = sorted(folder.rglob("*.jpg"))[:count]
        self.transform = transforms.Compose([
            transforms.Resize(
                encoder.image_size, interpolation=transforms.InterpolationMode.BICUBIC
            ),
            transforms.CenterCrop(encoder.image_size),
            transforms.ToTensor(),
            transforms.Normalize(encoder.mean.cpu(), encoder.std.cpu()),
        ])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def bench_alpha(
    encoder: Encoder, task, split: Split, folder: Path, args: argparse.Namespace
) -> dict:
    """Return images a second of one alpha: everything rebuilt, and served from the mapped file."""
    count = min(2 * args.batch, len(split.labels))
    theta0 = {key: value.cpu().contiguous() for key, value in encoder.theta0.items()}
    safetensors.torch.save_file(theta0, folder / "theta0.safetensors")
    tau = {key: 1e-3 * value for key, value in encoder.theta0.items()}
    merged = {key: value.clone() for key, value in encoder.theta0.items()}

    @torch.no_grad()
    def rebuilt() -> None:
        theta = safetensors.torch.load_file(
            folder / "theta0.safetensors", device=str(encoder.mean.device)
        )
        for key, value in theta.items():
            value += 0.3 * tau[key]
        loader = DataLoader(Decoded(Path(task.source), encoder, count), batch_size=args.batch)
        for x in loader:
            encoder.features(theta, x.to(args.device))

    @torch.no_grad()
    def ours() -> None:
        for key, value in merged.items():
            torch.add(encoder.theta0[key], tau[key], alpha=0.3, out=value)
        for images in split.images[:count].split(args.batch):
            encoder.features(merged, encoder.preprocess(images))

    found = measuring.alternating({"rebuilt": rebuilt, "served": ours}, 3, args.device)
    return {
        name: {**row, "images_a_second": count / row["seconds"]} if "seconds" in row else row
        for name, row in found.items()
    }


def told(record: dict) -> str:
    """Return the figures as text."""
    lines = [
        f"{record['encoder']} on {record['device']}, batch {record['batch']}, "
        f"{record['threads']} thread(s)"
    ]
    unit = record["passes"].get("forward", {}).get("seconds")
    for name, row in record["passes"].items():
        if "failed" in row:
            lines.append(f"  {name:<14} failed: {row['failed']}")
            continue
        line = f"  {name:<14} {row['images_a_second']:9.1f} images/s"
        line += f"  {row['seconds'] / unit:6.2f} forward" if unit else ""
        if "share_of_ceiling" in row:
            line += f"  {100 * row['share_of_ceiling']:4.0f} % of the ceiling"
        lines.append(line)
    found = record["pictures"]
    both = [found["loops"][name].get("images_a_second", 0.0) for name in ("rebuilt", "served")]
    lines += [
        f"pictures of {WIDTH} x {HEIGHT}, {found['pictures']} of them:",
        f"  decoded once   {found['decoded_a_second']:9.0f} a second"
        f"   (floor {found['floor_decoded_a_second']:.0f})",
        f"  opened again   {1e3 * found['opened_again_seconds']:9.1f} ms in all",
        f"  served         {found['served_a_second']:9.0f} a second"
        f"   (floor {found['floor_served_a_second']:.0f})",
        f"  cropped, ready {found['prepared_a_second']:9.0f} a second",
        f"  one alpha: rebuilt {both[0]:.1f}, served {both[1]:.1f} images/s: "
        f"{both[1] / max(both[0], 1e-9):.2f}x",
    ]
    return "\n".join(lines)


def main() -> int:
    """Return 0 once the figures are printed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--skip", nargs="+", default=[], metavar="PASS", help="leave out")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quick", action="store_true", help="small ceilings, to try it out")
    parser.add_argument("--json", action="store_true", help="one object, on the last line")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    limits = measuring.ceilings(args.device, args.quick)
    # pictures come through the memory of the host, wherever they go
    limits["host copy"] = measuring.copy_rate("cpu", 2**22 if args.quick else 2**28)
    encoder = load_encoder(args.encoder, default_store(), args.device)
    record = {
        "what": "forward passes and pictures",
        "encoder": args.encoder,
        "device": args.device,
        "batch": args.batch,
        "threads": torch.get_num_threads(),
        "ceilings": limits,
        "passes": bench_passes(encoder, args, limits),
        "pictures": bench_pictures(encoder, args, limits),
        **provenance(),
    }
    print(json.dumps(record) if args.json else told(record))
    if args.out:
        args.out.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
