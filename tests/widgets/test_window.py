"""The dock in a real window of napari: its keys, and what it survives."""

from __future__ import annotations

import gc

from napari.layers import Image, Labels, Points, Shapes, Surface, Vectors
from napari.utils.shortcuts import default_shortcuts
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import show_slice, visible_slice
from tests.widgets.hands import canvas, find, live, main_window, press, wait_until


def test_keys_work_on_the_canvas_and_from_the_dock(napari_viewer, napari_dock):
    check_that_our_keys_take_none_of_naparis(napari_dock)
    layer, session = napari_dock.session.annotation, napari_dock.session
    for place in (canvas(napari_viewer), napari_dock):
        layer.mode = "pan_zoom"
        QTest.keyClick(place, Qt.Key.Key_1, Qt.KeyboardModifier.ControlModifier)
        assert layer.selected_label == 1 and layer.mode == "paint"
        QTest.keyClick(place, Qt.Key.Key_2, Qt.KeyboardModifier.ControlModifier)
        assert layer.selected_label == 2
    show_slice(napari_viewer, layer, 0, 5)
    QTest.keyClick(napari_dock, Qt.Key.Key_C)
    assert layer.data[5].all()
    QTest.keyClick(napari_dock, Qt.Key.Key_T)
    assert visible_slice(napari_viewer, layer)[0] == 1
    session.start_prediction(session.classes)
    QTest.keyClick(napari_dock, Qt.Key.Key_O)
    assert not session.prediction.visible


def check_that_our_keys_take_none_of_naparis(dock):
    ours = {str(key) for key in dock.session.annotation.keymap}
    assert len(ours) == 40
    of_labels = keys_of(Labels)
    of_others = set().union(*(keys_of(x) for x in (Image, Points, Shapes, Surface, Vectors)))
    all_keys = {str(key) for keys in default_shortcuts.values() for key in keys}
    of_viewer = all_keys - of_others
    assert "P" in of_labels and "V" in of_viewer
    assert not ours & (of_labels | of_viewer)


def test_new_and_a_class_by_key(napari_viewer, napari_dock, no_errors):
    session, shift = napari_dock.session, Qt.KeyboardModifier.ShiftModifier
    napari_viewer.layers.remove(session.annotation)
    for image in [x for x in napari_viewer.layers if isinstance(x, Image)]:
        napari_viewer.layers.selection.active = image
        before = session.annotation
        QTest.keyClick(canvas(napari_viewer), Qt.Key.Key_N, shift)
        assert session.annotation is not before and session.annotation.mode == "paint"
    QTest.keyClick(canvas(napari_viewer), Qt.Key.Key_M, shift)
    added = session.classes[-1]
    name = find(napari_dock, f"name of class {added.id}")
    main_window(napari_viewer).activateWindow()
    wait_until(name.hasFocus, "its name can be typed")
    QTest.keyClicks(name, "vein")
    QTest.keyClick(name, Qt.Key.Key_Return)
    assert session.classes[-1].name == "vein" and session.annotation.selected_label == added.id
    assert not name.hasFocus()
    QTest.keyClick(main_window(napari_viewer), Qt.Key.Key_1, Qt.KeyboardModifier.ControlModifier)
    assert session.annotation.selected_label == 1, "keys are the layer's again"
    images = [x for x in napari_viewer.layers if isinstance(x, Image)]
    assert all({str(key) for key in image.keymap} == {"Shift+N"} for image in images)
    napari_dock.shutdown()
    assert not any(image.keymap for image in images)


def keys_of(layer_type):
    return {
        str(key) for parent in layer_type.__mro__ for key in getattr(parent, "class_keymap", ())
    }


def test_keys_are_bound_on_our_layer_only_and_given_back(painted):
    first = painted.session.annotation
    press(painted, "new annotation")
    second = painted.session.annotation
    assert not first.keymap and second.keymap
    painted.shutdown()
    assert not second.keymap


def test_napari_opens_the_dock_from_its_menu_and_closes_it(napari_viewer, phantom):
    frame, dock = napari_viewer.window.add_plugin_dock_widget("napari-volseg")
    image = napari_viewer.add_image(phantom[0].image[0], name="plain")
    assert dock.session.image is image
    live(0.05)
    press(dock, "new annotation")
    frame.destroyOnClose()
    live(0.05)
    assert dock.closed


def test_a_closed_dock_leaves_no_widget_behind(napari_viewer, tmp_path):
    before = set(QApplication.topLevelWidgets())
    dock = VolSegDock(napari_viewer, journal=tmp_path / "other")
    napari_viewer.window.add_dock_widget(dock, name="other")
    napari_viewer.window.remove_dock_widget(dock)
    wait_until(lambda: is_deleted(dock), "the dock is deleted")
    gc.collect()
    assert set(QApplication.topLevelWidgets()) <= before


def is_deleted(widget):
    try:
        widget.isVisible()
    except RuntimeError:
        return True
    return False
