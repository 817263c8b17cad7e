"""Local energies made ready to be drawn: settings, curves, panels, tables and their provenance."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import streamlit as st

from app.components.energy import Block, Curve, Setting, pack
from app.compute import models, ntk_kept
from app.compute.ntk_questions import Question
from app.figures.ntk import Panel

ARRANGEMENTS = ("paper", "null", "heldout")
TITLES = {
    "paper": "Paper's columns",
    "null": "Same-task null",
    "heldout": "Held-out columns",
}
NOTES = {
    "paper": "Columns are the task's points, which are also the rows, and the control's. Rows that "
    "are columns look localized by themselves: read it against the two below.",
    "null": "Columns are the task's points, which are also the rows, and other points of the same "
    "task. Any separation here is no localization, but the rows' likeness to themselves.",
    "heldout": "Columns are other points of the task and the control's: no column is a row. "
    "What separates here is localization; its area under the ROC curve is the corrected score.",
}
BLOCKS = {
    "paper": ("task", "control"),
    "null": ("task", "heldout"),
    "heldout": ("heldout", "control"),
}


@dataclass(frozen=True, eq=False)
class Shown:
    """One encoder's energies with the pair they belong to.

    Attributes:
        encoder: Name.
        question: What they answer.
        energy: ``engine.ntk.LocalEnergy``.
    """

    encoder: str
    question: Question
    energy: Any

    @property
    def key(self) -> str:
        """Digest of the numbers drawn."""
        data = np.ascontiguousarray(self.energy.energy_leading.numpy()).tobytes()
        return hashlib.blake2b(data, digest_size=16).hexdigest()

    def titles(self) -> dict[str, str]:
        """What a reader sees of each block of points."""
        task = models.task(self.question.task).title
        control = models.task(self.question.control).title
        return {"task": task, "heldout": f"{task}, held out", "control": control}

    def classes(self, block: str) -> tuple[str, ...]:
        """Class names of a block's points."""
        reference = self.question.control if block == "control" else self.question.task
        return tuple(models.task(reference).classnames)

    def labels(self, block: str) -> np.ndarray:
        """Class of each of a block's points."""
        return self.energy.labels[block].numpy().astype(np.int64)


def settings(energy) -> list[Setting]:
    """Return the stops of the sliders: leading R, the last of them all of them; then ridges.

    Args:
        energy: ``engine.ntk.LocalEnergy``.
    """
    everything = max(energy.leading)
    return [
        *(
            Setting(f"R{R}", "leading", f"{R} of {everything}" if R < everything else f"all {R}")
            for R in energy.leading
        ),
        *(Setting(f"ridge{value:.6g}", "ridge", f"{value:.2g} s₁") for value in energy.ridges),
    ]


def common(shown: Sequence[Shown]) -> list[Setting]:
    """Return the stops that all encoders shown have: some answers keep fewer than others.

    Args:
        shown: Encoders.

    Returns:
        In the order of the first; all eigenfunctions are always among them.
    """
    keys = [{item.key for item in settings(each.energy)} for each in shown]
    return [item for item in settings(shown[0].energy) if all(item.key in held for held in keys)]


def everything(energy) -> str:
    """Return the key of the paper's setting: all right singular vectors."""
    return f"R{max(energy.leading)}"


def table_of(energy, arrangement: str, setting: str) -> np.ndarray:
    """Return the energies at a setting, float64, shape (L, 2n), the first block first.

    Args:
        energy: ``engine.ntk.LocalEnergy``.
        arrangement: One of :data:`ARRANGEMENTS`.
        setting: A key of :func:`settings`.
    """
    place = ARRANGEMENTS.index(arrangement)
    keys = [item.key for item in settings(energy)]
    at = keys.index(setting)
    count = len(energy.leading)
    stack = energy.energy_leading if at < count else energy.energy_ridge
    return stack[place][:, at if at < count else at - count].numpy().astype(np.float64)


def score_of(energy, arrangement: str, setting: str) -> dict:
    """Return the scores of an arrangement at a setting.

    Args:
        energy: ``engine.ntk.LocalEnergy``.
        arrangement: One of :data:`ARRANGEMENTS`.
        setting: A key of :func:`settings`.

    Returns:
        {"auc", "auc_interval", "difference", "difference_interval"}.
    """
    at = [item.key for item in settings(energy)].index(setting)
    count = len(energy.leading)
    if at < count:
        return energy.score(arrangement, leading=energy.leading[at])
    return energy.score(arrangement, ridge=energy.ridges[at - count])


def kind_of(shown: Sequence[Shown], rounded: bool = True) -> str:
    """Say what kind of number is shown.

    Args:
        shown: Encoders.
        rounded: Whether it is an energy, or made of energies: those are kept in half precision,
            5e-4 of 1; spectra and layers are not.

    Returns:
        "exact", "exact to float16" or "approximate".
    """
    if not all(item.energy.exact for item in shown):
        return "approximate"
    return "exact to float16" if rounded else "exact"


def explorer(shown: Sequence[Shown], setting: str, order: str, revision: int) -> bytes:
    """Pack the explorer's view of one or two encoders.

    Args:
        shown: Answers to the same question with the same settings.
        setting: Key of the one it opens with.
        order: Of the points.
        revision: Raised to move a mounted explorer.

    Returns:
        What ``energy_explorer`` takes.
    """
    blocks, curves = _prepared(tuple(item.key for item in shown), tuple(shown))
    energy = shown[0].energy
    return pack(
        common(shown),
        blocks,
        curves,
        setting=setting,
        order=order,
        revision=revision,
        status=f"{kind_of(shown)}, n = {energy.n} points a block · train split",
    )


@st.cache_resource(max_entries=8, show_spinner=False)
def _prepared(keys: tuple[str, ...], _shown: tuple[Shown, ...]) -> tuple[list, list]:
    """Return blocks and curves; ``keys`` says which numbers they hold."""
    blocks: list[Block] = []
    places: dict[tuple, int] = {}
    for item in _shown:
        for name in ("task", "heldout", "control"):
            if _points(item, name) not in places:
                places[_points(item, name)] = len(blocks)
                blocks.append(
                    Block(
                        item.titles()[name],
                        item.labels(name),
                        item.classes(name),
                        _pictures(item, name),
                    )
                )
    curves = []
    for arrangement in ARRANGEMENTS:
        for item in _shown:
            first, second = (places[_points(item, name)] for name in BLOCKS[arrangement])
            curves.append(_curve(item, arrangement, (first, second), common(_shown)))
    return blocks, curves


def _points(item: Shown, block: str) -> tuple:
    """Name a block's points: encoders asked alike look at the same."""
    return block, hashlib.blake2b(item.energy.indices[block].numpy().tobytes()).hexdigest()


def _curve(
    item: Shown, arrangement: str, blocks: tuple[int, int], stops: Sequence[Setting]
) -> Curve:
    """Return one panel at every setting."""
    tables = [table_of(item.energy, arrangement, setting.key) for setting in stops]
    scores = [score_of(item.energy, arrangement, setting.key) for setting in stops]
    return Curve(
        encoder=item.encoder,
        arrangement=arrangement,
        title=TITLES[arrangement],
        note=NOTES[arrangement],
        blocks=blocks,
        mean=np.stack([table.mean(axis=0) for table in tables]),
        spread=np.stack([table.std(axis=0) for table in tables]),
        scores=[(score["auc"], *score["auc_interval"]) for score in scores],
    )


def _pictures(item: Shown, block: str) -> np.ndarray:
    """Return a block's points as small RGB pictures, uint8, shape (n, 32, 32, 3)."""
    import torch.nn.functional as F

    reference = item.question.control if block == "control" else item.question.task
    size = models.encoder(item.encoder).image_size
    images = ntk_kept.split(item.question, reference).images[item.energy.indices[block].long()]
    if size != 32:
        images = F.interpolate(images.float(), (32, 32), mode="area").round().to(images.dtype)
    return images.permute(0, 2, 3, 1).contiguous().numpy()


def panels(shown: Sequence[Shown], setting: str) -> list[Panel]:
    """Return every arrangement of every encoder at a setting.

    Args:
        shown: A column each.
        setting: A key of :func:`settings`.

    Returns:
        Panels, an arrangement a row.
    """
    return [
        _panel(item, arrangement, table_of(item.energy, arrangement, setting), (row, column))
        for row, arrangement in enumerate(ARRANGEMENTS)
        for column, item in enumerate(shown)
    ]


def weighted_panels(shown: Sequence[Shown]) -> list[Panel]:
    """Return the energies weighted by the coefficients of the linearly fine-tuned task.

    Args:
        shown: A column each; those without a linear task vector are left out.

    Returns:
        Panels in one row.
    """
    able = [item for item in shown if item.energy.energy_weighted is not None]
    return [
        _panel(item, "paper", item.energy.energy_weighted.numpy().astype(float), (0, column))
        for column, item in enumerate(able)
    ]


def _panel(item: Shown, arrangement: str, table: np.ndarray, place: tuple[int, int]) -> Panel:
    """Return one panel of a table of energies."""
    first, second = BLOCKS[arrangement]
    n = table.shape[1] // 2
    names = item.titles()
    return Panel(
        title=f"{TITLES[arrangement]}<br>{item.encoder}",
        names=(names[first], names[second]),
        energy=(table[:, :n], table[:, n:]),
        labels=(item.labels(first), item.labels(second)),
        classes=(item.classes(first), item.classes(second)),
        place=place,
    )
