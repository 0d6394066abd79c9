"""3D U-Net: learning dense volumetric segmentation from sparse annotation.

Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger, MICCAI 2016. Figure 2 is ``UNet3D``,
section 2 the batch normalization, section 3.2 the training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.errors import InputError
from napari_volseg.data.tiles import crop_around
from napari_volseg.models.initialize import he_initialize, learned_initialize
from napari_volseg.models.registry import Architecture, Walk, count_convolutions
from napari_volseg.sparse.patches import patch_stage
from napari_volseg.sparse.pixels import (
    PixelClassifier,
    filters_alignment,
    filters_reach,
    pixel_stage,
)
from napari_volseg.sparse.plan import (
    Triple,
    each,
    inside,
    largest_shape,
    plan_core,
    plan_patch,
    plan_resolution,
    pooled,
    valid_margin,
    valid_size,
)
from napari_volseg.sparse.position import POSITION_CHANNELS, with_region_position
from napari_volseg.sparse.sampling import PatchPlan
from napari_volseg.sparse.whole import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool
    from napari_volseg.sparse.stage import Stage

PAPER = "Cicek et al. 2016, 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation"

FILTER_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Scales of the filters that ``auto`` puts beside it, in units of the finest voxel side."""

SLAB = 4
"""How many times flatter than wide a patch around a painted slice is: a cube would spend
most of its voxels far from any label."""


@dataclass(frozen=True, kw_only=True)
class UNet3DConfig:
    """Settings of the 3D U-Net; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    channels: int = 32
    """Channels of the first convolution; they double before each pooling."""

    pooling: tuple[Triple, ...] = ((2, 2, 2), (2, 2, 2), (2, 2, 2))
    """Pooling between the resolution steps (z, y, x); 1 where voxels are coarse already."""

    kernels: tuple[Triple, ...] = ((3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
    """Size of the convolutions of each resolution step (z, y, x)."""

    normalization: Literal["batch", "none"] = "batch"
    """Batch normalization before each ReLU, or none."""

    test_statistics: Literal["batch", "running"] = "batch"
    """What batch normalization uses at test time: the current tile's statistics
    (section 2: "using the current statistics also at test time works the best"), or those
    gathered in training, with which a tiled prediction equals a whole one."""

    padding: Literal["valid", "same"] = "valid"
    """"valid" convolutions see real (mirrored at borders) context only; "same" ones pad with
    zeros, which costs far less on small tiles."""

    filter_scales: tuple[float, ...] = ()
    """Scales of the filters of a pixel classifier beside the network, in units of the finest
    voxel side; none in the paper."""

    learned_filters: bool = False
    """Whether that pixel classifier also sees what a small network, which learned on generated
    volumes what tells things apart, makes of the image."""

    voxel: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Voxel size (z, y, x) relative to the finest side, for the filters."""

    learned_start: bool = False
    """Whether the network, if it has that one's width and steps, begins with its weights."""

    position: bool = False
    """Whether the network is told where in the volume a voxel is, which tells anatomy apart
    that looks alike; not in the paper."""

    patches: tuple[Triple, ...] = ((28, 44, 44),)
    """Voxels (z, y, x) that the loss sees in training: one shape, or three, for labels
    painted on slices across z, y and x."""

    tile: Triple = (28, 44, 44)
    """Voxels (z, y, x) that a tile predicts; with "same" padding, in a volume that is shorter
    along an axis, more along the others."""

    batch_size: int = 1
    """Patches a step."""

    def __post_init__(self) -> None:
        if self.channels < 2 or self.channels % 2:
            raise InputError(
                f"channels is {self.channels}; the 3D U-Net takes an even number from 2"
            )
        if len(self.kernels) != len(self.pooling) + 1:
            raise InputError(
                f"{len(self.kernels)} kernels for {len(self.pooling)} poolings; there is one "
                "resolution step more than poolings"
            )
        if any(k % 2 == 0 for kernel in self.kernels for k in kernel):
            raise InputError(f"kernels {self.kernels} must be odd")
        if self.filter_scales and self.padding == "valid":
            raise InputError("filters go with padding 'same' only; leave one of the two out")

    @property
    def divisor(self) -> Triple:
        """Voxels (z, y, x) that one voxel of the lowest resolution step stands for."""
        return pooled(self.pooling)

    @property
    def margin(self) -> Triple:
        """Voxels of context that an output voxel needs on each side, (z, y, x)."""
        return valid_margin(self.pooling, self.kernels)


class UNet3D(nn.Module):
    """The network of figure 2.

    With "valid" padding, an image of ``n`` voxels gives ``n - 2 * margin`` voxels of
    logits and ``n - 2 * margin`` must be a multiple of ``divisor``; with "same" padding
    any size gives its own size.
    """

    def __init__(self, config: UNet3DConfig, in_channels: int, n_classes: int) -> None:
        super().__init__()
        self.config = config
        width = config.channels
        self.pixels = None
        if scales := config.filter_scales:
            seen = config.voxel, config.position, config.learned_filters
            self.pixels = PixelClassifier(in_channels, n_classes, scales, *seen)
        in_channels += config.position * POSITION_CHANNELS
        self.down = nn.ModuleList()
        for step, kernel in enumerate(config.kernels):
            before = in_channels if step == 0 else width * 2**step
            self.down.append(
                double_convolution(before, width * 2**step, width * 2 ** (step + 1), kernel, config)
            )
        self.lift = nn.ModuleList()
        self.up = nn.ModuleList()
        for step in reversed(range(len(config.pooling))):
            deep, skip = width * 2 ** (step + 2), width * 2 ** (step + 1)
            pool = config.pooling[step]
            self.lift.append(nn.ConvTranspose3d(deep, deep, pool, pool, bias=False))
            self.up.append(
                double_convolution(deep + skip, skip, skip, config.kernels[step], config)
            )
        self.classify = nn.Conv3d(width * 2, n_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, C, Z, Y, X) of a whole volume to logits (B, K, ...)."""
        z, y, x = (slice(0, n) for n in image.shape[2:])
        if self.config.position:
            image = with_region_position(image, (z, y, x), image.shape[2:])
        logits = self.unet(image)
        if self.pixels is None:
            return logits
        instant = self.pixels.over(self.pixels.responses(image, (z, y, x)))
        return torch.cat([logits[None], instant]).log_softmax(2).mean(0)

    def unet(self, image: Tensor) -> Tensor:
        """Follow figure 2: down, up, classify."""
        logits: Tensor = self.classify(self.features(image))
        if self.config.padding == "same":
            z, y, x = image.shape[2:]
            logits = logits[:, :, :z, :y, :x]
        return logits

    def features(self, image: Tensor) -> Tensor:
        """Follow figure 2 up to its last convolution; padded images stay padded."""
        image = image.contiguous(memory_format=torch.channels_last_3d)
        if self.config.padding == "same":
            image = pad_to_multiple(image, self.config.divisor)
        skips = []
        for step, block in enumerate(self.down):
            image = block(image)
            if step < len(self.config.pooling):
                skips.append(image)
                image = functional.max_pool3d(image, self.config.pooling[step])
        for lift, block in zip(self.lift, self.up, strict=True):
            image = lift(image)
            image = block(torch.cat([crop_center(skips.pop(), image.shape[2:]), image], 1))
        return image


def double_convolution(
    before: int, between: int, after: int, kernel: Triple, config: UNet3DConfig
) -> nn.Sequential:
    """Two convolutions, each followed by (batch normalization and) a ReLU."""
    layers: list[nn.Module] = []
    padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2) if config.padding == "same" else 0
    for a, b in ((before, between), (between, after)):
        layers.append(nn.Conv3d(a, b, kernel, padding=padding))
        if config.normalization == "batch":
            layers.append(
                nn.BatchNorm3d(b, track_running_stats=config.test_statistics == "running")
            )
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def crop_center(features: Tensor, shape: Sequence[int]) -> Tensor:
    """Crop feature maps (B, C, Z, Y, X) around their middle."""
    for axis, size in enumerate(shape, start=2):
        features = features.narrow(axis, (features.shape[axis] - size) // 2, size)
    return features


def build(config: UNet3DConfig, in_channels: int, n_classes: int) -> UNet3D:
    """Build the network, He-initialized as usual for ReLU, or as learned on generated volumes."""
    module = UNet3D(config, in_channels, n_classes)
    he_initialize(module, [module.classify])
    if config.learned_start:
        learned_initialize(module, in_channels, config.pooling, config.kernels)
    return module


def auto(cases: Sequence[Case], device: torch.device, training: TrainingConfig) -> UNet3DConfig:
    """Choose settings that fit the device and the voxels.

    Axes are pooled only once their voxels are no finer than twice the others', so that
    features become isotropic in space; coarse axes get no convolution before. A CPU
    gets a narrow network of three steps, a GPU the paper's width.
    """
    spacing = cases[0].volume.spacing
    on_cpu = device.type == "cpu"
    levels = 3 if on_cpu else 4
    shape = largest_shape(cases)
    pooling, kernels = plan_resolution(spacing, shape, levels)
    voxels = 40**3 if on_cpu else 128**3
    patches = tuple(
        plan_patch(
            [s * (SLAB if a == axis else 1) for a, s in enumerate(spacing)],
            inside(shape),
            pooling,
            voxels,
        )
        for axis in range(3)
    )
    return UNet3DConfig(
        channels=8 if on_cpu else 32,
        pooling=pooling,
        kernels=kernels,
        padding="same",
        test_statistics="running",
        filter_scales=FILTER_SCALES,
        learned_filters=True,
        learned_start=True,
        position=True,
        voxel=(spacing[0] / min(spacing), spacing[1] / min(spacing), spacing[2] / min(spacing)),
        patches=patches,
        tile=plan_patch(spacing, (10**6,) * 3, pooling, 112**3 if on_cpu else 192**3),
        # A batch of one would fall off torch's fast path for small convolutions on a CPU.
        batch_size=2,
    )


def stages(config: UNet3DConfig, training: TrainingConfig, pool: Pool) -> tuple[Stage[UNet3D], ...]:
    """Patches on labels, weighted cross-entropy (and Dice), SGD or AdamW.

    With filters, the pixel classifier is trained first, then the network beside it.
    """
    valid = config.padding == "valid"
    shapes = config.patches
    if valid:
        shapes = tuple(valid_size(p, config.pooling, config.kernels) for p in shapes)
    plan = PatchPlan(
        shapes=shapes,
        halo=config.margin if valid else (0, 0, 0),
        border="mirror" if valid else "clip",
        batch_size=training.batch_size or config.batch_size,
        position=config.position,
    )
    if not config.filter_scales:
        return (patch_stage(training, pool, plan, UNet3D.unet, rate=1e-2),)
    pixels = pixel_stage(training, pool, pixels_of)
    context = patch_stage(
        training,
        pool,
        plan,
        UNet3D.unet,
        name="context",
        rate=1e-2,
        parameters=context_parameters,
        share=1 - pixels.share,
    )
    return (pixels, context)


def pixels_of(module: UNet3D) -> PixelClassifier:
    """Return the pixel classifier beside the network."""
    assert module.pixels is not None
    return module.pixels


def context_parameters(module: UNet3D) -> Iterable[nn.Parameter]:
    """All parameters but the pixel classifier's."""
    return (p for name, p in module.named_parameters() if not name.startswith("pixels."))


def walk(config: UNet3DConfig, shape: Triple) -> Walk:
    """Overlap-tile: mirrored context for valid convolutions, clipped for padded ones."""
    if config.padding == "valid":
        core = valid_size(config.tile, config.pooling, config.kernels)
        return Walk(core, config.margin, "mirror", position=config.position)
    learned = config.learned_filters and bool(config.filter_scales)
    filters = (config.filter_scales, config.voxel, learned)
    align = each(math.lcm, filters_alignment(*filters), config.divisor)
    halo = each(max, filters_reach(*filters), network_reach(config))
    return Walk(plan_core(config.tile, shape, align), halo, "clip", align, config.position)


def network_reach(config: UNet3DConfig) -> Triple:
    """Context of the padded network: its margin, and the pooling cell that a voxel is in."""
    z, y, x = (m + d for m, d in zip(config.margin, config.divisor, strict=True))
    return z, y, x


def probabilities(module: UNet3D, config: UNet3DConfig, block: Tensor, core: Region) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a block (1, C, z, y, x).

    The padded network sees no more of the block than it needs.
    """
    if config.padding == "valid":
        z, y, x = (slice(c.start - m, c.stop - m) for c, m in zip(core, config.margin, strict=True))
        return torch.softmax(module.unet(block)[0, :, z, y, x].float(), 0)
    # Pooling must fall on the same voxels whatever the tile: hence aligned.
    seen, within = crop_around(core, network_reach(config), config.divisor, block.shape[2:])
    every = (slice(None), slice(None))
    logits = module.unet(block[(*every, *seen)])[(*every, *within)]
    return torch.softmax(logits[0].float(), 0)


def instant(module: UNet3D, config: UNet3DConfig, block: Tensor, core: Region) -> Tensor | None:
    """Class probabilities (E, K, z, y, x) of the pixel classifier, None without filters."""
    if module.pixels is None:
        return None
    logits = module.pixels.over(module.pixels.responses(block, core))
    return torch.softmax(logits[:, 0].float(), 1)


ARCHITECTURES = (
    Architecture(
        name="unet3d",
        title="3D U-Net",
        summary="Learns 3D context from a few slices; the default.",
        paper=PAPER,
        config=UNet3DConfig,
        presets={
            "paper": UNet3DConfig(),
            "paper_without_batch_norm": UNet3DConfig(normalization="none"),
        },
        auto=auto,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
        instant=instant,
        paper_channels=3,
        paper_classes=3,
        count=count_convolutions,
    ),
)
