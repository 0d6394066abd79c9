"""Whatever is done to labels can be taken back and done again, to the byte."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from napari_volseg.data import history as history_module
from napari_volseg.data import record_file
from napari_volseg.data.annotation import LabelClass, default_classes
from napari_volseg.data.corrections import Corrections
from napari_volseg.data.history import Act, History, exchange, make_act
from napari_volseg.data.history_log import HISTORY, HistoryLog, read_history
from napari_volseg.data.journal import open_journal, recoverable
from napari_volseg.data.journal_log import JournalHeader
from napari_volseg.data.kept import KeptObject
from napari_volseg.data.progress import result_of
from napari_volseg.data.review_state import ReviewState
from napari_volseg.data.rewriting import clearing, importing_labels, looking_at
from napari_volseg.data.tiles import whole_region
from napari_volseg.review.kept import said_after

SHAPE = (33, 80, 140)
ACTS = 1000


@dataclass
class Annotated:
    """All that acts change: labels, classes, which voxels are corrections, verdicts."""

    labels: np.ndarray
    classes: tuple
    corrections: Corrections = field(default_factory=Corrections)
    kept: tuple = ()
    history: History = field(default_factory=History)

    def do(self, act):
        """Put an act that is not undone yet."""
        self.history = self.history.done(self._put(act))

    def move(self, *, back):
        """Undo or redo the next act."""
        history = self.history
        opposite = self._put((history.undoable if back else history.redoable)[-1])
        self.history = history.undone(opposite) if back else history.redone(opposite)

    def _put(self, act):
        ready = exchange(act, self.labels, self.classes, self.corrections.like(act.marks))
        self.labels = ready.put(self.labels)
        self.classes = act.classes if act.classes is not None else self.classes
        self.corrections = self.corrections.put(act.marks)
        self.kept = said_after(self.kept, act)
        return ready.opposite

    def state(self):
        """Return what must be the same again, to the byte."""
        marks = {at: block.patches[0].voxels for at, block in self.corrections.blocks.items()}
        kept = sorted((k.state, k.class_id, str(k.box), k.member.tobytes()) for k in self.kept)
        return self.labels.dtype.str, hash(self.labels.tobytes()), self.classes, marks, kept


def unpainted():
    return Annotated(np.zeros(SHAPE, np.uint8), default_classes(range(1, 6)))


def boxes(rng, largest):
    start = [int(rng.integers(size)) for size in SHAPE]
    return tuple(
        slice(s, int(min(size, s + rng.integers(1, most + 1))))
        for s, size, most in zip(start, SHAPE, largest, strict=True)
    )


def edit(name, box, change):
    """Make an act of what a function makes of the labels in a box."""
    return lambda now: make_act(name, box, change(now.labels[box]), now.labels[box])


def review(rng, name):
    """Say something of an object, which a fix changes in the annotation: a correction.

    Objects of a review share no voxel: each lies in its part of the volume, merged ones in two.
    """
    parts = [int(rng.integers(9))]
    parts += [parts[0] + 1] if name in ("merge", "split") else []
    places = [(slice(3, 9), slice(8 * n, 8 * n + 7), slice(20, 40)) for n in parts]
    box = (slice(3, 9), slice(8 * parts[0], 8 * parts[-1] + 7), slice(20, 40))

    def act(now):
        gone = [one for one in now.kept if any(meets(one.box, place) for place in places)]
        said, after = [], now.labels[box].copy()
        for place in [box] if name == "merge" else places:
            member = rng.random([s.stop - s.start for s in place]) < 0.7
            state = {"accept": "accepted", "reject": "rejected"}.get(name, "corrected")
            said.append(KeptObject(2, state, place, member))
            inside = after[:, place[1].start - box[1].start :][:, : member.shape[1]]
            inside[member] = {"accept": inside[member], "reject": 1}.get(name, 2)
        if name in ("unlock", "restore"):
            said, after = [], np.where(after == 2, after.dtype.type(0), after)
        marked, before = now.corrections.marked(box, after != now.labels[box], True)
        return replace(
            make_act(name, box, after, now.labels[box]),
            marks=marked.like(before),
            said=tuple(one.act for one in said),
            unsaid=tuple(one.act for one in gone),
        )

    return act


def meets(box, other):
    return all(a.start < b.stop and b.start < a.stop for a, b in zip(box, other, strict=True))


SHARES = {
    **{"stroke": 30, "fill": 10, "complete": 10, "noise": 7, "proposal": 8, "copy a neighbor": 8},
    **{"recolor": 2, "rename": 2, "add a class": 2, "remove a class": 2},
    **{"import": 1, "clear": 1, "type": 1},
    **{"accept": 3, "unlock": 1, "reject": 3, "restore": 1, "correct": 3},
    **{"merge": 2, "split": 2, "smooth": 1},
}
"""How many of a hundred acts are of each kind; fill holes and delete change what smooth does."""


def random_act(rng):
    """Return a function that makes an act of any kind of what there is."""
    value, other = (int(v) for v in rng.integers(0, 6, 2))
    kind = str(rng.choice(list(SHARES), p=np.array(list(SHARES.values())) / sum(SHARES.values())))
    everything = tuple(slice(0, size) for size in SHAPE)
    axis = int(rng.integers(3))
    at = int(rng.integers(SHAPE[axis]))
    plane = tuple(slice(at, at + 1) if a == axis else side for a, side in enumerate(everything))
    match kind:
        case "stroke":
            return edit(kind, boxes(rng, (1, 20, 20)), lambda x: np.full_like(x, value))
        case "fill":
            return edit(kind, plane, lambda x: np.where(x == other, x.dtype.type(value), x))
        case "complete":
            return edit(kind, plane, lambda x: np.where(x == 0, x.dtype.type(1), x))
        case "noise":
            box = boxes(rng, (30, 30, 30))
            return edit(kind, box, lambda x: rng.integers(0, 6, x.shape).astype(x.dtype))
        case "proposal":
            box = boxes(rng, (1, 40, 60))
            return edit(kind, box, lambda x: np.where(x == 0, x.dtype.type(value), x))
        case "copy a neighbor":
            return lambda now: make_act(
                kind, plane, np.roll(now.labels, 1, axis)[plane], now.labels[plane]
            )
        case "recolor":
            return changed_classes(kind, lambda c: replace(c, color=f"#{rng.integers(2**24):06x}"))
        case "rename":
            return changed_classes(kind, lambda c: replace(c, name=f"{c.name[:9]} {at}"))
        case "add a class":
            return lambda now: Act(
                kind,
                now.labels.dtype.str,
                classes=(*now.classes, LabelClass(now.classes[-1].id + 1, "new", "#ffffff")),
            )
        case "remove a class":
            return lambda now: make_act(
                kind,
                everything,
                np.where(now.labels == 3, now.labels.dtype.type(other), now.labels),
                now.labels,
                tuple(c for c in now.classes if c.id != 3),
            )
        case "import":
            values = np.zeros(SHAPE, np.uint8)
            values[plane] = value + 1
            given = result_of(looking_at(values, "a file", SHAPE, 32, in_blocks=False))
            choices = {"given": given, "unlabeled": 0, "others": (), "most": 32}
            return lambda now: act_of(
                importing_labels(now.labels, now.classes, now.corrections, **choices)
            )
        case "clear":
            box = everything if value else plane
            return lambda now: act_of(clearing(now.labels, (), now.corrections, name=kind, box=box))
        case "type":
            dtype = rng.choice([np.uint8, np.uint16, ">u2"])
            return edit(kind, everything, lambda x: x.astype(dtype))
        case _:
            return review(rng, kind)


def act_of(making):
    return result_of(making).act


def changed_classes(name, change):
    return lambda now: Act(name, now.labels.dtype.str, classes=tuple(map(change, now.classes)))


def test_a_thousand_random_acts_of_every_kind_are_undone_and_redone_to_the_byte():
    rng = np.random.default_rng(5)
    now, states = unpainted(), []
    for _ in range(ACTS):
        states.append(now.state())
        now.do(random_act(rng)(now))
    end = now.state()
    assert {state[0] for state in states} == {"|u1", "<u2", ">u2"}
    assert {act.name for act in now.history.undoable} == set(SHARES)
    assert (
        end[3]
        and end[4]
        and {state for _, *_, kept in states for state, *_ in kept}
        == {*("accepted", "rejected", "corrected")}
    )
    for before in reversed(states):
        now.move(back=True)
        assert now.state() == before
    assert not now.labels.any() and not now.history.undoable
    for after in (*states[1:], end):
        now.move(back=False)
        assert now.state() == after
    assert not now.history.redoable and len(now.history.undoable) == ACTS


def small_act(value=3, at=0):
    labels = np.zeros(SHAPE, np.uint8)
    box = (slice(at, at + 1), slice(2, 5), slice(7, 9))
    return make_act("stroke", box, np.full((1, 3, 2), value, np.uint8), labels[box])


def test_something_new_ends_what_could_be_redone():
    now = unpainted()
    now.do(small_act())
    now.move(back=True)
    assert len(now.history.redoable) == 1
    now.do(small_act(at=1))
    assert not now.history.redoable and len(now.history.undoable) == 1


def test_an_act_keeps_only_the_pieces_that_differ():
    labels = np.zeros((64, 256, 256), np.uint8)
    after = labels.copy()
    after[3, 4, 5] = after[40, 200, 70] = 2
    act = make_act("points", whole_region(labels.shape), after, labels)
    assert len(act.patches) == 2
    assert act.voxels <= 2 * history_module.LARGEST_PATCH
    assert make_act("nothing", whole_region(labels.shape), labels, labels).patches == ()


def test_what_changed_unnoticed_is_not_lost():
    now = unpainted()
    now.do(small_act())
    now.labels[0, 2, 7] = 9
    seen = now.labels.copy()
    now.move(back=True)
    assert not now.labels.any()
    now.move(back=False)
    assert np.array_equal(now.labels, seen)


def noisy_act(rng, name="noise"):
    labels = np.zeros(SHAPE, np.uint8)
    values = rng.integers(0, 255, SHAPE).astype(np.uint8)
    return make_act(name, whole_region(labels.shape), values, labels)


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

    def of(act):
        objects = [[of(one) for one in some] for some in (act.said, act.unsaid)]
        return act.name, act.dtype, act.patches, act.classes, act.marks, objects

    return [[of(act) for act in acts] for acts in (history.undoable, history.redoable)]


def test_a_history_comes_back_from_its_log_wherever_that_is_cut(tmp_path):
    rng = np.random.default_rng(1)
    log, now = HistoryLog(tmp_path), unpainted()
    states, ends = [content(now.history)], [0]
    for turn in range(60):
        if turn % 5 == 4:
            now.move(back=True)
        elif turn % 10 == 5:
            now.move(back=False)
        else:
            now.do(random_act(rng)(now))
        log.write(now.history)
        states.append(content(now.history))
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
    now = unpainted()
    live, crashed = tmp_path / "live", tmp_path / "crashed"
    journal = open_journal(JournalHeader("kidney", SHAPE, "|u1", now.classes), live)
    for at in range(3):
        now.do(small_act(value=at + 1, at=at))
        journal.record(now.labels)
        journal.keep(now.history, ReviewState())
    shutil.copytree(live, crashed)
    journal.close()
    (offer,) = recoverable(crashed)
    restored = replace(now, labels=offer.labels(), history=offer.history())
    assert np.array_equal(restored.labels, now.labels)
    for left in (2, 1, 0):
        restored.move(back=True)
        assert len(np.unique(restored.labels)) == left + 1
    for _ in range(3):
        restored.move(back=False)
    assert np.array_equal(restored.labels, now.labels)


def test_a_journal_without_a_history_offers_none(tmp_path):
    assert read_history(tmp_path) == History()
    (tmp_path / HISTORY).write_bytes(b"not a log")
    assert read_history(tmp_path) == History()


@pytest.mark.parametrize("dtype", ["|u1", "<u2", ">u2", "<i8"])
def test_labels_of_any_type_come_back(tmp_path, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 100, SHAPE).astype(dtype)
    before = labels.copy()
    act = make_act(
        "noise", whole_region(labels.shape), rng.integers(0, 99, SHAPE).astype(dtype), labels
    )
    now = Annotated(labels, ())
    now.do(act)
    log = HistoryLog(tmp_path)
    log.write(now.history)
    log.close()
    now.history = read_history(tmp_path)
    now.move(back=True)
    assert now.labels.dtype == before.dtype and now.labels.tobytes() == before.tobytes()
