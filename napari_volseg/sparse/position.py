"""Where in its volume a voxel lies, as input channels beside the gray values.

Anatomy is a matter of place as much as of gray value: the head of a hippocampus looks
like its tail.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_volseg.data.tiles import center_of
from napari_volseg.sparse.augment import patch_positions

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
    last = torch.tensor(shape, dtype=torch.float32) - 1
    place = (2 * positions - last) / last.clamp_min(1) * math.sqrt(3)
    channels = place.movedim(-1, 0).to(image)
    return torch.cat([image, channels.expand(*image.shape[:-4], *channels.shape)], dim=-4)


def with_region_position(image: Tensor, region: Region, shape: Sequence[int]) -> Tensor:
    """Append the position channels to an image (..., C, z, y, x) that is a region of a volume."""
    z, y, x = image.shape[-3:]
    return with_position(image, patch_positions((z, y, x), torch.tensor(center_of(region))), shape)
