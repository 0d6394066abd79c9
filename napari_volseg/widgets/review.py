"""The fourth step: how good the prediction is, how much there is of what, and corrections."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QTableWidgetItem, QWidget

from napari_volseg.data.annotation import count_labels
from napari_volseg.data.units import short_unit
from napari_volseg.widgets.acts import act_on, copy_slice
from napari_volseg.widgets.compare import ComparePanel
from napari_volseg.widgets.layers import classes_of
from napari_volseg.widgets.objects import ObjectsPanel
from napari_volseg.widgets.parts import (
    button,
    column,
    count,
    label,
    row,
    say,
    short_table,
)
from napari_volseg.widgets.reliability import ReliabilityPanel
from napari_volseg.widgets.steps import StepBar

if TYPE_CHECKING:
    from napari_volseg.data.volume import Volume
    from napari_volseg.widgets.jobs import Background
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory
    from napari_volseg.widgets.undo import Undo

QUALITY, OBJECTS, TYPES, COMPARE = range(4)
PARTS = (
    ("Quality", "How good the prediction is, and how much there is of each class."),
    ("Objects", "Accept, reject or fix object after object."),
    ("Types", "Sort the objects into types, by examples."),
    ("Compare", "Compare two masks, such as the prediction and a truth."),
)
COLUMNS = ("class", "held-out IoU", "voxels", "volume")


class ReviewStep(QWidget):
    """Four parts, one at a time: all of them would be three times as high as a laptop."""

    def __init__(
        self, session: Session, background: Background, memory: Memory, undo: Undo
    ) -> None:
        super().__init__()
        self._session = session
        self._background = background
        self._counts: dict[int, int] = {}
        self._part = QUALITY
        self._hint = label(name="what to do first")
        self._table = short_table(
            COLUMNS,
            "classes of the prediction",
            "Held-out IoU: agreement with labeled voxels that were not trained on.",
        )
        self._copy = button(
            "Copy this slice to the annotation",
            "copy slice to annotation",
            "Take the prediction of the slice on view over as paint where nothing is labeled "
            "yet; correct it there and train again. Undo takes it back.",
        )
        self.objects = ObjectsPanel(session, background, memory, undo)
        self.compare = ComparePanel(session, background, memory)
        reliability = ReliabilityPanel(session)
        self._bar = StepBar(PARTS, "show", figures=False)
        quality = QWidget()
        column(quality, [reliability, self._table, row(self._copy)])
        self._parts = (quality, self.objects, self.objects.types, self.compare)
        column(self, [self._bar, self._hint, *self._parts])
        self._bar.picked.connect(self.show_part)
        self._copy.clicked.connect(self.copy_slice)
        changed = session.changed
        changed.prediction.connect(self._forget)
        for signal in (changed.model, changed.classes, changed.annotation, changed.busy):
            signal.connect(self._show)
        self.show_part(QUALITY)

    def show_part(self, part: int) -> None:
        """Show one of the parts."""
        self._part = part
        self._bar.show_step(part)
        self._show()

    def count_prediction(self) -> None:
        """Count the voxels of a new prediction, in the background."""
        self.objects.forget()
        if self._session.prediction is not None:
            self._background.run(
                count_labels, self._session.prediction.data, done=self._show_counts
            )

    def _show_counts(self, counts: dict[int, int]) -> None:
        self._counts = counts
        self._show()

    def _forget(self) -> None:
        self._counts = {}
        self._show()

    def copy_slice(self) -> None:
        """Copy the visible slice of the prediction to where the annotation is unlabeled."""
        annotation, prediction = self._session.annotation, self._session.prediction
        if annotation is not None and prediction is not None:
            copy = partial(copy_slice, self._session.viewer, annotation, prediction)
            nothing = "nothing in this slice is both predicted and unlabeled"
            act_on(annotation, "copy a slice", copy, nothing)

    def _show(self) -> None:
        session = self._session
        prediction, volume, model = session.prediction, session.volume, session.model
        ready = bool(self._counts) and prediction is not None and volume is not None
        possible = ready or self._part == COMPARE
        say(self._hint, "" if possible else "Predict the volume first.")
        for at, part in enumerate(self._parts):
            part.setVisible(at == self._part and (possible or at == QUALITY))
        self._table.setVisible(ready)
        self._copy.setEnabled(ready and session.annotation is not None and not session.busy)
        if prediction is None or volume is None:
            return
        scores: dict[int, float | None] = {}
        if model is not None:
            scores = dict(zip(model.checkpoint.class_ids, model.checkpoint.iou, strict=True))
        classes = classes_of(prediction)
        self._table.setRowCount(len(classes))
        for at, c in enumerate(classes):
            voxels, iou = self._counts.get(c.id, 0), scores.get(c.id)
            texts = (
                c.name,
                "\N{EM DASH}" if iou is None else f"{iou:.2f}",
                count(voxels),
                physical_volume(voxels, volume),
            )
            for column_, text in enumerate(texts):
                item = QTableWidgetItem(text)
                if column_ == 0:
                    item.setData(Qt.ItemDataRole.DecorationRole, QColor(c.color))
                self._table.setItem(at, column_, item)

    def shutdown(self) -> None:
        """End the threads of the panels."""
        self.objects.shutdown()
        self.compare.shutdown()


def physical_volume(voxels: int, volume: Volume) -> str:
    """Return the physical volume of so many voxels, as "12 400 µm³"."""
    z, y, x = volume.spacing
    size = voxels * z * y * x
    number = count(round(size)) if size >= 100 else f"{size:.3g}"
    return f"{number} {short_unit(volume.unit)}³"
