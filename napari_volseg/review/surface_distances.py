"""Surfaces of the classes of a mask, and how far those of two masks are apart.

The surface of a class is its voxels that touch, by a face, a voxel of another class or the
outside of the volume. It is collected tile by tile, so that a mask need not be an array,
and a surface is little of a volume: the nearest of its voxels is found in k-d trees, a tree for
each tile, of which only those near enough are asked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree

from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.tiles import start_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Tile

OUTSIDE = -1
"""Stands for what is beyond the volume, which is of no class."""

TREES = 64
"""Trees that are kept until they are asked again; one of a full tile may take 100 MB."""

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class SurfacePart:
    """The surface voxels of a class in a tile.

    Attributes
    ----------
    start : int64 (3,)
        Where the tile begins in the volume.
    inside : unsigned integer (N, 3)
        Positions in the tile.
    counted : bool (N,)
        Which of them distances are measured from.
    """

    start: NDArray[np.int64]
    inside: NDArray[np.unsignedinteger] = field(repr=False)
    counted: NDArray[np.bool_] = field(repr=False)

    @cached_property
    def corners(self) -> NDArray[np.int64]:
        """First and last position in the volume along each axis, (2, 3)."""
        return np.stack([self.start + self.inside.min(0), self.start + self.inside.max(0)])

    def positions(self, spacing: Spacing) -> NDArray[np.float64]:
        """Return the positions in the volume, (N, 3), in the unit of the spacing."""
        return np.asarray((self.inside + self.start) * np.asarray(spacing))


Surfaces = dict[int, list[SurfacePart]]
"""The surface of each class."""


def collect_surfaces(
    surfaces: Surfaces, tile: Tile, labels: NDArray[np.integer], counted: NDArray[np.bool_]
) -> None:
    """Add the surface voxels of every class in a tile.

    Parameters
    ----------
    surfaces : dict of class id to list of SurfacePart
        Added to.
    tile : Tile
        Reads one voxel more on each side than it writes, where there is one.
    labels : integer (z, y, x)
        Of what the tile reads; 0 is no class.
    counted : bool (z, y, x)
        Of what it writes.
    """
    missing = [
        (1 - trim.start, 1 - (n - trim.stop))
        for trim, n in zip(tile.trim, labels.shape, strict=True)
    ]
    if not np.any(missing) and labels.min() == labels.max():
        return  # All of one class, and so is what is around it.
    around = np.pad(labels.astype(np.int32), missing, constant_values=OUTSIDE)
    own = around[1:-1, 1:-1, 1:-1]
    touches = np.zeros(own.shape, bool)
    for axis in range(3):
        for first in (0, 2):
            near = [slice(1, -1)] * 3
            near[axis] = slice(first, first + own.shape[axis])
            touches |= around[tuple(near)] != own
    touches &= own != UNLABELED
    places, values = np.flatnonzero(touches), own[touches]
    if not len(places):
        return
    order = np.argsort(values, kind="stable")
    ids, begin = np.unique(values[order], return_index=True)
    positions = np.stack(np.unravel_index(places[order], own.shape), 1)
    inside = np.split(positions.astype(np.min_scalar_type(max(own.shape))), begin[1:])
    flags = np.split(counted.reshape(-1)[places[order]], begin[1:])
    start = np.array(start_of(tile.write))
    for class_id, where, flag in zip(ids.tolist(), inside, flags, strict=True):
        surfaces.setdefault(class_id, []).append(SurfacePart(start, where, flag))


def distances(
    one: Sequence[SurfacePart], other: Sequence[SurfacePart], spacing: Spacing
) -> NDArray[np.float32]:
    """Return how far each counted voxel of two surfaces is from the other surface, (N,).

    Parameters
    ----------
    one, other : sequence of SurfacePart
        Neither empty.
    spacing : (z, y, x)
        Size of a voxel, in the unit in which distances are wanted.
    """
    found = [*_nearest(one, other, spacing), *_nearest(other, one, spacing)]
    return np.concatenate([np.zeros(0, np.float32), *found])


def _nearest(
    one: Sequence[SurfacePart], other: Sequence[SurfacePart], spacing: Spacing
) -> Iterator[NDArray[np.float32]]:
    """Yield the distance from the counted voxels of each part to the other surface."""
    corners = np.stack([part.corners for part in other]) * np.asarray(spacing)

    @lru_cache(TREES)
    def tree(number: int) -> Any:
        return KDTree(other[number].positions(spacing))

    here = {tuple(part.start): part for part in other}
    for part in one:
        points = part.positions(spacing)[part.counted]
        first, last = part.corners * np.asarray(spacing)
        gaps = _gap(corners[:, 0] - last, first - corners[:, 1])
        best = np.full(len(points), np.inf)
        # Of masks that are much alike, most voxels of a surface are on the other as well.
        if (same := here.get(tuple(part.start))) is not None:
            best[_shared(part.inside[part.counted], same.inside)] = 0
        # The nearest tiles first, until none can hold anything nearer.
        for number in np.argsort(gaps, kind="stable"):
            if not len(points) or best.max() <= gaps[number]:
                break
            low, high = corners[number]
            may = np.flatnonzero(_gap(low - points, points - high) < best)
            if len(may):
                found, _ = tree(int(number)).query(points[may], workers=-1)
                best[may] = np.minimum(best[may], found)
        yield best.astype(np.float32)


def _gap(below: NDArray[np.float64], above: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far boxes are apart that have so much between them, either way, (N, 3)."""
    return np.asarray(np.linalg.norm(np.maximum(0, np.maximum(below, above)), axis=1))


def _shared(
    positions: NDArray[np.unsignedinteger], others: NDArray[np.unsignedinteger]
) -> NDArray[np.bool_]:
    """Say which positions (N, 3) in a tile are among others (M, 3)."""
    shape = tuple(int(n) + 1 for n in np.concatenate([positions, others]).max(0))
    return np.isin(*(np.ravel_multi_index(tuple(p.T), shape) for p in (positions, others)))
