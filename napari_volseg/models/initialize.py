"""How weights begin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable


def he_initialize(module: nn.Module, heads: Iterable[nn.Module] = (), slope: float = 0.0) -> None:
    """Initialize the convolutions of a network so that features keep their variance.

    He et al. 2015, Delving Deep into Rectifiers, equation 10. Biases begin at zero.

    Parameters
    ----------
    heads : iterable of module
        The convolutions that give the logits. They begin at zero: before it has learned anything, a
        network has no opinion.
    slope : float
        Of the (leaky) ReLU on the negative side.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(layer.weight, a=slope)
        elif isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d):
            # An output voxel gets (width / stride) taps an axis from each channel, and no
            # ReLU comes after it.
            taps = layer.weight[0, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=(layer.in_channels * taps) ** -0.5)
        else:
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if layer.weight.ndim == 5:
            # torch's fast path for 3D convolutions, on CPU and GPU.
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
    for head in heads:
        for parameter in head.parameters():
            nn.init.zeros_(parameter)
