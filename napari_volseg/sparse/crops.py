"""Small crops around objects: the examples that a classifier learns from, and how it sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from napari_volseg.data.errors import InputError
from napari_volseg.sparse.augment import change_gray_values

if TYPE_CHECKING:
    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.intensity import Intensity
    from napari_volseg.sparse.object_config import ObjectConfig

ALIKE = 1.5
"""Voxels up to this much longer than wide look alike when they are turned: beyond, an object
is blurred along one axis, and no object to be classified is blurred along another."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Objects whose class is known.

    Attributes
    ----------
    crops : float32 (N, C, side, side, side)
        Cubes in space: channels of standardized gray values, then the mask (0 or 1), as
        far as there are.
    target : int64 (N,)
        Index of each one's class in ``classes``.
    classes : tuple of LabelClass
    gray_channels : int
        How many of the channels are gray values.
    spacing : (z, y, x)
        Voxel size of the volume that the crops are from, in ``unit``.
    unit : str
    intensity : Intensity
        What standardized the gray values.

    Raises
    ------
    InputError
        If there are examples of fewer than two classes.
    """

    crops: Tensor = field(repr=False)
    target: Tensor
    classes: tuple[LabelClass, ...]
    gray_channels: int
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: str = "pixel"
    intensity: Intensity = ()

    def __post_init__(self) -> None:
        if len(set(self.target.tolist())) < 2:
            raise InputError("the examples are of fewer than two classes; give some of each class")


@dataclass(frozen=True, eq=False)
class CropBatch:
    """What a step sees: crops float32 (B, C, side, side, side), target int64 (B,)."""

    crops: Tensor
    target: Tensor


def draw_crops(
    examples: Examples, config: ObjectConfig, count: int, generator: torch.Generator
) -> CropBatch:
    """Draw augmented crops: a class that has examples, then one of them, each evenly."""
    planes = alike_planes(examples.spacing) if config.turns else ()
    target = examples.target.cpu()
    present = torch.tensor(sorted(set(target.tolist())))
    crops, chosen = [], []
    for _ in range(count):
        members = torch.nonzero(target == draw(present, generator))[:, 0]
        index = draw(members, generator)
        crop = turned(examples.crops[index], planes, config.flips, generator)
        gray, mask = crop[: examples.gray_channels], crop[examples.gray_channels :]
        crops.append(torch.cat([change_gray_values(gray, config.gray_value, generator), mask]))
        chosen.append(index)
    return CropBatch(torch.stack(crops), examples.target[torch.stack(chosen)])


def draw(values: Tensor, generator: torch.Generator) -> Tensor:
    """Draw one of the values (N,), evenly."""
    return values[int(torch.randint(len(values), (1,), generator=generator))]


def alike_planes(spacing: tuple[float, float, float]) -> tuple[tuple[int, int], ...]:
    """Return the planes, pairs of (z, y, x) axes, in which an object looks alike when turned."""
    return tuple(
        (a, b)
        for a, b in combinations(range(3), 2)
        if max(spacing[a], spacing[b]) <= ALIKE * min(spacing[a], spacing[b])
    )


def turned(
    crop: Tensor, planes: tuple[tuple[int, int], ...], flips: bool, generator: torch.Generator
) -> Tensor:
    """Turn a crop (C, side, side, side) by quarter turns in planes, and mirror it, at random."""
    for plane in planes:
        turns = int(torch.randint(4, (1,), generator=generator))
        crop = crop.rot90(turns, [axis + 1 for axis in plane])
    if flips:
        mirrored = torch.nonzero(torch.rand(3, generator=generator) < 0.5)[:, 0] + 1
        crop = crop.flip(mirrored.tolist())
    return crop
