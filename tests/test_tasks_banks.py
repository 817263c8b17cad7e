"""Decoded pictures on disk: mapped, resumed, verified, shared between processes, bounded."""

import json
import shutil
import threading

import numpy as np
import pytest
import torch

from engine import banks
from engine.banks import Bank
from engine.errors import EngineError
from engine.tasks import decoding, division, load_split, load_task, pixels
from tests.test_tasks import COLOURS, write_images

SHAPE = (3, 2, 2)


def some(n, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *SHAPE), dtype=np.uint8)


@pytest.fixture
def bank(tmp_path):
    return Bank(tmp_path, {"of": "noise"}, SHAPE)


@pytest.fixture
def task(tmp_path):
    """Thirty pictures for train, and pieces of four at a time."""
    write_images(tmp_path / "cars/train", dict.fromkeys(COLOURS, 10))
    write_images(tmp_path / "cars/test", dict.fromkeys(COLOURS, 4))
    return load_task(str(tmp_path / "cars"))


def test_rows_are_what_was_appended(bank, tmp_path):
    assert bank.filled() == 0
    assert not bank.folder.exists()
    assert bank.read(0).shape == (0, *SHAPE)
    with bank.filling() as done:
        assert done == 0
        bank.append(some(5))
        bank.append(some(2, 1))
    again = Bank(tmp_path, {"of": "noise"}, SHAPE)
    assert again.filled() == 7
    expected = torch.from_numpy(np.concatenate([some(5), some(2, 1)]))
    assert torch.equal(again.read(7), expected)
    assert torch.equal(again.read(3), expected[:3])
    assert Bank(tmp_path, {"of": "other"}, SHAPE).filled() == 0
    assert Bank(tmp_path, {"of": "noise"}, (3, 4, 1)).filled() == 0


def test_what_is_read_can_be_written_without_touching_the_file(bank):
    with bank.filling():
        bank.append(some(4))
    rows = bank.read(4)
    rows.zero_()
    assert torch.equal(bank.read(4), torch.from_numpy(some(4)))


def test_a_mapped_bank_is_not_read_into_memory(bank):
    """256 MB of rows, of which one is looked at: resident memory hardly grows."""
    page, wide = 4096, Bank(bank.folder.parent, {"of": "zeros"}, (2**20,))
    with wide.filling():
        for _ in range(8):
            wide.append(np.zeros((32, 2**20), dtype=np.uint8))

    def resident():
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * page

    try:
        before = resident()
    except OSError:
        pytest.skip("no /proc here")
    rows = wide.read(256)
    assert int(rows[200].sum()) == 0
    assert resident() - before < 64 * 2**20


@pytest.mark.parametrize("damage", ["cut", "altered", "gone", "foreign record", "other record"])
def test_from_the_first_damaged_piece_on_rows_are_missing(bank, damage):
    with bank.filling():
        for seed in range(3):
            bank.append(some(4, seed))
    bank.note("12", "digest of all")
    record, file = bank.folder / "bank.json", bank.rows_file
    data = bytearray(file.read_bytes())
    if damage == "cut":
        file.write_bytes(data[:-5])
    elif damage == "altered":
        data[4 * 12 + 3] ^= 1
        file.write_bytes(data)
    elif damage == "gone":
        file.unlink()
    elif damage == "foreign record":
        record.write_text("[]")
    else:
        record.write_text(record.read_text().replace("noise", "notice"))
    left = {"cut": 8, "altered": 4}.get(damage, 0)
    assert bank.filled() == left
    assert bank.noted("12") is None
    with bank.filling() as done:
        assert done == left
        for seed in range(left // 4, 3):
            bank.append(some(4, seed))
    assert torch.equal(
        bank.read(12), torch.from_numpy(np.concatenate([some(4, s) for s in (0, 1, 2)]))
    )


def test_a_copied_bank_is_verified_once_and_kept(bank, tmp_path):
    with bank.filling():
        bank.append(some(4))
    bank.note("4", "abc")
    shutil.copytree(bank.folder, tmp_path / "other" / banks.FOLDER / bank.folder.name)
    copy = Bank(tmp_path / "other", {"of": "noise"}, SHAPE)
    copy.rows_file.touch()
    assert copy.filled() == 4
    assert copy.noted("4") == "abc"
    stamp = json.loads((copy.folder / "bank.json").read_text())["stamp"]
    assert stamp == [4 * 12, copy.rows_file.stat().st_mtime_ns]


def test_two_who_fill_one_bank_take_turns(bank, tmp_path):
    order = []

    def other():
        with Bank(tmp_path, {"of": "noise"}, SHAPE).filling() as done:
            order.append(done)

    with bank.filling():
        thread = threading.Thread(target=other)
        thread.start()
        bank.append(some(3))
        order.append("filled")
    thread.join(10)
    assert order == ["filled", 3]


def test_a_disk_without_room_says_what_is_needed(bank, monkeypatch):
    usage = shutil.disk_usage(bank.folder.parents[1])._replace(free=banks.SPARE + 2 * 12 - 1)
    monkeypatch.setattr(banks.shutil, "disk_usage", lambda _: usage)
    bank.check_room(1)
    with pytest.raises(EngineError, match=r"2 decoded pictures need .* GB are free; .* --limit"):
        bank.check_room(2)


# splits


def test_a_stopped_decoding_goes_on_where_it_was(store, task, monkeypatch):
    monkeypatch.setattr(decoding, "PIECE", 4)
    seen, counts = [], []
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda *a: counts.append(len(a[1])) or decode(*a))

    def stop(done, total):
        seen.append((done, total))
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_split(task, "train", 8, store, progress=stop)
    split = load_split(task, "train", 8, store, progress=lambda *at: seen.append(at))
    assert seen == [(4, 27), (8, 27), *((n, 27) for n in (12, 16, 20, 24, 27))]
    assert sum(counts) == 27
    monkeypatch.setattr(decoding, "PIECE", 100)
    whole = load_split(task, "train", 8, type(store)(store.home.with_name("elsewhere")))
    assert torch.equal(split.images, whole.images)
    assert split.digest == whole.digest
    assert not list(store.home.glob(".decode-*"))


def test_a_split_larger_than_the_free_disk_is_refused_before_decoding(store, task, monkeypatch):
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("decoded"))
    monkeypatch.setattr(banks, "SPARE", 2**62)
    with pytest.raises(EngineError, match="27 decoded pictures need"):
        load_split(task, "train", 8, store)


def test_a_read_only_cache_still_serves_what_is_decoded(store, task):
    split = load_split(task, "test", 8, store)
    (folder,) = store.home.glob("pixels/*")
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    try:
        assert load_split(task, "test", 8, store).digest == split.digest
        assert load_split(task, "test", 8, store, limit=3).digest == split.take(3).digest
    finally:
        folder.chmod(0o755)


def test_mapped_images_serve_batches_in_any_order(store, task):
    split = load_split(task, "train", 8, store)
    order = torch.from_numpy(division.order(27)[:9])
    assert torch.equal(split.images[order], torch.stack([split.images[i] for i in order.tolist()]))
