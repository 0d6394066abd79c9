"""Patches drawn where labels are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_volseg.data.tiles import box_shape, meet, relative, whole_region
from napari_volseg.sparse.augment import (
    change_gray_values,
    deformed_positions,
    fold,
    interpolate,
    patch_positions,
)
from napari_volseg.sparse.position import with_position, with_region_position
from napari_volseg.sparse.stage import IGNORE, Batch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_volseg.data.tiles import Border, Region
    from napari_volseg.sparse.config import TrainingConfig
    from napari_volseg.sparse.plan import Triple
    from napari_volseg.sparse.pool import Pool, PoolCase

CLASS_UNIFORM = 0.5
"""Part of the patches whose labeled voxel is drawn with equal chances for every class;
the others draw from all labeled voxels alike, which keeps what is common common."""


REDRAWS = 20
"""Tries to find another voxel on a slice of the same orientation."""


@dataclass(frozen=True)
class PatchPlan:
    """The patches that an architecture trains on.

    Attributes
    ----------
    shapes : one or three of (z, y, x)
        Voxels that the loss sees. Three: for labels painted on slices across z, y and x.
    halo : (z, y, x)
        Context around them that only the image has (valid convolutions).
    border : "mirror" or "clip"
        "mirror": patches may reach beyond the volume, which is mirrored there;
        "clip": patches are moved inside, where they fit.
    batch_size : int
    position : bool
        Whether the image gets the position channels.
    foreground : float, optional
        Part of the patches that is drawn around a voxel of a class other than the first;
        without it, ``CLASS_UNIFORM`` rules.
    """

    shapes: tuple[Triple, ...]
    halo: Triple = (0, 0, 0)
    border: Border = "clip"
    batch_size: int = 1
    position: bool = False
    foreground: float | None = None


def sample_batch(
    pool: Pool, plan: PatchPlan, config: TrainingConfig, generator: torch.Generator
) -> Batch:
    """Draw augmented patches, each with at least one labeled voxel in reach of its middle.

    Parameters
    ----------
    generator : torch.Generator
        On the CPU; all randomness comes from it.

    Returns
    -------
    Batch
        On the pool's device.
    """
    images, targets = [], []
    shape = None
    for _ in range(plan.batch_size):
        case, voxel, axis = draw_voxel(pool, generator, foreground=plan.foreground)
        # The patches of a batch have one shape: the first voxel's slice decides.
        shape = shape or plan.shapes[axis % len(plan.shapes)]
        for _ in range(REDRAWS):
            if plan.shapes[axis % len(plan.shapes)] == shape:
                break
            case, voxel, axis = draw_voxel(pool, generator, foreground=plan.foreground)
        image, target = sample_patch(case, voxel, shape, plan, config, generator, pool.device)
        images.append(image)
        targets.append(target)
    return Batch(torch.stack(images), torch.stack(targets))


def draw_voxel(
    pool: Pool,
    generator: torch.Generator,
    *,
    uniform: float = CLASS_UNIFORM,
    foreground: float | None = None,
) -> tuple[PoolCase, Tensor, int]:
    """Draw a labeled voxel.

    Parameters
    ----------
    uniform : float
        Probability that every class has the same chance, and not every voxel.
    foreground : float, optional
        Instead: probability that it is of a class other than the first, each of them alike.

    Returns
    -------
    case : PoolCase
    position : (3,), z, y, x
    axis : int
        What the slice that it was painted on is across.
    """
    classes = [k for k, count in enumerate(pool.counts) if count]
    chance = float(torch.rand(1, generator=generator))
    if foreground is not None:
        wanted = [k for k in classes if (k > 0) == (chance < foreground)]
        classes = wanted or classes
        weights = [1.0] * len(classes)
    elif chance < uniform:
        weights = [1.0] * len(classes)
    else:
        weights = [float(pool.counts[k]) for k in classes]
    k = classes[_draw(weights, generator)]
    case = pool.cases[_draw([float(len(c.voxels[k])) for c in pool.cases], generator)]
    index = int(torch.randint(len(case.voxels[k]), (1,), generator=generator))
    return case, torch.from_numpy(case.voxels[k][index]), int(case.axes[k][index])


def _draw(weights: Sequence[float], generator: torch.Generator) -> int:
    if len(weights) == 1:
        return 0
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator))


def sample_patch(
    case: PoolCase,
    voxel: Tensor,
    shape: Triple,
    plan: PatchPlan,
    config: TrainingConfig,
    generator: torch.Generator,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """Cut one augmented patch around a labeled voxel.

    Returns
    -------
    image : float32 (C, z, y, x), halo included, with 3 more channels for the position
    target : int64 (z, y, x)
    """
    # The voxel falls anywhere in the middle half, so that it is seen with context.
    shift = (torch.rand(3, generator=generator) - 0.5) * torch.tensor(shape) / 2
    center = place_patch(voxel + shift, shape, plan.border, case.target.shape)
    z, y, x = (n + 2 * h for n, h in zip(shape, plan.halo, strict=True))
    inner = tuple(slice(h, h + n) for n, h in zip(shape, plan.halo, strict=True))
    if float(torch.rand(1, generator=generator)) < config.augmentation:
        spacing = case.volume.spacing
        positions = deformed_positions((z, y, x), center, spacing, config, generator)
        image = read_image(case, positions, device)
        if plan.position:
            image = with_position(image, positions, case.volume.shape)
        target = read_target(case, positions[inner])
    else:
        # Most patches: they are cut out, which is many times as fast as interpolating.
        region = upright_region(center, (z, y, x))
        image = case.read(region).to(device)
        if plan.position:
            image = with_region_position(image, region, case.volume.shape)
        target = cut_target(case, region)[inner]
    flipped = draw_flips(config, generator)
    if flipped:
        image, target = image.flip([axis + 1 for axis in flipped]), target.flip(flipped)
    return change_gray_values(image, config.gray_value, generator), target.to(device)


def augmented_positions(
    shape: Triple,
    center: Tensor,
    spacing: tuple[float, float, float],
    config: TrainingConfig,
    generator: torch.Generator,
) -> Tensor:
    """Positions (z, y, x, 3) of a patch, deformed and mirrored as often as the config asks for."""
    if float(torch.rand(1, generator=generator)) < config.augmentation:
        positions = deformed_positions(shape, center, spacing, config, generator)
    else:
        positions = patch_positions(shape, center)
    return positions.flip(draw_flips(config, generator))


def draw_flips(config: TrainingConfig, generator: torch.Generator) -> list[int]:
    """Draw the axes along which a patch is mirrored."""
    if not config.flips:
        return []
    return [axis for axis in range(3) if float(torch.rand(1, generator=generator)) < 0.5]


def upright_region(center: Tensor, shape: Triple) -> Region:
    """Region of an upright patch around a center of ``place_patch``; may lie outside."""
    corner = [round(float(c) - (n - 1) / 2) for c, n in zip(center, shape, strict=True)]
    z, y, x = (slice(first, first + n) for first, n in zip(corner, shape, strict=True))
    return z, y, x


def place_patch(center: Tensor, shape: Triple, border: Border, volume: Sequence[int]) -> Tensor:
    """Snap a patch to voxels and, with border "clip", move it inside the volume where it fits."""
    half = (torch.tensor(shape, dtype=torch.float32) - 1) / 2
    center = (center - half).round() + half
    if border == "clip":
        last = torch.tensor(volume, dtype=torch.float32) - 1
        middle = (last / 2 - half).floor() + half
        fits = half * 2 <= last
        center = torch.where(
            fits, center.clamp(min=half, max=torch.maximum(last - half, half)), middle
        )
    return center


def read_image(case: PoolCase, positions: Tensor, device: torch.device) -> Tensor:
    """Read the standardized image at positions (z, y, x, 3), mirrored outside, on the device."""
    folded = fold(positions, case.volume.shape)
    low = folded.flatten(0, 2).amin(0).floor().long()
    high = folded.flatten(0, 2).amax(0).ceil().long() + 1
    region = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    block = case.read((region[0], region[1], region[2])).to(device, torch.float32)
    return interpolate(block, (folded - low).to(device))


def read_target(case: PoolCase, positions: Tensor) -> Tensor:
    """Read the class index at the nearest voxel, ``IGNORE`` outside, int64 (z, y, x)."""
    nearest = positions.round().long()
    last = torch.tensor(case.target.shape) - 1
    inside = ((nearest >= 0) & (nearest <= last)).all(-1)
    nearest = nearest.clamp(min=torch.zeros(3, dtype=torch.long), max=last)
    low, high = nearest.flatten(0, 2).amin(0), nearest.flatten(0, 2).amax(0) + 1
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    z, y, x = (nearest - low).unbind(-1)
    values = torch.from_numpy(case.target[box])[z, y, x].long()
    return torch.where(inside, values, IGNORE)


def cut_target(case: PoolCase, region: Region) -> Tensor:
    """Cut out the class index in a region, ``IGNORE`` outside, int64 (z, y, x)."""
    inside = meet(region, whole_region(case.target.shape))
    target = torch.full(box_shape(region), IGNORE)
    target[relative(inside, region)] = torch.from_numpy(case.target[inside]).long()
    return target
