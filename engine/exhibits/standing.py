"""What the store holds of an encoder on some tasks: checkpoints, seeds, answers of the verbs."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.evaluate import ALPHAS, FARTHER, KEEP
from engine.exhibits.exhibit import KEPT, NOT_RUN, Run, Words
from engine.exhibits.keys import addition_key, negation_key
from engine.finetune import recipe_for
from engine.merging import METHODS
from engine.remembering import CONTENT, PROBE
from engine.store import Entry, Store
from engine.tasks import TASKS, Split, Task, describe, load_split, load_task, miniature

TRAINED = {"nonlinear": "nonlinear", "posthoc": "nonlinear", "linear": "linear"}
EACH = "each"  # stands where a merging method would
CLOSED = "timm/"  # names of encoders without a text tower, whose heads are trained
HEAD = "head"  # what a trained head is kept as
PRODUCT = 2.4  # forward passes that a Jacobian-vector product costs, measured for ViT-B/32
TRAINING = {"nonlinear": 3.0, "linear": 3 * PRODUCT}  # passes an image of a training step


@dataclass(frozen=True)
class Identity:
    """An encoder by its digests alone, which is all that keys depend on."""

    name: str
    digest: str
    store: Store

    def head_mark(self, task: Task) -> list[str]:
        """Give what a task's head depends on beside this digest, as ``Encoder.head_mark``."""
        head = trained_head(self.store, self.digest, task)
        return [] if head is None else [head.digest]


def trained_head(store: Store, digest: str, task: Task) -> Entry | None:
    """Return the newest trained head of a task; encoders with a text tower have none."""
    about = {"encoder_digest": digest, "task": task.name, "task_source": task.source}
    return next(iter(store.find("result", what=HEAD, **about)), None)


@dataclass(frozen=True)
class Standing:
    """An encoder, some tasks and a control, as far as the store knows them.

    Attributes:
        store: Only read.
        encoder: The encoder's name.
        digest: Of the encoder, by its newest checkpoint; "" without any.
        tasks: By name, in order.
        named: Whether they are to be named on the command line.
        control: What negation keeps.
        asked: Seeds asked for; None for all that are there.
    """

    store: Store
    encoder: str
    digest: str
    tasks: Mapping[str, Task]
    named: bool
    control: Task
    asked: tuple[int, ...] | None = None

    @property
    def identity(self) -> Identity:
        """The encoder, for keys."""
        return Identity(self.encoder, self.digest, self.store)

    # looked up once: a store reads its folder anew each time
    @functools.cached_property
    def checkpoints(self) -> list[Entry]:
        """The encoder's checkpoints, newest first."""
        return self.store.find("checkpoint", encoder_digest=self.digest) if self.digest else []

    @functools.cached_property
    def scores(self) -> list[Entry]:
        """Kept class scores of test images, newest first."""
        asked = {"content": CONTENT, "encoder_digest": self.digest, "split": "test"}
        return self.store.find("responses", **asked)

    @functools.cached_property
    def answers(self) -> dict[tuple[str, str], Entry]:
        """Kept answers of the verbs by what they are and their key, the newest of each."""
        found: dict[tuple[str, str], Entry] = {}
        for entry in self.store.find("result"):
            found.setdefault((entry.meta.get("what"), entry.meta.get("key")), entry)
        return found

    def entry(self, task: str, trained: str, seed: int) -> Entry | None:
        """Return the newest task vector of a task that was trained with a seed."""
        about = {
            "task": task, "task_source": self.tasks[task].source, "mode": trained, "seed": seed,
        }  # fmt: skip
        return next(
            (e for e in self.checkpoints if all(e.meta.get(k) == v for k, v in about.items())),
            None,
        )

    def entries(
        self, mode: str, seed: int, tasks: Sequence[str] | None = None
    ) -> dict[str, Entry] | None:
        """Return the checkpoints of a reading by task; None unless all are there."""
        names = self.tasks if tasks is None else tasks
        found = {name: self.entry(name, TRAINED[mode], seed) for name in names}
        whole = {name: entry for name, entry in found.items() if entry is not None}
        return whole if len(whole) == len(found) else None

    def seeds(self, mode: str) -> tuple[int, ...]:
        """Return the seeds to speak of: those asked for, else those of all tasks, else 0."""
        if self.asked is not None:
            return self.asked
        there = [entry for entry in self.checkpoints if entry.meta["mode"] == TRAINED[mode]]
        seeds = sorted({entry.meta["seed"] for entry in there if _is_seed(entry)})
        return tuple(seed for seed in seeds if self.entries(mode, seed)) or (0,)

    def training(
        self, mode: str, seed: int, tasks: Sequence[str] | None = None
    ) -> tuple[Words, ...]:
        """Return the heads and fine-tunes that a reading lacks, one call a task."""
        trained = TRAINED[mode]
        names = tuple(self.tasks if tasks is None else tasks)
        heads: tuple[Words, ...] = ()
        if self.encoder.startswith(CLOSED):
            heads = tuple(
                ("heads", "--encoder", self.encoder, "--tasks", _typed(self.tasks[name]))
                for name in names
                if trained_head(self.store, self.digest, self.tasks[name]) is None
            )
        return heads + tuple(
            ("finetune", "--encoder", self.encoder, "--mode", trained, "--tasks",
             _typed(self.tasks[name]), "--seed", str(seed))
            for name in names
            if self.entry(name, trained, seed) is None
        )  # fmt: skip

    def words(self, verb: str, mode: str, seed: int, *more: str) -> Words:
        """Return the call of a verb on these tasks."""
        tasks = [_typed(task) for task in self.tasks.values()]
        named = ("--tasks", *tasks) if self.named else ()
        return (
            verb, "--encoder", self.encoder, "--mode", mode, "--seed", str(seed), *named, *more,
        )  # fmt: skip

    def probe(self, task: Task, split: str) -> Split:
        """Load the first images of a split, which stand for it."""
        if task.source == "miniature":  # drawn, always the same
            return _drawn(task.name, split, self.image_size, _world())
        return load_split(task, split, self.image_size, self.store, limit=PROBE)

    @property
    def image_size(self) -> int:
        """Side of the encoder's images, in pixels."""
        return _image_size(self.encoder, self.store)

    def addition(
        self, mode: str, seed: int, method: str | None = None, convention: str = "sum"
    ) -> tuple[Run, dict | None]:
        """Look up a run of the addition benchmark.

        Args:
            mode: The reading.
            seed: Of the task vectors.
            method: A merging method, or ``EACH`` for the sum with an alpha for each task; None
                for the convention alone.
            convention: "sum" or "mean".

        Returns:
            The run, and its answer if it is kept.
        """
        entries, options, each = self.entries(mode, seed), None, method == EACH
        if each:
            more = ("--each",)
        elif method is not None:
            about = METHODS[method].options
            options = {name: option.usual for name, option in about.items()}
            more = ("--method", method)
        else:
            more = ("--convention", convention) if convention != "sum" else ()
        asked = {"mode": mode, "convention": convention, "options": options, "each": each}
        asked["method"] = None if each else method
        key = entries and addition_key(self.identity, entries, self.tasks, self.probe, **asked)
        title = f"addition {method or convention}, {mode}, seed {seed}"
        words = self.words("addition", mode, seed, *more)
        alphas = len(ALPHAS if asked["method"] is None else FARTHER)
        passes = self._passes(mode, alphas, asked["method"] is not None)
        return self._looked_up("addition", key, words, title, mode, seed, passes)

    def negation(self, mode: str, seed: int) -> tuple[Run, dict | None]:
        """Look up a run of the negation benchmark.

        Args:
            mode: The reading.
            seed: Of the task vectors.

        Returns:
            The run, and its answer if it is kept.
        """
        entries = self.entries(mode, seed)
        everything = {**self.tasks, self.control.name: self.control}
        key = entries and negation_key(
            self.identity, entries, everything, self.probe, mode=mode, keep=KEEP
        )
        control = _typed(self.control)
        more = ("--control", control) if control != "objects" else ()
        words = self.words("negation", mode, seed, *more)
        passes = self._passes(mode, len(ALPHAS), False, True)
        title = f"negation, {mode}, seed {seed}"
        return self._looked_up("negation", key, words, title, mode, seed, passes)

    def _looked_up(
        self, what: str, key, words: Words, title: str, mode: str, seed: int, passes: int
    ) -> tuple[Run, dict | None]:
        """Return a run and its answer, by its key."""
        kept = self.answers.get((what, key)) if key else None
        if kept is not None:
            return Run(words, title, KEPT, 0, seed, (), (kept.digest,)), kept.meta["record"]
        before = self.training(mode, seed)
        return Run(words, title, NOT_RUN, passes + self.cost_of(before), seed, before), None

    def _passes(self, mode: str, alphas: int, method: bool, negation: bool = False) -> int:
        """Count the images through the encoder that a benchmark costs."""
        counts = {name: _counts(task) for name, task in self.tasks.items()}
        validation = sum(count["validation"] for count in counts.values())
        test = sum(count["test"] for count in counts.values())
        T = len(self.tasks)
        if negation:
            own = _counts(self.control)
            validation, test = validation + T * own["validation"], test + T * own["test"]
        if mode == "nonlinear":
            return (alphas + 1) * validation + 3 * test
        return round((1 + (PRODUCT - 1) * (T + method)) * (validation + test))

    def cost_of(self, trainings: Sequence[Words]) -> int:
        """Count the images through the encoder that fine-tunes cost."""
        total = 0.0
        for words in trainings:
            if words[0] != "finetune":
                continue
            mode = words[words.index("--mode") + 1]
            recipe = recipe_for(self.encoder, mode)
            total += recipe.steps * recipe.batch * TRAINING[mode]
        return round(total)


def standing(
    store: Store,
    encoder: str,
    tasks: Sequence[str] | None = None,
    control: str = "objects",
    seeds: Sequence[int] | None = None,
) -> Standing:
    """Look at what the store holds of an encoder.

    Args:
        store: Where to look.
        encoder: Its name.
        tasks: Names or paths; None for the miniature's eight.
        control: Name or path.
        seeds: Of the task vectors; None for all that are there.

    Returns:
        Its standing.
    """
    chosen = [load_task(name) for name in (tasks or TASKS)]
    newest = store.find("checkpoint", encoder=encoder)
    digest = newest[0].meta["encoder_digest"] if newest else ""
    named = None if seeds is None else tuple(seeds)
    by_name = {task.name: task for task in chosen}
    return Standing(store, encoder, digest, by_name, bool(tasks), load_task(control), named)


def _typed(task: Task) -> str:
    """Return what names a task on the command line."""
    return task.name if task.source == "miniature" else task.source


def _is_seed(entry: Entry) -> bool:
    return isinstance(entry.meta.get("seed"), int)


def _world() -> tuple:
    """Return how large the miniature's splits are, on which their order depends."""
    return tuple(sorted(miniature.SIZES.items()))


@functools.cache
def _drawn(task: str, split: str, image_size: int, world: tuple) -> Split:
    """Return the first images of one of the miniature's splits, drawn once a process."""
    return load_split(load_task(task), split, image_size, None, limit=PROBE)


@functools.cache
def _of_miniature(task: str, world: tuple) -> dict[str, int]:
    """Return the sizes of one of the miniature's splits."""
    return describe(load_task(task))["counts"]


def _counts(task: Task) -> dict[str, int]:
    """Return how many images each split has."""
    if task.source == "miniature":
        return _of_miniature(task.name, _world())
    return describe(task)["counts"]


def _image_size(encoder: str, store: Store) -> int:
    """Return the side of an encoder's images without loading its weights."""
    if ":" not in encoder:
        kept = store.one("encoder", "make it with: python -m engine pretrain", name=encoder)
        return kept.meta["config"]["vision_cfg"]["image_size"]
    return _published_size(encoder.partition(":")[0])


@functools.cache
def _published_size(architecture: str) -> int:
    """Return the side of the images of one of open_clip's models, or of timm's."""
    if architecture.startswith(CLOSED):
        import timm

        return timm.get_pretrained_cfg(architecture.removeprefix(CLOSED)).input_size[-1]
    import open_clip

    config = open_clip.get_model_config(architecture) or {}
    size = config.get("vision_cfg", {}).get("image_size", 224)
    return size if isinstance(size, int) else size[0]
