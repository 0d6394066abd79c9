"""Which voxels of an annotation a review wrote, to tell them from painted slices."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.history import Act, Patch, make_act, unpack
from napari_volseg.data.sparse_labels import BLOCK_SIZE, block_box
from napari_volseg.data.tiles import meet, relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.sparse_labels import Index
    from napari_volseg.data.tiles import Region

CORRECTIONS = "corrections"
MARKS = "|u1"


@dataclass(frozen=True, eq=False)
class Corrections:
    """Marked voxels of an annotation, compressed block by block; never changed in place.

    Attributes
    ----------
    blocks : mapping of index (z, y, x) to Act
        Each puts the marks, 1 or 0, of a block. Blocks reach beyond the annotation.
    """

    blocks: Mapping[Index, Act] = field(default_factory=dict)

    def marked(
        self, box: Region, where: NDArray[np.bool_], corrected: bool
    ) -> tuple[Corrections, tuple[Patch, ...]]:
        """Mark voxels of a box, or take their marks away.

        Parameters
        ----------
        where : bool, of the box's shape

        Returns
        -------
        corrections : Corrections
        before : tuple of Patch
            What ``put`` takes to go back.
        """
        now: list[Patch] = []
        for index in _blocks_of(box):
            if not corrected and index not in self.blocks:
                continue
            block = block_box(index)
            common = meet(box, block)
            changed = where[relative(common, box)]
            if not changed.any():
                continue
            marks = self._marks(index)
            part = marks[relative(common, block)]
            if (part[changed] != corrected).any():
                part[changed] = corrected
                now.extend(_patches(index, marks))
        return self.put(now), self.like(now)

    def put(self, patches: Iterable[Patch]) -> Corrections:
        """Return them with the marks of some blocks, as ``marked`` and ``like`` return them."""
        blocks = dict(self.blocks)
        for patch in patches:
            index = _index(patch)
            if patch.voxels:
                blocks[index] = Act(CORRECTIONS, MARKS, (patch,))
            else:
                blocks.pop(index, None)
        return Corrections(blocks) if blocks != self.blocks else self

    def like(self, patches: Iterable[Patch]) -> tuple[Patch, ...]:
        """Return the marks as they are of the blocks of these patches."""
        return tuple(
            self.blocks[_index(p)].patches[0] if _index(p) in self.blocks else Patch(p.box, b"")
            for p in patches
        )

    def taken_out(self, labels: AnyLabels) -> AnyLabels:
        """Return labels (Z, Y, X) without what is marked; the same ones if nothing is."""
        if not self.blocks:
            return labels
        left = labels.copy()
        for index in self.blocks:
            block = left[block_box(index)]
            z, y, x = block.shape
            block[self._marks(index)[:z, :y, :x]] = UNLABELED
            left[block_box(index)] = block
        return left

    def _marks(self, index: Index) -> NDArray[np.bool_]:
        if index not in self.blocks:
            return np.zeros((BLOCK_SIZE,) * 3, bool)
        marks: NDArray[np.bool_] = unpack(self.blocks[index].patches[0], MARKS) > 0
        return marks


def marking_act(
    name: str,
    dtype: np.dtype[Any],
    pieces: Iterable[tuple[Region, NDArray[Any], NDArray[Any]]],
    corrections: Corrections,
    corrected: bool,
) -> Act:
    """Make an act of what boxes held before and hold after it.

    Parameters
    ----------
    name : str
    dtype : dtype
        Of the labels after it.
    pieces : iterable of (box, before, after)
    corrections : Corrections
        Without it.
    corrected : bool
        Whether what changes is marked as corrected, or as that no longer.
    """
    patches, now, marks = mark_changes(pieces, corrections, corrected)
    return Act(name, dtype.str, patches, marks=now.like(marks))


def mark_changes(
    pieces: Iterable[tuple[Region, NDArray[Any], NDArray[Any]]],
    corrections: Corrections,
    corrected: bool,
) -> tuple[tuple[Patch, ...], Corrections, tuple[Patch, ...]]:
    """Pack what boxes become, and mark where that is something else.

    Parameters
    ----------
    pieces : iterable of (box, from, to)
    corrections, corrected
        As of ``marking_act``.

    Returns
    -------
    patches : tuple of Patch
        Of what differs.
    now : Corrections
    before : tuple of Patch
        The marks as they were, where they are others now.
    """
    patches: list[Patch] = []
    before: list[Patch] = []
    for box, old, new in pieces:
        patches += make_act("", box, new, old).patches
        corrections, marks = corrections.marked(box, new != old, corrected)
        before += marks
    return tuple(patches), corrections, tuple(before)


def _blocks_of(box: Region) -> Iterable[Index]:
    z, y, x = (range(s.start // BLOCK_SIZE, -(-s.stop // BLOCK_SIZE)) for s in box)
    return product(z, y, x)


def _index(patch: Patch) -> Index:
    z, y, x = (side.start // BLOCK_SIZE for side in patch.box)
    return z, y, x


def _patches(index: Index, marks: NDArray[np.bool_]) -> tuple[Patch, ...]:
    """Return the patch of a block; without voxels, if nothing in it is marked."""
    box = block_box(index)
    values = marks.astype(MARKS)
    act = make_act(CORRECTIONS, box, values, np.zeros_like(values))
    return act.patches or (Patch(box, b""),)
