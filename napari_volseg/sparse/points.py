"""Points drawn from the labeled voxels of a patch, more of them near label boundaries.

Marimont, Tarroni, "Implicit U-Net for Volumetric Medical Image Segmentation" (2022),
section 2, training procedure. There every voxel is labeled. On sparse slices:

- a boundary is where two labeled neighbors are of different classes;
- a displaced point that falls on an unlabeled voxel is drawn again, which is the paper's
  distribution restricted to what is labeled. (Moving it to the nearest labeled voxel
  would crowd the rims of the slices, and cost a distance transform of every patch.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_volseg.sparse.sampling import PatchPlan, sample_batch
from napari_volseg.sparse.stage import IGNORE

if TYPE_CHECKING:
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool

REDRAWS = 32
"""Displacements to try before a point stays on the boundary. One in twelve stays within a
slice that is one voxel thick at the paper's 5 voxels, so 6% of the points stay."""


@dataclass(frozen=True)
class PointPlan:
    """The points of a patch.

    Attributes
    ----------
    count : int
        Points of each patch (k in the paper).
    near_boundary : float
        Part of them that comes from label boundaries (alpha).
    distance : (z, y, x)
        Standard deviation of their displacement from it, in voxels (sigma).
    """

    count: int
    near_boundary: float
    distance: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class PointBatch:
    """What a step of an architecture that answers for points sees.

    Attributes
    ----------
    image : float32 (B, C, Z, Y, X)
        Standardized gray values.
    points : int64 (B, P, 3)
        Voxels (z, y, x) of the image.
    target : int64 (B, P)
        Their class index; ``IGNORE`` in a patch where nothing is labeled.
    """

    image: Tensor
    points: Tensor
    target: Tensor


def sample_point_batch(
    pool: Pool,
    patches: PatchPlan,
    plan: PointPlan,
    config: TrainingConfig,
    generator: torch.Generator,
) -> PointBatch:
    """Draw augmented patches and points in each of them.

    Parameters
    ----------
    generator : torch.Generator
        On the CPU; all randomness comes from it.

    Returns
    -------
    PointBatch
        On the pool's device.
    """
    batch = sample_batch(pool, patches, config, generator)
    points = torch.stack([sample_points(target, plan, generator) for target in batch.target])
    classes = [target[tuple(p.T)] for target, p in zip(batch.target, points, strict=True)]
    return PointBatch(batch.image, points, torch.stack(classes))


def sample_points(target: Tensor, plan: PointPlan, generator: torch.Generator) -> Tensor:
    """Draw labeled voxels of a patch, with replacement.

    Parameters
    ----------
    target : int64 (Z, Y, X)
        Class index, ``IGNORE`` where unlabeled.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    int64 (count, 3)
        Labeled voxels, those from boundaries first; without a boundary, all are drawn
        from the labeled voxels alike, and without a label from all voxels.
    """
    labeled = target != IGNORE
    anywhere = (labeled if bool(labeled.any()) else torch.ones_like(labeled)).nonzero()
    edge = boundary(target).nonzero()
    near = round(plan.near_boundary * plan.count) if len(edge) else 0
    uniform = _choose(anywhere, plan.count - near, generator)
    if near == 0:
        return uniform
    displaced = displace(_choose(edge, near, generator), labeled, plan.distance, generator)
    return torch.cat([displaced, uniform])


def boundary(target: Tensor) -> Tensor:
    """Mark labeled voxels (Z, Y, X) that a face neighbor of another class touches, bool."""
    found = torch.zeros_like(target, dtype=torch.bool)
    for axis, size in enumerate(target.shape):
        low, high = target.narrow(axis, 0, size - 1), target.narrow(axis, 1, size - 1)
        differ = (low != high) & (low != IGNORE) & (high != IGNORE)
        found.narrow(axis, 0, size - 1).logical_or_(differ)
        found.narrow(axis, 1, size - 1).logical_or_(differ)
    return found


def displace(
    points: Tensor,
    labeled: Tensor,
    distance: tuple[float, float, float],
    generator: torch.Generator,
) -> Tensor:
    """Move points by normal displacements to labeled voxels.

    Parameters
    ----------
    points : int64 (N, 3)
        Labeled voxels.
    labeled : bool (Z, Y, X)
    distance : (z, y, x)
        Standard deviations in voxels.
    generator : torch.Generator
        On the CPU.

    Returns
    -------
    int64 (N, 3)
        Labeled voxels; a point that finds none in ``REDRAWS`` tries stays where it was.
    """
    moved = points.clone()
    last = torch.tensor(labeled.shape, device=points.device) - 1
    left = torch.arange(len(points), device=points.device)
    for _ in range(REDRAWS):
        if len(left) == 0:
            break
        step = torch.randn(len(left), 3, generator=generator) * torch.tensor(distance)
        there = points[left] + step.round().long().to(points.device)
        inside = ((there >= 0) & (there <= last)).all(1)
        found = inside & labeled[tuple(torch.minimum(there.clamp_min(0), last).T)]
        moved[left[found]] = there[found]
        left = left[~found]
    return moved


def _choose(voxels: Tensor, count: int, generator: torch.Generator) -> Tensor:
    return voxels[torch.randint(len(voxels), (count,), generator=generator).to(voxels.device)]
