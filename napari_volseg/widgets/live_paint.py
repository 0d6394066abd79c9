"""Live painting: a running training learns from what is painted meanwhile."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QCheckBox, QWidget

from napari_volseg.data.tiles import around, box_size
from napari_volseg.training.events import NewLabels
from napari_volseg.widgets.layers import classes_of
from napari_volseg.widgets.parts import column, duration, label, named, say

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_volseg.data.history import Act
    from napari_volseg.data.tiles import Region
    from napari_volseg.training.events import Progress
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

GATHER_MS = 1000
"""Strokes of this time go to the training together."""

MOMENT_SECONDS = 10
"""What is painted less long ago was painted just now; ages are counted in these."""


class LivePaint(QWidget):
    """A line that says which paint a training learns from, and a check box, shown elsewhere.

    Attributes
    ----------
    box : QCheckBox

    Parameters
    ----------
    undo : Undo
        Tells of every change of an annotation.
    memory : Memory
        Remembers whether the box is checked.
    send : callable (new labels)
        Hands them to the running training.
    """

    def __init__(self, undo: Undo, memory: Memory, send: Callable[[NewLabels], None]) -> None:
        super().__init__()
        self._memory = memory
        self._send = send
        self._layer: Labels | None = None
        self._shape: tuple[int, ...] = ()
        self._boxes: list[Region] = []
        self._painted = 0.0
        self._sent: NewLabels | None = None
        self._sent_painted = 0.0
        self._learned: float | None = None
        self._note = ""
        self.box = named(
            QCheckBox("keep training while I paint"),
            "keep training while I paint",
            "What you paint, erase or undo during a training is learned from at once. "
            "Otherwise the next training learns from it.",
        )
        self.box.setChecked(memory.get("train_while_painting", True))
        self._line = label(role="muted", name="which paint the training knows")
        self._line.hide()
        column(self, [self._line])
        self._timer = QTimer(self)
        self._timer.setInterval(GATHER_MS)
        self._timer.timeout.connect(self._tick)
        self.box.toggled.connect(self._on_toggled)
        undo.recorded.connect(self._on_put)
        undo.exchanged.connect(self._on_put)

    def start(self, layer: Labels) -> None:
        """Get ready for a training on a copy of this annotation, as it is now."""
        self._layer, self._shape = layer, layer.data.shape
        self._boxes, self._sent, self._learned, self._note = [], None, None, ""
        say(self._line, "")
        self._timer.start()

    def hear(self, progress: Progress) -> None:
        """Notice that the training has taken what was sent."""
        if self._sent is not None and progress.labels is self._sent:
            self._sent, self._learned = None, self._sent_painted
            note = progress.note
            self._note = f"{note[0].upper()}{note[1:]}." if note else ""
            self._show()

    def end(self) -> None:
        """Say whether the model that came of it lacks paint."""
        self._timer.stop()
        late = self._boxes or self._sent is not None
        text = "What you painted last is not in this model yet: Train goes on with it."
        say(self._line, text if late else self._note)
        self._layer = None

    def _on_put(self, layer: Labels, act: Act) -> None:
        # Gathered also while the box is not checked: it may be later.
        if layer is self._layer and layer.data.shape == self._shape:
            self._boxes += [patch.box for patch in act.patches]
            self._painted = time.monotonic()

    def _tick(self) -> None:
        # One message at a time: a training that prepares for long gets the next ones together.
        if self._boxes and self._sent is None and self.box.isChecked():
            self._tell()
        self._show()

    def _tell(self) -> None:
        layer = self._layer
        if layer is None or layer.data.shape != self._shape:
            return
        boxes = self._boxes
        everything = around(boxes)
        if sum(map(box_size, boxes)) > box_size(everything):
            boxes = [everything]
        labels = tuple((box, layer.data[box].copy()) for box in boxes)
        self._sent = NewLabels(labels, classes_of(layer))
        self._sent_painted = self._painted
        self._boxes = []
        self._send(self._sent)

    def _show(self) -> None:
        if self._learned is None or not self._timer.isActive():
            return
        # In coarse steps: each repaint holds up a window whose OpenGL is software.
        age = (time.monotonic() - self._learned) // MOMENT_SECONDS * MOMENT_SECONDS
        when = f"{duration(age)} ago" if age else "just now"
        text = f"Learning from what you painted {when}."
        if self._note:
            text += f" {self._note}"
        if text != self._line.text():
            say(self._line, text)

    def _on_toggled(self, checked: bool) -> None:
        self._memory.set("train_while_painting", checked)

    def shutdown(self) -> None:
        """Gather no more."""
        self._timer.stop()
        self._layer = None
