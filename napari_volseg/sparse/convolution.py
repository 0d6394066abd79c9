"""A 3D convolution that is quick for single small images, too.

Of one image with few channels or planes, as a tile of a prediction or a slice on view, torch
computes a convolution on a CPU by a kernel of its own, ten times as slow as oneDNN's; on one
thread, kernels of one voxel too, which is slow where channels are stored last. Here, oneDNN's
is taken for them, as torch takes it for all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

ONE = (1, 1, 1)
HAS_ONEDNN = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]

SMALL: Final = 20_480
"""Channels times planes times rows of a single image up to which torch does not ask oneDNN."""


class Conv3d(nn.Conv3d):
    """``torch.nn.Conv3d``, by ``convolve``; zeros lie beyond the borders."""

    def forward(self, image: Tensor) -> Tensor:
        """Map (B, C, Z, Y, X) to (B, C', Z', Y', X')."""
        padding = self.padding
        assert not isinstance(padding, str)
        return convolve(image, self.weight, self.bias, padding, self.stride, self.dilation)


def convolve(
    image: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    padding: Sequence[int],
    stride: Sequence[int] = ONE,
    dilation: Sequence[int] = ONE,
) -> Tensor:
    """Convolve images (B, C, Z, Y, X) with weights (C', C, z, y, x), as ``conv3d`` does."""
    on_cpu = image.device.type == "cpu" and image.dtype == weight.dtype == torch.float32
    single_voxel = weight[0, 0].numel() == 1
    if on_cpu and HAS_ONEDNN and (channels_last(image) if single_voxel else is_small(image)):
        return torch.mkldnn_convolution(image, weight, bias, padding, stride, dilation, 1)
    return functional.conv3d(image, weight, bias, stride, padding, dilation)


def channels_last(image: Tensor) -> bool:
    """Whether an image (B, C, Z, Y, X) is stored voxel by voxel, all channels of each."""
    return image.shape[1] > 1 and image.is_contiguous(memory_format=torch.channels_last_3d)


def is_small(image: Tensor) -> bool:
    """Whether torch leaves the convolution of images (B, C, Z, Y, X) to a kernel of its own."""
    return len(image) == 1 and image.shape[1:4].numel() <= SMALL
