"""The live alpha widget: sliders whose every readout moves in the browser while one is dragged.

A page reads the released alphas, packs what the browser needs, and mounts the widget:

    held = read_state(st.session_state.get(key), names, initial, revision)
    payload = pack(tasks, sliders, alphas=held.alphas, revision=revision, ...)
    state = alpha_widget(payload, key)
"""

from collections.abc import Callable

from app.components.alpha.evaluated import EvaluatedTask
from app.components.alpha.payload import (
    LARGEST_PAYLOAD,
    Preset,
    header_of,
    pack,
    parts,
    sample_size,
)
from app.components.alpha.state import AlphaState, Pin, read_pin, read_state
from app.components.kept import keep
from app.components.mounting import component, nothing

__all__ = [
    "LARGEST_PAYLOAD",
    "AlphaState",
    "EvaluatedTask",
    "Pin",
    "Preset",
    "alpha_widget",
    "header_of",
    "pack",
    "read_pin",
    "read_state",
    "sample_size",
]

SCRIPTS = ("../buffers.js", "readout.js", "view.js", "plots.js", "pins.js", "alpha.js")
STYLES = ("alpha.css", "table.css", "plots.css", "widths.css")


def alpha_widget(
    payload: bytes, key: str, on_change: Callable[[], None] | None = None
) -> AlphaState:
    """Mount the widget and return what its user last released.

    Nothing is sent while a slider moves: the browser recomputes all readouts from the packed
    scores. On release of a slider, and on its buttons, the widget stores its alphas and the script
    (or the fragment around the widget) runs again.

    Args:
        payload: What :func:`pack` made. Arrays that are as they were are not sent to the browser
            again, and a new payload never interrupts a drag: sliders keep their values unless
            ``revision`` rose.
        key: Of the widget; its raw state is ``st.session_state[key]``, read with
            :func:`read_state` by a page that needs the alphas before it mounts the widget.
        on_change: Called before the rerun that follows a release or a button.

    Returns:
        The alphas last released under this payload's revision, else the payload's own; ``pin``
        is set in the one run that follows a press of "Pin", ``unpin`` (the name of a pinned
        setting) in the one that follows a press of its remove button.
    """
    header = header_of(payload)
    names = [slider["name"] for slider in header["sliders"]]
    changing, settled = parts(payload)
    keep(settled, header["settled"]["digest"], key)
    result = component("alpha", "alpha-widget", SCRIPTS, STYLES)(
        key=key,
        data=changing,
        on_alphas_change=on_change or nothing,
        on_pin_change=nothing,
        on_unpin_change=nothing,
    )
    initial = dict(zip(names, header["alphas"], strict=True))
    return read_state(result, names, initial, header["revision"])
