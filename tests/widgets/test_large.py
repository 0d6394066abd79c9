"""A volume too large for arrays of labels: the same window, with its labels held in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.data.files import read_annotation, write_volume
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import slice_region
from napari_volseg.inference.predict import predict_volume
from napari_volseg.review.objects import find_objects
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training.loop import train
from napari_volseg.widgets import preview
from napari_volseg.widgets.contributions import read_layers
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import history_of, show_slice
from napari_volseg.widgets.recovery import RecoveryStrip
from napari_volseg.widgets.review import OBJECTS
from tests.widgets.conftest import close
from tests.widgets.hands import find, live, paint, press, wait_until
from tests.widgets.test_clear_import import acts, pick_and_wait, start_held

pytestmark = pytest.mark.usefixtures("all_is_large")

SLICES = ((0, 12), (1, 24), (2, 26))


def whole(labels: SparseLabels) -> np.ndarray:
    """Return sparse labels as an array."""
    assert isinstance(labels, SparseLabels)
    return labels[:]


@pytest.fixture
def painted(napari_viewer, tmp_path, phantom):
    """The dock in napari, and a phantom from a file, its slices annotated."""
    dock = VolSegDock(napari_viewer, journal=tmp_path / "journal")
    napari_viewer.window.add_dock_widget(dock, name="VolSeg", area="right")
    open_and_paint(napari_viewer, dock, phantom, tmp_path)
    yield dock
    close(dock)


@pytest.fixture
def painted_apart(viewer, dock, phantom, tmp_path):
    """The same in a window of the dock alone: where nothing depends on the picture."""
    open_and_paint(viewer, dock, phantom, tmp_path)
    return dock


def open_and_paint(viewer, dock, phantom, folder):
    """Open a phantom from a file and annotate three slices."""
    volume, truth = phantom
    write_volume(folder / "kidney.ome.zarr", volume)
    viewer.open(folder / "kidney.ome.zarr", plugin="napari-volseg")
    press(dock, "new annotation")
    layer = dock.session.annotation
    for axis, index in SLICES:
        plane = slice_region(volume.shape, axis, index)
        layer.data[plane] = truth.labels[plane]
    layer.refresh()
    wait_until(lambda: len(dock.session.painted.slices) == 3, "the paint is found")


def test_what_is_painted_is_undone_kept_and_restored(
    napari_viewer, painted, phantom, tmp_path, no_errors
):
    layer, session = painted.session.annotation, painted.session
    show_slice(napari_viewer, layer, 0, 4)
    live(0.2)
    layer.selected_label, layer.brush_size = 2, 5
    before = whole(layer.data)
    paint(napari_viewer, layer, [(4, 10, 10), (4, 20, 40)])
    stroke = whole(layer.data)
    assert (before != stroke).sum() > 100
    press(painted, "mark slice complete")
    complete = whole(layer.data)
    assert complete[4].all() and (complete[4] == 1).sum() > 500
    assert [a.name for a in history_of(layer).undoable] == ["stroke", "mark complete"]
    for expected in (stroke, before):
        painted.undo.undo()
        np.testing.assert_array_equal(whole(layer.data), expected)
    painted.undo.redo()
    np.testing.assert_array_equal(whole(layer.data), stroke)
    painted.undo.redo()
    painted.undo.remove_class(3, into=1)
    wait_until(lambda: not painted.undo._working, "it is removed")
    without = np.where(complete == 3, 1, complete)
    np.testing.assert_array_equal(whole(layer.data), without)
    wait_until(lambda: 3 not in session.painted.counts, "what is painted is found")
    assert len(session.painted.complete) == 4
    assert session.painted.counts == {i: int((without == i).sum()) for i in (1, 2)}
    close(painted)

    napari_viewer.layers.remove(layer)
    again = VolSegDock(napari_viewer, journal=tmp_path / "journal")
    napari_viewer.window.add_dock_widget(again, name="VolSeg 2", area="right")
    try:
        wait_until(lambda: bool(again.findChildren(RecoveryStrip)), "it is offered")
        press(again, "restore annotation")
        wait_until(lambda: again.session.annotation is not None, "it is restored")
        np.testing.assert_array_equal(whole(again.session.annotation.data), without)
        again.undo.undo()
        np.testing.assert_array_equal(whole(again.session.annotation.data), complete)
        wait_until(lambda: not again.findChildren(RecoveryStrip), "it is handed over")
    finally:
        close(again)


@pytest.mark.parametrize("step", ["looking_at", "importing_labels", "clearing"])
def test_labels_are_imported_and_cleared_or_that_is_cancelled(
    painted_apart, choose, tmp_path, monkeypatch, no_errors, step
):
    layer = painted_apart.session.annotation
    before, blocks = whole(layer.data), layer.data.blocks()
    gate, bar = start_held(painted_apart, choose, tmp_path, monkeypatch, step)
    press(painted_apart, "cancel this change")
    gate.open()
    live(0.1)
    assert layer.data.blocks() == blocks and acts(painted_apart) == 0 and not bar.isVisible()
    # The file is small enough to be read in one go.
    assert gate.finished == (step == "looking_at")
    pick_and_wait(painted_apart, "Import labels")
    imported = before.copy()
    imported[5], imported[20] = 2, 9
    np.testing.assert_array_equal(whole(layer.data), imported)
    pick_and_wait(painted_apart, "Clear all")
    assert not layer.data.blocks()
    for expected in (imported, before):
        press(painted_apart, "undo")
        np.testing.assert_array_equal(whole(layer.data), expected)


def test_a_layer_in_blocks_is_imported(viewer, painted_apart, no_errors):
    first = painted_apart.session.annotation
    before = whole(first.data)
    press(painted_apart, "new annotation")
    layer = painted_apart.session.annotation
    layer.data[3] = 2
    pick_and_wait(painted_apart, f"Import layer {first.name}")
    expected = before.copy()
    expected[3] = np.where(before[3], before[3], 2)
    np.testing.assert_array_equal(whole(layer.data), expected)
    np.testing.assert_array_equal(whole(first.data), before)


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
def test_labels_are_saved_and_opened_again(painted_apart, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"labels{suffix}"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    expected = whole(painted_apart.session.annotation.data)
    painted_apart.save_annotation()
    wait_until(path.exists, "it is written")
    np.testing.assert_array_equal(read_annotation(path).labels, expected)
    ((labels, attributes, _),) = read_layers(str(path))
    np.testing.assert_array_equal(whole(labels), expected)
    assert attributes["metadata"]["napari_volseg"]["role"] == "annotation"


def test_a_training_learns_from_blocks_and_from_what_is_painted_meanwhile(
    viewer, painted_apart, phantom, no_errors
):
    session, layer = painted_apart.session, painted_apart.session.annotation
    shown = []
    painted_apart.train.job.yielded.connect(lambda event: shown.append(event.preview))
    press(painted_apart, "step Train")
    show_slice(viewer, layer, 0, 6)
    press(painted_apart, "train")
    wait_until(lambda: painted_apart.train.job.heard, "it trains")
    layer.data[6] = phantom[1].labels[6]
    layer.selected_label = 2
    layer.paint((6, 20, 20), 2)
    line = find(painted_apart, "which paint the training knows")
    wait_until(lambda: line.text().startswith("Learning from what you painted"), "it learns")
    wait_until(lambda: any(each is not None for each in shown), "a slice is shown", 120)
    press(painted_apart, "stop training")
    wait_until(lambda: not painted_apart.train.job.running, "it ends")
    checkpoint = session.model.checkpoint
    assert checkpoint.step > 0
    assert session.image is not None and isinstance(layer.data, SparseLabels)


def test_a_training_on_blocks_is_the_one_on_an_array(phantom):
    volume, truth = phantom
    dense = np.zeros_like(truth.labels)
    blocks = SparseLabels(dense.shape, dense.dtype)
    for labels in (dense, blocks):
        for axis, index in SLICES:
            plane = slice_region(dense.shape, axis, index)
            labels[plane] = truth.labels[plane]
    config = TrainingConfig(steps=3, seed=1, device="cpu")
    one, other = (
        list(train(Case(volume, Annotation(labels, truth.classes)), config))[-1].checkpoint
        for labels in (dense, blocks)
    )
    assert one.progress["counts"] == other.progress["counts"]
    assert one.score == pytest.approx(other.score)
    for name, weights in one.weights.items():
        np.testing.assert_array_equal(weights.numpy(), other.weights[name].numpy(), name)


def test_only_a_part_of_a_large_slice_is_previewed(viewer, painted_apart, monkeypatch):
    monkeypatch.setattr(preview, "PART", 20)
    asked = []
    live_preview = painted_apart.train._preview
    monkeypatch.setattr(live_preview, "_send", asked.append)
    layer = painted_apart.session.annotation
    show_slice(viewer, layer, 1, 30)
    live_preview.start()
    for center, sides in (((0, 0), (0, 0)), ((9999, 9999), (4, 32)), ((12, 26), (2, 16))):
        world = layer.data_to_world((center[0], 30, center[1]))
        viewer.scene.camera.center = (0, world[0], world[2])
        live_preview._ask()
        z, x = sides
        assert asked[-1].region == (slice(z, z + 20), slice(30, 31), slice(x, x + 20))


def test_a_prediction_is_shown_saved_and_tells_what_to_paint_next(
    painted_apart, phantom, model, tmp_path, monkeypatch, no_errors
):
    volume, _ = phantom
    painted, session = painted_apart, painted_apart.session
    session.set_model(model)
    press(painted, "step Predict")
    find(painted, "show uncertainty").setChecked(True)
    press(painted, "predict")
    wait_until(lambda: not painted.predict.job.running, "it is predicted")
    mask = whole(session.prediction.data)
    np.testing.assert_array_equal(mask, predict_volume(model.checkpoint, volume))
    (shown,) = (x for x in painted._viewer.layers if "uncertainty" in x.name)
    assert whole(shown.data).any()
    path = tmp_path / "mask.ome.zarr"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(path), ""))
    press(painted, "save the mask")
    wait_until(path.exists, "it is written")
    np.testing.assert_array_equal(read_annotation(path).labels, mask)
    press(painted, "step Annotate")
    suggested = painted.annotate.paint_next
    wait_until(lambda: not suggested.job.running, "slices are ranked")
    assert len(suggested._found) == 5
    truth = phantom[1].labels
    session.prediction.data[:] = truth
    press(painted, "step Review")
    painted.review.show_part(OBJECTS)
    press(painted, "find objects")
    wait_until(lambda: find(painted, "objects").isVisible(), "objects are found")
    objects, expected = painted.review.objects.queue.reviewing.objects, find_objects(truth)
    assert objects.found == expected.found and len(objects.found) == 3
    np.testing.assert_array_equal(whole(objects.labels), expected.labels)
