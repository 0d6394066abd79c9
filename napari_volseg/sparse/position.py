"""Where in its volume a voxel lies, as input channels beside the gray values.

Anatomy is a matter of place as much as of gray value: the head of a hippocampus looks
like its tail.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.tiles import Region

POSITION_CHANNELS = 3
"""One for each axis."""


def with_position(image: Tensor, positions: Tensor, shape: Sequence[int]) -> Tensor:
    """Append the position channels to an image.

    Parameters
    ----------
    image : float (..., C, z, y, x)
    positions : float (z, y, x, 3)
        Of its voxels in the volume, in voxels; they may lie outside.
    shape : (z, y, x)
        Of the volume.

    Returns
    -------
    float (..., C + 3, z, y, x)
        The channels go from -sqrt(3) to sqrt(3) across the volume, which is a standard
        deviation of 1, as gray values have.
    """
    place = scaled(positions, torch.tensor(shape)).movedim(-1, 0).to(image)
    return torch.cat([image, place.expand(*image.shape[:-4], *place.shape)], dim=-4)


def with_region_position(image: Tensor, region: Region, shape: Sequence[int]) -> Tensor:
    """Append the position channels to an image (..., C, z, y, x) that is a region of a volume."""
    axes = [
        scaled(torch.arange(side.start, side.stop), torch.tensor(n)).to(image)
        for side, n in zip(region, shape, strict=True)
    ]
    place = torch.meshgrid(*axes, indexing="ij")
    channels = [axis.expand(*image.shape[:-4], 1, *axis.shape) for axis in place]
    return torch.cat([image, *channels], dim=-4)


def scaled(positions: Tensor, size: Tensor) -> Tensor:
    """Scale positions along axes of that size in voxels, as ``with_position`` has them."""
    last = size.float() - 1
    return (2 * positions.float() - last) / last.clamp_min(1) * math.sqrt(3)
