"""An array on disk, of which nothing is read until a part of it becomes a numpy array.

Dask would keep a task for each chunk: with chunks of 128 voxels it takes 3 seconds to open an
image of 10,000 voxels along each axis, and as long to read any part of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from napari_volseg.data.reading import reading

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

MANY_CHUNKS = 20_000
"""From here on, Dask takes a tenth of a second for every slice."""


@dataclass(frozen=True, eq=False)
class LazyArray:
    """A part of an array on disk, its axes in any order.

    It is indexed by integers, slices that go forward, None and ..., which gives another one;
    ``numpy.asarray`` reads. Damage that is met then names the file.

    Attributes
    ----------
    source : array
        As of zarr, or mapped into memory: with a shape and a dtype, read by integers and slices.
    path : Path
        Of the file.
    picks : tuple of range or int
        What belongs to the part of each axis of the source, and then of each that was added to
        it (None). An axis with a single place (int) is none of the part's.
    order : tuple of int
        Which of these is each axis of the part.
    """

    source: Any
    path: Path
    picks: tuple[range | int, ...]
    order: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Size along each axis."""
        return tuple(len(self._range(axis)) for axis in self.order)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.order)

    @property
    def dtype(self) -> np.dtype[Any]:
        """In native byte order."""
        stored: np.dtype[Any] = np.dtype(self.source.dtype)
        return stored.newbyteorder("=")

    @property
    def chunks(self) -> tuple[int, ...]:
        """Size of the source's chunks along each axis."""
        sizes = (*self.source.chunks, *[1] * len(self.picks))
        return tuple(sizes[axis] for axis in self.order)

    def _range(self, axis: int) -> range:
        picked = self.picks[axis]
        assert isinstance(picked, range)
        return picked

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> LazyArray:
        given = index if isinstance(index, tuple) else (index,)
        places = [i for i, one in enumerate(given) if one is Ellipsis]
        named = sum(one is not None and one is not Ellipsis for one in given)
        if len(places) > 1 or named > self.ndim:
            raise IndexError(f"{index} does not index an array of shape {self.shape}")
        at = places[0] if places else len(given)
        every = (slice(None),) * (self.ndim - named)
        picks, order, axes = list(self.picks), list[int](), iter(self.order)
        for one in (*given[:at], *every, *given[at + 1 :]):
            if one is None:
                order.append(len(picks))
                picks.append(range(1))
                continue
            axis = next(axes)
            picks[axis] = picked = self._range(axis)[one]
            if isinstance(picked, range):
                if picked.step < 0:
                    raise IndexError(f"{index} goes backward")
                order.append(axis)
        return LazyArray(self.source, self.path, tuple(picks), tuple(order))

    def transpose(self, axes: Sequence[int]) -> LazyArray:
        """Reorder the axes."""
        return LazyArray(self.source, self.path, self.picks, tuple(self.order[a] for a in axes))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if 0 in self.shape:
            return np.empty(self.shape, dtype or self.dtype)
        of_source = self.picks[: len(self.source.shape)]
        asked = tuple(
            slice(p.start, p.stop, p.step) if isinstance(p, range) else p for p in of_source
        )
        with reading(self.path):
            values = np.asarray(self.source[asked]).astype(dtype or self.dtype, copy=False)
        kept = [axis for axis, one in enumerate(of_source) if isinstance(one, range)]
        values = values.transpose([kept.index(axis) for axis in self.order if axis in kept])
        return values.reshape(self.shape)


def cached(image: Any) -> Any:
    """Return an image for a viewer, which keeps what it has read lately of a Dask array.

    Of another lazy array it keeps nothing, but that of many chunks is there at once.
    """
    if not isinstance(image, LazyArray):
        return image
    chunks = math.prod(-(-n // size) for n, size in zip(image.shape, image.chunks, strict=True))
    if chunks > MANY_CHUNKS:
        return image
    return _in_dask(image, image.chunks)


def on_disk(source: Any, path: Path) -> LazyArray:
    """Return all of an array on disk."""
    whole = tuple(map(range, source.shape))
    return LazyArray(source, path, whole, tuple(range(len(whole))))


def lazy(source: Any, path: Path, chunks: Any = "auto") -> Any:
    """Wrap an array on disk as dask, in native byte order; nothing is read until it is used."""
    return _in_dask(on_disk(source, path), chunks)


def native(array: NDArray[Any], path: Path) -> Any:
    """Return a memory map as it is, or, in foreign byte order, as a lazy native array."""
    return array if array.dtype.isnative else lazy(array, path)


def _in_dask(image: LazyArray, chunks: Any) -> Any:
    # Without a name, dask would hash the array, and so read all of it.
    return da.from_array(image, chunks=chunks, name=False)  # type: ignore[no-untyped-call]
