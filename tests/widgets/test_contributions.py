from __future__ import annotations

from importlib import import_module
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Labels, Layer
from npe2 import PluginManager, PluginManifest

import napari_volseg
from napari_volseg.data import phantom
from napari_volseg.data.annotation import Annotation, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_annotation, read_volume, write_labels, write_volume
from napari_volseg.data.volume import Volume
from napari_volseg.widgets.contributions import (
    get_reader,
    image_layers,
    kidney_phantom,
    labels_layer,
    read_layers,
    write_labels_layer,
)
from napari_volseg.widgets.geometry import layer_geometry, volume_from_layer
from napari_volseg.widgets.layers import METADATA

IMAGE = np.arange(2 * 3 * 4 * 5, dtype=np.uint16).reshape(2, 3, 4, 5)
AFFINE = np.array([[2, 0.1, 0.3, 7], [0.1, -1.5, -0.25, -9], [0.2, 0, 4, 11], [0, 0, 0, 1]])
SPACING = tuple(np.linalg.norm(AFFINE[:3, :3], axis=0).tolist())
VOLUME = Volume(IMAGE, SPACING, "micrometer", AFFINE, "kidney", ("lectin", "DAPI"))
CLASSES = (LabelClass(1, "background", "#808080"), LabelClass(2, "tubule", "#e69f00"))
DENSE = np.tile(np.array([1, 2, 1, 2, 2], np.uint8), (3, 4, 1))
# napari's own word on volumes that lie obliquely, as many a scan does.
pytestmark = pytest.mark.filterwarnings("ignore:Non-orthogonal slicing")
POINT = np.array([2.0, 1.0, 3.0])


def made(layer_tuple):
    return Layer.create(*layer_tuple)


def test_layers_lie_where_the_volume_says():
    for layer in map(made, image_layers(VOLUME)):
        np.testing.assert_allclose(layer.data_to_world(POINT), (AFFINE @ (*POINT, 1))[:3])
        np.testing.assert_allclose(layer.scale, SPACING)
        assert [str(unit) for unit in layer.units] == ["micrometer"] * 3
        assert layer.axis_labels == ("z", "y", "x")


def test_without_an_affine_the_spacing_places_a_layer():
    layer = Labels(DENSE, **layer_geometry(Volume(IMAGE, (3.0, 2.0, 1.0), "millimeter")))
    np.testing.assert_allclose(layer.data_to_world(POINT), (6, 2, 3))


def test_axes_that_change_places_are_left_to_the_file(tmp_path):
    sagittal = AFFINE[:, [2, 0, 1, 3]]
    volume = Volume(IMAGE, SPACING, "micrometer", sagittal, "kidney")
    layer = made(labels_layer(Annotation(DENSE, CLASSES), volume, "mask"))
    np.testing.assert_allclose(layer.data_to_world(POINT), POINT * SPACING)
    save(layer, tmp_path / "mask.ome.tif")
    np.testing.assert_array_equal(read_volume(tmp_path / "mask.ome.tif").affine, sagittal)


def test_every_channel_is_a_layer_that_knows_the_whole_volume():
    layers = [made(each) for each in image_layers(VOLUME)]
    assert [layer.name for layer in layers] == ["kidney lectin", "kidney DAPI"]
    for channel, layer in enumerate(layers):
        np.testing.assert_array_equal(layer.data, IMAGE[channel])
        assert layer.metadata[METADATA] == {"volume": VOLUME, "channel": channel}
    assert len({layer.colormap.name for layer in layers}) == 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_any_number_of_channels_can_be_shown(channels):
    volume = Volume(np.zeros((channels, 3, 4, 5), np.uint8), name="kidney")
    layers = [made(each) for each in image_layers(volume)]
    assert len({layer.name for layer in layers}) == channels
    assert (layers[0].name == "kidney") == (channels == 1)


def test_dense_labels_have_the_colors_of_their_classes_and_a_transparent_background():
    layer = made(labels_layer(Annotation(DENSE, CLASSES), VOLUME, "mask"))
    np.testing.assert_allclose(layer.get_color(2), (230 / 255, 159 / 255, 0, 1))
    assert layer.get_color(1)[3] == 0
    assert "role" not in layer.metadata[METADATA]


def test_sparse_labels_are_an_annotation_and_show_their_background():
    sparse = DENSE.copy()
    sparse[1:] = 0
    layer = made(labels_layer(Annotation(sparse, CLASSES), VOLUME, "mask"))
    assert layer.get_color(1)[3] == 1
    assert layer.metadata[METADATA]["role"] == "annotation"


def test_the_status_bar_names_the_class():
    layer = made(labels_layer(Annotation(DENSE, CLASSES), Volume(IMAGE), "mask"))
    assert "tubule" in str(layer.get_status((0, 0, 1), world=True))


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii", ".nii.gz", ".zarr"])
def test_labels_that_we_wrote_open_as_labels_and_images_as_images(tmp_path, suffix):
    mask, image = str(tmp_path / f"mask{suffix}"), str(tmp_path / f"image{suffix}")
    write_labels(mask, DENSE, VOLUME, CLASSES)
    write_volume(image, VOLUME)
    (layer,) = get_reader(mask)(mask)
    assert layer[2] == "labels"
    np.testing.assert_array_equal(layer[0], DENSE)
    assert layer[1]["metadata"][METADATA]["classes"] == CLASSES
    assert [kind for _, _, kind in get_reader(image)(image)] == ["image", "image"]


def test_several_paths_at_once_are_left_to_others():
    assert get_reader(["a.nii", "b.nii"]) is None


def test_what_cannot_be_opened_says_why(tmp_path):
    np.save(tmp_path / "a.npy", IMAGE[0, 0])
    with pytest.raises(InputError, match="2D image"):
        read_layers(str(tmp_path / "a.npy"))


def save(layer, path):
    data, attributes, _ = layer.as_layer_data_tuple()
    assert write_labels_layer(str(path), data, attributes) == [str(path)]


def test_a_saved_layer_gets_the_header_of_its_image(tmp_path):
    header = nib.Nifti1Header()
    header["descrip"] = "scanner"
    header.set_sform(np.diag([1, 2, 3, 1]), 4)
    nib.Nifti1Image(IMAGE[0].T, None, header).to_filename(tmp_path / "image.nii")
    volume = read_volume(tmp_path / "image.nii")
    save(made(labels_layer(Annotation(DENSE, CLASSES), volume, "mask")), tmp_path / "mask.nii")
    written = nib.load(tmp_path / "mask.nii").header
    assert written["descrip"] == b"scanner"
    assert written["sform_code"] == 4
    annotation = read_annotation(tmp_path / "mask.nii")
    np.testing.assert_array_equal(annotation.labels, DENSE)
    assert annotation.classes == CLASSES


def test_a_layer_of_napari_is_saved_where_it_lies(tmp_path):
    layer = Labels(
        DENSE.astype(np.int64),
        scale=(3, 2, 1),
        translate=(5, 6, 7),
        rotate=30,
        units=("nm", "um", "um"),
        affine=AFFINE,
        name="mine",
    )
    save(layer, tmp_path / "mask.ome.tif")
    read = read_volume(tmp_path / "mask.ome.tif")
    assert read.image.dtype == np.uint8
    assert read.unit == "micrometer"
    expected = np.array(layer.data_to_world(POINT)) * (0.001, 1, 1)
    np.testing.assert_allclose((read.affine @ (*POINT, 1))[:3], expected)


def test_a_scaled_layer_needs_no_affine():
    layer = Labels(DENSE, scale=(3, 2, 1), units=("mm",) * 3)
    volume = volume_from_layer(IMAGE, layer.as_layer_data_tuple()[1])
    assert (volume.spacing, volume.unit, volume.affine) == ((3, 2, 1), "millimeter", None)


def test_a_layer_that_no_longer_fits_its_volume_is_saved_where_it_lies(tmp_path):
    layer = made(labels_layer(Annotation(DENSE, CLASSES), Volume(IMAGE, (3.0, 2.0, 1.0)), "mask"))
    layer.data = DENSE[:2]
    layer.translate = (3, 0, 0)
    save(layer, tmp_path / "mask.ome.tif")
    np.testing.assert_allclose(read_volume(tmp_path / "mask.ome.tif").affine[:3, 3], (3, 0, 0))


def test_a_class_painted_but_not_in_the_table_is_saved_too(tmp_path):
    layer = made(labels_layer(Annotation(DENSE, CLASSES), VOLUME, "mask"))
    layer.data[0, 0, 0] = 7
    save(layer, tmp_path / "mask.nii")
    classes = read_annotation(tmp_path / "mask.nii").classes
    assert classes[:2] == CLASSES
    assert classes[2].id == 7


@pytest.mark.parametrize(
    "data", [-DENSE.astype(int), DENSE[0], DENSE[None], DENSE + np.int64(70000)]
)
def test_a_layer_that_is_no_mask_is_refused_by_name(tmp_path, data):
    with pytest.raises(InputError, match="layer mine"):
        save(Labels(data.astype(np.int64), name="mine"), tmp_path / "mask.nii")
    assert list(tmp_path.iterdir()) == []


def test_a_sample_shows_its_channels_and_hides_its_truth(monkeypatch):
    small = phantom.kidney_phantom((8, 24, 24))
    monkeypatch.setattr(phantom, "kidney_phantom", lambda: small)
    *images, truth = map(made, kidney_phantom())
    assert [layer.visible for layer in images] == [True] * 3
    assert not truth.visible
    np.testing.assert_array_equal(truth.data, small[1].labels)
    for layer in images:
        assert layer.contrast_limits[1] < 255


# The manifest

MANIFEST = PluginManifest.from_file(Path(napari_volseg.__file__).parent / "napari.yaml")


def test_whatever_the_manifest_names_is_there():
    for command in MANIFEST.contributions.commands:
        module, _, name = command.python_name.partition(":")
        assert callable(getattr(import_module(module), name)), command.python_name


def test_plain_tif_is_left_to_other_readers():
    patterns = {p for r in MANIFEST.contributions.readers for p in r.filename_patterns}
    wanted = ("*.ome.tif", "*.ome.tiff", "*.nii", "*.nii.gz", "*.zarr", "*.npy")
    assert patterns == set(wanted)


@pytest.fixture
def plugin():
    """Our plugin alone, registered as napari would find it."""
    manager = PluginManager.instance()
    if MANIFEST.name not in manager:
        manager.register(MANIFEST)
    return MANIFEST.name


@pytest.mark.parametrize("suffix", [".ome.tif", ".nii.gz", ".zarr"])
def test_napari_opens_and_saves_through_the_plugin(tmp_path, plugin, suffix):
    write_volume(tmp_path / f"image{suffix}", VOLUME)
    viewer = ViewerModel()
    viewer.open(tmp_path / f"image{suffix}", plugin=plugin)
    assert len(viewer.layers) == 2
    place = layer_geometry(viewer.layers[0].metadata[METADATA]["volume"])
    viewer.add_labels(DENSE, name="mask", **place)
    path = str(tmp_path / f"mask{suffix}")
    assert viewer.layers["mask"].save(path, plugin=plugin) == [path]
    read = read_volume(path)
    np.testing.assert_array_equal(read.image[0], DENSE)
    np.testing.assert_allclose(read.affine, AFFINE, rtol=1e-5)
