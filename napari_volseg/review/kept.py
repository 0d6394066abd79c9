"""Objects that a user has reviewed: cut out of one mask, and put into or found in the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.kept import KeptObject, kept_by
from napari_volseg.data.tiles import meet, relative
from napari_volseg.review.objects import FoundObject, Objects, find_objects, make_object
from napari_volseg.review.queue import LOCKED, REJECTED, UNREVIEWED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.history import Act
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


def said_after(kept: Sequence[KeptObject], act: Act) -> tuple[KeptObject, ...]:
    """Return what is said of objects after an act was put."""
    said, unsaid = ([x for x in some if x.name != UNREVIEWED] for some in (act.said, act.unsaid))
    gone = {_contents(one) for one in unsaid}
    left = [one for one in kept if _contents(one.act) not in gone]
    if len(left) > len(kept) - len(gone):
        # In another mask, an object was found with other voxels.
        left = _apart(left, [kept_by(one) for one in unsaid])
    now = [kept_by(one) for one in said]
    return (*_apart(left, now), *now)


def _contents(act: Act) -> tuple[Any, ...]:
    """Return what is the same for the same object, also of another session."""
    boxes = [[(side.start, side.stop) for side in p.box] for p in act.patches]
    return act.name, act.dtype, repr(boxes), *(p.voxels for p in act.patches)


def _apart(some: list[KeptObject], others: Sequence[KeptObject]) -> list[KeptObject]:
    """Return those objects that share no voxel with others."""
    if not some:
        return []
    starts, stops = (
        np.array([[getattr(side, end) for side in one.box] for one in some])
        for end in ("start", "stop")
    )
    met: set[int] = set()
    for other in others:
        low, high = zip(*((side.start, side.stop) for side in other.box), strict=True)
        near = np.flatnonzero(((starts < high) & (stops > low)).all(axis=1))
        met.update(int(at) for at in near if overlap(some[at], other))
    return [one for at, one in enumerate(some) if at not in met]


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
            at, shared = most_shared(labels, one)
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


def most_shared(labels: NDArray[np.int32], one: KeptObject) -> tuple[int, int]:
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
