from __future__ import annotations

import numpy as np
import pytest

from napari_volseg.review.uncertainty import normalized_entropy


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
