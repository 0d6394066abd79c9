"""Volumes without voxels, on which a training runs through to have its memory counted."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_volseg.data.annotation import Case
from napari_volseg.data.intensity import ChannelIntensity
from napari_volseg.data.volume import Volume
from napari_volseg.inference.ledger import META
from napari_volseg.sparse.hold_out import empty_blocks
from napari_volseg.sparse.pool import PoolCase

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from napari_volseg.data.tiles import Region

PAINTED_SIDE = 64
"""Of the square on a slice that is painted in the stand-in, in voxels."""

Extent = tuple[int, tuple[int, int, int], tuple[float, float, float]]
"""Channels, shape and spacing of a volume: all of it that memory depends on."""


class StandIn(PoolCase):
    """A volume without voxels: what is read of it lies on the meta device."""

    def read(self, region: Region) -> Tensor:
        """Return a region as large as it would be, float32 (C, z, y, x)."""
        # A region that was found by values, and there are none, may be empty.
        sides = [max(1, side.stop - side.start) for side in region]
        return torch.empty(self.volume.channels, *sides, device=META)

    @cached_property
    def judged(self) -> tuple[NDArray[np.int32], NDArray[np.integer], NDArray[np.int8]]:
        """Nothing is held out: it would be a few voxels more."""
        return np.empty((0, 3), np.int32), np.empty(0, np.int16), np.empty(0, np.int8)


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
