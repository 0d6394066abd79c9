"""Random scenes to pretrain on: structures of the generated kinds, in looks and paint at random.

A network that is to be of use in any volume must not learn how a structure looks, but how
what is painted can be told from what is not. So each scene draws anew how bright and how
grainy each of its parts is, how it is blurred and lit, what of it is asked for, and where
it is painted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.ndimage import binary_erosion, gaussian_filter, label

from napari_volseg.data.generated import KINDS
from napari_volseg.data.intensity import measure_intensity, standardize
from napari_volseg.data.phantom import smooth_field
from napari_volseg.data.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_volseg.data.generated import Field, Points, Scene, Shape

GRIDS: tuple[tuple[Shape, tuple[float, float, float]], ...] = (
    ((72, 72, 72), (1.0, 1.0, 1.0)),
    ((40, 80, 80), (2.0, 1.0, 1.0)),
)
"""Shapes and voxel sizes of scenes; both have as many cells of 2 x 2 x 2."""

OFTEN = {"tubes": 0.3, "blobs": 0.3, "membranes": 0.2, "organs": 0.2}
FEWEST_PAINTED = 20
"""Voxels of each class; a class with fewer is not asked for."""


@dataclass(frozen=True, eq=False)
class Task:
    """A picture, what is asked for, and what of it is painted.

    Attributes
    ----------
    image : float32 (Z, Y, X)
        Standardized.
    target : int64 (Z, Y, X)
        Class index from 0; -1 where the class is not asked for.
    painted : bool (Z, Y, X)
    """

    image: Field
    target: NDArray[np.int64]
    painted: NDArray[np.bool_]


def draw_tasks(seed: int, grid: int, paints: int) -> list[Task]:
    """Draw a scene, and paint it in some ways."""
    rng = np.random.default_rng((seed, grid))
    shape, size = GRIDS[grid]
    spacing = np.array(size)
    parts, light = structures(shape, spacing, rng)
    own = parts.max()
    if rng.random() < 0.6:
        others, other_light = structures(shape, spacing, rng)
        beside = (others > 0) & (parts == 0)
        parts = np.where(beside, own + 1, parts)
        light = np.where(beside, other_light, light)
    if rng.random() < 0.65:
        light = random_look(parts, spacing, rng)
    elif rng.random() < 0.3:
        light = 1 - light
    seen = take_picture(light, spacing, rng)
    intensity = measure_intensity(Volume(seen[None], size))
    image = standardize(seen[None], intensity)[0]
    asked = random_classes(parts, own, rng)
    drawn = (paint(asked, rng) for _ in range(paints))
    return [task for painted in drawn if (task := task_of(image, asked, painted)) is not None]


def structures(shape: Shape, spacing: Points, rng: np.random.Generator) -> Scene:
    """Draw structures of a kind, of random size: parts from 0, and how bright they are."""
    kind = rng.choice(list(OFTEN), p=list(OFTEN.values()))
    scale = np.exp(rng.uniform(np.log(0.7), np.log(1.8))) * (0.6 if kind == "tubes" else 1)
    labels, light = KINDS[kind][0](shape, spacing * scale, rng)
    return labels - 1, light


def random_look(parts: NDArray[np.uint8], spacing: Points, rng: np.random.Generator) -> Field:
    """Make each part as bright and as grainy as chance has it; its pieces and shells, too."""
    means = rng.uniform(size=parts.max() + 1)
    while len(means) > 1 and abs(means[1] - means[0]) < 0.15:
        means = rng.uniform(size=len(means))
    look = np.zeros(parts.shape, np.float32)
    for part, mean in enumerate(means):
        inside = parts == part
        grain = np.exp(rng.uniform(np.log(1.5), np.log(25)))
        bright = mean + rng.uniform(0, 0.25) * smooth_field(parts.shape, spacing, grain, rng)
        if part and rng.random() < 0.5:
            pieces, count = label(inside)
            bright = bright + rng.normal(scale=rng.uniform(0, 0.25), size=count + 1)[pieces]
        if part and rng.random() < 0.25:
            shell = inside & ~binary_erosion(inside, iterations=int(rng.integers(1, 3)))
            bright = np.where(shell, rng.uniform(), bright)
        look[inside] = bright[inside]
    return look


def take_picture(light: Field, spacing: Points, rng: np.random.Generator) -> Field:
    """Take a picture: gamma, blur that is worse along z, uneven light, photon and read noise."""
    light = light - light.min()
    light = (light / max(light.max(), 1e-6)) ** np.exp(rng.uniform(-0.5, 0.5))
    blur = rng.uniform(0.2, 1.4) * np.array((1 + rng.uniform(0, 1.2), 1, 1)) / spacing
    lit = 1 + rng.uniform(0, 0.4) * smooth_field(light.shape, spacing, 60, rng)
    expected = gaussian_filter(light, blur) * lit.clip(0.3, 1.8) + rng.uniform(0, 0.15)
    photons = np.exp(rng.uniform(np.log(12), np.log(200)))
    seen = rng.poisson(expected.clip(0) * photons) / photons
    seen = seen + rng.normal(scale=rng.uniform(0, 0.06), size=seen.shape)
    if rng.random() < 0.3:
        seen = gaussian_filter(seen, rng.uniform(0.3, 0.8))
    return seen.astype(np.float32)


def random_classes(
    parts: NDArray[np.uint8], own: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Ask for some of the parts, for some as one, or for the shell of one."""
    asked = parts.astype(np.int64)
    if rng.random() < 0.5:
        asked[parts > own] = 0
    if own > 1 and rng.random() < 0.7:
        asked[(parts > 0) & (parts <= own)] = 1
    if rng.random() < 0.1:
        first = parts == 1
        asked[first & ~binary_erosion(first, iterations=2)] = asked.max() + 1
    return asked


def paint(asked: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Paint some whole slices, or small patches of every class."""
    painted = np.zeros(asked.shape, bool)
    if rng.random() < 0.6:
        for axis, size in enumerate(asked.shape):
            for index in rng.integers(size, size=rng.integers(0, 4)):
                painted[(slice(None),) * axis + (index,)] = True
        return painted
    share = np.exp(rng.uniform(np.log(0.003), np.log(0.03)))
    places = {c: np.argwhere(asked == c) for c in np.unique(asked)}
    while painted.mean() < share:
        for c, voxels in places.items():
            center = voxels[rng.integers(len(voxels))]
            sides = [slice(max(0, i - 3), i + 4) for i in center]
            axis = rng.integers(3)
            sides[axis] = slice(center[axis], center[axis] + 1)
            box = tuple(sides)
            painted[box] |= asked[box] == c
    return painted


def task_of(image: Field, asked: NDArray[np.int64], painted: NDArray[np.bool_]) -> Task | None:
    """Make a task of what is painted; None if that tells no two classes apart."""
    counts = np.bincount(asked[painted], minlength=asked.max() + 1)
    known = np.flatnonzero(counts >= FEWEST_PAINTED)
    if len(known) < 2:
        return None
    index = np.full(len(counts), -1)
    index[known] = np.arange(len(known))
    return Task(image, index[asked], painted)
