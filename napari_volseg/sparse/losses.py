"""Losses in which unlabeled voxels weigh nothing.

Every loss first gathers the logits of the labeled voxels and sees nothing else, so an
unlabeled voxel can change neither value nor gradient, whatever it holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from napari_volseg.sparse.stage import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence


def labeled_voxels(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Gather what is labeled.

    Parameters
    ----------
    logits : float (B, K, ...)
        Scores of K classes.
    target : int64 (B, ...)
        Class index, ``IGNORE`` where unlabeled.

    Returns
    -------
    logits : float32 (N, K)
    target : int64 (N,)
    """
    labeled = target != IGNORE
    return logits.movedim(1, -1)[labeled].float(), target[labeled]


def cross_entropy(logits: Tensor, target: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Weighted softmax cross-entropy over labeled voxels (Cicek 2016, section 3.2).

    Parameters
    ----------
    logits : float (B, K, ...)
    target : int64 (B, ...), ``IGNORE`` where unlabeled
    class_weights : float (K,), optional

    Returns
    -------
    scalar
        Mean over the labeled voxels, weighted by class; 0 (with zero gradients) if
        nothing is labeled or every labeled class has weight 0.
    """
    gathered, classes = labeled_voxels(logits, target)
    losses = functional.cross_entropy(gathered, classes, reduction="none")
    weights = torch.ones_like(losses) if class_weights is None else class_weights[classes]
    return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(losses.dtype).tiny)


def dice_loss(
    logits: Tensor, target: Tensor, smooth: float = 1.0, class_weights: Tensor | None = None
) -> Tensor:
    """Soft Dice loss over labeled voxels, masked after the softmax.

    The (weighted) mean over the classes that are labeled in this batch of
    ``1 - (2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)``. Classes without a
    labeled voxel are left out: nothing is known about them here.

    Parameters
    ----------
    logits : float (B, K, ...)
    target : int64 (B, ...), ``IGNORE`` where unlabeled
    smooth : float
        Keeps the quotient defined and damps classes with very few voxels.
    class_weights : float (K,), optional
        Weight of each class's term; 0 for the background leaves two classes with the Dice
        loss of Milletari 2016.

    Returns
    -------
    scalar
        0 (with zero gradients) if nothing is labeled or every labeled class has weight 0.
    """
    gathered, classes = labeled_voxels(logits, target)
    probabilities = gathered.softmax(1)
    truth = functional.one_hot(classes, gathered.shape[1]).to(probabilities.dtype)
    voxels = truth.sum(0)
    overlap = (probabilities * truth).sum(0)
    dice = (2 * overlap + smooth) / (probabilities.sum(0) + voxels + smooth)
    weights = (voxels > 0).to(dice.dtype)
    if class_weights is not None:
        weights = weights * class_weights
    return ((1 - dice) * weights).sum() / weights.sum().clamp_min(torch.finfo(dice.dtype).tiny)


def balanced_weights(
    counts: Sequence[int], balance: float, adjust: Sequence[float] = ()
) -> tuple[float, ...]:
    """Class weights from the number of labeled voxels of each class.

    Class k weighs ``frequency_k ** -balance`` times its adjustment, scaled so that the
    mean weight of a labeled voxel is 1. Balance 1 gives every class the same influence
    (Cicek 2016: "a balanced influence of tubule and background voxels"); 0 keeps
    natural frequencies. A class that nobody painted weighs 0.

    Raises
    ------
    ValueError
        If ``adjust`` has another length than ``counts``.
    """
    if adjust and len(adjust) != len(counts):
        raise ValueError(
            f"{len(adjust)} class weights for {len(counts)} classes; give one for each"
        )
    total = sum(counts)
    factors = adjust or [1.0] * len(counts)
    raw = [
        factor * (count / total) ** -balance if count else 0.0
        for count, factor in zip(counts, factors, strict=True)
    ]
    mean = sum(w * count for w, count in zip(raw, counts, strict=True)) / max(total, 1)
    return tuple(w / mean if mean else 0.0 for w in raw)
