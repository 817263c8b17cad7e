"""Measuring local energy: points are drawn, the kernel is computed, its eigenfunctions read."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from engine.checks import check_same_parameters
from engine.encoders import Encoder
from engine.linearize import tangents
from engine.ntk.draws import choose_logits, draw_points
from engine.ntk.energy import LocalEnergy
from engine.ntk.kernels import Kernel, kernel, make_readout
from engine.ntk.plans import Plan, parts_held, plan
from engine.ntk.reading import RIDGES, leading_grid, read_energies
from engine.ntk.regression import fine_tuned
from engine.ntk.saving import LoadState, Saved, SaveState
from engine.provenance import provenance
from engine.store import digest_tensors
from engine.tasks import Split, Task

POINTS = 200  # the paper's


def local_energy(
    encoder: Encoder,
    task: Task,
    control: Task,
    task_split: Split,
    control_split: Split,
    points: int = POINTS,
    logits: int | str | Sequence[str] = 3,
    seed: int = 0,
    readout: str = "cosine",
    tau: Mapping[str, Tensor] | None = None,
    algorithm: str = "auto",
    batch: int | None = None,
    memory: int | None = None,
    progress: Callable[[float, float], None] | None = None,
    announce: Callable[[Plan], None] | None = None,
) -> LocalEnergy:
    """Measure local energy of one task against one control.

    Args:
        encoder: On the device and in the precision to compute in; the kernel is that at theta_0.
        task: Whose points are rows, and whose head gives the logits.
        control: Another task.
        task_split: Its training split; 2 ``points`` images at least.
        control_split: The control's.
        points: Of each block; the paper takes 200.
        logits: So many classes, evenly spaced; "all"; "trace"; or names of classes.
        seed: Of the draw of points.
        readout: "cosine" or "score".
        tau: Linearly fine-tuned task vector, for the coefficients; None to leave them out.
        algorithm: As in ``kernel``.
        batch: As in ``kernel``.
        memory: As in ``kernel``.
        progress: As in ``kernel``.
        announce: Told the plan before the work starts.

    Returns:
        The local energy, in every arrangement.

    Raises:
        UsageError: If a choice cannot be carried out: too few images, an unknown class, task and
            control the same, too little memory.
    """
    return local_energies(
        encoder, task, task_split, {control: control_split}, points, logits, seed, readout, tau,
        algorithm, batch, memory, progress, announce,
    )[0]  # fmt: skip


def local_energies(
    encoder: Encoder,
    task: Task,
    task_split: Split,
    controls: Mapping[Task, Split],
    points: int = POINTS,
    logits: int | str | Sequence[str] = 3,
    seed: int = 0,
    readout: str = "cosine",
    tau: Mapping[str, Tensor] | None = None,
    algorithm: str = "auto",
    batch: int | None = None,
    memory: int | None = None,
    progress: Callable[[float, float], None] | None = None,
    announce: Callable[[Plan], None] | None = None,
    leading: tuple[int, ...] | None = None,
    ridges: tuple[float, ...] = RIDGES,
    load_state: LoadState | None = None,
    save_state: SaveState | None = None,
    share: int | None = None,
    shares: int = 1,
    layer_scores: bool = False,
) -> list[LocalEnergy]:
    """Measure local energy of one task against several controls, which share its rows.

    With ``load_state`` and ``save_state`` each logit's kernel is saved as it is done, and looked
    for before it is computed: a call that was stopped goes on there, and several processes may
    take a share of the logits each.

    Args:
        encoder: As in ``local_energy``, which says all the rest too.
        task: Whose points are rows.
        task_split: Its training split.
        controls: Training splits of the controls.
        points: Of each block.
        logits: Which.
        seed: Of the draw of points.
        readout: "cosine" or "score".
        tau: Task vector for the coefficients.
        algorithm: As in ``kernel``.
        batch: As in ``kernel``.
        memory: As in ``kernel``.
        progress: As in ``kernel``.
        announce: Told the plan.
        leading: Values of R, the last is ``points``; None for about a dozen.
        ridges: Values of lambda, as fractions of the largest singular value.
        load_state: As ``Store.load_state``.
        save_state: As ``Store.save_state``.
        share: Which share of the logits' kernels to compute and save, from 1; None for all.
        shares: Into how many the logits are divided: every ``shares``-th belongs to one.
        layer_scores: Whether to score each block's own kernel too.

    Returns:
        One for each control, in their order; none for a share.
    """
    chosen = choose_logits(logits, task.classnames)
    if share is not None:
        chosen = chosen[share - 1 :: shares]
        if not chosen:
            return []
    draws = {
        control.name: draw_points(task, control, task_split, split, points, seed)
        for control, split in controls.items()
    }
    first = next(iter(draws.values()))
    n = points
    blocks = [task_split.images[first["task"]], task_split.images[first["heldout"]]]
    blocks += [split.images[draws[c.name]["control"]] for c, split in controls.items()]
    if tau is not None:
        check_same_parameters(f"the task vector of {task.name}", tau, encoder.theta0)
    asked = "trace" if logits == "trace" and share is None else chosen
    if announce is not None:
        held = parts_held(encoder, 2 if asked == "trace" else len(chosen)) * layer_scores
        m = n * len(blocks)
        announce(plan(encoder, n, m, len(chosen), algorithm, batch, memory, parts=held))
    begun = time.perf_counter()
    x = encoder.preprocess(torch.cat(blocks))
    head = encoder.head(task).to(x)
    saved = None
    if load_state is not None and save_state is not None:
        splits = [task_split, *controls.values()]
        identity = _identity(encoder, task, splits, draws, head, readout)
        saved = Saved(load_state, save_state, identity)
    made = kernel(
        encoder, encoder.theta0, head, x[:n], x, asked, readout, algorithm, batch, memory,
        progress, saved, layer_scores,
    )  # fmt: skip
    if share is not None:
        return []
    start, change = _changes(
        encoder, head, chosen, readout, tau, x, made.plan.batch, logits == "trace"
    )
    names = ("trace",) if logits == "trace" else tuple(task.classnames[c] for c in chosen)
    facts = {
        "algorithm": made.plan.algorithm,
        "precision": str(x.dtype).removeprefix("torch."),
        "device": x.device.type,
        "seconds": time.perf_counter() - begun,
        **provenance(),
    }
    labels = task_split.labels[first["heldout"]]
    dual = None if change is None else fine_tuned(made.values, start, change, labels, chosen)
    found = []
    for place, (control, split) in enumerate(controls.items()):
        where = {"task": 0, "heldout": n, "control": (2 + place) * n}
        drawn = draws[control.name]
        labels = {name: task_split.labels[drawn[name]] for name in ("task", "heldout")}
        labels["control"] = split.labels[drawn["control"]]
        found.append(
            LocalEnergy(
                encoder=encoder.name,
                encoder_digest=encoder.digest,
                task=task.name,
                control=control.name,
                n=n,
                seed=seed,
                readout=readout,
                logits=names,
                layers=_shares(made),
                indices=drawn,
                labels=labels,
                split_digests={task.name: task_split.digest, control.name: split.digest},
                regression=dual,
                **read_energies(
                    made, where, leading or leading_grid(n), ridges, change, x.dtype, facts
                ),
            )
        )
    return found


def _identity(
    encoder: Encoder,
    task: Task,
    splits: Sequence[Split],
    draws: Mapping[str, Mapping[str, Tensor]],
    head: Tensor,
    readout: str,
) -> dict:
    """Return what a saved kernel must have in common with the one asked for."""
    drawn = {f"{c}.{k}": v for c, draw in draws.items() for k, v in draw.items()}
    return {
        "encoder": encoder.digest,
        "task": task.name,
        "splits": [split.digest for split in splits],
        "points": digest_tensors(drawn),
        "head": digest_tensors({"head": head}),
        "readout": readout,
        "precision": str(head.dtype),
    }


def _changes(
    encoder: Encoder,
    head: Tensor,
    chosen: Sequence[int],
    readout: str,
    tau: Mapping[str, Tensor] | None,
    x: Tensor,
    batch: int,
    trace: bool,
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Return each logit and its J tau at every point, shape (L, m); None where not defined."""
    if tau is None or trace:
        return None, None
    moved = {name: value.to(x) for name, value in tau.items()}
    parts = []
    for images in x.split(batch):
        z, (jz,) = tangents(encoder.features, encoder.theta0, [moved], images)
        rows = [torch.func.jvp(make_readout(head, c, readout), (z,), (jz,)) for c in chosen]
        parts.append(torch.stack([torch.stack(pair) for pair in rows], dim=1))  # (2, L, batch)
    start, change = torch.cat(parts, dim=2).double().cpu()
    return start, change


def _shares(made: Kernel) -> dict[str, float]:
    """Return each parameter's share of the trace over the rows and logits."""
    sums = {name: float(part.sum()) for name, part in made.layers.items()}
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()} if total else sums
