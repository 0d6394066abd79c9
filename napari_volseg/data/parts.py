"""Labels held in an array or in blocks: many boxes of them at once, and what they take."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from napari_volseg.data.history import PATCH_BYTES
from napari_volseg.data.sparse_labels import SparseLabels, block_box, block_indices
from napari_volseg.data.tiles import absolute, around, meet, relative, whole_region

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.sparse_labels import Index
    from napari_volseg.data.tiles import Region


def memory_of(labels: AnyLabels) -> int:
    """Return about how many bytes labels take: an array, or their blocks as they are packed."""
    if isinstance(labels, SparseLabels):
        return sum(PATCH_BYTES + len(block.voxels) for block in labels.blocks().values())
    return int(labels.nbytes)


def parts_of(labels: AnyLabels, boxes: Sequence[Region]) -> list[tuple[Region, list[int]]]:
    """Return parts of labels that hold these boxes, and do not overlap, none too large to be read.

    Of an array it is one around them all, else they are blocks.

    Returns
    -------
    list of (part, list of int)
        With each part, which boxes meet it, by their places in the sequence.
    """
    if not isinstance(labels, SparseLabels):
        return [(around(boxes), list(range(len(boxes))))] if boxes else []
    met = sorted(_by_block(boxes).items())
    return [(_part(labels, index), which) for index, which in met]


def put_where(labels: AnyLabels, pieces: Iterable[tuple[Region, AnyLabels, int]]) -> None:
    """Put labels to some voxels of boxes, one box after the other, in place.

    Parameters
    ----------
    pieces : iterable of (box, where, label)
        Which voxels of a box inside the labels get which label; ``where`` is bool, of the
        box's shape.
    """
    if not isinstance(labels, SparseLabels):
        for box, where, label in pieces:
            for part, inside in labeled_pieces(box, where):
                labels[part][inside] = label
        return
    # Each block is unpacked once, however many boxes lie in it.
    put = list(pieces)
    for index, which in _by_block([box for box, _, _ in put]).items():
        part = _part(labels, index)
        values = labels[part]
        for at in which:
            box, where, label = put[at]
            common = meet(box, part)
            values[relative(common, part)][where[relative(common, box)]] = label
        labels[part] = values


def take_over(labels: AnyLabels, changed: AnyLabels, boxes: Sequence[Region]) -> None:
    """Put what a changed copy of labels holds in some boxes into them, in place."""
    if isinstance(labels, SparseLabels):
        labels.adopt(changed, boxes)
        return
    for box in boxes:
        labels[box] = changed[box]


def labeled_pieces(box: Region, where: AnyLabels) -> Iterator[tuple[Region, NDArray[Any]]]:
    """Yield boxes that hold all of what is true in a box, and what is true in them as an array."""
    if not isinstance(where, SparseLabels):
        yield box, where
        return
    for block in where.blocks().values():
        yield absolute(block.box, box), block.labels


def _by_block(boxes: Sequence[Region]) -> dict[Index, list[int]]:
    """Return which boxes meet each block."""
    met: defaultdict[Index, list[int]] = defaultdict(list)
    for at, box in enumerate(boxes):
        for index in block_indices(box):
            met[index].append(at)
    return met


def _part(labels: SparseLabels, index: Index) -> Region:
    return meet(block_box(index), whole_region(labels.shape))
