"""Where the held-out voxels are: on which painted slice, and how far from what is trained on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.cells import cells_along, choose_cell
from napari_volseg.data.labeled import labeled_in_either, labeled_per_slice, labeled_positions
from napari_volseg.data.sparse_labels import SparseLabels, block_box
from napari_volseg.data.tiles import crop_around, meet, start_of, whole_region
from napari_volseg.sparse.stage import IGNORE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels

LEAST_VOXELS = 50
"""Held-out voxels, of a class or a slice, below which they tell nothing: neighbors are alike."""

MOST_CELLS = 2**21
"""Of the grid that distances are measured on: 128 along each edge of a cube, under a second."""


@dataclass(frozen=True, eq=False)
class HeldOutPlaces:
    """Where each held-out voxel of a volume is.

    Attributes
    ----------
    shape : (Z, Y, X)
        Of the volume.
    voxels : int64 (N,)
        Flat positions of the held-out voxels, ascending.
    slice_of : int64 (N,)
        The painted slice that each is on, as a position in ``slice_axes``.
    slice_axes : int8 (S,)
        The axis that each painted slice is across.
    far : bool (N,)
        Whether it is farther than ``reach`` from every voxel that is trained on.
    reach : float
        Half of the volume is farther than this from every voxel that is trained on; in the
        unit of the spacing.
    unchecked : float
        Part of the volume that is farther from every voxel that is trained on than all
        held-out foreground voxels but a few (``LEAST_VOXELS``).
    """

    shape: tuple[int, ...]
    voxels: NDArray[np.int64] = field(repr=False)
    slice_of: NDArray[np.int64] = field(repr=False)
    slice_axes: NDArray[np.int8] = field(repr=False)
    far: NDArray[np.bool_] = field(repr=False)
    reach: float
    unchecked: float

    def find(self, positions: NDArray[np.int64]) -> NDArray[np.intp]:
        """Return which entries held-out voxels (N, 3) have."""
        at: NDArray[np.intp]
        at = np.searchsorted(self.voxels, np.ravel_multi_index(tuple(positions.T), self.shape))
        return at


def locate_held_out(
    trained: AnyLabels,
    held_out: AnyLabels,
    spacing: tuple[float, float, float],
) -> HeldOutPlaces:
    """Tell where the held-out voxels of a volume are.

    Distances are those of cells, 0 in one that holds a trained voxel: of large volumes they
    are somewhat too short, so that nothing counts as far that is not.

    Parameters
    ----------
    trained, held_out : int16 (Z, Y, X), numpy or ``SparseLabels``
        Class index, ``IGNORE`` elsewhere.
    spacing : (z, y, x)
    """
    positions, classes = labeled_positions(held_out, IGNORE)
    axes, index = painted_slices(labeled_in_either(trained, held_out, IGNORE), positions)
    slices, slice_of = np.unique(np.stack([axes, index]), axis=1, return_inverse=True)
    z, y, x = trained.shape
    cell = choose_cell((z, y, x), spacing, MOST_CELLS)
    has_trained = np.zeros(cells_along((z, y, x), cell), bool)
    has_trained[tuple((labeled_positions(trained, IGNORE)[0] // cell).T)] = True
    edges = np.multiply(cell, spacing)
    distance = distance_transform_edt(~has_trained, sampling=edges).astype(np.float32)
    reach = float(np.median(distance))
    away = distance[tuple((positions // cell).T)]
    farthest = np.sort(away[classes > 0])[::-1]
    few = LEAST_VOXELS - 1
    checked = farthest[few] if len(farthest) > few else -1.0
    return HeldOutPlaces(
        shape=trained.shape,
        voxels=np.ravel_multi_index(tuple(positions.T), trained.shape),
        slice_of=slice_of.reshape(-1),
        slice_axes=slices[0].astype(np.int8),
        far=away > reach,
        reach=reach,
        unchecked=float((distance > checked).mean()),
    )


def painted_slices(
    painted: AnyLabels, positions: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Tell for painted voxels (N, 3) which slice each was painted on: its axis, and its index.

    As ``slice_axes``; where slices cross, the one with the most paint.
    """
    beside = painted_beside(painted, positions).astype(np.float64)
    for axis, held in enumerate(labeled_per_slice(painted)):
        # Less than 1, so that it decides between equals only.
        part = held / (painted.size // len(held) + 1)
        beside[axis] -= part[positions[:, axis]]
    axes = beside.argmin(0)
    return axes, np.take_along_axis(positions, axes[:, None], axis=1)[:, 0].astype(np.int64)


def slice_axes(painted: AnyLabels, positions: NDArray[np.int32]) -> NDArray[np.int8]:
    """Tell for painted voxels (N, 3) which axis the slice that they were painted on is across.

    It is the axis along which the fewest neighbors are painted too; the first of equals.

    Parameters
    ----------
    painted : labels or bool (Z, Y, X), numpy or ``SparseLabels``
        0 where nothing is painted.
    """
    axes: NDArray[np.int8] = painted_beside(painted, positions).argmin(0).astype(np.int8)
    return axes


def painted_beside(painted: AnyLabels, positions: NDArray[np.int32]) -> NDArray[np.int8]:
    """Count the painted neighbors along each axis, int8 (3, N), beyond the border mirrored.

    So slices that cross do so at the border, too.
    """
    neighbors = np.zeros((3, len(positions)), dtype=np.int8)
    if isinstance(painted, SparseLabels):
        for index, which, _ in painted.by_block(positions.T):
            core = meet(block_box(index), whole_region(painted.shape))
            seen, _ = crop_around(core, (1, 1, 1), (1, 1, 1), painted.shape)
            start = np.array(start_of(seen), np.int32)
            neighbors[:, which] = painted_beside(painted[seen], positions[which] - start)
        return neighbors
    for axis, size in enumerate(painted.shape):
        if size == 1:
            continue
        for step in (-1, 1):
            beside = positions.copy()
            moved = np.abs(beside[:, axis] + step)
            beside[:, axis] = np.where(moved < size, moved, size - 2)
            neighbors[axis] += painted[tuple(beside.T)] != UNLABELED
    return neighbors
