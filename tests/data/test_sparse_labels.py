"""Sparse labels hold what an array would, read and written the same way."""

from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.data.annotation import count_labels
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_annotation
from napari_volseg.data.labeled import (
    changed_boxes,
    labeled_boxes,
    labeled_in_either,
    labeled_per_slice,
    labeled_positions,
)
from napari_volseg.data.labels import as_sparse_labels
from napari_volseg.data.parts import memory_of
from napari_volseg.data.sparse_labels import SparseLabels

SHAPE = (70, 130, 90)


@pytest.fixture
def both() -> tuple[SparseLabels, np.ndarray]:
    """Sparse labels and an array, painted alike: a slice of each orientation, and scribbles."""
    random = np.random.default_rng(0)
    sparse, dense = SparseLabels(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    for labels in (sparse, dense):
        labels[64] = 1
        labels[:, 100:101, :80] = 2
        labels[3:68, 5, 60:70] = np.arange(10)
    places = tuple(random.integers(0, n, 500) for n in SHAPE)
    values = random.integers(0, 4, 500)
    for labels in (sparse, dense):
        labels[places] = values
    return sparse, dense


def test_what_is_written_is_read(both):
    sparse, dense = both
    np.testing.assert_array_equal(np.asarray(sparse), dense)


@pytest.mark.parametrize(
    "key",
    [
        3,
        -6,
        (64, 5),
        (np.int64(64), 5, 80),
        slice(60, 66),
        (slice(None), 100),
        (..., 61),
        (slice(2, 5), ..., 7),
        (slice(60, 1000), slice(-40, None), slice(5, 5)),
        (np.array([64, 3, 64]), np.array([1, 5, 129]), np.array([2, 61, 89])),
    ],
)
def test_parts_are_read_and_written_as_of_an_array(both, key):
    sparse, dense = both
    np.testing.assert_array_equal(sparse[key], dense[key])
    new = np.arange(dense[key].size).reshape(dense[key].shape) % 5
    sparse[key], dense[key] = new, new
    np.testing.assert_array_equal(sparse[:], dense)
    sparse[key], dense[key] = 3, 3
    np.testing.assert_array_equal(sparse[:], dense)


def test_what_is_read_is_a_copy(both):
    sparse, dense = both
    sparse[64][...] = 9
    np.testing.assert_array_equal(sparse[:], dense)


@pytest.mark.parametrize("key", [70, (0, 0, 90), slice(0, 9, 2), (np.array([1]), slice(None), 0)])
def test_what_cannot_be_read_is_refused(key):
    with pytest.raises(IndexError):
        SparseLabels(SHAPE, np.uint8)[key]


def test_copies_change_apart(both):
    sparse, dense = both
    copied = sparse.copy()
    sparse[:] = 0
    assert not sparse.blocks() and not np.asarray(sparse).any()
    np.testing.assert_array_equal(copied[:], dense)
    larger = copied.astype(np.uint16)
    larger[0, 0, 0] = 300
    assert larger[0, 0, 0] == 300 and copied.dtype == np.uint8


def test_what_is_known_of_labels_is_known_of_sparse_ones(both):
    sparse, dense = both
    assert count_labels(sparse) == count_labels(dense)
    for ours, theirs in zip(labeled_per_slice(sparse), labeled_per_slice(dense), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(labeled_positions(sparse), labeled_positions(dense), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rest = dense.copy()
    for box in labeled_boxes(sparse):
        rest[box] = 0
    assert not rest.any()


def test_targets_are_unlabeled_where_nothing_was_written():
    one, other = (SparseLabels(SHAPE, np.int16, -1) for _ in range(2))
    assert one[5, 5, 5] == -1
    one[2, 3, 4], other[69, 129, 89] = 0, 1
    either = labeled_in_either(one, other, -1)
    assert count_labels(either) == {1: 2}
    assert either[2, 3, 4] == either[69, 129, 89] == 1


def test_the_boxes_that_changed_are_known(both):
    sparse, _ = both
    before = sparse.copy()
    assert changed_boxes(before, sparse) == []
    sparse[66, 70, 3] = 3
    assert changed_boxes(before, sparse) == [(slice(64, 70), slice(64, 128), slice(0, 64))]


def test_a_file_of_labels_is_read_piece_by_piece(both):
    _, dense = both
    dense = dense.astype(np.float32)
    dense[69, 129, 89] = 300
    read = as_sparse_labels(dense, "labels.npy")
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read[:], dense)
    dense[0, 0, 0] = 0.5
    with pytest.raises(InputError, match="fractions"):
        as_sparse_labels(dense, "labels.npy")


@pytest.mark.parametrize("zeros", [False, True], ids=["zero is no class", "zero is a class"])
def test_another_value_may_mean_unlabeled_in_a_file_read_piece_by_piece(both, tmp_path, zeros):
    _, dense = both
    values = np.where(dense == 0, 255, dense if not zeros else dense - 1).astype(np.uint8)
    np.save(tmp_path / "labels.npy", values)
    at_once, in_blocks = (
        read_annotation(tmp_path / "labels.npy", unlabeled=255, in_blocks=in_blocks)
        for in_blocks in (None, lambda shape: shape == dense.shape)
    )
    assert isinstance(in_blocks.labels, SparseLabels) and in_blocks.classes == at_once.classes
    np.testing.assert_array_equal(at_once.labels, dense)
    np.testing.assert_array_equal(in_blocks.labels[:], dense)


def test_labels_in_blocks_take_what_is_packed():
    labels = SparseLabels((200, 200, 200), np.uint8)
    assert memory_of(labels) == 0
    labels[:64, :64, :64] = 2
    plain = memory_of(labels)
    assert 0 < plain < 1000
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 64)).astype(np.uint8)
    labels[64:128, :64, :64] = noise
    assert plain + 0.9 * noise.size < memory_of(labels) < plain + 1.1 * noise.size
    assert memory_of(noise) == noise.size
