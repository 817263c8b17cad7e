r"""Time the 21-point addition sweep through responses against one linearized pass a point.

The obvious loop is the paper's Figure 7: for each alpha and each image one ``torch.func.jvp`` of
the encoder along alpha times the summed task vector. Responses take one tangent an image, whatever
the number of alphas; eight of them give every setting of eight sliders as well. Both routes run on
the same images in one process, alternating, and must agree.

    python benchmarks/bench_alpha.py                       # the miniature
    python benchmarks/bench_alpha.py --random-weights      # before it is made
    python benchmarks/bench_alpha.py --encoder ViT-B-32-quickgelu:random \
        --tasks handwriting signs --images 4 --batch 4 --repeats 1      # minutes

With MALLOC_TRIM_THRESHOLD_ and MALLOC_MMAP_THRESHOLD_ set as in the Makefile, page faults do not
drown the figures.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.func import jvp

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from engine.encoders import Encoder, load_encoder, plain_attention
from engine.evaluate import ALPHAS
from engine.merging import prepare
from engine.provenance import provenance
from engine.responses import correct_over, merged_scores, predictions, responses
from engine.store import Store, default_store
from engine.tasks import TASKS, Split, Task, load_split, load_task

TOLERANCE = 2e-5  # of the largest score: float32 passes summed in another order


@dataclass(frozen=True, eq=False)
class Setup:
    """What both routes work on."""

    encoder: Encoder
    tasks: dict[str, Task]
    splits: dict[str, Split]
    taus: dict[str, dict[str, Tensor]]
    summed: dict[str, Tensor]
    batch: int

    @property
    def images(self) -> int:
        """All tasks' images."""
        return sum(len(split.labels) for split in self.splits.values())


def obvious(setup: Setup, alphas: Sequence[float] = ALPHAS) -> dict[str, list[Tensor]]:
    """Return every image's scores at every alpha, one forward-mode pass each."""
    encoder, theta0, found = setup.encoder, setup.encoder.theta0, {}
    for name, split in setup.splits.items():
        head = encoder.head(setup.tasks[name]).cpu().double()
        found[name] = []
        for alpha in alphas:
            change = {key: alpha * value for key, value in setup.summed.items()}
            parts = []
            for images in split.images.split(setup.batch):
                x = encoder.preprocess(images)
                with torch.no_grad(), plain_attention():
                    z0, jz = jvp(lambda t, x=x: encoder.features(t, x), (theta0,), (change,))
                parts.append(((z0 + jz).float().cpu().double() @ head.T).float())
            found[name].append(torch.cat(parts))
    return found


def through_responses(setup: Setup, taus: dict[str, dict[str, Tensor]]) -> dict[str, tuple]:
    """Return scores and right predictions at every shared alpha, by task."""
    grid = torch.tensor(ALPHAS, dtype=torch.float64)[:, None].expand(-1, len(taus))
    found = {}
    for name, split in setup.splits.items():
        reading = responses(setup.encoder, setup.tasks[name], split, taus, setup.batch)
        scores = reading.scores()
        found[name] = scores, correct_over(scores, split.labels, grid)
    return found


def forward(setup: Setup) -> None:
    """Encode every image once: the unit of cost."""
    with torch.no_grad():
        for split in setup.splits.values():
            for images in split.images.split(setup.batch):
                setup.encoder.features(setup.encoder.theta0, setup.encoder.preprocess(images))


def agreement(setup: Setup, loop: dict[str, list[Tensor]], ours: dict[str, tuple]) -> dict:
    """Return how far scores and predictions of the two routes differ, at every alpha."""
    worst, differing, widest, predicted, counts_equal = 0.0, 0, 0.0, 0, True
    for name, (scores, counts) in ours.items():
        labels = setup.splits[name].labels
        for alpha, expected, count in zip(ALPHAS, loop[name], counts.tolist(), strict=True):
            got = merged_scores(scores, [alpha] * (len(scores) - 1))
            scale = float(expected.abs().max())
            worst = max(worst, float((got - expected).abs().max()) / scale)
            ours_say, loop_says = predictions(got), predictions(expected)
            other = ours_say != loop_says
            predicted += len(labels)
            differing += int(other.sum())
            if other.any():  # a tie to rounding: by how much the one wins over the other
                top = expected[other].topk(2, dim=1).values
                widest = max(widest, float((top[:, 0] - top[:, 1]).max()) / scale)
            counts_equal &= count == int((loop_says == labels).sum())
    return {
        "largest_score_difference": worst,
        "tolerance": TOLERANCE,
        "predictions": predicted,
        "predictions_differing": differing,
        "largest_lead_where_differing": widest,
        "same_accuracies": counts_equal,
        "agree": worst <= TOLERANCE and widest <= 2 * TOLERANCE,
    }


def timed(action: Callable[[], object], device: torch.device) -> tuple[float, float, object]:
    """Return wall and processor seconds and result of one call, an accelerator's queue included."""
    wait = {"cuda": torch.cuda.synchronize, "mps": torch.mps.synchronize}.get(device.type, int)
    wait()
    began, worked = time.perf_counter(), time.process_time()
    result = action()
    wait()
    return time.perf_counter() - began, time.process_time() - worked, result


def measure(setup: Setup, repeats: int) -> dict:
    """Return the cost of every route, run in turn after a warm-up on a few images."""
    device = next(iter(setup.encoder.theta0.values())).device
    routes = {
        "forward": lambda: forward(setup),
        "responses_shared": lambda: through_responses(setup, {"sum": setup.summed}),
        "responses_sliders": lambda: through_responses(setup, setup.taus),
        "obvious": lambda: obvious(setup),
    }
    for task in setup.tasks.values():
        setup.encoder.head(task)  # the encoder remembers it: the first route must not pay for all
    few = {name: split.take(setup.batch) for name, split in list(setup.splits.items())[:1]}
    warm = Setup(setup.encoder, setup.tasks, few, setup.taus, setup.summed, setup.batch)
    obvious(warm, ALPHAS[-1:])
    through_responses(warm, setup.taus)
    seconds, work, results = {name: [] for name in routes}, {name: [] for name in routes}, {}
    for _ in range(repeats):
        for name, route in routes.items():
            spent, worked, results[name] = timed(route, device)
            seconds[name].append(spent)
            work[name].append(worked)
    T, N = len(setup.taus), setup.images
    passes = {
        "forward": {"forwards": N, "tangents": 0},
        "responses_shared": {"forwards": N, "tangents": N},
        "responses_sliders": {"forwards": N, "tangents": N * T},
        "obvious": {"forwards": N * len(ALPHAS), "tangents": N * len(ALPHAS)},
    }
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    worked = {name: statistics.median(values) for name, values in work.items()}
    return {
        "routes": {
            name: {
                "seconds": middle[name],
                "all_seconds": seconds[name],
                "cpu_seconds": worked[name],
                "in_forwards": middle[name] / middle["forward"],
                "ratio_to_obvious": middle["obvious"] / middle[name],
                "cpu_ratio_to_obvious": worked["obvious"] / worked[name],
                **passes[name],
            }
            for name in routes
        },
        "agreement": {
            name: agreement(setup, results["obvious"], results[name])
            for name in ("responses_shared", "responses_sliders")
        },
    }


def load(args: argparse.Namespace, store: Store) -> tuple[Setup, dict]:
    """Return encoder, tasks, images and task vectors, and what they are."""
    said = {"weights": "stored"}
    if args.random_weights:
        encoder, said["weights"] = _untrained_miniature(), "random"
    else:
        encoder = load_encoder(args.encoder, store, args.device)
    encoder = encoder.to(args.device)
    tasks = {name: load_task(name) for name in args.tasks}
    splits, taus = {}, {}
    for number, (name, task) in enumerate(tasks.items()):
        splits[name] = load_split(task, "test", 32, store, limit=args.images)
        if encoder.image_size != 32:  # larger input: the same pictures, enlarged
            larger = torch.nn.functional.interpolate(
                splits[name].images.float(), size=encoder.image_size, mode="nearest"
            )
            kept = splits[name]
            splits[name] = Split(kept.task, kept.name, larger.byte(), kept.labels, kept.digest)
        taus[name], said[f"tau of {name}"] = _task_vector(store, encoder, name, args.mode, number)
    moved = {
        name: {key: tau[key].to(value) for key, value in encoder.theta0.items()}
        for name, tau in taus.items()
    }
    return Setup(encoder, tasks, splits, moved, prepare(moved, "sum"), args.batch), said


def _untrained_miniature() -> Encoder:
    """Return the miniature's architecture with random weights in both towers."""
    from engine.encoders.miniature import CONFIG, tokenizer
    from engine.encoders.towers import build_model, make_encoder

    torch.manual_seed(0)
    return make_encoder("miniature (untrained)", build_model(CONFIG), CONFIG, tokenizer(CONFIG))


def _task_vector(
    store: Store, encoder: Encoder, task: str, mode: str, seed: int
) -> tuple[dict[str, Tensor], str]:
    """Return the stored task vector, or a random one of 2 % of each parameter's size."""
    trained = "linear" if mode == "linear" else "nonlinear"
    found = store.find("checkpoint", encoder_digest=encoder.digest, task=task, mode=trained)
    if found:
        return store.get(found[0]), f"checkpoint {found[0].digest[:12]}"
    source = torch.Generator().manual_seed(seed)
    tau = {
        key: 0.02 * float(value.std(correction=0)) * torch.randn(value.shape, generator=source)
        for key, value in encoder.theta0.items()
    }
    return tau, f"random, seed {seed}"


def table(record: dict) -> str:
    """Return the figures as text."""
    names = {
        "forward": "one plain forward pass an image",
        "responses_shared": "responses of the sum: 21 shared alphas",
        "responses_sliders": f"responses of {record['T']} vectors: every slider",
        "obvious": "obvious loop: 21 linearized passes",
    }
    lines = [
        f"{record['encoder']} on {record['device']}, {record['threads']} thread(s): "
        f"{record['images']} images of {record['T']} task(s), median of {record['repeats']}",
        f"{'':<42}{'seconds':>9}{'forwards':>10}{'tangents':>10}{'cost':>8}"
        f"{'speed-up':>10}{'by CPU':>10}",
    ]
    for name, title in names.items():
        r = record["routes"][name]
        ratio, cpu = (
            "" if name == "forward" else f"{r[f'{kind}ratio_to_obvious']:.1f} x"
            for kind in ("", "cpu_")
        )
        lines.append(
            f"{title:<42}{r['seconds']:>9.3f}{r['forwards']:>10}{r['tangents']:>10}"
            f"{r['in_forwards']:>8.1f}{ratio:>10}{cpu:>10}"
        )
    lines.append(
        "cost: in plain forward passes of the same images; by CPU: ratio of processor seconds, "
        "which a busy machine disturbs less"
    )
    for name, same in record["agreement"].items():
        lines.append(
            f"{name}: scores within {same['largest_score_difference']:.1e} of the largest, "
            f"{same['predictions_differing']} of {same['predictions']} predictions differ"
            + (
                f" (leads up to {same['largest_lead_where_differing']:.1e})"
                if same["predictions_differing"]
                else ""
            )
        )
    return "\n".join(lines)


def main() -> int:
    """Return 0 once the table is printed and the JSON written; 1 if the routes disagree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--encoder", default="miniature")
    parser.add_argument("--random-weights", action="store_true", help="the miniature, untrained")
    parser.add_argument("--mode", choices=("posthoc", "linear"), default="linear")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--images", type=int, default=64, help="a task")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    setup, said = load(args, default_store())
    record = {
        "what": "21-point addition sweep, linearized",
        "encoder": setup.encoder.name,
        "encoder_digest": setup.encoder.digest,
        **said,
        "mode": args.mode,
        "T": len(setup.taus),
        "images": setup.images,
        "alphas": len(ALPHAS),
        "batch": args.batch,
        "repeats": args.repeats,
        "device": args.device,
        "threads": torch.get_num_threads(),
        **measure(setup, args.repeats),
        **provenance(),
    }
    print(table(record))
    text = json.dumps(record, indent=1)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")
    else:
        print(text)
    return 0 if all(same["agree"] for same in record["agreement"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
