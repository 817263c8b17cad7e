"""Write the miniature's model card from its weights: training log, figures, speed.

Run as ``python docs/make_model_card.py`` from anywhere; the numbers are never written by hand.
"""

import csv
import os
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.encoders import Encoder, load_encoder  # noqa: E402
from engine.store import default_store  # noqa: E402
from engine.tasks import CONTROL, TASKS, load_task  # noqa: E402
from engine.tasks.miniature import render  # noqa: E402

DOCS = ROOT / "docs"
CARD = DOCS / "model_card.md"
BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
COLUMNS = ("step", "loss", "accuracy", "rate", "scale", "seconds")
PANELS = (("loss", "contrastive loss (nats)"), ("accuracy", "own caption ranked first (fraction)"))
WIDTH, HEIGHT, LEFT, BOTTOM = 420, 240, 48, 36  # of a panel, in SVG units


def write_log(log: list[dict]) -> None:
    """Write the training log as CSV and its curves as SVG.

    Args:
        log: Entries of ``engine.encoders.pretrain``.
    """
    with (DOCS / "pretraining.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([f"{entry[column]:.6g}" for column in COLUMNS] for entry in log)
    panels = [panel(log, key, label, i * (WIDTH + 20)) for i, (key, label) in enumerate(PANELS)]
    size = f'width="{2 * WIDTH + 20}" height="{HEIGHT}"'
    style = 'font-family="sans-serif" font-size="12" fill="#555"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>'
    ground = '<rect width="100%" height="100%" fill="white"/>'
    (DOCS / "pretraining.svg").write_text("\n".join([head, ground, *panels, "</svg>\n"]))


def panel(log: list[dict], key: str, label: str, offset: int) -> str:
    """Draw one quantity against the step.

    Args:
        log: Entries with ``step`` and ``key``.
        key: Which quantity.
        label: What to write over the panel, with its unit.
        offset: Left edge, in SVG units.

    Returns:
        SVG elements.
    """
    steps, top = log[-1]["step"], max(entry[key] for entry in log)
    across, down = WIDTH - LEFT - 12, HEIGHT - BOTTOM - 28

    def place(step: float, value: float) -> str:
        return f"{offset + LEFT + across * step / steps:.1f},{28 + down * (1 - value / top):.1f}"

    points = " ".join(place(entry["step"], entry[key]) for entry in log)
    left, floor = offset + LEFT, 28 + down
    ticks = "".join(
        f'<text x="{left - 6}" y="{floor - down * share + 4:.0f}" text-anchor="end">'
        f"{top * share:.2g}</text>"
        for share in (0, 0.5, 1)
    )
    return (
        f'<text x="{left}" y="16">{label}</text>{ticks}'
        f'<path d="M{left} 28V{floor}H{left + across}" fill="none" stroke="#999"/>'
        f'<polyline points="{points}" fill="none" stroke="#0072B2" stroke-width="1.5"/>'
        f'<text x="{left + across}" y="{floor + 18}" text-anchor="end">step {steps:,}</text>'
    )


def zero_shot(encoder: Encoder, task: str, shifted: bool) -> float:
    """Measure the pre-trained encoder on one family's test pictures.

    Args:
        encoder: The miniature.
        task: One of the nine families.
        shifted: In the task's own style, or in the broad style of pre-training.

    Returns:
        Accuracy on 1,000 pictures, a fraction.
    """
    images, labels = render(task, "test", range(1000), shifted=shifted)
    head, right = encoder.head(load_task(task)), 0
    for at in range(0, len(labels), 250):
        x = encoder.preprocess(images[at : at + 250])
        guesses = (encoder.features(encoder.theta0, x) @ head.T).argmax(1)
        right += int((guesses == labels[at : at + 250]).sum())
    return right / len(labels)


def images_a_second(encoder: Encoder) -> float:
    """Time forward passes of batches of 250, on as many threads as torch is set to.

    Args:
        encoder: The miniature.

    Returns:
        Images a second, the median of nine batches after two to warm up.
    """
    x = encoder.preprocess(render(TASKS[0], "test", range(250))[0])
    seconds = []
    for _ in range(11):
        began = time.perf_counter()
        encoder.features(encoder.theta0, x)
        seconds.append(time.perf_counter() - began)
    return len(x) / sorted(seconds[2:])[4]


def speeds(encoder: Encoder) -> dict[int, float]:
    """Time forward passes on one thread, and on as many as there are cores.

    Args:
        encoder: The miniature.

    Returns:
        Images a second by threads.
    """
    before, found = torch.get_num_threads(), {}
    for threads in sorted({1, len(os.sched_getaffinity(0))}):
        torch.set_num_threads(threads)
        found[threads] = images_a_second(encoder)
    torch.set_num_threads(before)
    return found


def measured() -> list[str]:
    """Measure everything the card states.

    Returns:
        Lines of Markdown.
    """
    store = default_store()
    entry = store.one("encoder", "make it with `python -m engine pretrain`", name="miniature")
    encoder, log, recipe = load_encoder("miniature", store), entry.meta["log"], entry.meta["recipe"]
    write_log(log)
    parameters = sum(value.numel() for value in encoder.theta0.values())
    rows, plain, own = [], [], []
    with torch.no_grad():
        rates = speeds(encoder)
        for task in (*TASKS, CONTROL):
            plain.append(zero_shot(encoder, task, shifted=False))
            own.append(zero_shot(encoder, task, shifted=True))
            rows.append(f"| `{task}` | {100 * plain[-1]:.1f} | {100 * own[-1]:.1f} |")
    tasks = len(TASKS)
    means = [100 * sum(values[:tasks]) / tasks for values in (plain, own)]
    said = ", ".join(f"{key} {value}" for key, value in recipe.items())
    speed = ", ".join(
        f"{rate:,.0f} with {threads} CPU thread{'s' * (threads > 1)}"
        for threads, rate in rates.items()
    )
    return [
        f"- Weights: {entry.size / 1e6:.1f} MB of safetensors, digest `{entry.digest[:16]}`; "
        f"{parameters:,} parameters in the image tower.",
        f"- Recipe: {said}.",
        f"- {log[-1]['step']:,} steps in {log[-1]['seconds'] / 60:.0f} minutes of training on "
        f"{entry.meta['device']} (rendering not counted), last loss {log[-1]['loss']:.3f} nats; "
        "the whole log is in [pretraining.csv](pretraining.csv).",
        f"- Forward passes here, images a second: {speed}; batches of 250.",
        "",
        "| zero-shot accuracy, %, 1,000 test pictures each | broad style | the task's own style |",
        "|---|---|---|",
        *rows,
        f"| mean of the {tasks} tasks | {means[0]:.1f} | {means[1]:.1f} |",
    ]


def main() -> None:
    """Replace what stands between the marks of the card."""
    text = CARD.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    CARD.write_text("\n".join([before + BEGIN, *measured(), END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
