"""What labels are held in: an array, or, of a volume too large for that, blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.inference.cgroup import free_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari.layers import Labels
    from numpy.typing import DTypeLike

    from napari_volseg.data.sparse_labels import AnyLabels
    from napari_volseg.data.volume import Volume

SMALL_PART = 1 / 16
"""Of the free memory, what an array of labels may take: paint, targets, mask, uncertainty and
objects together take about sixteen bytes a voxel."""


def is_large(shape: Sequence[int]) -> bool:
    """Whether a volume of that shape (z, y, x) has too many voxels for arrays of labels."""
    return math.prod(shape) > SMALL_PART * free_bytes()


def labels_for(shape: Sequence[int], dtype: DTypeLike) -> AnyLabels:
    """Return labels of that shape, all 0: a numpy array, or ``SparseLabels`` of a large volume."""
    return SparseLabels(shape, dtype) if is_large(shape) else np.zeros(shape, dtype)


def check_annotation(layer: Labels, volume: Volume) -> None:
    """Refuse a labels layer that cannot be the annotation of a volume.

    Raises
    ------
    InputError
        If its shape, type or storage does not allow it; the message says what to do.
    """
    if layer.multiscale or not isinstance(layer.data, np.ndarray | SparseLabels):
        raise InputError(f"{layer.name} is not held in memory and cannot be painted; press New")
    if tuple(layer.data.shape) != volume.shape:
        raise InputError(
            f"{layer.name} has shape {tuple(layer.data.shape)}, the image {volume.shape}; "
            "choose the labels of this image, or press New"
        )
    if layer.data.dtype not in (np.uint8, np.uint16):
        raise InputError(
            f"{layer.name} holds {layer.data.dtype} numbers; right-click it in the layer list "
            "and choose Convert data type > uint8"
        )
