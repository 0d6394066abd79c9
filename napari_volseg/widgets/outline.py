"""The outline of the object in review, drawn over the picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.kept import unlabeled_box
from napari_volseg.data.parts import put_where
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import crop_around, relative
from napari_volseg.review.kept import cut_out
from napari_volseg.widgets.layers import new_preview, show_region

if TYPE_CHECKING:
    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.review.objects import Objects
    from napari_volseg.widgets.session import Session

OUTLINED, MARKED = 2, 3
CLASSES = (LabelClass(OUTLINED, "outline", "#ffffff"), LabelClass(MARKED, "place", "#ff3030"))

MARK = 1
"""Voxels around a place that its mark covers."""


class Outline:
    """A small layer around one object; there is none while nothing is shown."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._layer: Labels | None = None
        self._box: Region | None = None

    def show(self, objects: Objects, number: int) -> None:
        """Outline an object."""
        image = self._session.image
        if image is None:
            return
        kept = cut_out(objects, number, "")
        z, y, x = objects.labels.shape
        self._box, inside = crop_around(kept.box, (2, 2, 2), (1, 1, 1), (z, y, x))
        drawn = unlabeled_box(self._box, np.uint8, isinstance(kept.member, SparseLabels))
        put_where(drawn, [(inside, kept.member, OUTLINED)])
        if self._layer is None or self._layer not in self._session.viewer.layers:
            self._layer = new_preview(image, self._box, drawn, CLASSES)
            self._layer.name = "object in review"
            self._layer.contour, self._layer.opacity = 1, 1.0
            self._session.insert_overlay(self._layer)
        else:
            # Drawn once, not for each of the steps.
            self._layer.visible = False
            show_region(self._layer, image, self._box, drawn)
            self._layer.visible = True

    def mark(self, voxel: tuple[int, ...]) -> None:
        """Mark a place (z, y, x) in it."""
        if self._layer is not None and self._box is not None:
            around = tuple(
                slice(max(0, v - side.start - MARK), v - side.start + MARK + 1)
                for v, side in zip(voxel, self._box, strict=True)
            )
            self._layer.data[around] = MARKED
            self._layer.refresh(extent=False)

    def mark_cut(self, box: Region, ids: NDArray[np.int32]) -> list[int]:
        """Mark where the object would be cut: 0 in the ids of a box that holds it.

        Returns
        -------
        list of int
            The middle of the cut (z, y, x); nothing if none of it can be shown.
        """
        if self._layer is None or self._box is None:
            return []
        inside = relative(box, self._box)
        where = (self._layer.data[inside] == OUTLINED) & (ids == 0)
        at = np.argwhere(where)
        if not len(at):
            return []
        put_where(self._layer.data, [(inside, where, MARKED)])
        self._layer.refresh(extent=False)
        return [int(m) + side.start for m, side in zip(np.median(at, axis=0), box, strict=True)]

    def hide(self) -> None:
        """Take the outline away."""
        layers = self._session.viewer.layers
        if self._layer is not None and self._layer in layers:
            layers.remove(self._layer)
        self._layer = None
