"""The labeled voxels that a training draws from, and those it is judged by."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from napari_volseg.data.annotation import UNLABELED, Case, count_labels
from napari_volseg.data.errors import InputError
from napari_volseg.data.intensity import (
    Intensity,
    Window,
    intensity_of,
    pooled_intensity,
    read_standardized,
    sample_gray_values,
)
from napari_volseg.data.labeled import (
    labeled_in_either,
    labeled_per_slice,
    labeled_positions,
    unlabeled_like,
)
from napari_volseg.data.tiles import Region, cut_block
from napari_volseg.sparse.hold_out import Blocks, empty_blocks, share_out
from napari_volseg.sparse.places import (
    HeldOutPlaces,
    locate_held_out,
    painted_slices,
    slice_axes,
)
from napari_volseg.sparse.stage import IGNORE
from napari_volseg.sparse.windows import windows_of_paint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.labeled import AnyLabels
    from napari_volseg.data.volume import Volume
    from napari_volseg.sparse.config import TrainingConfig

NEARLY_WHOLE = 0.8
"""Part of a slice from which on it counts as painted whole."""

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
    target : int16 (Z, Y, X), numpy or, as the annotation, ``SparseLabels``
        Class index of the voxels to train on, ``IGNORE`` elsewhere.
    held_out : int16 (Z, Y, X), numpy or ``SparseLabels``
        Class index of the voxels to judge by, ``IGNORE`` elsewhere.
    voxels : tuple of int32 (N, 3)
        Positions to train on, one array for each class.
    axes : tuple of int8 (N,)
        For each of them, the axis that its slice is across.
    blocks : Blocks
        By which voxels are held out.
    standardized : float32 tensor (C, Z, Y, X) or None
        The image, if it is small enough to be kept.
    kept : dict
        What stages computed of the image and may use again when labels have changed.
    """

    volume: Volume
    intensity: Intensity
    target: AnyLabels = field(repr=False)
    held_out: AnyLabels = field(repr=False)
    voxels: tuple[NDArray[np.int32], ...] = field(repr=False)
    axes: tuple[NDArray[np.int8], ...] = field(repr=False)
    blocks: Blocks = field(repr=False)
    standardized: Tensor | None = field(default=None, repr=False)
    kept: dict[Any, Any] = field(default_factory=dict, repr=False)

    @cached_property
    def places(self) -> HeldOutPlaces:
        """Where the held-out voxels are; found when it is first asked for."""
        return locate_held_out(self.target, self.held_out, self.volume.spacing)

    @cached_property
    def stroke_voxels(self) -> tuple[int, int]:
        """Labeled voxels that are on no slice that is painted whole, and all of them."""
        labeled = labeled_in_either(self.target, self.held_out, IGNORE)
        positions, _ = labeled_positions(labeled)
        strokes = np.ones(len(positions), bool)
        for axis, held in enumerate(labeled_per_slice(labeled)):
            whole = held / (labeled.size / len(held)) >= NEARLY_WHOLE
            strokes &= ~whole[positions[:, axis]]
        return int(strokes.sum()), len(positions)

    def read(self, region: Region) -> Tensor:
        """Return the standardized image of a region, float32 (C, z, y, x).

        Mirrored beyond the volume; a view where it can be.
        """
        if self.standardized is not None:
            return torch.from_numpy(cut_block(self.standardized.numpy(), region))
        return torch.from_numpy(read_standardized(self.volume, region, self.intensity))

    def labeled(self) -> tuple[Tensor, Tensor]:
        """Return the voxels to train on, int64 (N, 3), and their class index, int64 (N,)."""
        counts = torch.tensor([len(positions) for positions in self.voxels])
        target = torch.arange(len(counts)).repeat_interleave(counts)
        return torch.from_numpy(np.concatenate(self.voxels)).long(), target

    @cached_property
    def judged(self) -> tuple[NDArray[np.int32], NDArray[np.integer], NDArray[np.int8]]:
        """The voxels to judge by (N, 3), their class index (N,), and axes, as ``axes``."""
        voxels, classes = labeled_positions(self.held_out, IGNORE)
        # Not of ``places``: what it measures besides may wait until the first score.
        painted = labeled_in_either(self.target, self.held_out, IGNORE)
        axes, _ = painted_slices(painted, voxels)
        return voxels, classes, axes.astype(np.int8)


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

    @property
    def strokes(self) -> float:
        """Part of the labeled voxels, 0 to 1, that are on no slice that is painted whole."""
        strokes, labeled = np.sum([case.stroke_voxels for case in self.cases], axis=0)
        return float(strokes / labeled)


def class_ids_of(cases: Sequence[Case]) -> tuple[int, ...]:
    """Every class of the cases, ascending."""
    return tuple(sorted({i for case in cases for i in case.annotation.class_ids}))


def to_target(labels: NDArray[np.integer], class_ids: Sequence[int]) -> NDArray[np.int16]:
    """Map labels to class indices; unlabeled voxels become ``IGNORE``."""
    table = np.full(max(class_ids) + 1, IGNORE, dtype=np.int16)
    table[list(class_ids)] = np.arange(len(class_ids), dtype=np.int16)
    table[UNLABELED] = IGNORE
    return np.asarray(table[labels])


def build_pool(
    cases: Sequence[Case],
    config: TrainingConfig,
    device: torch.device,
    uses: Sequence[NDArray[np.int8]] = (),
    windows: Sequence[Window] = (),
) -> Pool:
    """Split the labeled voxels into trained and held-out ones and prepare the images.

    Parameters
    ----------
    uses : sequence of int8 (Z, Y, X), optional
        For each case the use of its blocks, as decided earlier (see ``Blocks``).
    windows : sequence of Window, optional
        The gray values that matter, for each channel, as decided earlier; without them, what is
        painted and trained on tells.

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
    decided: Sequence[NDArray[np.int8] | None] = uses or [None] * len(cases)
    shared = []
    for case, use in zip(cases, decided, strict=True):
        painted = case.annotation.labels
        blocks = empty_blocks(painted.shape, len(class_ids), case.volume.spacing, use)
        positions, labels = labeled_positions(painted)
        classes = to_target(labels, class_ids)
        blocks = share_out(blocks, blocks.count(positions, classes), config.held_out, random)
        out = blocks.held_out(positions)
        voxels = tuple(positions[(classes == k) & ~out] for k in range(len(class_ids)))
        axes = tuple(slice_axes(painted, found) for found in voxels)
        target, held = (unlabeled_like(painted, np.int16, IGNORE) for _ in range(2))
        target[tuple(positions[~out].T)] = classes[~out]
        held[tuple(positions[out].T)] = classes[out]
        shared.append((target, held, voxels, axes, blocks))
    volumes = [case.volume for case in cases]
    intensities = intensities_of(volumes, [voxels for _, _, voxels, _, _ in shared], windows)
    if config.normalization == "training":
        intensities = [pooled_intensity(intensities)] * len(cases)
    prepared = [
        PoolCase(volume, intensity, *parts, standardized_if_small(volume, intensity))
        for volume, intensity, parts in zip(volumes, intensities, shared, strict=True)
    ]
    return pool_of(prepared, class_ids, device)


def intensities_of(
    volumes: Sequence[Volume],
    voxels: Sequence[Sequence[NDArray[np.int32]]],
    windows: Sequence[Window] = (),
) -> list[Intensity]:
    """Measure how the gray values of volumes are standardized.

    Parameters
    ----------
    voxels : sequence of sequence of int (N, 3)
        Labeled voxels of each volume, of each class.
    windows : sequence of Window, optional
        Of each channel; without them, the labeled voxels tell.
    """
    sampled = [sample_gray_values(volume) for volume in volumes]
    if not windows:
        plain = [intensity_of(values) for values in sampled]
        windows = windows_of_paint(zip(volumes, plain, voxels, strict=True))
    return [intensity_of(values, windows) for values in sampled]


def pool_of(cases: Sequence[PoolCase], class_ids: tuple[int, ...], device: torch.device) -> Pool:
    """Put cases together, and count what there is to train on."""
    counts = tuple(sum(len(case.voxels[k]) for case in cases) for k in range(len(class_ids)))
    return Pool(tuple(cases), class_ids, counts, device)


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


def standardized_if_small(volume: Volume, intensity: Intensity) -> Tensor | None:
    """Return the standardized image, or None if it would take more than ``CACHE_BYTES``."""
    if 4 * int(np.prod(volume.image.shape)) > CACHE_BYTES:
        return None
    z, y, x = volume.shape
    whole = (slice(0, z), slice(0, y), slice(0, x))
    return torch.from_numpy(read_standardized(volume, whole, intensity))
