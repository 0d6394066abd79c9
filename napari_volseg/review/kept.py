"""Objects that a user has reviewed: cut out of one mask, and put into or found in the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.kept import KeptObject
from napari_volseg.data.tiles import meet, relative
from napari_volseg.review.objects import FoundObject, Objects, find_objects, make_object
from napari_volseg.review.queue import LOCKED, REJECTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region


@dataclass(frozen=True, eq=False)
class FoundAround:
    """The objects of a mask with what was said before of some of them.

    Attributes
    ----------
    objects : Objects
    kept : mapping of object id to KeptObject
        Those of which something was said, as they are in this mask.
    unfit : tuple of KeptObject
        Rejected ones that this mask has other objects in the place of.
    """

    objects: Objects
    kept: Mapping[int, KeptObject]
    unfit: tuple[KeptObject, ...]


def cut_out(objects: Objects, number: int, state: str) -> KeptObject:
    """Return an object as it is now."""
    found = objects.get(number)
    member = objects.labels[found.box] == number
    return KeptObject(found.mask_label, state, found.box, member)


def put_kept(labels: NDArray[np.integer], region: Region, kept: Iterable[KeptObject]) -> None:
    """Write kept objects into the labels of a region, in place; rejected ones as background.

    Parameters
    ----------
    labels : integer, of the region's shape
    """
    for one in kept:
        # There may be thousands, of which few lie here.
        if all(a.start < b.stop and b.start < a.stop for a, b in zip(one.box, region, strict=True)):
            common = meet(one.box, region)
            inside = one.member[relative(common, one.box)]
            value = BACKGROUND if one.state == REJECTED else one.class_id
            labels[relative(common, region)][inside] = value


def find_objects_around(mask: NDArray[np.integer], kept: Sequence[KeptObject]) -> FoundAround:
    """Find the objects of a mask, and among them those of which something was said before.

    Accepted and corrected objects are as they were, whatever the mask says; what touches one
    is an object of its own. A rejected object is found again where the mask has nothing, or
    an object of its class that shares more than half of what the two cover together.

    Parameters
    ----------
    mask : uint8 or uint16 (Z, Y, X)
        0 (unlabeled) and 1 (background) hold no objects.
    kept : sequence of KeptObject
        Those that the mask has no object for get the last ids, in their order.
    """
    locked = [one for one in kept if one.state in LOCKED]
    rest = mask.copy() if locked else mask
    for one in locked:
        rest[one.box][one.member] = 0
    objects = find_objects(rest)
    labels, found = objects.labels, {o.id: o for o in objects.found}
    said: dict[int, KeptObject] = {}

    def add(one: KeptObject) -> None:
        number = len(found) + 1
        labels[one.box][one.member] = number
        found[number] = describe_object(number, one.class_id, one.member, one.box)
        said[number] = one

    for one in locked:
        add(one)
    unfit = []
    for one in kept:
        if one.state not in LOCKED:
            at, shared = _most_shared(labels, one)
            if not at:
                add(one)
            elif (
                at not in said
                and found[at].mask_label == one.class_id
                and 2 * shared > found[at].voxels + np.count_nonzero(one.member) - shared
            ):
                box = found[at].box
                said[at] = KeptObject(one.class_id, one.state, box, labels[box] == at)
            else:
                unfit.append(one)
    return FoundAround(Objects(labels, tuple(found.values())), said, tuple(unfit))


def _most_shared(labels: NDArray[np.int32], one: KeptObject) -> tuple[int, int]:
    """Return the object that shares most voxels with another, and how many; 0 if none does."""
    ids, shared = np.unique(labels[one.box][one.member], return_counts=True)
    shared[ids == 0] = 0
    at = int(np.argmax(shared))
    return (int(ids[at]), int(shared[at])) if shared[at] else (0, 0)


def overlap(one: KeptObject, other: KeptObject) -> bool:
    """Whether two objects share a voxel."""
    common = meet(one.box, other.box)
    parts = (x.member[relative(common, x.box)] for x in (one, other))
    return bool(np.logical_and(*parts).any())


def describe_object(
    number: int, class_id: int, member: NDArray[np.bool_], box: Region
) -> FoundObject:
    """Return the object that has these voxels of a box; at least one."""
    positions = np.argwhere(member)
    start = [side.start for side in box]
    first, last = positions.min(0) + start, positions.max(0) + start
    sides = [slice(a, b + 1) for a, b in zip(first, last, strict=True)]
    return make_object(number, class_id, len(positions), positions.mean(0) + start, sides)
