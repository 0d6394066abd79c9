"""The journal follows labels that are painted in another thread."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from napari_volseg.data.journal import recoverable
from napari_volseg.data.journal_log import JournalHeader
from napari_volseg.data.journal_writer import Journaled, JournalWriter

SHAPE = (40, 70, 20)
HEADER = JournalHeader("kidney", SHAPE, "|u1")

PAINTER = """
import pathlib, sys, time
import numpy as np
from napari_volseg.data.journal_log import JournalHeader
from napari_volseg.data.journal_writer import Journaled, JournalWriter

labels = np.zeros((64, 64, 64), np.uint8)
writer = JournalWriter(pathlib.Path(sys.argv[1]), lambda note, wrote, error: None)
writer.add(Journaled((labels, JournalHeader("kidney", labels.shape, "|u1"))))
for stroke in range(1, labels.size):
    labels.ravel()[stroke] = 1
    # In one piece: a kill must not leave half a line.
    print(f"{stroke} {time.time()}\\n", end="", flush=True)
    writer.note()
    time.sleep(0.02)
"""

LEAVER = """
import pathlib, sys
import numpy as np
from napari_volseg.data.journal_log import JournalHeader
from napari_volseg.data.journal_writer import Journaled, JournalWriter

labels = np.zeros((8, 8, 8), np.uint8)
writer = JournalWriter(pathlib.Path(sys.argv[1]), lambda note, wrote, error: None)
writer.add(Journaled((labels, JournalHeader("kidney", labels.shape, "|u1"))))
labels[:] = 7
"""


class Reports(list):
    """Collects what a writer reports."""

    def __call__(self, note, wrote, error):
        self.append((note, wrote, error))


def writer_of(folder, labels, **state):
    writer = JournalWriter(folder, Reports())
    header = JournalHeader("kidney", labels.shape, labels.dtype.str)
    journaled = Journaled((labels, header), **state)
    writer.add(journaled)
    return writer, journaled


def test_a_killed_process_loses_less_than_two_seconds_of_paint(tmp_path):
    """What lies on disk at any moment is what a kill at that moment leaves."""
    journal = tmp_path / "journal"
    moments = []
    with subprocess.Popen(
        [sys.executable, "-c", PAINTER, journal], stdout=subprocess.PIPE, text=True
    ) as painter:
        painter.stdout.readline()
        for moment in range(12):
            time.sleep(0.4)
            moments.append((time.time(), tmp_path / str(moment)))
            shutil.copytree(journal, moments[-1][1])
        painter.kill()
        moments.append((time.time(), journal))
        strokes = [line.split() for line in painter.stdout.read().splitlines()]
    for killed, left in moments:
        due = [int(stroke) for stroke, at in strokes if float(at) < killed - 2]
        recovered = [offer.labels().ravel() for offer in recoverable(left)]
        assert not due or recovered[0][1 : due[-1] + 1].all()
    assert len(due) > 50


def test_a_program_that_just_ends_loses_nothing(tmp_path):
    subprocess.run([sys.executable, "-c", LEAVER, tmp_path], check=True)
    (offer,) = recoverable(tmp_path)
    assert offer.painted_voxels == 8**3


def test_paint_without_a_note_is_found(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    writer, _ = writer_of(tmp_path, labels)
    assert writer.wait_for(writer.note(hurry=True), 60)
    before = len(writer._report)
    labels[3] = 2
    while not any(wrote for _, wrote, _ in writer._report[before:]):
        time.sleep(0.05)
    assert writer.stop()


def test_paint_that_goes_on_while_it_looks_is_complete_in_the_end(tmp_path):
    rng = np.random.default_rng(0)
    labels = np.zeros((64, 128, 128), np.uint8)
    writer, _ = writer_of(tmp_path, labels)
    for _ in range(60):
        z, y, x = (int(rng.integers(0, size)) for size in labels.shape)
        labels[z : z + 9, y : y + 40, x : x + 40] = rng.integers(0, 5)
        writer.note(hurry=True)
    assert writer.stop()
    (offer,) = recoverable(tmp_path)
    assert np.array_equal(offer.labels(), labels)


def test_other_shape_starts_another_journal_and_both_stay_on_offer(tmp_path):
    small, large = np.ones((3, 4, 5), np.uint8), np.full(SHAPE, 2, np.uint16)
    writer, journaled = writer_of(tmp_path, small)
    writer.wait_for(writer.note(hurry=True), 60)
    journaled.content = large, JournalHeader("kidney", SHAPE, "<u2")
    writer.stop()
    recovered = {offer.header.shape: offer.labels() for offer in recoverable(tmp_path)}
    assert np.array_equal(recovered[3, 4, 5], small)
    assert np.array_equal(recovered[SHAPE], large)


def test_labels_as_in_a_file_are_offered_once_they_are_painted(tmp_path):
    labels = np.ones(SHAPE, np.uint8)
    writer, _ = writer_of(tmp_path, labels, as_in_file=True)
    writer.stop()
    assert recoverable(tmp_path) == []
    writer, _ = writer_of(tmp_path, labels, as_in_file=True)
    writer.wait_for(writer.note(hurry=True), 60)
    labels[0, 0, 0] = 2
    writer.stop()
    assert len(recoverable(tmp_path)) == 1


def test_labels_written_to_a_file_are_not_offered(tmp_path):
    labels = np.ones(SHAPE, np.uint8)
    writer, journaled = writer_of(tmp_path, labels)
    journaled.in_file = labels.copy()
    writer.stop()
    assert recoverable(tmp_path) == []


def test_what_is_over_is_written_a_last_time(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    writer, journaled = writer_of(tmp_path, labels)
    labels[7] = 3
    journaled.is_over = True
    assert writer.wait_for(writer.note(hurry=True), 60)
    (offer,) = recoverable(tmp_path)
    assert np.array_equal(offer.labels(), labels)
    writer.stop()


def test_a_failure_is_reported_and_mended(tmp_path, caplog):
    folder = tmp_path / "journal"
    folder.write_text("in the way")
    writer, _ = writer_of(folder, np.ones(SHAPE, np.uint8))
    assert not writer.wait_for(writer.note(hurry=True), 60)
    assert "journal" in writer._report[-1][2]
    assert "could not journal kidney" in caplog.text
    # In words, without the system's number.
    assert writer._report[-1][2] == f"File exists: {folder}"
    folder.unlink()
    assert writer.wait_for(writer.note(hurry=True), 60)
    assert writer._report[-1][1:] == (True, "")
    writer.stop()
    assert len(recoverable(folder)) == 1


def test_one_failure_does_not_keep_others_from_being_written(tmp_path, caplog):
    writer, _ = writer_of(tmp_path, np.ones(SHAPE, np.uint8))
    writer.add(Journaled((np.ones((2, 2, 2), np.uint8), HEADER)))
    writer.add(Journaled((np.ones((4, 4, 4), np.uint8), JournalHeader("k", (4, 4, 4), "|u1"))))
    assert not writer.wait_for(writer.note(hurry=True), 60)
    writer.stop()
    assert "are not of" in caplog.text
    assert {offer.header.shape for offer in recoverable(tmp_path)} == {SHAPE, (4, 4, 4)}


def test_its_thread_ends(tmp_path):
    before = threading.active_count()
    writer, _ = writer_of(tmp_path, np.ones(SHAPE, np.uint8))
    assert writer.stop()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="was stopped"):
        writer.add(Journaled((np.ones(SHAPE, np.uint8), HEADER)))
