"""Acts that clear labels and import others, and what they do to classes and corrections."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.annotation import LabelClass, default_classes
from napari_volseg.data.corrections import Corrections
from napari_volseg.data.errors import InputError
from napari_volseg.data.history import exchange
from napari_volseg.data.progress import result_of
from napari_volseg.data.rewriting import clearing, importing_labels, looking_at
from napari_volseg.data.sparse_labels import SparseLabels
from napari_volseg.data.tiles import whole_region

SHAPE = (70, 90, 80)
"""More than one piece, and more than one block of corrections."""


@pytest.fixture
def labels():
    made = np.zeros(SHAPE, np.uint8)
    made[3], made[:, 70] = 1, 2
    return made


def corrected(labels):
    box = (slice(0, 70), slice(60, 75), slice(60, 80))
    return Corrections().marked(box, labels[box] > 0, True)[0]


def after(act, labels, corrections):
    """Put an act into a copy of labels; return them and what are corrections of all."""
    ready = exchange(act, labels, (), corrections.like(act.marks))
    put = ready.put(labels.copy())
    marked = corrections.put(act.marks).taken_out(np.ones(SHAPE, np.uint8)) == 0
    return put, marked


def imported(labels, values, unlabeled=0, classes=(), given_classes=(), corrections=None):
    given = look_at(values, given_classes, isinstance(labels, SparseLabels))
    making = importing_labels(
        labels,
        classes or default_classes(),
        corrections or Corrections(),
        given=given,
        unlabeled=unlabeled,
        others=(),
        most=6,
    )
    return result_of(making).act


def look_at(values, classes=(), in_blocks=False):
    return result_of(looking_at(values, "a.npy", SHAPE, 6, classes, in_blocks=in_blocks))


def clear(labels, corrections=None, box=None):
    found = corrections or Corrections()
    return result_of(clearing(labels, (), found, name="clear", box=box or whole_region(SHAPE)))


def test_what_is_cleared_is_no_correction_any_more(labels):
    corrections, box = corrected(labels), (slice(0, 70), slice(0, 72), slice(0, 80))
    act, changed = clear(labels, corrections, box)
    assert changed == np.count_nonzero(labels[box])
    put, marked = after(act, labels, corrections)
    assert not put[box].any() and np.array_equal(put[:, 72:], labels[:, 72:])
    before = corrections.taken_out(np.ones(SHAPE, np.uint8)) == 0
    assert before[box].any() and not marked[box].any()
    assert np.array_equal(marked[:, 72:], before[:, 72:]) and before[:, 72:].any()


def test_nothing_is_cleared_twice(labels):
    with pytest.raises(InputError, match="nothing is labeled here"):
        clear(np.zeros_like(labels))


def test_what_is_imported_is_no_correction(labels):
    corrections, values = corrected(labels), np.zeros(SHAPE, np.uint8)
    values[:, 65:72, 65] = 1
    put, marked = after(imported(labels, values, corrections=corrections), labels, corrections)
    assert (put[:, 65:72, 65] == 1).all()
    # Where it was 1 before, it is what it was: a correction.
    expected = corrections.taken_out(np.ones(SHAPE, np.uint8)) == 0
    expected[(put != labels)] = False
    assert np.array_equal(marked, expected) and marked[3, 65, 65] and not marked[4, 70, 65]


@pytest.mark.parametrize(
    ("found", "unlabeled", "become"),
    [
        ([0, 1, 2], 0, [0, 1, 2]),
        ([0, 1, 2], -1, [1, 2, 3]),
        ([0, 1, 3], 3, [1, 2, 0]),
        ([1, 2, 255], 255, [1, 2, 0]),
        ([-1, 0, 1], -1, [0, 1, 2]),
        ([False, True], 0, [0, 1]),
        ([0.0, 2.0], 0, [0, 2]),
    ],
)
def test_values_become_labels(labels, found, unlabeled, become):
    values = np.full(SHAPE, found[0])
    for at, value in enumerate(found):
        values[10 + at] = value
    given = look_at(values)
    assert unlabeled in given.choices
    assert given.meaning(unlabeled) == dict(zip(found, become, strict=True))
    put, _ = after(imported(labels, values, unlabeled), labels, Corrections())
    for at, label in enumerate(become):
        expected = np.full_like(put[10 + at], label) if label else labels[10 + at]
        assert np.array_equal(put[10 + at], expected)


@pytest.mark.parametrize(
    ("found", "dtype"),
    [
        ([0, 1, 2**32 - 1], np.uint32),
        ([2**63, 2**63 + 5], np.uint64),
        ([-128, 0, 127], np.int8),
        ([-(2**40), 3, 4], np.float64),
        ([0, 2**20], np.int64),
        ([7], np.uint8),
    ],
)
@pytest.mark.parametrize("in_blocks", [False, True])
def test_every_type_of_values_is_found(found, dtype, in_blocks):
    values = np.random.default_rng(1).choice(np.array(found, dtype), SHAPE)
    try:
        given = look_at(values, in_blocks=in_blocks)
    except InputError as error:
        assert "labels from" in str(error) and max(found) > 2**16
        return
    assert given.found == tuple(found) and isinstance(given.places, SparseLabels) == in_blocks
    np.testing.assert_array_equal(np.array(given.values, dtype)[given.places[:]], values)


def test_of_blocks_only_those_with_labels_are_visited(labels):
    blocks = SparseLabels(SHAPE, np.uint8)
    blocks[:] = labels
    blocks[:64, :64] = 0
    kept = len(blocks.blocks())
    assert kept == 4
    looking = looking_at(blocks, "a layer", SHAPE, 6, in_blocks=True)
    assert len(list(looking)) == kept
    given, empty = look_at(blocks, in_blocks=True), SparseLabels(SHAPE, np.uint8)
    assert given.found == (0, 1, 2)
    choices = {"given": given, "others": (), "most": 6}
    for unlabeled, visited in ((0, kept), (-1, 8)):
        making = importing_labels(
            empty, default_classes(), Corrections(), unlabeled=unlabeled, **choices
        )
        assert len(list(making)) == visited
    put, _ = after(imported(empty, blocks), empty, Corrections())
    np.testing.assert_array_equal(put[:], blocks[:])
    making = clearing(blocks, (), Corrections(), name="clear", box=whole_region(SHAPE))
    assert len(list(making)) == kept


def test_what_no_label_can_be_is_no_choice(labels):
    values = np.zeros(SHAPE, np.int16)
    values[0], values[1] = -1, 2
    assert look_at(values).choices == (-1,)
    with pytest.raises(InputError, match="labels from -1"):
        imported(labels, values, 0)
    values[2] = -2
    with pytest.raises(InputError, match="labels from -1"):
        look_at(values)


def test_names_of_the_file_are_of_its_own_numbers(labels):
    values = np.zeros(SHAPE, np.uint8)
    values[0] = 2
    tubule = LabelClass(2, "tubule", "#123456")
    act = imported(labels, values, 0, given_classes=(tubule,))
    assert [c.name for c in act.classes] == ["background", "tubule"]
    moved = imported(labels, values, -1, given_classes=(tubule,))
    assert [c.name for c in moved.classes] == ["background", "class 2", "class 3"]


def test_too_many_classes_are_refused_and_what_is_there_is_not_imported(labels):
    values = np.zeros(SHAPE, np.uint8)
    values[0] = 9
    classes = default_classes(range(1, 7))
    with pytest.raises(InputError, match="7 classes with these; 6 are the most"):
        imported(labels, values, classes=classes)
    with pytest.raises(InputError, match="holds all of these labels already"):
        imported(labels, labels)
