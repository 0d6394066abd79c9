"""What a review knows of objects, their order, and what outlasts a prediction."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.kept import kept_by
from napari_volseg.review.kept import (
    contradictions,
    cut_out,
    find_objects_around,
    overlap,
    put_all_kept,
    put_kept,
)
from napari_volseg.review.objects import find_objects
from napari_volseg.review.queue import (
    ACCEPTED,
    CORRECTED,
    REJECTED,
    largest_slice,
    measure_objects,
    queue_order,
    review_table,
    reviewed_share,
)
from napari_volseg.review.uncertainty import doubt_levels

SPACING = (2.0, 1.0, 0.5)


@pytest.fixture
def mask():
    """Class 2: a pyramid, and a block at the border. Class 3: a small block."""
    mask = np.ones((10, 12, 14), np.uint8)
    for z in range(4):
        mask[3 + z, 1 : 8 - z, 1 : 8 - z] = 2
    mask[0:2, 9:12, 1:5] = 2
    mask[5:8, 9:11, 9:11] = 3
    return mask


def measure(mask, doubt=None):
    objects = find_objects(mask)
    return measure_objects(objects, [o.id for o in objects.found], SPACING, doubt)


def test_objects_are_measured_in_physical_units(mask, hold):
    doubt = np.full(mask.shape, 255, np.uint8)
    doubt[mask == 2] = 204
    doubt[mask == 3] = 0
    border, pyramid, block = measure(hold(mask), hold(doubt))
    assert (border.at_border, pyramid.at_border, block.at_border) == (True, False, False)
    assert (border.voxels, border.size, border.extent) == (24, 24.0, (4.0, 3.0, 2.0))
    assert [m.confidence for m in (border, pyramid, block)] == pytest.approx([0.2, 0.2, 1.0])
    assert [m.class_id for m in (border, pyramid, block)] == [2, 2, 3]


def test_what_is_large_and_unsure_comes_first(mask):
    assert queue_order(measure(mask)) == [2, 1, 3]
    doubt = np.full(mask.shape, 15, np.uint8)
    doubt[mask == 3] = 255
    assert queue_order(measure(mask, doubt)) == [3, 2, 1]


def test_progress_counts_objects_and_volume(mask):
    measured = measure(mask)
    assert reviewed_share(measured, {}) == (0, 0)
    objects, volume = reviewed_share(measured, {1: ACCEPTED, 3: CORRECTED})
    assert objects == pytest.approx(2 / 3)
    assert volume == pytest.approx((24 + 12) / (24 + 12 + 49 + 36 + 25 + 16))
    assert reviewed_share([], {}) == (0, 0)


def test_the_slice_shown_is_the_one_with_most_of_the_object(mask, hold):
    objects = find_objects(hold(mask))
    assert largest_slice(objects, 2, 0) == 3
    assert largest_slice(objects, 2, 1) in range(1, 5)


def test_the_table_has_a_row_of_plain_values_for_each_object(mask):
    objects = find_objects(mask)
    classes = default_classes((1, 2, 3))
    rows = review_table(objects, measure(mask), {1: ACCEPTED}, classes, SPACING, "micrometer")
    assert [row["state"] for row in rows] == ["accepted", "unreviewed", "unreviewed"]
    assert rows[2]["class"] == "class 3" and rows[2]["confidence"] == ""
    assert rows[2]["center_z_micrometer"] == 12.0 and rows[2]["extent_x_micrometer"] == 1.0


def test_another_class_contradicts_a_kept_object_where_it_is_new(mask, hold):
    objects = find_objects(hold(mask))
    pyramid, block = cut_out(objects, 2, ACCEPTED), cut_out(objects, 3, CORRECTED)
    region = slice(4, 7), slice(2, 12), slice(2, 14)
    before = np.zeros((3, 10, 12), np.uint8)
    before[0] = 3
    where, against = contradictions(region, before, np.full_like(before, 3), [block, pyramid])
    np.testing.assert_array_equal(where, (mask[region] == 2) & (before == 0))
    assert against == [pyramid]
    where, against = contradictions(region, before, np.full_like(before, 2), [block, pyramid])
    np.testing.assert_array_equal(where, mask[region] == 3)
    assert against == [block]
    where, against = contradictions(region, before, np.zeros_like(before), [block, pyramid])
    assert not where.any() and against == []


def test_kept_objects_are_written_into_any_region_and_found_again_as_they_were(mask, hold):
    objects = find_objects(hold(mask))
    kept = [cut_out(objects, 2, ACCEPTED), cut_out(objects, 3, CORRECTED)]
    later = np.full_like(mask, 2)  # all is one object, but for what is kept
    before = hold(later)
    for z in range(0, 10, 4):
        region = slice(z, z + 4), slice(0, 12), slice(2, 14)
        put_kept(later[region], region, kept)
    assert (later[mask == 3] == 3).all() and (later[mask != 3] == 2).all()
    put_all_kept(before, kept)
    np.testing.assert_array_equal(before[:], later)
    around = find_objects_around(before, kept)
    found = around.objects
    assert list(around.kept.values()) == kept and not around.unfit
    np.testing.assert_array_equal(before[:], later)
    assert [(o.id, o.mask_label) for o in found.found] == [(1, 2), (2, 2), (3, 3)]
    for number in (2, 3):
        np.testing.assert_array_equal(found.labels[:] == number, objects.labels[:] == number)
    assert found.get(2) == objects.get(2)


def test_rejected_objects_are_found_again_where_the_next_mask_has_them_or_nothing(mask, hold):
    objects = find_objects(hold(mask))
    kept = [cut_out(objects, n, REJECTED) for n in (1, 2, 3)]
    later = mask.copy()
    later[3:5, 1:8, 1:8] = 1  # less than half of the pyramid is left
    later[mask == 3] = 1
    around = find_objects_around(hold(later), kept)
    assert {n: one.voxels for n, one in around.kept.items()} == {1: 24, 3: 12}
    assert around.objects.labels[6, 9, 9] == 3 and around.objects.get(3).voxels == 12
    assert around.unfit == (kept[1],)


@pytest.mark.parametrize("state", [ACCEPTED, REJECTED])
def test_a_kept_object_is_the_same_after_it_was_stored(mask, hold, state):
    kept = cut_out(find_objects(hold(mask)), 2, state)
    again = kept_by(kept.act)
    assert (again.class_id, again.state, again.box) == (2, state, kept.box)
    assert again.voxels == kept.voxels == 126 and overlap(again, kept)
    np.testing.assert_array_equal(again.member[:], kept.member[:])
    plain = cut_out(find_objects(mask), 2, state)
    assert kept.act.patches == plain.act.patches and overlap(kept, plain)
    assert not overlap(kept, cut_out(find_objects(mask), 3, state))


def test_doubt_is_a_byte_a_voxel():
    entropy = np.array([0.0, 0.5, 1.0000001], np.float32)
    np.testing.assert_array_equal(doubt_levels(entropy), [0, 128, 255])
