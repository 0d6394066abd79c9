"""Whatever happens to a painted layer, the journal has it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from napari.components import ViewerModel
from qtpy.QtCore import QObject

from napari_volseg.data import journal_writer
from napari_volseg.data.annotation import default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.history import Act, History
from napari_volseg.data.journal import LOG, Journal, open_journal, recoverable
from napari_volseg.data.journal_log import read_log
from napari_volseg.data.review_state import ReviewState
from napari_volseg.widgets.autosave import Autosave

SHAPE = (12, 20, 30)
WAIT_MS = 60_000

LEAVER = """
import pathlib, sys
import numpy as np
from napari.components import ViewerModel
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication
from napari_volseg.widgets.autosave import Autosave

app = QApplication([])
viewer = ViewerModel()
layer = viewer.add_labels(np.zeros((4, 4, 4), np.uint8))
autosave = Autosave(viewer.layers, folder=pathlib.Path(sys.argv[1]))
autosave.watch(layer, name="kidney")
def leave():
    layer.paint((1, 1, 1), 3)
    app.quit()
QTimer.singleShot(0, leave)
app.exec()
"""


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def layer(viewer):
    layer = viewer.add_labels(np.zeros(SHAPE, np.uint8), name="annotation")
    layer.brush_size = 3
    return layer


@pytest.fixture
def autosave(viewer, tmp_path, qapp):
    autosave = Autosave(viewer.layers, folder=tmp_path)
    yield autosave
    autosave.stop()


def stroke(layer):
    layer.paint((3, 10, 10), 2)


def stroke_and_undo(layer):
    layer.paint((3, 10, 10), 2)
    layer.paint((6, 10, 10), 3)
    layer.undo()


def redo(layer):
    stroke_and_undo(layer)
    layer.redo()


def fill(layer):
    layer.fill((3, 10, 10), 4)


def polygon(layer):
    layer.paint_polygon([(3, 2, 2), (3, 2, 9), (3, 9, 9)], 2)


def set_items(layer):
    layer.data_setitem((np.array([1]), np.array([2]), np.array([3])), 5)


def bulk(layer):
    layer.data[4:6] = 1


def bulk_while_hidden(layer):
    layer.visible = False
    layer.data[4:6] = 1
    layer.refresh()


def replace(layer):
    layer.data = np.full(SHAPE, 2, np.uint8)


def replace_by_other_shape(layer):
    layer.data = np.full((3, 4, 5), 2, np.uint8)


def replace_by_other_type(layer):
    layer.paint((3, 10, 10), 2)
    layer.data = layer.data.astype(np.uint16)
    layer.paint((4, 10, 10), 300)


def rename(layer):
    layer.name = "other"
    layer.paint((3, 10, 10), 2)


EDITS = (
    stroke,
    stroke_and_undo,
    redo,
    fill,
    polygon,
    set_items,
    bulk,
    bulk_while_hidden,
    replace,
    replace_by_other_shape,
    replace_by_other_type,
    rename,
)


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.__name__)
def test_every_way_to_edit_reaches_the_disk_by_itself(
    autosave, layer, tmp_path, tmp_path_factory, qtbot, monkeypatch, edit
):
    monkeypatch.setattr(journal_writer, "SECONDS_WITHOUT_NOTE", 0.2)
    autosave.watch(layer, name="kidney")
    autosave.flush()
    edit(layer)
    qtbot.waitUntil(lambda: autosave.saved_at is not None, timeout=WAIT_MS)
    crashed = tmp_path_factory.mktemp("crashed")
    shutil.copytree(tmp_path, crashed, dirs_exist_ok=True)
    recovered = recoverable(crashed)[0].labels()
    assert recovered.any()
    assert recovered.dtype == layer.data.dtype
    assert np.array_equal(recovered, layer.data)


def test_undo_and_redo_need_no_sweep(autosave, layer, tmp_path, qtbot, monkeypatch):
    monkeypatch.setattr(journal_writer, "SECONDS_WITHOUT_NOTE", 1e6)
    autosave.watch(layer, name="kidney")
    layer.paint((3, 10, 10), 2)
    autosave.flush()
    (session,) = (path for path in tmp_path.iterdir() if path.is_dir())
    for act in (layer.undo, layer.redo):
        before = read_log(session / LOG).painted_voxels()
        act()
        qtbot.waitUntil(
            lambda before=before: read_log(session / LOG).painted_voxels() != before,
            timeout=WAIT_MS,
        )
    kept = np.zeros_like(layer.data)
    read_log(session / LOG).put_into(kept)
    assert np.array_equal(kept, layer.data)


def test_paint_that_a_look_came_too_early_for_is_not_called_saved(
    autosave, layer, qtbot, monkeypatch
):
    looked, painted = threading.Event(), threading.Event()
    look = journal_writer.Journaled.look

    def slow_look(self, folder):
        wrote = look(self, folder)
        looked.set()
        painted.wait(WAIT_MS / 1000)
        return wrote

    monkeypatch.setattr(journal_writer.Journaled, "look", slow_look)
    said = []
    autosave.state_changed.connect(said.append)
    autosave.watch(layer, name="kidney")
    looked.wait(WAIT_MS / 1000)
    layer.paint((3, 10, 10), 2)
    painted.set()
    qtbot.waitUntil(lambda: autosave.saved_at is not None, timeout=WAIT_MS)
    assert said == ["saving", "saved"]


def test_after_the_stop_it_says_nothing_more(autosave, layer):
    autosave.watch(layer, name="kidney")
    autosave.flush()
    assert autosave.stop()
    said = autosave.state
    layer.paint((3, 10, 10), 2)
    assert autosave.state == said


def test_it_says_saving_then_saved(autosave, layer, qtbot):
    said = []
    autosave.state_changed.connect(said.append)
    autosave.watch(layer, name="kidney")
    qtbot.waitUntil(lambda: said == ["saved"], timeout=WAIT_MS)
    assert autosave.saved_at is None
    layer.paint((3, 10, 10), 2)
    assert said[1:] == ["saving"]
    qtbot.waitUntil(lambda: said[1:] == ["saving", "saved"], timeout=WAIT_MS)
    assert autosave.saved_at is not None


def test_it_says_why_it_cannot_save(viewer, layer, tmp_path, qtbot):
    (tmp_path / "journal").write_text("in the way")
    autosave = Autosave(viewer.layers, folder=tmp_path / "journal")
    autosave.watch(layer, name="kidney")
    qtbot.waitUntil(lambda: autosave.state.startswith("not saved: "), timeout=WAIT_MS)
    assert str(tmp_path / "journal") in autosave.state
    assert not autosave.flush()
    autosave.stop()


def test_a_deleted_layer_is_kept_and_offered(autosave, viewer, layer, tmp_path):
    autosave.watch(layer, name="kidney")
    layer.paint((3, 10, 10), 2)
    viewer.layers.remove(layer)
    autosave.flush()
    (offer,) = recoverable(tmp_path)
    assert np.array_equal(offer.labels(), layer.data)
    layer.paint((5, 10, 10), 2)


def test_other_layers_come_and_go_without_a_word(autosave, viewer, layer, tmp_path):
    autosave.watch(layer, name="kidney")
    other = viewer.add_labels(np.ones(SHAPE, np.uint8))
    viewer.layers.remove(other)
    autosave.stop()
    assert recoverable(tmp_path) == []


def test_two_layers_are_kept_apart(autosave, viewer, layer, tmp_path):
    other = viewer.add_labels(np.zeros((5, 5, 5), np.uint8))
    autosave.watch(layer, name="kidney")
    autosave.watch(other, name="brain")
    layer.data[1], other.data[2] = 1, 2
    autosave.stop()
    recovered = {offer.header.name: offer.labels() for offer in recoverable(tmp_path)}
    assert np.array_equal(recovered["kidney"], layer.data)
    assert np.array_equal(recovered["brain"], other.data)


def test_what_the_window_knows_comes_back(autosave, viewer, tmp_path):
    layer = viewer.add_labels(
        np.ones(SHAPE, np.uint8),
        scale=(2, 0.5, 0.5),
        translate=(1, 2, 3),
        rotate=np.eye(3)[[0, 2, 1]],
        shear=(0.1, 0, 0),
        affine=np.diag([2, 1, 1, 1]),
        units=("um", "um", "um"),
        axis_labels=("z", "y", "x"),
    )
    autosave.watch(layer, name="kidney")
    autosave.watch(layer, name="kidney", source="kidney.tif", classes=default_classes((1, 2)))
    autosave.stop()
    (offer,) = recoverable(tmp_path)
    assert (offer.header.name, offer.header.source) == ("kidney", "kidney.tif")
    assert offer.header.classes == default_classes((1, 2))
    restored = viewer.add_labels(offer.labels(), **offer.header.geometry)
    corners = np.array(np.meshgrid(*[(0, size) for size in SHAPE])).reshape(3, -1).T
    for corner in corners:
        assert np.allclose(restored.data_to_world(corner), layer.data_to_world(corner))
    assert (restored.units, restored.axis_labels) == (layer.units, layer.axis_labels)


def test_what_is_saved_under_a_name_is_not_offered(autosave, layer, tmp_path):
    autosave.watch(layer, name="kidney")
    layer.paint((3, 10, 10), 2)
    autosave.mark_saved(layer, layer.data.copy())
    autosave.stop()
    assert recoverable(tmp_path) == []


def test_a_file_that_was_only_looked_at_is_not_offered(autosave, viewer, tmp_path):
    layer = viewer.add_labels(np.ones(SHAPE, np.uint8))
    autosave.watch(layer, name="kidney", saved=True)
    autosave.stop()
    assert recoverable(tmp_path) == []


def test_a_file_that_was_painted_on_is_offered(autosave, viewer, tmp_path):
    layer = viewer.add_labels(np.ones(SHAPE, np.uint8))
    autosave.watch(layer, name="kidney", saved=True)
    layer.paint((3, 10, 10), 2)
    autosave.stop()
    assert np.array_equal(recoverable(tmp_path)[0].labels(), layer.data)


def test_a_layer_that_is_no_annotation_is_refused(autosave, viewer):
    with pytest.raises(InputError, match="3D layer of integers"):
        autosave.watch(viewer.add_labels(np.zeros((5, 5), np.uint8)), name="plane")


def test_an_annotation_that_becomes_something_else_is_kept_as_it_was(autosave, layer, tmp_path):
    autosave.watch(layer, name="kidney")
    layer.paint((3, 10, 10), 2)
    before = layer.data
    layer.data = np.zeros((2, 3, 4, 5), np.uint8)
    assert autosave.state.startswith("not saved: kidney")
    autosave.flush()
    assert np.array_equal(recoverable(tmp_path)[0].labels(), before)


def test_the_windows_thread_touches_no_file(autosave, viewer, layer, monkeypatch):
    threads = {}

    def noting(name, method):
        def noted(*args):
            threads[name] = threading.current_thread()
            return method(*args)

        return noted

    names = ("describe", "record", "keep", "mark_saved", "close")
    for name in names:
        monkeypatch.setattr(Journal, name, noting(name, getattr(Journal, name)))
    monkeypatch.setattr(journal_writer, "open_journal", noting("open", open_journal))
    autosave.watch(layer, name="kidney")
    layer.paint((3, 10, 10), 2)
    autosave.keep(layer, History((Act("stroke", "|u1"),)), ReviewState())
    autosave.mark_saved(layer, layer.data.copy())
    viewer.layers.remove(layer)
    autosave.flush()
    assert set(threads) == {"open", *names}
    assert threading.main_thread() not in threads.values()


def test_when_its_parent_is_destroyed_it_writes_and_ends(viewer, layer, tmp_path, qtbot):
    threads = threading.active_count()
    parent = QObject()
    autosave = Autosave(viewer.layers, folder=tmp_path, parent=parent)
    autosave.watch(layer, name="kidney")
    layer.paint((3, 10, 10), 2)
    parent.deleteLater()
    qtbot.waitUntil(lambda: threading.active_count() == threads, timeout=WAIT_MS)
    assert np.array_equal(recoverable(tmp_path)[0].labels(), layer.data)
    layer.paint((5, 10, 10), 2)
    viewer.layers.remove(layer)


def test_a_program_that_quits_loses_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", LEAVER, tmp_path], check=True)
    assert recoverable(tmp_path)[0].labels()[1, 1, 1] == 3
