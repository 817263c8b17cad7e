import itertools
import json
import math
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_encoder import FakeSplit, FakeTask, fake_encoder, fake_split, fake_taus
from tiny_world import make_world
from torch.func import jvp

from benchmarks.stacked_cells import Stacked, differing
from engine.__main__ import main
from engine.disentanglement import (
    XiMap,
    axis,
    feature_products,
    keep_map,
    kept_map,
    kept_maps,
    linearized_diagonal,
    linearized_map,
    linearized_matrix,
    map_so_far,
    nonlinear_diagonal,
    nonlinear_map,
    nonlinear_matrix,
)
from engine.disentanglement.distances import (
    between,
    bootstrap_counts,
    interval_of_sum,
    percentile_interval,
    wilson_intervals,
)
from engine.disentanglement.nonlinear import refining
from engine.disentanglement.passes import Passes
from engine.disentanglement.precision import MOST_CHANGED, checked_passes, precision_for
from engine.encoders.attention import plain_attention
from engine.errors import CheckpointError, NonFiniteError, UsageError
from engine.evaluate import wilson_interval
from engine.responses import merged_scores, predictions, responses
from engine.store import Store
from engine.tasks import load_split, load_task, miniature

NAMES = ("shapes", "colours")
EMBEDDED = Path(__file__).parents[1] / "cache" / "embedded"
TASKS = {
    "shapes": FakeTask(),
    "colours": FakeTask("colours", ("red", "green", "blue", "grey", "pink")),
    "signs": FakeTask("signs", ("stop", "go", "yield", "turn")),
}


@dataclass(frozen=True, eq=False)
class Images(FakeSplit):
    def take(self, n: int) -> "Images":
        return replace(self, images=self.images[:n], labels=self.labels[:n], digest=f"first {n}")


def images_of(task: FakeTask, n: int = 40) -> Images:
    made = fake_split(task, "test", n)
    return Images(made.task, made.name, made.images, made.labels, made.digest)


@pytest.fixture(scope="module")
def world():
    """An encoder, two tasks, strong task vectors, and test images; all in float64."""
    encoder = fake_encoder(dtype=torch.float64)
    tasks = {name: TASKS[name] for name in NAMES}
    splits = {name: images_of(task) for name, task in tasks.items()}
    return encoder, tasks, fake_taus(encoder, NAMES, scale=0.3), splits


@pytest.fixture(scope="module")
def everything():
    """The same of three tasks."""
    encoder = fake_encoder(dtype=torch.float64)
    splits = {name: images_of(task) for name, task in TASKS.items()}
    return encoder, TASKS, fake_taus(encoder, TASKS, scale=0.2), splits


def scores_of(world, names=None):
    encoder, tasks, taus, splits = world
    names = tuple(names or tasks)
    chosen = {name: taus[name] for name in names}
    return {name: responses(encoder, tasks[name], splits[name], chosen).scores() for name in names}


def slow_features(encoder, taus, split, setting, linear):
    """Features of a merged model from one pass over the images, with no code of the engine's."""
    change = {
        key: sum(setting[name] * taus[name][key] for name in setting) for key in encoder.theta0
    }
    x = encoder.preprocess(split.images)
    if linear:
        z0, jz = jvp(lambda theta: encoder.features(theta, x), (encoder.theta0,), (change,))
        return z0 + jz
    return encoder.features({key: encoder.theta0[key] + change[key] for key in change}, x)


def slow_logits(world, name, setting, linear):
    """True logits of a merged model on one task's images."""
    encoder, tasks, taus, splits = world
    z = slow_features(encoder, taus, splits[name], setting, linear)
    unit = z / z.norm(dim=1, keepdim=True)
    return (encoder.logit_scale * (unit @ encoder.head(tasks[name]).to(z).T)).detach().numpy()


def slow_map(world, alphas, linear, apart=lambda p, q: float(p.argmax() != q.argmax()), known=None):
    """Eq. (6) as the obvious loop: four passes a cell, one image's distance after the other.

    ``known`` is a table of passes that several maps share: what ran once is not run again.
    """
    names = tuple(world[1])
    terms = {name: np.zeros((len(alphas), len(alphas))) for name in names}
    for i, first in enumerate(alphas.tolist()):
        for j, second in enumerate(alphas.tolist()):
            both = dict(zip(names, (first, second), strict=True))
            for name in names:
                logits = []
                for setting in ({name: both[name]}, both):
                    key, table = (name, *setting.items()), {} if known is None else known
                    if key not in table:
                        table[key] = slow_logits(world, name, setting, linear)
                    logits.append(table[key])
                pairs = zip(*logits, strict=True)
                terms[name][i, j] = np.mean([apart(p, q) for p, q in pairs])
    return terms


def softmax(logits):
    powers = [math.exp(value - max(logits)) for value in logits]
    return [power / sum(powers) for power in powers]


def slow_tv(first, second):
    return sum(abs(p - q) for p, q in zip(softmax(first), softmax(second), strict=True)) / 2


def slow_kl(first, second):
    p, q = softmax(first), softmax(second)
    there = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return (there + sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))) / 2


# the axis, and the order of the cells


def test_an_axis_is_symmetric_to_the_bit_and_holds_zero_where_it_is_odd():
    alphas = axis(21, 3.0)
    assert torch.equal(alphas, -alphas.flip(0))
    assert alphas[10] == 0
    assert axis(20).tolist() == pytest.approx(np.linspace(-3, 3, 20).tolist())
    assert axis(3, 1.0, low=0.0).tolist() == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(("points", "reach"), [(1, 3.0), (20, 0.0), (20, -1.0), (20, math.inf)])
def test_what_makes_no_axis_is_refused(points, reach):
    with pytest.raises(UsageError, match="make no grid"):
        axis(points, reach)


@pytest.mark.parametrize("G", [1, 2, 3, 7, 20, 33])
def test_cells_come_coarse_to_fine_each_once(G):
    cells = list(refining(G))
    assert sorted(cells) == [(i, j) for i in range(G) for j in range(G)]
    if G == 20:  # the corners of the first blocks, before what lies between
        assert cells[:4] == [(0, 0), (0, 8), (0, 16), (8, 0)]
        assert cells[9] == (0, 4)


# the definition


@pytest.mark.parametrize("linear", [False, True])
def test_every_cell_is_what_a_plain_loop_of_passes_gives(world, linear):
    alphas = axis(5, 2.0)
    expected = slow_map(world, alphas, linear)
    if linear:
        found = linearized_map(scores_of(world), NAMES, alphas)
    else:
        found = nonlinear_map(*world, alphas, batch=16)
    for name in NAMES:
        assert found.xi_task[name].tolist() == expected[name].tolist()
        assert len(np.unique(expected[name])) > 5
    assert found.done == 25
    assert found.exact


@pytest.mark.parametrize(("distance", "slow"), [("tv", slow_tv), ("kl", slow_kl)])
@pytest.mark.parametrize("linear", [False, True])
def test_logit_distances_are_those_of_true_logits(world, linear, distance, slow):
    encoder, tasks, taus, splits = world
    alphas = axis(3, 1.5)
    expected = slow_map(world, alphas, linear, slow)
    if linear:
        readings = {name: responses(encoder, tasks[name], splits[name], taus) for name in NAMES}
        found = linearized_map(
            {name: reading.scores() for name, reading in readings.items()},
            NAMES,
            alphas,
            distance=distance,
            norms={name: feature_products(reading) for name, reading in readings.items()},
            logit_scale=encoder.logit_scale,
        )
    else:
        found = nonlinear_map(*world, alphas, distance=distance)
    for name in NAMES:
        assert found.xi_task[name].numpy() == pytest.approx(expected[name], rel=2e-4, abs=2e-6)
    assert found.xi[1, 1] == 0
    assert (found.low <= found.xi).all()
    assert (found.xi <= found.high).all()


@pytest.mark.parametrize("distance", ["error", "tv"])
@pytest.mark.parametrize("reading", ["nonlinear", "linearized"])
def test_laws_of_the_map(world, reading, distance):
    encoder, tasks, taus, splits = world
    alphas = axis(7, 2.5)

    def measured(names):
        ordered = [{name: table[name] for name in names} for table in (tasks, taus, splits)]
        if reading == "nonlinear":
            return nonlinear_map(encoder, *ordered, alphas, distance=distance)
        readings = {
            name: responses(encoder, tasks[name], splits[name], ordered[1]) for name in names
        }
        return linearized_map(
            {name: item.scores() for name, item in readings.items()},
            names,
            alphas,
            distance=distance,
            norms={name: feature_products(item) for name, item in readings.items()},
            logit_scale=encoder.logit_scale,
        )

    found, turned = measured(NAMES), measured(NAMES[::-1])
    assert found.xi[3, 3] == 0
    # a task's own term is 0 where the other alpha is 0, and not elsewhere
    assert (found.xi_task["shapes"][:, 3] == 0).all()
    assert (found.xi_task["colours"][3, :] == 0).all()
    assert found.xi_task["shapes"][3, :].max() > 0
    assert torch.equal(found.xi, found.xi_task["shapes"] + found.xi_task["colours"])
    assert found.xi.max() <= 2
    # float32 logits of a linearized reading are summed in the order of the pair
    exact = distance == "error" or reading == "nonlinear"
    tolerance = {"rtol": 0, "atol": 0 if exact else 1e-6}
    back = turned.swapped()
    assert back.tasks == NAMES
    for name in NAMES:
        torch.testing.assert_close(turned.xi_task[name], found.xi_task[name].T, **tolerance)
    for field in ("xi", "low", "high"):
        torch.testing.assert_close(getattr(back, field), getattr(found, field), **tolerance)


@pytest.mark.parametrize("step", [0.25, 1.0])
def test_the_linearized_map_decides_ties_as_merged_scores_do(step):
    source = torch.Generator().manual_seed(0)
    # coarse scores and dyadic alphas: many exact ties, and two classes that are the same
    scores = {
        name: (torch.randn(3, 60, 5, generator=source) / step).round() * step for name in NAMES
    }
    scores["shapes"][:, :, 4] = scores["shapes"][:, :, 1]
    alphas = axis(9, 2.0)
    found = linearized_map(scores, NAMES, alphas)
    ties = 0
    for place, name in enumerate(NAMES):
        for i, first in enumerate(alphas.tolist()):
            for j, second in enumerate(alphas.tolist()):
                alone = [first, 0.0] if place == 0 else [0.0, second]
                merged = merged_scores(scores[name], [first, second])
                other = predictions(merged_scores(scores[name], alone)) != predictions(merged)
                assert found.xi_task[name][i, j] == other.double().mean()
                top = merged.topk(2, dim=1).values
                ties += int((top[:, 0] == top[:, 1]).sum())
    assert ties > 1000


def test_vectors_are_added_in_the_order_of_merged_scores():
    # 1 + 2^-53 + 1.5 x 2^-53 rounds to 1 + 2^-52 in this order and to 1 + 2^-51 in the other
    e = 2.0**-53
    planes = torch.tensor([[[1.0, 1.0]], [[0.0, e]], [[2 * e, 1.5 * e]]])
    found = linearized_map(dict.fromkeys(NAMES, planes), NAMES, torch.tensor([1.0]))
    merged = merged_scores(planes, [1.0, 1.0])
    assert merged[0, 0] == merged[0, 1]
    assert found.xi_task["shapes"].item() == 0


def test_either_order_of_the_tasks_merges_to_the_same_weights(world):
    _, tasks, _, splits = world
    encoder = fake_encoder()  # float32, where the order of a sum shows
    taus = fake_taus(encoder, NAMES)
    merged = []
    for names in (NAMES, NAMES[::-1]):
        tables = ({name: table[name] for name in names} for table in (tasks, taus, splits))
        passes = Passes(encoder, *tables)
        passes.merge(dict(zip(NAMES, (0.3, -1.7), strict=True)))
        merged.append(passes.merged)
    for key, value in merged[0].items():
        assert torch.equal(value, merged[1][key])


SCORES = {
    "any": lambda s: s,
    "whole numbers": torch.Tensor.round,
    "nothing": torch.zeros_like,
    "tiny": lambda s: 1e-30 * s,
    "huge": lambda s: 1e30 * s,
    "a vector that moves nothing": lambda s: s.round() * torch.tensor([1.0, 1, 0])[:, None, None],
    "one that moves all alike": lambda s: torch.stack([s[0], s[1, :, :1].expand_as(s[1]), s[2]]),
    "planes far apart": lambda s: s * torch.tensor([1e-20, 1, 1e10])[:, None, None],
    "theta0 undecided": lambda s: s.round() * torch.tensor([0.0, 1, 1])[:, None, None],
}


@pytest.mark.parametrize("kind", SCORES)
@pytest.mark.parametrize("C", [1, 2, 6])
def test_any_scores_give_what_merged_scores_say(kind, C):
    source = torch.Generator().manual_seed(C)
    scores = {name: SCORES[kind](torch.randn(3, 30, C, generator=source)) for name in NAMES}
    alphas = axis(6, 3.0, -1.0)
    found = linearized_map(scores, NAMES, alphas)
    for own, name in enumerate(NAMES):
        for i, j in itertools.product(range(6), repeat=2):
            setting = [float(alphas[i]), float(alphas[j])]
            alone = predictions(merged_scores(scores[name][[0, 1 + own]], [setting[own]]))
            both = predictions(merged_scores(scores[name], setting))
            changed = sum(p != q for p, q in zip(alone.tolist(), both.tolist(), strict=True))
            assert found.xi_task[name][i, j] == changed / 30


def test_a_map_of_many_chunks_is_the_map(monkeypatch):
    source = torch.Generator().manual_seed(1)
    scores = {name: torch.randn(3, 30, 4, generator=source) for name in NAMES}
    whole = linearized_map(scores, NAMES, axis(11))
    monkeypatch.setattr("engine.disentanglement.intervals.CELLS", 1)
    assert torch.equal(linearized_map(scores, NAMES, axis(11)).xi, whole.xi)


def test_planes_of_a_page_are_accepted_as_they_are():
    planes = np.random.default_rng(0).normal(size=(4, 20, 3)).astype(np.float32)
    scores = {name: planes[[0, 1, 3]] for name in NAMES}
    assert linearized_map(scores, NAMES, axis(3)).done == 9


# distances and intervals


def test_distances_by_hand():
    classes = torch.tensor([0, 1, 2]), torch.tensor([0, 2, 2])
    assert between("error", *classes).tolist() == [0, 1, 0]
    p, q = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    assert between("tv", p, q).tolist() == pytest.approx([0.4])
    # (0.4 log(9/5) + 0.4 log 5) / 2
    assert between("kl", p, q).tolist() == pytest.approx([0.2 * (math.log(1.8) + math.log(5))])
    assert between("tv", p, p + 3).tolist() == pytest.approx([0])


def test_wilson_intervals_by_hand():
    low, high = wilson_intervals(torch.tensor([0.5, 0.0, math.nan]), 10)
    # (0.5 + 0.19208 -+ sqrt(0.025 + 0.0096040) 1.96) / 1.38416
    assert low[0].item() == pytest.approx(0.2366, abs=1e-4)
    assert high[0].item() == pytest.approx(0.7634, abs=1e-4)
    assert low[1] == 0
    assert high[1].item() == pytest.approx(3.8416 / 13.8416)
    assert low[2].isnan()
    assert high[2].isnan()


def test_the_interval_of_a_sum_by_hand():
    terms = [torch.tensor([0.5]), torch.tensor([0.2])]
    bounds = [[torch.tensor([x]) for x in pair] for pair in ((0.2, -0.2), (0.8, 1.0))]
    low, high = interval_of_sum(terms, *bounds)
    assert low.item() == pytest.approx(0.7 - 0.5)
    assert high.item() == pytest.approx(0.7 + math.sqrt(0.09 + 0.64))


def test_bootstrap_samples_draw_every_image_as_often():
    counts = bootstrap_counts(50, seed=0)
    assert (counts.sum(dim=1) == 50).all()
    assert counts.mean().item() == 1
    assert not torch.equal(counts, bootstrap_counts(50, seed=1))
    low, high = percentile_interval(torch.arange(201, dtype=torch.float64))
    assert (low.item(), high.item()) == (5, 195)


def test_intervals_of_a_map_are_wilsons(world):
    found = nonlinear_map(*world, axis(3))
    share = float(found.xi_task["shapes"][0, 0])
    expected = wilson_interval(round(share * 40), 40)
    assert found.low_task["shapes"][0, 0].item() == expected[0]
    assert found.high_task["shapes"][0, 0].item() == expected[1]


# stopping, keeping


class Stop(Exception):
    """Stands for a cancelled or killed run."""


def stop_after(cells):
    def progress(found, done, total):
        assert found.done == done
        assert total == 25
        if done == cells:
            raise Stop

    return progress


@pytest.mark.parametrize("distance", ["error", "tv"])
def test_a_killed_run_goes_on_where_it_was(world, store, monkeypatch, distance):
    alphas = axis(5)
    whole = nonlinear_map(*world, alphas, distance=distance)
    states = {"load_state": store.load_state, "save_state": store.save_state}
    with pytest.raises(Stop):
        nonlinear_map(*world, alphas, distance=distance, progress=stop_after(7), **states)
    cells = []
    again = nonlinear_map(
        *world, alphas, distance=distance, progress=lambda _, done, __: cells.append(done), **states
    )
    assert cells == list(range(8, 26))
    for field in ("xi", "low", "high"):
        assert torch.equal(getattr(again, field), getattr(whole, field))


def test_a_run_killed_outright_loses_no_cell(world, store):
    alphas = axis(5)
    states = {"load_state": store.load_state, "save_state": store.save_state}

    def die(found, done, total):
        if done == 11:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        nonlinear_map(*world, alphas, progress=die, **states)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    cells = []
    again = nonlinear_map(*world, alphas, progress=lambda _, done, __: cells.append(done), **states)
    assert cells[0] == 12
    assert torch.equal(again.xi, nonlinear_map(*world, alphas).xi)


def test_another_question_does_not_take_up_a_state(world, store):
    states = {"load_state": store.load_state, "save_state": store.save_state}
    with pytest.raises(Stop):
        nonlinear_map(*world, axis(5), progress=stop_after(7), **states)
    cells = []
    nonlinear_map(
        *world, axis(5), images=20, progress=lambda _, done, __: cells.append(done), **states
    )
    assert cells[0] == 1


def test_a_map_far_from_done_has_nan_where_it_is_not(world):
    seen = []
    nonlinear_map(*world, axis(5), progress=lambda found, done, total: seen.append(found))
    assert [found.done for found in seen] == list(range(1, 26))
    assert int(seen[0].low.isnan().sum()) == 24
    assert seen[0].to_json()["xi"][1][1] is None
    json.dumps(seen[0].to_json(), allow_nan=False)


@pytest.mark.parametrize("distance", ["error", "kl"])
def test_a_kept_map_comes_back_in_either_order(world, store, distance):
    found = nonlinear_map(*world, axis(4), distance=distance)
    keep_map(store, "a key", found)
    assert kept_map(store, "another key", NAMES) is None
    same, turned = kept_map(store, "a key", NAMES), kept_map(store, "a key", NAMES[::-1])
    for field in ("xi", "low", "high"):
        assert torch.equal(getattr(same, field), getattr(found, field))
        assert torch.equal(getattr(turned, field), getattr(found, field).T)
    assert turned.tasks == NAMES[::-1]
    assert torch.equal(turned.low_task["shapes"], found.low_task["shapes"].T)
    for field in ("n", "distance", "exact", "encoder", "splits", "taus", "mode"):
        assert getattr(same, field) == getattr(found, field)
    listed = kept_maps(store, found.encoder_digest, found.taus, distance)
    assert [item.tasks for item in listed] == [NAMES]
    assert kept_maps(store, found.encoder_digest, {"shapes": "0" * 64}, distance) == []


def test_an_unfinished_map_is_not_kept(world, store):
    seen = []
    nonlinear_map(*world, axis(3), progress=lambda found, done, total: seen.append(found))
    with pytest.raises(ValueError, match="of 1 cells of 9"):
        keep_map(store, "key", seen[0])


def test_a_kept_map_without_its_parts_is_refused(world):
    tensors, meta = nonlinear_map(*world, axis(3)).to_tensors()
    with pytest.raises(CheckpointError, match="lacks 'tasks'"):
        XiMap.from_tensors(tensors, {key: meta[key] for key in meta if key != "tasks"})
    with pytest.raises(CheckpointError, match="does not fit its axes"):
        XiMap.from_tensors({**tensors, "alphas": axis(4)}, meta)


# summaries


def test_the_share_of_the_box_by_hand(world):
    found = linearized_map(scores_of(world), NAMES, axis(3, 1.0))
    known = replace(
        found,
        xi_task={
            "shapes": torch.tensor([[9, 9, 9], [9, 0.0, 0.1], [9, 0.3, math.nan]]),
            "colours": torch.zeros(3, 3),
        },
    )
    assert known.box_share(0.1 + 1e-6) == (pytest.approx(2 / 3), 3)
    assert known.box_share(0.05, box=(-1.0, -0.5)) == (0.0, 1)
    share, cells = known.box_share(box=(5.0, 6.0))
    assert math.isnan(share)
    assert cells == 0


@pytest.mark.parametrize("reading", ["nonlinear", "linearized"])
def test_the_matrix_has_the_cells_of_the_maps(everything, reading):
    encoder, tasks, taus, splits = everything
    names, scores = tuple(tasks), scores_of(everything)
    if reading == "linearized":
        matrix = linearized_matrix(scores, names, 1.5)
    else:
        matrix = nonlinear_matrix(*everything, 1.5)
    assert matrix.terms.diagonal().isnan().all()
    assert matrix.to_json()["xi"][0][0] is None
    for a in range(3):
        for b in range(a + 1, 3):
            pair = (names[a], names[b])
            if reading == "linearized":
                planes = {name: scores[name][[0, 1 + a, 1 + b]] for name in pair}
                found = linearized_map(planes, pair, axis(3, 1.5))
            else:
                parts = ({name: table[name] for name in pair} for table in (tasks, taus, splits))
                found = nonlinear_map(encoder, *parts, axis(3, 1.5))
            assert matrix.xi[a, b] == matrix.xi[b, a] == found.xi[2, 2]
            assert matrix.terms[b, a] == found.xi_task[names[b]][2, 2]


@pytest.mark.parametrize("linear", [False, True])
def test_the_diagonal_is_that_of_a_plain_loop(everything, linear):
    encoder, tasks, taus, splits = everything
    alphas = axis(3, 1.0)
    if linear:
        found = linearized_diagonal(scores_of(everything), tuple(tasks), alphas)
    else:
        found = nonlinear_diagonal(*everything, alphas)
    for place, alpha in enumerate(alphas.tolist()):
        for name in tasks:
            head = encoder.head(tasks[name])
            alone, merged = (
                (slow_features(encoder, taus, splits[name], setting, linear) @ head.T).argmax(1)
                for setting in ({name: alpha}, dict.fromkeys(tasks, alpha))
            )
            assert found.xi_task[name][place] == (alone != merged).double().mean()
    assert found.xi[1] == 0
    assert found.xi[2] > 0


# what is refused, in one sentence


def refused(world, **changes):
    encoder, tasks, taus, splits = world
    parts = {"tasks": tasks, "taus": taus, "splits": splits, **changes}
    return nonlinear_map(encoder, *(parts[key] for key in ("tasks", "taus", "splits")), axis(3))


def test_nan_in_a_task_vector_is_refused(world):
    broken = {key: value.clone() for key, value in world[2]["shapes"].items()}
    next(iter(broken.values())).view(-1)[0] = math.nan
    with pytest.raises(NonFiniteError, match=r"task vector of shapes: .* holds 1 NaN"):
        refused(world, taus={**world[2], "shapes": broken})


def test_more_classes_than_the_task_has_are_refused(world):
    split = world[3]["shapes"]
    with pytest.raises(UsageError, match="has 5 classes, but the task names 3"):
        refused(world, splits={**world[3], "shapes": replace(split, labels=split.labels + 2)})


def test_an_empty_split_is_refused(world):
    with pytest.raises(UsageError, match="test split of colours is empty"):
        refused(world, splits={**world[3], "colours": images_of(TASKS["colours"], 0)})
    with pytest.raises(UsageError, match="no images of shapes"):
        linearized_map({name: torch.zeros(3, 0, 4) for name in NAMES}, NAMES, axis(3))


def test_equal_tasks_are_refused(world):
    with pytest.raises(UsageError, match="two different tasks, got shapes and shapes"):
        linearized_map(scores_of(world), ("shapes", "shapes"), axis(3))
    with pytest.raises(UsageError, match="two different tasks, got shapes;"):
        refused(world, tasks={"shapes": TASKS["shapes"]})


def test_unusable_scores_are_refused(world):
    scores = scores_of(world)
    with pytest.raises(UsageError, match=r"scores of shapes have shape \(2, 40, 3\)"):
        linearized_map({**scores, "shapes": scores["shapes"][:2]}, NAMES, axis(3))
    with pytest.raises(NonFiniteError, match="class scores of shapes"):
        linearized_map({**scores, "shapes": scores["shapes"] * math.nan}, NAMES, axis(3))
    with pytest.raises(UsageError, match="needs true logits"):
        linearized_map(scores, NAMES, axis(3), distance="tv")
    norms = {name: torch.zeros(40, 2, 2) for name in NAMES}
    with pytest.raises(UsageError, match="feature products of shapes have shape"):
        linearized_map(scores, NAMES, axis(3), distance="kl", norms=norms, logit_scale=1.0)
    with pytest.raises(UsageError, match="no distance 'cosine'"):
        linearized_map(scores, NAMES, axis(3), distance="cosine")
    with pytest.raises(UsageError, match="must ascend"):
        linearized_map(scores, NAMES, axis(3).flip(0))


# the verb


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A cache with a tiny miniature, and small test splits; nothing embedded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.store.ROOT", tmp_path_factory.mktemp("checkout"))
        patch.setitem(miniature.SIZES, "test", 60)
        folder = tmp_path_factory.mktemp("cache")
        make_world(folder, tasks=("signs", "handwriting", "letters"))
        yield folder


@pytest.fixture
def ask(home, capsys):
    def asked(*words):
        capsys.readouterr()
        assert main(["disentanglement", *words, "--cache", str(home), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return asked


PAIR = ("--tasks", "signs", "handwriting", "--grid", "3", "--range", "1")


@pytest.mark.parametrize("mode", ["nonlinear", "posthoc", "linear"])
def test_the_verb_prints_a_map(ask, mode):
    found = ask(*PAIR, "--mode", mode)
    assert list(found)[:5] == ["alphas", "xi", "xi_task", "n", "exact"]
    assert found["alphas"] == [-1, 0, 1]
    assert found["n"] == {"signs": 60, "handwriting": 60}
    assert found["exact"] is True
    assert found["tasks"] == ["signs", "handwriting"]
    assert found["xi"][1][1] == 0
    assert [row[1] for row in found["xi_task"]["signs"]] == [0, 0, 0]
    assert max(map(max, found["xi"])) > 0


def test_the_verb_keeps_a_nonlinear_map(ask, home, monkeypatch):
    first = ask(*PAIR, "--images", "30")
    assert not list((home / "state").glob("xi-*"))

    def never(*_, **__):
        raise AssertionError

    monkeypatch.setattr("engine.disentanglement.keeping.nonlinear_map", never)
    assert ask(*PAIR, "--images", "30") == first
    turned = ask("--tasks", "handwriting", "signs", *PAIR[3:], "--images", "30")
    assert turned["tasks"] == ["handwriting", "signs"]
    assert turned["xi"][0][2] == first["xi"][2][0]


def test_the_widest_map_of_a_pair_is_embedded(ask, home, tmp_path, capsys):
    tasks = ("--tasks", "handwriting", "letters", "--range", "1")
    ask(*tasks, "--grid", "4", "--images", "20")
    ask(*tasks, "--grid", "3", "--images", "20")
    folder = tmp_path / "embedded"

    def embed(cache, *words):
        capsys.readouterr()
        words = ("embed", "--cache", cache, "--to", folder, *words, "--json")
        assert main([*map(str, words)]) == 0
        return json.loads(capsys.readouterr().out)["copied"]

    embed(home, "--kinds", "encoder", "checkpoint")
    # from a cache that has the results alone: what they rest on is embedded already
    apart, store = Store(tmp_path / "apart"), Store(home)
    for entry in store.find("result"):
        apart.put("result", store.get(entry), entry.meta)
    embed(apart.home, "--kinds", "result")
    kept = [entry.meta for entry in Store(folder).find("result")]
    mine = [meta for meta in kept if set(meta["taus"]) == {"handwriting", "letters"}]
    assert [meta["record"]["cells"] for meta in mine] == [16]
    found = kept_maps(Store(tmp_path, folder), mine[0]["encoder_digest"], mine[0]["taus"])
    assert [len(item.alphas) for item in found] == [4]


def test_the_verb_agrees_with_itself(ask):
    words = ("--tasks", "signs", "handwriting", "letters")
    for mode in ("nonlinear", "posthoc"):
        matrix = ask(*words, "--mode", mode, "--matrix", "--alpha", "1")
        maps = ask(*words, "--mode", mode, "--all-pairs", "--grid", "3", "--range", "1")["maps"]
        assert [item["tasks"] for item in maps] == [
            ["signs", "handwriting"],
            ["signs", "letters"],
            ["handwriting", "letters"],
        ]
        assert matrix["xi"][0][2] == maps[1]["xi"][2][2]
        pair = ask(*PAIR, "--mode", mode, "--diagonal")
        assert pair["xi"] == [maps[0]["xi"][k][k] for k in range(3)]


@pytest.mark.parametrize("mode", ["nonlinear", "linear"])
def test_the_verb_knows_other_distances(ask, mode):
    found = ask(*PAIR, "--mode", mode, "--distance", "tv")
    assert found["distance"] == "tv"
    assert found["xi"][1][1] == 0
    assert 0 < found["xi"][0][2] < 2


def test_bfloat16_says_that_it_is_not_exact(ask, monkeypatch):
    monkeypatch.setattr("engine.disentanglement.precision.MOST_CHANGED", 1.0)
    found = ask(*PAIR, "--grid", "4", "--precision", "bfloat16")
    assert found["exact"] is False
    assert found["note"].startswith("passes in bfloat16: ")
    assert "of 600 predictions" in found["note"]
    exact = ask(*PAIR, "--grid", "4")  # the approximate one, kept by now, is no answer
    assert exact["exact"] is True
    assert exact["note"] == ""
    # but the exact one answers who would take less
    assert ask(*PAIR, "--grid", "4", "--precision", "bfloat16")["exact"] is True


def test_bfloat16_that_changes_too_much_gives_way_to_float32(ask, home, monkeypatch):
    monkeypatch.setattr("engine.disentanglement.precision.MOST_CHANGED", -1.0)
    words = (*PAIR, "--grid", "5", "--distance", "tv")
    found = ask(*words, "--precision", "bfloat16")
    assert found["exact"] is True
    assert found["note"].startswith("passes in float32: in bfloat16 ")
    assert "of 600 predictions" in found["note"]
    again = ask(*words)  # kept as the exact map that it is
    assert again["xi"] == found["xi"]
    assert again["note"] == found["note"]
    assert ask(*words, "--force")["xi"] == found["xi"]
    metas = [entry.meta for entry in Store(home).find("result") if entry.meta["distance"] == "tv"]
    assert {meta["precision"] for meta in metas} == {"float32"}


def test_bfloat16_s_limit_is_a_hundredth_of_the_predictions(home):
    encoder, tasks, taus, splits = tiny_world(home)
    asked = {"distance": "error", "batch": 16, "precision": "bfloat16"}
    passes, note = checked_passes(encoder, tasks, taus, splits, axis(3, 1.0), **asked)
    full = Passes(encoder, tasks, taus, splits, distance="error", batch=16)
    half = Passes(encoder, tasks, taus, splits, batch=16, precision="bfloat16")
    changed = total = 0
    for pair in [(-1.0, -1.0), (-1.0, 1.0), (1.0, -1.0), (1.0, 1.0), (0.0, 0.0)]:
        setting = dict(zip(tasks, pair, strict=True))
        answers = [each.outputs(setting, tuple(tasks)) for each in (full, half)]
        for name in tasks:
            changed += sum(int(p != q) for p, q in zip(*(a[name] for a in answers), strict=True))
            total += len(answers[0][name])
    assert MOST_CHANGED == 0.01
    assert passes.half == (changed <= total / 100)
    assert f"{changed} of {total} predictions" in note


@pytest.mark.parametrize(
    ("device", "has", "chosen"),
    [("cuda", True, "bfloat16"), ("cuda", False, "float32"), ("cpu", True, "float32"),
     ("mps", True, "float32")],
)  # fmt: skip
def test_auto_is_bfloat16_on_a_gpu_that_has_it(monkeypatch, device, has, chosen):
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda **options: has)
    encoder = SimpleNamespace(theta0={"w": SimpleNamespace(device=torch.device(device))})
    assert precision_for(encoder, "auto") == chosen
    assert precision_for(encoder, "float32") == "float32"
    assert precision_for(encoder, "bfloat16") == "bfloat16"


def test_auto_on_the_cpu_is_exact(ask):
    assert ask(*PAIR, "--precision", "auto", "--force") == ask(*PAIR, "--force")


def test_the_verb_takes_both_ends_of_the_axis(ask):
    assert ask(*PAIR, "--range", "-1", "2")["alphas"] == axis(3, 2.0, -1.0).tolist()
    assert ask(*PAIR, "--range", "-2", "2")["alphas"] == axis(3, 2.0).tolist()


def test_a_map_is_read_while_its_cells_are_computed(world, tmp_path):
    """Of a stopped run's working state: the cells done, nothing in the place of the others."""
    encoder, tasks, taus, splits = world
    store, names = Store(tmp_path), []

    def save(name, tensors, meta):
        names.append(name)
        store.save_state(name, tensors, meta)

    def stop(found, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nonlinear_map(*world, axis(5, 1.0), save_state=save, progress=stop)
    found = map_so_far(store, names[-1], encoder.name)
    whole = nonlinear_map(*world, axis(5, 1.0))
    assert (found.done, found.exact, found.tasks, found.n) == (4, True, whole.tasks, whole.n)
    known = ~found.xi.isnan()
    for table in ("xi", "low", "high"):
        assert getattr(found, table)[known].tolist() == getattr(whole, table)[known].tolist()
    assert map_so_far(store, "xi-of-nobody", encoder.name) is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tasks", "signs"], "two different tasks, got signs"),
        (["--tasks", "signs", "signs"], "two different tasks, got signs and signs"),
        ([], "two different tasks, got none"),
        (["--matrix", "--diagonal"], "--matrix and --diagonal are different questions"),
        (["--matrix", "--distance", "tv"], "--matrix knows the distance error alone"),
        ([*PAIR, "--alpha", "1"], "--alpha belongs to --matrix"),
        (["--tasks", "signs", "letters", "--grid", "1"], "make no grid"),
    ],
)
def test_the_verb_refuses_in_one_sentence(home, capsys, words, said):
    assert main(["disentanglement", *words, "--cache", str(home)]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint
    assert complaint.count("\n") == 1


def test_the_verb_reads_plainly(home, capsys):
    assert main(["disentanglement", *PAIR, "--mode", "posthoc", "--cache", str(home)]) == 0
    out = capsys.readouterr().out
    assert "alpha of signs downwards" in out
    assert "read posthoc, distance error, n 60 and 60, exact" in out


def tiny_world(home):
    """The encoder of ``home`` and two of its tasks, in float32."""
    from engine.encoders import load_encoder

    store, names = Store(home), ("signs", "letters")
    tasks = {name: load_task(name) for name in names}
    splits = {name: load_split(task, "test", 32, store) for name, task in tasks.items()}
    taus = {
        name: store.get(store.find("checkpoint", task=name, mode="nonlinear")[0]) for name in names
    }
    return load_encoder("miniature", store), tasks, taus, splits


def test_the_tiny_encoders_fast_map_is_the_loop(home):
    world = encoder, tasks, taus, splits = tiny_world(home)
    found, expected = (
        nonlinear_map(encoder, tasks, taus, splits, axis(3, 1.0)),
        slow_map(world, axis(3, 1.0), linear=False),
    )
    for name in tasks:
        assert found.xi_task[name].tolist() == expected[name].tolist()


@pytest.fixture(scope="module")
def miniature_world(tmp_path_factory):
    """The embedded miniature in float64, where no rounding decides a prediction; 4 images."""
    from engine.encoders import load_encoder
    from engine.tasks import TASKS as EIGHT

    store = Store(tmp_path_factory.mktemp("cache"), EMBEDDED)
    encoder = load_encoder("miniature", store)
    tasks = {name: load_task(name) for name in EIGHT}
    splits = {name: load_split(task, "test", 32, store, 4) for name, task in tasks.items()}
    taus = {}
    for trained in ("nonlinear", "linear"):
        found = {
            name: store.find("checkpoint", encoder_digest=encoder.digest, task=name, mode=trained)[
                0
            ]
            for name in EIGHT
        }
        taus[trained] = {
            name: {key: value.double() for key, value in store.get(entry).items()}
            for name, entry in found.items()
        }
    return encoder.to("cpu", torch.float64), tasks, taus, splits


def test_cells_run_in_stacks_are_those_run_alone(home):
    encoder, tasks, taus, splits = tiny_world(home)
    passes, names = Passes(encoder, tasks, taus, splits, batch=25), tuple(tasks)
    cells = [dict(zip(names, pair, strict=True)) for pair in [(1, 0.5), (-1, 1), (0, 2), (2, 0)]]
    alone = [passes.outputs(cell, names) for cell in cells]
    assert Stacked(passes, 4).outputs(cells, names)[2]["signs"].shape == (60,)
    assert differing(alone, Stacked(passes, 4).outputs(cells, names)) == 0
    assert differing(alone, Stacked(passes, 4).outputs(cells[::-1], names)) > 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["nonlinear", "posthoc", "linear"])
def test_all_pairs_of_the_miniature_are_the_loop_and_keep_the_laws(miniature_world, mode):
    """All 28 embedded pairs, each cell against four passes; xi(0, 0) = 0 and the axes' law."""
    encoder, tasks, trained, splits = miniature_world
    taus = trained["linear" if mode == "linear" else "nonlinear"]
    world, alphas, known = (encoder, tasks, taus, splits), axis(3, 1.0), {}
    scores = {} if mode == "nonlinear" else scores_of(world)
    moved, pairs = 0, list(itertools.combinations(tasks, 2))
    assert len(pairs) == 28
    for pair in pairs:
        chosen = [{name: table[name] for name in pair} for table in (tasks, taus, splits)]
        if mode == "nonlinear":
            found = nonlinear_map(encoder, *chosen, alphas)
        else:
            planes = [0, *(1 + list(tasks).index(name) for name in pair)]
            found = linearized_map({name: scores[name][planes] for name in pair}, pair, alphas)
        with plain_attention():  # torch's jvp has no rule for the fused kernel
            expected = slow_map((encoder, *chosen), alphas, mode != "nonlinear", known=known)
        first, second = (found.xi_task[name] for name in pair)
        assert first.tolist() == expected[pair[0]].tolist()
        assert second.tolist() == expected[pair[1]].tolist()
        assert found.xi[1, 1] == 0
        assert first[:, 1].tolist() == [0, 0, 0]  # alpha_2 = 0
        assert second[1, :].tolist() == [0, 0, 0]  # alpha_1 = 0
        assert found.done == 9
        moved += bool(found.xi.max() > 0)
    assert moved > 20  # elsewhere the vectors do disturb each other
