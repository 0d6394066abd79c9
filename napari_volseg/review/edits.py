"""Changes that a review makes to a mask, its objects and the annotation, each with its opposite.

An edit keeps, compressed, what is to become of objects and mask: patches of arrays, blocks of
``SparseLabels``. Applying it gives the edit that takes it back.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_volseg.data.annotation import BACKGROUND, UNLABELED
from napari_volseg.data.corrections import marking_act
from napari_volseg.data.history import Act, exchange, make_act, unpack
from napari_volseg.data.parts import parts_of
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.swap import Swap, make_swap
from napari_volseg.data.tiles import absolute, meet, relative
from napari_volseg.review.kept import cut_out_all
from napari_volseg.review.objects import Objects, Tally
from napari_volseg.review.queue import CORRECTED, REJECTED, UNREVIEWED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.history import Patch
    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region
    from napari_volseg.review.objects import FoundObject

    Labels = NDArray[np.integer]
    Change = Act | Swap


@dataclass(frozen=True, eq=False)
class Review:
    """A mask under review.

    Attributes
    ----------
    objects : Objects
    mask : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
        What is left of the prediction; edits change it and ``objects.labels`` in place.
    states : mapping of object id to str
        Of the reviewed ones.
    """

    objects: Objects
    mask: AnyLabels = field(repr=False)
    states: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class Edit:
    """What a review is to become.

    Attributes
    ----------
    name : str
    boxes : tuple of region
        Hold all of the objects that are changed, and do not overlap.
    ids, mask : Act or Swap
        Put the object of each voxel, and the mask, where they become others.
    classes : mapping of object id to class id
        Of the objects whose voxels change.
    states : mapping of object id to str
    kept : mapping of object id to KeptObject
        As they are after it; of those that were cut out before.
    """

    name: str
    boxes: tuple[Region, ...]
    ids: Change = field(repr=False)
    mask: Change = field(repr=False)
    classes: Mapping[int, int]
    states: Mapping[int, str]
    kept: Mapping[int, KeptObject] = field(default_factory=dict, repr=False)

    @cached_property
    def size_bytes(self) -> int:
        """About how much memory its voxels take."""
        kept = sum(one.size_bytes for one in self.kept.values())
        return self.ids.size_bytes + self.mask.size_bytes + kept

    def annotate(
        self, review: Review, annotation: AnyLabels
    ) -> Iterator[tuple[Region, Labels, Labels]]:
        """Yield what the annotation becomes, box by box: all that the edit is sure of.

        What it changes is written over what was painted; the rest of its objects only to
        where nothing is painted. What is no longer rejected or corrected is taken out again.

        Parameters
        ----------
        review : Review
            Without the edit.
        annotation : uint8 or uint16 (Z, Y, X)

        Yields
        ------
        box, what the annotation holds there, and what it is to hold
        """
        numbers = np.array(list(self.states))
        masks = values_after(self.mask, review.mask, self.boxes)
        all_ids = values_after(self.ids, review.objects.labels, self.boxes)
        for box, mask in zip(self.boxes, masks, strict=True):
            painted, before = annotation[box], review.mask[box]
            changed = before != mask
            if not {REJECTED, CORRECTED} & set(self.states.values()):
                withdrawn = changed & (painted == before)
                yield box, painted, np.where(withdrawn, painted.dtype.type(UNLABELED), painted)
                continue
            ids = next(all_ids)
            rest = ids != 0
            rest &= painted == UNLABELED
            rest &= ~changed
            told = changed
            told[rest] = np.isin(ids[rest], numbers)
            yield box, painted, np.where(told, mask, painted).astype(painted.dtype)

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
        pieces = self.annotate(review, labels)
        return marking_act(self.name, labels.dtype, pieces, corrections, True)


def values_after(
    change: Change, labels: AnyLabels, boxes: Sequence[Region]
) -> Iterator[NDArray[Any]]:
    """Yield what boxes of labels hold after a change that was made for these boxes."""
    if isinstance(change, Swap):
        for box in boxes:
            yield change.after[box] if change.boxes else labels[box]
        return
    # Patches are in the order of the boxes.
    left = list(change.patches)[::-1]
    for box in boxes:
        values = labels[box]
        if left and _lies_in(left[-1].box, box):
            values = values.copy()
        while left and _lies_in(left[-1].box, box):
            patch = left.pop()
            values[relative(patch.box, box)] = unpack(patch, change.dtype)
        yield values


def _lies_in(one: Region, other: Region) -> bool:
    return meet(one, other) == one


def make_edit(
    review: Review,
    name: str,
    pieces: Iterable[tuple[Region, NDArray[np.int32] | None, Labels]],
    classes: Mapping[int, int],
    states: Mapping[int, str],
) -> Edit:
    """Return the edit after which boxes hold these ids, None for those they have, and this mask.

    Parameters
    ----------
    pieces : iterable of (box, ids, mask)
        The boxes do not overlap.
    """
    labels, boxes = review.objects.labels, []
    if isinstance(labels, SparseLabels):
        # Copies share what they have in common.
        new_ids, new_mask, id_boxes = labels.copy(), review.mask.copy(), []
        for box, ids, mask in pieces:
            boxes.append(box)
            new_mask[box] = mask
            if ids is not None:
                new_ids[box] = ids
                id_boxes.append(box)
        put_ids: Change = make_swap(labels, new_ids, id_boxes)
        put_mask: Change = make_swap(review.mask, new_mask, boxes)
        return Edit(name, tuple(boxes), put_ids, put_mask, classes, states)
    id_patches: list[Patch] = []
    mask_patches: list[Patch] = []
    for box, ids, mask in pieces:
        boxes.append(box)
        if ids is not None:
            id_patches += make_act(name, box, ids, labels[box]).patches
        mask_patches += make_act(name, box, mask, review.mask[box]).patches
    put_ids = Act(name, labels.dtype.str, tuple(id_patches))
    put_mask = Act(name, review.mask.dtype.str, tuple(mask_patches))
    return Edit(name, tuple(boxes), put_ids, put_mask, classes, states)


def apply(review: Review, edit: Edit) -> tuple[Review, Edit]:
    """Put an edit into a review; return the review, and what takes it back."""
    labels = review.objects.labels
    found = {o.id: o for o in review.objects.found}
    back = replace(
        edit,
        ids=_put(edit.ids, labels),
        mask=_put(edit.mask, review.mask),
        classes={n: found[n].mask_label if n in found else c for n, c in edit.classes.items()},
        states={n: review.states.get(n, UNREVIEWED) for n in edit.states},
        kept={},
    )
    for number in edit.classes:
        found.pop(number, None)
    found |= described(labels, edit.boxes, edit.classes)
    objects = Objects(labels, tuple(found[n] for n in sorted(found)))
    states = {**review.states, **edit.states}
    left = {n: state for n, state in states.items() if n in found and state != UNREVIEWED}
    return Review(objects, review.mask, left), back


def _put(change: Change, labels: AnyLabels) -> Change:
    """Put a change into labels, in place; return what takes it back."""
    if isinstance(change, Swap):
        return change.put(labels)
    ready = exchange(change, labels, ())
    ready.put(labels)
    return ready.opposite


def cut_ahead(review: Review, edit: Edit) -> Edit:
    """Return an edit with those objects cut out that it says something of and leaves whole.

    They are packed as well: with thousands of verdicts, that is most of the work.
    """
    if edit.ids.voxels:
        return edit
    said = {n: state for n, state in edit.states.items() if state != UNREVIEWED}
    kept = dict(zip(said, cut_out_all(review.objects, said), strict=True))
    for one in kept.values():
        one.act  # noqa: B018
    return replace(edit, kept=kept)


def described(
    labels: AnyLabels, boxes: Sequence[Region], classes: Mapping[int, int]
) -> dict[int, FoundObject]:
    """Describe the objects of these classes that have voxels in boxes; they must have all there."""
    tallies, known = {number: Tally() for number in classes}, np.array(list(classes))
    for box in boxes if classes else ():
        ids = labels[box]
        there = np.isin(ids, known)
        present = np.unique(ids[there])
        places = np.zeros(ids.shape, np.int32)
        places[there] = np.searchsorted(present, ids[there]) + 1
        for at, own in enumerate(ndimage.find_objects(places), start=1):
            z, y, x = own
            tallies[int(present[at - 1])].add(absolute((z, y, x), box), places[own] == at)
    return {n: tally.describe(n, classes[n]) for n, tally in tallies.items() if tally.voxels}


def say_of(review: Review, name: str, states: Mapping[int, str]) -> Edit:
    """Return the edit that says something of objects, and leaves them as they are."""
    return make_edit(review, name, [], {}, states)


def reject(review: Review, number: int) -> Edit:
    """Return the edit that takes an object for background."""
    return reject_all(review, f"reject object {number}", [number])


def reject_all(review: Review, name: str, numbers: Sequence[int]) -> Edit:
    """Return the edit that takes some objects, at least one, for background."""
    values = dict.fromkeys(numbers, BACKGROUND)
    return _valued(review, name, values, dict.fromkeys(numbers, REJECTED))


def restore(review: Review, number: int, state: str = UNREVIEWED) -> Edit:
    """Return the edit that puts a rejected object back."""
    values = {number: review.objects.get(number).mask_label}
    return _valued(review, f"restore object {number}", values, {number: state})


def taken(review: Review, number: int) -> Edit:
    """Return the edit that makes an object, as it is, a correction, to be painted on."""
    values = {number: review.objects.get(number).mask_label}
    return _valued(review, f"correct object {number}", values, {number: CORRECTED})


def _valued(
    review: Review, name: str, values: Mapping[int, int], states: Mapping[int, str]
) -> Edit:
    """Return the edit after which the mask has these values where objects are."""
    labels, numbers = review.objects.labels, list(values)
    boxes = [review.objects.get(n).box for n in numbers]

    def pieces() -> Iterator[tuple[Region, None, Labels]]:
        for part, which in parts_of(labels, boxes):
            ids, mask = labels[part], review.mask[part].copy()
            for at in which:
                own = relative(meet(boxes[at], part), part)
                mask[own][ids[own] == numbers[at]] = values[numbers[at]]
            yield part, None, mask

    return make_edit(review, name, pieces(), {}, states)
