"""Tasks: splits that never change or overlap, users' data in every layout, plain errors."""

import dataclasses
import doctest
import hashlib
import io
import json
import socket
import sys

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from engine.errors import CheckpointError, MissingDataError, UsageError
from engine.store import Store
from engine.tasks import (
    CONTROL,
    SPLITS,
    TASKS,
    Split,
    describe,
    division,
    load_split,
    load_task,
    miniature,
    pixels,
)
from engine.tasks.words import TEMPLATES, plain

COLOURS = {"red_car": (255, 0, 0), "green_car": (0, 255, 0), "BlueCar": (0, 0, 255)}
NAMES = sorted(COLOURS)  # as folders are: BlueCar, green_car, red_car


def picture(colour, shade, size=(12, 10)):
    """One colour with one pixel of another, so that no two pictures are the same."""
    image = Image.new("RGB", size, tuple(max(value - shade, 0) for value in colour))
    image.putpixel((shade % size[0], 0), (shade, shade, shade))
    return image


def png(image):
    data = io.BytesIO()
    image.save(data, "png")
    return data.getvalue()


def write_images(folder, counts):
    for name, count in counts.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for shade in range(count):
            picture(COLOURS[name], shade).save(folder / name / f"{shade:03}.png")


def write_parquet(path, labels, features=None, images=None, shade=0):
    names = NAMES
    cells = images or [
        {"bytes": png(picture(COLOURS[names[max(label or 0, 0)]], shade + i)), "path": None}
        for i, label in enumerate(labels)
    ]
    features = features or datasets.Features({
        "image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=names),
    })  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    image, label = features
    rows = datasets.Dataset.from_dict({image: cells, label: labels}, features=features)
    datasets.disable_progress_bars()
    rows.to_parquet(str(path))
    datasets.enable_progress_bars()


@pytest.fixture
def folders(tmp_path):
    """Train and test folders of three colours; the red class is the largest."""
    write_images(tmp_path / "my cars/train", dict.fromkeys(COLOURS, 10) | {"red_car": 20})
    write_images(tmp_path / "my cars/test", dict.fromkeys(COLOURS, 4))
    return tmp_path / "my cars"


@pytest.fixture
def parquet(tmp_path):
    write_parquet(tmp_path / "cars/train-00000-of-00002.parquet", [0, 1, 2] * 8)
    write_parquet(tmp_path / "cars/train-00001-of-00002.parquet", [0, 1, 2] * 2, shade=60)
    write_parquet(tmp_path / "cars/test.parquet", [0, 1, 2] * 4, shade=90)
    return tmp_path / "cars"


def banks(store):
    """How many splits lie decoded in the cache."""
    return len(list(store.home.glob("pixels/*/bank.json")))


def rows(split):
    """Pictures with their labels, as a set of hashable things."""
    return {(bytes(image.numpy().tobytes()), int(label)) for image, label in zip(
        split.images, split.labels, strict=True
    )}  # fmt: skip


def true_names(task, split):
    """Class names by the dominant colour of each picture: the slow way to its label."""
    by_channel = {0: "red", 1: "green", 2: "blue"}
    channels = split.images.float().mean(dim=(2, 3)).argmax(dim=1)
    return [by_channel[int(channel)] for channel in channels]


# the miniature


def test_the_miniature_has_eight_tasks_and_a_control():
    assert len(TASKS) == 8
    assert CONTROL not in TASKS
    for name in (*TASKS, CONTROL):
        task = load_task(name)
        assert (task.name, task.source) == (name, "miniature")
        assert len(set(task.classnames)) == len(task.classnames) >= 8
        assert all(template.count("{}") == 1 for template in task.templates)


def test_the_miniatures_splits_are_disjoint_and_sized_by_the_protocol():
    train, validation = division.hold_out(miniature.SIZES["train"])
    assert (len(train), len(validation)) == (4500, 500)
    assert sorted([*train, *validation]) == list(range(5000))
    counts = describe(load_task(TASKS[0]))["counts"]
    assert counts == {"train": 4500, "validation": 500, "test": 1000}


@pytest.mark.parametrize("split", SPLITS)
def test_a_limited_split_is_the_start_of_the_whole(store, split):
    task = load_task(TASKS[2])
    few, more = (load_split(task, split, 32, store, limit=limit) for limit in (5, 9))
    assert torch.equal(more.images[:5], few.images)
    assert more.take(5).digest == few.digest != more.digest
    pool = "test" if split == "test" else "train"
    order = {
        "test": division.order(1000),
        "train": division.hold_out(5000)[0],
        "validation": division.hold_out(5000)[1],
    }[split]
    images, labels = miniature.render(task.name, pool, torch.from_numpy(order[:5]))
    assert torch.equal(few.images, images)
    assert torch.equal(few.labels, labels)
    assert not store.home.exists()  # rendered, not kept


def test_the_miniature_is_resized_for_other_encoders(store):
    task = load_task(TASKS[0])
    small = load_split(task, "test", 32, store, limit=3)
    large = load_split(task, "test", 48, store, limit=3)
    assert large.images.shape == (3, 3, 48, 48)
    resized = [pixels.fit(Image.fromarray(i.permute(1, 2, 0).numpy()), 48) for i in small.images]
    assert np.array_equal(large.images.numpy(), np.stack(resized))
    assert large.digest != small.digest


# the order and the division


def test_the_order_is_fixed_for_ever():
    """Published numbers hang on it: a change here changes every one of them."""
    assert division.order(8).tolist() == [3, 2, 1, 6, 0, 7, 4, 5]
    assert division.order(8, seed=1).tolist() != division.order(8).tolist()
    digest = hashlib.sha256(division.order(5000).astype("<i8").tobytes()).hexdigest()
    assert digest[:16] == "0723bb27fb23857c"


@pytest.mark.parametrize(("n", "held"), [(0, 0), (9, 0), (10, 1), (99, 9), (60_000, 5000)])
def test_validation_is_a_tenth_but_at_most_5000(n, held):
    train, validation = division.hold_out(n)
    assert len(validation) == held
    assert sorted([*train, *validation]) == list(range(n))


def test_a_made_test_split_takes_a_fifth_of_each_class():
    labels = np.array([0] * 10 + [1] * 5 + [2] * 4 + [0] * 5)
    train, test = division.stratified(labels)
    assert sorted([*train, *test]) == list(range(24))
    assert np.bincount(labels[test], minlength=3).tolist() == [3, 1, 0]


# pictures


@pytest.mark.parametrize(
    "size", [(40, 32), (32, 57), (32, 35), (33, 33), (8, 9), (32, 32), (500, 41)]
)
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "CMYK"])
def test_pictures_are_fitted_as_torchvision_fits_them(size, mode):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    twin = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)])
    expected = np.asarray(twin(image.convert("RGB"))).transpose(2, 0, 1)
    assert np.array_equal(pixels.fit(image, 32), expected)


def test_16_bit_greys_keep_their_contrast():
    grey = Image.fromarray(np.array([[0, 32768], [65535, 257]], dtype=np.uint16))
    assert pixels.fit(grey, 2)[0].tolist() == [[0, 127], [255, 1]]


# a user's folders


def test_folders_become_a_task(store, folders):
    task = load_task(str(folders))
    assert (task.name, task.title, task.source) == ("my_cars", "my cars", str(folders))
    assert task.classnames == ("blue car", "green car", "red car")
    assert task.templates == TEMPLATES
    splits = {name: load_split(task, name, 8, store) for name in SPLITS}
    assert {name: len(split.labels) for name, split in splits.items()} == {
        "train": 36, "validation": 4, "test": 12,
    }  # fmt: skip
    assert describe(task)["counts"] == {"train": 36, "validation": 4, "test": 12}
    for split in splits.values():
        assert split.images.shape[1:] == (3, 8, 8)
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        said = [task.classnames[label].split()[0] for label in split.labels]
        assert said == true_names(task, split)


def test_train_and_validation_are_disjoint_and_together_the_pool(tmp_path, store):
    write_images(tmp_path / "t/train", dict.fromkeys(COLOURS, 11))
    write_images(tmp_path / "t/test", dict.fromkeys(COLOURS, 1))
    task = load_task(str(tmp_path / "t"))
    train, validation = (rows(load_split(task, name, 10, store)) for name in SPLITS[:2])
    assert len(train) == 30
    assert len(validation) == 3
    assert train.isdisjoint(validation)


def test_a_flat_folder_gets_a_stratified_test_split(tmp_path, store):
    write_images(tmp_path / "flat", dict.fromkeys(COLOURS, 10))
    (tmp_path / "flat" / "notes").mkdir()
    task = load_task(str(tmp_path / "flat"))
    splits = {name: load_split(task, name, 10, store) for name in SPLITS}
    assert splits["test"].labels.bincount().tolist() == [2, 2, 2]
    assert "a seeded fifth of each class" in splits["test"].rule
    parts = [rows(split) for split in splits.values()]
    assert [len(part) for part in parts] == [22, 2, 6]
    assert len(set.union(*parts)) == 30


def test_given_validation_is_used(tmp_path, store):
    for part, count in (("train", 5), ("val", 2), ("test", 3)):
        write_images(tmp_path / "t" / part, dict.fromkeys(COLOURS, count))
    counts = describe(load_task(str(tmp_path / "t")))["counts"]
    assert counts == {"train": 15, "validation": 6, "test": 9}
    split = load_split(load_task(str(tmp_path / "t")), "validation", 8, store)
    assert split.rule.startswith("the validation part as given")


# a user's parquet files


def test_parquet_files_become_a_task(store, parquet):
    task = load_task(str(parquet))
    assert task.classnames == ("blue car", "green car", "red car")
    for name, count in (("train", 27), ("validation", 3), ("test", 12)):
        split = load_split(task, name, 10, store)
        assert len(split.labels) == count
        said = [task.classnames[label].split()[0] for label in split.labels]
        assert said == true_names(task, split)
    assert [path.name for path in store.home.iterdir()] == ["pixels"]  # no working files stay


def test_parquet_in_a_data_folder_with_odd_characters(tmp_path, store):
    root = tmp_path / "odd [1] *x {y}"
    write_parquet(root / "data/train-0.parquet", [0, 1, 2] * 4)
    write_parquet(root / "data/test-0.parquet", [0, 1, 2])
    write_parquet(root / "data/validation-0.parquet", [0, 1])
    task = load_task(str(root))
    assert task.name == "odd_1_x_y"
    assert [len(load_split(task, name, 8, store).labels) for name in SPLITS] == [12, 2, 3]


def test_folders_and_parquet_give_the_same_pictures(tmp_path, store):
    write_images(tmp_path / "a/train", dict.fromkeys(COLOURS, 10))
    cells = [
        {"bytes": png(picture(COLOURS[name], shade)), "path": None}
        for name in NAMES
        for shade in range(10)
    ]
    labels = [label for label in range(3) for _ in range(10)]
    write_parquet(tmp_path / "b/train.parquet", labels, images=cells)
    for split in SPLITS:
        one, other = (load_split(load_task(str(tmp_path / n)), split, 8, store) for n in "ab")
        assert torch.equal(one.images, other.images)
        assert one.digest == other.digest


def test_labels_may_be_text(tmp_path, store):
    features = datasets.Features({
        "image": datasets.Image(decode=False), "label": datasets.Value("string"),
    })  # fmt: skip
    cells = [{"bytes": png(picture(COLOURS[name], 0)), "path": None} for name in COLOURS] * 10
    write_parquet(tmp_path / "t/train.parquet", [*COLOURS] * 10, features, cells)
    task = load_task(str(tmp_path / "t"))
    split = load_split(task, "test", 8, store)
    assert [task.classnames[i].split()[0] for i in split.labels] == true_names(task, split)


def test_numbers_need_names(tmp_path):
    features = datasets.Features({
        "image": datasets.Image(decode=False), "label": datasets.Value("int64"),
    })  # fmt: skip
    write_parquet(tmp_path / "t/train.parquet", [0, 1, 2] * 10, features)
    with pytest.raises(UsageError, match="numbers without names; name them in .*, 3 of them"):
        load_task(str(tmp_path / "t"))
    (tmp_path / "t/tauscope.yaml").write_text("classnames: [a, b, c]")
    assert load_task(str(tmp_path / "t")).classnames == ("a", "b", "c")


def test_local_data_never_touches_the_network(store, parquet, monkeypatch):
    def refuse(*args, **kwargs):
        pytest.fail(f"network: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    load_split(load_task(str(parquet)), "test", 8, store)


def test_loading_says_nothing(store, parquet, capfd):
    load_split(load_task(str(parquet)), "test", 8, store)
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()  # as it was


# decoded once


def test_a_second_load_decodes_nothing(store, folders, monkeypatch):
    task = load_task(str(folders))
    first = load_split(task, "test", 8, store)
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("decoded again"))
    again = load_split(task, "test", 8, Store(store.home))
    assert torch.equal(again.images, first.images)
    assert again.digest == first.digest
    few = load_split(task, "test", 8, store, limit=5)
    assert few.digest == first.take(5).digest
    assert banks(store) == 1


def test_a_limit_decodes_only_so_many(store, folders, monkeypatch):
    decoded = []
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda *a: decoded.append(len(a[1])) or decode(*a))
    task = load_task(str(folders))
    few = load_split(task, "test", 8, store, limit=5)
    whole = load_split(task, "test", 8, store)
    assert decoded == [5, 7]  # the whole goes on behind the five
    assert few.digest == whole.take(5).digest


@pytest.mark.parametrize("layout", ["folders", "parquet"])
def test_changed_data_is_decoded_again(store, layout, request):
    root = request.getfixturevalue(layout)
    task = load_task(str(root))
    before = load_split(task, "test", 8, store)
    if layout == "folders":
        picture((9, 9, 9), 0).save(root / "test/red_car/000.png")
    else:
        write_parquet(root / "test.parquet", [0, 1, 2] * 4, shade=100)
    after = load_split(task, "test", 8, store)
    assert after.digest != before.digest
    assert banks(store) == 2


def test_touching_the_data_changes_nothing(store, folders):
    task = load_task(str(folders))
    before = load_split(task, "test", 8, store)
    for path in folders.rglob("*.png"):
        path.touch()
    assert load_split(task, "test", 8, store).digest == before.digest
    assert banks(store) == 1


def test_a_damaged_copy_is_decoded_again(store, folders):
    task = load_task(str(folders))
    before = load_split(task, "test", 8, store)
    images = before.images.clone()
    (rows,) = store.home.glob("pixels/*/rows.bin")
    for damaged in (rows.read_bytes()[:-1], b"\0" + rows.read_bytes()[1:]):
        rows.write_bytes(damaged)
        again = load_split(task, "test", 8, store)
        assert again.digest == before.digest
        assert torch.equal(again.images, images)


def test_the_digest_covers_pictures_labels_names_and_rule(store, folders):
    task = load_task(str(folders))
    split = load_split(task, "test", 8, store)
    renamed = load_split(dataclasses.replace(task, classnames=("a", "b", "c")), "test", 8, store)
    other_size = load_split(task, "test", 9, store)
    assert len({split.digest, renamed.digest, other_size.digest}) == 3
    assert torch.equal(renamed.images, split.images)


def test_take_returns_the_first(store):
    split = load_split(load_task(TASKS[0]), "test", 32, store, limit=6)
    assert split.take(6) is split
    assert split.take(99) is split
    taken = split.take(2)
    assert torch.equal(taken.images, split.images[:2])
    assert torch.equal(taken.labels, split.labels[:2])
    assert split.take(4).take(2).digest == taken.digest
    with pytest.raises(ValueError, match="n is 0, expected 1 or more"):
        split.take(0)
    assert Split("t", "test", split.images, split.labels, "d").take(1).rule == ""


# words


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("AnnualCrop", "annual crop"),
        ("annual_crop_land", "annual crop land"),
        ("SeaLake", "sea lake"),
        ("USBStick", "USB stick"),
        ("Boeing 737", "Boeing 737"),
        ("t-shirt", "t-shirt"),
        ("20 km/h speed limit", "20 km/h speed limit"),
        ("7", "7"),
        ("__", "__"),
    ],
)
def test_labels_become_words(label, words):
    assert plain(label) == words


def test_the_examples_in_the_docstrings_run():
    assert doctest.testmod(sys.modules[plain.__module__]) == doctest.TestResults(0, 1)


def test_labels_that_become_the_same_words_stay_labels(tmp_path):
    for name in ("red_car", "red car"):
        (tmp_path / "t" / name).mkdir(parents=True)
        picture((9, 9, 9), 0).save(tmp_path / "t" / name / "0.png")
    assert load_task(str(tmp_path / "t")).classnames == ("red car", "red_car")


def test_yaml_sets_the_words(folders):
    (folders / "tauscope.yaml").write_text(
        "title: Toy cars\ndescription: three colours\n"
        "classnames: {red_car: a red toy, BlueCar: a blue toy}\n"
        "templates: ['a toy: {}', '{}']\n"
    )
    task = load_task(str(folders))
    assert task.classnames == ("a blue toy", "green car", "a red toy")
    assert task.templates == ("a toy: {}", "{}")
    assert (task.title, task.description) == ("Toy cars", "three colours")
    (folders / "tauscope.yaml").write_text("classnames: [x, y, z]")
    assert load_task(str(folders)).classnames == ("x", "y", "z")
    (folders / "tauscope.yaml").write_text("")
    assert load_task(str(folders)).title == "my cars"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classnames: [a, b", "is not readable YAML"),
        ("!!python/object/apply:os.system [echo]", "is not readable YAML"),
        ("\x00", "is not readable YAML"),
        ("[" * 5000, "is not readable YAML"),
        ("- a", "must be a table with the keys title"),
        ("class_names: [a, b, c]", r"unknown keys \(class_names\); known are title"),
        ("title: 3", "title must be text, got 3"),
        ("title: ''", "title must be text"),
        ("classnames: [a, b]", "classnames must be a list of 3 names, got 2 names"),
        ("classnames: cars", "classnames must be a list of 3 names, got 'cars'"),
        ("classnames: [a, b, 3]", "classnames must all be text, got 3; put it in quotes"),
        ("classnames: [a, b, no]", "got False; put it in quotes"),
        ("classnames: [a, a, b]", r"1 class names .* stand for several classes \(a\)"),
        ("classnames: {red: a}", r"1 labels that the data has not \(red\)"),
        ("classnames: {red_car: 3}", "classnames must all be text, got 3"),
        ("templates: a photo", "templates must be a list of prompts"),
        ("templates: []", "templates must be a list of prompts"),
        ("templates: [a photo]", "'a photo' must hold {} exactly once"),
        ("templates: ['{} and {}']", "must hold {} exactly once"),
        ("templates: ['{} {x}']", "braces other than {}"),
        ("templates: [3]", "3 must hold {} exactly once"),
    ],
)
def test_bad_yaml_is_one_plain_sentence(folders, text, said):
    (folders / "tauscope.yaml").write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        load_task(str(folders))
    assert "tauscope.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


# errors


@pytest.mark.parametrize("name", ["", "digit", "no-such_task"])
def test_an_unknown_name_lists_the_known(name):
    with pytest.raises(UsageError, match=f"choose one of {TASKS[0]}, .*{CONTROL}, or give"):
        load_task(name)


def test_missing_folders_are_missing_data(tmp_path):
    with pytest.raises(MissingDataError, match="is not a folder; give one with train/"):
        load_task(str(tmp_path / "absent"))
    with pytest.raises(MissingDataError, match="no images found in .*; lay them out as"):
        load_task(str(tmp_path))


def test_a_vanished_folder_is_missing_data(store, folders):
    task = load_task(str(folders))
    folders.rename(folders.with_name("elsewhere"))
    with pytest.raises(MissingDataError, match="is gone; restore the folder of the task my_cars"):
        load_split(task, "test", 8, store)


def test_changed_classes_ask_for_a_new_load(store, folders):
    task = load_task(str(folders))
    (folders / "train/new").mkdir()
    picture((1, 2, 3), 0).save(folders / "train/new/0.png")
    with pytest.raises(UsageError, match="has 4 classes where the task my_cars has 3"):
        load_split(task, "test", 8, store)


def test_unknown_and_empty_splits_are_refused(store, tmp_path):
    with pytest.raises(UsageError, match="there is no split 'dev'; choose one of train"):
        load_split(load_task(TASKS[0]), "dev", 32, store)
    with pytest.raises(UsageError, match="limit is 0"):
        load_split(load_task(TASKS[0]), "test", 32, store, limit=0)
    with pytest.raises(ValueError, match="image_size is 0"):
        load_split(load_task(TASKS[0]), "test", 0, store)
    write_images(tmp_path / "t/train", dict.fromkeys(COLOURS, 3))
    write_images(tmp_path / "t/test", dict.fromkeys(COLOURS, 1))
    task = load_task(str(tmp_path / "t"))
    with pytest.raises(UsageError, match="validation split of t is empty: 9 images are too few"):
        load_split(task, "validation", 8, store)


def test_one_class_is_no_task(tmp_path):
    write_images(tmp_path / "t", {"red_car": 3})
    with pytest.raises(UsageError, match="a task needs two or more"):
        load_task(str(tmp_path / "t"))


def test_a_class_that_train_lacks_is_refused(folders, parquet):
    write_images(folders / "test", {"BlueCar": 1})
    (folders / "test/BlueCar").rename(folders / "test/pink_car")
    with pytest.raises(UsageError, match=r"has 1 classes that train lacks \(pink_car\)"):
        load_task(str(folders))
    for path in parquet.glob("train*"):
        write_parquet(path, [0, 1] * 5)
    with pytest.raises(UsageError, match=r"test part .* 1 classes that train lacks \(red_car\)"):
        load_task(str(parquet))


def test_labels_without_a_class_are_counted(parquet):
    write_parquet(parquet / "test.parquet", [0, 1, -1, None])
    with pytest.raises(UsageError, match="2 of 4 images in the test part .* have no label"):
        load_task(str(parquet))


def test_an_empty_part_is_refused(parquet):
    write_parquet(parquet / "test.parquet", [])
    with pytest.raises(UsageError, match="the test part of .* holds no images"):
        load_task(str(parquet))


def test_other_columns_are_named(parquet):
    features = datasets.Features({
        "img": datasets.Image(decode=False), "label": datasets.ClassLabel(names=NAMES),
    })  # fmt: skip
    write_parquet(parquet / "test.parquet", [0, 1], features)
    with pytest.raises(UsageError, match="has the columns img, label; a task needs `image` and"):
        load_task(str(parquet))


def test_parts_must_name_the_same_classes(parquet):
    features = datasets.Features({
        "image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=NAMES[::-1]),
    })  # fmt: skip
    write_parquet(parquet / "test.parquet", [0, 1], features)
    with pytest.raises(UsageError, match="name different classes"):
        load_task(str(parquet))


def test_parquet_without_train_is_refused(parquet):
    for path in parquet.glob("train*"):
        path.unlink()
    with pytest.raises(UsageError, match=r"\(test.parquet\) but none named train\*.parquet"):
        load_task(str(parquet))


@pytest.mark.parametrize("damage", ["truncated", "foreign", "empty"])
def test_damaged_parquet_is_one_sentence(parquet, damage):
    path = parquet / "test.parquet"
    data = {"truncated": path.read_bytes()[:-20], "foreign": b"PAR0" * 99, "empty": b""}[damage]
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="test.parquet is not a readable parquet file"):
        load_task(str(parquet))


def test_parquet_damaged_within_its_pictures_is_one_sentence(store, parquet):
    task = load_task(str(parquet))
    path = parquet / "test.parquet"
    data = bytearray(path.read_bytes())
    data[4:400] = bytes(396)  # the pages of the image column come first
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="again"):
        load_split(task, "test", 8, store)
    assert not list(store.home.glob("pixels/*/rows.bin"))


def test_damaged_pictures_are_counted_and_named(store, folders):
    red = folders / "test/red_car"
    (red / "000.png").write_bytes(b"")
    (red / "001.png").write_bytes((red / "001.png").read_bytes()[:40])
    (red / "002.png").write_text("no picture")
    (folders / "test/BlueCar/000.png").write_bytes(b"GIF89a")
    task = load_task(str(folders))
    with pytest.raises(CheckpointError, match=r"^4 of 12 images of my_cars test .*\.\.\.\)") as e:
        load_split(task, "test", 8, store)
    assert "\n" not in str(e.value)
    assert not list(store.home.glob("pixels/*/rows.bin"))
    assert len(load_split(task, "train", 8, store).labels) == 36


def test_a_parquet_row_cannot_name_a_file_of_this_machine(store, tmp_path):
    secret = tmp_path / "secret.png"
    picture((9, 9, 9), 0).save(secret)
    cells = [{"bytes": png(picture((9, 9, 9), i)), "path": None} for i in range(10)]
    cells[3] = {"bytes": None, "path": str(secret)}
    write_parquet(tmp_path / "t/train.parquet", [0, 1] * 5, images=cells)
    with pytest.raises(CheckpointError, match=r"1 of 8 images .* \(row 3 of train\)"):
        load_split(load_task(str(tmp_path / "t")), "train", 8, store)


def test_pictures_too_large_to_unpack_are_damaged(store, folders):
    """A small file that says it is huge, and one so narrow that its fitted form would be."""
    bomb = Image.new("1", (20_000, 20_000))
    bomb.save(folders / "test/red_car/000.png")
    Image.new("L", (60_000, 1)).save(folders / "test/red_car/001.png")
    with pytest.raises(CheckpointError, match="2 of 12 images .* cannot be read"):
        load_split(load_task(str(folders)), "test", 64, store)


def test_files_that_are_no_pictures_are_passed_over(store, folders):
    (folders / "train/red_car/notes.txt").write_text("x")
    (folders / "train/red_car/._000.png").write_text("x")
    (folders / "train/__MACOSX").mkdir()
    (folders / "train/empty class").mkdir()
    assert len(load_task(str(folders)).classnames) == 3


# real pictures


@pytest.mark.parametrize(
    ("name", "classes", "counts"),
    [
        ("eurosat", 10, (3597, 399, 1502)),
        ("mnist", 10, (5400, 599, 2000)),
        ("gtsrb", 43, (4501, 500, 2004)),
        ("dtd10", 10, (720, 80, 400)),
        ("signdigits", 10, (1262, 140, 660)),
    ],
)
def test_real_tasks_load(real_data, store, name, classes, counts):
    task = load_task(str(real_data / name))
    assert task.name == name
    assert len(task.classnames) == classes
    assert tuple(describe(task)["counts"].values()) == counts
    split = load_split(task, "test", 32, store, limit=64)
    assert split.images.shape == (64, 3, 32, 32)
    assert split.images.float().std() > 5
    assert len(split.labels.unique()) > classes / 3
    json.dumps(describe(task))


def test_real_pictures_against_the_librarys_own_reading(real_data, store):
    """The same rows, decoded by the data-set library and fitted by torchvision."""
    path = real_data / "dtd10"
    split = load_split(load_task(str(path)), "test", 32, store, limit=6)
    table = datasets.Dataset.from_parquet(
        str(path / "test.parquet"), cache_dir=str(store.home / "twin"), keep_in_memory=True
    )
    twin = Compose([Resize(32, InterpolationMode.BICUBIC), CenterCrop(32)])
    for position, row in enumerate(division.order(400)[:6].tolist()):
        expected = np.asarray(twin(table[row]["image"].convert("RGB"))).transpose(2, 0, 1)
        assert np.array_equal(split.images[position].numpy(), expected)
        assert int(split.labels[position]) == table[row]["label"]
