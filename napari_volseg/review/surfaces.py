"""Objects of a mask as closed surfaces, in files that 3D programs read.

scikit-image finds the surfaces (napari brings it along); trimesh writes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import ImageColor
from skimage.measure import marching_cubes
from trimesh import Scene, Trimesh
from trimesh.smoothing import filter_taubin
from trimesh.util import concatenate

from napari_volseg.data.atomic import saving
from napari_volseg.data.tiles import start_of
from napari_volseg.review.room import check_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_volseg.data.annotation import LabelClass
    from napari_volseg.data.volume import Volume
    from napari_volseg.review.objects import FoundObject, Objects

SURFACE_SUFFIXES = (".stl", ".obj", ".ply")

SMOOTH = 10
"""Passes of smoothing, half of them shrinking and half growing again."""

# At exactly half, the corners of a cube of voxels can be ambiguous in a way that two neighboring
# cubes decide differently: a hole.
LEVEL = 0.499


def find_surfaces(
    objects: Objects,
    numbers: Iterable[int],
    volume: Volume,
    classes: Sequence[LabelClass] = (),
    *,
    smooth: int = SMOOTH,
) -> Iterator[tuple[FoundObject, Trimesh]]:
    """Find the surface of each object, half way between its outer voxels and their neighbors.

    Every surface is closed (watertight), also where the object touches the border of the
    volume.

    Parameters
    ----------
    numbers : iterable of int
        Ids of the objects wanted.
    volume : Volume
        Its affine, or else its spacing, says where the voxels are.
    classes : sequence of LabelClass
        Give the objects their colors.
    smooth : int
        Passes of Taubin's filter, which takes the steps between voxels off and keeps the
        volume; 0 for none.

    Raises
    ------
    InputError
        If the box of an object of a large volume does not fit into the memory.

    Yields
    ------
    FoundObject and Trimesh
        Vertices are (x, y, z) in the volume's unit, the first voxel's center at 0 or where
        the affine puts it; faces are seen counterclockwise from outside.
    """
    to_world = np.diag([*volume.spacing, 1.0]) if volume.affine is None else volume.affine
    colors = {c.id: ImageColor.getrgb(c.color) for c in classes}
    for number in numbers:
        found = objects.get(number)
        check_room(objects.labels, found.box, f"leave out object {number}")
        mesh = _surface(objects.labels[found.box] == number)
        starts = start_of(found.box)
        positions = np.asarray(mesh.vertices) + starts
        mesh.vertices = (positions @ to_world[:3, :3].T + to_world[:3, 3])[:, ::-1]
        if mesh.volume < 0:  # the axes changed hands
            mesh.invert()
        filter_taubin(mesh, iterations=smooth)  # type: ignore[no-untyped-call]
        if found.mask_label in colors:
            mesh.visual.vertex_colors = colors[found.mask_label]  # type: ignore[union-attr]
        yield found, mesh


def _surface(member: NDArray[np.bool_]) -> Trimesh:
    """Return the surface of a mask (Z, Y, X), its vertices (z, y, x) in voxels."""
    padded = np.pad(member, 1).astype(np.float32)
    vertices, faces, _, _ = marching_cubes(padded, LEVEL)  # type: ignore[no-untyped-call]
    return Trimesh(vertices.astype(np.float64) - 1, faces, process=False)


def write_surfaces(path: Path, meshes: Mapping[str, Trimesh]) -> None:
    """Write named surfaces into one file; it appears whole or not at all.

    OBJ keeps the names, OBJ and PLY the colors, STL neither; none of them knows units.

    Parameters
    ----------
    path : Path
        Ends with one of ``SURFACE_SUFFIXES``.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    named = path.suffix.lower() == ".obj"
    together = Scene(dict(meshes)) if named else concatenate([*meshes.values()])  # type: ignore[arg-type]
    with saving(path) as temporary:
        together.export(temporary)  # type: ignore[no-untyped-call]


def surface_name(found: FoundObject) -> str:
    """Return what to call the surface of an object, as "object_12_class_3"."""
    return f"object_{found.id}_class_{found.mask_label}"
