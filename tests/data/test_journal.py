"""The journal gives back what was painted, however the session ended."""

from __future__ import annotations

import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_volseg.data import record_file
from napari_volseg.data.annotation import LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.history_log import HISTORY
from napari_volseg.data.journal import LOG, Journal, open_journal, recoverable
from napari_volseg.data.journal_log import JournalHeader, record
from napari_volseg.data.sparse_labels import BLOCK_SIZE, SparseLabels

SHAPE = (70, 20, 130)
HEADER = JournalHeader("kidney", SHAPE, "|u1")


def ranges(size: int) -> st.SearchStrategy[slice]:
    pair = st.tuples(st.integers(0, size - 1), st.integers(1, size))
    return pair.map(lambda p: slice(p[0], min(size, p[0] + p[1])))


edits = st.lists(
    st.tuples(ranges(SHAPE[0]), ranges(SHAPE[1]), ranges(SHAPE[2]), st.integers(0, 3)),
    min_size=1,
    max_size=6,
)


def paint(journal: Journal, labels: np.ndarray, *box: slice, value: int = 2) -> None:
    labels[box] = value
    journal.record(labels)


def only_offer(folder: Path) -> np.ndarray:
    (offer,) = recoverable(folder)
    labels = offer.labels()
    assert offer.painted_voxels == np.count_nonzero(labels)
    return labels


@settings(max_examples=60, deadline=None)
@given(edits=edits, compact=st.booleans(), data=st.data())
def test_a_journal_cut_anywhere_gives_a_state_that_was_painted(edits, compact, data):
    """Each block is as after the last whole edit, or already as after the next."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        if compact:
            patch.setattr(record_file, "COMPACT_ABOVE_BYTES", 0)
        folder = Path(name)
        journal = open_journal(HEADER, folder)
        labels = np.zeros(SHAPE, np.uint8)
        log = journal.folder / LOG
        states, logs = [labels.copy()], [log.read_bytes()]
        for *box, value in edits:
            paint(journal, labels, *box, value=value)
            states.append(labels.copy())
            logs.append(log.read_bytes())
        journal.close()
        edit = data.draw(st.integers(1, len(edits)), label="edit that is cut")
        whole = len(logs[edit - 1]) if logs[edit].startswith(logs[edit - 1]) else len(logs[edit])
        cut = data.draw(st.integers(whole, len(logs[edit])), label="bytes left")
        found = folder / "found"
        found.mkdir(parents=True)
        (found / LOG).write_bytes(logs[edit][:cut])
        expected = states[edit] if whole == len(logs[edit]) else states[edit - 1]
        offers = [offer for offer in recoverable(folder) if offer.folder == found]
        recovered = offers[0].labels() if offers else np.zeros(SHAPE, np.uint8)
        blocks = [
            tuple(slice(i * BLOCK_SIZE, (i + 1) * BLOCK_SIZE) for i in index)
            for index in np.ndindex(2, 1, 3)
        ]
        for block in blocks:
            assert np.array_equal(recovered[block], expected[block]) or np.array_equal(
                recovered[block], states[edit][block]
            )
        if cut == len(logs[edit]):
            assert np.array_equal(recovered, states[edit])


def test_a_log_cut_in_its_header_offers_nothing_and_is_removed(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    log = (journal.folder / LOG).read_bytes()
    journal.close()
    for cut in range(len(log)):
        (tmp_path / "cut").mkdir()
        (tmp_path / "cut" / LOG).write_bytes(log[:cut])
        assert recoverable(tmp_path) == []
        assert not (tmp_path / "cut").exists()


def test_a_damaged_beginning_is_warned_of_and_nothing_is_removed(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    paint(journal, np.zeros(SHAPE, np.uint8), slice(3))
    journal.close()
    log = journal.folder / LOG
    data = bytearray(log.read_bytes())
    data[20] ^= 1
    log.write_bytes(data)
    with pytest.warns(UserWarning, match="damaged"):
        assert recoverable(tmp_path) == []
    assert log.read_bytes() == data


@pytest.mark.parametrize("name", [LOG, "review.log"])
def test_what_another_version_wrote_is_warned_of_and_not_removed(tmp_path, name):
    journal = open_journal(HEADER, tmp_path)
    paint(journal, np.zeros(SHAPE, np.uint8), slice(3))
    journal.close()
    later = {LOG: record(b"H", b'{"shape": [1, 2, 3], "voxels": 6}')}
    later["review.log"] = record(b"A", struct.pack("<2I", 0, 2) + b"{}")
    later["review.log"] += record(b"T", struct.pack("<3I", 1, 0, 0))
    log = journal.folder / name
    log.write_bytes(later[name])
    with pytest.warns(UserWarning, match="of another version"):
        assert recoverable(tmp_path) == []
    assert log.read_bytes() == later[name]


def test_a_history_that_another_version_wrote_is_refused_and_not_removed(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    paint(journal, np.zeros(SHAPE, np.uint8), slice(3))
    journal.close()
    later = record(b"A", struct.pack("<2I", 0, 2) + b"{}")
    later += record(b"T", struct.pack("<3I", 1, 0, 0))
    (journal.folder / HISTORY).write_bytes(later)
    (offer,) = recoverable(tmp_path)
    with pytest.raises(InputError, match="of another version"):
        offer.history()
    assert (journal.folder / HISTORY).read_bytes() == later and offer.labels().any()


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<i4", "<i8"])
def test_labels_come_back_in_their_own_type(tmp_path, dtype):
    labels = np.zeros(SHAPE, dtype)
    journal = open_journal(JournalHeader("kidney", SHAPE, dtype), tmp_path)
    labels[1:, 3, 60:70] = np.iinfo(dtype).max
    labels[5, 5, 5] = 1
    journal.record(labels)
    journal.close()
    recovered = only_offer(tmp_path)
    assert recovered.dtype == labels.dtype
    assert np.array_equal(recovered, labels)


def test_all_that_is_said_of_the_labels_comes_back(tmp_path):
    classes = (LabelClass(1, "background", "#8a8f98"), LabelClass(7, "lumen", "#e69f00"))
    geometry = {"scale": [2.0, 0.5, 0.5], "units": ["micrometer"] * 3}
    header = JournalHeader("kidney", SHAPE, "|u1", classes, "here/kidney.tif", geometry)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, np.zeros(SHAPE, np.uint8), slice(3))
    journal.describe(header)
    journal.close()
    (offer,) = recoverable(tmp_path)
    assert offer.header == header


def test_an_open_session_is_not_offered_and_a_closed_one_is(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, labels, slice(3))
    assert recoverable(tmp_path) == []
    journal.close()
    assert np.array_equal(only_offer(tmp_path), labels)
    assert np.array_equal(only_offer(tmp_path), labels), "an offer must not use itself up"


def test_a_discarded_offer_is_gone(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    paint(journal, np.zeros(SHAPE, np.uint8), slice(3))
    journal.close()
    (offer,) = recoverable(tmp_path)
    (same,) = recoverable(tmp_path)
    offer.discard()
    assert recoverable(tmp_path) == []
    assert not journal.folder.exists()
    with pytest.raises(InputError, match="kidney is gone"):
        same.labels()
    same.discard()


def test_an_unpainted_session_leaves_nothing(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, labels, slice(3))
    paint(journal, labels, slice(3), value=0)
    journal.close()
    assert not journal.folder.exists()


def test_an_unpainted_session_that_crashed_is_removed(tmp_path):
    journal = open_journal(HEADER, tmp_path / "live")
    shutil.copytree(journal.folder, tmp_path / "after" / "crash")
    journal.close()
    assert recoverable(tmp_path / "after") == []
    assert not (tmp_path / "after" / "crash").exists()


def test_what_a_named_file_holds_is_not_offered(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, labels, slice(3))
    assert journal.mark_saved(labels.copy())
    shutil.copytree(journal.folder, tmp_path / "after" / "crash")
    assert recoverable(tmp_path / "after") == []
    journal.close()
    assert not journal.folder.exists()


def test_paint_after_the_save_is_offered(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, labels, slice(3))
    journal.mark_saved(labels.copy())
    paint(journal, labels, slice(4))
    journal.close()
    assert np.array_equal(only_offer(tmp_path), labels)


def test_paint_during_the_save_is_offered(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, labels, slice(3))
    in_file = labels.copy()
    paint(journal, labels, slice(4))
    assert not journal.mark_saved(in_file)
    assert not journal.mark_saved(in_file.astype(np.uint16))
    journal.close()
    assert np.array_equal(only_offer(tmp_path), labels)


def test_a_file_of_other_labels_saves_nothing(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    paint(journal, np.zeros(SHAPE, np.uint8), slice(66, 70))
    assert not journal.mark_saved(np.zeros((3, 4, 5), np.uint8))
    journal.close()
    assert len(recoverable(tmp_path)) == 1


def test_only_what_changed_is_written(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    labels[0, 0, 0] = labels[69, 0, 129] = 3
    assert journal.record(labels) == 2
    assert journal.record(labels) == 0
    labels[0, 0, 1] = 3
    assert journal.record(labels) == 1
    journal.close()


def test_a_log_that_is_painted_over_and_over_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(record_file, "COMPACT_ABOVE_BYTES", 1000)
    rng = np.random.default_rng(0)
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    sizes = []
    for turn in range(60):
        labels[3, :, :60] = rng.integers(0, 9, (20, 60))
        if turn == 5:
            labels[68:70, :, 70:] = rng.integers(0, 9, (2, 20, 60))
        journal.record(labels)
        sizes.append((journal.folder / LOG).stat().st_size)
    journal.close()
    assert np.count_nonzero(np.diff(sizes) < 0) > 2
    assert max(sizes) < 10_000
    assert np.array_equal(only_offer(tmp_path), labels)


def test_a_write_that_failed_hides_nothing_that_follows(tmp_path, monkeypatch):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, labels, slice(3))

    class FullDisk:
        """Takes half of each write."""

        def __init__(self, file):
            self.file = file

        def write(self, data):
            return self.file.write(data[: len(data) // 2])

        def __getattr__(self, name):
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        patch.setattr(journal._file, "_file", FullDisk(journal._file._file))
        with pytest.raises(OSError, match="free some disk"):
            paint(journal, labels, slice(66, 70))
    labels[0, 0, 0] = 9
    journal.record(labels)
    journal.close()
    assert np.array_equal(only_offer(tmp_path), labels)


def test_a_compaction_that_failed_loses_nothing(tmp_path, monkeypatch):
    labels = np.zeros(SHAPE, np.uint8)
    journal = open_journal(HEADER, tmp_path)
    paint(journal, labels, slice(3))

    def no_replace(*paths):
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(record_file, "COMPACT_ABOVE_BYTES", -(10**9))
        patch.setattr("os.replace", no_replace)
        with pytest.raises(OSError, match="no"):
            paint(journal, labels, slice(66, 70))
    paint(journal, labels, slice(5, 6))
    journal.close()
    assert np.array_equal(only_offer(tmp_path), labels)


def test_other_labels_are_refused(tmp_path):
    with pytest.raises(InputError, match="3D layer of integers"):
        JournalHeader("kidney", (3, 4), "|u1")
    with pytest.raises(InputError, match="3D layer of integers"):
        JournalHeader("kidney", SHAPE, "<f4")
    journal = open_journal(HEADER, tmp_path)
    with pytest.raises(ValueError, match="are not of"):
        journal.record(np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(ValueError, match="does not go with"):
        journal.describe(JournalHeader("kidney", SHAPE, "<u2"))
    journal.close()


def test_sparse_labels_are_kept_as_arrays_are(tmp_path):
    journal = open_journal(HEADER, tmp_path)
    labels = SparseLabels(SHAPE, np.uint8)
    assert journal.record(labels) == 0
    labels[0] = 1
    labels[:, 0, 0] = 2
    first = journal.record(labels)
    assert first == len(labels.blocks()) and journal.record(labels) == 0
    expected = labels[:]
    assert not journal.mark_saved(SparseLabels(SHAPE, np.uint8))
    labels[0] = 0
    labels[-1, -1, -1] = 3
    assert 0 < journal.record(labels) <= first + 1
    journal.close()
    (offer,) = recoverable(tmp_path)
    expected[0], expected[-1, -1, -1] = 0, 3
    np.testing.assert_array_equal(offer.labels(), expected)
    found = offer.labels(SparseLabels)
    assert isinstance(found, SparseLabels)
    np.testing.assert_array_equal(found[:], expected)
