from __future__ import annotations

import shutil

import numpy as np
import pytest
import zarr

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.files import read_classes, read_volume, write_labels, write_volume
from tests.data.made import numbered

CLASSES = (LabelClass(1, "background", "#010203"), LabelClass(2, "tubule", "#ff8000"))
SIZES = dict(zip("tczyx", (1, 2, 3, 4, 5), strict=True))
SCALES = dict(zip("tczyx", (10.0, 1.0, 2.04, 0.5, 0.25), strict=True))
STARTS = dict(zip("tczyx", (0, 0, 30, 20, 10), strict=True))
KINDS = {"t": "time", "c": "channel"}


def save(path, axes="czyx", version="0.5", units=("micrometer",) * 3, shape=None, **more):
    """Write two levels, as other programs do."""
    shape = shape or tuple(SIZES[a] for a in axes)
    level = [
        {"type": "scale", "scale": [SCALES[a] for a in axes]},
        {"type": "translation", "translation": [STARTS[a] for a in axes]},
    ]
    unit = dict(zip("zyx", units, strict=True))
    multiscale = {
        "name": "kidney",
        "axes": [
            {"name": a, "type": KINDS.get(a, "space")} | ({"unit": unit[a]} if a in unit else {})
            for a in axes
        ],
        "datasets": [
            {"path": "s0", "coordinateTransformations": level},
            {"path": "s1", "coordinateTransformations": level},
        ],
        **more.pop("multiscale", {}),
    }
    if version == "0.5":
        attributes = {"ome": {"version": "0.5", "multiscales": [multiscale], **more}, "lab": "x"}
    else:
        attributes = {"multiscales": [{"version": version, **multiscale}], **more, "lab": "x"}
    form = 3 if version == "0.5" else 2
    group = zarr.create_group(path, zarr_format=form, attributes=attributes)
    image = numbered(shape)
    for name, step in (("s0", 1), ("s1", 2)):
        data = image[..., ::step, ::step]
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, chunks=data.shape)
        array[...] = data
    return image


def ome_of(path):
    attributes = zarr.open_group(path, mode="r").attrs.asdict()
    return attributes.get("ome", attributes)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "czyx", "tzyx", "tczyx"])
def test_level_0_is_read_whatever_the_axes(tmp_path, version, axes):
    image = save(tmp_path / "a.zarr", axes, version)
    volume = read_volume(tmp_path / "a.zarr")
    np.testing.assert_array_equal(volume.image, image.reshape(-1, 3, 4, 5))
    assert volume.spacing == (2.04, 0.5, 0.25)
    assert volume.unit == "micrometer"


def test_the_scale_of_the_whole_multiplies_that_of_the_level(tmp_path):
    whole = [{"type": "scale", "scale": [1, 2, 4, 8]}]
    save(tmp_path / "a.zarr", multiscale={"coordinateTransformations": whole})
    volume = read_volume(tmp_path / "a.zarr")
    assert volume.spacing == (4.08, 2, 2)
    write_labels(tmp_path / "mask.zarr", np.ones(volume.shape, np.uint8), volume)
    assert read_volume(tmp_path / "mask.zarr").spacing == volume.spacing


def test_units_that_differ_become_that_of_x(tmp_path):
    save(tmp_path / "a.zarr", units=("nanometer", "millimeter", "micrometer"))
    volume = read_volume(tmp_path / "a.zarr")
    np.testing.assert_allclose(volume.spacing, (0.00204, 500, 0.25))
    assert volume.unit == "micrometer"


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_an_image_is_written_back_in_its_version_with_its_metadata(tmp_path, version):
    channel = {"color": "00FF00", "window": {"start": 0, "end": 9, "min": 0, "max": 99}}
    omero = {"channels": [channel | {"label": "lectin"}, channel | {"label": "DAPI"}]}
    image = save(tmp_path / "a.zarr", version=version, omero=omero)
    volume = read_volume(tmp_path / "a.zarr")
    assert volume.channel_names == ("lectin", "DAPI")
    write_volume(tmp_path / "b.zarr", volume)
    attributes = zarr.open_group(tmp_path / "b.zarr", mode="r").attrs.asdict()
    ome = attributes.get("ome", attributes)
    assert attributes["lab"] == "x"
    assert ome["omero"] == omero
    (multiscale,) = ome["multiscales"]
    assert (ome | multiscale)["version"] == version
    assert multiscale["axes"] == ome_of(tmp_path / "a.zarr")["multiscales"][0]["axes"]
    (level,) = multiscale["datasets"]
    assert level["coordinateTransformations"] == [
        {"type": "scale", "scale": [1, 2.04, 0.5, 0.25]},
        {"type": "translation", "translation": [0, 30, 20, 10]},
    ]
    np.testing.assert_array_equal(read_volume(tmp_path / "b.zarr").image, image)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_labels_are_an_image_label_with_the_place_and_version_of_the_image(tmp_path, version):
    save(tmp_path / "a.zarr", "tczyx", version, omero={"channels": [{"label": "x"}] * 2})
    volume = read_volume(tmp_path / "a.zarr")
    write_labels(tmp_path / "mask.zarr", np.ones(volume.shape, np.uint8), volume, CLASSES)
    ome = ome_of(tmp_path / "mask.zarr")
    (multiscale,) = ome["multiscales"]
    assert (ome | multiscale)["version"] == version
    assert [axis["name"] for axis in multiscale["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in multiscale["axes"]} == {"micrometer"}
    (level,) = multiscale["datasets"]
    assert level["coordinateTransformations"] == [
        {"type": "scale", "scale": [2.04, 0.5, 0.25]},
        {"type": "translation", "translation": [30, 20, 10]},
    ]
    assert ome["image-label"]["colors"] == [
        {"label-value": 1, "rgba": [1, 2, 3, 255]},
        {"label-value": 2, "rgba": [255, 128, 0, 255]},
    ]
    assert "omero" not in ome
    assert read_classes(tmp_path / "mask.zarr") == CLASSES


def test_an_array_of_0_4_is_stored_as_the_specification_wants(tmp_path):
    write_volume(tmp_path / "b.zarr", read_volume(_saved(tmp_path / "a.zarr", "0.4")))
    assert (tmp_path / "b.zarr" / "0" / "0" / "0" / "0" / "0").is_file()


def test_an_array_of_0_5_names_its_axes(tmp_path):
    write_volume(tmp_path / "b.zarr", read_volume(_saved(tmp_path / "a.zarr", "0.5")))
    array = zarr.open_array(tmp_path / "b.zarr" / "0", mode="r")
    assert array.metadata.dimension_names == ("c", "z", "y", "x")


def _saved(path, version):
    save(path, version=version)
    return path


def test_labels_of_other_programs_may_lack_names_colors_and_begin_at_0(tmp_path):
    label = {
        "colors": [{"label-value": 0, "rgba": [0, 0, 0, 0]}, {"label-value": 2}],
        "properties": [{"label-value": 3, "name": "lumen"}],
    }
    save(tmp_path / "a.zarr", "zyx", "0.4", **{"image-label": label})
    assert [(c.id, c.name) for c in read_classes(tmp_path / "a.zarr")] == [
        (2, "class 2"),
        (3, "lumen"),
    ]


def test_a_group_inside_another_is_opened_by_its_own_path(tmp_path):
    inside = tmp_path / "all.zarr" / "labels" / "mask"
    zarr.create_group(tmp_path / "all.zarr")
    image = save(inside, "zyx")
    volume = read_volume(inside)
    assert volume.name == "mask"
    np.testing.assert_array_equal(volume.image[0], image)


def test_a_group_without_an_image_is_refused_with_what_is_inside(tmp_path, refused):
    zarr.create_group(tmp_path / "a.zarr")
    refused(tmp_path / "a.zarr", "no OME-Zarr image at this level")
    save(tmp_path / "a.zarr" / "0", "zyx")
    refused(tmp_path / "a.zarr", f"perhaps in {tmp_path / 'a.zarr' / '0'}")


def test_another_version_is_refused(tmp_path, refused):
    save(tmp_path / "a.zarr", version="0.3")
    refused(tmp_path / "a.zarr", "version 0.3", "convert it to 0.4 or 0.5")


def test_a_time_series_is_refused(tmp_path, refused):
    save(tmp_path / "a.zarr", "tczyx", shape=(3, 2, 3, 4, 5))
    refused(tmp_path / "a.zarr", "time series of 3")


@pytest.mark.parametrize(("axes", "shape"), [("yx", (4, 5)), ("czyx", (2, 1, 4, 5))])
def test_a_2d_image_is_refused(tmp_path, refused, axes, shape):
    save(tmp_path / "a.zarr", axes, shape=shape)
    refused(tmp_path / "a.zarr", "2D image")


def test_a_group_without_its_array_is_refused(tmp_path, refused):
    save(tmp_path / "a.zarr")
    shutil.rmtree(tmp_path / "a.zarr" / "s0")
    refused(tmp_path / "a.zarr", "damaged")
