"""Measure how fluid the window stays: the event loop's delay, and the latency of painting.

    python benchmarks/responsiveness.py [--seconds 15] [--strokes 60] [--cores 2] [--json FILE]

(under ``xvfb-run -a -s "-screen 0 1366x768x24"`` where there is no display). It opens the
real napari window with the dock, on a 256 x 256 x 256 image and a uint8 annotation of
that size with painted slices, confines the process to two cores, and measures first with
the window idle, then while the dock's Train button trains in its background thread:

- *event loop delay*: a precise timer is due every 10 ms; how late it fires. The window
  lives as it does for a user (curves, autosave, counts), nobody touches it.
- *slice change, press, move, release*: what one stroke is made of, after a step to
  another slice. Each is due at a set moment and over when its handlers have returned:
  the slice is cut, the voxels are painted, the new texture is handed to OpenGL, the
  repaint is scheduled. Waiting for a late event loop counts. A press includes vispy's
  picking pass, which waits for OpenGL.
- *drawn*: from the same due moment until the canvas shows the frame. It includes the
  OpenGL renderer and Qt's composition, most of all where OpenGL is software.

A machine that is busy with other work measures that work: look at the load average.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import gaussian_filter

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from qtpy.QtWidgets import QWidget

    from napari_volseg.widgets.dock import VolSegDock

SHAPE = (256, 256, 256)
PERIOD_MS = 10
GAP_MS = 40
MOVES = 6
DELAY_BAR_MS = 16.0
STROKE_BAR_MS = 16.0
PARTS = ("slice change", "press", "move", "release")


def make_image() -> tuple[np.ndarray, np.ndarray]:
    """Make blobs (uint8) and an annotation of them with three slices painted (uint8)."""
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    smooth = gaussian_filter(noise, 6)
    image = np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    labels = np.zeros(SHAPE, np.uint8)
    for axis in range(3):
        middle = tuple(128 if a == axis else slice(None) for a in range(3))
        labels[middle] = 1 + (image[middle] > 150)
    return image, labels


def open_window(journal: Path) -> tuple[napari.Viewer, VolSegDock, QWidget]:
    """Open napari with the dock, and return its canvas as well."""
    import napari
    from qtpy.QtOpenGLWidgets import QOpenGLWidget
    from qtpy.QtWidgets import QApplication

    from napari_volseg.widgets.dock import VolSegDock

    image, labels = make_image()
    viewer = napari.Viewer()
    viewer.window.resize(1366, 768)
    viewer.add_image(image, name="blobs")
    dock = VolSegDock(viewer, journal=journal)
    viewer.window.add_dock_widget(dock, name="VolSeg")
    layer = dock.session.start_annotation()
    layer.data[:] = labels
    layer.refresh()
    layer.brush_size = 10
    live(2.0)
    canvas = next(
        w for w in QApplication.allWidgets() if isinstance(w, QOpenGLWidget) and w.isVisible()
    )
    return viewer, dock, canvas


def live(seconds: float) -> None:
    """Let the event loop run."""
    from qtpy.QtCore import QEventLoop, Qt, QTimer

    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), Qt.TimerType.PreciseTimer, loop.quit)
    loop.exec()


def measure_delay(seconds: float) -> list[float]:
    """Return how late (ms) each beat of a precise timer was."""
    from qtpy.QtCore import Qt, QTimer

    late: list[float] = []
    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setSingleShot(True)
    armed = time.perf_counter()

    def beat() -> None:
        nonlocal armed
        now = time.perf_counter()
        late.append(max(0.0, 1000 * (now - armed) - PERIOD_MS))
        armed = now
        timer.start(PERIOD_MS)

    timer.timeout.connect(beat)
    timer.start(PERIOD_MS)
    live(seconds)
    timer.stop()
    return late


class Hand:
    """Acts at set moments, and notes when each act was handled and drawn (ms)."""

    def __init__(self, viewer: napari.Viewer, canvas: QWidget) -> None:
        self.viewer = viewer
        self.canvas = canvas
        self.handled: dict[str, list[float]] = {part: [] for part in PARTS}
        self.drawn: dict[str, list[float]] = {part: [] for part in PARTS}

    def act(self, part: str, action: Callable[[], None]) -> None:
        """Act once the gap is over, and wait for the frame that shows it."""
        from qtpy.QtCore import QEventLoop, QTimer

        due = time.perf_counter() + GAP_MS / 1000
        live(GAP_MS / 1000)
        action()
        self.handled[part].append(1000 * (time.perf_counter() - due))
        loop = QEventLoop()
        frames: list[float] = []

        def shown() -> None:
            frames.append(1000 * (time.perf_counter() - due))
            loop.quit()

        self.canvas.frameSwapped.connect(shown)
        # Some acts, as a release, draw nothing.
        QTimer.singleShot(300, loop.quit)
        loop.exec()
        self.canvas.frameSwapped.disconnect(shown)
        self.drawn[part] += frames[:1]

    def stroke(self, index: int, start: tuple[int, int]) -> None:
        """Go to another slice and paint a stroke on it."""
        from qtpy.QtCore import QEvent, QPointF, Qt
        from qtpy.QtGui import QMouseEvent
        from qtpy.QtWidgets import QApplication

        def mouse(kind: QEvent.Type, shift: int) -> None:
            at = QPointF(start[0] + shift, start[1] + shift)
            left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
            moving, releasing = kind == QEvent.Type.MouseMove, kind == QEvent.Type.MouseButtonRelease
            event = QMouseEvent(
                kind,
                at,
                QPointF(self.canvas.mapToGlobal(at.toPoint())),
                none if moving else left,
                none if releasing else left,
                Qt.KeyboardModifier.NoModifier,
            )
            QApplication.sendEvent(self.canvas, event)

        self.act("slice change", lambda: self.viewer.dims.set_current_step(0, index))
        self.act("press", lambda: mouse(QEvent.Type.MouseButtonPress, 0))
        for move in range(1, MOVES + 1):
            self.act("move", lambda move=move: mouse(QEvent.Type.MouseMove, 6 * move))
        self.act("release", lambda: mouse(QEvent.Type.MouseButtonRelease, 6 * MOVES))


def measure_strokes(viewer: napari.Viewer, canvas: QWidget, strokes: int) -> dict[str, Any]:
    """Paint strokes on changing slices; return the statistics (ms) of their parts."""
    random = np.random.default_rng(0)
    layer = viewer.layers.selection.active
    layer.selected_label = 2
    hand = Hand(viewer, canvas)
    center = np.array([canvas.width(), canvas.height()]) // 2
    for _ in range(strokes):
        index = int(random.integers(10, 246))
        x, y = (int(v) for v in center + random.integers(-90, 60, 2))
        hand.stroke(index, (x, y))
        end = tuple(int(round(v)) for v in layer.world_to_data(viewer.cursor.position))
        if end[0] != index or layer.data[end] != layer.selected_label:
            raise RuntimeError(f"the stroke that ends at {end} on slice {index} painted nothing")
    parts = {part: statistics(values) for part, values in hand.handled.items()}
    parts["any"] = statistics([v for values in hand.handled.values() for v in values])
    drawn = statistics([v for values in hand.drawn.values() for v in values])
    return {"handled": parts, "drawn": drawn}


def statistics(values: list[float]) -> dict[str, float]:
    """Return count and percentiles."""
    p50, p95, p99 = np.percentile(values, (50, 95, 99))
    found = {"p50": p50, "p95": p95, "p99": p99, "max": max(values)}
    return {"n": len(values)} | {name: round(float(v), 2) for name, v in found.items()}


def describe_machine(canvas: QWidget) -> dict[str, Any]:
    """Return what the figures depend on."""
    from OpenGL import GL

    canvas.makeCurrent()
    renderer = GL.glGetString(GL.GL_RENDERER).decode()
    canvas.doneCurrent()
    cpu = platform.processor() or platform.machine()
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores used": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "system": platform.platform(),
        "renderer": renderer,
        "canvas": [canvas.width(), canvas.height()],
        "versions": {name: version(name) for name in ("napari", "torch", "numpy", "qtpy")},
        "load average at start": [round(x, 2) for x in os.getloadavg()],
    }


def run(seconds: float, strokes: int, journal: Path) -> dict[str, Any]:
    """Measure idle, then in training."""
    viewer, dock, canvas = open_window(journal)
    report: dict[str, Any] = {"machine": describe_machine(canvas)}
    measure_strokes(viewer, canvas, 3)
    report["idle"] = {
        "event loop delay": statistics(measure_delay(seconds)),
        "strokes": measure_strokes(viewer, canvas, strokes),
    }
    steps = []
    dock.train.job.yielded.connect(lambda progress: steps.append((progress.step, time.monotonic())))
    dock.go_to(1)
    live(2.0)
    dock.train.train()
    starting = []
    while not steps or steps[-1][0] < 3:
        starting += measure_delay(0.5)
        if not dock.train.job.running:
            raise RuntimeError("the training did not start; see the window's messages")
    report["training"] = {
        "event loop delay at the start": statistics(starting),
        "event loop delay": statistics(measure_delay(seconds)),
        "strokes": measure_strokes(viewer, canvas, strokes),
        "steps": steps[-1][0],
        "still training at the end": dock.train.job.running,
    }
    report["machine"]["load average at end"] = [round(x, 2) for x in os.getloadavg()]
    dock.shutdown()
    viewer.close()
    return report


def show(report: dict[str, Any]) -> bool:
    """Print the report as a table; return whether the bars are held."""
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    print(f"\n{'ms':42}{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}")
    for phase in ("idle", "training"):
        figures = report[phase]
        rows = {k: v for k, v in figures.items() if k.startswith("event loop")}
        rows |= {f"stroke: {k}": v for k, v in figures["strokes"]["handled"].items()}
        rows["stroke: drawn"] = figures["strokes"]["drawn"]
        for name, row in rows.items():
            cells = "".join(f"{row[p]:9.2f}" for p in ("p50", "p95", "p99", "max"))
            print(f"{phase + ', ' + name:42}{cells}")
    delay = report["training"]["event loop delay"]["p99"]
    stroke = report["training"]["strokes"]["handled"]["any"]["p95"]
    held = delay <= DELAY_BAR_MS and stroke <= STROKE_BAR_MS
    print(
        f"\nwhile training: event loop delay p99 {delay} ms (bar {DELAY_BAR_MS}), stroke with "
        f"slice change p95 {stroke} ms (bar {STROKE_BAR_MS}): {'held' if held else 'NOT held'}"
    )
    return held


def main() -> None:
    """Run from the command line; exit code 1 if a bar is not held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each delay measurement")
    parser.add_argument("--strokes", type=int, default=60, help="of each stroke measurement")
    parser.add_argument("--cores", type=int, default=2, help="to confine the process to")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    with tempfile.TemporaryDirectory() as journal:
        report = run(arguments.seconds, arguments.strokes, Path(journal))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2))
    held = show(report)
    print(json.dumps(report))
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
