"""What the Merge page shows: the sample behind the sliders, readouts at released alphas."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from app.components.alpha import EvaluatedTask, sample_size
from app.compute import catalogue, forward, models, scores
from app.compute.background import Work, board
from app.compute.catalogue import Checkpoint
from app.compute.scores import TaskScores

TRAINED = {"nonlinear": "nonlinear", "posthoc": "nonlinear", "linear": "linear"}
SETTLE = 1.0  # seconds the whole split lets the page draw, or the next drag begin
PICTURES = 24  # examples a task to watch flip


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

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the task vectors, in the order of the sliders."""
        return tuple(self.checkpoints)

    @property
    def vectors(self) -> tuple:
        """What the scores depend on: neither reading nor convention."""
        return self.encoder_digest, self.digests, self.home

    def coefficients(self, alphas: Mapping[str, float]) -> dict[str, float]:
        """Return what each task vector is multiplied with: alpha, or alpha / T for the mean."""
        T = len(self.names) if self.convention == "mean" else 1
        return {name: alphas[name] / T for name in self.names}


@dataclass(frozen=True, eq=False)
class Sample:
    """What the sliders move over.

    Attributes:
        tasks: Evaluated tasks, the control last.
        single: Accuracy of each task's own vector alone at alpha = 1; those of the non-linear
            reading are forward passes.
        n: Images a task at most.
    """

    tasks: list[TaskScores]
    single: dict[str, float]
    n: int


@dataclass(frozen=True)
class Readout:
    """Accuracies at one setting, fractions by task; ``control`` is the control task's pair."""

    zeroshot: dict[str, float]
    single: dict[str, float]
    merged: dict[str, float]
    interval: dict[str, tuple[float, float]]
    n: dict[str, int]
    titles: dict[str, str]
    absolute: float
    normalized: float | None
    control: str | None

    @property
    def tasks(self) -> list[str]:
        """The merged tasks, without the control."""
        return [name for name in self.merged if name != self.control]


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
    encoder_name: str, reading: str, convention: str, checkpoints: Mapping[str, Checkpoint]
) -> Choice:
    """Return a choice.

    Args:
        encoder_name: Of the encoder.
        reading: "nonlinear", "posthoc" or "linear".
        convention: "sum" or "mean".
        checkpoints: Task vectors in the order of the sliders.
    """
    from engine.store import default_store

    return Choice(
        encoder=encoder_name,
        encoder_digest=models.encoder(encoder_name).digest,
        reading=reading,
        convention=convention,
        digests=tuple(item.digest for item in checkpoints.values()),
        home=str(default_store().home),
        checkpoints=dict(checkpoints),
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
    n = sample_size([len(task.classnames) for task in tasks], len(choice.names), most)
    tasks = [task.first(n) for task in tasks]
    return Sample(tasks, _single(choice, tasks, n, work), n)


def _single(choice: Choice, tasks: list[TaskScores], n: int, work: Work) -> dict[str, float]:
    """Return the accuracy of each task's own vector alone, at alpha = 1."""
    mine = {task.name: task for task in tasks if task.name in choice.checkpoints}
    if choice.reading != "nonlinear":
        return {
            name: _right(task.scores, _one_hot(choice, name), task.labels) / len(task.labels)
            for name, task in mine.items()
        }
    found = {}
    for done, (name, task) in enumerate(mine.items()):
        work.step(done, len(mine), f"{task.title}: its own vector alone")
        answer = forward.run(
            choice.encoder, choice.checkpoints, {name: 1.0}, (task.reference,), n, _Silent(work)
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


def _right(planes: np.ndarray, coefficients: list[float], labels: np.ndarray) -> int:
    """Return how many images a linearized merge gets right."""
    import torch

    from engine.responses import merged_scores, predictions

    guesses = predictions(merged_scores(torch.from_numpy(planes), coefficients))
    return int((guesses.numpy() == labels).sum())


def exact_forward(choice: Choice, alphas: Mapping[str, float], n: int) -> list[forward.Forward]:
    """Run the non-linear merged model on the sample at released alphas.

    Args:
        choice: What is merged.
        alphas: By task.
        n: Images a task.

    Returns:
        One answer an evaluated task, in their order.
    """
    factors = choice.coefficients(alphas)
    return forward.sample(
        choice.encoder,
        choice.encoder_digest,
        tuple((name, item.digest, factors[name]) for name, item in choice.checkpoints.items()),
        tuple(references(choice).values()),
        n,
        choice.home,
        choice.checkpoints,
    )


def whole(choice: Choice, alphas: Mapping[str, float], visitor: str) -> Work:
    """Start, or find, the non-linear readout on the whole test split; a later one replaces it.

    Args:
        choice: What is merged.
        alphas: By task.
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
            choice.encoder, choice.checkpoints, factors, tuple(wanted.values()), None, work
        )
        return {
            name: (answer.correct, len(answer.labels))
            for name, answer in zip(wanted, answers, strict=True)
        }

    return board().start("whole test split", visitor, key, compute)


def readout(
    choice: Choice,
    sample: Sample,
    alphas: Mapping[str, float],
    answers: list[forward.Forward] | None,
) -> Readout:
    """Return the exact accuracies at released alphas on the sample.

    Args:
        choice: What is merged.
        sample: What the sliders move over.
        alphas: By task.
        answers: Of the non-linear merged model; None for linearized readings.
    """
    from engine.evaluate import wilson_interval

    control = catalogue.task_names()[1]
    factors = list(choice.coefficients(alphas).values())
    zero = [0.0] * len(factors)
    right = {
        task.name: _right(task.scores, factors, task.labels)
        if answers is None
        else answers[place].correct
        for place, task in enumerate(sample.tasks)
    }
    n = {task.name: len(task.labels) for task in sample.tasks}
    merged = {name: right[name] / n[name] for name in right}
    return Readout(
        zeroshot={
            task.name: _right(task.scores, zero, task.labels) / n[task.name]
            for task in sample.tasks
        },
        single=sample.single,
        merged=merged,
        interval={name: wilson_interval(right[name], n[name]) for name in right},
        n=n,
        titles={task.name: task.title for task in sample.tasks},
        absolute=_mean([merged[name] for name in choice.names]),
        normalized=_normalized(choice, merged, sample.single),
        control=control if control not in choice.checkpoints else None,
    )


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _normalized(choice: Choice, merged: Mapping[str, float], single: Mapping) -> float | None:
    """Return the normalized accuracy; None where a single-task accuracy is 0."""
    from engine.evaluate import normalized_accuracy

    if not all(single[name] for name in choice.names):
        return None
    return normalized_accuracy({name: merged[name] for name in choice.names}, dict(single))


def full_split(
    choice: Choice, alphas: Mapping[str, float], counts: Mapping[str, tuple[int, int]]
) -> dict:
    """Return what the widget shows of the whole split.

    Args:
        choice: What is merged.
        alphas: The setting measured.
        counts: Right answers and images, by evaluated task.

    Returns:
        As ``pack`` takes it; "normalized" only where every checkpoint was measured by itself on
        the same images.
    """
    merged = {name: right / n for name, (right, n) in counts.items()}
    control = [name for name in merged if name not in choice.checkpoints]
    alone = {
        name: item.test
        for name, item in choice.checkpoints.items()
        if item.test is not None and item.n_test == counts[name][1]
    }
    complete = set(alone) == set(choice.checkpoints)
    return {
        "n": min(n for _, n in counts.values()),
        "alphas": dict(alphas),
        "tasks": merged,
        "absolute": _mean([merged[name] for name in choice.names]),
        "normalized": _normalized(choice, merged, alone) if complete else None,
        "control": merged[control[0]] if control else None,
    }


def evaluated(
    choice: Choice, sample: Sample, answers: list[forward.Forward] | None
) -> list[EvaluatedTask]:
    """Return the evaluated tasks as the widget takes them.

    Args:
        choice: What is merged.
        sample: What the sliders move over.
        answers: Exact scores of the non-linear merged model at the anchor; they take the place of
            the first plane. None for linearized readings.
    """
    size = models.encoder(choice.encoder).image_size
    control = catalogue.task_names()[1]
    found = []
    for place, task in enumerate(sample.tasks):
        planes = task.scores
        if answers is not None:
            planes = np.concatenate([answers[place].scores[None], planes[1:]]).astype(np.float32)
        shown = min(PICTURES, len(task.labels))
        nonlinear = answers is not None
        found.append(
            EvaluatedTask(
                name=task.name,
                title=task.title,
                labels=task.labels,
                scores=planes,
                classnames=task.classnames,
                is_control=task.name == control and control not in choice.checkpoints,
                zeroshot_predictions=task.scores[0].argmax(axis=1) if nonlinear else None,
                single_accuracy=sample.single.get(task.name) if nonlinear else None,
                pictures=models.pictures(task.reference, size, scores.SAMPLE, shown),
                picture_indices=np.arange(shown),
            )
        )
    return found
