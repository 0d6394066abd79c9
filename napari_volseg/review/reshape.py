"""Edits of a review that change the shape of an object: fill, smooth, merge, split, paint."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.errors import InputError
from napari_volseg.data.parts import parts_of
from napari_volseg.data.tiles import around, crop_around, meet, relative, start_of
from napari_volseg.review.edits import make_edit, values_after
from napari_volseg.review.fixes import MARGIN, bridge, fill_holes, find_seeds, smooth, split
from napari_volseg.review.queue import CORRECTED
from napari_volseg.review.room import check_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region
    from napari_volseg.review.edits import Edit, Review

    Labels = NDArray[np.integer]
    Triple = tuple[float, float, float]


def with_holes_filled(review: Review, number: int) -> Edit:
    """Return the edit that fills the cavities of an object, but not with other objects' voxels."""
    box = _readable(review, review.objects.get(number).box)
    member = fill_holes(review.objects.labels[box] == number)
    return _reshaped(review, f"fill holes of object {number}", number, [(box, member)])


def smoothed(review: Review, number: int, spacing: Triple) -> Edit:
    """Return the edit that smooths an object."""
    box = _grown(review, review.objects.get(number).box)
    member = smooth(review.objects.labels[box] == number, spacing)
    return _reshaped(review, f"smooth object {number}", number, [(box, member)])


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
    return _reshaped(review, f"merge objects {names}", first, [(box, member)], others)


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
    box = _readable(review, found.box)
    start = start_of(box)
    if not all(side.start <= p < side.stop for s in seeds for p, side in zip(s, box, strict=True)):
        raise InputError("a place that was clicked is outside the object; click again")
    inside = [(z - start[0], y - start[1], x - start[2]) for z, y, x in seeds]
    before = review.objects.labels[box]
    parts = split(before == number, inside, spacing)
    new_ids = np.arange(len(seeds) + 1) + review.objects.last_id - 1
    new_ids[:2] = 0, number
    ids = np.where(before == number, new_ids[parts], before).astype(np.int32)
    classes = {int(n): found.mask_label for n in new_ids[1:]}
    return _edit(review, f"split object {number}", [(box, ids)], classes)


def proposed_cut(
    review: Review, number: int, spacing: Triple
) -> tuple[list[tuple[int, int, int]], Region, NDArray[np.int32]] | None:
    """Return seeds to split an object at, its box, and the objects there after the cut.

    None if it has one part.
    """
    box = _readable(review, review.objects.get(number).box)
    inside = find_seeds(review.objects.labels[box] == number, spacing)
    if not inside:
        return None
    seeds = [(z + box[0].start, y + box[1].start, x + box[2].start) for z, y, x in inside]
    edit = cut(review, number, seeds, spacing)
    (ids,) = values_after(edit.ids, review.objects.labels, [box])
    return seeds, box, ids


def painted(review: Review, number: int, box: Region, annotation: AnyLabels) -> Edit:
    """Return the edit that makes an object of what is painted in a box.

    There, voxels with its class join it, unless they belong to another; those of it without
    leave it.

    Parameters
    ----------
    annotation : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
        In which all of the object was labeled before this was painted.
    """
    found, labels = review.objects.get(number), review.objects.labels

    def pieces() -> Iterator[tuple[Region, NDArray[np.bool_]]]:
        for part, _ in parts_of(labels, [box, found.box]):
            member, here = labels[part] == number, meet(box, part)
            member[relative(here, part)] = annotation[here] == found.mask_label
            yield part, member

    return _reshaped(review, f"paint object {number}", number, pieces())


def _readable(review: Review, box: Region) -> Region:
    """Return a box that is to be read as a whole.

    Raises
    ------
    InputError
        If it does not fit into the memory.
    """
    check_room(review.mask, box, "what is that large can be accepted, rejected and painted on")
    return box


def _grown(review: Review, box: Region) -> Region:
    z, y, x = review.mask.shape
    return _readable(review, crop_around(box, (MARGIN,) * 3, (1, 1, 1), (z, y, x))[0])


def _reshaped(
    review: Review,
    name: str,
    number: int,
    pieces: Iterable[tuple[Region, NDArray[np.bool_]]],
    others: Sequence[int] = (),
) -> Edit:
    """Return the edit after which an object has these voxels of boxes, as far as they are free.

    Free is what belongs to no object, or to it, or to the others, which it takes up.
    """

    def changed() -> Iterator[tuple[Region, NDArray[np.int32]]]:
        for box, member in pieces:
            ids = review.objects.labels[box].copy()
            own = np.isin(ids, [number, *others])
            free = own | (ids == 0)
            ids[own] = 0
            ids[member & free] = number
            yield box, ids

    classes = {n: review.objects.get(n).mask_label for n in (number, *others)}
    return _edit(review, name, changed(), classes)


def _edit(
    review: Review,
    name: str,
    pieces: Iterable[tuple[Region, NDArray[np.int32]]],
    classes: Mapping[int, int],
) -> Edit:
    def changed() -> Iterator[tuple[Region, NDArray[np.int32], Labels]]:
        for box, ids in pieces:
            before = review.objects.labels[box]
            mask = review.mask[box].copy()
            mask[np.isin(before, list(classes)) & (ids == 0)] = BACKGROUND
            for number, class_id in classes.items():
                mask[ids == number] = class_id
            yield box, ids, mask

    return make_edit(review, name, changed(), classes, dict.fromkeys(classes, CORRECTED))
