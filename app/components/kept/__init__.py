"""Arrays that a widget needs and that stay as they are: not sent again whenever the rest changes.

A component's data go to the browser as one message, whole, whenever a byte of them differs. What
stays the same is a component of its own, which shows nothing; Streamlit does not send the same
message twice. ``window.__tauscope_kept`` holds the buffers by digest, and ``tauscope-kept`` says
on ``window`` that one has come.
"""

import streamlit as st

from app.components.buffers import frame
from app.components.mounting import component


def keep(body: bytes, digest: str, key: str) -> None:
    """Have arrays kept in the browser.

    Args:
        body: Of :meth:`app.components.buffers.Arrays.bytes`, or the end of one.
        digest: What the widget asks for them by.
        key: Of the component; ``streamlit_app.py`` hides containers of this name.
    """
    with st.container(key=f"{key}_settled"):
        component("kept", "kept", ("../buffers.js", "kept.js"), ())(
            key=f"{key}_settled_arrays", data=frame({"digest": digest}, body)
        )
