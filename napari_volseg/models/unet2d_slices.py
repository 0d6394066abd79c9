"""The 2D counterpart of the 3D U-Net: every labeled slice is an independent image.

Cicek, Abdulkadir, Lienkamp, Brox, Ronneberger, "3D U-Net", MICCAI 2016, section 4.1: "a
pure 2D implementation, that treats all labelled slices as independent images", with batch
normalization (tables 1 and 3). The paper says no more. Chosen here: the network of figure
2 with kernels and pooling one voxel thick, and one set of weights for slices across z, y
and x. Pixels are not resampled, so a slice across y or x shows anisotropic voxels stretched;
its patches are cut so that they span the same space. A volume is predicted as the mean of
the probabilities that the slices of the three orientations give a voxel, or by slices
across z alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from napari_volseg.data.errors import InputError
from napari_volseg.models import unet3d
from napari_volseg.models.registry import Architecture, Walk, count_convolutions
from napari_volseg.models.unet3d import UNet3D, network_reach
from napari_volseg.models.unet3d_config import UNet3DConfig
from napari_volseg.sparse.optimizer import make_optimizer
from napari_volseg.sparse.patches import labeled_loss
from napari_volseg.sparse.plan import Triple, largest_shape, valid_size
from napari_volseg.sparse.sampling import PatchPlan, draw_voxel, sample_batch
from napari_volseg.sparse.stage import Batch, Stage, schedule_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.annotation import Case
    from napari_volseg.data.tiles import Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.pool import Pool

PLANES_AT_ONCE = 16
"""Slices that pass through the network together in prediction, for bounded memory."""


@dataclass(frozen=True, kw_only=True)
class SlicesConfig:
    """Settings of the 2D U-Net on slices of every orientation; the defaults are the paper's.

    Raises
    ------
    InputError
        For settings that build no network.
    """

    channels: int = 32
    """Channels of the first convolution; they double before each pooling."""

    levels: int = 4
    """Resolution steps."""

    normalization: Literal["batch", "none"] = "batch"
    """Batch normalization before each ReLU, or none."""

    test_statistics: Literal["batch", "running"] = "batch"
    """What batch normalization uses at test time: the current slice's own statistics, or those
    gathered in training, with which a tiled prediction equals a whole one."""

    padding: Literal["valid", "same"] = "valid"
    """"valid" convolutions see real (mirrored at borders) context only; "same" ones pad with
    zeros, which costs far less on small tiles."""

    patch: Triple = (28, 44, 44)
    """Pixels that the loss sees along z, y and x; a patch has two of these sides and is one
    voxel thick."""

    tile: Triple = (28, 44, 44)
    """Voxels (z, y, x) that a tile predicts."""

    batch_size: int = 1
    """Patches a step, all of one orientation."""

    orientation: Literal["mean", "z"] = "mean"
    """Predict by slices across z, y and x and take the mean of their probabilities, or by
    slices across z alone, which takes a third of the time."""

    def __post_init__(self) -> None:
        if self.levels < 1 or self.batch_size < 1:
            raise InputError(
                f"levels is {self.levels} and batch_size {self.batch_size}; both begin at 1"
            )
        if min(*self.patch, *self.tile) < 1:
            raise InputError(f"patch is {self.patch} and tile {self.tile}; every side begins at 1")
        if self.orientation not in ("mean", "z"):
            raise InputError(f"orientation is {self.orientation!r}; choose mean or z")
        # What is wrong with the network itself, it tells.
        _ = self.network

    @property
    def network(self) -> UNet3DConfig:
        """Figure 2 with kernels and pooling one voxel thick."""
        return UNet3DConfig(
            channels=self.channels,
            pooling=((1, 2, 2),) * (self.levels - 1),
            kernels=((1, 3, 3),) * self.levels,
            normalization=self.normalization,
            test_statistics=self.test_statistics,
            padding=self.padding,
        )

    def side(self, size: int) -> int:
        """Round a number of pixels up to one that the network's pooling divides."""
        network = self.network
        if self.padding == "valid":
            return valid_size((1, 1, size), network.pooling, network.kernels)[2]
        return -(-size // network.divisor[2]) * network.divisor[2]


def build(config: SlicesConfig, in_channels: int, n_classes: int) -> UNet3D:
    """Build the network; a batch of images (B, C, N, Y, X) is N slices each."""
    return unet3d.build(config.network, in_channels, n_classes)


def auto(cases: Sequence[Case], device: torch.device, training: TrainingConfig) -> SlicesConfig:
    """Choose settings that fit the device and the voxels.

    A CPU gets a narrow network, a GPU the paper's width. Patches of all orientations
    span the same space, as far as the volume reaches.
    """
    on_cpu = device.type == "cpu"
    spacing = cases[0].volume.spacing
    shape = largest_shape(cases)
    config = SlicesConfig(
        channels=8 if on_cpu else 32,
        padding="same",
        test_statistics="running",
        tile=(128, 128, 128),
        batch_size=8,
    )
    edge = (128 if on_cpu else 256) * min(spacing)
    z, y, x = (config.side(min(n, round(edge / s))) for n, s in zip(shape, spacing, strict=True))
    return replace(config, patch=(z, y, x))


def slices_across(pool: Pool, axis: int) -> Pool:
    """Return the pool of the voxels that were painted on slices across one axis."""
    cases = tuple(
        replace(
            case,
            voxels=tuple(v[a == axis] for v, a in zip(case.voxels, case.axes, strict=True)),
            axes=tuple(a[a == axis] for a in case.axes),
        )
        for case in pool.cases
    )
    counts = tuple(sum(len(case.voxels[k]) for case in cases) for k in range(pool.n_classes))
    return replace(pool, cases=cases, counts=counts)


def patch_plan(config: SlicesConfig, training: TrainingConfig, axis: int) -> PatchPlan:
    """Plan patches of slices across an axis: one voxel thick, with context in their plane."""
    valid = config.padding == "valid"
    margin = config.network.margin[2] if valid else 0
    z, y, x = (1 if a == axis else config.side(n) for a, n in enumerate(config.patch))
    halo = (0 if axis == 0 else margin, 0 if axis == 1 else margin, 0 if axis == 2 else margin)
    return PatchPlan(
        shapes=((z, y, x),),
        halo=halo,
        border="mirror" if valid else "clip",
        batch_size=training.batch_size or config.batch_size,
    )


def stages(config: SlicesConfig, training: TrainingConfig, pool: Pool) -> tuple[Stage[UNet3D], ...]:
    """Patches of labeled slices, all turned to lie across z; SGD or AdamW."""
    pools = [slices_across(pool, axis) for axis in range(3)]
    plans = [patch_plan(config, training, axis) for axis in range(3)]
    score = labeled_loss(training, pool)

    def sample(generator: torch.Generator) -> Batch:
        # An orientation comes as often as its labels would be drawn among all.
        _, _, axis = draw_voxel(pool, generator)
        batch = sample_batch(pools[axis], plans[axis], training, generator)
        return Batch(batch.image.movedim(axis + 2, 2), batch.target.movedim(axis + 1, 1))

    def loss(module: UNet3D, batch: Batch, step: int) -> Tensor:
        return score(module(batch.image), batch.target)

    return (
        Stage(
            name="slices",
            sample=sample,
            loss=loss,
            optimizer=partial(make_optimizer, training, 1e-2),
            schedule=schedule_of(training),
        ),
    )


def walk(config: SlicesConfig, shape: Triple) -> Walk:
    """Tiles with the context that their slices see: in all directions, or across z in-plane."""
    network, valid = config.network, config.padding == "valid"
    reach = network.margin[2] if valid else network_reach(network)[2]
    step = 1 if valid else network.divisor[2]
    z, y, x = config.tile
    if config.orientation == "mean":
        return Walk(
            core=(config.side(z), config.side(y), config.side(x)),
            halo=(reach, reach, reach),
            border="mirror" if valid else "clip",
            align=(step, step, step),
        )
    return Walk(
        core=(z, config.side(y), config.side(x)),
        halo=(0, reach, reach),
        border="mirror" if valid else "clip",
        align=(1, step, step),
    )


def probabilities(module: UNet3D, config: SlicesConfig, block: Tensor, core: Region) -> Tensor:
    """Class probabilities (K, z, y, x) of a core of a block (1, C, z, y, x)."""
    axes = (0, 1, 2) if config.orientation == "mean" else (0,)
    found = [slice_probabilities(module, config, block, core, axis) for axis in axes]
    return torch.stack(found).mean(0)


def slice_probabilities(
    module: UNet3D, config: SlicesConfig, block: Tensor, core: Region, axis: int
) -> Tensor:
    """Class probabilities (K, z, y, x) of a core by slices across one axis."""
    slices = block.movedim(axis + 2, 2)[:, :, core[axis]]
    u, v = (core[a] for a in range(3) if a != axis)
    # Current statistics must be those of one slice, which is an image of its own.
    current = config.normalization == "batch" and config.test_statistics == "batch"
    found = [
        unet3d.probabilities(module, config.network, part, (slice(0, part.shape[2]), u, v))
        for part in torch.split(slices, 1 if current else PLANES_AT_ONCE, dim=2)
    ]
    return torch.cat(found, 1).movedim(1, axis + 1)


ARCHITECTURES = (
    Architecture(
        name="unet2d_slices",
        title="2D U-Net on slices",
        summary="The 3D U-Net's 2D counterpart: learns from slices of every orientation alike.",
        paper=unet3d.PAPER,
        config=SlicesConfig,
        presets={"paper": SlicesConfig()},
        auto=auto,
        build=build,
        stages=stages,
        walk=walk,
        probabilities=probabilities,
        paper_channels=3,
        paper_classes=3,
        count=count_convolutions,
    ),
)
