"""What is written is read back: pixels, geometry and classes, in every format."""

from __future__ import annotations

import tempfile
from pathlib import Path

import dask.array as da
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import (
    SUFFIXES,
    read_annotation,
    read_classes,
    read_volume,
    write_labels,
    write_probabilities,
    write_volume,
)
from napari_volseg.data.volume import SUPPORTED_DTYPES, Volume
from tests.data.made import numbered

CLASSES = (
    LabelClass(1, "background", "#101010"),
    LabelClass(3, "ténia = <wall> & 'more'", "#ff8000"),
    LabelClass(300, "inside", "#00ff7f"),
)
SPACING = (2.5, 0.75, 0.5)
AFFINE = np.array([[0, 2.0, 0.3, 7], [1.5, 0, -0.25, -9], [0.1, 0, 4, 11], [0, 0, 0, 1]])

# NIfTI stores sizes in 32 bits, so only such numbers can survive there.
sizes = st.floats(0.015625, 1000, width=32)
units = st.sampled_from(["pixel", "micrometer", "millimeter", "meter"])
volumes = st.builds(
    lambda dtype, channels, spacing, unit: Volume(
        numbered((channels, 3, 4, 5), dtype), spacing, unit
    ),
    st.sampled_from(SUPPORTED_DTYPES),
    st.integers(1, 4),
    st.tuples(sizes, sizes, sizes),
    units,
)
suffixes = st.sampled_from(SUFFIXES)
classes = st.dictionaries(
    st.integers(1, 65535),
    st.tuples(st.text(max_size=8), st.from_regex("#[0-9a-f]{6}", fullmatch=True)),
    min_size=1,
    max_size=4,
).map(lambda found: tuple(LabelClass(i, *found[i]) for i in sorted(found)))


def assert_same_place(read, volume, suffix):
    if suffix != ".npy":  # has no room for it
        assert read.spacing == volume.spacing
        assert read.unit == volume.unit
        assert (read.affine is None) == (volume.affine is None)
        if volume.affine is not None:
            np.testing.assert_array_equal(read.affine, volume.affine)


@given(volumes, suffixes)
def test_a_volume_survives(volume, suffix):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"kidney.a{suffix}"
        write_volume(path, volume)
        read = read_volume(path)
        assert read.name == "kidney.a"
        assert read.image.dtype == volume.image.dtype
        np.testing.assert_array_equal(read.image, volume.image)
        assert_same_place(read, volume, suffix)
        assert read_classes(path) == ()


@given(volumes, suffixes, classes, st.data())
def test_labels_survive_with_their_classes_and_the_geometry_of_the_image(
    volume, suffix, classes, data
):
    ids = [0, *(c.id for c in classes)]
    chosen = data.draw(st.lists(st.sampled_from(ids), min_size=60, max_size=60))
    labels = np.array(chosen, np.uint8 if max(chosen) < 256 else np.uint16).reshape(3, 4, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"mask{suffix}"
        write_labels(path, labels, volume, classes)
        annotation = read_annotation(path)
        np.testing.assert_array_equal(annotation.labels, labels)
        assert annotation.labels.dtype == labels.dtype
        if suffix == ".npy":
            annotation = read_annotation(path, classes=classes)
        elif suffix.endswith("zarr"):  # an empty name is as good as none there
            named = [c.name or "background" * (c.id == 1) or f"class {c.id}" for c in classes]
            classes = tuple(
                LabelClass(c.id, n, c.color) for c, n in zip(classes, named, strict=True)
            )
        assert annotation.classes == classes
        assert_same_place(read_volume(path), volume, suffix)


@pytest.mark.parametrize("target", SUFFIXES)
@pytest.mark.parametrize("source", [*SUFFIXES, "memory"])
def test_labels_get_the_affine_of_an_image_in_any_other_format(tmp_path, source, target):
    volume = Volume(numbered(), (1.5029970059, 2.0, 4.0173374), "micrometer", AFFINE)
    if source == ".npy":
        volume = Volume(volume.image)
    if source != "memory":
        path = tmp_path / f"image{source}"
        write_volume(path, volume)
        volume = read_volume(path)
    path = tmp_path / f"mask{target}"
    write_labels(path, np.full(volume.shape, 300, np.uint16), volume, CLASSES)
    read = read_volume(path)
    if target != ".npy":
        assert read.unit == volume.unit
        np.testing.assert_allclose(read.spacing, volume.spacing, rtol=1e-6)
        assert (read.affine is None) == (volume.affine is None)
        if read.affine is not None:
            np.testing.assert_allclose(read.affine, volume.affine, rtol=1e-6)
        assert read_classes(path) == CLASSES


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_lazy_volume_is_written_as_well(tmp_path, suffix):
    image = numbered((2, 40, 6, 7), "float32")
    path = tmp_path / f"image{suffix}"
    write_volume(path, Volume(da.from_array(image, chunks=(1, 3, 4, 4))))
    np.testing.assert_array_equal(read_volume(path).image, image)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_probabilities_are_channels(tmp_path, suffix):
    volume = Volume(numbered(), SPACING, "micrometer")
    probabilities = np.random.default_rng(0).random((3, 3, 4, 5), np.float32)
    path = tmp_path / f"probabilities{suffix}"
    write_probabilities(path, probabilities, volume, CLASSES)
    read = read_volume(path)
    np.testing.assert_array_equal(read.image, probabilities)
    assert_same_place(read, volume, suffix)
    assert read_classes(path) == ()
    if suffix.endswith("zarr") or "tif" in suffix:
        assert read.channel_names == tuple(c.name for c in CLASSES)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_more_classes_than_channels_can_be_written(tmp_path, suffix):
    volume = Volume(numbered())
    classes = [LabelClass(i, f"class {i}", "#ffffff") for i in range(1, 8)]
    probabilities = np.zeros((7, 3, 4, 5), np.float32)
    path = tmp_path / f"probabilities{suffix}"
    write_probabilities(path, probabilities, volume, classes)
    with pytest.raises(InputError, match=r"7 channels|7 volumes|shape \(7"):
        read_volume(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_metadata_of_labels_do_not_stay_when_an_image_is_written(tmp_path, suffix):
    mask, image = tmp_path / f"mask{suffix}", tmp_path / f"image{suffix}"
    write_labels(mask, np.ones((3, 4, 5), np.uint8), Volume(numbered()), CLASSES)
    write_volume(image, read_volume(mask))
    assert read_classes(image) == ()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_classes_given_go_before_those_in_the_file(tmp_path, suffix):
    path = tmp_path / f"mask{suffix}"
    write_labels(path, np.ones((3, 4, 5), np.uint8), Volume(numbered()), CLASSES)
    given_classes = (LabelClass(1, "nothing", "#123456"),)
    assert read_annotation(path, classes=given_classes).classes == given_classes


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_another_value_can_mean_unlabeled(tmp_path, suffix):
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0], labels[1] = 3, 2
    path = tmp_path / f"mask{suffix}"
    write_labels(path, labels, Volume(numbered()))
    annotation = read_annotation(path, unlabeled=3)
    assert [annotation.labels[z, 0, 0] for z in range(3)] == [0, 3, 1]
    assert annotation.class_ids == (1, 3)
