"""On-the-fly augmentation: where a patch looks (space), and what it sees (gray values).

A spatial augmentation is only a map from patch voxels to volume positions; image and
labels are read through the same map, so they are deformed alike. Lengths are physical:
a rotation stays a rotation and the elastic field stays isotropic whatever the spacing.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy.interpolate import make_interp_spline
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from napari_volseg.sparse.config import TrainingConfig


def patch_positions(shape: tuple[int, int, int], center: Tensor) -> Tensor:
    """Positions of an upright patch around a center, float32 (z, y, x, 3) in voxels."""
    axes = [torch.arange(n, dtype=torch.float32) - (n - 1) / 2 for n in shape]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1) + center


def deformed_positions(
    shape: tuple[int, int, int],
    center: Tensor,
    spacing: tuple[float, float, float],
    config: TrainingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Positions of a patch that is randomly rotated, scaled and elastically deformed.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels of the patch; one that is one voxel thick is deformed within its plane.
    center : float (3,)
        Its center in the volume, in voxels.
    spacing : (z, y, x)
        Voxel size in any unit.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    float32 (z, y, x, 3)
        Positions in the volume, in voxels; they may lie outside.
    """
    # From here on, lengths are in voxels of the finest axis.
    relative = torch.tensor(spacing, dtype=torch.float32) / min(spacing)
    offsets = patch_positions(shape, torch.zeros(3)) * relative
    angles = (torch.rand(3, generator=generator) * 2 - 1) * np.deg2rad(config.rotation_degrees)
    scale = 1 + (torch.rand(1, generator=generator) * 2 - 1) * config.scaling
    moved = (offsets @ rotation_matrix(angles).T) * scale
    if config.elastic_sd_voxels > 0:
        lengths = [n * float(r) for n, r in zip(shape, relative, strict=True)]
        moved = moved + elastic_field(shape, lengths, config, generator)
    positions = moved / relative + center
    # A slice stays in its plane: nothing is painted beside it.
    flat = [axis for axis, n in enumerate(shape) if n == 1]
    positions[..., flat] = center[flat]
    return positions


def rotation_matrix(angles: Tensor) -> Tensor:
    """Rotate about z, then y, then x by angles in radians: (3, 3) for (z, y, x) vectors."""
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        first, second = [a for a in range(3) if a != axis]
        turn = torch.eye(3)
        turn[first, first] = turn[second, second] = torch.cos(angle)
        turn[first, second] = -torch.sin(angle)
        turn[second, first] = torch.sin(angle)
        matrix = turn @ matrix
    return matrix


def elastic_field(
    shape: tuple[int, int, int],
    lengths: list[float],
    config: TrainingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Smooth random displacements (Cicek 2016, section 3.2).

    Vectors with normal components (standard deviation ``elastic_sd_voxels``) on a grid
    of ``elastic_spacing_voxels``, interpolated by a cubic B-spline.

    Parameters
    ----------
    shape : (z, y, x)
        Voxels of the patch.
    lengths : (z, y, x)
        Its extent in voxels of the finest axis.

    Returns
    -------
    float32 (z, y, x, 3)
        Displacement in voxels of the finest axis.
    """
    splines = [
        spline_matrix(n, length / config.elastic_spacing_voxels)
        for n, length in zip(shape, lengths, strict=True)
    ]
    nodes = [matrix.shape[1] for matrix in splines]
    vectors = torch.randn(*nodes, 3, generator=generator) * config.elastic_sd_voxels
    # One axis after the other: all at once would hold each voxel's weight of every node.
    along_x = torch.einsum("cx,zyxv->zycv", splines[2], vectors)
    along_y = torch.einsum("by,zycv->zbcv", splines[1], along_x)
    return torch.einsum("az,zbcv->abcv", splines[0], along_y)


@lru_cache(maxsize=64)
def spline_matrix(samples: int, intervals: float) -> Tensor:
    """Cubic B-spline interpolation from grid nodes to patch voxels along one axis.

    Parameters
    ----------
    samples : int
        Voxels of the patch.
    intervals : float
        Grid spacings that the patch spans.

    Returns
    -------
    float32 (samples, nodes)
        Values at the voxels = matrix @ values at the nodes.
    """
    # One in the middle of the patch, and one beyond each end; a cubic needs four.
    nodes = 2 * int(np.ceil(intervals / 2)) + 3
    at = (nodes - 1) / 2 + (np.arange(samples) - (samples - 1) / 2) * intervals / samples
    spline = make_interp_spline(np.arange(nodes), np.eye(nodes), k=3)
    return torch.from_numpy(spline(at).astype(np.float32))


def fold(positions: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Mirror positions outside of a volume back into it."""
    last = torch.tensor(shape, dtype=torch.float32) - 1
    period = (2 * last).clamp_min(1)
    folded = positions.remainder(period)
    return torch.minimum(torch.minimum(folded, period - folded), last)


def interpolate(image: Tensor, positions: Tensor) -> Tensor:
    """Read an image at fractional positions, trilinear.

    Parameters
    ----------
    image : float (C, Z, Y, X)
    positions : float (z, y, x, 3)
        In voxels of ``image``, inside it; same device.

    Returns
    -------
    float (C, z, y, x)
    """
    last = torch.tensor(image.shape[1:], dtype=torch.float32, device=image.device) - 1
    # grid_sample counts x, y, z from -1 to 1 between the centers of the outermost voxels.
    grid = (positions / last.clamp_min(1) * 2 - 1).flip(-1)
    sampled = functional.grid_sample(
        image[None], grid[None], mode="bilinear", padding_mode="border", align_corners=True
    )
    return sampled[0]


def change_gray_values(image: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Change contrast and brightness of each channel of a standardized image (C, z, y, x)."""
    if strength == 0:
        return image
    random = torch.randn(2, len(image), 1, 1, 1, generator=generator).to(image.device) * strength
    return image * (1 + random[0]) + random[1]
