"""Data sets of the hub: known names, their words, and the library's own cache, offline."""

import json
import re
import socket
from pathlib import Path

import datasets
import numpy as np
import open_clip
import pytest
import torch
from datasets.packaged_modules.parquet.parquet import Parquet

from engine.errors import CheckpointError, MissingDataError, UsageError
from engine.tasks import SPLITS, describe, find_known, hub, leaked, load_split, load_task, registry
from tests.test_tasks import COLOURS, NAMES, picture, png, write_parquet

FACTS = {  # the protocol's table of data sets
    "cars": ("tanganke/stanford_cars", None),
    "dtd": ("tanganke/dtd", None),
    "eurosat": ("tanganke/eurosat", None),
    "gtsrb": ("tanganke/gtsrb", None),
    "mnist": ("ylecun/mnist", None),
    "resisc45": ("tanganke/resisc45", None),
    "sun397": ("tanganke/sun397", None),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits"),
}
LAND = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop".split()
LAND += "Residential River SeaLake".split()


@pytest.fixture(autouse=True)
def library(tmp_path, monkeypatch):
    """The library's caches in a folder of the test's own; any use of the network fails."""
    home = tmp_path / "hf"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", home / "datasets")
    monkeypatch.setattr(datasets.config, "DOWNLOADED_DATASETS_PATH", home / "datasets/downloads")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home / "hub"))

    def refuse(*args, **kwargs):
        pytest.fail(f"network: {args}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    return home


def features(names, image="image", label="label"):
    kind = datasets.ClassLabel(names=names) if names else datasets.Value("int64")
    return datasets.Features({image: datasets.Image(decode=False), label: kind})


def prepare(library, tmp_path, hub_id, parts, kind, config="default"):
    """Lay a data set down as ``load_dataset`` prepares it, by the library's own builder."""
    files = {}
    for part, (labels, shade) in parts.items():
        cells = [
            {"bytes": png(picture(COLOURS[NAMES[label % 3]], shade + i % 80)), "path": None}
            for i, label in enumerate(labels)
        ]
        files[part] = str(tmp_path / "made" / f"{part}.parquet")
        write_parquet(Path(files[part]), labels, kind, cells)
    return built(library, hub_id, files, config)


def built(library, hub_id, files, config="default"):
    """Let the library's builder prepare local files as if they were those of a hub's data set."""
    datasets.disable_progress_bars()
    builder = Parquet(
        cache_dir=str(library / "datasets"), dataset_name=hub_id.split("/")[1], hash="0a1b2c",
        config_name=config, config_id=config, data_files=files,
    )  # fmt: skip
    builder.repo_id = hub_id  # which the builder grants to files of the hub alone
    builder._cache_dir = builder._build_cache_dir()
    builder.download_and_prepare()
    datasets.enable_progress_bars()
    return Path(builder.cache_dir)


def snapshot(library, hub_id, files):
    """Lay files down as a download by the hub's client does."""
    root = library / "hub" / f"datasets--{hub_id.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs/main").write_text("f" * 40)
    for name, (labels, kind) in files.items():
        cells = [{"bytes": png(picture((9, 9, 9), i)), "path": None} for i in range(len(labels))]
        write_parquet(root / "snapshots" / ("f" * 40) / name, labels, kind, cells)
    return root


# the registry


def test_the_papers_eight_have_the_ids_of_the_protocol():
    assert tuple(FACTS) == registry.EIGHT
    for name, (hub_id, config) in FACTS.items():
        assert (registry.known(name).hub, registry.known(name).config) == (hub_id, config)
    assert {path.stem for path in Path(registry.__file__).parent.glob("*.yaml")} == set(
        registry.NAMES
    )


@pytest.mark.parametrize("name", registry.NAMES)
def test_every_known_data_set_can_be_spoken(name):
    known = registry.known(name)
    given = known.given
    assert given["title"]
    assert given["description"].endswith(".")
    assert all(
        t.count("{}") == 1 and set("{}") & set(t.replace("{}", "")) == set()
        for t in given["templates"]
    )
    assert registry.of_hub(known.source).name == name
    count = len(given.get("classnames", NAMES))
    said = known.words(given.get("classnames", NAMES), count)
    assert len(said.classnames) == count


def test_imagenets_words_are_those_open_clip_publishes():
    said = registry.known("imagenet").words(None, 1000)
    assert said.classnames == tuple(open_clip.IMAGENET_CLASSNAMES)
    theirs = tuple(template("{}") for template in open_clip.OPENAI_IMAGENET_TEMPLATES)
    assert said.templates == theirs


def test_published_names_are_used_where_they_fit_the_labels():
    eurosat, mnist = registry.known("eurosat"), registry.known("mnist")
    published = tuple(eurosat.given["classnames"])
    assert eurosat.words(LAND, 10).classnames == published
    assert eurosat.words(None, 10).classnames == published
    assert eurosat.words([str(i) for i in range(10)], 10).classnames == published
    # another order, or fewer classes: the data's own names stand
    assert eurosat.words(LAND[::-1], 10).classnames == tuple(LAND[::-1])
    assert eurosat.words(LAND[:4], 4).classnames == tuple(LAND[:4])
    with pytest.raises(UsageError, match="numbers without names"):
        mnist.words(None, 7)
    svhn = registry.known("svhn").words([str(i) for i in range(10)], 10)
    assert svhn.classnames[:3] == ("zero", "one", "two")


@pytest.mark.parametrize(
    ("name", "count", "ends"),
    [
        ("cars", 196, ("AM General Hummer SUV 2000", "smart fortwo Convertible 2012")),
        ("dtd", 47, ("banded", "zigzagged")),
        ("resisc45", 45, ("airplane", "wetland")),
        ("sun397", 397, ("abbey", "youth hostel")),
        ("cifar10", 10, ("airplane", "truck")),
        ("cifar100", 100, ("apple", "worm")),
        ("stl10", 10, ("airplane", "truck")),
        ("food101", 101, ("apple pie", "waffles")),
    ],
)
def test_class_names_stand_in_the_order_of_the_labels_or_aside(name, count, ends):
    known = registry.known(name)
    names = tuple(known.given["classnames"])
    assert len(set(names)) == count
    assert (names[0], names[-1]) == ends
    labels = [word.replace(" ", "_") for word in names]
    assert known.words(labels, count).classnames == names
    # two labels changed places: most still fit, but the names are not those of the pictures
    labels[1], labels[2] = labels[2], labels[1]
    assert known.words(labels, count).classnames[:3] == (names[0], names[2], names[1])


def test_labels_of_the_hub_become_words():
    said = registry.known("sun397").words(["/a/abbey", "/a/airplane_cabin", "McLaren MP4"], 3)
    assert said.classnames == ("abbey", "airplane cabin", "McLaren MP4")
    same = registry.known("cars").words(["a_b", "a b"], 2)
    assert same.classnames == ("a_b", "a b")


# what the library has prepared


@pytest.fixture
def eurosat(library, tmp_path):
    parts = {
        "train": (list(range(10)) * 4, 0),
        "test": (list(range(10)) * 2, 100),
        "contrast": ([0, 1], 50),
    }
    return prepare(library, tmp_path, "tanganke/eurosat", parts, features(LAND))


@pytest.mark.parametrize("asked", ["eurosat", "hub:tanganke/eurosat"])
def test_a_prepared_data_set_is_a_task_by_name_and_by_id(eurosat, store, asked):
    task = load_task(asked)
    assert (task.name, task.source) == ("eurosat", "hub:tanganke/eurosat")
    assert task.classnames[-1] == "lake or sea"
    assert load_task(task.source) == task
    assert describe(task)["counts"] == {"train": 36, "validation": 4, "test": 20}
    splits = {name: load_split(task, name, 8, store) for name in SPLITS}
    assert [len(split.labels) for split in splits.values()] == [36, 4, 20]
    assert len({split.digest for split in splits.values()}) == 3
    json.dumps(describe(task))


def test_pictures_are_those_the_library_itself_reads(eurosat, store, library, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    table = datasets.load_dataset(
        "tanganke/eurosat", split="test", cache_dir=str(library / "datasets")
    )
    split = load_split(load_task("eurosat"), "test", 10, store)
    from engine.tasks import division, pixels

    for place, row in enumerate(division.order(20).tolist()):
        expected = pixels.fit(table.cast_column("image", datasets.Image())[row]["image"], 10)
        assert np.array_equal(split.images[place].numpy(), expected)
        assert int(split.labels[place]) == table[row]["label"]


def test_a_data_set_that_is_not_here_says_what_to_run(library):
    for name in ("eurosat", "hub:tanganke/eurosat"):
        with pytest.raises(MissingDataError, match=r"run `python -m engine fetch eurosat`") as e:
            load_task(name)
        assert str(library) in str(e.value)
        assert "\n" not in str(e.value)
    with pytest.raises(MissingDataError, match="fetch hub:someone/birds`"):
        load_task("hub:someone/birds")
    assert not hub.is_here(registry.known("eurosat"))


def test_fetching_without_a_network_is_one_sentence(monkeypatch):
    def offline(*args):
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(MissingDataError, match=r"could not be fetched \(no route to host\)"):
        hub.fetch(registry.known("mnist"))


def test_a_leak_is_warned_of_and_counted(library, tmp_path, store, caplog):
    parts = {"train": ([0, 1, 2] * 5, 0), "test": ([0, 1, 2], 0)}  # the first three of train
    prepare(library, tmp_path, "tanganke/dtd", parts, features(NAMES))
    from engine import tasks

    tasks._warn.cache_clear()
    task = load_task("dtd")
    load_task("dtd")
    assert [record.getMessage() for record in caplog.records] == [f"dtd: {task.warning}"]
    assert "leak" in describe(task)["warning"]
    assert leaked(task) == 3
    assert leaked(load_task("handwriting")) == 0


def test_no_leak_is_counted_where_there_is_none(eurosat):
    assert leaked(load_task("eurosat")) == 0


def test_other_columns_and_parts(library, tmp_path, store):
    parts = {"train": ([0, 1, 2] * 5, 0), "validation": ([2, 1], 60)}
    prepare(library, tmp_path, "ethz/food101", parts, features(NAMES))
    task = load_task("food101")
    assert describe(task)["counts"] == {"train": 14, "validation": 1, "test": 2}
    assert load_split(task, "test", 8, store).rule.startswith("the test part as given")
    made = prepare(
        library, tmp_path, "uoft-cs/cifar100", {"train": ([0, 1, 2] * 5, 0), "test": ([0, 1], 30)},
        features(NAMES, "img", "fine_label"),
    )  # fmt: skip
    assert made.parts[-4] == "uoft-cs___cifar100"
    assert load_split(load_task("cifar100"), "test", 8, store).images.shape == (2, 3, 8, 8)


def test_configurations_are_told_apart(library, tmp_path):
    for config, count in (("full_numbers", 2), ("cropped_digits", 5)):
        parts = {"train": ([0, 1, 2] * count, 0), "test": ([0, 1, 2], 30)}
        prepare(library, tmp_path, "ufldl-stanford/svhn", parts, features(NAMES), config)
    assert describe(load_task("svhn"))["counts"]["train"] == 14
    assert load_task("hub:ufldl-stanford/svhn").name == "svhn"
    other = load_task("hub:ufldl-stanford/svhn:full_numbers")
    assert describe(other)["counts"]["train"] == 6
    parts = {"train": ([0, 1, 2], 0)}
    for config in ("one", "two"):
        prepare(library, tmp_path, "me/both", parts, features(NAMES), config)
    with pytest.raises(
        UsageError, match="in the configurations one, two; name one, as hub:me/both"
    ):
        load_task("hub:me/both")


def test_a_damaged_copy_is_one_sentence(eurosat):
    (shard,) = eurosat.glob("*-test.arrow")
    shard.write_bytes(shard.read_bytes()[:200])
    with pytest.raises(CheckpointError, match="is damaged .*delete it and run .* fetch eurosat"):
        load_task("eurosat")


def test_a_row_may_name_a_file_of_the_library_and_no_other(library, tmp_path, store):
    secret = tmp_path / "secret.png"
    picture((9, 9, 9), 0).save(secret)
    mine = library / "datasets/downloads/extracted/a.png"
    mine.parent.mkdir(parents=True)
    picture((200, 9, 9), 0).save(mine)
    for path, allowed in ((mine, True), (secret, False)):
        cells = [{"bytes": None, "path": str(path)}] * 10
        source = tmp_path / "made/train.parquet"
        write_parquet(source, [0, 1] * 5, features(["a", "b"]), cells)
        name = f"me/{path.stem}"
        built(library, name, {"train": str(source)})
        task = load_task(f"hub:{name}")
        if allowed:
            assert load_split(task, "train", 4, store).images.float().mean() > 9
        else:
            with pytest.raises(CheckpointError, match="8 of 8 images"):
                load_split(task, "train", 4, store)


# what was downloaded


def test_downloaded_parquet_files_are_read_as_they_are(library, store):
    kind = features([str(i) for i in range(10)])
    snapshot(library, "ylecun/mnist", {
        "mnist/train-00000-of-00001.parquet": (list(range(10)) * 3, kind),
        "mnist/test-00000-of-00001.parquet": (list(range(10)), kind),
    })  # fmt: skip
    task = load_task("mnist")
    assert describe(task)["counts"] == {"train": 27, "validation": 3, "test": 10}
    assert load_split(task, "train", 8, store).images.shape == (27, 3, 8, 8)


def test_downloaded_parts_may_have_other_names(library, store):
    kind = features(NAMES)
    snapshot(library, "ILSVRC/imagenet-1k", {
        "data/train-0.parquet": ([0, 1, 2] * 5, kind),
        "data/validation-0.parquet": ([0, 1], kind),
        "data/test-0.parquet": ([-1, -1], kind),
    })  # fmt: skip
    task = load_task("imagenet")
    assert describe(task)["counts"] == {"train": 14, "validation": 1, "test": 2}


def test_half_a_download_is_not_here(library):
    snapshot(library, "tanganke/sun397", {"data/test-0.parquet": ([0, 1], features(NAMES))})
    with pytest.raises(MissingDataError, match="fetch sun397"):
        load_task("sun397")


# a user's own hub id


def test_a_task_file_names_columns_parts_and_words(library, tmp_path, store):
    parts = {"train": ([0, 1, 2] * 5, 0), "holdout": ([0, 1], 60)}
    prepare(library, tmp_path, "me/toys", parts, features(None, "img", "kind"))
    path = tmp_path / "toy cars.yaml"
    text = (
        "hub: me/toys\ntitle: Toys\ncolumns: {image: img, label: kind}\n"
        "parts: {train: train, test: holdout}\nclassnames: [blue, green, red]\n"
        "templates: ['a toy: {}']\nwarning: small\n"
    )
    path.write_text(text)
    task = load_task(str(path))
    assert (task.name, task.title, task.warning) == ("toy_cars", "Toys", "small")
    assert (task.classnames, task.templates) == (("blue", "green", "red"), ("a toy: {}",))
    assert task.source == str(path)
    assert load_task(task.source) == task
    assert len(load_split(task, "test", 8, store).labels) == 2
    path.write_text(text.replace("holdout", "test"))
    with pytest.raises(UsageError, match="has the parts train, holdout and not test; name them"):
        load_task(str(path))


def test_a_bare_id_speaks_by_its_labels(library, tmp_path):
    parts = {"train": ([0, 1, 2] * 5, 0), "test": ([0], 9)}
    prepare(library, tmp_path, "me/my-cars", parts, features(NAMES))
    task = load_task("hub:me/my-cars")
    assert (task.name, task.classnames[1]) == ("my-cars", "green car")
    prepare(library, tmp_path, "me/numbers", parts, features(None))
    with pytest.raises(UsageError, match="numbers without names"):
        load_task("hub:me/numbers")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: x", "hub must be the id of a data set as owner/name, got None"),
        ("hub: ../../etc", "hub must be the id"),
        ("hub: a/..", "hub must be the id"),
        ("hub: a/b\nconfig: [x]", "config must be a name"),
        ("hub: a/b\nconfig: ../x", "config must be a name"),
        ("hub: a/b\ncolumns: {picture: x}", "columns must map image, label to names"),
        ("hub: a/b\nparts: {test: x}", "parts must say which part is train"),
        ("hub: a/b\nparts: {train: ../x}", "parts must map train, validation, test to names"),
        ("hub: a/b\nwarning: 3", "warning must be text"),
        ("hub: a/b\nurl: x", r"unknown keys \(url\)"),
    ],
)
def test_bad_task_files_are_one_plain_sentence(tmp_path, text, said):
    path = tmp_path / "t.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said) as e:
        load_task(str(path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("reference", ["hub:", "hub:a", "hub:a/b/c", "hub:../b", "hub:a/b:../c"])
def test_bad_ids_are_refused(reference):
    with pytest.raises(UsageError, match="names no data set of the hub; write hub:owner/name"):
        load_task(reference)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    for colour in NAMES:
        (tmp_path / "mnist" / colour).mkdir(parents=True)
        for shade in range(5):
            picture(COLOURS[colour], shade).save(tmp_path / "mnist" / colour / f"{shade}.png")
    monkeypatch.chdir(tmp_path)
    assert find_known("mnist") is None
    assert load_task("mnist").source == str(tmp_path / "mnist")
    assert re.search(
        "hub's data sets: cars, dtd", str(pytest.raises(UsageError, load_task, "x").value)
    )


def test_changed_preparations_are_decoded_again(library, tmp_path, store):
    first = {"train": ([0, 1, 2] * 5, 0), "test": ([0, 1, 2], 30)}
    made = prepare(library, tmp_path, "me/toys", first, features(NAMES))
    before = load_split(load_task("hub:me/toys"), "test", 8, store)
    import shutil

    shutil.rmtree(made)
    later = {"train": ([0, 1, 2] * 5, 0), "test": ([0, 1, 2], 70)}
    prepare(library, tmp_path, "me/toys", later, features(NAMES))
    after = load_split(load_task("hub:me/toys"), "test", 8, store)
    assert not torch.equal(before.images, after.images)
    assert before.digest != after.digest
