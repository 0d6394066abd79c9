"""Two masks of one volume: where they agree, and which objects of one the other has too."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import (
    BACKGROUND,
    COLORS,
    UNLABELED,
    Annotation,
    LabelClass,
    count_labels,
)
from napari_volseg.data.errors import InputError
from napari_volseg.data.labeled import is_labeled, labeled_boxes, unlabeled_like
from napari_volseg.data.progress import part_of, result_of
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import TILE, tile_grid
from napari_volseg.review.matching import Difference, ObjectCounts, match_objects
from napari_volseg.review.metrics import Evaluation, evaluating
from napari_volseg.review.objects import SMALLEST, finding_objects

if TYPE_CHECKING:
    from collections.abc import Generator

    from numpy.typing import DTypeLike, NDArray

    from napari_volseg.data.labeled import AnyLabels

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
    agreement : uint8 (Z, Y, X), numpy, or ``SparseLabels`` if a mask is
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
    agreement: AnyLabels = field(repr=False)
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
    return result_of(comparing(a, b, names=names, spacing=spacing, unit=unit, smallest=smallest))


def comparing(
    a: Annotation,
    b: Annotation,
    *,
    names: tuple[str, str],
    spacing: tuple[float, float, float],
    unit: str,
    smallest: int = SMALLEST,
) -> Generator[float, None, MaskComparison]:
    """Do what ``compare`` does, and yield how much is done, 0 to 1."""
    if a.labels.shape != b.labels.shape:
        raise InputError(
            f"{names[0]} has shape {a.labels.shape}, {names[1]} {b.labels.shape}; "
            "give masks of the same volume"
        )
    in_a, in_b, agreement = yield from part_of(_looking(a.labels, b.labels), 0, 0.2)
    if not is_labeled(in_b):
        raise InputError(
            f"no voxel is labeled in both {names[0]} and {names[1]}; "
            "0 is unlabeled, unless you say that it is the background"
        )
    objects_a = yield from part_of(finding_objects(in_a, smallest), 0.2, 0.4)
    objects_b = yield from part_of(finding_objects(in_b, smallest), 0.4, 0.6)
    objects, differences = match_objects(objects_a, objects_b)
    evaluation = yield from part_of(evaluating(a, in_b, spacing=spacing), 0.6, 1)
    return MaskComparison(
        a=a,
        b=b,
        names=names,
        evaluation=evaluation,
        objects=objects,
        differences=differences,
        agreement=agreement,
        unit=unit,
    )


def _looking(
    a: AnyLabels, b: AnyLabels
) -> Generator[float, None, tuple[AnyLabels, AnyLabels, AnyLabels]]:
    """Return two masks as far as both are labeled, and their agreement map."""
    in_a, in_b, agreement = (_unlabeled(a, b, dtype) for dtype in (a.dtype, b.dtype, np.uint8))
    tiles = tile_grid(a.shape, (TILE,) * 3)
    for done, tile in enumerate(tiles):
        yield done / len(tiles)
        found, true = a[tile.write], b[tile.write]
        counted = (found != UNLABELED) & (true != UNLABELED)
        in_a[tile.write], in_b[tile.write] = found * counted, true * counted
        agreement[tile.write] = _agreement(found, true, None)
    return in_a, in_b, agreement


def _unlabeled(a: AnyLabels, b: AnyLabels, dtype: DTypeLike) -> AnyLabels:
    """Return labels for two masks; if one of them is too large for an array, so are these."""
    return unlabeled_like(a if isinstance(a, SparseLabels) else b, dtype)


def zero_may_be_background(a: Annotation, b: Annotation) -> bool:
    """Whether the 0 in two masks looks like a background rather than like unlabeled voxels.

    So it does where both hold it, or where one does whose classes are numbered one lower.
    """
    counts = [count_labels(mask.labels) for mask in (a, b)]
    holds_zero = [sum(voxels.values()) < a.labels.size for voxels in counts]
    if all(holds_zero):
        return True
    pairs = zip(counts, holds_zero, strict=True)
    highest = [max(voxels, default=UNLABELED) + zero for voxels, zero in pairs]
    return any(holds_zero) and highest[0] == highest[1]


def map_agreement(a: Annotation, b: Annotation, class_id: int | None = None) -> AnyLabels:
    """Say of each voxel whether two masks agree there.

    Parameters
    ----------
    a, b : Annotation
        Of the same shape.
    class_id : int, optional
        Look at this class alone; by default at all but the background.

    Returns
    -------
    uint8 (Z, Y, X), numpy, or ``SparseLabels`` if a mask is
        0 where either is unlabeled, ``NEITHER``, ``AGREE``, ``ONLY_A``, ``ONLY_B``, and, for
        all classes, ``OTHER_CLASS`` where both hold a class but not the same.
    """
    agreement = _unlabeled(a.labels, b.labels, np.uint8)
    for tile in tile_grid(agreement.shape, (TILE,) * 3):
        found, true = a.labels[tile.write], b.labels[tile.write]
        agreement[tile.write] = _agreement(found, true, class_id)
    return agreement


def _agreement(
    found: NDArray[np.integer], true: NDArray[np.integer], class_id: int | None
) -> NDArray[np.uint8]:
    """Say of each voxel of two arrays what ``map_agreement`` does."""
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


def most_different_slices(agreement: AnyLabels) -> tuple[int, int, int]:
    """Return, for each axis, the slice with most voxels that differ; the middle if none does."""
    differing = [np.zeros(n, np.int64) for n in agreement.shape]
    for box in labeled_boxes(agreement):
        differs = agreement[box] > AGREE
        for axis, side in enumerate(box):
            others = tuple(i for i in range(3) if i != axis)
            differing[axis][side] += np.count_nonzero(differs, axis=others)
    z, y, x = (int(n.argmax()) if n.any() else len(n) // 2 for n in differing)
    return z, y, x
