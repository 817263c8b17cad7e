"""Merging once, merging in rounds and training together, at equal gradient evaluations."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from engine.evaluate import normalized_accuracy
from engine.gradients.accuracies import Reader, mean_interval
from engine.gradients.objective import Objective
from engine.gradients.path import Path, follow
from engine.gradients.pieces import Pieces
from engine.gradients.regimes import Regime

UNIT = "images differentiated"


def rounds_of(
    objectives: Mapping[str, Objective],
    regime: Regime,
    rounds: int,
    epochs: int = 1,
    pieces: Pieces | None = None,
) -> list[Tensor]:
    r"""Merge in rounds: every task from the current theta, then the mean of what they learnt.

    .. math:: \theta_{r+1} = \theta_r + \frac{1}{T} \sum_t \tau_t^{(e)}(\theta_r)

    With full-batch descent and one epoch a round this is joint training at rate eta / T exactly:
    every round is one step of statement 1. Minibatch orders differ from round to round, AdamW
    begins each with no memory.

    Args:
        objectives: By task.
        regime: How a task is tuned within a round.
        rounds: How many.
        epochs: A round.
        pieces: To go on from.

    Returns:
        theta_r - theta_0 for r from 0 to ``rounds``, each shape (P,).

    Source:
        ATM, iterative merging by the group of On Task Vectors and Gradients: tune every task
        from the current theta, average the task vectors, move, repeat.
    """
    pieces, every = pieces or Pieces(), list(objectives.values())
    theta = torch.zeros_like(every[0].theta0)
    found = [theta]
    for r in range(rounds):
        pieces.told("ATM", r, rounds)
        fresh = replace(regime, seed=regime.seed + 1000 * r)
        ends = [
            follow(
                [objective],
                fresh,
                epochs,
                start=theta,
                measured=False,
                **{**pieces.state(f"atm-{r}-{name}"), "progress": None},
            ).last
            for name, objective in objectives.items()
        ]
        theta = theta + sum(end - theta for end in ends) / len(ends)
        found.append(theta)
    pieces.told("ATM", rounds, rounds)
    return found


def iterative(
    paths: Mapping[str, Path],
    joint: Path,
    objectives: Mapping[str, Objective],
    regime: Regime,
    test: Reader,
    marks: Sequence[int],
    pieces: Pieces | None = None,
) -> dict:
    """Compare one-shot merging, ATM with one epoch a round, and joint training.

    Args:
        paths: By task, of K epochs.
        joint: Path of the mean loss, of K epochs.
        objectives: By task.
        regime: Of all three.
        test: Reads accuracy.
        marks: Epochs a task at which to look.
        pieces: To go on from.

    Returns:
        The section "iterative" of one mode, as docs/design.md says: at the same number of epochs
        all three have differentiated the same images equally often.

    Source:
        Zhou et al., On Task Vectors and Gradients, and ATM of the same group; derived: equality of
        ATM and joint training in full-batch descent with one epoch a round.
    """
    pieces = pieces or Pieces()
    T, K = len(paths), joint.epochs
    walked = rounds_of(objectives, regime, K, 1, pieces)
    places = {
        "one-shot": lambda e: sum(path.tau(e) for path in paths.values()) / T,
        "ATM": lambda e: walked[e],
        "joint": joint.tau,
    }
    a_round = sum(path.evaluations for path in paths.values()) / K
    single = pieces.value(
        "single", lambda: {t: test.along(t, path.last, [1.0])[0] for t, path in paths.items()}
    )
    methods = {}
    for method, place in places.items():
        rows = []
        for e in sorted({0, *marks}):
            pieces.told(f"accuracy of {method}", e, K)
            found = pieces.value(f"accuracy-{method}-{e}", lambda p=place, e=e: test.at(p(e)))
            rows.append({
                "epochs": e,
                "rounds": {"one-shot": min(e, 1), "ATM": e}.get(method),
                "evaluations": e * a_round,
                "absolute": sum(found.values()) / T,
                **mean_interval(found, test.n),
                "normalized": normalized_accuracy(found, single) if all(single.values()) else None,
                "tasks": found,
            })
        methods[method] = rows
    return {
        "unit": UNIT,
        "rate": regime.rate,
        "alpha": 1 / T,
        "single": single,
        "methods": methods,
    }
