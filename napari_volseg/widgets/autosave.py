"""Keeps painted layers in the stroke journal, with no file touched in the window's thread.

A thread of its own looks at the labels themselves, block by block: soon after an event
of the layer, and every few seconds without one. Strokes, undo, fills, bulk writes and
replaced data are all the same to it. The window's thread only notes that there is work.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_volseg.data.errors import InputError
from napari_volseg.data.journal_log import JournalHeader
from napari_volseg.data.journal_writer import STOP_SECONDS, Journaled, JournalWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from napari.components import LayerList
    from napari.layers import Labels
    from napari.utils.events import Event, EventEmitter

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.history import History
    from napari_volseg.data.review_state import ReviewState

SAVING = "saving"
SAVED = "saved"
NOT_SAVED = "not saved: "

logger = logging.getLogger(__name__)


class Autosave(QObject):
    """Journals the layers it watches until they leave the viewer or it is stopped.

    What earlier sessions left is offered by `data.journal.recoverable` (in a worker). A
    restored annotation is watched, flushed, and only then discarded.

    Attributes
    ----------
    state_changed : signal (str)
        "saving" (there is paint that is not on disk yet), "saved" (all of it is, see
        ``saved_at``), or "not saved: " and the reason; every pass tries again.
    state : str
        What ``state_changed`` said last; "" at first.
    saved_at : datetime or None
        When something was last written, in local time.
    """

    state_changed = Signal(str)
    _looked = Signal(int, bool, str)

    def __init__(
        self, layers: LayerList, *, folder: Path | None = None, parent: QObject | None = None
    ) -> None:
        super().__init__(parent)
        self.state = ""
        self.saved_at: datetime | None = None
        self._watched: dict[Labels, Journaled] = {}
        self._newest_edit = 0
        self._looked.connect(self._on_looked)
        self._writer = JournalWriter(folder, self._tell)
        # Not `self.stop`: Qt does not call the methods of what it destroys.
        self.destroyed.connect(lambda: self.stop())
        layers.events.removed.connect(self._on_removed)

    def watch(
        self,
        layer: Labels,
        *,
        name: str,
        source: str | None = None,
        classes: Sequence[LabelClass] = (),
        saved: bool = False,
    ) -> None:
        """Keep a layer in the journal from now on; once it is, update what is said of it.

        Parameters
        ----------
        layer : Labels
            3D. It may be painted, replaced, renamed and deleted as one likes.
        name : str
            Under which to offer the annotation after a crash: the volume's.
        source : str, optional
            Path or address of the volume.
        classes : sequence of LabelClass
            As the window shows them.
        saved : bool
            Whether a named file holds the labels as they are when first watched.

        Raises
        ------
        InputError
            If the layer does not hold 3D integers.
        """
        header = JournalHeader(
            name=name,
            shape=tuple(layer.data.shape),
            dtype=layer.data.dtype.str,
            classes=tuple(classes),
            source=source,
            geometry=_geometry(layer),
        )
        watched = self._watched.get(layer)
        if watched is None:
            watched = self._watched[layer] = Journaled((layer.data, header), saved)
            for event in _edit_events(layer):
                event.connect(self._on_edit)
            # Undo shows as a refresh only, and so does scrolling.
            layer.events.set_data.connect(self._on_refresh)
            self._writer.add(watched)
        watched.content = layer.data, header
        self._writer.note(hurry=True)

    def keep(self, layer: Labels, history: History, review: ReviewState) -> None:
        """Keep what can be undone in a layer, and its review; nothing for one not watched."""
        if layer in self._watched:
            self._watched[layer].history = history
            self._watched[layer].review = review
            self._writer.note()

    def mark_saved(self, layer: Labels, labels: Any) -> None:
        """Note that a named file holds ``labels``, so that they are not offered again.

        Parameters
        ----------
        layer : Labels
            One that is not watched has no journal to note it in.
        labels : (Z, Y, X)
            A copy of the layer's data as it was written; if the layer was painted
            meanwhile, it stays on offer.
        """
        if layer in self._watched:
            self._watched[layer].in_file = labels
            self._writer.note(hurry=True)

    def flush(self, seconds: float = STOP_SECONDS) -> bool:
        """Wait until all that is painted is on disk; False if it cannot be, or not in time."""
        return self._writer.wait_for(self._writer.note(hurry=True), seconds)

    def stop(self) -> bool:
        """Write what is painted, close the journals, end the thread.

        Returns
        -------
        bool
            False if that takes longer than `STOP_SECONDS`; it then goes on by itself.
        """
        while self._watched:
            self._disconnect(self._watched.popitem()[0])
        return self._writer.stop()

    def _on_edit(self, event: Event) -> None:
        layer = event.source
        watched = self._watched[layer]
        if layer.data is not watched.content[0]:
            header = watched.content[1]
            try:
                header = replace(header, shape=tuple(layer.data.shape), dtype=layer.data.dtype.str)
            except InputError as error:
                self._release(layer)
                self._set_state(f"{NOT_SAVED}{error}")
                return
            watched.content = layer.data, header
        watched.as_in_file = False
        self._newest_edit = self._writer.note()
        self._set_state(SAVING)

    def _on_refresh(self, event: Event) -> None:
        self._writer.note()

    def _on_removed(self, event: Event) -> None:
        if event.value in self._watched:
            self._release(event.value)

    def _release(self, layer: Labels) -> None:
        self._disconnect(layer)
        self._watched.pop(layer).is_over = True
        self._writer.note(hurry=True)

    def _disconnect(self, layer: Labels) -> None:
        for event in _edit_events(layer):
            event.disconnect(self._on_edit)
        layer.events.set_data.disconnect(self._on_refresh)

    def _tell(self, note: int, wrote: bool, error: str) -> None:
        """Pass a report of the writer's thread on to the window's."""
        try:
            self._looked.emit(note, wrote, error)
        except RuntimeError:
            # The window is gone and this object with it; the writer logs its errors itself.
            logger.debug("nobody hears that the journal was written")

    def _on_looked(self, note: int, wrote: bool, error: str) -> None:
        if wrote:
            self.saved_at = datetime.now()
        if error:
            self._set_state(f"{NOT_SAVED}{error}")
        elif note >= self._newest_edit:
            self._set_state(SAVED, again=wrote)

    def _set_state(self, state: str, *, again: bool = False) -> None:
        if again or state != self.state:
            self.state = state
            self.state_changed.emit(state)


def _edit_events(layer: Labels) -> tuple[EventEmitter, ...]:
    return layer.events.paint, layer.events.labels_update, layer.events.data


def _geometry(layer: Labels) -> dict[str, Any]:
    """Return how a layer lies in the world, as keywords of ``add_labels`` in JSON's types."""
    return {
        "scale": [float(s) for s in layer.scale],
        "translate": [float(t) for t in layer.translate],
        "rotate": layer.rotate.tolist(),
        "shear": layer.shear.tolist(),
        "affine": layer.affine.affine_matrix.tolist(),
        "units": [str(unit) for unit in layer.units],
        "axis_labels": list(layer.axis_labels),
    }
