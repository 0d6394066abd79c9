"""How weights begin."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from napari_volseg.sparse.learned_filters import STEPS, fitted, learned_weights

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_volseg.sparse.plan import Triple

CONVOLUTIONS = nn.Conv2d | nn.Conv3d
TRANSPOSED = nn.ConvTranspose2d | nn.ConvTranspose3d

FIRST = "down.0.0.weight"
"""Of a 3D U-Net, the weight of the convolution that sees the image."""


def he_weights(module: nn.Module, slope: float = 0.0) -> None:
    """Draw the weights of a network's convolutions so that features keep their variance.

    He et al. 2015, Delving Deep into Rectifiers, equation 10.

    Parameters
    ----------
    slope : float
        Of the (leaky) ReLU on the negative side.
    """
    for layer in module.modules():
        if isinstance(layer, CONVOLUTIONS):
            nn.init.kaiming_normal_(layer.weight, a=slope)
        elif isinstance(layer, TRANSPOSED):
            # An output voxel gets (width / stride) taps an axis from each channel, and no
            # ReLU comes after it.
            taps = layer.weight[0, 0].numel() / math.prod(layer.stride)
            nn.init.normal_(layer.weight, std=(layer.in_channels * taps) ** -0.5)


def he_initialize(module: nn.Module, heads: Iterable[nn.Module] = (), slope: float = 0.0) -> None:
    """Begin a network with He's weights, biases of zero, and no opinion.

    Parameters
    ----------
    heads : iterable of module
        The convolutions that give the logits. They begin at zero: before it has learned
        anything, a network has no opinion.
    slope : float
        Of the (leaky) ReLU on the negative side.
    """
    he_weights(module, slope)
    for layer in module.modules():
        if not isinstance(layer, CONVOLUTIONS | TRANSPOSED):
            continue
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
        if layer.weight.ndim == 5:
            # torch's fast path for 3D convolutions, on CPU and GPU.
            layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last_3d)
    for head in heads:
        for parameter in head.parameters():
            nn.init.zeros_(parameter)


@torch.no_grad()
def learned_initialize(
    module: nn.Module, channels: int, pooling: Sequence[Triple], kernels: Sequence[Triple]
) -> None:
    """Begin a 3D U-Net with what was learned on generated volumes, if it has that shape.

    Parameters
    ----------
    channels : int
        Of the image: they are seen alike. Whatever else the network sees, as its position, means
        nothing at first.
    """
    own = module.state_dict()
    # Where only shapes are computed with, there are no values to begin with.
    if len(kernels) != STEPS or own[FIRST].is_meta:
        return
    weights = fitted(learned_weights(), pooling, kernels)
    gray = weights[FIRST]
    weights[FIRST] = gray.new_zeros(len(gray), own[FIRST].shape[1], *gray.shape[2:])
    weights[FIRST][:, :channels] = gray / channels
    if all(name in own and own[name].shape == weight.shape for name, weight in weights.items()):
        module.load_state_dict(weights, strict=False)
