"""What the Merge page merges, the sample behind its sliders, and the merged model itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from app.components.alpha import sample_size
from app.compute import catalogue, directions, forward, models, scores
from app.compute.background import Work, board
from app.compute.catalogue import Checkpoint
from app.compute.scores import TaskScores
from app.state import DIRECTION

TRAINED = {"nonlinear": "nonlinear", "posthoc": "nonlinear", "linear": "linear"}
SETTLE = 1.0  # seconds the whole split lets the page draw, or the next drag begin


@dataclass(frozen=True)
class Choice:
    """What is merged and how it is read; equal choices show the same numbers."""

    encoder: str
    encoder_digest: str
    reading: str
    convention: str
    digests: tuple[str, ...]
    home: str
    checkpoints: Mapping[str, Checkpoint] = field(compare=False)
    method: str | None = None  # None: a slider a task
    options: tuple[tuple[str, float], ...] = ()  # hyper-parameters of the method

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the task vectors, in order."""
        return tuple(self.checkpoints)

    @property
    def sliders(self) -> tuple[str, ...]:
        """Names of the sliders: the task vectors', or that of the one direction made of them."""
        return self.names if self.method is None else (DIRECTION,)

    @property
    def vectors(self) -> tuple:
        """What the scores depend on: neither reading nor convention."""
        return self.encoder_digest, self.digests, self.home, self.method, self.options

    def coefficients(self, alphas: Mapping[str, float]) -> dict[str, float]:
        """Return what each slider's vector is multiplied with: alpha, or alpha / T for the mean."""
        T = len(self.names) if self.convention == "mean" else 1
        return {name: alphas[name] / T for name in self.sliders}

    def vector(self, name: str) -> dict:
        """Return the vector of a slider, or of a task; not to be changed."""
        if name == DIRECTION:
            return directions.direction(self.checkpoints, self.method, self.options)
        return models.vector(self.checkpoints[name].digest)

    def identity(self, name: str) -> str:
        """Return what a slider's vector is known by."""
        if name == DIRECTION:
            return repr((self.method, self.options, self.digests))
        return self.checkpoints[name].digest


@dataclass(frozen=True, eq=False)
class Sample:
    """What the sliders move over.

    Attributes:
        tasks: Evaluated tasks, the control last; planes of theta_0, then of each slider's vector.
        single: Accuracy of each task's own vector alone at alpha = 1; those of the non-linear
            reading are forward passes.
        n: Images a task at most.
        cosines: Between each task vector and the direction made of them; empty without one.
    """

    tasks: list[TaskScores]
    single: dict[str, float]
    n: int
    cosines: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Measured:
    """The non-linear merged model's exact answers at one setting.

    Attributes:
        choice: What is merged.
        factors: What each slider's vector is multiplied with.
        answers: One an evaluated task, in their order; None for one that is not known yet.
    """

    choice: Choice
    factors: tuple[float, ...]
    answers: list[forward.Forward | None]

    @property
    def complete(self) -> bool:
        """Whether every answer is known."""
        return None not in self.answers

    def is_at(self, choice: Choice, alphas: Mapping[str, float]) -> bool:
        """Whether it was measured at this setting."""
        return (self.choice, self.factors) == (choice, tuple(choice.coefficients(alphas).values()))


def available(encoder_name: str, reading: str) -> dict[str, Checkpoint]:
    """Return the newest checkpoint of every task that fits an encoder and a reading.

    Args:
        encoder_name: Of an encoder that can be loaded.
        reading: "nonlinear", "posthoc" or "linear".
    """
    encoder = models.encoder(encoder_name)
    items = catalogue.checkpoints()
    return catalogue.newest(items, encoder_name, TRAINED[reading], encoder.digest)


def choose(
    encoder_name: str,
    reading: str,
    convention: str,
    checkpoints: Mapping[str, Checkpoint],
    method: str | None = None,
    options: Mapping[str, float] | None = None,
) -> Choice:
    """Return a choice.

    Args:
        encoder_name: Of the encoder.
        reading: "nonlinear", "posthoc" or "linear".
        convention: "sum" or "mean".
        checkpoints: Task vectors in the order of the sliders.
        method: One of ``directions.methods()``, or None for a slider a task.
        options: Hyper-parameters of the method, each with its value.
    """
    from engine.store import default_store

    return Choice(
        encoder=encoder_name,
        encoder_digest=models.encoder(encoder_name).digest,
        reading=reading,
        convention="sum" if method else convention,
        digests=tuple(item.digest for item in checkpoints.values()),
        home=str(default_store().home),
        checkpoints=dict(checkpoints),
        method=method,
        options=tuple((options or {}).items()),
    )


def references(choice: Choice) -> dict[str, str]:
    """Return the evaluated tasks, name to what ``load_task`` takes: those merged, the control."""
    control = catalogue.task_names()[1]
    found = {name: item.reference for name, item in choice.checkpoints.items()}
    return found if control in found else {**found, control: control}


def sample(choice: Choice, visitor: str) -> Work:
    """Start, or find, the computation of what the sliders move over.

    Args:
        choice: What is merged.
        visitor: Who asks.

    Returns:
        Work whose result is a :class:`Sample`.
    """
    key = (choice.vectors, choice.reading == "nonlinear")
    return board().start("test sample", visitor, key, lambda work: _sample(choice, work))


def _sample(choice: Choice, work: Work) -> Sample:
    """Return the sample: test scores of every evaluated task."""
    mode = "linear" if choice.reading == "linear" else "posthoc"
    wanted = list(references(choice).values())
    tasks = scores.compute(choice.encoder, choice.checkpoints, wanted, mode, work)
    most = forward.SAMPLE if choice.reading == "nonlinear" else scores.SAMPLE
    n = sample_size([len(task.classnames) for task in tasks], len(choice.sliders), most)
    tasks = [task.first(n) for task in tasks]
    single = _single(choice, tasks, n, work)
    if choice.method is None:
        return Sample(tasks, single, n)
    work.step(0, len(tasks), f"{directions.title(choice.method)}: merging the task vectors")
    direction = choice.vector(DIRECTION)
    merged = scores.along(choice.encoder, choice.checkpoints, direction, wanted, mode, work)
    found = [_beside(task, plane.first(n)) for task, plane in zip(tasks, merged, strict=True)]
    return Sample(found, single, n, directions.cosines(choice.checkpoints, direction))


def _beside(task: TaskScores, merged: TaskScores) -> TaskScores:
    """Return a task with the plane of theta_0 and that of the direction alone."""
    return replace(task, scores=np.concatenate([task.scores[:1], merged.scores[1:]]))


def _single(choice: Choice, tasks: list[TaskScores], n: int, work: Work) -> dict[str, float]:
    """Return the accuracy of each task's own vector alone, at alpha = 1."""
    mine = {task.name: task for task in tasks if task.name in choice.checkpoints}
    if choice.reading != "nonlinear":
        return {
            name: right(task.scores, _one_hot(choice, name), task.labels) / len(task.labels)
            for name, task in mine.items()
        }
    found = {}
    for done, (name, task) in enumerate(mine.items()):
        work.step(done, len(mine), f"{task.title}: its own vector alone")
        answer = forward.run(
            choice.encoder, choice.vector, {name: 1.0}, (task.reference,), n, _Silent(work)
        )[0]
        found[name] = answer.correct / len(answer.labels)
    return found


class _Silent(Work):
    """Lets a part be left with its whole, without telling its own progress."""

    def __init__(self, whole: Work) -> None:
        super().__init__(whole.title)
        self._whole = whole

    def step(self, done: int, total: int, note: str) -> None:
        """Leave when the whole is left."""
        self._whole.step(self._whole.done, self._whole.total, self._whole.note)


def _one_hot(choice: Choice, name: str) -> list[float]:
    return [float(other == name) for other in choice.names]


def right(planes: np.ndarray, coefficients: list[float], labels: np.ndarray) -> int:
    """Return how many images a linearized merge gets right.

    Args:
        planes: Scores, shape (1 + T, N, C).
        coefficients: T of them.
        labels: Shape (N,).
    """
    import torch

    from engine.responses import merged_scores, predictions

    guesses = predictions(merged_scores(torch.from_numpy(planes), coefficients))
    return int((guesses.numpy() == labels).sum())


def exact_forward(
    choice: Choice, alphas: Mapping[str, float], n: int, *, merged_alone: bool = False
) -> Measured:
    """Run the non-linear merged model on the sample at released alphas.

    Args:
        choice: What is merged.
        alphas: By slider.
        n: Images a task.
        merged_alone: Leave the control task out: its visitor has the others' answers earlier.

    Returns:
        Its answers.
    """
    factors = choice.coefficients(alphas)
    wanted = references(choice)
    merged = tuple(item for name, item in wanted.items() if name in choice.checkpoints)
    control = tuple(item for name, item in wanted.items() if name not in choice.checkpoints)

    def answers(tasks: tuple[str, ...]) -> list[forward.Forward]:
        return forward.sample(
            choice.encoder,
            choice.encoder_digest,
            tuple((name, choice.identity(name), factor) for name, factor in factors.items()),
            tasks,
            n,
            choice.home,
            choice.vector,
        )

    found = answers(merged)
    found += [None] * len(control) if merged_alone else answers(control)
    return Measured(choice, tuple(factors.values()), found)


def whole(choice: Choice, alphas: Mapping[str, float], visitor: str) -> Work:
    """Start, or find, the non-linear readout on the whole test split; a later one replaces it.

    Args:
        choice: What is merged.
        alphas: By slider.
        visitor: Who asks.

    Returns:
        Work whose result is {task: (right answers, images)}.
    """
    factors = choice.coefficients(alphas)
    key = (choice.vectors, tuple(factors.values()))

    def compute(work: Work) -> dict[str, tuple[int, int]]:
        work.pause(SETTLE)
        wanted = references(choice)
        answers = forward.run(
            choice.encoder, choice.vector, factors, tuple(wanted.values()), None, work
        )
        return {
            name: (answer.correct, len(answer.labels))
            for name, answer in zip(wanted, answers, strict=True)
        }

    return board().start("whole test split", visitor, key, compute)
