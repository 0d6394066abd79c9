"""The live preview: what a user sees of a network while it learns."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from napari_volseg.training.events import Command, Preview, PreviewRequest, Score
from napari_volseg.widgets import preview as live_preview
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import PREVIEW, noted, show_slice
from napari_volseg.widgets.preview import LivePreview
from napari_volseg.widgets.settings import Memory
from tests.widgets.conftest import progress
from tests.widgets.hands import find, live, press, wait_until


class Asked(list):
    """The regions that a training was asked for, and the steps that it took."""

    steps = 0


@pytest.fixture
def asked(monkeypatch, phantom):
    """Replace the training by one whose previews are the truth; what it was asked for."""
    asked = Asked()
    truth = phantom[1].labels

    def train_on(*_):
        step, heard = 0, None
        while heard is not Command.STOP:
            preview = None
            if isinstance(heard, PreviewRequest):
                asked.append(heard.region)
                preview = Preview(heard.region, truth[heard.region], 0.0)
            heard = yield progress(step, preview=preview)
            step += 1
            asked.steps = step
            time.sleep(0.005)
        yield progress(step)

    monkeypatch.setattr("napari_volseg.widgets.train.train_on", train_on)
    monkeypatch.setattr(live_preview, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr(live_preview, "LEAST_SECONDS", 0.05)
    return asked


def previews(viewer):
    return [layer for layer in viewer.layers if noted(layer).get("role") == PREVIEW]


def start(viewer, dock):
    """Train with the 12th xy slice on view, and wait for the preview of it."""
    show_slice(viewer, dock.session.image, 0, 12)
    press(dock, "step Train")
    press(dock, "train")
    return preview_of(viewer)


def preview_of(viewer):
    wait_until(lambda: len(previews(viewer)) == 1, "the preview is there")
    return previews(viewer)[0]


def stop(dock):
    dock.train.stop()
    wait_until(lambda: not dock.train.job.running, "it stops")


def test_the_slice_on_view_shows_what_the_network_says(viewer, painted, asked, phantom):
    annotation, image = painted.session.annotation, painted.session.image
    viewer.layers.selection.active = annotation
    layer = start(viewer, painted)
    np.testing.assert_array_equal(layer.data, phantom[1].labels[12:13])
    for voxel in ((0, 0, 0), (0, 7, 40)):
        there = np.add(voxel, (12, 0, 0))
        assert layer.data_to_world(voxel) == pytest.approx(image.data_to_world(there))
    assert layer.units == image.units and layer.opacity == pytest.approx(0.4)
    assert layer.get_color(1)[3] == 0
    np.testing.assert_array_equal(layer.get_color(2), annotation.get_color(2))
    assert viewer.layers.selection.active is annotation
    assert viewer.layers.index(layer) < viewer.layers.index(annotation)
    assert not layer.editable
    stop(painted)
    assert previews(viewer) == [layer], "it stays until there is a prediction"


def test_it_follows_the_view_and_asks_for_nothing_in_3d(viewer, painted, asked, phantom):
    layer = start(viewer, painted)
    assert layer.get_value(layer.data_to_world((0, 20, 20)), world=True) is not None
    viewer.dims.ndisplay = 3
    live(0.1)
    before = len(asked)
    live(0.2)
    assert len(asked) == before
    show_slice(viewer, painted.session.image, 1, 30)
    # Until the next one comes, the old one lies elsewhere.
    wait_until(lambda: layer.data.shape[1] == 1, "the preview follows")
    np.testing.assert_array_equal(layer.data, phantom[1].labels[:, 30:31])
    expected = painted.session.image.data_to_world((3, 30, 5))
    assert layer.data_to_world((3, 0, 5)) == pytest.approx(expected)
    assert find(painted, "what the preview shows").text().startswith("Preview of xz 30")
    stop(painted)


def test_it_is_no_annotation_to_choose(viewer, painted, asked):
    layer = start(viewer, painted)
    labels = find(painted, "labels")
    assert layer.name not in [labels.itemText(i) for i in range(labels.count())]
    assert layer not in painted.session.labels()
    viewer.layers.remove(painted.session.annotation)
    assert painted.session.annotation is None
    stop(painted)


def test_unchecked_it_goes_and_the_choice_is_remembered(viewer, painted, asked, tmp_path):
    start(viewer, painted)
    box = find(painted, "live preview")
    box.click()
    assert previews(viewer) == []
    assert not find(painted, "what the preview shows").isVisible()
    live(0.1)
    before = len(asked)
    live(0.2)
    assert len(asked) == before and previews(viewer) == []
    again = VolSegDock(viewer, journal=tmp_path / "other")
    assert not find(again, "live preview").isChecked()
    again.shutdown()
    again.deleteLater()
    box.click()
    preview_of(viewer)
    stop(painted)


def test_deleted_by_the_user_it_comes_back_with_the_next(viewer, painted, asked, no_errors):
    layer = start(viewer, painted)
    viewer.layers.remove(layer)
    assert preview_of(viewer) is not layer
    find(painted, "live preview").click()
    stop(painted)
    assert previews(viewer) == []


def test_an_earlier_prediction_gives_way_as_long_as_it_is_there(viewer, painted, asked, model):
    session = painted.session
    earlier = session.start_prediction(session.classes)
    start(viewer, painted)
    assert not earlier.visible
    find(painted, "live preview").click()
    assert earlier.visible
    find(painted, "live preview").click()
    preview_of(viewer)
    stop(painted)
    session.set_model(model)
    press(painted, "step Predict")
    press(painted, "predict")
    assert previews(viewer) == [] and earlier.visible
    wait_until(lambda: not painted.predict.job.running, "it is predicted")


def test_it_goes_with_the_last_channel_of_the_image(viewer, painted, asked, no_errors):
    start(viewer, painted)
    channels = painted.session.volume.channels
    viewer.layers.remove(painted.session.image)
    assert painted.session.image is not None, "another channel of the volume"
    before = len(asked)
    wait_until(lambda: len(asked) > before, "previews go on")
    for image in list(viewer.layers)[: channels - 1]:
        viewer.layers.remove(image)
    assert painted.session.image is None and previews(viewer) == []
    live(0.2)
    assert previews(viewer) == []
    stop(painted)


def test_the_dock_closed_in_mid_training_takes_it_along(
    napari_viewer, napari_dock, asked, no_errors
):
    start(napari_viewer, napari_dock)
    labels = napari_dock.session.annotation.data.copy()
    napari_viewer.window.remove_dock_widget(napari_dock)
    wait_until(lambda: napari_dock.closed, "the dock is closed")
    assert previews(napari_viewer) == []
    check_stopped(asked)
    np.testing.assert_array_equal(napari_viewer.layers["kidney phantom annotation"].data, labels)


def test_napari_closed_in_mid_training(napari_viewer, napari_dock, asked, no_errors):
    """With a preview on view."""
    start(napari_viewer, napari_dock)
    napari_viewer.close()
    assert napari_dock.closed
    check_stopped(asked)


def check_stopped(asked):
    live(0.1)
    stopped = asked.steps
    live(0.1)
    assert asked.steps == stopped > 0


def test_a_real_training_shows_its_first_preview(viewer, painted, no_errors):
    answers = []
    painted.train.job.yielded.connect(lambda event: answers.append(event.preview))
    press(painted, "step Train")
    find(painted, "minutes to train").setValue(1.0)
    layer = start(viewer, painted)
    shown = next(answer for answer in answers if answer is not None)
    assert shown.region[0] == slice(12, 13) and shown.labels.all()
    np.testing.assert_array_equal(layer.data, shown.labels)
    assert find(painted, "what the preview shows").text().startswith("Preview of xy 12: ")
    stop(painted)


# How often it asks, and what it says ----------------------------------------------


@pytest.fixture
def heard(painted, monkeypatch):
    """Hand events to a live preview of its own, at any time; return what it has asked for."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(live_preview, "time", SimpleNamespace(monotonic=lambda: clock.now))
    requests = []
    part = LivePreview(painted.session, Memory(), requests.append)
    part.start()

    def hear(now, **values):
        clock.now = now
        part.hear(progress(int(now), **values))
        return len(requests)

    hear.requests, hear.part = requests, part
    yield hear
    part.shutdown()
    part.deleteLater()


def answer(request, seconds):
    shape = [side.stop - side.start for side in request.region]
    return Preview(request.region, np.ones(shape, np.uint8), seconds)


@pytest.mark.parametrize(("took", "rest"), [(0.1, 3.0), (2.0, 18.0)])
def test_previews_take_at_most_a_tenth_of_the_training(heard, took, rest):
    assert heard(0.0, loss=None) == 0, "nothing is learned yet"
    assert heard(1.0) == 0
    assert heard(2.5) == 1
    assert heard(50.0) == 1, "one at a time"
    preview = answer(heard.requests[0], took)
    assert heard(60.0, preview=preview) == 1
    assert heard(60.0 + rest - 0.1) == 1
    assert heard(60.0 + rest + 0.1) == 2


def test_it_says_since_when_it_is_better_than_the_instant_answer(heard):
    words = find(heard.part, "what the preview shows")

    def said(now, iou=None, *, instant=False):
        score = None if iou is None else Score((None, iou), iou, standard_error=0.01)
        heard(now, instant=instant, score=score)
        heard(now + 4, preview=answer(heard.requests[-1], 0.1), instant=instant, score=None)
        heard(now + 8)
        return words.text().partition(": ")[2]

    heard(0.0)
    heard(1.0)
    assert said(2, 0.70, instant=True) == "instant answer (pixel classifier)"
    assert said(20, 0.715) == "not yet better than the instant answer"
    assert said(41, 0.73) == "better than the instant answer since 0:41"
    assert said(101, 0.75) == "better than the instant answer since 0:41"
    assert said(150, 0.71) == "not yet better than the instant answer"
    assert said(200, 0.73) == "better than the instant answer since 3:20"
