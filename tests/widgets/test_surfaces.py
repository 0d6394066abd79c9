"""Saving the objects of a prediction as surfaces."""

from __future__ import annotations

import pytest
import trimesh
from qtpy.QtWidgets import QFileDialog

from tests.widgets.hands import find, press, wait_until
from tests.widgets.test_objects import balls_and_rods, show_mask


@pytest.fixture
def save(dock, viewer, monkeypatch, tmp_path):
    """The dock with sixteen objects, and a function that presses the button and reads the file."""
    show_mask(dock, viewer, *balls_and_rods())

    def save_as(name):
        path = tmp_path / name
        monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (str(path), a[-1]))
        press(dock, "save surfaces")
        wait_until(path.exists, "surfaces are written")
        wait_until(find(dock, "save surfaces").isEnabled, "it is done")
        return trimesh.load_mesh(path)

    return dock, save_as


def test_the_objects_shown_or_several_selected_are_saved(save):
    dock, save_as = save
    press(dock, "show Objects")
    assert len(save_as("all.ply").split()) == 16
    find(dock, "filter objects").setText("1")
    shown = find(dock, "objects").model().rowCount()
    assert 1 < shown < 16 and len(save_as("shown.ply").split()) == shown
    find(dock, "filter objects").setText("")
    table = find(dock, "objects")
    flags = table.selectionModel().SelectionFlag
    for at in (2, 5):
        table.selectionModel().select(table.model().index(at, 0), flags.Select | flags.Rows)
    assert len(save_as("some.stl").split()) == 3
    dock.review.count_prediction()
    assert not find(dock, "save surfaces").isEnabled()
