"""Filter responses: what a pixel classifier learns from, as a network's first look.

Gaussian smoothing, gradient magnitude and the eigenvalues of the Hessian at several
physical scales tell edge, tube, sheet and blob apart before anything is learned, so a
network that is given them is useful after far fewer steps.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from napari_volseg.data.tiles import crop_around
from napari_volseg.sparse.whole import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.plan import Triple

RESPONSES = 5
"""Per scale: smoothed, gradient magnitude, three eigenvalues."""

TRUNCATE = 3.0
"""Gaussians end at this many standard deviations."""

FINEST_SIGMA = 0.5
"""Standard deviation in voxels below which a sampled Gaussian's derivatives are meaningless."""


COARSE_SIGMA = 4.0
"""Standard deviation in voxels that wide Gaussians keep on the coarser grid they use; with 2, IoU
on real vessels was 0.006 lower, for a quarter less time."""


def coarsening(scale: float, voxel: Sequence[float]) -> Triple:
    """Voxels (z, y, x) that are averaged into one before filtering at ``scale``.

    What a wide Gaussian leaves has no detail that the coarser grid would lose, and costs
    a fraction: powers of two, so that their grids line up.
    """
    z, y, x = (2 ** max(0, int(math.log2(scale / v / COARSE_SIGMA))) for v in voxel)
    return z, y, x


def reach(scale: float, voxel: Sequence[float]) -> Triple:
    """Voxels (z, y, x) that a response at ``scale`` sees on each side."""
    return reach_on(scale, voxel, coarsening(scale, voxel))


def reach_on(scale: float, voxel: Sequence[float], cells: Triple) -> Triple:
    """Voxels (z, y, x) that a Gaussian of some scale sees on each side, filtered on cells."""

    def along(size: float, cell: int) -> int:
        kernel = int(np.ceil(TRUNCATE * max(scale / size / cell, FINEST_SIGMA)))
        # Interpolation looks one cell further, and the voxel may be anywhere in its own.
        return kernel if cell == 1 else (kernel + 2) * cell

    z, y, x = (along(v, c) for v, c in zip(voxel, cells, strict=True))
    return z, y, x


def widest_reach(scales: Sequence[float], voxel: Sequence[float]) -> Triple:
    """Voxels (z, y, x) that the responses at any of the scales see on each side."""
    z, y, x = (max((reach(s, voxel)[axis] for s in scales), default=0) for axis in range(3))
    return z, y, x


def alignment(scales: Sequence[float], voxel: Sequence[float]) -> Triple:
    """Multiples of voxels (z, y, x) at which a block must begin in its volume.

    Only then do its coarser grids fall on the same voxels as the whole volume's.
    """
    z, y, x = (max((coarsening(s, voxel)[axis] for s in scales), default=1) for axis in range(3))
    return z, y, x


def filter_bank(
    image: Tensor, scales: Sequence[float], voxel: Sequence[float], core: Region
) -> Iterator[Tensor]:
    """Yield an image, then its filter responses: whoever puts them together copies them once.

    Parameters
    ----------
    image : float (B, C, Z, Y, X)
        A volume, or a block of one that begins at a multiple of ``alignment``.
    scales : sequence of float
        Standard deviations of the Gaussians, in the unit of ``voxel``.
    voxel : (z, y, x)
        Voxel size.
    core : region
        What is asked for. The rest of the image is context only.

    Yields
    ------
    float (B, any, z, y, x)
        C (1 + 5 len(scales)) channels in all: the core of the image, then for each scale:
        smoothed, gradient magnitude, eigenvalues of the Hessian from large to small;
        derivatives are normalized by the scale.
    """
    yield image[(slice(None), slice(None), *core)]
    for scale in scales:
        yield from core_responses(image, scale, voxel, core)


def core_responses(
    image: Tensor, scale: float, voxel: Sequence[float], core: Region
) -> list[Tensor]:
    """Responses of a core at one scale, from no more of the image than they see."""
    cells = coarsening(scale, voxel)
    seen, within = crop_around(core, reach(scale, voxel), cells, image.shape[2:])
    found = image[(slice(None), slice(None), *seen)]
    if max(cells) == 1:
        return responses(found, scale, voxel, within)
    found = averaged(found, cells)
    needed, inside = cells_around(within, cells, found.shape[2:])
    coarse = responses(found, scale, [v * c for v, c in zip(voxel, cells, strict=True)], needed)
    return [refined(torch.cat(coarse, 1), cells, inside)]


def averaged(image: Tensor, cells: Triple) -> Tensor:
    """Average the voxels of an image (B, C, Z, Y, X) into cells; ``refined`` leads back."""
    return functional.avg_pool3d(pad_to_multiple(image, cells, "replicate"), cells)


def refined(coarse: Tensor, cells: Triple, core: Region) -> Tensor:
    """Interpolate a coarse grid (B, C, Z, Y, X) linearly at the voxels of a core.

    As matrices: torch's trilinear interpolation takes a CPU several times as long.
    """
    for axis in range(3):
        matrix = interpolation_matrix(coarse.shape[axis + 2], cells[axis])[core[axis]]
        coarse = apply_along(matrix.to(coarse), coarse, axis)
    return coarse


def apply_along(matrix: Tensor, values: Tensor, axis: int) -> Tensor:
    """Multiply one axis (0, 1, 2 is z, y, x) of values (B, C, Z, Y, X) by a matrix."""
    if axis == 2:
        return values @ matrix.T
    if axis == 1:
        return matrix @ values
    return (matrix @ values.flatten(3)).reshape(*values.shape[:2], -1, *values.shape[3:])


def cells_around(core: Region, cells: Triple, shape: Sequence[int]) -> tuple[Region, Region]:
    """Find the cells of a coarse grid between which the voxels of a core are interpolated.

    Parameters
    ----------
    core : region
        In voxels.
    cells : (z, y, x)
        Voxels that one cell stands for.
    shape : (z, y, x)
        Of the grid.

    Returns
    -------
    needed : region
        In cells.
    inside : region
        The core, in the voxels of the needed cells.
    """
    needed, inside = [], []
    for side, width, size in zip(core, cells, shape, strict=True):
        # A voxel lies between the middles of its own cell and of one beside it.
        first = max(0, side.start // width - 1)
        needed.append(slice(first, min(size, -(-side.stop // width) + 1)))
        inside.append(slice(side.start - first * width, side.stop - first * width))
    return (needed[0], needed[1], needed[2]), (inside[0], inside[1], inside[2])


def responses(image: Tensor, scale: float, voxel: Sequence[float], core: Region) -> list[Tensor]:
    """Filter responses of a core of an image (B, C, Z, Y, X) at one scale.

    Returns
    -------
    list of 5 float (B, C, z, y, x)
        Smoothed, gradient magnitude, eigenvalues of the Hessian.
    """

    def along(values: Tensor, axis: int, order: int) -> Tensor:
        sigma = max(scale / voxel[axis], FINEST_SIGMA)
        matrix = derivative_matrix(image.shape[axis + 2], sigma, order)[core[axis]]
        return apply_along(matrix.to(values), values, axis)

    # Order of the derivative along each axis. What leaves the least over comes first.
    found: dict[tuple[int, ...], Tensor] = {(0, 0, 0): image}
    left = [(side.stop - side.start) / n for side, n in zip(core, image.shape[2:], strict=True)]
    for axis in sorted(range(3), key=left.__getitem__):
        found = {
            (*done[:axis], order, *done[axis + 1 :]): along(values, axis, order)
            for done, values in found.items()
            for order in range(3 - sum(done))
        }
    gradient = (found[1, 0, 0] ** 2 + found[0, 1, 0] ** 2 + found[0, 0, 1] ** 2).sqrt()
    eigenvalues = symmetric_eigenvalues(
        found[2, 0, 0],
        found[0, 2, 0],
        found[0, 0, 2],
        found[1, 1, 0],
        found[1, 0, 1],
        found[0, 1, 1],
    )
    return [found[0, 0, 0], gradient, *eigenvalues]


@lru_cache(maxsize=256)
def derivative_matrix(size: int, sigma: float, order: int) -> Tensor:
    """Gaussian smoothing (order 0) or its scaled derivatives along one axis.

    Beyond the ends, the end values are repeated: a mirrored tube that leaves the volume
    aslant would look like a kink. The pixel classifier's IoU rose by 0.014 on real vessels.

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
    columns = np.arange(-radius, size + radius).clip(0, size - 1)
    for row in range(size):
        np.add.at(matrix[row], columns[row : row + 2 * radius + 1], kernel)
    return torch.from_numpy(matrix)


@lru_cache(maxsize=64)
def interpolation_matrix(size: int, width: int) -> Tensor:
    """Linear interpolation from cells to their voxels along one axis, float32 (size width, size).

    Beyond the middles of the outermost cells, their values are held.
    """
    at = ((np.arange(size * width) + 0.5) / width - 0.5).clip(0, size - 1)
    low = at.astype(int).clip(max=max(size - 2, 0))
    matrix = np.zeros((size * width, size), dtype=np.float32)
    rows = np.arange(size * width)
    matrix[rows, low] = 1 - (at - low)
    if size > 1:
        matrix[rows, low + 1] = at - low
    # It is kept: made while predicting, it must do for a step of a training, too.
    with torch.inference_mode(mode=False):
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
