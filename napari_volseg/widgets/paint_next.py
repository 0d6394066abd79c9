"""What to paint next: the slices that should teach the model most, one click away."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.utils.notifications import show_info
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QIcon, QImage, QPainter, QPixmap
from qtpy.QtWidgets import QToolButton, QWidget

from napari_volseg.data.units import short_unit
from napari_volseg.widgets.jobs import Job
from napari_volseg.widgets.layers import classes_of, show_slice, visible_slice
from napari_volseg.widgets.parts import (
    button,
    column,
    discard,
    label,
    named,
    on_click,
    row,
)
from napari_volseg.widgets.slices import COMPLETE, TOUCHED
from napari_volseg.widgets.work import SuggestedSlice, suggest_on

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.review.suggest import Suggestion
    from napari_volseg.widgets.session import Session

SUGGESTED_KEY = "S"

WIDTH, HEIGHT = 60, 64
"""Of a thumbnail, in pixels: five fit into the dock."""


class PaintNext(QWidget):
    """The best slices to paint next as buttons with a picture, as soon as there is a prediction."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.job = Job(self)
        self._found: list[SuggestedSlice] = []
        self._buttons: list[QToolButton] = []
        self._touched_before: frozenset[tuple[int, int]] = frozenset()
        self._again = False
        self._state = label(role="muted", name="state of the suggestions")
        self._suggest = button(
            "Suggest",
            "suggest slices",
            "Find the slices whose paint should teach the model most, as of the last "
            "prediction and what is painted now.",
        )
        self._cancel = button("Cancel", "cancel suggesting", "Stop here.")
        self._pictures = row()
        self._pictures.setSpacing(3)
        title = label(f"paint next  {SUGGESTED_KEY}")
        top = row(title, self._state, self._suggest, self._cancel, stretch=1)
        column(self, []).addLayout(top)
        self.layout().addLayout(self._pictures)
        self._suggest.clicked.connect(self.suggest)
        self._cancel.clicked.connect(self.job.cancel)
        self.job.yielded.connect(self._on_found)
        self.job.ended.connect(self._on_ended)
        changed = session.changed
        # From what a prediction has told already they are found within a moment.
        changed.uncertainty.connect(self.suggest)
        changed.annotation.connect(self.suggest)
        changed.painted.connect(self._show)
        self._show()

    def suggest(self) -> None:
        """Find the slices for what is painted now."""
        self._clear()
        session = self._session
        volume, annotation, prediction = session.volume, session.annotation, session.prediction
        if self.job.running:
            self._again = True
            self.job.cancel()
        elif session.uncertainty and volume and annotation and prediction:
            self._touched_before = frozenset((s.axis, s.index) for s in session.painted.slices)
            self.job.start(
                suggest_on,
                session.uncertainty,
                volume,
                annotation.data,
                prediction.data,
                classes_of(prediction),
                # Twice as many pixels, for screens that have them.
                (2 * WIDTH, 2 * HEIGHT),
            )
        self._show()

    def go_on(self) -> None:
        """Show the best slice that is not painted yet; if it is on view, the next one."""
        if self._session.uncertainty is None or self._session.annotation is None:
            show_info("Predict first: slices are suggested where the prediction is unsure.")
            return
        left = [s.suggestion for s in self._found if not self._is_painted(s.suggestion)]
        if left:
            seen = visible_slice(self._session.viewer, self._session.annotation)
            on_view = [(s.axis, s.index) == seen for s in left]
            after = on_view.index(True) + 1 if any(on_view) else 0
            self._go(left[after % len(left)])
        elif not self.job.running:
            self.suggest()

    def shutdown(self) -> None:
        """End the thread, and drop what it still brings."""
        self.job.shutdown()

    def _go(self, suggestion: Suggestion) -> None:
        layer = self._session.annotation
        if layer is not None:
            show_slice(self._session.viewer, layer, suggestion.axis, suggestion.index)
            self._session.paint_with(layer.selected_label)

    def _clear(self) -> None:
        for made in self._buttons:
            discard(made)
        self._found, self._buttons = [], []

    def _on_found(self, found: SuggestedSlice) -> None:
        made = QToolButton()
        made.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
        made.setIcon(_icon(found.picture))
        made.setIconSize(QSize(WIDTH, HEIGHT))
        made.setProperty("slice", True)
        on_click(made, self._go, found.suggestion)
        self._pictures.insertWidget(len(self._buttons), made)
        self._found.append(found)
        self._buttons.append(made)
        self._show()

    def _on_ended(self) -> None:
        if self._again:
            self._again = False
            self.suggest()
        self._show()

    def _is_painted(self, suggestion: Suggestion) -> bool:
        place, painted = (suggestion.axis, suggestion.index), self._session.painted
        touched = {(s.axis, s.index) for s in painted.slices} - self._touched_before
        return place in touched or place in painted.complete

    def _show(self) -> None:
        session, running = self._session, self.job.running
        self.setVisible(session.uncertainty is not None and session.annotation is not None)
        self._suggest.setVisible(not running)
        self._cancel.setVisible(running)
        for found, made in zip(self._found, self._buttons, strict=True):
            s = found.suggestion
            painted = self._is_painted(s)
            mark = (COMPLETE if (s.axis, s.index) in session.painted.complete else TOUCHED) + " "
            made.setText(f"{mark * painted}{s.view} {s.index}")
            state = "painted" if painted else "to paint"
            named(made, f"suggested {s.view} slice {s.index}, {state}", self._why(found))
        self._state.setText(self._words())

    def _words(self) -> str:
        if self.job.running:
            total = f" of {self._found[0].total}" if self._found else "\N{HORIZONTAL ELLIPSIS}"
            return f"slice {len(self._found) + 1}{total}"
        if all(self._is_painted(found.suggestion) for found in self._found):
            return "all painted: train on, or suggest more" if self._found else "none"
        return "best first"

    def _why(self, found: SuggestedSlice) -> str:
        s, volume = found.suggestion, self._session.volume
        lines = [
            f"{s.view} {s.index}, score {s.score:.2f}: the model is {found.doubt:.1f} times as "
            "unsure there as on average."
        ]
        same = [p.index for p in self._session.painted.slices if p.axis == s.axis]
        if not same:
            lines.append(f"No {s.view} slice is painted yet.")
        elif volume is not None:
            away = min(abs(index - s.index) for index in same) * volume.spacing[s.axis]
            unit = short_unit(volume.unit)
            lines.append(f"The nearest painted {s.view} slice is {away:.3g} {unit} away.")
        return "\n".join(lines)


def _icon(picture: NDArray[np.uint8]) -> QIcon:
    """Put a picture in the middle of an icon, as all icons are of one size then."""
    height, width, _ = picture.shape
    image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    icon = QPixmap(2 * WIDTH, 2 * HEIGHT)
    icon.fill(Qt.GlobalColor.transparent)
    painter = QPainter(icon)
    painter.drawImage((icon.width() - width) // 2, (icon.height() - height) // 2, image)
    painter.end()
    return QIcon(icon)
