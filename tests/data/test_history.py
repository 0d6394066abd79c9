"""Whatever is done to labels can be taken back and done again, to the byte."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from napari_volseg.data import history as history_module
from napari_volseg.data import record_file
from napari_volseg.data.annotation import default_classes
from napari_volseg.data.history import Act, History, exchange, make_act, whole
from napari_volseg.data.history_log import HISTORY, HistoryLog, read_history
from napari_volseg.data.journal import open_journal, recoverable
from napari_volseg.data.journal_log import JournalHeader
from napari_volseg.data.review_state import ReviewState

SHAPE = (33, 80, 140)
ACTS = 1000


def do(history, act, labels, classes):
    """Put an act that is not undone yet; return the history, labels and classes after it."""
    ready = exchange(act, labels, classes)
    after = act.classes if act.classes is not None else classes
    return history.done(ready.opposite), ready.put(labels), after


def move(history, labels, classes, *, back):
    """Undo or redo the next act."""
    act = (history.undoable if back else history.redoable)[-1]
    ready = exchange(act, labels, classes)
    moved = history.undone(ready.opposite) if back else history.redone(ready.opposite)
    after = act.classes if act.classes is not None else classes
    return moved, ready.put(labels), after


def boxes(rng, largest):
    start = [int(rng.integers(size)) for size in SHAPE]
    return tuple(
        slice(s, int(min(size, s + rng.integers(1, most + 1))))
        for s, size, most in zip(start, SHAPE, largest, strict=True)
    )


def edit(name, box, change):
    """Make an act of what a function makes of the labels in a box."""
    return lambda labels, classes: make_act(name, box, change(labels[box]), labels[box])


def random_act(rng):
    """Return a function that makes an act of any kind from labels and classes."""
    value, other = (int(v) for v in rng.integers(0, 6, 2))
    kind = rng.choice(
        ["stroke", "fill", "complete", "noise", "remove", "recolor", "import", "type"],
        p=[0.42, 0.2, 0.2, 0.1, 0.02, 0.03, 0.02, 0.01],
    )
    everything = tuple(slice(0, size) for size in SHAPE)
    axis = int(rng.integers(3))
    at = int(rng.integers(SHAPE[axis]))
    plane = tuple(slice(at, at + 1) if a == axis else side for a, side in enumerate(everything))
    if kind == "stroke":
        return edit("stroke", boxes(rng, (1, 20, 20)), lambda x: np.full_like(x, value))
    if kind == "fill":
        return edit("fill", plane, lambda x: np.where(x == other, x.dtype.type(value), x))
    if kind == "complete":
        return edit("complete", plane, lambda x: np.where(x == 0, x.dtype.type(1), x))
    if kind == "noise":
        box = boxes(rng, (30, 30, 30))
        return edit("noise", box, lambda x: rng.integers(0, 6, x.shape).astype(x.dtype))
    if kind == "remove":

        def remove(labels, classes):
            after = np.where(labels == value, labels.dtype.type(other), labels)
            left = tuple(c for c in classes if c.id != value)
            return make_act("remove", everything, after, labels, left)

        return remove
    if kind == "recolor":
        color = f"#{rng.integers(2**24):06x}"
        return lambda labels, classes: Act(
            "recolor", labels.dtype.str, classes=tuple(replace(c, color=color) for c in classes)
        )
    if kind == "import":
        other_labels = np.zeros(SHAPE, np.uint8)
        other_labels[plane] = value
        return edit("import", everything, lambda x: other_labels.astype(x.dtype))
    dtype = rng.choice([np.uint8, np.uint16, ">u2"])
    return edit("type", everything, lambda x: x.astype(dtype))


def test_a_thousand_random_acts_are_undone_and_redone_to_the_byte():
    rng = np.random.default_rng(5)
    labels, classes = np.zeros(SHAPE, np.uint8), default_classes(range(1, 6))
    history, states = History(), []

    def state():
        return labels.dtype.str, hash(labels.tobytes()), classes

    for _ in range(ACTS):
        states.append(state())
        act = random_act(rng)(labels, classes)
        history, labels, classes = do(history, act, labels, classes)
    end = state()
    assert {dtype for dtype, *_ in states} == {"|u1", "<u2", ">u2"}
    for before in reversed(states):
        history, labels, classes = move(history, labels, classes, back=True)
        assert state() == before
    assert not labels.any() and not history.undoable
    for after in (*states[1:], end):
        history, labels, classes = move(history, labels, classes, back=False)
        assert state() == after
    assert not history.redoable and len(history.undoable) == ACTS


def small_act(value=3, at=0):
    labels = np.zeros(SHAPE, np.uint8)
    box = (slice(at, at + 1), slice(2, 5), slice(7, 9))
    return make_act("stroke", box, np.full((1, 3, 2), value, np.uint8), labels[box])


def test_something_new_ends_what_could_be_redone():
    labels, classes = np.zeros(SHAPE, np.uint8), default_classes()
    history, labels, classes = do(History(), small_act(), labels, classes)
    history, labels, classes = move(history, labels, classes, back=True)
    assert len(history.redoable) == 1
    history, labels, classes = do(history, small_act(at=1), labels, classes)
    assert not history.redoable and len(history.undoable) == 1


def test_an_act_keeps_only_the_pieces_that_differ():
    labels = np.zeros((64, 256, 256), np.uint8)
    after = labels.copy()
    after[3, 4, 5] = after[40, 200, 70] = 2
    act = make_act("points", whole(labels), after, labels)
    assert len(act.patches) == 2
    assert act.voxels <= 2 * history_module.LARGEST_PATCH
    assert make_act("nothing", whole(labels), labels, labels).patches == ()


def test_what_changed_unnoticed_is_not_lost():
    labels, classes = np.zeros(SHAPE, np.uint8), default_classes()
    history, labels, classes = do(History(), small_act(), labels, classes)
    labels[0, 2, 7] = 9
    seen = labels.copy()
    history, labels, classes = move(history, labels, classes, back=True)
    assert not labels.any()
    history, labels, classes = move(history, labels, classes, back=False)
    assert np.array_equal(labels, seen)


def noisy_act(rng, name="noise"):
    labels = np.zeros(SHAPE, np.uint8)
    values = rng.integers(0, 255, SHAPE).astype(np.uint8)
    return make_act(name, whole(labels), values, labels)


def test_memory_is_bounded_and_the_oldest_acts_go_first(monkeypatch):
    rng = np.random.default_rng(0)
    size = noisy_act(rng).size_bytes
    monkeypatch.setattr(history_module, "LIMIT_BYTES", int(3.5 * size))
    history = History()
    for number in range(6):
        history = history.done(noisy_act(rng, str(number)))
        assert history.size_bytes <= history_module.LIMIT_BYTES
    assert [act.name for act in history.undoable] == ["3", "4", "5"]
    monkeypatch.setattr(history_module, "LIMIT_BYTES", size // 2)
    assert [act.name for act in history.done(noisy_act(rng, "6")).undoable] == ["6"]


def test_what_is_undone_counts_for_the_memory_too(monkeypatch):
    rng = np.random.default_rng(0)
    acts = tuple(noisy_act(rng, str(number)) for number in range(4))
    size = acts[0].size_bytes
    monkeypatch.setattr(history_module, "LIMIT_BYTES", int(3.5 * size))
    history = History(acts).undone(acts[3])
    assert [act.name for act in history.undoable] == ["1", "2"]
    assert [act.name for act in history.redoable] == ["3"]
    monkeypatch.setattr(history_module, "LIMIT_BYTES", int(1.5 * size))
    history = history.undone(acts[2])
    assert [act.name for act in history.undoable] == ["1"]
    assert [act.name for act in history.redoable] == ["2"]


def test_the_number_of_acts_is_bounded(monkeypatch):
    monkeypatch.setattr(history_module, "MOST_ACTS", 10)
    history = History()
    for at in range(15):
        history = history.done(replace(small_act(), name=str(at)))
    assert [act.name for act in history.undoable] == [str(at) for at in range(5, 15)]


def content(history):
    """Return what an equal history has."""
    return [
        [(a.name, a.dtype, a.patches, a.classes) for a in acts]
        for acts in (history.undoable, history.redoable)
    ]


def test_a_history_comes_back_from_its_log_wherever_that_is_cut(tmp_path):
    rng = np.random.default_rng(1)
    labels, classes = np.zeros(SHAPE, np.uint8), default_classes(range(1, 6))
    log, history = HistoryLog(tmp_path), History()
    states, ends = [content(history)], [0]
    for turn in range(60):
        if turn % 5 == 4:
            history, labels, classes = move(history, labels, classes, back=True)
        elif turn % 10 == 5:
            history, labels, classes = move(history, labels, classes, back=False)
        else:
            act = random_act(rng)(labels, classes)
            history, labels, classes = do(history, act, labels, classes)
        log.write(history)
        states.append(content(history))
        ends.append((tmp_path / HISTORY).stat().st_size)
    log.close()
    assert content(read_history(tmp_path)) == states[-1]
    data = (tmp_path / HISTORY).read_bytes()
    for cut in rng.integers(0, len(data), 40):
        (tmp_path / HISTORY).write_bytes(data[:cut])
        whole_ones = int(np.searchsorted(ends, cut, side="right")) - 1
        assert content(read_history(tmp_path)) == states[whole_ones]


def test_only_new_acts_are_written_and_the_log_stays_small(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    log, history = HistoryLog(tmp_path), History((noisy_act(rng),))
    log.write(history)
    size = (tmp_path / HISTORY).stat().st_size
    history = history.done(small_act())
    log.write(history)
    log.write(history)
    assert (tmp_path / HISTORY).stat().st_size < size + 1000
    monkeypatch.setattr(record_file, "COMPACT_ABOVE_BYTES", 1000)
    sizes = []
    for number in range(8):
        history = history.undone(small_act()).undone(noisy_act(rng)).done(noisy_act(rng))
        history = history.done(small_act(value=number))
        log.write(history)
        sizes.append((tmp_path / HISTORY).stat().st_size)
    log.close()
    assert max(sizes) < 4 * size
    assert content(read_history(tmp_path)) == content(history)


def test_undo_survives_a_crash_with_the_labels(tmp_path):
    labels, classes = np.zeros(SHAPE, np.uint8), default_classes(range(1, 6))
    live, crashed = tmp_path / "live", tmp_path / "crashed"
    journal = open_journal(JournalHeader("kidney", SHAPE, "|u1", classes), live)
    history = History()
    for at in range(3):
        history, labels, classes = do(history, small_act(value=at + 1, at=at), labels, classes)
        journal.record(labels)
        journal.keep(history, ReviewState())
    shutil.copytree(live, crashed)
    journal.close()
    (offer,) = recoverable(crashed)
    restored, history = offer.labels(), offer.history()
    assert np.array_equal(restored, labels)
    for left in (2, 1, 0):
        history, restored, classes = move(history, restored, classes, back=True)
        assert len(np.unique(restored)) == left + 1
    for _ in range(3):
        history, restored, classes = move(history, restored, classes, back=False)
    assert np.array_equal(restored, labels)


def test_a_journal_without_a_history_offers_none(tmp_path):
    assert read_history(tmp_path) == History()
    (tmp_path / HISTORY).write_bytes(b"not a log")
    assert read_history(tmp_path) == History()


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<i8"])
def test_labels_of_any_type_come_back(tmp_path, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, SHAPE).astype(dtype)
    before = labels.copy()
    act = make_act("noise", whole(labels), rng.integers(0, 99, SHAPE).astype(dtype), labels)
    history, labels, _ = do(History(), act, labels, ())
    log = HistoryLog(tmp_path)
    log.write(history)
    log.close()
    history, labels, _ = move(read_history(tmp_path), labels, (), back=True)
    assert labels.dtype == before.dtype and labels.tobytes() == before.tobytes()
