"""The parts of the GPU checklist that no other script here measures; each runs in a process alone.

python -m benchmarks.gpu_parts exact --device cuda
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import measuring
from benchmarks.training_routes import ENCODER, route, setup
from engine.encoders import load_encoder
from engine.finetune import Recipe, finetune
from engine.gradients.objective import objective_of
from engine.jobs import estimate
from engine.store import Store, default_store
from engine.tasks import Task

TASK = Task("noise", "Noise", tuple("abcdefghij"), ("a {}",), "benchmark")


class Stopped(Exception):  # noqa: N818 - not an error: it ends a run early
    """A fine-tune was to stop here."""


def machine(args: argparse.Namespace) -> dict:
    """Return what the machine is, and what it can do at most."""
    found = {"torch": torch.__version__, "python": platform.python_version(), "gpus": 0}
    if args.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "memory": properties.total_memory,
            "gpus": torch.cuda.device_count(),
        }
    else:
        found |= {"name": f"{platform.machine()} CPU, {os.cpu_count()} cores"}
        found["memory"] = estimate.memory_there("cpu")
    return {**found, "ceilings": measuring.ceilings(args.device, args.quick)}


def exact(args: argparse.Namespace) -> dict:
    """Return how far gradients on the device are from float64 on the CPU, relatively."""
    few, found = min(args.batch, 4), {}
    encoder = load_encoder(args.encoder, default_store())
    here = setup(args.encoder, "cpu", few)
    wide = replace(here, encoder=encoder.to("cpu", torch.float64))
    there = setup(args.encoder, args.device, few)
    for mode in ("nonlinear", "linear"):
        expected = route(wide, mode, "float32")()[1].float()
        for precision in ("float32", "bfloat16"):
            got = route(there, mode, precision)()[1].cpu()
            found[f"{mode} {precision}"] = _relative(got, expected)
        again = route(there, f"{mode} again", "bfloat16")()[1].cpu()
        found[f"{mode} checkpointed"] = _relative(again, got)
    return found


def _relative(got: Tensor, expected: Tensor) -> float:
    """Return the length of the difference in units of what was expected."""
    return float((got - expected).norm() / expected.norm())


def bits(args: argparse.Namespace) -> dict:
    """Return whether a fine-tune gives the same bits twice, and stopped and resumed."""
    made = setup(args.encoder, args.device, args.batch, images=2 * args.batch)
    few, found = replace(made.images, name="validation").take(2), {}
    precision = "bfloat16" if args.device == "cuda" else "float32"
    for mode in ("nonlinear", "linear"):
        recipe = Recipe(steps=6, warmup=1, batch=args.batch, augment="crop", precision=precision)
        parts = (made.encoder, TASK, made.images, few, mode, recipe)
        whole = finetune(*parts).tau
        states: dict = {}

        def stop(done: int, *_: object) -> None:
            if done == 3:
                raise Stopped

        def save(name: str, tensors: dict, meta: dict, states: dict = states) -> None:
            states[name] = tensors, json.loads(json.dumps(meta))

        try:
            finetune(*parts, stop, save)
        except Stopped:
            resumed = finetune(*parts, load_state=states.get).tau
        found[f"{mode} twice"] = _same(whole, finetune(*parts).tau)
        found[f"{mode} resumed"] = _same(whole, resumed)
    return found


def _same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Return whether two task vectors have the same bits."""
    return all(torch.equal(one[key], other[key]) for key in one)


def memory(args: argparse.Namespace) -> dict:
    """Return the estimate of a fine-tune's memory beside the peak of one in a fresh process."""
    found, precision = {}, "bfloat16" if args.device == "cuda" else "float32"
    sizes = {"train": 2 * args.batch, "validation": 2, "test": 0}
    for mode in args.modes:
        for again in (False, True):
            recipe = Recipe(
                steps=3, warmup=1, batch=args.batch, precision=precision, checkpointing=again
            )
            with tempfile.TemporaryDirectory() as home:
                store = Store(Path(home), default_store().embedded)
                told = estimate.estimate(store, args.encoder, mode, recipe, sizes, args.device)
            words = ["peak", "--device", args.device, "--encoder", args.encoder]
            words += ["--batch", str(args.batch), "--modes", mode]
            peak = measuring.fresh("benchmarks.gpu_parts", words + ["--checkpointing"] * again)
            name = mode + " checkpointed" * again
            found[name] = {"estimate": told.memory, **peak}
    return found


def peak(args: argparse.Namespace) -> dict:
    """Return the most bytes a fine-tune of three steps holds, torch and encoder included."""
    made = setup(args.encoder, args.device, args.batch, images=2 * args.batch)
    few = replace(made.images, name="validation").take(2)
    precision = "bfloat16" if args.device == "cuda" else "float32"
    recipe = Recipe(
        steps=3, warmup=1, batch=args.batch, precision=precision, checkpointing=args.checkpointing
    )
    finetune(made.encoder, TASK, made.images, few, args.modes[0], recipe)
    if args.device == "cuda":
        return {"peak": torch.cuda.max_memory_reserved() + int(estimate.CONTEXT)}
    return {"peak": measuring.peak("cpu")}


def curvature(args: argparse.Namespace) -> dict:
    """Return the seconds of an exact Hessian-vector product and of the gradient, per image."""
    made, found = setup(args.encoder, args.device, args.batch), {}
    source = torch.Generator().manual_seed(2)
    for mode in ("nonlinear", "linear"):
        objective = objective_of(made.encoder, TASK, made.images, mode, batch=args.batch)
        v = torch.randn(objective.theta0.shape, generator=source).to(objective.theta0)
        theta = objective.theta0 + 1e-4 * v
        routes = {
            "gradient": lambda o=objective, t=theta: o.gradient(t),
            "hvp": lambda o=objective, t=theta, v=v: o.hvp(t, v),
        }
        rows = measuring.alternating(routes, 3, args.device)
        found[mode] = {name: row.get("seconds", row.get("failed")) for name, row in rows.items()}
    return {**found, "images": args.batch}


def kernel_floor(args: argparse.Namespace) -> dict:
    """Return the seconds of the bare products of a kernel of N = ``points`` x N."""
    from benchmarks.bench_ntk import floor

    return floor(args.points, args.points, args.device)


def large(args: argparse.Namespace) -> dict:
    """Return seconds and peak of a linear step of a large tower, with and without checkpointing."""
    made, found = setup(args.encoder, args.device, args.batch), {}
    precision = "bfloat16" if args.device == "cuda" else "float32"
    for name in ("linear again", "linear"):
        try:
            step = route(made, name, precision)
            loaded = measuring.reset_peak(args.device)
            step()
            measuring.wait(args.device)
            peak = measuring.peak(args.device) - loaded
            found[name] = {"peak": peak, "seconds": measuring.seconds_of(step, args.device)}
        except torch.OutOfMemoryError as error:
            found[name] = {"failed": str(error).splitlines()[0][:100]}
        step = None
    return found


def together(args: argparse.Namespace) -> dict:
    """Return the seconds of a step by one process and by several, and whether they agree."""
    found: dict = {}
    for count in (1, args.processes):
        with tempfile.TemporaryDirectory() as home:
            words = [
                "finetune", "--encoder", args.encoder, "--tasks", "signs", "--mode", "linear",
                "--steps", str(args.steps), "--batch", str(args.batch), "--limit", "512",
                "--device", args.device, "--processes", str(count), "--json", "--cache", home,
            ]  # fmt: skip
            began = time.perf_counter()
            answer = measuring.fresh("engine", words)
            if "failed" in answer:
                return answer
            entry = Store(Path(home), default_store().embedded).find("checkpoint", task="signs")[0]
            log = entry.meta["log"]
            found[str(count)] = {
                "wall": time.perf_counter() - began,
                "step": (log[-1]["seconds"] - log[0]["seconds"]) / (log[-1]["step"] - 1),
                "loss": log[-1]["loss"],
            }
    return found


PARTS = {
    part.__name__: part
    for part in (machine, exact, bits, memory, peak, curvature, kernel_floor, large, together)
}


def main() -> int:
    """Return 0 once a part's figures are printed as one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--points", type=int, default=400)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--modes", nargs="+", default=["nonlinear", "linear"])
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    print(json.dumps(PARTS[args.part](args)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
