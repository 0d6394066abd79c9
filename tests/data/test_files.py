from __future__ import annotations

import re

import dask.array as da
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_volseg.data import nifti, numpy_file, ome_zarr, tiff
from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.contents import Contents
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import (
    SUFFIXES,
    read_annotation,
    read_volume,
    write_labels,
    write_probabilities,
    write_volume,
)
from napari_volseg.data.volume import Volume
from tests.data.made import numbered

VOLUME = Volume(numbered(), (2.0, 0.5, 0.25), "micrometer")
LABELS = np.ones((3, 4, 5), np.uint8)
FILES = [suffix for suffix in SUFFIXES if not suffix.endswith("zarr")]


# Opening


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_missing_file_is_refused(tmp_path, refused, suffix):
    refused(tmp_path / f"a{suffix}", "no such file")


@pytest.mark.parametrize("suffix", FILES)
def test_an_empty_file_is_refused(tmp_path, refused, suffix):
    (tmp_path / f"a{suffix}").touch()
    refused(tmp_path / f"a{suffix}", "the file is empty")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_is_something_else_is_refused(tmp_path, refused, suffix):
    (tmp_path / f"a{suffix}").write_bytes(b"Dear diary,\n" * 100)
    refused(tmp_path / f"a{suffix}", "damaged, or not what its name says")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_no_image_is_refused(tmp_path, refused, suffix):
    (tmp_path / f"a{suffix}").mkdir()
    refused(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("name", ["a.png", "a", "a.mha", "tif"])
def test_an_unknown_format_is_refused_with_those_known(tmp_path, refused, name):
    (tmp_path / name).write_bytes(b"x")
    refused(tmp_path / name, "unknown format", ".ome.tif", ".nii.gz", ".zarr", ".npy")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_case_of_the_suffix_does_not_matter(tmp_path, suffix):
    path = tmp_path / f"Kidney{suffix.upper()}"
    write_volume(path, VOLUME)
    assert read_volume(path).name == "Kidney"


# To warn of what is missing would not be enough.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".ome.tif", ".tif", ".nii", ".nii.gz", ".npy"])
@settings(max_examples=30)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_file_that_is_cut_off_is_refused_or_whole(tmp_path_factory, suffix, part):
    folder = tmp_path_factory.mktemp("cut")
    for kind, write in (("image", write_volume), ("mask", write_labels)):
        path = folder / f"{kind}{suffix}"
        write(*((path, VOLUME) if kind == "image" else (path, LABELS, VOLUME)))
        whole = np.asarray(read_volume(path).image)
        content = path.read_bytes()
        path.write_bytes(content[: int(part * len(content))])
        try:
            read = np.asarray(read_volume(path).image)
        except InputError as error:
            assert str(path) in str(error)
        else:
            np.testing.assert_array_equal(read, whole)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("contiguous", [True, False])
@settings(max_examples=30)
@given(part=st.floats(0, 1, exclude_max=True))
def test_a_plain_tiff_that_is_cut_off_is_never_taken_for_a_smaller_one(
    tmp_path_factory, compression, contiguous, part
):
    path = tmp_path_factory.mktemp("cut") / "a.tif"
    with tifffile.TiffWriter(path) as writer:
        for page in [numbered((6, 4, 5))] if contiguous else numbered((6, 4, 5)):
            writer.write(page, metadata=None, contiguous=False, compression=compression,
                         photometric="minisblack")  # fmt: skip
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    try:
        read = np.asarray(read_volume(path).image)
    except InputError as error:
        assert str(path) in str(error)
    else:
        np.testing.assert_array_equal(read[0], numbered((6, 4, 5)))


def test_compressed_pages_are_read_one_by_one_and_a_damaged_one_names_the_file(tmp_path):
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, numbered((3, 40, 50)), compression="zlib", metadata={"axes": "ZYX"})
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[1].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[start : start + 40] = bytes(40)
    path.write_bytes(content)
    image = read_volume(path).image
    np.testing.assert_array_equal(image[0, 0], numbered((3, 40, 50))[0])
    with pytest.raises(InputError, match=re.escape(str(path))):
        np.asarray(image[0, 1])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64"])
def test_a_type_that_is_not_supported_is_refused_for_an_image_only(tmp_path, suffix, dtype):
    path = tmp_path / f"a{suffix}"
    module = {"tif": tiff, "tiff": tiff, "zarr": ome_zarr, "npy": numpy_file}
    module.get(suffix.split(".")[-1], nifti).write(path, Contents(numbered(dtype=dtype)))
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: voxels of type {dtype}"):
        read_volume(path)
    np.testing.assert_array_equal(read_annotation(path).labels, numbered()[0])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_annotation_has_one_channel(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_volume(path, Volume(numbered((2, 3, 4, 5))))
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: 2 channels"):
        read_annotation(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_annotation_may_be_stored_as_floats(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    write_volume(path, Volume(np.full((1, 3, 4, 5), 2, np.float32)))
    assert (read_annotation(path).labels == 2).all()
    write_volume(path, Volume(np.full((1, 3, 4, 5), 0.5, np.float32)))
    with pytest.raises(InputError, match=f"{re.escape(str(path))}: values with fractions"):
        read_annotation(path)


def test_labels_that_are_not_among_the_classes_are_refused(tmp_path):
    write_labels(tmp_path / "a.nii", 3 * LABELS, VOLUME)
    with pytest.raises(InputError, match=r"a\.nii: labels hold \[3\]"):
        read_annotation(tmp_path / "a.nii", classes=[LabelClass(1, "cell", "#ffffff")])


# .npy


@pytest.mark.parametrize("array", [
    np.asfortranarray(numbered()[0]), numbered()[0].astype(">u2"), numbered()[0]])  # fmt: skip
def test_npy_in_any_order_is_z_y_x_in_pixels(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    volume = read_volume(tmp_path / "a.npy")
    assert volume.image.dtype == np.uint16
    assert volume.image.dtype.isnative
    np.testing.assert_array_equal(volume.image, numbered())
    assert (volume.spacing, volume.unit) == ((1, 1, 1), "pixel")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (numbered((4, 5)), "2D image"),
        (np.float32(1), "2D image"),
        (numbered((1, 4, 5)), "2D image"),
        (numbered((6, 3, 4, 5)), "names for its axes"),
        (numbered((2, 2, 3, 4, 5)), "names for its axes"),
        (np.zeros((20, 20, 3), np.uint8), "RGB"),
        (np.zeros((6, 20, 20, 4), np.uint8), "RGB"),
        (np.zeros((3, 0, 5), np.uint8), "empty"),
    ],
)
def test_npy_of_another_shape_is_refused(tmp_path, refused, array, words):
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", words)


def test_npy_that_needs_pickle_is_not_opened(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.array([{}, print]), allow_pickle=True)
    refused(tmp_path / "a.npy", "damaged")


# Saving


@pytest.mark.parametrize("name", ["mask", "mask.png", "mask.ome"])
def test_an_unknown_suffix_is_refused_with_those_known(tmp_path, name):
    path = tmp_path / name
    for write in (
        lambda: write_labels(path, LABELS, VOLUME),
        lambda: write_volume(path, VOLUME),
        lambda: write_probabilities(path, np.zeros((0, 3, 4, 5)), VOLUME, ()),
    ):
        with pytest.raises(InputError, match=r"mask.*\.ome\.tif, .*\.nii\.gz, .*\.zarr, \.npy$"):
            write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_missing_is_refused(tmp_path, suffix):
    path = tmp_path / "none" / f"mask{suffix}"
    with pytest.raises(InputError, match=re.escape(f"{path}: cannot be written")):
        write_labels(path, LABELS, VOLUME)
    assert not (tmp_path / "none").exists()


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    path = tmp_path / "results.zarr"
    path.mkdir()
    (path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"results\.zarr: a folder with other files in it"):
        write_labels(path, LABELS, VOLUME)
    assert (path / "mine.txt").read_text() == "mine"
    (path / "mine.txt").unlink()
    for _ in range(2):
        write_labels(path, LABELS, VOLUME)
    np.testing.assert_array_equal(read_annotation(path).labels, LABELS)


def test_labels_must_fit_the_volume_and_the_classes(tmp_path):
    path = tmp_path / "mask.nii"
    with pytest.raises(InputError, match=r"mask\.nii: labels of shape \(3, 4, 4\)"):
        write_labels(path, LABELS[..., :4], VOLUME)
    with pytest.raises(InputError, match=r"mask\.nii: labels hold \[2\]"):
        write_labels(path, 2 * LABELS, VOLUME, [LabelClass(1, "cell", "#ffffff")])
    with pytest.raises(InputError, match=r"mask\.nii: labels of type int64"):
        write_labels(path, LABELS.astype(np.int64), VOLUME)
    assert list(tmp_path.iterdir()) == []


def test_probabilities_must_fit_the_volume_and_the_classes(tmp_path):
    classes = [LabelClass(1, "cell", "#ffffff")]
    for shape in ((2, 3, 4, 5), (1, 3, 4, 4)):
        with pytest.raises(InputError, match=r"p\.nii: probabilities of shape"):
            write_probabilities(tmp_path / "p.nii", np.zeros(shape, "float32"), VOLUME, classes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failure_while_writing_leaves_the_old_file_and_nothing_else(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    write_volume(path, VOLUME)

    def fail(block):
        if block.size:
            raise RuntimeError("the disk of the source is gone")
        return block

    broken = da.from_array(numbered()).map_blocks(fail, dtype="uint16", meta=np.empty(0, "uint16"))
    with pytest.raises(RuntimeError, match="gone"):
        write_volume(path, Volume(broken))
    assert list(tmp_path.iterdir()) == [path]
    np.testing.assert_array_equal(read_volume(path).image, VOLUME.image)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_is_replaced_even_by_what_was_read_from_it(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    write_volume(path, VOLUME)
    write_volume(path, read_volume(path))
    np.testing.assert_array_equal(read_volume(path).image, VOLUME.image)


# Laziness


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".nii", {}),
        (".npy", {}),
        (".zarr", {}),
        (".ome.tif", {}),
        (".tif", {}),
        (".tif", {"imagej": True, "byteorder": ">"}),
    ],
)
def test_pixels_are_not_read_before_they_are_used(tmp_path, suffix, options):
    first, second = tmp_path / f"first{suffix}", tmp_path / f"second{suffix}"
    pixels = numbered()
    for path, image in ((first, pixels), (second, pixels[:, ::-1])):
        if options:
            tifffile.imwrite(path, image[0], metadata={"axes": "ZYX"}, **options)
        else:
            write_volume(path, Volume(np.ascontiguousarray(image)))
    volume = read_volume(first)
    for new in second.rglob("*") if second.is_dir() else [second]:
        old = first / new.relative_to(second)
        if new.is_file():
            with old.open("r+b") as file:  # the same file, with other pixels
                file.write(new.read_bytes())
    np.testing.assert_array_equal(volume.image, pixels[:, ::-1])
