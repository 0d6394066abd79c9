"""One training in several processes, each with a GPU of its own, as torchrun starts them.

Every process takes its own patches. Gradients are averaged before every step, so all of them
take the same step from the same weights. What depends on a clock is decided by the first one.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import distributed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor, nn

T = TypeVar("T")

STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process in its environment."""

STATISTICS = ("running_mean", "running_var")
"""Of batch normalization: every process sees those of its own patches only."""


@contextmanager
def processes_joined() -> Iterator[int]:
    """Join the processes that torchrun started with this one, if it did.

    Yields
    ------
    int
        Number of this process; that of the first one is 0.
    """
    if not all(name in os.environ for name in STARTED):
        yield 0
        return
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend)
    try:
        yield distributed.get_rank()
    finally:
        distributed.destroy_process_group()


def process_number() -> int:
    """Return the number of this process among those that train together."""
    return distributed.get_rank() if several() else 0


def several() -> bool:
    """Whether several processes train together."""
    return distributed.is_available() and distributed.is_initialized()


def of_the_first(value: T) -> T:
    """Return what the first process has, in all of them."""
    if not several():
        return value
    values = [value]
    distributed.broadcast_object_list(values, device=torch.device("cpu"))
    return values[0]


def anywhere(happened: bool) -> bool:
    """Whether something happened in any of the processes."""
    if not several():
        return happened
    count = torch.tensor(int(happened))
    distributed.all_reduce(count)
    return bool(count)


@torch.no_grad()
def average_gradients(module: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
    """Average gradients, and the statistics of batch normalization, over the processes."""
    if not several():
        return
    values: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
    values += [b for name, b in module.named_buffers() if name.endswith(STATISTICS)]
    if not values:
        return
    # As one message: there are many, most of them small.
    together = torch.cat([value.flatten() for value in values])
    distributed.all_reduce(together)
    together /= distributed.get_world_size()
    for value, part in zip(values, torch.split(together, [v.numel() for v in values]), strict=True):
        value.copy_(part.view_as(value))


@contextmanager
def failing_together() -> Iterator[None]:
    """Make an error in one of the processes one in all: the others would wait for it.

    Raises
    ------
    MemoryError
        If it was another process whose memory ran out, or that failed otherwise.
    """
    failed: BaseException | None = None
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        failed = error
    if anywhere(failed is not None):
        raise failed or MemoryError("in another process")
