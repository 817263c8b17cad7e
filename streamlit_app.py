"""Page setup and navigation, nothing else."""

import streamlit as st

from app.state import GRADIENTS_TO_MAP
from app.widgets.rerunning import whole_run

st.set_page_config(page_title="Tauscope", page_icon="app/icon.svg", layout="wide")

# what is shown stays clear while the next numbers are computed: fading repaints the whole page at
# every frame, on the cores that compute
st.html(
    "<style>[data-stale='true'] { opacity: 1 !important; transition: none !important; }"
    "[class*='_settled'] { display: none; }</style>"  # components that show nothing
)


def page(name: str, title: str, icon: str, **settings) -> st.Page:
    """Name a page of ``app/pages``; its address is its name."""
    return st.Page(
        f"app/pages/{name}.py", title=title, icon=f":material/{icon}:", url_path=name, **settings
    )


overview = page("overview", "Overview", "home", default=True)
merge = page("merge", "Merge", "tune")
negate = page("negate", "Negate", "remove_circle")
disentanglement = page("disentanglement", "Disentanglement", "grid_on")
ntk = page("ntk", "Eigenfunctions", "waves")
gradients = page("gradients", "Gradients", "trending_down")
results = page("results", "Results", "table_chart")
finetune = page("finetune", "Fine-tune", "model_training")
checkpoints = page("checkpoints", "Checkpoints", "inventory_2")
bring = page("bring", "Import & export", "swap_horiz")

chosen = st.navigation(
    [
        overview,
        merge,
        negate,
        disentanglement,
        ntk,
        gradients,
        results,
        finetune,
        checkpoints,
        bring,
    ],
    position="top",
)
if st.session_state.pop(GRADIENTS_TO_MAP, False):  # a button of Gradients asks for it
    st.switch_page(disentanglement)
body = st.container()
if chosen == overview:
    st.subheader("Where to go next")
    with st.container(horizontal=True):
        st.page_link(merge, label="**Merge**: drag a slider a task, watch accuracy move")
        st.page_link(negate, label="**Negate**: forget a task and keep the rest")
        st.page_link(
            disentanglement, label="**Disentanglement**: see where two task vectors interfere"
        )
        st.page_link(ntk, label="**Eigenfunctions**: see where the tangent kernel lives")
        st.page_link(
            gradients, label="**Gradients**: how far a task vector is a gradient, and merging early"
        )
        st.page_link(results, label="**Results**: the papers' tables and figures, and what lacks")
        st.page_link(finetune, label="**Fine-tune**: make task vectors in the background")
        st.page_link(checkpoints, label="**Checkpoints**: what is trained, and how far it moved")
        st.page_link(bring, label="**Import & export**: your own models and pictures, in and out")
with body, whole_run():
    chosen.run()
    if chosen == disentanglement:
        st.page_link(merge, label="Merge at these alphas", icon=":material/tune:")
    if chosen == merge:
        st.page_link(
            bring,
            label="Export at these alphas",
            icon=":material/download:",
            query_params={"v": "export"},
        )
