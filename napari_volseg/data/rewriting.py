"""Acts that change an annotation at many places: clear it, import labels, remove a class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.data.annotation import UNLABELED, LabelClass, default_classes, with_classes
from napari_volseg.data.corrections import marking_act
from napari_volseg.data.errors import InputError
from napari_volseg.data.history import Act, Patch, make_act, pieces, unpack
from napari_volseg.data.labels import ALL_LABELED, as_labels
from napari_volseg.data.sparse_labels import SparseLabels, labeled_boxes
from napari_volseg.data.tiles import whole_region

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.sparse_labels import AnyLabels
    from napari_volseg.data.tiles import Region


@dataclass(frozen=True, eq=False)
class LabelValues:
    """Labels as a file or a layer holds them; which value means unlabeled may be unknown.

    Attributes
    ----------
    name : str
        Of the file or the layer.
    values : (Z, Y, X)
        Integers, booleans, or floats without fractions.
    found : tuple of int
        The values that occur, ascending.
    classes : tuple of LabelClass
        What the values mean, with 0 as unlabeled; none where nobody said.
    """

    name: str
    values: NDArray[Any] = field(repr=False)
    found: tuple[int, ...]
    classes: tuple[LabelClass, ...] = ()

    @property
    def choices(self) -> tuple[int, ...]:
        """What may mean unlabeled, as ``as_labels`` takes it; the likeliest first."""
        if self.found[0] < 0:
            # No class is below 0.
            return self.found[:1]
        nothing = ALL_LABELED if 0 in self.found else UNLABELED
        return (*self.found, nothing)

    def labels(self, region: Region, unlabeled: int) -> NDArray[np.unsignedinteger]:
        """Return the labels of a region."""
        return as_labels(self.values[region], self.name, unlabeled, 0 in self.found)

    def meaning(self, unlabeled: int) -> dict[int, int]:
        """Return the label that each value becomes.

        Raises
        ------
        InputError
            If there are values that no label can be.
        """
        labels = as_labels(np.array(self.found), self.name, unlabeled, 0 in self.found)
        return dict(zip(self.found, labels.tolist(), strict=True))


def look_at(
    values: NDArray[Any],
    name: str,
    shape: Sequence[int],
    most: int,
    classes: tuple[LabelClass, ...] = (),
) -> LabelValues:
    """Find the values of labels that are to be imported.

    Parameters
    ----------
    values : (Z, Y, X)
    name : str
        Of the file or the layer, for errors.
    shape : (z, y, x)
        Of the annotation.
    most : int
        How many classes there can be.
    classes : tuple of LabelClass
        What the values mean, if that is known.

    Raises
    ------
    InputError
        For another shape, values with fractions, too many of them, or nothing labeled.
    """
    if values.shape != tuple(shape):
        raise InputError(
            f"{name}: shape {values.shape}, the image {tuple(shape)}; import labels of this image"
        )
    found: set[float] = set()
    for plane in values:
        found.update(np.unique(np.asarray(plane)).tolist())
        if len(found) > most + 1:
            raise InputError(
                f"{name}: more than {most} different values; an annotation has one for each "
                "class, not for each object"
            )
    # What fits with the lowest one as the unlabeled one may still be refused with another.
    as_labels(np.array(sorted(found)), name, int(min(found)))
    if found == {UNLABELED}:
        raise InputError(f"{name}: nothing is labeled, all values are 0")
    return LabelValues(name, values, tuple(int(v) for v in sorted(found)), classes)


def clear(
    labels: NDArray[Any],
    _: tuple[LabelClass, ...],
    corrections: Corrections,
    *,
    name: str,
    box: Region,
) -> Act:
    """Make an act that leaves nothing labeled in a box of an annotation.

    Parameters
    ----------
    labels : integer (Z, Y, X)
    corrections : Corrections
    name : str
        What to call it.
    box : Region
        With numbers from start to stop.

    Raises
    ------
    InputError
        If nothing is.
    """

    def nothing(_: Region, before: NDArray[Any]) -> NDArray[Any]:
        return np.zeros_like(before)

    act = _rewrite(name, labels, box, nothing, corrections, labels.dtype)
    if not act.patches:
        raise InputError("nothing is labeled here, so there is nothing to clear")
    return act


def import_labels(
    labels: NDArray[Any],
    classes: tuple[LabelClass, ...],
    corrections: Corrections,
    *,
    given: LabelValues,
    unlabeled: int,
    others: Sequence[LabelClass],
    most: int,
) -> Act:
    """Make an act that puts other labels over those of an annotation; where they are 0, it stays.

    Classes that it lacks come with them. One that still has its default name gets the given one.

    Parameters
    ----------
    labels : uint8 or uint16 (Z, Y, X)
        The annotation; it becomes uint16 where there are labels above 255.
    classes : tuple of LabelClass
    corrections : Corrections
    given : LabelValues
    unlabeled : int
        The value that means unlabeled, as ``as_labels`` takes it.
    others : sequence of LabelClass
        Names and colors of classes that neither knows.
    most : int
        How many classes there can be.

    Raises
    ------
    InputError
        If there are too many classes, or the annotation holds all of it already.
    """
    ids = {i for i in given.meaning(unlabeled).values() if i != UNLABELED}
    # Where 0 is a class all have moved up, and the names are of other labels.
    named = {c.id: c for c in given.classes if unlabeled == UNLABELED}
    kept = [named.get(c.id, c) if c in default_classes([c.id]) else c for c in classes]
    known = with_classes(kept, sorted({*ids, *named}), [*others, *named.values()])
    if len(known) > most:
        raise InputError(f"{given.name}: {len(known)} classes with these; {most} are the most")
    dtype = np.promote_types(labels.dtype, np.min_scalar_type(known[-1].id))

    def put(region: Region, before: NDArray[Any]) -> NDArray[Any]:
        new = given.labels(region, unlabeled)
        return np.where(new == UNLABELED, before, new).astype(dtype)

    act = _rewrite("import", labels, whole_region(labels.shape), put, corrections, dtype)
    if known != classes:
        act = replace(act, classes=known)
    if not act.patches and act.classes is None:
        raise InputError(f"{given.name}: the annotation holds all of these labels already")
    return act


def removal(labels: AnyLabels, classes: tuple[LabelClass, ...], class_id: int, into: int) -> Act:
    """Make an act that removes one of some classes; its voxels get another label."""
    left = tuple(c for c in classes if c.id != class_id)
    name = "remove a class"
    patches: list[Patch] = []
    sparse = isinstance(labels, SparseLabels)
    for box in labeled_boxes(labels) if sparse else [whole_region(labels.shape)]:
        before = labels[box]
        after = np.where(before == class_id, labels.dtype.type(into), before)
        patches += make_act(name, box, after, before).patches
    return Act(name, labels.dtype.str, tuple(patches), left)


def count_changed(act: Act, labels: NDArray[Any]) -> int:
    """Return how many voxels an act would change."""
    return sum(
        int(np.count_nonzero(unpack(patch, act.dtype) != labels[patch.box]))
        for patch in act.patches
    )


def _rewrite(
    name: str,
    labels: NDArray[Any],
    box: Region,
    change: Callable[[Region, NDArray[Any]], NDArray[Any]],
    corrections: Corrections,
    dtype: np.dtype[Any],
) -> Act:
    """Make an act of what becomes of a box, piece by piece; what changes is no correction."""

    def changes() -> Iterator[tuple[Region, NDArray[Any], NDArray[Any]]]:
        for piece in pieces(box):
            before = labels[piece]
            yield piece, before, change(piece, before)

    return marking_act(name, dtype, changes(), corrections, False)
