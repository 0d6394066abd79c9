"""Acts that change an annotation at many places: clear it, import labels, remove a class."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from napari_volseg.data.annotation import UNLABELED, LabelClass, default_classes, with_classes
from napari_volseg.data.corrections import mark_changes
from napari_volseg.data.errors import InputError
from napari_volseg.data.history import Act, Exchange, Patch, exchange, exchanging, make_act, pieces
from napari_volseg.data.labeled import labeled_boxes
from napari_volseg.data.labels import ALL_LABELED, as_labels, check_integers
from napari_volseg.data.progress import part_of
from napari_volseg.data.sparse_labels import BLOCK_SIZE, SparseLabels, block_box, block_indices
from napari_volseg.data.tiles import box_size, meet, tile_grid, whole_region

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region

    MakeAct = Callable[[AnyLabels, tuple[LabelClass, ...], Corrections], Act]
    MakeActLong = Callable[
        [AnyLabels, tuple[LabelClass, ...], Corrections], Generator[float, None, Act]
    ]

LOOKED_AT_ONCE = 64 * 1024**2
"""Voxels that are read at once: of most files whole slices, which many of them keep as one."""

NARROW = 1 << 16
"""Values of a narrower range are told apart by a table, not by sorting."""

MAKING = 0.7
"""How much of preparing an act is making it; the rest is its opposite."""


@dataclass(frozen=True, eq=False)
class LabelValues:
    """Labels as a file or a layer holds them; which value means unlabeled may be unknown.

    Attributes
    ----------
    name : str
        Of the file or the layer.
    places : uint8 (Z, Y, X), numpy or ``SparseLabels``
        Which of the values a voxel has: 0 for the first one.
    values : tuple of int
        Those that occur, in no order.
    classes : tuple of LabelClass
        What the values mean, with 0 as unlabeled; none where nobody said.
    """

    name: str
    places: AnyLabels = field(repr=False)
    values: tuple[int, ...]
    classes: tuple[LabelClass, ...] = ()

    @property
    def found(self) -> tuple[int, ...]:
        """The values that occur, ascending."""
        return tuple(sorted(self.values))

    @property
    def choices(self) -> tuple[int, ...]:
        """What may mean unlabeled, as ``as_labels`` takes it; the likeliest first."""
        if self.found[0] < 0:
            # No class is below 0.
            return self.found[:1]
        nothing = ALL_LABELED if 0 in self.found else UNLABELED
        return (*self.found, nothing)

    def meaning(self, unlabeled: int) -> dict[int, int]:
        """Return the label that each value becomes.

        Raises
        ------
        InputError
            If there are values that no label can be.
        """
        labels = as_labels(np.array(self.found), self.name, unlabeled, 0 in self.found)
        return dict(zip(self.found, labels.tolist(), strict=True))


class Rewritten(NamedTuple):
    """An act, and how many voxels it changes."""

    act: Act
    changed: int


def looking_at(
    values: Any,
    name: str,
    shape: Sequence[int],
    most: int,
    classes: tuple[LabelClass, ...] = (),
    *,
    in_blocks: bool,
) -> Generator[float, None, LabelValues]:
    """Read labels that are to be imported, and find their values; yield how much is done, 0 to 1.

    Parameters
    ----------
    values : array (Z, Y, X), in memory or not, or ``SparseLabels``
        Integers, booleans, or floats without fractions.
    name : str
        Of the file or the layer, for errors.
    shape : (z, y, x)
        Of the annotation.
    most : int
        How many classes there can be.
    classes : tuple of LabelClass
        What the values mean, if that is known.
    in_blocks : bool
        Whether to hold what is read as ``SparseLabels``.

    Raises
    ------
    InputError
        For another shape, values with fractions, too many of them, or nothing labeled.
    """
    if tuple(values.shape) != tuple(shape):
        raise InputError(
            f"{name}: shape {tuple(values.shape)}, the image {tuple(shape)}; "
            "import labels of this image"
        )
    whole = values.shape
    known: list[int] = []
    if isinstance(values, SparseLabels):
        # What is painted meanwhile is not what was looked at.
        values = values.copy()
        boxes = labeled_boxes(values)
        if sum(map(box_size, boxes)) < values.size:
            known.append(values.fill)
    else:
        blocks = LOOKED_AT_ONCE // (BLOCK_SIZE * BLOCK_SIZE * whole[2])
        tiles = tile_grid(whole, (BLOCK_SIZE, BLOCK_SIZE * max(1, blocks), 0))
        boxes = [tile.write for tile in tiles]
    places = SparseLabels(whole, np.uint8) if in_blocks else np.zeros(whole, np.uint8)
    for number, box in enumerate(boxes, start=1):
        places[box] = _place(np.asarray(values[box]), known, name, most)
        yield number / len(boxes)
    # What fits with the lowest one as the unlabeled one may still be refused with another.
    as_labels(np.array(sorted(known)), name, min(known))
    if known == [UNLABELED]:
        raise InputError(f"{name}: nothing is labeled, all values are 0")
    return LabelValues(name, places, tuple(known), classes)


def _place(values: NDArray[Any], known: list[int], name: str, most: int) -> NDArray[np.uint8]:
    """Return for each value which of those known it is; those that are new become known."""
    check_integers(values, name)
    low, high = values.min(), values.max()
    narrow = int(high) - int(low) < NARROW
    if narrow:
        # Only the difference of signed ones may need a larger type than theirs.
        over = values - low if values.dtype.kind in "uf" else np.subtract(values, low, dtype=int)
        inverse = over.astype(np.intp, copy=False)
        offsets = np.flatnonzero(np.bincount(inverse.ravel()))
        found = [int(low) + offset for offset in offsets.tolist()]
    else:
        distinct, inverse = np.unique(values, return_inverse=True)
        offsets = np.arange(len(distinct))
        found = [int(value) for value in distinct.tolist()]
    known += [value for value in found if value not in known]
    if len(known) > most + 1:
        raise InputError(
            f"{name}: more than {most} different values; an annotation has one for each "
            "class, not for each object"
        )
    table = np.zeros(offsets[-1] + 1, np.uint8)
    table[offsets] = [known.index(value) for value in found]
    placed: NDArray[np.uint8] = table[inverse.reshape(values.shape)]
    return placed


def clearing(
    labels: AnyLabels,
    _: tuple[LabelClass, ...],
    corrections: Corrections,
    *,
    name: str,
    box: Region,
) -> Generator[float, None, Rewritten]:
    """Make an act that leaves nothing labeled in a box; yield how much is done, 0 to 1.

    Parameters
    ----------
    labels : integer (Z, Y, X), numpy or ``SparseLabels``
        The annotation.
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

    boxes = _labeled_in(labels, box)
    made = yield from _rewriting(name, labels, boxes, nothing, corrections, labels.dtype)
    if not made.changed:
        raise InputError("nothing is labeled here, so there is nothing to clear")
    return made


def importing_labels(
    labels: AnyLabels,
    classes: tuple[LabelClass, ...],
    corrections: Corrections,
    *,
    given: LabelValues,
    unlabeled: int,
    others: Sequence[LabelClass],
    most: int,
) -> Generator[float, None, Rewritten]:
    """Make an act that puts other labels over those of an annotation; where they are 0, it stays.

    Classes that it lacks come with them. One that still has its default name gets the given one.
    What is yielded is how much is done, 0 to 1.

    Parameters
    ----------
    labels : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
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
    meaning = given.meaning(unlabeled)
    ids = {i for i in meaning.values() if i != UNLABELED}
    # Where 0 is a class all have moved up, and the names are of other labels.
    named = {c.id: c for c in given.classes if unlabeled == UNLABELED}
    kept = [named.get(c.id, c) if c in default_classes([c.id]) else c for c in classes]
    known = with_classes(kept, sorted({*ids, *named}), [*others, *named.values()])
    if len(known) > most:
        raise InputError(f"{given.name}: {len(known)} classes with these; {most} are the most")
    dtype = np.promote_types(labels.dtype, np.min_scalar_type(known[-1].id))

    becomes = np.array([meaning[value] for value in given.values], dtype)

    def put(region: Region, before: NDArray[Any]) -> NDArray[Any]:
        new = becomes[given.places[region]]
        return np.where(new == UNLABELED, before, new).astype(dtype, copy=False)

    whole = whole_region(labels.shape)
    # What is in none of the blocks is of the first value.
    boxes = _pieces(labels, whole) if becomes[0] else _labeled_in(given.places, whole)
    made = yield from _rewriting("import", labels, boxes, put, corrections, dtype)
    if known != classes:
        return made._replace(act=replace(made.act, classes=known))
    if not made.changed:
        raise InputError(f"{given.name}: the annotation holds all of these labels already")
    return made


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


def prepare(
    make: MakeAct, labels: AnyLabels, classes: tuple[LabelClass, ...], corrections: Corrections
) -> Exchange:
    """Make an act of an annotation, and prepare to put it there."""
    act = make(labels, classes, corrections)
    return exchange(act, labels, classes, corrections.like(act.marks))


def preparing(
    make: MakeActLong, labels: AnyLabels, classes: tuple[LabelClass, ...], corrections: Corrections
) -> Generator[float, None, Exchange]:
    """Do what ``prepare`` does, and yield how much is done, 0 to 1."""
    act = yield from part_of(make(labels, classes, corrections), 0, MAKING)
    marks = corrections.like(act.marks)
    return (yield from part_of(exchanging(act, labels, classes, marks), MAKING, 1))


def _pieces(labels: AnyLabels, box: Region) -> list[Region]:
    """Cut a box into pieces that labels are read and written in."""
    if isinstance(labels, SparseLabels):
        return [meet(block_box(index), box) for index in block_indices(box)]
    return list(pieces(box))


def _labeled_in(labels: AnyLabels, box: Region) -> list[Region]:
    """Return pieces of a box that hold all that is labeled in it."""
    if not isinstance(labels, SparseLabels):
        return list(pieces(box))
    return [part for block in labeled_boxes(labels) if box_size(part := meet(block, box))]


def _rewriting(
    name: str,
    labels: AnyLabels,
    boxes: Sequence[Region],
    change: Callable[[Region, NDArray[Any]], NDArray[Any]],
    corrections: Corrections,
    dtype: np.dtype[Any],
) -> Generator[float, None, Rewritten]:
    """Make an act of what becomes of some boxes; what changes is no correction."""
    patches: list[Patch] = []
    marks: list[Patch] = []
    changed = 0
    for number, box in enumerate(boxes, start=1):
        before = labels[box]
        after = change(box, before)
        packed, corrections, marked = mark_changes([(box, before, after)], corrections, False)
        patches += packed
        marks += marked
        changed += int(np.count_nonzero(after != before))
        yield number / len(boxes)
    return Rewritten(Act(name, dtype.str, tuple(patches), marks=corrections.like(marks)), changed)
