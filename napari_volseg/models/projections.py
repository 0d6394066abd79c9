"""Projections of a volume along rays across an axis, and back: what a 2.5D network is made of.

A direction turns the plane across the axis; 0 degrees look along the plane's first
axis, 90 along its second. Every voxel has a place on the detector, in physical
proportions. The maximum and the mean projection go from voxels to the detector, the
backprojection from the detector to voxels with linear interpolation. The sum over rays
is exactly its adjoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

Projection = Literal["maximum", "mean"]


@dataclass(frozen=True)
class Detector:
    """A row of pixels that every voxel of a plane projects onto, from any direction.

    Attributes
    ----------
    shape : (a, b)
        Voxels of the plane.
    voxel : (a, b)
        Their sides in detector pixels; the finer one is 1.
    """

    shape: tuple[int, int]
    voxel: tuple[float, float]

    @property
    def diagonal(self) -> float:
        """Diagonal of the plane in pixels: the longest ray."""
        return math.hypot(*(n * s for n, s in zip(self.shape, self.voxel, strict=True)))

    @property
    def width(self) -> int:
        """Number of pixels: the diagonal, and a neighbor to interpolate with."""
        return math.floor(self.diagonal) + 2

    def positions(self, degrees: float, device: torch.device) -> Tensor:
        """Where voxels project to, in pixels from the detector's first.

        A voxel longer than a pixel is seen as that many parts, or it would leave pixels
        unseen.

        Returns
        -------
        float32 (parts of a voxel, voxels of the plane)
        """
        angle = math.radians(degrees)
        sides = []
        for count, size in zip(self.shape, self.voxel, strict=True):
            parts = math.ceil(size)
            places = torch.arange(count * parts, device=device) - (count * parts - 1) / 2
            sides.append((places * (size / parts)).reshape(count, parts))
        a, b = sides
        along = a[:, None, :, None] * math.sin(angle) + b[None, :, None, :] * math.cos(angle)
        return along.permute(2, 3, 0, 1).flatten(0, 1).flatten(1) + (self.width - 1) / 2


def project(
    image: Tensor, degrees: Sequence[float], detector: Detector, projection: Projection
) -> Tensor:
    """Project a volume in several directions (Angermann 2022, section 3.1, M).

    Parameters
    ----------
    image : float (B, C, H, A, B)
        H along the rotation axis, (A, B) the detector's plane.
    degrees : sequence of float
        P directions.

    Returns
    -------
    float (B, C, P, H, D)
        "maximum": the brightest of the voxels that fall on a pixel; beyond the volume,
        its darkest voxel. "mean": the integral along a ray, the image taken as 0 beyond
        the volume, divided by the detector's diagonal; that is ``area / diagonal``
        times the adjoint of the backprojection.
    """
    if projection == "mean":
        area = math.prod(detector.voxel)
        return sum_over_rays(image, degrees, detector) * (area / detector.diagonal)
    return torch.stack([brightest(image, angle, detector) for angle in degrees], 2)


def brightest(image: Tensor, degrees: float, detector: Detector) -> Tensor:
    """Maximum projection (B, C, H, D) of a volume (B, C, H, A, B) in one direction."""
    rows = as_rows(image)
    darkest = image.amin((2, 3, 4), keepdim=True)[..., 0].expand(-1, -1, image.shape[2], -1)
    seen = darkest.permute(3, 0, 1, 2).reshape(1, -1).repeat(detector.width, 1)
    for part in detector.positions(degrees, image.device):
        # Not round(): it takes halves to even numbers and leaves every other pixel out.
        pixel = (part + 0.5).floor().long()[:, None].expand_as(rows)
        seen.scatter_reduce_(0, pixel, rows, "amax")
    return from_rows(seen, image.shape[:3])


def sum_over_rays(image: Tensor, degrees: Sequence[float], detector: Detector) -> Tensor:
    """Sum the voxels (B, C, H, A, B) that project onto a pixel: the adjoint of ``backproject``.

    Returns
    -------
    float (B, C, P, H, D)
    """
    rows = as_rows(image)
    sums = []
    for angle in degrees:
        total = rows.new_zeros(detector.width, rows.shape[1])
        parts = detector.positions(angle, image.device)
        for low, weight in map(neighbors, parts):
            share = weight.to(rows.dtype)[:, None] / len(parts)
            total.index_add_(0, low, rows * (1 / len(parts) - share))
            total.index_add_(0, low + 1, rows * share)
        sums.append(from_rows(total, image.shape[:3]))
    return torch.stack(sums, 2)


def backproject(maps: Tensor, degrees: Sequence[float], detector: Detector) -> Tensor:
    """Give every voxel the sum over the directions of what it projects to (section 3.1, R).

    Its gradient is computed by the adjoint and keeps nothing of the forward pass, so
    that memory does not grow with the directions.

    Parameters
    ----------
    maps : float (B, K, P, H, D)
        One image for each of P directions.

    Returns
    -------
    float (B, K, H, A, B)
    """
    return cast("Tensor", _Backprojection.apply(maps, degrees, detector))  # type: ignore[no-untyped-call]


class _Backprojection(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, maps: Tensor, degrees: Sequence[float], detector: Detector) -> Tensor:
        ctx.geometry = degrees, detector
        batch, channels, _, height, _ = maps.shape
        total = maps.new_zeros(math.prod(detector.shape), batch * channels * height)
        for index, angle in enumerate(degrees):
            rows = maps[:, :, index].permute(3, 0, 1, 2).reshape(detector.width, -1)
            parts = detector.positions(angle, maps.device)
            for low, weight in map(neighbors, parts):
                share = weight.to(rows.dtype)[:, None] / len(parts)
                total.addcmul_(rows.index_select(0, low), 1 / len(parts) - share)
                total.addcmul_(rows.index_select(0, low + 1), share)
        volume = from_rows(total, (batch, channels, height))
        return volume.reshape(batch, channels, height, *detector.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return sum_over_rays(gradients[0], *ctx.geometry), None, None


def neighbors(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel below each position, and the weight of the one above for linear interpolation."""
    low = positions.floor()
    return low.long(), positions - low


def as_rows(image: Tensor) -> Tensor:
    """Bring the plane (A, B) of a volume (B, C, H, A, B) first, all else into one axis."""
    return image.permute(3, 4, 0, 1, 2).reshape(image.shape[3] * image.shape[4], -1)


def from_rows(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """Undo ``as_rows``, the first axis last: (N, B * C * H) to (B, C, H, N)."""
    return rows.reshape(-1, *shape).permute(1, 2, 3, 0)


def ramp_filter(maps: Tensor) -> Tensor:
    """Sharpen the last axis so that backprojection inverts the Radon transform.

    The ramp |frequency|, band-limited to the pixels: 1/4 at distance 0, ``-1 / (pi n)**2``
    at odd distances n, else 0 (Ramachandran and Lakshminarayanan 1971). Nothing wraps
    around; beyond the detector is 0.
    """
    width = maps.shape[-1]
    distance = torch.arange(width, device=maps.device, dtype=maps.dtype)
    kernel = torch.where(distance % 2 == 1, -1 / (math.pi * distance.clamp_min(1)) ** 2, 0.0)
    kernel[0] = 0.25
    index = torch.arange(width, device=maps.device)
    return functional.linear(maps, kernel[(index[:, None] - index).abs()])


def invert_mean(maps: Tensor, degrees: Sequence[float], detector: Detector) -> Tensor:
    """Reconstruct a volume from its mean projections: filtered backprojection.

    The directions are spread over 180 degrees; they count alike.

    Parameters
    ----------
    maps : float (B, K, P, H, D)
        As ``project`` gives them.

    Returns
    -------
    float (B, K, H, A, B)
    """
    scale = math.pi * detector.diagonal / len(degrees)
    return backproject(ramp_filter(maps), degrees, detector) * scale
