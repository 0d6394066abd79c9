"""Objects of a mask in blocks are those of the same mask as an array."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_volseg.data import sparse_labels
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.review import components
from napari_volseg.review.objects import find_objects, finding_objects


def in_blocks(labels: np.ndarray) -> SparseLabels:
    held = SparseLabels(labels.shape, labels.dtype)
    held[:] = labels
    return held


@st.composite
def masks(draw):
    """Noise, more or less dense, or smooth blobs, of some classes; rooms of it are unlabeled."""
    shape = draw(st.tuples(*[st.integers(1, 17)] * 3))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.sampled_from([0.05, 0.12, 0.3, 0.7, 1.0]))
    values = random.random(shape)
    if draw(st.booleans()):
        values = ndimage.gaussian_filter(values, 1.0)
    inside = values <= np.quantile(values, density)
    classes = draw(st.sampled_from([1, 2, 3]))
    mask = np.where(inside, random.integers(2, 2 + classes, shape), 1)
    mask[tuple(slice(0, draw(st.integers(0, n))) for n in shape)] *= draw(st.integers(0, 1))
    return mask.astype(draw(st.sampled_from([np.uint8, np.uint16])))


@settings(max_examples=100, deadline=None)
@given(mask=masks(), tile=st.integers(2, 9), block=st.integers(2, 6), smallest=st.integers(1, 9))
def test_objects_of_blocks_are_those_of_an_array(mask, tile, block, smallest):
    expected = find_objects(mask, smallest=smallest)
    with (
        patch.object(sparse_labels, "BLOCK_SIZE", block),
        patch.object(components, "TILE", tile),
    ):
        found = find_objects(in_blocks(mask), smallest=smallest)
        labels = found.labels[:]
    assert found.labels.dtype == expected.labels.dtype
    np.testing.assert_array_equal(labels, expected.labels)
    assert found.found == expected.found


def test_only_what_holds_objects_is_looked_at(monkeypatch):
    mask = SparseLabels((1000, 1000, 1000), np.uint8)
    mask[:128, :128, :128] = 1
    mask[600:620, 600:620, 700:720] = 3
    mask[639:642, 639:642, 767:770] = 2
    looked = []
    look = components._look
    monkeypatch.setattr(components, "_look", lambda *a: looked.append(a[-1]) or look(*a))
    done = list(finding_objects(mask))
    assert done == sorted(done) and done[0] == 0 and 0.5 < done[-1] < 1
    # One lies around the corner of eight tiles, the other one in one of them.
    assert len(looked) == 8
    found = find_objects(mask)
    assert [(o.mask_label, o.voxels) for o in found.found] == [(2, 27), (3, 8000)]
    assert found.labels[640, 640, 768] == 1 and found.labels[0, 0, 0] == 0
