"""The painted slices as buttons: where they are, which are complete, one click to get there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QFormLayout, QLabel, QWidget
from superqt.utils import QFlowLayout

from napari_volseg.data.annotation import VIEW_OF_AXIS
from napari_volseg.widgets.layers import show_slice
from napari_volseg.widgets.parts import SPACING, button, count, discard, label, on_click, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.widgets.painted import Painted, PaintedSlice
    from napari_volseg.widgets.session import Session

MOST_SHOWN = 24
COMPLETE, TOUCHED = "\N{BLACK CIRCLE}", "\N{WHITE CIRCLE}"


class SliceList(QWidget):
    """One line for each orientation."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._shown: Painted | None = None
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setSpacing(SPACING)
        self._lines = {axis: _Line() for axis in VIEW_OF_AXIS}
        for axis, view in VIEW_OF_AXIS.items():
            form.addRow(QLabel(view), self._lines[axis])
        self._corrected = label(role="muted", name="corrections")
        self._corrected.setToolTip("What Review changed, objects in 3D: not listed as slices.")
        form.addRow(self._corrected)
        session.changed.painted.connect(self._show)
        self._show()

    def _show(self) -> None:
        painted = self._session.painted
        if painted == self._shown:
            return
        self._shown = painted
        corrected = painted.corrected
        say(self._corrected, f"corrections: {count(corrected)} voxels" if corrected else "")
        for axis, line in self._lines.items():
            line.clear()
            of_axis = [s for s in painted.slices if s.axis == axis]
            for shown in of_axis[:MOST_SHOWN]:
                line.add(self._button(shown))
            if len(of_axis) > MOST_SHOWN:
                line.add(self._more(line, of_axis[MOST_SHOWN:]))
            if not of_axis:
                line.add(label("none", role="muted"))

    def _more(self, line: _Line, rest: Sequence[PaintedSlice]) -> QWidget:
        """Return a button that gives way to the rest of a line: so many buttons take their time."""
        made = button(
            f"{len(rest)} more",
            f"list {len(rest)} more {rest[0].view} slices",
            "List them, too, until something else is painted.",
        )
        made.setProperty("slice", True)

        def show() -> None:
            made.hide()
            for painted in rest:
                line.add(self._button(painted))

        on_click(made, show)
        return made

    def _button(self, painted: PaintedSlice) -> QWidget:
        state = "complete" if painted.complete else "touched"
        made = button(
            f"{COMPLETE if painted.complete else TOUCHED} {painted.index}",
            f"go to {painted.view} slice {painted.index}, {state}",
            f"Go to this slice ({state}: "
            + ("every voxel is labeled)." if painted.complete else "some voxels are unlabeled)."),
        )
        made.setProperty("slice", True)
        on_click(made, self._go, painted)
        return made

    def _go(self, painted: PaintedSlice) -> None:
        if self._session.annotation is not None:
            show_slice(self._session.viewer, self._session.annotation, painted.axis, painted.index)


class _Line(QWidget):
    """Widgets in a line that wraps."""

    def __init__(self) -> None:
        super().__init__()
        self._flow = QFlowLayout(self)
        self._flow.setContentsMargins(0, 0, 0, 0)
        self._flow.setHorizontalSpacing(3)
        self._flow.setVerticalSpacing(3)

    def add(self, widget: QWidget) -> None:
        self._flow.addWidget(widget)

    def clear(self) -> None:
        while (item := self._flow.takeAt(0)) is not None:
            widget = item.widget()
            if widget is not None:
                discard(widget)
