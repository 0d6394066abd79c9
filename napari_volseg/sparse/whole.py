"""Whole volumes, for architectures that are trained end to end; and images of other sizes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

from napari_volseg.data.tiles import whole_region

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.sparse.pool import Pool, PoolCase


def draw_case(pool: Pool, generator: torch.Generator) -> PoolCase:
    """Draw one of the annotated volumes, each with the same chance."""
    return pool.cases[int(torch.randint(len(pool.cases), (1,), generator=generator))]


def whole_image(case: PoolCase, device: torch.device) -> Tensor:
    """Standardized image of a whole volume, float32 (1, C, Z, Y, X) on the device."""
    return case.read(whole_region(case.volume.shape))[None].to(device)


def whole_target(case: PoolCase, device: torch.device) -> Tensor:
    """Class index of the voxels to train on, ``IGNORE`` elsewhere, int64 (1, Z, Y, X)."""
    return torch.from_numpy(case.target[:]).long()[None].to(device)


def resample(image: Tensor, shape: Sequence[int]) -> Tensor:
    """Resample an image (B, C, Z, Y, X) to another size that spans the same space.

    Axes that shrink are averaged, so that nothing thin is skipped; axes that grow are
    interpolated linearly.
    """
    now = image.shape[2:]
    z, y, x = (min(a, b) for a, b in zip(now, shape, strict=True))
    if (z, y, x) != tuple(now):
        image = functional.adaptive_avg_pool3d(image, (z, y, x))
    if (z, y, x) != tuple(shape):
        image = functional.interpolate(image, size=tuple(shape), mode="trilinear")
    return image


def pad_to_multiple(image: Tensor, divisor: Sequence[int], mode: str = "constant") -> Tensor:
    """Pad an image (B, C, Z, Y, X) at its ends until the divisor (z, y, x) divides its size.

    ``mode`` is torch's: "constant" pads with zeros, "replicate" repeats the last voxels.
    """
    z, y, x = (-n % d for n, d in zip(image.shape[2:], divisor, strict=True))
    return functional.pad(image, (0, x, 0, y, 0, z), mode=mode)
