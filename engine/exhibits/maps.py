"""The exhibit of disentanglement maps: kept ones, and those that follow from kept class scores."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from engine.disentanglement import XiMap, axis, kept_maps, linearized_map
from engine.disentanglement.maps import IMAGES
from engine.exhibits.cells import Parts
from engine.exhibits.definitions import MAP_IMAGES, pairs_of, twin
from engine.exhibits.exhibit import KEPT, NOT_RUN, Cell, Exhibit, Figure, Row, Run, Table
from engine.exhibits.standing import PRODUCT, Standing
from engine.remembering import head_digest, tau_digests
from engine.store import Entry

Pair = tuple[str, str]

REGIONS = {
    "box": "Mean xi over the box [0, 1]^2",
    "within": "Mean xi over |alpha| <= 1",
    "whole": "Mean xi over the whole grid",
}

# by content, so that a page that asks again does not wait for the same algebra
MOST_MAPS = 128
_WORKED_OUT: dict[tuple, XiMap] = {}


@dataclass(frozen=True)
class _Found:
    """A map of a pair in a reading, or what makes it."""

    title: str
    pair: Pair
    mode: str
    run: Run
    map: XiMap | None


def disentanglement(held: Standing, exhibit: Exhibit, random: Standing) -> Parts:
    """Fill Figures 3 and 10 to 14: maps of pairs, of the encoder and of its random twin.

    Args:
        held: Of the encoder.
        exhibit: What is filled.
        random: Of the randomly initialised twin; the encoder itself if it is random.

    Returns:
        A table of means of xi a region, a figure a twin, and the runs.
    """
    found = {"disentanglement": _maps(held)}
    if random.encoder != held.encoder:
        found["disentanglement-random"] = _maps(random)
    titles = {
        "disentanglement": f"{held.encoder} (Figures 3, 10, 11)",
        "disentanglement-random": f"{random.encoder} (Figure 12)",
    }
    tables = tuple(_table(name, title, exhibit, found) for name, title in REGIONS.items())
    figures = tuple(_figure(name, titles[name], items) for name, items in found.items())
    runs = tuple(item.run for items in found.values() for item in items)
    return tables, figures, runs


def _maps(held: Standing) -> list[_Found]:
    """Return the maps of the chosen pairs in the three readings, of the first seed."""
    is_random = twin(held.encoder) == held.encoder
    found = []
    for pair in pairs_of(tuple(held.tasks), is_random):
        forward = _nonlinear(held, pair)
        n = None if forward.map is None else min(forward.map.n.values())
        found += [forward, *(_linearized(held, pair, mode, n) for mode in ("posthoc", "linear"))]
    return found


def _images(held: Standing) -> int:
    """Return how many images a map is to be made of."""
    drawn = all(task.source == "miniature" for task in held.tasks.values())
    return MAP_IMAGES if drawn else IMAGES


def _call(held: Standing, pair: Pair, mode: str, images: int) -> tuple[str, ...]:
    """Return what makes a map."""
    tasks = [t.name if t.source == "miniature" else t.source for t in map(held.tasks.get, pair)]
    return (
        "disentanglement", "--encoder", held.encoder, "--tasks", *tasks, "--mode", mode,
        "--images", str(images), "--seed", str(held.seeds(mode)[0]),
    )  # fmt: skip


def _titled(held: Standing, pair: Pair) -> str:
    return " and ".join(held.tasks[name].title.lower() for name in pair)


def _nonlinear(held: Standing, pair: Pair) -> _Found:
    """Look up the non-linear map of a pair, the one of most images."""
    seed, images = held.seeds("nonlinear")[0], _images(held)
    entries = held.entries("nonlinear", seed, pair)
    words, title = _call(held, pair, "nonlinear", images), _titled(held, pair)
    if entries:
        digests = tau_digests(entries)
        same = [
            item
            for item in kept_maps(held.store, held.digest, digests)
            if item.exact and _is_the_papers(item)
        ]
        if same:
            best = max(same, key=lambda item: min(item.n.values()))
            best = best if best.tasks == pair else best.swapped()
            sources = tuple(e.digest for e in _map_entries(held, best))
            run = Run(words, f"xi, {title}, nonlinear", KEPT, 0, seed, (), sources)
            return _Found(title, pair, "nonlinear", run, best)
    before = held.training("nonlinear", seed, pair)
    # 19 non-zero settings of each axis alone, and every cell, on both tasks' images
    passes = 2 * images * (400 + 20) + held.cost_of(before)
    run = Run(words, f"xi, {title}, nonlinear", NOT_RUN, passes, seed, before)
    return _Found(title, pair, "nonlinear", run, None)


def _is_the_papers(item: XiMap) -> bool:
    """Return whether a map is on the paper's grid."""
    return item.mode == "nonlinear" and item.alphas.tolist() == axis().tolist()


def _map_entries(held: Standing, item: XiMap) -> list[Entry]:
    """Return the entry a kept map was read from."""
    found = held.store.find(
        "result", what="disentanglement", encoder_digest=held.digest, mode=item.mode, n=item.n
    )
    return [entry for entry in found if entry.meta["taus"] == item.taus][:1]


def _linearized(held: Standing, pair: Pair, mode: str, n: int | None) -> _Found:
    """Work a linearized map out of kept class scores, on as many images as the non-linear one."""
    seed, images = held.seeds(mode)[0], n or _images(held)
    title, words = _titled(held, pair), _call(held, pair, mode, images)
    name = f"xi, {title}, {mode}"
    entries = held.entries(mode, seed, pair)
    kept = {task: _scores(held, task, entries, images) for task in pair} if entries else {}
    if not kept or any(value is None for value in kept.values()):
        before = held.training(mode, seed, pair)
        passes = round(2 * images * (1 + 2 * (PRODUCT - 1))) + held.cost_of(before)
        return _Found(title, pair, mode, Run(words, name, NOT_RUN, passes, seed, before), None)
    sources = tuple(entry.digest for _, entry in kept.values())
    asked = (sources, tuple(tau_digests(entries).values()), pair, images)
    if asked not in _WORKED_OUT:
        if len(_WORKED_OUT) >= MOST_MAPS:
            _WORKED_OUT.pop(next(iter(_WORKED_OUT)))
        _WORKED_OUT[asked] = linearized_map(
            {task: scores for task, (scores, _) in kept.items()},
            pair,
            axis(),
            encoder=held.encoder,
            encoder_digest=held.digest,
            mode=mode,
            taus=tau_digests(entries),
        )
    found = _WORKED_OUT[asked]
    return _Found(title, pair, mode, Run(words, name, KEPT, 0, seed, (), sources), found)


def _scores(
    held: Standing, task: str, entries: Mapping[str, Entry], images: int
) -> tuple[Tensor, Entry] | None:
    """Return kept class scores of a task's first test images, planes theta_0 and the pair."""
    wanted = list(tau_digests(entries).values())
    head = head_digest(held.identity, held.tasks[task])
    for entry in held.scores:
        if (entry.meta["task"], entry.meta["head_digest"]) != (task, head):
            continue
        planes, enough = entry.meta["planes"], entry.meta["n"] >= images
        if enough and set(wanted) <= set(planes):
            places = [0, *(1 + planes.index(digest) for digest in wanted)]
            return held.store.get(entry)["scores"][places][:, :images], entry
    return None


def _table(region: str, title: str, exhibit: Exhibit, found: Mapping[str, list[_Found]]) -> Table:
    """Make the table of one region: a row a pair, a column a reading."""
    rows = []
    for name, items in found.items():
        whose = ", random init" if name.endswith("-random") else ""
        for pair in dict.fromkeys(item.pair for item in items):
            of_pair = [item for item in items if item.pair == pair]
            key = "+".join(pair) + ("-random" if whose else "")
            cells = {item.mode: _cell(item, region) for item in of_pair}
            head = of_pair[0].title
            rows.append(Row(key, f"{head[0].upper()}{head[1:]}{whose}", cells))
    name = exhibit.name if region == "box" else f"{exhibit.name}-{region}"
    return Table(name, title, exhibit.columns, tuple(rows))


def _cell(item: _Found, region: str) -> Cell:
    """Return the mean of a map over a region."""
    if item.map is None:
        return Cell(NOT_RUN, words=item.run.words, before=item.run.before)
    alphas = item.map.alphas
    inside = {
        "box": (alphas >= 0) & (alphas <= 1),
        "within": alphas.abs() <= 1,
        "whole": alphas.abs() <= alphas.abs().max(),
    }[region]
    seeds = () if item.run.seed is None else (item.run.seed,)
    value = float(item.map.xi[inside][:, inside].mean())
    return Cell(KEPT, value, n=min(item.map.n.values()), seeds=seeds, sources=item.run.sources)


def _figure(name: str, title: str, items: list[_Found]) -> Figure:
    """Return the maps of one encoder: a row a pair, a column a reading."""
    panels = [
        {
            "title": item.title,
            "mode": item.mode,
            "tasks": list(item.pair),
            "alphas": None if item.map is None else item.map.alphas.tolist(),
            "values": None if item.map is None else item.map.xi.tolist(),
            "n": None if item.map is None else min(item.map.n.values()),
            "words": list(item.run.words) if item.map is None else [],
        }
        for item in items
    ]
    sources = tuple(dict.fromkeys(s for item in items for s in item.run.sources))
    data = {"panels": panels, "box": [0.0, 1.0], "range": [0.0, 2.0]}
    return Figure(name, f"Disentanglement error, {title}", "maps", data, sources)
