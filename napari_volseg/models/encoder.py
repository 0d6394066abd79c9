"""What the Implicit U-Net and its reference share: the encoder and the training around it.

Marimont, Tarroni, "Implicit U-Net for Volumetric Medical Image Segmentation" (2022). The
paper adapts nnU-Net's encoder (Isensee et al. 2021): convolutions of width 3, each
followed by instance normalization and a leaky ReLU; the first convolution of every block
but the first has a stride of 2 and takes the place of pooling; channels double from 32
at each block, up to 320. Patches, batch, optimizer and sliding windows are the same for
both networks (section 3.1); the rate does not change, as no schedule is named.

"1 to 2 positive to negative ratio": the paper does not say what makes a patch positive.
Chosen: it is drawn around a voxel of the foreground (any class but the first, each of
them alike), a negative one around a voxel of the first class. Augmentation is what the
training asks for; of the paper's list it lacks Gaussian noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from napari_volseg.data.errors import InputError
from napari_volseg.sparse.convolution import Conv3d
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.plan import Triple, largest_shape, plan_patch, plan_resolution, pooled
from napari_volseg.sparse.sampling import PatchPlan
from napari_volseg.sparse.stage import Stage, constant_rate, schedule_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.sparse.config import TrainingConfig

WIDEST = 320
"""Channels at most, as in nnU-Net."""

LEAK = 0.01
"""Slope of the leaky ReLU on the negative side, as in nnU-Net."""

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Settings that both networks have; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network or no window.
    """

    channels: int = 32
    """Channels of the first block; they double at each of the others, up to 320."""

    blocks: tuple[int, ...] = (2, 2, 4, 4)
    """Convolutions of each block of the encoder."""

    strides: tuple[Triple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    """Strides between the blocks (z, y, x); 1 where voxels are coarse already."""

    kernels: tuple[Triple, ...] = ((3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    """Size of the convolutions of each block (z, y, x)."""

    patch: Triple = (96, 160, 160)
    """Voxels (z, y, x) of a training patch and of a window that slides over a volume."""

    overlap: float = 0.3
    """Part of a window that the next one covers again."""

    tile: Triple = (320, 512, 512)
    """Voxels (z, y, x) that a tile predicts; memory grows with it."""

    batch_size: int = 6
    """Patches a step."""

    positive: float = 1 / 3
    """Part of the patches that is drawn around a foreground voxel."""

    learning_rate: float = 1e-4
    """AdamW's learning rate, unless the training asks for another."""

    schedule: Literal["constant", "cosine"] = "constant"
    """Keep the learning rate, or warm up and let it fall to zero (a short budget)."""

    def __post_init__(self) -> None:
        if self.channels < 1 or any(n < 1 for n in self.blocks):
            raise InputError(
                f"channels is {self.channels} and blocks {self.blocks}; all begin at 1"
            )
        if not len(self.blocks) == len(self.kernels) == len(self.strides) + 1:
            raise InputError(
                f"{len(self.blocks)} blocks, {len(self.kernels)} kernels and "
                f"{len(self.strides)} strides; give a kernel for each block and a stride "
                "between each two"
            )
        if any(k < 1 or k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise InputError(f"kernels {self.kernels} must be odd")
        if any(s < 1 for stride in self.strides for s in stride):
            raise InputError(f"strides {self.strides} begin at 1")
        if any(n < 1 or n % d for n, d in zip(self.patch, self.divisor, strict=True)):
            raise InputError(f"patch {self.patch} must be a multiple of {self.divisor}")
        if self.patch == self.divisor:
            raise InputError(
                f"patch {self.patch} is one voxel of the last block, which nothing can be "
                "normalized by; make it larger"
            )
        if not 0 <= self.overlap < 1:
            raise InputError(f"overlap is {self.overlap}; it goes from 0 to below 1")
        if not 0 <= self.positive <= 1:
            raise InputError(f"positive is {self.positive}; it goes from 0 to 1")
        if self.batch_size < 1 or not self.learning_rate > 0:
            raise InputError(
                f"batch_size is {self.batch_size} and learning_rate {self.learning_rate}; "
                "both must be positive"
            )
        if self.schedule not in ("constant", "cosine"):
            raise InputError(f"schedule is {self.schedule!r}; choose constant or cosine")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each block."""
        return tuple(min(self.channels * 2**n, WIDEST) for n in range(len(self.blocks)))

    @property
    def scales(self) -> tuple[Triple, ...]:
        """Voxels (z, y, x) of the image that one voxel of each block's features stands for."""
        scales = [(1, 1, 1)]
        for z, y, x in self.strides:
            scales.append((scales[-1][0] * z, scales[-1][1] * y, scales[-1][2] * x))
        return tuple(scales)

    @property
    def divisor(self) -> Triple:
        """Voxels (z, y, x) that one voxel of the last block stands for."""
        return pooled(self.strides)


E = TypeVar("E", bound=EncoderConfig)


class Encoder(nn.Module):
    """Blocks of convolutions, a strided one at the head of each but the first."""

    def __init__(self, config: EncoderConfig, in_channels: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        before = in_channels
        for width, count, kernel, stride in zip(
            config.widths,
            config.blocks,
            config.kernels,
            ((1, 1, 1), *config.strides),
            strict=True,
        ):
            self.blocks.append(convolutions(before, width, count, kernel, stride))
            before = width

    def forward(self, image: Tensor) -> list[Tensor]:
        """Map an image (B, C, Z, Y, X) to the features of each block, finest first."""
        if image.device.type == "cpu":
            # torch's fast path for 3D convolutions on a CPU.
            image = image.contiguous(memory_format=torch.channels_last_3d)
        maps = []
        for block in self.blocks:
            image = block(image)
            maps.append(image)
        return maps


def convolutions(
    before: int, after: int, count: int, kernel: Triple, stride: Triple = (1, 1, 1)
) -> nn.Sequential:
    """Convolutions with instance normalization and leaky ReLU; the first one has the stride."""
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
    layers: list[nn.Module] = []
    for n in range(count):
        layers += [
            Conv3d(
                before if n == 0 else after,
                after,
                kernel,
                stride=stride if n == 0 else 1,
                padding=padding,
            ),
            # Groups of one channel are instance normalization, but torch's own would undo
            # the memory format.
            nn.GroupNorm(after, after),
            nn.LeakyReLU(LEAK, inplace=True),
        ]
    return nn.Sequential(*layers)


def planned(config: E, cases: Sequence[Case], device: torch.device) -> E:
    """Fit strides, patches and tiles to the voxels and the volumes, and the rest to the device.

    A GPU gets the paper's network and patches, but two of them a step, which 8 GB of
    memory hold; a CPU a network a quarter as wide on small patches.
    """
    spacing = cases[0].volume.spacing
    shape = largest_shape(cases)
    strides, kernels = plan_resolution(spacing, shape, len(config.blocks))
    on_cpu = device.type == "cpu"
    return replace(
        config,
        channels=8 if on_cpu else config.channels,
        blocks=config.blocks[: len(kernels)],
        strides=strides,
        kernels=kernels,
        patch=plan_patch(spacing, shape, strides, 40**3 if on_cpu else math.prod(config.patch)),
        tile=plan_patch(spacing, (10**6,) * 3, strides, 160**3 if on_cpu else 384**3),
        batch_size=2,
        learning_rate=2e-3 if on_cpu else 5e-4,
        schedule="cosine",
    )


def patch_plan(config: EncoderConfig, training: TrainingConfig) -> PatchPlan:
    """Return the patches that both networks train on."""
    return PatchPlan(
        shapes=(config.patch,),
        batch_size=training.batch_size or config.batch_size,
        foreground=config.positive,
    )


def end_to_end(
    name: str,
    config: EncoderConfig,
    training: TrainingConfig,
    sample: Callable[[torch.Generator], Any],
    loss: Callable[[M, Any, int], Tensor],
) -> Stage[M]:
    """Return the one stage that both networks train in: all parameters, AdamW (section 3.1)."""
    return Stage(
        name=name,
        sample=sample,
        loss=loss,
        optimizer=partial(make_optimizer, training, config.learning_rate),
        schedule=schedule_of(training) if config.schedule == "cosine" else constant_rate,
    )
