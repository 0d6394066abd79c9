"""Generated 3D digits as in 3D MNIST: a stroke digit, extruded, rotated, voxelized."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial.transform import Rotation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Points = NDArray[np.float64]

EXTENT = 1.3
"""A digit, about 2 high, lies in a cube that reaches this far from its middle."""


def _arc(
    center: tuple[float, float], radii: tuple[float, float], start: float, stop: float
) -> list[tuple[float, float]]:
    """Points (x, y) on an ellipse from one angle to another, in degrees."""
    angles = np.deg2rad(np.linspace(start, stop, 13))
    x, y = center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)
    return list(zip(x.tolist(), y.tolist(), strict=True))


_STROKES: dict[int, list[list[tuple[float, float]]]] = {
    0: [_arc((0, 0), (0.55, 0.9), 0, 360)],
    1: [[(-0.35, 0.5), (0.1, 0.9), (0.1, -0.9)]],
    2: [[*_arc((0, 0.4), (0.5, 0.5), 160, -40), (-0.5, -0.9), (0.55, -0.9)]],
    3: [_arc((0, 0.45), (0.45, 0.45), 150, -90), _arc((0, -0.45), (0.55, 0.45), 90, -150)],
    4: [[(0.25, -0.9), (0.25, 0.9), (-0.55, -0.3), (0.6, -0.3)]],
    5: [[(0.5, 0.9), (-0.4, 0.9), (-0.45, 0.0), *_arc((0, -0.35), (0.55, 0.55), 120, -150)]],
    6: [[(0.4, 0.85), (-0.2, 0.5), (-0.5, -0.4)], _arc((0, -0.4), (0.5, 0.5), 0, 360)],
    7: [[(-0.5, 0.9), (0.55, 0.9), (-0.15, -0.9)]],
    8: [_arc((0, 0.45), (0.4, 0.43), 0, 360), _arc((0, -0.45), (0.5, 0.47), 0, 360)],
    9: [_arc((0, 0.4), (0.5, 0.5), 0, 360), [(0.5, 0.4), (0.35, -0.4), (0.0, -0.9)]],
}


def digits(
    count: int,
    *,
    seed: int = 0,
    kinds: Sequence[int] = tuple(range(10)),
    rotation_degrees: float = 30.0,
    side: int = 16,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Make digits, each of its own hand, thickness, depth and pose.

    3D MNIST extrudes and rotates scanned digits; these are drawn from strokes.

    Parameters
    ----------
    count : int
        How many; the kinds take turns.
    seed : int
    kinds : sequence of int
        Digits to make.
    rotation_degrees : float
        Largest rotation about each axis.
    side : int
        Voxels along each edge.

    Returns
    -------
    images : float32 (count, side, side, side), axes (z, y, x), values 0 to 1
        The digits stand upright in the yx plane, the top at y = 0.
    values : int64 (count,)
        Which digit each is.
    """
    rng = np.random.default_rng(seed)
    values = np.resize(np.asarray(kinds, np.int64), count)
    images = [_digit(int(value), rng, rotation_degrees, side) for value in values]
    return np.reshape(np.asarray(images, np.float32), (count, side, side, side)), values


def _digit(value: int, rng: np.random.Generator, rotation_degrees: float, side: int) -> Points:
    """Voxelize one digit."""
    step = 2 * EXTENT / side
    axis = (np.arange(side) + 0.5) * step - EXTENT
    z, y, x = np.meshgrid(axis, -axis, axis, indexing="ij")
    angles = rng.uniform(-rotation_degrees, rotation_degrees, 3)
    rotation = Rotation.from_euler("xyz", angles, degrees=True)
    local = rotation.apply(np.stack([x, y, z], -1).reshape(-1, 3))
    # A hand: slant and proportions of the whole, and a wobble of each point.
    hand = np.array([[rng.uniform(0.8, 1.1), rng.uniform(-0.2, 0.2)], [0, rng.uniform(0.85, 1)]])
    away = np.full(len(local), np.inf)
    for stroke in _STROKES[value]:
        points = np.asarray(stroke) @ hand.T
        wobble = rng.normal(0, 0.04, points.shape)
        away = np.minimum(away, _distance(local[:, :2], points + wobble))
    inside = rng.uniform(0.12, 0.2) - away
    within_depth = rng.uniform(0.15, 0.3) - np.abs(local[:, 2])
    # The surface crosses a voxel at about half its value.
    value_at = np.clip(0.5 + np.minimum(inside, within_depth) / step, 0, 1)
    return np.asarray(value_at.reshape(side, side, side))


def _distance(positions: Points, line: Points) -> Points:
    """Distance of positions (N, 2) to a line through points (P, 2)."""
    start, along = line[:-1], np.diff(line, axis=0)
    offset = positions[:, None] - start
    part = (offset * along).sum(-1) / np.maximum((along**2).sum(-1), 1e-12)
    nearest = np.clip(part, 0, 1)[..., None] * along
    return np.asarray(np.linalg.norm(offset - nearest, axis=-1).min(1))
