"""The sections of the GPU checklist: each runs scripts of this folder and returns rows."""

import argparse
import contextlib
import importlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks import measuring
from benchmarks.bench_finetune import AIM_MEMORY, AIM_TIME
from benchmarks.bench_hvp import LIMIT

PATIENCE = 540.0  # seconds a process may take
MINUTES = 30.0  # the whole ViT-B/32 programme, at most
# over the bare products; by count 4/3: passes forth and back through 50 tokens, products with 400
KERNEL = 2.0
LARGE = "ViT-L-14-quickgelu:random"


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        check: What is stated.
        measured: What was found, in words.
        aim: What it should be; empty where nothing is promised.
        holds: Whether it is; None where nothing is promised, or nothing could be measured.
    """

    check: str
    measured: str
    aim: str = ""
    holds: bool | None = None


class Asked:
    """What to run on, and how scripts are run."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.device, self.quick = args.device, args.quick
        self.encoder = "miniature" if args.quick else args.encoder
        self.batch = 8 if args.quick else 128
        self.precision = "bfloat16" if args.device == "cuda" else "float32"

    def run(self, module: str, *words: object) -> dict:
        """Run a script of this folder and return the object it prints last.

        In a process of its own; when only trying out, in this one.

        Args:
            module: Of this folder.
            *words: Its arguments.

        Returns:
            The object; {"failed": why} where there is none.
        """
        told = [str(word) for word in words]
        if not self.quick:
            return measuring.fresh(f"benchmarks.{module}", told, PATIENCE)
        kept, sys.argv, out = sys.argv, [module, *told], io.StringIO()
        try:
            with contextlib.redirect_stdout(out):
                importlib.import_module(f"benchmarks.{module}").main()
            return json.loads(out.getvalue().splitlines()[-1])
        except Exception as error:  # as in a process of its own: said in the table
            return {"failed": f"{type(error).__name__}: {error}"[:200]}
        finally:
            sys.argv = kept

    def fast(self, holds: bool) -> bool | None:
        """Return whether a promise about speed holds; nothing when only trying out."""
        return None if self.quick else bool(holds)

    def part(self, name: str, *words: object) -> dict:
        """Run a part of ``gpu_parts``."""
        common = ["--device", self.device, "--encoder", self.encoder, "--batch", self.batch]
        return self.run("gpu_parts", name, *common, *["--quick"] * self.quick, *words)


def machine(asked: Asked) -> list[Row]:
    """The device and its ceilings, measured."""
    found = asked.part("machine")
    if "failed" in found:
        return [Row("device", found["failed"], "", False)]
    limits = found["ceilings"]
    memory = f"{found['memory'] / 2**30:.0f} GiB" if found["memory"] else "memory unknown"
    return [
        Row("device", f"{found['gpus']} x {found['name']}, {memory}, torch {found['torch']}"),
        Row("bf16 matrix products", f"{limits['bfloat16'] / 1e12:.3g} TFLOP/s"),
        Row("fp32 matrix products", f"{limits['float32'] / 1e12:.3g} TFLOP/s"),
        Row("copies on the device", f"{limits['copy'] / 1e12:.3g} TB/s read and written"),
    ]


def exact(asked: Asked) -> list[Row]:
    """Gradients on the device against float64 on the CPU."""
    found = asked.part("exact")
    # float32 over 12 layers; bfloat16 has 8 bits; checkpointing repeats the same kernels
    aims = {"float32": 1e-4, "bfloat16": 0.1, "checkpointed": 1e-2}
    return _each(
        found,
        lambda name, value: Row(
            f"{name} gradient, relative error" + " to kept blocks" * name.endswith("ed"),
            f"{value:.1e}",
            f"<= {aims[name.split()[1]]:g}",
            value <= aims[name.split()[1]],
        ),
    )


def bits(asked: Asked) -> list[Row]:
    """The same bits twice, and stopped and resumed."""
    return _each(
        asked.part("bits"),
        lambda name, same: Row(
            f"{name}: same bits", "yes" if same else "no", "yes", bool(same)
        ),
    )  # fmt: skip


def encode(asked: Asked) -> list[Row]:
    """Forward passes, tangents and the way of the pictures."""
    words = ["--encoder", asked.encoder, "--device", asked.device, "--json", "--repeats"]
    words += [1, "--batch", 4, "--pictures", 12, "--quick", "--skip", "compiled"] * asked.quick
    words += [10, "--batch", 256, "--pictures", 2048] * (not asked.quick)
    found = asked.run("bench_encode", *words)
    if "failed" in found:
        return [Row("bench_encode", found["failed"], "", False)]
    rows = []
    for name, row in found["passes"].items():
        if "failed" in row:
            rows.append(Row(f"pass: {name}", f"failed: {row['failed']}"))
            continue
        said = f"{row['images_a_second']:,.0f} images/s"
        if "share_of_ceiling" in row:
            said += f", {100 * row['share_of_ceiling']:.0f} % of the ceiling"
        rows.append(Row(f"pass: {name}", said))
    ways, fastest = found["pictures"], found["passes"]["bfloat16"].get("images_a_second", 0.0)
    loops = [ways["loops"][name].get("images_a_second", 0.0) for name in ("rebuilt", "served")]
    ready = ways["prepared_a_second"]
    return [
        *rows,
        Row(
            "pictures decoded once",
            f"{ways['decoded_a_second']:,.0f} a second, floor "
            f"{ways['floor_decoded_a_second']:,.0f}",
        ),
        Row(
            "pictures served, cropped, ready on the device",
            f"{ready:,.0f} a second",
            f">= a third of the bf16 passes ({fastest / 3:,.0f}): a step has three",
            asked.fast(ready >= fastest / 3),
        ),
        Row("one alpha served / rebuilt", f"{loops[1] / max(loops[0], 1e-9):.1f}x"),
    ]


def finetuning(asked: Asked) -> list[Row]:
    """Linear and non-linear steps, and the whole programme."""
    words = [
        "--encoder", asked.encoder, "--device", asked.device, "--batch", asked.batch, "--json",
        "--precisions", asked.precision,
    ]  # fmt: skip
    words += ["--repeats", 1, "--whole-steps", 2, "--quick", "--no-memory"] * asked.quick
    words += ["--repeats", 10, "--whole-steps", 30] * (not asked.quick)
    found = asked.run("bench_finetune", *words)
    if "failed" in found:
        return [Row("bench_finetune", found["failed"], "", False)]
    part = found["precisions"][asked.precision]
    rows = [
        Row("linear gradient against the paper's route", f"{found['agreement']:.1e}", "<= 1e-4",
            found["agreement"] <= 1e-4)
    ]  # fmt: skip
    rows += [_step_row(name, row, part, asked) for name, row in part["routes"].items()]
    return rows + _ratios(part["summary"], asked)


def _step_row(name: str, row: dict, part: dict, asked: Asked) -> Row:
    """Return the line of one route."""
    title = f"{name}, batch {asked.batch}, {asked.precision}"
    if "failed" in row:
        return Row(title, f"failed: {row['failed']}")
    said = f"{1e3 * row['seconds']:.2f} ms"
    if "images_a_second" in row:
        said += f", {row['images_a_second']:,.0f} images/s"
    if name in part["summary"]["share_of_ceiling"]:
        said += f", {100 * part['summary']['share_of_ceiling'][name]:.0f} % of the ceiling"
    if "step" in row.get("memory", {}):
        said += f", {row['memory']['step'] / 2**30:.2f} GiB"
    return Row(title, said)


def _ratios(summary: dict, asked: Asked) -> list[Row]:
    """Return the promises about ratios and the programme."""
    rows = []
    for title, aim in (("time", AIM_TIME), ("memory", AIM_MEMORY)):
        ratios = summary["over_nonlinear"].get(title, {})
        if "linear" in ratios:
            said = f"{ratios['linear']:.2f}x; the paper's route {ratios.get('jvp', 0):.2f}x"
            rows.append(
                Row(f"linear / non-linear gradient, {title}", said, f"<= {aim}",
                    asked.fast(ratios["linear"] <= aim))
            )  # fmt: skip
    if "programme_minutes" in summary:
        whole, minutes = summary["whole_over_nonlinear"], summary["programme_minutes"]
        rows += [
            Row("linear / non-linear whole step", f"{whole:.2f}x", f"<= {AIM_TIME}",
                asked.fast(whole <= AIM_TIME)),
            Row(f"8 tasks x 2 modes x 2,000 steps of {asked.batch}", f"{minutes:.1f} minutes",
                f"<= {MINUTES:.0f}", asked.fast(minutes <= MINUTES)),
        ]  # fmt: skip
    return rows


def large(asked: Asked) -> list[Row]:
    """A linear step of ViT-L/14 with its blocks computed again."""
    encoder = asked.encoder if asked.quick else LARGE
    found = asked.part("large", "--encoder", encoder)
    return _each(
        found,
        lambda name, row: Row(
            f"{encoder}, {name}, batch {asked.batch}",
            f"failed: {row['failed']}"
            if "failed" in row
            else f"{1e3 * row['seconds']:.0f} ms, {row['peak'] / 2**30:.1f} GiB",
        ),
    )


def memory(asked: Asked) -> list[Row]:
    """The memory estimate before a run against the peak of the run."""

    def told(name: str, row: dict) -> Row:
        if "failed" in row:
            return Row(f"memory of a {name} fine-tune", row["failed"], "", False)
        ratio = row["estimate"] / row["peak"]
        said = f"{row['estimate'] / 2**30:.2f} of {row['peak'] / 2**30:.2f} GiB, {ratio:.2f}x"
        return Row(f"memory of a {name} fine-tune, estimated", said, "0.95 .. 1.4",
                   asked.fast(0.95 <= ratio <= 1.4))  # fmt: skip

    modes = ["--modes", "linear"] if asked.quick else []
    return _each(asked.part("memory", *modes), told)


def xi(asked: Asked) -> list[Row]:
    """Non-linear disentanglement maps: images a second against the ceiling."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "xi.json"
        words = ["--device", asked.device, "--encoder", asked.encoder, "--skip-linearized"]
        words += ["--precision", asked.precision, "--out", out]
        words += ["--images", 4, "--repeats", 1, "--batch", 4] * asked.quick
        words += ["--images", 1024, "--repeats", 2, "--batch", 256] * (not asked.quick)
        asked.run("bench_xi", *words)  # its last line is no object; the file is read
        if not out.is_file():
            return [Row("bench_xi", "failed; run python -m benchmarks.bench_xi", "", False)]
        found = json.loads(out.read_text())
    ours, gpu = found["nonlinear"]["ours"], found["gpu"]
    rate = 2 / max(ours["an_image"][0], 1e-12)  # an image of each of two tasks
    rows = [Row("xi map, images a second from its cells", f"{rate:,.0f}")]
    if "share_of_ceiling" in gpu:
        said = f"{gpu['images_a_second']:,.0f} images/s, {100 * gpu['share_of_ceiling']:.0f} %"
        rows.append(Row("xi passes, share of the bf16 ceiling", said))
    hours = ours["20x20_2048_images"][0] / 60
    return [*rows, Row("xi map of 20 x 20 on 2,048 images a task", f"{hours:.1f} minutes")]


def ntk(asked: Asked) -> list[Row]:
    """A tangent kernel of 400 points against the floor of its products."""
    points = 4 if asked.quick else 400
    words = ["--child", "layerwise", points, "--device", asked.device, "--encoder", asked.encoder]
    found = asked.run("bench_ntk", *words)
    least = asked.part("kernel_floor", "--points", points)
    if "failed" in found or "failed" in least:
        return [Row(f"ntk, N = {points}", str(found.get("failed") or least["failed"]), "", False)]
    ratio = found["seconds"] / least["seconds"]
    said = f"{found['seconds']:.2f} s, {found['bytes'] / 2**30:.1f} GiB"
    said += f"; bare products of ViT-B/32 {least['seconds']:.2f} s, {ratio:.2f}x"
    like = asked.quick or asked.encoder.startswith("ViT-B-32")  # the products are this tower's
    aim = f"<= {KERNEL:g}x" if like else ""
    holds = asked.fast(ratio <= KERNEL) if like else None
    return [Row(f"ntk, N = {points}, one logit, fp32", said, aim, holds)]


def curvature(asked: Asked) -> list[Row]:
    """Exact Hessian-vector products in units of a gradient."""
    found = asked.part("curvature")
    if "failed" in found:
        return [Row("Hessian-vector products", found["failed"], "", False)]
    rows = []
    for mode in ("nonlinear", "linear"):
        gradient, product = found[mode]["gradient"], found[mode]["hvp"]
        if isinstance(gradient, str) or isinstance(product, str):
            rows.append(Row(f"Hessian-vector product, {mode}", f"{gradient}; {product}", "", False))
            continue
        said = f"{1e3 * product:.1f} ms for {found['images']} images, {product / gradient:.2f}x"
        rows.append(
            Row(f"Hessian-vector product, {mode}, fp32, over a gradient", said, f"<= {LIMIT:g}x",
                asked.fast(product <= LIMIT * gradient))
        )  # fmt: skip
    return rows


def together(asked: Asked) -> list[Row]:
    """One fine-tune over several GPUs."""
    count = torch.cuda.device_count() if asked.device == "cuda" else 2
    if count < 2:
        return [Row("one fine-tune over several GPUs", "left out: there is one GPU")]
    steps = ["--steps", 4] if asked.quick else []
    found = asked.part("together", "--processes", count, *steps)
    if "failed" in found:
        return [Row(f"one fine-tune over {count} processes", found["failed"], "", False)]
    alone, shared = found["1"], found[str(count)]
    differ = abs(alone["loss"] - shared["loss"]) / abs(alone["loss"])
    said = f"{1e3 * alone['step']:.1f} ms a step alone, {1e3 * shared['step']:.1f} ms together"
    said += f", last loss differs by {differ:.1e}"
    return [Row(f"one fine-tune over {count} processes", said, "<= 1e-2", differ <= 1e-2)]


SECTIONS: dict[str, Callable[[Asked], list[Row]]] = {
    "machine": machine,
    "exact": exact,
    "bits": bits,
    "encode": encode,
    "finetune": finetuning,
    "large": large,
    "memory": memory,
    "xi": xi,
    "ntk": ntk,
    "curvature": curvature,
    "together": together,
}


def _each(found: dict, told: Callable[[str, object], Row]) -> list[Row]:
    """Return a row for each part of an answer, or the one of its failure."""
    if "failed" in found:
        return [Row("this section", str(found["failed"]), "", False)]
    return [told(name, value) for name, value in found.items()]
