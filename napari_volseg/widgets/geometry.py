"""Where a volume lies in napari's world, and back: scale, units, affine, axis labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.transforms import CompositeAffine

from napari_volseg.data.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari.layers import Layer
    from numpy.typing import NDArray

AXIS_LABELS = ("z", "y", "x")


def layer_geometry(volume: Volume) -> dict[str, Any]:
    """Return the arguments that place a (Z, Y, X) layer as a volume says.

    napari applies the affine after the scale, so the affine is given without the spacing:
    the two together are the volume's own affine. But if an axis of the volume runs mainly along
    another axis of the world (a sagittal MRI, say), the affine is left out: napari could not
    step through the slices of such a layer. Files are written with the affine in any case.

    Returns
    -------
    dict
        ``scale``, ``units``, ``affine`` (a 4 x 4 matrix) and ``axis_labels``.
    """
    affine = np.eye(4)
    if volume.affine is not None and _keeps_axes(volume.affine):
        affine = volume.affine @ np.diag([1 / s for s in volume.spacing] + [1.0])
    return {
        "scale": volume.spacing,
        "units": (volume.unit,) * 3,
        "affine": affine,
        "axis_labels": AXIS_LABELS,
    }


def _keeps_axes(affine: NDArray[np.float64]) -> bool:
    """Say whether every axis runs more along its own axis of the world than along another."""
    return bool((np.abs(affine[:3, :3]).argmax(axis=0) == np.arange(3)).all())


def volume_from_layer(image: Any, attributes: Mapping[str, Any]) -> Volume:
    """Return a volume with the geometry of a layer.

    Parameters
    ----------
    image : (C, Z, Y, X)
    attributes : mapping
        As napari hands them to a writer: scale, translate, rotate, shear, affine, units, name.
        Units that differ between axes are converted to that of x.
    """
    to_physical = CompositeAffine(
        attributes["scale"],
        attributes["translate"],
        rotate=attributes["rotate"],
        shear=attributes["shear"],
    ).affine_matrix
    to_world = np.asarray(attributes["affine"]) @ to_physical
    units = attributes["units"]
    to_world[:3] *= [[float((1 * unit).to(units[-1]).magnitude)] for unit in units]
    spacing = np.linalg.norm(to_world[:3, :3], axis=0)
    plain = np.allclose(to_world, np.diag([*spacing, 1.0]), rtol=1e-9, atol=1e-9)
    z, y, x = (float(s) for s in spacing)
    return Volume(image, (z, y, x), str(units[-1]), None if plain else to_world, attributes["name"])


def voxel_under(layer: Layer, event: Any) -> tuple[int, int, int]:
    """Return the voxel (z, y, x) of a layer under a mouse event; it may lie outside."""
    z, y, x = (int(v) for v in np.round(layer.world_to_data(event.position))[-3:])
    return z, y, x
