import json
import struct

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from app.components.alpha import (
    LARGEST_PAYLOAD,
    AlphaState,
    EvaluatedTask,
    Pin,
    Preset,
    header_of,
    pack,
    parts,
    read_pin,
    read_state,
    sample_size,
)

SLIDERS = {"digits": "Digits", "signs": "Traffic signs"}
NAMES = tuple(SLIDERS)
ALPHAS = {"digits": 0.3, "signs": -0.25}
PIN = {
    "alphas": {"digits": 0.5, "signs": 1},
    "metrics": {"absolute": 0.5, "normalized": None, "control": 0.25, "tasks": {"digits": 0.5}},
    "exact": True,
}


def _task(name="digits", n=7, classes=3, seed=0, **changes) -> EvaluatedTask:
    rng = np.random.default_rng(seed)
    values = {
        "name": name,
        "title": name.title(),
        "labels": rng.integers(0, classes, n),
        "scores": rng.normal(size=(3, n, classes)).astype(np.float32),
        "classnames": [f"class {c} é" for c in range(classes)],
        "pictures": rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8),
        "picture_indices": np.array([5, 1]),
    }
    return EvaluatedTask(**{**values, **changes})


def _unpack(payload: bytes) -> tuple[dict, list[dict[str, np.ndarray]]]:
    """The layout of the docstring, read by hand as the browser does."""
    (length,) = struct.unpack("<I", payload[:4])
    header = json.loads(payload[4 : 4 + length].decode())
    body = payload[4 + length :]
    assert length % 4 == 0
    kinds = {"f4": "<f4", "u2": "<u2", "u1": "u1"}
    tasks = []
    for task in header["tasks"]:
        arrays = {}
        for key in ("labels", "exact", "scores", "zeroshot", "pictures"):
            place = task[key]
            if place is not None:
                assert place["offset"] % 4 == 0
                count = int(np.prod(place["shape"]))
                flat = np.frombuffer(body, kinds[place["kind"]], count, place["offset"])
                arrays[key] = flat.reshape(place["shape"])
        tasks.append(arrays)
    return header, tasks


def test_the_arrays_come_back_as_they_went_in():
    tasks = [_task(), _task("signs", n=5, classes=4, seed=1, pictures=None, picture_indices=None)]
    zeroshot = np.array([0, 2, 1, 1, 0, 2, 2])
    control = _task("objects", seed=2, is_control=True, zeroshot_predictions=zeroshot)
    header, arrays = _unpack(pack([*tasks, control], SLIDERS, alphas=ALPHAS))
    for task, unpacked in zip([*tasks, control], arrays, strict=True):
        np.testing.assert_array_equal(unpacked["labels"], task.labels)
        np.testing.assert_array_equal(unpacked["scores"], task.scores)
    np.testing.assert_array_equal(arrays[0]["pictures"], tasks[0].pictures)
    np.testing.assert_array_equal(arrays[2]["zeroshot"], zeroshot)
    assert [task["control"] for task in header["tasks"]] == [False, False, True]
    assert header["tasks"][0]["picture_indices"] == [5, 1]
    assert header["tasks"][1]["pictures"] is None
    assert header["tasks"][0]["classes"][0] == "class 0 é"


def test_the_header_says_what_the_page_said():
    points = [{"alpha": 0.0, "absolute": 0.4, "normalized": 0.5, "n": 3}]
    payload = pack(
        [_task()],
        SLIDERS,
        alphas=ALPHAS,
        revision=4,
        reading="posthoc",
        convention="mean",
        split="validation",
        curve=points,
        chosen=0.35,
        best_shared=Preset({"digits": 0.35, "signs": 0.35}),
        best_per_task=Preset(None, "too slow"),
        pinned=[{"name": "A", "alphas": ALPHAS, "metrics": PIN["metrics"]}],
        full={"n": 1000, "alphas": ALPHAS, "tasks": {"digits": np.float32(0.5)}, "absolute": 0.5},
    )
    header = header_of(payload)
    assert header["alphas"] == [0.3, -0.25]
    assert (header["revision"], header["reading"], header["convention"]) == (4, "posthoc", "mean")
    assert (header["split"], header["chosen"]) == ("validation", 0.35)
    assert header["curve"] == [{"alpha": 0.0, "absolute": 0.4, "normalized": 0.5}]
    assert header["presets"]["shared"]["alphas"] == [0.35, 0.35]
    assert header["presets"]["each"] == {"alphas": None, "why": "too slow"}
    assert header["pinned"][0]["metrics"] == PIN["metrics"]
    assert header["full"]["alphas"] == [0.3, -0.25]
    assert header["full"]["tasks"] == {"digits": 0.5}
    assert header["anchor"] is None


def test_the_digest_follows_the_arrays_and_not_the_sliders():
    digests = [
        header_of(pack([task], SLIDERS, alphas=alphas))["digest"]
        for task, alphas in [
            (_task(), ALPHAS),
            (_task(), {"digits": 1, "signs": 0}),
            (_task(seed=9), ALPHAS),
        ]
    ]
    assert digests[0] == digests[1] != digests[2]


def test_the_nonlinear_reading_carries_its_anchor_and_references():
    task = _task(zeroshot_predictions=np.zeros(7, int), single_accuracy=0.9)
    header = header_of(
        pack([task], SLIDERS, alphas=ALPHAS, reading="nonlinear", anchor={"digits": 0, "signs": 1})
    )
    assert header["anchor"] == [0.0, 1.0]
    assert header["tasks"][0]["single"] == 0.9


def test_a_release_changes_the_first_part_alone():
    def packed(seed, anchor):
        scores = _task().scores.copy()
        scores[0] = np.random.default_rng(seed).normal(size=(7, 3))
        task = _task(scores=scores, zeroshot_predictions=np.zeros(7, int), single_accuracy=0.9)
        options = {"reading": "nonlinear", "anchor": {"digits": 0, "signs": anchor}}
        return scores, pack([task], SLIDERS, alphas=ALPHAS, **options)

    scores, payload = packed(1, 1)
    header, (arrays,) = _unpack(payload)
    np.testing.assert_array_equal(arrays["exact"], scores[0])
    np.testing.assert_array_equal(arrays["scores"], scores[1:])
    changing, settled = parts(payload)
    assert changing + settled == payload
    assert len(changing) < len(settled)
    _, other = packed(2, 0.5)
    assert parts(other)[0] != changing
    assert parts(other)[1] == settled
    assert header_of(other)["settled"] == header["settled"]
    assert header_of(other)["digest"] != header["digest"]


def test_of_a_linearized_reading_only_the_header_is_sent_again():
    payload = pack([_task()], SLIDERS, alphas=ALPHAS)
    other = pack([_task()], SLIDERS, alphas={"digits": 1, "signs": 1})
    assert header_of(payload)["settled"]["offset"] == 0
    assert parts(other)[1] == parts(payload)[1]
    assert header_of(other)["settled"] == header_of(payload)["settled"]


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ({"scores": np.zeros((2, 7, 3), "f4")}, {}, r"expected \(3, 7, 3\)"),
        ({"scores": np.full((3, 7, 3), np.nan, "f4")}, {}, "NaN or infinity"),
        ({"labels": np.zeros(0, int), "scores": np.zeros((3, 0, 3), "f4")}, {}, "N > 0"),
        ({"labels": np.full(7, 3)}, {}, "labels: from 3 to 3, expected 0 to 2"),
        ({"labels": np.zeros(7)}, {}, "labels: float64"),
        ({"picture_indices": np.array([5, 7])}, {}, "picture_indices: from 5 to 7"),
        ({"picture_indices": np.array([5])}, {}, "pictures of shape"),
        ({"pictures": np.zeros((2, 32, 32, 3))}, {}, "expected uint8"),
        ({"single_accuracy": 93.0}, {}, r"93.0, not in \[0, 1\]"),
        ({}, {"reading": "exact"}, "reading is 'exact'"),
        ({}, {"convention": "median"}, "convention is 'median'"),
        ({}, {"anchor": ALPHAS}, "give it for the non-linear reading"),
        ({}, {"reading": "nonlinear"}, "give it for the non-linear reading"),
        ({}, {"reading": "nonlinear", "anchor": ALPHAS}, "needs zeroshot_predictions"),
        (
            {"zeroshot_predictions": np.zeros(7, int)},
            {"reading": "nonlinear", "anchor": ALPHAS},
            "needs single_accuracy",
        ),
        ({}, {"alphas": {"digits": 0.1}}, "no alpha for signs"),
        ({}, {"alphas": {"digits": 0.1, "signs": 2.5}}, "expected all in"),
        ({}, {"best_shared": Preset({"digits": 1})}, "best_shared: no alpha for signs"),
        ({}, {"chosen": float("nan")}, "not JSON compliant"),
    ],
)
def test_what_does_not_fit_is_refused(task, options, message):
    with pytest.raises(ValueError, match=message):
        pack([_task(**task)], SLIDERS, **{"alphas": ALPHAS, **options})


def test_names_must_not_repeat_and_nothing_may_be_empty():
    with pytest.raises(ValueError, match="task names repeat"):
        pack([_task(), _task()], SLIDERS, alphas=ALPHAS)
    with pytest.raises(ValueError, match="more than one control"):
        pack(
            [_task(is_control=True), _task("b", is_control=True)],
            SLIDERS,
            alphas=ALPHAS,
        )
    with pytest.raises(ValueError, match="no control is pending"):
        pack([_task(pending=True)], SLIDERS, alphas=ALPHAS)
    with pytest.raises(ValueError, match="0 sliders and 0 tasks"):
        pack([], {}, alphas={})


def test_a_payload_is_at_most_five_megabytes_and_sample_size_keeps_it_so():
    sliders = {f"t{t}": f"T{t}" for t in range(8)}
    classes = [400, 43, 10]
    n = sample_size(classes, len(sliders))
    assert 1 < n < 500
    alphas = dict.fromkeys(sliders, 0.0)

    def packed(images):
        tasks = [
            EvaluatedTask(
                name=f"task {count}",
                title="",
                labels=np.zeros(images, int),
                scores=np.zeros((9, images, count), "f4"),
                classnames=[f"{c}" for c in range(count)],
                pictures=np.zeros((24, 32, 32, 3), np.uint8),
                picture_indices=np.arange(24),
            )
            for count in classes
        ]
        return pack(tasks, sliders, alphas=alphas)

    assert 0.8 * LARGEST_PAYLOAD < len(packed(n)) <= LARGEST_PAYLOAD
    with pytest.raises(ValueError, match="at most 5 MB"):
        packed(int(n * 1.3))
    assert sample_size([11] * 9, 8) == 500
    assert sample_size([10**7], 8) == 1


@pytest.mark.parametrize("payload", [b"", b"\xff\xff\xff\xff{}", b"\x02\0\0\0{}", b"\x02\0\0\0[]"])
def test_a_foreign_payload_is_refused(payload):
    with pytest.raises(ValueError, match="not a payload"):
        header_of(payload)


def _released(values, revision=2):
    return {"alphas": {"revision": revision, "values": values}}


@pytest.mark.parametrize(
    ("raw", "expected", "touched"),
    [
        (None, ALPHAS, False),
        ({}, ALPHAS, False),
        ({"alphas": None}, ALPHAS, False),
        ({"alphas": [1, 2]}, ALPHAS, False),
        ({"alphas": {"revision": 2, "values": "x"}}, ALPHAS, False),
        (_released({"digits": 1, "signs": -1}), {"digits": 1.0, "signs": -1.0}, True),
        (_released({"digits": 1}), {"digits": 1.0, "signs": -0.25}, True),
        (_released({"digits": 9, "signs": -9}), {"digits": 2.0, "signs": -1.0}, True),
        (_released({"digits": "1", "signs": True}), ALPHAS, True),
        (_released({"digits": float("nan"), "signs": float("inf")}), ALPHAS, True),
        (_released({"digits": 1, "other": 1}), {"digits": 1.0, "signs": -0.25}, True),
        (_released({"digits": 1, "signs": 1}, revision=1), ALPHAS, False),
    ],
)
def test_state_becomes_an_alpha_for_every_slider(raw, expected, touched):
    assert read_state(raw, NAMES, ALPHAS, revision=2) == AlphaState(expected, touched=touched)


def test_events_come_with_the_state():
    state = read_state({"pin": PIN, "unpin": "A"}, NAMES, ALPHAS, revision=0)
    assert state.pin == Pin({"digits": 0.5, "signs": 1.0}, PIN["metrics"], exact=True)
    assert state.unpin == "A"
    assert read_state({"unpin": 3}, NAMES, ALPHAS, revision=0).unpin is None


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "pin",
        {},
        {**PIN, "alphas": {"digits": 1}},
        {**PIN, "alphas": {"digits": 1, "signs": None}},
        {**PIN, "metrics": 3},
    ],
)
def test_a_malformed_pin_is_no_pin(raw):
    assert read_pin(raw, NAMES) is None


def test_a_pin_is_exact_only_if_it_says_so():
    assert not read_pin({**PIN, "exact": "yes"}, NAMES).exact
    assert not read_pin({k: v for k, v in PIN.items() if k != "exact"}, NAMES).exact


def _page():
    import numpy as np
    import streamlit as st

    from app.components.alpha import EvaluatedTask, alpha_widget, pack, read_state

    sliders = {"digits": "Digits"}
    held = read_state(st.session_state.get("merge"), ["digits"], {"digits": 0.25}, 0)
    scores = np.zeros((2, 4, 3), "f4")
    task = EvaluatedTask("digits", "Digits", np.zeros(4, int), scores, ["a", "b", "c"])
    state = alpha_widget(pack([task], sliders, alphas=held.alphas), "merge")
    st.write(f"released {state.alphas['digits']}")


def test_a_page_reads_what_was_released():
    page = AppTest.from_function(_page, default_timeout=20).run()
    assert not page.exception
    assert page.markdown[0].value == "released 0.25"
    settled, proto = (widget.proto for widget in page.get("bidi_component"))
    assert header_of(proto.bytes)["alphas"] == [0.25]
    assert header_of(proto.bytes)["settled"]["digest"].encode() in settled.bytes
    assert "export default" in proto.js_content
    page.session_state["merge"] = {"alphas": {"revision": 0, "values": {"digits": 1.5}}}
    page.run()
    assert not page.exception
    assert page.markdown[0].value == "released 1.5"
