"""Clear a slice or all of an annotation, and import labels into it: each one act of the undo."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QPoint, Qt, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QFrame, QMenu

from napari_volseg.data.annotation import UNLABELED, VIEW_OF_AXIS, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.rewriting import (
    LabelValues,
    Rewritten,
    clearing,
    importing_labels,
    looking_at,
)
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import slice_region, whole_region
from napari_volseg.widgets.files import ask_for_labels
from napari_volseg.widgets.layers import MAX_CLASSES, classes_of, noted, slice_on_view
from napari_volseg.widgets.long_work import LongWork
from napari_volseg.widgets.parts import button, column, count, label, named, row
from napari_volseg.widgets.undo_buttons import UNDO_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from pathlib import Path

    from napari.layers import Labels

    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.history import Act
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

    MakeAct = Callable[
        [AnyLabels, tuple[LabelClass, ...], Corrections], Generator[float, None, Rewritten]
    ]

MENU_KEY = "Shift+X"
MORE = "\N{HORIZONTAL ELLIPSIS}"


class ClearImport(QFrame):
    """A button with a menu, shown elsewhere, and a strip that asks what a file leaves open.

    Attributes
    ----------
    button : QPushButton
    work : LongWork
        A strip of its own, while that takes long.

    Signals
    -------
    wanted()
        There is something to choose here, while another step of the dock is shown.
    """

    wanted = Signal()

    def __init__(self, session: Session, undo: Undo, memory: Memory) -> None:
        super().__init__()
        self._session = session
        self._undo = undo
        self._memory = memory
        self._asked: tuple[Labels, LabelValues] | None = None
        self.button = button(
            f"Clear, import  {MENU_KEY}",
            "clear or import labels",
            "Clear the slice on view or all that is painted, or import labels from a file or a "
            "layer. Undo takes it back.",
        )
        self.button.clicked.connect(self.open_menu)
        self.work = LongWork(
            "this change", "How much of it is done.", "Leave the annotation as it is.", titled=True
        )
        self.work.cancelled.connect(self._say_cancelled)
        self._worked_on: Labels | None = None
        self._build()
        session.changed.annotation.connect(self._show)
        self._show()

    def _build(self) -> None:
        self.setProperty("role", "strip")
        self._question = label(name="what is to be imported")
        self._choice = named(
            QComboBox(),
            "unlabeled value",
            "The value of voxels that nobody labeled. Where 0 is a class, all move up by one: "
            "here, 0 is always unlabeled.",
        )
        self._meaning = label(role="muted", name="what the values become")
        self._import = button(
            "Import",
            "import",
            "Paint them over what is labeled here; where they are unlabeled, it stays.",
            primary=True,
        )
        cancel = button("Cancel", "cancel the import", "Leave the annotation as it is.")
        asking = row(label("unlabeled is"), self._choice, self._import, cancel, stretch=1)
        layout = column(self, [self._question, asking, self._meaning])
        layout.setContentsMargins(8, 6, 8, 6)
        self._choice.currentIndexChanged.connect(self._show_meaning)
        self._import.clicked.connect(self._answer)
        cancel.clicked.connect(self._close)

    def open_menu(self) -> None:
        """Offer what can be done, below the button."""
        layer = self._session.annotation
        if layer is None:
            return
        if not self.button.isVisible():
            self.wanted.emit()
            # Its place is known once it is shown.
            QTimer.singleShot(0, self._open_if_shown)
            return
        menu = QMenu(self.button)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        menu.setAccessibleName("clear or import")
        entries: list[tuple[str, Callable[[], None]]] = [
            ("&Clear slice", self.clear_slice),
            ("Clear &all", self.clear_all),
            (f"&Import labels{MORE}", self.import_file),
            (f"Import an OME-&Zarr folder{MORE}", partial(self.import_file, True)),
        ]
        others = [x for x in self._session.labels() if x is not layer]
        for other in others:
            if not other.multiscale and other.data.shape == layer.data.shape:
                name = other.name.replace("&", "&&")
                entries.append((f"Import layer {name}", partial(self.import_layer, other)))
        for text, act in entries:
            # Not the act itself: the signal would hand it whether the entry is checked.
            menu.addAction(text).triggered.connect(lambda _, act=act: act())
        menu.insertSeparator(menu.actions()[2])
        menu.popup(self.button.mapToGlobal(QPoint(0, self.button.height())))

    def _open_if_shown(self) -> None:
        if self.button.isVisible():
            self.open_menu()

    def clear_slice(self) -> None:
        """Leave nothing labeled in the slice on view."""
        layer = self._session.annotation
        if layer is None:
            return
        try:
            axis, index = slice_on_view(self._session.viewer, layer)
        except InputError as error:
            show_warning(str(error))
            return
        box = slice_region(layer.data.shape, axis, index)
        place = f"{VIEW_OF_AXIS[axis]} slice {index}"
        self.work.say(f"Clearing {place}{MORE}")
        self._do(layer, partial(clearing, name="clear slice", box=box), "cleared", f" in {place}")

    def clear_all(self) -> None:
        """Leave nothing labeled."""
        layer = self._session.annotation
        if layer is not None:
            box = whole_region(layer.data.shape)
            self.work.say(f"Clearing all that is painted{MORE}")
            self._do(layer, partial(clearing, name="clear all", box=box), "cleared")

    def import_file(self, folder: bool = False) -> None:
        """Ask for a file of labels, or for a folder that is one, and import it."""
        layer = self._session.annotation
        path = None if layer is None else ask_for_labels(self, self._memory, folder=folder)
        if layer is None or path is None:
            return
        self._look(layer, path.name, partial(_read, path))

    def import_layer(self, other: Labels) -> None:
        """Import what another labels layer holds now."""
        layer = self._session.annotation
        if layer is None:
            return
        # Those of a layer that is not ours are napari's: nobody said what its values mean.
        classes = classes_of(other) if "classes" in noted(other) else ()
        self._look(layer, other.name, partial(looking_at, other.data, classes=classes))

    def _look(
        self, layer: Labels, name: str, look: Callable[..., Generator[float, None, LabelValues]]
    ) -> None:
        if not self._begin(layer):
            return
        self.work.say(f"Reading {name}{MORE}")
        self._session.viewer.status = f"Reading {name}"
        in_blocks = isinstance(layer.data, SparseLabels)
        shape = layer.data.shape
        look = partial(look, name=name, shape=shape, most=MAX_CLASSES, in_blocks=in_blocks)
        self.work.run(look, done=partial(self._take, layer), failed=self._end_status)

    def _begin(self, layer: Labels) -> bool:
        """Whether work on a layer may begin; if not, say why."""
        if self.work.working or self._undo.working:
            show_info("what was done before is not finished yet; try again in a moment")
            return False
        self._close()
        self._worked_on = layer
        return True

    def _say_cancelled(self) -> None:
        self._session.viewer.status = "Cancelled: the annotation is as it was"

    def _end_status(self) -> None:
        self._session.viewer.status = ""

    def _take(self, layer: Labels, given: LabelValues) -> None:
        """Import what was read, or ask which of its values is the unlabeled one."""
        self._end_status()
        if given.classes:
            self._put(layer, given, UNLABELED)
            return
        self._asked = layer, given
        self._choice.clear()
        for value in given.choices:
            self._choice.addItem(str(value) if value in given.found else "none of them", value)
        values = ", ".join(map(str, given.found))
        self._question.setText(f"{given.name} does not say what its values mean: {values}.")
        self._show()
        self.wanted.emit()
        self._choice.setFocus()

    def _answer(self) -> None:
        if self._asked is not None:
            layer, given = self._asked
            self._put(layer, given, self._choice.currentData())
            self._close()

    def _put(self, layer: Labels, given: LabelValues, unlabeled: int) -> None:
        others = () if self._session.prediction is None else classes_of(self._session.prediction)
        make = partial(
            importing_labels, given=given, unlabeled=unlabeled, others=others, most=MAX_CLASSES
        )
        self.work.say(f"Importing {given.name}{MORE}")
        self._do(layer, make, "imported", f" from {given.name}")

    def _do(self, layer: Labels, make: MakeAct, verb: str, where: str = "") -> None:
        """Do something as one act, and say how many voxels it changed."""
        if not self._begin(layer):
            return
        changed: list[int] = []

        def make_act(
            labels: AnyLabels, classes: tuple[LabelClass, ...], corrections: Corrections
        ) -> Generator[float, None, Act]:
            made = yield from make(labels, classes, corrections)
            changed[:] = [made.changed]
            return made.act

        def deliver(put: Callable[[], None]) -> None:
            put()
            what = f"{count(changed[0])} voxels {verb}{where}"
            self._session.viewer.status = f"{what}; {UNDO_KEY} takes it back"

        self._undo.do_long(layer, make_act, self.work, deliver)

    def _show_meaning(self) -> None:
        self._import.setEnabled(False)
        if self._asked is None or self._choice.currentData() is None:
            return
        given, names = self._asked[1], {c.id: c.name for c in self._session.classes}
        try:
            meaning = given.meaning(self._choice.currentData())
        except InputError as error:
            self._meaning.setText(str(error))
            return
        self._import.setEnabled(True)
        became = [
            f"{value} is {names.get(i, f'class {i}') if i != UNLABELED else 'unlabeled'}"
            for value, i in meaning.items()
        ]
        self._meaning.setText(", ".join(became))

    def _close(self) -> None:
        self._asked = None
        self._show()

    def _show(self) -> None:
        layer = self._session.annotation
        self.button.setEnabled(layer is not None)
        if self._asked is not None and self._asked[0] is not layer:
            self._asked = None
        self.setVisible(self._asked is not None)
        if self._worked_on is not layer:
            self.work.cancel()


def _read(path: Path, **options: Any) -> Generator[float, None, LabelValues]:
    """Read a file of labels that is to be imported."""
    from napari_volseg.data.files import open_values

    values, classes = open_values(path)
    return (yield from looking_at(values, classes=classes, **options))
