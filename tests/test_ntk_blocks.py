"""Blocks of the network, the square kernel and kernel regression, each against a slow twin."""

import pytest
import torch

from engine.linearize import tangents
from engine.ntk import (
    ALGORITHMS,
    eigenfunctions,
    fine_tuned,
    kernel,
    local_energies,
    make_readout,
    plan,
)
from engine.ntk import kernels as kernels_module
from engine.ntk.reading import block_energy
from engine.ntk.scores import separation
from engine.task_vectors import parts_of
from tests.test_ntk_energy import CONTROL, TASK, pictures
from tests.test_ntk_kernel import CONFIG, CONFIGS, built, looped, problem

BLOCKS = ["input", "resblocks 0", "resblocks 1", "output"]


def test_parameters_are_sorted_into_parts_from_input_to_output():
    names = ["proj", "transformer.resblocks.10.a.w", "transformer.resblocks.2.b", "conv1.weight",
             "ln_post.bias"]  # fmt: skip
    assert parts_of(names) == {
        "input": ["conv1.weight"],
        "resblocks 2": ["transformer.resblocks.2.b"],
        "resblocks 10": ["transformer.resblocks.10.a.w"],
        "output": ["proj", "ln_post.bias"],
    }


@pytest.mark.parametrize("name", ["gelu", "convnext"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_block_s_kernel_is_that_of_its_parameters_and_they_add_up(name, algorithm):
    encoder = built(CONFIGS[name])
    theta, head, rows, columns = problem(encoder)
    found = kernel(
        encoder, theta, head, rows, columns, [1], algorithm=algorithm, batch=3, blocks=True
    )
    jacobian = looped(encoder, theta, head, columns, 1)
    scale = float(found.values.abs().max())
    assert list(found.blocks) == list(parts_of(list(theta)))
    for label, names in parts_of(list(theta)).items():
        expected = sum(jacobian[own][:2] @ jacobian[own].T for own in names)
        torch.testing.assert_close(found.blocks[label][0], expected, rtol=1e-9, atol=1e-11 * scale)
    torch.testing.assert_close(sum(found.blocks.values()), found.values, rtol=1e-10, atol=0)
    plain = kernel(encoder, theta, head, rows, columns, [1], algorithm=algorithm, batch=3)
    assert plain.blocks == {}
    torch.testing.assert_close(plain.values, found.values, rtol=1e-12, atol=1e-14 * scale)


def test_blocks_of_the_trace_and_of_points_in_blocks():
    encoder = built(CONFIG)
    theta, head, rows, columns = problem(encoder, n=5, m=7)
    each = kernel(encoder, theta, head, rows, columns, "all", blocks=True)
    trace = kernel(encoder, theta, head, rows, columns, "trace", blocks=True)
    for label in BLOCKS:
        torch.testing.assert_close(trace.blocks[label][0], each.blocks[label].sum(0))
    memory = plan(encoder, 5, 7, batch=1, parts=4).bytes
    while plan(encoder, 5, 7, batch=1, memory=memory, parts=4).block >= 7:
        memory = memory * 9 // 10
    few = kernel(encoder, theta, head, rows, columns, [0], batch=1, memory=memory, blocks=True)
    assert few.plan.block < 7
    for label in BLOCKS:
        torch.testing.assert_close(few.blocks[label][0], each.blocks[label][0])


def test_the_plan_says_what_blocks_hold():
    encoder = built(CONFIG)
    alone, with_blocks = plan(encoder, 200, 400), plan(encoder, 200, 400, parts=12)
    assert with_blocks.bytes - alone.bytes == 12 * 200 * 400 * 8
    assert "8 MB of it for 12 kernels of blocks" in with_blocks.text()
    assert "blocks" not in alone.text()


@pytest.fixture(scope="module")
def encoder():
    return built(CONFIG)


@pytest.fixture(scope="module")
def measured(encoder):
    tau = {name: 0.01 * torch.ones_like(value) for name, value in encoder.theta0.items()}
    return local_energies(
        encoder, TASK, pictures(0), {CONTROL: pictures(150, seed=1)}, points=6, logits=2,
        tau=tau, layer_scores=True,
    )[0]  # fmt: skip


def points_of(encoder, energy):
    splits = {"task": pictures(0), "heldout": pictures(0), "control": pictures(150, seed=1)}
    return {
        name: encoder.preprocess(split.images[energy.indices[name]])
        for name, split in splits.items()
    }


def test_scores_of_blocks_equal_projectors_of_their_own_jacobians(encoder, measured):
    x = points_of(encoder, measured)
    head = encoder.head(TASK)
    points = torch.cat([x["task"], x["heldout"], x["control"]])
    energies = {label: [] for label in BLOCKS}
    for logit in (0, 2):
        jacobian = looped(encoder, encoder.theta0, head, points, logit)
        for label, names in parts_of(list(encoder.theta0)).items():
            J = torch.cat([jacobian[name] for name in names], dim=1)
            K = J[:6] @ J[6:].T  # columns: held out, then the control's; no column is a row
            energies[label].append((K.T @ torch.linalg.pinv(K @ K.T) @ K).diagonal())
    assert list(measured.layer_scores) == BLOCKS
    for label, found in measured.layer_scores.items():
        mean = torch.stack(energies[label]).mean(0)
        expected = separation(mean[:6], mean[6:])
        assert found["auc"] == pytest.approx(expected["auc"])
        assert found["difference"] == pytest.approx(expected["difference"], abs=1e-6)
        assert found["auc_interval"] == pytest.approx(expected["auc_interval"])
        assert found["rank"] == 6


def test_vectors_within_rounding_of_zero_are_left_out_of_a_block():
    source = torch.Generator().manual_seed(0)
    left, right = (torch.randn(k, 3, generator=source, dtype=torch.float64) for k in (5, 10))
    K = (left @ right.T)[None] + 1e-15
    energy, rank = block_energy(K, torch.float64)
    assert rank == 3
    assert float(energy.sum()) == pytest.approx(3)
    torch.testing.assert_close(energy[0], (right @ torch.linalg.pinv(right)).diagonal())


def test_eigenvalues_are_those_of_the_square_kernel(encoder, measured):
    x = points_of(encoder, measured)["task"]
    K = kernel(encoder, encoder.theta0, encoder.head(TASK), x, x, [0, 2]).values
    torch.testing.assert_close(measured.eigvals, eigenfunctions(K)[0])
    torch.testing.assert_close(measured.eigvals.sum(1), K.diagonal(dim1=1, dim2=2).sum(1))


def test_regression_finds_a_task_vector_in_the_span_of_the_points_gradients(encoder):
    """tau = J^T beta, made from autograd's gradients; the dual has to give J tau elsewhere."""
    theta, head = encoder.theta0, encoder.head(TASK)
    x = encoder.preprocess(pictures(0, 12).images)
    labels = torch.tensor([0, 1, 0, 2, 1, 1])
    K, starts, changes = [], [], []
    for logit in (0, 1):
        jacobian = looped(encoder, theta, head, x, logit)
        beta = torch.linspace(-1, 2, 6, dtype=torch.float64)
        tau = {name: (beta @ J[:6]).reshape(theta[name].shape) for name, J in jacobian.items()}
        z, (jz,) = tangents(encoder.features, theta, [tau], x)
        f, change = torch.func.jvp(make_readout(head, logit, "cosine"), (z,), (jz,))
        K.append(sum(J[:6] @ J.T for J in jacobian.values()))
        starts.append(f)
        changes.append(change)
    start, change = torch.stack(starts), torch.stack(changes)
    found = fine_tuned(torch.stack(K), start, change, labels, [0, 1])
    assert found["explained"] == pytest.approx([1, 1], abs=1e-3)  # but for the ridge
    assert found["correlation"] == pytest.approx([1, 1], abs=1e-3)
    right = {name: 0 for name in ("zeroshot", "linear")}
    for j, label in enumerate(labels.tolist()):
        if label < 2:  # only points of the logits' classes count
            right["zeroshot"] += int(start[:, 6 + j].argmax()) == label
            right["linear"] += int((start + change)[:, 6 + j].argmax()) == label
    accuracy = found["accuracy"]
    assert (accuracy["n"], accuracy["classes"]) == (5, 2)
    assert accuracy["zeroshot"] == pytest.approx(right["zeroshot"] / 5)
    assert accuracy["linear"] == pytest.approx(right["linear"] / 5)
    assert accuracy["dual"] == pytest.approx(accuracy["linear"])
    assert fine_tuned(torch.stack(K)[:1], start[:1], change[:1], labels, [0])["accuracy"] is None


def test_a_random_change_is_not_explained(encoder):
    source = torch.Generator().manual_seed(0)
    K = torch.eye(5, 10, dtype=torch.float64)[None]  # the held-out points share nothing
    change = torch.randn(1, 10, generator=source, dtype=torch.float64)
    found = fine_tuned(K, 0 * change, change, torch.zeros(5, dtype=torch.long), [0])
    assert found["explained"] == pytest.approx([0])
    assert found["correlation"] == [0.0]


def test_a_state_without_blocks_is_computed_again_where_they_are_asked_for(encoder, monkeypatch):
    held, counted = {}, []

    def once(*args, **kwargs):
        counted.append(1)
        return run(*args, **kwargs)

    run = kernels_module._RUN["layerwise"]
    monkeypatch.setitem(kernels_module._RUN, "layerwise", once)

    def ask(**options):
        return local_energies(
            encoder, TASK, pictures(0), {CONTROL: pictures(150, seed=1)}, points=4, logits=1,
            load_state=held.get, save_state=lambda name, t, meta: held.update({name: (t, meta)}),
            algorithm="layerwise", memory=1 << 30, **options,
        )[0]  # fmt: skip

    assert ask().layer_scores is None
    first = ask(layer_scores=True)
    again = ask(layer_scores=True)
    assert len(counted) == 2
    assert again.layer_scores == first.layer_scores
    assert ask().layer_scores is None
    assert len(counted) == 2
