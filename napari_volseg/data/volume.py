"""The image a user has: voxels, their physical size, and what its file said about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

MAX_CHANNELS = 4
SUPPORTED_DTYPES = ("uint8", "uint16", "uint32", "int16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class Volume:
    """A multi-channel 3D image with its geometry.

    Attributes
    ----------
    image : (C, Z, Y, X), numpy or a lazy array (``LazyArray``, dask, zarr)
        One to four channels, dtype one of ``SUPPORTED_DTYPES``.
    spacing : (z, y, x)
        Size of a voxel in ``unit``.
    unit : str
        A length that pint knows ("micrometer", "millimeter"), or "pixel" if unknown.
    affine : (4, 4) or None
        Voxel indices (z, y, x, 1) to world (z, y, x, 1) in ``unit``, for files that
        carry one; None means the spacing says all.
    name : str
        What to call it in the window and in messages.
    channel_names : tuple of str
        One for each channel; may be empty.
    source : mapping
        What its file said, kept untouched so that it can be written back (for
        example a NIfTI header or OME-XML). Only data/ looks inside.

    Raises
    ------
    InputError
        For a shape, dtype, spacing or affine that is not as described.
    """

    image: Any = field(repr=False)
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    affine: NDArray[np.float64] | None = field(default=None, repr=False)
    name: str = "volume"
    channel_names: tuple[str, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.image.ndim != 4:
            raise InputError(
                f"{self.name}: expected an image (channel, z, y, x), got {self.image.ndim} "
                f"axes {tuple(self.image.shape)}; add a channel axis of size 1 for a "
                "single channel"
            )
        if not 1 <= self.image.shape[0] <= MAX_CHANNELS:
            raise InputError(
                f"{self.name}: {self.image.shape[0]} channels; 1 to {MAX_CHANNELS} are "
                "supported, keep the ones that matter"
            )
        if min(self.image.shape) < 1:
            raise InputError(f"{self.name}: the image is empty, shape {self.image.shape}")
        if str(self.image.dtype) not in SUPPORTED_DTYPES:
            raise InputError(
                f"{self.name}: voxels of type {self.image.dtype}; convert the image to one "
                f"of {', '.join(SUPPORTED_DTYPES)}"
            )
        if len(self.spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in self.spacing):
            raise InputError(
                f"{self.name}: spacing {self.spacing} must be three positive numbers (z, y, x)"
            )
        if self.affine is not None and self.affine.shape != (4, 4):
            raise InputError(f"{self.name}: affine of shape {self.affine.shape}, not (4, 4)")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.image.shape[0])

    @property
    def shape(self) -> tuple[int, int, int]:
        """Spatial shape (z, y, x)."""
        _, z, y, x = self.image.shape
        return int(z), int(y), int(x)
