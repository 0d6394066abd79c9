"""A strip beside napari's slider: how sure the prediction is of each slice across the view."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QRectF, Qt, Signal
from qtpy.QtGui import QColor, QPainter
from qtpy.QtWidgets import QWidget

from napari_volseg.data.annotation import VIEW_OF_AXIS
from napari_volseg.review.uncertainty import slice_confidence
from napari_volseg.widgets.layers import show_slice, visible_slice, watch_slice
from napari_volseg.widgets.parts import column, label, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray
    from qtpy.QtGui import QMouseEvent, QPaintEvent

    from napari_volseg.widgets.session import Session

HEIGHT = 32
MARKS = 6
"""Of the height, at the bottom, for the marks of painted slices; in pixels."""

LEAST_RANGE = 0.02
"""The difference of confidence that fills the strip is no smaller: less is all the same."""


class ConfidenceStrip(QWidget):
    """A line of words above a strip of bars; there as long as a prediction is complete."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._words = label(role="muted", name="confidence of the slice on view")
        self._bars = SliceBars()
        column(self, [self._words, self._bars]).setSpacing(2)
        self._bars.picked.connect(self._go)
        self._unwatch = watch_slice(session.viewer, self._show)
        session.changed.uncertainty.connect(self._show)
        session.changed.painted.connect(self._show)
        self._show()

    def set_colors(self, colors: Mapping[str, str]) -> None:
        """Take the colors of napari's theme."""
        self._bars.set_colors(colors)

    def stop(self) -> None:
        """Listen to the viewer no more."""
        self._unwatch()

    def _show(self, event: Any = None) -> None:
        session = self._session
        uncertainty, layer = session.uncertainty, session.prediction
        seen = None if layer is None else visible_slice(session.viewer, layer)
        self.setVisible(uncertainty is not None and seen is not None)
        if uncertainty is None or seen is None:
            return
        axis, index = seen
        confidence = slice_confidence(uncertainty, axis)
        painted = [s.index for s in session.painted.slices if s.axis == axis]
        self._bars.show_slices(confidence, index, painted)
        self._words.setText(
            f"confidence of {VIEW_OF_AXIS[axis]} {index}: {confidence[index]:.2f}; all slices: "
            f"{confidence.min():.2f} to {confidence.max():.2f}"
        )

    def _go(self, index: int) -> None:
        layer = self._session.prediction
        seen = None if layer is None else visible_slice(self._session.viewer, layer)
        if layer is not None and seen is not None:
            show_slice(self._session.viewer, layer, seen[0], index)


class SliceBars(QWidget):
    """A bar for each slice, the surer the higher; a click or drag picks a slice.

    Signals
    -------
    picked(int)
        The slice under the mouse.
    """

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self._confidence: NDArray[np.float64] = np.zeros(1)
        self._index = 0
        self._painted: tuple[int, ...] = ()
        self._colors: Mapping[str, str] = {}
        self.setFixedHeight(HEIGHT)
        named(
            self,
            "confidence by slice",
            "How sure the prediction is of each slice, from the least sure to the surest: 1 minus "
            "the mean entropy. The line is the slice on view, the dots below are painted slices. "
            "Click or drag to go there.",
        )

    def set_colors(self, colors: Mapping[str, str]) -> None:
        """Take the colors of napari's theme."""
        self._colors = colors
        self.update()

    def show_slices(
        self, confidence: NDArray[np.float64], index: int, painted: Iterable[int]
    ) -> None:
        """Draw these slices.

        Parameters
        ----------
        confidence : float64 (slices,)
            0 to 1.
        index : int
            The slice on view.
        painted : iterable of int
        """
        self._confidence, self._index, self._painted = confidence, index, tuple(painted)
        self.update()

    def paintEvent(self, event: QPaintEvent | None) -> None:
        """Draw bars, marks and the line."""
        colors, n = self._colors, len(self._confidence)
        if not colors:
            return
        step, room = self.width() / n, self.height() - MARKS
        low, high = self._confidence.min(), self._confidence.max()
        # A part of the height is left to the least sure slice, so that it is seen to be there.
        part = 0.15 + 0.85 * (self._confidence - low) / max(high - low, LEAST_RANGE)
        painter = QPainter(self)
        painter.fillRect(self.rect(), QColor(colors["foreground"]))
        painter.setPen(Qt.PenStyle.NoPen)
        # Edges are whole pixels: bars thinner than that would let the ground shine through.
        edges = np.rint(np.arange(n + 1) * step).astype(int)
        bar = QColor(colors["highlight"])
        for left, right, height in zip(edges, edges[1:], part * room, strict=False):
            painter.fillRect(QRectF(left, room - height, max(1, right - left), height), bar)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setBrush(QColor(colors["text"]))
        for index in self._painted:
            painter.drawEllipse(QRectF((index + 0.5) * step - 2, room + 1.5, 4, 4))
        at = (self._index + 0.5) * step
        painter.fillRect(QRectF(at - 1, 0, 2, self.height()), QColor(colors["warning"]))
        painter.end()

    def mousePressEvent(self, event: QMouseEvent | None) -> None:
        """Pick the slice under the mouse."""
        self._pick(event)

    def mouseMoveEvent(self, event: QMouseEvent | None) -> None:
        """Pick the slice under the mouse, while the button is down."""
        self._pick(event)

    def _pick(self, event: QMouseEvent | None) -> None:
        if event is not None:
            n = len(self._confidence)
            index = int(event.position().x() / self.width() * n)
            self.picked.emit(min(max(index, 0), n - 1))
