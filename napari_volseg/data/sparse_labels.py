"""Labels of a volume too large for an array: only blocks that hold some are kept, compressed.

What is painted of a large volume are some slices of it. An array of all its voxels would not
fit into memory, and every pass over it would be over nothing, mostly.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import product
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from napari_volseg.data.tiles import box_shape, meet, relative, whole_region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import DTypeLike, NDArray

    from napari_volseg.data.tiles import Region

Index = tuple[int, int, int]

BLOCK_SIZE = 64
"""Edge of a block, in voxels."""


@dataclass(frozen=True, eq=False)
class PackedBlock:
    """The labels of a block, compressed; whatever changes makes another one.

    Attributes
    ----------
    box : region
        Where it lies, inside the volume.
    dtype : dtype
    fill : int
        The label of what is unlabeled.
    voxels : bytes
    """

    box: Region
    dtype: np.dtype[Any]
    fill: int
    voxels: bytes = field(repr=False)

    @property
    def labels(self) -> NDArray[Any]:
        """Its labels (z, y, x), not to be changed."""
        return _seen_lately(self)

    def unpack(self) -> NDArray[Any]:
        """Return its labels (z, y, x), to be changed as one likes."""
        sides = box_shape(self.box)
        room = bytearray(math.prod(sides) * self.dtype.itemsize)
        imagecodecs.zstd_decode(self.voxels, out=room)
        return np.frombuffer(room, self.dtype).reshape(sides)

    @cached_property
    def digest(self) -> bytes:
        """What tells it from the same block with other labels."""
        return hashlib.blake2b(self.voxels, digest_size=16).digest()

    @cached_property
    def counts(self) -> dict[int, int]:
        """The voxels of each label, none of them negative, but that of what is unlabeled."""
        labels = self.labels
        counts = np.bincount(labels[labels != self.fill])
        return {int(i): int(counts[i]) for i in np.flatnonzero(counts)}

    @cached_property
    def per_slice(self) -> tuple[NDArray[np.intp], ...]:
        """For each axis, how many voxels of each slice of the block are labeled."""
        pairs = zip(places_where(self.labels != self.fill), self.labels.shape, strict=True)
        return tuple(np.bincount(at, minlength=size) for at, size in pairs)


@lru_cache(maxsize=128)
def _seen_lately(block: PackedBlock) -> NDArray[Any]:
    # Who looks at the neighbors of every voxel comes back to the same blocks again and again.
    labels = block.unpack()
    labels.setflags(write=False)
    return labels


class SparseLabels:
    """Labels (Z, Y, X) that are read and written like an array, box by box.

    It can be indexed by integers, slices without a step, and one array of integers for each
    axis. What is read is a copy. To copy all of it takes next to nothing, and what copies
    have in common they share.

    Parameters
    ----------
    shape : (z, y, x)
    dtype : integer
    fill : int
        The label of what is unlabeled, of which no block is kept.
    """

    ndim = 3

    def __init__(self, shape: Sequence[int], dtype: DTypeLike, fill: int = 0) -> None:
        z, y, x = shape
        self.shape = (int(z), int(y), int(x))
        self.dtype = np.dtype(dtype)
        self.fill = fill
        self._blocks: dict[Index, PackedBlock] = {}

    @property
    def size(self) -> int:
        """Number of voxels."""
        z, y, x = self.shape
        return z * y * x

    def blocks(self) -> dict[Index, PackedBlock]:
        """Return the blocks that hold labels, as they are now, by their index."""
        return dict(self._blocks)

    def counts(self) -> dict[int, int]:
        """Return the voxels of each label but that of what is unlabeled, by label."""
        total: Counter[int] = Counter()
        for block in self.blocks().values():
            total.update(block.counts)
        return dict(sorted(total.items()))

    def copy(self) -> SparseLabels:
        """Return labels that change apart from these."""
        copied = self.empty(self.dtype, self.fill)
        copied._blocks = self.blocks()
        return copied

    def adopt(self, other: SparseLabels, boxes: Iterable[Region]) -> None:
        """Take over the blocks of a changed copy that hold these boxes; takes next to no time."""
        blocks = other.blocks()
        for index in {index for box in boxes for index in block_indices(box)}:
            if index in blocks:
                self._blocks[index] = blocks[index]
            else:
                self._blocks.pop(index, None)

    def empty(self, dtype: DTypeLike, fill: int = 0) -> SparseLabels:
        """Return labels of the same shape, nothing of them labeled."""
        return SparseLabels(self.shape, dtype, fill)

    def astype(self, dtype: DTypeLike) -> SparseLabels:
        """Return a copy of another type."""
        if np.dtype(dtype) == self.dtype:
            return self.copy()
        return self.map(lambda labels: labels.astype(dtype), dtype)

    def map(
        self, change: Callable[[NDArray[Any]], NDArray[Any]], dtype: DTypeLike, fill: int = 0
    ) -> SparseLabels:
        """Return what becomes of the labels, block by block; of what is unlabeled, ``fill``."""
        changed = self.empty(dtype, fill)
        for index, block in self.blocks().items():
            changed._put(index, change(block.labels))
        return changed

    def __getitem__(self, key: Any) -> Any:
        """Return a copy of a box, or of the labels at some places."""
        if _is_fancy(key):
            return self._at(key)
        box, collapsed = self._box(key)
        values = np.full(box_shape(box), self.fill, self.dtype)
        for index in block_indices(box):
            block = self._blocks.get(index)
            if block is not None:
                common = meet(box, block.box)
                values[relative(common, box)] = block.labels[relative(common, block.box)]
        return values[tuple(0 if gone else slice(None) for gone in collapsed)]

    def __setitem__(self, key: Any, value: Any) -> None:
        """Put labels into a box, or to some places."""
        if _is_fancy(key):
            self._put_at(key, value)
            return
        box, collapsed = self._box(key)
        sides = box_shape(box)
        kept = [n for n, gone in zip(sides, collapsed, strict=True) if not gone]
        values = np.broadcast_to(np.asarray(value, self.dtype), kept).reshape(sides)
        for index in block_indices(box):
            whole = self._block_box(index)
            common = meet(box, whole)
            block = values[relative(common, box)]
            if common != whole:
                part, block = block, self._unpacked(index)
                block[relative(common, whole)] = part
            self._put(index, block)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all of them as an array, which takes the memory for it."""
        return np.asarray(self[:], dtype)

    def _box(self, key: Any) -> tuple[Region, list[bool]]:
        """Return the box of an index, and which of its axes are of a single number."""
        given = list(key) if isinstance(key, tuple) else [key]
        if Ellipsis in given:
            at = given.index(Ellipsis)
            given[at : at + 1] = [slice(None)] * (4 - len(given))
        given += [slice(None)] * (3 - len(given))
        sides, collapsed = [], []
        for one, size in zip(given, self.shape, strict=True):
            if isinstance(one, slice):
                start, stop, step = one.indices(size)
                if step != 1:
                    raise IndexError(f"sparse labels are read without a step, not with {one}")
                sides.append(slice(start, max(start, stop)))
            else:
                at = operator.index(one)
                if not -size <= at < size:
                    raise IndexError(f"{at} is outside of labels of shape {self.shape}")
                sides.append(slice(at % size, at % size + 1))
            collapsed.append(not isinstance(one, slice))
        return (sides[0], sides[1], sides[2]), collapsed

    def _at(self, key: tuple[Any, ...]) -> NDArray[Any]:
        places, shape = _places(key)
        values = np.empty(places.shape[1], self.dtype)
        for index, which, inside in self.by_block(places):
            block = self._blocks.get(index)
            values[which] = self.fill if block is None else block.labels[inside]
        return values.reshape(shape)

    def _put_at(self, key: tuple[Any, ...], value: Any) -> None:
        places, shape = _places(key)
        values = np.broadcast_to(np.asarray(value, self.dtype), shape).reshape(-1)
        for index, which, inside in self.by_block(places):
            block = self._unpacked(index)
            block[inside] = values[which]
            self._put(index, block)

    def by_block(
        self, places: NDArray[np.integer]
    ) -> Iterator[tuple[Index, NDArray[np.intp], tuple[NDArray[np.intp], ...]]]:
        """Yield for each block that holds places (3, N): which ones, and where inside it."""
        grid = [-(-n // BLOCK_SIZE) for n in self.shape]
        number = np.ravel_multi_index(tuple(places // BLOCK_SIZE), tuple(grid))
        for which in equal_numbers(number):
            z, y, x = (int(i) for i in np.unravel_index(number[which[0]], grid))
            yield (z, y, x), which, tuple(places[:, which] % BLOCK_SIZE)

    def _block_box(self, index: Index) -> Region:
        return meet(block_box(index), whole_region(self.shape))

    def _unpacked(self, index: Index) -> NDArray[Any]:
        block = self._blocks.get(index)
        if block is not None:
            return block.unpack()
        sides = box_shape(self._block_box(index))
        return np.full(sides, self.fill, self.dtype)

    def _put(self, index: Index, values: NDArray[Any]) -> None:
        if (values == self.fill).all():
            self._blocks.pop(index, None)
            return
        voxels = bytes(imagecodecs.zstd_encode(values.tobytes(), level=1))
        self._blocks[index] = PackedBlock(self._block_box(index), self.dtype, self.fill, voxels)


def block_box(index: Index) -> Region:
    """Return the box of a block; the last ones of an axis reach beyond the labels."""
    z, y, x = (slice(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE) for i in index)
    return z, y, x


def block_indices(box: Region) -> Iterator[Index]:
    """Return the blocks that hold any of a box."""
    if any(side.start == side.stop for side in box):
        return iter(())
    z, y, x = (range(s.start // BLOCK_SIZE, -(-s.stop // BLOCK_SIZE)) for s in box)
    return product(z, y, x)


def equal_numbers(numbers: NDArray[np.integer]) -> list[NDArray[np.intp]]:
    """Return where each number (N,) is that there is, ascending."""
    # What is painted lies in order, block after block, or nearly so.
    order = np.argsort(numbers, kind="stable")
    ends = np.flatnonzero(np.diff(numbers[order])) + 1
    return np.split(order, ends) if len(order) else []


def places_where(mask: NDArray[np.bool_]) -> tuple[NDArray[np.intp], ...]:
    """Return what ``np.nonzero`` does of a mask with few places, many times as fast."""
    return np.unravel_index(np.flatnonzero(mask), mask.shape)


def _is_fancy(key: Any) -> bool:
    return isinstance(key, tuple) and any(isinstance(one, np.ndarray) and one.ndim for one in key)


def _places(key: tuple[Any, ...]) -> tuple[NDArray[np.intp], tuple[int, ...]]:
    """Return the places (3, N) that arrays of integers name, and the shape of what is there."""
    if len(key) != 3 or any(isinstance(one, slice) for one in key):
        raise IndexError("sparse labels take one array of places for each axis, or none")
    each = np.broadcast_arrays(*key)
    return np.stack([one.ravel() for one in each]).astype(np.intp), each[0].shape
