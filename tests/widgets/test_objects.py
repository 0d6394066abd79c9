"""Sorting the objects of a prediction by clicked examples."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from qtpy.QtWidgets import QDoubleSpinBox, QFileDialog

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.volume import Volume
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import show_slice
from tests.widgets.conftest import close
from tests.widgets.hands import add_volume, canvas, drag, find, live, on_canvas, press, wait_until
from tests.widgets.test_queue import held

SHAPE = (16, 72, 72)
CENTERS = [(8, y, x) for y in (10, 26, 42, 58) for x in (10, 26, 42, 58)]


def balls_and_rods() -> tuple[Volume, np.ndarray]:
    """Sixteen objects of one class: balls in the left half, rods along y in the right."""
    mask = np.ones(SHAPE, np.uint8)
    z, y, x = np.indices(SHAPE)
    for cz, cy, cx in CENTERS:
        squeeze = 1 if cx < 36 else 2.5
        distance = (z - cz) ** 2 * squeeze + ((y - cy) / squeeze) ** 2 * 1 + (x - cx) ** 2 * squeeze
        mask[(distance < 9) & (abs(y - cy) < 7)] = 2
    noise = np.random.default_rng(0).normal(0, 5, SHAPE)
    return Volume((100 * mask + noise)[None].astype(np.float32), name="pieces"), mask


def show_mask(dock: VolSegDock, viewer, volume: Volume, mask: np.ndarray) -> None:
    """Give the dock an image and a finished prediction, and go to Review."""
    add_volume(viewer, volume)
    layer = dock.session.start_prediction(default_classes())
    layer.data = held(mask)
    press(dock, "step Review")
    dock.review.count_prediction()
    wait_until(lambda: find(dock, "classes of the prediction").isVisible(), "it is counted")
    press(dock, "show Objects")
    press(dock, "find objects")
    wait_until(lambda: "objects" in find(dock, "objects found").text(), "objects are found")
    press(dock, "show Types")


@pytest.fixture
def sorting(dock, viewer):
    volume, mask = balls_and_rods()
    show_mask(dock, viewer, volume, mask)
    return dock


def give_examples(dock: VolSegDock, centers=CENTERS) -> None:
    panel = dock.review.objects.types
    find(dock, "click examples").setChecked(True)
    for name, side in (("ball", (10, 26)), ("rod", (42, 58))):
        find(dock, "type of clicked objects").setEditText(name)
        for center in centers:
            if center[2] in side and center[1] in (10, 42):
                panel.pick(center)


def learn(dock: VolSegDock, minutes: float = 0.03) -> None:
    spin_box = find(dock, "minutes to learn types")
    assert isinstance(spin_box, QDoubleSpinBox)
    spin_box.setValue(minutes)
    press(dock, "sort objects")
    wait_until(lambda: not dock.review.objects.types.job.running, "objects are sorted", 120)


def test_the_rest_are_sorted_like_the_examples(sorting, monkeypatch, tmp_path):
    assert "16 objects" in find(sorting, "objects found").text()
    assert not find(sorting, "sort objects").isEnabled()
    give_examples(sorting)
    assert "ball 4, rod 4" in find(sorting, "examples given").text()
    learn(sorting)
    (layer,) = [x for x in sorting.session.viewer.layers if x.name == "pieces types"]
    for center in CENTERS:
        assert layer.data[center] == (2 if center[2] < 36 else 3)
    assert layer.data[0, 0, 0] == 1
    assert find(sorting, "sorted objects").rowCount() == 16
    find(sorting, "sorted objects").selectRow(0)
    assert sorting.session.viewer.dims.current_step[0] == 8
    path = tmp_path / "pieces.csv"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (str(path), a[-1]))
    press(sorting, "save the table of objects")
    wait_until(path.exists, "the table is written")
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(r["class"] for r in rows) == ["ball"] * 8 + ["rod"] * 8


def test_a_second_click_takes_an_example_back_and_another_type_replaces_it(sorting):
    panel = sorting.review.objects.types
    give_examples(sorting, CENTERS[:1])
    assert "ball 1" in find(sorting, "examples given").text()
    find(sorting, "type of clicked objects").setEditText("rod")
    panel.pick(CENTERS[0])
    assert "rod 1" in find(sorting, "examples given").text()
    panel.pick(CENTERS[0])
    assert "none yet" in find(sorting, "examples given").text()
    panel.pick((0, 0, 0))
    assert "no object" in find(sorting, "state of sorting").text()


def test_a_new_prediction_forgets_the_objects_of_the_old(sorting):
    give_examples(sorting)
    sorting.review.count_prediction()
    live(0.05)
    assert not find(sorting, "click examples").isVisible()


def test_sorting_can_be_cancelled_and_leaves_training_and_prediction_alone(sorting):
    give_examples(sorting)
    find(sorting, "minutes to learn types").setValue(5)
    press(sorting, "sort objects")
    wait_until(lambda: sorting.review.objects.types.job.heard, "learning begins")
    press(sorting, "step Train")
    assert not find(sorting, "train").isEnabled()
    press(sorting, "step Review")
    press(sorting, "cancel sorting")
    wait_until(lambda: not sorting.review.objects.types.job.running, "it ends")
    assert sorting.session.busy == ""
    assert find(sorting, "sorted objects").rowCount() == 0


def test_a_click_on_the_canvas_makes_an_example_and_a_drag_does_not(napari_viewer, tmp_path):
    volume, mask = balls_and_rods()
    dock = VolSegDock(napari_viewer, journal=tmp_path)
    napari_viewer.window.add_dock_widget(dock, name="VolSeg")
    show_mask(dock, napari_viewer, volume, mask)
    find(dock, "click examples").setChecked(True)
    layer = dock.review.objects.types._types_layer()
    show_slice(napari_viewer, layer, 0, 8)
    live(0.3)
    at = on_canvas(napari_viewer, layer, CENTERS[5])
    drag(canvas(napari_viewer), [at])
    wait_until(lambda: layer.data[CENTERS[5]] == 2, "the click is an example")
    other = on_canvas(napari_viewer, layer, CENTERS[6])
    drag(canvas(napari_viewer), [other, on_canvas(napari_viewer, layer, CENTERS[7])])
    live(0.1)
    assert np.count_nonzero(layer.data) == np.count_nonzero(layer.data[:, 18:34, 18:34])
    close(dock)
