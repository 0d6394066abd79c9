"""Painting while the network learns: what reaches the training, and what the user is told."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from napari_volseg.data.annotation import Annotation, Case
from napari_volseg.sparse.config import TrainingConfig
from napari_volseg.training.events import Command, NewLabels
from napari_volseg.training.run import continues
from napari_volseg.widgets import live_paint
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import classes_of, show_slice
from tests.widgets.conftest import progress
from tests.widgets.hands import find, live, paint, press, wait_until


class Pupil:
    """A training that learns nothing, but knows the labels it was told."""

    def __init__(self):
        self.labels, self.messages, self.note = None, [], ""

    def train(self, volume, labels, *_):
        self.labels, step, heard = labels, 0, None
        while heard is not Command.STOP:
            taken = heard if isinstance(heard, NewLabels) else None
            if taken is not None:
                self.messages.append(taken)
                for region, values in taken.boxes:
                    labels[region] = values
            heard = yield progress(step, labels=taken, note=self.note if taken else "")
            step += 1
            time.sleep(0.005)
        yield progress(step)


@pytest.fixture
def pupil(monkeypatch):
    pupil = Pupil()

    def train_on(*arguments):
        yield from pupil.train(*arguments)

    monkeypatch.setattr("napari_volseg.widgets.train.train_on", train_on)
    monkeypatch.setattr(live_paint, "GATHER_MS", 20)
    return pupil


@pytest.fixture
def training(pupil, painted):
    """The dock with a training that has begun."""
    press(painted, "step Train")
    press(painted, "train")
    wait_until(lambda: painted.train.job.heard, "the training begins")
    yield painted
    painted.train.stop()
    wait_until(lambda: not painted.train.job.running, "it stops")


def stroke(layer, value, where):
    layer.data_setitem(where, value)


def knows(pupil, layer):
    wait_until(lambda: np.array_equal(pupil.labels, layer.data), "the training knows the paint")


def words(dock):
    return find(dock, "which paint the training knows").text()


LINE = (np.full(9, 3), np.arange(5, 14), np.full(9, 7))


def test_strokes_fills_undo_and_redo_all_reach_the_training(training, pupil):
    layer = training.session.annotation
    assert words(training) == ""
    stroke(layer, 2, LINE)
    knows(pupil, layer)
    wait_until(lambda: words(training) == "Learning from what you painted just now.", "it says so")
    stroke(layer, 0, (LINE[0][:4], LINE[1][:4], LINE[2][:4]))
    knows(pupil, layer)
    layer.undo()
    knows(pupil, layer)
    layer.redo()
    knows(pupil, layer)
    layer.data = np.where(layer.data == 3, 2, layer.data).astype(layer.data.dtype)
    knows(pupil, layer)
    assert 5 <= len(pupil.messages) <= 6


def test_strokes_of_a_moment_go_together_and_no_more_of_the_volume_than_they_touch(training, pupil):
    layer = training.session.annotation
    for z in range(3, 7):
        stroke(layer, 1, (LINE[0] + z, LINE[1], LINE[2]))
    knows(pupil, layer)
    (message,) = pupil.messages
    assert sum(values.size for _, values in message.boxes) <= 4 * 9


def test_many_strokes_at_one_place_are_sent_once(training, pupil):
    layer = training.session.annotation
    for n in range(20):
        stroke(layer, 1 + n % 2, LINE)
    knows(pupil, layer)
    (message,) = pupil.messages
    assert [values.size for _, values in message.boxes] == [9]


def test_unchecked_it_waits_for_the_check(training, pupil, viewer, tmp_path):
    layer = training.session.annotation
    box = find(training, "keep training while I paint")
    box.click()
    stroke(layer, 2, LINE)
    live(0.2)
    assert pupil.messages == []
    again = VolSegDock(viewer, journal=tmp_path / "other")
    assert not find(again, "keep training while I paint").isChecked()
    again.shutdown()
    again.deleteLater()
    box.click()
    knows(pupil, layer)


def test_only_the_annotation_that_is_trained_on_is_sent(training, pupil, no_errors):
    layer = training.session.annotation
    other = training.session.start_annotation()
    stroke(other, 2, LINE)
    live(0.2)
    assert pupil.messages == []
    stroke(layer, 2, LINE)
    knows(pupil, layer)
    before = len(pupil.messages)
    layer.data = np.zeros((2, 3, 4), layer.data.dtype)
    live(0.2)
    assert len(pupil.messages) == before


def test_what_the_training_leaves_out_is_said(training, pupil):
    pupil.note = "class 7 is new and left out"
    stroke(training.session.annotation, 7, LINE)
    wait_until(lambda: pupil.messages, "it is sent")
    wait_until(lambda: words(training), "it is said")
    assert words(training).endswith("just now. Class 7 is new and left out.")


def test_how_long_ago_is_said_coarsely(training, pupil, monkeypatch):
    layer = training.session.annotation
    stroke(layer, 2, LINE)
    wait_until(lambda: words(training), "it is learned from")
    now = time.monotonic()
    for later, said in ((27, "20 s ago"), (150, "2 min ago")):
        clock = SimpleNamespace(monotonic=lambda at=now + later: at)
        monkeypatch.setattr(live_paint, "time", clock)
        text = f"Learning from what you painted {said}."
        wait_until(lambda text=text: words(training) == text, "it is said")


def test_paint_that_came_too_late_is_not_claimed_to_be_learned(training, pupil):
    layer = training.session.annotation
    stroke(layer, 2, LINE)
    training.train.stop()
    wait_until(lambda: not training.train.job.running, "it stops")
    said = "What you painted last is not in this model yet: Train goes on with it."
    assert words(training) == said


def train_for_real(dock) -> list:
    """Start a training of 10 minutes and wait until it learns; its events, also those to come."""
    events = []
    dock.train.job.yielded.connect(events.append)
    press(dock, "step Train")
    find(dock, "minutes to train").setValue(10.0)
    press(dock, "train")
    wait_until(lambda: any(e.loss is not None for e in events), "it learns", 120)
    return events


def test_a_real_training_learns_from_a_stroke_and_a_class_that_is_new(
    napari_viewer, napari_dock, no_errors
):
    """Painted with the mouse in mid-training; the model that results was trained on it."""
    dock, layer = napari_dock, napari_dock.session.annotation
    events = train_for_real(dock)
    show_slice(napari_viewer, dock.session.image, 0, 5)
    layer.brush_size, layer.mode, layer.selected_label = 5, "paint", 2
    napari_viewer.layers.selection.active = layer
    before = layer.data.copy()
    paint(napari_viewer, layer, [(5, 10, 10), (5, 30, 40)])
    assert (layer.data != before).sum() > 50
    wait_until(lambda: any(e.labels is not None for e in events), "it hears of the stroke", 60)
    assert words(dock).startswith("Learning from what you painted")

    # Preview, curves and model have the new class, as it is called.
    press(dock, "step Annotate")
    press(dock, "add a class")
    new = dock.session.classes[-1]
    assert new.id not in np.unique(layer.data)
    paint(napari_viewer, layer, [(5, 40, 10), (5, 40, 40)])
    assert (layer.data == new.id).sum() > 50

    def tells_of_it(event):
        boxes = event.labels.boxes if event.labels is not None else ()
        return any((values == new.id).any() for _, values in boxes)

    wait_until(lambda: any(map(tells_of_it, events)), "it hears of the class", 60)
    heard = next(n for n, e in enumerate(events) if tells_of_it(e))
    wait_until(lambda: any(e.preview for e in events[heard + 1 :]), "a preview comes", 60)
    live(0.1)
    shown = [x for x in napari_viewer.layers if "preview" in x.name]
    assert new in classes_of(shown[0])
    press(dock, "step Train")
    press(dock, "stop training")
    wait_until(lambda: not dock.train.job.running, "it stops")
    checkpoint = dock.session.model.checkpoint
    assert new in checkpoint.classes
    case = Case(dock.session.volume, Annotation(layer.data, checkpoint.classes))
    assert continues(checkpoint, [case], TrainingConfig(minutes=10.0))
    assert "painted voxels" in find(dock, "training progress").text()
