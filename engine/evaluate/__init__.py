"""Measures on labelled splits: accuracy, task addition and negation, the search for alpha."""

from engine.evaluate.addition import ALPHAS, FARTHER, MERGED, addition
from engine.evaluate.each import addition_each
from engine.evaluate.measures import (
    accuracy,
    confusion,
    evaluate_nonlinear,
    linearized_accuracy,
    nonlinear_scores,
    normalized_accuracy,
    wilson_interval,
)
from engine.evaluate.negation import KEEP, negation
from engine.evaluate.search import search_alpha, search_alphas, search_direction
from engine.evaluate.streams import scores_of_tasks

__all__ = [
    "ALPHAS",
    "FARTHER",
    "KEEP",
    "MERGED",
    "accuracy",
    "addition",
    "addition_each",
    "confusion",
    "evaluate_nonlinear",
    "linearized_accuracy",
    "negation",
    "nonlinear_scores",
    "normalized_accuracy",
    "scores_of_tasks",
    "search_alpha",
    "search_alphas",
    "search_direction",
    "wilson_interval",
]
