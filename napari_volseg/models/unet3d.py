"""3D U-Net: learning dense volumetric segmentation from sparse annotation.

Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger, MICCAI 2016. Figure 2 is ``UNet3D``,
section 2 the batch normalization, section 3.2 the training.
"""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from napari_volseg.data.tiles import crop_around, tile_grid, whole_region
from napari_volseg.models.belief import Belief, pool_opinions
from napari_volseg.models.initialize import he_initialize, learned_initialize
from napari_volseg.models.registry import Architecture, Walk, count_convolutions
from napari_volseg.models.unet3d_config import UNet3DConfig, auto
from napari_volseg.sparse.convolution import Conv3d
from napari_volseg.sparse.filters import averaged, refined
from napari_volseg.sparse.learned_filters import cells_of
from napari_volseg.sparse.looks import pixel_looks
from napari_volseg.sparse.patches import patch_stage
from napari_volseg.sparse.pixel_stage import pixel_stages
from napari_volseg.sparse.pixels import PixelClassifier, filters_alignment, filters_reach
from napari_volseg.sparse.plan import Triple, each, plan_core, pooled, valid_size
from napari_volseg.sparse.position import POSITION_CHANNELS, with_region_position
from napari_volseg.sparse.sampling import PatchPlan
from napari_volseg.sparse.second_look import SecondLook, second_reach, second_stage
from napari_volseg.sparse.whole import pad_to_multiple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from napari_volseg.data.tiles import Region, TileGrid
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool, PoolCase
    from napari_volseg.sparse.stage import Stage

PAPER = "Cicek et al. 2016, 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation"

FIRST_LOOK = Belief((0.5, 0.25, 0.25))
"""What the second look is told: the network's opinion and the pixel classifier's two."""


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
        self.classify = Conv3d(width * 2, n_classes, 1)
        self.second = None
        if config.looks_again and self.pixels is not None:
            self.second = SecondLook(len(self.pixels.placed.columns), n_classes, config.voxel)

    def forward(self, image: Tensor) -> Tensor:
        """Map the image (B, C, Z, Y, X) of a whole volume to logits (B, K, ...)."""
        core = whole_region(image.shape[2:])
        if self.config.position:
            image = with_region_position(image, core, image.shape[2:])
        logits = self.unet(image)
        if self.pixels is None:
            return logits
        responses = self.pixels.responses(image, core)
        every = torch.cat([logits[None], self.pixels.over(responses)]).log_softmax(2)
        if self.second is not None and self.second.trained:
            again = self.look_again(every.exp(), responses, core)
            every = torch.cat([every, again.log_softmax(2)])
        return every.mean(0)

    def look_again(self, first: Tensor, responses: Sequence[Tensor], core: Region) -> Tensor:
        """Map first opinions (E, B, K, ...) and responses (B, F, ...) to logits (2, B, K, ...).

        Of a core of what these cover; the responses are in parts.
        """
        pixels, second = second_parts(self)
        found = pool_opinions(first.transpose(1, 2), FIRST_LOOK).transpose(0, 1)
        maps = second.spread(averaged(found, second.cells), core)
        seen = [part[(slice(None), slice(None), *core)] for part in responses]
        return second.over(pixels, seen, maps)

    def unet(self, image: Tensor) -> Tensor:
        """Follow figure 2: down, up, classify; between the cells, interpolate."""
        cells, core = self.config.cells, whole_region(image.shape[2:])
        if max(cells) > 1:
            image = averaged(image, cells)
        logits: Tensor = self.classify(self.features(image))
        if self.config.padding == "same":
            logits = logits[(..., *whole_region(image.shape[2:]))]
        return logits if max(cells) == 1 else refined(logits, cells, core)

    def features(self, image: Tensor) -> Tensor:
        """Follow figure 2 up to its last convolution; padded images stay padded."""
        image = image.contiguous(memory_format=torch.channels_last_3d)
        if self.config.padding == "same":
            image = pad_to_multiple(image, pooled(self.config.pooling))
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
        layers.append(Conv3d(a, b, kernel, padding=padding))
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
    tiles = network_tiles(config)
    looks = partial(pixel_looks, pool, pixels_of, partial(network_look, config), tiles)
    pixels = [
        replace(stage, look=looks) for stage in pixel_stages(training, pool, pixels_of, tiles)
    ]
    context = patch_stage(
        training,
        pool,
        plan,
        UNet3D.unet,
        name="context",
        rate=1e-2,
        parameters=context_parameters,
        share=1 - sum(stage.share for stage in pixels),
    )
    context = replace(context, look=looks)
    if not config.looks_again:
        return (*pixels, context)
    look = partial(first_look, config)
    halo, _ = first_halo(config)
    around = (look, halo, config.tile)
    second = second_stage(training, pool, second_parts, *around, context.share, looks)
    return (*pixels, replace(context, share=context.share - second.share), second)


def pixels_of(module: UNet3D) -> PixelClassifier:
    """Return the pixel classifier beside the network."""
    assert module.pixels is not None
    return module.pixels


def second_parts(module: UNet3D) -> tuple[PixelClassifier, SecondLook]:
    """Return the pixel classifier beside the network, and the second look."""
    assert module.second is not None
    return pixels_of(module), module.second


def context_parameters(module: UNet3D) -> Iterable[nn.Parameter]:
    """All parameters but the pixel classifier's and the second look's."""
    beside = ("pixels.", "second.")
    return (p for name, p in module.named_parameters() if not name.startswith(beside))


def walk(config: UNet3DConfig, shape: Triple) -> Walk:
    """Overlap-tile: mirrored context for valid convolutions, clipped for padded ones."""
    if config.padding == "valid":
        core = valid_size(config.tile, config.pooling, config.kernels)
        return Walk(core, config.margin, "mirror", position=config.position)
    halo, align = first_halo(config)
    if config.looks_again:
        halo = each(operator.add, halo, second_reach(config.voxel))
        align = each(math.lcm, align, cells_of(config.voxel))
    return Walk(plan_core(config.tile, shape, align), halo, "clip", align, config.position)


def first_halo(config: UNet3DConfig) -> tuple[Triple, Triple]:
    """Context that the first opinions need, and at which multiples it begins, (z, y, x)."""
    learned = config.learned_filters and bool(config.filter_scales)
    filters = (config.filter_scales, config.voxel, learned)
    align = each(math.lcm, filters_alignment(*filters), config.divisor)
    return each(max, filters_reach(*filters), network_reach(config)), align


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


def opinions(module: UNet3D, config: UNet3DConfig, block: Tensor, core: Region) -> Tensor:
    """Class probabilities (E, K, z, y, x) of the network and of what stands beside it.

    With filters, those of the pixel classifier; once it is trained, the second look's, too.
    """
    if not halves(module):
        return first_opinions(module, config, block, core)[0]
    reach, align = second_reach(config.voxel), cells_of(config.voxel)
    seen, within = crop_around(core, reach, align, block.shape[2:])
    first, responses = first_opinions(module, config, block, seen)
    logits = module.look_again(first[:, None], responses, within)
    first = first[(slice(None), slice(None), *within)]
    return torch.cat([first, torch.softmax(logits[:, 0].float(), 1)])


def halves(module: UNet3D) -> bool:
    """Tell whether the second look is among the opinions."""
    return module.second is not None and module.second.trained


def first_opinions(
    module: UNet3D, config: UNet3DConfig, block: Tensor, core: Region
) -> tuple[Tensor, Sequence[Tensor]]:
    """Class probabilities (E, K, z, y, x) without the second look's, and the filters' responses."""
    network = probabilities(module, config, block, core)[None]
    if module.pixels is None:
        return network, ()
    responses = module.pixels.responses(block, core)
    logits = module.pixels.over(responses)
    return torch.cat([network, torch.softmax(logits[:, 0].float(), 1)]), responses


def first_look(config: UNet3DConfig, module: UNet3D, case: PoolCase, region: Region) -> Tensor:
    """How likely each class is (K, z, y, x) by what the network and the pixel classifier say."""
    block, within = read_around(config, module, case, region, *first_halo(config))
    found, _ = first_opinions(module, config, block, within)
    return pool_opinions(found, FIRST_LOOK)


def network_look(config: UNet3DConfig, module: UNet3D, case: PoolCase, region: Region) -> Tensor:
    """How likely each class is (K, z, y, x) by what the padded network alone says."""
    around = network_reach(config), config.divisor
    block, within = read_around(config, module, case, region, *around)
    return probabilities(module, config, block, within)


def network_tiles(config: UNet3DConfig) -> Callable[[PoolCase], TileGrid]:
    """Return the tiles in which the padded network alone sees a volume."""

    def tiles_of(case: PoolCase) -> TileGrid:
        shape = case.volume.shape
        core = plan_core(config.tile, shape, config.divisor)
        return tile_grid(shape, core, network_reach(config), align=config.divisor)

    return tiles_of


def read_around(
    config: UNet3DConfig, module: UNet3D, case: PoolCase, core: Region, halo: Triple, align: Triple
) -> tuple[Tensor, Region]:
    """Read a core of a volume with its context (1, C, z, y, x); return where in it the core is."""
    seen, within = crop_around(core, halo, align, case.volume.shape)
    block = case.read(seen)
    if config.position:
        block = with_region_position(block, seen, case.volume.shape)
    return block[None].to(next(module.parameters()).device), within


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
        beside=opinions,
        halves=halves,
        paper_channels=3,
        paper_classes=3,
        count=count_convolutions,
    ),
)
