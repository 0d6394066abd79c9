"""The two U-Nets that the random 2.5D U-Net is compared with: slice by slice, and small in 3D.

Angermann, Haltmeier, "Random 2.5D U-net for fully 3D segmentation" (2019) and its
journal version (2022), section on the compared methods. The paper gives the number of
parameters ("about 8.6 million", "1.6 million"), not the layers. Chosen here: five
resolution levels with two convolutions of width 3 and a ReLU each, maximum pooling by
2, transposed convolutions of width 3, no normalization; a base of 32 channels in 2D
gives 8,629,921 parameters, a base of 8 in 3D gives 1,618,489.

A slice is a volume of one plane here: the 2D network's kernels are one plane thick.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.errors import InputError
from napari_volseg.models.initialize import he_weights
from napari_volseg.models.registry import Architecture, Walk
from napari_volseg.sparse.convolution import Conv3d
from napari_volseg.sparse.patches import patch_stage
from napari_volseg.sparse.plan import Triple, largest_shape, plan_patch
from napari_volseg.sparse.sampling import PatchPlan
from napari_volseg.sparse.whole import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool
    from napari_volseg.sparse.stage import Stage

PAPER = "Angermann & Haltmeier 2022, Random 2.5D U-net for Fully 3D Segmentation"


@dataclass(frozen=True, kw_only=True)
class BaselineConfig:
    """Settings of a baseline U-Net.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    channels: int
    """Channels of the first level; they double at each of the others."""

    thickness: int
    """Planes that a kernel sees: 1 for slice by slice, 3 for 3D."""

    levels: int = 5
    """Resolution levels."""

    patch: Triple = (1, 256, 256)
    """Voxels (z, y, x) of a training patch."""

    tile: Triple = (1, 256, 256)
    """Voxels (z, y, x) that a tile predicts."""

    batch_size: int = 2
    """Patches a step."""

    def __post_init__(self) -> None:
        if self.thickness not in (1, 3):
            raise InputError(f"thickness is {self.thickness}; choose 1 (slices) or 3 (3D)")
        if self.channels < 1 or self.levels < 1:
            raise InputError(
                f"channels is {self.channels} and levels {self.levels}; both begin at 1"
            )

    @property
    def pool(self) -> Triple:
        """Pooling between two levels, (z, y, x)."""
        return (1 if self.thickness == 1 else 2, 2, 2)

    @property
    def divisor(self) -> Triple:
        """Voxels (z, y, x) that one voxel of the lowest level stands for."""
        z, y, x = (p ** (self.levels - 1) for p in self.pool)
        return z, y, x

    @property
    def reach(self) -> Triple:
        """Voxels (z, y, x) that an output voxel sees on each side, at most."""
        # Going down, two convolutions at every level; going up, two and the transposed
        # one, which looks one voxel of the level below further.
        total = sum(2 * 2**n for n in range(self.levels))
        total += sum(2 * 2**n + 2 ** (n + 1) for n in range(self.levels - 1))
        across = 0 if self.thickness == 1 else total + self.divisor[0]
        return across, total + self.divisor[1], total + self.divisor[2]


class BaselineUNet(nn.Module):
    """Encoder, decoder, 1x1x1 convolution; any size gives its own size.

    Two classes are told apart by one output, whose sigmoid is the probability of the
    second (as in the paper); more classes have one output each.
    """

    def __init__(self, config: BaselineConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * 2**level for level in range(config.levels)]
        self.down = nn.ModuleList(
            convolutions(before, after, config.thickness)
            for before, after in zip([in_channels, *widths], widths, strict=False)
        )
        deep_first = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.lift = nn.ModuleList(lifting(a, b, config) for a, b in deep_first)
        self.up = nn.ModuleList(convolutions(a, b, config.thickness) for a, b in deep_first)
        self.classify = Conv3d(widths[0], 1 if n_classes == 2 else n_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map an image (B, C, Z, Y, X) to logits (B, K, Z, Y, X)."""
        z, y, x = image.shape[2:]
        image = pad_to_multiple(image, self.config.divisor)
        image = image.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level, block in enumerate(self.down):
            image = block(image if level == 0 else functional.max_pool3d(image, self.config.pool))
            skips.append(image)
        skips.pop()
        for lift, block in zip(self.lift, self.up, strict=True):
            image = block(torch.cat([skips.pop(), lift(image)], 1))
        logits: Tensor = self.classify(image)[:, :, :z, :y, :x]
        if logits.shape[1] == 1:
            return torch.cat([torch.zeros_like(logits), logits], 1)
        return logits


def convolutions(before: int, after: int, thickness: int) -> nn.Sequential:
    """Two convolutions, each followed by a ReLU."""
    kernel, padding = (thickness, 3, 3), (thickness // 2, 1, 1)
    return nn.Sequential(
        Conv3d(before, after, kernel, padding=padding),
        nn.ReLU(inplace=True),
        Conv3d(after, after, kernel, padding=padding),
        nn.ReLU(inplace=True),
    )


def lifting(before: int, after: int, config: BaselineConfig) -> nn.ConvTranspose3d:
    """Transposed convolution of width 3 that doubles the resolution exactly."""
    flat = config.thickness == 1
    return nn.ConvTranspose3d(
        before,
        after,
        (config.thickness, 3, 3),
        stride=config.pool,
        padding=(0 if flat else 1, 1, 1),
        output_padding=(0 if flat else 1, 1, 1),
    )


def build(config: BaselineConfig, in_channels: int, n_classes: int) -> BaselineUNet:
    """Build the network, He-initialized as usual for ReLU."""
    module = BaselineUNet(config, in_channels, n_classes)
    he_weights(module)
    return module


def auto_slices(
    cases: Sequence[Case], device: torch.device, training: TrainingConfig
) -> BaselineConfig:
    """Choose a narrow network on a CPU, the paper's on a GPU."""
    return planned(BaselineConfig(channels=8 if device.type == "cpu" else 32, thickness=1), cases)


def auto_small(
    cases: Sequence[Case], device: torch.device, training: TrainingConfig
) -> BaselineConfig:
    """Keep the paper's width, which any device can carry; a CPU gets four levels."""
    levels = 4 if device.type == "cpu" else 5
    return planned(BaselineConfig(channels=8, thickness=3, levels=levels), cases)


def planned(config: BaselineConfig, cases: Sequence[Case]) -> BaselineConfig:
    """Choose patches and tiles that fit the voxels and the volumes."""
    spacing = cases[0].volume.spacing
    z, y, x = largest_shape(cases)
    shape = (1 if config.thickness == 1 else z, y, x)
    transitions = (config.pool,) * (config.levels - 1)
    patch_voxels, tile_voxels = (128**2, 512**2) if config.thickness == 1 else (48**3, 128**3)
    return replace(
        config,
        patch=plan_patch(spacing, shape, transitions, patch_voxels),
        tile=plan_patch(spacing, shape, transitions, tile_voxels),
        batch_size=8 if config.thickness == 1 else 2,
    )


def stages(
    config: BaselineConfig, training: TrainingConfig, pool: Pool
) -> tuple[Stage[BaselineUNet], ...]:
    """Patches on labels; slices across y and x reach the 2D network as the rows they are there."""
    plan = PatchPlan(shapes=(config.patch,), batch_size=training.batch_size or config.batch_size)
    return (patch_stage(training, pool, plan, BaselineUNet.forward),)


def walk(config: BaselineConfig, shape: Triple) -> Walk:
    """Tiles with all the context that the network sees, aligned with its pooling."""
    z, y, x = (max(1, t // d) * d for t, d in zip(config.tile, config.divisor, strict=True))
    return Walk(core=(z, y, x), halo=config.reach, border="clip", align=config.divisor)


def probabilities(
    module: BaselineUNet, config: BaselineConfig, block: Tensor, core: Region
) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a block (1, C, z, y, x)."""
    return torch.softmax(module(block)[(0, slice(None), *core)].float(), 0)


ARCHITECTURES = (
    Architecture(
        name="unet2d",
        title="2D U-Net",
        summary="Slice by slice across z: for stacks whose slices are far apart.",
        paper=PAPER,
        config=BaselineConfig,
        presets={"paper": BaselineConfig(channels=32, thickness=1)},
        auto=auto_slices,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
    ),
    Architecture(
        name="unet3d_small",
        title="Small 3D U-Net",
        summary="A narrow 3D U-Net: little memory, little time.",
        paper=PAPER,
        config=BaselineConfig,
        presets={
            "paper": BaselineConfig(
                channels=8, thickness=3, patch=(128, 128, 128), tile=(128, 128, 128)
            )
        },
        auto=auto_small,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
    ),
)
