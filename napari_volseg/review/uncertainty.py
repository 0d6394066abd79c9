"""How sure a prediction is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import entr

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_volseg.review.suggest import UncertaintyMap


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


def slice_confidence(uncertainty: UncertaintyMap, axis: int) -> NDArray[np.float64]:
    """Return the mean confidence (slices,) of each slice across an axis.

    Confidence is 1 minus the ``normalized_entropy``: 1 is sure, 0 a mere guess.
    """
    area = math.prod(uncertainty.shape) // uncertainty.shape[axis]
    return 1 - uncertainty.entropy[axis] / area


def doubt_between(uncertainty: UncertaintyMap, painted: Sequence[tuple[int, int]]) -> float | None:
    """Tell how many times as unsure a prediction is elsewhere as on painted slices.

    It is what a network thinks of itself, and needs no paint to be held out.

    Parameters
    ----------
    painted : sequence of (axis, index)
        What the network was trained on.

    Returns
    -------
    float or None
        None if nothing is painted, or nothing is unsure there.
    """
    total, shape = uncertainty.entropy, uncertainty.shape
    on = sum(float(total[axis][index]) for axis, index in painted)
    voxels = sum(math.prod(shape) // shape[axis] for axis, _ in painted)
    # Where slices cross, voxels count twice: they are few.
    rest, elsewhere = float(total[0].sum()) - on, math.prod(shape) - voxels
    if on <= 0 or elsewhere <= 0:
        return None
    return (rest / elsewhere) / (on / voxels)


def doubt_levels(entropy: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return a normalized entropy as a byte, 255 for a mere guess: small enough to be kept."""
    # Rounding may have taken it beyond 1.
    levels: NDArray[np.uint8] = np.rint(255 * entropy.clip(0, 1)).astype(np.uint8)
    return levels
