"""Two masks over the image: a layer that says where they agree, figures, and a page of both."""

from __future__ import annotations

import math
from dataclasses import astuple
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QCheckBox,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_volseg.data.annotation import BACKGROUND, VIEW_OF_AXIS
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.units import short_unit
from napari_volseg.widgets.differences import Differences
from napari_volseg.widgets.files import ask_where_to_save, say_saved
from napari_volseg.widgets.header import LayerChoice
from napari_volseg.widgets.keys import COMPARE_KEY, REPORT_KEY
from napari_volseg.widgets.layers import (
    ANNOTATION,
    class_colormap,
    classes_of,
    geometry_of,
    note,
    noted,
    show_slice,
)
from napari_volseg.widgets.long_work import LongWork
from napari_volseg.widgets.parts import (
    button,
    column,
    count,
    label,
    named,
    on_click,
    row,
    say,
    short_table,
)
from napari_volseg.widgets.work import Compared, agreement_of, compare_masks, save_report

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.review.metrics import Agreement
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory

AGREEMENT = "agreement"
"""Role of the layer; not to be compared itself."""

OPACITY = 0.7
REPORT_SUFFIXES = {".html": "HTML page"}
FATES = ("matched", "split", "merged", "missed", "extra")
FATES_TIP = (
    "Connected regions of one class. An object lies in another if more than half of it does. "
    "Matched: they lie in each other. Split: several of A lie in one of B and cover more than half "
    "of it. Merged: the same with A and B exchanged. Missed: any other of B. Extra: any other of A."
)


class ComparePanel(QWidget):
    """Choose two masks, compare them; a layer, two tables, and a report."""

    def __init__(self, session: Session, background: Background, memory: Memory) -> None:
        super().__init__()
        self._session = session
        self._background = background
        self._memory = memory
        # What the user picked, and what is compared: the same, or the first that fits.
        self._picked: dict[str, Labels | None] = {"a": None, "b": None}
        self._a: Labels | None = None
        self._b: Labels | None = None
        self._comparing: tuple[Labels, ...] = ()
        self._layer: Labels | None = None
        self._build()
        for signal in (session.changed.layers, session.changed.prediction, session.changed.image):
            signal.connect(self._show_choice)
        session.changed.busy.connect(self._on_busy)
        self._forget()
        self._show_choice()

    def _build(self) -> None:
        self._choice_a = named(LayerChoice("none"), "mask A", "A prediction, for example.")
        self._choice_b = named(
            LayerChoice("none"), "mask B", "The reference: the truth, or another prediction."
        )
        self._hint = label(
            "Open another mask of this image to compare with: drop its file on the window.",
            "hint",
            name="what to compare",
        )
        self._from_zero = named(
            QCheckBox("0 is background"),
            "0 is background",
            "For masks of other programs. Otherwise 0 is unlabeled, and such voxels do not count.",
        )
        self._compare = button(
            f"Compare  {COMPARE_KEY}",
            "compare masks",
            "Show where they agree, and by how much. The two are hidden under it; the eye in the "
            "list of layers shows them again.",
            primary=True,
        )
        self.work = LongWork("comparing", "Distances take longest.", "Stop; nothing is changed.")
        self._state = label(name="state of comparing")
        self._legend = label(name="legend of the agreement")
        self._scores = _table(
            ("class", "IoU", "Dice", "accuracy", "ASD", "HD95"),
            "agreement of classes",
            "Accuracy: mean of sensitivity and specificity. ASD, HD95: average and 95th percentile "
            "of the distances between the surfaces. Select a class to see it alone.",
        )
        self._objects = _table(("objects", *FATES), "agreement of objects", FATES_TIP)
        self.differences = Differences(self._session)
        self._views = [
            button(view, f"most different {view} slice", "Where most voxels differ in this view.")
            for view in VIEW_OF_AXIS.values()
        ]
        self._save = button(
            f"Save report\N{HORIZONTAL ELLIPSIS}  {REPORT_KEY}",
            "save the comparison",
            "A page with the tables and pictures of the slices that differ most.",
        )
        self._result = QWidget()
        column(
            self._result,
            [
                self._legend,
                self._scores,
                self._objects,
                self.differences,
                row(label("differ most", role="muted"), *self._views, self._save),
            ],
        )
        column(
            self,
            [
                row(label("A"), self._choice_a, stretch=1),
                row(label("B"), self._choice_b, stretch=1),
                self._hint,
                row(self._compare, self._from_zero),
                self.work,
                self._state,
                self._result,
            ],
        )
        self._choice_a.chosen.connect(partial(self._pick, "a"))
        self._choice_b.chosen.connect(partial(self._pick, "b"))
        self._compare.clicked.connect(self.compare)
        self._scores.itemSelectionChanged.connect(self._show_class)
        self._save.clicked.connect(self.save_report)
        for axis, view in enumerate(self._views):
            on_click(view, self._go_to, axis)

    def _candidates(self) -> list[Labels]:
        """Return the labels layers over the volume."""
        volume = self._session.volume
        if volume is None:
            return []
        return [
            layer
            for layer in self._session.labels()
            if tuple(layer.data.shape) == volume.shape and noted(layer).get("role") != AGREEMENT
        ]

    def _show_choice(self) -> None:
        """List the masks there are; until picked, A is the prediction and B any other."""
        layers = self._candidates()
        picked = {which: x if x in layers else None for which, x in self._picked.items()}
        # What is painted is a poor truth, if there is a better one.
        ranked = sorted(layers, key=lambda x: noted(x).get("role") == ANNOTATION)
        ranked.sort(key=lambda x: x is not self._session.prediction)
        self._a = picked["a"] or next((x for x in ranked if x is not picked["b"]), None)
        self._b = picked["b"] or next((x for x in ranked if x is not self._a), None)
        names = [layer.name for layer in layers]
        self._choice_a.show_layers(layers, names, self._a)
        self._choice_b.show_layers(layers, names, self._b)
        if self._compared is not None and self._compared.volume is not self._session.volume:
            self._forget()
        self._show()

    def _pick(self, which: str, layer: Labels | None) -> None:
        self._picked[which] = layer
        self._show_choice()

    def _forget(self) -> None:
        self.work.cancel()
        self._compared: Compared | None = None
        say(self._state, "")
        self._show()

    def compare(self) -> None:
        """Compare the two masks, in the background."""
        a, b, volume = self._a, self._b, self._session.volume
        if a is None or b is None or volume is None or self.work.working:
            return
        say(self._state, "")
        one, other = ((_copied(layer), classes_of(layer), layer.name) for layer in (a, b))
        self._comparing = (a, b)
        self.work.run(
            partial(compare_masks, one, other, volume, self._from_zero.isChecked()),
            done=self._on_compared,
            failed=self._show,
            refused=partial(say, self._state),
        )
        self._show()

    def _on_compared(self, compared: Compared) -> None:
        self._compared = compared
        evaluation = compared.comparison.evaluation
        voxels = compared.comparison.agreement.size
        if evaluation.voxels < voxels:
            say(
                self._state,
                f"Only the {count(evaluation.voxels)} of {count(voxels)} voxels count that are "
                "labeled (not 0) in both. If 0 is the background in a mask, say so above and "
                "compare again.",
            )
        squares = [_square(c) for c in compared.legend if c.id != BACKGROUND]
        self._legend.setText("&nbsp; ".join(squares))
        self._fill_scores(compared)
        self._fill_objects(compared)
        self._show_agreement(compared, compared.comparison.agreement)
        # Or they would be seen through it.
        for layer in self._comparing:
            layer.visible = False
        self._show()

    def _on_busy(self) -> None:
        """Show a prediction that was hidden, and no longer what it was compared to."""
        prediction = self._session.prediction
        if self._session.busy == "predicting" and prediction in self._comparing:
            prediction.visible = True
            if self._layer is not None:
                self._layer.visible = False

    def _show_agreement(self, compared: Compared, agreement: AnyLabels) -> None:
        """Show an agreement map in its layer, made anew if it was removed."""
        image = self._session.image
        if compared is not self._compared or image is None:
            return
        layer = self._layer
        if (
            layer is not None
            and layer in self._session.viewer.layers
            and noted(layer).get("volume") is compared.volume
        ):
            layer.data = agreement
            layer.editable, layer.visible = False, True
            return
        layer = Labels(agreement, name=AGREEMENT, opacity=OPACITY, **geometry_of(image))
        note(layer, role=AGREEMENT, volume=compared.volume, classes=compared.legend)
        layer.colormap = class_colormap(compared.legend, dense=True)
        layer.editable = False
        self._layer = layer
        self._session.insert_overlay(layer)
        self.differences.set_layer(layer)

    def _fill_scores(self, compared: Compared) -> None:
        comparison = compared.comparison
        unit = short_unit(comparison.unit)
        self._scores.setHorizontalHeaderLabels(
            ("class", "IoU", "Dice", "accuracy", f"ASD {unit}", f"HD95 {unit}")
        )
        known = {c.id: c for c in comparison.classes}
        scores = comparison.evaluation.classes
        rows = [(known[i], _figures(scores[i])) for i in scores if i != BACKGROUND]
        mean = _figures(comparison.evaluation.foreground)
        self._scores.clearSelection()
        _fill(self._scores, [(None, mean), *rows])

    def _fill_objects(self, compared: Compared) -> None:
        comparison = compared.comparison
        known = {c.id: c for c in comparison.classes}
        rows = [
            (known[i], [count(getattr(counts, fate)) for fate in FATES])
            for i, counts in comparison.objects.items()
        ]
        _fill(self._objects, rows)
        self.differences.show_objects(comparison.differences, known)

    def _show_class(self) -> None:
        """Show the agreement of the selected class alone."""
        items, compared = self._scores.selectedItems(), self._compared
        if not items or compared is None:
            return
        self._background.run(
            agreement_of,
            compared.comparison,
            items[0].data(Qt.ItemDataRole.UserRole),
            done=partial(self._show_agreement, compared),
        )

    def _go_to(self, axis: int) -> None:
        """Go to the slice across an axis in which most voxels differ."""
        if self._compared is not None and self._layer in self._session.viewer.layers:
            index = self._compared.most_different[axis]
            show_slice(self._session.viewer, self._layer, axis, index)

    def save_report(self) -> None:
        """Ask for a file and write the report there."""
        compared = self._compared
        if compared is None:
            return
        path = ask_where_to_save(
            self,
            self._memory,
            "Save report",
            f"{compared.volume.name}_comparison",
            REPORT_SUFFIXES,
        )
        if path is not None:
            self._background.run(save_report, path, compared, done=say_saved)

    def _show(self) -> None:
        running = self.work.working
        two = self._a is not None and self._b is not None and self._a is not self._b
        self._hint.setVisible(len(self._candidates()) < 2)
        self._compare.setEnabled(two and not running)
        self._result.setVisible(self._compared is not None and not running)

    def shutdown(self) -> None:
        """Drop what the thread still says."""
        self.work.shutdown()


def _copied(layer: Labels) -> Any:
    """Return a layer's labels, which painting changes no more; (Z, Y, X), or lazy ones."""
    labels = layer.data[0] if layer.multiscale else layer.data
    return labels.copy() if isinstance(labels, np.ndarray | SparseLabels) else labels


def _table(columns: Sequence[str], name: str, tip: str) -> QTableWidget:
    made = short_table(columns, name, tip)
    made.setSelectionBehavior(QTableWidget.SelectionBehavior.SelectRows)
    made.setSelectionMode(QTableWidget.SelectionMode.SingleSelection)
    return made


def _fill(into: QTableWidget, rows: Sequence[tuple[LabelClass | None, Sequence[str]]]) -> None:
    """Show a row of figures for each class; None stands for all of them."""
    into.setRowCount(len(rows))
    for at, (label_class, figures) in enumerate(rows):
        first = QTableWidgetItem("all classes" if label_class is None else label_class.name)
        first.setToolTip(first.text())
        if label_class is not None:
            first.setData(Qt.ItemDataRole.DecorationRole, QColor(label_class.color))
            first.setData(Qt.ItemDataRole.UserRole, label_class.id)
        into.setItem(at, 0, first)
        for column_, text in enumerate(figures, start=1):
            into.setItem(at, column_, QTableWidgetItem(text))


def _figures(agreement: Agreement) -> list[str]:
    """Return the scores of a class as texts: two decimals, distances with three digits."""
    values = astuple(agreement)
    shown = [*(f"{v:.2f}" for v in values[:3]), *(f"{v:.3g}" for v in values[3:])]
    return ["\N{EM DASH}" if math.isnan(v) else text for v, text in zip(values, shown, strict=True)]


def _square(label_class: LabelClass) -> str:
    """Return a class of the legend as rich text; its name holds no markup."""
    color = label_class.color
    return f'<span style="color: {color}">\N{BLACK SQUARE}</span> {label_class.name}'
