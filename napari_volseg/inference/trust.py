"""How far a network and its instant answer are believed: one number for each.

The two are multiplied, each to the power of its trust (a logarithmic opinion pool,
Hinton 2002, Training Products of Experts, section 1). A network alone has the inverse of
its temperature as trust (Guo et al. 2017, On Calibration of Modern Neural Networks,
section 4.2). Voxels that neither was trained on tell how much each deserves: a network
that has learned little, or has learned the paint by heart, has little say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MOST_TRUST, LEAST_TRUST = 8.0, 0.01
"""However good or bad it is on the held-out voxels: they are not all voxels."""

DOUBT = 1.0
"""How many held-out voxels equal trust is worth."""

SMALLEST = 1e-6
"""Probability below which a part is no surer: one voxel must not decide."""


def equal_trust(opinions: int) -> tuple[float, ...]:
    """Return the trust in each of some opinions of which nothing is known."""
    return (1 / opinions,) * opinions


def pool_opinions(opinions: Tensor, trust: Sequence[float]) -> Tensor:
    """Combine class probabilities.

    Parameters
    ----------
    opinions : float (E, K, ...)
        Of each part of a network.
    trust : sequence of float
        In each; () for equal trust.

    Returns
    -------
    float (K, ...)
        Adds up to 1 over the classes.
    """
    weights = torch.tensor(trust or equal_trust(len(opinions)), device=opinions.device)
    return torch.softmax(torch.tensordot(weights, log_of(opinions), 1), 0)


def log_of(opinions: Tensor) -> Tensor:
    """Return logarithms of probabilities, float32, none of them infinite."""
    return opinions.float().clamp_min(SMALLEST).log()


def fit_trust(opinions: Tensor, classes: Tensor) -> tuple[float, ...]:
    """Find the trust with which voxels are likeliest to have their classes.

    Parameters
    ----------
    opinions : float (E, K, N)
        Class probabilities of voxels that were not trained on.
    classes : int64 (N,)
        What they are.
    """
    logs = log_of(opinions).double()
    right = logs.gather(1, classes.expand(len(logs), 1, -1))[:, 0].mean(1)
    prior = np.array(equal_trust(len(opinions)))
    doubt = DOUBT / len(classes)

    def surprise(trust: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = torch.from_numpy(trust)
        pooled = torch.tensordot(weights, logs, 1)
        expected = (pooled.softmax(0) * logs).sum(1).mean(1)
        value = pooled.logsumexp(0).mean() - weights @ right
        off = trust - prior
        return float(value) + doubt * (off @ off), (expected - right).numpy() + 2 * doubt * off

    # It is convex, so wherever the search begins, it ends at the best.
    bounds = [(LEAST_TRUST, MOST_TRUST)] * len(opinions)
    found = minimize(surprise, prior, jac=True, method="L-BFGS-B", bounds=bounds)
    return tuple(float(trust) for trust in found.x)
