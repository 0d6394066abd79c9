"""Where labels are held: in an array, or, of a volume too large for that, in blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import psutil

from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.inference.cgroup import memory_left

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import DTypeLike

    from napari_volseg.data.sparse_labels import AnyLabels

SMALL_PART = 1 / 16
"""Of the free memory, what an array of labels may take. Training and prediction keep several
of them, of up to four bytes a voxel."""


def is_large(shape: Sequence[int]) -> bool:
    """Whether a volume of that shape (z, y, x) has too many voxels for arrays of labels."""
    free = min(psutil.virtual_memory().available, memory_left())
    return math.prod(shape) > SMALL_PART * free


def labels_for(shape: Sequence[int], dtype: DTypeLike) -> AnyLabels:
    """Return labels of that shape, all 0: a numpy array, or ``SparseLabels`` of a large volume."""
    return SparseLabels(shape, dtype) if is_large(shape) else np.zeros(shape, dtype)
