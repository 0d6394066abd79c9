from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_volseg.data.errors import InputError
from napari_volseg.data.labels import as_labels


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint16", "int64", "float32", "float64"])
def test_any_type_of_whole_numbers_becomes_uint8(dtype):
    values = np.array([0, 1, 1, 0]).astype(dtype)
    labels = as_labels(values, "mask")
    assert labels.dtype == np.uint8
    assert labels.tolist() == [0, 1, 1, 0]


def test_values_above_255_become_uint16():
    assert as_labels(np.array([0, 256]), "mask").dtype == np.uint16
    assert as_labels(np.array([0, 255]), "mask").dtype == np.uint8


def test_the_papers_convention_is_shifted():
    assert as_labels(np.array([0, 1, 2, 3]), "mask", unlabeled=3).tolist() == [1, 2, 3, 0]


def test_classes_that_do_not_use_0_keep_their_values():
    assert as_labels(np.array([1, 2, 255]), "mask", unlabeled=255).tolist() == [1, 2, 0]


def test_0_may_be_a_class_that_does_not_occur():
    values = np.array([1, 2, 255])
    assert as_labels(values, "mask", unlabeled=255, from_zero=True).tolist() == [2, 3, 0]
    assert as_labels(values, "mask", from_zero=True).tolist() == [1, 2, 255]


def test_a_negative_value_may_mean_unlabeled():
    assert as_labels(np.array([-1.0, 0, 1]), "mask", unlabeled=-1).tolist() == [0, 1, 2]


@given(st.lists(st.integers(0, 65534), min_size=1), st.integers(-5, 70000))
def test_unlabeled_becomes_0_and_classes_stay_apart_and_in_order(values, unlabeled):
    values = np.array(values)
    labels = as_labels(values, "mask", unlabeled).astype(int)
    assert ((labels == 0) == (values == unlabeled)).all() or unlabeled == 0
    kept = values != unlabeled
    order = np.argsort(values[kept], kind="stable")
    steps, same = np.diff(labels[kept][order]), np.diff(values[kept][order])
    assert (np.sign(steps) == np.sign(same)).all()


@pytest.mark.parametrize(
    "values",
    [[0.5, 1], [np.nan, 1], [np.inf, 1], [-1, 2], [0, 65536], [1j, 2]],
)
def test_what_cannot_be_labels_is_refused_by_name(values):
    with pytest.raises(InputError, match=r"^mask\.tif: "):
        as_labels(np.array(values), "mask.tif")


def test_shifting_does_not_overflow_the_type_of_the_file():
    values = np.array([0, 3, 255], np.uint8)
    assert as_labels(values, "mask", unlabeled=3).tolist() == [1, 0, 256]


def test_the_value_that_means_unlabeled_may_be_out_of_range():
    assert as_labels(np.array([1.0, 2.0, 1e12]), "mask", unlabeled=10**12).tolist() == [1, 2, 0]


def test_the_input_is_not_changed():
    values = np.array([0, 1, 3], np.uint8)
    as_labels(values, "mask", unlabeled=3)
    assert values.tolist() == [0, 1, 3]
