"""What labels are held in: an array, or, of a volume too large for that, blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.inference.cgroup import free_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from napari_volseg.data.labeled import AnyLabels

SMALL_PART = 1 / 16
"""Of the free memory, what an array of labels may take: paint, targets, mask, uncertainty and
objects together take about sixteen bytes a voxel."""


def is_large(shape: Sequence[int]) -> bool:
    """Whether a volume of that shape (z, y, x) has too many voxels for arrays of labels."""
    return math.prod(shape) > SMALL_PART * free_bytes()


def labels_for(shape: Sequence[int], dtype: DTypeLike) -> AnyLabels:
    """Return labels of that shape, all 0: a numpy array, or ``SparseLabels`` of a large volume."""
    return SparseLabels(shape, dtype) if is_large(shape) else np.zeros(shape, dtype)
