"""The commands on finished masks; as in ``app``, their work is imported only when asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from napari_volseg.cli.options import Json, Output, Unlabeled
from napari_volseg.cli.terminal import check_output, print_json
from napari_volseg.data.annotation import UNLABELED
from napari_volseg.data.errors import InputError


def compare(
    a: Path,
    b: Path,
    /,
    *,
    image: Path | None = None,
    output: Output,
    unlabeled: Unlabeled | None = None,
    smallest: int = 8,
    as_json: Json = False,
) -> None:
    """Compare two masks, voxel by voxel and object by object; writes a page with pictures.

    Parameters
    ----------
    a
        Labels of every voxel; 1 is the background. A prediction, for example.
    b
        Labels of the same volume, taken as the reference: the truth, or another prediction.
    image
        The image that was segmented, for the pictures.
    output
        HTML file to write.
    unlabeled
        Label that means unlabeled in both (0), or "none" if every voxel is labeled. If it is
        not 0, and 0 is a class, all classes of that mask move up by one.
    smallest
        Voxels of the smallest object; what is smaller is left out.
    as_json
        Print one JSON document.
    """
    files = (a, b) if image is None else (a, b, image)
    check_output(output, files)
    if output.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"{output}: the report is a page; end its name with .html")
    from napari_volseg.cli.compare import compare_files, table

    comparison = compare_files(a, b, image, unlabeled, smallest, output)
    if as_json:
        print_json({**comparison.to_json(), "report": str(output)})
    else:
        print(table(comparison))
        print(output)


def surfaces(
    mask: Path,
    /,
    *,
    output: Output,
    form: Annotated[str | None, Parameter(name="--format")] = None,
    smooth: int = 10,
    unlabeled: Unlabeled = UNLABELED,
    smallest: int = 8,
    as_json: Json = False,
) -> None:
    """Write the objects of a mask as closed surfaces, in its physical units.

    Parameters
    ----------
    mask
        Labels. Every connected region of one label is an object, except of 1, the background.
    output
        A file .stl, .obj or .ply for all objects together; any other name is a folder, for a
        file for each object.
    form
        Format of the files in a folder: stl (the default), obj or ply.
    smooth
        How often to smooth the steps between voxels; 0 leaves the surfaces as they are.
    unlabeled
        Label that means unlabeled in the mask, or "none". If it is not 0, and 0 is a class, all
        classes move up by one: say none for a mask whose background is 0.
    smallest
        Voxels of the smallest object; what is smaller is left out.
    as_json
        Print one JSON document.
    """
    check_output(output, (mask,))
    from napari_volseg.cli.surfaces import run_surfaces, table

    rows = run_surfaces(mask, output, form, smooth, unlabeled, smallest)
    if as_json:
        print_json(rows)
    else:
        print(table(rows))
