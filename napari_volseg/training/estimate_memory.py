"""How much memory a training will take, estimated without computing anything.

The network's steps run on torch's meta device, on a stand-in for the volumes (see
``inference.ledger``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch

from napari_volseg.data.errors import InputError
from napari_volseg.inference.ledger import META, Ledger
from napari_volseg.inference.memory import tile_memory
from napari_volseg.inference.predict import plan_tiles
from napari_volseg.sparse.pool import CACHE_BYTES, pool_of
from napari_volseg.training.held_out import SEEN_VOXELS
from napari_volseg.training.recompute import frugal
from napari_volseg.training.stand_in import stand_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.training.stand_in import Extent

LIBRARIES = 140_000_000
"""Bytes of what torch and scipy load when they first train, on a CPU."""

LABEL_BYTES = 8
"""A voxel: trained and held-out classes, and the masks that are made of them."""

FIT_BYTES = 100
"""A class of each voxel by which the classes' frequencies are judged."""

JUDGED_TILES = 100
"""Of a volume, that hold held-out voxels: the slices that people paint are in no more."""

STATES = {"adamw": 2, "sgd": 1}
"""Copies of the weights that an optimizer keeps."""

CHECKPOINT_COPIES = 6
"""Of the weights, in a checkpoint that is handed out beside what trains on."""


@dataclass(frozen=True)
class Question:
    """A training of which the memory is asked; those of equal words have equal answers."""

    words: str
    architecture: AnyArchitecture = field(compare=False)
    model_config: Any = field(compare=False)
    training: TrainingConfig = field(compare=False)
    extents: tuple[Extent, ...] = field(compare=False)
    n_classes: int = field(compare=False)
    device: torch.device = field(compare=False)


@dataclass(frozen=True)
class Estimate:
    """Bytes that a training takes.

    Attributes
    ----------
    fixed : int
        Whatever the sizes of patches and tiles.
    step, tile : int
        At the peak of a step, and of the prediction of a tile.
    kept : bool
        Whether what one of the two has taken is not there for the other: so it is on a CPU,
        whose allocator keeps memory in pieces.
    """

    fixed: int
    step: int
    tile: int
    kept: bool

    @property
    def total(self) -> int:
        """At the peak of all."""
        both = self.step + self.tile if self.kept else max(self.step, self.tile)
        return self.fixed + both


def estimate(
    architecture: AnyArchitecture,
    model_config: Any,
    training: TrainingConfig,
    extents: tuple[Extent, ...],
    n_classes: int,
    device: torch.device,
) -> Estimate | None:
    """Estimate the memory of a training with given sizes; None where a network defies it.

    Parameters
    ----------
    training : TrainingConfig
        With nothing that counts left to "auto": its batch, precision and recompute.
    """
    # Deforming takes time and hardly any memory; how long is trained, none.
    same = replace(training, augmentation=0.0, minutes=1.0, steps=0, seed=0, device="auto")
    words = repr((architecture.name, model_config, same, extents, n_classes, device.type))
    question = Question(words, architecture, model_config, same, extents, n_classes, device)
    try:
        return answer(question)
    except InputError:
        raise
    except (RuntimeError, TypeError, ValueError, AttributeError):
        # A network of somebody else's may ask for values, and nothing here has any.
        return None


@lru_cache(maxsize=256)
def answer(q: Question) -> Estimate:
    """Estimate the memory of a training."""
    step, weights = step_memory(q)
    tile, tiles = 0, 0
    for channels, shape, _ in q.extents:
        planned = plan_tiles(q.architecture.walk(q.model_config, shape), shape)
        tiles += len(planned)
        config, extent = q.model_config, (channels, *shape)
        found = tile_memory(q.architecture, config, planned.largest, extent, q.n_classes, q.device)
        tile = max(tile, found)
    if q.device.type != "cpu":
        return Estimate(0, step + weights, tile + weights, kept=False)
    pool = sum(pool_bytes(channels, shape) for channels, shape, _ in q.extents)
    judged = (
        min(tiles, JUDGED_TILES) * SEEN_VOXELS * q.n_classes * FIT_BYTES
        if q.training.held_out
        else 0
    )
    return Estimate(LIBRARIES + pool + judged + CHECKPOINT_COPIES * weights, step, tile, kept=True)


def pool_bytes(channels: int, shape: tuple[int, int, int]) -> int:
    """Bytes that a training keeps of a volume on the host."""
    image = 4 * channels * math.prod(shape)
    return LABEL_BYTES * math.prod(shape) + (image if image <= CACHE_BYTES else 0)


def step_memory(q: Question) -> tuple[int, int]:
    """Estimate the peak of a step of any stage, and what the weights take, in bytes."""
    channels = q.extents[0][0]
    peak = 0
    with Ledger(q.device) as ledger:
        with META:
            module = q.architecture.build(q.model_config, channels, q.n_classes)
        pool = pool_of(
            [stand_in(extent, q.n_classes) for extent in q.extents],
            tuple(range(1, q.n_classes + 1)),
            META,
        )
        stages = q.architecture.stages(q.model_config, q.training, pool)
        for stage in map(frugal, stages) if q.training.recompute == "always" else stages:
            ledger.forget_peak()
            for _ in stage.prepare(module):
                pass
            module.requires_grad_(False)
            moving = list(stage.parameters(module))
            for parameter in moving:
                parameter.requires_grad_(True)
            module.train()
            batch = stage.sample(torch.Generator().manual_seed(0))
            ledger.half = q.training.precision == "bfloat16"
            stage.loss(module, batch, 0).backward()  # type: ignore[no-untyped-call]
            ledger.half = False
            module.zero_grad()
            peak = max(peak, ledger.peak + STATES[q.training.optimizer] * bytes_of(moving))
    return peak, bytes_of(list(module.parameters()))


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
