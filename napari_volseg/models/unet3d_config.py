"""Settings of the 3D U-Net, and which of them suit a device and the voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from napari_volseg.data.errors import InputError
from napari_volseg.sparse.learned_filters import cells_of
from napari_volseg.sparse.plan import (
    Triple,
    inside,
    largest_shape,
    plan_patch,
    plan_resolution,
    pooled,
    valid_margin,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch

    from napari_volseg.data.annotation import Case
    from napari_volseg.sparse.config import TrainingConfig

FILTER_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Scales of the filters that ``auto`` puts beside it, in units of the finest voxel side."""

VOXELS_A_MINUTE = 16_000
"""Voxels that a step of a CPU's network sees, for each minute that it trains, up to which these
are not averaged into cells: one core then takes some five hundred steps or more."""

THIN = 8
"""Voxels of a volume along an axis below which they are not averaged."""

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

    cells: Triple = (1, 1, 1)
    """Voxels (z, y, x) that are averaged into one, which is what the network sees; its logits are
    interpolated. Of two voxels it costs an eighth, and the filters see the detail."""

    filter_scales: tuple[float, ...] = ()
    """Scales of the filters of a pixel classifier beside the network, in units of the finest
    voxel side; none in the paper."""

    learned_filters: bool = False
    """Whether that pixel classifier also sees what a small network, which learned on generated
    volumes what tells things apart, makes of the image."""

    second_look: bool = False
    """Whether, beside filters, a classifier is trained at the end that knows what network and pixel
    classifier found around a voxel."""

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
        if max(self.cells) > 1 and self.padding == "valid":
            raise InputError("cells go with padding 'same' only; leave one of the two out")

    @property
    def looks_again(self) -> bool:
        """Whether it has a second look."""
        return self.second_look and bool(self.filter_scales)

    @property
    def divisor(self) -> Triple:
        """Voxels (z, y, x) that one voxel of the lowest resolution step stands for."""
        return pooled((self.cells, *self.pooling))

    @property
    def margin(self) -> Triple:
        """Voxels of context that an output voxel needs on each side, (z, y, x)."""
        margin = valid_margin(self.pooling, self.kernels)
        # It lies between two cells.
        z, y, x = ((m + (c > 1)) * c for m, c in zip(margin, self.cells, strict=True))
        return z, y, x


def auto(cases: Sequence[Case], device: torch.device, training: TrainingConfig) -> UNet3DConfig:
    """Choose settings that fit the device and the voxels.

    A CPU gets a narrow network of three steps, a GPU the paper's width. Where the minutes
    are few for a CPU, it sees cells of two voxels: there are enough steps of these.
    """
    on_cpu = device.type == "cpu"
    config = fitting(cases, on_cpu, (1, 1, 1))
    voxels = config.batch_size * max(math.prod(patch) for patch in config.patches)
    if on_cpu and not training.steps and voxels > VOXELS_A_MINUTE * training.minutes:
        shape = largest_shape(cases)
        z, y, x = (
            c if n >= THIN else 1 for c, n in zip(cells_of(config.voxel), shape, strict=True)
        )
        config = fitting(cases, on_cpu, (z, y, x))
    return config


def fitting(cases: Sequence[Case], on_cpu: bool, cells: Triple) -> UNet3DConfig:
    """Return settings for a network that sees cells of so many voxels (z, y, x).

    Axes are pooled only once their cells are no finer than twice the others', so that
    features become isotropic in space; coarse axes get no convolution before.
    """
    spacing, shape = cases[0].volume.spacing, largest_shape(cases)
    pooling, kernels = plan_resolution(
        [s * c for s, c in zip(spacing, cells, strict=True)],
        [-(-n // c) for n, c in zip(shape, cells, strict=True)],
        3 if on_cpu else 4,
    )
    steps = (cells, *pooling)
    voxels = 40**3 * math.prod(cells) if on_cpu else 128**3
    patches = tuple(
        plan_patch(
            [s * (SLAB if a == axis else 1) for a, s in enumerate(spacing)],
            inside(shape),
            steps,
            voxels,
        )
        for axis in range(3)
    )
    return UNet3DConfig(
        channels=8 if on_cpu else 32,
        pooling=pooling,
        kernels=kernels,
        cells=cells,
        padding="same",
        test_statistics="running",
        filter_scales=FILTER_SCALES,
        learned_filters=True,
        second_look=True,
        learned_start=True,
        position=True,
        voxel=(spacing[0] / min(spacing), spacing[1] / min(spacing), spacing[2] / min(spacing)),
        patches=patches,
        tile=plan_patch(spacing, (10**6,) * 3, steps, 112**3 if on_cpu else 192**3),
        # A batch of one would fall off torch's fast path for small convolutions on a CPU.
        batch_size=2,
    )
