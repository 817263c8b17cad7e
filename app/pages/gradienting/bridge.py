"""Bridge: does the error of merging follow from curvature, and does disentanglement remove it?"""

from collections.abc import Mapping
from itertools import combinations

import streamlit as st

from app import state, widgets
from app.compute import gradients as compute
from app.compute import gradients_tables as tables
from app.compute.gradients import Answer
from app.figures import gradients_merging as figures
from app.figures import style
from app.pages.disentangling.view import set_alphas
from app.pages.gradienting import choice
from app.widgets import choosing

PREDICTED = ("predicted", "‖E‖ predicted by curvature (units of the weights)")
MEASURED = ("measured", "‖E‖ measured (units of the weights)")
XI = ("xi", "ξ of the pair (0 to 2)")
RELATIVE = ("relative", "‖E‖ / ‖α Σ τ‖")


def show(answer: Answer) -> None:
    """Draw the section."""
    bridge = answer.record["bridge"]
    st.caption(
        r"$E = \theta_0 + \alpha \sum_t \tau_t - \theta_{MT}^K$: where merging two task vectors "
        "ends against training on both. Its leading term is made of one task’s curvature at the "
        "other’s gradient; ξ says how much the two disturb each other’s predictions."
    )
    with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
        choosing.keep(state.GRADIENTS_ALPHA, bridge["alphas"])
        alpha = st.segmented_control(
            "α of the merge",
            bridge["alphas"],
            required=True,
            format_func="{:g}".format,
            key=state.GRADIENTS_ALPHA,
            persist_state="session",
        )
        pair = choose_pair(answer)
        st.button(
            "Open their disentanglement map",
            key="gradients_to_map_button",
            icon=":material/grid_on:",
            type="primary",
            on_click=to_map,
            args=(answer, pair, alpha),
        )
    points = compute.points(answer, alpha)
    about_pair(answer, points, pair)
    left, right = st.columns(2, gap="large")
    with left:
        predicted(answer, points, pair, alpha)
    with right:
        disentangled(answer, points, pair, alpha)
    summary(answer)
    interference(answer, pair)


def choose_pair(answer: Answer) -> tuple[str, str]:
    """Draw the choice of the pair; a click on a point sets it."""
    pairs = list(combinations(answer.tasks, 2))
    held = st.session_state.get(state.GRADIENTS_PAIR)
    if held is not None and tuple(held) not in pairs and tuple(held)[::-1] in pairs:
        st.session_state[state.GRADIENTS_PAIR] = tuple(held)[::-1]
    choosing.keep(state.GRADIENTS_PAIR, pairs)
    return st.selectbox(
        "Pair",
        pairs,
        key=state.GRADIENTS_PAIR,
        format_func=lambda pair: " with ".join(map(answer.title, pair)),
        width=330,
        persist_state="session",
    )


def pick(key: str) -> None:
    """Take over a click on a point: its pair, and its mode as the reading of the map."""
    point = state.clicked(st.session_state.get(key))
    if point is None or not point.get("customdata"):
        return
    carried = point["customdata"]
    first, second, mode = (
        carried[k] if not isinstance(carried, Mapping) else carried[str(k)] for k in range(3)
    )
    st.session_state[state.GRADIENTS_PAIR] = (first, second)
    st.session_state[state.XI_READING] = mode


def to_map(answer: Answer, pair: tuple[str, str], alpha: float) -> None:
    """Ask for the disentanglement map of a pair at an alpha."""
    st.session_state[state.XI_ENCODER] = answer.record["encoder"]
    st.session_state[state.XI_FIRST], st.session_state[state.XI_SECOND] = pair
    set_alphas(dict.fromkeys(pair, alpha))
    st.session_state[state.GRADIENTS_TO_MAP] = "asked"


def about_pair(answer: Answer, points: list, pair: tuple[str, str]) -> None:
    """Draw all numbers of the pair, both modes side by side."""
    mine = [point for point in points if set(point["pair"]) == set(pair)]
    names = {task: answer.title(task) for task in pair}
    st.dataframe(
        [
            {
                "fine-tuned": style.MODE_TITLES[point["mode"]],
                "‖E‖ predicted": scientific(point["predicted"]),
                "‖E‖ measured": scientific(point["measured"]),
                "cosine": "–" if point["cosine"] is None else f"{point['cosine']:.3f}",
                "‖E‖ / ‖αΣτ‖": f"{point['relative']:.2%}",
                "ξ": f"{point['xi']:.3f}",
                **{f"ξ on {names[task]}": f"{point['xi_task'][task]:.3f}" for task in pair},
                "curvature meets other’s gradient": both(point["interference"]),
                "other’s τ moves own features": both(point["leak"]),
                "n": " + ".join(f"{point['n'][task]:,}" for task in pair),
            }
            for point in mine
        ],
        key="gradients_pair_table",
        hide_index=True,
        height="content",
    )


def scientific(value: float | None) -> str:
    """Write a norm; an en dash for None."""
    return "–" if value is None else f"{value:.3e}"


def both(values: list) -> str:
    """Write a number of each task of a pair."""
    return ", ".join("–" if value is None else f"{value:.3g}" for value in values)


def predicted(answer: Answer, points: list, pair: tuple[str, str], alpha: float) -> None:
    """Draw predicted against measured error."""
    if all(point["predicted"] is None for point in points):
        st.info(
            "The prediction is about full-batch gradient descent: choose that regime above.",
            icon=":material/info:",
        )
        return
    draw(answer, points, pair, alpha, (PREDICTED, MEASURED), "predicted", diagonal=True)


def disentangled(answer: Answer, points: list, pair: tuple[str, str], alpha: float) -> None:
    """Draw the error against xi."""
    draw(answer, points, pair, alpha, (XI, RELATIVE), "xi", diagonal=False)


def draw(
    answer: Answer,
    points: list,
    pair: tuple[str, str],
    alpha: float,
    axes: tuple,
    which: str,
    *,
    diagonal: bool,
) -> None:
    """Draw a scatter of all pairs with its downloads; a click chooses the pair."""
    steps = answer.record["bridge"]["steps"]
    lines = {
        "predicted": "Merge against joint training: predicted and measured",
        "xi": "Merge against joint training, and disentanglement",
    }
    record = answer.record
    kind = "exact" if record["exact"] else "approximate"
    title = f"{lines[which]}<br>{choice.REGIMES[record['regime']]}, {kind}, α = {alpha:g}"
    titles = {task: choice.plain(answer.title(task)) for task in answer.tasks}
    key = f"gradients_scatter_{which}"
    widgets.figure(
        figures.scatter(points, titles, axes, pair, title, diagonal=diagonal),
        choice.file_name(answer, f"bridge_{which}"),
        tables.point_rows(answer),
        tables.made(
            answer,
            "distance between the merge of two task vectors and joint training, predicted and "
            "measured, and the disentanglement error of the same vectors",
            steps=steps,
        ),
        key=key,
        alt=f"{axes[1][1]} against {axes[0][1]}, a point for each pair and mode",
        on_select=lambda: pick(key),
        selection_mode="points",
    )
    st.caption(
        f"A point for each pair and mode, after {steps} steps. Click one to choose its pair."
    )


def summary(answer: Answer) -> None:
    """Draw means and rank correlations a mode."""
    rows = [
        {
            "fine-tuned": style.MODE_TITLES[mode],
            "α": f"{found['alpha']:g}",
            "pairs": found["points"],
            "mean ‖E‖ / ‖αΣτ‖": f"{found['relative_mean']:.2%}",
            "mean ξ": f"{found['xi_mean']:.3f}",
            "predicted and measured ‖E‖": decimal(found["spearman_predicted_measured"]),
            "ξ and relative error": decimal(found["spearman_xi_relative"]),
            "interference and relative error": decimal(found["spearman_interference_relative"]),
            "leak and relative error": decimal(found["spearman_leak_relative"]),
        }
        for mode in answer.modes
        for found in answer.record["bridge"]["summary"][mode]
    ]
    st.dataframe(rows, key="gradients_summary", hide_index=True, height="content")
    st.caption(
        f"All pairs; the last four columns are Spearman’s rank correlations. Interference: how "
        "much of one task’s curvature the other’s gradient meets; leak: how far the other’s vector "
        f"moves one’s own features. {compute.about(answer)}; ξ on {compute.tested(answer)}, of the "
        "task vectors of this run; the map opens those of the stored checkpoints."
    )


def decimal(value: float | None) -> str:
    """Write a correlation; an en dash where there is none."""
    return "–" if value is None else f"{value:+.2f}"


def interference(answer: Answer, pair: tuple[str, str]) -> None:
    """Draw how much of each task's curvature the other tasks' gradients meet."""
    st.subheader("Whose curvature meets whose gradient")
    found = answer.record["bridge"]["interference"]
    names = [choice.plain(answer.title(task)) for task in answer.tasks]
    chosen = tuple(choice.plain(answer.title(task)) for task in pair)
    shown = [(mode, found[mode]) for mode in answer.modes]
    top = compute.largest(list(found.values()))
    for column, (mode, matrix) in zip(st.columns(2, gap="large"), shown, strict=False):
        title = f"{style.MODE_TITLES[mode]}: ‖Hₜ gₜ′‖ / ‖Hₜ gₜ‖ at θ₀"
        record = answer.record
        kind = "exact" if record["exact"] else "approximate"
        with column:
            widgets.figure(
                figures.interference(matrix, names, chosen, top, f"{title}<br>{kind}"),
                choice.file_name(answer, "interference", mode),
                tables.matrix_rows(names, matrix, "ratio"),
                tables.made(answer, "||H_t g_t'|| / ||H_t g_t|| at theta_0", mode=mode),
                key=f"gradients_interference_{mode}",
                alt=title,
            )
