"""The store: what is put comes back, and what is damaged never passes for whole."""

import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

import engine.store
from engine.errors import (
    CheckpointError,
    EngineError,
    MissingDataError,
    NonFiniteError,
    UsageError,
)
from engine.store import Store, default_store, digest_tensors, read_tensors, write_bytes

ROOT = Path(__file__).parents[1]
DTYPES = (
    torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8,
    torch.bool,
)  # fmt: skip


def weights(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {"a": torch.randn(4, 3, generator=generator), "b": torch.randn((), generator=generator)}


def equal(got, expected):
    assert sorted(got) == sorted(expected)
    for name in expected:
        assert got[name].dtype == expected[name].dtype
        assert torch.equal(got[name], expected[name])


def temporaries(folder):
    return [path for path in folder.rglob("*") if path.name.endswith(".tmp")]


def checkpoint(store, **meta):
    return store.put("checkpoint", weights(), {"task": "digits", "seed": 0, **meta})


# what is put comes back


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_comes_back(store, dtype):
    tensors = {
        "matrix": torch.arange(6).reshape(2, 3).to(dtype),
        "scalar": torch.tensor(1).to(dtype),
        "empty": torch.ones(0, 3).to(dtype),
    }
    entry = store.put("checkpoint", tensors, {"dtype": str(dtype)})
    equal(store.get(entry), tensors)
    equal(Store(store.home).get(store.find("checkpoint")[0]), tensors)


def test_views_and_shared_memory_come_back(store):
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"transposed": base.T, "row": base[1], "again": base, "same": base}
    equal(store.get(store.put("responses", tensors, {})), tensors)


def test_the_digest_is_that_of_the_file(store):
    entry = checkpoint(store)
    assert hashlib.sha256(entry.path.read_bytes()).hexdigest() == entry.digest
    assert entry.path == store.home / "checkpoint" / f"{entry.digest[:16]}.safetensors"
    assert entry.size == entry.path.stat().st_size


def test_the_same_content_is_one_entry_and_another_meta_another(store):
    first, again, other = checkpoint(store), checkpoint(store), checkpoint(store, seed=1)
    assert first.digest == again.digest != other.digest
    assert len(store.find("checkpoint")) == 2
    assert store.find("checkpoint", seed=0)[0].created == again.created > first.created


def test_results_without_tensors_stay_apart(store):
    for alpha in (0.1, 0.2):
        store.put("result", {}, {"alpha": alpha})
    (entry,) = store.find("result", alpha=0.2)
    assert store.get(entry) == {}
    assert len(store.find("result")) == 2


def test_find_filters_by_values_newest_first(store):
    entries = [checkpoint(store, seed=seed, pair=("x", seed)) for seed in range(3)]
    assert store.find("checkpoint") == entries[::-1]
    assert store.find("checkpoint", task="digits", seed=1) == [entries[1]]
    assert store.find("checkpoint", pair=("x", 2)) == [entries[2]]
    assert store.find("checkpoint", seed=3) == store.find("checkpoint", absent=None) == []
    assert store.one("checkpoint", "", task="digits") == entries[2]
    with pytest.raises(MissingDataError, match="no checkpoint with seed 9 here; run `make it`"):
        store.one("checkpoint", "run `make it`", seed=9)


def test_find_reads_each_manifest_once(store, monkeypatch):
    for alpha in range(100):
        path = checkpoint(store, alpha=alpha).path.with_suffix(".json")
    store.find("checkpoint")
    reads = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: reads.append(self) or read(self))
    assert len(store.find("checkpoint")) == 100
    assert reads == []
    path.write_text(path.read_text() + "\n")
    assert len(store.find("checkpoint")) == 100
    assert reads == [path]


def test_embedded_entries_are_found_and_stay(tmp_path):
    entry = checkpoint(Store(tmp_path / "embedded"))
    store = Store(tmp_path / "home", tmp_path / "embedded")
    assert store.find("checkpoint") == [entry]
    equal(store.get(entry), weights())
    with pytest.raises(UsageError, match="stays; nothing was deleted"):
        store.delete(entry)
    own = checkpoint(store)
    assert store.find("checkpoint") == [own]  # one entry, though it lies in both
    store.delete(own)
    assert store.find("checkpoint") == [entry]
    assert not own.path.exists()


def test_the_default_store_honours_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("TAUSCOPE_CACHE", str(tmp_path))
    assert default_store().home == tmp_path
    assert default_store() is default_store()
    monkeypatch.delenv("TAUSCOPE_CACHE")
    assert default_store().home == ROOT / "cache" / "local"
    assert default_store().embedded == ROOT / "cache" / "embedded"


# what may not be put


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_refused(store, value):
    with pytest.raises(NonFiniteError, match="bias holds 1 NaN or infinite values of 2"):
        store.put("checkpoint", {"bias": torch.tensor([0.0, value])}, {})
    with pytest.raises(NonFiniteError, match="meta holds a number that is NaN"):
        store.put("checkpoint", weights(), {"log": [{"loss": value}]})
    assert not store.home.exists()


def test_caller_mistakes_are_value_errors(store):
    with pytest.raises(ValueError, match="kind is 'model', expected one of encoder"):
        store.put("model", weights(), {})
    with pytest.raises(ValueError, match="kind is"):
        store.find("../checkpoint")
    with pytest.raises(ValueError, match="expected plain JSON values"):
        store.put("checkpoint", weights(), {"path": Path()})


@pytest.mark.parametrize("at", ["tensors", "manifest"])
def test_a_full_disk_leaves_nothing_over(store, monkeypatch, at):
    synced = []
    sync = os.fsync

    def full(handle):
        synced.append(handle)
        # each file is synced, then its folder: the third sync is that of the manifest
        if len(synced) == (1 if at == "tensors" else 3):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(EngineError, match="No space left on device; free some space"):
        checkpoint(store)
    monkeypatch.undo()
    assert temporaries(store.home) == []
    assert store.find("checkpoint") == store.damaged() == []
    equal(store.get(checkpoint(store)), weights())


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EngineError, match="cannot write .*TAUSCOPE_CACHE"):
        checkpoint(Store(tmp_path / "file"))


# damaged and hostile tensors


def flip(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("position", [0, 8, 60, -1])
def test_a_flipped_bit_is_found(store, position):
    entry = checkpoint(store)
    flip(entry.path, position)
    with pytest.raises(CheckpointError, match="its digest differs.*delete it and make it again"):
        store.get(entry)


def test_a_file_changed_after_it_was_verified_is_verified_again(store):
    entry = checkpoint(store)
    store.get(entry)
    flip(entry.path, -1)
    os.utime(entry.path, ns=(1, 1))  # another time of change, whatever the clock's steps
    with pytest.raises(CheckpointError, match="its digest differs"):
        store.get(entry)


@pytest.mark.parametrize("size", [0, 7, 100])
def test_a_truncated_file_is_found(store, size):
    entry = checkpoint(store)
    os.truncate(entry.path, size)
    with pytest.raises(CheckpointError, match=f"truncated: {size} bytes where {entry.size}"):
        store.get(entry)


def test_a_file_that_is_gone_is_missing(store):
    entry = checkpoint(store)
    entry.path.unlink()
    with pytest.raises(MissingDataError, match="is not there.*python -m engine finetune"):
        store.get(entry)
    assert store.find("checkpoint") == []
    assert [path for path, _ in store.damaged()] == [entry.path.with_suffix(".json")]


def forge(store, data, **changes):
    """Put bytes into the store with a manifest that fits them, as an intruder would."""
    digest = hashlib.sha256(data).hexdigest()
    path = store.home / "checkpoint" / f"{digest[:16]}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    manifest = {
        "format": "tauscope-1", "kind": "checkpoint", "digest": digest, "size": len(data),
        "created": "2026-01-01T00:00:00+00:00", "tensors": {}, "meta": {}, **changes,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(manifest))
    return path.with_suffix(".json")


def header_for(meta, kind="checkpoint", version="tauscope-1"):
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()
    return {"tauscope": json.dumps({"format": version, "kind": kind, "meta": digest})}


def test_a_forged_file_that_fits_is_read(store):
    """The forger below is good enough that only what a test changes is wrong."""
    tensors = {"a": torch.ones(2)}
    described = {"a": {"dtype": "float32", "shape": [2]}}
    forge(store, safetensors.torch.save(tensors, header_for({})), tensors=described)
    equal(store.get(store.find("checkpoint")[0]), tensors)


@pytest.mark.parametrize(
    ("tensor", "header", "described", "said"),
    [
        (torch.ones(2), None, [2], "not written by this version as a checkpoint"),
        (torch.ones(2), header_for({}, kind="encoder"), [2], "not written by this version"),
        (torch.ones(2), header_for({}, version="tauscope-9"), [2], "not written by this version"),
        (torch.ones(2), header_for({"seed": 1}), [2], "manifest was altered"),
        (torch.ones(2), {"tauscope": "[]"}, [2], "header is not a table"),
        (torch.ones(2), header_for({}), [3], "tensors are not those its manifest names"),
    ],
)
def test_a_foreign_file_is_refused(store, tensor, header, described, said):
    shape = {"a": {"dtype": "float32", "shape": described}}
    forge(store, safetensors.torch.save({"a": tensor}, header), tensors=shape)
    with pytest.raises(CheckpointError, match=said):
        store.get(store.find("checkpoint")[0])


def test_a_forged_nan_is_refused(store):
    data = safetensors.torch.save({"a": torch.tensor([torch.nan])}, header_for({}))
    forge(store, data, tensors={"a": {"dtype": "float32", "shape": [1]}})
    with pytest.raises(NonFiniteError, match="a holds 1 NaN"):
        store.get(store.find("checkpoint")[0])


class Bomb:
    """Pickled, it writes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


HOSTILE = {
    "empty": b"",
    "short": b"abc",
    "header longer than the file": (2**40).to_bytes(8, "little") + b"{}",
    "header of 2**63 bytes": (2**63).to_bytes(8, "little") + b"{}",
    "header that is no JSON": (4).to_bytes(8, "little") + b"abcd",
    "header that is no table": (2).to_bytes(8, "little") + b"[]",
    "offsets outside the file": (
        lambda text: len(text).to_bytes(8, "little") + text
    )(b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'),
    "negative shape": (
        lambda text: len(text).to_bytes(8, "little") + text + bytes(4)
    )(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}'),
    "unknown dtype": (
        lambda text: len(text).to_bytes(8, "little") + text + bytes(4)
    )(b'{"a":{"dtype":"F77","shape":[1],"data_offsets":[0,4]}}'),
    "zip": b"PK\x03\x04" + bytes(200),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_bytes_are_one_sentence(store, tmp_path, name):
    path = tmp_path / "user.safetensors"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(CheckpointError, match="damaged or foreign .*; give a safetensors file"):
        read_tensors(path)
    forge(store, HOSTILE[name])
    with pytest.raises(CheckpointError, match="damaged or foreign"):
        store.get(store.find("checkpoint")[0])


def test_a_pickle_by_another_name_runs_no_code(store, tmp_path):
    mark = tmp_path / "mark"
    data = pickle.dumps({"a": Bomb(mark)})
    pickle.loads(data)
    assert mark.exists()  # the bomb is live
    mark.unlink()
    path = tmp_path / "user.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError):
        read_tensors(path)
    torch.save({"a": Bomb(mark)}, path)
    with pytest.raises(CheckpointError):
        read_tensors(path)
    forge(store, data)
    with pytest.raises(CheckpointError):
        store.get(store.find("checkpoint")[0])
    assert not mark.exists()


def test_a_users_file_is_read_or_refused(tmp_path):
    path = tmp_path / "user.safetensors"
    safetensors.torch.save_file(weights(), path)
    equal(read_tensors(path), weights())
    safetensors.torch.save_file({"a": torch.tensor([torch.inf])}, path)
    with pytest.raises(NonFiniteError, match="a holds 1 NaN or infinite values of 1"):
        read_tensors(path)
    with pytest.raises(MissingDataError, match="is not there, or not a file"):
        read_tensors(tmp_path)
    with pytest.raises(MissingDataError, match="is not there"):
        read_tensors(tmp_path / "absent")


@pytest.mark.skipif(os.name != "posix", reason="named pipes are POSIX")
def test_a_pipe_does_not_hang_the_reader(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MissingDataError, match="not a file"):
        read_tensors(tmp_path / "pipe")


# damaged and hostile manifests


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"format": "tauscope-2"}, "its format is not tauscope-1"),
        ({"format": None}, "its format"),
        ({"kind": "encoder"}, "its kind is not that of its folder"),
        ({"kind": ["checkpoint"]}, "its kind"),
        ({"digest": "../../etc/passwd"}, "its digest is not 64 hex digits"),
        ({"digest": 7}, "its digest is not 64 hex digits"),
        ({"digest": "0" * 64}, "its digest is not that of its file name"),
        ({"size": -1}, "its size is not a count"),
        ({"size": True}, "its size is not a count"),
        ({"size": "many"}, "its size is not a count"),
        ({"tensors": []}, "are not tables"),
        ({"meta": "x"}, "are not tables"),
        ({"meta": {"loss": float("nan")}}, "NaN"),
        ({"created": 3}, "damaged or foreign"),
        ({"created": "yesterday"}, "damaged or foreign"),
    ],
)
def test_a_hostile_manifest_is_left_out_and_listed(store, changes, said):
    good = checkpoint(store)
    path = forge(store, b"anything", **changes)
    assert store.find("checkpoint") == [good]
    ((listed, reason),) = store.damaged()
    assert listed == path
    assert said in reason
    assert "\n" not in reason


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"null", b"[" * 100_000, b"\xff\xfe", b"{}", b'{"format": "tauscope-1"}'],
    ids=["empty", "truncated", "null", "deep", "not text", "no fields", "format only"],
)
def test_an_unreadable_manifest_is_left_out_and_listed(store, text):
    good = checkpoint(store)
    path = forge(store, b"anything")
    path.write_bytes(text)
    assert store.find("checkpoint") == [good]
    assert [listed for listed, _ in store.damaged()] == [path]


def test_a_huge_manifest_is_not_read(store, monkeypatch):
    path = forge(store, b"anything")
    os.truncate(path, engine.store._MANIFEST_LIMIT + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail(f"read {self}"))
    assert store.find("checkpoint") == []
    assert "too large" in store.damaged()[0][1]


def test_an_edited_meta_is_found_out(store):
    entry = checkpoint(store)
    path = entry.path.with_suffix(".json")
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    (edited,) = store.find("checkpoint", seed=1)
    with pytest.raises(CheckpointError, match="manifest was altered after it was written"):
        store.get(edited)


def test_the_path_comes_from_where_the_manifest_lies(store, tmp_path):
    secret = tmp_path / "secret.safetensors"
    safetensors.torch.save_file(weights(), secret)
    forge(store, b"anything", path=str(secret), file="../secret.safetensors")
    (entry,) = store.find("checkpoint")
    assert entry.path.parent == store.home / "checkpoint"


def test_other_files_in_the_folder_are_ignored(store):
    entry = checkpoint(store)
    for name in ("notes.txt", ".hidden.json", ".x.safetensors.1.ab.tmp", "orphan.safetensors"):
        (entry.path.parent / name).write_text("x")
    (entry.path.parent / "folder.json").mkdir()
    assert store.find("checkpoint") == [entry]


# interrupted and concurrent writes


def test_a_crash_between_file_and_manifest_leaves_no_entry(store, monkeypatch):
    written = []

    def crash(path, data):
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt
        write_bytes(path, data)

    monkeypatch.setattr(engine.store, "write_bytes", crash)
    with pytest.raises(KeyboardInterrupt):
        checkpoint(store)
    monkeypatch.undo()
    assert written[0].exists()
    assert store.find("checkpoint") == store.damaged() == []
    equal(store.get(checkpoint(store)), weights())


def test_old_leftovers_are_removed_and_fresh_ones_kept(store):
    entry = checkpoint(store)
    old, fresh = (entry.path.with_name(f".{age}.tmp") for age in ("old", "fresh"))
    old.write_text("x")
    fresh.write_text("x")
    os.utime(old, (1, 1))
    checkpoint(store, seed=1)
    assert not old.exists()
    assert fresh.exists()


def in_processes(work, count):
    """Start forked processes, which need not import torch anew."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    return processes


@pytest.mark.skipif(os.name != "posix", reason="fork and kill -9 are POSIX")
def test_killed_writers_leave_only_whole_entries(store):
    def write():
        for seed in range(100_000):
            tensors = {"a": torch.full((50_000,), float(seed))}
            store.put("checkpoint", tensors, {"seed": seed})
            store.save_state("run", tensors, {"seed": seed})

    for wait in (0.05, 0.11, 0.17, 0.23, 0.3):
        (writer,) = in_processes(write, 1)
        time.sleep(wait)
        writer.kill()
        writer.join()
        assert store.damaged() == []
        for entry in store.find("checkpoint"):
            equal(store.get(entry), {"a": torch.full((50_000,), float(entry.meta["seed"]))})
        state = store.load_state("run")
        if state is not None:
            equal(state[0], {"a": torch.full((50_000,), float(state[1]["seed"]))})
    assert store.find("checkpoint")


@pytest.mark.skipif(os.name != "posix", reason="fork is POSIX")
def test_two_processes_may_put_the_same(store):
    def write():
        for _ in range(10):
            equal(store.get(store.put("checkpoint", weights(), {})), weights())

    writers = in_processes(write, 2)
    for writer in writers:
        writer.join(timeout=60)
    assert [writer.exitcode for writer in writers] == [0, 0]
    (entry,) = store.find("checkpoint")
    equal(store.get(entry), weights())
    assert temporaries(store.home) == []


# working state


@pytest.mark.parametrize("name", ["run-1", "a/b", "../../escape", ".hidden", "ä ö", "x" * 500, ""])
def test_a_state_comes_back_under_any_name(store, name):
    assert store.load_state(name) is None
    store.save_state(name, weights(), {"step": 1})
    store.save_state(name, weights(1), {"step": 2})
    tensors, meta = store.load_state(name)
    equal(tensors, weights(1))
    assert meta == {"step": 2}
    files = [path for path in store.home.parent.rglob("*") if path.is_file()]
    assert [path.parent for path in files] == [store.home / "state"]
    store.drop_state(name)
    store.drop_state(name)
    assert store.load_state(name) is None


def test_states_of_names_that_look_alike_stay_apart(store):
    names = ["a/b", "a_b", "a b", "a:b"]
    for step, name in enumerate(names):
        store.save_state(name, {}, {"step": step})
    assert [store.load_state(name)[1]["step"] for name in names] == [0, 1, 2, 3]


def test_a_damaged_state_says_how_to_start_anew(store):
    store.save_state("run", weights(), {"step": 1})
    (path,) = (store.home / "state").iterdir()
    whole = path.read_bytes()
    other = safetensors.torch.save(weights())
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    for data in (b"", whole[:50], flipped, other, HOSTILE["zip"]):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"delete .*run\.safetensors to start anew"):
            store.load_state("run")
    store.drop_state("run")
    assert store.load_state("run") is None


# digests and single files


def test_the_digest_of_tensors_sees_names_dtypes_shapes_and_bytes():
    base = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    same = {"b": torch.ones(1), "a": torch.zeros(3, 2).T.clone()}
    assert digest_tensors(base) == digest_tensors(same)
    others = [
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "b": torch.nextafter(torch.ones(1), torch.zeros(1))},
        {"a": torch.zeros(2, 3)},
    ]
    assert len({digest_tensors(tensors) for tensors in [base, *others]}) == 6


def test_the_digest_of_tensors_against_a_slow_twin():
    """The same bytes, gathered one element at a time."""
    tensors = {"b": torch.arange(4, dtype=torch.float64).reshape(2, 2), "a": torch.tensor(True)}
    twin = hashlib.sha256()
    for name, dtype, shape in (("a", "bool", []), ("b", "float64", [2, 2])):
        twin.update(json.dumps([name, {"dtype": dtype, "shape": shape}]).encode())
        for value in tensors[name].reshape(-1).tolist():
            twin.update(np.array(value).tobytes())
    assert digest_tensors(tensors) == twin.hexdigest()


def test_a_written_file_replaces_the_old_one_whole(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "export.csv"
    write_bytes(path, b"old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError(5, "I/O")))
    with pytest.raises(EngineError, match=r"cannot write .*export\.csv: I/O"):
        write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert temporaries(tmp_path) == []
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
