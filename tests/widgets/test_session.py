from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_volseg.data.annotation import COLORS, default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.volume import Volume
from napari_volseg.widgets import layers
from napari_volseg.widgets.painted import Painted, find_painted
from napari_volseg.widgets.session import Session
from tests.widgets.hands import add_volume

SHAPE = (6, 7, 8)


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def session(viewer):
    """A session on one image."""
    viewer.add_image(np.zeros(SHAPE, np.uint8), name="image")
    return Session(viewer)


def test_the_first_image_that_comes_is_chosen(viewer):
    session = Session(viewer)
    assert session.volume is None
    image = viewer.add_image(np.zeros(SHAPE, np.uint8))
    assert session.image is image and session.volume.shape == SHAPE


def test_an_image_that_cannot_be_used_gives_way_to_one_that_can(viewer):
    session = Session(viewer)
    viewer.add_image(np.zeros((7, 8), np.uint8), name="flat")
    assert "2D" in session.image_refusal
    image = viewer.add_image(np.zeros(SHAPE, np.uint8))
    assert session.image is image and not session.image_refusal


def test_the_channels_of_a_volume_are_one_choice(viewer):
    volume = Volume(np.zeros((3, *SHAPE), np.uint8), name="kidney")
    session = Session(viewer)
    add_volume(viewer, volume)
    assert [session.image_name(image) for image in session.images()] == ["kidney"]
    assert session.volume is volume
    viewer.layers.remove(session.image)
    assert session.volume is volume, "a channel is left"
    while session.images():
        viewer.layers.remove(session.image)
    assert session.volume is None


def test_a_new_annotation_is_ready_to_be_painted(session, viewer):
    layer = session.start_annotation()
    assert session.annotation is layer and viewer.layers.selection.active is layer
    assert layer.mode == "paint" and layer.selected_label == 2
    assert not layer.data.any()


def test_without_an_image_there_is_no_annotation(viewer):
    with pytest.raises(InputError, match="open a 3D image"):
        Session(viewer).start_annotation()


def test_labels_are_never_chosen_by_themselves_unless_they_are_an_annotation(session, viewer):
    viewer.add_labels(np.ones(SHAPE, np.uint8))
    assert session.annotation is None
    annotation = viewer.add_labels(
        np.zeros(SHAPE, np.uint8), metadata={layers.METADATA: {"role": layers.ANNOTATION}}
    )
    assert session.annotation is annotation
    viewer.add_labels(
        np.zeros(SHAPE, np.uint8), metadata={layers.METADATA: {"role": layers.ANNOTATION}}
    )
    assert session.annotation is annotation


def test_a_dock_that_is_opened_again_finds_annotation_and_model(session, viewer):
    layer = session.start_annotation()
    session.add_class()
    session.set_model("model")
    session.close()
    again = Session(viewer)
    assert again.annotation is layer and again.model == "model"
    assert [c.id for c in again.classes] == [1, 2, 3]


def test_labels_of_another_shape_are_refused_and_say_so(session, viewer):
    session.choose_annotation(viewer.add_labels(np.zeros((6, 7, 9), np.uint8), name="other"))
    assert session.annotation is None
    assert "other has shape (6, 7, 9)" in session.annotation_refusal


def test_a_refused_layer_is_looked_at_again_once_it_is_another(session, viewer):
    numbers = np.zeros(SHAPE, np.int32)
    layer = viewer.add_labels(numbers, name="mine")
    session.choose_annotation(layer)
    assert "mine holds int32 numbers" in session.annotation_refusal
    layer.data = numbers.astype(np.int64)
    assert "mine holds int64 numbers" in session.annotation_refusal
    layer.data = numbers.astype(np.uint8)
    assert session.annotation is layer and session.annotation_refusal == ""
    layer.data = numbers
    session.choose_annotation(layer)
    viewer.layers.remove(layer)
    assert session.annotation is None and session.annotation_refusal == ""
    layer.data = numbers.astype(np.uint8)
    assert session.annotation is None


def test_deleting_layers_leaves_nothing_behind(session, viewer):
    session.start_annotation()
    session.start_prediction(default_classes())
    for gone in (session.prediction, session.annotation, session.image):
        viewer.layers.remove(gone)
    assert (session.prediction, session.annotation, session.image) == (None, None, None)
    assert session.volume is None and session.classes == ()


def test_another_image_takes_over_when_one_is_deleted(session, viewer):
    other = viewer.add_image(np.zeros(SHAPE, np.uint8), name="other")
    annotation = session.start_annotation()
    viewer.layers.remove(session.image)
    assert session.image is other
    assert session.annotation is annotation, "it fits this image as well"


def test_the_volume_follows_the_layer(session):
    session.image.scale = (3, 2, 1)
    session.image.name = "renamed"
    assert session.volume.spacing == (3, 2, 1) and session.volume.name == "renamed"
    session.start_annotation()
    session.image.data = np.zeros((2, 3, 4), np.uint8)
    assert session.volume.shape == (2, 3, 4)
    assert session.annotation is None, "it does not fit any more"


def test_classes_are_edited_in_annotation_and_prediction_alike(session):
    session.start_annotation()
    session.start_prediction(default_classes((1, 2)))
    session.edit_class(2, name="tubule", color="#123456")
    for layer in (session.annotation, session.prediction):
        edited = layers.classes_of(layer)[1]
        assert (edited.name, edited.color) == ("tubule", "#123456")
    assert session.prediction.get_color(1)[3] == 0


def test_an_added_class_has_a_color_and_an_id_of_its_own(session):
    session.start_annotation()
    session.edit_class(2, color=COLORS[2])
    added = session.add_class()
    assert added.id == 3 and session.annotation.selected_label == 3
    assert len({c.color for c in session.classes}) == 3


def test_there_is_an_end_to_classes(session):
    session.start_annotation()
    with pytest.raises(InputError, match="the most"):
        for _ in range(layers.MAX_CLASSES):
            session.add_class()


def test_labels_that_are_no_class_yet_become_one(session):
    layer = session.start_annotation()
    layer.data[2, 3, 4] = 7
    session.set_painted(layer, find_painted(layer.data))
    assert [c.id for c in session.classes] == [1, 2, 7]
    assert [c.id for c in session.painted_classes()] == [7]


def test_an_instance_segmentation_is_refused(session, viewer):
    labels = np.arange(np.prod(SHAPE)).reshape(SHAPE).astype(np.uint16)
    layer = viewer.add_labels(labels, name="cells")
    session.choose_annotation(layer)
    session.set_painted(layer, find_painted(labels))
    assert session.annotation is None
    assert "not for each object" in session.annotation_refusal


def test_a_late_look_at_another_layer_is_dropped(session):
    first = session.start_annotation()
    session.start_annotation()
    session.set_painted(first, Painted({2: 5}))
    assert session.painted.counts == {}


def test_a_prediction_comes_below_the_annotation_and_the_brush_stays(session, viewer):
    annotation = session.start_annotation()
    prediction = session.start_prediction(default_classes())
    names = list(viewer.layers)
    assert names.index(prediction) < names.index(annotation)
    assert viewer.layers.selection.active is annotation and annotation.mode == "paint"
    prediction.data[:] = 2
    written = prediction.data
    assert session.start_prediction(default_classes()) is prediction
    assert not prediction.data.any()
    assert (written == 2).all(), "what is on its way to a file does not change"


def test_a_corrected_prediction_is_an_annotation(session):
    prediction = session.start_prediction(default_classes())
    session.choose_annotation(prediction)
    assert session.annotation is prediction and prediction.editable
    assert session.prediction is None, "the next prediction must not overwrite it"
    assert prediction.get_color(1)[3] == 1, "its background shows"


def test_a_closed_session_ignores_the_viewer(session, viewer):
    heard = []
    session.changed.connect(heard.append)
    image = session.image
    session.close()
    viewer.add_image(np.zeros(SHAPE, np.uint8))
    image.name = "renamed"
    viewer.layers.clear()
    assert heard == []


def test_image_layers_only_are_offered_as_images(session, viewer):
    viewer.add_points(np.zeros((1, 3)))
    viewer.add_labels(np.zeros(SHAPE, np.uint8))
    assert [type(x) for x in session.images()] == [Image]
    assert [type(x) for x in session.labels()] == [Labels]
