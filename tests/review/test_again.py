"""What was said of objects is taken back and said again, also in another mask."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.history import Act
from napari_volseg.data.kept import KeptObject
from napari_volseg.review.again import said_again
from napari_volseg.review.edits import Review, apply
from napari_volseg.review.kept import cut_out, said_after
from napari_volseg.review.objects import find_objects

SHAPE = (6, 20, 30)
LEFT, RIGHT = (slice(1, 5), slice(2, 12), slice(2, 10)), (slice(1, 5), slice(2, 12), slice(15, 25))


@pytest.fixture
def review(hold):
    """Make a mask with a block of class 2 in each box."""

    def make(*boxes, states=None):
        mask = np.ones(SHAPE, np.uint8)
        for box in boxes:
            mask[box] = 2
        held = hold(mask)
        return Review(find_objects(held), held, states or {})

    return make


def block(box, state, class_id=2):
    return KeptObject(class_id, state, box, np.ones([s.stop - s.start for s in box], bool))


def do(before, gone=(), said=()):
    return apply(before, said_again(before, "undo", gone, said))


def snapshot(review):
    objects = [(o.id, o.mask_label, o.voxels, o.box) for o in review.objects.found]
    return (
        objects,
        dict(review.states),
        review.mask[:].tobytes(),
        review.objects.labels[:].tobytes(),
    )


def test_a_rejected_object_comes_back_and_goes_again(review):
    before, rejected = snapshot(review(LEFT, RIGHT)), block(RIGHT, "rejected")
    after, back = do(review(LEFT, RIGHT), said=[rejected])
    assert after.states == {2: "rejected"} and (after.mask[RIGHT] == 1).all()
    assert snapshot(do(after, gone=[rejected])[0]) == before
    after, back = do(review(LEFT, RIGHT), said=[rejected])
    assert snapshot(apply(after, back)[0]) == before


def test_what_was_merged_is_two_again(review):
    whole = slice(1, 5), slice(2, 12), slice(2, 25)
    merged = block(whole, "corrected")
    parts = [block(LEFT, "accepted"), block(RIGHT, "unreviewed")]
    after, _ = do(review(whole, states={1: "corrected"}), [merged], parts)
    assert after.states == {1: "accepted"} and len(after.objects.found) == 2
    np.testing.assert_array_equal(after.mask[:], review(LEFT, RIGHT).mask[:])
    again, _ = do(after, parts, [merged])
    assert again.states == {1: "corrected"}
    np.testing.assert_array_equal(again.objects.labels[:] == 1, again.mask[:] == 2)
    assert [o.voxels for o in again.objects.found] == [4 * 10 * 23]


def test_an_object_of_another_class_takes_a_number_and_gives_it_back(review):
    before = review(LEFT, RIGHT, states={1: "corrected"})
    seen = snapshot(before)
    after, back = do(before, [block(LEFT, "corrected")], [block(LEFT, "corrected", 3)])
    assert after.objects.get(1).mask_label == 3 and (after.mask[LEFT] == 3).all()
    assert snapshot(apply(after, back)[0]) == seen


def test_a_locked_object_takes_only_what_nothing_is_said_of(review):
    wide = slice(1, 5), slice(2, 12), slice(2, 20)
    after, _ = do(review(LEFT, RIGHT, states={1: "accepted"}), said=[block(wide, "accepted", 3)])
    assert after.states == {1: "accepted", 3: "accepted"}
    assert (after.mask[LEFT] == 2).all() and (after.mask[1:5, 2:12, 10:20] == 3).all()
    assert after.objects.get(2).voxels == 4 * 10 * 5


def test_a_rejected_object_takes_nothing_of_another(review):
    other = slice(1, 5), slice(2, 12), slice(2, 29)
    after, _ = do(review(other), said=[block(RIGHT, "rejected")])
    assert after.states == {} and (after.mask[other] == 2).all()


def test_thousands_of_verdicts_are_taken_back_without_a_voxel(review):
    before = review(LEFT, RIGHT)
    edit = said_again(before, "undo", [block(LEFT, "accepted"), block(RIGHT, "accepted")], [])
    assert edit.ids.voxels == edit.mask.voxels == 0 and edit.states == {
        1: "unreviewed",
        2: "unreviewed",
    }


@pytest.mark.parametrize("another_mask", [False, True])
def test_what_is_kept_follows_an_act(review, another_mask):
    first, second = block(LEFT, "rejected"), block(RIGHT, "accepted")
    fixed = cut_out(find_objects(review(RIGHT).mask), 1, "corrected")
    act = Act("undo", "|u1", said=(fixed.act,), unsaid=(second.act,))
    if another_mask:
        second = block((*RIGHT[:2], slice(14, 24)), "accepted")
    assert said_after([first, second], Act("undo", "|u1", unsaid=act.unsaid)) == (first,)
    left = said_after([first, second], act)
    assert [(one.state, one.box) for one in left] == [("rejected", LEFT), ("corrected", RIGHT)]
    back = said_after(left, Act("redo", "|u1", said=act.unsaid, unsaid=act.said))
    assert [(one.state, one.box) for one in back] == [("rejected", LEFT), ("accepted", RIGHT)]
