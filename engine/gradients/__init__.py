"""Task vectors against gradients: exactness, second-order terms, paths, merging, the bridge."""

from engine.gradients.accuracies import Reader, early, merged
from engine.gradients.bounds import spectral_norm
from engine.gradients.bridge import bridge
from engine.gradients.checks import check
from engine.gradients.exactness import exactness, one_step
from engine.gradients.iterative import iterative, rounds_of
from engine.gradients.keeping import gradients_key, joined, keep_gradients, kept_gradients
from engine.gradients.objective import MODES, Objective, objective_of
from engine.gradients.path import Path, follow
from engine.gradients.pieces import Pieces
from engine.gradients.regimes import REGIMES, TITLES, Regime
from engine.gradients.trajectory import off_the_full_step, trajectory

__all__ = [
    "MODES",
    "REGIMES",
    "TITLES",
    "Objective",
    "Path",
    "Pieces",
    "Reader",
    "Regime",
    "bridge",
    "check",
    "early",
    "exactness",
    "follow",
    "gradients_key",
    "iterative",
    "joined",
    "keep_gradients",
    "kept_gradients",
    "merged",
    "objective_of",
    "off_the_full_step",
    "one_step",
    "rounds_of",
    "spectral_norm",
    "trajectory",
]
