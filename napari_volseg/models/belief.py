"""How far what a network says is believed: what makes its opinions probabilities.

A network and the opinions of its instant answer are multiplied, each to the power of its
trust (a logarithmic opinion pool, Hinton 2002, Training Products of Experts, section 1). A network
alone has the inverse of its temperature as trust (Guo et al. 2017, On Calibration of Modern
Neural Networks, section 4.2). Voxels that none was trained on tell how much each
deserves: a network that has learned little, or the paint by heart, has little say.

Strokes are not drawn as the classes occur: they give a small organ as much paint as all that
is around it, and the organ would be found everywhere. How common the classes are is then
read off the volume itself (Saerens et al. 2002, Adjusting the Outputs of a Classifier to New
a Priori Probabilities, section 2.2). Slices that are painted whole tell it better.
"""

from __future__ import annotations

from dataclasses import dataclass
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

DOUBT = 30.0
"""How many held-out voxels equal trust is worth: they are held out in blocks, and those of
a block tell much the same."""

STROKE_DOUBT = 0.3
"""What equal trust is worth besides, as part of the held-out voxels, where all paint is strokes.
They keep away from where classes meet, and paint of the same class is beside what is held out
of them: a network that knows the paint by heart seems right, however many voxels tell so."""

SMALLEST = 1e-6
"""Probability below which a part is no surer: one voxel must not decide."""

LARGEST_SHIFT = float(np.log(10))
"""A class may be ten times as common, or as rare, as in the paint: nothing that was painted
shall vanish for being rare."""

ROUNDS = 50
"""Of expectation and maximization; 20 are as good as 200."""


@dataclass(frozen=True)
class Belief:
    """What to make of a network's opinions.

    Attributes
    ----------
    trust : tuple of float
        In the network, and in each opinion of its instant answer; () is equal trust.
    shift : tuple of float
        What is added to the logarithm of each class: how much more common it is in the
        volume than in its paint. () is nothing.
    """

    trust: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()


def equal_trust(opinions: int) -> tuple[float, ...]:
    """Return the trust in each of some opinions of which nothing is known."""
    return (1 / opinions,) * opinions


def pool_opinions(opinions: Tensor, belief: Belief) -> Tensor:
    """Make class probabilities (K, ...) of the opinions of each part of a network (E, K, ...).

    Last ones that trust does not reach have no say: they came after it was fitted. Where the last
    ones that it is for are not known, the first ones have their say.
    """
    given = np.array(belief.trust or equal_trust(len(opinions)), np.float32)
    known = given[: len(opinions)]
    trust = torch.from_numpy(known * (given.sum() / known.sum())).to(opinions.device)
    logits = torch.tensordot(trust, log_of(opinions[: len(trust)]), 1)
    if belief.shift:
        shift = torch.tensor(belief.shift, device=opinions.device)
        logits = logits + shift.view(-1, *[1] * (logits.ndim - 1))
    return torch.softmax(logits, 0)


def log_of(opinions: Tensor) -> Tensor:
    """Return logarithms of probabilities, float32, none of them infinite."""
    return opinions.float().clamp_min(SMALLEST).log()


def fit_belief(
    opinions: Tensor,
    classes: Tensor,
    painted: Sequence[int],
    strokes: float,
    anywhere: Tensor,
    second: int = 0,
) -> Belief:
    """Find what to make of a network's opinions.

    Parameters
    ----------
    opinions : float (E, K, N)
        Of voxels that were not trained on.
    classes : int64 (N,)
        What they are.
    painted : sequence of int
        Painted voxels of each class.
    strokes : float
        Part of them, 0 to 1, that are not on slices painted whole.
    anywhere : float (E, K, M)
        Opinions of voxels of the volume, whether painted or not; the last ones may lack. Without
        voxels, classes are taken to be as common as in the paint.
    second : int
        How many of the opinions, the last ones, are of what the others found.
    """
    trust = fit_trust(opinions, classes, strokes, second)
    if not anywhere.shape[2]:
        return Belief(trust, (0.0,) * len(painted))
    shift = fit_shift(pool_opinions(anywhere, Belief(trust)), painted)
    return Belief(trust, tuple(strokes * of_class for of_class in shift))


def fit_trust(
    opinions: Tensor, classes: Tensor, strokes: float = 0.0, second: int = 0
) -> tuple[float, ...]:
    """Find the trust with which voxels are likeliest to have their classes.

    It is near equal where little is known; but second opinions begin with the less trust, the
    more of the paint is strokes: what was found beside strokes tells little of borders.

    Parameters
    ----------
    opinions : float (E, K, N)
        Class probabilities of voxels that were not trained on.
    classes : int64 (N,)
        What they are.
    strokes : float
        Part of the paint, 0 to 1, that is not on slices painted whole.
    second : int
        How many of the opinions, the last ones, are of what the others found.
    """
    logs = log_of(opinions).double()
    right = logs.gather(1, classes.expand(len(logs), 1, -1))[:, 0].mean(1)
    prior = np.array(equal_trust(len(opinions)))
    prior[len(prior) - second :] *= 1 - strokes
    prior /= prior.sum()
    doubt = DOUBT / len(classes) + STROKE_DOUBT * strokes

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


def fit_shift(probabilities: Tensor, painted: Sequence[int]) -> tuple[float, ...]:
    """Find how much more common each class is in a volume than in its paint, as logarithms.

    Expectation and maximization: what the volume looks like tells how common the classes
    are, and that in turn what it looks like.

    Parameters
    ----------
    probabilities : float (K, M)
        Of voxels of the volume, given that classes are as common as in the paint.
    painted : sequence of int
        Painted voxels of each class.
    """
    in_paint = torch.tensor(painted, dtype=torch.float64)
    in_paint = (in_paint / in_paint.sum()).clamp_min(SMALLEST)
    common = in_paint
    likely = probabilities.double().cpu() / in_paint[:, None]
    for _ in range(ROUNDS):
        joint = likely * common[:, None]
        common = (joint / joint.sum(0)).mean(1)
    shift = (common.clamp_min(SMALLEST) / in_paint).log().clamp(-LARGEST_SHIFT, LARGEST_SHIFT)
    return tuple(shift.tolist())
