"""Whatever is done to an annotation in the window is undone and redone, to the byte."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QMenu

from napari_volseg.data.annotation import VIEW_OF_AXIS, LabelClass
from napari_volseg.data.journal import recoverable
from napari_volseg.widgets import undo as undo_module
from napari_volseg.widgets.acts import acting, copy_slice
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import (
    classes_of,
    history_of,
    show_slice,
    visible_slice,
)
from napari_volseg.widgets.recovery import RecoveryStrip
from napari_volseg.widgets.strokes import stroke_of
from tests.widgets.conftest import SHAPE, close
from tests.widgets.hands import add_volume, canvas, find, live, paint, press, wait_until


@pytest.fixture
def annotated(on_phantom):
    """The dock with an empty annotation, and its layer."""
    layer = on_phantom.session.start_annotation()
    layer.brush_size = 5
    return on_phantom, layer


def state(layer):
    return layer.data.dtype.str, layer.data.tobytes(), classes_of(layer)


def names(layer):
    history = history_of(layer)
    return [a.name for a in history.undoable], [a.name for a in reversed(history.redoable)]


def still(dock):
    """Wait for what the background prepares."""
    wait_until(lambda: not dock.undo._working, "the act is done")


def stroke(viewer, layer, rng):
    """Paint across two slices, as one act with many steps that overlap."""
    at = rng.integers(5, 20, 3)
    layer.mode = "paint"
    layer.selected_label = int(rng.integers(1, 3))
    with layer.block_history():
        for step in range(6):
            layer.paint(np.add(at, (step // 3, step, 2 * step)), layer.selected_label)


def erase(viewer, layer, rng):
    painted = np.argwhere(layer.data)
    layer.mode = "erase"
    layer.paint(painted[rng.integers(len(painted))], 0)


def fill(viewer, layer, rng):
    layer.mode = "fill"
    at = rng.integers(0, SHAPE)
    layer.fill(at, 1 if layer.data[tuple(at)] == 2 else 2)


def polygon(viewer, layer, rng):
    layer.mode = "polygon"
    show_slice(viewer, layer, 0, int(rng.integers(SHAPE[0])))
    z = visible_slice(viewer, layer)[1]
    layer.paint_polygon([(z, 3, 3), (z, 30, 5), (z, 20, 40)], 2)


def scattered(viewer, layer, rng):
    indices = tuple(rng.integers(0, size, 50) for size in SHAPE)
    layer.data_setitem(indices, rng.integers(1, 3, 50).astype(layer.data.dtype))


def copy(viewer, layer, rng):
    show_slice(viewer, layer, 1, int(rng.integers(SHAPE[1])))
    prediction = Labels(rng.integers(0, 3, SHAPE).astype(np.uint8))
    with acting(layer, "copy a slice"):
        copy_slice(viewer, layer, prediction)


def replace_data(viewer, layer, rng):
    layer.data = np.roll(layer.data, 3, axis=2)


def clear(viewer, layer, rng):
    with acting(layer, "clear"):
        layer.data = np.zeros_like(layer.data)


def convert(viewer, layer, rng):
    layer.data = layer.data.astype(np.uint16)


KINDS = (stroke, erase, fill, polygon, scattered, copy, replace_data, stroke, clear, stroke)


def test_everything_is_undone_to_the_start_and_redone_to_the_end(viewer, annotated):
    dock, layer = annotated
    rng = np.random.default_rng(3)
    states = [state(layer)]
    assert names(layer) == ([], [])

    def done():
        still(dock)
        assert len(names(layer)[0]) == len(states), f"after {names(layer)[0][-1:]}"
        states.append(state(layer))

    for turn in range(40):
        KINDS[turn % len(KINDS)](viewer, layer, rng)
        done()
        if turn == 15:
            dock.session.edit_class(2, name="tubule")
            done()
            dock.session.add_class()
            done()
        if turn == 25:
            convert(viewer, layer, rng)
            done()
            show_slice(viewer, layer, 2, 9)
            press(dock, "mark slice complete")
            done()
            dock.undo.remove_class(2, into=1)
            done()
    assert len(names(layer)[0]) == 45
    for before in reversed(states[:-1]):
        dock.undo.undo()
        assert state(layer) == before
    assert names(layer)[0] == []
    dock.undo.undo()
    for after in states[1:]:
        dock.undo.redo()
        assert state(layer) == after
    assert names(layer)[1] == []


def test_acts_are_called_what_the_user_did(viewer, annotated):
    dock, layer = annotated
    rng = np.random.default_rng(0)
    for act in (stroke, erase, fill, polygon):
        act(viewer, layer, rng)
    press(dock, "mark slice complete")
    clear(viewer, layer, rng)
    replace_data(viewer, layer, rng)
    assert names(layer)[0] == ["stroke", "erase", "fill", "polygon", "mark complete", "clear"]
    layer.data = np.ones_like(layer.data)
    dock.session.add_class()
    dock.undo.remove_class(3, into=0)
    still(dock)
    assert names(layer)[0][-3:] == ["replace the labels", "add a class", "remove a class"]


def test_the_buttons_say_what_they_would_do(viewer, annotated):
    dock, layer = annotated
    undo, redo = find(dock, "undo"), find(dock, "redo")
    assert not undo.isEnabled() and not redo.isEnabled()
    assert undo.toolTip() == "Nothing to undo. Key: Ctrl+Z"
    press(dock, "mark slice complete")
    assert undo.toolTip() == "Undo: mark complete. Key: Ctrl+Z"
    assert not redo.isEnabled()
    press(dock, "undo")
    assert not layer.data.any() and not undo.isEnabled()
    assert redo.toolTip() == "Redo: mark complete. Key: Ctrl+Shift+Z"
    press(dock, "redo")
    assert layer.data.any() and undo.isEnabled() and not redo.isEnabled()
    press(dock, "new annotation")
    assert not undo.isEnabled()
    dock.session.choose_annotation(layer)
    assert undo.isEnabled()


def test_undo_shows_the_slice_where_the_act_was(viewer, annotated):
    dock, layer = annotated
    show_slice(viewer, layer, 1, 30)
    press(dock, "mark slice complete")
    show_slice(viewer, layer, 0, 7)
    layer.mode = "paint"
    layer.paint((7, 20, 20), 2)
    show_slice(viewer, layer, 0, 18)
    dock.undo.undo()
    assert visible_slice(viewer, layer) == (0, 7)
    assert viewer.status == "Undone: stroke, xy slice 7"
    # The xz slice of the act crosses the one on view.
    dock.undo.undo()
    assert visible_slice(viewer, layer) == (0, 7)
    assert viewer.status == "Undone: mark complete, xz slice 30"
    show_slice(viewer, layer, 1, 3)
    dock.undo.redo()
    assert visible_slice(viewer, layer) == (1, 30)
    viewer.dims.ndisplay = 3
    dock.undo.undo()
    assert viewer.dims.ndisplay == 3
    viewer.dims.ndisplay = 2
    layer.data = np.ones_like(layer.data)
    dock.undo.undo()
    assert viewer.status == "Undone: replace the labels, the whole volume"


def test_histories_of_two_annotations_are_kept_apart(viewer, annotated):
    dock, first = annotated
    first.paint((3, 20, 20), 2)
    second = dock.session.start_annotation()
    second.paint((4, 20, 20), 2)
    first.paint((5, 20, 20), 2)
    dock.undo.undo()
    assert not second.data.any() and len(names(first)[0]) == 2
    first.undo()
    assert first.data[3].any() and not first.data[5].any()
    viewer.layers.selection.active = viewer.layers[0]
    dock.undo.redo()
    assert second.data[4].any()


def test_other_labels_keep_the_undo_of_napari(viewer, annotated):
    _, layer = annotated
    other = viewer.add_labels(np.zeros(SHAPE, np.uint8))
    other.paint((3, 20, 20), 2)
    layer.paint((3, 20, 20), 2)
    other.undo()
    assert not other.data.any() and layer.data.any()


def test_labels_of_another_shape_begin_anew(viewer, annotated):
    dock, layer = annotated
    layer.paint((3, 20, 20), 2)
    layer.data = np.zeros((4, 5, 6), np.uint8)
    assert names(layer) == ([], [])
    dock.undo.undo(layer)
    assert layer.data.shape == (4, 5, 6)


def test_a_second_dock_does_not_record_again(viewer, annotated, tmp_path):
    dock, layer = annotated
    second = VolSegDock(viewer, journal=tmp_path / "second")
    layer.paint((3, 20, 20), 2)
    assert second.session.annotation is layer and names(layer) == (["stroke"], [])
    second.shutdown()
    second.deleteLater()
    dock.undo.undo()
    assert not layer.data.any()


def test_a_closed_dock_leaves_an_undo_that_does_no_harm(viewer, annotated):
    dock, layer = annotated
    layer.paint((3, 20, 20), 2)
    dock.undo.undo()
    layer.paint((3, 20, 20), 1)
    close(dock)
    seen = layer.data.copy()
    layer.undo()
    assert np.array_equal(layer.data, seen)
    layer.paint((9, 20, 20), 2)
    layer.undo()
    assert np.array_equal(layer.data, seen) and names(layer) == ([], [])


def test_a_removed_layer_can_be_painted_and_put_back(viewer, annotated):
    dock, layer = annotated
    layer.paint((3, 20, 20), 2)
    viewer.layers.remove(layer)
    assert dock.session.annotation is None and not find(dock, "undo").isEnabled()
    viewer.layers.append(layer)
    dock.session.choose_annotation(layer)
    dock.undo.undo()
    assert not layer.data.any()


def test_removing_a_class_asks_what_becomes_of_its_voxels(painted, no_errors):
    layer, before = painted.session.annotation, state(painted.session.annotation)
    assert not find(painted, "remove class 1").isVisible()
    wait_until(lambda: painted.session.painted.counts.get(3, 0) > 0, "class 3 is counted")
    classes = [c.id for c in painted.session.classes]
    layer.selected_label = 3
    press(painted, "remove class 3")
    (menu,) = [m for m in painted.findChildren(QMenu) if m.isVisible()]
    choices = {action.text().partition("becomes ")[2]: action for action in menu.actions()}
    assert set(choices) == {"unlabeled", "background", "class 2"}
    choices["background"].trigger()
    menu.close()
    still(painted)
    assert [c.id for c in painted.session.classes] == [i for i in classes if i != 3]
    expected = np.frombuffer(before[1], layer.data.dtype).reshape(layer.data.shape).copy()
    expected[expected == 3] = 1
    assert np.array_equal(layer.data, expected)
    assert layer.selected_label in [c.id for c in painted.session.classes]
    press(painted, "undo")
    assert state(layer) == before
    live(0.6)
    assert [c.id for c in painted.session.classes] == classes


def test_a_class_without_paint_is_removed_at_once(annotated):
    dock, _ = annotated
    press(dock, "remove class 2")
    still(dock)
    assert [c.id for c in dock.session.classes] == [1]
    press(dock, "undo")
    assert [c.id for c in dock.session.classes] == [1, 2]


def test_a_class_can_go_while_its_name_is_typed(annotated):
    dock, _ = annotated
    press(dock, "add a class")
    name = find(dock, "name of class 3")
    name.setText("tubule")
    dock.undo.undo()
    name.editingFinished.emit()
    assert [c.name for c in dock.session.classes] == ["background", "class 2"]


def test_a_class_that_is_painted_before_it_is_known_goes_with_the_paint(viewer, annotated):
    dock, layer = annotated
    dock.session.start_prediction([*classes_of(layer), LabelClass(3, "vessel", "#123456")])
    before = state(layer)
    layer.data_setitem((np.array([3]), np.array([20]), np.array([20])), 3)
    assert [c.name for c in classes_of(layer)] == ["background", "class 2", "vessel"]
    wait_until(lambda: dock.session.painted.counts.get(3) == 1, "it is counted")
    dock.undo.undo()
    assert state(layer) == before
    wait_until(lambda: not dock.session.painted.counts, "it is counted again")
    assert state(layer) == before


def test_a_painted_class_does_not_get_lost_with_an_undone_name(annotated):
    dock, layer = annotated
    dock.session.edit_class(2, name="tubule")
    layer.data[3] = 7
    layer.refresh()
    wait_until(lambda: 7 in [c.id for c in dock.session.classes], "the class is found")
    dock.undo.undo()
    expected = ["background", "class 2", "class 7"]
    wait_until(lambda: [c.name for c in dock.session.classes] == expected, "it is found again")


def test_a_large_act_gives_way_to_what_is_painted_meanwhile(annotated, monkeypatch):
    monkeypatch.setattr(undo_module, "AT_ONCE_VOXELS", 0)
    dock, layer = annotated
    layer.paint((3, 20, 20), 2)
    dock.undo.undo()
    dock.undo.undo()
    still(dock)
    assert not layer.data.any()
    dock.undo.redo()
    layer.paint((9, 20, 20), 2)
    still(dock)
    assert layer.data[9].any() and not layer.data[3].any()
    assert names(layer) == (["stroke"], [])


def test_removing_a_class_waits_for_what_is_painted_meanwhile(annotated):
    dock, layer = annotated
    layer.paint((3, 20, 20), 2)
    dock.undo.remove_class(2, into=1)
    layer.paint((9, 20, 20), 2)
    wait_until(lambda: len(names(layer)[0]) == 3, "the class is removed")
    assert set(np.unique(layer.data)) == {0, 1}
    dock.undo.undo()
    assert layer.data[9].any() and set(np.unique(layer.data)) == {0, 2}


def test_nothing_is_undone_under_a_stroke(annotated, monkeypatch):
    dock, layer = annotated
    layer.paint((3, 20, 20), 2)
    monkeypatch.setattr(undo_module, "_hand_is_down", lambda: True)
    dock.undo.undo()
    assert layer.data.any() and names(layer) == (["stroke"], [])
    dock.undo.remove_class(2, into=1)
    live(0.3)
    assert 2 in layer.data
    monkeypatch.setattr(undo_module, "_hand_is_down", lambda: False)
    still(dock)
    assert 2 not in layer.data and 1 in layer.data


@pytest.fixture
def crashed(viewer, annotated, tmp_path):
    """What the journal of a window holds in which four things were done and one undone."""
    dock, layer = annotated
    states = [state(layer)]
    for act in (stroke, fill, erase, scattered):
        act(viewer, layer, np.random.default_rng(7))
        states.append(state(layer))
    dock.undo.undo()
    assert dock._journaling._autosave.flush()
    shutil.copytree(tmp_path / "journal", tmp_path / "crashed")
    close(dock)
    viewer.layers.clear()
    return states


def test_undo_survives_a_restart(viewer, crashed, phantom, tmp_path, no_errors):
    again = VolSegDock(viewer, journal=tmp_path / "crashed")
    try:
        again.show()
        add_volume(viewer, phantom[0])
        wait_until(lambda: len(again.findChildren(RecoveryStrip)) == 1, "it is offered")
        press(again, "restore annotation")
        wait_until(lambda: again.session.annotation is not None, "it is restored")
        restored = again.session.annotation
        assert state(restored) == crashed[3]
        again.undo.redo()
        for before in reversed(crashed):
            assert state(restored) == before
            again.undo.undo()
        assert names(restored)[0] == []
        again.undo.redo()
        wait_until(lambda: not again.findChildren(RecoveryStrip), "it is handed over")
    finally:
        close(again)
        again.deleteLater()
    (offer,) = recoverable(tmp_path / "crashed")
    assert len(offer.history().undoable) == 1 and len(offer.history().redoable) == 3


def test_what_is_restored_without_its_image_keeps_its_undo(viewer, crashed, tmp_path):
    again = VolSegDock(viewer, journal=tmp_path / "crashed")
    try:
        again.show()
        wait_until(lambda: len(again.findChildren(RecoveryStrip)) == 1, "it is offered")
        press(again, "restore annotation")
        wait_until(lambda: not again.findChildren(RecoveryStrip), "it is handed over")
    finally:
        close(again)
        again.deleteLater()
    (offer,) = recoverable(tmp_path / "crashed")
    assert len(offer.history().undoable) == 3 and len(offer.history().redoable) == 1


@pytest.mark.parametrize("old_napari", [False, True])
def test_steps_of_a_stroke_that_overlap_are_taken_back_in_order(old_napari):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, (4, 30, 30)).astype(np.uint8)
    start, atoms = labels.copy(), []
    for value in (5, 6, 7, 8):
        y, x = rng.integers(0, 15, 2)
        key = (slice(2, 3), slice(y, y + 12), slice(x, x + 12))
        mask = None if value == 6 else rng.random((1, 12, 12)) < 0.5
        where = np.ones((1, 12, 12), bool) if mask is None else mask
        old = labels[key].copy() if mask is None else labels[key][mask]
        if old_napari:
            at = np.nonzero(where)
            indices = tuple(i + side.start for i, side in zip(at, key, strict=True))
            atoms.append((indices, labels[indices], value))
        else:
            atoms.append(SimpleNamespace(slice_key=key, mask=mask, old_values=old, new_value=value))
        labels[key][where] = value
    box, before, after = stroke_of(atoms, labels)
    assert np.array_equal(before, start[box]) and np.array_equal(after, labels[box])
    labels[box] = before
    assert np.array_equal(labels, start)
    single = stroke_of(atoms[:1], start)
    assert np.array_equal(single[1], start[single[0]])
    assert not np.array_equal(single[2], single[1])


def test_the_keys_undo_and_redo_on_the_canvas(napari_viewer, napari_dock, no_errors):
    layer = napari_dock.session.annotation
    napari_dock.session.paint_with(2)
    layer.brush_size = 6
    show_slice(napari_viewer, layer, 0, 5)
    live(0.2)
    before = state(layer)
    paint(napari_viewer, layer, [(5, 20, 10), (5, 20, 25), (5, 22, 30)])
    after = state(layer)
    assert after != before and names(layer)[0] == ["stroke"]
    show_slice(napari_viewer, layer, 1, 40)
    drawn = canvas(napari_viewer)
    QTest.keyClick(drawn, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    live(0.1)
    assert state(layer) == before
    assert VIEW_OF_AXIS[visible_slice(napari_viewer, layer)[0]] == "xy"
    both = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier
    QTest.keyClick(drawn, Qt.Key.Key_Z, both)
    live(0.1)
    assert state(layer) == after
