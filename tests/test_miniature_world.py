"""The miniature world: the same bytes always, fair labels, disjoint splits, nothing hidden."""

import ast
import hashlib
import math
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.tasks import miniature
from engine.tasks.miniature import (
    bank,
    canvas,
    captions,
    draws,
    elementary,
    fields,
    ground,
    palette,
)

FAMILIES = miniature.family_names()
FOLDER = Path(miniature.__file__).parent


def digest(images: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest()[:16]


def paint(name: str, strength: float, count: int, split: str = "test"):
    return miniature.paintings(name, split, range(count), 0, strength)


# ------------------------------------------------------------------ the contract


def test_the_eight_tasks_and_the_control_come_in_order():
    assert FAMILIES == (
        "handwriting", "housenumbers", "letters", "signs", "textures", "landuse", "sites",
        "vehicles", "objects",
    )  # fmt: skip
    assert set(miniature.SHIFT_STRENGTH) == set(FAMILIES)
    assert miniature.SIZES == {"train": 5000, "test": 1000}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_describes_itself(name):
    family = miniature.family(name)
    assert 8 <= len(family.classnames) <= 20
    assert len(set(family.classnames)) == len(family.classnames)
    assert 3 <= len(family.templates) <= 5
    assert all(template.count("{}") == 1 for template in family.templates)
    assert family.title
    assert family.description.endswith(".")
    assert family.shift.endswith(".")


def test_only_the_two_digit_families_share_class_names_and_no_template_is_shared():
    owners: dict[str, list[str]] = {}
    for name, label in miniature.class_list():
        owners.setdefault(label.lower(), []).append(name)
    shared = {tuple(names) for names in owners.values() if len(names) > 1}
    assert shared == {("handwriting", "housenumbers")}
    templates = [t for name in FAMILIES for t in miniature.family(name).templates]
    assert len(set(templates)) == len(templates)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("shifted", [False, True])
def test_render_gives_bytes_and_labels(name, shifted):
    images, labels = miniature.render(name, "train", torch.arange(20), shifted=shifted)
    assert images.shape == (20, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert labels.dtype == torch.int64
    assert int(labels.max()) < len(miniature.family(name).classnames)


def test_no_indices_give_no_images():
    images, labels = miniature.render("signs", "test", range(0))
    assert images.shape == (0, 3, 32, 32)
    assert labels.shape == (0,)
    images, sentences = miniature.captioned(range(0))
    assert images.shape == (0, 3, 32, 32)
    assert sentences == []


def test_wrong_names_and_indices_are_refused():
    with pytest.raises(ValueError, match="No family 'cars'.*handwriting"):
        miniature.render("cars", "test", range(3))
    with pytest.raises(ValueError, match="No split 'validation'.*train"):
        miniature.render("signs", "validation", range(3))
    with pytest.raises(ValueError, match="received -1"):
        miniature.render("signs", "test", [-1, 2])


# ------------------------------------------------------------------ determinism

GOLDEN = {
    "handwriting": ("35ca9e2b86df4de8", "3af9173a038f2085"),
    "housenumbers": ("7ee36dab2d03e77b", "ab83d120702d692e"),
    "letters": ("589d23e708043a7a", "9f849660ff83408e"),
    "signs": ("edfaf4485da4db33", "2c68d8822700309b"),
    "textures": ("b747f6994bb56e71", "3e28aeb6cd9c967a"),
    "landuse": ("dc6e0b281570a1f5", "fb51575bee9c7dff"),
    "sites": ("4894b1e4e4aa6ad4", "24a5acdd7d477dd6"),
    "vehicles": ("a006bacef529f772", "13281d8f7ac7ee81"),
    "objects": ("02d4039fdc056ab4", "0af6ddffe80ccb5d"),
}  # fmt: skip
GOLDEN_CAPTIONED = ("36c2901ccde74aae", "2f38b1f3f5d6ba51")


@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_are_the_stored_bytes(name):
    """The broad style and the full shift, whatever `SHIFT_STRENGTH` is calibrated to."""
    broad, _ = paint(name, 0.0, 12)
    shifted, _ = paint(name, 1.0, 12)
    assert (digest(broad.images), digest(shifted.images)) == GOLDEN[name]


def test_captioned_pictures_are_the_stored_bytes():
    images, sentences = miniature.captioned(range(64))
    said = hashlib.sha256("\n".join(sentences).encode()).hexdigest()[:16]
    assert (digest(images.numpy()), said) == GOLDEN_CAPTIONED


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("strength", [0.0, 0.6, 1.0])
def test_batching_changes_nothing(name, strength):
    whole, labels = paint(name, strength, 150)
    order = np.random.default_rng(0).permutation(150)
    mixed, mixed_labels = miniature.paintings(name, "test", order, 0, strength)
    np.testing.assert_array_equal(mixed.images, whole.images[order])
    np.testing.assert_array_equal(mixed_labels, labels[order])
    for i in (0, 63, 64, 149):
        alone, _ = miniature.paintings(name, "test", [i], 0, strength)
        np.testing.assert_array_equal(alone.images[0], whole.images[i])


def test_captions_do_not_depend_on_the_batch():
    images, sentences, ids = miniature.captioned_with_labels(range(200))
    some = [7, 199, 64, 0]
    few_images, few_sentences, few_ids = miniature.captioned_with_labels(some)
    torch.testing.assert_close(few_images, images[some], rtol=0, atol=0)
    torch.testing.assert_close(few_ids, ids[some], rtol=0, atol=0)
    assert few_sentences == [sentences[i] for i in some]


def test_another_seed_is_another_world():
    first, _ = miniature.render("sites", "test", range(30), seed=0)
    second, _ = miniature.render("sites", "test", range(30), seed=1)
    assert (first != second).flatten(1).any(1).all()


def test_only_correctly_rounded_operations_make_pictures():
    """Library sines, exponentials and sums may differ between processors in the last bit."""
    banned = {
        "sin", "cos", "tan", "exp", "log", "power", "hypot", "arctan2", "tanh", "sum", "mean",
        "dot", "matmul", "einsum", "linalg", "random", "var", "std", "cumsum", "prod",
    }  # fmt: skip
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                allowed = node.value.id not in {"np", "math", "torch"} or node.attr not in banned
                assert allowed, f"{path.name}:{node.lineno} uses {node.value.id}.{node.attr}"
            if isinstance(node, ast.ImportFrom):
                known = node.level == 1 or node.module.split(".")[0] != "engine"
                assert known, f"{path.name}:{node.lineno} imports another engine module"


# ------------------------------------------------------------------ splits and labels


@pytest.mark.parametrize("name", FAMILIES)
def test_no_picture_occurs_twice(name):
    seen = set()
    for split, count in (("train", 600), ("test", 200)):
        images, _ = miniature.render(name, split, range(count))
        seen |= {image.tobytes() for image in images.numpy()}
    assert len(seen) == 800


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_no_picture_occurs_twice_in_the_whole_task(name):
    seen = set()
    for split, count in miniature.SIZES.items():
        images, _ = miniature.render(name, split, range(count))
        seen |= {image.tobytes() for image in images.numpy()}
    assert len(seen) == sum(miniature.SIZES.values())


@pytest.mark.parametrize("count", [8, 15, 20])
def test_labels_are_dealt_in_rounds(count):
    labels = draws.balanced_labels(np.arange(50 * count), count, "a world")
    rounds = labels.reshape(50, count)
    np.testing.assert_array_equal(np.sort(rounds, axis=1), np.tile(np.arange(count), (50, 1)))
    assert len({tuple(one) for one in rounds}) > 45  # the order differs from round to round


@pytest.mark.parametrize("name", FAMILIES)
def test_splits_are_balanced(name):
    count = len(miniature.family(name).classnames)
    for split, size in miniature.SIZES.items():
        labels = draws.balanced_labels(np.arange(size), count, name, split, 0)
        tally = np.bincount(labels, minlength=count)
        assert tally.max() - tally.min() <= 1


def test_pretraining_sees_every_class_equally_often():
    classes = miniature.class_list()
    _, _, ids = miniature.captioned_with_labels(range(2 * len(classes)))
    assert torch.bincount(ids, minlength=len(classes)).tolist() == [2] * len(classes)


# ------------------------------------------------------------------ the shift


@pytest.mark.parametrize("name", FAMILIES)
def test_strength_zero_is_the_broad_style(name, monkeypatch):
    broad, labels = miniature.render(name, "test", range(70), shifted=False)
    shifted, _ = miniature.render(name, "test", range(70))
    assert (broad != shifted).flatten(1).any(1).float().mean() > 0.9
    monkeypatch.setitem(miniature.SHIFT_STRENGTH, name, 0.0)
    unshifted, same = miniature.render(name, "test", range(70), shifted=True)
    torch.testing.assert_close(unshifted, broad, rtol=0, atol=0)
    torch.testing.assert_close(same, labels, rtol=0, atol=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_shift_grows_with_its_strength(name):
    broad = paint(name, 0.0, 200)[0].images.astype(np.float64)
    far = [np.abs(paint(name, s, 200)[0].images - broad).mean() for s in (0.0, 0.2, 0.6, 1.0)]
    assert far[0] == 0
    assert all(nearer < further for nearer, further in pairwise(far))


# least difference of figure and ground in the strongest channel, of 255, for the palest picture
LEAST_CONTRAST = {
    "handwriting": 40, "housenumbers": 40, "letters": 40, "textures": 15, "landuse": 15,
    "sites": 15, "vehicles": 40, "objects": 30,
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LEAST_CONTRAST))
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_the_figure_stands_out_and_is_large_enough(name, strength):
    painting, _ = paint(name, strength, 400)
    pixels = painting.images.reshape(400, 3, -1).astype(np.float64)
    for picture, mask in zip(pixels, painting.mask, strict=True):
        inside, outside = mask > 0.9, mask < 0.02
        assert (mask > 0.5).sum() >= 35
        gap = np.abs(picture[:, inside].mean(axis=1) - picture[:, outside].mean(axis=1)).max()
        assert gap >= LEAST_CONTRAST[name]


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_signs_are_large_and_stand_out_within(strength):
    painting, _ = paint("signs", strength, 400)
    for picture, mask in zip(painting.images.reshape(400, 3, -1), painting.mask, strict=True):
        inside = picture[:, mask > 0.95].astype(np.float64)
        assert inside.shape[1] >= 100
        assert inside.std(axis=1).max() >= 15


# ------------------------------------------------------------------ captions


@pytest.fixture(scope="module")
def pretraining():
    return miniature.captioned_with_labels(range(1200))


def test_captions_name_their_class(pretraining):
    _, sentences, ids = pretraining
    classes = miniature.class_list()
    for sentence, label in zip(sentences, ids.tolist(), strict=True):
        assert re.search(rf"\b{re.escape(classes[label][1])}\b", sentence), sentence
        assert "{" not in sentence
        assert "  " not in sentence


def test_captions_vary_and_mention_traits_in_a_part(pretraining):
    _, sentences, _ = pretraining
    assert len(set(sentences)) > 700
    for word in (
        "small",
        "large",
        "background",
        "on the left",
        "at the top",
        "bright",
        "from nearby",
    ):
        share = sum(word in sentence for sentence in sentences) / len(sentences)
        assert 0.005 < share < 0.6, word


def test_places_and_sizes_in_captions_are_true():
    painting, labels = paint("objects", 0.0, 400)
    family = miniature.family("objects")
    keys = draws.image_keys(np.arange(400), "objects", "test", 0)
    sentences = captions.write_captions(family, painting, labels, draws.Draws(keys))
    sides = {
        "on the left": (0, -1),
        "on the right": (0, 1),
        "at the top": (1, -1),
        "at the bottom": (1, 1),
    }
    ticks = (np.arange(32) + 0.5) / 16 - 1
    found = {side: 0 for side in sides}
    areas: dict[str, list[float]] = {"small": [], "large": []}
    for sentence, mask in zip(sentences, painting.mask.reshape(-1, 32, 32), strict=True):
        centre = [(mask.sum(axis=axis) * ticks).sum() / mask.sum() for axis in (0, 1)]
        for side, (axis, sign) in sides.items():
            if sentence.endswith(side):
                found[side] += 1
                assert centre[axis] * sign > -0.12, sentence
        for size, list_of in areas.items():
            if f" {size} " in sentence:
                list_of.append(mask.sum())
    assert min(found.values()) >= 3
    assert np.mean(areas["large"]) > 1.5 * np.mean(areas["small"])


def test_colours_in_captions_are_true():
    painting, _ = paint("handwriting", 0.0, 300)
    pixels = painting.images.reshape(300, 3, -1) / 255.0
    for i in range(300):
        said = captions.words(painting, i)
        ink = pixels[i][:, painting.mask[i] > 0.99].mean(axis=1)
        nominal = palette.COLOURS[palette.NAMES.index(said["colour"])]
        assert np.abs(ink - nominal).max() < 0.36, said
        if said["kind"] == "plain":
            back = pixels[i][:, painting.mask[i] < 0.01].mean(axis=1)
            nominal = palette.COLOURS[palette.NAMES.index(said["ground"])]
            assert np.abs(back - nominal).max() < 0.36, said


def test_articles_are_mended():
    assert captions.fill("a {size} {}", "umbrella", {"size": ""}) == "an umbrella"
    assert captions.fill("a {size} {}", "umbrella", {"size": "large"}) == "a large umbrella"
    assert captions.fill("a {colour} {}", "key", {"colour": "orange"}) == "an orange key"
    assert captions.fill("a letter {}", "A", {}) == "a letter A"


# ------------------------------------------------------------------ the tools, against slow twins


def test_splitmix_gives_its_published_first_word():
    """SplitMix64 seeded with 0 starts with this word."""
    assert int(draws.mix(np.array([draws.GOLDEN]))[0]) == 0xE220A8397B1DCDAF


def test_draws_are_uniform_and_independent_of_their_order():
    numbers = draws.Draws(draws.image_keys(np.arange(20000), "test"))
    first, second = numbers.uniform("first"), numbers.uniform("second")
    np.testing.assert_array_equal(numbers.uniform("first"), first)
    tally = np.bincount((first * 10).astype(int), minlength=10)
    assert ((tally - 2000) ** 2 / 2000).sum() < 27.9  # chi-square, 9 degrees, one in a thousand
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.03
    assert np.bincount(numbers.integer("which", 7), minlength=7).min() > 2600
    assert not numbers.chance("never", 0.0).any()
    assert numbers.chance("always", 1.0).all()


def test_sines_without_a_library():
    for turn in np.linspace(-2.3, 2.3, 400):
        assert abs(elementary.sin_turns(turn) - math.sin(2 * math.pi * turn)) < 0.002
        assert abs(elementary.cos_turns(turn) - math.cos(2 * math.pi * turn)) < 0.002


@pytest.mark.parametrize("wraps", [False, True])
def test_sampling_equals_a_slow_bilinear_lookup(wraps):
    rng = np.random.default_rng(0)
    grids = rng.random((3, 8, 8)).astype(np.float32)
    table = bank.stack([[grid, -grid] for grid in grids], 1.0, wraps=wraps)
    which = np.array([2, 0])
    u = rng.uniform(-1.6, 1.6, (2, 40)).astype(np.float32)
    v = rng.uniform(-1.6, 1.6, (2, 40)).astype(np.float32)
    values, negative = table.sample(which, u, v)
    np.testing.assert_array_equal(negative, -values)
    for n in range(2):
        for p in range(40):
            x, y = (u[n, p] + 1) * 4 - 0.5, (v[n, p] + 1) * 4 - 0.5
            if not wraps:
                x, y = min(max(x, 0), 7), min(max(y, 0), 7)
            i, j = math.floor(y), math.floor(x)
            total = 0.0
            for di in (0, 1):
                for dj in (0, 1):
                    a, b = (
                        ((i + di) % 8, (j + dj) % 8) if wraps else (min(i + di, 7), min(j + dj, 7))
                    )
                    weight = (1 - abs(y - i - di)) * (1 - abs(x - j - dj))
                    total += weight * grids[which[n], a, b]
            assert abs(total - values[n, p]) < 2e-3  # the border is clipped at size - 1.001


def test_distances_equal_brute_force():
    """Distance to a densely sampled outline; the sign from a known inside."""
    plane = fields.Plane(24, 1.2)
    corners = [(-0.7, -0.6), (0.8, -0.4), (0.1, 0.0), (0.5, 0.8), (-0.6, 0.5)]
    loop = [*corners, corners[0]]
    outline = np.array([
        [p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1])]
        for p, q in pairwise(loop)
        for t in np.linspace(0, 1, 400)
    ])
    slow = np.sqrt(
        ((plane.x[..., None] - outline[:, 0]) ** 2 + (plane.y[..., None] - outline[:, 1]) ** 2).min(
            -1
        )
    )
    field = plane.polygon(corners)
    np.testing.assert_allclose(np.abs(field), slow, atol=3e-3)
    assert field[12, 7] < 0 < field[0, 0]
    assert plane.polygon(corners)[12, 18] > 0  # in the notch
    box = plane.box(0.1, -0.2, 0.5, 0.3)
    rectangle = plane.polygon([(-0.4, -0.5), (0.6, -0.5), (0.6, 0.1), (-0.4, 0.1)])
    np.testing.assert_allclose(box, rectangle, atol=1e-5)
    np.testing.assert_allclose(plane.ellipse(0, 0, 0.5, 0.5), plane.circle(0, 0, 0.5), atol=1e-5)


def test_curves_pass_through_their_points():
    points = [(0.0, 0.0), (1.0, 0.5), (0.5, 1.0), (-0.5, 0.2)]
    line = fields.curve(points, closed=True, pieces=5)
    assert [line[5 * i] for i in range(5)] == [*points, points[0]]


def test_blur_equals_a_loop():
    rng = np.random.default_rng(0)
    picture = rng.random((2, 3, 32, 32)).astype(np.float32)
    share = np.array([1.0, 0.3], dtype=np.float32)
    fast = canvas._smear(picture, share, 3, (0.2, 0.2))
    for x in range(32):
        columns = [min(max(x + d, 0), 31) for d in (-2, -1, 0, 1, 2)]
        mean = picture[..., columns].mean(axis=-1)
        slow = picture[..., x] + share[:, None, None] * (mean - picture[..., x])
        np.testing.assert_allclose(fast[..., x], slow, atol=1e-6)


def test_grounds_are_kept_apart_from_figures():
    numbers = draws.Draws(draws.image_keys(np.arange(5000), "apart"))
    ink, colours = palette.pick(numbers, "ink")
    made = ground.broad_ground(numbers, ink, colours)
    level = palette.luminance(colours)
    sides = []
    for tone in (made.first, made.second, 0.5 * (made.first + made.second)):
        gap = palette.luminance(tone) - level
        assert np.abs(gap).min() > palette.CONTRAST - 1e-3
        sides.append(gap > 0)
    np.testing.assert_array_equal(sides[0], sides[1])
    np.testing.assert_array_equal(sides[0], sides[2])


def test_a_pose_maps_pixels_into_the_template():
    pose = canvas.broad_pose(draws.Draws(draws.image_keys(np.arange(3), "pose")))
    u, v = canvas.place(pose)
    i = 1
    angle = 2 * math.pi * float(pose.rotation[i])
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    root = math.sqrt(pose.aspect[i])
    for pixel in (0, 17, 500, 1023):
        at = np.array([
            (pixel % 32 + 0.5) / 16 - 1 - pose.x[i],
            (pixel // 32 + 0.5) / 16 - 1 - pose.y[i],
        ])
        x, y = turn @ at
        x, y = x / (pose.scale[i] * root), y / (pose.scale[i] / root)
        x += pose.slant[i] * y
        x += pose.wave[i] * math.sin(2 * math.pi * (0.5 * y + pose.phase[i]))
        assert abs(u[i, pixel] - x) < 0.01  # the sine's own error
        assert abs(v[i, pixel] - y) < 0.01
