"""The review of a mask, object by object: what is known of each, and which to look at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.review.objects import FoundObject, Objects

UNREVIEWED = "unreviewed"
ACCEPTED, REJECTED, CORRECTED = "accepted", "rejected", "corrected"
"""What a user may say of an object."""

LOCKED = (ACCEPTED, CORRECTED)
"""What no new prediction changes."""


@dataclass(frozen=True)
class MeasuredObject:
    """What a table tells of an object.

    Attributes
    ----------
    id, class_id, voxels : int
    size : float
        Physical volume, in the cube of the unit.
    extent : (z, y, x)
        Of its box, in the unit.
    confidence : float or None
        1 minus the mean of the normalized entropy over its voxels; None if that is not known.
    at_border : bool
        It touches the border of the volume, so that a part of it may be missing.
    """

    id: int
    class_id: int
    voxels: int
    size: float
    extent: tuple[float, float, float]
    confidence: float | None
    at_border: bool

    @property
    def doubt(self) -> float:
        """The volume of it that is expected to be wrong; all of it where nothing is known."""
        return self.size * (1 - (self.confidence or 0.0))


def measure_object(
    objects: Objects,
    found: FoundObject,
    spacing: tuple[float, float, float],
    doubt: NDArray[np.uint8] | None,
) -> MeasuredObject:
    """Measure one object of a mask.

    Parameters
    ----------
    spacing : (z, y, x)
    doubt : uint8 (Z, Y, X), optional
        As ``doubt_levels`` returns it.
    """
    extent = [(r.stop - r.start) * s for r, s in zip(found.box, spacing, strict=True)]
    shape = objects.labels.shape
    mean = None
    if doubt is not None:
        member = objects.labels[found.box] == found.id
        mean = 1 - float(doubt[found.box][member].mean()) / 255
    return MeasuredObject(
        id=found.id,
        class_id=found.mask_label,
        voxels=found.voxels,
        size=found.voxels * float(np.prod(spacing)),
        extent=(extent[0], extent[1], extent[2]),
        confidence=mean,
        at_border=any(r.start == 0 or r.stop == n for r, n in zip(found.box, shape, strict=True)),
    )


def queue_order(measured: Iterable[MeasuredObject]) -> list[int]:
    """Return the ids of objects, those first where most volume is expected to be wrong."""
    return [m.id for m in sorted(measured, key=lambda m: (-m.doubt, m.id))]


def reviewed_share(
    measured: Sequence[MeasuredObject], states: Mapping[int, str]
) -> tuple[float, float]:
    """Return which part of the objects, and of their volume, is reviewed, 0 to 1."""
    reviewed = [m for m in measured if states.get(m.id, UNREVIEWED) != UNREVIEWED]
    voxels = sum(m.voxels for m in measured)
    if not measured or not voxels:
        return 0.0, 0.0
    return len(reviewed) / len(measured), sum(m.voxels for m in reviewed) / voxels


def largest_slice(objects: Objects, number: int, axis: int) -> int:
    """Return the slice across an axis in which an object has most voxels."""
    box = objects.get(number).box
    others = tuple(a for a in range(3) if a != axis)
    areas = np.count_nonzero(objects.labels[box] == number, axis=others)
    return int(box[axis].start + np.argmax(areas))


def review_table(
    objects: Objects,
    measured: Iterable[MeasuredObject],
    states: Mapping[int, str],
    classes: Sequence[LabelClass],
    spacing: tuple[float, float, float],
    unit: str,
) -> list[dict[str, Any]]:
    """Return a row of plain values for each object, for ``write_table``."""
    names = {c.id: c.name for c in classes}
    rows = []
    for m in measured:
        row: dict[str, Any] = {
            "object": m.id,
            "class": names.get(m.class_id, str(m.class_id)),
            "label": m.class_id,
            "state": states.get(m.id, UNREVIEWED),
            "confidence": "" if m.confidence is None else round(m.confidence, 4),
            "voxels": m.voxels,
            f"volume_{unit}3": m.size,
            "touches_border": m.at_border,
        }
        center = objects.get(m.id).center
        for axis, length, middle, step in zip("zyx", m.extent, center, spacing, strict=True):
            row[f"extent_{axis}_{unit}"] = length
            row[f"center_{axis}_{unit}"] = middle * step
        rows.append(row)
    return rows
