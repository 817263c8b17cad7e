"""The server of ``make app``: Streamlit's own, behind a check of every request's Host header.

Streamlit's ``server.allowedHosts`` guards the web socket alone; here plain requests are refused
too, so that a page elsewhere, whose name is made to point to this machine, learns nothing of it.
"""

from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

app = st.App(
    Path(__file__).parents[1] / "streamlit_app.py",
    middleware=[
        Middleware(
            TrustedHostMiddleware,
            allowed_hosts=list(st.get_option("server.allowedHosts") or ["*"]),
            www_redirect=False,
        )
    ],
)
