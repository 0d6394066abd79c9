"""The window on a volume larger than its memory: memory of each stage, and its longest stall.

    tools/with_display.sh python -m benchmarks.large_window [--shape 1024 2048 2048] [--minutes 1]
                                                            [--parts paint rest review]
                                                            [--objects 20000] [--json FILE]

A smooth uint8 volume is generated on disk as OME-Zarr. One process opens it in napari's real
window, paints strokes, completes a slice of each orientation, undoes and redoes one, waits until
all is in the journal, and is then cut off. A second one restores what was painted, trains with
the live preview, and predicts for a while. A third one reviews a mask of so many balls: it finds
the objects, accepts, rejects and fixes one, accepts and rejects all the others, and compares the
mask with another. In all of them, napari's labels may be held block by block only: that they are
ever made an array of is an error. napari's own cache of what was read of the image, by default a
quarter of the memory, is cut to 256 MB.

Memory is what is anonymous (RssAnon), above that of the idle window: pages of files can be
dropped. A stall is the time between two turns of the window's event loop.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE_SECONDS = 0.02
TICK_MS = 2
CACHE_BYTES = 2**28
STROKES = 20
PERIOD = 64
"""Voxels from one structure to the next."""


def write_volume(path: Path, shape: tuple[int, int, int]) -> None:
    """Write a volume of round structures, chunk by chunk."""
    import dask.array as da
    import numpy as np

    from napari_volseg.data.files import write_volume as write
    from napari_volseg.data.volume import Volume

    z, y, x = (da.cos(da.arange(n, chunks=c) * (2 * np.pi / PERIOD)).astype(np.float32)
               for n, c in zip(shape, (64, 256, 256), strict=True))  # fmt: skip
    values = z[:, None, None] + y[None, :, None] + x[None, None]
    write(path, Volume((128 + 40 * values).astype(np.uint8)[None], name="large"))


class Watch:
    """The anonymous memory at most, and the longest stall, of each stage of this process."""

    def __init__(self) -> None:
        from qtpy.QtCore import QTimer

        self.rows: list[dict[str, Any]] = []
        self._peak = self._stall = 0.0
        self._idle: float | None = None
        self._last = time.perf_counter()
        self._timer = QTimer()
        self._timer.timeout.connect(self._tick)
        self._timer.start(TICK_MS)
        threading.Thread(target=self._sample, daemon=True).start()

    def _tick(self) -> None:
        now = time.perf_counter()
        self._stall, self._last = max(self._stall, now - self._last), now

    def _sample(self) -> None:
        while True:
            self._peak = max(self._peak, anonymous_mb())
            time.sleep(SAMPLE_SECONDS)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Watch what is done in a stage; the first one is the idle window."""
        from qtpy.QtWidgets import QApplication

        QApplication.processEvents()
        self._peak, self._stall, self._last = anonymous_mb(), 0.0, time.perf_counter()
        began = time.perf_counter()
        yield
        QApplication.processEvents()
        self._tick()
        if self._idle is None:
            self._idle = self._peak
        row = {
            "stage": name,
            "seconds": time.perf_counter() - began,
            "peak_mb": self._peak - self._idle,
            "stall_ms": 1e3 * self._stall,
        }
        self.rows.append(row)
        print("{stage:28}{seconds:9.1f}{peak_mb:9.0f}{stall_ms:10.0f}".format(**row), flush=True)


def anonymous_mb() -> float:
    """Return the megabytes of this process that no file holds."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


def open_window(folder: Path) -> tuple[Any, Any, Watch]:
    """Open the volume in a window in which all labels are held in blocks."""
    import napari

    from napari_volseg.data.sparse_labels import SparseLabels
    from napari_volseg.inference import large
    from napari_volseg.widgets.dock import VolSegDock
    from tests.widgets.hands import live, main_window

    def refuse(*_: Any) -> None:
        raise MemoryError("an array was made of all labels")

    large.SMALL_PART = 0
    SparseLabels.__array__ = refuse  # type: ignore[method-assign, assignment]
    viewer = napari.Viewer()
    # Not before: the window takes its size from napari's settings.
    napari.utils.resize_dask_cache(CACHE_BYTES)
    main_window(viewer).setGeometry(0, 0, 1366, 768)
    dock = VolSegDock(viewer, journal=folder / "journal")
    viewer.window.add_dock_widget(dock, name="VolSeg", area="right")
    watch = Watch()
    with watch.stage("idle window"):
        live(2)
    with watch.stage("open"):
        viewer.open(folder / "large.ome.zarr", plugin="napari-volseg")
        live(2)
    return viewer, dock, watch


def run_window(folder: Path, restore: bool, minutes: float, seconds: float) -> None:
    """Work in the window, in a process that ends without a goodbye."""
    import numpy as np

    from napari_volseg.widgets import layers
    from napari_volseg.widgets.recovery import RecoveryStrip
    from tests.widgets.hands import find, live, paint, press, screenshot, wait_until

    viewer, dock, watch = open_window(folder)
    session = dock.session
    shape = session.volume.shape
    saved = find(dock, "autosave state")

    def is_saved() -> bool:
        return saved.text().startswith("saved") and dock._journaling._autosave.state == "saved"

    if not restore:
        middle = [n // 2 for n in shape]
        with watch.stage("new annotation"):
            press(dock, "new annotation")
            live(1)
        layer = session.annotation
        layer.brush_size = 12
        with watch.stage(f"{STROKES} strokes"):
            for axis in range(3):
                layers.show_slice(viewer, layer, axis, middle[axis])
                live(0.3)
                for n in range(STROKES // 3):
                    layer.selected_label = 1 + n % 2
                    ends = np.array([middle, middle])
                    for end, a in enumerate(a for a in range(3) if a != axis):
                        ends[end, a] += PERIOD // 2 * (n % 2)
                    ends[1] += [0 if a == axis else 40 for a in range(3)]
                    paint(viewer, layer, ends.tolist())
        for axis, view in enumerate(("xy", "xz", "yz")):
            with watch.stage(f"complete {view}"):
                layers.show_slice(viewer, layer, axis, middle[axis])
                live(0.2)
                press(dock, "mark slice complete")
                live(0.5)
            with watch.stage(f"found and saved, {view}"):
                wait_until(lambda n=axis: len(session.painted.complete) == n + 1, "found", 300)
                live(1)
                wait_until(is_saved, "saved", 300)
        with watch.stage("undo and redo"):
            for act in (dock.undo.undo, dock.undo.redo):
                act()
                wait_until(lambda: not dock.undo._working, "done", 300)
                live(1)
        with watch.stage("ten other slices"):
            for n in range(10):
                layers.show_slice(viewer, layer, 0, middle[0] + 3 * n)
                live(0.1)
        wait_until(is_saved, "saved", 300)
        screenshot(viewer, folder / "painted.png")
    else:
        with watch.stage("restore"):
            wait_until(lambda: bool(dock.findChildren(RecoveryStrip)), "it is offered", 300)
            press(dock, "restore annotation")
            wait_until(lambda: session.annotation is not None, "restored", 300)
            wait_until(lambda: len(session.painted.complete) == 3, "found", 300)
            wait_until(is_saved, "saved", 300)
        layers.show_slice(viewer, session.annotation, 0, shape[0] // 2 + 3)
        press(dock, "step Train")
        find(dock, "minutes to train").setValue(minutes)
        with watch.stage(f"train {minutes:g} min"):
            press(dock, "train")
            wait_until(lambda: not dock.train.job.running, "trained", 60 * minutes + 1200)
        print(find(dock, "training progress").text(), file=sys.stderr)
        screenshot(viewer, folder / "trained.png")
        press(dock, "step Predict")
        with watch.stage("predict for a while"):
            press(dock, "predict")
            end = time.monotonic() + seconds
            wait_until(
                lambda: time.monotonic() > end or not dock.predict.job.running, "time", seconds + 60
            )
            if dock.predict.job.running:
                press(dock, "cancel prediction")
            wait_until(lambda: not dock.predict.job.running, "cancelled", 300)
        screenshot(viewer, folder / "predicted.png")
    (folder / f"{'rest' if restore else 'paint'}.json").write_text(json.dumps(watch.rows))
    os._exit(0)


def put_balls(mask: Any, doubt: Any, count: int, seed: int = 0) -> None:
    """Put balls of two classes onto a background, in places of a grid, each unsure in itself."""
    import numpy as np

    from napari_volseg.data.parts import put_where

    random, cell = np.random.default_rng(seed), PERIOD // 2
    for z in range(0, mask.shape[0], 64):
        mask[z : z + 64] = 1
    grid = [n // cell for n in mask.shape]
    z, y, x = np.mgrid[:cell, :cell, :cell] - cell // 2
    balls = [z**2 + y**2 + x**2 <= radius**2 for radius in range(6, cell // 2)]
    boxes = []
    for at in random.permutation(int(np.prod(grid)))[:count]:
        places = np.unravel_index(at, grid)
        boxes.append(tuple(slice(p * cell, (p + 1) * cell) for p in places))
    shapes, values = random.integers(len(balls), size=count), random.integers(20, 200, count)
    put_where(mask, [(b, balls[s], 2 + s % 2) for b, s in zip(boxes, shapes, strict=True)])
    put_where(doubt, [(b, balls[s], v) for b, s, v in zip(boxes, shapes, values, strict=True)])


def run_review(folder: Path, count: int) -> None:
    """Review a mask of so many objects, in a process that ends without a goodbye."""
    import numpy as np
    from napari.layers import Labels

    from napari_volseg.data.annotation import default_classes
    from napari_volseg.inference.large import labels_for
    from napari_volseg.widgets.layers import geometry_of, note
    from tests.widgets.hands import find, live, press, screenshot, wait_until

    shutil.rmtree(folder / "journal", ignore_errors=True)
    viewer, dock, watch = open_window(folder)
    session = dock.session
    press(dock, "new annotation")
    layer = session.start_prediction(default_classes((1, 2, 3)))
    doubt = labels_for(session.volume.shape, np.uint8)
    with watch.stage("mask of balls (made here)"):
        put_balls(layer.data, doubt, count)
        note(layer, doubt=doubt)
        layer.refresh()
        press(dock, "step Review")
        dock.review.count_prediction()
        wait_until(lambda: find(dock, "classes of the prediction").isVisible(), "counted", 300)
        press(dock, "show Objects")
        live(1)
    queue, annotation = dock.review.objects.queue, session.annotation
    reviewing = queue.reviewing
    with watch.stage(f"find {count} objects"):
        press(dock, "find objects")
        wait_until(lambda: len(reviewing.measured) > 0, "found", 1200)
    print(find(dock, "objects found").text(), file=sys.stderr)
    screenshot(viewer, folder / "found.png")
    queue.list.selectRow(0)
    live(1)

    def done(number: int = 0) -> None:
        wait_until(lambda: not reviewing.working and len(reviewing.states) == number, "done", 600)
        live(0.2)

    for said, (name, act) in enumerate(
        (("accept one", queue.accept), ("reject one", queue.reject), ("fix one", queue.fix)), 1
    ):
        with watch.stage(name):
            act()
            done(said)
    for name, act in (("accept", queue.accept), ("reject", queue.reject)):
        queue.list.selectAll()
        live(1)
        for verb, move, many in (
            (f"{name} all others", act, count),
            ("undo it", annotation.undo, 3),
            ("redo it", annotation.redo, count),
        ):
            with watch.stage(verb):
                move()
                done(many)
        annotation.undo()
        done(3)
    screenshot(viewer, folder / "reviewed.png")
    with watch.stage("another mask (made here)"):
        other, nothing = (labels_for(session.volume.shape, np.uint8) for _ in range(2))
        put_balls(other, nothing, count, seed=1)
        viewer.layers.append(Labels(other, name="other", **geometry_of(session.image)))
        press(dock, "show Compare")
    with watch.stage("compare them"):
        press(dock, "compare masks")
        wait_until(lambda: not dock.review.compare.work.working, "compared", 3600)
    screenshot(viewer, folder / "compared.png")
    (folder / "review.json").write_text(json.dumps(watch.rows))
    os._exit(0)


PARTS = ("paint", "rest", "review")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=int, nargs=3, default=[1024, 2048, 2048])
    parser.add_argument("--minutes", type=float, default=1.0, help="to train")
    parser.add_argument("--seconds", type=float, default=60.0, help="to predict")
    parser.add_argument("--folder", type=Path, help="where to keep what is written")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--objects", type=int, default=20_000, help="to review")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="what to run")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part == "review":
        run_review(arguments.folder, arguments.objects)
    if arguments.part:
        run_window(arguments.folder, arguments.part == "rest", arguments.minutes, arguments.seconds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        if not (folder / "large.ome.zarr").exists():
            folder.mkdir(exist_ok=True)
            write_volume(folder / "large.ome.zarr", tuple(arguments.shape))
        print(f"{'stage':28}{'s':>9}{'MB':>9}{'stall ms':>10}", flush=True)
        shutil.rmtree(folder / "journal", ignore_errors=True)
        found = {}
        for part in arguments.parts:
            command = [sys.executable, "-m", "benchmarks.large_window", "--part", part]
            command += ["--folder", str(folder), "--minutes", str(arguments.minutes)]
            command += ["--objects", str(arguments.objects)]
            subprocess.run([*command, "--seconds", str(arguments.seconds)], check=True)
            found[part] = json.loads((folder / f"{part}.json").read_text())
    if arguments.json:
        report = {"shape": arguments.shape, "stages": found}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
