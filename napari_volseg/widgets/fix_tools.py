"""Tools for an object that is nearly right: fill holes, smooth, merge, split, and the brush."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_volseg.review.reshape import cut, merged, proposed_cut, smoothed, with_holes_filled
from napari_volseg.widgets.keys import Key
from napari_volseg.widgets.layers import show_slice, visible_slice
from napari_volseg.widgets.parts import button, column, label, row, say

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.widgets.outline import Outline
    from napari_volseg.widgets.reviewing import Reviewing
    from napari_volseg.widgets.session import Session

HOLES_KEY, SMOOTH_KEY, MERGE_KEY, SPLIT_KEY = "G", "Q", "U", "Shift+S"


class FixTools(QWidget):
    """What changes the object in review.

    Parameters
    ----------
    outline : Outline
        Where the places clicked are marked.
    selected : callable () -> list of int
        The objects selected in the table, the one in review first.
    """

    def __init__(
        self,
        session: Session,
        reviewing: Reviewing,
        outline: Outline,
        selected: Callable[[], list[int]],
    ) -> None:
        super().__init__()
        self._session = session
        self._reviewing = reviewing
        self._outline = outline
        self._selected = selected
        self._object = 0
        self._seeds: list[tuple[int, int, int]] = []
        # Whether the seeds are those found here, and not the user's own.
        self._proposed = False
        holes = button(f"Holes  {HOLES_KEY}", "fill holes", "Fill the cavities that it encloses.")
        smooth = button(
            f"Smooth  {SMOOTH_KEY}", "smooth object", "Take off what is rough, voxel by voxel."
        )
        merge = button(
            f"Merge  {MERGE_KEY}",
            "merge objects",
            "Make the objects selected in the table (Ctrl+click) one, of this one's class.",
        )
        self._split = button(
            f"Split  {SPLIT_KEY}",
            "split object",
            "Shows where it could be cut; press again to cut it there. Or click a place in each "
            "part, then press again: it is cut where it is thinnest between them.",
        )
        self._split.setCheckable(True)
        self._help = label(role="hint", name="how to fix")
        column(self, [row(holes, smooth, merge, self._split), self._help])
        holes.clicked.connect(self.fill_holes)
        smooth.clicked.connect(self.smooth)
        merge.clicked.connect(self.merge)
        self._split.toggled.connect(self._on_splitting)

    def keys(self) -> tuple[Key, ...]:
        """Return what to bind on the annotation and on the prediction."""
        return (
            Key(HOLES_KEY, "fix: fill the object's holes", self.fill_holes),
            Key(SMOOTH_KEY, "fix: smooth the object", self.smooth),
            Key(MERGE_KEY, "fix: merge the objects selected", self.merge),
            Key(SPLIT_KEY, "fix: show a split; again: split", self._split.toggle),
        )

    def set_object(self, number: int) -> None:
        """Work on this object from now on; 0 for none."""
        if number != self._object:
            self._object = number
            self._drop_proposal()
            self._seeds.clear()
            self._split.setChecked(False)
        self.show_hint()

    def fill_holes(self) -> None:
        """Fill the cavities of the object."""
        if self._object:
            self._reviewing.edit(with_holes_filled, self._object)

    def smooth(self) -> None:
        """Smooth the object."""
        if self._object:
            self._reviewing.edit(smoothed, self._object, self._reviewing.spacing)

    def merge(self) -> None:
        """Make the objects selected in the table one."""
        if self._object:
            self._reviewing.edit(merged, self._selected(), self._reviewing.spacing)

    def click(self, voxel: tuple[int, int, int]) -> bool:
        """Take a place (z, y, x) to split at; False if that is not what a click is for now."""
        if self._split.isChecked() and self._reviewing.number_at(voxel) == self._object:
            self._drop_proposal()
            self._seeds.append(voxel)
            self._outline.mark(voxel)
            self.show_hint()
        return self._split.isChecked()

    def _on_splitting(self, splitting: bool) -> None:
        annotation, spacing = self._session.annotation, self._reviewing.spacing
        if splitting and annotation is not None:
            # A click of the brush would paint.
            annotation.mode = "pan_zoom"
            self._reviewing.ask(proposed_cut, self._object, spacing, done=self._on_proposed)
        elif self._seeds:
            self._reviewing.edit(cut, self._object, tuple(self._seeds), spacing)
        self._seeds.clear()
        self._proposed = False
        self.show_hint()

    def _on_proposed(
        self, found: tuple[list[tuple[int, int, int]], Region, NDArray[np.int32]] | None
    ) -> None:
        """Show where the object could be cut, unless the user has clicked a place already."""
        if found is not None and self._split.isChecked() and not self._seeds:
            self._seeds, box, ids = found
            self._proposed = True
            middle = self._outline.mark_cut(box, ids)
            layer, viewer = self._session.prediction, self._session.viewer
            seen = None if layer is None else visible_slice(viewer, layer)
            if layer is not None and seen and middle:
                show_slice(viewer, layer, seen[0], middle[seen[0]])
            self.show_hint()

    def _drop_proposal(self) -> None:
        objects = self._reviewing.objects
        if self._proposed and objects is not None:
            self._proposed = False
            self._seeds.clear()
            self._outline.show(objects, self._object)

    def show_hint(self) -> None:
        """Say what to do next."""
        if self._proposed:
            say(self._help, f"{SPLIT_KEY} cuts it at the red line. Or click a place in each part.")
        elif self._split.isChecked():
            places = f"({len(self._seeds)} so far)"
            say(self._help, f"Click a place in each part {places}, then press Split again.")
        elif self._reviewing.painting:
            say(self._help, "Paint what is missing, erase what is too much; then go to the next.")
        else:
            say(self._help, "Fix takes the brush again.")
