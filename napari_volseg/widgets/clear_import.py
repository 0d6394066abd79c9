"""Clear a slice or all of an annotation, and import labels into it: each one act of the undo."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_info, show_warning
from qtpy.QtCore import QPoint, Qt, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QFrame, QMenu

from napari_volseg.data.annotation import UNLABELED, VIEW_OF_AXIS, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.rewriting import LabelValues, clear, count_changed, import_labels, look_at
from napari_volseg.data.tiles import slice_region, whole_region
from napari_volseg.widgets.files import ask_for_labels
from napari_volseg.widgets.layers import MAX_CLASSES, classes_of, noted, slice_on_view
from napari_volseg.widgets.parts import button, column, count, label, named, row
from napari_volseg.widgets.undo_buttons import UNDO_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_volseg.data.corrections import Corrections
    from napari_volseg.data.history import Act
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

    MakeAct = Callable[[NDArray[Any], tuple[LabelClass, ...], Corrections], Act]

MENU_KEY = "Shift+X"


class ClearImport(QFrame):
    """A button with a menu, shown elsewhere, and a strip that asks what a file leaves open.

    Attributes
    ----------
    button : QPushButton

    Signals
    -------
    wanted()
        There is something to choose here, while another step of the dock is shown.
    """

    wanted = Signal()

    def __init__(
        self, session: Session, undo: Undo, background: Background, memory: Memory
    ) -> None:
        super().__init__()
        self._session = session
        self._undo = undo
        self._background = background
        self._memory = memory
        self._asked: tuple[Labels, LabelValues] | None = None
        self.button = button(
            f"Clear, import  {MENU_KEY}",
            "clear or import labels",
            "Clear the slice on view or all that is painted, or import labels from a file or a "
            "layer. Undo takes it back.",
        )
        self.button.clicked.connect(self.open_menu)
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
            ("&Import labels\N{HORIZONTAL ELLIPSIS}", self.import_file),
            ("Import an OME-&Zarr folder\N{HORIZONTAL ELLIPSIS}", partial(self.import_file, True)),
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
        where = f" in {VIEW_OF_AXIS[axis]} slice {index}"
        self._do(layer, partial(clear, name="clear slice", box=box), "cleared", where)

    def clear_all(self) -> None:
        """Leave nothing labeled."""
        layer = self._session.annotation
        if layer is not None:
            box = whole_region(layer.data.shape)
            self._do(layer, partial(clear, name="clear all", box=box), "cleared")

    def import_file(self, folder: bool = False) -> None:
        """Ask for a file of labels, or for a folder that is one, and import it."""
        layer = self._session.annotation
        path = None if layer is None else ask_for_labels(self, self._memory, folder=folder)
        if layer is None or path is None:
            return
        self._session.viewer.status = f"Reading {path.name}"
        self._run(layer, _read, path, layer.data.shape)

    def import_layer(self, other: Labels) -> None:
        """Import what another labels layer holds now."""
        layer = self._session.annotation
        if layer is None:
            return
        # Those of a layer that is not ours are napari's: nobody said what its values mean.
        classes = classes_of(other) if "classes" in noted(other) else ()
        self._run(layer, _look_at_copy, other.data, other.name, layer.data.shape, classes)

    def _run(self, layer: Labels, read: Callable[..., LabelValues], *arguments: Any) -> None:
        take = partial(self._take, layer)
        self._background.run(read, *arguments, done=take, failed=self._end_status)

    def _end_status(self) -> None:
        self._session.viewer.status = ""

    def _take(self, layer: Labels, given: LabelValues) -> None:
        """Import what was read, or ask which of its values is the unlabeled one."""
        self._end_status()
        if layer is not self._session.annotation:
            return
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
            import_labels, given=given, unlabeled=unlabeled, others=others, most=MAX_CLASSES
        )
        self._do(layer, make, "imported", f" from {given.name}")

    def _do(self, layer: Labels, make: MakeAct, verb: str, where: str = "") -> None:
        """Do something as one act, and say how many voxels it changed."""
        if self._undo.working:
            show_info("what was done before is not finished yet; try again in a moment")
            return
        changed: list[int] = []

        def make_act(
            labels: NDArray[Any], classes: tuple[LabelClass, ...], corrections: Corrections
        ) -> Act:
            act = make(labels, classes, corrections)
            changed[:] = [count_changed(act, labels)]
            return act

        def deliver(put: Callable[[], None]) -> None:
            put()
            what = f"{count(changed[0])} voxels {verb}{where}"
            self._session.viewer.status = f"{what}; {UNDO_KEY} takes it back"

        self._undo.do(layer, make_act, deliver)

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


def _read(path: Path, shape: Sequence[int]) -> LabelValues:
    """Read a file of labels that is to be imported."""
    from napari_volseg.data.files import read_values

    values, classes = read_values(path)
    return look_at(values, path.name, shape, MAX_CLASSES, classes)


def _look_at_copy(
    values: Any, name: str, shape: Sequence[int], classes: tuple[LabelClass, ...]
) -> LabelValues:
    # What is painted there later is not what was looked at.
    return look_at(values.copy(), name, shape, MAX_CLASSES, classes)
