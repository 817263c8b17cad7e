"""The live alpha widget: sliders whose every readout moves in the browser while one is dragged.

A page reads the released alphas, packs what the browser needs, and mounts the widget:

    state = read_state(st.session_state.get(key), names, initial, revision)
    payload = pack(tasks, sliders, alphas=initial, revision=revision, anchor=state.alphas, ...)
    state = alpha_widget(payload, key)
"""

from collections.abc import Callable

from app.components.alpha.payload import (
    LARGEST_PAYLOAD,
    EvaluatedTask,
    Preset,
    header_of,
    pack,
    sample_size,
)
from app.components.alpha.state import AlphaState, Pin, read_pin, read_state

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


def alpha_widget(
    payload: bytes, key: str, on_change: Callable[[], None] | None = None
) -> AlphaState:
    """Mount the widget and return what its user last released.

    Nothing is sent while a slider moves: the browser recomputes all readouts from the packed
    scores. On release of a slider, and on its buttons, the widget stores its alphas and the script
    (or the fragment around the widget) runs again.

    Args:
        payload: What :func:`pack` made. The same bytes are not sent to the browser again, and a
            new payload never interrupts a drag: sliders keep their values unless ``revision`` rose.
        key: Of the widget; its raw state is ``st.session_state[key]``, read with
            :func:`read_state` by a page that needs the alphas before it mounts the widget.
        on_change: Called before the rerun that follows a release or a button.

    Returns:
        The alphas last released under this payload's revision, else the payload's own; ``pin``
        is set in the one run that follows a press of "Pin", ``unpin`` (the name of a pinned
        setting) in the one that follows a press of its remove button.
    """
    raise NotImplementedError
