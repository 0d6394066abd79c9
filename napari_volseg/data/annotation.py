"""What a user painted: sparse labels, their classes, and which slices are complete."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.errors import InputError
from napari_volseg.data.sparse_labels import SparseLabels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.volume import Volume

UNLABELED = 0
BACKGROUND = 1

AXIS_OF_VIEW = {"xy": 0, "xz": 1, "yz": 2}
"""The axis that a slice of each view cuts; 0, 1, 2 is z, y, x."""

VIEW_OF_AXIS = {axis: view for view, axis in AXIS_OF_VIEW.items()}

# Okabe and Ito's palette, distinguishable with every common color blindness; gray for background.
COLORS = (
    "#8a8f98",
    "#e69f00",
    "#56b4e9",
    "#009e73",
    "#f0e442",
    "#cc79a7",
    "#0072b2",
    "#d55e00",
)


@dataclass(frozen=True)
class LabelClass:
    """One class: the integer painted, its name, and its color as ``#rrggbb``."""

    id: int
    name: str
    color: str

    def __post_init__(self) -> None:
        if not 1 <= self.id <= np.iinfo(np.uint16).max:
            raise InputError(f"class {self.name!r}: id {self.id} is not between 1 and 65535")


def default_classes(ids: Sequence[int] = (1, 2)) -> tuple[LabelClass, ...]:
    """Classes with default names and colors for the given ids; 1 is the background."""
    return tuple(
        LabelClass(
            i, "background" if i == BACKGROUND else f"class {i}", COLORS[(i - 1) % len(COLORS)]
        )
        for i in sorted(ids)
    )


def with_classes(
    classes: Sequence[LabelClass], ids: Iterable[int], others: Sequence[LabelClass] = ()
) -> tuple[LabelClass, ...]:
    """Return classes, and those of other ids, but 0: as others know them, or default ones."""
    known = {c.id: c for c in classes}
    elsewhere = {c.id: c for c in others}
    new = [int(i) for i in ids if i != UNLABELED and i not in known]
    added = [elsewhere.get(i) or default_classes([i])[0] for i in new]
    return tuple(sorted([*known.values(), *added], key=lambda c: c.id)) if added else tuple(classes)


@dataclass(frozen=True, eq=False)
class Annotation:
    """Sparse labels of a volume.

    Attributes
    ----------
    labels : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``
        0 is unlabeled (weight 0 in every loss); 1, 2, ... are classes, 1 the background.
    classes : tuple of LabelClass
        Sorted by id; every id painted is among them. Empty means: derive from the labels.
    complete : frozenset of (axis, index)
        Slices that the user marked as completely labeled; axis 0, 1, 2 is z, y, x.

    Raises
    ------
    InputError
        For labels that are not a 3D array of small non-negative integers.
    """

    labels: AnyLabels = field(repr=False)
    classes: tuple[LabelClass, ...] = ()
    complete: frozenset[tuple[int, int]] = frozenset()

    def __post_init__(self) -> None:
        labels = self.labels
        if labels.ndim != 3:
            raise InputError(f"labels must be (z, y, x), got shape {labels.shape}")
        if labels.dtype not in (np.uint8, np.uint16):
            raise InputError(f"labels of type {labels.dtype}; convert them to uint8 or uint16")
        used = set(count_labels(labels))
        if not self.classes:
            object.__setattr__(self, "classes", default_classes(sorted(used | {BACKGROUND})))
        known = [c.id for c in self.classes]
        if known != sorted(set(known)):
            raise InputError(f"class ids {known} must be unique and ascending")
        if missing := used - set(known):
            raise InputError(
                f"labels hold {sorted(missing)}, which are not among the classes {known}"
            )

    @property
    def class_ids(self) -> tuple[int, ...]:
        """The ids of the classes, ascending."""
        return tuple(c.id for c in self.classes)


@dataclass(frozen=True, eq=False)
class Case:
    """A volume with its annotation: what one can train on.

    Attributes
    ----------
    volume : Volume
    annotation : Annotation
    proposals : uint8 or uint16 (Z, Y, X), numpy or ``SparseLabels``, optional
        Labels that nobody painted, to be trained on with less weight; 0 where there is none.
        Where there is paint, they do not count.

    Raises
    ------
    InputError
        If shapes differ, or proposals are of a class that the annotation does not know.
    """

    volume: Volume
    annotation: Annotation
    proposals: AnyLabels | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.volume.shape != self.annotation.labels.shape:
            raise InputError(
                f"{self.volume.name}: the annotation has shape {self.annotation.labels.shape}, "
                f"the image {self.volume.shape}; annotate this image, or load its own annotation"
            )
        if self.proposals is None:
            return
        if self.volume.shape != self.proposals.shape:
            raise InputError(
                f"{self.volume.name}: the proposals have shape {self.proposals.shape}, the image "
                f"{self.volume.shape}; make them of this image"
            )
        known = self.annotation.class_ids
        if unknown := sorted(set(count_labels(self.proposals)) - set(known)):
            raise InputError(
                f"{self.volume.name}: the proposals hold {unknown}, which are not among the "
                f"annotation's classes {list(known)}; paint some of each, or leave them out"
            )


def count_labels(labels: AnyLabels) -> dict[int, int]:
    """Return the voxels of each label (Z, Y, X) but 0 that there are some of."""
    if isinstance(labels, SparseLabels):
        return labels.counts()
    total = np.zeros(1, dtype=np.int64)
    # Plane by plane: bincount makes a copy of eight bytes a voxel.
    for plane in labels:
        found = np.bincount(plane.ravel(), minlength=len(total))
        found[: len(total)] += total
        total = found
    return {int(i): int(total[i]) for i in np.flatnonzero(total) if i != UNLABELED}
