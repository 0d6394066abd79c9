"""What was said of objects, said again of a mask in which they may be others by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.parts import parts_of
from napari_volseg.data.tiles import meet, relative
from napari_volseg.review.edits import make_edit, say_of
from napari_volseg.review.kept import most_shared
from napari_volseg.review.queue import LOCKED, REJECTED, UNREVIEWED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.tiles import Region
    from napari_volseg.review.edits import Edit, Review
    from napari_volseg.review.objects import Objects


def said_again(
    review: Review, name: str, gone: Sequence[KeptObject], said: Sequence[KeptObject]
) -> Edit:
    """Return the edit after which some things are said of objects, and others no longer.

    An object of which something is no longer said stays one, and comes back if it was rejected,
    unless those said of again take its place. These get their own voxels: of objects that
    nothing is said of all that they need, of the others nothing; rejected ones only free ones.
    """
    objects = review.objects
    states = {n: UNREVIEWED for one in gone if (n := most_shared(objects.labels, one)[0])}
    others = []
    for one in said:
        if number := _same(objects, one):
            states[number] = one.state
        else:
            others.append(one)
    before = {review.states.get(n, UNREVIEWED) for n in states}
    if not others and REJECTED not in {*before, *states.values()}:
        return say_of(review, name, states)
    met = {n for one in others for n in _numbers_in(objects, one)}
    spare = sorted(n for n in met if states.get(n) == UNREVIEWED)
    unreviewed = [n for n in met if review.states.get(n, UNREVIEWED) == UNREVIEWED]
    touched = sorted({*states, *met})
    new = range(objects.last_id + 1, objects.last_id + 1 + len(others))
    numbers = [*spare, *new][: len(others)]
    classes = {n: objects.get(n).mask_label for n in touched}
    classes |= {n: one.class_id for n, one in zip(numbers, others, strict=True)}
    states |= {n: one.state for n, one in zip(numbers, others, strict=True)}
    owners = [*touched, *numbers]
    boxes = [*(objects.get(n).box for n in touched), *(one.box for one in others)]

    def pieces() -> Iterator[tuple[Region, NDArray[np.int32], NDArray[np.integer]]]:
        for part, which in parts_of(objects.labels, boxes):
            ids, mask = objects.labels[part].copy(), review.mask[part].copy()
            replaced = np.isin(ids, spare)
            ids[replaced], mask[replaced] = 0, BACKGROUND
            for at in which:
                if at >= len(touched):
                    one = others[at - len(touched)]
                    common = meet(one.box, part)
                    there = ids[relative(common, part)]
                    free = np.isin(there, [0, *unreviewed] if one.state in LOCKED else [0])
                    there[one.member[relative(common, one.box)] & free] = owners[at]
            for at in which:
                if (state := states.get(owners[at])) is not None:
                    own = relative(meet(boxes[at], part), part)
                    value = BACKGROUND if state == REJECTED else classes[owners[at]]
                    mask[own][ids[own] == owners[at]] = value
            yield part, ids, mask

    return make_edit(review, name, pieces(), classes, states)


def _numbers_in(objects: Objects, one: KeptObject) -> set[int]:
    """Return the objects that have voxels of another."""
    found = (np.unique(objects.labels[box][inside]) for box, inside in one.pieces())
    return {int(n) for ids in found for n in ids if n}


def _same(objects: Objects, one: KeptObject) -> int:
    """Return the object of exactly these voxels and this class, 0 if there is none."""
    at, shared = most_shared(objects.labels, one)
    if not at or objects.get(at).mask_label != one.class_id:
        return 0
    return at if shared == objects.get(at).voxels == one.voxels else 0
