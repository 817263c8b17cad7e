"""Measuring local energy: points are drawn, the kernel is computed, its eigenfunctions read."""

import time
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from engine.checks import check_same_parameters
from engine.encoders import Encoder
from engine.errors import UsageError
from engine.linearize import tangents
from engine.ntk.energy import ARRANGEMENTS, BLOCKS, LocalEnergy
from engine.ntk.kernels import Kernel, kernel, make_readout
from engine.ntk.plans import Plan, plan
from engine.ntk.saving import LoadState, Saved, SaveState
from engine.ntk.scores import scored
from engine.ntk.spectrum import leading_energy, ridge_energy, right_singular, vector_energy
from engine.provenance import provenance
from engine.store import digest_tensors
from engine.tasks import Split, Task

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
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
        announce(plan(encoder, n, n * len(blocks), len(chosen), algorithm, batch, memory))
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
    change = _changes(encoder, head, chosen, readout, tau, x, made.plan.batch, logits == "trace")
    names = ("trace",) if logits == "trace" else tuple(task.classnames[c] for c in chosen)
    facts = {
        "algorithm": made.plan.algorithm,
        "precision": str(x.dtype).removeprefix("torch."),
        "device": x.device.type,
        "seconds": time.perf_counter() - begun,
        **provenance(),
    }
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
                **_read(made, where, leading or leading_grid(n), ridges, change, x.dtype, facts),
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


def _read(
    made: Kernel,
    where: Mapping[str, int],
    leading: tuple[int, ...],
    ridges: tuple[float, ...],
    change: Tensor | None,
    dtype: torch.dtype,
    facts: dict,
) -> dict:
    """Return all that is read off the eigenfunctions of the three arrangements."""
    n = leading[-1]
    spectra, energies, leadings, ridged, noise = [], [], [], [], {}
    weighted: dict = {}
    for arrangement in ARRANGEMENTS:
        columns = torch.cat([torch.arange(where[b], where[b] + n) for b in BLOCKS[arrangement]])
        singular, vectors = right_singular(made.values[:, :, columns])
        spectra.append(singular)
        energies.append(vector_energy(vectors))
        leadings.append(leading_energy(vectors, leading))
        ridged.append(ridge_energy(singular, vectors, ridges))
        below = singular < 10 * torch.finfo(dtype).eps * singular[:, :1]
        noise[arrangement] = int(below.sum(1).max())
        if change is not None and arrangement == "paper":
            weighted = coefficients(vectors, change[:, columns])
    energy = torch.stack(energies)
    return {
        "spectrum": torch.stack(spectra),
        "energy": energy.float(),
        "leading": leading,
        "energy_leading": torch.stack(leadings).float(),
        "ridges": ridges,
        "energy_ridge": torch.stack(ridged).float(),
        "scores": {name: scored(e) for name, e in zip(ARRANGEMENTS, energy, strict=True)},
        "made": {**facts, "vectors_below_rounding": noise},
        **weighted,
    }


def coefficients(vectors: Tensor, change: Tensor) -> dict[str, Tensor]:
    r"""Find which eigenfunctions a fine-tuned change of the logit is made of, and where they live.

    .. math:: c_\rho = \sum_j \phi_\rho(x_j) \, \Delta f(x_j), \qquad
        E_c(x_j) = \frac{\sum_\rho c_\rho^2 \phi_\rho(x_j)^2}{\sum_\rho c_\rho^2}

    Args:
        vectors: Orthonormal columns, shape (L, m, n).
        change: Delta f of each logit at the points, shape (L, m).

    Returns:
        "coefficients", shape (L, n), float64; "energy_weighted", shape (L, m), sums to 1; and
        "captured", shape (L,): sum_rho c^2 / sum_j Delta f^2, the share within their span.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Sec. 6.1 (the coefficients c_rho of f in
        the kernel's basis); the weighting is not in the paper.
    """
    found = (vectors.transpose(-2, -1) @ change[..., None].double())[..., 0]
    total = found.square().sum(-1, keepdim=True).clamp_min(1e-300)
    return {
        "coefficients": found,
        "energy_weighted": vector_energy(vectors, found.square() / total).float(),
        "captured": (total[..., 0] / change.double().square().sum(-1).clamp_min(1e-300)).float(),
    }


def leading_grid(n: int) -> tuple[int, ...]:
    """Return about a dozen values of R from 1 to n, each about 1.6 times the one before."""
    grid = {1, n}
    value = 1.6
    while value < n:
        grid.add(round(value))
        value *= 1.6
    return tuple(sorted(grid))


def _changes(
    encoder: Encoder,
    head: Tensor,
    chosen: Sequence[int],
    readout: str,
    tau: Mapping[str, Tensor] | None,
    x: Tensor,
    batch: int,
    trace: bool,
) -> Tensor | None:
    """Return J tau of each logit at every point, shape (L, m); None where it is not defined."""
    if tau is None or trace:
        return None
    moved = {name: value.to(x) for name, value in tau.items()}
    parts = []
    for images in x.split(batch):
        z, (jz,) = tangents(encoder.features, encoder.theta0, [moved], images)
        row = [torch.func.jvp(make_readout(head, c, readout), (z,), (jz,))[1] for c in chosen]
        parts.append(torch.stack(row))
    return torch.cat(parts, dim=1).double().cpu()


def _shares(made: Kernel) -> dict[str, float]:
    """Return each parameter's share of the trace over the rows and logits."""
    sums = {name: float(part.sum()) for name, part in made.layers.items()}
    total = sum(sums.values())
    return {name: value / total for name, value in sums.items()} if total else sums


def draw_points(
    task: Task, control: Task, task_split: Split, control_split: Split, n: int, seed: int
) -> dict[str, Tensor]:
    """Draw the points of the three blocks, without replacement.

    Args:
        task: For the message.
        control: For the message.
        task_split: 2 n images or more.
        control_split: n images or more.
        n: Points of each block.
        seed: Of the draw.

    Returns:
        Places in the splits under "task", "heldout" and "control", each int64 of shape (n,).

    Raises:
        UsageError: If a split is too small, n below 2, or task and control are the same.
    """
    if task.name == control.name:
        raise UsageError(f"task and control are both {task.name}; choose another control")
    if n < 2:
        raise UsageError(f"got {n} points; give --points 2 or more")
    for name, split, need in (
        (task.name, task_split, 2 * n),
        (control.name, control_split, n),
    ):
        if len(split.labels) < need:
            raise UsageError(
                f"{n} points need {need} images of {name} and its {split.name} split has "
                f"{len(split.labels)}; give fewer --points"
            )

    def drawn(split: Split) -> Tensor:
        return torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))

    own = drawn(task_split)
    return {"task": own[:n], "heldout": own[n : 2 * n], "control": drawn(control_split)[:n]}


def choose_logits(logits: int | str | Sequence[str], classnames: Sequence[str]) -> list[int]:
    """Read which logits are asked for.

    Args:
        logits: So many classes, evenly spaced in their order; "all" or "trace"; or names.
        classnames: C names.

    Returns:
        Class indices; all of them for "trace".

    Raises:
        UsageError: If a name is unknown or the number is not from 1 to C.
    """
    C = len(classnames)
    if logits in ("all", "trace"):
        return list(range(C))
    if isinstance(logits, int):
        if not 1 <= logits <= C:
            raise UsageError(f"got {logits} logits, expected from 1 to {C}, or all, or trace")
        return [i * C // logits for i in range(logits)]
    names = [logits] if isinstance(logits, str) else list(dict.fromkeys(logits))
    unknown = [name for name in names if name not in classnames]
    if unknown or not names:
        raise UsageError(
            f"no class is called {', '.join(map(repr, unknown)) or 'that'}; choose among "
            f"{', '.join(classnames)}"
        )
    return [list(classnames).index(name) for name in names]
