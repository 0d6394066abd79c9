"""The review of a mask, object by object: what is known of each, and which to look at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.parts import parts_of
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import meet, relative

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.labeled import AnyLabels
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


def measure_objects(
    objects: Objects,
    numbers: Iterable[int],
    spacing: tuple[float, float, float],
    doubt: AnyLabels | None,
) -> list[MeasuredObject]:
    """Measure objects of a mask.

    Parameters
    ----------
    numbers : iterable of int
        Their ids.
    spacing : (z, y, x)
    doubt : uint8 (Z, Y, X), numpy or ``SparseLabels``, optional
        As ``doubt_levels`` returns it.
    """
    shape, measured = objects.labels.shape, []
    some = [objects.get(n) for n in numbers]
    doubts = None if doubt is None else _mean_doubts(objects.labels, some, doubt)
    for at, found in enumerate(some):
        extent = [(r.stop - r.start) * s for r, s in zip(found.box, spacing, strict=True)]
        ends = zip(found.box, shape, strict=True)
        measured.append(
            MeasuredObject(
                id=found.id,
                class_id=found.mask_label,
                voxels=found.voxels,
                size=found.voxels * float(np.prod(spacing)),
                extent=(extent[0], extent[1], extent[2]),
                confidence=None if doubts is None else 1 - doubts[at] / 255,
                at_border=any(r.start == 0 or r.stop == n for r, n in ends),
            )
        )
    return measured


def _mean_doubts(labels: AnyLabels, some: Sequence[FoundObject], doubt: AnyLabels) -> list[float]:
    """Return the mean doubt of each object."""
    boxes, sums = [found.box for found in some], [0] * len(some)
    if isinstance(labels, SparseLabels):
        parts = parts_of(labels, boxes)
    else:
        parts = [(box, [at]) for at, box in enumerate(boxes)]
    for part, which in parts:
        ids, values = labels[part], doubt[part]
        for at in which:
            own = relative(meet(boxes[at], part), part)
            sums[at] += int(values[own][ids[own] == some[at].id].sum(dtype=np.int64))
    return [total / found.voxels for total, found in zip(sums, some, strict=True)]


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
    areas = np.zeros(box[axis].stop - box[axis].start, np.int64)
    for part, _ in parts_of(objects.labels, [box]):
        common = meet(part, box)
        inside = relative(common, box)[axis]
        areas[inside] += np.count_nonzero(objects.labels[common] == number, axis=others)
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
