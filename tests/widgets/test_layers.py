from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image, Labels

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.data.tiles import slice_region
from napari_volseg.data.volume import Volume
from napari_volseg.widgets import acts, layers
from napari_volseg.widgets.checks import check_annotation

GEOMETRY = {
    "scale": (2.0, 0.5, 0.25),
    "translate": (3.0, -4.0, 5.0),
    "rotate": 30.0,
    "shear": (0.1, 0.0, 0.2),
    "affine": np.array([[1, 0, 0, 7], [0, 0, 1, 8], [0, 1, 0, 9], [0, 0, 0, 1.0]]),
    "units": ("micrometer",) * 3,
    "axis_labels": ("z", "y", "x"),
}


@pytest.fixture
def viewer():
    """A viewer on an image that does not begin at the world's origin."""
    viewer = ViewerModel()
    viewer.add_image(
        np.zeros((10, 12, 14), np.uint8),
        name="image",
        scale=(2.0, 0.5, 0.25),
        translate=(100.0, -50.0, 7.0),
        units=("nm", "nm", "nm"),
    )
    return viewer


@pytest.fixture
def annotation(viewer):
    layer = layers.new_annotation(viewer.layers[0], layers.volume_of(viewer.layers[0]))
    viewer.add_layer(layer)
    return layer


def test_a_plain_image_becomes_a_volume_with_its_geometry():
    data = np.zeros((3, 4, 5), np.uint16)
    image = Image(data, name="scan", scale=(3, 2, 1), units=("nm", "nm", "um"))
    volume = layers.volume_of(image)
    assert np.shares_memory(volume.image, data)
    assert volume.name == "scan" and volume.unit == "micrometer"
    assert volume.spacing == pytest.approx((0.003, 0.002, 1))
    assert volume.affine is None


def test_a_rotated_image_keeps_its_place_in_the_world():
    image = Image(np.zeros((3, 4, 5), np.uint8), **GEOMETRY)
    volume = layers.volume_of(image)
    voxel = np.array([1.0, 2.0, 3.0])
    assert volume.affine @ [*voxel, 1] == pytest.approx([*image.data_to_world(voxel), 1])


def test_a_layer_of_our_reader_gives_all_channels():
    volume = Volume(np.zeros((2, 3, 4, 5), np.uint8))
    metadata = {layers.METADATA: {"volume": volume, "channel": 1}}
    assert layers.volume_of(Image(volume.image[1], metadata=metadata)) is volume
    cropped = Image(volume.image[1, 1:], metadata=metadata)
    assert layers.volume_of(cropped).shape == (2, 4, 5)


def test_multiscale_images_are_read_at_full_resolution():
    pyramid = [np.zeros((8, 8, 8), np.uint8), np.zeros((4, 4, 4), np.uint8)]
    assert layers.volume_of(Image(pyramid, multiscale=True)).shape == (8, 8, 8)


@pytest.mark.parametrize(
    ("data", "options", "what_to_do"),
    [
        (np.zeros((5, 6, 7, 3), np.uint8), {"rgb": True}, "Split RGB"),
        (np.zeros((6, 7), np.uint8), {}, "open a 3D stack"),
        (np.zeros((2, 5, 6, 7), np.uint8), {}, "Split Stack"),
        (np.zeros((5, 6, 7), np.int64), {}, "convert the image"),
    ],
)
def test_other_images_are_refused_in_words_that_help(data, options, what_to_do):
    with pytest.raises(InputError, match=what_to_do):
        layers.volume_of(Image(data, name="image", **options))


def test_derived_layers_lie_exactly_over_the_image():
    image = Image(np.zeros((3, 4, 5), np.uint8), **GEOMETRY)
    volume = layers.volume_of(image)
    for layer in (
        layers.new_annotation(image, volume),
        layers.new_prediction(image, volume, default_classes()),
    ):
        for voxel in np.eye(3):
            assert layer.data_to_world(voxel) == pytest.approx(image.data_to_world(voxel))
        assert layer.units == image.units and layer.axis_labels == image.axis_labels
        assert layer.data.shape == image.data.shape and layer.data.dtype == np.uint8


def test_a_preview_lies_where_its_region_is_and_can_move():
    image = Image(np.zeros((5, 6, 7), np.uint8), **GEOMETRY)
    xy = (slice(2, 3), slice(0, 6), slice(0, 7))
    layer = layers.new_preview(image, xy, np.ones((1, 6, 7), np.uint8), default_classes())
    assert layer.data_to_world((0, 3, 4)) == pytest.approx(image.data_to_world((2, 3, 4)))
    assert layer.units == image.units and layer.axis_labels == image.axis_labels
    assert not layer.editable and layer.get_color(1)[3] == 0 and layer.get_color(2)[3] == 1
    yz = (slice(0, 5), slice(0, 6), slice(4, 5))
    layers.show_region(layer, image, yz, np.full((5, 6, 1), 2, np.uint8))
    assert layer.data_to_world((2, 3, 0)) == pytest.approx(image.data_to_world((2, 3, 4)))
    assert layer.data.shape == (5, 6, 1) and not layer.editable


def test_a_prediction_shows_no_background_and_cannot_be_painted_by_accident():
    image = Image(np.zeros((3, 4, 5), np.uint8))
    layer = layers.new_prediction(image, layers.volume_of(image), default_classes((1, 2)))
    assert layer.get_color(1)[3] == 0 and layer.get_color(2)[3] == 1
    assert not layer.editable
    layers.empty_prediction(layer, default_classes((1, 300)))
    assert layer.data.dtype == np.uint16 and not layer.editable


def test_classes_stay_with_the_layer_and_give_its_colors():
    layer = Labels(np.zeros((3, 4, 5), np.uint8))
    classes = default_classes((1, 2, 5))
    layers.set_classes(layer, classes)
    assert layers.classes_of(layer) == classes
    shown = [round(255 * float(v)) for v in layer.get_color(5)[:3]]
    assert "#" + "".join(f"{v:02x}" for v in shown) == classes[-1].color


@pytest.mark.parametrize(
    ("data", "what_to_do"),
    [
        (np.zeros((3, 4, 6), np.uint8), "press New"),
        (np.zeros((3, 4, 5), np.int32), "Convert data type"),
    ],
)
def test_labels_that_cannot_be_the_annotation_are_refused(data, what_to_do):
    volume = Volume(np.zeros((1, 3, 4, 5), np.uint8))
    with pytest.raises(InputError, match=what_to_do):
        check_annotation(Labels(data, name="labels"), volume)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_showing_a_slice_shows_that_slice(viewer, annotation, axis):
    before = layers.visible_slice(viewer, annotation)
    layers.show_slice(viewer, annotation, axis, 3)
    assert layers.visible_slice(viewer, annotation) == (axis, 3)
    layers.turn(viewer, 0)
    assert before[0] == 0
    assert viewer.dims.displayed == (1, 2)


def test_turning_keeps_the_point(viewer, annotation):
    for axis, index in ((0, 7), (1, 2), (2, 9)):
        layers.show_slice(viewer, annotation, axis, index)
    seen = []
    for axis in range(3):
        layers.turn(viewer, axis)
        seen.append(layers.visible_slice(viewer, annotation))
    assert seen == [(0, 7), (1, 2), (2, 9)]


def test_slices_are_found_also_when_the_world_has_another_unit(viewer, annotation):
    # napari's world takes the smallest unit of all layers.
    viewer.add_image(np.zeros((4, 4, 4), np.uint8), units=("angstrom",) * 3)
    layers.show_slice(viewer, annotation, 1, 5)
    assert viewer.dims.point[1] == pytest.approx(10 * (-50.0 + 5 * 0.5))
    assert layers.visible_slice(viewer, annotation) == (1, 5)


def test_in_3d_no_slice_is_on_view(viewer, annotation):
    viewer.dims.ndisplay = 3
    assert layers.visible_slice(viewer, annotation) is None
    with pytest.raises(InputError, match="no slice is on view"):
        acts.mark_complete(viewer, annotation)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_marking_complete_fills_the_slice_and_undo_takes_it_back(viewer, annotation, axis):
    layers.show_slice(viewer, annotation, axis, 4)
    plane = (slice(None),) * axis + (4,)
    annotation.data[plane][5] = 3
    annotation.preserve_labels = True
    before = annotation.data.copy()
    filled = acts.mark_complete(viewer, annotation)
    expected = before.copy()
    expected[plane][expected[plane] == 0] = 1
    np.testing.assert_array_equal(annotation.data, expected)
    assert filled == np.count_nonzero(expected != before)
    assert annotation.preserve_labels and annotation.contiguous
    annotation.undo()
    np.testing.assert_array_equal(annotation.data, before)
    annotation.redo()
    assert acts.mark_complete(viewer, annotation) == 0


def test_copying_a_slice_adds_to_the_paint_and_changes_none(viewer, annotation):
    volume = layers.volume_of(viewer.layers["image"])
    prediction = layers.new_prediction(viewer.layers["image"], volume, default_classes())
    prediction.data[:] = 2
    layers.show_slice(viewer, annotation, 1, 6)
    annotation.data[3, 6, 2:6] = 1
    before = annotation.data.copy()
    assert acts.copy_slice(viewer, annotation, prediction) == 10 * 14 - 4
    expected = before.copy()
    expected[:, 6][expected[:, 6] == 0] = 2
    np.testing.assert_array_equal(annotation.data, expected)
    annotation.undo()
    np.testing.assert_array_equal(annotation.data, before)


@pytest.mark.parametrize("copied", [False, True])
def test_what_is_done_to_a_hidden_layer_is_shown(copied):
    viewer = ViewerModel()
    viewer.add_image(np.zeros((6, 7, 8), np.uint8))
    layer = viewer.add_labels(np.zeros((6, 7, 8), np.uint8), visible=False)
    seen = layers.visible_slice(viewer, layer)
    if copied:
        region = slice_region(layer.data.shape, *seen)
        acts.fill_unlabeled(layer, region, np.full((1, 7, 8), 2, np.uint8))
    else:
        acts.mark_complete(viewer, layer)
    assert layer.visible and (layer.data[seen[1]] == 1 + copied).all()
