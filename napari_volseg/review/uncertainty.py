"""How sure a prediction is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import entr

if TYPE_CHECKING:
    from numpy.typing import NDArray


def normalized_entropy(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the entropy of class probabilities over its maximum: 0 is sure, 1 a mere guess.

    Parameters
    ----------
    probabilities : float32 (K, ...)
        Sum to 1 over the classes.

    Returns
    -------
    float32 (...)
        0 throughout if there is one class only.
    """
    entropy: NDArray[np.float32] = entr(probabilities).sum(axis=0, dtype=np.float32)
    return entropy / np.float32(np.log(max(len(probabilities), 2)))


def confidence_levels(probabilities: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return the probability of the likeliest class, 255 for 1: a byte a voxel, to be kept.

    Parameters
    ----------
    probabilities : float32 (K, ...)
        Sum to 1 over the classes.

    Returns
    -------
    uint8 (...)
    """
    levels: NDArray[np.uint8] = np.rint(255 * probabilities.max(axis=0)).astype(np.uint8)
    return levels
