from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.review.suggest import add_region, empty_map
from napari_volseg.review.uncertainty import doubt_between, normalized_entropy, slice_confidence


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_a_guess_is_one_and_certainty_is_zero(classes):
    probabilities = np.zeros((classes, 1, 1, 2), dtype=np.float32)
    probabilities[:, 0, 0, 0] = 1 / classes
    probabilities[0, 0, 0, 1] = 1
    entropy = normalized_entropy(probabilities)
    assert entropy.dtype == np.float32
    np.testing.assert_allclose(entropy[0, 0], [1, 0], atol=1e-6)


def test_two_classes_by_hand():
    expected = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    entropy = normalized_entropy(np.array([[0.9], [0.1]], dtype=np.float32))
    np.testing.assert_allclose(entropy, [expected], rtol=1e-5)


def test_a_single_class_is_certain():
    assert normalized_entropy(np.ones((1, 2), dtype=np.float32)).tolist() == [0, 0]


def test_confidence_by_slice_is_one_minus_the_mean_entropy_however_it_is_tiled():
    probabilities = np.random.default_rng(0).dirichlet((1, 1, 1), (6, 8, 10)).astype(np.float32)
    probabilities = np.moveaxis(probabilities, -1, 0)
    uncertainty = empty_map((6, 8, 10), (2.0, 1.0, 1.0), 3)
    whole = np.zeros((6, 8, 10), np.float32)
    for z, x in (((0, 4), (0, 3)), ((4, 6), (0, 3)), ((0, 6), (3, 10))):
        region = (slice(*z), slice(0, 8), slice(*x))
        whole[region] = add_region(uncertainty, region, probabilities[(slice(None), *region)])
    np.testing.assert_allclose(whole, normalized_entropy(probabilities))
    for axis, others in ((0, (1, 2)), (1, (0, 2)), (2, (0, 1))):
        found = slice_confidence(uncertainty, axis)
        np.testing.assert_allclose(found, 1 - whole.mean(others), rtol=1e-5)


def test_doubt_between_painted_slices_by_hand():
    uncertainty = empty_map((10, 4, 5), (1.0, 1.0, 1.0), 2)
    uncertainty.entropy[0][:] = 6.0
    uncertainty.entropy[0][[2, 7]] = 2.0
    # 20 voxels a slice: 0.1 on the painted ones, 0.3 elsewhere.
    assert doubt_between(uncertainty, [(0, 2), (0, 7)]) == pytest.approx(3)
    assert doubt_between(uncertainty, []) is None
    uncertainty.entropy[0][2] = 0
    assert doubt_between(uncertainty, [(0, 2)]) is None
