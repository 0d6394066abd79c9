"""Autosave of the annotation, its state in words, and the offer of what was never saved."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_volseg.data.journal import Recovery, recoverable
from napari_volseg.inference.large import labels_for
from napari_volseg.widgets.autosave import SAVED, SAVING, Autosave
from napari_volseg.widgets.layers import (
    ANNOTATION,
    ANNOTATION_OPACITY,
    history_of,
    note,
    set_classes,
)
from napari_volseg.widgets.parts import SPACING, discard, duration
from napari_volseg.widgets.recovery import RecoveryStrip
from napari_volseg.widgets.verdicts import review_of

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from napari_volseg.data.history import History
    from napari_volseg.data.review_state import ReviewState
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session


class Journaling(QWidget):
    """Keeps the annotation of a session in the journal, and shows strips to recover others.

    Parameters
    ----------
    folder : Path or None
        Where the journals are; None is the user's data folder.

    Signals
    -------
    state(str)
        How the autosave stands, as "saved 5 s ago".
    """

    state = Signal(str)

    def __init__(self, session: Session, background: Background, folder: Path | None) -> None:
        super().__init__()
        self._session = session
        self._background = background
        self._autosave = Autosave(session.viewer.layers, folder=folder, parent=self)
        self._strips = QVBoxLayout(self)
        self._strips.setContentsMargins(0, 0, 0, 0)
        self._strips.setSpacing(SPACING)
        self._clock = QTimer(self)
        self._clock.setInterval(1000)
        self._clock.timeout.connect(self._tell)
        self._clock.start()
        self._autosave.state_changed.connect(self._tell)
        session.changed.annotation.connect(self._watch)
        session.changed.classes.connect(self._watch)
        self.hide()
        background.run(recoverable, folder, done=self._offer)
        self._watch()

    def mark_saved(self, layer: Labels, labels: NDArray[np.integer]) -> None:
        """Note that a file of the user's holds these labels of a layer."""
        if layer in self._session.viewer.layers:
            self._autosave.mark_saved(layer, labels)

    def keep(self, layer: Labels) -> None:
        """Keep what can be undone and redone in a layer now, and what was said of objects."""
        self._autosave.keep(layer, history_of(layer), review_of(layer))

    def keep_review(self) -> None:
        """Keep what was said of objects until now."""
        if self._session.annotation is not None:
            self.keep(self._session.annotation)

    def stop(self) -> None:
        """Write what is painted and end the autosave; bounded, also if the disk hangs."""
        self._clock.stop()
        self._autosave.stop()

    def _watch(self) -> None:
        session = self._session
        if session.annotation is not None and session.volume is not None:
            source = session.image.source.path if session.image is not None else None
            self._autosave.watch(
                session.annotation,
                name=session.volume.name,
                source=source,
                classes=session.classes,
            )
            self.keep(session.annotation)
        self._tell()

    def _tell(self, state: str = "") -> None:
        self.state.emit(
            autosave_words(self._autosave.state, self._autosave.saved_at, datetime.now())
            if self._session.annotation is not None
            else ""
        )

    def _offer(self, found: list[Recovery]) -> None:
        for recovery in found:
            strip = RecoveryStrip(recovery, self._restore, self._discard)
            self._strips.addWidget(strip)
        self._show_first()

    def _show_first(self) -> None:
        """Show one strip at a time: the dock has other things to show."""
        items = [self._strips.itemAt(at) for at in range(self._strips.count())]
        for at, item in enumerate(items):
            strip = item.widget() if item is not None else None
            if strip is not None:
                strip.setVisible(at == 0)
        self.setVisible(bool(items))

    def _restore(self, strip: RecoveryStrip) -> None:
        strip.setEnabled(False)
        self._background.run(
            lambda: (
                strip.recovery.labels(labels_for),
                strip.recovery.history(),
                strip.recovery.review(),
            ),
            done=partial(self._restored, strip),
            failed=partial(self._take_away, strip),
        )

    def _restored(
        self, strip: RecoveryStrip, found: tuple[NDArray[Any], History, ReviewState]
    ) -> None:
        header, (labels, history, review) = strip.recovery.header, found
        layer = Labels(
            labels,
            name=f"{header.name} annotation",
            opacity=ANNOTATION_OPACITY,
            **header.geometry,
        )
        note(layer, role=ANNOTATION, history=history)
        note(layer, kept=review.kept, corrections=review.corrections)
        set_classes(layer, header.classes)
        self._session.viewer.layers.append(layer)
        self._autosave.watch(layer, name=header.name, source=header.source, classes=header.classes)
        self.keep(layer)
        volume = self._session.volume
        if volume is not None and volume.shape == labels.shape:
            self._session.choose_annotation(layer)
        self._background.run(
            partial(self._hand_over, strip.recovery), done=lambda _: self._take_away(strip)
        )

    def _hand_over(self, recovery: Recovery) -> None:
        # The old journal goes only when the new one holds all of it.
        if self._autosave.flush():
            recovery.discard()

    def _discard(self, strip: RecoveryStrip) -> None:
        strip.setEnabled(False)
        self._background.run(strip.recovery.discard, done=lambda _: self._take_away(strip))

    def _take_away(self, strip: RecoveryStrip) -> None:
        self._strips.removeWidget(strip)
        discard(strip)
        self._show_first()


def autosave_words(state: str, saved_at: datetime | None, now: datetime) -> str:
    """Say how the autosave stands.

    Parameters
    ----------
    state : str
        As ``Autosave.state``.
    saved_at, now : datetime
        When something was last written, and now.
    """
    if state == SAVING:
        return "saving\N{HORIZONTAL ELLIPSIS}"
    if state == SAVED and saved_at is not None:
        return f"saved {duration((now - saved_at).total_seconds())} ago"
    return state
