"""The tubes of the kidney phantom: curved, branching, of varying caliber, apart from each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

Points = NDArray[np.float64]

_STEP = 0.15  # of the typical radius, between neighboring points of a center line
_GAP = 0.35  # of the typical radius, free between two tubes
_THINNEST_WALL = 0.28  # of the typical radius: not thinner than a voxel of the smallest phantom
_CANDIDATES = 5  # directions tried at each step


@dataclass(frozen=True, eq=False)
class Tubes:
    """Points along center lines, in physical units (z, y, x).

    Attributes
    ----------
    centers, tangents : float64 (N, 3)
    radii, lumens : float64 (N,)
        Outer radius, and that of the inside.
    """

    centers: Points
    tangents: Points
    radii: Points
    lumens: Points


def grow_tubes(extent: Points, radius: float, fill: float, rng: np.random.Generator) -> Tubes:
    """Grow branching tubes until they fill a part of a box.

    Parameters
    ----------
    extent : float64 (3,)
        Size of the box (z, y, x).
    radius : float
        Typical outer radius, in the same unit.
    fill : float
        Part of the box to fill, 0 to 1; growing ends earlier where nothing more fits.
    rng : numpy random generator
    """
    placed = np.empty((0, 8))
    roots: list[NDArray[np.float64]] = []
    goal = fill * float(np.prod(extent))
    for _ in range(400):
        if (np.pi * placed[:, 3] ** 2).sum() * _STEP * radius > goal:
            break
        if roots:
            origin, direction, caliber = roots[0][:3], roots[0][4:7], roots[0][3]
            roots.pop(0)
            lag = 2.5 * radius + caliber
        else:
            origin, direction = rng.random(3) * extent, _unit(rng.normal(size=3))
            caliber, lag = radius * rng.uniform(0.7, 1.35), 0.0
        branch = _walk(origin, direction, caliber, radius, extent, placed, lag, rng)
        if len(branch) * _STEP * radius < 3 * caliber:
            continue
        placed = np.concatenate([placed, branch])
        roots += _forks(branch, radius, rng)
    return Tubes(placed[:, :3], placed[:, 4:7], placed[:, 3], placed[:, 7])


def _walk(
    origin: Points,
    direction: Points,
    caliber: float,
    radius: float,
    extent: Points,
    placed: Points,
    lag: float,
    rng: np.random.Generator,
) -> Points:
    """Return rows of center, radius, tangent, lumen, until the tube leaves or is blocked."""
    others = placed[np.linalg.norm(placed[:, :3] - origin, axis=1) > lag]
    step = _STEP * radius
    phase, period = rng.uniform(0, 2 * np.pi), radius * rng.uniform(6, 12)
    own_lag = int(4 * caliber / step)
    rows: list[NDArray[np.float64]] = []
    position = origin
    for n in range(int(40 * radius / step)):
        size = caliber * (1 + 0.22 * np.sin(2 * np.pi * n * step / period + phase))
        blockers = np.concatenate([others, rows[:-own_lag]]) if len(rows) > own_lag else others
        turns = _unit(direction + 0.16 * rng.normal(size=(_CANDIDATES, 3)) * (0.7, 1, 1))
        room = _room(position + 2 * step * turns, size, blockers)
        inside = _inside(position + 4 * step * turns, extent, size)
        appeal = np.minimum(room, radius) + 0.5 * np.minimum(inside, 0)
        best = int(np.argmax(appeal + 0.05 * radius * rng.random(_CANDIDATES)))
        direction = turns[best]
        position = position + step * direction
        if room[best] < _GAP * radius or inside[best] < -2 * size:
            break
        lumen = size * (0.5 + 0.12 * np.sin(2 * np.pi * n * step / (0.7 * period) + 2 * phase))
        lumen = min(lumen, size - _THINNEST_WALL * radius)
        rows.append(np.array([*position, size, *direction, lumen]))
    return np.array(rows).reshape(-1, 8)


def _forks(branch: Points, radius: float, rng: np.random.Generator) -> list[Points]:
    """Choose where other tubes leave a branch, as rows like its own."""
    count = rng.poisson(len(branch) * _STEP / 14)
    forks = branch[rng.integers(0, len(branch), count)].copy()
    for fork in forks:
        side = np.cross(fork[4:7], rng.normal(size=3))
        fork[4:7] = _unit(_unit(side) + 0.4 * fork[4:7])
        fork[3] = max(0.6 * radius, fork[3] * rng.uniform(0.6, 0.95))
    return list(forks)


def _room(positions: Points, size: float, blockers: Points) -> Points:
    """Return the free distance from a tube at each position to the nearest other one."""
    if not len(blockers):
        return np.full(len(positions), np.inf)
    gaps = np.linalg.norm(positions[:, None] - blockers[None, :, :3], axis=2)
    room: Points = (gaps - blockers[None, :, 3]).min(axis=1) - size
    return room


def _inside(positions: Points, extent: Points, size: float) -> Points:
    """Return how far inside the box each position is, the tube's radius kept; negative outside."""
    depth: Points = (np.minimum(positions, extent - positions) - 0.6 * size).min(axis=1)
    return depth


def _unit(vectors: Points) -> Points:
    unit: Points = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit


def boxes(
    centers: Points, reach: Points, shape: tuple[int, ...], spacing: Points
) -> Iterator[tuple[int, tuple[slice, ...], NDArray[np.float32]]]:
    """Yield, for each center, the voxels within reach of it and their squared distances.

    Parameters
    ----------
    centers : float64 (N, 3)
    reach : float64 (N,)
        In physical units.
    shape, spacing : (z, y, x)
        Of the grid of voxels.

    Yields
    ------
    index : int
    box : slices (z, y, x)
    squares : float32, of the shape of the box
    """
    low = np.maximum(np.floor((centers - reach[:, None]) / spacing), 0).astype(int)
    high = np.minimum(np.ceil((centers + reach[:, None]) / spacing) + 1, shape).astype(int)
    for index in np.flatnonzero((low < high).all(axis=1)):
        box = tuple(slice(a, b) for a, b in zip(low[index], high[index], strict=True))
        z, y, x = (
            ((np.arange(s.start, s.stop) * d - c) ** 2).astype(np.float32)
            for s, d, c in zip(box, spacing, centers[index], strict=True)
        )
        yield int(index), box, z[:, None, None] + y[:, None] + x
