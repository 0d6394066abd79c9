"""Two masks of one volume: where they agree, and which objects of one the other has too."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import BACKGROUND, COLORS, UNLABELED, Annotation, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.review.metrics import Evaluation, evaluate
from napari_volseg.review.objects import SMALLEST, find_objects
from napari_volseg.review.queue import largest_slice

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.review.objects import Objects

NEITHER, AGREE, ONLY_A, ONLY_B, OTHER_CLASS = range(1, 6)
"""Values of an agreement map; what is not compared is 0, as all that is unlabeled."""

# Colors that a mask of few classes does not have.
AGREEMENT_CLASSES = (
    LabelClass(NEITHER, "in neither", COLORS[0]),
    LabelClass(AGREE, "agree", COLORS[3]),
    LabelClass(ONLY_A, "only A", COLORS[7]),
    LabelClass(ONLY_B, "only B", COLORS[6]),
    LabelClass(OTHER_CLASS, "another class", COLORS[5]),
)


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


@dataclass(frozen=True, eq=False, kw_only=True)
class MaskComparison:
    """Two masks of one volume, and how they agree.

    Attributes
    ----------
    a, b : Annotation
        The masks; B is the reference, as the truth is.
    names : (str, str)
        What to call them.
    evaluation : Evaluation
        Overlaps, and distances in ``unit``.
    objects : dict of class id to ObjectCounts
        For every class but the background.
    differences : tuple of Difference
        All objects that are not matched, the largest first.
    agreement : uint8 (Z, Y, X)
        The agreement map of all classes.
    unit : str
        Of the evaluation's spacing.
    """

    a: Annotation = field(repr=False)
    b: Annotation = field(repr=False)
    names: tuple[str, str]
    evaluation: Evaluation
    objects: dict[int, ObjectCounts]
    differences: tuple[Difference, ...] = field(repr=False)
    agreement: NDArray[np.uint8] = field(repr=False)
    unit: str

    @property
    def classes(self) -> tuple[LabelClass, ...]:
        """The classes of both, as A names and colors them."""
        known = {c.id: c for c in (*self.b.classes, *self.a.classes)}
        return tuple(known[i] for i in sorted(known))

    def to_json(self) -> dict[str, Any]:
        """Return plain values that json can write."""
        return {
            "a": self.names[0],
            "b": self.names[1],
            **self.evaluation.to_json(),
            "unit": self.unit,
            "names": {str(c.id): c.name for c in self.classes},
            "objects": {str(i): asdict(counts) for i, counts in self.objects.items()},
        }


def compare(
    a: Annotation,
    b: Annotation,
    *,
    names: tuple[str, str] = ("A", "B"),
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
    unit: str = "pixel",
    smallest: int = SMALLEST,
) -> MaskComparison:
    """Compare two masks; a prediction is A and the truth B.

    A voxel counts if it is labeled in both. Objects are connected components of the voxels
    that count.

    Parameters
    ----------
    names : (str, str)
        What to call A and B, here and in errors.
    spacing : (z, y, x)
        Size of a voxel in ``unit``.
    smallest : int
        Objects of fewer voxels are left out.

    Raises
    ------
    InputError
        If the shapes differ, or no voxel is labeled in both.
    """
    if a.labels.shape != b.labels.shape:
        raise InputError(
            f"{names[0]} has shape {a.labels.shape}, {names[1]} {b.labels.shape}; "
            "give masks of the same volume"
        )
    counted = (a.labels != UNLABELED) & (b.labels != UNLABELED)
    if not counted.any():
        raise InputError(
            f"no voxel is labeled in both {names[0]} and {names[1]}; "
            "0 is unlabeled, unless you say that it is the background"
        )
    in_a, in_b = (np.where(counted, mask.labels, UNLABELED) for mask in (a, b))
    evaluation = evaluate(a, in_b, spacing=spacing)
    objects, differences = match_objects(
        find_objects(in_a, smallest=smallest), find_objects(in_b, smallest=smallest)
    )
    return MaskComparison(
        a=a,
        b=b,
        names=names,
        evaluation=evaluation,
        objects=objects,
        differences=differences,
        agreement=map_agreement(a, b),
        unit=unit,
    )


def zero_may_be_background(a: Annotation, b: Annotation) -> bool:
    """Whether the 0 in two masks looks like a background rather than like unlabeled voxels.

    So it does where both hold it, or where one does whose classes are numbered one lower.
    """
    holds_zero = [not mask.labels.all() for mask in (a, b)]
    if all(holds_zero):
        return True
    highest = [int(mask.labels.max()) + zero for mask, zero in zip((a, b), holds_zero, strict=True)]
    return any(holds_zero) and highest[0] == highest[1]


def map_agreement(a: Annotation, b: Annotation, class_id: int | None = None) -> NDArray[np.uint8]:
    """Say of each voxel whether two masks agree there.

    Parameters
    ----------
    a, b : Annotation
        Of the same shape.
    class_id : int, optional
        Look at this class alone; by default at all but the background.

    Returns
    -------
    uint8 (Z, Y, X)
        0 where either is unlabeled, ``NEITHER``, ``AGREE``, ``ONLY_A``, ``ONLY_B``, and, for
        all classes, ``OTHER_CLASS`` where both hold a class but not the same.
    """
    found, true = a.labels, b.labels
    if class_id is None:
        in_a, in_b = found > BACKGROUND, true > BACKGROUND
    else:
        in_a, in_b = found == class_id, true == class_id
    agreement = np.full(found.shape, NEITHER, np.uint8)
    agreement[in_a & ~in_b] = ONLY_A
    agreement[in_b & ~in_a] = ONLY_B
    both = in_a & in_b
    agreement[both & (found == true)] = AGREE
    agreement[both & (found != true)] = OTHER_CLASS
    agreement[(found == UNLABELED) | (true == UNLABELED)] = UNLABELED
    return agreement


def most_different_slice(agreement: NDArray[np.uint8], axis: int) -> int:
    """Return the slice across an axis with most voxels that differ; the middle if none does."""
    others = tuple(i for i in range(3) if i != axis)
    differing = (agreement > AGREE).sum(others)
    return int(differing.argmax()) if differing.any() else agreement.shape[axis] // 2


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
    both = (a.labels > 0) & (b.labels > 0)
    width = len(b.found) + 1
    codes, shared = np.unique(
        a.labels[both].astype(np.int64) * width + b.labels[both], return_counts=True
    )
    return codes // width, codes % width, shared


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
