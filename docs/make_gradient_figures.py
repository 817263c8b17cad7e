"""Draw the figures of findings.md on task vectors and gradients from the kept records.

Run as ``python docs/make_gradient_figures.py`` from anywhere; nothing is measured anew.
"""

import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.encoders import load_encoder  # noqa: E402
from engine.exhibits.drawing import INK, SETTINGS  # noqa: E402
from engine.gradients import joined, kept_gradients  # noqa: E402
from engine.store import Store  # noqa: E402

DOCS = ROOT / "docs"
LONG = re.compile(r"-?\d+\.\d{3,}")
INKED = {name: "#222" if value == INK else value for name, value in SETTINGS.items()}
# Okabe and Ito (2008); mark and dash tell the same as the colour
MODES = {
    "nonlinear": ("non-linear", "#0072B2", "D", "-"),
    "linear": ("linear", "#009E73", "^", "--"),
}
ERRORS = {
    "raw": ("raw, ‖τ + ηKg‖", "#D55E00", "o", "-"),
    "corrected": ("with η²K(K−1)/2 · Hg", "#0072B2", "D", "-"),
    "bound_posteriori": ("bound, estimated β", "#CC79A7", "s", "--"),
}
SHARES = {
    "displacement_share": "steps ‖θᵏ − θᵏ⁻¹‖",
    "gradient_share": "full-batch gradients ‖g_k‖",
    "used_gradient_share": "mean gradients used",
}
METHODS = {
    "one-shot": ("one-shot, mean", "#0072B2", "o", "-"),
    "ATM": ("ATM, mean", "#D55E00", "D", "--"),
    "joint": ("joint training", "#009E73", "s", ":"),
}
REGIMES = {"gd": "full-batch descent", "sgd": "minibatch SGD", "adamw": "AdamW"}


def answers() -> dict[str, list[dict]]:
    """Read the embedded records.

    Returns:
        By regime, each question's answer, the fullest first.
    """
    folder = ROOT / "cache" / "embedded"
    store = Store(folder)
    records = joined(kept_gradients(store, load_encoder("miniature", store).digest))
    return {name: [r for r in records if r["regime"] == name] for name in REGIMES}


def holding(records: Sequence[Mapping], section: str) -> Mapping | None:
    """Return the first record that has a section; None without one."""
    return next((record for record in records if record[section] is not None), None)


def images(record: Mapping) -> str:
    """Say on how many training images a task the gradients rest."""
    return f"n = {max(record['images'].values())} images a task"


def errors(ax: Axes, record: Mapping, mode: str) -> None:
    """Draw error against rate, the geometric mean over the tasks and their range.

    Args:
        ax: Where.
        record: With exactness.
        mode: Of training.
    """
    found = record["exactness"][mode]
    rates, tasks = found["rates"], found["tasks"].values()
    for kind, (name, colour, mark, dash) in ERRORS.items():
        columns = list(zip(*(task[kind] for task in tasks), strict=True))
        if kind != "bound_posteriori":
            slopes = [task[f"slope_{kind}"] for task in tasks]
            name += f": slope {sum(slopes) / len(slopes):.2f}"
        middle = [math.exp(sum(map(math.log, column)) / len(column)) for column in columns]
        ax.plot(rates, middle, dash, color=colour, marker=mark, ms=4, lw=1.2, label=name)
        ax.fill_between(rates, *zip(*((min(c), max(c)) for c in columns), strict=True),
                        color=colour, alpha=0.12, lw=0)  # fmt: skip
    ax.axhline(found["floor"], color="#8A939C", ls=":", lw=1, label="rounding of θ₀, float64")
    ax.set(xscale="log", yscale="log", xlabel="learning rate η", ylabel="‖error‖ (weights)")
    ax.set_xticks(rates, [f"{rate:.1e}" for rate in rates], fontsize=7)
    ax.minorticks_off()
    n, kind = max(found["images"].values()), "errors exact, bound approximate"
    ax.set_title(f"{MODES[mode][0]}, K = {found['steps']}, n = {n} images a task\n{kind}")
    ax.legend(fontsize=7)


def shares(ax: Axes, record: Mapping, kind: str) -> None:
    """Draw an epoch's share of the summed norms, the mean over the tasks and their range.

    Args:
        ax: Where.
        record: With trajectories.
        kind: Of share.
    """
    epochs = range(1, record["epochs"] + 1)
    for mode, (name, colour, mark, dash) in MODES.items():
        tasks = record["trajectory"][mode]["tasks"].values()
        columns = list(zip(*(task[kind] for task in tasks), strict=True))
        means = [100 * sum(column) / len(column) for column in columns]
        ax.plot(epochs, means, dash, color=colour, marker=mark, ms=4, lw=1.2, label=name)
        ax.fill_between(epochs, [100 * min(c) for c in columns], [100 * max(c) for c in columns],
                        color=colour, alpha=0.12, lw=0)  # fmt: skip
    uniform = 100 / record["epochs"]
    ax.axhline(uniform, color="#8A939C", ls=":", lw=1, label=f"uniform, {uniform:.1f} %")
    ax.set(xlabel="epoch", ylabel=f"share of Σ {SHARES[kind]} (%)", ylim=(0, 100))
    ax.set_xticks(list(epochs))
    ax.set_title(f"{REGIMES[record['regime']]}, {images(record)}; exact")


def merging(ax: Axes, record: Mapping, mode: str) -> None:
    """Draw accuracy against epochs a task: merged once, in rounds, and trained together.

    Args:
        ax: Where.
        record: With iterative merging.
        mode: Of training.
    """
    for kind, (name, colour, mark, dash) in METHODS.items():
        rows = record["iterative"][mode]["methods"][kind]
        whiskers = [
            [100 * (row["absolute"] - row["low"]) for row in rows],
            [100 * (row["high"] - row["absolute"]) for row in rows],
        ]
        ax.errorbar([row["epochs"] for row in rows], [100 * row["absolute"] for row in rows],
                    whiskers, color=colour, marker=mark, ls=dash, ms=4, lw=1.2, capsize=2,
                    label=name)  # fmt: skip
    single = record["iterative"][mode]["single"]
    own = 100 * sum(single.values()) / len(single)
    ax.axhline(own, color="#8A939C", ls=":", lw=1, label=f"own models at the end, {own:.1f} %")
    ax.set(xlabel="epochs a task", ylabel="mean accuracy on test (%)", ylim=(38, 100))
    n = max(record["n_test"].values())
    about = f"exact, n = {n} test images a task, 95 % whiskers"
    ax.set_title(f"{REGIMES[record['regime']]}, {MODES[mode][0]}\n{about}")


def points(ax: Axes, record: Mapping, x: str, y: str) -> None:
    """Draw a point for each pair and mode, at alpha = 1.

    Args:
        ax: Where.
        record: With the bridge.
        x: Key of the horizontal axis.
        y: Key of the vertical one.
    """
    said = {
        "measured": "‖E‖ measured (weights)",
        "predicted": "‖E‖ predicted (weights)",
        "relative": "‖E‖ / ‖Σ τ‖",
        "xi": "ξ of the pair (0 to 2)",
    }
    for mode, (name, colour, mark, _) in MODES.items():
        mine = [p for p in record["bridge"]["points"] if p["mode"] == mode and p["alpha"] == 1]
        ax.plot([p[x] for p in mine], [p[y] for p in mine], mark, color=colour, ms=4, alpha=0.7,
                label=f"{name}, {len(mine)} pairs")  # fmt: skip
    if x == "predicted":
        low, high = (f([*ax.get_xlim(), *ax.get_ylim()]) for f in (min, max))
        ax.axline((0, 0), slope=1, color="#8A939C", ls=":", lw=1, label="prediction = measure")
        ax.set(xlim=(max(low, 0), high), ylim=(max(low, 0), high))
    ax.set(xlabel=said[x], ylabel=said[y])
    tested = f", {max(record['n_test'].values())} test" if x == "xi" else ""
    ax.set_title(f"{REGIMES[record['regime']]}; α = 1, exact\n{images(record)}{tested}")


def write(name: str, panels: Sequence[Callable[[Axes], None]], columns: int) -> None:
    """Draw panels side by side and write them as SVG, the same again to the byte.

    Args:
        name: Of the file, without its suffix.
        panels: Each draws on the axes it is given.
        columns: How many stand in a row.
    """
    rows = -(-len(panels) // columns)
    with rc_context({**INKED, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.4 * columns, 3.1 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for ax, panel in zip(axes, panels, strict=False):
            panel(ax)
            ax.grid(True)
            ax.title.set_fontsize(7.5)
        for ax in axes[len(panels) :]:
            ax.set_axis_off()
        if axes[0].get_legend() is None:
            axes[0].legend(fontsize=6.5)
        FigureCanvasSVG(figure)
        path = DOCS / f"{name}.svg"
        figure.savefig(path, format="svg", facecolor="white", metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", path.read_text("utf-8"), flags=re.DOTALL)
    # shorter coordinates; what is written stays as it is
    short = re.sub(r'"[^"]*"', lambda m: LONG.sub(lambda n: f"{float(n[0]):.2f}", m[0]), text)
    path.write_text("\n".join(line.rstrip() for line in short.splitlines()) + "\n", "utf-8")


def main() -> None:
    """Draw the four figures."""
    found = answers()
    exact = holding(found["gd"], "exactness")
    write("gradients_error", [lambda ax, m=m: errors(ax, exact, m) for m in MODES], 2)
    walked = [holding(found[name], "trajectory") for name in ("adamw", "sgd")]
    parts = [(record, kind) for record in walked if record for kind in SHARES]
    write("gradients_shares", [lambda ax, p=p: shares(ax, *p) for p in parts], len(SHARES))
    rounds = [holding(found[name], "iterative") for name in ("adamw", "sgd")]
    parts = [(record, mode) for record in rounds if record for mode in MODES]
    write("gradients_merging", [lambda ax, p=p: merging(ax, *p) for p in parts], len(MODES))
    bridged = [r for name in REGIMES if (r := holding(found[name], "bridge"))]
    parts = [(bridged[0], "predicted", "measured"), *((r, "xi", "relative") for r in bridged)]
    write("gradients_bridge", [lambda ax, p=p: points(ax, *p) for p in parts], 2)


if __name__ == "__main__":
    main()
