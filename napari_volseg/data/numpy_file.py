"""NumPy's own ``.npy``: pixels only, so the spacing is 1 pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.contents import Contents, arrange_axes, color_image, guess_axes
from napari_volseg.data.lazy_array import native

if TYPE_CHECKING:
    from pathlib import Path


def read(path: Path) -> Contents:
    """Read (z, y, x) or (channel, z, y, x), memory-mapped.

    Raises
    ------
    InputError
        For RGB or another number of axes.
    """
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    color = array.ndim in (3, 4) and array.shape[-1] in (3, 4) and array.dtype == np.uint8
    if color and min(array.shape[-3:-1]) > 4:
        raise color_image(path)
    known = "YX"[-array.ndim :] if array.ndim else ""
    axes = guess_axes(known.rjust(array.ndim, "Q"), array.shape, path)
    return Contents(arrange_axes(native(array, path), axes, path))


def write(path: Path, contents: Contents) -> None:
    """Write (z, y, x) for a single channel, else (channel, z, y, x)."""
    image = np.asarray(contents.image)
    with path.open("wb") as file:  # by its name, NumPy would add a suffix to "image.NPY"
        np.save(file, image[0] if contents.channels == 1 else image, allow_pickle=False)
