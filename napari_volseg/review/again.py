"""What was said of objects, said again of a mask in which they may be others by now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import BACKGROUND
from napari_volseg.data.tiles import around, relative
from napari_volseg.review.edits import make_edit, say_of
from napari_volseg.review.kept import most_shared
from napari_volseg.review.queue import LOCKED, REJECTED, UNREVIEWED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.kept import KeptObject
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
    met = {int(n) for one in others for n in np.unique(objects.labels[one.box][one.member]) if n}
    boxes = [objects.get(n).box for n in {*states, *met}]
    box = around([*boxes, *(one.box for one in others)])
    ids, mask = objects.labels[box].copy(), review.mask[box].copy()
    classes = {n: objects.get(n).mask_label for n in {*states, *met}}
    spare = sorted(n for n in met if states.get(n) == UNREVIEWED)
    replaced = np.isin(ids, spare)
    ids[replaced], mask[replaced] = 0, BACKGROUND
    unreviewed = [n for n in met if review.states.get(n, UNREVIEWED) == UNREVIEWED]
    last = objects.last_id
    for one in others:
        if spare:
            number = spare.pop(0)
        else:
            number = last = last + 1
        there = ids[relative(one.box, box)]
        free = np.isin(there, [0, *unreviewed] if one.state in LOCKED else [0])
        there[one.member & free] = number
        classes[number], states[number] = one.class_id, one.state
    for number, state in states.items():
        mask[ids == number] = BACKGROUND if state == REJECTED else classes[number]
    return make_edit(review, name, box, ids, mask, classes, states)


def _same(objects: Objects, one: KeptObject) -> int:
    """Return the object of exactly these voxels and this class, 0 if there is none."""
    at, shared = most_shared(objects.labels, one)
    if not at or objects.get(at).mask_label != one.class_id:
        return 0
    return at if shared == objects.get(at).voxels == np.count_nonzero(one.member) else 0
