"""How much memory the undo of a large annotation takes, and how long it takes.

    python -m benchmarks.undo [--size 512] [--acts 1000]

Draws strokes and fills and completes slices of all orientations in a cube of labels, through the
same functions as the window; then replaces all labels by a dense mask, removes a class of it,
and undoes and redoes that. Prints one line of JSON; times are of the processor (one thread).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.history import Act, History, exchange, make_act
from napari_volseg.data.history_log import HISTORY, HistoryLog, read_history
from napari_volseg.data.tiles import whole_region

CLASSES = default_classes((1, 2, 3))


class Bench:
    """Labels with their history."""

    def __init__(self, size: int) -> None:
        self.labels = np.zeros((size, size, size), np.uint8)
        self.history = History()
        self.seconds: list[float] = []

    def paint(self, box: tuple[slice, slice, slice], mask: np.ndarray, value: int) -> None:
        """Paint where a mask of the box's shape says, and record it as the window does."""
        before = self.labels[box].copy()
        after = before.copy()
        after[mask] = value
        self.labels[box] = after
        began = time.process_time()
        self.history = self.history.done(make_act("paint", box, before, after))
        self.seconds.append(time.process_time() - began)

    def move(self, *, back: bool) -> float:
        """Undo or redo; return the seconds that all of it took."""
        began = time.process_time()
        act = (self.history.undoable if back else self.history.redoable)[-1]
        ready = exchange(act, self.labels, CLASSES)
        self.labels = ready.put(self.labels)
        moved = self.history.undone if back else self.history.redone
        self.history = moved(ready.opposite)
        return time.process_time() - began

    def do(self, act: Act) -> None:
        """Put an act and record it."""
        ready = exchange(act, self.labels, CLASSES)
        self.labels = ready.put(self.labels)
        self.history = self.history.done(ready.opposite)


def random_act(bench: Bench, rng: np.random.Generator) -> None:
    """Draw a wandering stroke, or once in ten times complete a slice."""
    size = len(bench.labels)
    axis, at = int(rng.integers(3)), int(rng.integers(size))
    side = slice(at, at + 1)
    if rng.random() < 0.1:
        box = tuple(side if a == axis else slice(0, size) for a in range(3))
        bench.paint(box, bench.labels[box] == 0, 1)
        return
    plane = np.zeros((size, size), bool)
    disk = np.hypot(*np.ogrid[-9:10, -9:10]) <= 9
    place, angle = rng.uniform(10, size - 10, 2), rng.uniform(0, 2 * np.pi)
    for _ in range(40):
        angle += rng.normal(0, 0.3)
        place = np.clip(place + 5 * np.array([np.sin(angle), np.cos(angle)]), 10, size - 10)
        y, x = place.astype(int)
        plane[y - 9 : y + 10, x - 9 : x + 10] |= disk
    rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
    inside = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    sides = [slice(int(s.start), int(s.stop)) for s in inside]
    sides.insert(axis, side)
    bench.paint(tuple(sides), np.expand_dims(plane[inside], axis), int(rng.integers(1, 4)))


def dense_mask(size: int, rng: np.random.Generator) -> np.ndarray:
    """Labels of every voxel, in blobs of some 20 voxels."""
    coarse = rng.normal(size=(size // 16 + 2,) * 3).astype(np.float32)
    mask = np.empty((size, size, size), np.uint8)
    at = np.arange(size) / 16
    low, part = at.astype(int), (at % 1).astype(np.float32)
    rows = coarse[:, low] * (1 - part)[:, None] + coarse[:, low + 1] * part[:, None]
    planes = rows[:, :, low] * (1 - part) + rows[:, :, low + 1] * part
    for z in range(size):
        plane = planes[low[z]] * (1 - part[z]) + planes[low[z] + 1] * part[z]
        mask[z] = 1 + (plane > 0.1) + (plane > 0.6)
    return mask


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--acts", type=int, default=1000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    bench = Bench(options.size)
    tracemalloc.start()
    start = tracemalloc.get_traced_memory()[0]
    for _ in range(options.acts):
        random_act(bench, rng)
    traced = tracemalloc.get_traced_memory()[0] - start
    tracemalloc.stop()
    found = {
        "acts": len(bench.history.undoable),
        "megabytes": round(bench.history.size_bytes / 1e6, 1),
        "traced_megabytes": round(traced / 1e6, 1),
        "record_ms_p95": round(1e3 * float(np.percentile(bench.seconds, 95)), 2),
    }
    mask = dense_mask(options.size, rng)
    began = time.process_time()
    bench.do(make_act("replace", whole_region(mask.shape), mask, bench.labels))
    found["replace_all_s"] = round(time.process_time() - began, 2)
    remapped = np.where(mask == 3, np.uint8(2), mask)
    bench.do(make_act("remove a class", whole_region(mask.shape), remapped, mask, CLASSES[:2]))
    for what in ("class_removal", "replacement"):
        found[f"undo_{what}_s"] = round(bench.move(back=True), 2)
    found["undo_stroke_ms"] = round(1e3 * bench.move(back=True), 1)
    bench.move(back=False)
    for what in ("replacement", "class_removal"):
        found[f"redo_{what}_s"] = round(bench.move(back=False), 2)
    found["megabytes_with_these"] = round(bench.history.size_bytes / 1e6, 1)
    with tempfile.TemporaryDirectory() as folder:
        log = HistoryLog(Path(folder))
        log.write(bench.history)
        log.close()
        found["log_megabytes"] = round((Path(folder) / HISTORY).stat().st_size / 1e6, 1)
        began = time.process_time()
        read_history(Path(folder))
        found["read_log_s"] = round(time.process_time() - began, 2)
    start_to_end = bench.labels.copy()
    while bench.history.undoable:
        bench.move(back=True)
    found["undone_to_the_start"] = not bench.labels.any()
    while bench.history.redoable:
        bench.move(back=False)
    found["redone_to_the_end"] = bool(np.array_equal(bench.labels, start_to_end))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
