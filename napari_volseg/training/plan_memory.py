"""How much memory a training will take, and what makes it fit into what is free.

Nothing is computed for it: the network's steps run on torch's meta device, on a stand-in for
the volumes (see ``inference.ledger``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import ChannelIntensity
from napari_volseg.data.volume import Volume
from napari_volseg.inference.device import describe_device, free_memory, pick_device
from napari_volseg.inference.ledger import META, Ledger
from napari_volseg.inference.memory import SAFE, tile_memory
from napari_volseg.inference.predict import plan_tiles
from napari_volseg.models.registry import get_architecture
from napari_volseg.sparse.hold_out import empty_blocks
from napari_volseg.sparse.pool import CACHE_BYTES, PoolCase, pool_of
from napari_volseg.training.held_out import SEEN_VOXELS
from napari_volseg.training.memory import (
    batch_of,
    halve_tile,
    patch_names,
    patch_shapes,
    shape_name,
    smaller_step,
)
from napari_volseg.training.run import resumed_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_volseg.data.tiles import Region
    from napari_volseg.models.checkpoint import Checkpoint
    from napari_volseg.models.registry import AnyArchitecture
    from napari_volseg.sparse.config import TrainingConfig

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

PAINTED_SIDE = 64
"""Of the square on a slice that is painted in the stand-in, in voxels."""

TIGHT = 0.6
"""Part of the free memory from which on it is called tight."""

Extent = tuple[int, tuple[int, int, int], tuple[float, float, float]]
"""Channels, shape and spacing of a volume: all of it that memory depends on."""


@dataclass(frozen=True)
class MemoryPlan:
    """What a training will take, and what it was made to fit by.

    Attributes
    ----------
    needed : int
        Bytes at most, as estimated; 0 where the network defies the estimate.
    free : int
        Bytes that the device has left.
    model_config : dataclass
        The network's settings, with patches and tiles that fit.
    batch_size : int
        Patches a step that fit; 0 where nothing had to be changed.
    smaller : str
        What was made smaller, for the user, or "".
    """

    needed: int
    free: int
    model_config: Any
    batch_size: int = 0
    smaller: str = ""

    @property
    def tight(self) -> bool:
        """Whether there is little room to spare, or something was made smaller for it."""
        return bool(self.smaller) or self.needed > TIGHT * self.free

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write."""
        return {
            "needed_bytes": self.needed or None,
            "free_bytes": self.free,
            "made_smaller": self.smaller,
        }

    @property
    def parts(self) -> tuple[str, ...]:
        """What there is to say: the figures, and what was made smaller."""
        known = f"needs about {gigabytes(self.needed)} of {gigabytes(self.free)} free"
        return tuple(part for part in (known if self.needed else "", self.smaller) if part)


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


def plan_memory(
    architecture: AnyArchitecture,
    model_config: Any,
    training: TrainingConfig,
    volumes: Sequence[Volume],
    n_classes: int,
    device: torch.device,
) -> MemoryPlan:
    """Estimate the memory of a training, and make its steps and tiles smaller until they fit.

    Parameters
    ----------
    model_config : dataclass
        As the architecture was configured.
    n_classes : int
        That are painted.

    Raises
    ------
    InputError
        If nothing that can be made smaller is enough.
    """
    extents = tuple((v.channels, v.shape, v.spacing) for v in volumes)
    free = free_memory(device)
    first = batch = batch_of(training, model_config)
    smaller = model_config
    least = math.inf
    while True:
        sized = replace(training, batch_size=batch)
        found = estimate(architecture, smaller, sized, extents, n_classes, device)
        if found is None or found.total <= SAFE * free:
            break
        least = min(least, found.total)
        less = smaller_one(found, batch, smaller)
        if less is None:
            raise InputError(
                f"{architecture.title} needs about {gigabytes(least)} of memory for "
                f"{volumes[0].name} even in its smallest steps, but {describe_device(device)} has "
                f"{gigabytes(free)} free; close other programs, crop the image, or choose another "
                "architecture or device"
            )
        batch, smaller = less
    return MemoryPlan(
        needed=found.total if found else 0,
        free=free,
        model_config=smaller,
        batch_size=batch if batch < first else 0,
        smaller=what_is_smaller(first, model_config, batch, smaller),
    )


def smaller_one(found: Estimate, batch: int, model_config: Any) -> tuple[int, Any] | None:
    """Make the larger of step and tile smaller, the other if it cannot be; None if neither can."""
    tile = halve_tile(model_config)
    step = smaller_step(batch, model_config)
    with_tile = None if tile is None else (batch, tile)
    return (with_tile or step) if found.tile >= found.step else (step or with_tile)


def what_is_smaller(first: int, before: Any, batch: int, after: Any) -> str:
    """Say what was made smaller, as "patches of 8 x 16 x 16 voxels, to fit"."""
    parts = []
    if batch < first:
        parts.append(f"{batch} patch{'es' if batch > 1 else ''} a step")
    if patch_shapes(after) != patch_shapes(before):
        parts.append(f"patches of {patch_names(after)} voxels")
    if getattr(after, "tile", None) != getattr(before, "tile", None):
        parts.append(f"tiles of {shape_name(after.tile)} voxels")
    return f"{', '.join(parts)}, to fit" if parts else ""


def gigabytes(size: float) -> str:
    """Write a number of bytes, as "1.2 GB"."""
    return f"{size / 1e9:.1f} GB"


def estimate(
    architecture: AnyArchitecture,
    model_config: Any,
    training: TrainingConfig,
    extents: tuple[Extent, ...],
    n_classes: int,
    device: torch.device,
) -> Estimate | None:
    """Estimate the memory of a training with given sizes; None where a network defies it."""
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
        found = tile_memory(q.architecture, config, planned, extent, q.n_classes, q.device)
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
    mixed = q.training.mixed_precision and q.device.type == "cuda"
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
        for stage in q.architecture.stages(q.model_config, q.training, pool):
            ledger.forget_peak()
            for _ in stage.prepare(module):
                pass
            module.requires_grad_(False)
            moving = list(stage.parameters(module))
            for parameter in moving:
                parameter.requires_grad_(True)
            module.train()
            batch = stage.sample(torch.Generator().manual_seed(0))
            ledger.half = mixed
            stage.loss(module, batch, 0).backward()  # type: ignore[no-untyped-call]
            ledger.half = False
            module.zero_grad()
            peak = max(peak, ledger.peak + STATES[q.training.optimizer] * bytes_of(moving))
    return peak, bytes_of(list(module.parameters()))


def bytes_of(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class StandIn(PoolCase):
    """A volume without voxels: what is read of it lies on the meta device."""

    def read(self, region: Region) -> Tensor:
        """Return a region as large as it would be, float32 (C, z, y, x)."""
        # A region that was found by values, and there are none, may be empty.
        sides = [max(1, side.stop - side.start) for side in region]
        return torch.empty(self.volume.channels, *sides, device=META)


def stand_in(extent: Extent, n_classes: int) -> StandIn:
    """Make a stand-in for a volume, with all classes painted on a part of its middle slice."""
    channels, (z, y, x), spacing = extent
    square = [np.array([z // 2]), *(painted_side(n) for n in (y, x))]
    positions = np.stack(np.meshgrid(*square, indexing="ij"), -1).reshape(-1, 3).astype(np.int32)
    voxels = tuple(positions[k::n_classes] for k in range(n_classes))
    nothing: NDArray[np.int16] = constant((z, y, x), np.int16)
    return StandIn(
        volume=volume_like(extent),
        intensity=(ChannelIntensity(0.0, 1.0, 0.0, 1.0),) * channels,
        target=nothing,
        held_out=nothing,
        voxels=voxels,
        axes=tuple(np.zeros(len(v), np.int8) for v in voxels),
        blocks=empty_blocks((z, y, x), n_classes, spacing, None),
    )


def painted_side(size: int) -> NDArray[np.intp]:
    """Return the indices of an axis that are painted: one block of the filters', in the middle."""
    start = size // 2 // PAINTED_SIDE * PAINTED_SIDE
    return np.arange(start, min(start + PAINTED_SIDE, size))


def volume_like(extent: Extent) -> Volume:
    """Return a volume of that extent that takes no memory."""
    channels, shape, spacing = extent
    return Volume(constant((channels, *shape), np.uint8), spacing)


def constant(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return zeros that take no memory, and that torch takes for writable."""
    return np.lib.stride_tricks.as_strided(np.zeros(1, dtype), shape, (0,) * len(shape))


class Unpainted(Case):
    """A volume before anything is painted: enough to choose settings by."""

    def __post_init__(self) -> None:
        """Let the annotation be of any shape."""


def forecast(
    volume: Volume, n_classes: int, training: TrainingConfig, resume: Checkpoint | None = None
) -> MemoryPlan:
    """Plan the memory of a training before there is one.

    Raises
    ------
    InputError
        As ``plan_memory``, or if the settings do not fit.
    """
    device = pick_device(training.device)
    architecture = get_architecture(training.model)
    if resume is None:
        case = Unpainted(volume, Annotation(np.zeros((1, 1, 1), np.uint8)))
        model_config = architecture.configure(training, [case], device)
    else:
        model_config = resumed_config(architecture, resume)
    return plan_memory(architecture, model_config, training, [volume], n_classes, device)
