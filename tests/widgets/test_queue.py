"""The review queue: objects in a table and in the picture, verdicts, fixes, locks."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog
from scipy import ndimage

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.volume import Volume
from napari_volseg.inference.large import labels_for
from napari_volseg.widgets.layers import history_of, note, noted, show_slice
from tests.widgets.conftest import close
from tests.widgets.hands import (
    add_volume,
    canvas,
    drag,
    find,
    live,
    on_canvas,
    pick,
    press,
    wait_until,
)

SHAPE = (12, 40, 60)
BIG, SMALL, SURE = (6, 10, 10), (6, 30, 10), (6, 20, 48)
"""A voxel in each of three objects."""


def blobs() -> tuple[Volume, np.ndarray, np.ndarray]:
    """Three blocks: a large doubtful one with a hole, a small doubtful one, a large sure one."""
    mask = np.ones(SHAPE, np.uint8)
    mask[3:10, 4:18, 4:18] = 2
    mask[6, 12, 12] = 1
    mask[4:9, 27:33, 7:13] = 2
    mask[0:12, 10:31, 38:59] = 3
    doubt = np.full(SHAPE, 153, np.uint8)
    doubt[mask == 3] = 3
    image = (100 * mask)[None].astype(np.float32)
    return Volume(image, (2.0, 1.0, 1.0), "micrometer", name="blobs"), mask, doubt


def held(values: np.ndarray):
    """Hold values as those of a volume of their shape are: in an array, or in blocks."""
    labels = labels_for(values.shape, values.dtype)
    labels[:] = values
    return labels


@pytest.fixture
def reviewing(dock, viewer):
    """The dock with an annotation, at Review, with the three objects found."""
    begin(dock, viewer)
    return dock


def begin(dock, viewer) -> None:
    volume, mask, doubt = blobs()
    add_volume(viewer, volume)
    dock.session.start_annotation()
    layer = dock.session.start_prediction(default_classes((1, 2, 3)))
    layer.data = held(mask)
    note(layer, doubt=held(doubt))
    press(dock, "step Review")
    dock.review.count_prediction()
    wait_until(lambda: find(dock, "classes of the prediction").isVisible(), "it is counted")
    find_objects(dock)


def find_objects(dock) -> None:
    press(dock, "show Objects")
    press(dock, "find objects")
    wait_until(lambda: find(dock, "objects").isVisible(), "objects are found")


def number(dock, voxel) -> int:
    return dock.review.objects.queue.reviewing.number_at(voxel)


def state(dock, voxel) -> str:
    return dock.review.objects.queue.reviewing.state(number(dock, voxel))


def rows(dock) -> list[list[str]]:
    model = find(dock, "objects").model()
    return [
        [model.index(at, column).data() for column in range(model.columnCount())]
        for at in range(model.rowCount())
    ]


def in_review(dock) -> str:
    return find(dock, "object in review").text()


def key(dock, letter: str, modifier=Qt.KeyboardModifier.NoModifier) -> None:
    """Press a key in the table, and wait until what it does is done."""
    table = find(dock, "objects")
    table.window().activateWindow()
    table.setFocus()
    wait_until(table.hasFocus, "the table has the focus")
    QTest.keyClick(table, letter, modifier)
    wait_until(lambda: not dock.review.objects.queue.reviewing.working, "it is done")


def test_the_table_tells_all_objects_those_most_likely_wrong_first(reviewing):
    assert [[*row[:5], row[6]] for row in rows(reviewing)] == [
        ["1", "class 2", "", "0.40", "2742", ""],
        ["2", "class 2", "", "0.40", "360", ""],
        ["3", "class 3", "", "0.99", "10584", "yes"],
    ]
    assert rows(reviewing)[1][5].split("\N{MULTIPLICATION SIGN}") == ["10", "6", "6"]
    find(reviewing, "filter objects").setText("border unrev")
    assert [row[0] for row in rows(reviewing)] == ["3"]
    assert "object 1" in in_review(reviewing)
    find(reviewing, "filter objects").setText("")
    find(reviewing, "objects").sortByColumn(4, Qt.SortOrder.DescendingOrder)
    assert [row[0] for row in rows(reviewing)] == ["3", "1", "2"]
    assert find(reviewing, "objects").currentIndex().row() == 1


def test_a_row_shows_its_object_and_a_click_in_the_picture_finds_the_row(reviewing, viewer):
    table = find(reviewing, "objects")
    table.selectRow(2)
    assert "object 3" in in_review(reviewing)
    assert viewer.scene.camera.center[-2:] == (20.0, 48.0)
    assert 40 <= 21 * viewer.scene.camera.zoom <= 500
    table.selectRow(1)
    assert viewer.dims.current_step[0] in range(4, 9)
    table.selectRow(2)
    find(reviewing, "filter objects").setText("class 3")
    reviewing.review.objects.queue.click(SMALL)
    assert "object 2" in in_review(reviewing) and len(rows(reviewing)) == 3
    assert table.currentIndex().row() == 1
    assert viewer.scene.camera.center[-2:] == (20.0, 48.0)


def test_keys_walk_through_the_queue(reviewing):
    assert "object 1" in in_review(reviewing)
    key(reviewing, "J")
    assert "object 2" in in_review(reviewing)
    key(reviewing, "A")
    assert state(reviewing, SMALL) == "accepted" and "object 3" in in_review(reviewing)
    assert "33% of objects, 3% of volume" in find(reviewing, "review progress").text()
    assert "1/3" in find(reviewing, "step Review").text()
    key(reviewing, "K")
    assert "object 2" in in_review(reviewing)
    key(reviewing, "A")
    assert state(reviewing, SMALL) == "unreviewed"


def test_undo_takes_an_accepted_object_back_and_shows_it(reviewing, viewer):
    annotation = reviewing.session.annotation
    key(reviewing, "A")
    assert history_of(annotation).undoable[-1].name == "accept object 1"
    show_slice(viewer, annotation, 0, 0)
    annotation.undo()
    assert state(reviewing, BIG) == "unreviewed" and not history_of(annotation).undoable
    assert viewer.dims.current_step[0] in range(3, 10), "its slices are on view"
    assert "0% of objects" in find(reviewing, "review progress").text()
    annotation.redo()
    assert state(reviewing, BIG) == "accepted" and not annotation.data[:].any()
    key(reviewing, "K")
    key(reviewing, "A")
    assert [act.name for act in history_of(annotation).undoable][1:] == ["unlock object 1"]
    annotation.undo()
    assert state(reviewing, BIG) == "accepted"


def test_several_selected_objects_are_accepted_and_unlocked_as_one_act(reviewing):
    annotation = reviewing.session.annotation
    find(reviewing, "objects").selectRow(1)
    key(reviewing, "R")
    find(reviewing, "objects").selectAll()
    key(reviewing, "A")
    said = {BIG: "accepted", SMALL: "rejected", SURE: "accepted"}
    assert {voxel: state(reviewing, voxel) for voxel in said} == said
    assert sorted(row[2] for row in rows(reviewing)) == ["accepted", "accepted", "rejected"]
    assert history_of(annotation).undoable[-1].name == "accept 2 objects"
    annotation.undo()
    assert [row[2] for row in rows(reviewing)] == ["", "rejected", ""]
    annotation.redo()
    assert {voxel: state(reviewing, voxel) for voxel in said} == said


def test_several_selected_objects_are_rejected_as_one_act(reviewing):
    session, annotation = reviewing.session, reviewing.session.annotation
    find(reviewing, "objects").selectRow(1)
    key(reviewing, "A")
    before = session.prediction.data[:].copy()
    find(reviewing, "objects").selectAll()
    key(reviewing, "R")
    said = {BIG: "rejected", SMALL: "accepted", SURE: "rejected"}
    assert {voxel: state(reviewing, voxel) for voxel in said} == said
    after = session.prediction.data[:].copy()
    assert [after[voxel] for voxel in said] == [1, 2, 1]
    np.testing.assert_array_equal(annotation.data[:] == 1, before != after)
    assert set(np.unique(annotation.data[:])) == {0, 1}
    assert history_of(annotation).undoable[-1].name == "reject 2 objects"
    annotation.undo()
    assert [row[2] for row in rows(reviewing)] == ["", "accepted", ""]
    np.testing.assert_array_equal(session.prediction.data[:], before)
    assert not annotation.data[:].any()
    annotation.redo()
    assert {voxel: state(reviewing, voxel) for voxel in said} == said
    np.testing.assert_array_equal(session.prediction.data[:], after)


def test_what_a_stroke_changes_meanwhile_is_not_lost_to_a_rejection(reviewing):
    annotation = reviewing.session.annotation
    find(reviewing, "objects").selectAll()
    reviewing.review.objects.queue.reject()
    annotation.brush_size = 1
    annotation.paint((2, 39, 1), 3)
    wait_until(lambda: state(reviewing, BIG) == "rejected", "they are rejected")
    assert annotation.data[2, 39, 1] == 3 and annotation.data[BIG] == 1
    names = [act.name for act in history_of(annotation).undoable]
    assert names == ["stroke", "reject 3 objects"]
    annotation.undo()
    assert annotation.data[2, 39, 1] == 3 == annotation.data[:].sum()


def test_the_queue_goes_on_in_its_order_while_reviewed_rows_are_filtered_out(reviewing):
    find(reviewing, "filter objects").setText("unreviewed")
    key(reviewing, "A")
    assert [row[0] for row in rows(reviewing)] == ["2", "3"]
    assert "object 2" in in_review(reviewing)
    assert find(reviewing, "objects").currentIndex().row() == 0


def test_a_rejected_object_becomes_background_in_mask_and_annotation_until_undone(reviewing):
    prediction, annotation = reviewing.session.prediction, reviewing.session.annotation
    key(reviewing, "R")
    assert "object 2" in in_review(reviewing)
    assert prediction.data[BIG] == 1 and annotation.data[BIG] == 1
    assert history_of(annotation).undoable[-1].name == "reject object 1"
    annotation.undo()
    assert state(reviewing, BIG) == "unreviewed"
    assert prediction.data[BIG] == 2 and not annotation.data[:].any()
    annotation.redo()
    assert state(reviewing, BIG) == "rejected"
    assert prediction.data[BIG] == 1 and annotation.data[BIG] == 1
    key(reviewing, "K")
    key(reviewing, "R")
    assert state(reviewing, BIG) == "unreviewed"
    assert prediction.data[BIG] == 2 and not annotation.data[:].any()


def test_accepted_and_corrected_objects_outlast_the_next_prediction(reviewing, model):
    find(reviewing, "objects").selectRow(2)
    key(reviewing, "A")
    key(reviewing, "W")
    assert state(reviewing, BIG) == "corrected"
    key(reviewing, "G")
    locked = np.isin(reviewing.session.prediction.data[:], (2, 3))
    locked[4:9, 27:33, 7:13] = False
    before = reviewing.session.prediction.data[:].copy()
    reviewing.session.set_model(model_for(reviewing, model))
    press(reviewing, "step Predict")
    press(reviewing, "predict")
    wait_until(lambda: not reviewing.predict.job.running, "it is predicted")
    after = reviewing.session.prediction.data[:]
    np.testing.assert_array_equal(after[locked], before[locked])
    assert (after[~locked] != before[~locked]).any()
    press(reviewing, "step Review")
    find_objects(reviewing)
    assert (state(reviewing, BIG), state(reviewing, SURE)) == ("corrected", "accepted")
    # The model was never trained: it is not sure, and says so of each object.
    doubt = noted(reviewing.session.prediction)["doubt"]
    assert doubt.dtype == np.uint8 and 0 < doubt[:].max()
    size = {row[0]: row[4] for row in rows(reviewing)}
    assert size[str(number(reviewing, BIG))] == "2744"


def model_for(dock, model):
    """Return the model, which was never trained, for images of one channel."""
    from dataclasses import asdict, replace

    from napari_volseg.data.intensity import measure_intensity
    from napari_volseg.models.registry import get_architecture

    checkpoint, volume = model.checkpoint, dock.session.volume
    config = checkpoint.module("cpu")[1]
    module = get_architecture("unet3d").build(config, 1, len(checkpoint.classes))
    checkpoint = replace(
        checkpoint,
        config=asdict(config),
        channels=1,
        intensity=measure_intensity(volume),
        weights=module.state_dict(),
    )
    return replace(model, checkpoint=checkpoint)


def test_a_brush_on_the_prediction_leaves_locked_objects_alone(reviewing):
    key(reviewing, "A")
    prediction = reviewing.session.prediction
    prediction.editable = True
    prediction.data_setitem((np.array([6, 6]), np.array([10, 30]), np.array([10, 10])), 3)
    live(0.05)
    assert prediction.data[BIG] == 2 and prediction.data[SMALL] == 3


def test_fixes_change_mask_and_annotation_as_acts_that_undo_takes_back(reviewing):
    annotation, prediction = reviewing.session.annotation, reviewing.session.prediction
    before = prediction.data[:].copy()
    key(reviewing, "W")
    assert annotation.mode == "paint" and annotation.selected_label == 2
    assert annotation.data[BIG] == 2 and annotation.data[6, 12, 12] == 0
    key(reviewing, "G")
    assert annotation.data[6, 12, 12] == 2 == prediction.data[6, 12, 12]
    find(reviewing, "objects").selectAll()
    find(reviewing, "objects").clearSelection()
    reviewing.review.objects.queue.go_to(number(reviewing, BIG))
    press(reviewing, "split object")
    for voxel in ((6, 5, 10), (6, 16, 10)):
        reviewing.review.objects.queue.click(voxel)
    press(reviewing, "split object")
    wait_until(lambda: len(rows(reviewing)) == 4, "it is split")
    assert number(reviewing, (6, 5, 10)) != number(reviewing, (6, 16, 10))
    while history_of(annotation).undoable:
        annotation.undo()
    np.testing.assert_array_equal(prediction.data[:], before)
    assert not annotation.data[:].any() and len(rows(reviewing)) == 3
    assert state(reviewing, BIG) == "unreviewed"


def test_a_split_is_proposed_shown_and_done_by_one_key(reviewing, viewer):
    prediction = reviewing.session.prediction
    prediction.data[6, 18:29, 10] = 2  # a bridge between the two blocks
    press(reviewing, "find objects")
    wait_until(lambda: len(rows(reviewing)) == 2, "they are one object now")
    key(reviewing, "W")
    before = prediction.data[:].copy()
    split = find(reviewing, "split object")
    press(reviewing, "split object")
    wait_until(lambda: "red line" in find(reviewing, "how to fix").text(), "a cut is proposed")
    outline = viewer.layers["object in review"]
    assert (outline.data[:] == 3).any() and np.array_equal(prediction.data[:], before)
    shown = viewer.dims.current_step[0] - round(outline.translate[0] / 2)
    assert (outline.data[shown] == 3).any(), "the cut is on view"
    # A click wants other places, and pressing it then changes nothing: they are too few.
    reviewing.review.objects.queue.click((6, 5, 10))
    assert (outline.data[:] == 3).sum() <= 27 and "1 so far" in find(reviewing, "how to fix").text()
    key(reviewing, "J")
    assert not split.isChecked() and np.array_equal(prediction.data[:], before)
    key(reviewing, "K")
    for done in (
        lambda: "red line" in find(reviewing, "how to fix").text(),
        lambda: len(rows(reviewing)) == 3,
    ):
        key(reviewing, "S", Qt.KeyboardModifier.ShiftModifier)
        wait_until(done, "it is proposed, then done")
    assert number(reviewing, BIG) != number(reviewing, SMALL) > 0
    assert state(reviewing, BIG) == state(reviewing, SMALL) == "corrected"
    reviewing.session.annotation.undo()
    np.testing.assert_array_equal(prediction.data[:], before)


def test_what_is_painted_and_erased_changes_the_object_that_is_being_fixed(reviewing):
    annotation, prediction = reviewing.session.annotation, reviewing.session.prediction
    key(reviewing, "W")
    voxels = reviewing.review.objects.queue.reviewing.objects.get(1).voxels
    annotation.n_edit_dimensions = 3
    annotation.brush_size = 5
    annotation.paint((6, 20, 10), 2)
    live(0.02)
    annotation.brush_size = 3
    annotation.paint((6, 5, 5), 0)
    live(0.02)
    assert prediction.data[6, 20, 10] == 2 and prediction.data[6, 5, 5] == 1
    changed = reviewing.review.objects.queue.reviewing.objects.get(1).voxels
    assert changed == (prediction.data[3:10, 4:26, 4:18] == 2).sum() != voxels
    annotation.undo()
    annotation.undo()
    assert reviewing.review.objects.queue.reviewing.objects.get(1).voxels == voxels
    annotation.undo()
    annotation.paint((6, 20, 10), 2)
    live(0.02)
    assert prediction.data[6, 20, 10] == 1, "it is not being fixed any more"
    key(reviewing, "W")
    key(reviewing, "J")
    annotation.paint((6, 24, 10), 2)
    live(0.02)
    assert prediction.data[6, 24, 10] == 1, "another one is in review"


def test_what_is_cleared_takes_nothing_from_the_object_that_was_being_fixed(reviewing):
    annotation, prediction = reviewing.session.annotation, reviewing.session.prediction
    key(reviewing, "W")
    before = prediction.data[:].copy()
    press(reviewing, "step Annotate")
    pick(reviewing, "Clear all")
    wait_until(lambda: not annotation.data[:].any(), "all is cleared")
    # A stroke beside it, of which the box reaches into the object.
    with annotation.block_history():
        annotation.paint((6, 2, 2), 2)
        annotation.paint((6, 9, 9), 2)
    live(0.05)
    np.testing.assert_array_equal(prediction.data[:], before)


def test_objects_selected_in_the_table_are_merged(reviewing):
    key(reviewing, "W")
    table = find(reviewing, "objects")
    selection = table.selectionModel()
    flags = selection.SelectionFlag.Select | selection.SelectionFlag.Rows
    selection.select(table.model().index(1, 0), flags)
    press(reviewing, "merge objects")
    wait_until(lambda: len(rows(reviewing)) == 2, "they are merged")
    assert number(reviewing, SMALL) == number(reviewing, BIG) == 1
    assert ndimage.label(reviewing.session.prediction.data[:] == 2)[1] == 1


def test_the_review_is_saved_as_a_table(reviewing, monkeypatch, tmp_path):
    key(reviewing, "R")
    path = tmp_path / "review.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (str(path), a[-1]))
    press(reviewing, "save the review")
    wait_until(path.exists, "the table is written")
    with path.open(newline="") as file:
        found = {row["object"]: row for row in csv.DictReader(file)}
    assert found["1"]["state"] == "rejected" and found["2"]["state"] == "unreviewed"
    assert found["2"]["volume_micrometer3"] == "360.0" and found["2"]["confidence"] == "0.4"
    assert found["2"]["center_z_micrometer"] == "12.0"


def test_keys_do_nothing_in_other_steps_and_none_without_objects(reviewing):
    press(reviewing, "step Annotate")
    annotation = reviewing.session.annotation
    for bound in ("A", "R", "W"):
        next(f for k, f in annotation.keymap.items() if str(k) == bound)(annotation)
    live(0.05)
    assert state(reviewing, BIG) == "unreviewed" and not annotation.data[:].any()


def test_a_click_on_the_canvas_goes_to_the_object(napari_viewer, qapp, tmp_path):
    from napari_volseg.widgets.dock import VolSegDock

    dock = VolSegDock(napari_viewer, journal=tmp_path)
    napari_viewer.window.add_dock_widget(dock, name="VolSeg")
    begin(dock, napari_viewer)
    layer = dock.session.prediction
    napari_viewer.layers.selection.active = layer
    show_slice(napari_viewer, layer, 0, 6)
    live(0.3)
    drag(canvas(napari_viewer), [on_canvas(napari_viewer, layer, SMALL)])
    wait_until(lambda: "object 2" in in_review(dock), "the click selects the object")
    close(dock)
