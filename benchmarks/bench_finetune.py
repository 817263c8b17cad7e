r"""Time and weigh training steps against the obvious implementation, in one run on one machine.

Routes, each a gradient of one batch from uint8 images on, at the same precision and batch:

- ``forward``: the encoder alone, without a graph: the unit the others are counted in.
- ``nonlinear``, ``linear``: what ``finetune`` runs. Products of a linear step: value, two products
  for each tangent, two for the way back: 5/3 of a non-linear step's value and way back.
- ``jvp``: the linear gradient as the tangent-space paper's Figure 7 and its public code compute it:
  ``torch.func.jvp`` of the functional model, then backward through it.
- ``nonlinear again``, ``linear again``: with gradient checkpointing: 4/3 and 2 of a non-linear one.
- ``nonlinear graphed``, ``linear graphed``, on CUDA: the same kernels replayed as one CUDA graph,
  the batch in place: what launching them one by one costs is the difference.

Peak memory is that of a fresh process beyond the loaded encoder and the optimizer's state: VmHWM on
Linux, torch's allocator on CUDA. ``whole`` steps come from ``finetune`` itself: batches, random
crops, clipping, AdamW and waiting included; from them follows the programme of 8 tasks x 2 modes x
2,000 steps.

    python -m benchmarks.bench_finetune --encoder miniature --batch 128
    python -m benchmarks.bench_finetune --batch 16
    python -m benchmarks.bench_finetune --device cuda --batch 128 --precisions bfloat16 float32
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import measuring
from benchmarks.training_routes import ENCODER, GRAPHED, ROUTES, Setup, route, setup
from engine.finetune import Recipe, finetune
from engine.provenance import provenance
from engine.tasks import Task

PROGRAMME = 8 * 2000  # steps of each mode
AIM_TIME, AIM_MEMORY = 1.8, 1.25  # a linear step in units of a non-linear one


def whole(made: Setup, mode: str, precision: str, steps: int) -> dict:
    """Return the median seconds of a whole training step, and its spread."""
    task = Task("noise", "Noise", tuple("abcdefghij"), ("a {}",), "benchmark")
    recipe = Recipe(
        steps=steps + 3, warmup=1, batch=made.batch, precision=precision, augment="crop"
    )
    times = []

    def progress(*_: object) -> None:
        measuring.wait(made.device)
        times.append(time.perf_counter())

    few = replace(made.images, name="validation").take(1)
    finetune(made.encoder, task, made.images, few, mode, recipe, progress)
    spent = sorted(b - a for a, b in zip(times[2:], times[3:], strict=False))
    return {"seconds": spent[len(spent) // 2], "spread": (spent[0], spent[-1]), "steps": len(spent)}


def weigh(made: Setup, name: str, precision: str) -> dict:
    """Return the bytes one step takes beyond what is loaded; in a process that did nothing else."""
    step = route(made, name, precision)
    loaded = measuring.reset_peak(made.device)
    step()
    measuring.wait(made.device)
    return {"loaded": loaded, "step": measuring.peak(made.device) - loaded}


def agreement(made: Setup) -> float:
    """Return how far the linear gradient is from that of the paper's route, relatively."""
    ours, theirs = (route(made, name, "float32")()[1] for name in ("linear", "jvp"))
    return float((ours - theirs).norm() / theirs.norm())


def measured(args: argparse.Namespace, precision: str) -> dict:
    """Return all routes at one precision."""
    made = setup(args.encoder, args.device, args.batch)
    steps = {name: route(made, name, precision) for name in args.routes}
    counted = {}
    for name in args.routes:
        if name in GRAPHED:
            continue
        try:
            counted[name] = measuring.operations(steps[name])
        except Exception:  # the clock below says why
            counted[name] = 0
    found = measuring.alternating(steps, args.repeats, args.device)
    words = [
        "--encoder", args.encoder, "--device", args.device, "--batch", str(args.batch),
    ]  # fmt: skip
    for name, row in found.items():
        row["operations"] = counted.get(name.removesuffix(" graphed"), 0)
        if not args.no_memory and name not in GRAPHED:
            asked = ["--child", name, precision, *words]
            row["memory"] = measuring.fresh("benchmarks.bench_finetune", asked)
        if "seconds" in row:
            row["images_a_second"] = args.batch / row["seconds"]
    del steps
    noise = setup(args.encoder, args.device, args.batch, images=max(256, 2 * args.batch))
    if args.whole_steps:
        found |= {
            f"whole {mode}": whole(noise, mode, precision, args.whole_steps)
            for mode in ("nonlinear", "linear")
        }
    return found


def summary(found: dict, ceiling: float) -> dict:
    """Return the ratios that are asked for, from one precision's routes."""
    ratios: dict = {}

    def of(name: str, key: str) -> float:
        value = found.get(name, {}).get(key) or 0
        return value.get("step", 0) if isinstance(value, dict) else value

    keys = (
        ("seconds", "time"),
        ("work", "processor time"),
        ("operations", "operations"),
        ("memory", "memory"),
    )
    for key, title in keys:
        for name in ("linear", "jvp", "nonlinear again", "linear again", *GRAPHED):
            if of(name, key) and of("nonlinear", key):
                ratios.setdefault(title, {})[name] = of(name, key) / of("nonlinear", key)
    shares = {
        name: row["operations"] / row["seconds"] / ceiling
        for name, row in found.items()
        if row.get("seconds") and row.get("operations")
    }
    record = {"over_nonlinear": ratios, "share_of_ceiling": shares}
    both = [found.get(f"whole {mode}", {}).get("seconds") for mode in ("nonlinear", "linear")]
    if all(both):
        record["whole_over_nonlinear"] = both[1] / both[0]
        record["programme_minutes"] = PROGRAMME * sum(both) / 60
    return record


def told(record: dict) -> str:
    """Return the figures as text."""
    lines = [
        f"{record['encoder']} on {record['device']}, batch {record['batch']}, "
        f"{record['threads']} thread(s); gradient of the linear route against the paper's: "
        f"{record['agreement']:.1e}"
    ]
    for precision, part in record["precisions"].items():
        rate = record["ceilings"][precision]
        lines.append(f"{precision}; ceiling of matrix products {rate / 1e12:.3g} TFLOP/s")
        unit = part["routes"].get("forward", {})
        for name, row in part["routes"].items():
            if "failed" in row:
                lines.append(f"  {name:<16} failed: {row['failed']}")
                continue
            line = f"  {name:<16} {1e3 * row['seconds']:9.1f} ms"
            line += f"  {row['seconds'] / unit['seconds']:5.2f} forward" if unit else ""
            if row.get("operations"):
                line += f"  {row['operations'] / 1e9:9.1f} GFLOP"
                line += f"  {100 * part['summary']['share_of_ceiling'][name]:4.0f} % of the ceiling"
            if "step" in row.get("memory", {}):
                line += f"  peak {row['memory']['step'] / 2**20:8.0f} MiB"
            lines.append(line)
        for title, ratios in part["summary"]["over_nonlinear"].items():
            said = ", ".join(f"{name} {value:.2f}" for name, value in ratios.items())
            lines.append(f"  {title} over non-linear: {said}")
        if "programme_minutes" in part["summary"]:
            lines.append(
                f"  whole steps: linear / non-linear {part['summary']['whole_over_nonlinear']:.2f}"
                f"; 8 tasks x 2 modes x 2,000 steps of {record['batch']}: "
                f"{part['summary']['programme_minutes']:.1f} minutes"
            )
    return "\n".join(lines)


def main() -> int:
    """Return 0 once the figures are printed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--child", nargs=2, metavar=("ROUTE", "PRECISION"))
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--precisions", nargs="+", default=["float32"])
    parser.add_argument("--routes", nargs="+", choices=(*ROUTES, *GRAPHED))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--whole-steps", type=int, default=10, help="0: none")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quick", action="store_true", help="small ceilings, to try it out")
    parser.add_argument("--no-memory", action="store_true", help="no fresh processes")
    parser.add_argument("--json", action="store_true", help="one object, on the last line")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    args.routes = args.routes or [*ROUTES, *(GRAPHED if args.device == "cuda" else ())]
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.child:
        made = setup(args.encoder, args.device, args.batch)
        print(json.dumps(weigh(made, *args.child)))
        return 0
    limits = measuring.ceilings(args.device, args.quick)
    record = {
        "what": "training steps",
        "encoder": args.encoder,
        "device": args.device,
        "batch": args.batch,
        "threads": torch.get_num_threads(),
        "ceilings": limits,
        "agreement": agreement(setup(args.encoder, args.device, min(args.batch, 16))),
        "precisions": {},
    }
    for precision in args.precisions:
        found = measured(args, precision)
        record["precisions"][precision] = {
            "routes": found,
            "summary": summary(found, limits[precision]),
        }
    record |= provenance()
    print(json.dumps(record) if args.json else told(record))
    if args.out:
        args.out.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
