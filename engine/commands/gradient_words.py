"""What a reader is told of task vectors beside gradients."""

from collections.abc import Mapping

from engine.commands.printing import percent, table
from engine.gradients import TITLES


def told_check(record: Mapping) -> str:
    """Set the checks in a table.

    Args:
        record: From ``engine.gradients.check``.

    Returns:
        Lines.
    """
    rows = [
        (row["name"], f"{row['value']:.6g}", row["passes_when"], "yes" if row["passed"] else "NO")
        for row in record["checks"]
    ]
    verdict = "all hold" if record["passed"] else "not all hold"
    return (
        f"{table(('check', 'value', 'passes when', 'passed'), rows)}\n"
        f"{verdict}; small networks in float64, {record['seconds']:.1f} s"
    )


def told(record: Mapping) -> str:
    """Tell an answer of ``gradients``.

    Args:
        record: What ``gradients --json`` prints.

    Returns:
        Lines: a table for each section that was asked for.
    """
    parts = []
    for name, write in (
        ("exactness", _exactness), ("trajectory", _trajectory), ("early", _early),
        ("iterative", _iterative),
    ):  # fmt: skip
        parts += [write(section, mode, record) for mode, section in (record[name] or {}).items()]
    if record["bridge"]:
        parts.append(_bridge(record["bridge"]))
    rates = ", ".join(f"{mode} {rate:.3g}" for mode, rate in record["rate"].items())
    parts.append(
        f"{record['encoder']}: {TITLES[record['regime']]}, rate {rates}, {record['epochs']} epochs "
        f"on {max(record['images'].values())} images a task, seed {record['seed']}; "
        f"{record['note']}"
    )
    return "\n\n".join(parts)


def _exactness(section: Mapping, mode: str, record: Mapping) -> str:
    """Return slopes and equality, one line a task."""
    rows = [
        (
            task,
            f"{found['one_step']['ulps']:.2f}",
            f"{found['one_step']['relative']:.1e}",
            _number(found["one_step"]["relative_float32"], ".1e"),
            _number(found["slope_raw"], ".3f"),
            _number(found["slope_corrected"], ".3f"),
            f"{found['beta']:.3g}",
        )
        for task, found in section["tasks"].items()
    ]
    heads = (f"{mode}, exactness", "ulps", "relative", "in float32", "slope", "corrected",
             "curvature (est.)")  # fmt: skip
    return table(heads, rows)


def _trajectory(section: Mapping, mode: str, record: Mapping) -> str:
    """Return the first epoch's shares, one line a task."""
    rows = [
        (
            task,
            f"{found['displacement_share'][0]:.3f}",
            f"{found['gradient_share'][0]:.3f}",
            f"{section['uniform']:.3f}",
            _number(found["cosine_descent"][0], ".3f"),
            _number(found["cosine_final"][0], ".3f"),
        )
        for task, found in section["tasks"].items()
    ]
    heads = (f"{mode}, first epoch", "share of steps", "of gradients", "uniform",
             "cos(tau1, -g0)", "cos(tau1, tauK)")  # fmt: skip
    return table(heads, rows)


def _early(rows: list[Mapping], mode: str, record: Mapping) -> str:
    """Return merged accuracy by epochs a task."""
    cells = [
        (
            row["epoch"],
            f"{row['alpha']:.3g}{' (mean)' if row['at_mean'] else ''}",
            percent(row["absolute"]),
            f"{percent(row['low'])} .. {percent(row['high'])}",
            percent(row["normalized"]),
        )
        for row in rows
    ]
    heads = (f"{mode}, epochs a task", "alpha", "merged %", "95 %", "normalized %")
    return table(heads, cells)


def _iterative(section: Mapping, mode: str, record: Mapping) -> str:
    """Return accuracies at equal gradient evaluations."""
    methods = section["methods"]
    rows = [
        (row["epochs"], f"{row['evaluations']:,.0f}",
         *(percent(methods[name][i]["absolute"]) for name in methods))
        for i, row in enumerate(next(iter(methods.values())))
    ]  # fmt: skip
    return table((f"{mode}, epochs", section["unit"], *methods), rows)


def _bridge(section: Mapping) -> str:
    """Return means and rank correlations, one line a mode and alpha."""
    rows = [
        (
            mode,
            f"{row['alpha']:g}",
            row["points"],
            f"{row['relative_mean']:.3g}",
            f"{row['xi_mean']:.3f}",
            _number(row["spearman_predicted_measured"], ".2f"),
            _number(row["spearman_xi_relative"], ".2f"),
        )
        for mode, lines in section["summary"].items()
        for row in lines
    ]
    heads = ("bridge", "alpha", "pairs", "||E|| / ||alpha sum tau||", "xi",
             "rank: predicted, measured", "rank: xi, error")  # fmt: skip
    return table(heads, rows)


def _number(value: float | None, form: str) -> str:
    """Return a number as text, "-" for None."""
    return "-" if value is None else format(value, form)
