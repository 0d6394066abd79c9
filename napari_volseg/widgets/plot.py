"""The live plot of a training: held-out IoU of each class above, loss below."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyqtgraph as pg
from qtpy.QtWidgets import QWidget

from napari_volseg.widgets.parts import column

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_volseg.data.annotation import LabelClass

HEIGHT = 180
MOST_POINTS = 400


class TrainingPlot(QWidget):
    """Two small plots over the minutes of a training."""

    def __init__(self) -> None:
        super().__init__()
        self._graphics = pg.GraphicsLayoutWidget()
        self._graphics.setFixedHeight(HEIGHT)
        self._iou = self._graphics.addPlot(row=0, col=0, enableMenu=False)
        self._loss = self._graphics.addPlot(row=1, col=0, enableMenu=False)
        self._graphics.ci.layout.setRowStretchFactor(0, 3)
        self._graphics.ci.layout.setRowStretchFactor(1, 2)
        for plot, title in ((self._iou, "IoU"), (self._loss, "loss")):
            for side in ("left", "bottom"):
                plot.getAxis(side).enableAutoSIPrefix(False)
            plot.setMouseEnabled(False, False)
            # pyqtgraph gives its menu no parent, so that it would outlive the dock.
            plot.ctrlMenu.setParent(self)
            plot.hideButtons()
            plot.getAxis("left").setWidth(46)
            plot.setLabel("left", title)
        self._iou.setYRange(0, 1, padding=0.03)
        self._iou.disableAutoRange()
        self._loss.setLabel("bottom", "minutes")
        self._loss.setXLink(self._iou)
        self._loss.enableAutoRange(y=True)
        self._iou.getAxis("bottom").setStyle(showValues=False)
        self._loss_curve = self._loss.plot()
        self._iou_curves: dict[int, pg.PlotDataItem] = {}
        self.setAccessibleName("training curves")
        self.setToolTip(
            "Held-out IoU: agreement with labeled voxels that are not trained on, 1 is "
            "perfect. It says nothing of places far from your paint."
        )
        column(self, [self._graphics])

    def set_colors(self, background: str, text: str) -> None:
        """Take the colors of napari's theme, as ``#rrggbb``."""
        self._graphics.setBackground(background)
        for plot in (self._iou, self._loss):
            for side in ("left", "bottom"):
                plot.getAxis(side).setPen(text)
                plot.getAxis(side).setTextPen(text)
        self._loss_curve.setPen(text, width=1)

    def clear(self) -> None:
        """Forget all curves."""
        for curve in self._iou_curves.values():
            self._iou.removeItem(curve)
        self._iou_curves = {}
        self._loss_curve.setData([], [])

    def show_curves(
        self,
        losses: Sequence[tuple[float, float]],
        scores: Mapping[int, Sequence[tuple[float, float]]],
        classes: Sequence[LabelClass],
    ) -> None:
        """Draw the curves.

        Parameters
        ----------
        losses : sequence of (minutes, loss)
        scores : mapping of class id to sequence of (minutes, IoU)
        classes : sequence of LabelClass
            Which give the curves their colors.
        """
        thinned = np.asarray(losses[:: max(1, len(losses) // MOST_POINTS)]).reshape(-1, 2)
        self._loss_curve.setData(thinned[:, 0], thinned[:, 1])
        for c in classes:
            points = np.asarray(scores.get(c.id, ())).reshape(-1, 2)
            if c.id not in self._iou_curves:
                self._iou_curves[c.id] = self._iou.plot(symbol="o", symbolSize=5)
            curve = self._iou_curves[c.id]
            curve.setPen(c.color, width=2)
            curve.setSymbolBrush(c.color)
            curve.setSymbolPen(None)
            curve.setData(points[:, 0], points[:, 1])
        last = max((x for x, _ in losses[-1:]), default=0.0)
        self._iou.setXRange(0, max(last, 0.05), padding=0.02)
