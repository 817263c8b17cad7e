"""Merge early: what merging after a few epochs gives, and merging again and again."""

import streamlit as st

from app import state, widgets
from app.compute import gradients as compute
from app.compute import gradients_tables as tables
from app.compute import published
from app.compute.gradients import Answer
from app.figures import gradients_merging as figures
from app.figures import style
from app.pages.gradienting import choice
from app.widgets import choosing

MEASURES = {
    "absolute": "Accuracy",
    "normalized": "Normalized by own τ⁽ᵏ⁾",
    "normalized_converged": "Normalized by own last τ",
}
AXES = {
    "absolute": "mean merged accuracy on test (%)",
    "normalized": "mean of merged / own τ⁽ᵏ⁾ (%)",
    "normalized_converged": "mean of merged / own τ⁽ᴷ⁾ (%)",
}


def show(answer: Answer) -> None:
    """Draw the section."""
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        choosing.keep(state.GRADIENTS_MEASURE, list(MEASURES))
        measure = st.segmented_control(
            "Measure",
            list(MEASURES),
            required=True,
            format_func=MEASURES.get,
            key=state.GRADIENTS_MEASURE,
            persist_state="session",
        )
        choosing.keep(state.GRADIENTS_AT_MEAN, [True, False])
        T = len(answer.tasks)
        at_mean = st.segmented_control(
            "α of the merge",
            [True, False],
            required=True,
            format_func=lambda mean: f"Mean, 1/{T}" if mean else "Chosen on validation",
            key=state.GRADIENTS_AT_MEAN,
            persist_state="session",
        )
        mode = choice.mode(answer)
    lines = {
        name: list(compute.early_rows(answer, name, at_mean=at_mean).values())
        for name in answer.modes
    }
    lines = {name: rows for name, rows in lines.items() if rows}
    if lines:
        changes(lines, measure)
        left, right = st.columns(2, gap="large")
        with left:
            means(answer, lines, measure)
        with right:
            by_task(answer, lines.get(mode, []), mode)
    iterated(answer, measure)
    reported()


def changes(lines: dict, measure: str) -> None:
    """Draw in a number a mode what one epoch lacks against the last."""
    columns = st.columns(4)
    for place, (mode, rows) in enumerate(lines.items()):
        first, last = rows[0], rows[-1]
        known = None not in (first[measure], last[measure])
        difference = 100 * (first[measure] - last[measure]) if known else None
        columns[2 * place].metric(
            f"{style.MODE_TITLES[mode]}: merged after {epochs(first)}",
            widgets.percent(first[measure]),
            None if difference is None else f"{difference:+.1f} points against the last",
            delta_color="off",
            delta_arrow="off",
        )
        columns[2 * place + 1].metric(
            f"{style.MODE_TITLES[mode]}: after {epochs(last)}, the last",
            widgets.percent(last[measure]),
            f"[{widgets.percent(last['low'])}, {widgets.percent(last['high'])}]"
            if measure == "absolute"
            else None,
            delta_color="off",
            delta_arrow="off",
            help="95 % interval" if measure == "absolute" else None,
        )


def epochs(row: dict) -> str:
    """Say how many epochs."""
    return f"{row['epoch']} epoch{'s' if row['epoch'] > 1 else ''}"


def means(answer: Answer, lines: dict, measure: str) -> None:
    """Draw the mean against epochs."""
    zeroshot = None
    if measure == "absolute" and (merged := answer.part("merged", next(iter(lines)))):
        zeroshot = sum(merged["zeroshot"].values()) / len(merged["zeroshot"])
    alphas = sorted({row["alpha"] for rows in lines.values() for row in rows})
    span = " to ".join(f"{alpha:.3g}" for alpha in dict.fromkeys((alphas[0], alphas[-1])))
    title = f"Merging after 1, 2, 4 … epochs, α = {span}"
    widgets.figure(
        figures.early(lines, measure, AXES[measure], heading(answer, title), zeroshot),
        choice.file_name(answer, "merge_early"),
        tables.early_rows(answer),
        tables.made(answer, "accuracy of merging after so many epochs", interval="95 %"),
        key="gradients_early",
        alt="Mean accuracy of the merge against the epochs of each task, both modes",
    )
    st.caption(
        f"Exact, {compute.tested(answer)}; whiskers are 95 % intervals; "
        "dotted: the last merge. It is of converged task vectors only where the losses have "
        "become flat: see Loss under Trajectory."
    )


def by_task(answer: Answer, rows: list, mode: str) -> None:
    """Draw each task's accuracy after each number of epochs."""
    if not rows:
        return
    merged = answer.part("merged", mode)
    titles = {task: choice.plain(answer.title(task)) for task in answer.tasks}
    zeroshot = merged["zeroshot"] if merged else {}
    title = f"By task, {style.MODE_TITLES[mode].lower()}"
    widgets.figure(
        figures.early_tasks(rows, titles, zeroshot, heading(answer, title)),
        choice.file_name(answer, "merge_early_tasks", mode),
        [row for row in tables.early_rows(answer) if row["mode"] == mode],
        tables.made(answer, "accuracy of merging early, by task", mode=mode, interval="Wilson"),
        key="gradients_early_tasks",
        alt="Accuracy on every task after merging early and at the last epoch",
    )
    st.caption("Whiskers, 95 % Wilson intervals, on the first and the last number of epochs.")


def iterated(answer: Answer, measure: str) -> None:
    """Draw one-shot merging, ATM and joint training at equal compute."""
    found = {mode: answer.part("iterative", mode) for mode in answer.modes}
    found = {mode: part for mode, part in found.items() if part}
    if not found:
        return
    st.subheader("Merging once, again and again, or training together")
    kind = "absolute" if measure == "absolute" else "normalized"
    for column, (mode, part) in zip(st.columns(2, gap="large"), found.items(), strict=False):
        title = f"{style.MODE_TITLES[mode]}: equal compute, α = {part['alpha']:.3g}"
        with column:
            widgets.figure(
                figures.iterative(
                    part["methods"],
                    part["unit"],
                    kind,
                    "mean accuracy on test (%)"
                    if kind == "absolute"
                    else "mean of merged / own τ⁽ᴷ⁾ (%)",
                    heading(answer, title),
                ),
                choice.file_name(answer, "iterative", mode),
                [row for row in tables.iterative_rows(answer) if row["mode"] == mode],
                tables.made(
                    answer,
                    "one-shot merging, iterative merging (ATM) and joint training at equal "
                    "numbers of images differentiated",
                    mode=mode,
                    alpha=part["alpha"],
                    method_rate=part["rate"],
                ),
                key=f"gradients_iterative_{mode}",
                alt="Accuracy against images differentiated: one-shot, iterative and joint",
            )
    st.caption(
        f"Exact, {compute.tested(answer)}. ATM: tune every task one epoch from the current θ, move "
        "θ by the mean τ, repeat. Joint: the mean loss of all tasks, the same regime and rate."
    )


def reported() -> None:
    """List what the paper reports: theirs, in no axis of ours."""
    said, found = published.gradients()
    with st.expander("What the paper reports", icon=":material/menu_book:"):
        st.caption(f"Theirs, not measured here. {said}.")
        for place, (column, (note, rows)) in enumerate(
            zip(st.columns(len(found)), found, strict=True)
        ):
            column.caption(f"{note[:1].upper()}{note[1:]}.")
            column.dataframe(rows, key=f"gradients_published_{place}", hide_index=True)


def heading(answer: Answer, title: str) -> str:
    """Give a figure's title: what it shows, of which regime and how many images."""
    return f"{title}<br>{choice.REGIMES[answer.record['regime']]}, {compute.tested(answer)}"
