"""The objects that only one of two masks has as they are: listed, and shown one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QTableWidget, QTableWidgetItem, QWidget

from napari_volseg.widgets.keys import Key
from napari_volseg.widgets.layers import center_on, show_slice, visible_slice
from napari_volseg.widgets.parts import button, column, count, label, row, say, table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari.layers import Layer

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.review.matching import Difference
    from napari_volseg.widgets.session import Session

NEXT_KEY, BACK_KEY = "Shift+J", "Shift+K"
HEIGHT = 112
MOST_ROWS = 500
"""Smaller ones are counted, not listed."""


class Differences(QWidget):
    """A row for each object; the row that is current is on view."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._layer: Layer | None = None
        self._shown: Sequence[Difference] = ()
        self._table = table(
            ("object", "class", "voxels"),
            1,
            "objects that differ",
            "The largest first. Split and missed: objects of B. Merged and extra: objects of A. "
            "Select one to see it.",
        )
        self._table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self._table.setSelectionMode(QTableWidget.SelectionMode.SingleSelection)
        self._table.setFixedHeight(HEIGHT)
        self._more = label(role="muted", name="objects not listed")
        self._back = button(
            f"\N{LEFTWARDS ARROW}  {BACK_KEY}", "previous difference", "The larger one before it."
        )
        self._next = button(
            f"\N{RIGHTWARDS ARROW}  {NEXT_KEY}", "next difference", "The next smaller one."
        )
        column(self, [row(self._back, self._next, self._more, stretch=2), self._table])
        self._table.currentCellChanged.connect(self._on_current)
        self._back.clicked.connect(self.go_back)
        self._next.clicked.connect(self.go_on)

    def keys(self) -> tuple[Key, ...]:
        """Return what to bind on the annotation and on the prediction."""
        return (
            Key(NEXT_KEY, "next object that differs", self.go_on),
            Key(BACK_KEY, "the differing object before", self.go_back),
        )

    def show_objects(
        self, differences: Sequence[Difference], classes: Mapping[int, LabelClass]
    ) -> None:
        """List these, the largest first."""
        self._shown = differences[:MOST_ROWS]
        self._table.blockSignals(True)
        self._table.setRowCount(len(self._shown))
        for at, found in enumerate(self._shown):
            known = classes[found.class_id]
            texts = (found.fate, known.name, count(found.voxels))
            for column_, text in enumerate(texts):
                self._table.setItem(at, column_, QTableWidgetItem(text))
            self._table.item(at, 1).setData(Qt.ItemDataRole.DecorationRole, QColor(known.color))
        self._table.setCurrentCell(-1, -1)
        self._table.blockSignals(False)
        left = len(differences) - len(self._shown)
        say(self._more, f"and {count(left)} smaller" if left else "")
        self.setVisible(bool(self._shown))

    def set_layer(self, layer: Layer) -> None:
        """Show them in this layer."""
        self._layer = layer

    def go_on(self) -> None:
        """Show the next one; after the last, the first."""
        self._step(1)

    def go_back(self) -> None:
        """Show the one before; before the first, the last."""
        self._step(-1)

    def _step(self, step: int) -> None:
        if self._shown and self.isVisible():
            at = self._table.currentRow()
            at = at + step if at >= 0 else min(step, 0) % len(self._shown)
            self._table.setCurrentCell(at % len(self._shown), 0)

    def _on_current(self, at: int) -> None:
        layer, viewer = self._layer, self._session.viewer
        if not 0 <= at < len(self._shown) or layer is None or layer not in viewer.layers:
            return
        seen = visible_slice(viewer, layer)
        axis = seen[0] if seen else 0
        show_slice(viewer, layer, axis, self._shown[at].largest[axis])
        center_on(viewer, layer, self._shown[at].box)
