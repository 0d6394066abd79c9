"""Objects that a user has accepted or corrected: cut out, to outlast the next prediction."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.tiles import meet, relative
from napari_volseg.review.objects import FoundObject, Objects, find_objects, make_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region


@dataclass(frozen=True, eq=False)
class KeptObject:
    """An object, whatever becomes of the mask that it was found in.

    Attributes
    ----------
    class_id : int
    state : str
        "accepted" or "corrected".
    box : region
    member : bool, of the box's shape
    """

    class_id: int
    state: str
    box: Region
    member: NDArray[np.bool_] = field(repr=False)


def cut_out(objects: Objects, number: int, state: str) -> KeptObject:
    """Return an object as it is now."""
    found = objects.get(number)
    member = objects.labels[found.box] == number
    return KeptObject(found.mask_label, state, found.box, member)


def put_kept(labels: NDArray[np.integer], region: Region, kept: Iterable[KeptObject]) -> None:
    """Write kept objects into the labels of a region, in place.

    Parameters
    ----------
    labels : integer, of the region's shape
    """
    for one in kept:
        # There may be thousands, of which few lie here.
        if all(a.start < b.stop and b.start < a.stop for a, b in zip(one.box, region, strict=True)):
            common = meet(one.box, region)
            inside = one.member[relative(common, one.box)]
            labels[relative(common, region)][inside] = one.class_id


def find_objects_around(mask: NDArray[np.integer], kept: Sequence[KeptObject]) -> Objects:
    """Find the objects of a mask, with the kept ones as they are.

    What touches a kept object is an object of its own.

    Parameters
    ----------
    mask : uint8 or uint16 (Z, Y, X)
        0 (unlabeled) and 1 (background) hold no objects.
    kept : sequence of KeptObject
        They get the last ids, in their order.
    """
    rest = mask.copy() if kept else mask
    for one in kept:
        rest[one.box][one.member] = 0
    objects = find_objects(rest)
    last = objects.last_id
    added = []
    for number, one in enumerate(kept, start=last + 1):
        objects.labels[one.box][one.member] = number
        added.append(describe_object(number, one.class_id, one.member, one.box))
    return Objects(objects.labels, (*objects.found, *added))


def describe_object(
    number: int, class_id: int, member: NDArray[np.bool_], box: Region
) -> FoundObject:
    """Return the object that has these voxels of a box; at least one."""
    positions = np.argwhere(member)
    start = [side.start for side in box]
    first, last = positions.min(0) + start, positions.max(0) + start
    sides = [slice(a, b + 1) for a, b in zip(first, last, strict=True)]
    return make_object(number, class_id, len(positions), positions.mean(0) + start, sides)
