"""The live preview: what a running training says now of the slice on view."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QCheckBox, QWidget

from napari_volseg.data.annotation import VIEW_OF_AXIS
from napari_volseg.data.tiles import slice_region
from napari_volseg.inference.large import is_large
from napari_volseg.training.events import PreviewRequest
from napari_volseg.widgets.layers import (
    classes_of,
    middle_of_view,
    new_preview,
    set_classes,
    show_region,
    visible_slice,
)
from napari_volseg.widgets.parts import column, label, named, say

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from napari.layers import Image, Labels
    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume
    from napari_volseg.training.events import Preview, Progress, Score
    from napari_volseg.widgets.session import Session
    from napari_volseg.widgets.settings import Memory

FIRST_SECONDS = 1.0
"""From the first step to the first preview: before, there is nothing to see."""

LEAST_SECONDS = 3.0
"""From one preview to the next."""

PART = 128
"""Edge of what is previewed of a slice of a large volume, in voxels."""

REST = 9
"""Times the seconds that the last preview took are left to the training before the next one."""


class LivePreview(QWidget):
    """A line that says what is on view, the layer of one slice, and a check box, shown elsewhere.

    Attributes
    ----------
    box : QCheckBox

    Parameters
    ----------
    session : Session
    memory : Memory
        Remembers whether the box is checked.
    send : callable (request)
        Hands a request to the running training.
    """

    def __init__(
        self, session: Session, memory: Memory, send: Callable[[PreviewRequest], None]
    ) -> None:
        super().__init__()
        self._session = session
        self._memory = memory
        self._send = send
        self._image: Image | None = None
        self._volume: Volume | None = None
        self._classes: Sequence[LabelClass] = ()
        self._layer: Labels | None = None
        self._hidden: Labels | None = None
        self._asked: tuple[int, int] | None = None
        self._not_before: float | None = None
        self._instant: Score | None = None
        self._better_since: float | None = None
        self.box = named(
            QCheckBox("live preview"),
            "live preview",
            "Show on the slice on view, while the network learns, what it says now. It takes "
            "at most a tenth of the training.",
        )
        self.box.setChecked(memory.get("live_preview", True))
        self._line = label(role="muted", name="what the preview shows")
        self._line.hide()
        column(self, [self._line])
        self.box.toggled.connect(self._on_toggled)
        session.changed.image.connect(self._on_image)
        session.changed.busy.connect(self._on_busy)
        session.viewer.layers.events.removed.connect(self._on_removed)

    def start(self) -> None:
        """Get ready for a training on what the session holds now."""
        self._take_away()
        session = self._session
        self._image, self._volume, self._classes = session.image, session.volume, session.classes
        self._asked = self._not_before = None
        self._instant = self._better_since = None

    def hear(self, progress: Progress) -> None:
        """Show the preview that an event brings, and ask for the next one when it is time."""
        now = time.monotonic()
        self._compare(progress)
        if progress.preview is not None and self._asked is not None:
            view, self._asked = self._asked, None
            self._not_before = now + max(LEAST_SECONDS, REST * progress.preview.seconds)
            if self.box.isChecked() and self._image is not None:
                self._show(progress.preview, self._image)
                say(self._line, self._words(view, progress))
        elif progress.loss is not None and self._not_before is None:
            self._not_before = now + FIRST_SECONDS
        if self._asked is None and self._not_before is not None and now >= self._not_before:
            self._ask()

    def _ask(self) -> None:
        if self._image is None or self._volume is None or not self.box.isChecked():
            return
        viewer, shape = self._session.viewer, self._volume.shape
        self._asked = visible_slice(viewer, self._image)
        if self._asked is None:
            return
        region = slice_region(shape, *self._asked)
        if is_large(shape):
            region = part_around(region, middle_of_view(viewer, self._image))
        self._send(PreviewRequest(region))

    def _show(self, preview: Preview, image: Image) -> None:
        # Those that the training began with, as they are edited, and those that came since.
        known = {c.id: c for c in (*self._classes, *self._session.classes)}
        classes = tuple(known[i] for i in sorted(known))
        if self._layer is not None:
            show_region(self._layer, image, preview.region, preview.labels)
            if classes_of(self._layer) != classes:
                set_classes(self._layer, classes)
            return
        self._layer = new_preview(image, preview.region, preview.labels, classes)
        self._session.insert_overlay(self._layer)
        self._hide_prediction()

    def _hide_prediction(self) -> None:
        # An earlier prediction would show through where the preview says background, in the
        # same colors: what a correction has taken away would seem to be still there. So it
        # gives way as long as there is a preview; its box in Predict, or O, brings it back.
        earlier = self._session.prediction
        if earlier is not None and earlier.visible:
            earlier.visible = False
            self._hidden = earlier

    def _words(self, view: tuple[int, int], progress: Progress) -> str:
        axis, index = view
        what = f"Preview of {VIEW_OF_AXIS[axis]} {index}"
        if progress.instant:
            return f"{what}: instant answer (pixel classifier)"
        if self._better_since is not None:
            return f"{what}: better than the instant answer since {clock(self._better_since)}"
        if self._instant is not None:
            return f"{what}: not yet better than the instant answer"
        return f"{what}, after {clock(progress.seconds)} of training"

    def _compare(self, progress: Progress) -> None:
        """Notice since when held-out voxels tell the network from its instant answer."""
        score = progress.score
        if score is None:
            return
        if progress.instant:
            self._instant = score
        elif self._instant is not None:
            ahead = score.mean_foreground_iou - self._instant.mean_foreground_iou
            if ahead <= 2 * score.standard_error:
                self._better_since = None
            elif self._better_since is None:
                self._better_since = progress.seconds

    def _take_away(self) -> None:
        layer = self._layer
        if layer is not None and layer in self._session.viewer.layers:
            self._session.viewer.layers.remove(layer)

    def _on_removed(self, event: Any) -> None:
        if self._layer is None or event.value is not self._layer:
            return
        self._layer = None
        say(self._line, "")
        if self._hidden is not None:
            self._hidden.visible = True
            self._hidden = None

    def _on_toggled(self, checked: bool) -> None:
        self._memory.set("live_preview", checked)
        if not checked:
            self._take_away()

    def _on_busy(self) -> None:
        if self._session.busy == "predicting":
            self._take_away()

    def _on_image(self) -> None:
        session = self._session
        if session.image is self._image:
            return
        # Of a volume of several channels, another one may be left.
        self._image = session.image if session.volume is self._volume else None
        if self._image is None:
            self._take_away()

    def shutdown(self) -> None:
        """Take the layer away and let go of the viewer."""
        self._take_away()
        self._session.viewer.layers.events.removed.disconnect(self._on_removed)


def part_around(region: Region, middle: NDArray[np.float64]) -> Region:
    """Return the part of a slice that is previewed where all of it would take too long."""
    sides = []
    for side, at in zip(region, middle, strict=True):
        first = max(side.start, min(round(float(at)) - PART // 2, side.stop - PART))
        sides.append(slice(first, min(side.stop, first + PART)))
    return sides[0], sides[1], sides[2]


def clock(seconds: float) -> str:
    """Write a moment of the training as "0:41"."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
