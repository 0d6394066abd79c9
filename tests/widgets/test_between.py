from __future__ import annotations

import time

import numpy as np
import pytest
from napari.layers import Labels
from napari.utils.notifications import notification_manager

from napari_volseg.data.annotation import default_classes
from napari_volseg.data.errors import InputError
from napari_volseg.review.between import Proposal
from napari_volseg.widgets.between import copy_neighbor
from napari_volseg.widgets.layers import classes_of, history_of, set_classes, show_slice, turn
from tests.widgets.hands import find, live, press, wait_until

SLICES = slice(5, 9)


class Proposer:
    """Proposes class 2 for four slices, the left half first; waits where it is told to."""

    def __init__(self):
        self.asked = None
        self.hold = False
        self.labels = None

    def __call__(self, volume, labels, axis, near, corrections):
        self.asked, self.labels = (axis, near), labels
        yield Proposal(0.2)
        width = labels.shape[2]
        for part, x in ((0.6, slice(0, width // 2)), (1.0, slice(width // 2, width))):
            region = (SLICES, slice(0, labels.shape[1]), x)
            found = np.where(labels[region] == 0, 2, 0).astype(labels.dtype)
            yield Proposal(part, region, found)
            while self.hold:
                time.sleep(0.005)
                yield Proposal(part)


@pytest.fixture
def proposer(monkeypatch):
    proposer = Proposer()
    monkeypatch.setattr("napari_volseg.widgets.between.propose_on", proposer)
    return proposer


def panel(dock):
    return dock.annotate._between


def proposals(viewer):
    return next((x for x in viewer.layers if x.name == "proposals"), None)


def fill(viewer, dock, index=6):
    """Press Fill between on an xy slice, and wait."""
    show_slice(viewer, dock.session.annotation, 0, index)
    press(dock, "fill between painted slices")
    wait_until(lambda: not panel(dock).job.running, "filling ends")
    live(0.02)


def test_proposals_are_hatched_and_apart_from_paint(viewer, painted, proposer):
    annotation = painted.session.annotation
    viewer.layers.selection.active = annotation
    before = annotation.data.copy()
    fill(viewer, painted)
    assert proposer.asked == (0, 6)
    assert proposer.labels is not annotation.data
    np.testing.assert_array_equal(annotation.data, before)
    shown = proposals(viewer)
    stripes = shown.data[SLICES] == 2
    free = before[SLICES] == 0
    assert not stripes[~free].any() and not shown.data[9:].any()
    for axis in range(3):
        lines = stripes.any(axis=axis)
        assert lines.any()
    assert stripes[free].mean() == pytest.approx(0.5, abs=0.05)
    assert not shown.editable and shown.get_color(1)[3] == 0
    assert viewer.layers.index(shown) < viewer.layers.index(annotation)
    assert viewer.layers.selection.active is annotation
    assert shown not in painted.session.labels()
    assert shown.data_to_world((1, 2, 3)) == pytest.approx(annotation.data_to_world((1, 2, 3)))
    assert "4 xy slices, 5 to 8" in find(painted, "what is proposed").text()


def test_a_slice_is_accepted_where_it_is_unlabeled_and_undo_takes_it_back(
    viewer, painted, proposer
):
    annotation = painted.session.annotation
    fill(viewer, painted)
    annotation.data[6, :4] = 3
    before = annotation.data.copy()
    press(painted, "accept proposals of the slice")
    expected = before.copy()
    expected[6][expected[6] == 0] = 2
    np.testing.assert_array_equal(annotation.data, expected)
    assert not proposals(viewer).data[6].any() and proposals(viewer).data[7].any()
    assert "3 xy slices, 5 to 8" in find(painted, "what is proposed").text()
    assert history_of(annotation).undoable[-1].name == "accept proposals"
    annotation.undo()
    np.testing.assert_array_equal(annotation.data, before)


def test_a_slice_across_is_accepted_too(viewer, painted, proposer):
    annotation = painted.session.annotation
    fill(viewer, painted)
    show_slice(viewer, annotation, 2, 10)
    before = annotation.data.copy()
    press(painted, "accept proposals of the slice")
    assert (annotation.data[SLICES, :, 10] == 2)[before[SLICES, :, 10] == 0].all()
    changed = annotation.data != before
    changed[SLICES, :, 10] = False
    assert not changed.any()
    assert "4 xy slices" in find(painted, "what is proposed").text()


def test_all_is_accepted_in_one_act(viewer, painted, proposer):
    annotation = painted.session.annotation
    fill(viewer, painted)
    before = annotation.data.copy()
    press(painted, "accept all proposals")
    expected = before.copy()
    expected[SLICES][expected[SLICES] == 0] = 2
    np.testing.assert_array_equal(annotation.data, expected)
    assert proposals(viewer) is None
    assert not find(painted, "accept all proposals").isVisible()
    assert history_of(annotation).undoable[-1].name == "accept proposals"
    annotation.undo()
    np.testing.assert_array_equal(annotation.data, before)


def test_the_last_slice_accepted_takes_the_layer_away(viewer, painted, proposer):
    fill(viewer, painted)
    for index in range(SLICES.start, SLICES.stop):
        assert proposals(viewer) is not None
        show_slice(viewer, painted.session.annotation, 0, index)
        press(painted, "accept proposals of the slice")
    assert proposals(viewer) is None


def dismissed(viewer, dock):
    press(dock, "dismiss proposals")


def deleted(viewer, dock):
    viewer.layers.remove(proposals(viewer))


def another_annotation(viewer, dock):
    press(dock, "new annotation")


def class_removed(viewer, dock):
    set_classes(dock.session.annotation, default_classes((1, 2)))
    dock.session.changed.classes.emit()


@pytest.mark.parametrize("away", [dismissed, deleted, another_annotation, class_removed])
def test_proposals_go_away_and_can_come_again(viewer, painted, proposer, away):
    annotation = painted.session.annotation
    before = annotation.data.copy()
    fill(viewer, painted)
    away(viewer, painted)
    assert proposals(viewer) is None
    assert not find(painted, "dismiss proposals").isVisible()
    panel(painted).accept_slice()
    panel(painted).accept_all()
    np.testing.assert_array_equal(annotation.data, before)
    fill(viewer, painted)
    assert proposals(viewer) is not None
    assert len([x for x in viewer.layers if x.name.startswith("proposals")]) == 1


def test_a_cancel_keeps_what_is_proposed_so_far(viewer, painted, proposer):
    proposer.hold = True
    show_slice(viewer, painted.session.annotation, 0, 6)
    press(painted, "fill between painted slices")
    wait_until(lambda: bool(panel(painted)._slices), "some is proposed")
    press(painted, "cancel filling")
    wait_until(lambda: not panel(painted).job.running, "filling ends")
    live(0.3)
    width = proposals(viewer).data.shape[2]
    assert proposals(viewer).data[..., : width // 2].any()
    assert not proposals(viewer).data[..., width // 2 :].any()


def test_a_dismissal_while_it_works_is_final(viewer, painted, proposer):
    proposer.hold = True
    show_slice(viewer, painted.session.annotation, 0, 6)
    press(painted, "fill between painted slices")
    wait_until(lambda: bool(panel(painted)._slices), "some is proposed")
    panel(painted).dismiss()
    proposer.hold = False
    wait_until(lambda: not panel(painted).job.running, "filling ends")
    live(0.3)
    assert proposals(viewer) is None


def test_proposals_follow_the_colors_of_the_classes(viewer, painted, proposer):
    fill(viewer, painted)
    painted.session.edit_class(2, color="#123456")
    assert classes_of(proposals(viewer)) == painted.session.classes
    shown = [round(255 * float(v)) for v in proposals(viewer).get_color(2)[:3]]
    assert shown == [0x12, 0x34, 0x56]


def test_a_training_gets_proposals_only_if_it_shall(viewer, painted, proposer, stand_in):
    def handed_over():
        press(painted, "step Train")
        press(painted, "train")
        wait_until(lambda: stand_in.steps > 0, "the training begins")
        press(painted, "stop training")
        wait_until(lambda: not painted.train.job.running, "it stops")
        stand_in.steps, stand_in.stopped = 0, False
        press(painted, "step Annotate")
        return stand_in.proposals

    fill(viewer, painted)
    assert not find(painted, "train on proposals").isChecked()
    assert handed_over() is None
    find(painted, "train on proposals").setChecked(True)
    proposed = handed_over()
    free = painted.session.annotation.data[SLICES] == 0
    assert (proposed[SLICES][free] == 2).all()
    assert not proposed[: SLICES.start].any()
    # Later acceptance must not change what a running training reads.
    assert proposed is not painted.session.proposals
    press(painted, "dismiss proposals")
    assert handed_over() is None


def test_what_is_missing_is_said(viewer, painted):
    turn(viewer, 0)
    press(painted, "fill between painted slices")
    wait_until(lambda: not panel(painted).job.running, "filling ends")
    live(0.02)
    assert "paint a second xy slice" in notification_manager.records[-1].message
    viewer.dims.ndisplay = 3
    panel(painted).fill()
    assert "no slice is on view" in notification_manager.records[-1].message


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_nearest_slice_is_copied_where_nothing_is_painted(viewer, axis):
    labels = np.zeros((9, 10, 11), np.uint8)
    plane = (slice(None),) * axis
    labels[(*plane, 1)], labels[(*plane, 7)] = 2, 1
    labels[(*plane, 7)][2:5] = 3
    labels[(*plane, 5)][:3] = 1
    annotation = viewer.add_layer(Labels(labels.copy()))
    show_slice(viewer, annotation, axis, 5)
    copied = copy_neighbor(viewer, annotation, [(axis, 1), (axis, 5), (axis, 7), (axis - 1, 4)])
    expected = labels.copy()
    expected[(*plane, 5)] = np.where(labels[(*plane, 5)] == 0, labels[(*plane, 7)], 1)
    np.testing.assert_array_equal(annotation.data, expected)
    assert copied == np.count_nonzero(expected != labels)
    annotation.undo()
    np.testing.assert_array_equal(annotation.data, labels)


def test_without_another_slice_there_is_nothing_to_copy(viewer):
    annotation = viewer.add_layer(Labels(np.zeros((9, 10, 11), np.uint8)))
    show_slice(viewer, annotation, 0, 5)
    with pytest.raises(InputError, match="no other xy slice is painted"):
        copy_neighbor(viewer, annotation, [(0, 5), (1, 4)])


def test_the_button_copies_the_painted_slice(viewer, painted):
    annotation = painted.session.annotation
    show_slice(viewer, annotation, 0, 10)
    press(painted, "copy the nearest painted slice")
    free = np.ones(annotation.data.shape[1:], bool)
    free[24], free[:, 26] = False, False
    np.testing.assert_array_equal(annotation.data[10][free], annotation.data[12][free])
