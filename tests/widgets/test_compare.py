"""Comparing two masks in the window."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from napari.layers import Labels
from qtpy.QtWidgets import QComboBox, QFileDialog

from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.progress import result_of
from napari_volseg.data.volume import Volume
from napari_volseg.review.compare import AGREE, NEITHER, ONLY_A, ONLY_B, OTHER_CLASS
from napari_volseg.widgets import compare as compare_module
from napari_volseg.widgets.dock import VolSegDock
from napari_volseg.widgets.layers import geometry_of
from napari_volseg.widgets.work import compare_masks
from tests.widgets.conftest import close
from tests.widgets.hands import add_volume, find, live, press, wait_until
from tests.widgets.test_queue import held

SHAPE = (12, 20, 40)
CLASSES = (
    LabelClass(1, "background", "#8a8f98"),
    LabelClass(2, "cell", "#e69f00"),
    LabelClass(3, "vessel", "#56b4e9"),
)


def mask(*boxes) -> np.ndarray:
    """A mask with boxes along x, each (from, to, class)."""
    labels = np.ones(SHAPE, np.uint8)
    for start, stop, class_id in boxes:
        labels[2:8, 4:16, start:stop] = class_id
    return labels


PREDICTION = mask((0, 10, 2), (14, 20, 2), (30, 36, 3))
TRUTH = mask((2, 10, 2), (22, 28, 2), (30, 36, 2))


def add_mask(dock: VolSegDock, labels: np.ndarray, name: str) -> Labels:
    layer = Labels(held(labels), name=name, **geometry_of(dock.session.image))
    dock.session.viewer.layers.append(layer)
    return layer


def with_prediction(dock: VolSegDock, viewer) -> VolSegDock:
    """Give the dock a mirrored and shifted image and a finished prediction; go to Review."""
    affine = np.array([[2, 0, 0, 5], [0, -1, 0, 6], [0, 0, 1, 7], [0, 0, 0, 1.0]])
    image = np.random.default_rng(0).integers(0, 99, (1, *SHAPE)).astype(np.uint8)
    add_volume(viewer, Volume(image, (2.0, 1.0, 1.0), "micrometer", affine, name="cells"))
    dock.session.start_prediction(CLASSES).data = held(PREDICTION.copy())
    press(dock, "step Review")
    press(dock, "show Compare")
    return dock


@pytest.fixture
def review(dock, viewer):
    return with_prediction(dock, viewer)


def compare(dock: VolSegDock) -> None:
    press(dock, "compare masks")
    wait_until(lambda: not dock.review.compare.work.working, "they are compared")


def pick(dock: VolSegDock, which: str, name: str) -> None:
    choice = find(dock, which)
    choice.setCurrentText(name)
    choice.activated.emit(choice.currentIndex())


def agreement(dock: VolSegDock) -> Labels:
    (layer,) = [x for x in dock.session.viewer.layers if x.name == "agreement"]
    return layer


def chosen(dock: VolSegDock) -> tuple[str, ...]:
    choices = [find(dock, f"mask {which}") for which in "AB"]
    return tuple(c.currentText() for c in choices if isinstance(c, QComboBox))


def cells(dock: VolSegDock, name: str) -> list[list[str]]:
    table = find(dock, name)
    return [
        [table.item(r, c).text() for c in range(table.columnCount())]
        for r in range(table.rowCount())
    ]


def test_prediction_and_any_other_are_chosen_until_the_user_picks(review):
    assert chosen(review) == ("cells prediction", "none")
    assert find(review, "what to compare").isVisible()
    assert not find(review, "compare masks").isEnabled()
    review.session.start_annotation()
    assert chosen(review) == ("cells prediction", "cells annotation")
    add_mask(review, TRUTH, "truth")
    assert chosen(review) == ("cells prediction", "truth")
    assert not find(review, "what to compare").isVisible()
    pick(review, "mask B", "cells annotation")
    add_mask(review, TRUTH, "another truth")
    assert chosen(review) == ("cells prediction", "cells annotation")
    review.session.viewer.layers.append(Labels(np.ones((2, 2, 2), np.uint8), name="small"))
    assert find(review, "mask B").findText("small") < 0


def test_a_layer_two_tables_and_a_report(review, monkeypatch, tmp_path):
    truth = add_mask(review, TRUTH, "truth")
    compare(review)
    layer = agreement(review)
    seen = {x: layer.data[4, 8, x] for x in (0, 5, 12, 15, 25, 33)}
    expected = {0: ONLY_A, 5: AGREE, 12: NEITHER, 15: ONLY_A, 25: ONLY_B, 33: OTHER_CLASS}
    assert seen == expected
    image = review.session.image
    for name in ("scale", "translate", "units", "axis_labels"):
        assert list(getattr(layer, name)) == list(getattr(image, name))
    np.testing.assert_allclose(layer.affine.affine_matrix, image.affine.affine_matrix)
    assert not layer.editable
    assert layer.get_color(NEITHER)[3] == 0
    assert layer.get_color(AGREE)[3] == 1
    assert [review.session.prediction.visible, truth.visible, layer.visible] == [False, False, True]
    scores = cells(review, "agreement of classes")
    assert [row[0] for row in scores] == ["all classes", "cell", "vessel"]
    assert scores[1][1] == f"{8 / (16 + 20 - 8):.2f}"
    assert scores[2][1:] == ["0.00", "0.00", "\N{EM DASH}", "\N{EM DASH}", "\N{EM DASH}"]
    assert cells(review, "agreement of objects") == [
        ["cell", "1", "0", "0", "2", "1"],
        ["vessel", "0", "0", "0", "0", "1"],
    ]
    find(review, "agreement of classes").selectRow(2)
    wait_until(lambda: agreement(review).data[4, 8, 5] == NEITHER, "one class is shown")
    assert agreement(review).data[4, 8, 33] == ONLY_A
    press(review, "most different xz slice")
    assert review.session.viewer.dims.order == (1, 0, 2)
    path = tmp_path / "report.html"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *a: (str(path), a[-1]))
    press(review, "save the comparison")
    wait_until(path.exists, "the report is written")
    page = path.read_text(encoding="utf-8")
    assert page.count("<img ") == 12
    assert "vessel" in page
    assert "micrometer" in page


def test_one_part_of_the_review_is_shown_and_the_key_goes_to_comparing(review):
    press(review, "show Types")
    assert find(review, "what to do first").text() == "Predict the volume first."
    assert not find(review, "compare masks").isVisible()
    add_mask(review, TRUTH, "truth")
    press(review, "step Annotate")
    (compare_key,) = [k for k in review.keys() if k.does == "compare two masks"]
    compare_key.act()
    wait_until(lambda: find(review, "agreement of classes").isVisible(), "they are compared")
    assert find(review, "objects that differ").isVisible()
    press(review, "show Quality")
    assert not find(review, "agreement of classes").isVisible()


def test_objects_that_differ_are_listed_and_shown_by_click_and_key(review, viewer):
    review.session.start_annotation()
    add_mask(review, TRUTH, "truth")
    pick(review, "mask B", "truth")
    compare(review)
    assert [row[:2] for row in cells(review, "objects that differ")] == [
        ["missed", "cell"],
        ["missed", "cell"],
        ["extra", "cell"],
        ["extra", "vessel"],
    ]
    table = find(review, "objects that differ")
    annotation = review.session.annotation
    table.setCurrentCell(0, 0)
    assert viewer.dims.current_step[0] in range(2, 8)
    assert viewer.scene.camera.center[-1] == 7 + 24.5
    keys = {str(key): act for key, act in annotation.keymap.items()}
    seen = []
    for _ in range(4):
        keys["Shift+J"](annotation)
        seen.append((table.currentRow(), viewer.scene.camera.center[-1] - 7))
    assert [row for row, _ in seen] == [1, 2, 3, 0]
    assert [x for _, x in seen] == [32.5, 16.5, 32.5, 24.5]
    press(review, "previous difference")
    assert table.currentRow() == 3
    press(review, "step Annotate")
    keys["Shift+J"](annotation)
    assert table.currentRow() == 3, "the list is not on view"


def test_what_0_means_is_the_users_to_say(review):
    add_mask(review, TRUTH - 1, "from zero")
    review.session.prediction.data = np.minimum(PREDICTION, 2)
    compare(review)
    assert "If 0 is the background" in find(review, "state of comparing").text()
    assert cells(review, "agreement of objects") == [["cell", "0", "0", "0", "0", "2"]]
    find(review, "0 is background").setChecked(True)
    compare(review)
    assert find(review, "state of comparing").text() == ""
    assert cells(review, "agreement of objects") == [["cell", "2", "0", "0", "1", "1"]]


def test_classes_that_move_up_leave_their_names_behind():
    volume = Volume(np.zeros((1, *SHAPE), np.uint8))
    masks = [(labels, CLASSES, "mask") for labels in (PREDICTION, TRUTH - 1)]
    there = result_of(compare_masks(*masks, volume, True))
    assert [c.name for c in there.comparison.classes] == ["background", "cell", "vessel"]
    back = result_of(compare_masks(masks[1], masks[1], volume, True))
    assert [c.name for c in back.comparison.classes] == ["background", "class 2"]


def test_only_what_is_labeled_in_both_counts(review):
    sparse = TRUTH.copy()
    sparse[:6] = 0
    add_mask(review, sparse, "sparse")
    compare(review)
    assert "4\N{THIN SPACE}800 of 9\N{THIN SPACE}600" in find(review, "state of comparing").text()
    assert (agreement(review).data[:6] == 0).all()


def test_a_layer_that_was_removed_comes_again_and_another_image_ends_it(review, phantom):
    add_mask(review, TRUTH, "truth")
    compare(review)
    first = agreement(review)
    review.session.viewer.layers.remove(first)
    compare(review)
    assert agreement(review) is not first
    compare(review)
    assert "agreement [1]" not in review.session.viewer.layers
    add_volume(review.session.viewer, phantom[0])
    review.session.choose_image(review.session.images()[-1])
    assert not find(review, "agreement of classes").isVisible()
    assert chosen(review) == ("none", "none")


def test_a_new_prediction_is_seen(review):
    add_mask(review, TRUTH, "truth")
    compare(review)
    review.session.set_busy("predicting")
    assert review.session.prediction.visible
    assert not agreement(review).visible
    review.session.set_busy("")
    compare(review)
    assert agreement(review).visible


def test_in_napari_a_comparison_can_be_dropped(napari_viewer, tmp_path, monkeypatch, no_errors):
    go_on = threading.Event()

    def slow(*arguments):
        yield 0.3
        go_on.wait(20)
        return (yield from compare_masks(*arguments))

    monkeypatch.setattr(compare_module, "compare_masks", slow)
    dock = VolSegDock(napari_viewer, journal=tmp_path)
    napari_viewer.window.add_dock_widget(dock, name="VolSeg")
    with_prediction(dock, napari_viewer)
    add_mask(dock, TRUTH, "truth")
    find(dock, "compare masks").click()
    bar = find(dock, "progress of comparing")
    assert not find(dock, "compare masks").isEnabled()
    wait_until(lambda: bar.isVisible() and bar.value() == 30, "it is told how far it is")
    press(dock, "cancel comparing")
    assert not bar.isVisible() and find(dock, "compare masks").isEnabled()
    go_on.set()
    live(0.2)
    assert "agreement" not in napari_viewer.layers
    assert dock.session.prediction.visible
    compare(dock)
    assert "agreement" in napari_viewer.layers
    close(dock)
