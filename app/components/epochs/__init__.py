"""The epochs explorer: merged accuracy and the paths of training follow a slider while dragged.

Every accuracy is one that was measured: the sliders stop where the measures are. The paths are a
projection, and a merge is a sum in it, so the browser draws it at any alpha.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.components.mounting import component, nothing

SCRIPTS = ("plane.js", "epochs.js")
STYLES = ("epochs.css",)


@dataclass(frozen=True)
class View:
    """Where the sliders stand; alpha None: at each epoch the one chosen on validation."""

    epoch: int
    alpha: float | None


def read_view(
    raw: object,
    epochs: Sequence[int],
    alphas: Sequence[float],
    epoch: int | None,
    alpha: float | None,
    revision: int,
) -> View:
    """Turn the component's raw state into a view.

    Args:
        raw: ``st.session_state.get(key)`` or the component's result:
            {"view": {"revision": int, "epoch": int, "alpha": number or None}}.
        epochs: The stops of the first slider, ascending.
        alphas: The stops of the second, ascending.
        epoch: Where it stands without a state; the last with None.
        alpha: Where it stands without a state.
        revision: Of the data; a state of another one is out of date and ignored.

    Returns:
        A view on the stops; anything malformed counts as not given.
    """
    held = raw.get("view") if isinstance(raw, Mapping) else None
    held = held if isinstance(held, Mapping) and held.get("revision") == revision else {}
    at = held.get("epoch", epoch)
    if isinstance(at, bool) or not isinstance(at, int | float):
        at = epoch if epoch is not None else epochs[-1]
    where = held["alpha"] if "alpha" in held else alpha
    if isinstance(where, bool) or not isinstance(where, int | float | None):
        where = alpha
    return View(
        min(epochs, key=lambda stop: abs(stop - at)),
        None if where is None else min(alphas, key=lambda stop: abs(stop - where)),
    )


def epochs_explorer(data: Mapping[str, Any], key: str) -> Any:
    """Mount the explorer; the script runs again when a slider is released.

    Args:
        data: {"revision", "epoch", "alpha": number or None, "epochs": [E], "alphas": [A],
            "last": K, "chosen": [E] places of the alphas chosen on validation, "mean": place of
            1 / T, "tasks": [{"name", "title", "n", "zeroshot", "single": [E],
            "merged": [E][A]}], "absolute", "normalized", "converged": [E][A], "plane": None or
            {"x", "y": titles of the axes, "alpha": of the joint path, "paths": [[[x, y] K + 1]
            a task], "joint": [[x, y] K + 1]}, "note"}; accuracies are fractions.
        key: Of the component; its raw state is ``st.session_state[key]``.

    Returns:
        The component's result.
    """
    return component("epochs", "epochs-explorer", SCRIPTS, STYLES)(
        key=key, data=data, on_view_change=nothing
    )
