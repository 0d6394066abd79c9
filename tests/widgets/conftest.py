"""Real windows on a small phantom; whatever a test opens is closed and its threads awaited."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import pytest
from napari.components import ViewerModel
from napari.utils.notifications import notification_manager
from qtpy.QtCore import QEvent, QThreadPool
from qtpy.QtWidgets import QApplication, QMainWindow

from napari_volseg.data import corrections, journal, kept, sparse_labels
from napari_volseg.data.intensity import measure_intensity
from napari_volseg.data.phantom import kidney_phantom
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.inference import large
from napari_volseg.models.belief import Belief
from napari_volseg.models.checkpoint import Checkpoint
from napari_volseg.models.registry import get_architecture
from napari_volseg.models.unet3d_config import UNet3DConfig
from napari_volseg.review import components
from napari_volseg.review import kept as review_kept
from napari_volseg.training.events import Command, Progress
from napari_volseg.widgets import scan
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.session import Model
from napari_volseg.widgets.settings import Memory
from tests.widgets.hands import add_volume, live, main_window, wait_until

if TYPE_CHECKING:
    from napari_volseg.data.annotation import Annotation
    from napari_volseg.data.volume import Volume

SHAPE = (24, 48, 52)


@pytest.fixture(scope="session")
def phantom() -> tuple[Volume, Annotation]:
    """Two of its channels: every one is a layer more, and a third would tell nothing new."""
    volume, truth = kidney_phantom(SHAPE)
    image, names = volume.image[:2], volume.channel_names[:2]
    return replace(volume, image=image, channel_names=names), truth


@pytest.fixture(scope="session", autouse=True)
def libraries_are_no_garbage():
    """Leave what libraries hold out of the searches that napari's fixture makes for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def as_new():
    """Begin with the choices of someone who has never opened the window."""
    # Where napari keeps no settings of plugins, nothing is left from another test.
    if (choices := Memory()._choices) is not None:
        choices.reset()


@pytest.fixture(autouse=True)
def looked_at_soon(monkeypatch):
    """Look at the paint 20 ms after a stroke: most tests wait for that, some of them often."""
    monkeypatch.setattr(scan, "DELAY_MS", 20)


@pytest.fixture(autouse=True)
def nothing_left_open(qapp):
    """Delete at the end what was to be deleted later: outside an event loop Qt never does."""
    yield
    QApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete.value)


@pytest.fixture
def all_is_large(monkeypatch):
    """Hold all labels in blocks, small ones, and let nobody ask for all of them at once."""
    monkeypatch.setattr(large, "SMALL_PART", 0)
    for module in (kept, review_kept):
        monkeypatch.setattr(module, "LARGE_BOX", 16**3)
    for module in (sparse_labels, journal, corrections):
        monkeypatch.setattr(module, "BLOCK_SIZE", 16)

    monkeypatch.setattr(components, "TILE", 32)

    def refuse(*_):
        raise MemoryError("an array was made of all labels")

    monkeypatch.setattr(SparseLabels, "__array__", refuse)


@pytest.fixture
def viewer(qapp):
    """The model of a viewer: all that the dock needs, and open in no time."""
    return ViewerModel()


@pytest.fixture
def open_dock(tmp_path, qapp):
    """Return what opens the dock of a viewer's model in a window of its own."""
    windows = []

    def opened(viewer):
        window = QMainWindow()
        dock = VolSegDock(viewer, journal=tmp_path / "journal")
        window.setCentralWidget(dock)
        window.show()
        live(0.02)
        windows.append(window)
        return dock

    yield opened
    for window in windows:
        close(window.centralWidget())
        window.close()
        window.deleteLater()
    live(0.02)


@pytest.fixture
def dock(viewer, open_dock):
    """The dock in a window of its own, without an image."""
    return open_dock(viewer)


@pytest.fixture
def napari_viewer(make_napari_viewer):
    """A real window of napari."""
    viewer = make_napari_viewer(show=True)
    main_window(viewer).setGeometry(0, 0, 1366, 768)
    yield viewer
    wait_until(lambda: QThreadPool.globalInstance().waitForDone(10), "workers end")


@pytest.fixture
def napari_dock(napari_viewer, tmp_path, phantom):
    """The dock in napari, with a painted phantom."""
    dock = VolSegDock(napari_viewer, journal=tmp_path / "journal")
    napari_viewer.window.add_dock_widget(dock, name="VolSeg", area="right")
    add_volume(napari_viewer, phantom[0])
    paint_three_slices(dock, phantom[1].labels)
    yield dock
    close(dock)


def close(dock):
    """Close a dock and wait for its threads."""
    dock.shutdown()
    wait_until(lambda: QThreadPool.globalInstance().waitForDone(10), "workers end")
    wait_until(lambda: not our_threads(), "background threads end")


@pytest.fixture
def on_phantom(viewer, dock, phantom):
    """The dock with the phantom open."""
    add_volume(viewer, phantom[0])
    return dock


@pytest.fixture
def painted(on_phantom, phantom):
    """The dock with an annotation of one slice of each orientation."""
    paint_three_slices(on_phantom, phantom[1].labels)
    return on_phantom


def paint_three_slices(dock, truth):
    """Annotate a slice of each orientation as the truth says."""
    layer = dock.session.start_annotation()
    layer.data[12] = truth[12]
    layer.data[:, 24] = truth[:, 24]
    layer.data[:, :, 26] = truth[:, :, 26]
    layer.refresh()
    wait_until(lambda: len(dock.session.painted.slices) == 3, "the paint is found")


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

    def train(self, volume, labels, classes, config, resume, proposals):
        """Yield as a training does, a step every 5 ms."""
        self.started += 1
        self.labels, self.config, self.resume = labels, config, resume
        self.proposals = proposals
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


@pytest.fixture
def model(phantom) -> Model:
    """A model that was never trained, of the phantom's channels and classes; in eight tiles."""
    volume, truth = phantom
    config = UNet3DConfig(
        channels=2,
        pooling=((2, 2, 2),),
        kernels=((3, 3, 3), (3, 3, 3)),
        padding="same",
        tile=(12, 24, 28),
    )
    module = get_architecture("unet3d").build(config, volume.channels, len(truth.classes))
    checkpoint = Checkpoint(
        model="unet3d",
        config=asdict(config),
        training={},
        channels=volume.channels,
        classes=truth.classes,
        spacing=volume.spacing,
        unit=volume.unit,
        intensity=measure_intensity(volume),
        step=1,
        seconds=90.0,
        score=0.8,
        iou=(0.9, 0.8, None),
        belief=Belief(),
        weights=module.state_dict(),
    )
    return Model(checkpoint, "kidney")


@pytest.fixture
def choose(monkeypatch):
    """Return what answers the dialog that asks which labels to import."""

    def answer(path):
        monkeypatch.setattr(
            "napari_volseg.widgets.clear_import.ask_for_labels", lambda *_, folder: path
        )

    return answer


@pytest.fixture
def no_errors():
    """Fail if napari shows an error meanwhile."""
    before = len(notification_manager.records)
    yield
    records = list(notification_manager.records)[before:]
    assert [r.message for r in records if str(r.severity) == "error"] == []
