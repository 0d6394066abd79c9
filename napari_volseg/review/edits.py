"""Changes that a review makes to a mask, its objects and the annotation, each with its opposite.

An edit keeps, compressed, what is to become of objects and mask. Applying it gives the edit that
takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import BACKGROUND, UNLABELED
from napari_volseg.data.corrections import marking_act
from napari_volseg.data.errors import InputError
from napari_volseg.data.history import Act, exchange, make_act, unpack
from napari_volseg.data.tiles import around, crop_around, relative
from napari_volseg.review.fixes import MARGIN, bridge, fill_holes, find_seeds, smooth, split
from napari_volseg.review.kept import describe_object
from napari_volseg.review.objects import Objects
from napari_volseg.review.queue import CORRECTED, REJECTED, UNREVIEWED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.corrections import Corrections
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
    """What a review is to become.

    Attributes
    ----------
    name : str
    box : region
        Holds all of the objects that are changed.
    ids, mask : Act
        Put the object of each voxel, and the mask, where they become others.
    classes : mapping of object id to class id
        Of the objects whose voxels change.
    states : mapping of object id to str
    """

    name: str
    box: Region
    ids: Act = field(repr=False)
    mask: Act = field(repr=False)
    classes: Mapping[int, int]
    states: Mapping[int, str]

    @cached_property
    def size_bytes(self) -> int:
        """About how much memory its voxels take."""
        return self.ids.size_bytes + self.mask.size_bytes

    def annotate(self, review: Review, annotation: Labels) -> Labels:
        """Return what the annotation of the box becomes: all that the edit is sure of.

        What it changes is written over what was painted; the rest of its objects only to
        where nothing is painted. What is no longer rejected or corrected is taken out again.

        Parameters
        ----------
        review : Review
            Without the edit.
        annotation : uint8 or uint16 (z, y, x)
            Of the box.
        """
        before = review.mask[self.box]
        mask = _with(self.mask, before, self.box)
        changed = before != mask
        if not {REJECTED, CORRECTED} & set(self.states.values()):
            withdrawn = changed & (annotation == before)
            return np.where(withdrawn, annotation.dtype.type(UNLABELED), annotation)
        ids = _with(self.ids, review.objects.labels[self.box], self.box)
        rest = ids != 0
        rest &= annotation == UNLABELED
        rest &= ~changed
        told = changed
        told[rest] = np.isin(ids[rest], list(self.states))
        return np.where(told, mask, annotation).astype(annotation.dtype)

    def painted(self, review: Review) -> set[int]:
        """Return the classes that it paints into the annotation; ``review`` is without it."""
        corrected = [n for n, state in self.states.items() if state == CORRECTED]
        known = [review.objects.get(n).mask_label for n in corrected if n in review.objects]
        return {*known, *self.classes.values()} if corrected else set()

    def write(self, review: Review, labels: Labels, corrections: Corrections) -> Act:
        """Return the act that puts what ``annotate`` returns into an annotation, as corrections.

        Parameters
        ----------
        review : Review
            Without the edit.
        labels : uint8 or uint16 (Z, Y, X)
            The annotation.
        corrections : Corrections
            Of the annotation.
        """
        before = labels[self.box]
        pieces = [(self.box, before, self.annotate(review, before))]
        return marking_act(self.name, labels.dtype, pieces, corrections, True)


def _with(act: Act, values: NDArray[Any], box: Region) -> NDArray[Any]:
    """Return the values of a box with an act put into them."""
    if act.patches:
        values = values.copy()
    for patch in act.patches:
        values[relative(patch.box, box)] = unpack(patch, act.dtype)
    return values


def make_edit(
    review: Review,
    name: str,
    box: Region,
    ids: NDArray[np.int32] | None,
    mask: Labels,
    classes: Mapping[int, int],
    states: Mapping[int, str],
) -> Edit:
    """Return the edit after which a box holds these ids, None for those it has, and this mask."""
    labels = review.objects.labels
    put_ids = Act(name, labels.dtype.str)
    if ids is not None:
        put_ids = make_act(name, box, ids, labels[box])
    return Edit(name, box, put_ids, make_act(name, box, mask, review.mask[box]), classes, states)


def apply(review: Review, edit: Edit) -> tuple[Review, Edit]:
    """Put an edit into a review; return the review, and what takes it back."""
    labels = review.objects.labels
    ids, mask = exchange(edit.ids, labels, ()), exchange(edit.mask, review.mask, ())
    found = {o.id: o for o in review.objects.found}
    back = replace(
        edit,
        ids=ids.opposite,
        mask=mask.opposite,
        classes={n: found[n].mask_label if n in found else c for n, c in edit.classes.items()},
        states={n: review.states.get(n, UNREVIEWED) for n in edit.states},
    )
    ids.put(labels)
    mask.put(review.mask)
    for number, class_id in edit.classes.items():
        member = labels[edit.box] == number
        if member.any():
            found[number] = describe_object(number, class_id, member, edit.box)
        else:
            found.pop(number, None)
    objects = Objects(labels, tuple(found[n] for n in sorted(found)))
    states = {**review.states, **edit.states}
    left = {n: state for n, state in states.items() if n in found and state != UNREVIEWED}
    return Review(objects, review.mask, left), back


def say_of(review: Review, name: str, states: Mapping[int, str]) -> Edit:
    """Return the edit that says something of objects, and leaves them as they are."""
    nowhere = (slice(0, 0),) * 3
    return make_edit(review, name, nowhere, None, review.mask[nowhere], {}, states)


def reject(review: Review, number: int) -> Edit:
    """Return the edit that takes an object for background."""
    return reject_all(review, f"reject object {number}", [number])


def reject_all(review: Review, name: str, numbers: Sequence[int]) -> Edit:
    """Return the edit that takes some objects, at least one, for background."""
    labels = review.objects.labels
    boxes = [review.objects.get(n).box for n in numbers]
    box = around(boxes)
    mask = review.mask[box].copy()
    for number, own in zip(numbers, boxes, strict=True):
        mask[relative(own, box)][labels[own] == number] = BACKGROUND
    return make_edit(review, name, box, None, mask, {}, dict.fromkeys(numbers, REJECTED))


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
    ids = review.objects.labels[box]
    mask = np.where(ids == number, review.mask.dtype.type(value), review.mask[box])
    return make_edit(review, name, box, None, mask, {}, {number: state})


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
) -> tuple[list[tuple[int, int, int]], Region, NDArray[np.int32]] | None:
    """Return seeds to split an object at, its box, and the objects there after the cut.

    None if it has one part.
    """
    box = review.objects.get(number).box
    inside = find_seeds(review.objects.labels[box] == number, spacing)
    if not inside:
        return None
    seeds = [(z + box[0].start, y + box[1].start, x + box[2].start) for z, y, x in inside]
    edit = cut(review, number, seeds, spacing)
    return seeds, box, _with(edit.ids, review.objects.labels[box], box)


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
    return make_edit(review, name, box, ids, mask, classes, dict.fromkeys(classes, CORRECTED))
