"""What is labeled of labels of either kind, an array of all voxels or sparse ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.sparse_labels import SparseLabels, block_box, places_where
from napari_volseg.data.tiles import meet, whole_region

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    from napari_volseg.data.sparse_labels import Index, PackedBlock
    from napari_volseg.data.tiles import Region

AnyLabels = Any
"""Labels (Z, Y, X): an array of numpy, or ``SparseLabels``."""


def labeled_boxes(labels: AnyLabels) -> list[Region]:
    """Return boxes that hold all that is labeled, none of them large, and do not overlap."""
    if isinstance(labels, SparseLabels):
        return [block.box for _, block in sorted(labels.blocks().items(), key=_first)]
    _, height, width = labels.shape
    return [(slice(z, z + 1), slice(0, height), slice(0, width)) for z in range(len(labels))]


def is_labeled(labels: AnyLabels, fill: int = 0) -> bool:
    """Whether anything is labeled."""
    if isinstance(labels, SparseLabels):
        return bool(labels.blocks())
    return bool((labels != fill).any())


def changed_boxes(before: AnyLabels, after: AnyLabels) -> list[Region]:
    """Return boxes outside of which labels of the same shape are equal."""
    if not (isinstance(before, SparseLabels) and isinstance(after, SparseLabels)):
        return [whole_region(before.shape)]
    old, new = before.blocks(), after.blocks()
    indices = sorted(old.keys() | new.keys())
    boxes = [meet(block_box(i), whole_region(after.shape)) for i in indices]
    return [b for i, b in zip(indices, boxes, strict=True) if old.get(i) is not new.get(i)]


def labeled_positions(
    labels: AnyLabels, fill: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.integer]]:
    """Return the positions (N, 3) of all that is labeled, in the volume's order, and its labels."""
    none = np.zeros((0, 3), np.int32), np.zeros(0, labels.dtype)
    places, found = [none[0]], [none[1]]
    for box in labeled_boxes(labels):
        values = labels[box]
        inside = places_where(values != fill)
        sides = zip(inside, box, strict=True)
        places.append(np.stack([at + side.start for at, side in sides], 1).astype(np.int32))
        found.append(values[inside])
    positions, values = np.concatenate(places), np.concatenate(found)
    if isinstance(labels, SparseLabels):
        order = np.argsort(np.ravel_multi_index(tuple(positions.T), labels.shape))
        positions, values = positions[order], values[order]
    return positions, values


def labeled_per_slice(labels: AnyLabels) -> list[NDArray[np.int64]]:
    """Return, for each axis, how many voxels of each slice are labeled, not 0 that is."""
    found = [np.zeros(n, dtype=np.int64) for n in labels.shape]
    if isinstance(labels, SparseLabels):
        for block in labels.blocks().values():
            for slices, side, counts in zip(found, block.box, block.per_slice, strict=True):
                slices[side] += counts
        return found
    for z, plane in enumerate(labels):
        mask = plane != 0
        if not mask.any():
            continue
        found[0][z] = np.count_nonzero(mask)
        found[1] += np.count_nonzero(mask, axis=1)
        found[2] += np.count_nonzero(mask, axis=0)
    return found


def labeled_in_either(one: AnyLabels, other: AnyLabels, fill: int) -> AnyLabels:
    """Return labels that are 1 where one of two, of the same kind, is labeled."""
    if not isinstance(one, SparseLabels):
        return ((one != fill) | (other != fill)).view(np.uint8)
    either = one.map(lambda labels: labels != fill, np.uint8)
    for box in labeled_boxes(other):
        either[box] |= (other[box] != fill).view(np.uint8)
    return either


def identified(labels: AnyLabels) -> bytes:
    """Return bytes that are equal for equal labels of the same kind."""
    if not isinstance(labels, SparseLabels):
        return bytes(labels.tobytes())
    blocks = sorted(labels.blocks().items(), key=_first)
    return b"".join(repr(index).encode() + block.digest for index, block in blocks)


def unlabeled_like(labels: AnyLabels, dtype: DTypeLike, fill: int = 0) -> AnyLabels:
    """Return labels of the shape and kind of others, nothing of them labeled."""
    if isinstance(labels, SparseLabels):
        return labels.empty(dtype, fill)
    return np.full(labels.shape, fill, dtype)


def _first(pair: tuple[Index, PackedBlock]) -> Index:
    return pair[0]
