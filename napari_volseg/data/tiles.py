"""Regions of a volume: what is read, what is written, and what is trimmed in between."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from napari_volseg.data.volume import Volume

Region = tuple[slice, slice, slice]
Border = Literal["mirror", "clip"]

TILE = 128
"""Edge, in voxels, of the tiles in which a mask of any size is looked at."""


@dataclass(frozen=True)
class Tile:
    """A piece of a volume.

    Attributes
    ----------
    read : region
        What to read, context included; with border "mirror" it may reach beyond the volume.
    write : region
        What the tile answers for, inside the volume.
    trim : region
        Where ``write`` lies inside ``read``.
    """

    read: Region
    write: Region
    trim: Region


@dataclass(frozen=True)
class TileGrid(Sequence[Tile]):
    """Tiles that cover a volume, in the order in which they lie.

    Each is made when it is asked for: those of a volume on a cluster's disks may be more than
    memory holds.

    Attributes
    ----------
    axes : three tuples of (read, write, trim)
        The sides of the tiles along z, y and x.
    """

    axes: tuple[tuple[Region, ...], ...]

    def __len__(self) -> int:
        return math.prod(map(len, self.axes))

    @overload
    def __getitem__(self, index: int) -> Tile: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tile]: ...
    def __getitem__(self, index: int | slice) -> Tile | list[Tile]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        places = np.unravel_index(range(len(self))[index], [len(axis) for axis in self.axes])
        return _tile_of([axis[place] for axis, place in zip(self.axes, places, strict=True)])

    def __iter__(self) -> Iterator[Tile]:
        return map(_tile_of, product(*self.axes))

    def meeting(self, region: Region) -> TileGrid:
        """Return those that write some of a region."""
        return TileGrid(
            tuple(
                tuple(s for s in sides if s[1].start < part.stop and part.start < s[1].stop)
                for sides, part in zip(self.axes, region, strict=True)
            )
        )

    @property
    def largest(self) -> Tile:
        """The first of those that read most."""
        return _tile_of([max(axis, key=lambda s: s[0].stop - s[0].start) for axis in self.axes])


def _tile_of(sides: Sequence[Region]) -> Tile:
    """Make a tile of its sides (read, write, trim) along z, y and x."""
    read, write, trim = ((z, y, x) for z, y, x in zip(*sides, strict=True))
    return Tile(read, write, trim)


def tile_grid(
    shape: tuple[int, int, int],
    core: tuple[int, int, int],
    halo: tuple[int, int, int] = (0, 0, 0),
    border: Border = "clip",
    align: tuple[int, int, int] = (1, 1, 1),
) -> TileGrid:
    """Cut a volume into tiles whose cores cover every voxel exactly once.

    Parameters
    ----------
    shape : (z, y, x)
        Of the volume.
    core : (z, y, x)
        Voxels that a tile writes; the last tile of an axis writes what is left. 0
        stands for the whole axis.
    halo : (z, y, x)
        Context to read on each side.
    border : "mirror" or "clip"
        With "mirror" every tile reads ``core + 2 halo`` voxels, whatever lies there;
        with "clip" a tile reads nothing outside the volume.
    align : (z, y, x)
        With "clip", tiles begin to read at multiples of this.

    Raises
    ------
    ValueError
        If a core is not a multiple of ``align``, where tiles would not line up.
    """
    axes = []
    for size, width, context, step in zip(shape, core, halo, align, strict=True):
        width = width or -(-size // step) * step
        if width % step:
            raise ValueError(f"core {core} is not a multiple of {align}")
        axes.append(tuple(_intervals(size, width, context, border, step)))
    return TileGrid(tuple(axes))


def _intervals(size: int, width: int, context: int, border: Border, step: int) -> Iterator[Region]:
    for start in range(0, size, width):
        stop = min(start + width, size)
        if border == "mirror":
            first, last = start - context, start + width + context
        else:
            first = max(0, start - -(-context // step) * step)
            last = min(size, stop + context)
        yield slice(first, last), slice(start, stop), slice(start - first, stop - first)


def crop_around(
    core: Region,
    context: tuple[int, int, int],
    align: tuple[int, int, int],
    shape: Sequence[int],
) -> tuple[Region, Region]:
    """Find what of a block is needed for its core.

    Parameters
    ----------
    core : region
        Inside the block.
    context : (z, y, x)
        Voxels needed on each side, as far as the block has them.
    align : (z, y, x)
        What is needed begins at multiples of this.
    shape : (z, y, x)
        Of the block.

    Returns
    -------
    needed : region
        Inside the block.
    within : region
        Where the core lies inside ``needed``.
    """
    needed, within = [], []
    for side, far, step, size in zip(core, context, align, shape, strict=True):
        first = max(0, (side.start - far) // step * step)
        needed.append(slice(first, min(size, side.stop + far)))
        within.append(slice(side.start - first, side.stop - first))
    return (needed[0], needed[1], needed[2]), (within[0], within[1], within[2])


def read_block(volume: Volume, region: Region) -> NDArray[np.generic]:
    """Read a region of a volume, mirrored where it reaches beyond; see ``cut_block``."""
    return cut_block(volume.image, region)


def cut_block(image: Any, region: Region) -> NDArray[Any]:
    """Cut a region out of an image, mirrored where it reaches beyond.

    Mirroring does not repeat the border voxel, and goes on back and forth if the
    region is larger than the volume.

    Parameters
    ----------
    image : array (C, Z, Y, X), in memory or not

    Returns
    -------
    (C, z, y, x) in the image's dtype; a view where it can be
    """
    shape = image.shape[1:]
    if all(r.start >= 0 and r.stop <= n for r, n in zip(region, shape, strict=True)):
        return np.asarray(image[(slice(None), *region)])
    indices = [mirror_indices(r.start, r.stop, n) for r, n in zip(region, shape, strict=True)]
    low = [int(i.min()) for i in indices]
    inside = [slice(first, int(i.max()) + 1) for first, i in zip(low, indices, strict=True)]
    block = np.asarray(image[(slice(None), *inside)])
    z, y, x = (i - first for first, i in zip(low, indices, strict=True))
    return np.asarray(block[:, z[:, None, None], y[:, None], x])


def mirror_indices(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Map positions start..stop to positions 0..size-1 by mirroring at the ends."""
    if size == 1:
        return np.zeros(stop - start, dtype=np.intp)
    period = 2 * (size - 1)
    folded = np.arange(start, stop) % period
    return np.minimum(folded, period - folded)


def slice_region(shape: Sequence[int], axis: int, index: int) -> Region:
    """Return the region that is one slice of a volume; axis 0, 1, 2 is z, y, x."""
    z, y, x = (
        slice(index, index + 1) if a == axis else slice(0, size) for a, size in enumerate(shape)
    )
    return z, y, x


def whole_region(shape: Sequence[int]) -> Region:
    """Return the region that is all of a volume (z, y, x)."""
    z, y, x = (slice(0, size) for size in shape)
    return z, y, x


def start_of(region: Region) -> tuple[int, int, int]:
    """First voxel (z, y, x) of a region."""
    z, y, x = (side.start for side in region)
    return z, y, x


def center_of(region: Region) -> tuple[float, ...]:
    """Middle of a region in voxels (z, y, x)."""
    return tuple((r.start + r.stop - 1) / 2 for r in region)


def meet(one: Region, other: Region) -> Region:
    """Intersect two regions; empty sides where they do not meet."""
    z, y, x = (
        slice(max(a.start, b.start), max(a.start, b.start, min(a.stop, b.stop)))
        for a, b in zip(one, other, strict=True)
    )
    return z, y, x


def around(boxes: Sequence[Region]) -> Region:
    """Return the smallest box that holds all of these."""
    z, y, x = (
        slice(min(side.start for side in sides), max(side.stop for side in sides))
        for sides in zip(*boxes, strict=True)
    )
    return z, y, x


def box_shape(box: Region) -> tuple[int, int, int]:
    """Return how many voxels a box has along each axis."""
    z, y, x = (side.stop - side.start for side in box)
    return z, y, x


def box_size(box: Region) -> int:
    """Return how many voxels a box holds."""
    return math.prod(box_shape(box))


def relative(region: Region, to: Region) -> Region:
    """Return where a region lies inside another one."""
    z, y, x = (slice(a.start - b.start, a.stop - b.start) for a, b in zip(region, to, strict=True))
    return z, y, x


def absolute(region: Region, of: Region) -> Region:
    """Return where a region that lies inside another one lies outside of it."""
    z, y, x = (slice(a.start + b.start, a.stop + b.start) for a, b in zip(region, of, strict=True))
    return z, y, x


def voxels_read(tiles: Iterable[Tile]) -> int:
    """How many voxels of a volume tiles read, some of them more than once: what they cost."""
    return sum(box_size(tile.read) for tile in tiles)
