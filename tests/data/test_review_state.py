"""Verdicts and corrections on disk: what was written last is read, wherever the file is cut."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_volseg.data.corrections import Corrections
from napari_volseg.data.history import Act, History
from napari_volseg.data.journal import open_journal, recoverable
from napari_volseg.data.journal_log import JournalHeader
from napari_volseg.data.kept import KeptObject, kept_by
from napari_volseg.data.review_state import REVIEW, ReviewState, read_review

SHAPE = (70, 20, 130)
HEADER = JournalHeader("kidney", SHAPE, "|u1")


def ranges(size):
    pair = st.tuples(st.integers(0, size - 1), st.integers(1, size))
    return pair.map(lambda p: slice(p[0], min(size, p[0] + p[1])))


WHERE = np.ones((70, 9, 70), bool)
BOXES = st.tuples(*[ranges(n) for n in SHAPE])


def marked(corrections):
    """Return which voxels are corrections, as a mask."""
    return corrections.taken_out(np.ones(SHAPE, np.uint8)) == 0


def an_object(class_id=2, state="accepted", start=3):
    member = np.random.default_rng(start).random((66, 9, 70)) > 0.5
    box = slice(start, start + 66), slice(1, 10), slice(50, 120)
    return KeptObject(class_id, state, box, member)


def voxels(one):
    """Return what identifies an object, however large the box that it is kept in."""
    found = np.argwhere(one.member) + [side.start for side in one.box]
    return one.class_id, one.state, found.tolist()


@settings(max_examples=40, deadline=None)
@given(edits=st.lists(st.tuples(BOXES, st.booleans(), st.integers(0, 9)), max_size=8))
def test_marks_are_those_of_a_plain_mask_and_go_back_step_by_step(edits):
    corrections, plain, steps = Corrections(), np.zeros(SHAPE, bool), []
    for box, corrected, seed in edits:
        where = np.random.default_rng(seed).random(plain[box].shape) > 0.5
        steps.append((corrections, plain.copy()))
        corrections, before = corrections.marked(box, where, corrected)
        steps[-1] += (before,)
        plain[box][where] = corrected
        np.testing.assert_array_equal(marked(corrections), plain)
    for _, mask, before in reversed(steps):
        forth, after = corrections.like(before), corrections
        corrections = corrections.put(before)
        np.testing.assert_array_equal(marked(corrections), mask)
        np.testing.assert_array_equal(marked(corrections.put(forth)), marked(after))


def test_the_journal_gives_back_verdicts_and_corrections(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    where = np.ones((9, 9, 9), bool)
    corrections, _ = Corrections().marked((slice(60, 69), slice(2, 11), slice(60, 69)), where, True)
    kept = an_object(), an_object(300, "rejected", 0)
    _, marks = corrections.marked((slice(0, 70), slice(0, 9), slice(0, 70)), WHERE, True)
    said, unsaid = (an_object(start=1).act, an_object(start=2).act), (kept[1].act,)
    patches = an_object().act.patches
    act = Act("reject object 1", "|u1", patches, marks=marks, said=said, unsaid=unsaid)
    assert act.size_bytes > sum(one.size_bytes for one in (*said, *unsaid))
    journal.keep(History((act,)), ReviewState(kept, corrections))
    journal.close()
    (offer,) = recoverable(tmp_path)
    found = offer.review()
    assert (offer.reviewed, offer.painted_voxels) == (2, 0)
    assert [voxels(x) for x in found.kept] == [voxels(x) for x in kept]
    np.testing.assert_array_equal(marked(found.corrections), marked(corrections))
    (again,) = offer.history().undoable
    assert marks and (again.patches, again.marks) == (act.patches, marks)
    for found, expected in ((again.said, said), (again.unsaid, unsaid)):
        assert [voxels(kept_by(x)) for x in found] == [voxels(kept_by(x)) for x in expected]


@pytest.mark.parametrize("reviewed", [False, True])
def test_a_review_stays_on_offer_though_a_file_holds_the_labels(tmp_path, reviewed):
    journal = open_journal(HEADER, tmp_path)
    labels = np.ones(SHAPE, np.uint8)
    journal.record(labels)
    journal.keep(History(), ReviewState((an_object(),) * reviewed))
    assert journal.mark_saved(labels)
    journal.close()
    offers = recoverable(tmp_path)
    assert [offer.in_file for offer in offers] == [True] * reviewed
    journal = open_journal(HEADER, tmp_path / "other")
    journal.keep(History(), ReviewState((an_object(),)))
    journal.keep(History(), ReviewState())
    journal.close()
    assert recoverable(tmp_path / "other") == [], "nothing is said of any object any more"


def test_a_log_cut_anywhere_gives_a_review_that_was(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    objects = [an_object(start=start) for start in range(3)]
    log, ends = journal.folder / REVIEW, [0]
    for many in (1, 2, 3):
        journal.keep(History(), ReviewState(tuple(objects[:many])))
        ends.append(log.stat().st_size)
    data = log.read_bytes()
    assert ends[3] - ends[2] < 1.2 * (ends[2] - ends[1]), "what is there is not written again"
    for cut in (*range(0, ends[-1], 997), *ends, *(end - 1 for end in ends[1:])):
        log.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert len(read_review(journal.folder).kept) == whole
    journal.close()
