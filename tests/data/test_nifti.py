from __future__ import annotations

import gzip
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Extension

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.files import (
    read_volume,
    write_labels,
    write_probabilities,
    write_volume,
)
from napari_volseg.data.volume import SUPPORTED_DTYPES, Volume
from tests.data.made import numbered

SFORM = np.array([[-1.1, 0.2, 0.3, 7], [0.1, 1.6, -0.25, -9], [0.15, 0.1, 2.3, 11], [0, 0, 0, 1]])
GEOMETRY = [
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
]
XYZ = numbered((5, 4, 3))
"""As in a file: x, y, z."""


def save(path, data, zooms=(0.7, 0.8, 2.5), units=("mm", "unknown"), **fields):
    header = nib.Nifti1Header()
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header["pixdim"][1:4] = zooms
    header.set_xyzt_units(*units)
    for name, value in fields.items():
        header[name] = value
    nib.Nifti1Image(data, None, header).to_filename(path)


@pytest.fixture
def oblique(tmp_path):
    """A file whose qform and sform differ, with codes, intent and an extension."""
    header = nib.Nifti1Header()
    header.set_data_shape(XYZ.shape)
    header.set_data_dtype(XYZ.dtype)
    header.set_xyzt_units("mm", "sec")
    header.set_qform(nib.affines.from_matvec(np.diag([-1.2, 1.6, 2.4]), (3, -4, 5)), 1)
    header.set_sform(SFORM, 4)
    header["pixdim"][1:4] = np.linalg.norm(SFORM[:3, :3], axis=0)
    header["descrip"] = "scanner"
    header["cal_max"] = 50
    header.extensions.append(Nifti1Extension(6, b"a comment"))
    path = tmp_path / "oblique.nii"
    nib.Nifti1Image(XYZ, None, header).to_filename(path)
    return path


def test_the_file_is_x_y_z_and_the_volume_z_y_x(oblique):
    volume = read_volume(oblique)
    assert volume.shape == (3, 4, 5)
    assert volume.image[0, 2, 1, 4] == XYZ[4, 1, 2]
    np.testing.assert_array_equal(volume.image[0], XYZ.T)


def test_the_affine_takes_z_y_x_to_the_same_point_of_the_world(oblique):
    affine = read_volume(oblique).affine
    world_xyz = nib.load(oblique).affine @ (4, 1, 2, 1)
    np.testing.assert_array_equal(affine @ (2, 1, 4, 1), world_xyz[[2, 1, 0, 3]])


def test_spacing_and_unit_come_in_z_y_x(tmp_path):
    save(tmp_path / "a.nii", XYZ)
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.spacing, (2.5, 0.8, 0.7))
    assert volume.unit == "millimeter"
    assert volume.affine is None


def test_an_affine_goes_before_voxel_sizes_that_contradict_it(tmp_path):
    save(tmp_path / "a.nii", XYZ, srow_x=(3, 0, 0, 0), srow_y=(0, 4, 0, 0), srow_z=(0, 0, 5, 0),
         sform_code=2)  # fmt: skip
    volume = read_volume(tmp_path / "a.nii")
    assert volume.spacing == (5, 4, 3)
    write_labels(tmp_path / "mask.nii", np.ones(volume.shape, np.uint8), volume)
    np.testing.assert_allclose(
        nib.load(tmp_path / "mask.nii").header["pixdim"][1:4], (0.7, 0.8, 2.5)
    )


@pytest.mark.parametrize("affine", [None, np.diag([4.0, 3, 2, 1])])
def test_an_affine_that_was_changed_replaces_both_forms(tmp_path, oblique, affine):
    volume = replace(read_volume(oblique), affine=affine)
    write_labels(tmp_path / "mask.nii", np.ones(volume.shape, np.uint8), volume)
    header = nib.load(tmp_path / "mask.nii").header
    assert header["qform_code"] == 0
    assert (header["sform_code"] == 0) == (affine is None)
    read = read_volume(tmp_path / "mask.nii").affine
    assert read is None if affine is None else (read == affine).all()


def test_a_unit_that_was_changed_leaves_the_forms_alone(tmp_path, oblique):
    volume = replace(read_volume(oblique), unit="micrometer")
    write_labels(tmp_path / "mask.nii", np.ones(volume.shape, np.uint8), volume)
    header = nib.load(tmp_path / "mask.nii").header
    assert header.get_xyzt_units() == ("micron", "sec")
    assert (header["qform_code"], header["sform_code"]) == (1, 4)


def test_lengths_are_converted_to_a_unit_that_nifti_has(tmp_path):
    volume = Volume(XYZ.T[None], (500.0, 250.0, 125.0), "nanometer", np.diag([500, 250, 125, 1.0]))
    write_volume(tmp_path / "a.nii", volume)
    read = read_volume(tmp_path / "a.nii")
    assert (read.spacing, read.unit) == ((0.5, 0.25, 0.125), "micrometer")
    np.testing.assert_array_equal(read.affine, np.diag([0.5, 0.25, 0.125, 1]))


def test_probabilities_of_an_image_with_a_time_unit_are_no_time_series(tmp_path):
    save(tmp_path / "a.nii", XYZ, units=("mm", "sec"), pixdim=[1] * 8)
    classes = [LabelClass(i, str(i), "#ffffff") for i in (1, 2)]
    probabilities = np.zeros((2, 3, 4, 5), np.float32)
    write_probabilities(tmp_path / "p.nii", probabilities, read_volume(tmp_path / "a.nii"), classes)
    assert read_volume(tmp_path / "p.nii").channels == 2


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_the_header_is_written_back_to_the_bit(tmp_path, oblique, suffix, byteorder):
    image = nib.load(oblique)
    if byteorder == ">":
        swapped = image.header.as_byteswapped(">")
        swapped.extensions = image.header.extensions
        nib.Nifti1Image(XYZ, None, swapped).to_filename(oblique)
    before = nib.load(oblique).header
    volume = read_volume(oblique)
    assert volume.image.dtype.isnative
    mask, copy = tmp_path / f"mask{suffix}", tmp_path / f"copy{suffix}"
    write_labels(mask, np.ones(volume.shape, np.uint8), volume)
    write_volume(copy, volume)
    for path in (mask, copy):
        after = nib.load(path).header
        for name in (*GEOMETRY, "descrip"):
            assert after[name].tobytes() == before[name].tobytes(), name
        assert b"a comment" in [e.content.rstrip(b"\0") for e in after.extensions]
        np.testing.assert_array_equal(read_volume(path).affine, volume.affine)
    assert nib.load(mask).header["cal_max"] == 0
    assert nib.load(mask).header.get_intent()[0] == "label"
    assert nib.load(copy).header["cal_max"] == 50
    np.testing.assert_array_equal(np.asarray(nib.load(copy).dataobj), XYZ)


def test_writing_does_not_change_the_volume_that_was_read(tmp_path, oblique):
    volume = read_volume(oblique)
    block = volume.source["nifti"].binaryblock
    write_labels(tmp_path / "mask.nii", np.ones(volume.shape, np.uint8), volume)
    assert volume.source["nifti"].binaryblock == block
    assert len(volume.source["nifti"].extensions) == 1


@pytest.mark.parametrize("dtype", SUPPORTED_DTYPES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_scaled_values_are_read_as_they_are_meant(tmp_path, dtype, suffix):
    plain = tmp_path / "plain.nii"
    save(plain, XYZ.astype(dtype))
    raw = bytearray(plain.read_bytes())
    raw[112:120] = np.array([0.5, -3], "<f4").tobytes()  # slope and intercept; nibabel resets them
    path = tmp_path / f"a{suffix}"
    path.write_bytes(gzip.compress(raw) if suffix == ".nii.gz" else raw)
    image = read_volume(path).image
    assert image.dtype == ("float64" if dtype == "float64" else "float32")
    np.testing.assert_allclose(image[0], XYZ.T * 0.5 - 3)


def test_nifti_2_is_read_and_written(tmp_path):
    header = nib.Nifti2Header()
    header["pixdim"][1:4] = 1.2345678901234567, 2, 3  # more than 32 bits
    nib.Nifti2Image(XYZ, None, header).to_filename(tmp_path / "a.nii")
    volume = read_volume(tmp_path / "a.nii")
    write_labels(tmp_path / "mask.nii", np.ones(volume.shape, np.uint8), volume)
    assert read_volume(tmp_path / "mask.nii").spacing == (3, 2, 1.2345678901234567)


@pytest.mark.parametrize("axis", [3, 4])
def test_the_fourth_or_fifth_axis_is_the_channel(tmp_path, axis):
    data = numbered((5, 4, 3, 2))
    save(tmp_path / "a.nii", data if axis == 3 else data[:, :, :, None])
    volume = read_volume(tmp_path / "a.nii")
    np.testing.assert_array_equal(volume.image, data.T)
    write_volume(tmp_path / "b.nii", volume)
    assert nib.load(tmp_path / "b.nii").shape == nib.load(tmp_path / "a.nii").shape
    np.testing.assert_array_equal(read_volume(tmp_path / "b.nii").image, data.T)
    write_labels(tmp_path / "mask.nii", np.ones(volume.shape, np.uint8), volume)
    assert nib.load(tmp_path / "mask.nii").shape == (5, 4, 3)


def test_trailing_axes_of_size_1_do_not_matter(tmp_path):
    save(tmp_path / "a.nii", XYZ[..., None, None], units=("mm", "sec"), pixdim=[1] * 8)
    assert read_volume(tmp_path / "a.nii").image.shape == (1, 3, 4, 5)


def test_a_time_series_is_refused(tmp_path, refused):
    save(tmp_path / "a.nii", numbered((5, 4, 3, 2)), units=("mm", "sec"), pixdim=[1] * 8)
    refused(tmp_path / "a.nii", "series of 2 volumes", "save the one you want")


def test_more_volumes_than_channels_are_refused(tmp_path, refused):
    save(tmp_path / "a.nii", numbered((5, 4, 3, 6)))
    refused(tmp_path / "a.nii", "series of 6 volumes")


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (1, 4, 5)])
def test_a_2d_image_is_refused(tmp_path, refused, shape):
    save(tmp_path / "a.nii", numbered(shape))
    refused(tmp_path / "a.nii", "2D image")


def test_rgb_is_refused(tmp_path, refused):
    data = np.zeros((5, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    save(tmp_path / "a.nii", data)
    refused(tmp_path / "a.nii", "RGB", "channels")


def test_a_file_that_only_bears_the_name_is_refused(tmp_path, refused):
    nib.MGHImage(XYZ.astype("float32"), np.eye(4)).to_filename(tmp_path / "a.mgh")
    (tmp_path / "a.mgh").rename(tmp_path / "a.nii")
    refused(tmp_path / "a.nii")
