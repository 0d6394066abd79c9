"""The classes: key, color, name, how much is painted, and what to do about too little."""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_warning
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QCursor, QKeySequence
from qtpy.QtWidgets import (
    QColorDialog,
    QGridLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QWidget,
)

from napari_volseg.data.annotation import BACKGROUND, UNLABELED
from napari_volseg.data.errors import InputError
from napari_volseg.widgets.keys import CLASS_KEY
from napari_volseg.widgets.parts import (
    SPACING,
    button,
    column,
    count,
    discard,
    label,
    named,
    on_click,
    row,
)

if TYPE_CHECKING:
    from napari.layers import Labels

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.widgets.session import Session

FEW_VOXELS = 200
KEYS = 9


def class_key(position: int) -> str:
    """Return the key of the class at a position from 0, or "" beyond the ninth.

    The digits alone are napari's; with Alt held, the mouse changes the brush's size.
    """
    return f"Ctrl+{position + 1}" if position < KEYS else ""


class ClassTable(QWidget):
    """One row for each class of the annotation.

    Parameters
    ----------
    beside : QWidget
        What to show beside the button that adds a class.

    Signals
    -------
    removal_wanted(int, int)
        The user removes the class of the first id; its voxels get the second one.
    """

    removal_wanted = Signal(int, int)

    def __init__(self, session: Session, beside: QWidget) -> None:
        super().__init__()
        self._session = session
        self._rows: dict[int, _Row] = {}
        self._layer: Labels | None = None
        self._grid = QGridLayout()
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(SPACING)
        self._grid.setColumnStretch(2, 1)
        self._add = button(
            f"+ class  {CLASS_KEY}",
            "add a class",
            "Add a class, pick the brush with it, and type its name; Enter ends that.",
        )
        self._add.clicked.connect(self.add_class)
        layout = column(self, [])
        layout.addLayout(self._grid)
        layout.addLayout(row(self._add, beside))
        session.changed.annotation.connect(self._follow)
        session.changed.classes.connect(self._show_classes)
        session.changed.painted.connect(self._show_counts)
        self._follow()
        self._show_classes()

    def stop(self) -> None:
        """Listen to the layer no more."""
        if self._layer is not None:
            self._layer.events.selected_label.disconnect(self._show_selected)
            self._layer = None

    def _follow(self) -> None:
        self.stop()
        self._layer = self._session.annotation
        if self._layer is not None:
            self._layer.events.selected_label.connect(self._show_selected)

    def _show_classes(self) -> None:
        classes = self._session.classes
        ids, shown = [c.id for c in classes], list(self._rows)
        # A row belongs to a position, as its key does; those before the first change stay.
        same = takewhile(lambda pair: pair[0] == pair[1], zip(ids, shown, strict=False))
        kept = len(list(same))
        for class_id in shown[kept:]:
            self._rows.pop(class_id).remove()
        for position, c in enumerate(classes[kept:], start=kept):
            made = _Row(self._session, self._grid, position, c)
            on_click(made.remove_class, self._on_remove, c.id)
            self._rows[c.id] = made
        for c in classes:
            self._rows[c.id].show_class(c)
        self._show_counts()
        self._show_selected()

    def _show_counts(self) -> None:
        for class_id, shown in self._rows.items():
            shown.show_count(self._session.painted.counts.get(class_id, 0))

    def _show_selected(self, event: Any = None) -> None:
        selected = None if self._layer is None else self._layer.selected_label
        for class_id, shown in self._rows.items():
            shown.pick.setChecked(class_id == selected)

    def _on_remove(self, class_id: int) -> None:
        """Ask what becomes of the voxels of a class, if it has any."""
        if not self._session.painted.counts.get(class_id):
            self.removal_wanted.emit(class_id, UNLABELED)
            return
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        others = {c.id: c.name for c in self._session.classes if c.id != class_id}
        for into, name in ({UNLABELED: "unlabeled"} | others).items():
            chosen = partial(self.removal_wanted.emit, class_id, into)
            action = menu.addAction(f"Remove: what is painted becomes {name}")
            action.triggered.connect(lambda _, chosen=chosen: chosen())
        menu.popup(QCursor.pos())

    def add_class(self) -> None:
        """Add a class, with its name ready to be typed."""
        try:
            added = self._session.add_class()
        except InputError as error:
            show_warning(str(error))
            return
        name = self._rows[added.id].name
        # What the layout is yet to show takes no focus.
        name.show()
        name.setFocus()
        name.selectAll()


class _Row:
    """The widgets of one class in the grid."""

    def __init__(
        self, session: Session, grid: QGridLayout, position: int, label_class: LabelClass
    ) -> None:
        self._session = session
        self._id = label_class.id
        key = class_key(position)
        self.pick = button(
            QKeySequence(key).toString(QKeySequence.SequenceFormat.NativeText) or str(self._id),
            f"paint class {self._id}",
            f"Paint with this class (label {self._id} in the file). "
            + (f"Key: {key}" if key else "It has no key: only the first nine have."),
        )
        self.pick.setCheckable(True)
        self.color = named(
            QPushButton(), f"color of class {self._id}", "Choose the color of this class."
        )
        self.color.setFixedWidth(26)
        self.name = named(QLineEdit(), f"name of class {self._id}", "The name, kept in the files.")
        self._count = QLabel()
        self._count.setAccessibleName(f"voxels of class {self._id}")
        self._warning = label(role="warning")
        for at, widget in enumerate((self.pick, self.color, self.name, self._count)):
            grid.addWidget(widget, position, at)
        grid.addWidget(self._warning, position, 4)
        self.remove_class = button(
            "\N{MULTIPLICATION SIGN}",
            f"remove class {self._id}",
            "Remove this class; what is painted of it becomes another class or unlabeled.",
        )
        self.remove_class.setProperty("slice", True)
        # What is not structure is background: there is always one.
        self.remove_class.setVisible(self._id != BACKGROUND)
        grid.addWidget(self.remove_class, position, 5)
        self._widgets = (
            self.pick,
            self.color,
            self.name,
            self._count,
            self._warning,
            self.remove_class,
        )
        on_click(self.pick, self._pick)
        self.color.clicked.connect(self._choose_color)
        self.name.editingFinished.connect(self._rename)
        # Keys are the layer's again.
        self.name.returnPressed.connect(self.name.clearFocus)

    def remove(self) -> None:
        for widget in self._widgets:
            discard(widget)

    def show_class(self, label_class: LabelClass) -> None:
        self.color.setStyleSheet(f"background-color: {label_class.color};")
        if not self.name.hasFocus():
            self.name.setText(label_class.name)

    def show_count(self, voxels: int) -> None:
        self._count.setText(count(voxels))
        few = voxels < FEW_VOXELS
        self._warning.setVisible(few)
        self._warning.setText("none yet" if voxels == 0 else "very few")
        self._warning.setToolTip(
            "Nothing of this class is painted: it will not be learned."
            if voxels == 0
            else f"Fewer than {FEW_VOXELS} voxels: paint more of it, in different places."
        )

    def _pick(self) -> None:
        self.pick.setChecked(True)
        self._session.paint_with(self._id)

    def _rename(self) -> None:
        name = self.name.text().strip()
        old = next((c.name for c in self._session.classes if c.id == self._id), None)
        if old is None:
            # The class was taken away, by an undo say, while its name was being typed.
            return
        if not name:
            self.name.setText(old)
        elif name != old:
            self._session.edit_class(self._id, name=name)

    def _choose_color(self) -> None:
        old = next(c.color for c in self._session.classes if c.id == self._id)
        color = QColorDialog.getColor(QColor(old), self.color, "Color of the class")
        if color.isValid():
            self._session.edit_class(self._id, color=color.name())
