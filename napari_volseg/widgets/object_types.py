"""Objects of the mask, sorted into types by a few examples that the user clicks."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_volseg.data.annotation import BACKGROUND, COLORS, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.labeled import unlabeled_like
from napari_volseg.data.parts import put_where
from napari_volseg.review.kept import cut_out
from napari_volseg.sparse.object_config import ObjectConfig
from napari_volseg.widgets.files import ask_where_to_save, say_saved
from napari_volseg.widgets.geometry import voxel_under
from napari_volseg.widgets.jobs import Job
from napari_volseg.widgets.layers import (
    class_colormap,
    geometry_of,
    note,
    show_slice,
)
from napari_volseg.widgets.long_work import ProgressBar
from napari_volseg.widgets.parts import (
    DOT,
    button,
    column,
    count,
    label,
    named,
    row,
    say,
    table,
)
from napari_volseg.widgets.work import (
    SortedObjects,
    save_object_table,
    sort_objects,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from napari_volseg.data.volume import Volume
    from napari_volseg.review.classify import ClassifiedObject
    from napari_volseg.review.objects import Objects
    from napari_volseg.training.events import Progress
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory

COLUMNS = ("object", "type", "sure", "voxels")
TABLE_SUFFIXES = {".csv": "CSV table"}

SHOWN = 1000
"""Objects listed in the window, the least sure first; the saved table has all."""


class TypesPanel(QWidget):
    """Click examples of each type of objects, sort the rest; a layer and a table."""

    def __init__(self, session: Session, background: Background, memory: Memory) -> None:
        super().__init__()
        self._session = session
        self._background = background
        self._memory = memory
        self.job = Job(self)
        self._build()
        self.job.yielded.connect(self._on_event)
        self.job.refused.connect(partial(say, self._state))
        self.job.ended.connect(self._on_ended)
        session.changed.busy.connect(self._show)
        self.set_objects(None, None)

    def _build(self) -> None:
        self._type = named(
            QComboBox(), "type of clicked objects", "Write a type, then click objects of it."
        )
        self._type.setEditable(True)
        self._type.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self._type.addItems(["type A", "type B"])
        self._pick = button(
            "Click examples",
            "click examples",
            "While this is down, a click on an object in the picture makes it an example of "
            "the type; a second click takes it back.",
        )
        self._pick.setCheckable(True)
        self._examples = label(role="muted", name="examples given")
        self._minutes = named(
            QDoubleSpinBox(), "minutes to learn types", "How long to learn from the examples."
        )
        self._minutes.setRange(0.05, 60)
        self._minutes.setValue(ObjectConfig().minutes)
        self._minutes.setSuffix(" min")
        self._sort = button(
            "Sort objects",
            "sort objects",
            "Learn from the examples, then give every object a type.",
            primary=True,
        )
        self._progress = ProgressBar("sorting", "How much is done.", "Stop; nothing is changed.")
        self._state = label(name="state of sorting")
        self._table = table(
            COLUMNS, 1, "sorted objects", "The least sure first; select one to see it."
        )
        self._table.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
        self._save = button(
            "Save table\N{HORIZONTAL ELLIPSIS}",
            "save the table of objects",
            "Write all objects with type, size and place to a CSV file.",
        )
        self._hint = label(
            "Find the objects first; then they can be sorted into types that you show by examples.",
            "hint",
            name="what types need",
        )
        self._with_objects = QWidget()
        column(
            self._with_objects,
            [
                row(label("type"), self._type, self._pick, stretch=1),
                self._examples,
                row(label("time"), self._minutes, self._sort, stretch=2),
            ],
        )
        column(
            self,
            [
                self._hint,
                self._with_objects,
                self._progress,
                self._state,
                self._table,
                row(self._save),
            ],
        )
        self._pick.toggled.connect(self._on_picking)
        self._sort.clicked.connect(self.sort)
        self._progress.cancelled.connect(self.job.cancel)
        self._table.itemSelectionChanged.connect(self._show_selected)
        self._save.clicked.connect(self.save_table)

    def set_objects(self, objects: Objects | None, volume: Volume | None) -> None:
        """Take the objects of the prediction of a volume, or none; types are forgotten."""
        self.job.cancel()
        self._objects, self._volume = objects, volume
        self._layer: Labels | None = None
        self._types: dict[str, int] = {}
        self._given: dict[int, int] = {}
        self._rows: tuple[ClassifiedObject, ...] = ()
        self._pick.setChecked(False)
        self._table.setRowCount(0)
        say(self._state, "")
        self._show()

    def update_objects(self, objects: Objects) -> None:
        """Take what a review has made of the objects; what is gone is no example any more."""
        self._objects = objects
        self._given = {n: given for n, given in self._given.items() if n in objects}
        self._show()

    def _on_picking(self, picking: bool) -> None:
        if not picking or self._objects is None:
            return
        layer = self._types_layer()
        self._session.viewer.layers.selection.active = layer
        say(self._state, "Click objects in the picture, some of each type.")

    def _types_layer(self) -> Labels:
        """Return the layer that shows the types, made anew if it was removed."""
        image, volume, objects = self._session.image, self._volume, self._objects
        assert image is not None and volume is not None and objects is not None
        if self._layer is None or self._layer not in self._session.viewer.layers:
            self._layer = Labels(
                unlabeled_like(objects.labels, np.uint8),
                name=f"{volume.name} types",
                **geometry_of(image),
            )
            note(self._layer, role="types", volume=volume)
            self._layer.editable = False
            self._layer.mouse_drag_callbacks.append(self._on_mouse)
            self._session.viewer.layers.append(self._layer)
            for number, class_id in self._given.items():
                self._color(number, class_id)
        return self._layer

    def _on_mouse(self, layer: Labels, event: Any) -> Iterator[None]:
        """Take a click as an example; a drag moves the picture, as always."""
        if not self._pick.isChecked() or event.button != 1:
            return
        voxel = voxel_under(layer, event)
        yield
        if event.type != "mouse_move":
            self.pick(voxel)

    def pick(self, voxel: tuple[int, int, int]) -> None:
        """Make the object at a voxel (z, y, x) an example of the type, or no longer."""
        name = self._type.currentText().strip()
        if self._objects is None or self.job.running:
            return
        try:
            number = self._objects.at(voxel)
        except InputError:
            say(self._state, "There is no object; click inside one.")
            return
        if not name:
            say(self._state, "Write what type it is first.")
            return
        if self._type.findText(name) < 0:
            self._type.addItem(name)
        class_id = self._types.setdefault(name, BACKGROUND + 1 + len(self._types))
        if self._given.get(number) == class_id:
            del self._given[number]
            class_id = 0
        else:
            self._given[number] = class_id
        self._color(number, class_id)
        say(self._state, "")
        self._show()

    def _color(self, number: int, class_id: int) -> None:
        """Show one object in the color of its type."""
        objects, layer = self._objects, self._layer
        if objects is None or layer is None:
            return
        shown = cut_out(objects, number, "")
        layer.colormap = class_colormap(self._classes(), dense=True)
        put_where(layer.data, [(shown.box, shown.member, class_id)])
        layer.refresh()

    def _classes(self) -> list[LabelClass]:
        """Return the types as classes, in the order in which they came up."""
        return [
            LabelClass(i, name, COLORS[(i - 1) % len(COLORS)]) for name, i in self._types.items()
        ]

    def _why_not_sort(self) -> str:
        if self._session.busy and not self.job.running:
            return f"{self._session.busy.capitalize()} goes on; wait, or stop it."
        if len(set(self._given.values())) < 2:
            return "Click examples of at least two types."
        return ""

    def sort(self) -> None:
        """Learn from the examples and give every object a type."""
        volume, objects = self._volume, self._objects
        if volume is None or objects is None or self.job.running or self._why_not_sort():
            return
        self._pick.setChecked(False)
        known = set(self._given.values())
        types = [c for c in self._classes() if c.id in known]
        config = ObjectConfig(minutes=self._minutes.value())
        self._progress.begin()
        self.job.start(sort_objects, volume, objects, dict(self._given), types, config)
        self._session.set_busy("sorting")

    def _on_event(self, event: Progress | SortedObjects) -> None:
        if not isinstance(event, SortedObjects):
            self._progress.show_fraction(event.fraction)
            return
        self._rows = event.rows
        layer = self._types_layer()
        layer.data = event.labels
        layer.colormap = class_colormap(self._classes(), dense=True)
        note(layer, classes=(LabelClass(BACKGROUND, "background", COLORS[0]), *self._classes()))
        counts = Counter(r.class_id for r in event.rows)
        parts = [f"{count(counts[c.id])} {c.name}" for c in self._classes() if counts[c.id]]
        say(self._state, DOT.join(parts))
        self._fill_table()

    def _on_ended(self) -> None:
        if self._session.busy == "sorting":
            self._session.set_busy("")
        self._show()

    def _fill_table(self) -> None:
        known = {c.id: c for c in self._classes()}
        least_sure = sorted(self._rows, key=lambda r: (r.given, r.probability))[:SHOWN]
        self._table.setRowCount(len(least_sure))
        for at, r in enumerate(least_sure):
            sure = "example" if r.given else f"{100 * r.probability:.0f}%"
            texts = (str(r.object), known[r.class_id].name, sure, count(r.voxels))
            for column_, text in enumerate(texts):
                item = QTableWidgetItem(text)
                item.setData(Qt.ItemDataRole.UserRole, r.object)
                if column_ == 1:
                    color = QColor(known[r.class_id].color)
                    item.setData(Qt.ItemDataRole.DecorationRole, color)
                self._table.setItem(at, column_, item)

    def selected(self) -> list[int]:
        """Return the ids of the objects selected in the table."""
        items = self._table.selectedItems()
        return sorted({int(item.data(Qt.ItemDataRole.UserRole)) for item in items})

    def _show_selected(self) -> None:
        """Go to the slice, across z, through the middle of the selected object."""
        selected = self.selected()
        if not selected or self._objects is None or self._layer is None:
            return
        chosen = self._objects.get(selected[0])
        if self._layer in self._session.viewer.layers:
            show_slice(self._session.viewer, self._layer, 0, round(chosen.center[0]))

    def save_table(self) -> None:
        """Ask for a file and write the table there."""
        volume = self._volume
        if volume is None or not self._rows:
            return
        path = ask_where_to_save(
            self, self._memory, "Save table", f"{volume.name}_objects", TABLE_SUFFIXES
        )
        if path is not None:
            self._background.run(
                save_object_table, path, self._rows, self._classes(), volume.unit, done=say_saved
            )

    def _show(self) -> None:
        found = self._objects is not None and bool(self._objects.found)
        running = self.job.running
        self._hint.setVisible(not found)
        self._with_objects.setVisible(found)
        for control in (self._type, self._pick, self._minutes):
            control.setEnabled(not running)
        self._sort.setEnabled(found and not running and not self._why_not_sort())
        self._progress.setVisible(running)
        self._table.setVisible(bool(self._rows))
        self._save.setVisible(bool(self._rows))
        say(self._examples, self._examples_text() if found else "")

    def _examples_text(self) -> str:
        counts = Counter(self._given.values())
        parts = [f"{c.name} {counts[c.id]}" for c in self._classes() if counts[c.id]]
        return "examples: " + (", ".join(parts) or "none yet")

    def shutdown(self) -> None:
        """End the thread at its next step, and drop what it still says."""
        self.job.shutdown()
