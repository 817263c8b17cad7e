"""The figures of the Eigenfunctions page: each with its numbers, its provenance and a caption."""

from collections.abc import Sequence

import streamlit as st

from app import widgets
from app.components.energy import View
from app.compute import energies, energy_tables, records, ring
from app.compute.energies import Shown
from app.figures import ntk as figures
from app.figures import ring as ring_figures


def named(shown: Sequence[Shown], what: str) -> str:
    """Name a file."""
    energy = shown[0].energy
    return f"{what}_{shown[0].encoder}_{energy.task}_{energy.control}".replace("/", "_")


def counts(shown: Sequence[Shown], rounded: bool = True) -> str:
    """Say what the numbers are; ``rounded`` as for ``energies.kind_of``."""
    energy = shown[0].energy
    kind = energies.kind_of(shown, rounded).capitalize()
    L = len(energy.logits)
    kernels = "the trace kernel" if tuple(energy.logits) == ("trace",) else f"{L} logits"
    return f"{kind}, n = {energy.n} points a block of the train split, {kernels}"


def label_of(shown: Sequence[Shown], setting: str) -> str:
    """Return a setting as a reader sees it."""
    found = {item.key: item for item in energies.common(shown)}[setting]
    return f"leading R = {found.label}" if found.kind == "leading" else f"ridge l = {found.label}"


def show_points(shown: Sequence[Shown], view: View) -> None:
    """Draw the paper's figure: a line for each logit, their mean with a band."""
    st.subheader("Local energy, logit by logit")
    widgets.figure(
        figures.local_energy(
            energies.panels(shown, view.setting), view.order, shown[0].energy.logits
        ),
        named(shown, "local_energy"),
        energy_tables.point_rows(shown, view.setting),
        energy_tables.provenance("local energy of each point", shown, setting=view.setting),
        key="ntk_lines",
        alt="Local energy of every point, a line for each logit, for every arrangement of columns",
    )
    st.caption(f"{counts(shown)}; {label_of(shown, view.setting)}.")


def show_densities(shown: Sequence[Shown], view: View) -> None:
    """Draw how energies are distributed."""
    st.subheader("How it is distributed")
    kind = st.session_state.get("ntk_density", figures.KINDS[0])
    widgets.figure(
        figures.densities(energies.panels(shown, view.setting), kind),
        named(shown, "densities"),
        energy_tables.point_rows(shown, view.setting),
        energy_tables.provenance("local energy, averaged over logits", shown, setting=view.setting),
        key="ntk_densities",
        alt="Distribution of local energy over the points of the task and of the control",
    )
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "Distribution as",
            figures.KINDS,
            default=figures.KINDS[0],
            required=True,
            format_func={"ecdf": "cumulative", "histogram": "histogram"}.get,
            key="ntk_density",
            label_visibility="collapsed",
        )
        st.caption(f"{counts(shown)}; mean over logits; {label_of(shown, view.setting)}.")


def show_scores(shown: Sequence[Shown], view: View) -> None:
    """Draw separation in one number an arrangement, with its interval."""
    st.subheader("How well the blocks separate")
    rows = energy_tables.score_rows(shown, view.setting)
    by = {item.encoder: [r for r in rows if r["encoder"] == item.encoder] for item in shown}
    widgets.figure(
        figures.scores(
            [energies.TITLES[name] for name in energies.ARRANGEMENTS],
            {name: [row["auc"] for row in found] for name, found in by.items()},
            {
                name: [(row["auc_low"], row["auc_high"]) for row in found]
                for name, found in by.items()
            },
        ),
        named(shown, "scores"),
        rows,
        energy_tables.provenance("separation of local energy", shown, setting=view.setting),
        key="ntk_scores",
        alt="Area under the ROC curve of every arrangement with its interval",
    )
    st.dataframe(
        {
            "encoder": [row["encoder"] for row in rows],
            "columns": [row["columns"] for row in rows],
            "mean difference": [
                f"{row['difference']:+.3f} [{row['difference_low']:+.3f}, "
                f"{row['difference_high']:+.3f}]"
                for row in rows
            ],
        },
        key="ntk_differences",
        hide_index=True,
        height="content",
    )
    st.caption(f"{counts(shown)}; 95 % intervals; {label_of(shown, view.setting)}.")


def show_spectrum(shown: Sequence[Shown]) -> None:
    """Draw singular values with the effective rank."""
    st.subheader("Spectrum")
    curves = {item.encoder: item.energy.spectrum[0].numpy() for item in shown}
    square = {
        item.encoder: item.energy.eigvals.numpy()
        for item in shown
        if item.energy.eigvals is not None
    }
    rank = {item.encoder: float(item.energy.effective_rank("paper").mean()) for item in shown}
    widgets.figure(
        figures.spectrum(curves, rank, square),
        named(shown, "spectrum"),
        energy_tables.spectrum_rows(shown),
        energy_tables.provenance(
            "singular values of the paper's n x 2n kernel",
            shown,
            rounded=False,
            effective_rank=rank,
        ),
        key="ntk_spectrum",
        alt="Singular values of the kernel from large to small, with the effective rank",
    )
    st.caption(
        f"{counts(shown, rounded=False)}; of the paper's n × 2n kernel. Effective rank: the "
        "exponential of the entropy of the singular values' shares; dotted."
        + (" Dash-dotted: eigenvalues of the square kernel on the task's points." * bool(square))
    )


def show_weighted(shown: Sequence[Shown], view: View) -> None:
    """Draw the energy weighted by the eigenfunctions that the fine-tuned task in fact uses."""
    st.subheader("Weighted by the task's own coefficients")
    found = energies.weighted_panels(shown)
    if not found:
        st.info(no_coefficients(shown), icon=":material/info:")
        return
    able = [item for item in shown if item.energy.captured is not None]
    captured = {item.encoder: float(item.energy.captured.mean()) for item in able}
    widgets.figure(
        figures.local_energy(found, view.order, able[0].energy.logits, bounded=False),
        named(shown, "weighted_energy"),
        energy_tables.weighted_rows(shown),
        energy_tables.provenance(
            "local energy weighted by squared coefficients of the linearly fine-tuned change of f",
            able,
            captured=captured,
        ),
        key="ntk_weighted",
        alt="Local energy weighted by the coefficients of the linearly fine-tuned task",
    )
    shares = ", ".join(f"{name} {widgets.percent(value)}" for name, value in captured.items())
    st.caption(
        rf"$\sum_\rho c_\rho^2 \phi_\rho(x)^2 / \sum_\rho c_\rho^2$, the paper's columns; the "
        f"eigenfunctions hold of the fine-tuned change of f: {shares}. {counts(able)}."
    )
    for item in able:
        show_regression(item)


def no_coefficients(shown: Sequence[Shown]) -> str:
    """Say why there are no coefficients, and what to do.

    An answer without those of a task vector that is there is not shown: computing it again is
    offered in its place.

    Args:
        shown: Encoders, none with coefficients.

    Returns:
        A sentence or two.
    """
    energy, encoder = shown[0].energy, shown[0].encoder
    if tuple(energy.logits) == ("trace",):
        return (
            "Coefficients are those of single logits, and the trace kernel is a sum over all: "
            "choose a number of logits under **Kernels of**."
        )
    return (
        "This needs a task vector trained in the tangent space: "
        f"`python -m engine finetune --encoder {encoder} --mode linear --tasks "
        f"{shown[0].question.task}`. Once it is there, this page offers to compute the pair with "
        "its coefficients."
    )


def show_regression(item: Shown) -> None:
    """Say how well kernel regression on the task's points gives the fine-tuned model."""
    found = item.energy.regression
    if found is None:
        return
    explained = sum(found["explained"]) / len(found["explained"])
    correlation = sum(found["correlation"]) / len(found["correlation"])
    text = (
        f"{item.encoder}: kernel regression on the task's {found['n']} points explains "
        f"{widgets.percent(explained)} of the fine-tuned change of f on the held-out points "
        f"(correlation {correlation:.2f}, mean over logits)."
    )
    accuracy = found["accuracy"]
    if accuracy is not None:
        said = ", ".join(
            f"{title} {widgets.percent(accuracy[key])}"
            for key, title in (
                ("zeroshot", "zero-shot"),
                ("dual", "regression"),
                ("linear", "fine-tuned"),
            )
        )
        text += (
            f" Accuracy among these {accuracy['classes']} classes, {accuracy['n']} held-out "
            f"points: {said}."
        )
    st.caption(text)


def show_layers(shown: Sequence[Shown]) -> None:
    """Draw which layers make the kernel."""
    st.subheader("Which layers make the kernel")
    by = st.session_state.get("ntk_layers_by", "block")
    names, shares = energy_tables.layer_shares(shown, by)
    widgets.figure(
        figures.layers(names, shares),
        named(shown, "layers"),
        [
            {"encoder": item.encoder, "parameter": name, "share": float(value)}
            for item in shown
            for name, value in item.energy.layers.items()
        ],
        energy_tables.provenance(
            "share of the kernel's trace over the task's points", shown, rounded=False
        ),
        key="ntk_layers",
        alt="Share of the kernel's trace that each layer makes",
    )
    st.segmented_control(
        "Layers by",
        ("block", "module"),
        default="block",
        required=True,
        format_func="by {}".format,
        key="ntk_layers_by",
        label_visibility="collapsed",
    )
    st.caption(f"Shares of the trace over the task's points. {counts(shown, rounded=False)}.")
    show_blocks(shown)


def show_blocks(shown: Sequence[Shown]) -> None:
    """Draw how localized each block's own kernel is."""
    names, values, intervals = energy_tables.block_scores(shown)
    st.markdown("**How localized each block is**")
    if not names:
        st.caption(
            "Blocks were not scored when this was computed: `python -m engine ntk --layer-scores` "
            "with the same choices adds their scores."
        )
        return
    widgets.figure(
        figures.scores(names, values, intervals),
        named(shown, "layer_scores"),
        energy_tables.block_rows(shown),
        energy_tables.provenance(
            "held-out localization of each block's own kernel, all its eigenfunctions",
            shown,
            rounded=False,
        ),
        key="ntk_layer_scores",
        alt="Area under the ROC curve of each block's own kernel with its interval",
    )
    st.caption(
        "Held-out columns, all eigenfunctions of the block's own kernel above rounding; the "
        f"blocks' kernels add up to the whole. 95 % intervals. {counts(shown, rounded=False)}."
    )


@st.fragment
def show_ring() -> None:
    """Draw the worked example of Appendix C."""
    with st.expander(
        "Worked example: a ring, where nothing is localized", icon=":material/school:"
    ):
        st.markdown(
            "Points lie evenly on a circle, half of them the task's, half the control's. The "
            "tangent kernel of a fully-connected network depends on the angle between two points "
            "alone, so its eigenfunctions are sines and cosines. They spread over the whole ring: "
            "with each pair complete (odd R), **local energy is the same everywhere**, and by the "
            "paper's Proposition 3 such a network cannot do task arithmetic here."
        )
        found = ring.example()
        R = st.slider("Leading R of the ring", 1, len(found.energy), 9, 2, key="ntk_ring_R")
        facts = records.provenance(
            "fully-connected tangent kernel on a ring, diagonalised by Fourier atoms",
            exact=True,
            n=ring.POINTS,
            layers=ring.LAYERS,
            width=ring.WIDTH,
            seed=0,
            residual=found.residual,
            R=R,
        )
        left, right = st.columns(2, gap="large")
        with left:
            widgets.figure(
                ring_figures.energy(found.atoms, found.energy, R),
                "ring_energy",
                [
                    {"degrees": 360 * j / ring.POINTS, "local_energy": float(value)}
                    for j, value in enumerate(found.energy[R - 1])
                ],
                facts,
                key="ntk_ring_energy",
                alt="Eigenfunctions on a ring and their local energy, which is flat",
            )
            spread = found.energy[R - 1].max() - found.energy[R - 1].min()
            st.caption(
                f"Exact, n = {ring.POINTS} points. Local energy R / n = {R / ring.POINTS:.3f} "
                f"everywhere; it varies by {spread:.1e}."
            )
        with right:
            widgets.figure(
                ring_figures.eigenvalues(
                    found.frequency,
                    {"infinite width": found.infinite, f"width {ring.WIDTH}": found.finite},
                ),
                "ring_eigenvalues",
                ring.rows(found),
                facts,
                key="ntk_ring_eigenvalues",
                alt="Eigenvalue of each Fourier atom under both kernels",
            )
            st.caption(
                f"Exact, {ring.LAYERS} hidden ReLU layers. At infinite width, the largest entry "
                f"off the diagonal is {found.residual:.0e} of the largest on it; at {ring.WIDTH}, "
                "one random network, the diagonal is shown."
            )
