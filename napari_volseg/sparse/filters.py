"""Filter responses: what a pixel classifier learns from, as a network's first look.

Gaussian smoothing, gradient magnitude and the eigenvalues of the Hessian at several
physical scales tell edge, tube, sheet and blob apart before anything is learned, so a
network that is given them is useful after far fewer steps.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_volseg.data.tiles import mirror_indices

if TYPE_CHECKING:
    from collections.abc import Sequence

RESPONSES = 5
"""Per scale: smoothed, gradient magnitude, three eigenvalues."""

TRUNCATE = 3.0
"""Gaussians end at this many standard deviations."""

FINEST_SIGMA = 0.5
"""Standard deviation in voxels below which a sampled Gaussian's derivatives are meaningless."""


def reach(scale: float, voxel: Sequence[float]) -> tuple[int, int, int]:
    """Voxels (z, y, x) that a response at ``scale`` sees on each side."""
    z, y, x = (int(np.ceil(TRUNCATE * max(scale / v, FINEST_SIGMA))) for v in voxel)
    return z, y, x


@torch.no_grad()
def filter_bank(image: Tensor, scales: Sequence[float], voxel: Sequence[float]) -> Tensor:
    """Append filter responses to an image.

    Parameters
    ----------
    image : float (B, C, Z, Y, X)
    scales : sequence of float
        Standard deviations of the Gaussians, in the unit of ``voxel``.
    voxel : (z, y, x)
        Voxel size.

    Returns
    -------
    float (B, C (1 + 5 len(scales)), Z, Y, X)
        The image, then for each scale: smoothed, gradient magnitude, eigenvalues of the
        Hessian from large to small; derivatives are normalized by the scale.
    """
    return torch.cat([image, *(responses(image, scale, voxel) for scale in scales)], 1)


def responses(image: Tensor, scale: float, voxel: Sequence[float]) -> Tensor:
    """Filter responses of an image (B, C, Z, Y, X) at one scale, (B, 5 C, Z, Y, X)."""

    def along(values: Tensor, axis: int, order: int) -> Tensor:
        sigma = max(scale / voxel[axis], FINEST_SIGMA)
        matrix = derivative_matrix(values.shape[axis + 2], sigma, order).to(values)
        return (values.movedim(axis + 2, -1) @ matrix.T).movedim(-1, axis + 2)

    in_x = [along(image, 2, order) for order in range(3)]
    in_xy = {(y, x): along(in_x[x], 1, y) for y in range(3) for x in range(3 - y)}
    both = {(z, y, x): along(in_xy[y, x], 0, z) for y, x in in_xy for z in range(3 - y - x)}
    gradient = (both[1, 0, 0] ** 2 + both[0, 1, 0] ** 2 + both[0, 0, 1] ** 2).sqrt()
    eigenvalues = symmetric_eigenvalues(
        both[2, 0, 0], both[0, 2, 0], both[0, 0, 2], both[1, 1, 0], both[1, 0, 1], both[0, 1, 1]
    )
    return torch.cat([both[0, 0, 0], gradient, *eigenvalues], 1)


@lru_cache(maxsize=256)
def derivative_matrix(size: int, sigma: float, order: int) -> Tensor:
    """Gaussian smoothing (order 0) or its scaled derivatives along one axis, mirrored at the ends.

    Returns
    -------
    float32 (size, size)
        Response = matrix @ values; derivatives are per ``sigma``, not per voxel.
    """
    radius = int(np.ceil(TRUNCATE * sigma))
    at = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (at / sigma) ** 2)
    kernel /= kernel.sum()
    if order == 1:
        kernel = kernel * at / sigma
    elif order == 2:
        kernel = kernel * ((at / sigma) ** 2 - 1)
        kernel -= kernel.mean()
    matrix = np.zeros((size, size), dtype=np.float32)
    columns = mirror_indices(-radius, size + radius, size)
    for row in range(size):
        np.add.at(matrix[row], columns[row : row + 2 * radius + 1], kernel)
    return torch.from_numpy(matrix)


def symmetric_eigenvalues(
    zz: Tensor, yy: Tensor, xx: Tensor, zy: Tensor, zx: Tensor, yx: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues of symmetric 3x3 matrices, from large to small, by the trigonometric formula."""
    mean = (zz + yy + xx) / 3
    a, b, c = zz - mean, yy - mean, xx - mean
    spread = ((a * a + b * b + c * c + 2 * (zy * zy + zx * zx + yx * yx)) / 6).sqrt()
    determinant = a * (b * c - yx * yx) - zy * (zy * c - yx * zx) + zx * (zy * yx - b * zx)
    cosine = (determinant / (2 * spread**3).clamp_min(1e-12)).clamp(-1, 1)
    angle = torch.acos(cosine) / 3
    largest = mean + 2 * spread * torch.cos(angle)
    smallest = mean + 2 * spread * torch.cos(angle + 2 * torch.pi / 3)
    return largest, 3 * mean - largest - smallest, smallest
