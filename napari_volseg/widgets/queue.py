"""The review queue: the objects of the prediction one by one, and a key for each verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QLineEdit, QWidget

from napari_volseg.review.edits import (
    reject,
    restore,
    taken,
)
from napari_volseg.review.queue import (
    CORRECTED,
    REJECTED,
    UNREVIEWED,
    largest_slice,
    queue_order,
    reviewed_share,
)
from napari_volseg.widgets.files import ask_where_to_save, say_saved
from napari_volseg.widgets.fix_tools import FixTools
from napari_volseg.widgets.geometry import voxel_under
from napari_volseg.widgets.keys import ACCEPT_KEY, FIX_KEY, REJECT_KEY, Key, LayerKeys
from napari_volseg.widgets.layers import center_on, classes_of, show_slice, visible_slice
from napari_volseg.widgets.object_list import ObjectList
from napari_volseg.widgets.outline import Outline
from napari_volseg.widgets.parts import DOT, button, column, label, named, row, say
from napari_volseg.widgets.reviewing import Reviewing
from napari_volseg.widgets.work import save_review_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari.layers import Labels

    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import Objects
    from napari_volseg.widgets.finding import FoundObjects
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

NEXT_KEY, BACK_KEY = "J", "K"

TABLE_SUFFIXES = {".csv": "CSV table"}


class QueuePanel(QWidget):
    """Objects in a table and in the picture; accept, reject or fix one after another.

    Signals
    -------
    reviewed()
        More or fewer objects are reviewed.
    """

    reviewed = Signal()

    def __init__(
        self, session: Session, background: Background, memory: Memory, undo: Undo
    ) -> None:
        super().__init__()
        self._session = session
        self._background = background
        self._memory = memory
        self.reviewing = Reviewing(session, background, undo)
        self._outline = Outline(session)
        self._current = 0
        self._been: list[int] = []
        self._clicked: list[Labels] = []
        self._build()
        self._bound = LayerKeys(self.keys())
        self.reviewing.changed.connect(self._on_changed)
        for signal in (session.changed.annotation, session.changed.prediction):
            signal.connect(self._bind)
        session.changed.busy.connect(self._show)
        self._bind()
        self._show()

    def _build(self) -> None:
        self._state = label(name="object in review")
        self._accept = button(
            f"Accept  {ACCEPT_KEY}",
            "accept object",
            "It is right: lock it, so that no new prediction changes it, and no brush. Undo, or "
            "pressing it again, unlocks it. Several rows selected in the table (Ctrl+A: all) are "
            "locked at once.",
            primary=True,
        )
        self._reject = button(
            f"Reject  {REJECT_KEY}",
            "reject object",
            "It is background: it becomes so in the prediction, and in the annotation for the "
            "next training. Undo, or pressing it again, takes it back. Several rows selected in "
            "the table become so at once, those that nothing is said of yet.",
        )
        self._fix = button(
            f"Fix  {FIX_KEY}",
            "fix object",
            "It is nearly right: take it over into the annotation. What you paint and erase there "
            "changes the object; other tools appear below.",
        )
        self._back = button(
            f"\N{LEFTWARDS ARROW}  {BACK_KEY}", "previous object", "The object before this one."
        )
        self._next = button(
            f"\N{RIGHTWARDS ARROW}  {NEXT_KEY}",
            "next object",
            "The next object that is not reviewed yet.",
        )
        self.list = ObjectList()
        self._tools = FixTools(self._session, self.reviewing, self._outline, self.list.selected)
        self._progress = label(role="muted", name="review progress")
        self._filter = named(
            QLineEdit(),
            "filter objects",
            "Words that a row must have: a number, a class, unreviewed, accepted, border.",
        )
        self._filter.setPlaceholderText(
            "filter: unreviewed, a class, border\N{HORIZONTAL ELLIPSIS}"
        )
        self._save = button(
            "Save table\N{HORIZONTAL ELLIPSIS}",
            "save the review",
            "Write all objects with sizes, places, confidence and verdicts to a CSV file.",
        )
        column(
            self,
            [
                self._state,
                row(self._accept, self._reject, self._fix, self._back, self._next),
                self._tools,
                self._progress,
                row(self._filter, self._save, stretch=0),
                self.list,
            ],
        )
        self._filter.textChanged.connect(self.list.look_for)
        self.list.picked.connect(self.go_to)
        self._accept.clicked.connect(self.accept)
        self._reject.clicked.connect(self.reject)
        self._fix.clicked.connect(self.fix)
        self._back.clicked.connect(self.go_back)
        self._next.clicked.connect(self.go_on)
        self._save.clicked.connect(self.save_table)
        for key in self.keys():
            # For who has just clicked in the table.
            shortcut = QShortcut(QKeySequence(key.key), self)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(key.act)

    def keys(self) -> tuple[Key, ...]:
        """Return what to bind on the annotation and on the prediction."""
        return (
            Key(ACCEPT_KEY, "accept the object in review", self._if_seen(self.accept)),
            Key(REJECT_KEY, "reject the object in review", self._if_seen(self.reject)),
            Key(FIX_KEY, "fix the object in review", self._if_seen(self.fix)),
            Key(NEXT_KEY, "next object to review", self._if_seen(self.go_on)),
            Key(BACK_KEY, "the object before", self._if_seen(self.go_back)),
            *(replace(key, act=self._if_seen(key.act)) for key in self._tools.keys()),
        )

    def _if_seen(self, act: Any) -> Any:
        # In the other steps, a slip of the finger must not pass a verdict.
        return lambda: act() if self.isVisible() and self.reviewing.possible else None

    def _bind(self) -> None:
        self._listen(self._session.annotation, self._session.prediction)

    def _listen(self, *layers: Labels | None) -> None:
        """Take keys and clicks of these layers, and of no others any more."""
        self._bound.bind(*layers)
        for layer in self._clicked:
            layer.mouse_drag_callbacks.remove(self._on_mouse)
        self._clicked = [layer for layer in layers if layer is not None]
        for layer in self._clicked:
            layer.mouse_drag_callbacks.append(self._on_mouse)

    def start(self, prediction: Labels, volume: Volume, found: FoundObjects) -> None:
        """Review the objects that were found, beginning with the one most worth it."""
        self._current, self._been = 0, []
        self.reviewing.start(prediction, volume, found)

    def end(self) -> None:
        """Forget the objects."""
        self._current, self._been = 0, []
        self.reviewing.end()

    @property
    def figure(self) -> str:
        """How far the review is, as "12/40"; "" without one."""
        reviewing = self.reviewing
        return f"{len(reviewing.states)}/{len(reviewing.measured)}" if reviewing.measured else ""

    def go_to(self, number: int, *, jump: bool = True) -> None:
        """Make an object the one in review, and show it."""
        objects = self.reviewing.objects
        if objects is None or not self.reviewing.possible or number not in objects:
            return
        if self._current and self._current != number:
            self._been.append(self._current)
            self.reviewing.painting = 0
        self._current = number
        self.list.go_to(number)
        if jump:
            self._jump(objects, number)
        self._outline.show(objects, number)
        self._show()

    def _jump(self, objects: Objects, number: int) -> None:
        layer, viewer = self._session.prediction, self._session.viewer
        seen = visible_slice(viewer, layer)
        axis = seen[0] if seen else 0
        show_slice(viewer, layer, axis, largest_slice(objects, number, axis))
        center_on(viewer, layer, objects.get(number).box)

    def go_on(self) -> None:
        """Go to the next object of the queue that is not reviewed."""
        order = queue_order(self.reviewing.measured.values())
        if self._current in order:
            at = order.index(self._current) + 1
            order = order[at:] + order[:at]
        left = [n for n in order if self.reviewing.state(n) == UNREVIEWED and n != self._current]
        if left or (order and not self._current):
            self.go_to((left or order)[0])

    def go_back(self) -> None:
        """Go to the object that was in review before."""
        while self._been:
            number = self._been.pop()
            if self.reviewing.objects is not None and number in self.reviewing.objects:
                self._current = 0
                self.go_to(number)
                return

    def accept(self) -> None:
        """Lock the object, and go on; or unlock it; of several selected, lock what is not yet."""
        number, selected = self._current, self.list.selected()
        if len(selected) > 1:
            self.reviewing.accept_all(selected)
        elif number:
            self.reviewing.accept(number)
            if self.reviewing.state(number) != UNREVIEWED:
                self.go_on()

    def reject(self) -> None:
        """Take the object for background, and go on; or take that back; of several, all."""
        number, selected = self._current, self.list.selected()
        if len(selected) > 1:
            self.reviewing.reject_all(selected)
        elif number and self.reviewing.state(number) == REJECTED:
            self.reviewing.edit(restore, number)
        elif number and self.reviewing.edit(reject, number):
            self.go_on()

    def fix(self) -> None:
        """Take the object over into the annotation, with the brush ready to change it there."""
        number = self._current
        if not number or self._session.annotation is None:
            return
        if self.reviewing.painting == number:
            self.reviewing.painting = 0
            self._show()
            return
        self._session.paint_with(self.reviewing.measured[number].class_id)
        self.reviewing.edit(taken, number, paint=number)

    def _on_mouse(self, layer: Labels, event: Any) -> Iterator[None]:
        """Take a click for a wish to see an object, or for a place to split it at."""
        if event.button != 1 or layer.mode != "pan_zoom" or not self.isVisible():
            return
        voxel = voxel_under(layer, event)
        yield
        if event.type != "mouse_move":
            self.click(voxel)

    def click(self, voxel: tuple[int, int, int]) -> None:
        """Go to the object at a voxel (z, y, x), or split there."""
        number = self.reviewing.number_at(voxel)
        if self._tools.click(voxel) or not number:
            return
        if number not in self.list.shown():
            self._filter.clear()
        self.go_to(number, jump=False)

    def save_table(self) -> None:
        """Ask for a file and write the table there."""
        volume, reviewing = self._session.volume, self.reviewing
        objects, prediction = reviewing.objects, self._session.prediction
        if volume is None or prediction is None or objects is None:
            return
        path = ask_where_to_save(
            self, self._memory, "Save table", f"{volume.name}_review", TABLE_SUFFIXES
        )
        if path is not None:
            self._background.run(
                save_review_table,
                path,
                objects,
                tuple(reviewing.measured.values()),
                dict(reviewing.states),
                classes_of(prediction),
                volume,
                done=say_saved,
            )

    def _on_changed(self, numbers: frozenset[int]) -> None:
        reviewing = self.reviewing
        gone = [n for n in numbers if n not in reviewing.measured]
        new = [n for n in numbers if self.list.model_.row_of(n) < 0]
        if gone or new or not numbers:
            order = queue_order(reviewing.measured.values())
            rows = [reviewing.measured[n] for n in order]
            volume, prediction = self._session.volume, self._session.prediction
            classes = () if prediction is None else classes_of(prediction)
            unit = volume.unit if volume is not None else ""
            self.list.show_objects(rows, reviewing.states, classes, unit)
            self.list.go_to(self._current)
        else:
            self.list.update_objects(numbers, reviewing.measured, reviewing.states)
        if self._current not in reviewing.measured:
            self._current = 0
            self.go_on()
        elif self._current in numbers and reviewing.objects is not None:
            self._outline.show(reviewing.objects, self._current)
        self._show()
        self.reviewed.emit()

    def _show(self) -> None:
        reviewing, number = self.reviewing, self._current
        possible = reviewing.possible and bool(number)
        for control in (self._reject, self._next):
            control.setEnabled(possible)
        # A corrected one is locked already.
        locked = reviewing.state(number) == CORRECTED and len(self.list.selected()) < 2
        self._accept.setEnabled(possible and not locked)
        annotated = self._session.annotation is not None
        self._fix.setEnabled(possible and annotated)
        self._back.setEnabled(possible and bool(self._been))
        self._tools.setVisible(possible and reviewing.state(number) == CORRECTED)
        self._save.setEnabled(bool(reviewing.measured))
        if not number:
            self._outline.hide()
            say(self._state, "")
            say(self._progress, "")
            return
        say(self._state, self._words(number))
        self._tools.set_object(number)
        share, volume = reviewed_share(tuple(reviewing.measured.values()), reviewing.states)
        say(
            self._progress,
            f"{100 * share:.0f}% of objects, {100 * volume:.0f}% of volume reviewed",
        )

    def _words(self, number: int) -> str:
        if not self.reviewing.possible:
            return "The prediction is another one now; find its objects again."
        found = self.reviewing.measured[number]
        parts = [f"object {number}", self.list.model_.class_name(found)]
        if found.confidence is not None:
            parts.append(f"confidence {found.confidence:.2f}")
        return DOT.join([*parts, self.reviewing.state(number)])

    def shutdown(self) -> None:
        """Take the outline away, and give the layers' keys back."""
        self._outline.hide()
        self._listen()
