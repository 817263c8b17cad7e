"""A page with the alpha widget alone, on synthetic scores; the environment chooses what it shows.

DEMO_READING: "linear" (default) or "nonlinear"; DEMO_CONVENTION: "sum" (default) or "mean";
DEMO_IMAGES: images a task (500); DEMO_DELAY: seconds the non-linear reading computes (0).
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import streamlit as st

sys.path.insert(0, str(Path(__file__).parents[2]))
sys.path.insert(0, str(Path(__file__).parent))

from alpha_demo_data import SLIDERS, demo_tasks  # noqa: E402

from app.components.alpha import Preset, alpha_widget, pack, read_state  # noqa: E402

KEY = "merge"
READING = os.environ.get("DEMO_READING", "linear")
CONVENTION = os.environ.get("DEMO_CONVENTION", "sum")
IMAGES = int(os.environ.get("DEMO_IMAGES", "500"))

st.set_page_config(page_title="Alpha widget", layout="wide")
pins = st.session_state.setdefault("pins", [])
if st.sidebar.button("Move the sliders from Python"):
    st.session_state.revision = st.session_state.get("revision", 0) + 1
revision = st.session_state.get("revision", 0)
start = dict.fromkeys(SLIDERS, 0.3 if revision == 0 else 0.7)
held = read_state(st.session_state.get(KEY), tuple(SLIDERS), start, revision)

anchor = held.alphas if READING == "nonlinear" else None
if anchor:
    time.sleep(float(os.environ.get("DEMO_DELAY", "0")))
grid = np.linspace(0, 1, 21)
absolute = 0.5 + 1.2 * grid - 1.7 * grid**2
state = alpha_widget(
    pack(
        demo_tasks(IMAGES, anchor),
        SLIDERS,
        alphas=held.alphas,
        revision=revision,
        reading=READING,
        convention=CONVENTION,
        split="test",
        anchor=anchor,
        curve=[
            {"alpha": a, "absolute": v, "normalized": v / 0.93}
            for a, v in zip(grid, absolute, strict=True)
        ],
        chosen=float(grid[7]),
        best_shared=Preset(dict.fromkeys(SLIDERS, float(grid[7]))),
        best_per_task=Preset({n: 0.2 + 0.05 * t for t, n in enumerate(SLIDERS)})
        if READING == "linear"
        else Preset(None, "Linearized readings only: needs scores linear in alpha"),
        pinned=pins,
        full={
            "n": 1000,
            "alphas": held.alphas,
            "tasks": {},
            "absolute": 0.731,
            "normalized": 0.8,
            "control": 0.5,
        },
    ),
    KEY,
)
if state.pin:
    pin = {"name": f"Pin {len(pins) + 1}", "alphas": state.pin.alphas, "metrics": state.pin.metrics}
    pins.append(pin)
    st.rerun()
if state.unpin:
    st.session_state.pins = [pin for pin in pins if pin["name"] != state.unpin]
    st.rerun()
st.sidebar.code(json.dumps(state.alphas, indent=1), language=None)
