"""Objects that a user has reviewed: cut out of one mask, and put into or found in the next."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import BACKGROUND, UNLABELED
from napari_volseg.data.kept import LARGE_BOX, KeptObject, kept_by, unlabeled_box
from napari_volseg.data.parts import parts_of, put_where
from napari_volseg.data.progress import result_of
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import box_size, meet, relative
from napari_volseg.review.objects import FoundObject, Objects, Tally, finding_objects
from napari_volseg.review.queue import LOCKED, REJECTED, UNREVIEWED

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.history import Act
    from napari_volseg.data.labeled import AnyLabels
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
    (kept,) = cut_out_all(objects, {number: state})
    return kept


def cut_out_all(objects: Objects, states: Mapping[int, str]) -> list[KeptObject]:
    """Return some objects as they are now, each with what is said of it."""
    labels, boxes = objects.labels, [objects.get(n).box for n in states]
    if not isinstance(labels, SparseLabels):
        members = [labels[box] == n for n, box in zip(states, boxes, strict=True)]
    else:
        members = [unlabeled_box(box, bool, box_size(box) > LARGE_BOX) for box in boxes]
        numbers = list(states)
        # Each block is unpacked once, however many of them lie in it.
        for part, which in parts_of(labels, boxes):
            ids = labels[part]
            for at in which:
                common = meet(boxes[at], part)
                inside = ids[relative(common, part)] == numbers[at]
                members[at][relative(common, boxes[at])] = inside
    return [
        KeptObject(objects.get(n).mask_label, state, box, member)
        for (n, state), box, member in zip(states.items(), boxes, members, strict=True)
    ]


def put_kept(labels: NDArray[np.integer], region: Region, kept: Iterable[KeptObject]) -> None:
    """Write kept objects into the labels of a region, in place; rejected ones as background.

    Parameters
    ----------
    labels : integer, of the region's shape
    """
    for one in near(kept, region):
        common = meet(one.box, region)
        inside = one.member[relative(common, one.box)]
        labels[relative(common, region)][inside] = value_of(one)


def near(kept: Iterable[KeptObject], region: Region) -> list[KeptObject]:
    """Return those objects of which the boxes meet a region; there may be thousands."""
    (z0, z1), (y0, y1), (x0, x1) = ((side.start, side.stop) for side in region)
    found = []
    for one in kept:
        # Written out, it is ten times as fast: each stroke of a brush waits for it.
        z, y, x = one.box
        if z.start < z1 and z0 < z.stop and y.start < y1 and y0 < y.stop:
            if x.start < x1 and x0 < x.stop:
                found.append(one)
    return found


def contradictions(
    region: Region,
    before: NDArray[np.integer],
    after: NDArray[np.integer],
    kept: Iterable[KeptObject],
) -> tuple[NDArray[np.bool_], list[KeptObject]]:
    """Find where a change of an annotation gives kept objects another class than theirs.

    Parameters
    ----------
    region : region
    before, after : integer, of the region's shape
        What becomes unlabeled contradicts nothing.

    Returns
    -------
    where : bool, of the region's shape
    against : list of KeptObject
        The objects that lie there.
    """
    where, against = np.zeros(after.shape, bool), []
    for one in kept:
        common = meet(one.box, region)
        inside = relative(common, region)
        new = after[inside]
        other = (new != before[inside]) & (new != UNLABELED) & (new != one.class_id)
        other &= one.member[relative(common, one.box)]
        if other.any():
            where[inside] |= other
            against.append(one)
    return where, against


def put_all_kept(labels: AnyLabels, kept: Iterable[KeptObject]) -> None:
    """Write kept objects into labels (Z, Y, X), in place; rejected ones as background."""
    put_where(labels, ((one.box, one.member, value_of(one)) for one in kept))


def value_of(one: KeptObject) -> int:
    """Return what a mask holds where a kept object is."""
    return BACKGROUND if one.state == REJECTED else one.class_id


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


def find_objects_around(mask: AnyLabels, kept: Sequence[KeptObject]) -> FoundAround:
    """Find the objects of a mask, and among them those of which something was said before.

    Accepted and corrected objects are as they were, whatever the mask says; what touches one
    is an object of its own. A rejected object is found again where the mask has nothing, or
    an object of its class that shares more than half of what the two cover together.

    Parameters
    ----------
    mask : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
        0 (unlabeled) and 1 (background) hold no objects.
    kept : sequence of KeptObject
        Those that the mask has no object for get the last ids, in their order.
    """
    return result_of(finding_around(mask, kept))


def finding_around(
    mask: AnyLabels, kept: Sequence[KeptObject]
) -> Generator[float, None, FoundAround]:
    """Do what ``find_objects_around`` does, and yield how much is done, as ``finding_objects``."""
    locked = [one for one in kept if one.state in LOCKED]
    rest = mask.copy() if locked else mask
    put_where(rest, ((one.box, one.member, UNLABELED) for one in locked))
    objects = yield from finding_objects(rest)
    labels, found = objects.labels, {o.id: o for o in objects.found}
    said: dict[int, KeptObject] = {}

    def add(some: Sequence[KeptObject]) -> None:
        numbers = range(len(found) + 1, len(found) + 1 + len(some))
        pairs = list(zip(numbers, some, strict=True))
        put_where(labels, ((one.box, one.member, number) for number, one in pairs))
        found.update({number: describe_kept(number, one) for number, one in pairs})
        said.update(pairs)

    add(locked)
    unfit = []
    for one in kept:
        if one.state not in LOCKED:
            at, shared = most_shared(labels, one)
            if not at:
                add([one])
            elif (
                at not in said
                and found[at].mask_label == one.class_id
                and 2 * shared > found[at].voxels + one.voxels - shared
            ):
                known = Objects(labels, (found[at],))
                said[at] = cut_out(known, at, one.state)
            else:
                unfit.append(one)
    return FoundAround(Objects(labels, tuple(found.values())), said, tuple(unfit))


def most_shared(labels: AnyLabels, one: KeptObject) -> tuple[int, int]:
    """Return the object that shares most voxels with another, and how many; 0 if none does."""
    shared: Counter[int] = Counter()
    for box, inside in one.pieces():
        ids, counts = np.unique(labels[box][inside], return_counts=True)
        shared.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
    del shared[0]
    return max(shared.items(), key=lambda pair: (pair[1], -pair[0]), default=(0, 0))


def overlap(one: KeptObject, other: KeptObject) -> bool:
    """Whether two objects share a voxel."""
    common = meet(one.box, other.box)
    if not box_size(common):
        return False
    if isinstance(one.member, np.ndarray):
        one, other = other, one
    for box, inside in one.pieces():
        both = meet(common, box)
        if (inside[relative(both, box)] & other.member[relative(both, other.box)]).any():
            return True
    return False


def describe_kept(number: int, one: KeptObject) -> FoundObject:
    """Return the object that a kept one is, under this number."""
    tally = Tally()
    for box, inside in one.pieces():
        tally.add(box, inside)
    return tally.describe(number, one.class_id)
