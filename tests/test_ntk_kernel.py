"""The tangent kernel: three algorithms against a plain loop, on every kind of tower."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from engine.encoders.encoder import Encoder
from engine.encoders.miniature import CONFIG as MINIATURE
from engine.encoders.miniature import tokenizer
from engine.encoders.towers import build_model, make_encoder
from engine.errors import NonFiniteError, ParameterMismatchError, UsageError
from engine.ntk import ALGORITHMS, grams, kernel, plan
from engine.ntk import layerwise as layerwise_module
from engine.ntk.plans import survey_of
from engine.ntk.segments import Segments
from engine.ntk.uses import Book, watch
from tests.tiny_clip import CONFIG

VISION = CONFIG["vision_cfg"]
TIMM = {
    "timm_model_pretrained": False,
    "timm_pool": "",
    "timm_proj": "linear",
    "timm_drop": 0.0,
    "timm_drop_path": 0.0,
    "image_size": 32,
}
# open_clip's towers: kinds of activation, pooling, scale, depth of the norm
CONFIGS = {
    "gelu": CONFIG,
    "quickgelu": {**CONFIG, "quick_gelu": True},
    "average": {**CONFIG, "vision_cfg": {**VISION, "pool_type": "avg"}},
    "norm after pooling": {
        **CONFIG,
        "vision_cfg": {**VISION, "pool_type": "avg", "final_ln_after_pool": True},
    },
    "layer scale": {**CONFIG, "vision_cfg": {**VISION, "ls_init_value": 0.3}},
    "one block": {**CONFIG, "vision_cfg": {**VISION, "layers": 1}},
    "convnext": {**CONFIG, "vision_cfg": {**TIMM, "timm_model_name": "convnext_atto"}},
}


def built(config) -> Encoder:
    model = build_model(config, 0)
    return make_encoder("t", model, config, tokenizer(config)).to("cpu", torch.float64)


def of_tower(tower: nn.Module, size: int = 8, d: int = 6) -> Encoder:
    theta0 = {name: value.detach() for name, value in tower.double().named_parameters()}
    ones = torch.ones(3, dtype=torch.float64)
    return Encoder("own", "0" * 64, size, d, theta0, 1.0, 0 * ones, ones, tower.eval(), None)


def relu_vit() -> Encoder:
    model = build_model(CONFIG, 0)
    for block in model.visual.transformer.resblocks:
        block.mlp.gelu = nn.ReLU()
    return make_encoder("relu", model, CONFIG, tokenizer(CONFIG)).to("cpu", torch.float64)


def mlp() -> Encoder:
    torch.manual_seed(0)
    layers = nn.Linear(192, 10), nn.ReLU(), nn.Linear(10, 10, bias=False), nn.Tanh()
    return of_tower(nn.Sequential(nn.Flatten(), *layers, nn.Linear(10, 6)))


class Odd(nn.Module):
    """Every unusual way in which a parameter may enter."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.stem = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.deep = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.norm = nn.BatchNorm2d(8)
        self.group = nn.GroupNorm(2, 8)
        self.gamma = nn.Parameter(torch.rand(8, 1, 1))
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.tied = nn.Parameter(torch.randn(8, 8) / 3)
        self.normed = nn.Parameter(torch.randn(6, 8))
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.unused = nn.Parameter(torch.ones(2))
        self.norm.running_mean.uniform_(-1, 1)

    def forward(self, x):
        x = self.group(self.norm(self.deep(self.stem(x)).tanh())) * self.gamma
        x = torch.cat([self.token.expand(len(x), -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
        x = F.linear(x, self.tied).tanh()  # one weight three times: whole, in parts, turned
        x = x + torch.cat([F.linear(x, self.tied[:3]), F.linear(x, self.tied[3:])], dim=-1)
        x = torch.einsum("ntd,ed->nte", x, self.tied).tanh() @ self.tied
        weight = self.normed / self.normed.norm(dim=1, keepdim=True)
        return F.linear(x.mean(1), weight) * self.scale.exp()


TOWERS = {name: lambda c=config: built(c) for name, config in CONFIGS.items()}
TOWERS |= {"relu": relu_vit, "mlp": mlp, "odd": lambda: of_tower(Odd())}


def problem(encoder, n=2, m=4, C=3, seed=0):
    source = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(shape, generator=source, dtype=torch.float64)

    theta = {name: v + 0.05 * draw(*v.shape) for name, v in encoder.theta0.items()}
    x = draw(m, 3, encoder.image_size, encoder.image_size)
    return theta, F.normalize(draw(C, encoder.embed_dim), dim=1), x[:n], x


def looped(encoder, theta, head, x, logit, readout="cosine"):
    """The definition: one gradient a point, then their products, parameter by parameter."""
    rows = []
    for image in x:
        leaves = {name: value.clone().requires_grad_() for name, value in theta.items()}
        z = encoder.features(leaves, image[None])
        z = z / z.norm() if readout == "cosine" else z
        (z[0] @ head[logit]).backward()
        rows.append({
            name: torch.zeros(leaf.numel(), dtype=leaf.dtype)
            if leaf.grad is None
            else leaf.grad.flatten()
            for name, leaf in leaves.items()
        })
    return {name: torch.stack([row[name] for row in rows]) for name in theta}


@pytest.mark.parametrize("name", TOWERS)
def test_three_algorithms_equal_the_loop_to_rounding(name):
    encoder = TOWERS[name]()
    theta, head, rows, columns = problem(encoder)
    jacobian = looped(encoder, theta, head, columns, 1)
    expected = sum(J[:2] @ J.T for J in jacobian.values())
    for algorithm in ALGORITHMS:
        found = kernel(encoder, theta, head, rows, columns, [1], algorithm=algorithm, batch=3)
        assert found.plan.algorithm == algorithm
        assert found.values.dtype == torch.float64
        scale = float(expected.abs().max())
        torch.testing.assert_close(found.values[0], expected, rtol=1e-10, atol=1e-11 * scale)
        for parameter, J in jacobian.items():
            own = J[:2].square().sum(1)
            torch.testing.assert_close(
                found.layers[parameter][0], own, rtol=1e-9, atol=1e-11 * scale
            )


def test_the_miniature_itself_agrees_to_float64_rounding():
    model = build_model(MINIATURE, 0)
    encoder = make_encoder("m", model, MINIATURE, tokenizer(MINIATURE)).to("cpu", torch.float64)
    theta, head, rows, columns = problem(encoder)
    jacobian = looped(encoder, theta, head, columns, 0)
    exact = sum(J[:2] @ J.T for J in jacobian.values())
    scale = float(exact.abs().max())
    for algorithm in ALGORITHMS:
        found = kernel(encoder, theta, head, rows, columns, [0], algorithm=algorithm)
        torch.testing.assert_close(found.values[0], exact, rtol=1e-10, atol=1e-12 * scale)
        for parameter, J in jacobian.items():
            own = J[:2].square().sum(1)
            torch.testing.assert_close(
                found.layers[parameter][0], own, rtol=1e-8, atol=1e-12 * scale
            )


def test_the_miniature_in_float32_agrees_to_its_rounding():
    encoder = make_encoder("m", build_model(MINIATURE, 0), MINIATURE, tokenizer(MINIATURE))
    theta, head, rows, columns = problem(encoder.to("cpu", torch.float64), n=3, m=5)
    single = {name: value.float() for name, value in theta.items()}
    exact = sum(
        J[:3] @ J.T
        for J in looped(encoder.to("cpu", torch.float64), theta, head, columns, 0).values()
    )
    for algorithm in ALGORITHMS:
        found = kernel(
            encoder, single, head.float(), rows.float(), columns.float(), [0], algorithm=algorithm
        )
        torch.testing.assert_close(
            found.values[0], exact, rtol=2e-5, atol=2e-6 * float(exact.abs().max())
        )


def test_the_kernel_is_symmetric_and_positive_semi_definite():
    encoder = built(CONFIG)
    theta, head, _, x = problem(encoder, m=6)
    (K,) = kernel(encoder, theta, head, x, x, [2]).values
    torch.testing.assert_close(K, K.T, rtol=1e-12, atol=1e-12)
    assert torch.linalg.eigvalsh(K).min() > -1e-10 * K.trace()


def test_the_trace_kernel_is_the_sum_over_logits_and_the_scores_have_their_own():
    encoder = built(CONFIG)
    theta, head, rows, columns = problem(encoder)
    every = kernel(encoder, theta, head, rows, columns, "all")
    trace = kernel(encoder, theta, head, rows, columns, "trace")
    assert every.logits == (0, 1, 2)
    assert trace.logits == ("trace",)
    torch.testing.assert_close(trace.values[0], every.values.sum(0))
    torch.testing.assert_close(trace.layers["proj"][0], every.layers["proj"].sum(0))
    score = kernel(encoder, theta, head, rows, columns, [0], readout="score")
    jacobian = looped(encoder, theta, head, columns, 0, "score")
    torch.testing.assert_close(score.values[0], sum(J[:2] @ J.T for J in jacobian.values()))


@pytest.mark.parametrize("name", TOWERS)
def test_one_pass_that_is_kept_gives_the_kernel_of_several(name):
    encoder = TOWERS[name]()
    theta, head, rows, columns = problem(encoder)
    m = len(columns)
    kept, several = (
        kernel(encoder, theta, head, rows, columns, [1], algorithm="layerwise", batch=batch)
        for batch in (m, m - 1)
    )
    torch.testing.assert_close(kept.values, several.values, rtol=1e-11, atol=0)
    for parameter, part in several.layers.items():
        torch.testing.assert_close(kept.layers[parameter], part, rtol=1e-10, atol=1e-13)
    counted = survey_of(encoder)
    spared = several.plan.operations - kept.plan.operations
    assert spared == (m * counted.forward if counted.segments > 1 else 0)


@pytest.mark.parametrize("algorithm", ["layerwise", "jacobian"])
def test_points_in_blocks_give_the_same_kernel(algorithm):
    encoder = built(CONFIG)
    theta, head, rows, columns = problem(encoder, n=5, m=7)
    whole = kernel(encoder, theta, head, rows, columns, [0], algorithm=algorithm)
    done = []
    blocked = kernel(
        encoder, theta, head, rows, columns, [0], algorithm=algorithm, batch=1,
        memory=_memory_for_blocks(encoder, algorithm), progress=lambda *p: done.append(p),
    )  # fmt: skip
    assert blocked.plan.block < 7 <= whole.plan.block
    torch.testing.assert_close(blocked.values, whole.values)
    torch.testing.assert_close(blocked.layers["conv1.weight"], whole.layers["conv1.weight"])
    assert done[-1][0] == pytest.approx(done[-1][1])


def _memory_for_blocks(encoder, algorithm) -> int:
    """The least memory with which five by seven points are still computed, and a little more."""
    memory = 1 << 12
    while True:
        try:
            plan(encoder, 5, 7, algorithm=algorithm, batch=1, memory=memory)
        except UsageError:
            memory = memory * 5 // 4
        else:
            return memory


@pytest.mark.parametrize(
    ("rows", "columns"),
    [
        (slice(0, 19), slice(0, 19)),  # symmetric, in blocks that do not divide it
        (slice(0, 11), slice(0, 19)),  # symmetric in its first columns
        (slice(0, 3), slice(0, 19)),  # fewer rows than blocks
        (slice(0, 7), slice(7, 19)),  # nothing shared
        (slice(0, 19), slice(0, 7)),  # more rows than columns
    ],
)
@pytest.mark.parametrize(("tokens", "chunk"), [(1, 1 << 16), (3, 1 << 16), (3, 8)])
def test_both_forms_of_a_layer_are_the_sum_over_all_pairs(rows, columns, tokens, chunk):
    source = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(19, tokens, d, generator=source, dtype=torch.float64) for d in (5, 4)
    )
    gradients = torch.einsum("ntb,nta->nba", left, right)
    expected = torch.einsum("nba,mba->nm", gradients[rows], gradients[columns])
    n, m = expected.shape
    for form in (grams._add_by_tokens, grams.add_gram):
        sums = grams.Sums(torch.zeros(n, m, dtype=torch.float64))
        if form is grams.add_gram:
            part = grams.Part(None, left, right)
            form(sums, "w", [part], torch.Size([5, 4]), rows, columns, chunk)
        else:
            form(sums, "w", left, right, rows, columns, chunk)
        torch.testing.assert_close(sums.values, expected)
        own = gradients[rows].square().sum((1, 2))
        torch.testing.assert_close(sums.layers["w"], own)


def test_each_pair_that_is_mirrored_is_counted_once():
    by_tokens, by_gradients = grams.operations(16, 16, 16, 3, 5, 4, shared=True)
    assert by_tokens == 2 * 9 * 9 * (16 * 16 + 8 * 2 * 2) // 2
    assert grams.operations(16, 16, 32, 3, 5, 4, shared=False)[0] == 2 * 9 * 9 * 16 * 16
    assert by_gradients == 2 * 20 * (16 * 3 + 16 * 16)


def test_columns_that_do_not_begin_with_the_rows():
    encoder = built(CONFIG)
    theta, head, rows, columns = problem(encoder)
    turned = columns.flip(0)
    apart = kernel(encoder, theta, head, rows, turned, [0])
    together = kernel(encoder, theta, head, rows, columns, [0])
    torch.testing.assert_close(apart.values, together.values.flip(2))
    torch.testing.assert_close(apart.layers["proj"], together.layers["proj"])


def test_a_tied_weight_is_run_in_one_segment():
    model = build_model(CONFIG, 0)
    first, second = model.visual.transformer.resblocks
    second.mlp.c_fc.weight = first.mlp.c_fc.weight
    encoder = make_encoder("tied", model, CONFIG, tokenizer(CONFIG)).to("cpu", torch.float64)
    book = Book()
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    watched = watch(encoder.theta0, book)
    alone = {**watched, "transformer.resblocks.1.mlp.c_fc.weight": watched[TIED]}
    assert Segments(encoder).count == 2
    assert layerwise_module.choose_segments(encoder, watched, book, x).count == 2
    assert layerwise_module.choose_segments(encoder, alone, book, x).count == 1


TIED = "transformer.resblocks.0.mlp.c_fc.weight"


def test_a_parameter_that_is_skipped_is_an_error(monkeypatch):
    encoder = built(CONFIG)
    theta, head, rows, columns = problem(encoder)
    gather = layerwise_module.gather

    def forgetful(parts, use, found, where, count):
        gather(parts, use, [p for p in found if p.name != "ln_pre.bias"], where, count)

    monkeypatch.setattr(layerwise_module, "gather", forgetful)
    with pytest.raises(UsageError, match=r"does not cover 1 parameters \(ln_pre.bias\)"):
        kernel(encoder, theta, head, rows, columns, [0], algorithm="layerwise")


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(192))
        self.head = nn.Linear(192, 6)

    def forward(self, x):
        x = x.flatten(1) * 1.0
        x.add_(self.shift)
        return self.head(x)


def test_a_function_that_is_not_covered_is_an_error_and_auto_goes_another_way():
    encoder = of_tower(InPlace())
    theta, head, rows, columns = problem(encoder)
    with pytest.raises(UsageError, match="does not cover add_ of shift"):
        kernel(encoder, theta, head, rows, columns, [0], algorithm="layerwise")
    found = kernel(encoder, theta, head, rows, columns, [0])
    assert found.plan.algorithm == "jacobian"
    jacobian = looped(encoder, theta, head, columns, 0)
    torch.testing.assert_close(found.values[0], sum(J[:2] @ J.T for J in jacobian.values()))


def test_the_plan_adapts_to_memory_and_says_what_will_be_done():
    encoder = built(CONFIG)
    free = plan(encoder, 200, 400, memory=1 << 40)
    tight = plan(encoder, 200, 400, memory=free.bytes // 2)
    assert tight.bytes <= free.bytes // 2
    assert (tight.batch, tight.chunk, tight.block) < (free.batch, free.chunk, free.block)
    assert tight.operations >= free.operations
    assert "200 x 400 points, 1 logit: layerwise (fewest operations)" in free.text()
    assert "GFLOP" in free.text()
    assert "points at a time" in plan(encoder, 200, 400, memory=2_000_000).text()
    assert plan(encoder, 4, 4, logits=3).operations == 3 * plan(encoder, 4, 4).operations
    with pytest.raises(UsageError, match=r"at least .* MB .* and 0 MB are there"):
        plan(encoder, 200, 400, memory=1000)


def test_auto_takes_the_fewest_operations():
    encoder = built(CONFIG)
    costs = {name: plan(encoder, 50, 100, algorithm=name).operations for name in ALGORITHMS}
    assert plan(encoder, 50, 100).algorithm == min(costs, key=costs.get)


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"logits": [3]}, UsageError, "numbers from 0 to 2"),
        ({"logits": []}, UsageError, "different numbers"),
        ({"logits": "some"}, UsageError, "expected all, trace"),
        ({"readout": "loss"}, UsageError, "choose cosine or score"),
        ({"algorithm": "magic"}, UsageError, "choose auto, layerwise, jacobian or products"),
        ({"batch": 0}, UsageError, "at least 1"),
        ({"rows_x": torch.zeros(0, 3, 16, 16, dtype=torch.float64)}, UsageError, "more points"),
        ({"theta": {}}, ParameterMismatchError, "missing"),
        (
            {"rows_x": torch.full((1, 3, 16, 16), float("nan"), dtype=torch.float64)},
            NonFiniteError,
            "tangent kernel of logit 0",
        ),
    ],
)
def test_bad_input_is_one_sentence(change, error, said):
    encoder = built(CONFIG)
    theta, head, rows, columns = problem(encoder)
    given = {"theta": theta, "head": head, "rows_x": rows, "columns_x": columns, **change}
    with pytest.raises(error, match=said):
        kernel(encoder, **given)
