"""The window of gray values in which the painted classes differ.

A tumor is a twentieth of what air and bone differ by: standardized by all of a CT, it can
hardly be told from the organ around it. What is painted tells which gray values matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from napari_volseg.data.intensity import Window
from napari_volseg.data.sparse_labels import equal_numbers
from napari_volseg.data.tiles import read_block, start_of
from napari_volseg.sparse.draw import draw_until_enough

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_volseg.data.intensity import Intensity
    from napari_volseg.data.tiles import Region
    from napari_volseg.data.volume import Volume

BLOCK = 64
"""Edge of the blocks, in voxels, in which a volume is read where it is painted."""

MOST_VOXELS = 50_000
FEWEST_VOXELS = 500
"""Labeled voxels whose gray values are read, and those of a class, at least, if there are."""

NARROWEST = 0.005
"""Width of a class's gray values, as part of how far the classes are apart, or of the volume's
standard deviation, where these are the same: an image without noise has none."""


def window_of(values: Sequence[NDArray[np.float64]]) -> Window:
    """Find the window of gray values in which classes differ.

    Its level is the median of what is painted, of each class as much: half of it is around an
    organ, and of that, air is far. Its width is the geometric mean of the distances between the
    quartiles of each class: those of what is around an organ may be a hundred times as far apart.

    Parameters
    ----------
    values : sequence of float (N,)
        Gray values of each class, about the volume's median, in its standard deviations.
    """
    percentiles = np.array([np.percentile(found, np.arange(101)) for found in values])
    low, medians, high = percentiles[:, (25, 50, 75)].T
    apart = np.ptp(medians) or 1.0
    widths = np.maximum(high - low, NARROWEST * apart)
    return Window(float(np.median(percentiles)), float(np.exp(np.log(widths).mean())))


def windows_of_paint(
    painted: Iterable[tuple[Volume, Intensity, Sequence[NDArray[np.int32]]]],
) -> tuple[Window, ...]:
    """Find the window of each channel of volumes, by what is painted in them.

    Parameters
    ----------
    painted : iterable of (volume, intensity, positions)
        Each volume, how its gray values are standardized without a window, and the positions
        (N, 3) of the labeled voxels of each class.
    """
    found: list[list[NDArray[np.float64]]] = []
    for volume, intensity, positions in painted:
        center = np.array([[how.center] for how in intensity])
        scale = np.array([[how.scale] for how in intensity])
        gray = gray_values(volume, positions)
        found.append([(values - center) / scale for values in gray])
    # Of each class, then of each channel.
    classes = [np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)]
    classes = [values[:, np.isfinite(values).all(0)] for values in classes]
    return tuple(
        window_of(channel) for channel in zip(*(c for c in classes if c.size), strict=True)
    )


def gray_values(
    volume: Volume, positions: Sequence[NDArray[np.int32]]
) -> list[NDArray[np.float64]]:
    """Read the gray values (C, N) of the labeled voxels of each class, of many only some."""
    classes = np.repeat(np.arange(len(positions)), [len(at) for at in positions])
    every = np.concatenate(positions)
    values = [np.zeros((volume.channels, 0))]
    kinds = [classes[:0]]
    for region, members in drawn_boxes(every, classes, len(positions)):
        z, y, x = (every[members] - start_of(region)).T
        values.append(read_block(volume, region)[:, z, y, x].astype(np.float64))
        kinds.append(classes[members])
    all_values, all_kinds = np.concatenate(values, axis=1), np.concatenate(kinds)
    return [all_values[:, all_kinds == k] for k in range(len(positions))]


def drawn_boxes(
    positions: NDArray[np.int32], classes: NDArray[np.intp], n_classes: int
) -> Iterator[tuple[Region, NDArray[np.intp]]]:
    """Yield boxes around voxels (N, 3) near each other, and which these are, until enough are."""
    grid = positions.max(0, initial=0) // BLOCK + 1
    parts = equal_numbers(np.ravel_multi_index(tuple((positions // BLOCK).T), grid))
    counts = [np.bincount(classes[part], minlength=n_classes) for part in parts]
    costs = [len(part) for part in parts]
    for drawn in draw_until_enough(counts, costs, MOST_VOXELS, FEWEST_VOXELS):
        low, high = positions[parts[drawn]].min(0).tolist(), positions[parts[drawn]].max(0).tolist()
        z, y, x = (slice(a, b + 1) for a, b in zip(low, high, strict=True))
        yield (z, y, x), parts[drawn]
