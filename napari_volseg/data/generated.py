"""Generated volumes of four kinds with their full truth: what cannot be had from nature.

Tubes, blobs, membranes and organs look different, and are told from their surroundings
by different things: shape, brightness, thin lines, place. Contrast, blur, noise and light
vary with the seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from napari_volseg.data.annotation import BACKGROUND, COLORS, Annotation, LabelClass
from napari_volseg.data.errors import InputError
from napari_volseg.data.phantom import smooth_field
from napari_volseg.data.phantom_tubes import boxes, grow_tubes
from napari_volseg.data.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable

Shape = tuple[int, int, int]
Points = NDArray[np.float64]
Field = NDArray[np.float32]
Scene = tuple[NDArray[np.uint8], Field]
"""Labels, and how bright each voxel would be in a perfect picture, 0 to 1."""

SPACING = (2.0, 1.0, 1.0)


def generated_volume(
    kind: str, shape: Shape = (48, 96, 96), seed: int = 0
) -> tuple[Volume, Annotation]:
    """Make a volume of a kind, and its full truth.

    Parameters
    ----------
    kind : str
        One of ``KINDS``.
    shape : (z, y, x)
    seed : int
        The same kind, shape and seed make the same volume.

    Returns
    -------
    volume : Volume
        uint8 (1, Z, Y, X), spacing 2 x 1 x 1 micrometer.
    truth : Annotation
        No voxel is unlabeled.

    Raises
    ------
    InputError
        For an unknown kind.
    """
    if kind not in KINDS:
        raise InputError(f"no volume of kind {kind!r} can be generated; choose {', '.join(KINDS)}")
    rng = np.random.default_rng(seed)
    make, names = KINDS[kind]
    spacing = np.array(SPACING)
    labels, light = make(shape, spacing, rng)
    classes = tuple(
        LabelClass(BACKGROUND + i, name, COLORS[i]) for i, name in enumerate(("background", *names))
    )
    complete = frozenset((axis, i) for axis, n in enumerate(shape) for i in range(n))
    volume = Volume(
        picture(light, spacing, rng)[None], SPACING, "micrometer", name=f"generated {kind}"
    )
    return volume, Annotation(labels, classes, complete)


def tubes(shape: Shape, spacing: Points, rng: np.random.Generator) -> Scene:
    """Branching vessels of varying caliber, unevenly filled, among bright specks."""
    found = grow_tubes(spacing * shape, rng.uniform(3.0, 5.0), 0.08, rng)
    distance = np.full(shape, 1e3, np.float32)
    for i, box, squares in boxes(found.centers, 1.5 * found.radii, shape, spacing):
        np.minimum(distance[box], np.sqrt(squares) - found.radii[i], out=distance[box])
    inside = distance < 0
    filled = 0.75 + 0.2 * smooth_field(shape, spacing, 25, rng)
    specks = (gaussian_filter(rng.random(shape, np.float32), (0.7, 1.4, 1.4)) > 0.62) & ~inside
    light = np.where(inside, filled, 0.12 + 0.06 * smooth_field(shape, spacing, 30, rng))
    return labeled(inside), np.where(specks, 0.8, light).astype(np.float32)


def blobs(shape: Shape, spacing: Points, rng: np.random.Generator) -> Scene:
    """Nuclei: ellipsoids that touch, of different brightness and with a coarse grain."""
    radius = rng.uniform(6.0, 9.0)
    centers = scattered(shape, spacing, 2.1 * radius, rng)
    found = np.zeros(shape, bool)
    light = np.full(shape, 0.1, np.float32)
    grain = 1 + 0.25 * smooth_field(shape, spacing, 3.0, rng)
    sizes: Points = radius * rng.uniform(0.75, 1.15, len(centers))
    bright: Points = rng.uniform(0.3, 0.9, len(centers))
    for i, box, squares in boxes(centers, sizes, shape, spacing):
        within = squares < sizes[i] ** 2
        found[box] |= within
        light[box] = np.where(within, bright[i] * grain[box], light[box])
    return labeled(found), light


def membranes(shape: Shape, spacing: Points, rng: np.random.Generator) -> Scene:
    """Walls between cells, thin and with gaps in their stain; cells differ in their inside."""
    centers = scattered(shape, spacing, rng.uniform(16.0, 22.0), rng)
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) * spacing
    found = cKDTree(centers).query(grid.reshape(-1, 3), k=2)
    distances, nearest = (np.asarray(each) for each in found)
    apart = np.linalg.norm(centers[nearest[:, 0]] - centers[nearest[:, 1]], axis=1)
    # Of a voxel from the plane halfway between the two centers that are nearest to it.
    distance = (distances[:, 1] ** 2 - distances[:, 0] ** 2) / (2 * apart)
    wall = (distance < 1.4).reshape(shape)
    stain = np.clip(0.8 + 0.3 * smooth_field(shape, spacing, 20, rng), 0.15, 1)
    inside = rng.uniform(0.08, 0.3, len(centers))[nearest[:, 0]].reshape(shape)
    return labeled(wall), np.where(wall, stain, inside).astype(np.float32)


def organs(shape: Shape, spacing: Points, rng: np.random.Generator) -> Scene:
    """One organ in two parts that look alike, among other organs that look like it.

    Only where they lie, and their outline, tells them apart.
    """
    places = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij"))
    bent = np.stack([0.12 * smooth_field(shape, spacing, 30, rng) for _ in range(3)])
    z, y, x = places + bent

    def ellipsoid(
        center: tuple[float, float, float], radii: tuple[float, float, float]
    ) -> NDArray[np.bool_]:
        along = zip((z, y, x), center, radii, strict=True)
        return np.asarray(np.sum([((p - c) / r) ** 2 for p, c, r in along], axis=0) < 1)

    organ = ellipsoid((0, 0, 0), (0.45, 0.3, 0.6))
    others = ellipsoid((0.1, 0.65, 0.2), (0.5, 0.25, 0.4))
    others |= ellipsoid((-0.2, -0.7, -0.3), (0.4, 0.25, 0.35))
    body = ellipsoid((0, 0, 0), (0.95, 0.95, 0.95))
    labels = labeled(organ)
    labels[organ & (x + 0.3 * z > 0.1)] = BACKGROUND + 2
    light = np.where(body, 0.45, 0.08) + 0.04 * smooth_field(shape, spacing, 8, rng)
    light = np.where(organ | others, 0.62, light)
    return labels, light.astype(np.float32)


KINDS: dict[str, tuple[Callable[[Shape, Points, np.random.Generator], Scene], tuple[str, ...]]] = {
    "tubes": (tubes, ("vessel",)),
    "blobs": (blobs, ("nucleus",)),
    "membranes": (membranes, ("wall",)),
    "organs": (organs, ("front", "back")),
}


def labeled(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Background, and the class after it."""
    return np.where(inside, BACKGROUND + 1, BACKGROUND).astype(np.uint8)


def scattered(shape: Shape, spacing: Points, distance: float, rng: np.random.Generator) -> Points:
    """Points (z, y, x) in physical units, about a distance apart: a shaken grid."""
    counts = np.ceil(spacing * shape / distance).astype(int) + 1
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, 3)
    points: Points = (grid + rng.uniform(-0.35, 0.35, grid.shape)) * distance
    return points


def picture(light: Field, spacing: Points, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take a picture: blur, worse along z; light that varies across it; photon and read noise."""
    blurred = gaussian_filter(light, np.array((1.4, 0.8, 0.8)) * rng.uniform(0.7, 1.3) / spacing)
    lit = blurred.clip(0) * np.clip(1 + 0.2 * smooth_field(light.shape, spacing, 80, rng), 0.4, 1.6)
    photons = rng.uniform(15, 60)
    seen = rng.poisson(lit * photons) / photons + rng.normal(scale=0.03, size=light.shape)
    gray: NDArray[np.uint8] = np.clip(10 + 180 * seen, 0, 255).astype(np.uint8)
    return gray
