"""Undo and Redo as buttons that say what they would do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtWidgets import QWidget

from napari_volseg.widgets.layers import history_of
from napari_volseg.widgets.parts import button, on_click, row

if TYPE_CHECKING:
    from qtpy.QtWidgets import QPushButton

    from napari_volseg.data.history import Act
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.undo import Undo

UNDO_KEY, REDO_KEY = "Ctrl+Z", "Ctrl+Shift+Z"
"""napari's own, which are not among its settings; on an annotation they run our undo."""


class UndoButtons(QWidget):
    """What was done to the annotation, taken back and done again."""

    def __init__(self, session: Session, undo: Undo) -> None:
        super().__init__()
        self._session = session
        self._undo = button("\N{ANTICLOCKWISE TOP SEMICIRCLE ARROW}", "undo", "")
        self._redo = button("\N{CLOCKWISE TOP SEMICIRCLE ARROW}", "redo", "")
        for control in (self._undo, self._redo):
            control.setProperty("slice", True)
        self.setLayout(row(self._undo, self._redo))
        on_click(self._undo, undo.undo)
        on_click(self._redo, undo.redo)
        undo.changed.connect(self._show)
        session.changed.annotation.connect(self._show)
        self._show()

    def _show(self) -> None:
        annotation = self._session.annotation
        history = None if annotation is None else history_of(annotation)
        _offer(self._undo, "Undo", history.undoable if history else (), UNDO_KEY)
        _offer(self._redo, "Redo", history.redoable if history else (), REDO_KEY)


def _offer(control: QPushButton, verb: str, acts: tuple[Act, ...], key: str) -> None:
    control.setEnabled(bool(acts))
    what = f"{verb}: {acts[-1].name}" if acts else f"Nothing to {verb.lower()}"
    control.setToolTip(f"{what}. Key: {key}")
