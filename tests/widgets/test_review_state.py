"""What a review said and corrected outlasts the window, and fills no list of painted slices."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from napari.components import ViewerModel

from napari_volseg.data.annotation import default_classes
from napari_volseg.review.reshape import merged
from napari_volseg.widgets import reviewing as reviewing_module
from napari_volseg.widgets.layers import history_of, note
from napari_volseg.widgets.recovery import RecoveryStrip
from napari_volseg.widgets.verdicts import corrections_of, kept_in
from tests.widgets.conftest import close
from tests.widgets.hands import add_volume, find, live, press, wait_until
from tests.widgets.test_queue import (
    BIG,
    SHAPE,
    SMALL,
    SURE,
    begin,
    blobs,
    find_objects,
    held,
    key,
    number,
    rows,
    state,
)

STATES = {BIG: "corrected", SMALL: "rejected", SURE: "accepted"}


@pytest.fixture
def reviewing(dock, viewer):
    begin(dock, viewer)
    return dock


def review_all(dock) -> None:
    """Correct the first object (its hole is filled), reject the second, accept the third."""
    key(dock, "W")
    key(dock, "G")
    key(dock, "J")
    key(dock, "R")
    key(dock, "A")
    assert {voxel: state(dock, voxel) for voxel in STATES} == STATES


def verdicts(dock) -> list:
    """Return what was said, by voxels: numbers are others after each search."""
    kept = kept_in(dock.session)
    return sorted(
        (
            one.state,
            one.class_id,
            (np.argwhere(one.member[:]) + [s.start for s in one.box]).tobytes(),
        )
        for one in kept
    )


def marked(dock) -> np.ndarray:
    """Return which voxels of the annotation are corrections."""
    return corrections_of(dock.session.annotation).taken_out(np.ones(SHAPE, np.uint8)) == 0


def predict_again(dock, mask) -> None:
    """Show a mask of the volume, as a prediction would."""
    layer = dock.session.start_prediction(default_classes((1, 2, 3)))
    layer.data = held(mask)
    note(layer, doubt=held(blobs()[2]))
    press(dock, "step Review")
    dock.review.count_prediction()
    press(dock, "show Objects")
    wait_until(lambda: find(dock, "find objects").isVisible(), "it is counted")


def restore(viewer, dock) -> None:
    """Open the volume again, and what is on offer."""
    add_volume(viewer, blobs()[0])
    wait_until(lambda: dock.findChildren(RecoveryStrip) != [], "it is offered")
    assert "3 objects reviewed" in find(dock, "unsaved annotation").text()
    press(dock, "restore annotation")
    wait_until(lambda: dock.session.annotation is not None, "it is restored")


def seen(dock):
    """Return all that a review changes: labels, corrections and what is said of objects."""
    layer = dock.session.annotation
    return layer.data[:].tobytes(), marked(dock).tobytes(), verdicts(dock)


@pytest.mark.parametrize("unclean", [False, True], ids=["closed", "killed"])
def test_a_review_is_there_again_after_a_restart(open_dock, tmp_path, no_errors, unclean):
    viewer = ViewerModel()
    dock = open_dock(viewer)
    begin(dock, viewer)
    review_all(dock)
    before, mask = verdicts(dock), dock.session.prediction.data[:].copy()
    labels, corrected = dock.session.annotation.data[:].copy(), marked(dock)
    assert corrected.any() and len(before) == 3
    journal = tmp_path / "journal"
    if unclean:
        assert dock._journaling._autosave.flush()
        shutil.copytree(journal, tmp_path / "left")
    close(dock)
    if unclean:
        shutil.rmtree(journal)
        (tmp_path / "left").rename(journal)

    viewer = ViewerModel()
    dock = open_dock(viewer)
    restore(viewer, dock)
    np.testing.assert_array_equal(dock.session.annotation.data[:], labels)
    np.testing.assert_array_equal(marked(dock), corrected)
    # The model says what it said: the review of it is on view.
    predict_again(dock, blobs()[1])
    find_objects(dock)
    assert {voxel: state(dock, voxel) for voxel in STATES} == STATES
    assert verdicts(dock) == before
    np.testing.assert_array_equal(dock.session.prediction.data[:], mask)
    assert "100% of objects" in find(dock, "review progress").text()
    wait_until(lambda: not dock.findChildren(RecoveryStrip), "it is handed over")
    # And what was said can be taken back.
    dock.review.objects.queue.go_to(number(dock, SMALL))
    key(dock, "R")
    assert state(dock, SMALL) == "unreviewed" and dock.session.prediction.data[SMALL] == 2
    assert len(verdicts(dock)) == 2
    close(dock)


@pytest.mark.parametrize("searched", [False, True], ids=["not searched", "searched"])
def test_verdicts_are_undone_and_redone_after_a_restart(open_dock, no_errors, searched):
    viewer = ViewerModel()
    dock = open_dock(viewer)
    begin(dock, viewer)
    review_all(dock)
    states, masks = [seen(dock)], [dock.session.prediction.data[:].copy()]
    for _ in range(4):
        dock.undo.undo()
        states.append(seen(dock))
        masks.append(dock.session.prediction.data[:].copy())
    assert [len(kept) for _, _, kept in states] == [3, 2, 1, 1, 0]
    assert history_of(dock.session.annotation).undoable == ()
    for _ in range(4):
        dock.undo.redo()
    close(dock)

    viewer = ViewerModel()
    dock = open_dock(viewer)
    restore(viewer, dock)
    if searched:
        predict_again(dock, blobs()[1])
        find_objects(dock)
    turn = [(dock.undo.undo, at) for at in (1, 2, 3, 4)]
    turn += [(dock.undo.redo, at) for at in (3, 2, 1, 0)]
    for move, at in turn:
        move()
        assert seen(dock) == states[at], f"{at} taken back"
        if searched:
            np.testing.assert_array_equal(dock.session.prediction.data[:], masks[at])
            assert [row[2] != "" for row in rows(dock)].count(True) == len(states[at][2])
    dock.undo.undo()
    if not searched:
        predict_again(dock, blobs()[1])
        find_objects(dock)
    assert {voxel: state(dock, voxel) for voxel in STATES} == {**STATES, SURE: "unreviewed"}
    close(dock)


def test_several_rejected_are_undone_and_redone_after_a_restart(open_dock, no_errors):
    viewer = ViewerModel()
    dock = open_dock(viewer)
    begin(dock, viewer)
    find(dock, "objects").selectAll()
    key(dock, "R")
    after, mask = seen(dock), dock.session.prediction.data[:].copy()
    assert [x[0] for x in after[2]] == ["rejected"] * 3
    close(dock)

    viewer = ViewerModel()
    dock = open_dock(viewer)
    restore(viewer, dock)
    predict_again(dock, blobs()[1])
    find_objects(dock)
    np.testing.assert_array_equal(dock.session.prediction.data[:], mask)
    dock.undo.undo()
    assert verdicts(dock) == [] and not dock.session.annotation.data[:].any()
    np.testing.assert_array_equal(dock.session.prediction.data[:], blobs()[1])
    dock.undo.redo()
    assert seen(dock) == after
    np.testing.assert_array_equal(dock.session.prediction.data[:], mask)
    close(dock)


@pytest.mark.parametrize("limit", [0, 10**9])
def test_what_is_kept_for_the_undo_of_a_review_is_bounded_and_compressed(
    reviewing, monkeypatch, limit
):
    monkeypatch.setattr(reviewing_module, "LIMIT_BYTES", limit)
    annotation, prediction = reviewing.session.annotation, reviewing.session.prediction
    steps = [(seen(reviewing), prediction.data[:].copy())]
    for letter in ("W", "G", "J", "R", "J", "A"):
        key(reviewing, letter)
        if len(history_of(annotation).undoable) == len(steps):
            steps.append((seen(reviewing), prediction.data[:].copy()))
    assert len(steps) == 5
    kept = list(reviewing.review.objects.queue.reviewing._edits.values())
    assert len(kept) == (4 if limit else 1)
    assert sum(edit.size_bytes for edit in kept) < annotation.data.size
    moves = [(annotation.undo, at) for at in (3, 2, 1, 0)]
    for move, at in [*moves, *((annotation.redo, at) for at in (1, 2, 3, 4))]:
        move()
        assert seen(reviewing) == steps[at][0], f"{at} done"
        np.testing.assert_array_equal(prediction.data[:], steps[at][1])


def test_a_merge_is_undone_after_a_restart(open_dock, no_errors):
    viewer = ViewerModel()
    dock = open_dock(viewer)
    begin(dock, viewer)
    key(dock, "W")
    find(dock, "objects").selectAll()
    find(dock, "objects").clearSelection()
    queue = dock.review.objects.queue
    queue.reviewing.edit(merged, [number(dock, BIG), number(dock, SMALL)], (2.0, 1.0, 1.0))
    wait_until(lambda: len(rows(dock)) == 2, "they are merged")
    queue.go_to(number(dock, SURE))
    key(dock, "R")
    key(dock, "R")
    key(dock, "A")
    assert state(dock, SURE) == "accepted"
    after = seen(dock), dock.session.prediction.data[:].copy()
    close(dock)

    viewer = ViewerModel()
    dock = open_dock(viewer)
    add_volume(viewer, blobs()[0])
    wait_until(lambda: dock.findChildren(RecoveryStrip) != [], "it is offered")
    press(dock, "restore annotation")
    wait_until(lambda: dock.session.annotation is not None, "it is restored")
    predict_again(dock, blobs()[1])
    find_objects(dock)
    np.testing.assert_array_equal(dock.session.prediction.data[:], after[1])
    names = []
    while history_of(dock.session.annotation).undoable:
        names.append(history_of(dock.session.annotation).undoable[-1].name)
        dock.undo.undo()
    assert [name.split()[0] for name in names] == [
        "accept",
        "restore",
        "reject",
        "merge",
        "correct",
    ]
    assert verdicts(dock) == [] and not dock.session.annotation.data[:].any()
    np.testing.assert_array_equal(dock.session.prediction.data[:], blobs()[1])
    assert sorted(row[4] for row in rows(dock)) == ["10584", "2742", "360"]
    for _ in names:
        dock.undo.redo()
    assert seen(dock) == after[0]
    np.testing.assert_array_equal(dock.session.prediction.data[:], after[1])
    close(dock)


def test_what_does_not_fit_another_mask_is_said_and_kept(reviewing):
    review_all(reviewing)
    before = verdicts(reviewing)
    mask = blobs()[1]
    mask[4:9, 20:40, 7:30] = 2
    predict_again(reviewing, mask)
    find_objects(reviewing)
    assert (state(reviewing, BIG), state(reviewing, SURE)) == ("corrected", "accepted")
    assert state(reviewing, SMALL) == "unreviewed" and reviewing.session.prediction.data[SMALL] == 2
    said = find(reviewing, "verdicts that do not fit")
    assert said.isVisible() and "slice 6" in said.text()
    assert "1 object was rejected before" in said.text()
    assert verdicts(reviewing) == before, "the next mask may be as the first was"
    reviewing.review.objects.queue.go_to(number(reviewing, SMALL))
    key(reviewing, "A")
    assert not said.isVisible()
    assert [x[0] for x in verdicts(reviewing)] == ["accepted", "accepted", "corrected"]


def test_a_rejected_object_is_recognized_if_the_next_mask_has_most_of_it(reviewing):
    review_all(reviewing)
    mask = blobs()[1]
    mask[4:9, 27:33, 12] = 1
    predict_again(reviewing, mask)
    find_objects(reviewing)
    assert state(reviewing, SMALL) == "rejected" and reviewing.session.prediction.data[SMALL] == 1
    mask[4:9, 27:33, 7:13] = 1
    predict_again(reviewing, mask)
    find_objects(reviewing)
    assert state(reviewing, SMALL) == "rejected", "the mask agrees: it is no object"


def test_another_annotation_has_verdicts_of_its_own(reviewing, viewer):
    first = reviewing.session.annotation
    review_all(reviewing)
    before = verdicts(reviewing)
    press(reviewing, "new annotation")
    assert not find(reviewing, "objects").isVisible() and verdicts(reviewing) == []
    assert "This annotation has verdicts of its own" in find(reviewing, "objects found").text()
    reviewing.session.choose_annotation(first)
    find_objects(reviewing)
    assert verdicts(reviewing) == before
    viewer.layers.remove(first)
    assert "The annotation is gone" in find(reviewing, "objects found").text()


def test_corrections_are_one_line_not_slices_and_undo_knows_them(reviewing, viewer):
    session, annotation = reviewing.session, reviewing.session.annotation
    annotation.data[2, 3:9, 3:9] = 2
    annotation.refresh()
    review_all(reviewing)
    wait_until(lambda: session.painted.corrected == 1372 + 180, "the corrections are found")
    assert [(s.axis, s.index) for s in session.painted.slices] == [(0, 2)]
    assert session.painted.corrected == np.count_nonzero(marked(reviewing) & (annotation.data > 0))
    press(reviewing, "step Annotate")
    thousands = "1\N{THIN SPACE}552"
    assert find(reviewing, "corrections").text() == f"corrections: {thousands} voxels"
    everything = marked(reviewing)
    steps = [everything]
    while history_of(annotation).undoable:
        annotation.undo()
        steps.append(marked(reviewing))
    assert not steps[-1].any() and not np.array_equal(steps[0], steps[2])
    np.testing.assert_array_equal(steps[0], steps[1], "accepting writes nothing")
    wait_until(lambda: session.painted.corrected == 0, "there are none left")
    assert not find(reviewing, "corrections").isVisible()
    for step in reversed(steps[:-1]):
        annotation.redo()
        np.testing.assert_array_equal(marked(reviewing), step)


def test_a_stroke_over_a_correction_is_paint_and_one_that_fixes_is_a_correction(reviewing):
    annotation = reviewing.session.annotation
    annotation.brush_size, annotation.n_edit_dimensions = 3, 3
    key(reviewing, "W")
    annotation.paint((6, 20, 10), 2)
    live(0.05)
    assert marked(reviewing)[6, 20, 10] and marked(reviewing)[BIG]
    key(reviewing, "J")
    key(reviewing, "R")
    assert annotation.data[SMALL] == 1 and marked(reviewing)[SMALL]
    annotation.paint(SMALL, 2)
    live(0.05)
    assert not marked(reviewing)[SMALL] and marked(reviewing)[BIG]
    annotation.undo()
    assert marked(reviewing)[SMALL]
