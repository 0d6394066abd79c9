"""Sum up what held-out voxels tell: over slices, by distance from paint, by orientation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t

from napari_volseg.models.evidence import Evidence
from napari_volseg.sparse.places import LEAST_VOXELS, HeldOutPlaces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


def class_iou(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the IoU (..., K) of each class of confusion matrices (..., truth K, found K).

    0 for a class that is neither there nor found.
    """
    overlap = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.asarray(overlap / np.maximum(class_union(confusion), 1))


def class_union(confusion: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the voxels (..., K) that are of each class, or are found to be."""
    overlap = np.diagonal(confusion, axis1=-2, axis2=-1)
    union: NDArray[np.int64] = confusion.sum(-1) + confusion.sum(-2) - overlap
    return union


def counted_classes(confusion: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which classes (K,) a mean is over: the foreground, if any of it is there."""
    present: NDArray[np.bool_] = confusion.sum(1) > 0
    foreground = present & (np.arange(len(present)) > 0)
    return foreground if foreground.any() else present


def weigh_evidence(confusion: NDArray[np.int64], places: Sequence[HeldOutPlaces]) -> Evidence:
    """Sum up the held-out voxels of all painted slices.

    Parameters
    ----------
    confusion : int64 (S, 2, K, K)
        Voxels of each painted slice, near and far, by class and by what was found.
    places : sequence of HeldOutPlaces
        Of each volume, which together have S slices.
    """
    slice_axes = np.concatenate([of_volume.slice_axes for of_volume in places])
    near, far = comparable_iou(list(confusion.sum(0)))
    by_slice = confusion.sum(1)
    counted = by_slice[by_slice.sum((1, 2)) >= LEAST_VOXELS]
    return Evidence(
        slices=len(counted),
        interval=interval_over_slices(counted),
        near=near,
        far=far,
        reach=min(of_volume.reach for of_volume in places),
        unchecked=float(np.mean([of_volume.unchecked for of_volume in places])),
        views=comparable_iou([by_slice[slice_axes == axis].sum(0) for axis in range(3)]),
    )


def comparable_iou(parts: Sequence[NDArray[np.int64]]) -> tuple[float | None, ...]:
    """Return the mean foreground IoU of each confusion matrix, over the same classes.

    A rare or difficult class that is in one part only would make that part look worse.
    """
    known = [np.flatnonzero(part.sum(1)[1:] >= LEAST_VOXELS) + 1 for part in parts]
    some = [set(classes.tolist()) for classes in known if len(classes)]
    shared = sorted(set.intersection(*some)) if some else []
    return tuple(
        float(class_iou(part)[shared or classes].mean()) if len(classes) else None
        for part, classes in zip(parts, known, strict=True)
    )


def interval_over_slices(by_slice: NDArray[np.int64]) -> float | None:
    """Return half of the 95% interval of the mean IoU, None for fewer than two slices.

    The voxels of a slice are much alike, so slices are what is drawn at random: each is left
    out in turn (the jackknife, Efron and Stein 1981, The Jackknife Estimate of Variance), with
    Student's t as they are few.

    Parameters
    ----------
    by_slice : int64 (S, K, K)
        A confusion matrix (truth, found) for each.
    """
    n = len(by_slice)
    if n < 2:
        return None
    total = by_slice.sum(0)
    without = total - by_slice
    # A class that is in one slice alone says nothing of how slices differ.
    iou = np.where(class_union(without) > 0, class_iou(without), class_iou(total))
    means = iou[:, counted_classes(total)].mean(1)
    error = np.sqrt((n - 1) / n * ((means - means.mean()) ** 2).sum())
    return min(1.0, float(t.ppf(0.975, n - 1) * error))
