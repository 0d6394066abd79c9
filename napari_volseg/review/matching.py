"""Which objects of one mask another mask has, too: matched, split, merged, missed or extra."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.labeled import labeled_boxes
from napari_volseg.review.queue import largest_slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.review.objects import Objects


@dataclass(frozen=True)
class ObjectCounts:
    """How the objects of A fit those of B, the reference, in one class.

    After Hoover et al. (1996). An object lies in another if more than half of its voxels do.

    Attributes
    ----------
    matched : int
        Pairs that lie in each other, and are part of no split and no merge.
    split : int
        Objects of B that more than half is covered by two or more objects of A that lie in it.
    merged : int
        Objects of A that more than half is covered by two or more objects of B that lie in it.
    missed : int
        Objects of B that are none of these.
    extra : int
        Objects of A that are none of these.
    in_a, in_b : int
        All objects.
    """

    matched: int
    split: int
    merged: int
    missed: int
    extra: int
    in_a: int
    in_b: int


@dataclass(frozen=True)
class Difference:
    """An object that the other mask does not have as it is (see ``ObjectCounts``).

    Attributes
    ----------
    fate : str
        "split" or "missed", an object of B; "merged" or "extra", one of A.
    class_id, voxels : int
    box : region
    largest : (z, y, x)
        For each axis, the slice that holds most of it.
    """

    fate: str
    class_id: int
    voxels: int
    box: Region
    largest: tuple[int, int, int]


def match_objects(a: Objects, b: Objects) -> tuple[dict[int, ObjectCounts], tuple[Difference, ...]]:
    """Count, for each class, how the objects of A fit those of B, and list those that do not."""
    class_a, size_a = _classes_and_sizes(a)
    class_b, size_b = _classes_and_sizes(b)
    of_a, of_b, shared = _overlaps(a, b)
    same = class_a[of_a] == class_b[of_b]
    of_a, of_b, shared = of_a[same], of_b[same], shared[same]

    # An object lies in one other at most: no two have more than half of it. 0 is none.
    home_of_a, home_of_b = np.zeros_like(class_a), np.zeros_like(class_b)
    inside_b, inside_a = 2 * shared > size_a[of_a], 2 * shared > size_b[of_b]
    home_of_a[of_a[inside_b]] = of_b[inside_b]
    home_of_b[of_b[inside_a]] = of_a[inside_a]

    split = _in_parts(of_b[inside_b], shared[inside_b], size_b)
    merged = _in_parts(of_a[inside_a], shared[inside_a], size_a)
    mutual = (home_of_a[home_of_b] == np.arange(len(class_b))) & (home_of_b > 0)
    matched = mutual & ~split & ~merged[home_of_b]
    missed = ~(matched | split | merged[home_of_b])
    extra = ~(merged | split[home_of_a])
    extra[home_of_b[matched]] = False
    counts = {
        int(i): ObjectCounts(
            matched=int((matched & (class_b == i)).sum()),
            split=int((split & (class_b == i)).sum()),
            merged=int((merged & (class_a == i)).sum()),
            missed=int((missed & (class_b == i)).sum()),
            extra=int((extra & (class_a == i)).sum()),
            in_a=int((class_a == i).sum()),
            in_b=int((class_b == i).sum()),
        )
        for i in np.union1d(class_a[1:], class_b[1:])
    }
    fates = (("split", b, split), ("merged", a, merged), ("missed", b, missed), ("extra", a, extra))
    differences = [
        _difference(fate, objects, int(number))
        for fate, objects, has_it in fates
        for number in np.flatnonzero(has_it[1:]) + 1
    ]
    return counts, tuple(sorted(differences, key=lambda d: -d.voxels))


def _difference(fate: str, objects: Objects, number: int) -> Difference:
    found = objects.get(number)
    z, y, x = (largest_slice(objects, number, axis) for axis in range(3))
    return Difference(fate, found.mask_label, found.voxels, found.box, (z, y, x))


def _classes_and_sizes(objects: Objects) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return class and voxels of each object by its id; entry 0 stands for no object."""
    table = [(0, 0), *((o.mask_label, o.voxels) for o in objects.found)]
    classes, sizes = np.array(table, np.int64).T
    return classes, sizes


def _overlaps(
    a: Objects, b: Objects
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of objects that overlap, and the voxels that they share."""
    width = len(b.found) + 1
    codes, shared = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for box in labeled_boxes(a.labels):
        of_a, of_b = a.labels[box], b.labels[box]
        both = (of_a > 0) & (of_b > 0)
        here, voxels = np.unique(
            of_a[both].astype(np.int64) * width + of_b[both], return_counts=True
        )
        codes.append(here)
        shared.append(voxels)
    pairs, which = np.unique(np.concatenate(codes), return_inverse=True)
    total = np.zeros(len(pairs), np.int64)
    np.add.at(total, which, np.concatenate(shared))
    return pairs // width, pairs % width, total


def _in_parts(
    whole: NDArray[np.int64], shared: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say which objects are covered, by more than half, by two or more that lie in them.

    Parameters
    ----------
    whole, shared : (N,)
        For each object that lies in another: the other, and the voxels in it.
    sizes : (M,)
        Voxels of the others.
    """
    parts = np.bincount(whole, minlength=len(sizes))
    covered = np.bincount(whole, weights=shared, minlength=len(sizes))
    return (parts >= 2) & (2 * covered > sizes)
