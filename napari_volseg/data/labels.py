"""Label values as files hold them, and as annotations need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import tile_grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels

ALL_LABELED = -1
"""A value that no label has: with it as the unlabeled one, every voxel is labeled."""

READ_AT_ONCE = (64, 256, 256)
"""Voxels of labels that are an array at once, where all of them would be too large for one."""

_LARGEST = int(np.iinfo(np.uint16).max)


def as_labels(
    values: NDArray[Any],
    where: str,
    unlabeled: int = UNLABELED,
    from_zero: bool | None = None,
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return values as labels: 0 is unlabeled, classes are 1, 2, ...

    Parameters
    ----------
    values : any shape, integers, booleans or floats without fractions
        Not changed.
    where : str
        A file or a layer, named in errors.
    unlabeled : int
        The value that means unlabeled. If it is not 0, it becomes 0; where 0 is then a class, all
        classes move up by one, so that they start at 1: with ``unlabeled=3``, the values 0, 1, 2, 3
        of the 3D U-Net paper's annotations become 1, 2, 3, 0. Where 0 does not occur, the
        classes keep their values.
    from_zero : bool, optional
        Whether 0 is a class even if it does not occur; by default, whether it occurs. Only
        where ``unlabeled`` is not 0.

    Returns
    -------
    uint8, or uint16 if there are values above 255

    Raises
    ------
    InputError
        For values with fractions, below 0 or above 65535.
    """
    values = np.asarray(values)
    check_integers(values, where)
    kept = values != unlabeled
    rest = values[kept]
    shift = int(unlabeled != UNLABELED and ((rest == 0).any() if from_zero is None else from_zero))
    low, high = (int(rest.min()), int(rest.max()) + shift) if rest.size else (0, 0)
    if low < 0 or high > _LARGEST:
        raise InputError(
            f"{where}: labels from {low} to {high - shift}; they must be between 0 and "
            f"{_LARGEST - shift} (another value that means unlabeled can be named)"
        )
    labels = np.zeros(values.shape, np.uint16)
    labels[kept] = rest.astype(np.uint16) + np.uint16(shift)
    return labels.astype(np.uint8) if high <= np.iinfo(np.uint8).max else labels


def check_integers(values: NDArray[Any], where: str) -> None:
    """Refuse values that are no whole numbers.

    Raises
    ------
    InputError
        It names ``where`` they come from: a file or a layer.
    """
    if values.dtype.kind not in "buif":
        raise InputError(f"{where}: values of type {values.dtype} cannot be labels; save integers")
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.floor(values))).all():
        raise InputError(
            f"{where}: values with fractions cannot be labels; is this an image, not an annotation?"
        )


def read_labels(
    image: Any,
    where: str,
    unlabeled: int = UNLABELED,
    from_zero: bool | None = None,
    *,
    in_blocks: bool,
) -> AnyLabels:
    """Read an image (Z, Y, X) as labels: as ``SparseLabels``, or else as an array.

    Parameters
    ----------
    image : array, lazy
    where, unlabeled, from_zero
        As of ``as_labels``.
    in_blocks : bool

    Raises
    ------
    InputError
        As ``as_labels``.
    """
    if in_blocks:
        return as_sparse_labels(image, where, unlabeled, from_zero)
    return as_labels(np.asarray(image), where, unlabeled, from_zero)


def as_sparse_labels(
    image: Any, where: str, unlabeled: int = UNLABELED, from_zero: bool | None = None
) -> SparseLabels:
    """Return an image (Z, Y, X) of labels as ``as_labels`` does, of which it is never held all.

    Parameters
    ----------
    image : array, lazy
    where, unlabeled, from_zero
        As of ``as_labels``.

    Raises
    ------
    InputError
        As ``as_labels``.
    """
    if from_zero is None:
        from_zero = unlabeled != UNLABELED and has_zero(image)
    labels = SparseLabels(image.shape, np.uint8)
    for tile in tile_grid(labels.shape, READ_AT_ONCE):
        found = as_labels(np.asarray(image[tile.write]), where, unlabeled, from_zero)
        if found.dtype.itemsize > labels.dtype.itemsize:
            labels = labels.astype(found.dtype)
        labels[tile.write] = found
    return labels


def has_zero(image: Any) -> bool:
    """Whether a lazy image (Z, Y, X) holds the value 0, which may be a class in it."""
    tiles = tile_grid(image.shape, READ_AT_ONCE)
    return any((np.asarray(image[tile.write]) == 0).any() for tile in tiles)
