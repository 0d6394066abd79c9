"""The objects of a prediction as a table that stays quick with thousands of them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QSortFilterProxyModel, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableView

from napari_volseg.data.units import short_unit
from napari_volseg.review.queue import UNREVIEWED, MeasuredObject
from napari_volseg.widgets.parts import named

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from napari_volseg.data.annotation import LabelClass

HEIGHT = 170
TIMES = "\N{MULTIPLICATION SIGN}"
MEASURED_ROWS = 50
"""Rows that decide how wide the columns are."""


class ObjectModel(QAbstractTableModel):
    """A row for each object, in the order of the queue or sorted by a column."""

    def __init__(self) -> None:
        super().__init__()
        self._queue: dict[int, MeasuredObject] = {}
        self._rows: list[MeasuredObject] = []
        self._sorted_by = -1, Qt.SortOrder.AscendingOrder
        self._row_of: dict[int, int] = {}
        self._states: Mapping[int, str] = {}
        self._classes: dict[int, LabelClass] = {}
        self._unit = ""

    def show(
        self,
        rows: Sequence[MeasuredObject],
        states: Mapping[int, str],
        classes: Sequence[LabelClass],
        unit: str,
    ) -> None:
        """Show these objects, which are in the order of the queue."""
        self._queue, self._states = {row.id: row for row in rows}, states
        self._classes = {c.id: c for c in classes}
        self._unit = short_unit(unit)
        self.sort(*self._sorted_by)

    def update(self, rows: Mapping[int, MeasuredObject], states: Mapping[int, str]) -> None:
        """Show what became of some of the objects, each in its row."""
        self._states = states
        places = sorted(self._row_of[number] for number in rows)
        for at in places:
            number = self._rows[at].id
            self._queue[number] = self._rows[at] = rows[number]
        if places:
            # One signal, also for thousands: each makes the table look again.
            last = self.index(places[-1], self.columnCount() - 1)
            self.dataChanged.emit(self.index(places[0], 0), last)

    def row_of(self, number: int) -> int:
        """Return the row of an object, -1 if there is none."""
        return self._row_of.get(number, -1)

    def object_at(self, at: int) -> MeasuredObject:
        """Return the object of a row."""
        return self._rows[at]

    def words(self, at: int) -> list[str]:
        """Return what a row can be found by."""
        row = self._rows[at]
        words = f"{row.id} {self.class_name(row)} {self._states.get(row.id, UNREVIEWED)}"
        return (words + " border" * row.at_border).lower().split()

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of objects."""
        return 0 if parent is not None and parent.isValid() else len(self._rows)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return the number of columns."""
        return len(self._columns())

    def _columns(self) -> tuple[str, ...]:
        return ("#", "class", "state", "sure", f"{self._unit}³", "extent", "border")

    def headerData(
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        """Return the title of a column."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == Qt.ItemDataRole.ToolTipRole:
            return (
                "Number of the object",
                "Class",
                "What was said of it",
                "Mean probability of the class, as the model sees it",
                "Volume",
                f"Size of the box around it in {self._unit}: z, y, x",
                "Touches the border of the volume: a part of it may be missing",
            )[section]
        return self._columns()[section] if role == Qt.ItemDataRole.DisplayRole else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        row, column = self._rows[index.row()], index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._texts(row)[column]
        if role == Qt.ItemDataRole.DecorationRole and column == 1 and row.class_id in self._classes:
            return QColor(self._classes[row.class_id].color)
        return None

    def class_name(self, row: MeasuredObject) -> str:
        """Return the name of an object's class."""
        known = self._classes.get(row.class_id)
        return known.name if known else str(row.class_id)

    def _texts(self, row: MeasuredObject) -> tuple[str, ...]:
        return (
            str(row.id),
            self.class_name(row),
            self._states.get(row.id, ""),
            "" if row.confidence is None else f"{row.confidence:.2f}",
            f"{row.size:.3g}" if row.size < 1000 else f"{row.size:.0f}",
            TIMES.join(f"{e:.3g}" for e in row.extent),
            "yes" * row.at_border,
        )

    def _values(self, row: MeasuredObject) -> tuple[Any, ...]:
        return (
            row.id,
            self.class_name(row),
            self._states.get(row.id, ""),
            -1.0 if row.confidence is None else row.confidence,
            row.size,
            max(row.extent),
            row.at_border,
        )

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Sort by a column, from then on; -1 is the order of the queue."""
        self.beginResetModel()
        self._sorted_by = column, order
        self._rows = list(self._queue.values())
        if column >= 0:
            down = order == Qt.SortOrder.DescendingOrder
            self._rows.sort(key=lambda row: self._values(row)[column], reverse=down)
        self._row_of = {row.id: at for at, row in enumerate(self._rows)}
        self.endResetModel()


class ObjectFilter(QSortFilterProxyModel):
    """The rows in which something begins with each of some words."""

    def __init__(self, model: ObjectModel) -> None:
        super().__init__()
        self._model = model
        self._words: list[str] = []
        self.setSourceModel(model)

    def look_for(self, text: str) -> None:
        """Show the rows with these words."""
        self._words = text.lower().split()
        self.invalidateFilter()

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Let the model sort: it does so once, and asks nothing of each pair of rows."""
        self._model.sort(column, order)

    def filterAcceptsRow(self, at: int, parent: QModelIndex) -> bool:
        """Say whether a row is shown."""
        if not self._words:
            return True
        has = self._model.words(at)
        return all(any(word.startswith(start) for word in has) for start in self._words)


class ObjectList(QTableView):
    """The table.

    Signals
    -------
    picked(object)
        The user went to the object of this number in the table.
    """

    picked = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        named(self, "objects", "Those most likely wrong, and large, first. Select one to see it.")
        self.model_ = ObjectModel()
        self.filter = ObjectFilter(self.model_)
        self._telling = True
        self._at = 0
        self.setModel(self.filter)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSortingEnabled(True)
        self.setWordWrap(False)
        self.setFixedHeight(HEIGHT)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 6)
        header = self.horizontalHeader()
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        header.setResizeContentsPrecision(MEASURED_ROWS)
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        self.selectionModel().currentRowChanged.connect(self._on_current)
        # A sorted table has forgotten where it was.
        self.filter.modelReset.connect(lambda: self.go_to(self._at))

    def selected(self) -> list[int]:
        """Return the numbers of the selected objects, the current one first."""
        rows = self.selectionModel().selectedRows()
        numbers = [self._number(index) for index in rows]
        current = self.current()
        return sorted(numbers, key=lambda n: (n != current, n))

    def meant(self) -> list[int]:
        """Return the numbers of the selected objects if they are several, or else all shown."""
        selected = self.selected()
        return selected if len(selected) > 1 else sorted(self.shown())

    def shown(self) -> set[int]:
        """Return the numbers of the objects that the filter lets through."""
        rows = range(self.filter.rowCount())
        return {self._number(self.filter.index(at, 0)) for at in rows}

    def current(self) -> int:
        """Return the number of the object that the user is at, 0 for none."""
        index = self.currentIndex()
        return self._number(index) if index.isValid() else 0

    def _number(self, index: QModelIndex) -> int:
        return self.model_.object_at(self.filter.mapToSource(index).row()).id

    def go_to(self, number: int) -> None:
        """Select the row of an object, if it is shown; does not tell."""
        self._at = number
        row = self.model_.row_of(number)
        index = self.filter.mapFromSource(self.model_.index(row, 0))
        self._telling = False
        if index.isValid():
            self.setCurrentIndex(index)
            self.scrollTo(index)
        else:
            self.selectionModel().clear()
        self._telling = True

    def _on_current(self, index: QModelIndex, before: QModelIndex) -> None:
        if self._telling and index.isValid():
            self._at = self._number(index)
            self.picked.emit(self._at)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Stay at the same object while rows come and go: Qt would go to a neighbor."""
        self._telling = False
        yield
        self.go_to(self._at)

    def look_for(self, text: str) -> None:
        """Show only the rows with these words."""
        with self._changing():
            self.filter.look_for(text)

    def show_objects(
        self,
        rows: Sequence[MeasuredObject],
        states: Mapping[int, str],
        classes: Sequence[LabelClass],
        unit: str,
    ) -> None:
        """Show these objects, which are in the order of the queue."""
        with self._changing():
            self.model_.show(rows, states, classes, unit)

    def update_objects(
        self,
        numbers: Collection[int],
        all_: Mapping[int, MeasuredObject],
        states: Mapping[int, str],
    ) -> None:
        """Show what became of some objects."""
        with self._changing():
            self.model_.update({n: all_[n] for n in numbers}, states)
