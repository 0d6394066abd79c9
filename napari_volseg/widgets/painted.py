"""What is painted in an annotation, found from its labels, and from what are corrections.

Nothing else is kept: undo, a file opened again and a restored journal all show the truth.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import UNLABELED, VIEW_OF_AXIS, count_labels
from napari_volseg.data.labeled import labeled_per_slice
from napari_volseg.data.tiles import slice_region

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.labeled import AnyLabels


@dataclass(frozen=True)
class PaintedSlice:
    """A slice that holds paint.

    Attributes
    ----------
    axis, index : int
        Axis 0, 1, 2 is z, y, x.
    complete : bool
        Every voxel of it is labeled.
    """

    axis: int
    index: int
    complete: bool

    @property
    def view(self) -> str:
        """The view it is seen in: "xy", "xz" or "yz"."""
        return VIEW_OF_AXIS[self.axis]


@dataclass(frozen=True)
class Painted:
    """What is painted in an annotation.

    Attributes
    ----------
    counts : mapping of class id to int
        Voxels of each class; only classes that have some.
    slices : tuple of PaintedSlice
        The fewest slices that hold all paint but the corrections, by axis, then index.
    corrected : int
        Voxels that are corrections.
    """

    counts: Mapping[int, int] = field(default_factory=dict)
    slices: tuple[PaintedSlice, ...] = ()
    corrected: int = 0

    @property
    def complete(self) -> frozenset[tuple[int, int]]:
        """The complete slices as (axis, index), as an ``Annotation`` wants them."""
        return frozenset((s.axis, s.index) for s in self.slices if s.complete)


def find_painted(labels: AnyLabels, corrections: Corrections | None = None) -> Painted:
    """Count the classes and find the slices that were painted.

    A slice of one orientation leaves a line of paint in every slice that crosses it, so
    "holds paint" is not "was painted". The slices named are found greedily: the one with
    the most paint, then the one with the most of what is left, until all is explained.

    Parameters
    ----------
    labels : unsigned integer (Z, Y, X), numpy or ``SparseLabels``
        0 is unlabeled. May change meanwhile: the next look corrects what this one saw.
    corrections : Corrections, optional
        One object corrected in 3D crosses dozens of slices that nobody painted.
    """
    paint = labels if corrections is None else corrections.taken_out(labels)
    held = labeled_per_slice(labels)
    left = held if paint is labels else labeled_per_slice(paint)
    slices = sorted(_fewest(paint, [n.copy() for n in left]))
    area = labels.size // np.array(labels.shape)
    return Painted(
        count_labels(labels),
        tuple(PaintedSlice(a, i, bool(held[a][i] == area[a])) for a, i in slices),
        int(held[0].sum() - left[0].sum()),
    )


def _fewest(labels: AnyLabels, left: list[NDArray[np.int64]]) -> list[tuple[int, int]]:
    """Pick slices, most paint first, until none is left; ``left`` holds the paint per slice."""
    open_ = [np.ones(n, dtype=bool) for n in labels.shape]
    picked: list[tuple[int, int]] = []
    while True:
        axis = int(np.argmax([n.max() for n in left]))
        index = int(np.argmax(left[axis]))
        if left[axis][index] <= 0:
            return picked
        picked.append((axis, index))
        first, second = (a for a in range(3) if a != axis)
        plane = labels[slice_region(labels.shape, axis, index)]
        rest = plane.squeeze(axis) != UNLABELED
        rest &= open_[first][:, None] & open_[second][None, :]
        left[first] -= np.count_nonzero(rest, axis=1)
        left[second] -= np.count_nonzero(rest, axis=0)
        left[axis][index] = 0
        open_[axis][index] = False
