"""A made-up Xenopus kidney: the volume of the 3D U-Net paper, for demos, tests and benchmarks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_volseg.data.annotation import BACKGROUND, COLORS, Annotation, LabelClass
from napari_volseg.data.phantom_tubes import Points, Tubes, boxes, grow_tubes
from napari_volseg.data.volume import Volume

SPACING_UM = (2.04, 1.76, 1.76)
TUBULE, INSIDE = 2, 3
CLASSES = (
    LabelClass(BACKGROUND, "background", COLORS[0]),
    LabelClass(TUBULE, "tubule", COLORS[1]),
    LabelClass(INSIDE, "inside of tubule", COLORS[2]),
)
CHANNELS = ("lectin", "DAPI", "beta-catenin")

_RADIUS_UM = 21.0  # outer, of a typical tubule
_FILL = 0.34  # part of the volume that tubules take
# Of light from the top that is left at the bottom of a full-size volume, by channel.
_LEFT_AT_BOTTOM = (0.6, 0.45, 0.65)
_FULL_DEPTH_UM = 130.0
_PHOTONS = 30.0  # at full brightness
_READ_NOISE = 0.022

Field = NDArray[np.float32]


def kidney_phantom(
    shape: tuple[int, int, int] = (64, 244, 248), seed: int = 0
) -> tuple[Volume, Annotation]:
    """Make a volume with branching tubules, and its full truth.

    Three stains: lectin on the surfaces of the tubules' inside (and on capillaries), DAPI in the
    nuclei of all cells, beta-catenin on the membranes of all cells. Staining is uneven, blur
    is worse along z, light fades and noise grows with depth. No channel alone tells the
    classes apart by brightness. Smaller volumes hold smaller tubules, not fewer.

    Parameters
    ----------
    shape : (z, y, x)
    seed : int
        The same seed and shape make the same volume.

    Returns
    -------
    volume : Volume
        uint8 (3, Z, Y, X), spacing 2.04 x 1.76 x 1.76 micrometer.
    truth : Annotation
        1 background, 2 tubule (its wall), 3 inside of tubule; no voxel unlabeled.
    """
    rng = np.random.default_rng(seed)
    spacing = np.array(SPACING_UM)
    extent = spacing * shape
    radius = float(np.clip(0.1 * extent[1:].min(), 8.0, _RADIUS_UM))
    tubes = grow_tubes(extent, radius, _FILL, rng)
    outer, inner = _distances(tubes, shape, spacing)
    labels = np.full(shape, BACKGROUND, np.uint8)
    labels[outer < 0] = TUBULE
    labels[inner < 0] = INSIDE
    scale = max(radius / _RADIUS_UM, 0.7)  # smaller cells would be smaller than voxels
    cells = np.concatenate(
        [_wall_cells(tubes, scale, rng), _other_cells(outer, spacing, scale, rng)]
    )
    stains = (
        _lectin(outer, inner, spacing, scale, rng),
        *_nuclei_and_membranes(cells, outer, inner, spacing, scale, rng),
    )
    image = np.stack(
        [
            _microscope(stain, left, spacing, rng)
            for stain, left in zip(stains, _LEFT_AT_BOTTOM, strict=True)
        ]
    )
    volume = Volume(image, SPACING_UM, "micrometer", None, "kidney phantom", CHANNELS)
    complete = frozenset((axis, i) for axis, n in enumerate(shape) for i in range(n))
    return volume, Annotation(labels, CLASSES, complete)


def _distances(tubes: Tubes, shape: tuple[int, ...], spacing: Points) -> tuple[Field, Field]:
    """Return signed distances to the tubules' outer and inner surface, negative within.

    Right up to some wall thicknesses outside; a large number farther away.
    """
    outer = np.full(shape, 1e3, np.float32)
    inner = outer.copy()
    for i, box, squares in boxes(tubes.centers, 1.6 * tubes.radii, shape, spacing):
        distance = np.sqrt(squares)
        np.minimum(outer[box], distance - tubes.radii[i], out=outer[box])
        np.minimum(inner[box], distance - tubes.lumens[i], out=inner[box])
    return outer, inner


def _wall_cells(tubes: Tubes, scale: float, rng: np.random.Generator) -> Points:
    """Place cells in rings, in the middle of the wall: rows of z, y, x, radius, brightness."""
    size = 8.0 * scale
    along = np.arange(0, len(tubes.centers), 3)
    middle = (tubes.radii + tubes.lumens)[along] / 2
    counts = np.maximum(np.round(2 * np.pi * middle / size).astype(int), 3)
    ring = np.repeat(along, counts)
    angle = rng.uniform(0, 2 * np.pi, len(along)).repeat(counts)
    angle += 2 * np.pi * np.concatenate([np.arange(n) / n for n in counts])
    tangent = tubes.tangents[ring]
    across = np.cross(tangent, (0.31, 0.59, 0.74))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    beside = np.cross(tangent, across)
    offset = np.cos(angle)[:, None] * across + np.sin(angle)[:, None] * beside
    centers = tubes.centers[ring] + middle.repeat(counts)[:, None] * offset
    centers += rng.normal(scale=0.12 * size, size=centers.shape)
    return _as_cells(centers, scale, rng)


def _other_cells(outer: Field, spacing: Points, scale: float, rng: np.random.Generator) -> Points:
    """Fill the tissue between the tubules with cells, and leave gaps that look like an inside."""
    size = 10.5 * scale
    counts = np.ceil(spacing * outer.shape / size).astype(int)
    grid = np.stack(np.meshgrid(*map(np.arange, counts), indexing="ij"), -1).reshape(-1, 3)
    centers = (grid + rng.random(grid.shape)) * size
    voxels = tuple(np.minimum(centers // spacing, np.array(outer.shape) - 1).astype(int).T)
    gaps = smooth_field(outer.shape, spacing, 38 * scale, rng)
    free = (outer[voxels] > 1.5 * scale) & (gaps[voxels] > -0.9)
    return _as_cells(centers[free], scale, rng)


def _as_cells(centers: Points, scale: float, rng: np.random.Generator) -> Points:
    radii = scale * rng.uniform(2.4, 3.8, len(centers))
    return np.column_stack([centers, radii, rng.uniform(0.45, 1.0, len(centers))])


def _lectin(
    outer: Field, inner: Field, spacing: Points, scale: float, rng: np.random.Generator
) -> Field:
    """Stain the surfaces of the tubules, unevenly, and capillaries, which are background."""
    capillaries = np.full(outer.shape, 1e3, np.float32)
    extent = spacing * outer.shape
    count = int(np.ceil(np.prod(extent) / (70 * scale) ** 3))
    turns = np.cumsum(rng.normal(scale=0.3, size=(count, 100, 3)), axis=1)
    turns += rng.normal(size=(count, 1, 3))
    steps = 2.4 * scale * turns / np.linalg.norm(turns, axis=2, keepdims=True)
    paths = (rng.random((count, 1, 3)) * extent + np.cumsum(steps, axis=1)).reshape(-1, 3)
    reach = np.full(len(paths), 7.0 * scale)
    for _, box, squares in boxes(paths, reach, outer.shape, spacing):
        np.minimum(capillaries[box], np.sqrt(squares), out=capillaries[box])
    capillaries[outer < 0] = 1e3
    uneven = np.clip(0.75 + 0.4 * smooth_field(outer.shape, spacing, 45 * scale, rng), 0.12, 1.3)
    tissue = np.maximum(0.16 + 0.05 * smooth_field(outer.shape, spacing, 60 * scale, rng), 0.05)
    stain: Field = (
        uneven * (_shell(inner, 1.7 * scale) + 0.45 * _shell(outer, 1.4 * scale))
        + 0.9 * _shell(capillaries - 2.4 * scale, 1.6 * scale)
        + np.where(inner < 0, 0.1, tissue)
    ).astype(np.float32)
    return stain


def _nuclei_and_membranes(
    cells: Points,
    outer: Field,
    inner: Field,
    spacing: Points,
    scale: float,
    rng: np.random.Generator,
) -> tuple[Field, Field]:
    """Stain nuclei, and membranes: where the two nearest cells are equally far."""
    nuclei = np.zeros(outer.shape, np.float32)
    nearest = np.full(outer.shape, 1e3, np.float32)
    second = nearest.copy()
    centers, radii, brightness = cells[:, :3], cells[:, 3], cells[:, 4]
    reach = np.full(len(cells), 8.0 * scale)
    for i, box, squares in boxes(centers, reach, outer.shape, spacing):
        distance = np.sqrt(squares)
        inside = np.clip((radii[i] - distance) / scale + 0.5, 0, 1) * brightness[i]
        np.maximum(nuclei[box], inside, out=nuclei[box])
        np.minimum(second[box], np.maximum(nearest[box], distance), out=second[box])
        np.minimum(nearest[box], distance, out=nearest[box])
    membranes = _shell(second - nearest, 1.5 * scale) * (nearest < 7.6 * scale)
    zones = np.clip(0.6 + 0.35 * smooth_field(outer.shape, spacing, 50 * scale, rng), 0.15, 1.2)
    membranes *= np.where(outer < 0, 0.8, zones)
    membranes += 0.35 * _shell(outer, 1.5 * scale)
    in_lumen = inner < 0
    nuclei[in_lumen] = 0
    membranes[in_lumen] = 0
    return nuclei + np.float32(0.08), (membranes + 0.1).astype(np.float32)


def _shell(distance: Field, width: float) -> Field:
    """Return 1 at distance 0, falling off over a width on both sides."""
    shell: Field = np.exp(-((distance / np.float32(width)) ** 2))
    return shell


def smooth_field(
    shape: tuple[int, ...], spacing: Points, length: float, rng: np.random.Generator
) -> Field:
    """Return a random field of about unit variance that changes over a physical length."""
    coarse = np.ceil(spacing * shape / length).astype(int) + 2
    field: Field = rng.normal(scale=1.4, size=coarse).astype(np.float32)
    for n, knots in zip(shape, coarse, strict=True):
        away = np.abs(np.linspace(0, knots - 1, n)[:, None] - np.arange(knots))
        interpolation = np.maximum(1 - away, 0).astype(np.float32)
        field = np.tensordot(field, interpolation, (0, 1))  # the axis done becomes the last
    return field


def _microscope(
    stain: Field, left_at_bottom: float, spacing: Points, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Take a picture: blur, worse along z and with depth, fading light, photon and read noise."""
    depth = (np.arange(stain.shape[0], dtype=np.float32) * spacing[0])[:, None, None]
    share = np.minimum(depth / np.float32(_FULL_DEPTH_UM), 1)
    sharp = gaussian_filter(stain, (0.9, 0.45, 0.45))
    blurred = gaussian_filter(stain, (1.9, 1.0, 1.0))
    light = np.float32(left_at_bottom) ** (depth / np.float32(_FULL_DEPTH_UM))
    expected = (sharp + share * (blurred - sharp)) * light
    photons = rng.poisson(expected * _PHOTONS).astype(np.float32) / _PHOTONS
    noise = rng.standard_normal(stain.shape, np.float32) * _READ_NOISE
    picture: NDArray[np.uint8] = np.clip(12 + 165 * (photons + noise), 0, 255).astype(np.uint8)
    return picture
