"""What a file holds, before it becomes a Volume or an Annotation; one type for all formats."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.units import PIXEL
from napari_volseg.data.volume import MAX_CHANNELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Contents:
    """What a format module reads and writes.

    Attributes
    ----------
    image : (C, Z, Y, X), numpy or lazy, of any dtype
    spacing, unit, affine, channel_names, source
        As in ``Volume``.
    classes : tuple of LabelClass
        Not empty means: the image holds labels, of these classes.
    """

    image: Any = field(repr=False)
    spacing: Spacing = (1.0, 1.0, 1.0)
    unit: str = PIXEL
    affine: NDArray[np.float64] | None = None
    channel_names: tuple[str, ...] = ()
    classes: tuple[LabelClass, ...] = ()
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.image.shape[0])


def arrange_axes(image: Any, axes: str, path: Path) -> Any:
    """Return an image as (C, Z, Y, X), without copying it.

    Parameters
    ----------
    image : array, numpy or lazy
    axes : str
        A letter for each of its axes, of "TCZYX"; other letters may only have size 1.
    path : Path
        Named in errors.

    Raises
    ------
    InputError
        For a time series, a 2D image, or axes that are neither space nor channel.
    """
    if 0 in image.shape:
        raise InputError(f"{path}: the image is empty, shape {tuple(image.shape)}")
    extended = [axis for axis, n in zip(axes, image.shape, strict=True) if n > 1]
    if len(set(extended)) != len(extended):
        raise InputError(f"{path}: two axes of the same kind ({axes}); save one of them on its own")
    size = dict.fromkeys("TCZYX", 1) | dict(zip(axes, image.shape, strict=True))
    if size["T"] > 1:
        raise InputError(
            f"{path}: a time series of {size['T']} time points; save one of them on its own, or, "
            "if they are slices, say so in the file (Fiji: Image > Properties, slices and frames)"
        )
    if flat := [axis for axis in "ZYX" if size[axis] == 1]:
        hint = " (if its channels are slices, say so: Fiji: Image > Properties)" * (size["C"] > 1)
        raise InputError(
            f"{path}: a 2D image, without extent along {flat[0].lower()}; open a 3D stack{hint}"
        )
    if odd := [axis for axis in extended if axis not in "CZYX"]:
        raise InputError(
            f"{path}: axes {axes} of sizes {tuple(image.shape)}, where {', '.join(odd)} is neither "
            "channel, z, y nor x; save one position along it on its own"
        )
    kept = [axis for axis in axes if axis in "CZYX"]
    image = image[tuple(slice(None) if axis in kept else 0 for axis in axes)]
    if "C" not in kept:
        return image.transpose([kept.index(axis) for axis in "ZYX"])[None]
    return image.transpose([kept.index(axis) for axis in "CZYX"])


def guess_axes(known: str, shape: Sequence[int], path: Path) -> str:
    """Name the axes that a file leaves open ("Q"): z, or channel (up to four) and z.

    Raises
    ------
    InputError
        If there are more of them, or the first has more than four entries.
    """
    unnamed = [i for i, axis in enumerate(known) if axis == "Q" and shape[i] > 1]
    free = [axis for axis in "CZ" if axis not in known]
    names = free[-len(unnamed) :] if unnamed else []
    if len(names) < len(unnamed) or any(
        shape[i] > MAX_CHANNELS for i, name in zip(unnamed, names, strict=True) if name == "C"
    ):
        raise InputError(
            f"{path}: shape {tuple(shape)} without names for its axes; expected (z, y, x), or "
            f"(channel, z, y, x) with 1 to {MAX_CHANNELS} channels"
        )
    letters = list(known)
    for i, axis in zip(unnamed, names, strict=True):
        letters[i] = axis
    return "".join(letters)


def color_image(path: Path) -> InputError:
    """Return the error for an RGB image."""
    return InputError(
        f"{path}: a color (RGB) image; split it into gray-value channels first "
        "(Fiji: Image > Color > Split Channels, then Merge Channels) and keep those that matter"
    )


def notes_to_text(classes: Sequence[LabelClass], affine: NDArray[np.float64] | None = None) -> str:
    """Write what a format has no field for as one line of ASCII JSON, or "" if there is nothing."""
    notes: dict[str, Any] = {}
    if classes:
        notes["classes"] = [[c.id, c.name, c.color] for c in classes]
    if affine is not None:
        notes["affine"] = affine.tolist()
    return json.dumps(notes) if notes else ""


def notes_from_text(text: str) -> tuple[tuple[LabelClass, ...], NDArray[np.float64] | None]:
    """Read the classes and the affine that ``notes_to_text`` wrote."""
    notes = json.loads(text) if text else {}
    affine = np.array(notes["affine"], np.float64) if "affine" in notes else None
    return tuple(LabelClass(*entry) for entry in notes.get("classes", ())), affine
