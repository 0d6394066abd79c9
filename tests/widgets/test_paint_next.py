"""Which slices to paint next, as the window shows them; and the keys' help card."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QLabel, QToolButton

from napari_volseg.data.annotation import Annotation
from napari_volseg.inference import predict as inference
from napari_volseg.review.suggest import Suggestion, doubt_over_average, rank_slices, suggest
from napari_volseg.widgets import paint_next
from napari_volseg.widgets.layers import show_slice, visible_slice
from napari_volseg.widgets.work import SuggestedSlice
from tests.widgets.hands import canvas, find, live, press, wait_until


def suggested(dock):
    """Return the buttons of the suggested slices, best first."""
    return [b for b in dock.findChildren(QToolButton) if "suggested" in b.accessibleName()]


def five(dock):
    wait_until(
        lambda: not dock.annotate.paint_next.job.running and len(suggested(dock)) == 5,
        "five slices are suggested",
    )
    return suggested(dock)


def predict(dock, model):
    dock.session.set_model(model)
    press(dock, "step Predict")
    press(dock, "predict")
    wait_until(lambda: not dock.predict.job.running, "it is predicted")
    press(dock, "step Annotate")


@pytest.fixture
def model(model):
    """The model, which predicts all at once: what follows is what counts here."""
    config = model.checkpoint.config | {"tile": (24, 48, 56)}
    return replace(model, checkpoint=replace(model.checkpoint, config=config))


@pytest.fixture
def advised(painted, model):
    """The dock after a prediction, with slices suggested."""
    predict(painted, model)
    five(painted)
    return painted


@pytest.fixture
def slow(monkeypatch):
    """Let slices be found a quarter of a second apart; how many were."""
    found = []
    real = paint_next.suggest_on

    def suggest_on(*arguments):
        for one in real(*arguments):
            found.append(one)
            yield one
            time.sleep(0.25)

    monkeypatch.setattr(paint_next, "suggest_on", suggest_on)
    return found


def test_a_prediction_is_followed_by_what_the_command_line_suggests(advised, model, phantom):
    annotation = Annotation(advised.session.annotation.data)
    *_, last = suggest(model.checkpoint, phantom[0], annotation)
    expected = [f"{s.view} {s.index}" for s in last.slices]
    assert [b.text() for b in suggested(advised)] == expected
    first = last.slices[0]
    tip = suggested(advised)[0].toolTip()
    painted = {0: 12, 1: 24, 2: 26}
    away = abs(first.index - painted[first.axis]) * phantom[0].spacing[first.axis]
    doubt = doubt_over_average(advised.session.uncertainty, first.axis, first.index)
    assert f"score {first.score:.2f}: the model is {doubt:.1f} times as unsure" in tip
    assert f"The nearest painted {first.view} slice is {away:.3g} µm away" in tip


def test_nothing_is_predicted_for_them(painted, model, monkeypatch):
    runs = []
    real = inference.opinions_in_passes
    monkeypatch.setattr(
        inference, "opinions_in_passes", lambda *a, **k: runs.append(1) or real(*a, **k)
    )
    predict(painted, model)
    five(painted)
    press(painted, "suggest slices")
    five(painted)
    assert runs == [1]


def test_without_a_whole_prediction_there_is_no_suggestion(painted, model, monkeypatch):
    assert not find(painted, "suggest slices").isVisible()
    predict(painted, model)
    five(painted)
    painted.session.start_prediction(painted.session.classes)
    assert not suggested(painted) and not find(painted, "suggest slices").isVisible()


@pytest.mark.parametrize(("label", "colored"), [(1, False), (2, True)])
def test_the_pictures_show_the_image_with_the_prediction_over_it(advised, label, colored):
    advised.session.prediction.data[:] = label
    press(advised, "suggest slices")
    for button in five(advised):
        icon = button.icon().pixmap(button.iconSize()).toImage()
        colors = [icon.pixelColor(x, y).getRgb() for x in range(60) for y in range(64)]
        drawn = np.array([(r, g, b) for r, g, b, alpha in colors if alpha == 255])
        assert len(drawn) > 500 and drawn.std(axis=0).min() > 5, "the image is seen"
        orange = (drawn[:, 0] > drawn[:, 1]) & (drawn[:, 1] > drawn[:, 2])
        assert orange.all() if colored else (drawn == drawn[:, :1]).all()


def test_a_click_goes_there_with_the_brush_ready(viewer, advised):
    layer = advised.session.annotation
    layer.selected_label, layer.mode = 3, "pan_zoom"
    viewer.layers.selection.active = advised.session.image
    for button in suggested(advised)[:3]:
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        view, index = button.text().split()
        assert visible_slice(viewer, layer) == (("xy", "xz", "yz").index(view), int(index))
    assert viewer.layers.selection.active is layer
    assert layer.mode == "paint" and layer.selected_label == 3


def place(button):
    view, index = button.text().split()[-2:]
    return ("xy", "xz", "yz").index(view), int(index)


def test_painted_ones_are_marked_and_passed_over(viewer, advised):
    layer = advised.session.annotation
    first, second, third = (place(b) for b in suggested(advised)[:3])
    advised.annotate.paint_next.go_on()
    assert visible_slice(viewer, layer) == first
    advised.annotate.paint_next.go_on()
    assert visible_slice(viewer, layer) == second, "the one on view is passed over"
    show_slice(viewer, layer, *first)
    press(advised, "mark slice complete")
    wait_until(lambda: "painted" in suggested(advised)[0].accessibleName(), "it is marked")
    assert suggested(advised)[0].text().startswith("●")
    assert "to paint" in suggested(advised)[1].accessibleName()
    advised.annotate.paint_next.go_on()
    assert visible_slice(viewer, layer) == second
    layer.data[tuple(np.insert([slice(4, 9)] * 2, second[0], second[1]))] = 2
    layer.refresh()
    wait_until(lambda: suggested(advised)[1].text().startswith("○"), "it is marked")
    show_slice(viewer, layer, 0, 0)
    advised.annotate.paint_next.go_on()
    assert visible_slice(viewer, layer) == third
    layer.undo()
    wait_until(lambda: "to paint" in suggested(advised)[0].accessibleName(), "undo is seen")


def test_a_slice_begun_before_is_to_be_gone_on_with(viewer, advised, monkeypatch):
    layer = advised.session.annotation
    layer.data[12, :5, :5] = 0
    layer.refresh()
    wait_until(lambda: len(advised.session.painted.complete) == 2, "it is begun only")
    picture = np.zeros((64, 64, 3), np.uint8)
    begun = SuggestedSlice(Suggestion(0, 12, 0.5), 1.0, picture, total=1)
    monkeypatch.setattr(paint_next, "suggest_on", lambda *_: iter([begun]))
    press(advised, "suggest slices")
    wait_until(lambda: [place(b) for b in suggested(advised)] == [(0, 12)], "it is suggested")
    assert "to paint" in suggested(advised)[0].accessibleName()
    advised.annotate.paint_next.go_on()
    press(advised, "mark slice complete")
    wait_until(lambda: "painted" in suggested(advised)[0].accessibleName(), "it is marked")


def test_when_all_are_painted_there_are_others(viewer, advised):
    layer = advised.session.annotation
    before = [place(b) for b in suggested(advised)]
    for axis, index in before:
        show_slice(viewer, layer, axis, index)
        press(advised, "mark slice complete")
    state = find(advised, "state of the suggestions")
    wait_until(lambda: state.text().startswith("all painted"), "all are painted")
    advised.annotate.paint_next.go_on()
    assert not set(before) & {place(b) for b in five(advised)}


def test_suggesting_can_be_cancelled(advised, slow):
    press(advised, "suggest slices")
    wait_until(lambda: len(suggested(advised)) == 1, "the first one is there")
    assert find(advised, "state of the suggestions").text() == "slice 2 of 5"
    press(advised, "cancel suggesting")
    wait_until(lambda: not advised.annotate.paint_next.job.running, "it ends")
    assert len(suggested(advised)) == 1 and len(slow) < 5
    assert find(advised, "suggest slices").isVisible()


def test_another_annotation_gets_slices_of_its_own(advised, slow):
    press(advised, "suggest slices")
    wait_until(lambda: len(suggested(advised)) == 1, "it is at work")
    press(advised, "new annotation")
    expected = rank_slices(advised.session.uncertainty)
    assert [place(b) for b in five(advised)] == [(s.axis, s.index) for s in expected]
    assert "No " in suggested(advised)[0].toolTip()
    assert not any("painted" in b.accessibleName() for b in suggested(advised))


@pytest.mark.parametrize("gone", ["annotation", "prediction", "image"])
def test_layers_deleted_while_suggesting(viewer, advised, slow, gone, no_errors):
    press(advised, "suggest slices")
    wait_until(lambda: len(slow) == 1, "it is at work")
    if gone == "image":
        viewer.layers.clear()
    else:
        viewer.layers.remove(getattr(advised.session, gone))
    live(0.1)
    assert not suggested(advised)
    wait_until(lambda: not advised.annotate.paint_next.job.running, "it ends")
    live(0.1)
    assert not suggested(advised)


def test_the_keys_in_napari(napari_viewer, napari_dock, model, no_errors):
    layer = napari_dock.session.annotation
    predict(napari_dock, model)
    places = [place(b) for b in five(napari_dock)]
    for at, where in enumerate((canvas(napari_viewer), napari_dock)):
        QTest.keyClick(where, Qt.Key.Key_S)
        assert visible_slice(napari_viewer, layer) == places[at]
    card, classes = find(napari_dock, "keys"), find(napari_dock, "add a class")
    for where in (canvas(napari_viewer), napari_dock):
        QTest.keyClick(where, Qt.Key.Key_H)
        assert card.isVisible() and not classes.isVisible()
        QTest.keyClick(where, Qt.Key.Key_H)
        assert not card.isVisible() and classes.isVisible()


# The help card --------------------------------------------------------------------


def test_the_card_lists_every_key_that_is_bound(painted):
    queue = painted.review.objects.queue
    keys = (*painted.annotate.keys(), *queue.keys(), *painted.keys())
    bound = {str(key) for key in painted.session.annotation.keymap}
    assert {key.key for key in keys} == bound
    press(painted, "help on keys")
    shown = [x.text() for x in find(painted, "keys").findChildren(QLabel)]
    assert "Ctrl+1 to Ctrl+9" in shown
    for key in keys[9:]:
        assert shown[shown.index(key.key) + 1] == key.does
    assert shown[shown.index("2 or P") + 1] == "brush", "napari's own are there too"
    assert find(painted, "keys").minimumSizeHint().width() <= 350, "it fits beside a scroll bar"


def test_the_card_gives_way_to_the_work(painted):
    press(painted, "help on keys")
    assert not find(painted, "mark slice complete").isVisible()
    press(painted, "close the keys")
    assert find(painted, "mark slice complete").isVisible()
    press(painted, "help on keys")
    press(painted, "step Train")
    assert not find(painted, "keys").isVisible() and find(painted, "train").isVisible()
