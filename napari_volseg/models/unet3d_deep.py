"""The U-Net that the Implicit U-Net is compared with: nnU-Net's, with deep supervision.

Marimont, Tarroni (2022), section 3.1, compare with "an equivalent standard 3D U-Net
architecture as implemented in" nnU-Net (Isensee et al. 2021). Its depth is not given.
Chosen for the preset "paper": what section 2 calls "the original architecture of 5 blocks
of 2 convolutions", in nnU-Net's widths 32, 64, 128, 256, 320. With it the Implicit U-Net has
41% fewer parameters, the paper's "40% less"; beside the preset "same_encoder", which has
the Implicit U-Net's own 2, 2, 4, 4 convolutions, it would have 2% fewer.

Decoder as in nnU-Net: transposed convolutions without overlap, two convolutions on each
resolution. Deep supervision too: a 1x1x1 convolution gives logits on every resolution but
the two lowest, whose losses weigh 1, 1/2, 1/4, ... in a sum of 1. They have a bias, which
says how rare a class is. nnU-Net takes every n-th voxel of the labels to a coarser
resolution, which would lose most of a painted slice; chosen: a coarse voxel has the class
that most of its labeled voxels have, none if it has no labeled voxel. Inference by
nnU-Net's windows, without the Implicit U-Net's pooling.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.models.encoder import (
    LEAK,
    Encoder,
    EncoderConfig,
    convolutions,
    end_to_end,
    patch_plan,
    planned,
)
from napari_volseg.models.initialize import he_initialize
from napari_volseg.models.registry import Architecture, Walk
from napari_volseg.models.windows import Windows, blend_windows, walk_windows
from napari_volseg.sparse.convolution import Conv3d
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.plan import inside, largest_shape, plan_patch
from napari_volseg.sparse.sampling import sample_batch
from napari_volseg.sparse.stage import IGNORE, Batch
from napari_volseg.sparse.whole import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.sparse.pool import Pool
    from napari_volseg.sparse.stage import Stage


@dataclass(frozen=True, kw_only=True)
class DeepConfig(EncoderConfig):
    """Settings of the deeply supervised U-Net; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    blocks: tuple[int, ...] = (2, 2, 2, 2, 2)
    """Convolutions of each block of the encoder."""

    strides: tuple[Triple, ...] = ((2, 2, 2),) * 4
    """Strides between the blocks (z, y, x); 1 where voxels are coarse already."""

    kernels: tuple[Triple, ...] = ((3, 3, 3),) * 5
    """Size of the convolutions of each block (z, y, x)."""

    @property
    def supervised(self) -> int:
        """Resolutions, from the finest, on which the loss is taken."""
        return max(1, len(self.blocks) - 2)


class DeepUNet(nn.Module):
    """Encoder, convolutional decoder, logits on several resolutions; any size gives its own."""

    def __init__(self, config: DeepConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config, in_channels)
        self.lift = nn.ModuleList()
        self.up = nn.ModuleList()
        for level in reversed(range(len(config.strides))):
            deep, width = config.widths[level + 1], config.widths[level]
            stride = config.strides[level]
            self.lift.append(nn.ConvTranspose3d(deep, width, stride, stride, bias=False))
            self.up.append(convolutions(2 * width, width, 2, config.kernels[level]))
        self.classify = nn.ModuleList(
            Conv3d(width, n_classes, 1) for width in config.widths[: config.supervised]
        )

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (B, C, Z, Y, X) to logits (B, K, Z, Y, X)."""
        z, y, x = image.shape[2:]
        image = pad_to_multiple(image, self.config.divisor)
        logits: Tensor = self.classify[0](self.decoded(image)[0])
        return logits[:, :, :z, :y, :x]

    def supervised_logits(self, image: Tensor) -> list[Tensor]:
        """Map an image whose sides fit the strides to logits on each resolution, finest first."""
        return [c(f) for c, f in zip(self.classify, self.decoded(image), strict=False)]

    def decoded(self, image: Tensor) -> list[Tensor]:
        """Features on the way up on each resolution, finest first."""
        maps = self.encoder(image)
        features = [maps.pop()]
        for lift, block in zip(self.lift, self.up, strict=True):
            features.insert(0, block(torch.cat([maps.pop(), lift(features[0])], 1)))
        return features


def build(config: DeepConfig, in_channels: int, n_classes: int) -> DeepUNet:
    """Build the network, He-initialized."""
    module = DeepUNet(config, in_channels, n_classes)
    he_initialize(module, module.classify, LEAK)
    return module


def auto(cases: Sequence[Case], device: torch.device, training: TrainingConfig) -> DeepConfig:
    """Fit the network to device and voxels, patches to the inside of the volumes.

    A CPU gets the rate of a short budget.
    """
    config = planned(DeepConfig(), cases, device)
    shape = inside(largest_shape(cases))
    spacing, voxels = cases[0].volume.spacing, math.prod(config.patch)
    return replace(
        config,
        patch=plan_patch(spacing, shape, config.strides, voxels),
        learning_rate=1e-2 if device.type == "cpu" else config.learning_rate,
    )


def stages(config: DeepConfig, training: TrainingConfig, pool: Pool) -> tuple[Stage[DeepUNet], ...]:
    """Dice and cross-entropy on several resolutions."""
    score = labeled_loss(training, pool)
    weights = [2.0**-level for level in range(config.supervised)]

    def loss(module: DeepUNet, batch: Batch, step: int) -> Tensor:
        values = [
            weight * score(logits, coarse_target(batch.target, scale, pool.n_classes))
            for weight, scale, logits in zip(
                weights,
                config.scales,
                module.supervised_logits(batch.image),
                strict=False,
            )
        ]
        return torch.stack(values).sum() / sum(weights)

    sample = partial(sample_batch, pool, patch_plan(config, training), training)
    return (end_to_end("patches", config, training, sample, loss),)


def coarse_target(target: Tensor, scale: Triple, n_classes: int) -> Tensor:
    """Take labels to a coarser resolution.

    Parameters
    ----------
    target : int64 (B, Z, Y, X)
        Class index, ``IGNORE`` where unlabeled; sides are multiples of ``scale``.
    scale : (z, y, x)
        Voxels that one coarse voxel stands for.

    Returns
    -------
    int64 (B, z, y, x)
        The class of most of the labeled voxels, the first of equals; ``IGNORE`` where
        none is labeled.
    """
    if scale == (1, 1, 1):
        return target
    parts = [functional.avg_pool3d((target == k).float(), scale) for k in range(n_classes)]
    most, classes = torch.stack(parts).max(0)
    return torch.where(most > 0, classes, IGNORE)


def windows(config: DeepConfig) -> Windows:
    """Return nnU-Net's sliding windows, with the paper's overlap."""
    return Windows(config.patch, config.overlap)


def walk(config: DeepConfig, shape: Triple) -> Walk:
    """Tiles that hold every window that touches them."""
    return walk_windows(windows(config), config.tile, shape)


def probabilities(module: DeepUNet, config: DeepConfig, block: Tensor, core: Region) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a block (1, C, z, y, x)."""

    def predict(window: Tensor) -> Tensor:
        return torch.softmax(module(window)[0].float(), 0)

    return blend_windows(windows(config), predict, block, core)


ARCHITECTURES = (
    Architecture(
        name="unet3d_deep",
        title="3D U-Net with deep supervision",
        summary="nnU-Net's network: the Implicit U-Net's reference.",
        paper="Marimont & Tarroni 2022, after Isensee et al. 2021, nnU-Net",
        config=DeepConfig,
        presets={
            "paper": DeepConfig(),
            "same_encoder": DeepConfig(
                blocks=(2, 2, 4, 4), strides=((2, 2, 2),) * 3, kernels=((3, 3, 3),) * 4
            ),
        },
        auto=auto,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
    ),
)
