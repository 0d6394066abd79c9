from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_volseg.data.annotation import count_labels
from napari_volseg.widgets.painted import PaintedSlice, find_painted

LABELS = arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3))


def plane(axis, index):
    return (slice(None),) * axis + (index,)


@given(LABELS)
def test_the_slices_hold_all_paint_and_each_of_them_some(labels):
    left = labels.copy()
    for painted in find_painted(labels).slices:
        assert labels[plane(painted.axis, painted.index)].any()
        left[plane(painted.axis, painted.index)] = 0
    assert not left.any()


@given(LABELS)
def test_counts_and_completeness_are_those_of_the_labels(labels):
    painted = find_painted(labels)
    ids, counts = np.unique(labels[labels > 0], return_counts=True)
    assert painted.counts == dict(zip(ids.tolist(), counts.tolist(), strict=True))
    for s in painted.slices:
        assert s.complete == labels[plane(s.axis, s.index)].all()


def test_strokes_in_three_orientations_are_found_where_they_were_painted():
    labels = np.zeros((30, 40, 50), np.uint8)
    labels[12, 5:30, 8:40] = 2
    labels[13, 5:30, 8:40] = 1
    labels[2:25, 20, 3:45] = 3
    labels[3:28, 2:38, 33] = 1
    found = [(s.axis, s.index) for s in find_painted(labels).slices]
    assert found == [(0, 12), (0, 13), (1, 20), (2, 33)]


def test_a_complete_slice_does_not_make_the_slices_that_cross_it_painted():
    labels = np.zeros((10, 12, 14), np.uint8)
    labels[:, 7] = 1
    assert find_painted(labels).slices == (PaintedSlice(1, 7, True),)
    assert find_painted(labels).complete == {(1, 7)}


def test_an_empty_annotation_has_nothing():
    painted = find_painted(np.zeros((3, 4, 5), np.uint8))
    assert painted.slices == () and painted.counts == {}


def test_large_labels_are_counted():
    labels = np.zeros((2, 3, 4), np.uint16)
    labels[0, 0] = 40_000
    assert count_labels(labels) == {40_000: 4}
