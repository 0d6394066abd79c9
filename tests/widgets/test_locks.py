"""An object that is accepted keeps its class in the annotation, whatever is painted over it."""

from __future__ import annotations

import numpy as np
import pytest
from napari.utils.notifications import notification_manager

from napari_volseg.widgets.layers import history_of, show_slice
from tests.widgets.conftest import close
from tests.widgets.hands import live, paint, press, wait_until
from tests.widgets.test_between import Proposer
from tests.widgets.test_queue import BIG, SMALL, SURE, begin, key, number, state
from tests.widgets.test_review_state import predict_again


@pytest.fixture
def reviewing(dock, viewer):
    begin(dock, viewer)
    return dock


def inside(dock, voxel) -> np.ndarray:
    """Return where an object is."""
    labels = dock.review.objects.queue.reviewing.objects.labels[:]
    return labels == labels[voxel]


def lock(dock, voxel) -> np.ndarray:
    """Accept an object; return where it is."""
    dock.review.objects.queue.go_to(number(dock, voxel))
    key(dock, "A")
    assert state(dock, voxel) == "accepted"
    return inside(dock, voxel)


def stroke(dock, start, stop, class_id, brush=5) -> None:
    """Paint from a voxel to another of the same slice, in steps, as the mouse does."""
    layer = dock.session.annotation
    layer.brush_size = brush
    with layer.block_history():
        for part in np.linspace(0, 1, 7):
            layer.paint(tuple(np.add(start, part * np.subtract(stop, start))), class_id)
    live(0.02)


def told() -> list[str]:
    return [
        record.message
        for record in notification_manager.records
        if "does not stay" in record.message
    ]


def test_a_stroke_over_an_accepted_object_stays_beside_it_only(reviewing, viewer):
    annotation, before = reviewing.session.annotation, len(told())
    stroke(reviewing, (6, 10, 2), (6, 10, 8), 2)
    painted = annotation.data[:].copy()
    object_ = lock(reviewing, BIG)
    stroke(reviewing, (6, 10, 30), (6, 10, 6), 3)
    after = annotation.data[:].copy()
    assert (after[~object_] == 3).any() and not (after[object_] == 3).any()
    np.testing.assert_array_equal(after[object_], painted[object_])
    assert [act.name for act in history_of(annotation).undoable][1:] == [
        "accept object 1",
        "stroke",
    ]
    message = viewer.status
    assert message.startswith("Object 1 is accepted; A unlocks it, W corrects it")
    assert told()[before:] == [message]
    annotation.undo()
    np.testing.assert_array_equal(annotation.data[:], painted)
    annotation.redo()
    np.testing.assert_array_equal(annotation.data[:], after)
    # The same again: nothing is left to do, and the user has read why.
    stroke(reviewing, (6, 10, 30), (6, 10, 6), 3)
    assert len(history_of(annotation).undoable) == 3 and len(told()) == before + 1
    np.testing.assert_array_equal(annotation.data[:], after)


def test_an_accepted_object_can_be_painted_with_its_class_and_erased(reviewing, viewer):
    annotation = reviewing.session.annotation
    object_ = lock(reviewing, BIG)
    viewer.status = ""
    stroke(reviewing, (6, 8, 6), (6, 8, 16), 2)
    assert (annotation.data[:][object_] == 2).any()
    stroke(reviewing, (6, 8, 6), (6, 8, 16), 0)
    assert not annotation.data[:].any() and not viewer.status


def test_a_single_step_and_a_fill_leave_accepted_objects(reviewing):
    """Of these, napari tells before it paints."""
    annotation = reviewing.session.annotation
    object_ = lock(reviewing, BIG)
    annotation.paint((6, 10, 10), 3)
    live(0.02)
    assert not (annotation.data[:][object_] == 3).any()
    annotation.contiguous = False
    annotation.fill((6, 39, 1), 3)
    live(0.02)
    np.testing.assert_array_equal(annotation.data[6] == 3, ~object_[6])
    annotation.undo()
    assert not (annotation.data[:][object_]).any()


def test_a_slice_through_an_accepted_object_is_complete_with_its_class(reviewing, viewer):
    annotation = reviewing.session.annotation
    accepted = lock(reviewing, SURE)
    stroke(reviewing, (6, 20, 45), (6, 20, 50), 3)
    press(reviewing, "step Annotate")
    show_slice(viewer, annotation, 0, 6)
    press(reviewing, "mark slice complete")
    live(0.02)
    np.testing.assert_array_equal(annotation.data[6], np.where(accepted[6], 3, 1))
    assert history_of(annotation).undoable[-1].name == "mark complete"
    wait_until(lambda: (0, 6) in reviewing.session.painted.complete, "it is known as complete")
    annotation.undo()
    assert not (annotation.data[:] == 1).any() and (annotation.data[:] == 3).any()


def test_proposals_are_accepted_around_an_accepted_object(reviewing, viewer, monkeypatch):
    annotation = reviewing.session.annotation
    monkeypatch.setattr("napari_volseg.widgets.between.propose_on", Proposer())
    accepted = lock(reviewing, SURE)
    viewer.status = ""
    press(reviewing, "step Annotate")
    show_slice(viewer, annotation, 0, 6)
    press(reviewing, "fill between painted slices")
    wait_until(lambda: not reviewing.annotate._between.job.running, "it is proposed")
    live(0.02)
    press(reviewing, "accept all proposals")
    live(0.02)
    np.testing.assert_array_equal(annotation.data[5:9] == 2, ~accepted[5:9])
    assert not viewer.status and not annotation.data[9:].any()


def test_what_is_being_fixed_is_open_and_its_neighbors_are_not(reviewing, viewer):
    annotation = reviewing.session.annotation
    small = lock(reviewing, SMALL)
    reviewing.review.objects.queue.go_to(number(reviewing, BIG))
    key(reviewing, "W")
    stroke(reviewing, (6, 10, 10), (6, 30, 10), 3)
    assert annotation.data[BIG] == 3 and not (annotation.data[:][small] == 3).any()
    assert "Object 2 is accepted" in viewer.status
    key(reviewing, "J")
    stroke(reviewing, (6, 6, 6), (6, 6, 14), 3)
    assert annotation.data[6, 6, 10] == 2
    assert viewer.status.startswith("Object 1 is corrected; W opens it")


def test_the_keys_that_are_named_open_an_accepted_object(reviewing):
    annotation = reviewing.session.annotation
    for letter in ("A", "W"):
        lock(reviewing, BIG)
        reviewing.review.objects.queue.go_to(number(reviewing, BIG))
        key(reviewing, letter)
        stroke(reviewing, (6, 10, 8), (6, 10, 14), 3)
        assert annotation.data[BIG] == 3
        while history_of(annotation).undoable:
            annotation.undo()


def test_what_was_accepted_is_safe_before_it_is_found_again(reviewing, viewer):
    mask = reviewing.session.prediction.data[:].copy()
    object_ = lock(reviewing, BIG)
    predict_again(reviewing, mask)
    stroke(reviewing, (6, 10, 8), (6, 10, 14), 3)
    assert not reviewing.session.annotation.data[:][object_].any()
    assert "find the objects in Review (Shift+R)" in viewer.status


def test_the_mouse_paints_around_an_accepted_object(napari_viewer, qapp, tmp_path, no_errors):
    from napari_volseg.widgets.dock import VolSegDock

    dock = VolSegDock(napari_viewer, journal=tmp_path)
    napari_viewer.window.add_dock_widget(dock, name="VolSeg")
    begin(dock, napari_viewer)
    annotation = dock.session.annotation
    object_ = lock(dock, BIG)
    napari_viewer.layers.selection.active = annotation
    show_slice(napari_viewer, annotation, 0, 6)
    dock.session.paint_with(3)
    annotation.brush_size = 5
    live(0.3)
    paint(napari_viewer, annotation, [(6, 10, x) for x in range(34, 5, -2)])
    live(0.2)
    assert (annotation.data[6, :, 19:] == 3).any() and not annotation.data[:][object_].any()
    # What is on view is what is there.
    np.testing.assert_array_equal(annotation._slice.image.raw, annotation.data[6])
    close(dock)
