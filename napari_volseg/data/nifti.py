"""NIfTI-1 and -2: voxels are (x, y, z) in the file, and the header is kept as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nibabel.nifti1 import Nifti1Extension

from napari_volseg.data.contents import (
    Contents,
    Spacing,
    arrange_axes,
    color_image,
    notes_from_text,
    notes_to_text,
)
from napari_volseg.data.errors import InputError
from napari_volseg.data.lazy_array import lazy, native
from napari_volseg.data.units import PIXEL, convert_length, normalize_unit
from napari_volseg.data.volume import MAX_CHANNELS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass

_NOTES = "napari-volseg "
_COMMENT = 6  # extension code of a plain-text comment
_LABEL_INTENT = 1002
_ALIGNED = 2  # xform code: coordinates of some other image
_LARGEST_NIFTI1 = 32767  # sizes are 16-bit there
_UNITS = {"micrometer": "micron", "millimeter": "mm", "meter": "meter"}
_TIMES = ("sec", "msec", "usec")
_SWAP = np.array([[0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # x, y, z <-> z, y, x


def read(path: Path) -> Contents:
    """Read a NIfTI; ``.nii`` is memory-mapped, ``.nii.gz`` has to be unpacked into memory.

    The fourth axis (or the fifth, NIfTI's own place for vectors) is the channel. Where the
    header scales the values, they become float32.

    Raises
    ------
    InputError
        For RGB, a time series or a 2D image.
    """
    file: Any = nib.load(path, mmap="r")
    if not isinstance(file, nib.Nifti1Image):  # NIfTI-2 is a subclass
        raise InputError(f"{path}: {type(file).__name__}, not a NIfTI; convert it to NIfTI first")
    header = file.header
    axes = _axes(header, path)
    proxy: Any = file.dataobj
    pixels = proxy.get_unscaled()
    if pixels.dtype.names:
        raise color_image(path)
    image = arrange_axes(native(pixels.T, path), axes[::-1], path)
    slope, inter = proxy.slope, proxy.inter
    if (slope, inter) != (1, 0):
        image = lazy(image, path) if isinstance(image, np.memmap) else image
        to = np.dtype(np.float64 if image.dtype == np.float64 else np.float32)
        image = image.astype(to) * to.type(slope) + to.type(inter)
    spacing, unit, affine = _geometry(header)
    return Contents(
        image, spacing, unit, affine, classes=_classes(header), source={"nifti": header}
    )


def write(path: Path, contents: Contents) -> None:
    """Write a NIfTI, with the header of the source if that was one.

    So qform, sform, their codes, voxel sizes and units stay as they were to the bit.
    Channels become the fourth axis (the fifth if the source had them there).
    """
    data = np.asarray(contents.image).T
    header = _header(contents, data.shape)
    vector = contents.channels > 1 and len(header.get_data_shape()) == 5
    if contents.channels == 1:
        data = data[..., 0]
    elif vector:
        data = data[:, :, :, None]
    else:
        header["pixdim"][4] = 0  # a fourth axis without extent: not a time step
    header.set_data_dtype(data.dtype)
    if contents.classes or contents.channel_names:  # not the image that the header was made for
        header["cal_min"] = header["cal_max"] = 0
    if contents.classes:
        header["intent_code"] = _LABEL_INTENT
    _set_classes(header, contents.classes)
    image: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    image(data, None, header).to_filename(path)


def _axes(header: Any, path: Path) -> str:
    """Name the axes of a file, in its own order."""
    shape = header.get_data_shape()
    if len(shape) > 3 and shape[3] > 1:
        timed = header.get_xyzt_units()[1] in _TIMES and header["pixdim"][4] > 0
        if timed or shape[3] > MAX_CHANNELS:
            raise InputError(
                f"{path}: a series of {shape[3]} volumes; save the one you want on its own "
                "(or, if they are 2 to 4 channels, set pixdim[4] to 0 in the header)"
            )
        return "XYZC" + "Q" * (len(shape) - 4)
    return "XYZTC"[: len(shape)] + "Q" * (len(shape) - 5)


def _geometry(header: Any) -> tuple[Spacing, str, NDArray[np.float64] | None]:
    """Return spacing (z, y, x), unit and affine in z, y, x order; sform goes before qform."""
    unit = normalize_unit(header.get_xyzt_units()[0])
    affine = header.get_sform(coded=True)[0]
    if affine is None:
        affine = header.get_qform(coded=True)[0]
    x, y, z = (float(size) for size in header["pixdim"][1:4])
    if affine is None:
        return (z, y, x), unit, None
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.allclose(sizes, (x, y, z), rtol=1e-3, atol=0):
        x, y, z = (float(size) for size in sizes)
    return (z, y, x), unit, _SWAP @ affine @ _SWAP


def _header(contents: Contents, shape: tuple[int, ...]) -> Any:
    """Return the source's header, or a new one; only geometry that differs is set in it."""
    if "nifti" in contents.source:
        header = contents.source["nifti"].copy()
    else:
        kind: Any = nib.Nifti2Header if max(shape) > _LARGEST_NIFTI1 else nib.Nifti1Header
        header = kind()
        header.set_data_shape(shape[:3])
    unit = contents.unit
    if unit not in _UNITS and unit != PIXEL:
        unit = "micrometer" if convert_length(1, unit, "millimeter") < 1 else "millimeter"
    factor = convert_length(1, contents.unit, unit)
    z, y, x = (size * factor for size in contents.spacing)
    affine = contents.affine
    if affine is not None and factor != 1:
        affine = np.diag([factor, factor, factor, 1]) @ affine
    old_spacing, old_unit, old_affine = _geometry(header)
    if unit != old_unit:
        header.set_xyzt_units(_UNITS.get(unit, "unknown"), header.get_xyzt_units()[1])
    if (z, y, x) != old_spacing:
        header["pixdim"][1:4] = x, y, z
    if not _same(affine, old_affine):
        header["qform_code"] = 0
        header.set_sform(affine if affine is None else _SWAP @ affine @ _SWAP)
        header["sform_code"] = 0 if affine is None else _ALIGNED
    return header


def _same(first: NDArray[np.float64] | None, second: NDArray[np.float64] | None) -> bool:
    if first is None or second is None:
        return first is second
    return np.array_equal(first, second)


def _notes(extension: Any) -> str | None:
    """Return the text of our own extension, None for any other."""
    if extension.get_code() != _COMMENT or not extension.content.startswith(_NOTES.encode()):
        return None
    return str(extension.text).removeprefix(_NOTES).rstrip("\0")


def _classes(header: Any) -> tuple[LabelClass, ...]:
    texts = [text for text in map(_notes, header.extensions) if text is not None]
    return notes_from_text(texts[0])[0] if texts else ()


def _set_classes(header: Any, classes: tuple[LabelClass, ...]) -> None:
    others = [extension for extension in header.extensions if _notes(extension) is None]
    if classes:
        others.append(Nifti1Extension(_COMMENT, (_NOTES + notes_to_text(classes)).encode()))
    header.extensions = type(header.extensions)(others)
