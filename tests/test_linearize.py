"""The first-order expansion against finite differences, torch's own jvp and autograd."""

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call, jacrev, jvp

from engine.encoders import load_encoder, plain_attention
from engine.encoders.attention import swap_attention
from engine.errors import ParameterMismatchError
from engine.linearize import MODES, dual, linear_gradient, linearized, split, tangents
from tests.tiny_clip import tiny_encoder


@pytest.fixture(scope="module")
def tiny():
    return tiny_encoder().to("cpu", torch.float64)


def _images(encoder, n, seed=0):
    size = (n, 3, encoder.image_size, encoder.image_size)
    generator = torch.Generator().manual_seed(seed)
    return encoder.preprocess(torch.randint(0, 256, size, generator=generator, dtype=torch.uint8))


def _tau(theta0, seed, scale=0.05):
    generator = torch.Generator().manual_seed(seed)
    return {
        name: scale * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
        for name, value in theta0.items()
    }


def _moved(theta0, tau, alpha):
    return {name: value + alpha * tau[name] for name, value in theta0.items()}


def _forward_mode(encoder, tau, x):
    """The paper's own route: torch's jvp."""
    with plain_attention():
        return jvp(lambda theta: encoder.features(theta, x), (encoder.theta0,), (tau,))


def test_modes():
    assert MODES == ("nonlinear", "posthoc", "linear")


def test_tangents_agree_with_finite_differences(tiny):
    x, tau, step = _images(tiny, 3), _tau(tiny.theta0, 1), 1e-5
    z0, jz = tangents(tiny.features, tiny.theta0, [tau], x)
    up, down = (tiny.features(_moved(tiny.theta0, tau, s), x) for s in (step, -step))
    torch.testing.assert_close(jz[0], (up - down) / (2 * step), rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(z0, tiny.features(tiny.theta0, x), rtol=0, atol=1e-12)


def test_tangents_agree_with_the_explicit_jacobian(tiny):
    x, tau = _images(tiny, 2), _tau(tiny.theta0, 2)
    with plain_attention():
        jac = jacrev(lambda theta: tiny.features(theta, x))(tiny.theta0)  # (N, d, *shape) each
    expected = sum(
        torch.tensordot(jac[name], tau[name], dims=tau[name].ndim) for name in tiny.theta0
    )
    _, jz = tangents(tiny.features, tiny.theta0, [tau], x)
    torch.testing.assert_close(jz[0], expected, rtol=1e-10, atol=1e-12)


def test_several_tangents_equal_each_alone_and_torchs_jvp(tiny):
    x, taus = _images(tiny, 4), [_tau(tiny.theta0, s) for s in (3, 4, 5)]
    z0, jz = tangents(tiny.features, tiny.theta0, taus, x)
    assert jz.shape == (3, 4, 8)
    assert not z0.requires_grad
    assert not jz.requires_grad
    for tau, row in zip(taus, jz, strict=True):
        expected_z0, expected = _forward_mode(tiny, tau, x)
        torch.testing.assert_close(row, expected, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(z0, expected_z0, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(linearized(tiny.features, tiny.theta0, tau, x), z0 + row)


def test_float32_keeps_the_tangent_to_float_precision():
    encoder = tiny_encoder()
    double = encoder.to("cpu", torch.float64)
    x, tau = _images(encoder, 4), _tau(encoder.theta0, 1)
    _, jz = tangents(encoder.features, encoder.theta0, [tau], x)
    wide = {name: value.double() for name, value in tau.items()}
    _, expected = tangents(double.features, double.theta0, [wide], _images(double, 4))
    assert (jz - expected).norm() / expected.norm() < 2e-6


def test_no_task_vector_gives_the_features_alone(tiny):
    x = _images(tiny, 2)
    z0, jz = tangents(tiny.features, tiny.theta0, [], x)
    assert jz.shape == (0, 2, 8)
    torch.testing.assert_close(z0, tiny.features(tiny.theta0, x))


def test_the_expansion_is_linear_in_the_task_vector_and_exact_at_theta0(tiny):
    x, a, b = _images(tiny, 3), _tau(tiny.theta0, 6), _tau(tiny.theta0, 7)
    mixed = {name: 0.3 * a[name] - 2.0 * b[name] for name in a}
    z0, jz = tangents(tiny.features, tiny.theta0, [a, b], x)
    got = linearized(tiny.features, tiny.theta0, mixed, x)
    torch.testing.assert_close(got, z0 + 0.3 * jz[0] - 2.0 * jz[1], rtol=1e-11, atol=1e-12)
    zero = {name: torch.zeros_like(value) for name, value in a.items()}
    torch.testing.assert_close(linearized(tiny.features, tiny.theta0, zero, x), z0)


def test_halving_the_step_quarters_the_error(tiny):
    x, tau = _images(tiny, 3), _tau(tiny.theta0, 8)

    def error(alpha):
        exact = tiny.features(_moved(tiny.theta0, tau, alpha), x)
        scaled = {name: alpha * value for name, value in tau.items()}
        return float((exact - linearized(tiny.features, tiny.theta0, scaled, x)).norm())

    assert error(1e-3) / error(5e-4) == pytest.approx(4, rel=0.02)


def test_a_half_precision_task_vector_is_read_exactly(tiny):
    x = _images(tiny, 2)
    half = {name: value.half() for name, value in _tau(tiny.theta0, 9).items()}
    wide = {name: value.double() for name, value in half.items()}
    got, expected = (tangents(tiny.features, tiny.theta0, [t], x)[1] for t in (half, wide))
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


def test_foreign_task_vectors_are_refused(tiny):
    x, tau = _images(tiny, 1), _tau(tiny.theta0, 1)
    tau["surplus"] = tau.pop("proj")
    with pytest.raises(ParameterMismatchError, match="task vector 1 of 1 .*1 missing .proj"):
        tangents(tiny.features, tiny.theta0, [tau], x)


def _loss(encoder, n, classes=5):
    generator = torch.Generator().manual_seed(11)
    head = torch.randn(classes, encoder.embed_dim, generator=generator, dtype=torch.float64)
    head = F.normalize(head, dim=-1).to(encoder.mean)
    labels = torch.randint(0, classes, (n,), generator=generator)
    return lambda z: F.cross_entropy(14 * F.normalize(z, dim=-1) @ head.T, labels)


def _gradient_through_the_jvp(encoder, tau, x, loss):
    """The paper's Figure 7: backward through forward mode."""
    leaves = {name: value.clone().requires_grad_() for name, value in tau.items()}
    z0, jz = _forward_mode(encoder, leaves, x)
    value = loss(z0 + jz)
    return value, torch.autograd.grad(value, list(leaves.values()))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_linear_gradient_equals_backward_through_the_jvp(dtype, tolerance):
    encoder = tiny_encoder().to("cpu", dtype)
    x, tau, loss = _images(encoder, 6), _tau(encoder.theta0, 10), _loss(encoder, 6)
    value, grads = linear_gradient(encoder.features, encoder.theta0, tau, x, loss)
    expected_value, expected = _gradient_through_the_jvp(encoder, tau, x, loss)
    torch.testing.assert_close(value, expected_value.detach(), rtol=tolerance, atol=tolerance)
    assert list(grads) == list(encoder.theta0)
    difference = torch.cat([
        (g - e).flatten() for g, e in zip(grads.values(), expected, strict=True)
    ])
    size = torch.cat([e.flatten() for e in expected]).norm()
    assert float(difference.norm() / size) < tolerance
    assert not any(g.requires_grad for g in grads.values())


def test_linear_gradient_differs_from_the_nonlinear_one(tiny):
    # a broken expansion that evaluates at theta0 + tau would pass at tau = 0 alone
    x, tau, loss = _images(tiny, 6), _tau(tiny.theta0, 10, scale=0.3), _loss(tiny, 6)
    _, grads = linear_gradient(tiny.features, tiny.theta0, tau, x, loss)
    leaves = {k: v.requires_grad_() for k, v in _moved(tiny.theta0, tau, 1.0).items()}
    other = torch.autograd.grad(loss(tiny.features(leaves, x)), list(leaves.values()))
    assert (grads["proj"] - other[list(leaves).index("proj")]).norm() > 1e-3


def test_linear_gradient_under_autocast_is_near(tiny):
    encoder = tiny_encoder()
    x, tau, loss = _images(encoder, 8), _tau(encoder.theta0, 10), _loss(encoder, 8)
    value, grads = linear_gradient(encoder.features, encoder.theta0, tau, x, loss)
    with torch.autocast("cpu", torch.bfloat16):
        low_value, low = linear_gradient(encoder.features, encoder.theta0, tau, x, loss)
    assert float(low_value) == pytest.approx(float(value), rel=0.05)
    cosine = F.cosine_similarity(low["conv1.weight"].flatten(), grads["conv1.weight"].flatten(), 0)
    assert float(cosine) > 0.95


OPERATIONS = {
    "add a constant": lambda a, b: a + 2.0 - b,
    "subtract from a constant": lambda a, b: torch.ones(4, dtype=a.dtype) - a,
    "broadcast": lambda a, b: a[:, :1] * b + b,
    "quick gelu": lambda a, b: a * torch.sigmoid(1.702 * a),
    "gelu by tanh": lambda a, b: F.gelu(a, approximate="tanh"),
    "soft-max": lambda a, b: F.softmax(a * b, dim=-1),
    "normalise": lambda a, b: F.normalize(a + b, dim=-1),
    "norm without weights": lambda a, b: F.layer_norm(a, (4,)),
    "norm of a constant": lambda a, b: F.layer_norm(torch.arange(4.0).double(), (4,), b[0], a[0]),
    "norm": lambda a, b: F.layer_norm(a, (4,), b[0], b[1]),
    "linear without bias": lambda a, b: F.linear(a, b),
    "linear by name": lambda a, b: F.linear(input=a, weight=b),
    "linear in a bias alone": lambda a, b: F.linear(
        torch.ones(2, 4, dtype=a.dtype), torch.ones(3, 4, dtype=a.dtype), b[:, 0]
    ),
    "matrix product": lambda a, b: a @ b.T,
    "division": lambda a, b: a / (1 + b * b),
    "power": lambda a, b: a.pow(3) + b**2,
    "cat with a constant": lambda a, b: torch.cat([a, torch.ones_like(a).detach(), b], dim=1),
    "stack": lambda a, b: torch.stack([a, b]),
    "chunk": lambda a, b: a.chunk(2, dim=-1)[1] * b[:, :2],
    "largest": lambda a, b: a.amax(dim=-1) + b.var(dim=-1),
    "convolution": lambda a, b: F.conv2d(a.view(1, 1, 3, 4), b.view(1, 1, 3, 4)[..., :2, :2]),
    "grouped convolution": lambda a, b: F.conv2d(
        a.view(1, 3, 2, 2), b.view(3, 1, 2, 2), a[:, 0], 1, 1, 1, 3
    ),
    "attention": lambda a, b: F.scaled_dot_product_attention(a[None], b[None], (a * b)[None]),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("recorded", [False, True])
def test_each_rule_against_finite_differences(name, recorded):
    torch.manual_seed(5)
    a, b, da, db, ea, eb = torch.randn(6, 3, 4, dtype=torch.float64).unbind()
    op, step = OPERATIONS[name], 1e-6
    a.requires_grad_(recorded)
    value, (first, second) = split(op(dual(a, [da, ea]), dual(b, [db, eb])))
    plain = op(a, b)
    torch.testing.assert_close(value.detach(), plain.detach())
    assert value.requires_grad == plain.requires_grad
    with torch.no_grad():
        for got, (ta, tb) in ((first, (da, db)), (second, (ea, eb))):
            assert not got.requires_grad
            assert got.shape == plain.shape
            slope = op(a + step * ta, b + step * tb) - op(a - step * ta, b - step * tb)
            torch.testing.assert_close(got, slope / (2 * step), rtol=1e-7, atol=1e-7)


def test_what_is_no_number_passes_through_duals():
    a = dual(torch.randn(2, 3), [torch.randn(2, 3)])
    assert a.shape == (2, 3)
    assert a.argmax(dim=-1).dtype == torch.int64
    assert len({a, a}) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.mul_(2),
        lambda a: a.__iadd__(a),
        lambda a: a.__setitem__(0, 1.0),
        lambda a: F.relu(a, inplace=True),
        torch.sigmoid_,
    ],
)
def test_changing_a_dual_in_place_is_refused(change):
    with pytest.raises(ValueError, match="without side effects"):
        change(dual(torch.randn(2), [torch.randn(2)]))


def test_masked_attention_of_duals_is_refused():
    a = dual(torch.randn(1, 2, 4), [torch.randn(1, 2, 4)])
    with pytest.raises(ValueError, match="without mask"):
        F.scaled_dot_product_attention(a, a, a, is_causal=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu:random", "convnext_tiny:random"])
def test_real_encoders_agree_with_torchs_jvp(name):
    encoder = load_encoder(name, store=None)
    x, taus = _images(encoder, 2), [_tau(encoder.theta0, s, 1e-3) for s in (1, 2)]
    z0, jz = tangents(encoder.features, encoder.theta0, taus, x)
    for tau, row in zip(taus, jz, strict=True):
        expected_z0, expected = _forward_mode(encoder, tau, x)
        assert float((row - expected).norm() / expected.norm()) < 5e-6  # float32, 12 layers
        assert float((z0 - expected_z0).norm() / z0.norm()) < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "convnext_atto"])
def test_towers_of_timm_can_be_linearized(name):
    import timm

    tower = timm.create_model(name, num_classes=4).double().eval()
    swap_attention(tower)
    theta0 = {k: v.detach() for k, v in tower.named_parameters()}
    tau, x = _tau(theta0, 1), torch.randn(1, 3, 224, 224, dtype=torch.float64)

    def features(theta, x):
        return functional_call(tower, dict(theta), (x,))

    _, jz = tangents(features, theta0, [tau], x)
    up, down = (features(_moved(theta0, tau, s), x) for s in (1e-6, -1e-6))
    torch.testing.assert_close(jz[0], (up - down) / 2e-6, rtol=1e-6, atol=1e-7)
