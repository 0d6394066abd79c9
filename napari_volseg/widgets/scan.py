"""Keeps the session's idea of what is painted up to date, looking in the background."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, QTimer

from napari_volseg.widgets.painted import Painted, find_painted
from napari_volseg.widgets.verdicts import corrections_of

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session

DELAY_MS = 250


class PaintScan(QObject):
    """Looks at the annotation a moment after each of its events.

    Undo and redo show as a refresh only, and so does scrolling, which moves the dims.
    """

    def __init__(self, session: Session, background: Background, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._background = background
        self._layer: Labels | None = None
        self._view: object = None
        self._looking = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(DELAY_MS)
        self._timer.timeout.connect(self._look)
        session.changed.annotation.connect(self._follow)
        self._follow()

    def _follow(self) -> None:
        self.stop()
        self._layer = self._session.annotation
        if self._layer is not None:
            self._layer.events.paint.connect(self._on_paint)
            self._layer.events.set_data.connect(self._on_refresh)
            self._layer.events.data.connect(self._on_replaced)
            self._view = self._view_now()
            self._look()

    def stop(self) -> None:
        """Listen no more."""
        self._timer.stop()
        if self._layer is not None:
            self._layer.events.paint.disconnect(self._on_paint)
            self._layer.events.set_data.disconnect(self._on_refresh)
            self._layer.events.data.disconnect(self._on_replaced)
            self._layer = None

    def _on_paint(self, event: Any) -> None:
        self._timer.start()

    def _on_refresh(self, event: Any) -> None:
        before, self._view = self._view, self._view_now()
        if self._view == before:
            self._timer.start()

    def _view_now(self) -> object:
        dims = self._session.viewer.dims
        return dims.point, dims.order, dims.ndisplay

    def _on_replaced(self, event: Any) -> None:
        # It may not fit the image any more.
        self._session.choose_annotation(self._layer)

    def _look(self) -> None:
        layer = self._layer
        if layer is None:
            return
        if self._looking:
            self._timer.start()
            return
        self._looking = True

        def found(painted: Painted) -> None:
            self._looking = False
            # Where something was done meanwhile, the next look knows better.
            if layer is self._layer and not self._timer.isActive():
                self._session.set_painted(layer, painted)

        self._background.run(
            find_painted, layer.data, corrections_of(layer), done=found, failed=self._failed
        )

    def _failed(self) -> None:
        self._looking = False
