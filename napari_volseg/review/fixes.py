"""Fixes of an object's shape: mask in, mask out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree
from scipy.spatial.distance import pdist, squareform
from skimage.draw import line_nd
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from napari_volseg.data.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Triple = tuple[float, float, float]

MARGIN = 3
"""Voxels around an object that a fix may reach."""

TOUCH = np.ones((3, 3, 3), bool)

THICK = 0.5
"""Of the thickest place; where an object is thinner, it is no part of its own."""

MOST_PEAKS = 500


def fill_holes(member: Mask) -> Mask:
    """Return an object (Z, Y, X) with the cavities filled that it encloses on all sides."""
    filled: Mask = ndimage.binary_fill_holes(member)
    return filled


def smooth(member: Mask, spacing: Triple) -> Mask:
    """Return an object (Z, Y, X) with what is rough on the scale of a voxel taken off.

    A Gaussian as wide as the cube root of a voxel's volume, in physical units, then half.

    Raises
    ------
    InputError
        If nothing is left: the object is too thin.
    """
    width = float(np.prod(spacing)) ** (1 / 3)
    sigma = [width / s for s in spacing]
    smoothed: Mask = ndimage.gaussian_filter(member.astype(np.float32), sigma, mode="nearest") > 0.5
    if not smoothed.any():
        raise InputError("the object is too thin to be smoothed; paint what is missing instead")
    return smoothed


def split(
    member: Mask, seeds: Sequence[tuple[int, int, int]], spacing: Triple
) -> NDArray[np.int32]:
    """Cut an object where it is thinnest between seeds.

    Parameters
    ----------
    member : bool (Z, Y, X)
    seeds : sequence of (z, y, x)
        A voxel in each part.
    spacing : (z, y, x)

    Returns
    -------
    int32 (Z, Y, X)
        1, 2, ... for the part of each seed, in their order; 0 elsewhere, also in the cut, which
        is one voxel wide so that the parts no longer touch.

    Raises
    ------
    InputError
        For fewer than two seeds in different voxels, or one that is not in the object.
    """
    if len(set(seeds)) < 2:
        raise InputError("click at least two places in the object, one in each part")
    markers = np.zeros(member.shape, np.int32)
    for number, seed in enumerate(seeds, start=1):
        if not member[seed]:
            raise InputError(f"the place clicked as number {number} is outside the object")
        markers[seed] = number
    depth = _depth(member, spacing)
    parts: NDArray[np.int32] = watershed(  # type: ignore[no-untyped-call]
        -depth, markers, connectivity=TOUCH, mask=member, watershed_line=True
    )
    return parts


def find_seeds(member: Mask, spacing: Triple) -> list[tuple[int, int, int]]:
    """Find two places in an object to split it at: the thick ones farthest apart.

    Parameters
    ----------
    member : bool (Z, Y, X)
    spacing : (z, y, x)

    Returns
    -------
    list of (z, y, x)
        Two voxels; none for an object of one part, as a ball.
    """
    depth = _depth(member, spacing)
    peaks = peak_local_max(  # type: ignore[no-untyped-call]
        depth, threshold_rel=THICK, exclude_border=False, num_peaks=MOST_PEAKS
    )
    if len(peaks) < 2:
        return []
    apart = squareform(pdist(peaks * np.asarray(spacing)))
    ends = peaks[sorted(np.unravel_index(np.argmax(apart), apart.shape))]
    # One that lies in the ball around the other is of the same part.
    if apart.max() <= max(depth[tuple(end)] for end in ends):
        return []
    return [(int(z), int(y), int(x)) for z, y, x in ends]


def _depth(member: Mask, spacing: Triple) -> NDArray[np.float64]:
    """Return how far each voxel of an object is from what is outside it."""
    padded = ndimage.distance_transform_edt(np.pad(member, 1), sampling=spacing)
    depth: NDArray[np.float64] = padded[1:-1, 1:-1, 1:-1]
    return depth


def bridge(member: Mask, other: Mask, spacing: Triple) -> Mask:
    """Return two objects (Z, Y, X) as one, joined where they are nearest if they do not touch."""
    ends = np.argwhere(member), np.argwhere(other)
    trees = [KDTree(points * np.asarray(spacing)) for points in ends]
    away, nearest = (np.asarray(found) for found in trees[0].query(trees[1].data))
    at = int(np.argmin(away))
    start, stop = ends[0][nearest[at]], ends[1][at]
    joined = member | other
    if np.abs(start - stop).max() > 1:
        line = np.zeros_like(member)
        line[line_nd(start, stop, endpoint=True)] = True  # type: ignore[no-untyped-call]
        joined |= ndimage.binary_dilation(line)
    return joined
