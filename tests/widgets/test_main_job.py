"""The main job in the real window: paint on the canvas, train, predict, save, open again."""

from __future__ import annotations

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_volseg.data.files import read_annotation, read_volume
from napari_volseg.data.journal import recoverable
from tests.widgets.hands import (
    canvas,
    find,
    live,
    paint_slices,
    press,
    screenshot,
    train_and_predict,
    wait_until,
)

SLICES = ((0, 12), (1, 22), (2, 25))
SECONDS = 2


def test_the_main_job(napari_viewer, napari_dock, phantom, tmp_path, monkeypatch, no_errors):
    volume, truth = phantom
    session = napari_dock.session
    napari_viewer.layers.remove(session.annotation)

    paint_slices(napari_viewer, napari_dock, truth.labels, SLICES, brush=3, every=14)
    labels = session.annotation.data
    painted = labels > 0
    assert [(s.axis, s.index) for s in session.painted.slices] == list(SLICES)
    assert set(session.painted.counts) == {1, 2, 3}
    np.testing.assert_array_equal(labels[painted], truth.labels[painted])
    assert painted.sum() > 500

    train_and_predict(napari_dock, SECONDS / 60)
    overlay = session.prediction
    assert session.model.checkpoint.step > 0
    assert overlay.data.all(), "every voxel is predicted"
    assert overlay.opacity == pytest.approx(0.4)
    np.testing.assert_array_equal(session.annotation.data, labels, "paint is left alone")

    mask = tmp_path / "mask.nii.gz"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(mask), ""))
    press(napari_dock, "save the mask")
    wait_until(mask.exists, "the mask is written")
    assert read_annotation(mask).classes == session.model.checkpoint.classes
    np.testing.assert_array_equal(read_annotation(mask).labels, overlay.data)
    assert read_volume(mask).spacing == pytest.approx(volume.spacing)
    assert read_volume(mask).unit == volume.unit

    (again,) = napari_viewer.open(mask, plugin="napari-volseg")
    np.testing.assert_array_equal(again.data, overlay.data)
    for voxel in np.eye(3):
        assert again.data_to_world(voxel) == pytest.approx(overlay.data_to_world(voxel))

    # What was painted is in the journal, whatever happens now.
    state = find(napari_dock, "autosave state")
    wait_until(lambda: state.text().startswith("saved"), "it is saved")
    picture = tmp_path / "window.png"
    screenshot(napari_viewer, picture)
    assert picture.stat().st_size > 20_000
    napari_dock.shutdown()
    offered = [found.labels() for found in recoverable(tmp_path / "journal")]
    assert any(np.array_equal(found, labels) for found in offered)


def test_the_window_draws_while_it_trains_and_a_hidden_dock_goes_on(
    napari_viewer, napari_dock, stand_in
):
    press(napari_dock, "step Train")
    press(napari_dock, "train")
    wait_until(lambda: napari_dock.train.job.heard, "training runs")
    before = canvas(napari_viewer).grab().toImage()
    napari_viewer.dims.set_current_step(0, 3)
    live(0.1)
    assert canvas(napari_viewer).grab().toImage() != before
    napari_dock.parent().hide()
    seen = stand_in.steps
    wait_until(lambda: stand_in.steps > seen + 5, "training goes on")
    assert not napari_dock.closed
