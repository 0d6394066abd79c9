from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.files import read_classes, read_volume, write_labels, write_volume
from tests.data.made import numbered

ZYX = numbered((3, 4, 5))
CZYX = numbered((2, 3, 4, 5))
ZCYX = CZYX.swapaxes(0, 1)
ONES = np.ones((3, 4, 5), np.uint8)
GRAY = {"photometric": "minisblack"}
OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
  <Instrument ID="Instrument:0"><Objective ID="Objective:0" NominalMagnification="63"/></Instrument>
  <Image ID="Image:0" Name="kidney">
    <AcquisitionDate>2016-02-01T10:11:12</AcquisitionDate>
    <ObjectiveSettings ID="Objective:0"/>
    <Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint16" SignificantBits="12"
      SizeX="5" SizeY="4" SizeC="2" SizeZ="3" SizeT="1" BigEndian="false"
      PhysicalSizeX="176.0e-2" PhysicalSizeXUnit="&#181;m" PhysicalSizeY="1.80"
      PhysicalSizeZ="2040" PhysicalSizeZUnit="nm">
      <Channel ID="Channel:0:0" Name="lectin" EmissionWavelength="520" SamplesPerPixel="1"/>
      <Channel ID="Channel:0:1" Name="DAPI" SamplesPerPixel="1"/>
      <TiffData IFD="0" PlaneCount="6"/>
      <Plane TheC="0" TheZ="1" TheT="0" PositionZ="12.5"/>
      <Plane TheC="1" TheZ="1" TheT="0" PositionZ="12.5"/>
    </Pixels>
  </Image>
  <StructuredAnnotations>
    <CommentAnnotation ID="Annotation:1" Namespace="lab"><Value>stage 37</Value></CommentAnnotation>
  </StructuredAnnotations>
  <ROI ID="ROI:0"/>
</OME>"""


@pytest.fixture
def ome(tmp_path):
    path = tmp_path / "rich.ome.tif"
    tifffile.imwrite(path, ZCYX, description=OME.encode(), metadata=None, ome=False, **GRAY)
    return path


def xml_of(path):
    with tifffile.TiffFile(path) as tiff:
        return tiff.ome_metadata


# Reading


def test_ome_is_read_with_its_sizes_units_and_channels(ome):
    volume = read_volume(ome)
    np.testing.assert_array_equal(volume.image, CZYX)
    assert volume.spacing == (2.04, 1.8, 1.76)
    assert volume.unit == "micrometer"
    assert volume.channel_names == ("lectin", "DAPI")


@pytest.mark.parametrize("axes", ["TCZYX", "TZCYX", "CZYX", "ZCYX"])
@pytest.mark.parametrize("compression", [None, "zlib", "lzw"])
def test_any_order_of_axes_is_understood(tmp_path, axes, compression):
    size = dict(zip("TCZYX", (1, 2, 3, 4, 5), strict=True))
    image = np.moveaxis(CZYX, 0, axes.index("C") - axes.count("T"))
    image = image.reshape([size[a] for a in axes])
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, image, metadata={"axes": axes}, compression=compression, **GRAY)
    np.testing.assert_array_equal(read_volume(path).image, CZYX)


def test_tiles_and_predictors_are_read(tmp_path):
    image = numbered((2, 3, 70, 90))
    tifffile.imwrite(tmp_path / "a.tif", image, metadata={"axes": "CZYX"}, tile=(16, 32),
                     compression="zlib", predictor=True, **GRAY)  # fmt: skip
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").image, image)


@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_an_imagej_hyperstack_is_read(tmp_path, byteorder):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ZCYX, imagej=True, byteorder=byteorder, resolution=(1 / 0.2, 1 / 0.4),
                     metadata={"axes": "ZCYX", "spacing": 1.5, "unit": "\\u00B5m"})  # fmt: skip
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.image, CZYX)
    assert volume.image.dtype.isnative
    assert volume.spacing == (1.5, 0.4, 0.2)
    assert volume.unit == "micrometer"


def test_an_imagej_stack_may_have_a_unit_per_axis(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, imagej=True, resolution=(4, 0.002), metadata={
        "axes": "ZYX", "spacing": 0.003, "unit": "um", "yunit": "nm", "zunit": "mm"})  # fmt: skip
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_allclose(volume.spacing, (3, 0.5, 0.25))
    assert volume.unit == "micrometer"


def test_imagej_leaves_out_a_slice_distance_of_1(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, imagej=True, resolution=(4, 4),
                     metadata={"axes": "ZYX", "unit": "um"})  # fmt: skip
    assert read_volume(tmp_path / "a.tif").spacing == (1, 0.25, 0.25)


@pytest.mark.parametrize("metadata", [None, {}, {"axes": "ZYX"}])
def test_the_pages_of_a_plain_tiff_are_slices(tmp_path, metadata):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, metadata=metadata, **GRAY)
    volume = read_volume(tmp_path / "a.tif")
    np.testing.assert_array_equal(volume.image[0], ZYX)
    assert (volume.spacing, volume.unit) == ((1, 1, 1), "pixel")


def test_pages_written_one_by_one_are_slices(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for page in ZYX:
            writer.write(page, metadata=None, contiguous=False, **GRAY)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").image[0], ZYX)


def test_four_axes_without_names_are_channel_and_z(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", CZYX, **GRAY)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").image, CZYX)


@pytest.mark.parametrize(("unit", "size"), [("centimeter", 5.0), ("inch", 12.7)])
def test_the_resolution_of_a_plain_tiff_is_its_spacing(tmp_path, unit, size):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, metadata=None, resolution=(2000, 2000),
                     resolutionunit=unit, **GRAY)  # fmt: skip
    with pytest.warns(UserWarning, match="along z; taken as"):
        volume = read_volume(tmp_path / "a.tif")
    assert volume.unit == "micrometer"
    np.testing.assert_allclose(volume.spacing, (size, size, size))


def test_a_size_that_ome_does_not_tell_is_guessed_with_a_warning(tmp_path):
    tifffile.imwrite(tmp_path / "a.ome.tif", ZYX, metadata={
        "axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5})  # fmt: skip
    with pytest.warns(UserWarning, match=r"a\.ome\.tif.*along z; taken as 0.25 micrometer"):
        assert read_volume(tmp_path / "a.ome.tif").spacing == (0.25, 0.5, 0.25)


# Writing


def test_ome_metadata_are_written_back(tmp_path, ome):
    write_volume(tmp_path / "copy.ome.tif", read_volume(ome))
    xml = xml_of(tmp_path / "copy.ome.tif")
    for kept in (
        'NominalMagnification="63"',
        "2016-02-01T10:11:12",
        'PhysicalSizeX="176.0e-2"',
        'PhysicalSizeY="1.80"',
        'PhysicalSizeZ="2040" PhysicalSizeZUnit="nm"',
        'EmissionWavelength="520"',
        'SignificantBits="12"',
        "stage 37",
        '<ROI ID="ROI:0"',
    ):
        assert kept in xml
    assert xml.count("PositionZ") == 2
    assert "UUID" not in xml
    assert xml.startswith("<?xml")
    assert "ns0" not in xml


def test_labels_get_the_geometry_of_an_ome_image_but_not_its_channels(tmp_path, ome):
    volume = read_volume(ome)
    classes = (LabelClass(1, "background", "#010203"),)
    write_labels(tmp_path / "mask.ome.tif", ONES, volume, classes)
    xml = xml_of(tmp_path / "mask.ome.tif")
    assert 'PhysicalSizeX="176.0e-2"' in xml
    assert "stage 37" in xml
    assert xml.count("PositionZ") == 1
    for gone in ("lectin", "EmissionWavelength", "SignificantBits"):
        assert gone not in xml
    assert read_classes(tmp_path / "mask.ome.tif") == classes


def test_a_changed_spacing_goes_before_that_of_the_source(tmp_path, ome):
    volume = replace(read_volume(ome), spacing=(3.0, 2.0, 1.0), unit="millimeter")
    write_labels(tmp_path / "mask.ome.tif", ONES, volume)
    read = read_volume(tmp_path / "mask.ome.tif")
    assert (read.spacing, read.unit) == ((3, 2, 1), "millimeter")


@pytest.mark.parametrize("name", ["mask.tif", "mask.tiff"])
def test_labels_of_an_imagej_image_are_an_imagej_hyperstack(tmp_path, name):
    tifffile.imwrite(tmp_path / "a.tif", ZCYX, imagej=True, resolution=(1 / 0.176, 5.0), metadata={
        "axes": "ZCYX", "spacing": 2.04, "unit": "micron", "Info": "stage 37",
        "min": 5.0, "max": 60.0, "zorigin": 3})  # fmt: skip
    volume = read_volume(tmp_path / "a.tif")
    write_labels(tmp_path / name, ONES, volume)
    with tifffile.TiffFile(tmp_path / name) as tiff:
        assert tiff.is_imagej
        metadata = tiff.imagej_metadata
    assert (metadata["unit"], metadata["Info"], metadata["zorigin"]) == ("micron", "stage 37", 3)
    assert "max" not in metadata
    assert read_volume(tmp_path / name).spacing == volume.spacing
    write_volume(tmp_path / "copy.tif", volume)
    with tifffile.TiffFile(tmp_path / "copy.tif") as tiff:
        assert tiff.imagej_metadata["max"] == 60
        assert tiff.series[0].axes == "ZCYX"
    np.testing.assert_array_equal(read_volume(tmp_path / "copy.tif").image, CZYX)


def test_tif_is_ome_where_imagej_would_lose_something(tmp_path, ome):
    write_labels(tmp_path / "mask.tif", ONES, read_volume(ome))
    assert "stage 37" in xml_of(tmp_path / "mask.tif")


def test_labels_are_compressed_and_images_are_not(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", numbered((9, 64, 64)), **GRAY)
    volume = read_volume(tmp_path / "a.tif")
    write_labels(tmp_path / "mask.ome.tif", np.ones(volume.shape, np.uint8), volume)
    assert (tmp_path / "mask.ome.tif").stat().st_size < 9 * 64 * 64 / 4
    write_volume(tmp_path / "copy.ome.tif", volume)
    assert tifffile.memmap(tmp_path / "copy.ome.tif", mode="r").shape == volume.shape


# Refusing


@pytest.mark.parametrize("color", [{"photometric": "rgb"}, {"photometric": "ycbcr"}])
def test_rgb_is_refused(tmp_path, refused, color):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((3, 16, 16, 3), np.uint8), **color)
    refused(tmp_path / "a.tif", "RGB", "Split Channels")


def test_interleaved_gray_channels_are_channels(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.moveaxis(CZYX, 0, -1), planarconfig="contig", **GRAY)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.tif").image, CZYX)


@pytest.mark.parametrize("options", [{"imagej": True}, {"ome": True}])
def test_a_time_series_is_refused(tmp_path, refused, options):
    image = numbered((6, 3, 4, 5))
    tifffile.imwrite(tmp_path / "a.tif", image, metadata={"axes": "TZYX"}, **options, **GRAY)
    refused(tmp_path / "a.tif", "time series of 6", "one of them on its own")


def test_a_2d_image_is_refused(tmp_path, refused):
    tifffile.imwrite(tmp_path / "a.tif", ZYX[0], **GRAY)
    refused(tmp_path / "a.tif", "2D image")


def test_slices_that_imagej_takes_for_channels_are_refused_with_the_way_out(tmp_path, refused):
    tifffile.imwrite(tmp_path / "a.tif", ZYX, imagej=True, metadata={"axes": "CYX"})
    refused(tmp_path / "a.tif", "2D image", "Image > Properties")


def test_several_images_are_refused(tmp_path, refused):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as writer:
        writer.write(ZYX, **GRAY)
        writer.write(ZYX, **GRAY)
    refused(tmp_path / "a.ome.tif", "2 images")


def test_pages_of_different_shapes_are_refused(tmp_path, refused):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(ZYX, metadata=None, **GRAY)
        writer.write(ZYX[:, :2], metadata=None, **GRAY)
    refused(tmp_path / "a.tif", "2 images of different shapes")


@pytest.mark.parametrize("shape", [(6, 3, 4, 5), (2, 2, 3, 4, 5)])
def test_axes_that_cannot_be_guessed_are_refused(tmp_path, refused, shape):
    tifffile.imwrite(tmp_path / "a.tif", numbered(shape), **GRAY)
    refused(tmp_path / "a.tif", "names for its axes")


def test_an_axis_that_is_not_space_is_refused(tmp_path, refused):
    tifffile.imwrite(tmp_path / "a.tif", CZYX, metadata={"axes": "HZYX"}, **GRAY)
    refused(tmp_path / "a.tif", "axes HZYX")


def test_a_part_of_a_set_of_files_is_refused_when_the_others_are_missing(tmp_path, refused):
    xml = OME.replace('<TiffData IFD="0" PlaneCount="6"/>', "".join(
        f'<TiffData IFD="0" FirstZ="{z}" FirstC="{c}" PlaneCount="1">'
        f'<UUID FileName="part{z}{c}.ome.tif">urn:uuid:{z}{c}</UUID></TiffData>'
        for z in range(3) for c in range(2)))  # fmt: skip
    xml = xml.replace('UUID="urn:uuid:1"', 'UUID="urn:uuid:00"')
    path = tmp_path / "part00.ome.tif"
    tifffile.imwrite(path, ZYX[:1], description=xml.encode(), metadata=None, ome=False, **GRAY)
    refused(path, "page 1 is missing")
