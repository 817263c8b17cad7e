"""Measures on labelled splits: accuracy and its interval, task addition, the search for alpha."""

from engine.evaluate.addition import ALPHAS, addition
from engine.evaluate.measures import (
    accuracy,
    confusion,
    evaluate_nonlinear,
    linearized_accuracy,
    nonlinear_scores,
    normalized_accuracy,
    wilson_interval,
)
from engine.evaluate.search import search_alpha, search_alphas

__all__ = [
    "ALPHAS",
    "accuracy",
    "addition",
    "confusion",
    "evaluate_nonlinear",
    "linearized_accuracy",
    "nonlinear_scores",
    "normalized_accuracy",
    "search_alpha",
    "search_alphas",
    "wilson_interval",
]
