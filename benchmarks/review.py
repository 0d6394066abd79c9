"""How long the review of a large mask takes: the table, a jump, the undo of a whole-volume act.

    python -m benchmarks.review [--objects 5000] [--rounds 5] [--json FILE]

In the real window (under a display or Xvfb), on a mask of 256x512x512 voxels with so many
balls: from pressing "Find objects" to the filled table; from choosing a row to the slice
drawn on the canvas; undo and redo of an act that changes the whole annotation; accepting and
rejecting all objects as one act, undoing and redoing it, and accepting one and going to the
next. Medians of the rounds, in seconds of wall clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import napari
import numpy as np
from napari.settings import get_plugin_settings
from qtpy.QtWidgets import QApplication

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.volume import Volume
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import note
from tests.widgets.hands import add_volume, find, live, main_window, press, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (256, 512, 512)
RADIUS = 5


def balls(count: int) -> np.ndarray:
    """Place balls of class 2 and 3 on a grid, uint8 of ``SHAPE``; all else is background."""
    mask = np.ones(SHAPE, np.uint8)
    step = 2 * RADIUS + 3
    z, y, x = np.mgrid[-RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1, -RADIUS : RADIUS + 1]
    ball = z**2 + y**2 + x**2 <= RADIUS**2
    places = [
        (a, b, c)
        for a in range(RADIUS, SHAPE[0] - RADIUS, step)
        for b in range(RADIUS, SHAPE[1] - RADIUS, step)
        for c in range(RADIUS, SHAPE[2] - RADIUS, step)
    ]
    chosen = np.random.default_rng(0).permutation(len(places))[:count]
    for number, at in enumerate(chosen):
        box = tuple(slice(p - RADIUS, p + RADIUS + 1) for p in places[at])
        mask[box][ball] = 2 + number % 2
    return mask


def timed(act: Callable[[], object], rounds: int) -> float:
    """Return the median time of something."""
    taken = []
    for _ in range(rounds):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
        live(0.3)
    return statistics.median(taken)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    mask = balls(arguments.objects)
    random = np.random.default_rng(0)
    image = (60 * mask + random.integers(0, 20, SHAPE)).astype(np.uint8)
    viewer = napari.Viewer()
    get_plugin_settings(path_dir=None)
    main_window(viewer).setGeometry(0, 0, 1366, 768)
    with tempfile.TemporaryDirectory() as journal:
        dock = VolSegDock(viewer, journal=Path(journal))
        viewer.window.add_dock_widget(dock, name="VolSeg", area="right")
        add_volume(viewer, Volume(image[None], (1.0, 0.5, 0.5), "micrometer", name="balls"))
        annotation = dock.session.start_annotation()
        layer = dock.session.start_prediction(default_classes((1, 2, 3)))
        layer.data = mask
        note(layer, doubt=random.integers(0, 100, SHAPE, dtype=np.uint8))
        press(dock, "step Review")
        dock.review.count_prediction()
        wait_until(lambda: find(dock, "classes of the prediction").isVisible(), "it is counted")
        queue = dock.review.objects.queue
        rows = iter(random.permutation(arguments.objects))

        def fill() -> None:
            press(dock, "show Objects")
            press(dock, "find objects")
            wait_until(lambda: queue.list.model_.rowCount() == 0, "they are forgotten")
            wait_until(lambda: queue.list.model_.rowCount() == arguments.objects, "they are found")
            main_window(viewer).grab()

        def jump() -> None:
            queue.list.selectRow(int(next(rows)))
            QApplication.processEvents()
            viewer.screenshot(canvas_only=True, flash=False)

        figures = {"table_s": timed(fill, arguments.rounds), "jump_s": timed(jump, 20)}
        annotation.data = mask.copy()
        live(2.0)

        def undo_and_redo() -> None:
            for act, value in ((annotation.undo, 0), (annotation.redo, mask[0, 0, 0])):
                act()
                wait_until(lambda value=value: annotation.data[0, 0, 0] == value, "it is done")

        figures["undo_and_redo_s"] = timed(undo_and_redo, arguments.rounds)
        for verdict in (queue.accept, queue.reject):
            seconds: dict[str, list[float]] = {"all": [], "undo": [], "redo": []}
            for _ in range(arguments.rounds):
                for what, act, many in (
                    ("all", verdict, arguments.objects),
                    ("undo", annotation.undo, 0),
                    ("redo", annotation.redo, arguments.objects),
                    ("", annotation.undo, 0),
                ):
                    queue.list.selectAll()
                    live(1.0)
                    began = time.perf_counter()
                    act()
                    wait_until(lambda many=many: len(queue.reviewing.states) == many, "it is said")
                    main_window(viewer).grab()
                    if what:
                        seconds[what].append(time.perf_counter() - began)
            name = verdict.__name__
            figures |= {f"{name}_{what}_s": statistics.median(s) for what, s in seconds.items()}
        queue.list.selectRow(0)

        def accept_one() -> None:
            queue.accept()
            main_window(viewer).grab()

        figures["accept_s"] = timed(accept_one, 20)
        dock.shutdown()
        live(0.5)
        viewer.close()
    result = {
        "objects": arguments.objects,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        **figures,
    }
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
