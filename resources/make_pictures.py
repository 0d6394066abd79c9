"""Make the README's pictures of the window, by doing in it what the README's walk says.

Run it in the root of the repository, under a display or Xvfb:

    python -m resources.make_pictures [--minutes 5]
    python -m resources.make_pictures --architectures [--minutes 1] [--only TITLE]

The first paints slices of the phantom with the mouse, presses Train and Predict, and
saves the window (window.png). The second goes on to choose every architecture in the
Train step, one after the other, and saves all overlays side by side (architectures.png).
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import napari
from napari.settings import get_plugin_settings
from PIL import Image, ImageDraw, ImageFont
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox

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
    wait_until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from napari_volseg.data.annotation import Annotation

SHAPE = (48, 160, 160)
SLICES = ((0, 14), (0, 34), (1, 56), (1, 110), (2, 80))
VIEWED = (0, 24)
NAMES = ("background", "tubule", "inside of tubule")
WINDOW = (1366, 768)
DOCK_WIDTH = 380
PANEL = 300
COLUMNS = 4
TITLE = 26
PAPER = "#262930"


def main() -> None:
    """Make resources/window.png, or resources/architectures.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="minutes to train")
    parser.add_argument("--architectures", action="store_true", help="all overlays side by side")
    parser.add_argument("--only", default="", metavar="TITLE", help="one architecture anew")
    arguments = parser.parse_args()
    with painted_window() as (viewer, dock, truth):
        if arguments.architectures:
            picture_architectures(viewer, dock, truth, arguments.minutes, arguments.only)
        else:
            picture_window(viewer, dock, arguments.minutes)


@contextmanager
def painted_window() -> Iterator[tuple[napari.Viewer, VolSegDock, Annotation]]:
    """Open napari with the dock and the phantom, its slices painted and classes named."""
    viewer = napari.Viewer()
    # What is chosen here is not what the user chose: nothing of it goes to disk.
    get_plugin_settings(path_dir=None)
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
        yield viewer, dock, truth
        dock.shutdown()
        viewer.close()


def picture_window(viewer: napari.Viewer, dock: VolSegDock, minutes: float) -> None:
    """Train, predict, and save the window as it is then."""
    train_and_predict(dock, minutes)
    press(dock, "step Train")
    show_slice(viewer, dock.session.annotation, *VIEWED)
    live(1.5)
    screenshot(viewer, Path(__file__).with_name("window.png"))


def picture_architectures(
    viewer: napari.Viewer, dock: VolSegDock, truth: Annotation, minutes: float, only: str
) -> None:
    """Train and predict with every architecture, and save what the canvas shows of each.

    With ``only``, the title of one, its picture takes the place of the one that there is.
    """
    press(dock, "step Train")
    chosen = find(dock, "architecture")
    if not isinstance(chosen, QComboBox):
        raise LookupError("the architecture is chosen in no combo box")
    wait_until(lambda: chosen.count() > 1, "the architectures are listed")
    titles = [chosen.itemText(index) for index in range(chosen.count())]
    path = Path(__file__).with_name("architectures.png")
    size = (COLUMNS * PANEL, -(-len(titles) // COLUMNS) * (PANEL + TITLE))
    paper = Image.open(path).convert("RGB") if only else Image.new("RGB", size, PAPER)
    for index, title in enumerate(titles):
        if only not in ("", title):
            continue
        press(dock, "step Train")
        chosen.setCurrentIndex(index)
        train_and_predict(dock, minutes)
        prediction = dock.session.prediction
        if prediction is None:
            raise LookupError(f"{title} predicted nothing")
        dock.session.annotation.visible = False
        show_slice(viewer, prediction, *VIEWED)
        live(1.0)
        unseen = dock.session.annotation.data == 0
        right = float((prediction.data == truth.labels)[unseen].mean())
        print(f"{title:32} {100 * right:.1f}% of the voxels right", flush=True)
        put_panel(paper, index, title, viewer.screenshot(canvas_only=True, flash=False))
        dock.session.annotation.visible = True
    paper.save(path)


def put_panel(paper: Image.Image, index: int, title: str, pixels: np.ndarray) -> None:
    """Put a titled picture, cut to its middle square, into its place on a sheet."""
    left, top = index % COLUMNS * PANEL, index // COLUMNS * (PANEL + TITLE)
    height, width = pixels.shape[:2]
    side = min(height, width)
    y, x = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(pixels[y : y + side, x : x + side, :3])
    paper.paste(PAPER, (left, top, left + PANEL, top + PANEL + TITLE))
    draw, font = ImageDraw.Draw(paper), ImageFont.load_default(size=16)
    draw.text((left + 6, top + 4), title, "#f0f1f2", font)
    paper.paste(square.resize((PANEL - 6, PANEL - 6)), (left + 3, top + TITLE))


if __name__ == "__main__":
    main()
