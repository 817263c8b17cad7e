"""Tangents of every kind of tower against finite differences and backward passes."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch.func import functional_call

from engine.encoders import plain_attention
from engine.encoders.miniature import tokenizer
from engine.encoders.supervised import make_supervised
from engine.encoders.towers import architecture_config, build_model, make_encoder
from engine.linearize import linear_gradient, tangents

TEXT = {"context_length": 12, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 1}
# the configurations of the real towers, made small: kind and options of every layer stay
SMALL = {"layers": 2, "width": 16, "head_width": 8, "image_size": 16}
TOWERS = {
    "ViT-B-32-quickgelu": {**SMALL, "patch_size": 8},
    "ViT-B-16-quickgelu": {**SMALL, "patch_size": 4},
    "ViT-L-14-quickgelu": {**SMALL, "patch_size": 4, "layers": 3},
    "ViT-B-32": {**SMALL, "patch_size": 8},
    "convnext_base_w": {"timm_model_name": "test_convnext", "image_size": 32},
}


def small(name):
    """An encoder of a real tower's configuration, with small numbers in it, in float64."""
    if name.startswith("test_"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            sized = {"img_size": 32} if name == "test_vit" else {}
            model = timm.create_model(name, num_classes=0, **sized).eval()
        encoder = make_supervised(f"timm/{name}", name, model, None)
    else:
        config = architecture_config(name)
        vision = {**config["vision_cfg"], **TOWERS[name]}
        config |= {"embed_dim": 8, "vision_cfg": vision, "text_cfg": {**config["text_cfg"], **TEXT}}
        encoder = make_encoder(name, build_model(config, 1), config, tokenizer(config))
    return encoder.to("cpu", torch.float64)


NAMES = (*TOWERS, "test_vit", "test_convnext")


@pytest.fixture(scope="module", params=NAMES)
def case(request):
    """Encoder, two task vectors in every parameter, and pixels."""
    encoder = small(request.param)
    generator = torch.Generator().manual_seed(4)
    taus = [
        {
            # as large as the weights: layer scales of 1e-6 must count as much as matrices
            key: 0.1 * (value.abs().mean() + 1e-2) * torch.randn(
                value.shape, generator=generator, dtype=torch.float64
            )
            for key, value in encoder.theta0.items()
        }
        for _ in range(2)
    ]  # fmt: skip
    size = 32 if "conv" in request.param or "test_" in request.param else 16
    x = torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)
    return encoder, taus, x


def moved(theta0, tau, step):
    return {key: value + step * tau[key] for key, value in theta0.items()}


def test_tangents_equal_finite_differences(case):
    encoder, taus, x = case
    z0, jz = tangents(encoder.features, encoder.theta0, taus, x)
    torch.testing.assert_close(z0, encoder.features(encoder.theta0, x))
    for tau, got in zip(taus, jz, strict=True):
        step = 1e-4
        up, down, farther, nearer = (
            encoder.features(moved(encoder.theta0, tau, k * step), x) for k in (1, -1, 2, -2)
        )
        expected = (8 * (up - down) - (farther - nearer)) / (12 * step)  # of fourth order
        assert float((got - expected).norm() / expected.norm()) < 1e-8
        assert float(expected.norm()) > 1e-3


def test_tangents_equal_backward_passes(case):
    """J tau, output by output: the gradient of each feature, contracted with tau."""
    encoder, taus, x = case
    leaves = {key: value.clone().requires_grad_() for key, value in encoder.theta0.items()}
    with plain_attention():
        z = encoder.features(leaves, x[:1])
    _, jz = tangents(encoder.features, encoder.theta0, taus, x[:1])
    for place in (0, 3, 7):
        grads = torch.autograd.grad(z[0, place], list(leaves.values()), retain_graph=True)
        expected = sum((grad * taus[1][key]).sum() for key, grad in zip(leaves, grads, strict=True))
        torch.testing.assert_close(jz[1, 0, place], expected, rtol=1e-10, atol=1e-12)


def test_linear_gradients_equal_those_through_the_explicit_jacobian(case):
    encoder, (tau, _), x = case
    labels = torch.tensor([0, 1])
    head = torch.randn(3, encoder.embed_dim, generator=torch.Generator().manual_seed(1)).double()

    def loss(z):
        return F.cross_entropy(5 * F.normalize(z, dim=-1) @ head.T, labels)

    value, got = linear_gradient(encoder.features, encoder.theta0, tau, x, loss)
    z0, (jz,) = tangents(encoder.features, encoder.theta0, [tau], x)
    z = (z0 + jz).requires_grad_()
    expected_value = loss(z)
    (cotangent,) = torch.autograd.grad(expected_value, z)
    leaves = {key: item.clone().requires_grad_() for key, item in encoder.theta0.items()}
    with plain_attention():
        out = functional_call(encoder.tower, leaves, (x,))
    expected = torch.autograd.grad(out, list(leaves.values()), cotangent)
    torch.testing.assert_close(value, expected_value.detach())
    for (key, gradient), twin in zip(got.items(), expected, strict=True):
        torch.testing.assert_close(gradient, twin, rtol=1e-9, atol=1e-12, msg=key)
