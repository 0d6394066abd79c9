"""A volume on a coarse grid of cells: what is known of it at a bounded cost."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

Triple = tuple[int, int, int]


def choose_cell(shape: Triple, spacing: tuple[float, float, float], most: int) -> Triple:
    """Return the voxels (z, y, x) of a cell, so that a volume has no more than so many cells.

    Powers of two, as cubic in space as doubling can make them; the last cells of an axis may
    be cut.
    """
    cell = [1, 1, 1]
    while math.prod(cells_along(shape, cell)) > most:
        axis = min((a for a in range(3) if cell[a] < shape[a]), key=lambda a: cell[a] * spacing[a])
        cell[axis] *= 2
    return cell[0], cell[1], cell[2]


def cells_along(shape: Sequence[int], cell: Sequence[int]) -> tuple[int, ...]:
    """Return how many cells a volume has along each axis."""
    return tuple(-(-n // c) for n, c in zip(shape, cell, strict=True))


def join_cells(
    values: NDArray[Any], starts: Sequence[int], cell: Triple, join: np.ufunc
) -> NDArray[Any]:
    """Join the values (C, z, y, x) in each cell; they begin at voxel ``starts`` of the volume."""
    for axis, (start, width) in enumerate(zip(starts, cell, strict=True), start=1):
        if width > 1:
            cells = np.arange(start, start + values.shape[axis]) // width
            values = join.reduceat(values, np.flatnonzero(np.diff(cells, prepend=-1)), axis=axis)
    return values
