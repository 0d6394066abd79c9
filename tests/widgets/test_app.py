"""The window as the command line opens it."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from napari_volseg.data.errors import InputError
from napari_volseg.data.files import write_labels, write_volume
from napari_volseg.data.samples import annotate_slices
from napari_volseg.widgets import app
from tests.widgets.hands import find, wait_until


@pytest.fixture
def opened(make_napari_viewer, monkeypatch):
    """Open windows that the test closes; what was run, instead of the event loop."""
    opened = []

    def viewer():
        opened.append(make_napari_viewer(show=True))
        return opened[-1]

    monkeypatch.setattr(app.napari, "Viewer", viewer)
    monkeypatch.setattr(app.napari, "run", partial(opened.append, "run"))
    return opened


def dock_of(viewer):
    (dock,) = viewer.window.dock_widgets.values()
    return dock


def test_files_are_opened_with_the_dock_ready_to_go_on(opened, phantom, tmp_path):
    volume, truth = phantom
    annotation = annotate_slices(truth, (1, 1, 1))
    write_volume(tmp_path / "image.ome.tif", volume)
    write_labels(tmp_path / "painted.ome.tif", annotation.labels, volume, annotation.classes)
    app.launch([tmp_path / "image.ome.tif", tmp_path / "painted.ome.tif"])
    viewer, ran = opened
    session = dock_of(viewer).session
    assert ran == "run"
    assert session.volume.channels == 2 and session.volume.spacing == volume.spacing
    np.testing.assert_array_equal(session.annotation.data, annotation.labels)
    assert [c.name for c in session.classes] == ["background", "tubule", "inside of tubule"]
    dock_of(viewer).shutdown()


def test_a_file_that_cannot_be_read_opens_no_window(opened, tmp_path):
    (tmp_path / "broken.nii").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken\.nii"):
        app.launch([tmp_path / "broken.nii"])
    assert opened == []


def test_the_demo_is_ready_to_train(opened, monkeypatch):
    monkeypatch.setattr(app, "DEMO_SHAPE", (24, 48, 52))
    app.launch_demo()
    dock = dock_of(opened[0])
    wait_until(lambda: find(dock, "train").isEnabled(), "it can be trained")
    assert find(dock, "train").isVisible()
    dock.shutdown()
