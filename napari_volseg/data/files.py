"""Open and save volumes and annotations; the suffix of a path decides on the format."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data import nifti, numpy_file, ome_zarr, tiff
from napari_volseg.data.annotation import UNLABELED, Annotation, LabelClass
from napari_volseg.data.atomic import check_folder, replacing, telling
from napari_volseg.data.contents import Contents
from napari_volseg.data.errors import InputError
from napari_volseg.data.labels import READ_AT_ONCE, has_zero, read_labels
from napari_volseg.data.lazy_array import lazy
from napari_volseg.data.reading import reading
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_volseg.data.labeled import AnyLabels


@dataclass(frozen=True)
class _Format:
    suffixes: tuple[str, ...]
    read: Callable[[Path], Contents]
    write: Callable[[Path, Contents], None]


_ZARR = _Format((".ome.zarr", ".zarr"), ome_zarr.read, ome_zarr.write)
_FORMATS = (
    _Format((".ome.tif", ".ome.tiff", ".tif", ".tiff"), tiff.read, tiff.write),
    _Format((".nii.gz", ".nii"), nifti.read, nifti.write),
    _ZARR,
    _Format((".npy",), numpy_file.read, numpy_file.write),
)
SUFFIXES = tuple(suffix for form in _FORMATS for suffix in form.suffixes)
"""Suffixes of the formats that can be read and written, longer ones first."""


def read_volume(path: str | Path) -> Volume:
    """Open an image: TIFF (OME, ImageJ, plain), NIfTI, OME-Zarr (0.4, 0.5) or .npy.

    The pixels stay on disk until they are used, except those of ``.nii.gz``; memory-mapped
    arrays are read-only. Axes, spacing, unit and affine come in z, y, x order.

    Raises
    ------
    InputError
        For a file that is missing, damaged, of another format, or no 3D image with one to four
        channels of a supported type. The message names the file and says what to do.
    """
    path = Path(path)
    contents = _read(path)
    volume = Volume(
        contents.image,
        contents.spacing,
        contents.unit,
        contents.affine,
        str(path),  # errors name the file; the window, below, only its stem
        contents.channel_names,
        contents.source,
    )
    return replace(volume, name=_stem(path))


def read_annotation(
    path: str | Path,
    *,
    unlabeled: int = UNLABELED,
    from_zero: bool | None = None,
    classes: Sequence[LabelClass] = (),
    in_blocks: Callable[[Sequence[int]], bool] | None = None,
) -> Annotation:
    """Open sparse or dense labels, in the formats of ``read_volume``, into memory.

    Parameters
    ----------
    path : str or Path
    unlabeled : int
        The value in the file that means unlabeled. If it is not 0, it becomes 0; where 0 is then
        a class, all classes move up by one: with ``unlabeled=3``, the values 0, 1, 2, 3
        become 1, 2, 3, 0. Where 0 does not occur, the classes keep their values.
    from_zero : bool, optional
        Whether 0 is a class even if it does not occur in this file, as it may in others of
        the same kind (``holds_zero``); by default, whether it occurs.
    classes : sequence of LabelClass
        Names and colors; without them, those that ``write_labels`` stored in the file,
        else default ones.
    in_blocks : callable (shape) -> bool, optional
        Whether labels of a shape (z, y, x) are too large for an array, and to be held as
        ``SparseLabels``; by default, none are.

    Raises
    ------
    InputError
        As ``read_volume``, and for several channels, values with fractions, or labels that
        are negative, above 65535 or not among the classes.
    """
    path = Path(path)
    contents = _read_labels(path)
    image = contents.image[0]
    large = in_blocks is not None and in_blocks(image.shape)
    labels = read_labels(image, str(path), unlabeled, from_zero, in_blocks=large)
    stored = contents.classes if unlabeled == UNLABELED else ()
    return _annotation(labels, tuple(classes) or stored, path)


def open_values(path: str | Path) -> tuple[Any, tuple[LabelClass, ...]]:
    """Open labels as they are in the file (Z, Y, X), lazily, and the classes stored in it.

    Raises
    ------
    InputError
        As ``read_volume``, and for several channels.
    """
    contents = _read_labels(Path(path))
    return contents.image[0], contents.classes


def _read_labels(path: Path) -> Contents:
    contents = _read(path)
    if contents.channels != 1:
        raise InputError(
            f"{path}: {contents.channels} channels; an annotation has one, with a number per class"
        )
    return contents


def holds_zero(path: str | Path) -> bool:
    """Whether a file of labels holds the value 0, which may be a class in it.

    Raises
    ------
    InputError
        As ``read_volume``, and for several channels.
    """
    return has_zero(_read_labels(Path(path)).image[0])


def read_classes(path: str | Path) -> tuple[LabelClass, ...]:
    """Return the classes stored in a file of labels; none for an image.

    Raises
    ------
    InputError
        As ``read_volume``.
    """
    return _read(Path(path)).classes


def write_labels(
    path: str | Path,
    labels: AnyLabels,
    volume: Volume,
    classes: Sequence[LabelClass] = (),
) -> None:
    """Save labels with the geometry of a volume; the file appears whole or not at all.

    Parameters
    ----------
    path : str or Path
        Its suffix, one of ``SUFFIXES``, decides on the format.
    labels : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
        Sparse ones are read slab by slab where the format can be written so (TIFF, OME-Zarr).
    volume : Volume
        What was segmented. A NIfTI's header and OME metadata are written back as they were.
    classes : sequence of LabelClass
        Stored in the file (not in ``.npy``); without them, default ones.

    Raises
    ------
    InputError
        For an unknown suffix, another shape than the volume's, labels not among the classes, or a
        place that cannot be written to.
    """
    path = Path(path)
    sparse = isinstance(labels, SparseLabels)
    annotation = _annotation(labels if sparse else np.asarray(labels), tuple(classes), path)
    if annotation.labels.shape != volume.shape:
        raise InputError(
            f"{path}: labels of shape {annotation.labels.shape} do not fit {volume.name} "
            f"of shape {volume.shape}"
        )
    image = lazy(labels, path, READ_AT_ONCE)[None] if sparse else annotation.labels[None]
    _write(path, replace(contents_of(volume), image=image, classes=annotation.classes))


def write_volume(path: str | Path, volume: Volume) -> None:
    """Save an image with its geometry and metadata; the file appears whole or not at all.

    Raises
    ------
    InputError
        For an unknown suffix or a place that cannot be written to.
    """
    _write(Path(path), replace(contents_of(volume), channel_names=volume.channel_names))


def write_probabilities(
    path: str | Path, probabilities: Any, volume: Volume, classes: Sequence[LabelClass]
) -> None:
    """Save class probabilities as channels named after the classes.

    Parameters
    ----------
    path : str or Path
    probabilities : float32 (K, Z, Y, X), numpy or dask
        Read slab by slab where the format can be written so (TIFF, OME-Zarr).
    volume : Volume
        Gives the geometry.
    classes : sequence of LabelClass, one for each channel

    Raises
    ------
    InputError
        For an unknown suffix, a shape that does not fit, or a place that cannot be written to.
    """
    path = Path(path)
    if probabilities.shape != (len(classes), *volume.shape):
        raise InputError(
            f"{path}: probabilities of shape {tuple(probabilities.shape)}; {len(classes)} classes "
            f"of {volume.name} need {(len(classes), *volume.shape)}"
        )
    names = tuple(c.name for c in classes)
    _write(path, replace(contents_of(volume), image=probabilities, channel_names=names))


def _format(path: Path) -> tuple[_Format, str] | None:
    for form in _FORMATS:
        for suffix in form.suffixes:
            if path.name.lower().endswith(suffix):
                return form, suffix
    # Labels inside an image have a name without suffix.
    return (_ZARR, "") if ome_zarr.is_label(path) else None


def _read(path: Path) -> Contents:
    if not path.exists():
        raise InputError(f"{path}: no such file; check the name and the folder")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(f"{path}: the file is empty; save or copy it again")
    found = _format(path)
    read = found[0].read if found else None
    if path.is_dir() and _is_group(path):
        read = ome_zarr.read  # also a group inside another, which has no suffix
    if read is None:
        raise InputError(f"{path}: unknown format; these are known: {', '.join(SUFFIXES)}")
    with reading(path):
        return read(path)


def is_zarr(path: Path) -> bool:
    """Whether a path names an OME-Zarr, or labels inside one: what can be written in chunks."""
    found = _format(path)
    return found is not None and found[0] is _ZARR


def _write(path: Path, contents: Contents) -> None:
    with writing(path, contents), replacing(path) as temporary:
        found = _format(path)
        assert found is not None
        found[0].write(temporary, contents)
    if ome_zarr.is_label(path):
        ome_zarr.list_label(path)


@contextmanager
def writing(path: Path, contents: Contents) -> Iterator[None]:
    """Make sure that something can be written to a place, and tell why it was not.

    Raises
    ------
    InputError
        For an unknown suffix, labels of another image than they would be stored in, a folder
        of other files, or a place that cannot be written to.
    """
    if _format(path) is None:
        raise InputError(f"{path}: unknown format; end the name with one of {', '.join(SUFFIXES)}")
    with telling(path):
        if ome_zarr.is_label(path):
            ome_zarr.check_label(path, contents)
            path.parent.mkdir(exist_ok=True)
        else:
            check_folder(path)
            _check_folder_is_ours(path)
        yield


def _check_folder_is_ours(path: Path) -> None:
    """Refuse to put an OME-Zarr in the place of a folder of something else."""
    if path.is_dir() and any(path.iterdir()) and not _is_group(path):
        raise InputError(f"{path}: a folder with other files in it; choose another name")


def _is_group(path: Path) -> bool:
    return any((path / name).is_file() for name in ome_zarr.GROUP_FILES)


def _annotation(labels: Any, classes: tuple[LabelClass, ...], path: Path) -> Annotation:
    try:
        return Annotation(labels, classes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def contents_of(volume: Volume) -> Contents:
    """Return contents with the image, the geometry and the metadata of a volume."""
    return Contents(volume.image, volume.spacing, volume.unit, volume.affine, source=volume.source)


def _stem(path: Path) -> str:
    found = _format(path)
    return path.name[: len(path.name) - len(found[1])] if found else path.name
