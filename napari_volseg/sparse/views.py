"""Whole volumes at another resolution, with labels that lose nothing by it.

Labels on a few slices do not survive resizing: a painted slice falls between two coarse
ones. Here only the image is resized, and labels are points in it, where what a network
says is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_volseg.sparse.augment import (
    change_gray_values,
    deformed_positions,
    fold,
    interpolate,
    patch_positions,
)
from napari_volseg.sparse.whole import resample, whole_image

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import PoolCase

ROUNDS = 10
"""Rounds of the search for labeled voxels in a deformed view: with the default deformation
they miss fewer than 1% of those that are there."""


@dataclass(frozen=True, eq=False)
class View:
    """A whole volume, resized, and where its labels are.

    Attributes
    ----------
    image : float32 (C, z, y, x)
        Standardized gray values.
    points : float32 (N, 3)
        Positions (z, y, x) of the labeled voxels, in voxels of ``image``.
    target : int64 (N,)
        Their class index.
    spacing : (z, y, x)
        Voxel size of ``image``.
    """

    image: Tensor
    points: Tensor
    target: Tensor
    spacing: tuple[float, float, float]


def view_of(case: PoolCase, size: Sequence[int], device: torch.device) -> View:
    """Resize a volume to a size (z, y, x); its labels stay where they are in space."""
    shape = torch.tensor(case.volume.shape)
    voxels, target = case.labeled()
    points = (voxels + 0.5) * (torch.tensor(size) / shape) - 0.5
    points = points.clamp(min=torch.zeros(3), max=torch.tensor(size) - 1.0)
    z, y, x = (s * n / m for s, n, m in zip(case.volume.spacing, shape.tolist(), size, strict=True))
    return View(
        image=resample(whole_image(case, device), size)[0],
        points=points.to(device),
        target=target.to(device),
        spacing=(z, y, x),
    )


def augment(view: View, training: TrainingConfig, generator: torch.Generator) -> View:
    """Deform, mirror and recolor a view as the training asks, lengths in its own voxels."""
    image, points, target = view.image, view.points, view.target
    shape = (image.shape[1], image.shape[2], image.shape[3])
    last = torch.tensor(shape, device=image.device) - 1
    if float(torch.rand(1, generator=generator)) < training.augmentation:
        positions = deformed_positions(shape, last.cpu() / 2, view.spacing, training, generator)
        points, found = find_points(points, positions.to(image.device))
        points, target = points[found], target[found]
        image = interpolate(image, fold(positions, shape).to(image.device))
    if training.flips:
        flipped = [a for a in range(3) if float(torch.rand(1, generator=generator)) < 0.5]
        image = image.flip([a + 1 for a in flipped])
        points = points.clone()
        points[:, flipped] = last[flipped] - points[:, flipped]
    image = change_gray_values(image, training.gray_value, generator)
    return View(image, points, target, view.spacing)


def find_points(points: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Find where a deformed view shows points of the volume: solve position(place) = point.

    Iterates ``place += L^-1 (point - position(place))``, with L the linear part of the
    deformation; this converges where the elastic part bends less than L.

    Parameters
    ----------
    points : float32 (N, 3)
        In voxels of the volume.
    positions : float32 (z, y, x, 3)
        What each voxel of the view shows, in voxels of the volume.

    Returns
    -------
    places : float32 (N, 3)
        In voxels of the view.
    found : bool (N,)
        False where the point lies beyond the view, or no place within half a voxel of it
        was found.
    """
    shape = (positions.shape[0], positions.shape[1], positions.shape[2])
    last = torch.tensor(shape, dtype=torch.float32, device=points.device) - 1
    offsets = patch_positions(shape, torch.zeros(3)).flatten(0, 2).to(points.device)
    # Least squares; the offsets of a grid are uncorrelated and sum to zero.
    linear = (positions.flatten(0, 2).T @ offsets) / offsets.square().sum(0).clamp_min(1)
    inverse = torch.linalg.pinv(linear).T
    field = positions.movedim(-1, 0)
    places = ((points - positions.flatten(0, 2).mean(0)) @ inverse + last / 2).clamp(
        min=torch.zeros_like(last), max=last
    )
    for _ in range(ROUNDS):
        places = places + (points - read_at(field, places)) @ inverse
        places = places.clamp(min=torch.zeros_like(last), max=last)
    found = ((points - read_at(field, places)).abs() <= 0.5).all(1)
    return places, found


def read_at(image: Tensor, points: Tensor) -> Tensor:
    """Read an image (C, z, y, x) at points (N, 3) inside it, trilinear: (N, C)."""
    return interpolate(image, points[None, None])[:, 0, 0].T
