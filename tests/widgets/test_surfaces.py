"""Saving the objects of a prediction as surfaces."""

from __future__ import annotations

import pytest
import trimesh
from qtpy.QtWidgets import QFileDialog

from tests.widgets.hands import find, press, wait_until
from tests.widgets.test_objects import balls_and_rods, give_examples, learn, show_mask


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


def test_all_objects_or_the_selected_ones_are_saved(save):
    dock, save_as = save
    assert len(save_as("all.ply").split()) == 16
    give_examples(dock)
    learn(dock)
    find(dock, "sorted objects").selectRow(0)
    assert len(save_as("one.stl").split()) == 1
    dock.review.count_prediction()
    assert not find(dock, "save surfaces").isEnabled()
