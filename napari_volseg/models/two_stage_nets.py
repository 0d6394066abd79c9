"""The two networks of ``two_stage``, their settings, and what goes from one to the other.

Wang et al. 2018, section 2, "Architecture"; sizes that the text leaves open are chosen
as ``two_stage`` says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.errors import InputError
from napari_volseg.data.tiles import center_of, mirror_indices
from napari_volseg.models.initialize import he_initialize
from napari_volseg.sparse.augment import interpolate, patch_positions
from napari_volseg.sparse.convolution import Conv3d
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.sparse.whole import resample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.plan import Triple


@dataclass(frozen=True, kw_only=True)
class TwoStageConfig:
    """Settings of both networks and of their training; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network or train none.
    """

    net1_channels: int = 16
    """Channels of Net1's first block; they double at each of the others."""

    net2_channels: int = 32
    """Channels of Net2's first block; they double at each of the others."""

    blocks: int = 4
    """Blocks of two convolutions on the way down, and as many on the way up."""

    dropout: float = 0.2
    """Dropout after each block of Net1."""

    neighbors: int = 9
    """Slices that label the middle one of them (the paper's K); odd."""

    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Voxel size (z, y, x); Net2's slices are across the axis with the largest."""

    coarse_spacing: float = 3.0
    """Voxel size, in the unit of ``voxel``, that volumes are resampled to for Net1; the paper's
    are 3 mm."""

    prior: Literal["foreground", "classes"] = "foreground"
    """What Net2 is told of Net1's opinion: the probability of the foreground (one channel beside
    the image, as in the paper), or that of every class."""

    loss: Literal["dice", "mixed"] = "dice"
    """"dice": the Dice losses of equations 1 and 2; "mixed": cross-entropy beside them, as the
    training settings ask for, which learns faster."""

    schedule: Literal["constant", "training"] = "constant"
    """Learning rate: constant in every step, or as goes with the optimizer of the training
    settings."""

    learning_rate: float = 1e-4
    """Learning rate, unless the training settings ask for another."""

    sizes: tuple[int, ...] = (64, 128, 256)
    """Sides of the subvolumes of steps 2 and 3, drawn anew for each batch, in voxels of the
    finest axis."""

    plane: int = 0
    """Sides of the slices of step 4, in voxels of the finest axis; 0 means full slices."""

    batch_size: int = 1
    """Subvolumes a step in steps 2 and 3."""

    stacks: int = 4
    """Stacks a step that Net2 labels the middle of: of each subvolume in step 3, in all in
    step 4."""

    shares: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Part of the budget for each of the four training steps, relative to each other."""

    left_out: tuple[int, ...] = ()
    """Training steps (of 1, 2 and 3) to leave out, as in the paper's ablation."""

    found_above: float = 0.1
    """Net2 labels the box in which Net1's foreground probability exceeds this."""

    tile: int = 512
    """Largest side, in voxels of the slices, of what Net2 labels at once."""

    def __post_init__(self) -> None:
        for name in ("net1_channels", "net2_channels", "blocks", "batch_size", "stacks", "tile"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it begins at 1")
        if self.neighbors < 3 or self.neighbors % 2 == 0:
            raise InputError(
                f"neighbors is {self.neighbors}; an odd number from 3 has a middle slice to label"
            )
        for name in ("dropout", "found_above"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it goes from 0 to below 1")
        for name, choices in (
            ("prior", ("foreground", "classes")),
            ("loss", ("dice", "mixed")),
            ("schedule", ("constant", "training")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(
                    f"{name} is {getattr(self, name)!r}; choose {' or '.join(choices)}"
                )
        if not self.sizes or min(self.sizes) < 1 or self.plane < 0:
            raise InputError(
                f"sizes {self.sizes} and plane {self.plane} are sides in voxels; give one size or "
                "more, and 0 for full slices"
            )
        if not min(*self.voxel, self.coarse_spacing, *self.shares, self.learning_rate) > 0:
            raise InputError(
                f"voxel {self.voxel}, coarse_spacing {self.coarse_spacing}, shares {self.shares} "
                f"and learning_rate {self.learning_rate} must be positive"
            )
        if not set(self.left_out) <= {1, 2, 3} or len(set(self.left_out)) == 3:
            raise InputError(
                f"left_out is {self.left_out}; steps 1, 2 and 3 can be left out, but not all "
                "three: they train Net1"
            )

    @property
    def axis(self) -> int:
        """The axis that Net2's slices are across: the coarsest, z if equal."""
        return self.voxel.index(max(self.voxel))

    def coarse_shape(self, shape: Sequence[int]) -> Triple:
        """Size of a (sub)volume for Net1; no axis is made finer than it is."""
        z, y, x = (
            min(n, max(1, round(n * v / self.coarse_spacing)))
            for n, v in zip(shape, self.voxel, strict=True)
        )
        return z, y, x

    @property
    def divisor(self) -> Triple:
        """Voxels (z, y, x) that one voxel of Net2's lowest level stands for."""
        z, y, x = (1 if a == self.axis else 2**self.blocks for a in range(3))
        return z, y, x

    @property
    def reach(self) -> Triple:
        """Voxels (z, y, x) that Net2 sees on each side of one that it labels, at most."""
        # At each level, two convolutions of reach 1 and two of reach 2; then the pooling cell.
        plane = 6 * (2**self.blocks - 1) + 2**self.blocks
        z, y, x = (self.neighbors // 2 if a == self.axis else plane for a in range(3))
        return z, y, x


class Net1(nn.Module):
    """Coarse segmentation: a 3D U-Net of dilated 5x5x5 convolutions, any size to its own.

    The rate is 2n in the nth block down, and the reverse on the way up.
    """

    def __init__(self, config: TwoStageConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        widths = [config.net1_channels * 2**n for n in range(config.blocks)]
        rates = [2 * n for n in range(1, config.blocks + 1)]
        self.down = nn.ModuleList(
            dilated(before, after, rate, config.dropout)
            for before, after, rate in zip([in_channels, *widths[:-1]], widths, rates, strict=True)
        )
        self.lift = nn.ModuleList(
            nn.ConvTranspose3d(before, after, 2, 2) for before, after in way_up(widths)
        )
        self.up = nn.ModuleList(
            dilated(2 * width, width, rate, config.dropout)
            for width, rate in zip(widths[::-1], rates[::-1], strict=True)
        )
        self.classify = Conv3d(widths[0], n_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map a coarse image (B, C, z, y, x) to logits (B, K, z, y, x)."""
        features = image.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for block in self.down:
            features = block(features)
            skips.append(features)
            features = functional.max_pool3d(features, 2, ceil_mode=True)
        for lift, block in zip(self.lift, self.up, strict=True):
            skip = skips.pop()
            z, y, x = skip.shape[2:]
            features = block(torch.cat([skip, lift(features)[:, :, :z, :y, :x]], 1))
        logits: Tensor = self.classify(features)
        return logits


class Net2(nn.Module):
    """Fine segmentation of one slice: 3D down, 2D up.

    3x3x3 convolutions, pooled within the slices; two convolutions along the stack, without
    padding, that leave one slice; 5x5 ones that get the middle slice of the encoder's levels.
    """

    def __init__(self, config: TwoStageConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        widths = [config.net2_channels * 2**n for n in range(config.blocks)]
        self.down = nn.ModuleList(
            nn.Sequential(
                Conv3d(before, after, 3, padding=1),
                nn.ReLU(inplace=True),
                Conv3d(after, after, 3, padding=1),
                nn.ReLU(inplace=True),
            )
            for before, after in zip([in_channels, *widths[:-1]], widths, strict=True)
        )
        self.collapse = nn.Sequential(
            Conv3d(widths[-1], widths[-1], (config.neighbors - 1, 1, 1)),
            nn.ReLU(inplace=True),
            Conv3d(widths[-1], widths[-1], (2, 1, 1)),
            nn.ReLU(inplace=True),
        )
        self.lift = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 2, 2) for before, after in way_up(widths)
        )
        self.up = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(2 * width, width, 5, padding=2),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 5, padding=2),
                nn.ReLU(inplace=True),
            )
            for width in widths[::-1]
        )
        self.classify = nn.Conv2d(widths[0], n_classes, 1)

    def forward(self, stack: Tensor) -> Tensor:
        """Map stacks of slices (B, C, neighbors, Y, X) to logits (B, K, Y, X) of the middle one."""
        features = stack.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for block in self.down:
            features = block(features)
            skips.append(features[:, :, features.shape[2] // 2])
            features = functional.max_pool3d(features, (1, 2, 2), ceil_mode=True)
        features = self.collapse(features).squeeze(2)
        for lift, block in zip(self.lift, self.up, strict=True):
            skip = skips.pop()
            y, x = skip.shape[2:]
            features = block(torch.cat([skip, lift(features)[:, :, :y, :x]], 1))
        logits: Tensor = self.classify(features)
        return logits


class TwoStage(nn.Module):
    """Net1 on the resampled volume, and Net2 on the volume with what Net1 found."""

    def __init__(self, config: TwoStageConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        told = 1 if config.prior == "foreground" else n_classes
        self.net1 = Net1(config, in_channels, n_classes)
        self.net2 = Net2(config, in_channels + told, n_classes)

    def coarse(self, image: Tensor) -> Tensor:
        """Net1's logits (B, K, z, y, x), coarse, for an image (B, C, Z, Y, X)."""
        logits: Tensor = self.net1(resample(image, self.config.coarse_shape(image.shape[2:])))
        return logits.float()

    def prior(self, logits: Tensor) -> Tensor:
        """Channels (B, P, ...) that tell Net2 of Net1's logits (B, K, ...)."""
        probabilities = logits.softmax(1)
        return 1 - probabilities[:, :1] if self.config.prior == "foreground" else probabilities

    def fine(self, seen: Tensor, slices: Sequence[int]) -> Tensor:
        """Net2's logits (n, K, ., .) of slices of a region.

        Parameters
        ----------
        seen : float (C + P, Z, Y, X)
            The region's image and what Net1 found there; mirrored where a slice has too
            few neighbors.
        slices : sequence of n int
            Across the configuration's axis.
        """
        half = self.config.neighbors // 2
        seen = seen.movedim(1 + self.config.axis, 1)
        index = [mirror_indices(i - half, i + half + 1, seen.shape[1]) for i in slices]
        stacks = seen[:, torch.from_numpy(np.stack(index)).to(seen.device)]
        logits: Tensor = self.net2(stacks.movedim(1, 0))
        return logits

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (B, C, Z, Y, X) to logits (B, K, Z, Y, X), both networks end to end."""
        axis = self.config.axis
        prior = self.prior(resample(self.coarse(image), image.shape[2:]))
        every = range(image.shape[2 + axis])
        logits = [self.fine(one, every) for one in torch.cat([image, prior], 1)]
        return torch.stack([one.movedim(0, 1 + axis) for one in logits])


def way_up(widths: Sequence[int]) -> list[tuple[int, int]]:
    """Channels before and after each upsampling: the lowest level keeps its own."""
    return list(zip([widths[-1], *widths[:0:-1]], widths[::-1], strict=True))


def dilated(before: int, after: int, rate: int, dropout: float) -> nn.Sequential:
    """Two 5x5x5 convolutions of a dilation rate, each with a ReLU, then dropout."""
    return nn.Sequential(
        Conv3d(before, after, 5, padding=2 * rate, dilation=rate),
        nn.ReLU(inplace=True),
        Conv3d(after, after, 5, padding=2 * rate, dilation=rate),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
    )


def build(config: TwoStageConfig, in_channels: int, n_classes: int) -> TwoStage:
    """Build both networks, He-initialized as usual for ReLU."""
    module = TwoStage(config, in_channels, n_classes)
    he_initialize(module, [module.net1.classify, module.net2.classify])
    return module


def read_coarse(coarse: Tensor, positions: Tensor, shape: Sequence[int]) -> Tensor:
    """Read what a coarse grid holds at positions of the volume, trilinear.

    Parameters
    ----------
    coarse : float32 (K, z, y, x)
        Spans the same space as the volume.
    positions : float (..., ..., ..., 3)
        In voxels of the volume, inside it.
    shape : (Z, Y, X)
        Of the volume.

    Returns
    -------
    float32 (K, ..., ..., ...)
    """
    small = torch.tensor(coarse.shape[1:], dtype=torch.float32)
    # Voxels are boxes: both grids begin and end with the outer faces of theirs.
    inside = (positions + 0.5) * (small / torch.tensor(shape)) - 0.5
    inside = torch.minimum(inside.clamp_min(0), small - 1)
    return interpolate(coarse, inside.to(coarse.device))


def read_region(coarse: Tensor, region: Region, shape: Sequence[int]) -> Tensor:
    """Read coarse logits (K, z, y, x) at every voxel of a region of the volume."""
    z, y, x = (side.stop - side.start for side in region)
    positions = patch_positions((z, y, x), torch.tensor(center_of(region)))
    return read_coarse(coarse, positions, shape)


def at_voxels(coarse: Tensor, voxels: Tensor, shape: Sequence[int]) -> Tensor:
    """Read coarse logits (K, z, y, x) at voxels (N, 3) of the full volume: (K, N).

    Labels are never resampled: a thin stroke would be lost.
    """
    return read_coarse(coarse, voxels[:, None, None].float().cpu(), shape)[:, :, 0, 0]


def at_labels(coarse: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Read coarse logits (B, K, z, y, x) where a target (B, Z, Y, X) is labeled.

    Returns
    -------
    logits : float32 (1, K, N)
    target : int64 (1, N)
    """
    labeled = target != IGNORE
    found = [
        at_voxels(logits, here.nonzero(), here.shape)
        for logits, here in zip(coarse, labeled, strict=True)
    ]
    return torch.cat(found, 1)[None], target[labeled][None]
