"""The dock as a user meets it: what it says, what it allows, and what it survives."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractButton,
    QAbstractSpinBox,
    QColorDialog,
    QComboBox,
    QLineEdit,
    QMenu,
    QTableView,
)

from napari_volseg.data.errors import InputError
from napari_volseg.training.events import Score
from napari_volseg.widgets.dock import STEPS, VolSegDock
from napari_volseg.widgets.layers import show_slice, visible_slice
from napari_volseg.widgets.parts import style_sheet
from tests.widgets.conftest import progress
from tests.widgets.hands import find, live, press, wait_until

WIDTH = 380


def shown(dock, name):
    """Return the text of a label that is visible, "" if it is hidden."""
    label = find(dock, name)
    return label.text() if label.isVisible() else ""


def is_part_of(widget, *kinds):
    """Tell whether a widget is inside another of these kinds, which speaks for it."""
    parent = widget.parent()
    return parent is not None and (isinstance(parent, kinds) or is_part_of(parent, *kinds))


def go_to(dock, step):
    press(dock, f"step {step}")


def start_training(dock):
    go_to(dock, "Train")
    press(dock, "train")


def events_came(dock, stand_in, number=3):
    wait_until(lambda: stand_in.steps >= number and dock.train.job.heard, "training runs")


# What is there ----------------------------------------------------------------


def test_an_empty_window_says_how_to_begin(dock):
    assert find(dock, "open sample Kidney phantom").isVisible()
    assert not find(dock, "step Annotate").isVisible()
    assert not find(dock, "new annotation").isEnabled()


def test_every_control_has_a_name_and_says_why(painted):
    kinds = (QAbstractButton, QComboBox, QLineEdit, QAbstractSpinBox)
    controls = [w for kind in kinds for w in painted.findChildren(kind)]
    ours = [
        w for w in controls if not is_part_of(w, QAbstractSpinBox, QComboBox, QMenu, QTableView)
    ]
    assert len(ours) > 30
    for control in ours:
        assert control.accessibleName() and control.toolTip(), (
            f"{type(control).__name__} {control.accessibleName()!r} in {control.parent()}"
        )


def test_the_dock_takes_the_colors_of_the_theme(viewer, dock):
    for theme in (viewer.theme, "light", "dark"):
        viewer.theme = theme
        assert dock.styleSheet() == style_sheet(theme)


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_nothing_is_cut_off_at_the_width_of_the_dock(viewer, painted, theme):
    viewer.theme = theme
    painted.setFixedWidth(WIDTH)
    for step, _ in STEPS:
        go_to(painted, step)
        live(0.02)
        for control in painted.findChildren(QAbstractButton):
            if control.isVisible() and control.text():
                right = control.mapTo(painted, control.rect().bottomRight()).x()
                assert right <= WIDTH, control.accessibleName()


def test_an_unusable_image_is_refused_in_its_place(viewer, dock):
    viewer.add_image(np.zeros((5, 6, 7, 3), np.uint8), rgb=True, name="photo")
    assert "Split RGB" in shown(dock, "why this layer cannot be used")
    assert not find(dock, "new annotation").isEnabled()


def test_choices_follow_the_layers(viewer, painted):
    images, labels = find(painted, "image"), find(painted, "labels")
    viewer.add_image(np.zeros((4, 5, 6), np.uint8), name="other")
    assert [images.itemText(i) for i in range(images.count())] == [
        "none",
        "kidney phantom",
        "other",
    ]
    painted.session.annotation.name = "mine"
    viewer.layers["other"].name = "another"
    assert images.itemText(2) == "another"
    assert labels.currentText() == "mine"
    viewer.layers.remove("another")
    assert images.count() == 2


# Annotating -------------------------------------------------------------------


def test_classes_can_be_named_colored_and_added(painted, monkeypatch):
    name = find(painted, "name of class 2")
    name.setText("tubule")
    name.editingFinished.emit()
    monkeypatch.setattr(QColorDialog, "getColor", lambda *_: QColor("#102030"))
    press(painted, "color of class 2")
    assert painted.session.classes[1].name == "tubule"
    assert painted.session.annotation.get_color(2)[:3] == pytest.approx(
        [16 / 255, 32 / 255, 48 / 255], abs=1e-3
    )
    press(painted, "add a class")
    assert painted.session.annotation.selected_label == 4


def test_a_class_is_picked_by_its_button(painted):
    layer = painted.session.annotation
    layer.mode = "pan_zoom"
    press(painted, "paint class 1")
    assert layer.selected_label == 1 and layer.mode == "paint"
    layer.selected_label = 2
    assert find(painted, "paint class 2").isChecked()
    assert not find(painted, "paint class 1").isChecked()


def test_marking_complete_shows_in_the_list_and_undo_takes_it_back(viewer, on_phantom):
    press(on_phantom, "new annotation")
    layer = on_phantom.session.annotation
    layer.data[12, 5:10, 5:10] = 2
    layer.refresh()
    show_slice(viewer, layer, 0, 12)
    press(on_phantom, "mark slice complete")
    wait_until(lambda: bool(on_phantom.session.painted.complete), "it is seen complete")
    find(on_phantom, "go to xy slice 12, complete")
    layer.undo()
    wait_until(lambda: not on_phantom.session.painted.complete, "undo is seen")
    find(on_phantom, "go to xy slice 12, touched")


def test_more_slices_than_are_listed_can_be_listed(on_phantom, monkeypatch):
    monkeypatch.setattr("napari_volseg.widgets.slices.MOST_SHOWN", 2)
    layer = on_phantom.session.start_annotation()
    layer.data[3:9:2] = 1
    layer.data[11] = 2
    layer.refresh()
    wait_until(lambda: len(on_phantom.session.painted.slices) == 4, "the paint is found")
    more = find(on_phantom, "list 2 more xy slices")
    press(on_phantom, "list 2 more xy slices")
    assert not more.isVisible()
    press(on_phantom, "go to xy slice 11, complete")
    assert visible_slice(on_phantom.session.viewer, layer) == (0, 11)


def test_a_painted_slice_is_one_click_away(viewer, painted):
    layer = painted.session.annotation
    press(painted, "go to xz slice 24, complete")
    assert visible_slice(viewer, layer) == (1, 24)
    press(painted, "next painted slice")
    assert visible_slice(viewer, layer) == (2, 26)
    press(painted, "next painted slice")
    assert visible_slice(viewer, layer) == (0, 12)
    press(painted, "show xz slices")
    assert visible_slice(viewer, layer) == (1, 24)
    live(0.1)
    assert shown(painted, "slice on view") == "slice 24 / 47"


def test_advice_changes_with_what_is_painted(on_phantom):
    hint = find(on_phantom, "what to paint next")
    assert "Press New" in hint.text()
    press(on_phantom, "new annotation")
    assert "Paint some of each class" in hint.text()
    layer = on_phantom.session.annotation
    for plane, advice in (
        ((3, slice(2, 9), slice(2, 9)), "Only one class"),
        ((3, slice(12, 19), slice(2, 9)), "All slices are xy: one xz or yz"),
        ((slice(3, 9), 30, slice(2, 9)), "Ready to train. More slices"),
    ):
        layer.data[plane] = 1 if "All" in advice else 2
        layer.refresh()
        wait_until(lambda advice=advice: advice in hint.text(), advice)
    layer.data[layer.data == 0] = 1
    layer.refresh()
    wait_until(lambda: "All of the volume is labeled" in hint.text(), "it is said")


def test_labels_that_were_replaced_are_looked_at_anew(painted):
    layer = painted.session.annotation
    layer.data = np.full_like(layer.data, 2)
    wait_until(lambda: set(painted.session.painted.counts) == {2}, "the new labels are found")
    layer.data = np.zeros((3, 4, 5), np.uint8)
    assert painted.session.annotation is None
    assert "has shape (3, 4, 5)" in shown(painted, "why this layer cannot be used")


# Training ---------------------------------------------------------------------


def test_training_is_refused_with_the_reason_in_its_place(on_phantom):
    go_to(on_phantom, "Train")
    reason = "why training is not possible"
    assert "Press New" in shown(on_phantom, reason)
    assert not find(on_phantom, "train").isEnabled()
    on_phantom.session.start_annotation()
    assert "at least two classes" in shown(on_phantom, reason)
    layer = on_phantom.session.annotation
    layer.data[3, 2:9, 2:9], layer.data[3, 12:19, 2:9] = 1, 2
    layer.refresh()
    wait_until(lambda: find(on_phantom, "train").isEnabled(), "it can be trained")
    assert shown(on_phantom, reason) == ""


def test_what_training_refuses_is_said_in_its_place(painted, monkeypatch):
    def refuse(*_):
        raise InputError("too little is painted")
        yield

    monkeypatch.setattr("napari_volseg.widgets.train.train_on", refuse)
    start_training(painted)
    wait_until(lambda: not painted.train.job.running, "it ends")
    assert shown(painted, "why training is not possible") == "too little is painted"
    assert find(painted, "train").isEnabled()


def test_training_gets_a_copy_of_the_paint(painted, stand_in):
    start_training(painted)
    events_came(painted, stand_in)
    before = stand_in.labels.copy()
    painted.session.annotation.data[:] = 3
    np.testing.assert_array_equal(stand_in.labels, before)
    press(painted, "stop training")
    wait_until(lambda: not painted.train.job.running, "it stops")


def test_stop_lets_the_training_end_by_itself(painted, stand_in):
    start_training(painted)
    events_came(painted, stand_in)
    assert not find(painted, "train").isVisible()
    press(painted, "stop training")
    wait_until(lambda: not painted.train.job.running, "it stops")
    assert stand_in.stopped and stand_in.over
    assert find(painted, "train").isEnabled()


def test_pause_holds_the_training_and_resume_goes_on(painted, stand_in):
    start_training(painted)
    events_came(painted, stand_in)
    press(painted, "pause training")
    live(0.1)
    held = stand_in.steps
    live(0.2)
    assert stand_in.steps == held
    assert shown(painted, "training progress") == "Paused."
    press(painted, "pause training")
    wait_until(lambda: stand_in.steps > held + 3, "it goes on")
    press(painted, "pause training")
    live(0.1)
    press(painted, "stop training")
    wait_until(lambda: not painted.train.job.running, "it stops, paused as it was")
    assert stand_in.stopped


def test_progress_is_shown_in_numbers_one_knows(painted, stand_in):
    start_training(painted)
    events_came(painted, stand_in)
    wait_until(
        lambda: shown(painted, "device, memory and speed") == "CPU · 1.0 GB · 1.0 steps/s",
        "the machine is shown",
    )
    assert shown(painted, "training progress").startswith("About 1 min left")
    press(painted, "stop training")
    wait_until(lambda: not painted.train.job.running, "it stops")


def test_one_long_job_at_a_time(painted, stand_in, model):
    painted.session.set_model(model)
    start_training(painted)
    events_came(painted, stand_in)
    go_to(painted, "Predict")
    assert not find(painted, "predict").isEnabled()
    assert "A training is running" in shown(painted, "why prediction is not possible")
    painted.train.stop()
    wait_until(lambda: find(painted, "predict").isEnabled(), "it can predict")


def test_training_again_goes_on_from_the_model_unless_told_otherwise(painted, stand_in, model):
    stand_in.limit = 2
    painted.session.set_model(model)
    start_training(painted)
    wait_until(lambda: not painted.train.job.running, "it ends")
    assert stand_in.resume is model.checkpoint
    find(painted, "start afresh").setChecked(True)
    press(painted, "train")
    wait_until(lambda: not painted.train.job.running, "it ends")
    assert stand_in.started == 2 and stand_in.resume is None


def test_a_model_for_other_images_is_not_gone_on_from(painted, stand_in, model):
    stand_in.limit = 2
    painted.session.set_model(replace(model, checkpoint=replace(model.checkpoint, channels=1)))
    start_training(painted)
    wait_until(lambda: not painted.train.job.running, "it ends")
    assert stand_in.resume is None


def test_choices_are_remembered(painted, stand_in, viewer, tmp_path):
    stand_in.limit = 2
    find(painted, "minutes to train").setValue(7.5)
    until = find(painted, "train until it no longer improves")
    until.click()
    start_training(painted)
    wait_until(lambda: not painted.train.job.running, "it ends")
    assert stand_in.config.until_no_better
    again = VolSegDock(viewer, journal=tmp_path / "other")
    assert find(again, "minutes to train").value() == 7.5
    assert find(again, "train until it no longer improves").isChecked()
    again.shutdown()
    again.deleteLater()


def test_why_a_training_ends_early_is_said(painted, monkeypatch, model):
    found = {"score": Score((0.9, 0.8, None), 0.8, 0.01), "checkpoint": model.checkpoint}
    events = [
        progress(1, seconds_left=200.0, **found),
        progress(2, seconds_left=20.0, settled=True, **found),
        progress(3, seconds_left=0.0, fraction=1, settled=True, **found),
    ]
    shown = iter((*events, None))
    now = [next(shown)]

    def train_on(*_):
        while now[0] is not None:
            yield now[0]
            time.sleep(0.005)

    monkeypatch.setattr("napari_volseg.widgets.train.train_on", train_on)
    find(painted, "train until it no longer improves").setChecked(True)
    start_training(painted)
    for text in (
        "At most 3 min left · held-out IoU 0.80",
        "About 20 s left · held-out IoU 0.80, which no longer improves",
        "Almost done · held-out IoU 0.80, which no longer improves",
    ):
        line = find(painted, "training progress")
        wait_until(lambda line=line, text=text: line.text() == text, text)
        now[0] = next(shown)
    wait_until(lambda: not painted.train.job.running, "it ends")
    assert "Held-out IoU 0.80, which no longer improved. Next: Predict." in line.text()


# What it survives -------------------------------------------------------------


@pytest.mark.parametrize("gone", ["annotation", "image", "all"])
def test_layers_deleted_in_mid_training(viewer, painted, stand_in, no_errors, gone):
    start_training(painted)
    events_came(painted, stand_in)
    if gone == "all":
        viewer.layers.clear()
    else:
        viewer.layers.remove(getattr(painted.session, gone))
    seen = stand_in.steps
    wait_until(lambda: stand_in.steps > seen + 5, "training goes on")
    press(painted, "stop training")
    wait_until(lambda: not painted.train.job.running, "it stops")
    assert painted.samples.isVisible() == (painted.session.image is None)


def test_layers_renamed_in_mid_training(painted, stand_in, no_errors):
    start_training(painted)
    events_came(painted, stand_in)
    painted.session.annotation.name = "mine"
    painted.session.image.name = "other"
    seen = stand_in.steps
    wait_until(lambda: stand_in.steps > seen + 5, "training goes on")
    painted.train.stop()
    wait_until(lambda: not painted.train.job.running, "it stops")
