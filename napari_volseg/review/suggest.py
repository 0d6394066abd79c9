"""Which slices to paint next: those that should settle most of what a model doubts.

A voxel's doubt is the entropy of its class probabilities, more where rare classes are
likely. Paint settles the doubt around it: all of it where it lies, less with the distance
d, exp(-d / reach). A slice is worth the doubt that it settles and no paint has settled
before, so the next one of a list lies away from those before it. Half of the doubt is for
paint of the slice's own orientation to settle: an xy slice shows nothing of what is seen
in an xz slice through it but a line, so a list is of several orientations, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import distance_transform_edt

from napari_volseg.data.annotation import VIEW_OF_AXIS, Annotation, Case
from napari_volseg.data.cells import Triple, cells_along, choose_cell, join_cells
from napari_volseg.data.errors import InputError
from napari_volseg.data.labeled import is_labeled, labeled_per_slice, labeled_positions
from napari_volseg.data.tiles import start_of
from napari_volseg.inference.predict import predict
from napari_volseg.review.uncertainty import normalized_entropy

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume
    from napari_volseg.models.checkpoint import Checkpoint

MOST_CELLS = 2**16
"""Cells of an ``UncertaintyMap``: 40 along each edge of a cube, four to ``REACH``, on whose scale
the worth of slices changes."""

REACH = 0.1
"""How far paint tells about its surroundings, as a part of the volume's extent (the geometric mean
of its edges): on the scale of the volume because nothing else is known of how alike it is inside.
Four evenly spaced slices of one orientation settle 55% of what one orientation can."""

NEVER_SURE = 0.02
"""Added to the entropy, 0 to 1: a model can be sure and wrong, above all far from any paint."""

RAREST = 1e-4
"""Frequency of a class below which it gains no more weight, ten times that of a class that is
everywhere."""

NEARLY = 0.1
"""A slice of which less than this is left to paint is not suggested."""


@dataclass(frozen=True)
class Suggestion:
    """A slice to paint.

    Attributes
    ----------
    axis, index : int
        Axis 0, 1, 2 is z, y, x.
    score : float
        Part of the volume's doubt that painting this slice, after those before it, should settle,
        over its effort: the square root of the voxels left to paint, 1 for the largest slices
        of the volume.
    """

    axis: int
    index: int
    score: float

    @property
    def view(self) -> str:
        """The view it is seen in: "xy", "xz" or "yz"."""
        return VIEW_OF_AXIS[self.axis]


@dataclass(frozen=True)
class Suggestions:
    """How far the search for slices is.

    Attributes
    ----------
    done, total : int
        Regions predicted, and all there are.
    slices : tuple of Suggestion
        Best first; empty until all regions are done.
    """

    done: int
    total: int
    slices: tuple[Suggestion, ...] = ()


@dataclass(frozen=True, eq=False)
class UncertaintyMap:
    """The doubt in a volume, class by class, on a grid of cells; ``add_region`` fills it.

    Attributes
    ----------
    shape, spacing : (z, y, x)
        Of the volume.
    cell : (z, y, x)
        Voxels of a cell along each axis; the last cells may be cut.
    doubt : float32 (K, cells z, y, x)
        Sum over a cell of the doubt times the probability of each class.
    voxels : float64 (K,)
        Sum of the probabilities of each class.
    entropy : tuple of float64 (slices,)
        Sum of the ``normalized_entropy`` over each slice, axis by axis.
    """

    shape: Triple
    spacing: tuple[float, float, float]
    cell: Triple
    doubt: NDArray[np.float32] = field(repr=False)
    voxels: NDArray[np.float64] = field(repr=False)
    entropy: tuple[NDArray[np.float64], ...] = field(repr=False)


def suggest(
    checkpoint: Checkpoint,
    volume: Volume,
    annotation: Annotation | None = None,
    *,
    n: int = 5,
    device: str = "auto",
) -> Iterator[Suggestions]:
    """Predict a volume and suggest slices to paint next.

    Yields after each region; the last event carries the slices. Closing the generator
    cancels.

    Parameters
    ----------
    checkpoint : Checkpoint
        The trained network.
    volume : Volume
    annotation : Annotation, optional
        What is painted of the volume.
    n : int
        Slices wanted. There are fewer where all others are painted.
    device : str
        "auto", "cpu", "cuda", "mps", ...

    Raises
    ------
    InputError
        If n is below 1, or volume, annotation and network do not fit one another.
    """
    if n < 1:
        raise InputError(f"{n} slices cannot be suggested; ask for 1 or more")
    if annotation is not None:
        Case(volume, annotation)  # refuses an annotation of another volume
    uncertainty = empty_map(volume.shape, volume.spacing, len(checkpoint.classes))
    for piece in predict(checkpoint, volume, device=device):
        add_region(uncertainty, piece.region, piece.probabilities)
        finished = piece.done == piece.total
        slices = rank_slices(uncertainty, annotation, n) if finished else ()
        yield Suggestions(piece.done, piece.total, slices)


def empty_map(shape: Triple, spacing: tuple[float, float, float], n_classes: int) -> UncertaintyMap:
    """Return a map of a volume, to be filled region by region.

    Parameters
    ----------
    shape, spacing : (z, y, x)
        Of the volume.
    n_classes : int
        Of the predictions.
    """
    cell = choose_cell(shape, spacing, MOST_CELLS)
    doubt = np.zeros((n_classes, *cells_along(shape, cell)), np.float32)
    entropy = tuple(np.zeros(n) for n in shape)
    return UncertaintyMap(shape, spacing, cell, doubt, np.zeros(n_classes), entropy)


def add_region(
    uncertainty: UncertaintyMap, region: Region, probabilities: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Add what was predicted of a region to a map; every voxel is to be added once.

    Parameters
    ----------
    uncertainty : UncertaintyMap
        Changed in place.
    region : region
        Inside the volume.
    probabilities : float32 (K, z, y, x)
        Sum to 1 over the classes.

    Returns
    -------
    float32 (z, y, x)
        The ``normalized_entropy`` of the region.
    """
    entropy = normalized_entropy(probabilities)
    doubt = probabilities * (entropy + np.float32(NEVER_SURE))
    cells = tuple(
        slice(r.start // c, (r.stop - 1) // c + 1)
        for r, c in zip(region, uncertainty.cell, strict=True)
    )
    uncertainty.doubt[(slice(None), *cells)] += join_cells(
        doubt, start_of(region), uncertainty.cell, np.add
    )
    uncertainty.voxels[:] += probabilities.sum(axis=(1, 2, 3), dtype=np.float64)
    for axis, (of_slices, side) in enumerate(zip(uncertainty.entropy, region, strict=True)):
        others = tuple(a for a in range(3) if a != axis)
        of_slices[side] += entropy.sum(axis=others, dtype=np.float64)
    return entropy


def rank_slices(
    uncertainty: UncertaintyMap, annotation: Annotation | None = None, n: int = 5
) -> tuple[Suggestion, ...]:
    """Choose slices to paint, one after the other, each as if those before it were painted.

    What a slice settles is divided by the square root of the voxels left to paint in it: a
    user draws outlines and fills them, and an outline grows as the root of the area. By the
    sum alone all slices would be of the largest orientation, by the mean most of the smallest.

    Parameters
    ----------
    uncertainty : UncertaintyMap
        Of the whole volume.
    annotation : Annotation, optional
        What is painted of it.
    n : int
        Slices wanted; there are fewer where all others are painted.
    """
    doubt = doubt_of_cells(uncertainty)
    total = float(doubt.sum(dtype=np.float64))
    edges = np.multiply(uncertainty.shape, uncertainty.spacing)
    reach = REACH * math.prod(edges) ** (1 / 3)
    known, known_along = known_from_paint(uncertainty, annotation, reach)
    left = voxels_left(uncertainty.shape, annotation)
    largest = math.prod(uncertainty.shape) / min(uncertainty.shape)
    chosen: list[Suggestion] = []
    while len(chosen) < n:
        found = []
        for axis in range(3):
            worth = worth_of_slices(uncertainty, doubt, known, known_along[axis], axis, reach)
            effort = np.sqrt(np.maximum(left[axis], 1) / largest)
            scores = np.where(left[axis] > 0, worth / effort / total, 0)
            index = int(scores.argmax())
            found.append(Suggestion(axis, index, float(scores[index])))
        best = max(found, key=lambda suggestion: suggestion.score)
        if best.score <= 0:
            break
        chosen.append(best)
        left[best.axis][best.index] = 0
        (near,) = nearness(uncertainty, best.axis, [best.index], reach)
        near = near.reshape([-1 if axis == best.axis else 1 for axis in range(3)])
        known = np.maximum(known, near)
        known_along[best.axis] = np.maximum(known_along[best.axis], near)
    return tuple(chosen)


def doubt_of_cells(uncertainty: UncertaintyMap) -> NDArray[np.float32]:
    """Doubt in each cell (z, y, x), of all classes by their weights."""
    doubt: NDArray[np.float32]
    doubt = np.tensordot(class_weights(uncertainty.voxels), uncertainty.doubt, axes=1)
    return doubt


def class_weights(voxels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weight of each class: frequency to the power -1/4, 1 for the average voxel.

    A class that is a hundred times rarer counts three times as much.
    """
    frequency = voxels / voxels.sum()
    weights = np.maximum(frequency, RAREST) ** -0.25
    return np.asarray(weights / (frequency * weights).sum(), np.float32)


def known_from_paint(
    uncertainty: UncertaintyMap, annotation: Annotation | None, reach: float
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Part of the doubt in each cell that paint has settled: exp(-d / reach).

    The distance d, in the unit of the spacing, is that of cells: 0 in one that holds paint.

    Returns
    -------
    known : float32 (cells z, y, x)
        By the distance from any paint.
    known_along : list of float32 (cells z, y, x)
        By the distance along each axis: slices across it are what is met on the way.
    """
    cells = uncertainty.doubt.shape[1:]
    if annotation is None or not is_labeled(annotation.labels):
        return np.zeros(cells, np.float32), [np.zeros(cells, np.float32) for _ in range(3)]
    unpainted = np.ones(cells, bool)
    unpainted[tuple((labeled_positions(annotation.labels)[0] // uncertainty.cell).T)] = False
    edges = np.multiply(uncertainty.cell, uncertainty.spacing)

    def fade(sampling: NDArray[np.float64]) -> NDArray[np.float32]:
        distance = distance_transform_edt(unpainted, sampling=sampling)
        return np.asarray(np.exp(-distance / reach), np.float32)

    # Off the axis everything is out of reach.
    far = 1e6 * np.multiply(uncertainty.shape, uncertainty.spacing).max()
    return fade(edges), [fade(np.where(np.arange(3) == axis, edges, far)) for axis in range(3)]


def doubt_over_average(uncertainty: UncertaintyMap, axis: int, index: int) -> float:
    """Doubt of a voxel around a slice over that of any voxel: 2 is twice as unsure."""
    doubt = doubt_of_cells(uncertainty)
    layers = doubt.sum(axis=tuple(a for a in range(3) if a != axis), dtype=np.float64)
    size, cell = uncertainty.shape[axis], uncertainty.cell[axis]
    layer = index // cell
    thickness = min(cell, size - layer * cell)
    return float(layers[layer] / thickness / (layers.sum() / size))


def voxels_left(shape: Triple, annotation: Annotation | None) -> list[NDArray[np.int64]]:
    """Unpainted voxels of every slice, axis by axis; 0 where a slice is complete, or nearly so."""
    left = [np.full(n, math.prod(shape) // n) for n in shape]
    if annotation is None:
        return left
    for voxels, painted in zip(left, labeled_per_slice(annotation.labels), strict=True):
        area = voxels[0]
        voxels -= painted
        voxels[voxels < NEARLY * area] = 0
    for axis, index in annotation.complete:
        left[axis][index] = 0
    return left


def worth_of_slices(
    uncertainty: UncertaintyMap,
    doubt: NDArray[np.float32],
    known: NDArray[np.float32],
    known_along: NDArray[np.float32],
    axis: int,
    reach: float,
) -> NDArray[np.float64]:
    """Doubt that each slice across an axis would settle, beyond what is settled; (slices,).

    Parameters
    ----------
    doubt : float32 (cells z, y, x)
        Weighted sum over the classes.
    known, known_along : float32 (cells z, y, x)
        Part of it that is settled by any paint, and by paint along the axis.
    reach : float
        In the unit of the spacing.
    """

    def in_layers(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)

    own, before, before_along = in_layers(doubt), in_layers(known), in_layers(known_along)
    middles = _middles(uncertainty, axis)
    worth = []
    for near in nearness(uncertainty, axis, middles, reach):
        gain = np.maximum(near[:, None] - before, 0) + np.maximum(near[:, None] - before_along, 0)
        worth.append(float(np.vdot(own, gain)) / 2)
    # Looked at in the middle of each layer of cells, and interpolated between them.
    return np.interp(np.arange(uncertainty.shape[axis]), middles, worth)


def nearness(
    uncertainty: UncertaintyMap, axis: int, indices: Sequence[float], reach: float
) -> NDArray[np.float32]:
    """Part of the doubt in each layer of cells that slices settle, float32 (slices, layers)."""
    away = np.subtract.outer(np.asarray(indices, float), _middles(uncertainty, axis))
    return np.asarray(np.exp(-np.abs(away) * uncertainty.spacing[axis] / reach), np.float32)


def _middles(uncertainty: UncertaintyMap, axis: int) -> list[float]:
    """Middle of each layer of cells across an axis, in voxels."""
    size, cell = uncertainty.shape[axis], uncertainty.cell[axis]
    return [(start + min(start + cell, size) - 1) / 2 for start in range(0, size, cell)]
