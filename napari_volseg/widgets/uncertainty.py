"""The uncertainty layer: how unsure a prediction is, voxel by voxel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image
from napari.utils.colormaps import Colormap, ensure_colormap
from qtpy.QtCore import QTimer
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QCheckBox, QLabel, QWidget

from napari_volseg.inference.large import labels_for
from napari_volseg.widgets.layers import UNCERTAINTY, geometry_of, note, region_on_view
from napari_volseg.widgets.parts import label, named, row

if TYPE_CHECKING:
    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.widgets.predicting import RegionUncertainty
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory

COLORMAP = "inferno"
"""Of equal steps to the eye."""

STEPS = 256
OPACITY = 0.8
LEGEND_WIDTH, LEGEND_HEIGHT = 80, 10
REFRESH_MS = 400


class UncertaintyOverlay(QWidget):
    """A check box, a legend, and a layer that fills as the prediction does.

    What a prediction is unsure of is kept whether it is shown or not, one byte a voxel: so
    the box shows it at once, and objects can be told by it.

    Attributes
    ----------
    values : uint8 (Z, Y, X), numpy or ``SparseLabels``, or None
        Normalized entropy, 255 for a mere guess; None if nothing was predicted.
    """

    def __init__(self, session: Session, memory: Memory) -> None:
        super().__init__()
        self._session = session
        self._memory = memory
        self.values: AnyLabels | None = None
        self._layer: Image | None = None
        self._box = named(
            QCheckBox("uncertainty"),
            "show uncertainty",
            "Show where the prediction is unsure, as a layer over the image: the entropy of the "
            "class probabilities. A model can be sure and wrong, above all far from paint.",
        )
        self._box.setChecked(memory.get("uncertainty", False))
        self._legend = QWidget()
        colors = QLabel()
        colors.setPixmap(_legend())
        line = row(label("sure", role="muted"), colors, label("a mere guess", role="muted"))
        self._legend.setLayout(line)
        self._legend.setAccessibleName("legend of the uncertainty")
        self.setLayout(row(self._box, self._legend))
        self._refresh = QTimer(self)
        self._refresh.setSingleShot(True)
        self._refresh.setInterval(REFRESH_MS)
        self._refresh.timeout.connect(self._redraw)
        self._box.toggled.connect(self._on_toggled)
        session.changed.prediction.connect(self._on_prediction)
        session.viewer.layers.events.removed.connect(self._on_removed)
        self._legend.setVisible(self._box.isChecked())

    def start(self) -> None:
        """Get ready for a prediction of the session's volume."""
        if self._session.volume is None:
            return
        self.values = labels_for(self._session.volume.shape, np.uint8)
        if self._layer is not None:
            self._layer.data = self.values
        self._show()

    def show_region(self, piece: RegionUncertainty) -> None:
        """Take what is unsure in a region; it is drawn soon, if it is on view."""
        if self.values is None:
            return
        self.values[piece.region] = piece.values
        layer = self._layer
        if layer is None or self._refresh.isActive():
            return
        if region_on_view(self._session.viewer, layer, piece.region):
            self._refresh.start()

    def _show(self) -> None:
        """Make the layer if it is wanted and there is something to show."""
        session, values = self._session, self.values
        if self._layer is not None or values is None or not self._box.isChecked():
            return
        image, volume = session.image, session.volume
        if image is None or volume is None:
            return
        self._layer = Image(
            values,
            name=f"{volume.name} uncertainty",
            colormap=_colormap(),
            # Given, so that napari does not look through the volume for them.
            contrast_limits=(0, 255),
            blending="translucent",
            opacity=OPACITY,
            **geometry_of(image),
        )
        note(self._layer, role=UNCERTAINTY)
        session.insert_overlay(self._layer)

    def _take_away(self) -> None:
        if self._layer is not None:
            self._session.viewer.layers.remove(self._layer)

    def _redraw(self) -> None:
        if self._layer is not None:
            self._layer.refresh(extent=False)

    def _on_toggled(self, checked: bool) -> None:
        self._memory.set("uncertainty", checked)
        self._legend.setVisible(checked)
        if checked:
            self._show()
        else:
            self._take_away()

    def _on_prediction(self) -> None:
        """Forget what belongs to a prediction that is no more."""
        if self._session.prediction is None:
            self.values = None
            self._take_away()

    def _on_removed(self, event: Any) -> None:
        if self._layer is None or event.value is not self._layer:
            return
        self._layer = None
        # Deleted by hand, it is not wanted any more; gone with its prediction, it is.
        if self.values is not None:
            self._box.setChecked(False)

    def shutdown(self) -> None:
        """Listen to the viewer no more."""
        self._refresh.stop()
        self._session.viewer.layers.events.removed.disconnect(self._on_removed)


def _colormap() -> Colormap:
    """Return colors that are the clearer, the surer: nothing is seen of what is certain.

    Added to the image instead, they would mix with the colors of its channels.
    """
    ramp = np.linspace(0, 1, STEPS)
    colors = ensure_colormap(COLORMAP).map(ramp)
    colors[:, 3] = ramp
    return Colormap(colors, name="uncertainty")


def _legend() -> QPixmap:
    ramp = np.linspace(0, 1, LEGEND_WIDTH)
    colors = np.round(255 * ensure_colormap(COLORMAP).map(ramp)[:, :3]).astype(np.uint8)
    pixels = np.ascontiguousarray(np.broadcast_to(colors, (LEGEND_HEIGHT, *colors.shape)))
    picture = QImage(
        pixels.tobytes(),
        LEGEND_WIDTH,
        LEGEND_HEIGHT,
        3 * LEGEND_WIDTH,
        QImage.Format.Format_RGB888,
    )
    return QPixmap.fromImage(picture)
