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
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Projection = Literal["maximum", "mean"]
Directions = tuple[float, ...]

RAYS_AT_ONCE = 2**22
"""Pairs of a voxel and a pixel in one group of directions; one takes 16 bytes."""

KEPT_GROUPS = 4
"""Groups that are remembered: training and prediction take the same directions again."""


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


def draw_directions(parts: int, generator: torch.Generator) -> Directions:
    """Draw a whole degree from each of so many equal parts of 180 degrees."""
    places = torch.arange(parts) + torch.rand(parts, generator=generator, dtype=torch.float64)
    return tuple((places * 180 / parts).floor().tolist())


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
    for group in groups(degrees, detector):
        rays = find_rays(group, detector, image.device)
        shares = rays.adjoint_shares.to(rows.dtype)
        total = functional.embedding_bag(
            rays.voxels, rows, rays.starts, mode="sum", per_sample_weights=shares
        )
        sums.append(total.reshape(len(group), detector.width, *image.shape[:3]))
    return torch.cat(sums).permute(2, 3, 0, 4, 1)


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
        done = 0
        for group in groups(degrees, detector):
            some = maps[:, :, done : done + len(group)]
            done += len(group)
            rows = some.permute(2, 4, 0, 1, 3).reshape(len(group) * detector.width, -1)
            rays = find_rays(group, detector, maps.device)
            total += functional.embedding_bag(
                rays.pixels, rows, mode="sum", per_sample_weights=rays.shares.to(rows.dtype)
            )
        volume = from_rows(total, (batch, channels, height))
        return volume.reshape(batch, channels, height, *detector.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return sum_over_rays(gradients[0], *ctx.geometry), None, None


@dataclass(frozen=True, eq=False)
class Rays:
    """What falls where in some directions: a sparse matrix of voxels and pixels, both ways.

    Attributes
    ----------
    pixels : int32 (voxels of the plane, E)
        What a voxel projects to: ``direction * width + pixel``.
    shares : float32 (voxels of the plane, E)
        Their weights; they sum to 1 for each direction.
    voxels, adjoint_shares : int32, float32 (voxels of the plane * E,)
        The same sorted by pixel: what falls on it, and with which weight.
    starts : int32 (directions * width,)
        Where each pixel begins among them.
    """

    pixels: Tensor
    shares: Tensor
    voxels: Tensor
    adjoint_shares: Tensor
    starts: Tensor


def groups(degrees: Sequence[float], detector: Detector) -> Iterator[Sequence[float]]:
    """Take as many directions at once as ``RAYS_AT_ONCE`` allows, so that memory is bounded."""
    parts = math.prod(math.ceil(size) for size in detector.voxel)
    size = max(1, RAYS_AT_ONCE // (2 * parts * math.prod(detector.shape)))
    for start in range(0, len(degrees), size):
        yield tuple(degrees[start : start + size])


@lru_cache(maxsize=KEPT_GROUPS)
def find_rays(degrees: Sequence[float], detector: Detector, device: torch.device) -> Rays:
    """Find where voxels fall in a group of directions, with linear interpolation."""
    found, weights = [], []
    for index, angle in enumerate(degrees):
        parts = detector.positions(angle, device)
        low = parts.floor()
        above = (parts - low) / len(parts)
        first = low.int() + index * detector.width
        found += [first, first + 1]
        weights += [1 / len(parts) - above, above]
    pixels, shares = torch.cat(found).T.contiguous(), torch.cat(weights).T.contiguous()
    order = pixels.flatten().argsort(stable=True)
    counts = pixels.flatten().bincount(minlength=len(degrees) * detector.width)
    return Rays(
        pixels=pixels,
        shares=shares,
        voxels=(order // pixels.shape[1]).int(),
        adjoint_shares=shares.flatten()[order],
        starts=(counts.cumsum(0) - counts).int(),
    )


def as_rows(image: Tensor) -> Tensor:
    """Bring the plane (A, B) of a volume (B, C, H, A, B) first, all else into one axis."""
    return image.permute(3, 4, 0, 1, 2).flatten(2).flatten(0, 1).contiguous()


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


def pool_by_two(volume: Tensor) -> Tensor:
    """Average each voxel of (B, M, Z, Y, X) with those before it: pooling of 2, stride 1.

    Axis by axis, which a CPU does several times faster than ``avg_pool3d``.
    """
    total = functional.pad(volume, (1, 0, 1, 0, 1, 0), mode="replicate")
    for axis in (2, 3, 4):
        size = volume.shape[axis]
        total = total.narrow(axis, 1, size) + total.narrow(axis, 0, size)
    return total / 8
