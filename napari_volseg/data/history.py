"""The history of an annotation: acts that can be undone and redone, in bounded memory.

An act keeps, compressed, what to put into the boxes that were changed. Putting it there gives its
opposite: what was there instead. Voxels are kept as they are, never as differences, so undoing
and redoing lose nothing, also where labels changed without anybody noticing.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

from napari_volseg.data.progress import result_of
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import around, box_shape, box_size, relative

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.tiles import Region

LARGEST_PATCH = 64**3
"""Voxels that are compressed together; a larger box is cut."""

LIMIT_BYTES = 160 * 1024**2
MOST_ACTS = 5000
ACT_BYTES, PATCH_BYTES = 500, 300
"""What Python needs for an act and for a patch beside their voxels."""


@dataclass(frozen=True)
class Patch:
    """The labels of a box, compressed."""

    box: Region
    voxels: bytes


@dataclass(frozen=True, eq=False)
class Act:
    """What to put into an annotation to undo something, or to redo it.

    Attributes
    ----------
    name : str
        What was done, as "stroke" or "mark complete".
    dtype : str
        Of the labels with the act put into them; any integer type.
    patches : tuple of Patch
        They do not overlap. None for an act that changes the classes only.
    classes : tuple of LabelClass or None
        The classes; None leaves them as they are.
    marks : tuple of Patch
        What becomes of the corrections, block by block.
    said, unsaid : tuple of Act
        What is said of objects from then on, and what is not any more: each paints its object,
        and is called what was said of it (``KeptObject.act``).
    """

    name: str
    dtype: str
    patches: tuple[Patch, ...] = ()
    classes: tuple[LabelClass, ...] | None = None
    marks: tuple[Patch, ...] = ()
    said: tuple[Act, ...] = ()
    unsaid: tuple[Act, ...] = ()

    @cached_property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        patches = sum(PATCH_BYTES + len(p.voxels) for p in (*self.patches, *self.marks))
        return ACT_BYTES + patches + sum(one.size_bytes for one in (*self.said, *self.unsaid))

    @property
    def voxels(self) -> int:
        """How many voxels it puts."""
        return sum(box_size(p.box) for p in self.patches)

    @property
    def box(self) -> Region | None:
        """The smallest box that holds all of it; None if it is about no voxels."""
        objects = [p for one in (*self.said, *self.unsaid) for p in one.patches]
        patches = self.patches or objects
        return around([p.box for p in patches]) if patches else None


@dataclass(frozen=True)
class History:
    """The acts that lead back, and those that lead forward again; the next one last.

    When they need more than `LIMIT_BYTES`, or there are more than `MOST_ACTS`, those that
    would come last are dropped.
    """

    undoable: tuple[Act, ...] = ()
    redoable: tuple[Act, ...] = ()

    @property
    def size_bytes(self) -> int:
        """About how much memory it takes."""
        return sum(act.size_bytes for act in (*self.undoable, *self.redoable))

    @property
    def brings_labels_back(self) -> bool:
        """Whether there were other labels, so that even an empty annotation is worth keeping."""
        return any(act.patches for act in self.undoable)

    def done(self, back: Act) -> History:
        """Return the history after something was done that ``back`` undoes."""
        return _bounded((*self.undoable, back), ())

    def undone(self, forth: Act) -> History:
        """Return the history after its next act was undone, which ``forth`` redoes."""
        return _bounded(self.undoable[:-1], (*self.redoable, forth))

    def redone(self, back: Act) -> History:
        """Return the history after its next act was redone, which ``back`` undoes."""
        return _bounded((*self.undoable, back), self.redoable[:-1])


@dataclass(frozen=True)
class Exchange:
    """An act ready to be put into the labels that it was prepared for, and its opposite."""

    act: Act
    values: tuple[NDArray[Any], ...]
    opposite: Act
    after: SparseLabels | None = None
    """What sparse labels become. They hold no array that could be written to in no time."""

    def put(self, labels: AnyLabels) -> AnyLabels:
        """Put the act into labels, in place unless their type changes, and return them."""
        if self.after is not None:
            if labels.dtype != self.after.dtype:
                return self.after
            labels.adopt(self.after, [patch.box for patch in self.act.patches])
            return labels
        if labels.dtype.str != self.act.dtype:
            labels = labels.astype(self.act.dtype)
        for patch, values in zip(self.act.patches, self.values, strict=True):
            labels[patch.box] = values
        return labels


def make_act(
    name: str,
    box: Region,
    values: NDArray[Any],
    instead_of: NDArray[Any],
    classes: tuple[LabelClass, ...] | None = None,
) -> Act:
    """Make an act that puts values into a box, where they differ from others.

    Parameters
    ----------
    name : str
        What to call it.
    box : Region
        With numbers from start to stop.
    values, instead_of : integer, of the box's shape
        What to put there, and what is there; pieces in which they are equal are left out.
    classes : tuple of LabelClass, optional
        What the classes become.
    """
    patches = []
    for piece in pieces(box):
        inside = relative(piece, box)
        if not np.array_equal(values[inside], instead_of[inside]):
            patches.append(_pack(piece, values[inside]))
    return Act(name, values.dtype.str, tuple(patches), classes)


def exchange(
    act: Act,
    labels: AnyLabels,
    classes: tuple[LabelClass, ...],
    marks: tuple[Patch, ...] = (),
) -> Exchange:
    """Prepare to put an act into labels; changes nothing.

    Parameters
    ----------
    act : Act
    labels : integer (Z, Y, X)
        As the act finds them.
    classes : tuple of LabelClass
        As the act finds them.
    marks : tuple of Patch
        The corrections, as the act finds them, where it changes them.
    """
    return result_of(exchanging(act, labels, classes, marks))


def exchanging(
    act: Act,
    labels: AnyLabels,
    classes: tuple[LabelClass, ...],
    marks: tuple[Patch, ...] = (),
) -> Generator[float, None, Exchange]:
    """Do what ``exchange`` does, and yield how much is done, 0 to 1."""
    after = labels.astype(act.dtype) if isinstance(labels, SparseLabels) else None
    instead: list[Patch] = []
    values: list[NDArray[Any]] = []
    for patch in act.patches:
        instead.append(_pack(patch.box, labels[patch.box]))
        put = unpack(patch, act.dtype)
        if after is None:
            values.append(put)
        else:
            after[patch.box] = put
        yield len(instead) / len(act.patches)
    known = None if act.classes is None else classes
    opposite = Act(act.name, labels.dtype.str, tuple(instead), known, marks, act.unsaid, act.said)
    return Exchange(act, tuple(values), opposite, after)


def pieces(box: Region) -> Iterator[Region]:
    """Halve the longest side of a box until the pieces are no larger than `LARGEST_PATCH`."""
    if box_size(box) <= LARGEST_PATCH:
        yield box
        return
    sides = box_shape(box)
    axis = int(np.argmax(sides))
    middle = box[axis].start + sides[axis] // 2
    for half in (slice(box[axis].start, middle), slice(middle, box[axis].stop)):
        z, y, x = (half if a == axis else side for a, side in enumerate(box))
        yield from pieces((z, y, x))


def _pack(box: Region, values: NDArray[Any]) -> Patch:
    stored = values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()
    # Twice as quick as zlib, and smaller: undoing something must not keep the user waiting.
    return Patch(box, bytes(imagecodecs.zstd_encode(stored, level=1)))


def unpack(patch: Patch, dtype: str) -> NDArray[Any]:
    """Return the voxels of a patch."""
    voxels = np.frombuffer(imagecodecs.zstd_decode(patch.voxels), np.dtype(dtype).newbyteorder("<"))
    return voxels.reshape(box_shape(patch.box))


def _bounded(undoable: tuple[Act, ...], redoable: tuple[Act, ...]) -> History:
    forth = _next_ones(redoable, LIMIT_BYTES)
    back = _next_ones(undoable, LIMIT_BYTES - sum(act.size_bytes for act in forth))
    return History(back, forth)


def _next_ones(acts: tuple[Act, ...], room: int) -> tuple[Act, ...]:
    """Return the acts that come next and fit; at least one, however large it is."""
    kept = 0
    for act in reversed(acts[-MOST_ACTS:]):
        room -= act.size_bytes
        if room < 0 and kept:
            break
        kept += 1
    return acts[len(acts) - kept :]
