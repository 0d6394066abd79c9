"""Masks of small volumes and of large ones: a test with ``hold`` runs with both."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data import corrections, kept, sparse_labels
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.review import components
from napari_volseg.review import kept as review_kept


@pytest.fixture(params=["array", "blocks", "blocks, large boxes"])
def hold(request, monkeypatch):
    """Return what holds an array as a mask is held: as it is, or in blocks, small ones here."""
    if request.param == "array":
        return np.copy
    for module in (sparse_labels, corrections):
        monkeypatch.setattr(module, "BLOCK_SIZE", 4)
    monkeypatch.setattr(components, "TILE", 8)
    if request.param == "blocks, large boxes":
        for module in (kept, review_kept):
            monkeypatch.setattr(module, "LARGE_BOX", 0)

    def in_blocks(values: np.ndarray) -> SparseLabels:
        held = SparseLabels(values.shape, values.dtype)
        held[:] = values
        return held

    return in_blocks
