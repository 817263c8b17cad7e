"""One exhibit on the Results page: what it says, its tables, its figures, what lacks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from app import state, widgets
from app.components.exhibit import exhibit_table
from app.compute import result_tables as tables
from app.compute import results as compute
from app.figures import results as figures


@dataclass(frozen=True)
class Shown:
    """What is shown of every exhibit.

    Attributes:
        sides: One, or two to be compared.
        at_work: Jobs that are not over, by words.
        readings: Those whose rows and columns are shown.
        lacking: Whether complete rows are left out.
    """

    sides: tuple[compute.Side, ...]
    at_work: Mapping[tuple[str, ...], compute.Pending]
    readings: tuple[str, ...]
    lacking: bool


def progress(filled) -> str:
    """Say how much of an exhibit is there."""
    if filled is None:
        return "…"
    if filled.used is None:
        return "not here"
    there, all_of_them = tables.standing(filled)
    return "✓" if there == all_of_them else f"{there} of {all_of_them}"


def draw(shown: Shown, fillings: Sequence) -> None:
    """Draw one exhibit.

    Args:
        shown: What is shown.
        fillings: The exhibit of each side.
    """
    first, exhibit = fillings[0], fillings[0].exhibit
    st.divider()
    st.subheader(exhibit.title, anchor=exhibit.name)
    source = f"{exhibit.where}, arXiv:{exhibit.paper}. " if exhibit.where else "Ours. "
    st.caption(f"{source}{typeset(exhibit.definition)}", unsafe_allow_html=True)
    if first.used is None:
        st.info(f"{exhibit.title} {first.why_not}.", icon=":material/info:")
        show_published(first)
        return
    for one in first.tables:
        show_table(shown, one, fillings)
    show_asked(shown, fillings)
    show_lacking(shown, fillings)
    show_figures(shown, fillings)
    show_published(first)


SIGNS = ("\\", "*", "_", "$", "[", "]", "~", ":")  # what Markdown reads as markup


def escaped(text: str) -> str:
    """Let Markdown leave a text as it is written."""
    return marked(text).replace("<", "\\<")


def typeset(text: str) -> str:
    """Write a definition as the report does, for Markdown that lets HTML through."""
    return marked(compute.set_formulas(text))


def marked(text: str) -> str:
    """Put a backslash before every sign of Markdown."""
    for sign in SIGNS:
        text = text.replace(sign, f"\\{sign}")
    return text


def show_table(shown: Shown, one, fillings: Sequence) -> None:
    """Draw one table of an exhibit, of each side."""
    pair = [one] + [
        next((other for other in filled.tables if other.name == one.name), None)
        for filled in fillings[1:]
    ]
    first = fillings[0]
    own = [item for item in first.comparison if item.published.encoder == own_name(first)]
    main = one.name == first.tables[0].name
    data = tables.table(
        pair, shown.sides, own if main else (), shown.at_work, shown.readings, shown.lacking
    )
    if not data["rows"] or not data["columns"]:
        st.caption(f"{one.title}: nothing to show with these filters.")
        return
    data["heading"] = data["title"] != first.exhibit.title  # which stands above it already
    key = f"{state.RESULTS_TABLE}{one.name}"
    known = tables.cells(pair)
    picked = state.results_pick(exhibit_table(data, key=key), list(known))
    if picked is not None:
        asked = (first.exhibit.name, (tuple(known[picked].words),))
        st.session_state[state.RESULTS_ASKED] = asked  # drawn below
    with st.container(horizontal=True):
        widgets.downloads(
            one.name,
            lambda: tables.rows(pair, shown.sides),
            compute.record(first, shown.sides[0]),
            key=f"{key}_file",
        )


def own_name(filled) -> str | None:
    """Return what the papers call this very encoder."""
    return compute.published_name(filled.encoder)


def show_asked(shown: Shown, fillings: Sequence) -> None:
    """Say what a press of a cell would run, and run it once that is confirmed."""
    name, wanted = st.session_state.get(state.RESULTS_ASKED) or (None, ())
    if name != fillings[0].exhibit.name:
        return
    runs = [run for filled in fillings for run in filled.missing if tuple(run.words) in wanted]
    if not runs:
        forget()
        return
    with st.container(border=True, key="results_asked_box"):
        before = {tuple(words) for run in runs for words in run.before}
        passes = sum(run.passes for run in runs)
        count = "This run" if len(runs) == 1 else f"These {len(runs)} runs"
        st.markdown(
            f"**{count}** as background jobs: about {passes:,} images through the encoder"
            + (f", {len(before)} fine-tunes among them." if before else ".")
        )
        lines = [compute.command(words) for words in sorted(before)]
        lines += [compute.command(run.words) for run in runs]
        st.code("\n".join(lines), language="bash", height=120 if len(lines) > 4 else "content")
        with st.container(horizontal=True):
            st.button(
                "Queue",
                key="results_queue",
                type="primary",
                icon=":material/play_arrow:",
                on_click=queue,
                args=(runs,),
            )
            st.button("Not now", key="results_forget", on_click=forget)


def queue(runs: Sequence) -> None:
    """Queue runs."""
    compute.launch(runs)
    forget()


def forget() -> None:
    """Ask no more."""
    st.session_state.pop(state.RESULTS_ASKED, None)


def show_lacking(shown: Shown, fillings: Sequence) -> None:
    """Offer to run all that an exhibit lacks."""
    name = fillings[0].exhibit.name
    runs = {tuple(run.words): run for filled in fillings for run in filled.missing}
    lacks = [words for words in runs if words not in shown.at_work]
    if not lacks:
        return
    with st.container(horizontal=True, vertical_alignment="center"):
        if st.button("Run what lacks", key=f"results_run_{name}", icon=":material/play_arrow:"):
            st.session_state[state.RESULTS_ASKED] = (name, tuple(lacks))
            st.rerun()
        count = "1 run" if len(lacks) == 1 else f"{len(lacks)} runs"
        st.caption(f"{count} not made yet. {escaped(fillings[0].exhibit.cost)}")


def show_figures(shown: Shown, fillings: Sequence) -> None:
    """Draw the figures of an exhibit; those of two sides stand beside each other."""
    points = [one for one in fillings[0].figures if one.kind == "points"]
    if len(fillings) == 1 and len(points) > 1:
        for place, one in zip(st.columns(len(points)), points, strict=True):
            with place:
                show_figure(shown, fillings[0], one, 0)
    else:
        points = []
    for one in fillings[0].figures:
        if one in points:
            continue
        others = [
            next((other for other in filled.figures if other.name == one.name), None)
            for filled in fillings[1:]
        ]
        # maps and energies need the whole width
        wide = one.kind in ("maps", "energy")
        places = [st.container() for _ in fillings] if wide else st.columns(len(fillings))
        for place, figure in enumerate([one, *others]):
            if figure is not None:
                with places[place]:
                    show_figure(shown, fillings[place], figure, place)


def show_figure(shown: Shown, filled, figure, place: int) -> None:
    """Draw one figure with its downloads."""
    side = shown.sides[place]
    widgets.figure(
        figures.draw(figure.kind, figure.data, f"{figure.title}<br>{side.title}"),
        f"{figure.name}_{side.encoder}".replace("/", "_"),
        lambda: compute.figure_rows(figure),
        compute.record(filled, side),
        key=f"results_figure_{figure.name}_{place}",
        alt=f"{figure.title}, {side.title}",
    )


def show_published(filled) -> None:
    """Draw what was published beside ours, and why they differ."""
    rows = compute.published_rows(filled)
    if not rows:
        return
    with st.expander(
        f"Published, here, and why they differ ({len(rows)})", icon=":material/menu_book:"
    ):
        why = filled.comparison[0].why
        st.caption(escaped(f"They differ in: {why}." if why else "The protocol is the same."))
        st.dataframe(
            [
                {key: "–" if value in (None, "") else value for key, value in row.items()}
                for row in rows
            ],
            key=f"results_published_{filled.exhibit.name}",
            hide_index=True,
        )
