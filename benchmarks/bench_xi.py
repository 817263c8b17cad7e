r"""Time disentanglement maps against the loops they replace, in one run on one machine.

Linearized: the obvious loop makes one ``torch.func.jvp`` of the encoder a cell and task (the axes'
single-task passes cached, in its favour). Ours takes the responses once and then algebra.

Non-linear: the loop of the public reference code loads the pre-trained weights from disk in every
cell, adds the task vectors, builds data set and loader, decodes every picture again, and runs the
merged and both single-task models. Its forward pass is ours. "cached axes" is the same loop with
single-task predictions remembered, which the reference code does not do. Ours is
``nonlinear_map``, with its working state written after every cell.

Cells of the loops are measured in small number and multiplied by the 400 of a 20 x 20 grid; so is
the number of images where it is below 2,048 a task: at two sizes, as a + b N. The table says so.

    python benchmarks/bench_xi.py
    python benchmarks/bench_xi.py --encoder ViT-B-32-quickgelu:random --images 8 --skip-linearized
    python benchmarks/bench_xi.py --device cuda --precision bfloat16      # with a GPU
    python benchmarks/bench_xi.py --stacked       # and 2 and 4 cells at once, their weights stacked

Ratios of processor seconds stand beside those of wall seconds: a busy machine disturbs them less.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from torch import Tensor
from torch.func import jvp
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import stacked_cells
from engine.disentanglement import axis, linearized_map, nonlinear_map
from engine.disentanglement.passes import Passes
from engine.encoders import Encoder, load_encoder, plain_attention
from engine.provenance import provenance
from engine.responses import merged_scores, predictions, responses
from engine.store import Store, default_store
from engine.tasks import Split, Task, load_split, load_task

GRID, POINTS = 20, 2048  # of the paper


@dataclass(frozen=True, eq=False)
class Setup:
    """What all routes work on."""

    encoder: Encoder
    tasks: dict[str, Task]
    splits: dict[str, Split]
    taus: dict[str, dict[str, Tensor]]
    batch: int
    folder: Path  # pictures, weights and heads as files

    def take(self, n: int) -> "Setup":
        """Return the same with the first images alone."""
        fewer = {name: split.take(n) for name, split in self.splits.items()}
        return Setup(self.encoder, self.tasks, fewer, self.taus, self.batch, self.folder)


class Pictures(Dataset):
    """Pictures of one task, decoded from their files each time, as any data set is."""

    def __init__(self, folder: Path, n: int, encoder: Encoder) -> None:
        self.paths = [folder / f"{k}.png" for k in range(n)]
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


def rebuilt(setup: Setup, alphas: dict[str, float], names: list[str]) -> dict[str, Tensor]:
    """Return the predictions of one merged model, everything made anew."""
    device = setup.encoder.mean.device
    theta = safetensors.torch.load_file(setup.folder / "theta0.safetensors", device=str(device))
    for name, alpha in alphas.items():
        for key, value in theta.items():
            value += alpha * setup.taus[name][key]
    found = {}
    for name in names:
        head = safetensors.torch.load_file(setup.folder / f"{name}.safetensors")["head"]
        pictures = Pictures(setup.folder / name, len(setup.splits[name].labels), setup.encoder)
        guesses = []
        with torch.no_grad():
            for x in DataLoader(pictures, batch_size=setup.batch):
                z = setup.encoder.features(theta, x.to(device))
                guesses.append(predictions(z.float().cpu() @ head.T))
        found[name] = torch.cat(guesses)
    return found


def loop_cell(setup: Setup, first: float, second: float) -> float:
    """Return xi at one cell as the reference code would: three models, each rebuilt."""
    a, b = setup.tasks
    merged = rebuilt(setup, {a: first, b: second}, [a, b])
    alone = rebuilt(setup, {a: first}, [a]) | rebuilt(setup, {b: second}, [b])
    return sum(float((merged[name] != alone[name]).double().mean()) for name in (a, b))


def cached_cell(setup: Setup, first: float, second: float) -> dict[str, Tensor]:
    """Return the merged predictions of one cell; those of the axes are remembered elsewhere."""
    a, b = setup.tasks
    return rebuilt(setup, {a: first, b: second}, [a, b])


def linearized_cell(setup: Setup, first: float, second: float) -> dict[str, Tensor]:
    """Return the merged predictions of one cell, a forward-mode pass over every image."""
    encoder, found = setup.encoder, {}
    weights = dict(zip(setup.tasks, (first, second), strict=True))
    change = {
        key: sum(weights[name] * setup.taus[name][key] for name in weights)
        for key in encoder.theta0
    }
    for name, split in setup.splits.items():
        head = encoder.head(setup.tasks[name]).cpu().double()
        parts = []
        for images in split.images.split(setup.batch):
            x = encoder.preprocess(images)
            with torch.no_grad(), plain_attention():
                z0, jz = jvp(lambda t, x=x: encoder.features(t, x), (encoder.theta0,), (change,))
            parts.append(predictions((z0 + jz).float().cpu().double() @ head.T))
        found[name] = torch.cat(parts)
    return found


def timed(action: Callable[[], object], device: torch.device) -> tuple[Tensor, object]:
    """Return wall and processor seconds, (2,), and the result of one call."""
    wait = torch.cuda.synchronize if device.type == "cuda" else int
    wait()
    began, worked = time.perf_counter(), time.process_time()
    result = action()
    wait()
    return torch.tensor([time.perf_counter() - began, time.process_time() - worked]), result


def median(spent: list[Tensor]) -> Tensor:
    """Return the median of wall and of processor seconds."""
    return torch.tensor([statistics.median(column) for column in torch.stack(spent).T.tolist()])


def bench_linearized(setup: Setup, repeats: int) -> dict:
    """Return the cost of a 20 x 20 map from nothing, of a redraw, and of the loop."""
    device, alphas = setup.encoder.mean.device, axis(GRID)
    cells = [(float(alphas[3]), float(alphas[15])), (float(alphas[11]), float(alphas[8]))]
    linearized_cell(setup.take(setup.batch), *cells[0])
    names = tuple(setup.tasks)

    def respond() -> dict[str, Tensor]:
        parts = (setup.encoder, setup.taus, setup.batch)
        return {
            name: responses(parts[0], setup.tasks[name], setup.splits[name], *parts[1:]).scores()
            for name in names
        }

    _, readings = timed(respond, device)
    routes = {
        "responses": respond,
        "algebra": lambda: linearized_map(readings, names, alphas),
        "fine": lambda: linearized_map(readings, names, axis(101)),
    }
    spent: dict[str, list[Tensor]] = {name: [] for name in ("loop", *routes)}
    for k in range(repeats):
        cell = cells[k % 2]
        seconds, looped = timed(lambda cell=cell: linearized_cell(setup, *cell), device)
        spent["loop"].append(seconds)
        for name, route in routes.items():
            spent[name].append(timed(route, device)[0])
    differing = sum(
        int((predictions(merged_scores(readings[name], cell)) != looped[name]).sum())
        for name in names
    )
    middle = {name: median(seconds) for name, seconds in spent.items()}
    total = GRID**2 * middle["loop"]
    ours = middle["responses"] + middle["algebra"]
    points = {name: len(split.labels) for name, split in setup.splits.items()}
    return {
        "points": points,
        "cells_measured": repeats,
        "loop_cell": middle["loop"].tolist(),
        "loop_20x20_extrapolated": total.tolist(),
        "responses": middle["responses"].tolist(),
        "algebra_20x20": middle["algebra"].tolist(),
        "algebra_101x101": middle["fine"].tolist(),
        "ratio_from_nothing": (total / ours).tolist(),
        "ratio_redraw": (total / middle["algebra"]).tolist(),
        "predictions_differing": [differing, sum(points.values())],
    }


def nonlinear_cells(setup: Setup, store: Store, G: int, precision: str) -> object:
    """Return a map of G x G cells: G^2 + G times two tasks' passes."""
    return nonlinear_map(
        setup.encoder,
        setup.tasks,
        setup.taus,
        setup.splits,
        axis(G),
        images=None,
        batch=setup.batch,
        precision=precision,
        save_state=store.save_state,
    )


def bench_nonlinear(setup: Setup, repeats: int, precision: str) -> dict:
    """Return the seconds of a cell as a + b N, and of 20 x 20 cells on 2,048 images a task."""
    device, store, G = setup.encoder.mean.device, Store(setup.folder / "store"), 2
    most = min(len(split.labels) for split in setup.splits.values())
    sizes = (most // 2, most)
    routes = {
        "loop": lambda s: loop_cell(s, 1.0, -1.0),
        "cached": lambda s: cached_cell(s, 1.0, -1.0),
        "ours": lambda s: nonlinear_cells(s, store, G, precision),
    }
    for route in routes.values():
        route(setup.take(min(4, most)))
    spent = {(name, n): [] for name in routes for n in sizes}
    parts = {n: setup.take(n) for n in sizes}
    for _ in range(repeats):
        for name, n in spent:
            seconds, result = timed(lambda name=name, n=n: routes[name](parts[n]), device)
            spent[name, n].append(seconds)
            if name == "ours" and n == most:
                corner = float(result.xi[1, 0])
    agree = abs(corner - loop_cell(setup, float(axis(G)[1]), float(axis(G)[0])))
    record: dict = {"images": sizes, "repeats": repeats, "xi_difference_at_a_corner": agree}
    # a map of G x G cells runs each task's images G^2 + G times; one cell is one of these
    divide = {"loop": 1, "cached": 1, "ours": G * G + G}
    whole = {"loop": GRID**2, "cached": GRID**2, "ours": GRID**2 + GRID}
    for name in routes:
        low, high = (median(spent[name, n]) / divide[name] for n in sizes)
        slope = (high - low) / (sizes[1] - sizes[0])
        fixed = (high - slope * sizes[1]).clamp(min=0)
        record[name] = {
            "cell": high.tolist(),
            "fixed_a_cell": fixed.tolist(),
            "an_image": slope.tolist(),
            "20x20_these_images": (whole[name] * high).tolist(),
            f"20x20_{POINTS}_images": (whole[name] * (fixed + slope * POINTS)).tolist(),
        }
    for name in ("loop", "cached"):
        for key in ("20x20_these_images", f"20x20_{POINTS}_images"):
            ratio = torch.tensor(record[name][key]) / torch.tensor(record["ours"][key])
            record[name][f"ratio_{key}"] = ratio.tolist()
    return record


def bench_stacks(setup: Setup, repeats: int) -> dict:
    """Return the cost of a cell, one at a time and several at once."""
    parts = (setup.encoder, setup.tasks, setup.taus, setup.splits)
    a, b = setup.tasks
    grid = axis(4).tolist()
    cells = [{a: first, b: second} for first in grid[1:3] for second in grid]
    passes = Passes(*parts, batch=setup.batch)
    return stacked_cells.bench_stacked(passes, cells, repeats, timed, median)


def bench_device(setup: Setup, precision: str) -> dict:
    """Return images a second on a GPU beside the bf16 matrix-product ceiling of the same run."""
    device = setup.encoder.mean.device
    if device.type != "cuda":
        return {"skipped": "no GPU at hand"}
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    seconds = float(timed(lambda: [a @ a for _ in range(20)], device)[0][0])
    ceiling = 20 * 2 * 8192**3 / seconds
    passes = Passes(
        setup.encoder, setup.tasks, setup.taus, setup.splits,
        batch=setup.batch, precision=precision,
    )  # fmt: skip
    names = list(setup.tasks)
    passes.outputs(dict.fromkeys(names, 0.3), names)
    spent, _ = timed(
        lambda: [passes.outputs(dict.fromkeys(names, 0.3), names) for _ in range(5)], device
    )
    seconds = float(spent[0])
    images = 5 * sum(len(split.labels) for split in setup.splits.values())
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        setup.encoder.features(
            setup.encoder.theta0, setup.encoder.preprocess(setup.splits[names[0]].images[:1])
        )
    rate = images / seconds
    return {
        "images_a_second": rate,
        "flops_an_image": counter.get_total_flops(),
        "bf16_ceiling_flops": ceiling,
        "share_of_ceiling": rate * counter.get_total_flops() / ceiling,
    }


def load(args: argparse.Namespace, store: Store, folder: Path) -> Setup:
    """Return encoder, pictures and task vectors, in memory and as files."""
    encoder = load_encoder(args.encoder, store, args.device)
    tasks = {name: load_task(name) for name in args.tasks}
    splits, taus = {}, {}
    for seed, (name, task) in enumerate(tasks.items()):
        # the miniature's test splits hold 1,000: training pictures cost the same
        small = load_split(task, "train", 32, store, limit=args.images)
        (folder / name).mkdir()
        for k, picture in enumerate(small.images):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / name / f"{k}.png")
        size = (encoder.image_size,) * 2
        larger = [
            transforms.functional.resize(
                images, size, interpolation=transforms.InterpolationMode.BICUBIC, antialias=True
            )
            for images in small.images.split(256)
        ]
        splits[name] = Split(
            task.name, small.name, torch.cat(larger), small.labels, small.digest,
            small.classnames, small.rule,
        )  # fmt: skip
        taus[name] = _task_vector(store, encoder, name, seed)
        head = {"head": encoder.head(task).float().cpu().contiguous()}
        safetensors.torch.save_file(head, folder / f"{name}.safetensors")
    theta0 = {key: value.cpu().contiguous() for key, value in encoder.theta0.items()}
    safetensors.torch.save_file(theta0, folder / "theta0.safetensors")
    return Setup(encoder, tasks, splits, taus, args.batch, folder)


def _task_vector(store: Store, encoder: Encoder, task: str, seed: int) -> dict[str, Tensor]:
    """Return the stored task vector, or a random one of 2 % of each parameter's size."""
    found = store.find("checkpoint", encoder_digest=encoder.digest, task=task, mode="nonlinear")
    if found:
        tau = store.get(found[0])
    else:
        source = torch.Generator().manual_seed(seed)
        tau = {
            key: 0.02 * float(value.std(correction=0)) * torch.randn(value.shape, generator=source)
            for key, value in encoder.theta0.items()
        }
    return {key: tau[key].to(value) for key, value in encoder.theta0.items()}


def told(record: dict) -> str:
    """Return the figures as text: wall seconds, processor seconds in brackets."""

    def both(values: list[float], digits: int = 2) -> str:
        return f"{values[0]:.{digits}f} ({values[1]:.{digits}f})"

    lines = [f"{record['encoder']} on {record['device']}, {record['threads']} thread(s); "
             "wall seconds, processor seconds in brackets"]  # fmt: skip
    linear = record.get("linearized")
    if linear:
        lines += [
            f"linearized, {linear['points']} points:",
            f"  loop, a cell (measured {linear['cells_measured']})    {both(linear['loop_cell'])}",
            f"  loop, 20 x 20 (extrapolated)   {both(linear['loop_20x20_extrapolated'])}",
            f"  ours, responses once           {both(linear['responses'])}",
            f"  ours, algebra 20 x 20          {both(linear['algebra_20x20'], 4)}",
            f"  ours, algebra 101 x 101        {both(linear['algebra_101x101'], 4)}",
            f"  speed-up from nothing          {both(linear['ratio_from_nothing'], 0)}",
            f"  speed-up of a redraw           {both(linear['ratio_redraw'], 0)}",
            f"  predictions differing          {linear['predictions_differing']}",
        ]
    found = record["nonlinear"]
    key = f"20x20_{POINTS}_images"
    lines.append(f"non-linear, measured on {found['images']} images a task:")
    for name, title in (
        ("loop", "loop of the reference code"),
        ("cached", "loop with cached axes"),
        ("ours", "ours"),
    ):
        row = found[name]
        lines.append(
            f"  {title:<28} a cell {both(row['cell'])} = {both(row['fixed_a_cell'], 3)} + "
            f"{1e3 * row['an_image'][0]:.2f} ms an image of each task"
        )
    for name in ("loop", "cached"):
        for which, said in (("20x20_these_images", "20 x 20 on these"), (key, "on 2,048 a task")):
            lines.append(
                f"  speed-up over {name}, {said} (extrapolated): "
                f"{both(found[name][f'ratio_{which}'])}"
            )
    if "stacked" in record:
        lines.append(stacked_cells.told(record["stacked"]))
    lines.append(f"GPU: {record['gpu']}")
    return "\n".join(lines)


def main() -> int:
    """Return 0 once the figures are printed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="miniature")
    parser.add_argument("--tasks", nargs=2, default=["letters", "signs"])
    parser.add_argument("--images", type=int, default=POINTS, help="a task")
    parser.add_argument("--nonlinear-images", type=int, help="a task (default: as --images)")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--skip-linearized", action="store_true")
    parser.add_argument("--stacked", action="store_true", help="time several cells at once too")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        setup = load(args, default_store(), Path(name))
        record = {
            "what": "disentanglement maps",
            "encoder": setup.encoder.name,
            "device": args.device,
            "threads": torch.get_num_threads(),
            "precision": args.precision,
        }
        if not args.skip_linearized:
            record["linearized"] = bench_linearized(setup, args.repeats)
        fewer = setup.take(args.nonlinear_images) if args.nonlinear_images else setup
        record["nonlinear"] = bench_nonlinear(fewer, args.repeats, args.precision)
        if args.stacked:
            record["stacked"] = bench_stacks(fewer, args.repeats)
        record["gpu"] = bench_device(setup, args.precision)
    record |= provenance()
    sys.stdout.write(told(record) + "\n")
    if args.out:
        args.out.write_text(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
