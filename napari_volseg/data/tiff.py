"""TIFF in its three dialects: OME-TIFF, ImageJ hyperstacks, and plain stacks."""

from __future__ import annotations

import logging
import math
import threading
import warnings
import weakref
from contextlib import ExitStack, contextmanager
from fractions import Fraction
from logging.handlers import QueueHandler
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import zarr

from napari_volseg.data import ome_xml
from napari_volseg.data.contents import (
    Contents,
    arrange_axes,
    color_image,
    guess_axes,
    notes_from_text,
    notes_to_text,
)
from napari_volseg.data.errors import InputError
from napari_volseg.data.lazy_array import lazy, native
from napari_volseg.data.units import PIXEL, convert_length, normalize_unit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_NOTES = "napari_volseg"
_CLASSIC_LIMIT = 2**32 - 2**25  # larger files are BigTIFF, which ImageJ itself does not open
_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_IMAGEJ_UNITS = {"micrometer": "um", "millimeter": "mm", "nanometer": "nm", "centimeter": "cm"}
# What an ImageJ description says of the grid, and so holds for labels, too; the rest is display.
_IMAGEJ_GRID = ("ImageJ", "xorigin", "yorigin", "zorigin", "Info")
_RESOLUTION_UNITS = {2: "inch", 3: "centimeter"}
_SLAB = 16  # slices read at once when writing: whole chunks of most files, little memory

Ratio = tuple[int, int]


def read(path: Path) -> Contents:
    """Read a TIFF: memory-mapped if the pixels are stored plainly, else lazily by page.

    Raises
    ------
    InputError
        For several images, RGB, a time series, a 2D image, lost pages or unknown axes.
    """
    with _complaints(path), tifffile.TiffFile(path) as tiff:
        series = tiff.series[0]
        axes = _axes(series, path)
        if len(tiff.series) > 1:
            raise InputError(
                f"{path}: holds {len(tiff.series)} images of different shapes; "
                "save the one you want in a file of its own"
            )
        _check_pages(series, path)
        own = all(page is not None and page.parent is tiff for page in series)
        if own and series.dataoffset is not None:
            raw = native(tifffile.memmap(path, mode="r"), path)
        else:
            raw = _by_page(path, "strile" if series.keyframe.is_tiled else "page")
        return _describe(tiff, arrange_axes(raw, axes, path), path)


def write(path: Path, contents: Contents) -> None:
    """Write a TIFF, plane by plane.

    ``.ome.tif`` is OME-TIFF. Plain ``.tif`` is an ImageJ hyperstack if that holds the
    type, the size and the spacing exactly and the source was not OME; else OME-TIFF.
    Labels are compressed; images are not, so that they can be memory-mapped.
    """
    name = path.name.lower()
    resolution = _imagej_resolution(contents)
    options: dict[str, Any] = {
        "dtype": contents.image.dtype,
        "photometric": "minisblack",
        "compression": "zlib" if contents.classes else None,
        "ome": False,
    }
    channels, z, y, x = contents.image.shape
    if resolution is None or name.endswith((".ome.tif", ".ome.tiff")):
        options |= {
            "shape": (z * channels, y, x),
            "description": ome_xml.document(contents).encode(),
            "metadata": None,
            "bigtiff": _size(contents) > _CLASSIC_LIMIT,
            "byteorder": "<",
        }
    else:
        options |= {
            "shape": (z, channels, y, x),
            "imagej": True,
            "metadata": _imagej_metadata(contents),
            "resolution": [Fraction(*ratio) for ratio in resolution],
            "resolutionunit": "NONE",
        }
    tifffile.imwrite(path, _planes(contents.image), **options)


@contextmanager
def _complaints(path: Path) -> Iterator[None]:
    """Raise what tifffile only logs: lost pages, which it leaves out or fills with zeros."""
    records: SimpleQueue[logging.LogRecord] = SimpleQueue()
    handler = QueueHandler(records)
    handler.addFilter(lambda record: record.thread == threading.get_ident())
    logger = tifffile.logger()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
    while not records.empty():
        record = records.get()
        message = " ".join(record.getMessage().split())
        if record.levelno >= logging.ERROR or " series " in message:
            raise InputError(f"{path}: damaged or incomplete ({message}); save or copy it again")
        warnings.warn(f"{path}: {message}", stacklevel=4)


def _axes(series: tifffile.TiffPageSeries, path: Path) -> str:
    """Name the axes of a series by letters of "TCZYX"."""
    axes = series.axes
    if "S" in axes:
        gray = (tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE)
        if series.keyframe.photometric not in gray or "C" in axes:
            raise color_image(path)
        axes = axes.replace("S", "C")
    return guess_axes(axes.replace("I", "Q"), series.shape, path)


def _check_pages(series: tifffile.TiffPageSeries, path: Path) -> None:
    """Raise if a page is missing or lies, in part, beyond the end of its file."""
    for index, page in enumerate(series):
        if page is None:
            raise InputError(f"{path}: page {index} is missing; save or copy the file again")
        size = page.parent.filehandle.size
        ends = map(sum, zip(page.dataoffsets, page.databytecounts, strict=True))
        if max(ends, default=0) > size:
            raise InputError(f"{path}: cut off at {size:,} bytes; save or copy the file again")


def _by_page(path: Path, chunks: str) -> Any:
    with ExitStack() as stack:
        tiff = stack.enter_context(tifffile.TiffFile(path))
        store = tiff.series[0].aszarr(level=0, chunkmode=chunks)
        weakref.finalize(store, stack.pop_all().close)  # the file stays open as long as the store
    array = zarr.open_array(store, mode="r")
    return lazy(array, path, array.chunks)


def _describe(tiff: tifffile.TiffFile, image: Any, path: Path) -> Contents:
    """Add to the pixels what the dialect says about them."""
    if tiff.is_ome and tiff.ome_metadata:
        said = ome_xml.describe(tiff.ome_metadata, path)
        return Contents(
            image,
            _without_gaps(said.spacing, said.unit, path),
            said.unit,
            said.affine,
            said.channel_names,
            said.classes,
            {"ome_xml": tiff.ome_metadata},
        )
    tags = tiff.pages.first.tags
    ratios = tuple(tags.valueof(f"{axis}Resolution", (1, 1)) for axis in "YX")
    y, x = (d / n if n else 0.0 for n, d in ratios)
    imagej = tiff.imagej_metadata or {}
    resolution_unit = _RESOLUTION_UNITS.get(tags.valueof("ResolutionUnit", 1), PIXEL)
    if tiff.is_imagej and ("unit" in imagej or resolution_unit == PIXEL):
        unit = normalize_unit(imagej.get("unit"))
        z = abs(float(imagej.get("spacing", 1.0)))
        z = convert_length(z, normalize_unit(imagej.get("zunit", unit)), unit)
        y = convert_length(y, normalize_unit(imagej.get("yunit", unit)), unit)
        spacing: tuple[float | None, ...] = (z, y, x)
    elif resolution_unit != PIXEL:
        unit = "micrometer"
        spacing = (None, *(convert_length(s, resolution_unit, unit) for s in (y, x)))
    else:
        unit, spacing = PIXEL, (1.0, 1.0, 1.0)
    classes, _ = notes_from_text(str(imagej.get(_NOTES, "")))
    source = {"imagej": imagej, "resolution": ratios}
    return Contents(image, _without_gaps(spacing, unit, path), unit, classes=classes, source=source)


def _without_gaps(
    spacing: tuple[float | None, ...], unit: str, path: Path
) -> tuple[float, float, float]:
    """Fill in sizes that the file does not tell, with a warning; 1 if it tells none."""
    known = [size for size in spacing if size]
    z, y, x = (size or (known[-1] if known else 1.0) for size in spacing)
    if len(known) in (1, 2):
        missing = ", ".join(axis for axis, size in zip("zyx", spacing, strict=True) if not size)
        warnings.warn(
            f"{path}: the file does not tell the size of a voxel along {missing}; "
            f"taken as {known[-1]:g} {unit}",
            stacklevel=2,
        )
    return z, y, x


def _imagej_resolution(contents: Contents) -> tuple[Ratio, Ratio] | None:
    """Return pixels per unit along x and y as TIFF's ratios, None if ImageJ's form does not fit."""
    if (
        "ome_xml" in contents.source
        or contents.affine is not None
        or str(contents.image.dtype) not in _IMAGEJ_TYPES
        or _size(contents) > _CLASSIC_LIMIT
        or (contents.unit != PIXEL and contents.unit not in _IMAGEJ_UNITS)
        or contents.channel_names
    ):
        return None
    _, y, x = (_ratio(size) for size in contents.spacing)
    return None if x is None or y is None else (x, y)


def _ratio(size: float) -> Ratio | None:
    """Return two 32-bit integers, pixels and units, whose quotient is the size, if there are."""
    for largest in (10**6, 2**31):  # the simplest one, as people and programs write it, first
        fraction = Fraction(size).limit_denominator(largest)
        units, pixels = fraction.numerator, fraction.denominator
        if 0 < units < 2**32 and units / pixels == size:
            return pixels, units
    return None


def _imagej_metadata(contents: Contents) -> dict[str, Any]:
    source = contents.source.get("imagej", {})
    derived = ("images", "channels", "slices", "frames", "hyperstack", "yunit", "zunit", _NOTES)
    if contents.classes:
        kept = {key: source[key] for key in _IMAGEJ_GRID if key in source}
    else:
        kept = {key: value for key, value in source.items() if key not in derived}
    if normalize_unit(source.get("unit")) != contents.unit or contents.unit == PIXEL:
        kept["unit"] = _IMAGEJ_UNITS.get(contents.unit, PIXEL)
    else:
        kept["unit"] = source["unit"]
    kept |= {"axes": "ZCYX", "spacing": contents.spacing[0]}
    if notes := notes_to_text(contents.classes):
        kept[_NOTES] = notes
    return kept


def _size(contents: Contents) -> int:
    return int(math.prod(contents.image.shape) * contents.image.dtype.itemsize)


def _planes(image: Any) -> Iterator[NDArray[Any]]:
    """Yield the planes of (C, Z, Y, X), channel fastest, reading a slab at a time."""
    for start in range(0, image.shape[1], _SLAB):
        slab = np.asarray(image[:, start : start + _SLAB])
        yield from np.ascontiguousarray(slab.swapaxes(0, 1)).reshape(-1, *slab.shape[2:])
