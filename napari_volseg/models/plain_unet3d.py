"""Two plain 3D U-Nets that see the whole volume at once, resized to one size.

Sharma, "Volumetric Segmentation of 3D Images" (project report, IIT Bombay): figures 15
and 16 list the layers of networks 1 and 2, section 6 the losses, section 7 the training.

Where the report leaves a choice, what it says and what was chosen:

- The tables list ReLUs on the way down only. The text names two differences from the 3D
  U-Net of Cicek et al., normalization on the way down and transposed convolutions; the
  convolutions on the way up therefore keep their ReLU (a function instead of a module
  would not be listed). The text puts normalization after "every" convolution on the way
  down, the tables leave it out at the lowest level: the tables hold.
- "Resized" to 160x160x64, 128x128x32 (section 7.2) or 128^3 (section 7.1), the first two
  "while maintaining the aspect ratio", not said how: all axes are scaled alike until the
  volume fits the box, and the rest is filled with the mean gray value.
- The report resizes labels too. Sparse labels would be lost: here only the image is
  resized, and the logits are read, linearly interpolated, at the labeled voxels of the
  volume itself. The prediction reads them at every voxel.
- "Mean normalized" gray values: standardized as for every other architecture.
- The losses (equations 3 to 6) are the training's: ``dice_weight`` is alpha. The report
  uses 0 with network 1, 1 with network 2, and proposes what lies between. It has two
  classes with one output each; K classes have K outputs and the mean Dice of those labeled.
- Adam at 1e-4 is AdamW here, whose decay takes 1e-7 of a weight a step at that rate.
  Network 2 is trained for about 300 epochs with a tenth of the rate after every 100. An
  epoch of one volume with a few slices means nothing: the rate falls after each third of
  the training.
- Volumes a step are not said: one. Augmentation is not mentioned: the training's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.errors import InputError
from napari_volseg.models.initialize import he_initialize
from napari_volseg.models.registry import Architecture, Walk
from napari_volseg.sparse.convolution import Conv3d
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.plan import Triple, largest_shape, plan_patch, plan_resolution, pooled
from napari_volseg.sparse.stage import Stage, constant_rate, schedule_of
from napari_volseg.sparse.views import View, augment, read_at, view_of
from napari_volseg.sparse.whole import draw_case, resample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool, PoolCase

PAPER = "Sharma, Volumetric Segmentation of 3D Images (project report, IIT Bombay)"


@dataclass(frozen=True, kw_only=True)
class PlainUNet3DConfig:
    """Settings of a plain 3D U-Net; the defaults are network 1's.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    channels: int = 32
    """Channels of the first level; they double at each of the others."""

    pooling: tuple[Triple, ...] = ((2, 2, 2),) * 4
    """Pooling between the levels (z, y, x): four times in network 1, three times in network 2."""

    box: Triple = (64, 160, 160)
    """Voxels (z, y, x) that every volume is resized to."""

    keep_aspect: bool = True
    """Scale all axes alike and fill the box with the mean gray value, instead of stretching
    the volume to it."""

    axis_scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Where the aspect ratio is kept: how much an axis (z, y, x) shrinks compared with the
    others, so that axes with coarse voxels may keep them."""

    learning_rate: float = 1e-4
    """AdamW's learning rate, unless the training sets one."""

    schedule: Literal["constant", "thirds", "cosine"] = "constant"
    """"constant" rate (network 1), a tenth of it after each third of the training (network
    2), or warm-up and "cosine" for a short budget."""

    batch_size: int = 1
    """Volumes a step."""

    def __post_init__(self) -> None:
        if self.channels < 1 or self.batch_size < 1:
            raise InputError(
                f"channels is {self.channels} and batch_size {self.batch_size}; both begin at 1"
            )
        if any(n < 1 or n % d for n, d in zip(self.box, self.divisor, strict=True)):
            raise InputError(
                f"box {self.box} is not divided by the poolings; choose multiples of {self.divisor}"
            )
        if any(scale <= 0 for scale in self.axis_scale):
            raise InputError(f"axis_scale {self.axis_scale} must be positive")
        if self.learning_rate <= 0:
            raise InputError(f"learning_rate is {self.learning_rate}; give a positive number")
        if self.schedule not in ("constant", "thirds", "cosine"):
            raise InputError(f"schedule is {self.schedule!r}; choose constant, thirds or cosine")

    @property
    def divisor(self) -> Triple:
        """Voxels (z, y, x) that one voxel of the lowest level stands for."""
        return pooled(self.pooling)

    def resized(self, shape: Sequence[int]) -> Triple:
        """Size (z, y, x) in the box of a volume of that shape."""
        if not self.keep_aspect:
            return self.box
        sides = [n * scale for n, scale in zip(shape, self.axis_scale, strict=True)]
        factor = min(b / side for b, side in zip(self.box, sides, strict=True))
        z, y, x = (
            min(b, max(1, round(side * factor))) for b, side in zip(self.box, sides, strict=True)
        )
        return z, y, x


class PlainUNet3D(nn.Module):
    """The layers of figures 15 and 16, between a resized image and logits resized back."""

    def __init__(self, config: PlainUNet3DConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        widths = [config.channels * 2**level for level in range(len(config.pooling) + 1)]
        self.down = nn.ModuleList(
            convolutions(before, after, normalize=level < len(config.pooling))
            for level, (before, after) in enumerate(
                zip([in_channels, *widths], widths, strict=False)
            )
        )
        deep_first = list(zip(widths[:0:-1], widths[-2::-1], config.pooling[::-1], strict=True))
        self.lift = nn.ModuleList(
            nn.ConvTranspose3d(deep, skip, pool, pool) for deep, skip, pool in deep_first
        )
        self.up = nn.ModuleList(
            convolutions(2 * skip, skip, normalize=False) for _, skip, _ in deep_first
        )
        self.classify = Conv3d(widths[0], n_classes, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        """Map whole images (B, C, Z, Y, X) to logits (B, K, Z, Y, X)."""
        z, y, x = self.config.resized(image.shape[2:])
        logits = self.unet(fill(resample(image, (z, y, x)), self.config.box))
        # Linear also where an axis was magnified: training reads single voxels this way.
        return functional.interpolate(
            logits[:, :, :z, :y, :x].float(), size=image.shape[2:], mode="trilinear"
        )

    def unet(self, image: Tensor) -> Tensor:
        """Map an image (B, C, z, y, x) of the size of the box to logits (B, K, z, y, x)."""
        image = image.contiguous(memory_format=torch.channels_last_3d)
        skips = []
        for level, block in enumerate(self.down):
            image = block(image)
            if level < len(self.config.pooling):
                skips.append(image)
                image = functional.max_pool3d(image, self.config.pooling[level])
        for lift, block in zip(self.lift, self.up, strict=True):
            image = block(torch.cat([skips.pop(), lift(image)], 1))
        logits: Tensor = self.classify(image)
        return logits


def convolutions(before: int, after: int, *, normalize: bool) -> nn.Sequential:
    """Two convolutions, each followed by a ReLU and then (batch normalization)."""
    layers: list[nn.Module] = []
    for channels in (before, after):
        layers += [Conv3d(channels, after, 3, padding=1), nn.ReLU(inplace=True)]
        if normalize:
            layers.append(nn.BatchNorm3d(after))
    return nn.Sequential(*layers)


def fill(image: Tensor, box: Triple) -> Tensor:
    """Fill an image (..., z, y, x) up to the box with zeros, its mean gray value."""
    z, y, x = (b - n for b, n in zip(box, image.shape[-3:], strict=True))
    return functional.pad(image, (0, x, 0, y, 0, z))


def build(config: PlainUNet3DConfig, in_channels: int, n_classes: int) -> PlainUNet3D:
    """Build the network, He-initialized as usual for ReLU."""
    module = PlainUNet3D(config, in_channels, n_classes)
    he_initialize(module, [module.classify])
    return module


def auto(
    paper: PlainUNet3DConfig, cases: Sequence[Case], device: torch.device, training: TrainingConfig
) -> PlainUNet3DConfig:
    """Choose a box that fits the volumes, as deep as the paper's network; narrow on a CPU.

    The resized voxels are as isotropic in space as they can be without magnifying an
    axis; pooling follows them.
    """
    on_cpu = device.type == "cpu"
    spacing = cases[0].volume.spacing
    shape = largest_shape(cases)
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    voxels = 64**3 if on_cpu else math.prod(paper.box)
    # The sides of a patch go with the inverse of the voxel size; those of the box shall go
    # with the extent of the volume.
    sides = [1 / e for e in extent]
    rough = plan_patch(sides, shape, (), voxels)
    resized = [e / n for e, n in zip(extent, rough, strict=True)]
    pooling, _ = plan_resolution(resized, rough, len(paper.pooling) + 1)
    box = plan_patch(sides, shape, pooling, voxels)
    z, y, x = (min(1.0, b / n) for b, n in zip(box, shape, strict=True))
    return replace(
        paper,
        channels=8 if on_cpu else paper.channels,
        pooling=pooling,
        box=box,
        axis_scale=(z, y, x),
        learning_rate=1e-3,
        schedule="cosine",
    )


def tenth_each_third(fraction: float, scores: list[float]) -> float:
    """Learning-rate factor: a tenth after each third (section 7: every 100 of 300 epochs)."""
    return 0.1 ** min(2, int(3 * fraction))


def stages(
    config: PlainUNet3DConfig, training: TrainingConfig, pool: Pool
) -> tuple[Stage[PlainUNet3D], ...]:
    """Whole volumes, resized; the loss reads the logits at their labeled voxels."""
    views: dict[PoolCase, View] = {}
    score = labeled_loss(training, pool)
    schedules: dict[str, Callable[[float, list[float]], float]] = {
        "constant": constant_rate,
        "thirds": tenth_each_third,
        "cosine": schedule_of(training),
    }

    def prepare(module: PlainUNet3D) -> Iterator[float]:
        for done, case in enumerate(pool.cases, start=1):
            views[case] = view_of(case, config.resized(case.volume.shape), pool.device)
            yield done / len(pool.cases)

    def sample(generator: torch.Generator) -> tuple[View, ...]:
        return tuple(
            augment(views[draw_case(pool, generator)], training, generator)
            for _ in range(training.batch_size or config.batch_size)
        )

    def loss(module: PlainUNet3D, batch: tuple[View, ...], step: int) -> Tensor:
        logits = module.unet(torch.stack([fill(view.image, config.box) for view in batch])).float()
        found = [read_at(own, view.points) for own, view in zip(logits, batch, strict=True)]
        return score(torch.cat(found), torch.cat([view.target for view in batch]))

    return (
        Stage(
            name="volumes",
            prepare=prepare,
            sample=sample,
            loss=loss,
            optimizer=partial(make_optimizer, training, config.learning_rate),
            schedule=schedules[config.schedule],
        ),
    )


def walk(config: PlainUNet3DConfig, shape: Triple) -> Walk:
    """One tile: the whole volume."""
    return Walk(core=(0, 0, 0))


def probabilities(
    module: PlainUNet3D, config: PlainUNet3DConfig, block: Tensor, core: Region
) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a whole volume (1, C, Z, Y, X)."""
    return torch.softmax(module(block)[(0, slice(None), *core)], 0)


def architecture(
    name: str, title: str, summary: str, paper: PlainUNet3DConfig
) -> Architecture[PlainUNet3DConfig, PlainUNet3D]:
    """Describe one of the two networks by the settings of its table."""
    return Architecture(
        name=name,
        title=title,
        summary=summary,
        paper=PAPER,
        config=PlainUNet3DConfig,
        presets={
            "paper": paper,
            "paper_128x128x32": replace(paper, box=(32, 128, 128)),
            "paper_128_stretched": replace(paper, box=(128, 128, 128), keep_aspect=False),
        },
        auto=partial(auto, paper),
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
    )


ARCHITECTURES = (
    architecture(
        "plain_unet3d_1",
        "Plain 3D U-Net, network 1",
        "The whole volume at once, resized: for large structures; fine detail is lost.",
        PlainUNet3DConfig(),
    ),
    architecture(
        "plain_unet3d_2",
        "Plain 3D U-Net, network 2",
        "One level less than network 1, made for the Dice loss; the whole volume at once.",
        PlainUNet3DConfig(pooling=((2, 2, 2),) * 3, schedule="thirds"),
    ),
)
