"""The labeled voxels that a training draws from, and those it is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_volseg.data.annotation import UNLABELED, Case, count_labels
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import (
    Intensity,
    measure_intensity,
    pooled_intensity,
    standardize,
)
from napari_volseg.data.tiles import Region, read_block
from napari_volseg.sparse.places import HeldOutPlaces, locate_held_out, slice_axes
from napari_volseg.sparse.stage import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.volume import Volume
    from napari_volseg.sparse.config import TrainingConfig

HELD_OUT_BLOCK = 12
"""Edge of the blocks that are held out, in voxels of the finest axis: larger than
noise and staining grain, so that a held-out voxel is no copy of a trained neighbor."""

CACHE_BYTES = 2**30
"""Volumes up to this size are standardized once and kept; larger ones are read patch by patch."""


@dataclass(frozen=True, eq=False)
class PoolCase:
    """One annotated volume, ready to be sampled.

    Attributes
    ----------
    volume : Volume
    intensity : Intensity
        What standardizes its gray values.
    target : int16 (Z, Y, X)
        Class index of the voxels to train on, ``IGNORE`` elsewhere.
    held_out : int16 (Z, Y, X)
        Class index of the voxels to judge by, ``IGNORE`` elsewhere.
    voxels : tuple of int32 (N, 3)
        Positions to train on, one array for each class.
    axes : tuple of int8 (N,)
        For each of them, the axis that its slice is across.
    standardized : float32 tensor (C, Z, Y, X) or None
        The image, if it is small enough to be kept.
    """

    volume: Volume
    intensity: Intensity
    target: NDArray[np.int16] = field(repr=False)
    held_out: NDArray[np.int16] = field(repr=False)
    voxels: tuple[NDArray[np.int32], ...] = field(repr=False)
    axes: tuple[NDArray[np.int8], ...] = field(repr=False)
    standardized: Tensor | None = field(default=None, repr=False)

    @cached_property
    def places(self) -> HeldOutPlaces:
        """Where the held-out voxels are; found when it is first asked for."""
        return locate_held_out(self.target, self.held_out, self.volume.spacing)

    def read(self, region: Region) -> Tensor:
        """Return the standardized image of a region inside the volume, float32 (C, z, y, x)."""
        if self.standardized is not None:
            return self.standardized[(slice(None), *region)]
        return torch.from_numpy(standardize(read_block(self.volume, region), self.intensity))

    def labeled(self) -> tuple[Tensor, Tensor]:
        """Return the voxels to train on, int64 (N, 3), and their class index, int64 (N,)."""
        counts = torch.tensor([len(positions) for positions in self.voxels])
        target = torch.arange(len(counts)).repeat_interleave(counts)
        return torch.from_numpy(np.concatenate(self.voxels)).long(), target


@dataclass(frozen=True, eq=False)
class Pool:
    """Everything that a training draws from.

    Attributes
    ----------
    cases : tuple of PoolCase
    class_ids : tuple of int
        Label of class index k.
    counts : tuple of int
        Voxels to train on, of each class.
    device : torch.device
        Where batches go.
    """

    cases: tuple[PoolCase, ...]
    class_ids: tuple[int, ...]
    counts: tuple[int, ...]
    device: torch.device

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.class_ids)


def class_ids_of(cases: Sequence[Case]) -> tuple[int, ...]:
    """Every class of the cases, ascending."""
    return tuple(sorted({i for case in cases for i in case.annotation.class_ids}))


def to_target(labels: NDArray[np.integer], class_ids: Sequence[int]) -> NDArray[np.int16]:
    """Map labels to class indices; unlabeled voxels become ``IGNORE``."""
    table = np.full(max(class_ids) + 1, IGNORE, dtype=np.int16)
    table[list(class_ids)] = np.arange(len(class_ids), dtype=np.int16)
    table[UNLABELED] = IGNORE
    return np.asarray(table[labels])


def build_pool(cases: Sequence[Case], config: TrainingConfig, device: torch.device) -> Pool:
    """Split the labeled voxels into trained and held-out ones and prepare the images.

    Raises
    ------
    InputError
        If there is nothing to learn from: no case, fewer than two classes painted,
        volumes with different numbers of channels, class weights that do not fit.
    """
    check_cases(cases)
    class_ids = class_ids_of(cases)
    if config.class_weights and len(config.class_weights) != len(class_ids):
        raise InputError(
            f"{len(config.class_weights)} class weights for the {len(class_ids)} classes "
            f"{class_ids}; give one for each"
        )
    random = np.random.default_rng(config.seed)
    intensities = [measure_intensity(case.volume) for case in cases]
    if config.normalization == "training":
        intensities = [pooled_intensity(intensities)] * len(cases)
    prepared = []
    for case, intensity in zip(cases, intensities, strict=True):
        target = to_target(case.annotation.labels, class_ids)
        painted = target != IGNORE
        spacing = case.volume.spacing
        held = choose_held_out(target, len(class_ids), config.held_out, spacing, random)
        trained = np.where(held == IGNORE, target, np.int16(IGNORE))
        voxels = tuple(np.argwhere(trained == k).astype(np.int32) for k in range(len(class_ids)))
        prepared.append(
            PoolCase(
                volume=case.volume,
                intensity=intensity,
                target=trained,
                held_out=held,
                voxels=voxels,
                axes=tuple(slice_axes(painted, positions) for positions in voxels),
                standardized=standardized_if_small(case.volume, intensity),
            )
        )
    counts = tuple(sum(len(case.voxels[k]) for case in prepared) for k in range(len(class_ids)))
    return Pool(tuple(prepared), class_ids, counts, device)


def check_cases(cases: Sequence[Case]) -> None:
    """Refuse cases that nothing can be learned from.

    Raises
    ------
    InputError
        The message says what to paint or to leave out.
    """
    if not cases:
        raise InputError("nothing to train on: give at least one image with its annotation")
    painted = {i for case in cases for i in count_labels(case.annotation.labels)}
    if len(painted) < 2:
        names = ", ".join(case.volume.name for case in cases)
        what = f"only class {painted.pop()} is painted" if painted else "nothing is painted"
        raise InputError(f"{names}: {what}; paint at least two classes, one of them background")
    channels = {case.volume.name: case.volume.channels for case in cases}
    if len(set(channels.values())) > 1:
        listed = ", ".join(f"{name} has {count}" for name, count in channels.items())
        raise InputError(f"the images differ in their number of channels: {listed}")


def choose_held_out(
    target: NDArray[np.int16],
    n_classes: int,
    part: float,
    spacing: tuple[float, float, float],
    random: np.random.Generator,
) -> NDArray[np.int16]:
    """Hold out whole blocks of labeled voxels.

    Each class loses about ``part`` of its blocks, at least one where it has two or
    more, and never its last: no class that was painted goes untrained.

    Parameters
    ----------
    target : int16 (Z, Y, X)
        Class index, ``IGNORE`` where unlabeled.

    Returns
    -------
    int16 (Z, Y, X)
        Class index where held out, ``IGNORE`` elsewhere.
    """
    held = np.full_like(target, IGNORE)
    if part == 0:
        return held
    positions = np.argwhere(target != IGNORE)
    classes = target[tuple(positions.T)]
    edge = np.maximum(1, np.round(HELD_OUT_BLOCK * min(spacing) / np.asarray(spacing))).astype(int)
    grid = -(-np.asarray(target.shape) // edge)
    block = np.ravel_multi_index(tuple((positions // edge).T), tuple(grid))
    blocks, block = np.unique(block, return_inverse=True)
    chosen = np.zeros(len(blocks), dtype=bool)
    # Rare classes choose first, while every block is still free to be trained on.
    for k in np.argsort(np.bincount(classes, minlength=n_classes)):
        with_class = np.unique(block[classes == k])
        want = round(part * len(with_class)) or (1 if len(with_class) > 1 else 0)
        free = random.permutation(with_class[~chosen[with_class]])
        chosen[free[: max(0, want - int(chosen[with_class].sum()))]] = True
    # A block serves all classes in it: give one back to a class that lost its last.
    for k in range(n_classes):
        with_class = np.unique(block[classes == k])
        if len(with_class) and chosen[with_class].all():
            chosen[random.choice(with_class)] = False
    keep = positions[chosen[block]]
    held[tuple(keep.T)] = target[tuple(keep.T)]
    return held


def standardized_if_small(volume: Volume, intensity: Intensity) -> Tensor | None:
    """Return the standardized image, or None if it would take more than ``CACHE_BYTES``."""
    if 4 * int(np.prod(volume.image.shape)) > CACHE_BYTES:
        return None
    z, y, x = volume.shape
    whole = (slice(0, z), slice(0, y), slice(0, x))
    return torch.from_numpy(standardize(read_block(volume, whole), intensity))
