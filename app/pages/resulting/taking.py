"""What can be taken away from the Results page: the report, everything as JSON."""

from collections.abc import Mapping, Sequence

import streamlit as st

from app import widgets
from app.compute import results as compute


def draw(
    sides: Sequence[compute.Side],
    fillings: Sequence[Mapping],
    exhibits: Sequence[str],
    complete: bool,
) -> None:
    """Draw the downloads of each side.

    Args:
        sides: What is shown.
        fillings: All exhibits of each side, by name.
        exhibits: Those that are shown.
        complete: Whether all have been read.
    """
    st.divider()
    st.subheader("Take it with you", anchor="take")
    st.caption(
        "The report is one folder: a page that needs nothing else, a CSV for each table, an SVG "
        "for each figure, and a JSON file with what made every number. Made when you click."
    )
    for place, (side, filled) in enumerate(zip(sides, fillings, strict=True)):
        name = side.title.replace("/", "_").replace(", ", "_").replace(" ", "")
        with st.container(horizontal=True, vertical_alignment="center"):
            if len(sides) > 1:
                st.markdown(f"**{side.title}**")
            st.download_button(
                "Report (zip)",
                lambda side=side, filled=filled: compute.report_zip(side, filled),
                f"report_{name}.zip",
                "application/zip",
                key=f"results_zip_{place}",
                on_click="ignore",
                icon=":material/folder_zip:",
                disabled=not complete,
            )
            st.download_button(
                "Everything (JSON)",
                lambda side=side, filled=filled: widgets.to_json(compute.everything(side, filled)),
                f"results_{name}.json",
                "application/json",
                key=f"results_json_{place}",
                on_click="ignore",
                icon=":material/data_object:",
                disabled=not complete,
            )
            st.download_button(
                "What is shown (zip)",
                lambda side=side, filled=filled: compute.report_zip(
                    side, {one: filled[one] for one in exhibits}
                ),
                f"report_{name}_{'_'.join(exhibits)}.zip"[:120],
                "application/zip",
                key=f"results_shown_{place}",
                on_click="ignore",
                icon=":material/filter_alt:",
                disabled=not exhibits or any(one not in filled for one in exhibits),
            )
