"""One undo for everything that is done to an annotation: strokes, fills, classes, other data.

Each annotation has a history of its own (``history_of`` its layer), which outlasts slice changes,
the choice of other layers, new data and, through the journal, the window.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, Qt, QTimer, Signal
from qtpy.QtWidgets import QApplication

from napari_volseg.data.corrections import Corrections, mark_changes
from napari_volseg.data.history import Act, Exchange, History, exchange
from napari_volseg.data.labeled import changed_boxes
from napari_volseg.data.rewriting import prepare, preparing, removal
from napari_volseg.review.kept import said_after
from napari_volseg.widgets.acts import stroke_name
from napari_volseg.widgets.layers import (
    classes_of,
    history_of,
    note,
    noted,
    set_classes,
)
from napari_volseg.widgets.place import show_box
from napari_volseg.widgets.strokes import stroke_of
from napari_volseg.widgets.verdicts import corrections_of, review_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.kept import KeptObject
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.rewriting import MakeAct, MakeActLong
    from napari_volseg.data.tiles import Region
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.long_work import LongWork
    from napari_volseg.widgets.session import Session

    Deliver = Callable[[Callable[[], None]], None]
    Hold = Callable[[Labels, Region, NDArray[Any], NDArray[Any]], NDArray[Any]]

AT_ONCE_VOXELS = 128**3
"""Larger acts are undone in the background, so that the window stays fluid."""

HAND_MS = 50


class Undo(QObject):
    """Records what is done to each annotation until its layer leaves the viewer, and undoes it.

    Attributes
    ----------
    correcting : Labels or None
        The annotation in which what is done now is a correction, not paint.
    hold : callable (layer, box, before, after) -> after, or None
        Says what a stroke may leave in a box of an annotation, and puts the rest back.

    Signals
    -------
    changed(object)
        There is more or less to undo in this layer.
    recorded(object, object)
        Something was done to this layer, which this act undoes.
    exchanged(object, object, object)
        In this layer, this act was put, and that one undoes it.
    """

    changed = Signal(object)
    recorded = Signal(object, object)
    exchanged = Signal(object, object, object)

    def __init__(self, session: Session, background: Background, parent: QObject) -> None:
        super().__init__(parent)
        self._session = session
        self._background = background
        self._working = False
        self.correcting: Labels | None = None
        self.hold: Hold | None = None
        # The data that each layer had at the last look: napari does not tell what it replaces.
        self._data: dict[Labels, AnyLabels] = {}
        session.changed.annotation.connect(self._follow)
        session.changed.classes_edited.connect(self._on_classes_edited)
        session.viewer.layers.events.removed.connect(self._on_removed)
        self._follow()

    def stop(self) -> None:
        """Listen no more, and forget: what is painted from now on would not be known."""
        self._session.viewer.layers.events.removed.disconnect(self._on_removed)
        for layer in list(self._data):
            self._release(layer)
            note(layer, history=History())

    def undo(self, layer: Labels | None = None) -> None:
        """Take back what was done last to a layer, by default to the annotation."""
        self._move(layer or self._session.annotation, back=True)

    def redo(self, layer: Labels | None = None) -> None:
        """Do again what was undone last in a layer, by default in the annotation."""
        self._move(layer or self._session.annotation, back=False)

    @property
    def working(self) -> bool:
        """Whether an act is being prepared in the background."""
        return self._working

    def do(
        self,
        layer: Labels,
        make: MakeAct,
        deliver: Deliver = lambda put: put(),
    ) -> None:
        """Change labels, classes or both at many places, as one act.

        Parameters
        ----------
        layer : Labels
            An annotation.
        make : callable (labels, classes, corrections)
            Makes the act from the annotation as it is; called in the background, and again if
            something was painted meanwhile. It must not change anything.
        deliver : callable (put), optional
            Called when the act is ready; it calls ``put()``, unless that is not wanted any more.
        """
        run = partial(self._background.run, prepare, make, *_found_in(layer))
        self._do(layer, run, deliver, partial(self.do, layer, make, deliver))

    def do_long(
        self,
        layer: Labels,
        make: MakeActLong,
        work: LongWork,
        deliver: Deliver = lambda put: put(),
    ) -> None:
        """Do what ``do`` does where it may take long: it can be seen, and cancelled.

        Parameters
        ----------
        layer, deliver
            As of ``do``.
        make : callable (labels, classes, corrections)
            As of ``do``, but a generator of how much is done, 0 to 1, that returns the act.
        work : LongWork
            Runs it.
        """
        run = partial(work.run, partial(preparing, make, *_found_in(layer)))
        self._do(layer, run, deliver, partial(self.do_long, layer, make, work, deliver))

    def _do(
        self,
        layer: Labels,
        run: Callable[..., None],
        deliver: Deliver,
        again: Callable[[], None],
    ) -> None:
        history = history_of(layer)
        self._working = True

        def put(ready: Exchange) -> None:
            self._put(layer, ready, history.done(ready.opposite))
            self._session.viewer.status = f"Done: {ready.act.name}"

        def hand_over(ready: Exchange) -> None:
            deliver(partial(put, ready))

        done = partial(self._deliver, layer, history, hand_over, again)
        run(done=done, failed=self._rest)

    def say(
        self,
        layer: Labels,
        name: str,
        said: Iterable[KeptObject],
        unsaid: Iterable[KeptObject],
        also: Act | None = None,
    ) -> Act:
        """Record that other things are said of objects now.

        Parameters
        ----------
        name : str
            What to call it as an act of its own.
        said, unsaid : iterable of KeptObject
            What an undo of it says of objects again, and what it no longer says.
        also : Act, optional
            The last one, that it is a part of.

        Returns
        -------
        Act
            That undoes it.
        """
        history = history_of(layer)
        acts = tuple(one.act for one in said), tuple(one.act for one in unsaid)
        back = replace(also or Act(name, layer.data.dtype.str), said=acts[0], unsaid=acts[1])
        if also is not None:
            history = replace(history, undoable=history.undoable[:-1])
        self._keep(layer, history.done(back))
        return back

    def remove_class(self, class_id: int, into: int) -> None:
        """Remove a class of the annotation; its voxels get the label ``into``, as one act."""
        layer = self._session.annotation
        if layer is None or self._working:
            return
        self.do(layer, lambda labels, classes, _: removal(labels, classes, class_id, into))

    def _move(self, layer: Labels | None, *, back: bool) -> None:
        if layer not in self._data or _hand_is_down():
            return
        if self._working:
            self._session.viewer.status = "What was done last is not finished yet"
            return
        history = history_of(layer)
        acts = history.undoable if back else history.redoable
        if not acts:
            return
        act, labels, classes = acts[-1], layer.data, classes_of(layer)
        marks = corrections_of(layer).like(act.marks)

        def put(ready: Exchange) -> None:
            moved = history.undone if back else history.redone
            self._put(layer, ready, moved(ready.opposite))
            viewer, verb = self._session.viewer, "Undone" if back else "Redone"
            place = f", {show_box(viewer, layer, act.box)}" if act.box is not None else ""
            viewer.status = f"{verb}: {act.name}{place}"

        if act.voxels <= AT_ONCE_VOXELS:
            put(exchange(act, labels, classes, marks))
            return
        self._working = True
        self._background.run(
            exchange,
            act,
            labels,
            classes,
            marks,
            # Who paints meanwhile does not want it undone.
            done=partial(self._deliver, layer, history, put, self._rest),
            failed=self._rest,
        )

    def _deliver(
        self,
        layer: Labels,
        history: History,
        put: Callable[[Exchange], None],
        late: Callable[[], None],
        ready: Exchange,
    ) -> None:
        """Put what the background prepared, unless the labels are no longer the same."""
        if layer in self._data and _hand_is_down():
            again = partial(self._deliver, layer, history, put, late, ready)
            QTimer.singleShot(HAND_MS, again)
            return
        self._rest()
        if layer in self._data:
            if history_of(layer) == history:
                put(ready)
            else:
                late()

    def _rest(self) -> None:
        self._working = False

    def _put(self, layer: Labels, ready: Exchange, history: History) -> None:
        labels = ready.put(layer.data)
        if labels is not layer.data:
            # Known beforehand, so that it is no act of its own.
            self._data[layer] = labels
            layer.data = labels
        act = ready.act
        note(layer, corrections=corrections_of(layer).put(act.marks))
        if act.said or act.unsaid:
            note(layer, kept=said_after(review_of(layer).kept, act))
        if act.classes is not None:
            self._take_classes(layer, act.classes)
        layer.refresh()
        self.exchanged.emit(layer, act, ready.opposite)
        self._keep(layer, history)

    def _take_classes(self, layer: Labels, classes: tuple[LabelClass, ...]) -> None:
        if layer is not self._session.annotation:
            set_classes(layer, classes)
            return
        self._session.set_classes(classes)
        if layer.selected_label not in (0, *(c.id for c in classes)):
            layer.selected_label = classes[-1].id

    def _keep(self, layer: Labels, history: History) -> None:
        note(layer, history=history)
        self.changed.emit(layer)

    def _follow(self) -> None:
        layer = self._session.annotation
        # Another dock may record it already; done twice, nothing would fit together.
        if layer is not None and "undo" not in vars(layer):
            self._data[layer] = layer.data
            layer.events.paint.connect(self._on_paint)
            layer.events.data.connect(self._on_replaced)
            # Whatever undoes, as napari's keys or a script, calls these.
            layer.undo = partial(self.undo, layer)
            layer.redo = partial(self.redo, layer)

    def _on_removed(self, event: Any) -> None:
        if event.value in self._data:
            self._release(event.value)

    def _release(self, layer: Labels) -> None:
        del self._data[layer], layer.undo, layer.redo
        layer.events.paint.disconnect(self._on_paint)
        layer.events.data.disconnect(self._on_replaced)

    def _on_paint(self, event: Any) -> None:
        layer = event.source
        box, before, after = stroke_of(event.value, layer.data)
        if self.hold is not None:
            after = self.hold(layer, box, before, after)
        back = Act(stroke_name(layer), layer.data.dtype.str)
        self._change(layer, back, [(box, before, after)])
        # napari keeps it too; out of step with ours, its undo would do harm.
        event.value.clear()

    def _on_replaced(self, event: Any) -> None:
        layer = event.source
        before, self._data[layer] = self._data[layer], layer.data
        if before is layer.data:
            return
        if before.shape != layer.data.shape:
            # Nothing that was known of the others fits these.
            note(layer, kept=(), corrections=Corrections())
            self._keep(layer, History())
            return
        name = noted(layer).get("act") or "replace the labels"
        boxes = changed_boxes(before, layer.data)
        pieces = ((box, before[box], layer.data[box]) for box in boxes)
        self._change(layer, Act(name, before.dtype.str), pieces)

    def _on_classes_edited(self, name: str, before: tuple[LabelClass, ...]) -> None:
        layer = self._session.annotation
        if layer is not None:
            self._record(layer, Act(name, layer.data.dtype.str, classes=before))

    def _change(
        self,
        layer: Labels,
        back: Act,
        pieces: Iterable[tuple[Region, NDArray[Any], NDArray[Any]]],
    ) -> None:
        """Record other labels of some boxes, and mark them as corrections, or no longer.

        Parameters
        ----------
        back : Act
            That undoes it, but for the labels.
        pieces : iterable of (box, before, after)
        """
        put: set[int] = set()

        def reversed_pieces() -> Iterator[tuple[Region, NDArray[Any], NDArray[Any]]]:
            for box, before, after in pieces:
                put.update(np.flatnonzero(np.bincount(after[before != after])).tolist())
                yield box, after, before

        corrected = layer is self.correcting
        patches, now, marks = mark_changes(reversed_pieces(), corrections_of(layer), corrected)
        note(layer, corrections=now)
        back = replace(back, patches=patches, marks=marks)
        if back.voxels <= AT_ONCE_VOXELS:
            # In what is larger, a look in the background finds new classes; they are no act.
            had, known = classes_of(layer), self._session.classes_with(put)
            if layer is self._session.annotation and had != known:
                self._take_classes(layer, known)
                back = replace(back, classes=had)
        self._record(layer, back)

    def _record(self, layer: Labels, back: Act) -> None:
        if back.patches or back.classes is not None or back.dtype != layer.data.dtype.str:
            self._keep(layer, history_of(layer).done(back))
            self.recorded.emit(layer, back)


def _found_in(layer: Labels) -> tuple[AnyLabels, tuple[LabelClass, ...], Corrections]:
    """Return what an act is made from."""
    return layer.data, classes_of(layer), corrections_of(layer)


def _hand_is_down() -> bool:
    """Whether a stroke may be going on, of which napari has not told yet."""
    return QApplication.mouseButtons() != Qt.MouseButton.NoButton
