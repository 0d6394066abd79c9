"""Steps that compute features twice rather than keep them: less memory, for more time.

Known as gradient checkpointing. Not torch's own (`torch.utils.checkpoint`): on a CPU, what that
imports takes twice the memory that the default network saves.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_volseg.sparse.stage import Stage

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)

REPEATABLE = (*CONVOLUTIONS, nn.BatchNorm3d, nn.GroupNorm, nn.ReLU, nn.LeakyReLU)
"""Layers that give the same a second time: no dropout, which draws anew."""


def frugal(stage: Stage[Any]) -> Stage[Any]:
    """Return a stage whose steps learn the same with less memory, in more time."""

    def loss(module: nn.Module, batch: Any, step: int) -> Tensor:
        with recomputing(module):
            found: Tensor = stage.loss(module, batch, step)
        return found

    return replace(stage, loss=loss)


def blocks_of(module: nn.Module) -> list[nn.Sequential]:
    """Return the parts of a network that can be computed twice: several convolutions in a row."""
    return [
        part
        for part in module.modules()
        if isinstance(part, nn.Sequential)
        and sum(isinstance(layer, CONVOLUTIONS) for layer in part) > 1
        and all(isinstance(layer, REPEATABLE) for layer in part)
    ]


@contextmanager
def recomputing(module: nn.Module) -> Iterator[None]:
    """Inside, the blocks of a network keep what they are given, and nothing of what they do."""
    blocks = blocks_of(module)
    for block in blocks:
        block.forward = partial(recomputed, block, block.forward)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def recomputed(block: nn.Module, compute: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Compute a block; what its gradients need is computed again once they are asked for.

    Autograd stores a number for each tensor that it wants to keep, and brings it back for the
    gradients: then the block is computed a second time, and of that all is kept.
    """
    numbers = count()
    found: dict[int, Tensor] = {}
    kind = "cuda" if image.is_cuda else "cpu"
    half, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def again(number: int) -> Tensor:
        if not found:
            again_numbers = count()

            def keep(tensor: Tensor) -> None:
                found[next(again_numbers)] = tensor.detach()

            with (
                torch.enable_grad(),
                torch.autocast(kind, dtype, enabled=half),
                unnoticed(block),
                saved_tensors_hooks(keep, lambda kept: kept),
            ):
                compute(image)
        return found.pop(number)

    with saved_tensors_hooks(lambda tensor: next(numbers), again):
        return compute(image)


@contextmanager
def unnoticed(block: nn.Module) -> Iterator[None]:
    """Inside, a block leaves the statistics that it gathers as they are: it has seen this once."""
    own = [
        (part, name, kept)
        for part in block.modules()
        for name, kept in part.named_buffers(recurse=False)
    ]
    for part, name, kept in own:
        setattr(part, name, kept.clone())
    try:
        yield
    finally:
        for part, name, kept in own:
            setattr(part, name, kept)
