"""The user's hands on the real window: mouse on the canvas, clicks on buttons, and patience.

Shared by the test of the main job and by the script that makes the README's picture.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from napari.layers import Layer
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QDoubleSpinBox, QMenu, QWidget
from scipy.ndimage import binary_erosion

from napari_volseg.data.annotation import VIEW_OF_AXIS
from napari_volseg.widgets.contributions import image_layers
from napari_volseg.widgets.layers import show_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import napari
    from napari.components import ViewerModel
    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_volseg.data.volume import Volume
    from napari_volseg.widgets.dock import VolSegDock

HAND_SECONDS = 0.012
"""From one mouse event to the next; vispy drops moves that follow within 10 ms."""

PATIENCE_SECONDS = 10.0

Point = tuple[float, float]


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    """Let the window live until something is the case."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        QApplication.processEvents()
        time.sleep(0.005)


def live(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() > end, "time passes", seconds + 60)


def find(parent: QWidget, name: str) -> QWidget:
    """Return the control of that accessible name."""
    found = [w for w in parent.findChildren(QWidget) if w.accessibleName() == name]
    if len(found) != 1:
        names = sorted({w.accessibleName() for w in parent.findChildren(QWidget)})
        raise LookupError(f"{len(found)} controls are called {name!r}; there are {names}")
    return found[0]


def press(parent: QWidget, name: str) -> None:
    """Click the button of that accessible name, once it can be."""
    button = find(parent, name)
    wait_until(
        lambda: button.isVisible() and button.isEnabled(),
        f"{name} can be pressed",
        PATIENCE_SECONDS,
    )
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    QApplication.processEvents()


def pick(dock: QWidget, text: str) -> None:
    """Pick an entry of the menu that clears and imports."""
    press(dock, "clear or import labels")
    (menu,) = [m for m in dock.findChildren(QMenu) if m.isVisible()]
    (action,) = [a for a in menu.actions() if a.text().replace("&", "").startswith(text)]
    action.trigger()
    menu.close()


def main_window(viewer: napari.Viewer) -> QWidget:
    """Return the viewer's window, found among the application's."""
    title = viewer.title
    for widget in QApplication.topLevelWidgets():
        if widget.windowTitle() == title and widget.findChildren(QWidget):
            return widget
    raise LookupError(f"no window is titled {title!r}")


def canvas(viewer: napari.Viewer) -> QWidget:
    """Return the widget that the canvas is drawn in and that receives the mouse."""
    drawn = [
        w
        for w in main_window(viewer).findChildren(QWidget)
        if type(w).__name__.startswith("CanvasBackend")
    ]
    return drawn[0]


def on_canvas(viewer: napari.Viewer, layer: Layer, voxel: Sequence[float]) -> QPointF:
    """Return where a voxel of the slice on view is drawn, in pixels of the canvas."""
    world = np.asarray(layer.data_to_world(voxel))[list(viewer.dims.displayed)]
    center = np.asarray(viewer.scene.camera.center[-2:])
    y, x = (world - center) * viewer.scene.camera.zoom
    widget = canvas(viewer)
    return QPointF(x + widget.width() / 2, y + widget.height() / 2)


def drag(widget: QWidget, path: Sequence[QPointF]) -> None:
    """Press the left button, move along a path, release, no faster than a hand can."""
    button, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    move, press_, release = (
        QEvent.Type.MouseMove,
        QEvent.Type.MouseButtonPress,
        QEvent.Type.MouseButtonRelease,
    )
    steps = [(move, path[0], none, none), (press_, path[0], button, button)]
    steps += [(move, point, none, button) for point in path[1:]]
    steps += [(release, path[-1], button, none)]
    for kind, point, changed, held in steps:
        event = QMouseEvent(
            kind, point, widget.mapToGlobal(point), changed, held, Qt.KeyboardModifier.NoModifier
        )
        QApplication.postEvent(widget, event)
        live(HAND_SECONDS)


def paint(viewer: napari.Viewer, layer: Labels, voxels: Sequence[Sequence[float]]) -> None:
    """Draw one stroke through voxels of the slice on view, with the brush as it is."""
    drag(canvas(viewer), [on_canvas(viewer, layer, voxel) for voxel in voxels])


def strokes_inside(
    mask: NDArray[np.bool_], brush: int, every: int
) -> Iterator[tuple[Point, Point]]:
    """Plan straight strokes that stay inside a mask of a slice, one row in ``every``."""
    inside = binary_erosion(mask, iterations=max(1, brush // 2 + 1))
    for at in range(every // 2, mask.shape[0], every):
        edges = np.flatnonzero(np.diff(np.pad(inside[at], 1).astype(np.int8)))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            yield (float(at), float(start)), (float(at), float(stop - 1))


def paint_like(
    viewer: napari.Viewer,
    layer: Labels,
    truth: NDArray[np.integer],
    seen: tuple[int, int],
    *,
    brush: int,
    every: int,
) -> None:
    """Paint the slice on view as its truth says, each class in strokes that stay inside it.

    Parameters
    ----------
    truth : (Z, Y, X)
    seen : (axis, index)
        The slice on view.
    brush : int
        Diameter in voxels.
    every : int
        Rows from one stroke to the next.
    """
    axis, index = seen
    plane = np.take(truth, index, axis=axis)
    layer.brush_size = brush
    for class_id in np.unique(plane):
        layer.selected_label = int(class_id)
        for ends in strokes_inside(plane == class_id, brush, every):
            paint(viewer, layer, [np.insert(end, axis, index) for end in ends])


def add_volume(viewer: ViewerModel, volume: Volume) -> None:
    """Add a volume as our reader does, a layer for each channel."""
    for data, attributes, kind in image_layers(volume):
        viewer.add_layer(Layer.create(data, attributes, kind))


def screenshot(viewer: napari.Viewer, path: Path) -> None:
    """Save the window as it is seen."""
    QApplication.processEvents()
    path.parent.mkdir(parents=True, exist_ok=True)
    main_window(viewer).grab().save(str(path))


def paint_slices(
    viewer: napari.Viewer,
    dock: VolSegDock,
    truth: NDArray[np.integer],
    slices: Sequence[tuple[int, int]],
    *,
    brush: int,
    every: int,
) -> None:
    """Press New, add classes until there are as many as in the truth, paint these slices.

    Parameters
    ----------
    slices : sequence of (axis, index)
    brush, every : int
        As in ``paint_like``.
    """
    press(dock, "new annotation")
    for _ in range(int(truth.max()) - 2):
        press(dock, "add a class")
    layer = dock.session.annotation
    if layer is None:
        raise LookupError("New made no annotation")
    for axis, index in slices:
        press(dock, f"show {VIEW_OF_AXIS[axis]} slices")
        show_slice(viewer, layer, axis, index)
        live(0.1)
        paint_like(viewer, layer, truth, (axis, index), brush=brush, every=every)
    wait_until(lambda: len(dock.session.painted.slices) == len(slices), "the paint is found")


def train_and_predict(dock: VolSegDock, minutes: float) -> None:
    """Press Train, wait, press Predict, wait."""
    press(dock, "step Train")
    spin_box = find(dock, "minutes to train")
    if not isinstance(spin_box, QDoubleSpinBox):
        raise LookupError("the minutes are set in no spin box")
    spin_box.setValue(minutes)
    press(dock, "train")
    patience = 60 * minutes + 240
    wait_until(lambda: not dock.train.job.running, "training ends", patience)
    press(dock, "step Predict")
    press(dock, "predict")
    wait_until(lambda: not dock.predict.job.running, "prediction ends", patience)
