"""The first step: paint slices of the volume in as few strokes as will do."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QWidget

from napari_volseg.data.annotation import AXIS_OF_VIEW, VIEW_OF_AXIS
from napari_volseg.widgets.acts import act_on, mark_complete
from napari_volseg.widgets.between import BetweenPanel
from napari_volseg.widgets.class_table import KEYS, ClassTable, class_key
from napari_volseg.widgets.clear_import import MENU_KEY, ClearImport
from napari_volseg.widgets.keys import CLASS_KEY, HELP_KEY, Key, LayerKeys
from napari_volseg.widgets.layers import show_slice, turn, visible_slice, watch_slice
from napari_volseg.widgets.paint_next import SUGGESTED_KEY, PaintNext
from napari_volseg.widgets.parts import button, column, label, on_click, row
from napari_volseg.widgets.slices import SliceList
from napari_volseg.widgets.undo_buttons import UndoButtons
from napari_volseg.widgets.verdicts import locked_in

if TYPE_CHECKING:
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.painted import Painted
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

COMPLETE_KEY = "C"
TURN_KEY = "T"
NEXT_KEY = "N"
PREDICTION_KEY = "O"


class AnnotateStep(QWidget):
    """Classes, painted slices, views, and what to paint next.

    Signals
    -------
    save_wanted()
        The user asks to save the annotation to a file.
    help_wanted()
        The user asks for the keys, or has read them.
    wanted()
        There is something to choose in this step.
    """

    save_wanted = Signal()
    help_wanted = Signal()
    wanted = Signal()

    def __init__(
        self, session: Session, undo: Undo, background: Background, memory: Memory
    ) -> None:
        super().__init__()
        self._session = session
        self._undo = undo
        self._clear_import = ClearImport(session, undo, memory)
        self._build()
        self._bound = LayerKeys(self.keys())
        # Scrolling through a volume moves the dims many times between two frames.
        self._place_timer = QTimer(self)
        self._place_timer.setSingleShot(True)
        self._place_timer.setInterval(50)
        self._place_timer.timeout.connect(self._show_place)
        self._unwatch = watch_slice(session.viewer, self._on_dims)
        session.changed.annotation.connect(self._bind)
        session.changed.painted.connect(self._show_hint)
        self._bind()
        self._show_hint()

    def _build(self) -> None:
        self._classes = ClassTable(self._session, beside=self._clear_import.button)
        self._slices = SliceList(self._session)
        self._between = BetweenPanel(self._session)
        self.paint_next = PaintNext(self._session)
        self._views = {
            view: button(
                view,
                f"show {view} slices",
                f"Show {view} slices through the same point. Key {TURN_KEY}: the next view.",
            )
            for view in AXIS_OF_VIEW
        }
        for view, view_button in self._views.items():
            view_button.setCheckable(True)
            on_click(view_button, self._turn_to, AXIS_OF_VIEW[view])
        self._place = label(name="slice on view")
        undo_buttons = UndoButtons(self._session, self._undo)
        self._complete = button(
            f"Mark complete  {COMPLETE_KEY}",
            "mark slice complete",
            "Fill what is unlabeled in this slice with background, but accepted objects with "
            "their class. Undo takes it back.",
        )
        self._next = button(
            f"Next painted  {NEXT_KEY}",
            "next painted slice",
            "Go to the next painted slice, of whichever orientation.",
        )
        self._save = button(
            "Save\N{HORIZONTAL ELLIPSIS}",
            "save the annotation",
            "Write the annotation to a file, with the geometry of the image and its classes.",
        )
        self._hint = label(role="hint", name="what to paint next")
        column(
            self,
            [
                self._hint,
                self._classes,
                self._clear_import,
                self._clear_import.work,
                row(label(f"view  {TURN_KEY}"), *self._views.values(), self._place, undo_buttons),
                self._slices,
                row(self._complete, self._next, self._save),
                self._between,
                self.paint_next,
            ],
        )
        self._classes.removal_wanted.connect(self._undo.remove_class)
        self._complete.clicked.connect(self.mark_complete)
        self._next.clicked.connect(self.go_to_next)
        self._save.clicked.connect(self.save_wanted)
        self._clear_import.wanted.connect(self.wanted)

    def stop(self) -> None:
        """Listen to the viewer no more, and give the layer's keys back."""
        self._place_timer.stop()
        self._unwatch()
        self._bound.bind()
        self._classes.stop()
        self._clear_import.work.shutdown()
        self._between.shutdown()
        self.paint_next.shutdown()

    def keys(self) -> tuple[Key, ...]:
        """Return all keys of the annotation layer."""
        classes = (
            Key(class_key(position), "paint with this class", partial(self._pick, position))
            for position in range(KEYS)
        )
        return (
            *classes,
            Key(CLASS_KEY, "add a class", self._classes.add_class),
            Key(MENU_KEY, "clear, or import labels", self._clear_import.open_menu),
            Key(COMPLETE_KEY, "mark the slice complete", self.mark_complete),
            Key(TURN_KEY, "turn the volume: xy, xz, yz", self._turn_to_next),
            Key(NEXT_KEY, "next painted slice", self.go_to_next),
            *self._between.keys(),
            Key(SUGGESTED_KEY, "best slice to paint next", self.paint_next.go_on),
            Key(PREDICTION_KEY, "show or hide the prediction", self._toggle_prediction),
            Key(HELP_KEY, "show or hide these keys", self.help_wanted.emit),
        )

    def _bind(self) -> None:
        self._bound.bind(self._session.annotation)
        self._show_place()

    def _pick(self, position: int) -> None:
        if position < len(self._session.classes):
            self._session.paint_with(self._session.classes[position].id)

    def mark_complete(self) -> None:
        """Fill what is unlabeled in the visible slice with background."""
        layer = self._session.annotation
        if layer is not None:
            locked = locked_in(self._session)
            fill = partial(mark_complete, self._session.viewer, layer, locked)
            act_on(layer, "mark complete", fill, "this slice is complete already")

    def go_to_next(self) -> None:
        """Show the painted slice after the one on view, of whichever orientation."""
        layer, slices = self._session.annotation, self._session.painted.slices
        if layer is None or not slices:
            return
        places = [(s.axis, s.index) for s in slices]
        seen = visible_slice(self._session.viewer, layer) or (-1, -1)
        later = [p for p in places if p > seen]
        show_slice(self._session.viewer, layer, *(later or places)[0])

    def _turn_to(self, axis: int) -> None:
        if self._session.volume is not None:
            turn(self._session.viewer, axis)
        self._show_place()

    def _turn_to_next(self) -> None:
        layer = self._session.annotation or self._session.image
        seen = None if layer is None else visible_slice(self._session.viewer, layer)
        self._turn_to((seen[0] + 1) % 3 if seen else 0)

    def _toggle_prediction(self) -> None:
        if self._session.prediction is not None:
            self._session.prediction.visible = not self._session.prediction.visible

    def _on_dims(self, event: Any) -> None:
        self._place_timer.start()

    def _show_place(self) -> None:
        layer = self._session.annotation or self._session.image
        usable = layer is not None and self._session.volume is not None
        seen = visible_slice(self._session.viewer, layer) if usable and layer else None
        for view, view_button in self._views.items():
            view_button.setChecked(seen is not None and AXIS_OF_VIEW[view] == seen[0])
        if seen and self._session.volume:
            axis, index = seen
            self._place.setText(f"slice {index} / {self._session.volume.shape[axis] - 1}")
        else:
            self._place.setText("")
        for control in (self._complete, self._next, self._save):
            control.setEnabled(self._session.annotation is not None)

    def _show_hint(self) -> None:
        layer = self._session.annotation
        has_annotation = layer is not None
        voxels = 0 if layer is None else layer.data.size
        self._hint.setText(what_to_paint(self._session.painted, has_annotation, voxels))
        self._classes.setVisible(has_annotation)
        self._slices.setVisible(has_annotation)
        self._between.setVisible(has_annotation)


def what_to_paint(painted: Painted, has_annotation: bool, voxels: int) -> str:
    """Return the one piece of advice that helps most now."""
    if not has_annotation:
        return "Press New to make an annotation layer, then paint a slice."
    if not painted.counts:
        return (
            "Paint some of each class in one slice: pick a class and draw on the image. "
            f"Press {COMPLETE_KEY} when the slice is complete: the rest becomes background."
        )
    if len(painted.counts) < 2:
        return (
            "Only one class is painted. Paint a second one, or press "
            f"{COMPLETE_KEY} to make the rest of this slice background."
        )
    if sum(painted.counts.values()) == voxels:
        return "All of the volume is labeled. Ready to train."
    axes = {s.axis for s in painted.slices}
    if len(axes) == 1:
        view = VIEW_OF_AXIS[axes.pop()]
        others = " or ".join(v for v in AXIS_OF_VIEW if v != view)
        return (
            f"All slices are {view}: one {others} slice makes the result between slices reliable."
        )
    return "Ready to train. More slices make it better, most of all where it is wrong."
