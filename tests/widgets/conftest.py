"""Real windows on a small phantom; whatever a test opens is closed and its threads awaited."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest
from tests.widgets.hands import add_volume, live, main_window, wait_until
from qtpy.QtCore import QThreadPool

from napari_volseg.data.annotation import Annotation
from napari_volseg.data.phantom import kidney_phantom
from napari_volseg.data.volume import Volume
from napari_volseg.training.events import Command, Progress
from napari_volseg.widgets.dock import VolSegDock

SHAPE = (24, 48, 52)


@pytest.fixture(scope="session")
def phantom() -> tuple[Volume, Annotation]:
    return kidney_phantom(SHAPE)


@pytest.fixture
def viewer(make_napari_viewer):
    viewer = make_napari_viewer(show=True)
    main_window(viewer).setGeometry(0, 0, 1366, 768)
    yield viewer
    wait_until(lambda: QThreadPool.globalInstance().waitForDone(10), "workers end")


@pytest.fixture
def dock(viewer, tmp_path):
    """The dock in an empty window."""
    dock = VolSegDock(viewer, journal=tmp_path / "journal")
    viewer.window.add_dock_widget(dock, name="VolSeg", area="right")
    live(0.05)
    yield dock
    dock.shutdown()
    wait_until(lambda: not our_threads(), "background threads end")


@pytest.fixture
def on_phantom(viewer, dock, phantom):
    """The dock with the phantom open."""
    add_volume(viewer, phantom[0])
    return dock


@pytest.fixture
def painted(on_phantom, phantom):
    """The dock with an annotation of one slice of each orientation."""
    layer = on_phantom.session.start_annotation()
    truth = phantom[1].labels
    layer.data[12] = truth[12]
    layer.data[:, 24] = truth[:, 24]
    layer.data[:, :, 26] = truth[:, :, 26]
    layer.refresh()
    wait_until(lambda: len(on_phantom.session.painted.slices) == 3, "the paint is found")
    return on_phantom


def our_threads() -> list[threading.Thread]:
    """Return the threads of our own that live."""
    return [t for t in threading.enumerate() if t.name.startswith("napari-volseg")]


@dataclass
class StandIn:
    """A training or prediction that takes as long as a test wants, and what became of it."""

    steps: int = 0
    started: int = 0
    over: bool = False
    stopped: bool = False
    limit: int = 10**6

    def train(self, volume, labels, classes, config, resume):
        """Yield as a training does, a step every 5 ms."""
        self.started += 1
        self.labels, self.config, self.resume = labels, config, resume
        try:
            while self.steps < self.limit and not self.stopped:
                command = yield progress(self.steps)
                self.stopped = command is Command.STOP
                self.steps += 1
                time.sleep(0.005)
            yield progress(self.steps)
        finally:
            self.over = True


def progress(step: int, **values) -> Progress:
    """Make an event of a training."""
    fields = {
        "step": step,
        "fraction": 0.1,
        "seconds": float(step),
        "seconds_left": 60.0,
        "steps_per_second": 1.0,
        "loss": 0.5,
        "stage": "stage",
        "device": "CPU",
        "memory_bytes": 10**9,
    }
    return Progress(**fields | values)


@pytest.fixture
def stand_in(monkeypatch):
    """Replace the training by a stand-in."""
    stand_in = StandIn()

    def train_on(*arguments):
        yield from stand_in.train(*arguments)

    monkeypatch.setattr("napari_volseg.widgets.train.train_on", train_on)
    return stand_in
