"""VGG13-3D: the class of an object, from a crop of 16x16x16 voxels around it.

Sharma, "Volumetric Segmentation of 3D Images", section 9 and figure 24: VGG-13 (Simonyan
and Zisserman 2014) with 3D convolutions, trained on 3D MNIST with Adam at a rate of 1e-5
for 60 epochs; 14,104,982 parameters for ten classes and one channel.

What the figure shows is followed where it is not VGG-13: four pairs of convolutions, not
five, as four poolings bring 16 voxels to 1, and two fully connected layers (100 and K),
not three, without dropout. What the paper does not say: the size of a batch (32 here),
the initialization (torch's), and what a step sees; here every class as often as any
other, so that a few examples of a rare one count. The budget is the user's, not 60 epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from napari_volseg.data.errors import InputError
from napari_volseg.models.registry import Classifier
from napari_volseg.sparse.convolution import Conv3d
from napari_volseg.sparse.crops import CropBatch, Examples, draw_crops
from napari_volseg.sparse.losses import cross_entropy
from napari_volseg.sparse.stage import Stage, constant_rate

if TYPE_CHECKING:
    from napari_volseg.sparse.object_config import ObjectConfig


@dataclass(frozen=True, kw_only=True)
class VGGConfig:
    """Settings of the network and its training; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    widths: tuple[int, ...] = (64, 128, 256, 512)
    """Channels of each pair of convolutions; pooling after each pair halves the crop."""

    hidden: int = 100
    """Units of the first fully connected layer."""

    learning_rate: float = 1e-5
    """Adam's learning rate."""

    batch_size: int = 32
    """Crops a step."""

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or self.hidden < 1:
            raise InputError(
                f"widths is {self.widths} and hidden {self.hidden}; give at least one width, "
                "each from 1"
            )
        if not self.learning_rate > 0 or self.batch_size < 1:
            raise InputError(
                f"learning_rate is {self.learning_rate} and batch_size {self.batch_size}; both "
                "must be positive"
            )


def side(config: VGGConfig) -> int:
    """Voxels along each edge of a crop: what the poolings bring to one voxel."""
    return int(2 ** len(config.widths))


def build(config: VGGConfig, in_channels: int, n_classes: int) -> nn.Sequential:
    """Build the network of figure 24: crops (B, C, side, side, side) to logits (B, K)."""
    layers: list[nn.Module] = []
    for before, after in zip([in_channels, *config.widths], config.widths, strict=False):
        for width in (before, after):
            layers += [Conv3d(width, after, 3, padding=1), nn.BatchNorm3d(after)]
            layers += [nn.ReLU(inplace=True)]
        layers += [nn.MaxPool3d(2)]
    layers += [nn.Flatten(), nn.Linear(config.widths[-1], config.hidden), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.Linear(config.hidden, n_classes))


def auto(device: torch.device) -> VGGConfig:
    """Choose a narrow network on a CPU, and rates that a training of minutes can do with.

    At the paper's rate of 1e-5, a few hundred steps hardly move the weights.
    """
    if device.type == "cpu":
        return VGGConfig(widths=(16, 32, 64, 128), learning_rate=1e-3, batch_size=16)
    return VGGConfig(learning_rate=1e-4)


def stage(config: VGGConfig, training: ObjectConfig, examples: Examples) -> Stage[nn.Sequential]:
    """Adam at a constant rate, cross-entropy over crops that are turned and mirrored."""

    def loss(module: nn.Sequential, batch: CropBatch, step: int) -> Tensor:
        return cross_entropy(module(batch.crops), batch.target)

    return Stage(
        name="objects",
        sample=partial(draw_crops, examples, training, config.batch_size),
        loss=loss,
        optimizer=partial(torch.optim.Adam, lr=config.learning_rate),
        schedule=constant_rate,
    )


ARCHITECTURES = (
    Classifier(
        name="vgg13_3d",
        title="VGG13-3D",
        summary="The class of each object, from a crop around it and a few examples.",
        paper="Sharma, Volumetric Segmentation of 3D Images, section 9",
        config=VGGConfig,
        presets={"paper": VGGConfig()},
        auto=auto,
        build=build,
        side=side,
        stage=stage,
        paper_classes=10,
    ),
)
