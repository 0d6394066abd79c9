"""A slice or all is cleared, and labels are imported, in the real window: acts of the one undo."""

from __future__ import annotations

import shutil
import threading

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QMenu

from napari_volseg.data.annotation import LabelClass, default_classes
from napari_volseg.data.files import write_labels
from napari_volseg.widgets import clear_import, long_work
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import classes_of, history_of, set_classes, show_slice
from napari_volseg.widgets.recovery import RecoveryStrip
from tests.widgets.conftest import SHAPE, close
from tests.widgets.hands import add_volume, canvas, find, live, pick, press, wait_until
from tests.widgets.test_undo import state

NAMED = (
    *default_classes([1]),
    LabelClass(2, "tubule", "#123456"),
    LabelClass(9, "vein", "#654321"),
)


def acts(dock):
    return len(history_of(dock.session.annotation).undoable)


class Gate:
    """Holds a generator of the import after its first step, until it is opened."""

    def __init__(self, monkeypatch, step):
        self._open = threading.Event()
        self.steps = 0
        self.finished = False
        work = getattr(clear_import, step)

        def held(*arguments, **options):
            going = work(*arguments, **options)
            done = next(going)
            yield done
            self.steps += 1
            self._open.wait(20)
            result = yield from going
            self.finished = True
            return result

        monkeypatch.setattr(clear_import, step, held)
        monkeypatch.setattr(long_work, "SHOW_AFTER_MS", 0)

    def open(self):
        self._open.set()


def start_held(dock, choose, folder, monkeypatch, step):
    """Begin to import a file, or to clear all, and wait until it is held at a step of it."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[5], labels[20] = 2, 9
    write_labels(folder / "other.ome.tif", labels, dock.session.volume, NAMED)
    choose(folder / "other.ome.tif")
    gate = Gate(monkeypatch, step)
    pick(dock, "Clear all" if step == "clearing" else "Import labels")
    bar = find(dock, "progress of this change")
    wait_until(lambda: bar.isVisible() and gate.steps == 1 and bar.maximum() == 100, "it is seen")
    return gate, bar


def pick_and_wait(dock, text):
    before = acts(dock)
    pick(dock, text)
    wait_until(lambda: acts(dock) == before + 1, f"{text} is done")


def painted_slices(dock):
    return [(s.axis, s.index, s.complete) for s in dock.session.painted.slices]


def test_a_slice_is_cleared(viewer, painted, no_errors):
    layer, before = painted.session.annotation, state(painted.session.annotation)
    show_slice(viewer, layer, 1, 24)
    pick_and_wait(painted, "Clear slice")
    assert viewer.status.partition(";")[2] == " Ctrl+Z takes it back"
    assert viewer.status.startswith("1\N{THIN SPACE}248 voxels cleared in xz slice 24")
    assert not layer.data[:, 24].any()
    left = [(0, 12, False), (2, 26, False)]
    wait_until(lambda: painted_slices(painted) == left, "they are no longer complete")
    after = state(layer)
    press(painted, "undo")
    assert state(layer) == before
    whole = [(0, 12, True), (1, 24, True), (2, 26, True)]
    wait_until(lambda: painted_slices(painted) == whole, "they are complete again")
    press(painted, "redo")
    assert state(layer) == after


def test_all_is_cleared_and_what_is_empty_is_not(viewer, painted, monkeypatch):
    layer, before = painted.session.annotation, state(painted.session.annotation)
    pick_and_wait(painted, "Clear all")
    assert not layer.data.any() and layer.data.shape == SHAPE
    assert [c.id for c in painted.session.classes] == [1, 2, 3], "the classes stay"
    wait_until(lambda: not painted.session.painted.slices, "nothing is painted")
    said = []
    monkeypatch.setattr("napari_volseg.widgets.long_work.show_warning", said.append)
    pick(painted, "Clear slice")
    wait_until(lambda: said != [], "it is said that nothing is there")
    assert "nothing to clear" in said[0] and acts(painted) == 1
    painted.undo.undo()
    assert state(layer) == before


def test_the_menu_opens_by_a_key_in_any_step(napari_viewer, napari_dock):
    layer = napari_dock.session.annotation
    for step in ("Annotate", "Train"):
        assert layer.data.any()
        press(napari_dock, f"step {step}")
        QTest.keyClick(canvas(napari_viewer), Qt.Key.Key_X, Qt.KeyboardModifier.ShiftModifier)
        wait_until(lambda: any(m.isVisible() for m in napari_dock.findChildren(QMenu)), "it opens")
        (menu,) = [m for m in napari_dock.findChildren(QMenu) if m.isVisible()]
        assert find(napari_dock, "clear or import labels").isVisible()
        for pressed in (Qt.Key.Key_Down, Qt.Key.Key_Down, Qt.Key.Key_Return):
            QTest.keyClick(menu, pressed)
        wait_until(lambda: not layer.data.any(), "all is cleared")
        napari_dock.undo.undo()
    listed = find(napari_dock, "keys").findChildren(type(find(napari_dock, "autosave state")))
    texts = [label.text() for label in listed]
    assert texts[texts.index("Shift+X") + 1] == "clear, or import labels"


def test_a_file_of_ours_is_imported_with_its_classes(viewer, painted, choose, tmp_path, no_errors):
    session, layer = painted.session, painted.session.annotation
    labels = np.zeros(SHAPE, np.uint8)
    labels[5] = 2
    labels[12, :4] = 9
    write_labels(tmp_path / "other.ome.tif", labels, session.volume, NAMED)
    choose(tmp_path / "other.ome.tif")
    before, expected = state(layer), np.where(labels, labels, layer.data)
    changed = int(np.count_nonzero(expected != layer.data))
    pick_and_wait(painted, "Import labels")
    assert np.array_equal(layer.data, expected), "what is unlabeled in the file stays"
    words = f"{changed:,} voxels imported from other.ome.tif; Ctrl+Z takes it back"
    assert viewer.status == words.replace(",", "\N{THIN SPACE}")
    # Class 2 had its default name still.
    assert [c.name for c in session.classes] == ["background", "tubule", "class 3", "vein"]
    after = state(layer)
    press(painted, "undo")
    assert state(layer) == before
    press(painted, "redo")
    assert state(layer) == after
    wait_until(lambda: session.painted.counts.get(9) == 4 * SHAPE[2], "it is counted")


def test_names_that_the_user_gave_stay(painted, choose, tmp_path):
    session = painted.session
    session.edit_class(2, name="lumen")
    write_labels(tmp_path / "a.nii.gz", np.full(SHAPE, 2, np.uint8), session.volume, NAMED)
    choose(tmp_path / "a.nii.gz")
    pick_and_wait(painted, "Import labels")
    assert session.classes[1].name == "lumen" and session.classes[-1].name == "vein"


def test_a_file_that_does_not_say_what_is_unlabeled_is_asked_about(
    viewer, painted, choose, tmp_path, no_errors
):
    layer, before = painted.session.annotation, state(painted.session.annotation)
    values = np.zeros(SHAPE, np.int16)
    values[:8], values[8:], values[10] = 3, 0, 1
    np.save(tmp_path / "paper.npy", values)
    choose(tmp_path / "paper.npy")
    pick(painted, "Import labels")
    choice = find(painted, "unlabeled value")
    wait_until(choice.isVisible, "it is asked")
    assert viewer.status == "", "it is read"
    texts = [choice.itemText(i) for i in range(choice.count())]
    assert texts == ["0", "1", "3", "none of them"]
    meaning = find(painted, "what the values become")
    assert meaning.text() == "0 is unlabeled, 1 is background, 3 is class 3"
    choice.setCurrentIndex(2)
    assert meaning.text() == "0 is background, 1 is class 2, 3 is unlabeled"
    press(painted, "import")
    wait_until(lambda: acts(painted) == 1, "it is imported")
    expected = np.frombuffer(before[1], np.uint8).reshape(SHAPE).copy()
    expected[8:] = 1
    expected[10] = 2
    assert np.array_equal(layer.data, expected) and not choice.isVisible()
    painted.undo.undo()
    assert state(layer) == before


def test_an_import_can_be_called_off(viewer, painted, choose, tmp_path):
    np.save(tmp_path / "a.npy", np.ones(SHAPE, bool))
    choose(tmp_path / "a.npy")
    for end in (
        lambda: press(painted, "cancel the import"),
        lambda: press(painted, "new annotation"),
    ):
        pick(painted, "Import labels")
        strip = find(painted, "unlabeled value")
        wait_until(strip.isVisible, "it is asked")
        end()
        assert not strip.isVisible()
    assert acts(painted) == 0


LONG = {
    "looking_at": "Reading other.ome.tif",
    "importing_labels": "Importing other.ome.tif",
    "clearing": "Clearing all that is painted",
}


@pytest.mark.parametrize("step", LONG)
def test_what_takes_long_is_seen_and_can_be_cancelled(
    viewer, painted, choose, tmp_path, monkeypatch, no_errors, step
):
    layer, classes = painted.session.annotation, painted.session.classes
    before = state(layer)
    gate, bar = start_held(painted, choose, tmp_path, monkeypatch, step)
    assert find(painted, "what this change is").text() == f"{LONG[step]}\N{HORIZONTAL ELLIPSIS}"
    pick(painted, "Clear slice")
    painted.undo.undo()
    press(painted, "cancel this change")
    assert not bar.isVisible() and not painted.undo.working
    gate.open()
    wait_until(lambda: not painted.annotate._clear_import.work._job.running, "it ends")
    live(0.05)
    assert state(layer) == before and acts(painted) == 0
    assert painted.session.classes == classes
    assert viewer.status == "Cancelled: the annotation is as it was"
    pick_and_wait(painted, "Import labels")
    assert (layer.data[20] == 9).all() and not bar.isVisible()


def test_what_is_painted_while_labels_are_imported_is_kept(
    viewer, painted, choose, tmp_path, monkeypatch, no_errors
):
    layer = painted.session.annotation
    gate, bar = start_held(painted, choose, tmp_path, monkeypatch, "importing_labels")
    layer.data_setitem((np.array([8]), np.array([30]), np.array([31])), 3)
    layer.data_setitem((np.array([5]), np.array([30]), np.array([31])), 3)
    gate.open()
    wait_until(lambda: acts(painted) == 3, "it is imported")
    assert layer.data[8, 30, 31] == 3, "painted where nothing is imported"
    assert layer.data[5, 30, 31] == 2, "imported over what was painted"
    wait_until(lambda: not bar.isVisible(), "the strip goes")


@pytest.mark.parametrize("end", ["removed", "another", "closed"])
def test_an_import_ends_with_its_annotation(
    viewer, painted, choose, tmp_path, monkeypatch, no_errors, end
):
    layer = painted.session.annotation
    before = layer.data.copy()
    gate, bar = start_held(painted, choose, tmp_path, monkeypatch, "importing_labels")
    if end == "removed":
        viewer.layers.remove(layer)
    elif end == "another":
        press(painted, "new annotation")
    else:
        painted.shutdown()
    assert not bar.isVisible()
    gate.open()
    live(0.2)
    assert np.array_equal(layer.data, before)


def test_an_error_of_an_import_leaves_nothing_stuck(qtbot, painted, choose, tmp_path, monkeypatch):
    def without_memory(*_, **__):
        yield 0.5
        raise MemoryError("no room")

    monkeypatch.setattr(clear_import, "importing_labels", without_memory)
    labels = np.full(SHAPE, 2, np.uint8)
    write_labels(tmp_path / "a.tif", labels, painted.session.volume, NAMED)
    choose(tmp_path / "a.tif")
    with qtbot.capture_exceptions() as raised:
        pick(painted, "Import labels")
        wait_until(lambda: raised != [], "it is told")
    wait_until(lambda: not painted.annotate._clear_import.work.working, "it is over")
    assert not painted.undo.working and acts(painted) == 0


def test_labels_above_255_make_room_for_themselves(painted, choose, tmp_path, no_errors):
    layer, before = painted.session.annotation, state(painted.session.annotation)
    values = np.zeros(SHAPE, np.uint16)
    values[3] = 300
    classes = default_classes([1, 300])
    write_labels(tmp_path / "a.tif", values, painted.session.volume, classes)
    choose(tmp_path / "a.tif")
    pick_and_wait(painted, "Import labels")
    assert layer.data.dtype == np.uint16 and (layer.data[3] == 300).all()
    painted.undo.undo()
    assert state(layer) == before


def test_a_zarr_folder_and_another_layer_are_imported(viewer, painted, choose, tmp_path, no_errors):
    session, layer = painted.session, painted.session.annotation
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:4] = 2
    write_labels(tmp_path / "a.zarr", labels, session.volume, NAMED[:2])
    choose(tmp_path / "a.zarr")
    pick_and_wait(painted, "Import an OME-Zarr folder")
    assert (layer.data[2:4] == 2).all()
    other = viewer.add_labels(np.roll(labels, 4, axis=0), name="R&D")
    set_classes(other, NAMED)
    pick_and_wait(painted, "Import layer R")
    assert (layer.data[6:8] == 2).all() and (layer.data[2:4] == 2).all()
    viewer.add_labels(np.ones((3, 4, 5), np.uint8), name="small")
    press(painted, "clear or import labels")
    (menu,) = [m for m in painted.findChildren(QMenu) if m.isVisible()]
    assert not any("small" in action.text() for action in menu.actions())
    menu.close()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        (np.ones((2, 3, 4), np.uint8), "import labels of this image"),
        (np.random.default_rng(0).random(SHAPE), "fractions"),
        (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 50, "one for each class"),
        (np.zeros(SHAPE, np.uint8), "nothing is labeled"),
    ],
)
def test_what_cannot_be_imported_is_refused(painted, choose, tmp_path, monkeypatch, values, why):
    said = []
    monkeypatch.setattr("napari_volseg.widgets.long_work.show_warning", said.append)
    np.save(tmp_path / "a.npy", values)
    choose(tmp_path / "a.npy")
    pick(painted, "Import labels")
    wait_until(lambda: said != [], "it is refused")
    assert said[0].startswith("a.npy: ") and why in said[0]
    assert acts(painted) == 0


@pytest.mark.parametrize("crashed", [True, False], ids=["crashed", "closed"])
def test_they_are_undone_after_a_restart(
    viewer, painted, choose, tmp_path, phantom, crashed, no_errors
):
    layer = painted.session.annotation
    states = [state(layer)]
    labels = np.zeros(SHAPE, np.uint8)
    labels[5] = 9
    write_labels(tmp_path / "a.tif", labels, painted.session.volume, NAMED)
    choose(tmp_path / "a.tif")
    show_slice(viewer, layer, 0, 12)
    for act in ("Clear slice", "Import labels", "Clear all"):
        pick_and_wait(painted, act)
        states.append(state(layer))
    assert painted._journaling._autosave.flush()
    shutil.copytree(tmp_path / "journal", tmp_path / "crashed")
    close(painted)
    viewer = ViewerModel()
    again = VolSegDock(viewer, journal=tmp_path / ("crashed" if crashed else "journal"))
    try:
        again.show()
        add_volume(viewer, phantom[0])
        wait_until(lambda: len(again.findChildren(RecoveryStrip)) == 1, "it is offered")
        assert find(again, "unsaved annotation").text().endswith("undo brings it back.")
        press(again, "restore annotation")
        wait_until(lambda: again.session.annotation is not None, "it is restored")
        restored = again.session.annotation
        names = [a.name for a in history_of(restored).undoable]
        assert names == ["clear slice", "import", "clear all"]
        for expected in reversed(states):
            assert state(restored) == expected
            again.undo.undo()
        for expected in states:
            assert state(restored) == expected
            again.undo.redo()
        assert classes_of(restored)[-1].name == "vein"
    finally:
        close(again)
        again.deleteLater()
