"""Time three ways to a tangent kernel, and their memory, each in a fresh process (Linux).

Layer by layer against torch's tutorial (contracted Jacobians) and NTK-vector products, N x N
points of one logit, ViT-B/32 with random weights; the ways take turns. Run from the repository's
root as ``python -m benchmarks.bench_ntk`` (``--device cuda`` also relates N = 400 to the floor of
its matrix products); prints JSON. Quote it from an idle machine.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ENCODER = "ViT-B-32-quickgelu:random"
SIZES = {"layerwise": (16, 32, 64), "tutorial": (16, 32), "products": (16,)}
SPARE = 1.15  # of the Jacobians' own size, for what the tutorial takes beside them
MALLOC = {  # as `make app` has it
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_MMAP_THRESHOLD_": "100000000000",
}


def measure(way: str, points: int, device: str, encoder_name: str) -> dict:
    """Compute one kernel in this process.

    Args:
        way: "layerwise", "tutorial" or "products".
        points: N.
        device: Where.
        encoder_name: Which encoder.

    Returns:
        Seconds, bytes beyond the loaded encoder, and the kernel's trace for comparison.
    """
    import torch

    from engine.encoders import load_encoder
    from engine.ntk import kernel, plan
    from engine.store import default_store

    encoder = load_encoder(encoder_name, default_store(), device=device)
    encoder.free_text()
    source = torch.Generator().manual_seed(0)
    size = encoder.image_size
    x = torch.randn(points, 3, size, size, generator=source).to(device)
    head = torch.nn.functional.normalize(torch.randn(1, encoder.embed_dim, generator=source), dim=1)
    head = head.to(device)
    with torch.no_grad():  # the libraries' own first-time costs are not the kernel's
        begun = time.perf_counter()
        encoder.features(encoder.theta0, x[:1])
        encoder.features(encoder.theta0, x[:16])
        forward = (time.perf_counter() - begun) / 17
    found = {"way": way, "points": points, "forward_seconds": forward}
    if way != "tutorial":
        made = plan(encoder, points, points, algorithm=way)
        found["plan"] = {"bytes": made.bytes, "operations": made.operations}
        found["plan"]["seconds"] = made.seconds
    before = _reset(device)
    worked, begun = time.process_time(), time.perf_counter()
    if way == "tutorial":
        values = tutorial(encoder, head, x)
    else:
        values = kernel(encoder, encoder.theta0, head, x, x, algorithm=way).values[0]
    if device == "cuda":
        torch.cuda.synchronize()
    found["seconds"] = time.perf_counter() - begun
    found["cpu_seconds"] = time.process_time() - worked  # of all threads
    found["bytes"] = _peak(device) - before
    found["trace"] = float(values.diagonal().sum())
    found["norm"] = float(values.norm())
    return found


def tutorial(encoder, head, x):
    """Contract whole Jacobians, as torch's tutorial "Neural Tangent Kernels" does."""
    import torch

    from engine.encoders import plain_attention

    def one(parameters, image):
        z = torch.nn.functional.normalize(encoder.features(parameters, image[None]), dim=-1)
        return (z @ head.T)[0]

    with plain_attention():
        jacobians = torch.func.vmap(torch.func.jacrev(one), (None, 0))(encoder.theta0, x)
    flat = [jacobian.flatten(2) for jacobian in jacobians.values()]
    return torch.stack([torch.einsum("Naf,Maf->aNM", j, j) for j in flat]).sum(0)[0]


def floor(points: int, columns: int, device: str = "cuda") -> dict:
    """Time the bare matrix products of a kernel of ViT-B/32: M_i = G^T A and M M^T."""
    import torch

    wait = torch.cuda.synchronize if device == "cuda" else int
    shapes = [(50, 768, 2304), (50, 768, 768), (50, 768, 3072), (50, 3072, 768)] * 11
    shapes += [(49, 3072, 768), (50, 768, 1536)]
    total, operations = 0.0, 0
    for T, a, b in shapes:
        left = torch.randn(columns, T, b, device=device)
        right = torch.randn(columns, T, a, device=device)
        step = max(1, 65536 // a)
        wait()
        begun = time.perf_counter()
        for low in range(0, b, step):
            M = (left[:, :, low : low + step].transpose(1, 2) @ right).flatten(1)
            M[:points] @ M.T
        wait()
        total += time.perf_counter() - begun
        operations += 2 * a * b * (columns * T + points * columns)
    return {"seconds": total, "operations": operations}


def _reset(device: str) -> int:
    """Give freed memory back, forget the peak so far, and return the bytes held now."""
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _peak(device)


def _peak(device: str) -> int:
    """Return the most bytes this process has held since the reset."""
    if device == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def free() -> int:
    """Return the bytes that are free on this machine."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable")) * 1024


def child(way: str, points: int, args: argparse.Namespace) -> dict:
    """Measure in a fresh process."""
    options = ["--device", args.device, "--encoder", args.encoder]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.bench_ntk", "--child", way, str(points), *options],
        cwd=ROOT,
        env={**os.environ, **MALLOC},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def _speedup(kept: dict, unit: str) -> dict[str, float]:
    """Return how many times longer the other ways take."""
    return {
        f"{way} at N = {N}": kept[way, N][unit] / kept["layerwise", N][unit]
        for way, N in kept
        if way != "layerwise" and ("layerwise", N) in kept
    }


def _turns(N: int, P: int, args: argparse.Namespace) -> list[dict]:
    """Let the ways to a kernel of N points take turns; return the median turn of each."""
    taken: dict[str, list[dict]] = {}
    left_out = []
    for _ in range(args.turns):
        for way in (way for way, sizes in SIZES.items() if N in sizes):
            need = int(SPARE * 4 * N * P) if way == "tutorial" else 0
            if args.device == "cpu" and need > free():
                left_out = [{"way": way, "points": N, "left_out": f"takes {need} bytes"}]
                continue
            taken.setdefault(way, []).append(child(way, N, args))
            sys.stderr.write(f"{taken[way][-1]}\n")
    middle = [
        sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2] for runs in taken.values()
    ]
    for row in middle:
        row["spread_seconds"] = sorted(run["seconds"] for run in taken[row["way"]])
    return middle + left_out


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--child", nargs=2, metavar=("WAY", "N"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--encoder", default=ENCODER)
    parser.add_argument("--turns", type=int, default=3, help="of each way; the median one counts")
    args = parser.parse_args()
    if args.child:
        found = measure(args.child[0], int(args.child[1]), args.device, args.encoder)
        print(json.dumps(found))  # noqa: T201
        return
    import torch

    from engine.encoders import load_encoder
    from engine.ntk import plan
    from engine.provenance import provenance
    from engine.store import default_store

    encoder = load_encoder(args.encoder, default_store())
    encoder.free_text()
    P = sum(value.numel() for value in encoder.theta0.values())
    largest = max(value.numel() for value in encoder.theta0.values())
    rows = [row for N in (16, 32, 64) for row in _turns(N, P, args)]
    kept = {(row["way"], row["points"]): row for row in rows if "seconds" in row}
    ours = [kept["layerwise", N] for N in SIZES["layerwise"]]
    # from where several passes are needed: a single one is kept whole, whatever the points
    growth = (ours[-1]["bytes"] - ours[1]["bytes"]) / (ours[-1]["points"] - ours[1]["points"])
    paper = plan(encoder, 200, 400, memory=1 << 40)
    rate = ours[-1]["plan"]["operations"] / ours[-1]["seconds"]
    record = {
        "encoder": args.encoder,
        "device": args.device,
        "threads": torch.get_num_threads(),
        "runs": rows,
        "bytes_a_point": growth,
        "largest_layer_bytes": 4 * largest,
        "speedup": _speedup(kept, "seconds"),
        "speedup_in_cpu_seconds": _speedup(kept, "cpu_seconds"),
        "n_200_m_400": {
            "operations": paper.operations,
            "bytes": paper.bytes,
            "seconds_at_the_rate_of_the_largest_run": paper.operations / rate,
        },
        **provenance(),
    }
    if args.device == "cuda":
        record["n_200_m_400"]["measured"] = child("layerwise", 400, args)
        record["n_200_m_400"]["floor"] = floor(400, 400)
    print(json.dumps(record, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
