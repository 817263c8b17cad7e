"""Local energy: its laws, its traps, its scores, and the analytic case."""

from dataclasses import dataclass, replace

import pytest
import torch

from engine.errors import CheckpointError, NonFiniteError, UsageError
from engine.linearize import tangents
from engine.ntk import (
    ARRANGEMENTS,
    LocalEnergy,
    dual_coefficients,
    effective_rank,
    eigenfunctions,
    keep_local_energies,
    keep_local_energy,
    kept_local_energy,
    kernel,
    local_energies,
    local_energy,
    make_readout,
    predict,
    right_singular,
    ring_example,
    vector_energy,
)
from engine.ntk.draws import choose_logits
from engine.ntk.reading import coefficients, leading_grid
from engine.ntk.ring import empirical_kernel, fourier_atoms, fully_connected_kernel, ring
from engine.ntk.scores import scored, separation
from engine.ntk.spectrum import leading_energy, ridge_energy
from tests.test_ntk_kernel import CONFIG, built


@dataclass(frozen=True)
class Words:
    name: str
    classnames: tuple = ("one", "two", "three", "four")
    templates: tuple = ("a {}.",)
    source: str = "test"


@dataclass(frozen=True, eq=False)
class Pictures:
    name: str
    images: torch.Tensor
    labels: torch.Tensor
    digest: str


def pictures(brightness: int, n: int = 30, seed: int = 0) -> Pictures:
    source = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (n, 3, 16, 16), generator=source) + brightness
    labels = torch.randint(0, 4, (n,), generator=source)
    return Pictures("train", images.to(torch.uint8), labels, f"{brightness}-{seed}")


TASK, CONTROL = Words("dark"), Words("bright")


def gaussian_kernel(n: int, m: int, d: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    """Rows are n points; columns those, m of a control (shifted) and n held-out points."""
    source = torch.Generator().manual_seed(seed)
    points = torch.randn(2 * n + m, d, generator=source, dtype=torch.float64)
    points[n : n + m] += shift
    return points[:n] @ points.T


def test_energy_is_the_diagonal_of_a_projector():
    K = gaussian_kernel(8, 8, 40, 0)[:, :16]
    _, vectors = right_singular(K)
    energy = vector_energy(vectors)
    projector = K.T @ torch.linalg.inv(K @ K.T) @ K  # another way to write it
    torch.testing.assert_close(energy, projector.diagonal())
    assert energy.sum() == pytest.approx(8)
    assert 0 <= energy.min() <= energy.max() <= 1 + 1e-12
    torch.testing.assert_close(vector_energy(right_singular(7 * K)[1]), energy)


def test_energy_of_leading_vectors_and_of_a_ridge():
    K = gaussian_kernel(8, 8, 40, 1)[:, :16]
    singular, vectors = right_singular(K)
    for R, row in zip((1, 3, 8), leading_energy(vectors, (1, 3, 8)), strict=True):
        assert row.sum() == pytest.approx(R)
        expected = [sum(float(vectors[j, r]) ** 2 for r in range(R)) for j in range(16)]
        torch.testing.assert_close(row, torch.tensor(expected, dtype=torch.float64))
    none, some = ridge_energy(singular, vectors, (1e-9, 0.3))
    torch.testing.assert_close(none, vector_energy(vectors))
    lam = 0.3 * singular[0]
    ridged = K.T @ torch.linalg.inv(K @ K.T + lam**2 * torch.eye(8)) @ K
    torch.testing.assert_close(some, ridged.diagonal())
    assert leading_grid(200)[0] == 1
    assert leading_grid(200)[-1] == 200


def trap_full_matrices(K):
    return torch.linalg.svd(K)[2].T  # torch's default: full_matrices=True


def trap_left(K):
    return torch.linalg.svd(K, full_matrices=False)[0]


def trap_square(K):
    return eigenfunctions(K.T @ K)[1]


@pytest.mark.parametrize("trap", [trap_full_matrices, trap_left, trap_square])
def test_each_trap_is_caught(trap):
    K = gaussian_kernel(8, 8, 40, 2)[:, :16]
    vectors = trap(K)
    everywhere = vectors.square().sum(1)
    torch.testing.assert_close(everywhere, torch.ones_like(everywhere))  # that is the trap
    with pytest.raises(ValueError, match="1 everywhere"):
        vector_energy(vectors)


def test_right_vectors_need_at_least_as_many_columns_and_finite_numbers():
    with pytest.raises(ValueError, match="no more rows than columns"):
        right_singular(torch.ones(3, 2))
    with pytest.raises(NonFiniteError, match="tangent kernel"):
        right_singular(torch.full((2, 3), float("nan")))


def test_limits_of_the_paper_s_curve():
    own = gaussian_kernel(8, 8, 40, 3)[:, :8]
    apart = vector_energy(right_singular(torch.cat([own, torch.zeros(8, 8)], 1))[1])
    torch.testing.assert_close(apart[:8], torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(apart[8:], torch.zeros(8, dtype=torch.float64))
    copied = vector_energy(right_singular(torch.cat([own, own], 1))[1])
    torch.testing.assert_close(copied, torch.full((16,), 0.5, dtype=torch.float64))


def test_perfect_localization_has_area_one_in_every_arrangement_that_can_show_it():
    K = gaussian_kernel(10, 10, 60, 4)
    K[:, 10:20] = 0  # the control shares no direction with the task
    paper, heldout = K[:, :20], torch.cat([K[:, 20:], K[:, 10:20]], 1)
    for columns in (paper, heldout):
        energy = vector_energy(right_singular(columns)[1])
        found = separation(energy[:10], energy[10:])
        assert found["auc"] == 1
        assert found["difference"] == pytest.approx(1)
        assert found["auc_interval"] == [0.7, 1.0]


def test_without_structure_only_the_corrected_score_is_a_half():
    n, inside, raw = 40, 0, []
    for seed in range(60):
        K = gaussian_kernel(n, n, 200, seed)  # all three blocks alike
        energy = vector_energy(right_singular(K[:, : 2 * n])[1])
        raw.append(separation(energy[:n], energy[n:])["auc"])
        order = [*range(2 * n, 3 * n), *range(n, 2 * n)]
        energy = vector_energy(right_singular(K[:, order])[1])
        low, high = separation(energy[:n], energy[n:])["auc_interval"]
        inside += low <= 0.5 <= high
    assert min(raw) > 0.99  # the bias: rows that are columns look like localization
    assert inside >= 54  # 60 intervals of 95 %; fewer than 54 by chance once in 500


def test_area_and_difference_equal_a_loop():
    first = torch.tensor([0.9, 0.5, 0.7, 0.2])
    second = torch.tensor([0.5, 0.1, 0.4])
    wins = sum((a > b) + 0.5 * (a == b) for a in first.tolist() for b in second.tolist())
    found = separation(first, second)
    assert found["auc"] == pytest.approx(wins / 12)
    assert found["difference"] == pytest.approx(0.575 - 1 / 3, abs=1e-6)
    low, high = found["difference_interval"]
    assert low < 0.575 - 1 / 3 < high
    flipped = separation(second, first)
    assert flipped["auc"] == pytest.approx(1 - found["auc"])
    assert scored(torch.stack([torch.cat([first, first.flip(0)])] * 2))["logits"] == [0.5, 0.5]
    with pytest.raises(ValueError, match="at least 2"):
        separation(first[:1], second)


def test_eigenfunctions_and_effective_rank():
    source = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=source, dtype=torch.float64))[0]
    chosen = torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0], dtype=torch.float64)
    values, vectors = eigenfunctions(turn @ chosen.diag() @ turn.T)
    torch.testing.assert_close(values, chosen.sort(descending=True).values)
    projector = turn[:, 1:2] @ turn[:, 1:2].T  # of the eigenvalue 5
    torch.testing.assert_close(vectors[:, :1] @ vectors[:, :1].T, projector)
    assert effective_rank(torch.ones(7, dtype=torch.float64)) == pytest.approx(7)
    assert effective_rank(torch.tensor([3.0, 0.0])) == pytest.approx(1)
    with pytest.raises(ValueError, match="symmetric"):
        eigenfunctions(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))


def test_energy_weighted_by_coefficients():
    K = gaussian_kernel(6, 6, 30, 5)[None, :, :12]
    _, vectors = right_singular(K)
    change = 2 * vectors[:, :, 1] + torch.linalg.svd(K[0])[2][-1]  # and something outside
    found = coefficients(vectors, change)
    expected = torch.zeros(1, 6, dtype=torch.float64)
    expected[0, 1] = 2
    torch.testing.assert_close(found["coefficients"], expected)
    torch.testing.assert_close(found["energy_weighted"], vectors[:, :, 1].square().float())
    assert float(found["captured"]) == pytest.approx(4 / 5)


@pytest.fixture(scope="module")
def encoder():
    return built(CONFIG)


@pytest.fixture(scope="module")
def measured(encoder):
    tau = {name: 0.01 * torch.ones_like(value) for name, value in encoder.theta0.items()}
    plans, done = [], []
    found = local_energy(
        encoder, TASK, CONTROL, pictures(0), pictures(150, seed=1), points=8, logits=2, tau=tau,
        progress=lambda *p: done.append(p), announce=plans.append,
    )  # fmt: skip
    assert len(plans) == 1
    assert done[-1][0] == pytest.approx(done[-1][1])
    return found


def test_local_energy_reads_each_arrangement_off_its_own_kernel(encoder, measured):
    splits = {"task": pictures(0), "heldout": pictures(0), "control": pictures(150, seed=1)}
    x = {
        name: encoder.preprocess(split.images[measured.indices[name]])
        for name, split in splits.items()
    }
    head = encoder.head(TASK)
    assert measured.logits == ("one", "three")
    blocks = (("task", "control"), ("task", "heldout"), ("heldout", "control"))
    for place, names in enumerate(blocks):
        columns = torch.cat([x[name] for name in names])
        K = kernel(encoder, encoder.theta0, head, x["task"], columns, [0, 2]).values
        singular, vectors = right_singular(K)
        torch.testing.assert_close(measured.spectrum[place], singular)
        energy = vector_energy(vectors)
        torch.testing.assert_close(measured.energy[place].double(), energy, rtol=1e-4, atol=1e-5)
        arrangement = ARRANGEMENTS[place]
        torch.testing.assert_close(
            torch.cat([measured.task_energy(arrangement), measured.control_energy(arrangement)], 1),
            measured.energy[place],
        )
    assert set(measured.indices["task"].tolist()).isdisjoint(measured.indices["heldout"].tolist())
    torch.testing.assert_close(
        measured.labels["control"], splits["control"].labels[measured.indices["control"]]
    )
    # dark and bright pictures: told apart by the corrected score as well
    assert measured.corrected == measured.scores["heldout"]
    assert sum(measured.layers.values()) == pytest.approx(1)
    assert sum(measured.layer_shares().values()) == pytest.approx(1)
    for R in measured.leading:
        both = measured.task_energy(leading=R).sum(1) + measured.control_energy(leading=R).sum(1)
        torch.testing.assert_close(both, torch.full((2,), float(R)))
    assert measured.score("paper", leading=8)["auc"] == measured.scores["paper"]["auc"]
    assert 0 < measured.score("heldout", ridge=measured.ridges[-1])["auc"] <= 1


def test_several_controls_share_the_rows(encoder, measured):
    third = replace(CONTROL, name="middle")
    splits = {CONTROL: pictures(150, seed=1), third: pictures(80, seed=2)}
    both = local_energies(encoder, TASK, pictures(0), splits, points=8, logits=2, ridges=(0.1,))
    assert [energy.control for energy in both] == ["bright", "middle"]
    torch.testing.assert_close(both[0].energy, measured.energy, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(both[1].energy[1], measured.energy[1], rtol=1e-5, atol=1e-6)
    assert both[1].coefficients is None


def test_kept_and_looked_up(store, encoder, measured):
    entry = keep_local_energy(store, measured)
    assert entry.kind == "result"
    (found,) = kept_local_energy(store, encoder, task="dark", control="bright", points=8, seed=0)
    torch.testing.assert_close(found.energy, measured.energy, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.spectrum, measured.spectrum.float().double())
    assert found.record()["scores"] == measured.scores
    assert found.indices["task"].tolist() == measured.indices["task"].tolist()
    assert kept_local_energy(store, encoder, task="bright") == []
    assert kept_local_energy(store, encoder, control="dark") == []
    with pytest.raises(UsageError, match="keep each task by itself"):
        keep_local_energies(store, [measured, replace(measured, task="other")])
    tensors, meta = measured.to_tensors()
    with pytest.raises(CheckpointError, match="lacks 'energy'"):
        LocalEnergy.from_tensors({k: v for k, v in tensors.items() if k != "energy"}, meta)
    with pytest.raises(CheckpointError, match="other shapes"):
        LocalEnergy.from_tensors({**tensors, "spectrum": torch.ones(3)}, meta)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"control": TASK}, "choose another control"),
        ({"points": 16}, "need 32 images of dark"),
        ({"points": 1}, "2 or more"),
        ({"logits": 5}, "from 1 to 4"),
        ({"logits": ["nine"]}, "no class is called 'nine'"),
    ],
)
def test_bad_choices_are_one_sentence(encoder, change, said):
    given = {"control": CONTROL, "points": 8, "logits": 1, **change}
    control = given.pop("control")
    with pytest.raises(UsageError, match=said):
        local_energy(encoder, TASK, control, pictures(0), pictures(150), **given)


def test_readings_that_were_not_computed_are_refused(measured):
    for wrong in (
        {"arrangement": "mirror"},
        {"leading": 6},
        {"ridge": 0.7},
        {"leading": 8, "ridge": 0.1},
    ):
        with pytest.raises(UsageError, match="choose one of"):
            measured.task_energy(**wrong)


def test_logits_by_number_and_by_name():
    names = ("a", "b", "c", "d", "e")
    assert choose_logits(2, names) == [0, 2]
    assert choose_logits("all", names) == [0, 1, 2, 3, 4]
    assert choose_logits(["e", "a", "e"], names) == [4, 0]


def test_kernel_regression_is_linear_fine_tuning_run_to_convergence(encoder):
    """The representer theorem: gradient descent in tau against the dual, at new points."""
    head = encoder.head(TASK)
    train = encoder.preprocess(pictures(0, 4).images)
    new = encoder.preprocess(pictures(60, 3, seed=3).images)
    readout = make_readout(head, 1, "score")
    theta, x = encoder.theta0, torch.cat([train, new])
    (K,) = kernel(encoder, theta, head, train, x, [1], readout="score").values
    with torch.no_grad():
        start = readout(encoder.features(theta, x))
    target = start[:4] + torch.tensor([1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    ridge = 0.4 * float(K[:, :4].trace()) / 4
    beta = dual_coefficients(K[:, :4], target - start[:4], ridge)
    expected = predict(start[4:], K[:, 4:], beta)
    tau = {name: torch.zeros_like(value) for name, value in theta.items()}
    rate = 1 / (float(torch.linalg.eigvalsh(K[:, :4])[-1]) + ridge)
    for _ in range(300):
        _, (jz,) = tangents(encoder.features, theta, [tau], train)
        residual = start[:4] + jz @ head[1] - target
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        readout(encoder.features(leaves, train)).backward(residual)
        tau = {
            name: value - rate * (leaves[name].grad + ridge * value) for name, value in tau.items()
        }
    _, (jz,) = tangents(encoder.features, theta, [tau], new)
    torch.testing.assert_close(start[4:] + jz @ head[1], expected, rtol=1e-6, atol=1e-8)
    exact = dual_coefficients(K[:, :4], target - start[:4])
    torch.testing.assert_close(predict(start[:4], K[:, :4], exact), target, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match="0 or more"):
        dual_coefficients(K[:, :4], target, -1.0)


def test_on_a_ring_waves_diagonalise_the_kernel_and_are_not_localized():
    found = ring_example(32)
    atoms = found["atoms"]
    torch.testing.assert_close(atoms.T @ atoms, torch.eye(32, dtype=torch.float64))
    assert found["residual"] < 1e-12
    values, _ = eigenfunctions(found["kernel"])
    torch.testing.assert_close(values, found["eigenvalues"].sort(descending=True).values)
    for R in (1, 3, 9, 15):  # whole pairs of sine and cosine: flat, half of it on the task
        torch.testing.assert_close(
            found["energy"][R - 1], torch.full((32,), R / 32, dtype=torch.float64)
        )
    with pytest.raises(ValueError, match="multiple of 4"):
        ring_example(30)
    with pytest.raises(ValueError, match="even"):
        fourier_atoms(3)


def test_a_wide_network_s_kernel_tends_to_the_analytic_one():
    x = ring(6)
    analytic = fully_connected_kernel(x, x, layers=2)

    def distance(width: int) -> float:
        drawn = [empirical_kernel(x, width, layers=2, seed=seed) for seed in range(8)]
        return float((torch.stack(drawn).mean(0) - analytic).norm() / analytic.norm())

    # falls as 1 / sqrt(width); 0.11, 0.045 and 0.023 were seen at 100, 400 and 1600
    assert distance(800) < 0.06 < distance(100) < 0.2
