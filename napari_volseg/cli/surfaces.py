"""The work of ``napari-volseg surfaces``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_volseg.cli.terminal import follow, progress, say
from napari_volseg.data.errors import InputError
from napari_volseg.data.files import read_annotation, read_volume
from napari_volseg.data.volume import Volume
from napari_volseg.inference.large import is_large
from napari_volseg.review.objects import finding_objects
from napari_volseg.review.surfaces import (
    SURFACE_SUFFIXES,
    find_surfaces,
    surface_name,
    write_surfaces,
)

if TYPE_CHECKING:
    from trimesh import Trimesh

    from napari_volseg.data.annotation import Annotation


def run_surfaces(
    mask: Path, output: Path, form: str | None, smooth: int, unlabeled: int, smallest: int
) -> list[dict[str, Any]]:
    """Read a mask, write the surfaces of its objects, and return a row for each.

    Parameters
    ----------
    output : Path
        A file for all, or a folder (made if there is none) for a file for each.
    form : str or None
        Suffix, without its dot, of the files in a folder.
    unlabeled : int
        Label that means unlabeled in the mask.

    Raises
    ------
    InputError
        If the mask cannot be read or holds no object, or for an option that cannot be.
    """
    single = output.suffix.lower() in SURFACE_SUFFIXES
    suffix = output.suffix.lower() if single else f".{form or 'stl'}"
    _check_options(output, form, suffix, smooth)
    annotation = read_annotation(mask, unlabeled=unlabeled, in_blocks=is_large)
    volume = _geometry(mask, annotation)
    objects = follow(finding_objects(annotation.labels, smallest), f"objects of {mask.name}")
    if not objects.found:
        raise InputError(
            f"{mask}: no object of {smallest} voxels or more; 1 is the background, and with "
            "--unlabeled none 0 is"
        )
    if not single:
        output.mkdir(exist_ok=True)
    names = {c.id: c.name for c in annotation.classes}
    ids = range(1, len(objects.found) + 1)
    meshes: dict[str, Trimesh] = {}
    rows = []
    with progress(mask.name) as report:
        for found, mesh in find_surfaces(objects, ids, volume, annotation.classes, smooth=smooth):
            name = surface_name(found)
            file = output if single else output / f"{name}{suffix}"
            if single:
                meshes[name] = mesh
            else:
                write_surfaces(file, {name: mesh})
            rows.append(
                {
                    "object": found.id,
                    "class": names[found.mask_label],
                    "label": found.mask_label,
                    "voxels": found.voxels,
                    "volume": float(mesh.volume),
                    "area": float(mesh.area),
                    "unit": volume.unit,
                    "file": str(file),
                }
            )
            report(found.id / len(ids), f"surface {found.id} of {len(ids)}")
    if single:
        write_surfaces(output, meshes)
    return rows


def _check_options(output: Path, form: str | None, suffix: str, smooth: int) -> None:
    known = ", ".join(SURFACE_SUFFIXES)
    if suffix not in SURFACE_SUFFIXES:
        raise InputError(f"--format is {form}; give one of {known.replace('.', '')}")
    if form is not None and output.suffix.lower() in SURFACE_SUFFIXES:
        raise InputError(f"{output}: --format is for a folder; the name of a file says its own")
    if output.suffix.lower() not in SURFACE_SUFFIXES and output.exists() and not output.is_dir():
        raise InputError(f"{output}: is no folder; give one, or end the name with one of {known}")
    if smooth < 0:
        raise InputError(f"--smooth is {smooth}; give 0 or more")


def _geometry(mask: Path, annotation: Annotation) -> Volume:
    """Return a volume that says where the voxels of a mask are."""
    try:
        return read_volume(mask)
    except InputError:
        # Labels may be of a type that no image has, as int64.
        say(f"{mask}: its voxel size is not known for labels of this type; surfaces are in voxels")
        return Volume(np.broadcast_to(np.uint8(0), (1, *annotation.labels.shape)))


def table(rows: list[dict[str, Any]]) -> str:
    """Return the surfaces for reading: how many of each class, how large, and where."""
    unit = rows[0]["unit"]
    lines = []
    for name in dict.fromkeys(row["class"] for row in rows):
        of_class = [row for row in rows if row["class"] == name]
        volume, area = (sum(row[key] for row in of_class) for key in ("volume", "area"))
        lines.append(
            f"{name}: {len(of_class)} objects, volume {volume:.4g} {unit}^3, "
            f"area {area:.4g} {unit}^2"
        )
    files = [Path(name) for name in dict.fromkeys(row["file"] for row in rows)]
    where = str(files[0]) if len(files) == 1 else f"{len(files)} files in {files[0].parent}"
    return "\n".join([*lines, where])
