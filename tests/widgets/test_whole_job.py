"""The whole job in the real window by keyboard, the mouse for strokes only.

``NAPARI_VOLSEG_SCREENSHOTS=FOLDER`` keeps the pictures of every step, to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_volseg.review import between
from napari_volseg.widgets.layers import visible_slice
from tests.widgets.hands import (
    canvas,
    find,
    live,
    paint_like,
    screenshot,
    wait_until,
)

STEPS = 16
SLICES = (1, 22), (2, 25), (0, 10), (0, 14)
SHIFT = Qt.KeyboardModifier.ShiftModifier


class Hands:
    """The keyboard on the canvas, and a camera."""

    def __init__(self, viewer, dock, folder):
        self.viewer, self.dock, self.folder = viewer, dock, folder
        self.pictures = 0

    def key(self, key, modifier=Qt.KeyboardModifier.NoModifier):
        """Press a key where the picture is, once no other key's work goes on."""
        QTest.keyClick(canvas(self.viewer), key, modifier)
        live(0.05)

    def picture(self, what):
        """Save the window as it is."""
        live(0.2)
        self.pictures += 1
        screenshot(self.viewer, self.folder / f"{self.pictures:02}_{what}.png")

    def train_and_predict(self):
        """Train, then predict."""
        for key, job in (
            (Qt.Key.Key_T, self.dock.train.job),
            (Qt.Key.Key_P, self.dock.predict.job),
        ):
            self.key(key, SHIFT)
            assert not job.running, "the first press only goes there"
            self.key(key, SHIFT)
            assert job.running
            wait_until(lambda job=job: not job.running, "it ends", 240)

    def find_objects(self):
        """Find the objects of the prediction."""
        wait_until(lambda: find(self.dock, "find objects").isEnabled(), "they can be found")
        self.key(Qt.Key.Key_R, SHIFT)
        if not find(self.dock, "objects").isVisible():
            self.key(Qt.Key.Key_R, SHIFT)
        wait_until(lambda: find(self.dock, "objects").isVisible(), "objects are found")

    def go_to(self, axis, index):
        """Turn the volume, then walk to a slice."""
        layer = self.dock.session.annotation
        while (seen := visible_slice(self.viewer, layer))[0] != axis:
            self.key(Qt.Key.Key_T)
        step = Qt.Key.Key_Right if index > seen[1] else Qt.Key.Key_Left
        for _ in range(abs(index - seen[1])):
            QTest.keyClick(canvas(self.viewer), step)
        assert visible_slice(self.viewer, layer) == (axis, index)
        live(0.1)

    def verdict(self, key, modifier=Qt.KeyboardModifier.NoModifier):
        """Say something of the object in review; return its number."""
        queue = self.dock.review.objects.queue
        number = queue._current
        self.key(key, modifier)
        wait_until(lambda: not queue.reviewing.working, "it is done")
        return number


def any_named(dock, beginning):
    """Whether a control of such a name is on view."""
    controls = dock.findChildren(QWidget)
    return any(c.accessibleName().startswith(beginning) and c.isVisible() for c in controls)


@pytest.fixture
def hands(napari_viewer, napari_dock, tmp_path):
    folder = os.environ.get("NAPARI_VOLSEG_SCREENSHOTS", "")
    return Hands(napari_viewer, napari_dock, Path(folder) if folder else tmp_path / "pictures")


def test_the_whole_job_by_keyboard(hands, phantom, tmp_path, monkeypatch, no_errors):
    viewer, dock, (_, truth) = hands.viewer, hands.dock, phantom
    session = dock.session
    viewer.layers.remove(session.annotation)
    # What is proposed is looked at, not judged.
    monkeypatch.setattr(between, "STEPS", 40)

    # Make an annotation and its classes; paint, complete what is painted, fill between two slices.
    viewer.layers.selection.active = session.image
    hands.key(Qt.Key.Key_N, SHIFT)
    annotation = session.annotation
    for _ in range(int(truth.labels.max()) - 2):
        hands.key(Qt.Key.Key_M, SHIFT)
    assert len(session.classes) == len(truth.classes)
    for place in SLICES:
        hands.go_to(*place)
        paint_like(viewer, annotation, truth.labels, place, brush=3, every=14)
    assert visible_slice(viewer, annotation) == (0, 14)
    hands.key(Qt.Key.Key_C)
    assert annotation.data[14].all()
    hands.picture("completed")
    hands.key(Qt.Key.Key_I)
    wait_until(lambda: any("propos" in x.name for x in viewer.layers), "slices are proposed", 240)
    hands.picture("proposed")
    before = np.count_nonzero(annotation.data)
    hands.key(Qt.Key.Key_Y, SHIFT)
    wait_until(lambda: np.count_nonzero(annotation.data) > before, "they are accepted")
    assert annotation.data[12].any()

    # Train and predict; paint where it teaches most; train on, from what is known.
    find(dock, "steps").setValue(STEPS)
    instant = []
    dock.train.job.yielded.connect(lambda event: instant.append(event.instant))
    hands.train_and_predict()
    assert session.prediction.data.all()
    hands.picture("predicted")
    hands.key(Qt.Key.Key_A, SHIFT)
    wait_until(lambda: any_named(dock, "suggested "), "slices are suggested")
    hands.picture("suggested")
    hands.key(Qt.Key.Key_S)
    seen = visible_slice(viewer, annotation)
    assert not np.take(annotation.data, seen[1], axis=seen[0]).all()
    paint_like(viewer, annotation, truth.labels, seen, brush=3, every=12)

    # The queue: lock one, take one for background, correct one.
    hands.find_objects()
    hands.picture("objects")
    reviewing = dock.review.objects.queue.reviewing
    accepted = hands.verdict(Qt.Key.Key_A)
    kept = reviewing.objects.labels == accepted
    class_id = int(session.prediction.data[kept][0])
    rejected = hands.verdict(Qt.Key.Key_R)
    assert reviewing.state(accepted) == "accepted" and reviewing.state(rejected) == "rejected"
    assert (annotation.data[reviewing.objects.labels == rejected] == 1).any()
    fixed = hands.verdict(Qt.Key.Key_W)
    hands.verdict(Qt.Key.Key_G)
    hands.verdict(Qt.Key.Key_S, SHIFT)
    live(0.5)
    hands.picture("split_shown")
    hands.verdict(Qt.Key.Key_S, SHIFT)
    assert reviewing.state(fixed) == "corrected"
    hands.picture("reviewed")
    corrected = annotation.data.copy()
    QTest.keyClick(canvas(viewer), Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    live(0.1)
    QTest.keyClick(canvas(viewer), Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier | SHIFT)
    live(0.1)
    np.testing.assert_array_equal(annotation.data, corrected)

    # Train on, warm; what is locked stays.
    assert any(instant), "the first one began with the instant answer"
    instant.clear()
    hands.train_and_predict()
    assert instant and not any(instant), "this one goes on from the model"
    assert (session.prediction.data[kept] == class_id).all()

    # Compare with the truth, and save the report.
    viewer.add_labels(truth.labels, name="truth", scale=session.prediction.scale)
    viewer.layers.selection.active = annotation
    report = tmp_path / "report.html"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(report), ""))
    hands.key(Qt.Key.Key_R, SHIFT)
    hands.key(Qt.Key.Key_C, SHIFT)
    wait_until(lambda: find(dock, "agreement of classes").isVisible(), "it is compared")
    hands.picture("compared")
    hands.key(Qt.Key.Key_J, SHIFT)
    hands.picture("difference")
    hands.key(Qt.Key.Key_E, SHIFT)
    wait_until(report.exists, "the report is written")
    assert len(list(hands.folder.glob("*.png"))) >= hands.pictures == 9
