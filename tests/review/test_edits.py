"""Edits of a review: what they do to objects, mask and annotation, and back."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.review import edits, reshape, room
from napari_volseg.review.edits import Review, apply
from napari_volseg.review.objects import find_objects
from napari_volseg.review.queue import ACCEPTED, CORRECTED, REJECTED

SHAPE = (9, 14, 30)
WHOLE = tuple(slice(0, n) for n in SHAPE)
ISOTROPIC = (1.0, 1.0, 1.0)


@pytest.fixture
def mask():
    """Two blocks of class 2 side by side, the first with a hole, and one of class 3."""
    mask = np.ones(SHAPE, np.uint8)
    mask[2:7, 3:10, 3:10] = 2
    mask[4, 6, 6] = 1
    mask[2:7, 3:10, 13:20] = 2
    mask[2:7, 3:10, 24:28] = 3
    return mask


@pytest.fixture
def review(mask, hold):
    held = hold(mask)
    return Review(find_objects(held), held, {})


def snapshot(review):
    return (
        review.objects.found,
        dict(review.states),
        review.objects.labels[:].copy(),
        review.mask[:].copy(),
    )


def assert_same(one, other):
    assert one[:2] == other[:2]
    np.testing.assert_array_equal(one[2], other[2])
    np.testing.assert_array_equal(one[3], other[3])


def assert_consistent(review):
    """The objects are those that their labels show, of the class that the mask has there."""
    assert set(np.unique(review.objects.labels[:])) == {0, *(o.id for o in review.objects.found)}
    for o in review.objects.found:
        member = review.objects.labels[:] == o.id
        inside = np.zeros_like(member)
        inside[o.box] = True
        assert o.voxels == member.sum() and not (member & ~inside).any()
        value = 1 if review.states.get(o.id) == REJECTED else o.mask_label
        assert (review.mask[:][member] == value).all()


def annotated(edit, review, annotation):
    """Return what an edit makes of an annotation."""
    made = annotation.copy()
    for box, before, after in edit.annotate(review, annotation):
        np.testing.assert_array_equal(before, annotation[box])
        made[box] = after
    return made


EDITS = {
    "reject": lambda r: edits.reject(r, 1),
    "reject some": lambda r: edits.reject_all(r, "reject 2", [1, 3]),
    "take": lambda r: edits.taken(r, 1),
    "fill": lambda r: reshape.with_holes_filled(r, 1),
    "smooth": lambda r: reshape.smoothed(r, 2, ISOTROPIC),
    "merge": lambda r: reshape.merged(r, [1, 2], ISOTROPIC),
    "merge classes": lambda r: reshape.merged(r, [3, 2], ISOTROPIC),
    "split": lambda r: reshape.cut(r, 2, [(4, 4, 14), (4, 8, 18)], ISOTROPIC),
    "paint": lambda r: reshape.painted(
        r, 2, (slice(2, 7), slice(3, 10), slice(11, 14)), np.full(SHAPE, 2)
    ),
}


@pytest.mark.parametrize("kind", EDITS)
def test_every_edit_can_be_taken_back_and_done_again(review, kind):
    before = snapshot(review)
    edit = EDITS[kind](review)
    after, back = apply(review, edit)
    done = snapshot(after)
    assert_consistent(after)
    undone, forth = apply(after, back)
    assert_same(snapshot(undone), before)
    assert_same(snapshot(apply(undone, forth)[0]), done)


def test_a_rejected_object_is_background_and_can_be_restored(review, mask):
    edit = edits.reject(review, 3)
    annotation = np.zeros_like(mask)
    annotation[2, 3, 24] = 3
    painted = annotated(edit, review, annotation)
    assert (painted[2:7, 3:10, 24:28] == 1).all() and painted.sum() == 5 * 7 * 4
    review, _ = apply(review, edit)
    assert review.states == {3: REJECTED}
    assert (review.mask[2:7, 3:10, 24:28] == 1).all()
    edit = edits.restore(review, 3, ACCEPTED)
    painted[2, 3, 24] = 3
    left = annotated(edit, review, painted)
    assert left[2, 3, 24] == 3 and left.sum() == 3
    review, _ = apply(review, edit)
    assert review.states == {3: ACCEPTED} and review.mask[4, 5, 25] == 3


def test_a_correction_teaches_its_object_but_paint_stays_where_nothing_changes(review):
    edit = reshape.with_holes_filled(review, 1)
    annotation = np.zeros_like(review.mask[:])
    annotation[2, 3, 3] = 3
    annotation[4, 6, 6] = 1  # the hole itself
    painted = annotated(edit, review, annotation)
    assert painted[4, 6, 6] == 2 and painted[2, 3, 3] == 3
    assert (painted == 2).sum() == 5 * 7 * 7 - 1
    review, _ = apply(review, edit)
    assert review.mask[4, 6, 6] == 2 and review.objects.get(1).voxels == 5 * 7 * 7
    assert review.states == {1: CORRECTED}


def test_parts_of_a_split_object_do_not_touch(review):
    edit = reshape.cut(review, 2, [(4, 4, 14), (4, 8, 18)], ISOTROPIC)
    review, _ = apply(review, edit)
    assert [o.id for o in review.objects.found] == [1, 2, 3, 4]
    assert review.objects.at((4, 4, 14)) == 2 and review.objects.at((4, 8, 18)) == 4
    found = find_objects(review.mask, smallest=1)
    assert len(found.found) == 4
    lost = (2 * 5 * 7 * 7 - 1) - sum(o.voxels for o in found.found if o.mask_label == 2)
    assert 0 < lost < 0.4 * 5 * 7 * 7


def test_merged_objects_hang_together_and_have_the_class_of_the_first(review):
    review, _ = apply(review, reshape.merged(review, [3, 2], ISOTROPIC))
    assert [o.id for o in review.objects.found] == [1, 3]
    assert review.objects.get(3).mask_label == 3
    assert review.objects.get(3).voxels >= 5 * 7 * 4 + 5 * 7 * 7
    assert len(find_objects(review.mask, smallest=1).found) == 2


def test_what_is_painted_joins_the_object_and_what_is_erased_leaves_it(review):
    annotation = np.where(review.objects.labels[:] == 2, 2, 0)
    annotation[4, 5, 18:23] = 2
    annotation[4, 5, 14] = 0
    annotation[4, 5, 23:26] = 2  # the last two are of another object
    box = (slice(4, 5), slice(5, 6), slice(13, 27))
    review, _ = apply(review, reshape.painted(review, 2, box, annotation))
    row = review.objects.labels[4, 5]
    assert (row[20:24] == 2).all() and row[14] == 0 and (row[24:28] == 3).all()
    assert review.mask[4, 5, 14] == 1 and review.mask[4, 5, 23] == 2
    assert_consistent(review)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda r: reshape.merged(r, [1], ISOTROPIC), "two or more"),
        (lambda r: reshape.cut(r, 2, [(4, 4, 14)], ISOTROPIC), "at least two places"),
        (lambda r: reshape.cut(r, 2, [(4, 4, 14), (4, 6, 5)], ISOTROPIC), "outside"),
        (lambda r: reshape.cut(r, 1, [(4, 4, 4), (4, 6, 6)], ISOTROPIC), "number 2 is outside"),
    ],
)
def test_what_cannot_be_done_is_refused(review, make, words):
    with pytest.raises(InputError, match=words):
        make(review)


def test_a_fix_that_would_not_fit_into_memory_is_refused(review, monkeypatch):
    monkeypatch.setattr(room, "free_bytes", lambda: 1000)
    if not isinstance(review.mask, SparseLabels):
        assert reshape.with_holes_filled(review, 1).states == {1: CORRECTED}
        return
    for make in (EDITS[name] for name in ("fill", "smooth", "merge", "split")):
        with pytest.raises(InputError, match="looked at as a whole, which takes"):
            make(review)
    for name in ("reject", "take", "paint"):
        assert_consistent(apply(review, EDITS[name](review))[0])


def dumbbell(spacing):
    """Two balls with a bar between them, whose voxels have this spacing; class 2."""
    z, y, x = np.indices((15, 15, 42)) * np.reshape(spacing, (3, 1, 1, 1))
    middle = 7 * spacing[0], 7 * spacing[1]
    inside = (abs(z - middle[0]) < 2) & (abs(y - middle[1]) < 2) & (abs(x - 21) < 14)
    for center in (9, 33):
        inside |= (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - center) ** 2 < 6.5**2
    return np.where(inside, 2, 1).astype(np.uint8)


@pytest.mark.parametrize("spacing", [ISOTROPIC, (2.0, 1.0, 1.0)])
def test_a_cut_between_the_two_thick_parts_is_proposed(spacing):
    mask = dumbbell(spacing)
    review = Review(find_objects(mask), mask, {})
    seeds, box, ids = reshape.proposed_cut(review, 1, spacing)
    assert sorted(abs(x - 21) > 8 for _, _, x in seeds) == [True, True]
    assert (seeds[0][2] < 21) != (seeds[1][2] < 21)
    review, _ = apply(review, reshape.cut(review, 1, seeds, spacing))
    assert_consistent(review)
    np.testing.assert_array_equal(review.objects.labels[box], ids)
    first, second = (o.voxels for o in review.objects.found)
    assert first == pytest.approx(second, rel=0.1)


def test_the_ends_farthest_apart_in_physical_units_are_proposed():
    mask = np.ones((17, 9, 39), np.uint8)
    mask[7:10, 3:6, 1:38] = 2
    mask[1:16, 3:6, 18:21] = 2
    review = Review(find_objects(mask), mask, {})
    (first, second), *_ = reshape.proposed_cut(review, 1, (4.0, 1.0, 1.0))
    assert abs(first[0] - second[0]) >= 10 and abs(first[2] - second[2]) <= 2


@pytest.mark.parametrize("centers", [(14,), (12, 16)])
def test_no_cut_is_proposed_for_an_object_of_one_part(centers):
    z, y, x = np.indices((15, 15, 30))
    inside = [(z - 7) ** 2 + (y - 7) ** 2 + (x - c) ** 2 < 6.5**2 for c in centers]
    mask = np.where(np.any(inside, axis=0), 2, 1).astype(np.uint8)
    review = Review(find_objects(mask), mask, {})
    assert reshape.proposed_cut(review, 1, ISOTROPIC) is None


def test_what_is_painted_into_a_mask_meanwhile_stays_beside_an_edit(review):
    edit = edits.reject(review, 3)
    review.mask[1, 1, 25] = 3
    after, back = apply(review, edit)
    assert after.mask[1, 1, 25] == 3 and after.mask[4, 5, 25] == 1
    after.mask[0, 1, 25] = 2
    undone, _ = apply(after, back)
    assert [undone.mask[z, y, 25] for z, y in ((1, 1), (0, 1), (4, 5))] == [3, 2, 3]
