"""The review of a volume too large for arrays: what holds of a small one holds of it too."""

from __future__ import annotations

import threading

import pytest

from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.review import components, room
from napari_volseg.widgets import jobs
from tests.widgets import test_compare, test_locks, test_objects, test_queue, test_review_state
from tests.widgets.hands import find, live, press, wait_until
from tests.widgets.test_queue import BIG, begin, key, rows, state

pytestmark = pytest.mark.usefixtures("all_is_large")


@pytest.fixture
def reviewing(all_is_large, dock, viewer):
    begin(dock, viewer)
    assert isinstance(dock.session.prediction.data, SparseLabels)
    assert isinstance(dock.session.annotation.data, SparseLabels)
    return dock


@pytest.fixture
def sorting(all_is_large, dock, viewer):
    test_objects.show_mask(dock, viewer, *test_objects.balls_and_rods())
    return dock


@pytest.fixture
def review(all_is_large, dock, viewer):
    test_compare.with_prediction(dock, viewer)
    assert isinstance(dock.session.prediction.data, SparseLabels)
    return dock


# Of tests with the window, each name once more: here they run on labels in blocks.
for module, some in (
    (
        test_queue,
        (
            "the_table_tells_all_objects_those_most_likely_wrong_first",
            "a_row_shows_its_object_and_a_click_in_the_picture_finds_the_row",
            "undo_takes_an_accepted_object_back_and_shows_it",
            "several_selected_objects_are_accepted_and_unlocked_as_one_act",
            "several_selected_objects_are_rejected_as_one_act",
            "what_a_stroke_changes_meanwhile_is_not_lost_to_a_rejection",
            "a_rejected_object_becomes_background_in_mask_and_annotation_until_undone",
            "accepted_and_corrected_objects_outlast_the_next_prediction",
            "a_brush_on_the_prediction_leaves_locked_objects_alone",
            "fixes_change_mask_and_annotation_as_acts_that_undo_takes_back",
            "a_split_is_proposed_shown_and_done_by_one_key",
            "what_is_painted_and_erased_changes_the_object_that_is_being_fixed",
            "objects_selected_in_the_table_are_merged",
            "the_review_is_saved_as_a_table",
        ),
    ),
    (
        test_locks,
        (
            "a_stroke_over_an_accepted_object_stays_beside_it_only",
            "a_single_step_and_a_fill_leave_accepted_objects",
            "a_slice_through_an_accepted_object_is_complete_with_its_class",
            "proposals_are_accepted_around_an_accepted_object",
            "what_is_being_fixed_is_open_and_its_neighbors_are_not",
            "the_mouse_paints_around_an_accepted_object",
        ),
    ),
    (
        test_compare,
        (
            "a_layer_two_tables_and_a_report",
            "objects_that_differ_are_listed_and_shown_by_click_and_key",
        ),
    ),
    (
        test_review_state,
        (
            "several_rejected_are_undone_and_redone_after_a_restart",
            "a_merge_is_undone_after_a_restart",
            "what_does_not_fit_another_mask_is_said_and_kept",
            "a_rejected_object_is_recognized_if_the_next_mask_has_most_of_it",
        ),
    ),
    (
        test_objects,
        (
            "the_rest_are_sorted_like_the_examples",
            "a_second_click_takes_an_example_back_and_another_type_replaces_it",
        ),
    ),
):
    for name in some:
        globals()[f"test_{name}"] = getattr(module, f"test_{name}")


def test_a_search_is_told_cancelled_and_begun_again(reviewing, monkeypatch):
    look, held = components._look, threading.Event()

    def wait(*arguments):
        held.wait(20)
        return look(*arguments)

    monkeypatch.setattr(components, "_look", wait)
    press(reviewing, "find objects")
    bar = find(reviewing, "progress of finding")
    assert not find(reviewing, "objects").isVisible() and not bar.isVisible()
    assert "Looking" in find(reviewing, "objects found").text()
    wait_until(bar.isVisible, "it takes long")
    press(reviewing, "cancel finding")
    assert not bar.isVisible() and not find(reviewing, "objects found").text()
    # The one that was cancelled still waits; another one begins when it is gone.
    press(reviewing, "find objects")
    held.set()
    wait_until(lambda: find(reviewing, "objects").isVisible(), "objects are found")
    assert len(rows(reviewing)) == 3 and not bar.isVisible()
    held.clear()
    press(reviewing, "find objects")
    press(reviewing, "cancel finding")
    held.set()
    live(0.3)
    assert find(reviewing, "objects found").text() == "" and rows(reviewing) == []


def test_what_0_means_in_a_large_mask_is_the_users_to_say(review):
    """In a mask of blocks, too, all classes move up where 0 is one."""
    test_compare.add_mask(review, test_compare.TRUTH - 1, "from zero")
    find(review, "0 is background").setChecked(True)
    test_compare.compare(review)
    assert find(review, "state of comparing").text() == ""
    assert test_compare.cells(review, "agreement of objects") == [
        ["cell", "1", "0", "0", "2", "1"],
        ["vessel", "0", "0", "0", "0", "1"],
    ]


def test_what_cannot_be_done_with_large_masks_is_said(reviewing, monkeypatch):
    press(reviewing, "show Objects")
    warned = []
    monkeypatch.setattr(jobs, "show_warning", warned.append)
    monkeypatch.setattr(room, "free_bytes", lambda: 1000)
    key(reviewing, "W")
    key(reviewing, "G")
    wait_until(lambda: bool(warned), "it is refused")
    assert "14x14 voxels would be looked at as a whole" in warned[0]
    key(reviewing, "R")
    assert state(reviewing, BIG) == "rejected"
