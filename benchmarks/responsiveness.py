"""Measure how fluid the window stays: the event loop's delay, and the latency of painting.

    python benchmarks/responsiveness.py [--seconds 15] [--strokes 60] [--cores 2] [--stage pixels]
        [--json FILE]

(under ``xvfb-run -a -s "-screen 0 1366x768x24"`` where there is no display). It opens the
real napari window with the dock, on a 256 x 256 x 256 image and a uint8 annotation of
that size with painted slices, confines the process to two cores, and measures first with
the window idle, then while the dock's Train button trains in its background thread (from
the third step of the pixel classifier on, or with --stage context of the network):

- *event loop delay*: a precise timer is due every 10 ms; how late it fires. The window
  lives as it does for a user (curves, autosave, counts), nobody touches it.
- *slice change, press, move, release*: what one stroke is made of, after a step to
  another slice. Each is due at a set moment and over when its handlers have returned:
  the slice is cut, the voxels are painted, the new texture is handed to OpenGL, the
  repaint is scheduled. Waiting for a late event loop counts. A press includes vispy's
  picking pass, which waits for OpenGL.
- *shown*: from the same due moment until Qt has shown the frame.

A window with an OpenGL canvas is composed by OpenGL as a whole. Where that is software
(llvmpipe, as under Xvfb) the event loop stands for 15 to 20 ms whenever any label in the
window is repainted; a graphics card takes less than one. The figures *but for drawing*
leave out the time in which the event loop was busy with such repaints. The bars are put
to those if OpenGL is software, else to the whole.

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
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari
import numpy as np
from napari.settings import get_plugin_settings
from OpenGL import GL
from qtpy.QtCore import QEvent, QEventLoop, QObject, QPointF, Qt, QThreadPool, QTimer
from qtpy.QtGui import QMouseEvent
from qtpy.QtOpenGLWidgets import QOpenGLWidget
from qtpy.QtWidgets import QApplication, QDoubleSpinBox
from scipy.ndimage import gaussian_filter

from napari_volseg.widgets.dock import TRAIN, VolSegDock

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_volseg.training.events import Progress

SHAPE = (256, 256, 256)
PERIOD_MS = 10
GAP_MS = 50
MOVES = 6
START_SECONDS = 400
STAGES = {"pixels": 60.0, "context": 10.0}
"""Minutes to train: the stage must begin soon, and outlast the measurement."""
BAR_MS = 16.0
SOFTWARE = ("llvmpipe", "softpipe", "swrast")


class Application(QApplication):
    """Notes when it draws windows."""

    def __init__(self) -> None:
        super().__init__(sys.argv[:1])
        self._drawing: list[tuple[float, float]] = []

    def notify(self, receiver: QObject | None, event: QEvent | None) -> bool:
        """Handle an event."""
        if event is None or event.type() != QEvent.Type.UpdateRequest:
            return super().notify(receiver, event)
        began = time.perf_counter()
        handled = super().notify(receiver, event)
        self._drawing.append((began, time.perf_counter()))
        return handled

    def ms_of_drawing(self, since: float, until: float) -> float:
        """Return how much of an interval that just ended went into drawing."""
        recent = self._drawing[-50:]
        return 1000 * sum(max(0.0, min(until, end) - max(since, start)) for start, end in recent)


class Latencies:
    """How long things took (ms), whole and but for drawing."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self.whole: list[float] = []
        self.but_for_drawing: list[float] = []

    def add(self, due: float, done: float) -> None:
        """Note when something was due, and when it was done (s)."""
        late = max(0.0, 1000 * (done - due))
        self.whole.append(late)
        self.but_for_drawing.append(max(0.0, late - self._application.ms_of_drawing(due, done)))


def main() -> None:
    """Run from the command line; exit code 1 if a bar is not held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each delay measurement")
    parser.add_argument("--strokes", type=int, default=60, help="of each stroke measurement")
    parser.add_argument("--cores", type=int, default=2, help="to confine the process to")
    parser.add_argument("--stage", choices=STAGES, default="pixels", help="of the training")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    if sys.platform == "linux":
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    application = Application()
    with tempfile.TemporaryDirectory() as journal:
        report = measure(
            application, arguments.seconds, arguments.strokes, arguments.stage, Path(journal)
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report))
    held = show(report)
    sys.exit(0 if held else 1)


def measure(
    application: Application, seconds: float, strokes: int, stage: str, journal: Path
) -> dict[str, Any]:
    """Measure idle, then in a stage of the training."""
    viewer, dock, canvas = open_window(journal)
    report: dict[str, Any] = {"machine": describe_machine(canvas)}
    measure_strokes(application, viewer, canvas, 3)
    report["idle"] = {
        "event loop delay": measure_delay(application, seconds),
        **measure_strokes(application, viewer, canvas, strokes),
    }
    done: list[Progress] = []
    dock.train.job.yielded.connect(done.append)
    dock.go_to(TRAIN)
    live(2.0)
    # Not what was set last on this machine: the training must outlast the measurement.
    (minutes,) = [
        w for w in dock.findChildren(QDoubleSpinBox) if w.accessibleName() == "minutes to train"
    ]
    minutes.setValue(STAGES[stage])
    dock.train.train()
    starting, began = Latencies(application), time.perf_counter()
    while not in_stage(done, stage) and time.perf_counter() - began < START_SECONDS:
        watch_delay(starting, 0.5)
    if not in_stage(done, stage):
        raise RuntimeError(f"stage {stage} did not begin within {START_SECONDS} s")
    first, began = done[-1].step, time.perf_counter()
    report["training"] = {
        "event loop delay at the start": statistics(starting),
        "event loop delay": measure_delay(application, seconds),
        **measure_strokes(application, viewer, canvas, strokes),
    }
    if not dock.train.job.running:
        raise RuntimeError("the training ended before all was measured")
    took = time.perf_counter() - began
    report["machine"]["stage of the training"] = f"{stage} to {done[-1].stage}"
    report["machine"]["training steps per second"] = round((done[-1].step - first) / took, 2)
    report["machine"]["load average at the end"] = load_average()
    dock.shutdown()
    viewer.close()
    # The training ends at its next step; Python must not end before it.
    QThreadPool.globalInstance().waitForDone(60_000)
    return report


def in_stage(done: list[Progress], stage: str) -> bool:
    """Whether a stage of the training has taken its first steps."""
    return sum(progress.stage == stage and progress.loss is not None for progress in done) >= 3


def open_window(journal: Path) -> tuple[napari.Viewer, VolSegDock, QOpenGLWidget]:
    """Open napari with the dock and a painted annotation, and return its canvas as well."""
    image, labels = make_image()
    viewer = napari.Viewer()
    # What is chosen here is not what the user chose: nothing of it goes to disk.
    get_plugin_settings(path_dir=None)
    viewer.window.resize(1366, 768)
    viewer.add_image(image, name="blobs")
    dock = VolSegDock(viewer, journal=journal)
    viewer.window.add_dock_widget(dock, name="VolSeg")
    layer = dock.session.start_annotation()
    layer.data = labels
    layer.brush_size = 10
    dock.session.paint_with(2)
    live(2.0)
    widgets = QApplication.allWidgets()
    canvas = next(w for w in widgets if isinstance(w, QOpenGLWidget) and w.isVisible())
    return viewer, dock, canvas


def make_image() -> tuple[np.ndarray, np.ndarray]:
    """Make blobs (uint8), and an annotation (uint8) with a painted slice across each axis."""
    noise = np.random.default_rng(0).standard_normal(SHAPE, dtype=np.float32)
    smooth = gaussian_filter(noise, 6)
    image = np.clip(128 + 60 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    labels = np.zeros(SHAPE, np.uint8)
    for axis in range(3):
        middle = tuple(128 if a == axis else slice(None) for a in range(3))
        labels[middle] = 1 + (image[middle] > 150)
    return image, labels


def live(seconds: float) -> None:
    """Let the event loop run."""
    loop = QEventLoop()
    QTimer.singleShot(round(1000 * seconds), Qt.TimerType.PreciseTimer, loop.quit)
    loop.exec()


def measure_delay(application: Application, seconds: float) -> dict[str, Any]:
    """Return statistics of how late the event loop is."""
    late = Latencies(application)
    watch_delay(late, seconds)
    return statistics(late)


def watch_delay(late: Latencies, seconds: float) -> None:
    """Note how late each beat of a precise timer is."""
    timer = QTimer()
    timer.setTimerType(Qt.TimerType.PreciseTimer)
    timer.setSingleShot(True)
    due = 0.0

    def arm() -> None:
        nonlocal due
        timer.start(PERIOD_MS)
        due = time.perf_counter() + PERIOD_MS / 1000

    def beat() -> None:
        late.add(due, time.perf_counter())
        arm()

    timer.timeout.connect(beat)
    arm()
    live(seconds)
    timer.stop()


def measure_strokes(
    application: Application, viewer: napari.Viewer, canvas: QOpenGLWidget, strokes: int
) -> dict[str, Any]:
    """Paint strokes on changing slices; return statistics of what they are made of."""
    random = np.random.default_rng(0)
    layer = viewer.layers.selection.active
    center = np.array([canvas.width(), canvas.height()]) // 2
    parts = ("slice change", "press", "move", "release", "any of these", "shown")
    found = {part: Latencies(application) for part in parts}

    def act(part: str, action: Callable[[], object]) -> None:
        due = time.perf_counter() + GAP_MS / 1000
        live(GAP_MS / 1000)
        action()
        done = time.perf_counter()
        found[part].add(due, done)
        found["any of these"].add(due, done)
        if shown := wait_for_frame(canvas):
            found["shown"].add(due, shown)

    for _ in range(strokes):
        index = int(random.integers(10, 246))
        x, y = (int(v) for v in center + random.integers(-90, 60, 2))
        act("slice change", partial(viewer.dims.set_current_step, 0, index))
        act("press", partial(mouse, canvas, QEvent.Type.MouseButtonPress, x, y))
        for _ in range(MOVES):
            x, y = x + 6, y + 6
            act("move", partial(mouse, canvas, QEvent.Type.MouseMove, x, y))
        act("release", partial(mouse, canvas, QEvent.Type.MouseButtonRelease, x, y))
        end = tuple(round(float(v)) for v in layer.world_to_data(viewer.cursor.position))
        if end[0] != index or layer.data[end] != layer.selected_label:
            raise RuntimeError(f"the stroke that ends at {end} on slice {index} painted nothing")
    return {f"stroke: {part}": statistics(latencies) for part, latencies in found.items()}


def mouse(canvas: QOpenGLWidget, kind: QEvent.Type, x: int, y: int) -> None:
    """Press, move or release the left button on the canvas."""
    left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
    at = QPointF(x, y)
    event = QMouseEvent(
        kind,
        at,
        QPointF(canvas.mapToGlobal(at.toPoint())),
        none if kind == QEvent.Type.MouseMove else left,
        none if kind == QEvent.Type.MouseButtonRelease else left,
        Qt.KeyboardModifier.NoModifier,
    )
    QApplication.sendEvent(canvas, event)


def wait_for_frame(canvas: QOpenGLWidget) -> float | None:
    """Return when the next frame was shown, or None if nothing was to be drawn."""
    loop = QEventLoop()
    shown: list[float] = []

    def on_frame() -> None:
        shown.append(time.perf_counter())
        loop.quit()

    canvas.frameSwapped.connect(on_frame)
    QTimer.singleShot(300, loop.quit)
    loop.exec()
    canvas.frameSwapped.disconnect(on_frame)
    return shown[0] if shown else None


def statistics(latencies: Latencies) -> dict[str, Any]:
    """Return count and percentiles (ms)."""

    def percentiles(values: list[float]) -> dict[str, float]:
        p50, p95, p99 = np.percentile(values, (50, 95, 99)).round(2).tolist()
        return {"p50": p50, "p95": p95, "p99": p99, "max": round(max(values), 2)}

    return {
        "n": len(latencies.whole),
        "whole": percentiles(latencies.whole),
        "but for drawing": percentiles(latencies.but_for_drawing),
    }


def describe_machine(canvas: QOpenGLWidget) -> dict[str, Any]:
    """Return what the figures depend on."""
    canvas.makeCurrent()
    renderer = GL.glGetString(GL.GL_RENDERER).decode()
    canvas.doneCurrent()
    cpu, cores = platform.processor(), os.cpu_count()
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores used": cores,
        "system": platform.platform(),
        "renderer": renderer,
        "canvas": [canvas.width(), canvas.height()],
        "versions": {name: version(name) for name in ("napari", "torch", "numpy")},
        "load average at the start": load_average(),
    }


def load_average() -> list[float]:
    """Return the load of the last 1, 5 and 15 minutes."""
    return [round(load, 2) for load in os.getloadavg()]


def show(report: dict[str, Any]) -> bool:
    """Print the report as a table; return whether the bars are held."""
    for name, value in report["machine"].items():
        print(f"{name}: {value}")
    print(f"\n{'ms':42}{'whole':>10}{'':24}but for drawing")
    print(f"{'':42}" + 2 * "".join(f"{p:>8}" for p in ("p50", "p95", "p99", "max")))
    for phase in ("idle", "training"):
        for name, row in report[phase].items():
            cells = [*row["whole"].values(), *row["but for drawing"].values()]
            print(f"{phase + ', ' + name:42}" + "".join(f"{cell:8.1f}" for cell in cells))
    software = any(name in report["machine"]["renderer"] for name in SOFTWARE)
    which = "but for drawing" if software else "whole"
    delay = report["training"]["event loop delay"][which]["p99"]
    stroke = report["training"]["stroke: any of these"][which]["p95"]
    held = delay <= BAR_MS and stroke <= BAR_MS
    print(
        f"\nin training, {which}: event loop delay p99 {delay} ms, strokes with a slice "
        f"change p95 {stroke} ms; the bar of {BAR_MS:g} ms is {'' if held else 'NOT '}held"
    )
    return held


if __name__ == "__main__":
    main()
