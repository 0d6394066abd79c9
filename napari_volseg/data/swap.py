"""Blocks of labels put in place of others, and back: nothing is packed or unpacked for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from napari_volseg.data.labeled import changed_boxes
from napari_volseg.data.parts import memory_of
from napari_volseg.data.tiles import box_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.sparse_labels import SparseLabels
    from napari_volseg.data.tiles import Region


@dataclass(frozen=True, eq=False)
class Swap:
    """What some boxes of ``SparseLabels`` are to hold, and held when that was made.

    Attributes
    ----------
    boxes : tuple of region
    before, after : SparseLabels
        Hold the blocks of the boxes, and no others.
    """

    boxes: tuple[Region, ...]
    before: SparseLabels = field(repr=False)
    after: SparseLabels = field(repr=False)

    @cached_property
    def size_bytes(self) -> int:
        """About how much memory its blocks take."""
        return memory_of(self.before) + memory_of(self.after)

    @property
    def voxels(self) -> int:
        """How many voxels it puts."""
        return sum(box_size(box) for box in self.boxes)

    def put(self, labels: SparseLabels) -> Swap:
        """Put it into labels, in place; return what takes it back."""
        now = picked(labels, self.boxes)
        if not changed_boxes(now, self.before):
            labels.adopt(self.after, self.boxes)
            return Swap(self.boxes, self.after, self.before)
        # Somebody has painted in these blocks: beside what changes, that stays.
        for box in self.boxes:
            after, values = self.after[box], labels[box]
            changed = after != self.before[box]
            values[changed] = after[changed]
            labels[box] = values
        return Swap(self.boxes, picked(labels, self.boxes), now)


def make_swap(before: SparseLabels, after: SparseLabels, boxes: Sequence[Region]) -> Swap:
    """Return the swap that makes some boxes of labels those of a changed copy."""
    return Swap(tuple(boxes), picked(before, boxes), picked(after, boxes))


def picked(labels: SparseLabels, boxes: Sequence[Region]) -> SparseLabels:
    """Return the blocks that hold some boxes, and no others."""
    some = labels.empty(labels.dtype, labels.fill)
    some.adopt(labels, boxes)
    return some
