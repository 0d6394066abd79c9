"""Changes that a review makes to a mask, its objects and the annotation, each with its opposite.

An edit says what a box is to hold. Applying it gives the edit that takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import BACKGROUND, UNLABELED
from napari_volseg.data.errors import InputError
from napari_volseg.data.tiles import around, crop_around, relative
from napari_volseg.review.fixes import MARGIN, bridge, fill_holes, find_seeds, smooth, split
from napari_volseg.review.kept import describe_object
from napari_volseg.review.objects import Objects
from napari_volseg.review.queue import CORRECTED, REJECTED, UNREVIEWED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region

    Labels = NDArray[np.integer]
    Triple = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Review:
    """A mask under review.

    Attributes
    ----------
    objects : Objects
    mask : uint8 or uint16 (Z, Y, X)
        What is left of the prediction; edits change it and ``objects.labels`` in place.
    states : mapping of object id to str
        Of the reviewed ones.
    """

    objects: Objects
    mask: Labels = field(repr=False)
    states: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class Edit:
    """What a box is to hold.

    Attributes
    ----------
    name : str
    box : region
        Holds all of the objects that are changed.
    ids : int32 (z, y, x)
        The object of each voxel.
    mask : uint8 or uint16 (z, y, x)
    classes : mapping of object id to class id
        Of the objects whose voxels change.
    states : mapping of object id to str
    """

    name: str
    box: Region
    ids: NDArray[np.int32] = field(repr=False)
    mask: Labels = field(repr=False)
    classes: Mapping[int, int]
    states: Mapping[int, str]

    def annotate(self, before: Labels, annotation: Labels) -> Labels:
        """Return what the annotation of the box becomes: all that the edit is sure of.

        What it changes is written over what was painted; the rest of its objects only to
        where nothing is painted. What is no longer rejected or corrected is taken out again.

        Parameters
        ----------
        before : uint8 or uint16 (z, y, x)
            The mask without the edit.
        annotation : uint8 or uint16 (z, y, x)
        """
        changed = before != self.mask
        if not {REJECTED, CORRECTED} & set(self.states.values()):
            withdrawn = changed & (annotation == before)
            return np.where(withdrawn, annotation.dtype.type(UNLABELED), annotation)
        told = changed | (np.isin(self.ids, list(self.states)) & (annotation == UNLABELED))
        return np.where(told, self.mask, annotation).astype(annotation.dtype)


def apply(review: Review, edit: Edit) -> tuple[Review, Edit]:
    """Put an edit into a review; return the review, and what takes it back."""
    labels, box = review.objects.labels, edit.box
    back = Edit(
        edit.name,
        box,
        labels[box].copy(),
        review.mask[box].copy(),
        edit.classes,
        {n: review.states.get(n, UNREVIEWED) for n in edit.states},
    )
    labels[box] = edit.ids
    review.mask[box] = edit.mask
    found = {o.id: o for o in review.objects.found}
    for number, class_id in edit.classes.items():
        member = edit.ids == number
        if member.any():
            found[number] = describe_object(number, class_id, member, box)
        else:
            found.pop(number, None)
    objects = Objects(labels, tuple(found[n] for n in sorted(found)))
    states = {**review.states, **edit.states}
    left = {n: state for n, state in states.items() if n in found and state != UNREVIEWED}
    return Review(objects, review.mask, left), back


def say_of(review: Review, name: str, states: Mapping[int, str]) -> Edit:
    """Return the edit that says something of objects, and leaves them as they are."""
    nowhere = (slice(0, 0),) * 3
    return Edit(name, nowhere, review.objects.labels[nowhere], review.mask[nowhere], {}, states)


def reject(review: Review, number: int) -> Edit:
    """Return the edit that takes an object for background."""
    return _whole(review, number, f"reject object {number}", BACKGROUND, REJECTED)


def restore(review: Review, number: int, state: str = UNREVIEWED) -> Edit:
    """Return the edit that puts a rejected object back."""
    class_id = review.objects.get(number).mask_label
    return _whole(review, number, f"restore object {number}", class_id, state)


def taken(review: Review, number: int) -> Edit:
    """Return the edit that makes an object, as it is, a correction, to be painted on."""
    class_id = review.objects.get(number).mask_label
    return _whole(review, number, f"correct object {number}", class_id, CORRECTED)


def _whole(review: Review, number: int, name: str, value: int, state: str) -> Edit:
    box = review.objects.get(number).box
    ids = review.objects.labels[box].copy()
    mask = np.where(ids == number, review.mask.dtype.type(value), review.mask[box])
    return Edit(name, box, ids, mask, {}, {number: state})


def with_holes_filled(review: Review, number: int) -> Edit:
    """Return the edit that fills the cavities of an object, but not with other objects' voxels."""
    box = review.objects.get(number).box
    member = fill_holes(review.objects.labels[box] == number)
    return _reshaped(review, f"fill holes of object {number}", number, box, member)


def smoothed(review: Review, number: int, spacing: Triple) -> Edit:
    """Return the edit that smooths an object."""
    box = _grown(review, review.objects.get(number).box)
    member = smooth(review.objects.labels[box] == number, spacing)
    return _reshaped(review, f"smooth object {number}", number, box, member)


def merged(review: Review, numbers: Sequence[int], spacing: Triple) -> Edit:
    """Return the edit that makes objects one, of the first one's id and class.

    Raises
    ------
    InputError
        For fewer than two objects.
    """
    if len(numbers) < 2:
        raise InputError("select the objects to merge in the table: two or more (with Ctrl)")
    box = _grown(review, around([review.objects.get(n).box for n in numbers]))
    ids = review.objects.labels[box]
    first, *others = numbers
    member = ids == first
    for other in others:
        member = bridge(member, ids == other, spacing)
    names = " and ".join(str(n) for n in numbers)
    return _reshaped(review, f"merge objects {names}", first, box, member, others)


def cut(
    review: Review, number: int, seeds: Sequence[tuple[int, int, int]], spacing: Triple
) -> Edit:
    """Return the edit that splits an object at seeds, voxels (z, y, x) of the mask.

    The first part keeps the id.

    Raises
    ------
    InputError
        As ``fixes.split``.
    """
    found = review.objects.get(number)
    box = found.box
    start = [side.start for side in box]
    if not all(side.start <= p < side.stop for s in seeds for p, side in zip(s, box, strict=True)):
        raise InputError("a place that was clicked is outside the object; click again")
    inside = [(z - start[0], y - start[1], x - start[2]) for z, y, x in seeds]
    before = review.objects.labels[box]
    parts = split(before == number, inside, spacing)
    new_ids = np.arange(len(seeds) + 1) + review.objects.last_id - 1
    new_ids[:2] = 0, number
    ids = np.where(before == number, new_ids[parts], before).astype(np.int32)
    classes = {int(n): found.mask_label for n in new_ids[1:]}
    return _edit(review, f"split object {number}", box, ids, classes)


def proposed_cut(
    review: Review, number: int, spacing: Triple
) -> tuple[list[tuple[int, int, int]], Edit] | None:
    """Return seeds to split an object at, and the edit they lead to; None if it has one part."""
    box = review.objects.get(number).box
    inside = find_seeds(review.objects.labels[box] == number, spacing)
    if not inside:
        return None
    seeds = [(z + box[0].start, y + box[1].start, x + box[2].start) for z, y, x in inside]
    return seeds, cut(review, number, seeds, spacing)


def painted(review: Review, number: int, box: Region, annotation: Labels) -> Edit:
    """Return the edit that makes an object of what is painted in a box.

    There, voxels with its class join it, unless they belong to another; those of it without
    leave it.

    Parameters
    ----------
    annotation : uint8 or uint16 (Z, Y, X)
        In which all of the object was labeled before this was painted.
    """
    found = review.objects.get(number)
    outer = around([box, found.box])
    member = review.objects.labels[outer] == number
    member[relative(box, outer)] = annotation[box] == found.mask_label
    return _reshaped(review, f"paint object {number}", number, outer, member)


def _grown(review: Review, box: Region) -> Region:
    z, y, x = review.mask.shape
    return crop_around(box, (MARGIN,) * 3, (1, 1, 1), (z, y, x))[0]


def _reshaped(
    review: Review,
    name: str,
    number: int,
    box: Region,
    member: NDArray[np.bool_],
    others: Sequence[int] = (),
) -> Edit:
    """Return the edit after which an object has these voxels of a box, as far as they are free.

    Free is what belongs to no object, or to it, or to the others, which it takes up.
    """
    ids = review.objects.labels[box].copy()
    own = np.isin(ids, [number, *others])
    free = own | (ids == 0)
    ids[own] = 0
    ids[member & free] = number
    classes = {n: review.objects.get(n).mask_label for n in (number, *others)}
    return _edit(review, name, box, ids, classes)


def _edit(
    review: Review, name: str, box: Region, ids: NDArray[np.int32], classes: Mapping[int, int]
) -> Edit:
    before = review.objects.labels[box]
    mask = review.mask[box].copy()
    mask[np.isin(before, list(classes)) & (ids == 0)] = BACKGROUND
    for number, class_id in classes.items():
        mask[ids == number] = class_id
    return Edit(name, box, ids, mask, classes, dict.fromkeys(classes, CORRECTED))
