"""Guards around the libraries that read files: lazy pixels, and damage told in one line."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn whatever a library raises on a damaged file into one line that names the file.

    Raises
    ------
    InputError
        With the library's error as its cause.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # damaged bytes make the libraries raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"{path}: damaged, or not what its name says ({reason[:200]}); "
            "save or copy it again from where it came"
        ) from error


@dataclass(frozen=True, eq=False)
class _Guarded:
    """An array on disk whose damage, met when a part is read, names the file."""

    array: Any
    path: Path
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.array.shape)

    @property
    def ndim(self) -> int:
        return len(self.array.shape)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        with reading(self.path):
            return np.asarray(self.array[index]).astype(self.dtype, copy=False)


def lazy(array: Any, path: Path, chunks: Any = "auto") -> Any:
    """Wrap an array on disk as dask, in native byte order; nothing is read until it is used."""
    guarded = _Guarded(array, path, np.dtype(array.dtype).newbyteorder("="))
    # Without a name, dask would hash the array, and so read all of it.
    return da.from_array(guarded, chunks=chunks, name=False)  # type: ignore[no-untyped-call]


def native(array: NDArray[Any], path: Path) -> Any:
    """Return a memory map as it is, or, in foreign byte order, as a lazy native array."""
    return array if array.dtype.isnative else lazy(array, path)
