"""Connected components of a mask that is held in blocks, tile by tile.

A tile is looked at together with the last voxels of the tiles before it. What hangs together
there has a number in each of them; at the end, such parts are made one component.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any, Final

import cc3d
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.sparse_labels import block_indices
from napari_volseg.data.tiles import TILE, relative, start_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from napari_volseg.data.sparse_labels import SparseLabels
    from napari_volseg.data.tiles import Region

NEIGHBORS: Final = 26
"""Voxels that touch, by a face, an edge or a corner, belong together."""

LOOKING = 0.8
"""Part of the work that looking at the tiles is; the rest is to number what was found."""

COMPONENT = np.dtype(
    [
        ("value", np.uint16),
        ("voxels", np.int64),
        ("sums", np.float64, 3),
        ("first", np.int64, 3),
        ("last", np.int64, 3),
        ("at", np.int64),
    ]
)
"""What is known of a component: its value in the mask, how many voxels it has, the sums of their
positions (exact), the corners of the smallest box, and where in the volume's order it begins."""


def find_components(
    mask: SparseLabels, smallest: int
) -> Generator[float, None, tuple[SparseLabels, NDArray[Any]]]:
    """Find the connected components of each class of a mask, and yield how much is done, 0 to 1.

    Only tiles that hold anything but background are looked at.

    Parameters
    ----------
    mask : SparseLabels, uint8 or uint16 (Z, Y, X)
        0 (unlabeled) and 1 (background) are in no component.
    smallest : int
        Components of fewer voxels are left out.

    Returns
    -------
    labels : SparseLabels, int32 (Z, Y, X)
        Component of each voxel, from 1; 0 for none.
    components : COMPONENT (N,)
        Value by value of the mask, each value's in the order of their first voxels.
    """
    holding = {i for i, block in mask.blocks().items() if (block.labels > BACKGROUND).any()}
    tiles = [t for t in _tiles(mask.shape) if not holding.isdisjoint(block_indices(t[0]))]
    labels = mask.empty(np.uint32)
    parts, pairs, count = [np.zeros(0, COMPONENT)], [np.zeros((2, 0), np.int64)], 0
    for done, (read, write) in enumerate(tiles):
        yield LOOKING * done / len(tiles)
        found, same = _look(mask, labels, count, read, write)
        parts.append(found)
        pairs.append(same)
        count += len(found)
    table, components = _join(np.concatenate(parts), np.concatenate(pairs, 1), smallest)
    numbered, blocks = mask.empty(np.int32), labels.blocks()
    for done, block in enumerate(blocks.values()):
        yield LOOKING + (1 - LOOKING) * done / len(blocks)
        numbered[block.box] = table[block.labels]
    return numbered, components


def _tiles(shape: tuple[int, int, int]) -> Iterator[tuple[Region, Region]]:
    """Yield what to read of each tile, and what to write, in the volume's order."""
    axes = [
        [
            (slice(max(0, start - 1), min(start + TILE, n)), slice(start, min(start + TILE, n)))
            for start in range(0, n, TILE)
        ]
        for n in shape
    ]
    for z, y, x in product(*axes):
        yield (z[0], y[0], x[0]), (z[1], y[1], x[1])


def _look(
    mask: SparseLabels, labels: SparseLabels, count: int, read: Region, write: Region
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Label the parts of components in a tile.

    Two voxels that touch are both read with the tile of the larger of each of their
    coordinates, so that no other neighbors need to be asked.

    Parameters
    ----------
    labels : SparseLabels, uint32
        Parts are put there, with numbers above those of earlier tiles.
    count : int
        Parts of earlier tiles.

    Returns
    -------
    parts : COMPONENT (n,)
        Without voxels for those that lie in earlier tiles only.
    same : int64 (2, m)
        Numbers of parts that are of the same component.
    """
    values = mask[read]
    values[values == BACKGROUND] = 0
    local, n = cc3d.connected_components(
        values, connectivity=NEIGHBORS, return_N=True, out_dtype=np.uint32
    )
    pairs = [np.zeros((2, 0), np.int64)]
    for axis in range(3):
        if read[axis].start < write[axis].start:
            at = tuple(slice(0, 1) if a == axis else slice(None) for a in range(3))
            face = tuple(
                slice(r.start, r.start + 1) if a == axis else r for a, r in enumerate(read)
            )
            here = local[at]
            found = here > 0
            codes = np.unique(labels[face][found].astype(np.uint64) << 32 | here[found])
            pairs.append(np.stack([codes >> 32, (codes & 0xFFFFFFFF) + count]).astype(np.int64))
            local[at] = 0
    inside = relative(write, read)
    parts = _describe(local, values, n, read, mask.shape)
    numbers = local[inside]
    labels[write] = np.where(numbers > 0, numbers + np.uint32(count), np.uint32(0))
    return parts, np.concatenate(pairs, 1)


def _describe(
    local: NDArray[np.unsignedinteger],
    values: NDArray[np.integer],
    n: int,
    read: Region,
    shape: tuple[int, int, int],
) -> NDArray[Any]:
    """Describe the parts 1 to n of a tile; some may have no voxels."""
    parts = np.zeros(n, COMPONENT)
    statistics = cc3d.statistics(local, no_slice_conversion=True)
    # It ends with the last part that has voxels.
    counts = statistics["voxel_counts"][1 : n + 1].astype(np.int64)
    there = np.flatnonzero(counts)
    start = np.array(start_of(read))
    boxes = statistics["bounding_boxes"][1:][there].astype(np.int64)
    centers = statistics["centroids"][1:][there]
    voxels = counts[there][:, None]
    parts["voxels"][there] = counts[there]
    parts["sums"][there] = np.rint(centers * voxels) + voxels * start
    parts["first"] = np.iinfo(np.int64).max
    parts["first"][there], parts["last"][there] = boxes[:, ::2] + start, boxes[:, 1::2] + start
    places = np.flatnonzero(local)
    begin = np.zeros(n, np.int64)
    # Of voxels of the same part, what is put last stays: the first.
    begin[local.reshape(-1)[places[::-1]] - 1] = places[::-1]
    positions = np.stack(np.unravel_index(begin[there], local.shape)) + start[:, None]
    parts["at"] = np.iinfo(np.int64).max
    parts["at"][there] = np.ravel_multi_index(tuple(positions), shape)
    parts["value"][there] = values.reshape(-1)[begin[there]]
    return parts


def _join(
    parts: NDArray[Any], pairs: NDArray[np.int64], smallest: int
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Make components of parts.

    Returns
    -------
    table : int32 (parts + 1,)
        The component of each part, from 1; 0 for none.
    components : COMPONENT (N,)
    """
    n = len(parts)
    if not n:
        return np.zeros(1, np.int32), parts
    graph = coo_array((np.ones(pairs.shape[1], bool), tuple(pairs - 1)), shape=(n, n))
    count, of_part = connected_components(graph, directed=False)
    whole = np.zeros(count, COMPONENT)
    whole["first"] = whole["at"] = np.iinfo(np.int64).max
    for name, put in (
        ("value", np.maximum),
        ("voxels", np.add),
        ("sums", np.add),
        ("first", np.minimum),
        ("last", np.maximum),
        ("at", np.minimum),
    ):
        put.at(whole[name], of_part, parts[name])
    order = np.lexsort((whole["at"], whole["value"]))
    order = order[whole["voxels"][order] >= smallest]
    numbers = np.zeros(count, np.int32)
    numbers[order] = np.arange(1, len(order) + 1)
    return np.concatenate([[0], numbers[of_part]]).astype(np.int32), whole[order]
