"""Make the README's picture of the window, by doing in it what the README's walk says.

Run it in the root of the repository, under a display or Xvfb: ``python -m
resources.make_pictures [--minutes 5]``. It paints slices of the phantom with the mouse,
presses Train and Predict, and saves the window.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import napari
from qtpy.QtCore import Qt

from napari_volseg.data.phantom import kidney_phantom
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import show_slice
from tests.widgets.hands import (
    add_volume,
    find,
    live,
    main_window,
    paint_slices,
    press,
    screenshot,
    train_and_predict,
)

SHAPE = (48, 160, 160)
SLICES = ((0, 14), (0, 34), (1, 56), (1, 110), (2, 80))
VIEWED = (0, 24)
NAMES = ("background", "tubule", "inside of tubule")
WINDOW = (1366, 768)
DOCK_WIDTH = 380


def main() -> None:
    """Make resources/window.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="minutes to train")
    minutes = parser.parse_args().minutes
    viewer = napari.Viewer()
    volume, truth = kidney_phantom(SHAPE)
    with tempfile.TemporaryDirectory() as journal:
        dock = VolSegDock(viewer, journal=Path(journal))
        frame = viewer.window.add_dock_widget(dock, name="VolSeg", area="right")
        window = main_window(viewer)
        window.setGeometry(0, 0, *WINDOW)
        window.resizeDocks([frame], [DOCK_WIDTH], Qt.Orientation.Horizontal)
        add_volume(viewer, volume)
        paint_slices(viewer, dock, truth.labels, SLICES, brush=4, every=8)
        for class_id, name in enumerate(NAMES, start=1):
            find(dock, f"name of class {class_id}").setText(name)
            find(dock, f"name of class {class_id}").editingFinished.emit()
        train_and_predict(dock, minutes)
        press(dock, "step Train")
        show_slice(viewer, dock.session.annotation, *VIEWED)
        live(1.5)
        screenshot(viewer, Path(__file__).with_name("window.png"))
        dock.shutdown()
        viewer.close()


if __name__ == "__main__":
    main()
