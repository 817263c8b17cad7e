"""One fine-tune over several processes: who computes which images, and how they agree."""

import contextlib
import json
import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from engine.errors import EngineError, LostProcessError, UsageError
from engine.finetune.others import LOST, MEETING, leave_with_parent, others

# rank 0 may decode a large data set while the others wait; a death is noticed at once all the same
PATIENCE = timedelta(hours=24)


@dataclass(frozen=True)
class Processes:
    """The processes of one fine-tune, seen from one of them; alone by default.

    Attributes:
        rank: Of this process, 0 <= rank < size. Rank 0 alone reads, writes and prints.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process is the one that reads, writes and prints."""
        return self.rank == 0

    def rows(self, n: int) -> Tensor:
        """Name the rows of a batch that are this process's to compute.

        Args:
            n: Rows of the whole batch, at least ``size``.

        Returns:
            int64, a run of neighbours; over all ranks each of 0 .. n - 1 once.

        Raises:
            UsageError: If a process would have nothing to do.
        """
        check_share(n, self.size)
        return torch.arange(n).tensor_split(self.size)[self.rank]

    def total(self, value: Tensor) -> Tensor:
        """Sum a tensor over the processes, in place: every process gets the same bits."""
        if self.size > 1:
            with _noticing_losses():
                dist.all_reduce(value)
        return value

    def total_number(self, value: float) -> float:
        """Sum a number over the processes, in double precision, by way of the CPU."""
        return float(self.total(torch.tensor(value, dtype=torch.float64)))

    def shared(self, value: Any) -> Any:
        """Give every process the plain JSON value that rank 0 holds."""
        if self.size == 1:
            return value
        data = bytearray(json.dumps(value).encode())
        length = self.spread(torch.tensor(len(data)))
        if not self.first:
            data = bytearray(int(length))
        return json.loads(bytes(self.spread(torch.frombuffer(data, dtype=torch.uint8)).numpy()))

    def spread(self, value: Tensor) -> Tensor:
        """Overwrite a tensor, in place, with that of rank 0."""
        if self.size > 1:
            with _noticing_losses():
                dist.broadcast(value, src=0)
        return value

    def after_first(self, load: Callable[[], Any]) -> Any:
        """Load something on rank 0, then on the others: what is cached is made once.

        Args:
            load: Without arguments.

        Returns:
            What it returned here.
        """
        loaded = load() if self.first else None
        self.shared(None)
        return loaded if self.first else load()

    def check_same(self, what: str, value: Tensor) -> None:
        """Make sure that all processes hold the same bits.

        Args:
            what: Of the tensor, for the message.
            value: 32 or 64 bits an element, contiguous.

        Raises:
            EngineError: If they do not.
        """
        if self.size == 1:
            return
        whole = torch.int32 if value.element_size() == 4 else torch.int64
        mark = value.view(whole).sum(dtype=torch.int64).cpu()
        # the largest of x and of -x: equal in size only if all are equal
        ends = torch.stack([mark, -mark])
        with _noticing_losses():
            dist.all_reduce(ends, op=dist.ReduceOp.MAX)
        if int(ends[0]) != -int(ends[1]):
            raise EngineError(
                f"the processes no longer hold the same {what}; take devices of one kind, or "
                "--processes 1"
            )


ALONE = Processes()


def check_share(batch: int, processes: int) -> None:
    """Refuse a batch that leaves a process without an image.

    Args:
        batch: Images a step.
        processes: That share them.

    Raises:
        UsageError: If there are more processes than images.
    """
    if batch < processes:
        raise UsageError(
            f"a batch of {batch} has no image for each of {processes} processes; "
            f"take {batch} processes or fewer, or a larger batch"
        )


@contextlib.contextmanager
def _noticing_losses() -> Generator[None]:
    """Say in one sentence that another process ended, where the libraries name a socket."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            "another process of this fine-tune ended; run the same command again to go on from "
            "the last working state"
        ) from error


def in_group() -> bool:
    """Return whether this process was started as one of several, by ``joined`` or torchrun."""
    return MEETING in os.environ or dist.is_torchelastic_launched()


@contextlib.contextmanager
def joined(
    device: str, processes: int = 1, words: Sequence[str] = (), threads: int | None = None
) -> Generator[Processes]:
    """Work together with other processes: those of torchrun, or ones started here.

    Gradients go by NCCL on CUDA, everything else by gloo. Each process takes the GPU of its
    local rank, which then is what "cuda" means. A process started here has a session of its own,
    so that Ctrl-C and SIGTERM reach rank 0 alone, which tells the others when a step is done.

    Args:
        device: "cpu", "cuda" or "mps".
        processes: How many to be on this machine, unless torchrun has decided that already.
        words: Of ``python -m engine``: what the processes started here run.
        threads: Of each process on the CPU; by default they share the cores.

    Yields:
        The processes; ``ALONE`` when there is one only.

    Raises:
        UsageError: If the device cannot be shared out.
        LostProcessError: If another process ended.
        SystemExit: Instead, in a process started by another, which says it.
    """
    here = not in_group()
    if here and processes == 1:
        yield ALONE
        return
    if device == "mps":
        raise UsageError("several processes need --device cuda or --device cpu")
    with contextlib.ExitStack() as stack:
        if here:
            rank, size, local = 0, processes, 0
            if device == "cuda":
                check_gpus(size)
            each = threads or int(
                os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // size)
            )
            torch.set_num_threads(each)
            where = stack.enter_context(others(words, size, each))
        else:
            rank, size, local = (int(os.environ[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
            where = os.environ.get(MEETING, "env://")
        if MEETING in os.environ:
            leave_with_parent()
        if device == "cuda":
            check_gpus(local + 1)
            torch.cuda.set_device(local)
        with _noticing_losses():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
                init_method=where,
                rank=rank,
                world_size=size,
                timeout=PATIENCE,
            )
        try:
            yield Processes(rank, size)
        except LostProcessError:
            if MEETING in os.environ:  # rank 0 says it
                raise SystemExit(LOST) from None
            raise
        # after an error the others may be stuck: there the end of this process tells them
        dist.destroy_process_group()


def check_gpus(wanted: int) -> None:
    """Refuse more processes than there are GPUs.

    Args:
        wanted: Processes of this machine.

    Raises:
        UsageError: If there are fewer GPUs.
    """
    there = torch.cuda.device_count()
    if wanted > there:
        raise UsageError(
            f"{wanted} processes need a GPU each and {there} can be seen; take {there} processes, "
            "or --device cpu"
        )


def told(progress: Callable[..., None] | None, *news: Any) -> BaseException | None:
    """Return what a callback raises: all processes must hear of it before one leaves.

    Args:
        progress: The callback, or None.
        *news: Its arguments.

    Returns:
        The exception, or None.
    """
    if progress is None:
        return None
    try:
        progress(*news)
    except BaseException as stop:
        return stop
    return None
