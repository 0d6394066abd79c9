"""Two-stage U-Net: Net1 finds the object in the coarse whole, Net2 labels it slice by slice.

Wang, MacGillivray, Macnaught, Yang, Newby, "A Two-Stage U-Net Model for 3D Multi-class
Segmentation on Full-Resolution Cardiac Data", STACOM 2018. The networks are in
``two_stage_nets``, the four steps that train them in ``two_stage_steps``; here is how
they predict.

What the paper leaves open, and what was chosen:

- Channels are not given: 16 in Net1's first block and 32 in Net2's, doubling. "Each block"
  has a pooling layer, so each net has four poolings, and the fourth block up meets the
  fourth block down; upsampling is by transposed convolutions of stride 2.
- "1x1x(K - 1) kernels", with which "every K input slices generate only one": a block has
  two convolutions, so the first has K - 1 slices and the second the 2 that are left.
  Padding along the stack in the encoder is with zeros. Skip connections into the 2D
  decoder carry the middle slice. Every slice has a stack of its own, in training as later.
- The decoder of Net2 is "5x5x5" in one sentence and 2D in another: 5x5.
- Net2 has a "two-channel" input, image and output of Net1, which has K classes: the
  foreground's probability is that second channel; ``prior`` gives it all the classes.
- Equations 1 and 2 divide by voxel counts, N_c, which would leave gradients of about
  1 / N_c: here the weights 1 / N_c are scaled so that they add up to 1 over the classes
  that are labeled in the batch, as the loss 1 - sum of weighted Dice then begins at 0; with
  one class left, as in equation 2, that is 1 - Dice. N_c is counted over all labeled voxels.
  Its sums run "to N_c", over the voxels of the class: here over all labeled voxels, or
  nothing would punish false positives. Class weights of the training are multiplied on.
- Step 1 has "the foreground Dice" in table 1, but "combined with the multi-class Dice" in
  one sentence: the table's.
- Step 1 sees whole volumes, of which only the gray values are changed (and which are
  mirrored, where the training asks for that): deforming one would take longer than the step.
- "Size of each subvolume": the side of a cube in space, cut where the volume ends.
  In step 3 Net2 labels a few slices of it, drawn among those that hold labels.
- In step 4 Net1, frozen, has seen the whole volume as it has when it is used, not the K
  slices alone. Stacks are deformed within their slices only: tilted, the one that is
  labeled would leave the painted one. Rotation, scaling, elastic deformation and
  mirroring are those of the training settings.
- 200 epochs of 16 iterations in each step: equal shares of the budget. Adam is AdamW here.
- Intensities: standardized, as everywhere here, not rescaled to [-1, 1].
- The dynamic tile is the box in which Net1's foreground probability exceeds
  ``found_above``, two coarse voxels wider on each side. Outside of it Net1's own answer
  stands. Where Net1 finds nothing at all, Net2 labels everything rather than nothing.

Limit: Net1 sees the whole volume, so it has to fit in memory, as float32.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_volseg.data.tiles import crop_around, meet, relative
from napari_volseg.models.registry import Architecture, Walk
from napari_volseg.models.two_stage_nets import TwoStage, TwoStageConfig, build, read_region
from napari_volseg.models.two_stage_steps import largest, stages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.plan import Triple

COARSE_VOXELS_CPU, COARSE_VOXELS_GPU = 20**3, 96**3
"""What a volume is resampled to for Net1, at most, where its extent decides."""

VOXELS_AT_ONCE = 2**21
"""Voxels of stacks that Net2 sees at once in a prediction: bounds its memory."""

PIECES = 8
"""Pieces that a volume is predicted in, along the stack. Net1 runs again for each, but what
is finished can be looked at, and what is not wanted is not computed."""

MARGIN = 2
"""Coarse voxels that the dynamic tile is wider than what Net1 found."""


def fit(config: TwoStageConfig, cases: Sequence[Case], voxels: int = 0) -> TwoStageConfig:
    """Fill in the voxel size, and the coarse one where the paper's 3 mm mean nothing.

    Parameters
    ----------
    voxels : int
        Of the coarse grid, at most; 0 means 3 mm in volumes that are measured in mm.
    """
    volume = cases[0].volume
    shape = largest([case.volume.shape for case in cases])
    config = replace(config, voxel=volume.spacing)
    if volume.unit == "millimeter" and not voxels:
        return config
    coarse = replace(config, coarse_spacing=min(volume.spacing))
    while math.prod(coarse.coarse_shape(shape)) > (voxels or COARSE_VOXELS_GPU):
        coarse = replace(coarse, coarse_spacing=coarse.coarse_spacing * 2**0.125)
    return coarse


def auto(cases: Sequence[Case], device: torch.device, training: TrainingConfig) -> TwoStageConfig:
    """Choose narrow networks and little context on a CPU, the paper's sizes on a GPU.

    On both, a higher learning rate and a loss that learn in minutes, and all of Net1's
    classes for Net2.
    """
    fast = TwoStageConfig(
        prior="classes", loss="mixed", schedule="training", learning_rate=1e-3, batch_size=2
    )
    if device.type != "cpu":
        return fit(fast, cases, COARSE_VOXELS_GPU)
    narrow = replace(
        fast,
        net1_channels=8,
        net2_channels=8,
        blocks=3,
        neighbors=5,
        learning_rate=3e-3,
        sizes=(32, 48, 64),
        plane=64,
        shares=(1.0, 1.0, 2.0, 4.0),
        tile=256,
    )
    return fit(narrow, cases, COARSE_VOXELS_CPU)


def walk(config: TwoStageConfig, shape: Triple) -> Walk:
    """Pieces that all read the whole volume, which Net1 needs."""
    core = [config.tile] * 3
    core[config.axis] = max(config.neighbors, -(-shape[config.axis] // PIECES))
    return Walk(core=(core[0], core[1], core[2]), halo=shape)


def dynamic_tile(config: TwoStageConfig, coarse: Tensor, shape: Sequence[int]) -> Region:
    """Box that Net1 found the foreground in, all of the volume if it found none.

    Parameters
    ----------
    coarse : float32 (K, z, y, x)
        Net1's logits.
    shape : (Z, Y, X)
        Of the volume.
    """
    found = 1 - coarse.softmax(0)[0] > config.found_above
    if not found.any():
        return slice(0, shape[0]), slice(0, shape[1]), slice(0, shape[2])
    sides = []
    for axis, (n, step) in enumerate(zip(shape, config.divisor, strict=True)):
        along = found.movedim(axis, 0).flatten(1).any(1).nonzero()
        first, last = int(along.min()) - MARGIN, int(along.max()) + 1 + MARGIN
        scale = n / len(found.movedim(axis, 0))
        # Pooling falls on the same voxels whatever the box.
        start = max(0, math.floor(first * scale)) // step * step
        sides.append(slice(start, min(n, math.ceil(last * scale))))
    return sides[0], sides[1], sides[2]


def probabilities(module: TwoStage, config: TwoStageConfig, block: Tensor, core: Region) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a block (1, C, Z, Y, X), a whole volume.

    Net2's inside of the dynamic tile, Net1's outside.
    """
    shape = block.shape[2:]
    coarse = module.coarse(block)[0]
    found = read_region(coarse, core, shape).softmax(0)
    tile = dynamic_tile(config, coarse, shape)
    for piece in pieces(config, meet(core, tile)):
        # Neighboring slices are read beyond the tile, as far as the volume has them.
        seen, _ = crop_around(piece, config.reach, config.divisor, shape)
        bounds = [slice(0, shape[a]) if a == config.axis else tile[a] for a in range(3)]
        seen = meet(seen, (bounds[0], bounds[1], bounds[2]))
        prior = module.prior(read_region(coarse, seen, shape)[None])[0]
        within = relative(piece, seen)
        slices = range(within[config.axis].start, within[config.axis].stop)
        logits = module.fine(torch.cat([block[(0, slice(None), *seen)], prior]), slices)
        logits = logits.movedim(0, 1 + config.axis).float()
        inner = [slice(None) if a == config.axis else within[a] for a in range(3)]
        target = (slice(None), *relative(piece, core))
        found[target] = logits[(slice(None), *inner)].softmax(0)
    return found


def pieces(config: TwoStageConfig, region: Region) -> Iterator[Region]:
    """Cut a region into as many slices as Net2 can see at once; none of an empty one."""
    plane = math.prod(
        side.stop - side.start for axis, side in enumerate(region) if axis != config.axis
    )
    if plane == 0:
        return
    at_once = max(1, VOXELS_AT_ONCE // (plane * config.neighbors))
    side = region[config.axis]
    for start in range(side.start, side.stop, at_once):
        piece = list(region)
        piece[config.axis] = slice(start, min(start + at_once, side.stop))
        yield piece[0], piece[1], piece[2]


ARCHITECTURES = (
    Architecture(
        name="two_stage",
        title="Two-stage U-Net",
        summary="A coarse look at the whole volume, then a fine one at each slice.",
        paper="Wang et al. 2018, A Two-Stage U-Net Model for 3D Multi-class Segmentation on "
        "Full-Resolution Cardiac Data",
        config=TwoStageConfig,
        presets={
            "paper": TwoStageConfig(),
            **{f"paper_without_step_{n}": TwoStageConfig(left_out=(n,)) for n in (1, 2, 3)},
        },
        fit=fit,
        auto=auto,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
        # Seven structures of the heart, and the background.
        paper_classes=8,
    ),
)
