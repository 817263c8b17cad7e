"""Task addition with an alpha for each task, chosen in function space; linearized alone."""

from collections.abc import Callable, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

from torch import Tensor

from engine.errors import UsageError
from engine.evaluate.addition import check_tasks, linearized_measure, tested
from engine.evaluate.search import search_alphas
from engine.provenance import provenance
from engine.responses import Responses, responses

if TYPE_CHECKING:
    from engine.encoders import Encoder
    from engine.tasks import Split, Task


def addition_each(
    encoder: "Encoder",
    mode: str,
    tasks: Mapping[str, "Task"],
    taus: Mapping[str, Mapping[str, Tensor]],
    validation: Mapping[str, "Split"],
    test: Mapping[str, "Split"],
    *,
    batch: int = 250,
    respond: Callable[["Task", "Split"], Responses] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict:
    r"""Run the task addition benchmark with one coefficient a task vector.

    .. math:: \hat\alpha = \arg\max_{\alpha \in [-1, 2]^T} \frac{1}{T} \sum_t
              \frac{acc_t[f_{lin}(x; \theta_0 + \sum_s \alpha_s \tau_s)]}
                   {acc_t[f_{lin}(x; \theta_0 + \tau_t)]}

    on validation by :func:`search_alphas`, a local optimum that is never below the best shared
    alpha there; then everything is measured once on test.

    Args:
        encoder: On the device to compute on.
        mode: "posthoc" or "linear".
        tasks: By name.
        taus: Task vectors by task name.
        validation: Splits by task name.
        test: Splits by task name.
        batch: Images a pass.
        respond: Gives the responses of a split to ``taus``; computed here by default.
        progress: Called as (splits measured, splits).

    Returns:
        As ``addition``; "alphas" has the coefficients by task, "alpha" is their mean, and
        "validation" has one entry, of what was chosen.

    Raises:
        UsageError: If the reading is non-linear, the tasks of the arguments differ, or a
            single-task accuracy is 0.

    Source:
        Ortiz-Jimenez et al. (2023), arXiv:2305.12827, Eq. (1) with its own alpha_t for each task,
        and Eq. (7); the paper searches one shared alpha alone (App. A).
    """
    if mode == "nonlinear":
        raise UsageError(
            "an alpha for each task is searched for in function space, which non-linear models "
            "do not have; choose --mode posthoc or linear"
        )
    names = tuple(taus)
    check_tasks(names, tasks=tasks, validation=validation, test=test)
    ask = respond or (lambda task, split: responses(encoder, task, split, taus, batch))
    readings: dict[str, dict[str, Responses]] = {"validation": {}, "test": {}}
    done = 0
    for kind, splits in (("validation", validation), ("test", test)):
        for name in names:
            readings[kind][name] = ask(tasks[name], splits[name])
            done += 1
            if progress is not None:
                progress(done, 2 * len(names))
    found = search_alphas(readings["validation"])
    n = {name: len(test[name].labels) for name in names}
    alpha = fmean(found["alphas"].values())
    chosen = {key: found[key] for key in ("absolute", "normalized")}
    return {
        "encoder": encoder.name,
        "mode": mode,
        "alpha": alpha,
        "alphas": found["alphas"],
        **tested(linearized_measure(readings["test"], names), n, found["alphas"]),
        "validation": [{"alpha": alpha, **chosen}],
        "n": n,
        "n_validation": {name: len(validation[name].labels) for name in names},
        "convention": "sum",
        "exact": True,
        "encoder_digest": encoder.digest,
        "split_digests": {
            "validation": {name: validation[name].digest for name in names},
            "test": {name: test[name].digest for name in names},
        },
        **provenance(),
    }
