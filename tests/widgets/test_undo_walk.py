"""A random walk through the window: whatever was done is undone to the start and redone to the end.

Acts are done as a user does them, by buttons, keys and tools; between them the view turns and
layers are chosen. In the middle, the window is closed and opened again.
"""

from __future__ import annotations

import numpy as np
from napari.components import ViewerModel
from qtpy.QtWidgets import QMenu

from napari_volseg.data.annotation import VIEW_OF_AXIS
from napari_volseg.data.files import write_labels
from napari_volseg.data.tiles import slice_region
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import classes_of, history_of, show_slice
from napari_volseg.widgets.recovery import RecoveryStrip
from tests.widgets.conftest import close
from tests.widgets.hands import add_volume, find, live, pick, press, wait_until
from tests.widgets.test_between import Proposer
from tests.widgets.test_queue import SHAPE, begin, blobs, find_objects, key
from tests.widgets.test_review_state import marked, predict_again, verdicts

ACTS = 32
"""In each half of the walk; about one in five changes nothing, as a turn of the view."""


class Walk:
    """A window, the acts that a user can do in it, and all states that it was in."""

    def __init__(self, viewer, dock, rng, folder, choose):
        self.rng, self.folder, self.choose = rng, folder, choose
        self.open(viewer, dock)
        self.states = [self.state()]
        self.done = []

    def open(self, viewer, dock):
        self.viewer, self.dock = viewer, dock
        self.layer = dock.session.annotation

    @property
    def queue(self):
        return self.dock.review.objects.queue

    def state(self):
        """Return what must be the same again, to the byte."""
        layer, session = self.layer, self.dock.session
        return {
            "labels": (layer.data.dtype.str, layer.data.tobytes()),
            "classes": classes_of(layer),
            "corrections": marked(self.dock).tobytes(),
            "verdicts": verdicts(self.dock),
            "prediction": session.prediction.data.tobytes(),
        }

    def rest(self):
        """Wait until all that was begun is done."""
        live(0.005)
        wait_until(lambda: not self.queue.reviewing.working, "the act is done")
        live(0.005)

    def walk(self, acts):
        kinds = list(SHARES)
        shares = np.array([SHARES[kind] for kind in kinds], float)
        for _ in range(acts):
            kind = kinds[self.rng.choice(len(kinds), p=shares / shares.sum())]
            self.done.append(kind)
            getattr(self, kind)()
            self.took()

    def took(self):
        """Notice what was done, one act or none."""
        self.rest()
        now, known = self.state(), len(history_of(self.layer).undoable)
        assert known in (len(self.states) - 1, len(self.states)), self.done[-5:]
        if known == len(self.states):
            self.states.append(now)
        else:
            assert differing(now, self.states[-1]) == [], f"{self.done[-1]} is no act"

    def there_and_back(self):
        """Undo everything, then redo everything."""
        last = len(self.states) - 1
        for at in [*range(last - 1, -1, -1), *range(1, last + 1)]:
            names = [a.name for a in history_of(self.layer).undoable]
            back = at < len(names)
            (self.dock.undo.undo if back else self.dock.undo.redo)()
            self.rest()
            assert differing(self.state(), self.states[at]) == [], (names[-1:], at, back)
        assert history_of(self.layer).redoable == ()

    def class_id(self):
        return int(self.rng.choice([c.id for c in classes_of(self.layer)]))

    def voxel(self):
        return tuple(int(v) for v in self.rng.integers(SHAPE))

    def stroke(self):
        self.dock.session.paint_with(self.class_id())
        self.layer.brush_size = int(self.rng.integers(1, 8))
        at = np.array(self.voxel())
        with self.layer.block_history():
            for step in range(4):
                voxel = np.minimum(at + np.array((0, step, 2 * step)), np.array(SHAPE) - 1)
                self.layer.paint(tuple(voxel), self.layer.selected_label)

    def erase(self):
        self.layer.mode = "erase"
        self.layer.brush_size = 5
        self.layer.paint(self.voxel(), 0)

    def fill(self):
        self.layer.mode = "fill"
        self.layer.fill(self.voxel(), self.class_id())

    def turn(self):
        axis = int(self.rng.integers(3))
        press(self.dock, "step Annotate")
        press(self.dock, f"show {VIEW_OF_AXIS[axis]} slices")
        show_slice(self.viewer, self.layer, axis, self.voxel()[axis])

    def choose_a_layer(self):
        layers = self.viewer.layers
        layers.selection.active = layers[int(self.rng.integers(len(layers)))]

    def mark_complete(self):
        self.turn()
        press(self.dock, "mark slice complete")

    def copy_neighbor(self):
        self.turn()
        press(self.dock, "copy the nearest painted slice")

    def accept_proposals(self):
        press(self.dock, "step Annotate")
        show_slice(self.viewer, self.layer, 0, int(self.rng.integers(5, 9)))
        press(self.dock, "fill between painted slices")
        wait_until(lambda: not self.dock.annotate._between.job.running, "it is proposed")
        live(0.02)
        which = self.rng.choice(["accept proposals of the slice", "accept all proposals"])
        press(self.dock, str(which))

    def add_a_class(self):
        if len(classes_of(self.layer)) < 6:
            press(self.dock, "step Annotate")
            press(self.dock, "add a class")

    def rename_a_class(self):
        press(self.dock, "step Annotate")
        name = find(self.dock, f"name of class {self.class_id()}")
        name.setText(f"tubule {self.rng.integers(1000)}")
        name.editingFinished.emit()

    def remove_a_class(self):
        ids = [c.id for c in classes_of(self.layer) if c.id > 3]
        if not ids:
            return
        press(self.dock, "step Annotate")
        chosen = int(self.rng.choice(ids))
        counted = self.dock.session.painted.counts
        count = int(np.count_nonzero(self.layer.data == chosen))
        wait_until(lambda: counted_of(self.dock, chosen) == count, f"{counted} is up to date")
        press(self.dock, f"remove class {chosen}")
        if count:
            (menu,) = [m for m in self.dock.findChildren(QMenu) if m.isVisible()]
            menu.actions()[int(self.rng.integers(len(menu.actions())))].trigger()
            menu.close()

    def replace(self):
        self.layer.data = np.roll(self.layer.data, 3, axis=2)

    def pick_from_menu(self, name):
        press(self.dock, "step Annotate")
        pick(self.dock, name)

    def clear_slice(self):
        self.turn()
        self.pick_from_menu("Clear slice")

    def clear_all(self):
        self.pick_from_menu("Clear all")

    def import_labels(self):
        """Import a file of another annotation, or one that does not say what is unlabeled."""
        labels = np.zeros(SHAPE, np.uint16)
        for class_id in self.rng.integers(1, 7, 3):
            labels[self.turned()] = class_id
        known = self.rng.random() < 0.5
        path = self.folder / ("labels.tif" if known else "labels.npy")
        write_labels(path, labels, self.dock.session.volume)
        self.choose(path)
        self.pick_from_menu("Import labels")
        if not known:
            choice = find(self.dock, "unlabeled value")
            wait_until(choice.isVisible, "it is asked")
            choice.setCurrentIndex(int(self.rng.integers(choice.count())))
            press(self.dock, "import")
        wait_until(lambda: not self.viewer.status.startswith("Reading"), "it is read")

    def turned(self):
        return slice_region(SHAPE, int(self.rng.integers(3)), min(self.voxel()))

    def go_to_an_object(self):
        press(self.dock, "step Review")
        press(self.dock, "show Objects")
        if numbers := list(self.queue.reviewing.measured):
            self.queue.go_to(int(self.rng.choice(numbers)))

    def verdict(self):
        self.go_to_an_object()
        key(self.dock, str(self.rng.choice(["A", "R"])))

    def verdict_on_all(self):
        self.go_to_an_object()
        find(self.dock, "objects").selectAll()
        key(self.dock, str(self.rng.choice(["A", "R"])))

    def correct(self):
        """Fix an object with a tool, or with the brush."""
        self.go_to_an_object()
        number = self.queue._current
        key(self.dock, "W")
        self.took()
        if self.rng.random() < 0.5:
            key(self.dock, str(self.rng.choice(["G", "Q"])))
        elif self.queue.reviewing.painting:
            box = self.queue.reviewing.objects.get(number).box
            self.layer.brush_size = 3
            at = tuple(int(self.rng.integers(s.start, s.stop)) for s in box)
            self.layer.paint(at, int(self.rng.choice([0, self.layer.selected_label])))

    def merge(self):
        self.go_to_an_object()
        if len(self.queue.reviewing.measured) < 2:
            return
        key(self.dock, "W")
        self.took()
        table = find(self.dock, "objects")
        rows = [r for r in range(table.model().rowCount()) if r != table.currentIndex().row()]
        selection = table.selectionModel()
        flags = selection.SelectionFlag.Select | selection.SelectionFlag.Rows
        selection.select(table.model().index(int(self.rng.choice(rows)), 0), flags)
        key(self.dock, "U")

    def undo_and_redo(self):
        many = int(self.rng.integers(1, 4))
        for move in [self.dock.undo.undo] * many + [self.dock.undo.redo] * many:
            move()
            self.rest()


SHARES = {
    **{"stroke": 14, "erase": 5, "fill": 5, "mark_complete": 5, "copy_neighbor": 4},
    **{"turn": 4, "choose_a_layer": 4, "accept_proposals": 5, "undo_and_redo": 5},
    **{"add_a_class": 4, "rename_a_class": 3, "remove_a_class": 4, "replace": 3},
    **{"clear_slice": 3, "clear_all": 2, "import_labels": 4},
    **{"verdict": 10, "verdict_on_all": 5, "correct": 10, "merge": 3},
}


def counted_of(dock, class_id):
    return dock.session.painted.counts.get(class_id, 0)


def differing(one, other):
    return [name for name in one if one[name] != other[name]]


def test_a_walk_through_the_window_is_undone_and_redone_to_the_byte(
    viewer, dock, monkeypatch, tmp_path, choose, no_errors
):
    monkeypatch.setattr("napari_volseg.widgets.between.propose_on", Proposer())
    begin(dock, viewer)
    walk = Walk(viewer, dock, np.random.default_rng(4), tmp_path, choose)
    walk.walk(ACTS)
    walk.there_and_back()
    mask = dock.session.prediction.data.copy()
    close(dock)

    viewer = ViewerModel()
    again = VolSegDock(viewer, journal=tmp_path / "journal")
    again.show()
    try:
        add_volume(viewer, blobs()[0])
        wait_until(lambda: again.findChildren(RecoveryStrip) != [], "it is offered")
        press(again, "restore annotation")
        wait_until(lambda: again.session.annotation is not None, "it is restored")
        predict_again(again, mask)
        find_objects(again)
        walk.open(viewer, again)
        assert differing(walk.state(), walk.states[-1]) == []
        walk.walk(ACTS)
        walk.there_and_back()
    finally:
        close(again)
        again.deleteLater()
