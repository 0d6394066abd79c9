"""Many boxes of labels at once, whether they are held in an array or in blocks."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from napari_volseg.data.sparse_labels import SparseLabels, block_box, block_indices
from napari_volseg.data.tiles import around, meet, relative, whole_region

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.sparse_labels import AnyLabels, Index
    from napari_volseg.data.tiles import Region


def parts_of(labels: AnyLabels, boxes: Sequence[Region]) -> list[Region]:
    """Return boxes that hold these, and do not overlap: one of an array, else blocks."""
    if not boxes:
        return []
    if not isinstance(labels, SparseLabels):
        return [around(boxes)]
    indices = {index for box in boxes for index in block_indices(box)}
    return [meet(block_box(index), whole_region(labels.shape)) for index in sorted(indices)]


def put_where(labels: AnyLabels, pieces: Iterable[tuple[Region, NDArray[Any], int]]) -> None:
    """Put labels to some voxels of boxes, one box after the other, in place.

    Parameters
    ----------
    pieces : iterable of (box, where, label)
        Which voxels of a box inside the labels get which label; ``where`` is bool, of the
        box's shape.
    """
    if not isinstance(labels, SparseLabels):
        for box, where, label in pieces:
            labels[box][where] = label
        return
    # Each block is unpacked once, however many boxes lie in it.
    of_block: defaultdict[Index, list[tuple[Region, NDArray[Any], int]]] = defaultdict(list)
    for piece in pieces:
        for index in block_indices(piece[0]):
            of_block[index].append(piece)
    for index, some in of_block.items():
        whole = meet(block_box(index), whole_region(labels.shape))
        values = labels[whole]
        for box, where, label in some:
            common = meet(box, whole)
            values[relative(common, whole)][where[relative(common, box)]] = label
        labels[whole] = values
