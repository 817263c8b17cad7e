"""Local energies by content: what answers a question, what does not, and how several are kept."""

from dataclasses import replace

import pytest
import torch

from engine.encoders import load_encoder
from engine.errors import CheckpointError, UsageError
from engine.ntk import (
    LocalEnergy,
    Wanted,
    answers,
    choose_logits,
    content_of,
    drawn_from,
    energy_entries,
    keep_local_energies,
    keep_local_energy,
    local_energies,
    outdated,
    read_answer,
    read_energy,
    recognised,
)
from engine.ntk.contents import Content
from engine.remembering import PROBE, tau_digests
from engine.store import default_store
from engine.tasks import CONTROL, TASKS, Task, load_split, load_task
from tests.test_ntk_energy import CONTROL as BRIGHT
from tests.test_ntk_energy import TASK, pictures
from tests.test_ntk_kernel import CONFIG, built

CONTENT = Content("head", {"dark": "a", "bright": "b"}, {"dark": None, "bright": None}, {}, "tau")
ASKED = Wanted("e", "dark", "bright", 8, 0, "cosine", ("one", "three"), CONTENT)


@pytest.fixture(scope="module")
def encoder():
    return built(CONFIG)


@pytest.fixture(scope="module")
def measured(encoder):
    """Against two controls, on the same points, with a task vector and scores of blocks."""
    tau = {name: 0.01 * torch.ones_like(value) for name, value in encoder.theta0.items()}
    splits = {
        BRIGHT: pictures(150, seed=1),
        replace(BRIGHT, name="middle"): pictures(80, seed=2),
    }
    found = local_energies(
        encoder, TASK, pictures(0), splits, points=8, logits=2, tau=tau, leading=(1, 4, 8),
        ridges=(0.03,), layer_scores=True,
    )  # fmt: skip
    return [replace(energy, content=content_for(energy.control)) for energy in found]


def content_for(control: str, **changes) -> Content:
    names = ("dark", control)
    return replace(
        CONTENT,
        probes={name: name[0] for name in names},
        limits=dict.fromkeys(names),
        sources=dict.fromkeys(names, "test"),
        **changes,
    )


def asked(encoder, control="bright", **changes) -> Wanted:
    return Wanted(
        encoder.digest, "dark", control, 8, 0, "cosine", ("one", "three"),
        content_for(control, **changes),
    )  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"encoder_digest": "f"},
        {"task": "bright", "control": "dark"},
        {"points": 9},
        {"seed": 1},
        {"readout": "score"},
        {"logits": ("one", "two")},
        {"content": replace(CONTENT, head="other words")},
        {"content": replace(CONTENT, probes={"dark": "a", "bright": "c"})},
        {"content": replace(CONTENT, limits={"dark": None, "bright": 4000})},
    ],
)
def test_whatever_energies_depend_on_makes_another_question(change):
    assert replace(ASKED, **change).key != ASKED.key


def test_the_task_vector_is_asked_for_apart():
    assert replace(ASKED, content=replace(CONTENT, tau="new")).key == ASKED.key


def test_a_new_or_changed_task_vector_counts_as_not_answered(store, encoder, measured):
    keep_local_energy(store, measured[0])
    assert len(answers(store, asked(encoder))) == 1
    assert len(answers(store, asked(encoder, tau=""))) == 1  # none there now, or the trace kernel
    changed = asked(encoder, tau="another")
    assert answers(store, changed) == []
    assert outdated(store, changed)
    assert not outdated(store, asked(encoder))
    without = replace(measured[0], content=content_for("bright", tau=""), coefficients=None, seed=1)
    keep_local_energy(store, without)
    newly = replace(asked(encoder), seed=1)
    assert answers(store, newly) == []
    assert outdated(store, newly)


def test_other_words_or_pictures_are_no_answer_and_not_merely_outdated(store, encoder, measured):
    keep_local_energy(store, measured[0])
    for other in (
        asked(encoder, head="other prompts"),
        replace(
            asked(encoder),
            content=replace(content_for("bright"), probes={"dark": "d", "bright": "x"}),
        ),
        replace(asked(encoder), logits=("one", "four")),  # as many, but others
    ):
        assert answers(store, other) == []
        assert not outdated(store, other)


def test_several_controls_are_kept_once_and_read_back(store, encoder, measured):
    entry = keep_local_energies(store, measured)
    alone = keep_local_energy(store, measured[0])
    assert entry.meta["controls"] == ["bright", "middle"]
    assert entry.size < 2 * alone.size
    for energy in measured:
        found = read_energy(store, entry, energy.control)
        twin = LocalEnergy.from_tensors(*energy.to_tensors())  # a single one, there and back
        for name in ("spectrum", "energy", "energy_leading", "energy_ridge", "coefficients",
                     "energy_weighted", "captured", "eigvals"):  # fmt: skip
            torch.testing.assert_close(getattr(found, name), getattr(twin, name), rtol=0, atol=0)
        assert found.record() == twin.record()
        assert list(found.layer_scores) == ["input", "resblocks 0", "resblocks 1", "output"]
        for block in ("task", "control", "heldout"):
            assert found.indices[block].tolist() == energy.indices[block].tolist()
    tensors = dict(store.get(entry))
    tensors.pop("shared/energy_ridge")
    broken = store.put("result", tensors, {**entry.meta, "seed": 7})
    with pytest.raises(CheckpointError, match="lacks a part"):
        read_energy(store, broken, "middle")


def test_the_answer_with_most_settings_comes_first_and_lends_what_it_lacks(
    store, encoder, measured
):
    fine = local_energies(
        encoder, TASK, pictures(0), {BRIGHT: pictures(150, seed=1)}, points=8, logits=2
    )[0]
    assert fine.layer_scores is None
    assert fine.eigvals is not None
    keep_local_energy(store, replace(fine, content=content_for("bright"), eigvals=None))
    keep_local_energies(store, measured)  # newer, and coarser
    found = answers(store, asked(encoder))
    assert [len(held.meta["leading"]) for held in found] == [len(fine.leading), 3]
    answer = read_answer(store, found)
    assert answer.leading == fine.leading
    assert answer.layer_scores == measured[0].layer_scores
    torch.testing.assert_close(answer.eigvals, measured[0].eigvals, rtol=1e-5, atol=1e-8)


def test_the_matrix_lists_what_is_of_the_tasks_as_they_are(store, encoder, measured):
    keep_local_energies(store, measured)

    def now(task, control):
        return None if control == "middle" else content_for(control, tau="whatever")

    (held,) = recognised(store, encoder.digest, "cosine", now)
    assert (held.meta["task"], held.control) == ("dark", "bright")

    def reworded(task, control):
        return content_for(control, head="other prompts")

    assert recognised(store, encoder.digest, "cosine", reworded) == []


@pytest.mark.parametrize("name", ["miniature", "miniature-random"])
def test_embedded_answers_are_recognised_by_what_they_hold(name):
    store = default_store()
    encoder = load_encoder(name, store)
    control = load_task(CONTROL)
    for task in map(load_task, TASKS):
        both = {t: load_split(t, "train", 32, store, PROBE) for t in (task, control)}
        trained = [
            entry
            for entry in store.find(
                "checkpoint", encoder_digest=encoder.digest, task=task.name, mode="linear"
            )
            if entry.path.is_relative_to(store.embedded)
        ]
        tau = tau_digests({"own": trained[0]})["own"]
        content = content_of(encoder, both, {t.name: None for t in both}, tau)
        logits = tuple(task.classnames[c] for c in choose_logits(2, task.classnames))
        wanted = Wanted(encoder.digest, task.name, control.name, 200, 0, "cosine", logits, content)
        found = answers(store, wanted)
        assert found, task.name
        energy = read_answer(store, found)
        assert len(energy.leading) == 13  # a coarser answer of all pairs does not hide it
        assert energy.coefficients is not None
        retrained = replace(wanted, content=replace(content, tau="newer"))
        assert answers(store, retrained) == []
        assert outdated(store, retrained)
        renamed = replace(wanted, content=replace(content, sources={task.name: "/a/folder"}))
        before = [held for held in answers(store, renamed) if "content" not in held.meta]
        assert before == []  # a folder of the same name is another task


def folder(source: str) -> Task:
    return Task("birds", "Birds", ("a", "b"), ("a {}.",), source)


def test_points_are_drawn_from_a_bounded_prefix():
    assert drawn_from(folder("miniature"), 200) is None
    assert drawn_from(folder("miniature"), 200, 500) == 500
    assert drawn_from(folder("/birds"), 200) == 4000
    assert drawn_from(folder("/birds"), 10) == 2000
    assert drawn_from(folder("/birds"), 10, 20) == 20
    with pytest.raises(UsageError, match="--limit 19 leaves too few images to draw 10 points"):
        drawn_from(folder("/birds"), 10, 19)


def test_entries_of_one_control_come_before_those_of_several(store, measured):
    keep_local_energies(store, measured)
    keep_local_energy(store, measured[1])
    assert [entry.meta["controls"] for entry in energy_entries(store)] == [
        ["middle"], ["bright", "middle"],
    ]  # fmt: skip
